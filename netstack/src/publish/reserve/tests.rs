//! Conflicts and choices, on loopback and in a state directory of the test's own.

use super::*;
use crate::publish::parse;
use std::fs;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// A state directory with living containers `a…`, `b…`; removed with the value.
struct State(PathBuf);

impl State {
    fn new() -> State {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("rrun-ports-{}-{n}", std::process::id()));
        for owner in ["a", "b"] {
            fs::create_dir_all(dir.join("containers").join(owner)).expect("a temporary directory");
        }
        State(dir)
    }

    fn reserve(&self, owner: &str, flags: &[&str]) -> Result<Ports> {
        let specs: Vec<PortSpec> = flags.iter().flat_map(|f| parse(f).expect(f)).collect();
        reserve(&self.0, owner, &specs, None)
    }

    fn leases(&self) -> usize {
        fn files(dir: &Path) -> usize {
            let entries = fs::read_dir(dir).into_iter().flatten().flatten();
            entries.map(|e| if e.path().is_dir() { files(&e.path()) } else { 1 }).sum()
        }
        files(&self.0.join("ports"))
    }
}

impl Drop for State {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A port free at this moment, below the ephemeral range so that parallel tests do not draw it.
fn free_port(length: u16) -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let n = NEXT.fetch_add(u32::from(length), Ordering::Relaxed);
        let port = 20000 + ((std::process::id() * 64 + n) % 12000) as u16;
        let free = |p| TcpListener::bind(("::", p)).is_ok() && UdpSocket::bind(("::", p)).is_ok();
        if (port..port + length).all(free) {
            return port;
        }
    }
}

fn refusal(r: Result<Ports>) -> (String, String) {
    let e = r.expect_err("a refusal");
    (e.to_string(), e.hint.expect("a remedy"))
}

#[test]
fn a_port_is_held_on_both_families_against_host_programs() {
    let (state, port) = (State::new(), free_port(1));
    let ports = state.reserve("a", &[&format!("{port}:80")]).expect("free");
    let seen: Vec<String> =
        ports.bindings.iter().map(|b| format!("{}:{}>{}", b.host_ip, b.host.0, b.container.0)).collect();
    assert_eq!(seen, [format!("0.0.0.0:{port}>80"), format!(":::{port}>80")]);
    for address in ["0.0.0.0", "127.0.0.1", "::", "::1"] {
        let e = TcpListener::bind((address, port)).expect_err("held");
        assert_eq!(e.raw_os_error(), Some(98), "{address}");
    }
    let connect = TcpStream::connect(("127.0.0.1", port)).expect_err("nothing half accepted");
    assert_eq!(connect.raw_os_error(), Some(111));
    UdpSocket::bind(("0.0.0.0", port)).expect("the other protocol is free");
    assert_eq!((state.leases(), ports.undo().len()), (2, 2));
    ports.release().expect("released");
    assert_eq!(state.leases(), 0);
    TcpListener::bind(("0.0.0.0", port)).expect("free again");
}

#[test]
fn a_udp_port_queues_next_to_nothing() {
    let (state, port) = (State::new(), free_port(1));
    let ports = state.reserve("a", &[&format!("127.0.0.1:{port}:53/udp")]).expect("free");
    assert_eq!(UdpSocket::bind(("0.0.0.0", port)).expect_err("held").raw_os_error(), Some(98));
    let client = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    for _ in 0..100 {
        client.send_to(&[0; 1000], ("127.0.0.1", port)).expect("sent");
    }
    let mut buffer = [0; 2000];
    let queued = (0..100).take_while(|_| {
        rustix::net::recv(
            &ports.sockets[0].as_ref().expect("held").socket,
            &mut buffer[..],
            rustix::net::RecvFlags::empty(),
        )
        .is_ok()
    });
    assert!(queued.count() <= 3);
}

