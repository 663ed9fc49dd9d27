//! The relay: what DNAT cannot deliver, the monitor carries over the socket it holds anyway.
//!
//! The firewall rewrites what arrives for a published port, so these sockets stay silent, but for
//! - [::1]: IPv6 has no `route_localnet`, packets to it cannot leave the loopback interface;
//! - an address of the family the container does not have.
//!
//! Such a connection reaches the container from the host's address on the bridge. Where DNAT is
//! possible nothing is relayed, even if the firewall was flushed behind our back: a server must
//! never take a stranger for its host (moby#15086).

mod tcp;
mod udp;

use super::ports::HeldSocket;
use super::socket::Scope;
use crate::model::Proto;
use crate::poll::{Interest, Poller};
use plan::{Error, Result};
use rustix::event::epoll::EventFlags;
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

/// The container's addresses on the network that its ports are published from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target {
    pub ipv4: Option<Ipv4Addr>,
    pub ipv6: Option<Ipv6Addr>,
}

/// Where a held socket sends the clients of each family; `None`: not the relay's business.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Route {
    from4: Option<IpAddr>,
    from6: Option<IpAddr>,
    /// Where a stream goes that is refused there.
    refused: Option<IpAddr>,
}

impl Target {
    fn route(self, scope: Scope) -> Route {
        let (v4, v6) = (self.ipv4.map(IpAddr::from), self.ipv6.map(IpAddr::from));
        // DNAT handles IPv4 to IPv4, and IPv6 to IPv6 other than [::1].
        let from4 = if v4.is_none() { v6 } else { None };
        let from6 = v6.or(v4);
        let (from4, from6) = match scope {
            Scope::Any => (from4, from6),
            Scope::One(IpAddr::V4(_)) => (from4, None),
            Scope::One(IpAddr::V6(ip)) if v6.is_none() || ip.is_loopback() || ip.is_unspecified() => (None, from6),
            Scope::One(IpAddr::V6(_)) => (None, None),
        };
        Route { from4, from6, refused: None }
    }
}

impl Route {
    /// To the host's own loopback. A program that listens on `localhost` may be found on either address.
    fn host() -> Route {
        let v4 = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
        Route { from4: v4, from6: v4, refused: Some(IpAddr::V6(Ipv6Addr::LOCALHOST)) }
    }

    fn is_empty(self) -> bool {
        self == Route::default()
    }

    fn to(self, client: IpAddr) -> Option<IpAddr> {
        if client.is_ipv4() { self.from4 } else { self.from6 }
    }
}

/// Tokens: a connection's or session's key in its table, plus one of these.
const LISTENERS: u64 = 1 << 60;
const TCP: u64 = 2 << 60;
const UDP_SOCKET: u64 = 3 << 60;
const UDP_SESSION: u64 = 4 << 60;
const KIND: u64 = 0xf << 60;

/// So many sockets begin to listen before the monitor's other work gets its turn: 0.1 ms.
const AT_ONCE: usize = 64;
/// A container that ends sooner is spared the others.
const REST: Duration = Duration::from_millis(20);

/// How long the listeners are left alone when no connection can be taken.
const MUTE: Duration = Duration::from_millis(100);

/// Everything that is being relayed for one container. One descriptor to poll, memory only for
/// bytes that the other side has not taken yet.
#[derive(Debug)]
pub(crate) struct Relay {
    poller: Poller,
    /// The listening sockets, apart: at the limit of connections they are muted together.
    listeners: Poller,
    /// Muted until then, for want of descriptors or at the limit of connections.
    muted: Option<Instant>,
    routes: Vec<Route>,
    /// Which held sockets listen by now.
    watched: Vec<bool>,
    /// Places of those that do not yet…
    waiting: VecDeque<usize>,
    /// …and until when they are left alone.
    resting: Option<Instant>,
    tcp: tcp::Connections,
    udp: udp::Sessions,
}

impl Relay {
    /// Prepares for those of `held` that `target` needs relayed; `None` if it needs none.
    pub fn start(held: &[Option<HeldSocket>], target: Target) -> Result<Option<Relay>> {
        if held.iter().flatten().all(|h| h.proto == Proto::Sctp || target.route(h.scope).is_empty()) {
            return Ok(None);
        }
        let mut relay = Relay::new()?;
        relay.retarget(held, target);
        Ok(Some(relay))
    }

    /// Prepares to relay all of `held` to the loopback of this thread's namespace.
    pub fn to_the_host(held: &[Option<HeldSocket>]) -> Result<Relay> {
        let mut relay = Relay::new()?;
        relay.route(held, |_| Route::host());
        Ok(relay)
    }

    fn new() -> Result<Relay> {
        let relay = Relay {
            poller: Poller::new()?,
            listeners: Poller::new()?,
            muted: None,
            routes: Vec::new(),
            watched: Vec::new(),
            waiting: VecDeque::new(),
            resting: None,
            tcp: tcp::Connections::new(),
            udp: udp::Sessions::new(),
        };
        relay
            .poller
            .add_nested(&relay.listeners, LISTENERS)
            .map_err(|e| Error::os("watch listening sockets", e.raw_os_error()))?;
        Ok(relay)
    }

