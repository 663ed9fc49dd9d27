//! The relay on loopback: [::1] is the host, 127.0.0.1 plays the container.

#![expect(unsafe_code, reason = "the test makes system calls of its own")]

use super::*;
use crate::model::{PortSpec, Proto};
use crate::publish::{Ports, reserve};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

const CONTAINER: Target = Target { ipv4: Some(Ipv4Addr::LOCALHOST), ipv6: None };

/// Publishes `container_port` on an ephemeral port and relays it while the test lives.
struct Published {
    port: u16,
    stop: std::sync::Arc<AtomicBool>,
    relay: Option<thread::JoinHandle<()>>,
    state: PathBuf,
}

impl Published {
    fn new(host_ip: Option<&str>, container_port: u16, proto: Proto) -> Published {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let state = std::env::temp_dir().join(format!("rrun-relay-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&state).expect("a temporary directory");
        let host_ip = host_ip.map(|ip| ip.parse().expect("an address"));
        let container = (container_port, container_port);
        let spec = PortSpec { host_ip, host: None, container, proto, iface: None, from: Vec::new() };
        let mut ports = reserve(&state, "c", &[spec], None).expect("a free port");
        ports.serve(CONTAINER).expect("relayed");
        let port = ports.bindings[0].host.0;
        let stop = std::sync::Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let relay = Some(thread::spawn(move || run(ports, &stopped)));
        Published { port, stop, relay, state }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("::1", self.port)).expect("accepted");
        stream.set_read_timeout(Some(Duration::from_secs(90))).expect("set");
        stream
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.relay.take().map(thread::JoinHandle::join);
        let _ = std::fs::remove_dir_all(&self.state);
        if !thread::panicking() {
            ended.expect("running").expect("the relay did not panic");
        }
    }
}

/// The monitor's loop in small.
fn run(mut ports: Ports, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let interest = ports.interest().expect("there is something to relay");
        // SAFETY: the descriptor belongs to `ports`, which outlives this borrow.
        let fd = unsafe { BorrowedFd::borrow_raw(interest.fd) };
        let timeout = ports.timeout().unwrap_or(Duration::MAX).min(Duration::from_millis(20));
        let timeout = PollTimeout::try_from(timeout).expect("short");
        nix::poll::poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], timeout).expect("poll");
        ports.ready();
    }
}

fn server() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    (listener, port)
}

/// Every four bytes differ from their neighbours, so that what is lost, doubled or moved shows.
fn pattern(seed: u32, len: usize) -> Vec<u8> {
    (0..len as u32 / 4).flat_map(|i| i.wrapping_mul(0x9e37_79b1).wrapping_add(seed).to_le_bytes()).collect()
}

/// The third value of a `min default max` setting: how far the kernel lets one buffer grow.
fn largest_buffer(setting: &str) -> usize {
    let text = std::fs::read_to_string(Path::new("/proc/sys/net/ipv4").join(setting)).expect("a setting");
    text.split_whitespace().nth(2).expect("three values").parse().expect("a number")
}

#[test]
fn what_is_relayed_and_where_to() {
    let (v4, v6): (IpAddr, IpAddr) = (Ipv4Addr::new(172, 18, 0, 2).into(), "fd00::2".parse().expect("an address"));
    let both = Target { ipv4: Some(Ipv4Addr::new(172, 18, 0, 2)), ipv6: Some("fd00::2".parse().expect("an address")) };
    let (only4, only6) = (Target { ipv6: None, ..both }, Target { ipv4: None, ..both });
    let one = |ip: &str| Scope::One(ip.parse().expect("an address"));
    for (scope, target, from4, from6) in [
        (Scope::Any, both, None, Some(v6)),
        (Scope::Any, only4, None, Some(v4)),
        (Scope::Any, only6, Some(v6), Some(v6)),
        (one("127.0.0.1"), both, None, None),
        (one("127.0.0.1"), only6, Some(v6), None),
        (one("::1"), both, None, Some(v6)),
        (one("::"), only4, None, Some(v4)),
        (one("2001:db8::1"), both, None, None),
        (one("2001:db8::1"), only4, None, Some(v4)),
    ] {
        assert_eq!(target.route(scope), Route { from4, from6, refused: None }, "{scope:?} {target:?}");
    }
}

#[test]
fn of_many_sockets_the_last_listens_a_little_later() {
    const LENGTH: u16 = 100;
    let state = std::env::temp_dir().join(format!("rrun-relay-{}-many", std::process::id()));
    std::fs::create_dir_all(&state).expect("a temporary directory");
    let spec = PortSpec {
        host_ip: Some("::1".parse().expect("an address")),
        host: None,
        container: (1000, 1000 + LENGTH - 1),
        proto: Proto::Tcp,
        iface: None,
        from: Vec::new(),
    };
    let mut ports = reserve(&state, "c", &[spec], None).expect("free ports");
    ports.begin_to_serve(CONTAINER).expect("relayed");
    // A block or port by port, in the order of the container's.
    let last = ports.bindings.last().expect("published").host.1;
    let connects = || TcpStream::connect(("::1", last)).is_ok();
    assert!(!connects(), "not yet");
    assert!(ports.timeout().is_some_and(|t| t <= REST), "it wants to be called");
    while !connects() {
        ports.ready();
    }
    assert_eq!(ports.timeout(), None, "all of them listen");
    std::fs::remove_dir_all(&state).expect("removed");
}

