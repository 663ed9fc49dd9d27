//! The resolver inside a container's network namespace, at 127.0.0.11: names of neighbours from
//! the endpoint records, everything else passed on.
//!
//! One server a container, in its monitor, asleep until asked. Its sockets live in the container's
//! namespace on a random port, to which port 53 of 127.0.0.11 is rewritten ([`crate::nl::redirect`]):
//! so a container may itself serve DNS on 0.0.0.0:53, and the host's port 53 is nobody's concern.

mod clients;
mod forward;
mod message;
mod upstream;
mod zone;

pub use zone::SharedNetwork;

use crate::nl;
use crate::poll::{Interest, Poller};
use clients::{Clients, Want};
use forward::Lookups;
use message::{Incoming, Query};
use plan::{Result, ResultExt};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use upstream::Upstreams;
use zone::{Found, Zone};

/// Where a container finds its resolver.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
const PORT: u16 = 53;
/// Questions answered for one socket before the monitor's other work gets its turn.
const TURN: usize = 256;
/// No question by UDP is longer.
const LARGEST: usize = 4096;
const BACKLOG: i32 = 64;
/// The same port must be free for UDP and TCP.
const BIND_TRIES: usize = 16;

/// Tokens: a key of the table concerned, plus one of these.
const UDP: u64 = 1 << 60;
const LISTENER: u64 = 2 << 60;
const CLIENT: u64 = 3 << 60;
const UPSTREAM: u64 = 4 << 60;
const KIND: u64 = 0xf << 60;

/// Who waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asker {
    Udp(SocketAddrV4),
    /// Key of the client's connection.
    Tcp(u64),
}

/// The server's bound sockets.
#[derive(Debug)]
pub struct Sockets {
    udp: OwnedFd,
    tcp: OwnedFd,
    port: u16,
}

/// Binds the server's sockets and redirects port 53 of 127.0.0.11 to them, all in the network
/// namespace this thread is in; its loopback interface must be up.
pub fn bind_in_current_netns() -> Result<Sockets> {
    let sockets = bind(ADDRESS)?;
    nl::redirect(ADDRESS, PORT, sockets.port)?;
    Ok(sockets)
}

fn bind(address: Ipv4Addr) -> Result<Sockets> {
    let open = |kind| {
        rustix::net::socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
            .doing(|| "open a socket for DNS")
    };
    let mut tries = 0;
    loop {
        tries += 1;
        let (udp, tcp) = (open(SocketType::DGRAM)?, open(SocketType::STREAM)?);
        rustix::net::bind(&udp, &SocketAddr::new(address.into(), 0)).doing(|| format!("bind DNS to {address}"))?;
        let bound = rustix::net::getsockname(&udp).and_then(SocketAddr::try_from).doing(|| "bind DNS")?;
        match rustix::net::bind(&tcp, &bound) {
            Err(Errno::ADDRINUSE) if tries < BIND_TRIES => continue,
            other => other.doing(|| format!("bind DNS to {bound}"))?,
        }
        rustix::net::listen(&tcp, BACKLOG).doing(|| format!("listen on {bound}"))?;
        return Ok(Sockets { udp, tcp, port: bound.port() });
    }
}

/// What the server has to know.
#[derive(Debug)]
pub struct Config {
    pub state: PathBuf,
    /// Those the container is on.
    pub networks: Vec<SharedNetwork>,
    /// `--dns`: asked from within the container's namespace, instead of the host's servers.
    pub servers: Vec<IpAddr>,
    /// May the host's servers be asked? Not if every network of the container is internal.
    pub forwards_to_host: bool,
    /// The host's resolver configuration, /etc/resolv.conf.
    pub resolv_conf: PathBuf,
    /// The container's network namespace.
    pub netns: OwnedFd,
}

#[derive(Debug)]
pub struct Server {
    poller: Poller,
    sockets: Sockets,
    zone: Zone,
    upstreams: Upstreams,
    resolv_conf: PathBuf,
    lookups: Lookups,
    clients: Clients,
    /// Connections whose turn was over before their questions were.
    unfinished: Vec<u64>,
    /// Rotates the addresses of a name from one answer to the next.
    turn: usize,
    /// Port of the servers asked.
    port: u16,
}

impl Server {
    pub fn new(sockets: Sockets, config: Config) -> Result<Server> {
        let mut server = Server::asking_at(sockets, &config, PORT)?;
        // Asked to ask itself, the server would never stop.
        let others: Vec<IpAddr> = config.servers.iter().copied().filter(|ip| *ip != IpAddr::from(ADDRESS)).collect();
        if !others.is_empty() {
            server.upstreams = Upstreams::given(&others, PORT, config.netns)?;
        }
        Ok(server)
    }

    fn asking_at(sockets: Sockets, config: &Config, port: u16) -> Result<Server> {
        let poller = Poller::new()?;
        let clients = Clients::new(&sockets.tcp);
        poller.add_read(&sockets.udp, UDP).doing(|| "watch the DNS socket")?;
        poller.add_read(&sockets.tcp, LISTENER).doing(|| "watch the DNS socket")?;
        let mut server = Server {
            poller,
            sockets,
            zone: Zone::new(&config.state),
            upstreams: Upstreams::none(),
            resolv_conf: config.resolv_conf.clone(),
            lookups: Lookups::new(),
            clients,
            unfinished: Vec::new(),
            turn: 0,
            port,
        };
        server.set_networks(&config.networks, config.forwards_to_host);
        Ok(server)
    }

