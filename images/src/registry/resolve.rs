//! Host names to addresses without the C library.
//!
//! A static glibc binary cannot use getaddrinfo: NSS would load shared objects of another glibc. So
//! /etc/hosts and the servers of /etc/resolv.conf are asked here, IPv4 before IPv6.

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

const DNS_PORT: u16 = 53;

/// The resolver of this machine's configuration, read anew for every look-up: a pull may outlive a
/// change of network.
#[derive(Debug, Default)]
pub(super) struct SystemResolver;

impl Resolver for SystemResolver {
    fn resolve(
        &self,
        uri: &ureq::http::Uri,
        _config: &ureq::config::Config,
        _timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().ok_or_else(|| ureq::Error::BadUri(uri.to_string()))?;
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
        let mut found = self.empty();
        for ip in look_up(host)?.into_iter().take(16) {
            found.push(SocketAddr::new(ip, port));
        }
        match found.is_empty() {
            true => Err(ureq::Error::HostNotFound),
            false => Ok(found),
        }
    }
}

/// The addresses of a host name, IPv4 first.
///
/// # Errors
/// It has none, or nobody who would know can be reached.
pub fn host_addresses(host: &str) -> plan::Result<Vec<IpAddr>> {
    let unknown = || plan::Error::system(format!("lookup {}", host.escape_debug()));
    let hint = "write its address, or its name into /etc/hosts";
    match look_up(host) {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(unknown().with_cause("no such host").with_hint(hint)),
        Err(e) => Err(unknown().with_cause(e.to_string()).with_hint(hint)),
    }
}

/// `localhost` and everything under it is this machine, whatever a DNS server says (RFC 6761).
pub(super) fn is_localhost(host: &str) -> bool {
    host == "localhost" || host.ends_with(".localhost")
}

fn look_up(host: &str) -> Result<Vec<IpAddr>, ureq::Error> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = bare.parse() {
        return Ok(vec![ip]);
    }
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let mut known = hosts_entries(&std::fs::read_to_string("/etc/hosts").unwrap_or_default(), &host);
    if known.is_empty() && is_localhost(&host) {
        known = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    }
    if !known.is_empty() {
        return Ok(known);
    }
    Ok(Stub::from_text(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default()).look_up(&host)?)
}

fn hosts_entries(text: &str, host: &str) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = Vec::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or("").split_whitespace();
        let Some(ip) = words.next().and_then(|w| w.parse().ok()) else { continue };
        if words.any(|name| name.eq_ignore_ascii_case(host)) && !found.contains(&ip) {
            found.push(ip);
        }
    }
    found.sort_by_key(|ip| ip.is_ipv6());
    found
}

/// A stub resolver: it asks recursive servers and believes them.
#[derive(Debug)]
struct Stub {
    servers: Vec<SocketAddr>,
    search: Vec<String>,
    ndots: usize,
    attempts: u32,
    timeout: Duration,
}

/// What one server said.
enum Answer {
    Addresses(Vec<IpAddr>),
    /// The name does not exist or has no address.
    Nothing,
    /// It cannot or will not answer: ask another.
    Failed,
}

