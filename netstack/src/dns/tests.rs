//! The server on plain loopback sockets, with servers of the test's own to ask.

#![expect(unsafe_code, reason = "the test makes system calls of its own")]

use super::*;
use crate::model::Endpoint;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, Question, RCODE, TYPE};
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

pub(super) fn endpoint(network: &str, v4: &str, v6: Option<&str>, names: &[&str]) -> Endpoint {
    Endpoint {
        version: 1,
        network_id: network.to_lowercase(),
        network: network.into(),
        container_name: names[0].into(),
        ifname: "eth0".into(),
        ipv4: (!v4.is_empty()).then(|| v4.parse().expect("an address")),
        prefix4: 24,
        ipv6: v6.map(|ip| ip.parse().expect("an address")),
        prefix6: 64,
        dns_names: names.iter().map(|n| n.to_string()).collect(),
        ..Endpoint::default()
    }
}

/// A state directory, and the server thread that answers from it.
struct World {
    dir: PathBuf,
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    server: Option<JoinHandle<()>>,
    upstreams: Vec<Upstream>,
}

impl World {
    /// Networks `front` and `back` are shared with the asker, `other` is not.
    fn new(upstreams: Vec<Upstream>, forwards_to_host: bool) -> World {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("rrun-dns-{}-{n}", std::process::id()));
        for (file, record) in [
            ("front/web", endpoint("Front", "10.1.0.2", Some("fd01::2"), &["Web", "www", "aaaaaaaaaaaa"])),
            ("front/web2", endpoint("Front", "10.1.0.3", None, &["web2", "www"])),
            ("front/web3", endpoint("Front", "10.1.0.4", None, &["web3", "www"])),
            ("back/db", endpoint("back", "10.2.0.2", None, &["db"])),
            ("back/six", endpoint("back", "", Some("fd02::6"), &["six"])),
            ("other/hidden", endpoint("other", "10.3.0.2", None, &["hidden"])),
        ] {
            let (network, file) = file.split_once('/').expect("network/file");
            let endpoints = dir.join("networks").join(network).join("endpoints");
            fs::create_dir_all(&endpoints).expect("a temporary directory");
            let text = serde_json::to_vec(&record).expect("JSON");
            fs::write(endpoints.join(format!("{file}.json")), text).expect("written");
        }
        let resolv_conf = dir.join("resolv.conf");
        let lines: String = upstreams.iter().map(|u| format!("nameserver {}\n", u.address.ip())).collect();
        fs::write(&resolv_conf, lines).expect("written");
        let shared = |id: &str, name: &str| SharedNetwork { id: id.into(), name: name.into(), links: vec![] };
        let config = Config {
            state: dir.clone(),
            records: dir.join("records"),
            networks: vec![shared("front", "Front"), shared("back", "back")],
            servers: vec![],
            forwards_to_host,
            resolv_conf,
            netns: nl::current().expect("a namespace"),
            gate: None,
        };
        let sockets = bind(Ipv4Addr::LOCALHOST).expect("bound");
        let address = SocketAddr::from(([127, 0, 0, 1], sockets.port));
        let port = upstreams.first().map_or(9, |u| u.address.port());
        let mut server = Server::asking_at(sockets, config, port).expect("a server");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let server = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                // SAFETY: the descriptor belongs to `server`, which outlives this borrow.
                let fd = unsafe { BorrowedFd::borrow_raw(server.interest().fd) };
                let timeout = server.timeout().unwrap_or(Duration::MAX).min(Duration::from_millis(20));
                let timeout = PollTimeout::try_from(timeout).expect("short");
                nix::poll::poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], timeout).expect("poll");
                server.ready();
            }
        });
        World { dir, address, stop, server: Some(server), upstreams }
    }

    fn ask(&self, name: &str, kind: TYPE) -> String {
        show(&self.raw(&query(7, name, kind)))
    }

    /// One question by UDP from a socket of its own, asked again as any client would.
    fn raw(&self, question: &[u8]) -> Vec<u8> {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        socket.set_read_timeout(Some(Duration::from_secs(5))).expect("set");
        let mut buffer = [0; 65535];
        for _ in 0..4 {
            socket.send_to(question, self.address).expect("sent");
            if let Ok((n, from)) = socket.recv_from(&mut buffer) {
                assert_eq!(from, self.address);
                return buffer[..n].to_vec();
            }
        }
        panic!("no answer");
    }

    fn tcp(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("connected");
        stream.set_read_timeout(Some(Duration::from_secs(6))).expect("set");
        stream
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.server.take().map(JoinHandle::join);
        let _ = fs::remove_dir_all(&self.dir);
        if !thread::panicking() {
            ended.expect("running").expect("the server did not panic");
        }
    }
}