    /// The container's addresses have changed, or its ports: new clients go to the new ones, once
    /// [`Relay::listen`] has been called.
    pub fn retarget(&mut self, held: &[Option<HeldSocket>], target: Target) {
        self.route(held, |h| target.route(h.scope));
    }

    fn route(&mut self, held: &[Option<HeldSocket>], to: impl Fn(&HeldSocket) -> Route) {
        self.routes = held.iter().map(|h| h.as_ref().map_or(Route::default(), &to)).collect();
        self.watched.resize(held.len(), false);
        self.waiting = (0..held.len()).filter(|&i| !self.watched[i] && !self.routes[i].is_empty()).collect();
    }

    /// Begins to listen on a few of the sockets that do not yet; the others follow a little later by
    /// [`Relay::ready`].
    pub fn listen_to_some(&mut self, held: &[Option<HeldSocket>]) -> Result<()> {
        self.resting = Some(Instant::now() + REST);
        self.listen(held, AT_ONCE)
    }

    /// Begins to listen on at most so many of the sockets that do not yet.
    pub fn listen(&mut self, held: &[Option<HeldSocket>], most: usize) -> Result<()> {
        for _ in 0..most {
            let Some(i) = self.waiting.pop_front() else { break };
            let Some(h) = &held[i] else { continue };
            let started = match h.proto {
                Proto::Tcp => tcp::listen(&h.socket).and_then(|()| self.listeners.add_read(&h.socket, i as u64)),
                Proto::Udp => udp::prepare(h).and_then(|()| self.poller.add_read(&h.socket, UDP_SOCKET | i as u64)),
                Proto::Sctp => continue,
            };
            started.map_err(|e| {
                Error::os(format!("relay a published port to container port {}", h.container_port), e.raw_os_error())
            })?;
            self.watched[i] = true;
        }
        Ok(())
    }

    /// The socket at place `i` is about to be closed (which ends its watch): so are the connections
    /// that came by it.
    pub fn forget(&mut self, i: usize) {
        if let Some(watched) = self.watched.get_mut(i)
            && std::mem::take(watched)
        {
            self.tcp.cut(i);
            self.udp.cut(i);
        }
    }

    pub fn interest(&self) -> Interest {
        self.poller.interest()
    }

    pub fn timeout(&self) -> Option<Duration> {
        let now = Instant::now();
        let muted = self.muted.map(|until| until.saturating_duration_since(now));
        let work = self.tcp.has_work().then_some(Duration::ZERO);
        let rest = (!self.waiting.is_empty())
            .then(|| self.resting.map_or(Duration::ZERO, |until| until.saturating_duration_since(now)));
        [muted, work, rest, self.udp.timeout(now)].into_iter().flatten().min()
    }

    /// Does what can be done without waiting; to be called when the descriptor is readable or the
    /// timeout has passed.
    pub fn ready(&mut self, held: &[Option<HeldSocket>]) {
        let now = Instant::now();
        // What cannot listen now cannot listen a moment later; the firewall's ports do not depend on it.
        if self.resting.is_none_or(|until| until <= now) && self.listen(held, AT_ONCE).is_err() {
            self.waiting.clear();
        }
        let mut tokens = Vec::new();
        self.poller.ready(&mut tokens);
        for token in tokens {
            let key = token & !KIND;
            match token & KIND {
                LISTENERS => self.accept(held, now),
                TCP => self.tcp.wake(key),
                UDP_SOCKET => {
                    let i = key as usize;
                    if let Some(h) = &held[i] {
                        self.udp.requests(&self.poller, i, h, self.routes[i], now);
                    }
                }
                _ => self.udp.answers(held, key, now),
            }
        }
        self.tcp.work();
        self.udp.expire(now);
        if self.muted.is_some_and(|until| until <= now) {
            self.mute(if self.tcp.has_room() { None } else { Some(now + MUTE) });
        }
    }

    fn accept(&mut self, held: &[Option<HeldSocket>], now: Instant) {
        let mut tokens = Vec::new();
        self.listeners.ready(&mut tokens);
        for i in tokens {
            let i = i as usize;
            let Some(h) = &held[i] else { continue };
            let enough = self.tcp.accept(&self.poller, i, h, self.routes[i]);
            if enough || !self.tcp.has_room() {
                // Out of descriptors or at the limit: the rest waits in the kernel's backlog.
                return self.mute(Some(now + MUTE));
            }
        }
    }

    fn mute(&mut self, until: Option<Instant>) {
        let flags = if until.is_some() { EventFlags::empty() } else { EventFlags::IN };
        // Cannot fail for a descriptor that is in the instance.
        let _ = self.poller.want_nested(&self.listeners, LISTENERS, flags);
        self.muted = until;
    }
}

#[cfg(test)]
mod tests;
