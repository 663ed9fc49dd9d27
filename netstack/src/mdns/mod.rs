//! Multicast DNS (RFC 6762) between a bridge network and one of the host's interfaces (`-o mdns`), so that
//! containers are found by, and find, what is on the LAN. Its packets never leave a link, so somebody has to
//! repeat them: one of the network's monitors does, on sockets in the host's namespace.
//!
//! Nothing is remembered or answered. What changes on the way is in [`message`]: questions ask for answers
//! by multicast, because one by unicast would come to the host, and where containers are behind NAT, their
//! addresses and ports become those under which the LAN reaches them.

mod home;
mod message;
mod side;
mod turn;

use crate::model::{Endpoint, Network};
use crate::networks::{BridgeOptions, Netstack, uplink};
use crate::poll::{Interest, Poller};
use home::Home;
use plan::Result;
use side::{PORT, Side};
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};
use turn::Turn;

/// The file by which the monitors of a network agree on one of them.
const TURN: &str = "mdns";
/// RFC 6762, 17: nothing is larger.
const LARGEST: usize = 9000;
/// Packets of one socket before others get their turn.
const BATCH: usize = 64;
/// How long an answer to a question from another port is waited for, and how many of them.
const ANSWER: Duration = Duration::from_secs(5);
const ASKERS: usize = 32;
/// What comes back within this time is an echo of what we said.
const ECHO: Duration = Duration::from_secs(1);
const ECHOES: usize = 64;
/// Interfaces that come and go tell nobody here.
const LOOK: Duration = Duration::from_secs(30);

const BRIDGE: usize = 0;
const LAN: usize = 1;

/// One network of a container, and its monitor's part in reflecting for it.
#[derive(Debug)]
pub(crate) struct Member {
    pub network_id: String,
    netstack: Netstack,
    /// An interface, or `auto`.
    uplink: String,
    turn: Turn,
    /// This monitor's turn, and everything is there.
    active: Option<Reflector>,
    /// When to look again: at the interfaces, or whether something is there that was not.
    next: Option<Instant>,
}

impl Member {
    /// `None`: its network has no mDNS.
    pub fn of(netstack: &Netstack, endpoint: &Endpoint) -> Option<Member> {
        let path = netstack.state.join("networks").join(&endpoint.network_id).join(TURN);
        Some(Member {
            network_id: endpoint.network_id.clone(),
            netstack: netstack.clone(),
            uplink: endpoint.mdns.clone()?,
            turn: Turn::new(path),
            active: None,
            next: Some(Instant::now()),
        })
    }

    pub fn interest(&self) -> Option<Interest> {
        match &self.active {
            Some(reflector) => Some(reflector.poller.interest()),
            None => Some(Interest { fd: self.turn.fd()?, read: true, write: false }),
        }
    }

    pub fn timeout(&self) -> Option<Duration> {
        let asked = self.active.as_ref().and_then(|r| r.askers.first()).map(|a| a.until);
        self.next.into_iter().chain(asked).min().map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// Repeats what has come in, or takes over from who did; never blocks.
    pub fn ready(&mut self) {
        let now = Instant::now();
        if self.next.is_some_and(|at| at <= now) || self.turn.is_free() {
            // There is nobody to tell. It is tried again.
            if self.look().is_err() {
                self.active = None;
                self.turn.give_up();
            }
        }
        if let Some(reflector) = &mut self.active {
            reflector.ready(&self.netstack);
        }
    }

    fn look(&mut self) -> Result<()> {
        self.next = Some(Instant::now() + LOOK);
        if !self.turn.take()? {
            // Who has it will hang up.
            self.next = None;
            return Ok(());
        }
        let network = self.netstack.network(&self.network_id)?;
        let bridge = Side::open(&BridgeOptions::of(&network).bridge_name(&network.id))?;
        let lan = Side::open(&uplink::way_out(&self.uplink)?)?;
        match &mut self.active {
            // The groups are joined where they were: nothing is lost in between.
            Some(reflector) if reflector.is_on(&bridge, &lan) => reflector.refresh(network, bridge, lan),
            _ => self.active = Some(Reflector::new(network, bridge, lan)?),
        }
        Ok(())
    }
}

/// A question from a port that is not mDNS's: whoever asks wants the answer there (6.7).
#[derive(Debug)]
struct Asker {
    from: SocketAddr,
    side: usize,
    socket: UdpSocket,
    until: Instant,
    token: u64,
}

#[derive(Debug)]
struct Reflector {
    sides: [Side; 2],
    network: Network,
    poller: Poller,
    askers: Vec<Asker>,
    /// What was said lately: the hash of it, and where.
    said: VecDeque<(Instant, u64, usize)>,
    tokens: u64,
}

impl Reflector {
    fn new(network: Network, bridge: Side, lan: Side) -> Result<Reflector> {
        let poller = Poller::new()?;
        let sides = [bridge, lan];
        for (at, side) in sides.iter().enumerate() {
            for (family, socket) in side.sockets.iter().enumerate() {
                if let Some(socket) = socket {
                    poller
                        .add_read(socket, (at * 2 + family) as u64)
                        .map_err(|e| plan::Error::os("watch a socket for mDNS", e.raw_os_error()))?;
                }
            }
        }
        Ok(Reflector { sides, network, poller, askers: Vec::new(), said: VecDeque::new(), tokens: 4 })
    }