#[derive(Clone, Copy)]
enum Manner {
    /// This address for every A question.
    Answers(Ipv4Addr),
    /// By UDP only "truncated"; the address by TCP.
    Truncates(Ipv4Addr),
    Fails(RCODE),
    Silent,
    /// Forged answers (wrong ID, wrong question) before the right one.
    Forges(Ipv4Addr),
}

/// A server elsewhere.
struct Upstream {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Upstream {
    /// Upstreams on 127.0.1.1, 127.0.1.2… with one port.
    fn several(manners: &[Manner]) -> Vec<Upstream> {
        'port: loop {
            let mut bound = Vec::new();
            let mut port = 0;
            for i in 0..manners.len() {
                let at = SocketAddr::from(([127, 0, 1, i as u8 + 1], port));
                let Ok(udp) = UdpSocket::bind(at) else { continue 'port };
                let address = udp.local_addr().expect("bound");
                let Ok(tcp) = TcpListener::bind(address) else { continue 'port };
                port = address.port();
                bound.push((udp, tcp));
            }
            return bound.into_iter().zip(manners).map(|((udp, tcp), m)| Upstream::start(udp, tcp, *m)).collect();
        }
    }

    fn start(udp: UdpSocket, tcp: TcpListener, manner: Manner) -> Upstream {
        let address = udp.local_addr().expect("bound");
        let (asked, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, stopped) = (asked.clone(), stop.clone());
        udp.set_read_timeout(Some(Duration::from_millis(20))).expect("set");
        thread::spawn(move || {
            let mut buffer = [0; 65535];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((n, from)) = udp.recv_from(&mut buffer) else { continue };
                count.fetch_add(1, Ordering::Relaxed);
                for answer in answers(&buffer[..n], manner, false) {
                    udp.send_to(&answer, from).expect("sent");
                }
            }
        });
        let (count, stopped) = (asked.clone(), stop.clone());
        tcp.set_nonblocking(true).expect("set");
        thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let Ok((mut stream, _)) = tcp.accept() else {
                    thread::sleep(Duration::from_millis(5));
                    continue;
                };
                stream.set_nonblocking(false).expect("set");
                count.fetch_add(1, Ordering::Relaxed);
                let question = read_framed(&mut stream);
                for answer in answers(&question, manner, true) {
                    let framed = framed(&answer);
                    // In pieces, as a stream may come.
                    for piece in framed.chunks(7) {
                        stream.write_all(piece).expect("sent");
                    }
                }
                if let Manner::Silent = manner {
                    thread::sleep(Duration::from_secs(1));
                }
            }
        });
        Upstream { address, asked, stop }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn answers(question: &[u8], manner: Manner, tcp: bool) -> Vec<Vec<u8>> {
    let packet = Packet::parse(question).expect("a question");
    let reply = |rcode: RCODE, address: Option<Ipv4Addr>, truncated: bool| {
        let mut reply = Packet::new_reply(packet.id());
        reply.questions = packet.questions.clone();
        *reply.rcode_mut() = rcode;
        if truncated {
            reply.set_flags(PacketFlag::TRUNCATION);
        }
        if let Some(address) = address {
            let data = RData::A(simple_dns::rdata::A { address: address.into() });
            let name = packet.questions[0].qname.clone();
            reply.answers.push(simple_dns::ResourceRecord::new(name, CLASS::IN, 60, data));
        }
        reply.build_bytes_vec_compressed().expect("a packet")
    };
    match manner {
        Manner::Silent => vec![],
        Manner::Fails(rcode) => vec![reply(rcode, None, false)],
        Manner::Truncates(_) if !tcp => vec![reply(RCODE::NoError, None, true)],
        Manner::Answers(ip) | Manner::Truncates(ip) => vec![reply(RCODE::NoError, Some(ip), false)],
        Manner::Forges(ip) => {
            let evil = reply(RCODE::NoError, Some(Ipv4Addr::new(6, 6, 6, 6)), false);
            let (mut id, mut name) = (evil.clone(), evil);
            id[0] ^= 0x55;
            name[13] ^= 1;
            vec![id, name, vec![0; 3], reply(RCODE::NoError, Some(ip), false)]
        }
    }
}