impl Stub {
    /// Reads resolv.conf(5).
    fn from_text(text: &str) -> Stub {
        let mut stub = Stub {
            servers: Vec::new(),
            search: Vec::new(),
            ndots: 1,
            attempts: 2,
            // glibc waits 5 s; a person who pulls an image offline should hear so sooner.
            timeout: Duration::from_secs(2),
        };
        for line in text.lines() {
            let mut words = line.split(['#', ';']).next().unwrap_or("").split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    // A scoped address (fe80::1%eth0) needs an interface index; such servers are rare
                    // enough to be left to the next one.
                    if let Some(ip) = words.next().and_then(|w| w.parse().ok()) {
                        stub.servers.push(SocketAddr::new(ip, DNS_PORT));
                    }
                }
                Some("search" | "domain") => stub.search = words.map(|w| w.trim_end_matches('.').to_owned()).collect(),
                Some("options") => words.for_each(|option| {
                    let number = |s: &str| s.parse::<u32>().ok();
                    match option.split_once(':') {
                        Some(("ndots", n)) => stub.ndots = number(n).map_or(1, |n| n.min(15) as usize),
                        Some(("attempts", n)) => stub.attempts = number(n).map_or(2, |n| n.clamp(1, 5)),
                        Some(("timeout", n)) => {
                            stub.timeout = Duration::from_secs(number(n).map_or(2, |n| n.clamp(1, 10)).into());
                        }
                        _ => {}
                    }
                }),
                _ => {}
            }
        }
        stub.servers.truncate(3);
        if stub.servers.is_empty() {
            stub.servers.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), DNS_PORT));
        }
        stub
    }

    fn look_up(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let absolute = host.to_owned();
        let mut names: Vec<String> = self.search.iter().take(6).map(|domain| format!("{host}.{domain}")).collect();
        if host.matches('.').count() >= self.ndots {
            names.insert(0, absolute);
        } else {
            names.push(absolute);
        }
        for name in names {
            let found = self.ask_all(&name)?;
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Ok(Vec::new())
    }

    fn ask_all(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let mut last = io::Error::other("no name server answers");
        for _ in 0..self.attempts {
            for server in &self.servers {
                match self.ask(*server, name) {
                    Ok(Answer::Addresses(found)) => return Ok(found),
                    Ok(Answer::Nothing) => return Ok(Vec::new()),
                    Ok(Answer::Failed) => last = io::Error::other(format!("name server {} failed", server.ip())),
                    Err(e) => {
                        last = io::Error::other(format!("name server {} does not answer: {}", server.ip(), said(&e)))
                    }
                }
            }
        }
        Err(last)
    }

    /// Asks one server for both families at once.
    fn ask(&self, server: SocketAddr, name: &str) -> io::Result<Answer> {
        let any: SocketAddr = match server {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any)?;
        // Connected: the kernel drops what comes from elsewhere, and reports a closed port at once.
        socket.connect(server)?;
        let mut open = vec![Query::new(name, TYPE::A)?, Query::new(name, TYPE::AAAA)?];
        for query in &open {
            socket.send(&query.bytes)?;
        }
        let mut deadline = Instant::now() + self.timeout;
        let mut found = Vec::new();
        let mut failed = false;
        let mut buf = [0u8; 4096];
        while !open.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            socket.set_read_timeout(Some(left))?;
            let n = match socket.recv(&mut buf) {
                Ok(n) => n,
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            let Some(i) = open.iter().position(|q| q.is_answered_by(&buf[..n])) else { continue };
            let query = open.swap_remove(i);
            let truncated = Packet::parse(&buf[..n]).is_ok_and(|p| p.has_flags(PacketFlag::TRUNCATION));
            let answer = match truncated {
                true => query.over_tcp(server, self.timeout)?,
                false => buf[..n].to_vec(),
            };
            match addresses(&answer) {
                Answer::Addresses(more) => found.extend(more),
                Answer::Nothing => {}
                Answer::Failed => failed = true,
            }
            // Some servers never answer for AAAA; with IPv4 in hand, it gets a moment only.
            deadline = deadline.min(Instant::now() + Duration::from_millis(300));
        }
        found.sort_by_key(|ip| ip.is_ipv6());
        match found.is_empty() {
            false => Ok(Answer::Addresses(found)),
            true if failed => Ok(Answer::Failed),
            true if open.is_empty() => Ok(Answer::Nothing),
            true => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

/// Without Rust's "(os error 101)".
fn said(e: &io::Error) -> String {
    match e.raw_os_error() {
        Some(n) => plan::errno_name(n),
        None => e.to_string(),
    }
}

struct Query {
    id: u16,
    kind: TYPE,
    name: String,
    bytes: Vec<u8>,
}

impl Query {
    fn new(name: &str, kind: TYPE) -> io::Result<Query> {
        let bad = |e: simple_dns::SimpleDnsError| io::Error::new(io::ErrorKind::InvalidInput, e.to_string());
        // RandomState is keyed from the kernel's random numbers; with the random source port this is
        // what stands between us and a forged answer.
        let id = (RandomState::new().build_hasher().finish() & 0xffff) as u16;
        let mut packet = Packet::new_query(id);
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
        let qname = Name::new(name).map_err(bad)?.into_owned();
        packet.questions.push(Question::new(qname, QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false));
        Ok(Query { id, kind, name: name.to_owned(), bytes: packet.build_bytes_vec().map_err(bad)? })
    }

    fn is_answered_by(&self, bytes: &[u8]) -> bool {
        Packet::parse(bytes).is_ok_and(|p| {
            p.id() == self.id
                && p.has_flags(PacketFlag::RESPONSE)
                && p.questions.first().is_some_and(|q| {
                    q.qtype == QTYPE::TYPE(self.kind) && q.qname.to_string().eq_ignore_ascii_case(&self.name)
                })
        })
    }

    /// An answer too long for a datagram (RFC 7766).
    fn over_tcp(&self, server: SocketAddr, timeout: Duration) -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&server, timeout)?;
        stream.set_read_timeout(Some(timeout))?;
        let length = u16::try_from(self.bytes.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes(), self.bytes.as_slice()].concat())?;
        let mut length = [0u8; 2];
        stream.read_exact(&mut length)?;
        let mut answer = vec![0u8; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut answer)?;
        match self.is_answered_by(&answer) {
            true => Ok(answer),
            false => Err(io::Error::other("an answer to another question")),
        }
    }
}