#[test]
fn containers_conflict_by_address_and_range() {
    let (state, port) = (State::new(), free_port(10));
    let (low, high) = (port, port + 9);
    let _held = state.reserve("a", &[&format!("127.0.0.1:{low}-{high}:{low}-{high}")]).expect("free");
    let third = port + 3;
    for flag in
        [format!("{third}:80"), format!("127.0.0.1:{third}:80"), format!("0.0.0.0:{third}-{high}:{third}-{high}")]
    {
        let (message, hint) = refusal(state.reserve("b", &[&flag]));
        let address = if flag.starts_with("127") { "127.0.0.1" } else { "0.0.0.0" };
        assert_eq!(message, format!("Bind for {address}:{third} failed: port is already allocated"), "{flag}");
        assert_eq!(hint, format!("container a publishes {third}/tcp: stop it, or choose another host port"));
    }
    let udp = state.reserve("b", &[&format!("127.0.0.1:{third}:80/udp")]).expect("the other protocol");
    let v6 = state.reserve("b", &[&format!("[::1]:{third}:80")]).expect("the other family");
    drop((udp, v6));
}

#[test]
fn the_holder_is_named_and_a_failure_leaves_nothing() {
    let (state, port) = (State::new(), free_port(2));
    let _held = state.reserve("a", &[&format!("{}:80", port + 1)]).expect("free");
    let endpoints = state.0.join("networks/n/endpoints");
    fs::create_dir_all(&endpoints).expect("a directory");
    let record = r#"{"version":1,"id":"","network_id":"n","network":"net","container_id":"a","container_name":"web","hostname":"",
        "ifname":"eth0","host_ifname":"","mac":"","ipv4":null,"prefix4":0,"gateway4":null,"ipv6":null,"prefix6":0,"gateway6":null,
        "aliases":[],"dns_names":[],"gw_priority":0,"internal":false}"#;
    fs::write(endpoints.join("a.json"), record).expect("written");
    let (_, hint) = refusal(state.reserve("b", &[&format!("{port}:80"), &format!("{}:81", port + 1)]));
    assert_eq!(hint, format!("container \"web\" (a) publishes {}/tcp: stop it, or choose another host port", port + 1));
    assert_eq!(state.leases(), 2, "only those of a");
    TcpListener::bind(("0.0.0.0", port)).expect("let go");
}

#[test]
fn the_leases_of_the_dead_are_free() {
    let (state, port) = (State::new(), free_port(4));
    let flag = format!("{port}-{}:80-83", port + 3);
    let crashed = state.reserve("a", &[&flag]).expect("free");
    drop(crashed);
    let (message, _) = refusal(state.reserve("b", &[&format!("{}:80", port + 2)]));
    assert!(message.ends_with("port is already allocated"), "its container may still run: {message}");
    let again = state.reserve("a", &[&flag]).expect("its own stale leases do not stop a container");
    drop(again);
    fs::remove_dir(state.0.join("containers/a")).expect("removed");
    let ports = state.reserve("b", &[&format!("{}:80", port + 2)]).expect("the owner is gone");
    assert_eq!((state.leases(), ports.bindings.len()), (2, 2));
}

#[test]
fn a_host_program_is_told_apart_and_named() {
    let (state, port) = (State::new(), free_port(1));
    let _program = TcpListener::bind(("0.0.0.0", port)).expect("free");
    let (message, hint) = refusal(state.reserve("a", &[&format!("{port}:80")]));
    assert_eq!(message, format!("failed to bind host port 0.0.0.0:{port}/tcp: address already in use"));
    assert!(hint.contains(&format!("(pid {}) uses {port}/tcp", std::process::id())), "{hint}");
    assert_eq!(state.leases(), 0);
    let (message, hint) = refusal(state.reserve("a", &["192.0.2.1:8080:80"]));
    assert_eq!(message, "failed to bind host port 192.0.2.1:8080/tcp: cannot assign requested address");
    assert!(hint.contains("no address of this host"));
}