fn query(id: u16, name: &str, kind: TYPE) -> Vec<u8> {
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    packet.questions.push(Question::new(Name::new(name).expect("a name"), QTYPE::TYPE(kind), CLASS::IN.into(), false));
    packet.build_bytes_vec().expect("a packet")
}

/// `NoError 10.0.0.2 10.0.0.3`, with `TC` when truncated.
fn show(reply: &[u8]) -> String {
    let packet = Packet::parse(reply).expect("well-formed");
    let mut text = format!("{:?}", packet.rcode());
    if packet.has_flags(PacketFlag::TRUNCATION) {
        text.push_str(" TC");
    }
    for answer in &packet.answers {
        let value = match &answer.rdata {
            RData::A(a) => Ipv4Addr::from(a.address).to_string(),
            RData::AAAA(a) => Ipv6Addr::from(a.address).to_string(),
            RData::PTR(name) => name.to_string(),
            other => format!("{other:?}"),
        };
        text = format!("{text} {value}");
    }
    text
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes(), message].concat()
}

fn read_framed(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).expect("a length");
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message).expect("a message");
    message
}

const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);

#[test]
fn names_of_shared_networks_are_answered_and_never_passed_on() {
    let world = World::new(Upstream::several(&[Manner::Answers(OUTSIDE)]), true);
    for (name, kind, want) in [
        ("web", TYPE::A, "NoError 10.1.0.2"),
        ("WEB.", TYPE::A, "NoError 10.1.0.2"),
        ("web.front", TYPE::A, "NoError 10.1.0.2"),
        ("web.FRONT", TYPE::AAAA, "NoError fd01::2"),
        ("aaaaaaaaaaaa", TYPE::A, "NoError 10.1.0.2"),
        ("db", TYPE::A, "NoError 10.2.0.2"),
        ("db.back", TYPE::A, "NoError 10.2.0.2"),
        ("db", TYPE::AAAA, "NoError"),
        ("six", TYPE::A, "NoError"),
        ("six", TYPE::AAAA, "NoError fd02::6"),
        ("web", TYPE::MX, "NoError"),
        ("web", TYPE::SRV, "NoError"),
        ("web", TYPE::HTTPS, "NoError"),
        ("2.0.1.10.in-addr.arpa", TYPE::PTR, "NoError Web.Front"),
        ("2.0.1.10.in-addr.arpa", TYPE::A, "NoError"),
        ("6.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.2.0.d.f.ip6.arpa", TYPE::PTR, "NoError six.back"),
    ] {
        assert_eq!(world.ask(name, kind), want, "{name} {kind:?}");
    }
    assert_eq!(world.upstreams[0].asked(), 0, "nobody outside learns these names");
    for name in ["hidden", "hidden.other", "web.back", "example.org"] {
        assert_eq!(world.ask(name, TYPE::A), format!("NoError {OUTSIDE}"), "{name} is none of ours");
    }
    let mut any = query(1, "web", TYPE::A);
    let at = any.len() - 4;
    any[at..at + 2].copy_from_slice(&255u16.to_be_bytes());
    assert_eq!(show(&world.raw(&any)), "NoError 10.1.0.2 fd01::2");
}

#[test]
fn an_alias_goes_round_its_holders() {
    let world = World::new(vec![], false);
    let mut firsts: Vec<String> = Vec::new();
    for _ in 0..6 {
        let answer = world.ask("www", TYPE::A);
        let addresses: Vec<&str> = answer.split(' ').skip(1).collect();
        assert_eq!(addresses.len(), 3, "all holders: {answer}");
        firsts.push(addresses[0].to_owned());
    }
    firsts.sort();
    let twice = ["10.1.0.2", "10.1.0.2", "10.1.0.3", "10.1.0.3", "10.1.0.4", "10.1.0.4"];
    assert_eq!(firsts, twice, "each in front as often as the others");
}

#[test]
fn internal_networks_ask_nobody() {
    let world = World::new(Upstream::several(&[Manner::Answers(OUTSIDE)]), false);
    assert_eq!(world.ask("example.org", TYPE::A), "Refused");
    let mut stream = world.tcp();
    stream.write_all(&framed(&query(9, "example.org", TYPE::A))).expect("sent");
    assert_eq!(show(&read_framed(&mut stream)), "Refused");
    assert_eq!(world.ask("web", TYPE::A), "NoError 10.1.0.2");
    thread::sleep(Duration::from_millis(100));
    assert_eq!(world.upstreams[0].asked(), 0, "CVE-2024-29018");
}