/// Every address in an answer: the server has followed the aliases.
fn addresses(bytes: &[u8]) -> Answer {
    let Ok(packet) = Packet::parse(bytes) else { return Answer::Failed };
    match packet.rcode() {
        RCODE::NoError => {}
        RCODE::NameError => return Answer::Nothing,
        _ => return Answer::Failed,
    }
    let ips = packet.answers.iter().filter_map(|record| match &record.rdata {
        RData::A(a) => Some(IpAddr::from(Ipv4Addr::from(a.address))),
        RData::AAAA(a) => Some(IpAddr::from(Ipv6Addr::from(a.address))),
        _ => None,
    });
    let found: Vec<IpAddr> = ips.collect();
    if found.is_empty() { Answer::Nothing } else { Answer::Addresses(found) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use simple_dns::ResourceRecord;
    use simple_dns::rdata::{A, AAAA};

    #[test]
    fn hosts_first() {
        let text = "# x\n::1 box localhost\n127.0.0.1\tlocalhost Box # box2\n\nbad box\n10.0.0.1 other";
        let both: Vec<IpAddr> = vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
        assert_eq!(hosts_entries(text, "box"), both);
        assert!(hosts_entries(text, "box2").is_empty());
        assert_eq!(look_up("[::1]").unwrap(), ["::1".parse::<IpAddr>().unwrap()]);
        assert!(look_up("a.localhost").unwrap()[0].is_loopback());
    }

    #[test]
    fn resolv_conf() {
        let s = Stub::from_text(
            "nameserver 10.0.0.1 # x\nnameserver fe80::1%eth0\nnameserver ::1\nsearch a.example. b\noptions ndots:2 timeout:99 attempts:0 rotate",
        );
        assert_eq!(s.servers, ["10.0.0.1:53".parse().unwrap(), "[::1]:53".parse::<SocketAddr>().unwrap()]);
        assert_eq!(
            (s.search, s.ndots, s.attempts, s.timeout.as_secs()),
            (vec!["a.example".into(), "b".into()], 2, 1, 10)
        );
        assert_eq!(Stub::from_text("").servers, ["127.0.0.1:53".parse().unwrap()]);
    }

    /// Serves `count` datagrams with `answer`.
    fn server(count: usize, answer: impl Fn(&Packet, &mut Packet) + Send + 'static) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut buf = [0u8; 512];
            for _ in 0..count {
                let (n, from) = socket.recv_from(&mut buf).unwrap();
                let query = Packet::parse(&buf[..n]).unwrap();
                let mut reply = Packet::new_reply(query.id());
                reply.questions.push(query.questions[0].clone());
                answer(&query, &mut reply);
                socket.send_to(&reply.build_bytes_vec().unwrap(), from).unwrap();
            }
        });
        address
    }

    fn stub(servers: Vec<SocketAddr>) -> Stub {
        Stub { servers, search: vec!["lan".into()], ndots: 1, attempts: 1, timeout: Duration::from_millis(500) }
    }

    #[test]
    fn a_failing_server_is_passed_over_and_both_families_are_asked() {
        let bad = server(2, |_, reply| *reply.rcode_mut() = RCODE::ServerFailure);
        let good = server(2, |query, reply| {
            let rdata = match query.questions[0].qtype {
                QTYPE::TYPE(TYPE::A) => RData::A(A { address: 0x0a00_0001 }),
                _ => RData::AAAA(AAAA { address: 1 }),
            };
            let name = query.questions[0].qname.clone().into_owned();
            reply.answers.push(ResourceRecord::new(name, CLASS::IN, 1, rdata));
        });
        let found = stub(vec![bad, good]).look_up("reg.example").unwrap();
        assert_eq!(found, ["10.0.0.1".parse::<IpAddr>().unwrap(), "::1".parse().unwrap()]);
    }

    #[test]
    fn a_short_name_is_searched_and_a_forged_id_ignored() {
        let good = server(2, |query, reply| {
            assert_eq!(query.questions[0].qname.to_string(), "reg.lan");
            if query.questions[0].qtype == QTYPE::TYPE(TYPE::A) {
                let name = query.questions[0].qname.clone().into_owned();
                reply.answers.push(ResourceRecord::new(name, CLASS::IN, 1, RData::A(A { address: 1 })));
            }
        });
        assert_eq!(stub(vec![good]).look_up("reg").unwrap(), ["0.0.0.1".parse::<IpAddr>().unwrap()]);
        let forger = server(2, |query, reply| reply.set_id(query.id().wrapping_add(1)));
        assert!(stub(vec![forger]).look_up("reg.example").is_err());
    }

    #[test]
    fn a_name_that_does_not_exist_is_no_error() {
        let s = server(4, |_, reply| *reply.rcode_mut() = RCODE::NameError);
        assert!(stub(vec![s]).look_up("reg.example").unwrap().is_empty());
    }
}