#[test]
fn twenty_megabytes_both_ways_at_once() {
    const SIZE: usize = 20 << 20;
    let (listener, container_port) = server();
    let published = Published::new(None, container_port, Proto::Tcp);
    let container = thread::spawn(move || {
        let (mut down, _) = listener.accept().expect("a connection");
        let mut up = down.try_clone().expect("a copy");
        let writer = thread::spawn(move || {
            down.write_all(&pattern(2, SIZE)).expect("sent");
            down.shutdown(Shutdown::Write).expect("ended");
        });
        let mut got = Vec::new();
        up.read_to_end(&mut got).expect("received");
        writer.join().expect("no panic");
        got
    });
    let mut client = published.connect();
    let mut reader = client.try_clone().expect("a copy");
    let down = thread::spawn(move || {
        let mut got = Vec::new();
        reader.read_to_end(&mut got).expect("received");
        got
    });
    client.write_all(&pattern(1, SIZE)).expect("sent");
    client.shutdown(Shutdown::Write).expect("ended");
    assert!(down.join().expect("no panic") == pattern(2, SIZE), "down is intact");
    assert!(container.join().expect("no panic") == pattern(1, SIZE), "up is intact");
}

#[test]
fn a_half_closed_connection_still_answers() {
    let (listener, container_port) = server();
    let published = Published::new(Some("::1"), container_port, Proto::Tcp);
    let container = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut request = String::new();
        stream.read_to_string(&mut request).expect("received to its end");
        thread::sleep(Duration::from_millis(50));
        stream.write_all(request.to_uppercase().as_bytes()).expect("the way back is open");
    });
    let mut client = published.connect();
    client.write_all(b"question").expect("sent");
    client.shutdown(Shutdown::Write).expect("ended");
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("received");
    assert_eq!(answer, "QUESTION");
    container.join().expect("no panic");
}

#[test]
fn a_slow_reader_holds_the_sender_back_and_loses_nothing() {
    // More than the four socket buffers on the way can hold.
    let size = 2 * (largest_buffer("tcp_rmem") + largest_buffer("tcp_wmem")) + (4 << 20);
    let (listener, container_port) = server();
    let published = Published::new(None, container_port, Proto::Tcp);
    let mut client = published.connect();
    let (mut stream, _) = listener.accept().expect("a connection");
    let sent = std::sync::Arc::new(AtomicBool::new(false));
    let flag = sent.clone();
    let container = thread::spawn(move || {
        stream.write_all(&pattern(3, size)).expect("sent");
        flag.store(true, Ordering::Relaxed);
    });
    thread::sleep(Duration::from_millis(200));
    assert!(!sent.load(Ordering::Relaxed), "the relay takes no more than it can pass on");
    let mut got = Vec::new();
    client.read_to_end(&mut got).expect("received");
    assert!(got == pattern(3, size));
    container.join().expect("no panic");
}

#[test]
fn failures_are_resets_not_ends() {
    let (listener, container_port) = server();
    let published = Published::new(None, container_port, Proto::Tcp);
    // The container resets an established connection.
    let mut client = published.connect();
    let (stream, _) = listener.accept().expect("a connection");
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).expect("set");
    drop(stream);
    let e = client.read(&mut [0; 16]).expect_err("not an orderly end");
    assert_eq!(e.kind(), ErrorKind::ConnectionReset);
    // Nothing listens in the container.
    drop(listener);
    let mut client = published.connect();
    let e = client.read(&mut [0; 16]).expect_err("not an orderly end");
    assert_eq!(e.kind(), ErrorKind::ConnectionReset);
    // IPv4 is DNAT's business: were the firewall flushed, its clients must not be relayed.
    let mut client = TcpStream::connect(("127.0.0.1", published.port)).expect("the socket is shared");
    let e = client.read(&mut [0; 16]).expect_err("not served");
    assert_eq!(e.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn many_connections_and_answers_before_the_request_is_taken() {
    let (listener, container_port) = server();
    let published = Published::new(None, container_port, Proto::Tcp);
    let container = thread::spawn(move || {
        for n in 0..200u32 {
            let (mut stream, _) = listener.accept().expect("a connection");
            stream.write_all(&n.to_be_bytes()).expect("sent");
        }
    });
    let mut seen: Vec<u32> = (0..200)
        .map(|_| {
            let mut answer = [0; 4];
            published.connect().read_exact(&mut answer).expect("received");
            u32::from_be_bytes(answer)
        })
        .collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..200).collect::<Vec<_>>());
    container.join().expect("no panic");
}

#[test]
fn datagrams_find_the_container_and_the_way_back() {
    let server = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let published = Published::new(None, server.local_addr().expect("bound").port(), Proto::Udp);
    let clients = [UdpSocket::bind("[::1]:0").expect("a port"), UdpSocket::bind("[::1]:0").expect("a port")];
    for (i, client) in clients.iter().enumerate() {
        client.set_read_timeout(Some(Duration::from_secs(5))).expect("set");
        // Connected: an answer from any other address than the one called would not arrive.
        client.connect(("::1", published.port)).expect("set");
        client.send(&[i as u8; 1000]).expect("sent");
    }
    let mut sessions = std::collections::BTreeSet::<SocketAddr>::new();
    let mut buffer = [0; 2000];
    for _ in 0..2 {
        let (n, from) = server.recv_from(&mut buffer).expect("received");
        assert_eq!(n, 1000);
        sessions.insert(from);
        server.send_to(&[buffer[0]; 1200], from).expect("answered");
    }
    assert_eq!(sessions.len(), 2, "a session each");
    for (i, client) in clients.iter().enumerate() {
        assert_eq!(client.recv(&mut buffer).expect("answered"), 1200);
        assert_eq!(buffer[0], i as u8, "its own answer");
    }
    let stranger = UdpSocket::bind("127.0.0.1:0").expect("a port");
    stranger.send_to(b"x", ("127.0.0.1", published.port)).expect("sent");
    server.set_read_timeout(Some(Duration::from_millis(100))).expect("set");
    assert!(server.recv_from(&mut buffer).is_err(), "IPv4 is DNAT's business");
}