#[test]
fn a_failing_server_is_followed_by_the_next_at_once() {
    for failure in [RCODE::ServerFailure, RCODE::Refused] {
        let world = World::new(Upstream::several(&[Manner::Fails(failure), Manner::Answers(OUTSIDE)]), true);
        let begun = Instant::now();
        assert_eq!(world.ask("example.org", TYPE::A), format!("NoError {OUTSIDE}"));
        assert!(begun.elapsed() < Duration::from_millis(400), "without waiting");
    }
    let none =
        World::new(Upstream::several(&[Manner::Fails(RCODE::Refused), Manner::Fails(RCODE::ServerFailure)]), true);
    assert_eq!(none.ask("example.org", TYPE::A), "ServerFailure", "the last word");
    let negative = World::new(Upstream::several(&[Manner::Fails(RCODE::NameError), Manner::Answers(OUTSIDE)]), true);
    assert_eq!(negative.ask("example.org", TYPE::A), "NameError", "is an answer");
    assert_eq!(negative.upstreams[1].asked(), 0);
}

#[test]
fn a_silent_server_costs_the_head_start_once() {
    let world = World::new(Upstream::several(&[Manner::Silent, Manner::Answers(OUTSIDE)]), true);
    assert_eq!(world.ask("example.org", TYPE::A), format!("NoError {OUTSIDE}"));
    let silent = || world.upstreams[0].asked();
    let first = silent();
    assert!(first > 0, "it comes first in resolv.conf");
    // Asked last from now on, which is to say not at all: unless the machine is so busy that the other's answer
    // takes longer than the head start. It is not always.
    let spared = (0..20).any(|n| {
        let before = silent();
        assert_eq!(world.ask(&format!("example{n}.net"), TYPE::A), format!("NoError {OUTSIDE}"));
        silent() == before
    });
    assert!(spared, "the silent one is asked each time");
}

#[test]
fn a_dead_world_ends_in_servfail_and_disturbs_nobody() {
    let world = World::new(Upstream::several(&[Manner::Silent]), true);
    let waiting = UdpSocket::bind("127.0.0.1:0").expect("a port");
    waiting.set_read_timeout(Some(Duration::from_secs(6))).expect("set");
    waiting.send_to(&query(3, "example.org", TYPE::A), world.address).expect("sent");
    assert_eq!(world.ask("web", TYPE::A), "NoError 10.1.0.2");
    let mut buffer = [0; 512];
    let n = waiting.recv(&mut buffer).expect("an answer in the end");
    assert_eq!(show(&buffer[..n]), "ServerFailure");
    assert!(world.upstreams[0].asked() > 1, "asked again meanwhile");
}

#[test]
fn the_1025th_open_question_is_refused() {
    let world = World::new(Upstream::several(&[Manner::Silent]), true);
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.set_read_timeout(Some(Duration::from_millis(2))).expect("set");
    let mut buffer = [0; 512];
    // Datagrams are lost on a busy machine: as many more as it takes. On a slow one the first questions end in
    // a failure of the server, which makes room for others, before there are so many.
    let refused = (0..60_000u16).any(|id| {
        socket.send_to(&query(id, "example.org", TYPE::A), world.address).expect("sent");
        id % 32 == 31
            && std::iter::from_fn(|| socket.recv(&mut buffer).ok().map(|n| show(&buffer[..n]))).any(|a| a == "Refused")
    });
    assert!(refused, "nobody counts the open questions");
    assert_eq!(world.ask("web", TYPE::A), "NoError 10.1.0.2");
}

#[test]
fn forged_answers_are_not_believed() {
    let world = World::new(Upstream::several(&[Manner::Forges(OUTSIDE)]), true);
    assert_eq!(world.ask("example.org", TYPE::A), format!("NoError {OUTSIDE}"));
}