    /// On the same interfaces, with the same families.
    fn is_on(&self, bridge: &Side, lan: &Side) -> bool {
        let same = |a: &Side, b: &Side| {
            let families = |s: &Side| [s.sockets[0].is_some(), s.sockets[1].is_some()];
            a.index == b.index && families(a) == families(b)
        };
        same(&self.sides[BRIDGE], bridge) && same(&self.sides[LAN], lan)
    }

    /// Addresses may be others by now.
    fn refresh(&mut self, network: Network, bridge: Side, lan: Side) {
        self.network = network;
        (self.sides[BRIDGE].own, self.sides[LAN].own) = (bridge.own, lan.own);
    }

    fn ready(&mut self, netstack: &Netstack) {
        let mut tokens = Vec::new();
        self.poller.ready(&mut tokens);
        let mut buffer = Vec::new();
        for token in tokens {
            buffer.resize(LARGEST, 0);
            match token {
                0..4 => self.pass_on(netstack, token as usize / 2, token % 2 == 1, &mut buffer),
                _ => self.answer(netstack, token, &mut buffer),
            }
        }
        let now = Instant::now();
        self.askers.retain(|a| a.until > now);
    }

    /// From one side to the other.
    fn pass_on(&mut self, netstack: &Netstack, side: usize, ipv6: bool, buffer: &mut [u8]) {
        for _ in 0..BATCH {
            let Some(socket) = &self.sides[side].sockets[usize::from(ipv6)] else { return };
            let Ok((length, from)) = socket.recv_from(buffer) else { return };
            let message = &mut buffer[..length];
            if self.sides[side].own.contains(&from.ip()) || self.is_echo(side, message) {
                continue;
            }
            if side == BRIDGE {
                message::translate(message, &Home::of(netstack, &self.network, &self.sides[LAN].own, from.ip()));
            }
            let other = 1 - side;
            if !message::is_query(message) {
                self.sides[other].say(ipv6, message);
                self.note(other, message);
                continue;
            }
            message::ask_for_multicast(message);
            if from.port() == PORT {
                self.sides[other].say(ipv6, message);
                self.note(other, message);
            } else if let Some(socket) = self.sides[other].ask(ipv6, message) {
                self.expect_answer(from, side, socket);
            }
        }
    }

    fn expect_answer(&mut self, from: SocketAddr, side: usize, socket: UdpSocket) {
        if self.askers.len() >= ASKERS {
            // Who has waited longest gets nothing any more.
            self.askers.remove(0);
        }
        let token = self.tokens;
        self.tokens += 1;
        if self.poller.add_read(&socket, token).is_ok() {
            self.askers.push(Asker { from, side, socket, until: Instant::now() + ANSWER, token });
        }
    }

    /// To the one who asked.
    fn answer(&mut self, netstack: &Netstack, token: u64, buffer: &mut [u8]) {
        let Some(asker) = self.askers.iter().find(|a| a.token == token) else { return };
        for _ in 0..BATCH {
            let Ok((length, from)) = asker.socket.recv_from(buffer) else { return };
            let message = &mut buffer[..length];
            if asker.side == LAN {
                message::translate(message, &Home::of(netstack, &self.network, &self.sides[LAN].own, from.ip()));
            }
            if let Some(back) = &self.sides[asker.side].sockets[usize::from(asker.from.is_ipv6())] {
                let _ = back.send_to(message, asker.from);
            }
        }
    }

    /// Somebody else repeats too, and there is a way round.
    fn is_echo(&mut self, side: usize, message: &[u8]) -> bool {
        let now = Instant::now();
        self.said.retain(|(at, ..)| now.duration_since(*at) < ECHO);
        let hash = hash_of(message);
        self.said.iter().any(|(_, said, at)| *said == hash && *at == side)
    }

    fn note(&mut self, side: usize, message: &[u8]) {
        if self.said.len() >= ECHOES {
            self.said.pop_front();
        }
        self.said.push_back((Instant::now(), hash_of(message), side));
    }
}

fn hash_of(message: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    message.hash(&mut hasher);
    hasher.finish()
}