#[test]
fn connections_in_time_wait_do_not_block_a_restart() {
    let (state, port) = (State::new(), free_port(1));
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("free");
    let client = TcpStream::connect(("127.0.0.1", port)).expect("connected");
    drop(listener.accept().expect("accepted"));
    drop((client, listener));
    let ports = state.reserve("a", &[&format!("{port}:80")]).expect("TIME_WAIT is nobody");
    let second = TcpListener::bind(("127.0.0.1", port)).expect_err("held all the same");
    assert_eq!(second.raw_os_error(), Some(98));
    drop(ports);
}

#[test]
fn a_range_gives_its_first_free_port() {
    let (state, port) = (State::new(), free_port(3));
    let flag = format!("{port}-{}:80", port + 2);
    let _program = TcpListener::bind(("0.0.0.0", port)).expect("free");
    let first = state.reserve("a", &[&flag, &flag]).expect("two left");
    let hosts: Vec<u16> = first.bindings.iter().map(|b| b.host.0).collect();
    assert_eq!(hosts, [port + 1, port + 1, port + 2, port + 2]);
    let (message, hint) = refusal(state.reserve("b", &[&flag]));
    assert_eq!(message, "all ports are allocated");
    assert_eq!(hint, format!("no host port from {port} to {} is free: widen the range, or free one", port + 2));
}

#[test]
fn fixed_ports_come_before_choices_and_repeats_count_once() {
    let (state, port) = (State::new(), free_port(2));
    let fixed = format!("{port}:81");
    let ports = state.reserve("a", &[&format!("{port}-{}:80", port + 1), &fixed, &fixed]).expect("both fit");
    let hosts: Vec<(u16, u16)> = ports.bindings.iter().map(|b| (b.host.0, b.container.0)).collect();
    assert_eq!(hosts, [(port + 1, 80), (port + 1, 80), (port, 81), (port, 81)]);
    let (message, hint) = refusal(state.reserve("b", &[&format!("{}:80", port + 5), &format!("{}:81", port + 5)]));
    assert!(message.ends_with("port is already allocated"));
    assert_eq!(hint, format!("this container publishes {}/tcp twice: drop one of the two", port + 5));
}

#[test]
fn ephemeral_ports_are_distinct_blocks() {
    let state = State::new();
    let ports = state.reserve("a", &["80", "127.0.0.1::80", "80/udp", "8000-8019"]).expect("plenty");
    let range = ephemeral_range();
    let tcp: Vec<u16> =
        ports.bindings.iter().filter(|b| b.proto == Proto::Tcp && b.container == (80, 80)).map(|b| b.host.0).collect();
    assert_eq!(tcp[0], tcp[1], "the same number in both families");
    assert_ne!(tcp[0], tcp[2], "any address and a specific one");
    for b in &ports.bindings {
        assert!(range.0 <= b.host.0 && b.host.1 <= range.1, "{b:?}");
        assert_eq!(b.host.1 - b.host.0, b.container.1 - b.container.0);
    }
    assert!(ports.bindings.iter().any(|b| b.container == (8000, 8019)), "one block: {:?}", ports.bindings);
}

#[test]
fn a_preview_touches_nothing() {
    let state = State::new();
    let specs: Vec<PortSpec> =
        ["8080:80", "9000-9002:80", "7000-7009:7000-7009/udp"].iter().flat_map(|f| parse(f).expect(f)).collect();
    let shown: Vec<(u16, u16)> = preview(&specs, None).expect("pure").iter().map(|b| b.host).collect();
    assert_eq!(shown, [(8080, 8080), (8080, 8080), (9000, 9000), (9000, 9000), (7000, 7009), (7000, 7009)]);
    let ephemeral =
        preview(&parse("80").expect("a port"), Some("127.0.0.1".parse().expect("an address"))).expect("pure");
    assert_eq!(ephemeral.len(), 1);
    assert_ne!(ephemeral[0].host.0, 0);
    assert_eq!(state.leases(), 0);
}