#[test]
fn truncated_answers_are_asked_again_by_tcp() {
    let world = World::new(Upstream::several(&[Manner::Truncates(OUTSIDE)]), true);
    assert_eq!(world.ask("example.org", TYPE::A), "NoError TC");
    let mut stream = world.tcp();
    // Two questions in one packet, the first dripping in.
    let questions = [framed(&query(1, "example.org", TYPE::A)), framed(&query(2, "web", TYPE::A))].concat();
    for byte in &questions[..20] {
        stream.write_all(&[*byte]).expect("sent");
    }
    stream.write_all(&questions[20..]).expect("sent");
    stream.shutdown(std::net::Shutdown::Write).expect("ended");
    assert_eq!(show(&read_framed(&mut stream)), format!("NoError {OUTSIDE}"));
    assert_eq!(show(&read_framed(&mut stream)), "NoError 10.1.0.2");
    assert_eq!(stream.read(&mut [0]).expect("closed in order"), 0);
}

#[test]
fn what_does_not_fit_in_a_datagram_comes_by_tcp() {
    let world = World::new(vec![], false);
    let endpoints = world.dir.join("networks/front/endpoints");
    for i in 0..60 {
        let record = endpoint("Front", &format!("10.1.1.{i}"), None, &[&format!("many{i}"), "many"]);
        fs::write(endpoints.join(format!("many{i}.json")), serde_json::to_vec(&record).expect("JSON"))
            .expect("written");
    }
    let short = world.ask("many", TYPE::A);
    assert!(short.starts_with("NoError TC 10.1.1."), "{short}");
    let mut stream = world.tcp();
    stream.write_all(&framed(&query(1, "many", TYPE::A))).expect("sent");
    assert_eq!(show(&read_framed(&mut stream)).split(' ').count(), 61);
}

#[test]
fn idle_and_hostile_clients_hurt_nobody() {
    let world = World::new(Upstream::several(&[Manner::Answers(OUTSIDE)]), true);
    let idle: Vec<TcpStream> = (0..200).map(|_| world.tcp()).collect();
    let mut hostile = world.tcp();
    hostile.write_all(&[0xff, 0xff, 1, 2, 3]).expect("sent");
    assert!(matches!(hostile.read(&mut [0]), Ok(0) | Err(_)), "no question is that long");
    let begun = Instant::now();
    let mut stream = world.tcp();
    stream.write_all(&framed(&query(1, "web", TYPE::A))).expect("sent");
    assert_eq!(show(&read_framed(&mut stream)), "NoError 10.1.0.2");
    assert_eq!(world.ask("web", TYPE::A), "NoError 10.1.0.2");
    assert!(begun.elapsed() < Duration::from_millis(500));
    let closed = |mut s: &TcpStream| s.set_nonblocking(true).is_ok() && matches!(s.read(&mut [0]), Ok(0));
    assert!(idle.iter().filter(|s| closed(s)).count() >= 100, "the oldest made room");
}

/// 65,000 datagrams, random and mutated, from a fixed seed: the server lives, answers only what it
/// understands, and goes on serving.
#[test]
fn random_packets_do_no_harm() {
    let world = World::new(vec![], false);
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed as usize
    };
    let good = query(0x5a5a, "web.front", TYPE::A);
    for i in 0..65_000 {
        let mut packet = if i % 2 == 0 { good.clone() } else { (0..random() % 80).map(|_| random() as u8).collect() };
        for _ in 0..random() % 4 {
            if !packet.is_empty() {
                let at = random() % packet.len();
                packet[at] = random() as u8;
            }
        }
        packet.truncate(random() % 90 + 1);
        socket.send_to(&packet, world.address).expect("sent");
        if let message::Incoming::Query(q) = message::parse(&packet) {
            let reply = q.empty(message::NOERROR);
            assert!(q.is_answered_by(&reply) || reply.is_empty());
        }
    }
    assert_eq!(world.ask("web", TYPE::A), "NoError 10.1.0.2");
}

#[test]
fn the_hosts_servers_may_change_while_running() {
    let upstreams = Upstream::several(&[Manner::Answers(OUTSIDE), Manner::Answers(Ipv4Addr::new(192, 0, 2, 99))]);
    let world = World::new(upstreams, true);
    assert_eq!(world.ask("example.org", TYPE::A), format!("NoError {OUTSIDE}"));
    let temporary = world.dir.join("new");
    fs::write(&temporary, format!("nameserver {}\n", world.upstreams[1].address.ip())).expect("written");
    fs::rename(&temporary, Path::new(&world.dir).join("resolv.conf")).expect("renamed");
    // The file is looked at once a millisecond at most.
    thread::sleep(Duration::from_millis(5));
    assert_eq!(world.ask("example.org", TYPE::A), "NoError 192.0.2.99");
}
