//! The resolver inside a container's network namespace, at 127.0.0.11: names of neighbours from
//! the endpoint records, everything else passed on.
//!
//! One server a container, in its monitor, asleep until asked. Its sockets live in the container's
//! namespace on a random port, to which port 53 of 127.0.0.11 is rewritten ([`crate::nl::redirect`]):
//! so a container may itself serve DNS on 0.0.0.0:53, and the host's port 53 is nobody's concern.

mod cache;
mod clients;
mod forward;
mod message;
mod records;
mod upstream;
mod zone;

pub use zone::SharedNetwork;

use crate::egress::{self, Gate};
use crate::nl;
use crate::poll::{Interest, Poller};
use cache::Cache;
use clients::{Clients, Want};
use forward::{Lookups, Reply};
use message::{Incoming, Query};
use plan::{Result, ResultExt};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use serde::Serialize;
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
    /// The records of networks, `<root>/networks`.
    pub records: PathBuf,
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
    /// `--egress`: what answers open, and which names may be asked for.
    pub gate: Option<Gate>,
}

/// What the server has done so far, for `inspect`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Counters {
    pub queries: u64,
    /// Names of containers.
    pub local: u64,
    pub cache_hits: u64,
    /// Passed on to a server.
    pub forwarded: u64,
    /// Refused: nobody to ask, or a name that `--egress` does not allow.
    pub refused: u64,
    /// No server had a good answer.
    pub failures: u64,
}

#[derive(Debug)]
pub struct Server {
    poller: Poller,
    sockets: Sockets,
    zone: Zone,
    upstreams: Upstreams,
    resolv_conf: PathBuf,
    records: PathBuf,
    lookups: Lookups,
    cache: Cache,
    gate: Option<Gate>,
    counters: Counters,
    clients: Clients,
    /// Connections whose turn was over before their questions were.
    unfinished: Vec<u64>,
    /// Rotates the addresses of a name from one answer to the next.
    turn: usize,
}

impl Server {
    pub fn new(sockets: Sockets, config: Config) -> Result<Server> {
        Server::asking_at(sockets, config, PORT)
    }

    fn asking_at(sockets: Sockets, config: Config, port: u16) -> Result<Server> {
        let poller = Poller::new()?;
        let clients = Clients::new(&sockets.tcp);
        poller.add_read(&sockets.udp, UDP).doing(|| "watch the DNS socket")?;
        poller.add_read(&sockets.tcp, LISTENER).doing(|| "watch the DNS socket")?;
        let mut server = Server {
            poller,
            sockets,
            zone: Zone::new(&config.state),
            // Asked to ask itself, the server would never stop.
            upstreams: Upstreams::new(
                &config.servers.into_iter().filter(|ip| *ip != IpAddr::from(ADDRESS)).collect::<Vec<_>>(),
                port,
            )
            .inside(config.netns, config.gate.is_some().then_some(egress::MARK)),
            resolv_conf: config.resolv_conf,
            records: config.records,
            lookups: Lookups::new(),
            cache: Cache::default(),
            gate: config.gate,
            counters: Counters::default(),
            clients,
            unfinished: Vec::new(),
            turn: 0,
        };
        server.set_networks(&config.networks, config.forwards_to_host);
        Ok(server)
    }

    /// The container was connected to a network or disconnected from one.
    pub fn set_networks(&mut self, networks: &[SharedNetwork], forwards_to_host: bool) {
        self.zone.set_networks(networks);
        let records = networks.iter().map(|n| self.records.join(format!("{}.json", n.id))).collect();
        self.upstreams.watch(records, forwards_to_host.then_some(&self.resolv_conf));
    }

    pub fn counters(&self) -> Counters {
        self.counters
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
                    reply.into_iter().for_each(|reply| self.deliver(reply, now));
                }
            }
        }
        for key in std::mem::take(&mut self.unfinished) {
            self.converse(key, now);
        }
        for reply in self.lookups.expire(&self.poller, &mut self.upstreams, now) {
            self.deliver(reply, now);
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
        self.counters.queries += 1;
        self.zone.refresh();
        let udp = matches!(asker, Asker::Udp(_));
        if let Some(reply) = self.local(&query, udp) {
            self.counters.local += 1;
            return Some(self.admitted(&query, reply, now));
        }
        if self.gate.as_ref().is_some_and(|gate| !gate.may_ask(query.name.as_deref())) {
            self.counters.refused += 1;
            return Some(query.empty(message::REFUSED));
        }
        if self.upstreams.refresh(now) {
            self.cache.clear();
        }
        if let Some(reply) = self.cache.get(&query, now) {
            self.counters.cache_hits += 1;
            let reply = self.admitted(&query, reply, now);
            return Some(query.fitted(reply, udp));
        }
        // An answer at once is a refusal, or that no server could even be asked: to the asker, who is
        // still here.
        match self.lookups.ask(&self.poller, &mut self.upstreams, &query, asker, now) {
            Some(reply) => {
                self.counters.refused += 1;
                Some(reply.answer)
            }
            None => {
                self.counters.forwarded += 1;
                None
            }
        }
    }

    /// A server's answer, on its way to whoever asked.
    fn deliver(&mut self, reply: Reply, now: Instant) {
        let Incoming::Query(query) = message::parse(&reply.query) else { return };
        let mut answer = reply.answer;
        if reply.good {
            self.cache.put(&query, &answer, now);
            answer = self.admitted(&query, answer, now);
        } else {
            self.counters.failures += 1;
        }
        self.send(reply.asker, &answer, now);
    }

    /// The answer, once the container is let out to the addresses in it. An address that would only
    /// be refused is no answer.
    fn admitted(&mut self, query: &Query, answer: Vec<u8>, now: Instant) -> Vec<u8> {
        let (Some(gate), Some(name)) = (&mut self.gate, query.name.as_deref()) else { return answer };
        if !gate.concerns(name) || gate.open(name, &records::addresses(&answer), now).is_ok() {
            return answer;
        }
        self.counters.failures += 1;
        query.empty(message::SERVFAIL)
    }

    /// From the zone. A name of ours is never passed on, whatever is asked about it: the host's
    /// servers need not learn what containers are called.
    fn local(&mut self, query: &Query, udp: bool) -> Option<Vec<u8>> {
        let name = query.name.as_deref()?;
        let Some(found) = self.zone.find(name) else {
            // `_5432._tcp.db`: names of services are nobody's but ours below a name of ours.
            let (port, host) = service(name)?;
            self.zone.find(host)?;
            return Some(match (query.kind, port, std::str::from_utf8(host)) {
                (message::SRV | message::ANY, Some(port), Ok(host)) => query.service(host, port),
                _ => query.empty(message::NOERROR),
            });
        };
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

/// `_port._protocol.host` (RFC 2782): the port, if it is a number, and the host.
fn service(name: &[u8]) -> Option<(Option<u16>, &[u8])> {
    let mut labels = name.splitn(3, |b| *b == b'.');
    let (port, protocol, host) = (labels.next()?, labels.next()?, labels.next()?);
    let port = port.strip_prefix(b"_")?;
    matches!(protocol, b"_tcp" | b"_udp" | b"_sctp").then(|| {
        let number = std::str::from_utf8(port).ok().and_then(|p| p.parse().ok()).filter(|p| *p > 0);
        (number, host)
    })
}

fn rotated<T>(list: &[T], turn: usize) -> impl Iterator<Item = &T> {
    let (before, after) = list.split_at(if list.is_empty() { 0 } else { turn % list.len() });
    after.iter().chain(before)
}

#[cfg(test)]
mod tests;