    /// The container was connected to a network or disconnected from one.
    pub fn set_networks(&mut self, networks: &[SharedNetwork], forwards_to_host: bool) {
        self.zone.set_networks(networks);
        if !self.upstreams.are_given() {
            self.upstreams = match forwards_to_host {
                true => Upstreams::of_host(&self.resolv_conf, self.port),
                false => Upstreams::none(),
            };
        }
    }

    pub fn interest(&self) -> Interest {
        self.poller.interest()
    }

    /// When [`Server::ready`] wants to be called at the latest.
    pub fn timeout(&self) -> Option<Duration> {
        if !self.unfinished.is_empty() {
            return Some(Duration::ZERO);
        }
        let next = [self.lookups.deadline(), self.clients.deadline()].into_iter().flatten().min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    /// Answers without ever blocking; to be called on readiness and on timeout.
    pub fn ready(&mut self) {
        let now = Instant::now();
        let mut tokens = Vec::new();
        self.poller.ready(&mut tokens);
        for token in tokens {
            let key = token & !KIND;
            match token & KIND {
                UDP => self.questions(now),
                LISTENER => {
                    let closed = self.clients.accept(&self.poller, &self.sockets.tcp, now);
                    closed.into_iter().for_each(|key| self.lookups.forget(Asker::Tcp(key)));
                }
                CLIENT => self.converse(key, now),
                _ => {
                    let reply = self.lookups.ready(&self.poller, &mut self.upstreams, key, now);
                    reply.into_iter().for_each(|(asker, answer)| self.send(asker, &answer, now));
                }
            }
        }
        for key in std::mem::take(&mut self.unfinished) {
            self.converse(key, now);
        }
        for (asker, answer) in self.lookups.expire(&self.poller, &mut self.upstreams, now) {
            self.send(asker, &answer, now);
        }
        for key in self.clients.expire(now) {
            self.lookups.forget(Asker::Tcp(key));
        }
    }

    fn questions(&mut self, now: Instant) {
        let mut buffer = [0; LARGEST];
        for _ in 0..TURN {
            match rustix::net::recvfrom(&self.sockets.udp, &mut buffer[..], RecvFlags::TRUNC) {
                // A cut question cannot be passed on.
                Ok((n, length, Some(from))) if length <= buffer.len() => {
                    let Ok(SocketAddr::V4(from)) = SocketAddr::try_from(from) else { continue };
                    if let Some(answer) = self.answer(&buffer[..n], Asker::Udp(from), now) {
                        self.send(Asker::Udp(from), &answer, now);
                    }
                }
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }

    /// One TCP client, until it waits for something or others must have their turn.
    fn converse(&mut self, key: u64, now: Instant) {
        for _ in 0..TURN {
            match self.clients.progress(key, now) {
                Want::Nothing => return,
                Want::Gone => return self.lookups.forget(Asker::Tcp(key)),
                Want::Answer(question) => match self.answer(&question, Asker::Tcp(key), now) {
                    Some(answer) => self.clients.reply(key, &answer),
                    None => return,
                },
            }
        }
        self.unfinished.push(key);
    }

    /// The answer, unless it has to be asked for first (or there is none to give).
    fn answer(&mut self, raw: &[u8], asker: Asker, now: Instant) -> Option<Vec<u8>> {
        let query = match message::parse(raw) {
            Incoming::Query(query) => query,
            Incoming::Broken(reply) => return Some(reply),
            Incoming::Noise => return None,
        };
        if let Some(refusal) = query.bad_version() {
            return Some(refusal);
        }
        self.zone.refresh();
        if let Some(reply) = self.local(&query, matches!(asker, Asker::Udp(_))) {
            return Some(reply);
        }
        // An answer at once is a refusal: to the asker, who is still here.
        let refused = self.lookups.ask(&self.poller, &mut self.upstreams, &query, asker, now);
        refused.map(|(_, reply)| reply)
    }

    /// From the zone. A name of ours is never passed on, whatever is asked about it: the host's
    /// servers need not learn what containers are called.
    fn local(&mut self, query: &Query, udp: bool) -> Option<Vec<u8>> {
        let found = self.zone.find(query.name.as_deref()?)?;
        let turn = self.turn;
        self.turn = turn.wrapping_add(1);
        Some(match found {
            Found::Name(name) if matches!(query.kind, message::PTR | message::ANY) => query.pointer(name),
            Found::Name(_) => query.empty(message::NOERROR),
            Found::Addresses(addresses) => {
                let wants = |kind| query.kind == kind || query.kind == message::ANY;
                let v4 = rotated(&addresses.ipv4, turn).filter(|_| wants(message::A)).map(|ip| IpAddr::from(*ip));
                let v6 = rotated(&addresses.ipv6, turn).filter(|_| wants(message::AAAA)).map(|ip| IpAddr::from(*ip));
                query.addresses(v4.chain(v6), udp)
            }
        })
    }

    fn send(&mut self, asker: Asker, answer: &[u8], now: Instant) {
        match asker {
            // A full buffer drops the answer, as a network might; the client asks again.
            Asker::Udp(to) => drop(rustix::net::sendto(&self.sockets.udp, answer, SendFlags::empty(), &to)),
            Asker::Tcp(key) => {
                self.clients.reply(key, answer);
                self.converse(key, now);
            }
        }
    }
}

fn rotated<T>(list: &[T], turn: usize) -> impl Iterator<Item = &T> {
    let (before, after) = list.split_at(if list.is_empty() { 0 } else { turn % list.len() });
    after.iter().chain(before)
}

#[cfg(test)]
mod tests;
