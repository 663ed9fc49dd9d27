//! `--host-loopback`: what listens on the host's 127.0.0.1, for the container that asked and for no other.

use rrun_tests::Host;
use rrun_tests::host::eventually;
use rrun_tests::kernel::lacks;
use rrun_tests::peer::{PROGRAM, Server, mount};

/// A dual-stack network `net` and a container `web` on it, with these flags.
fn web(host: &Host, flags: &[&str]) {
    host.ok(&["network", "create", "--ipv6", "--subnet", "10.9.0.0/24", "--subnet", "fd00:9::/64", "net"]);
    run(host, "web", &[&["--network", "net"], flags].concat());
}

fn run(host: &Host, name: &str, flags: &[&str]) {
    let head = ["run", "-d", "--name", name, "-v", &mount()];
    host.ok(&[&head[..], flags, &["busybox", "sleep", "1000"]].concat());
}

/// What a call from inside says, whether it succeeds or not.
fn called(host: &Host, from: &str, how: &str, addr: &str, port: &str) -> String {
    host.rrun(&["exec", from, PROGRAM, how, addr, port]).stdout.trim().to_string()
}

#[test]
fn the_container_that_asked_reaches_the_ports_it_asked_for() {
    let host = Host::new();
    let _db = Server::on_host(&host, "tcp", "127.0.0.1", 5432, "db");
    let _time = Server::on_host(&host, "udp", "127.0.0.1", 5432, "time");
    let _six = Server::on_host(&host, "tcp", "::1", 5433, "six");
    let _other = Server::on_host(&host, "tcp", "127.0.0.1", 5435, "other");
    host.ok(&["run", "--rm", "busybox", "true"]);
    let rules = || host.sh("nft list ruleset");
    host.ok(&["network", "create", "--ipv6", "--subnet", "10.9.0.0/24", "--subnet", "fd00:9::/64", "net"]);
    let before = rules();
    for name in ["web", "too"] {
        run(&host, name, &["--network", "net", "--host-loopback", "5432-5434", "--host-loopback", "5432/udp"]);
    }
    run(&host, "poor", &["--network", "net"]);
    assert_eq!(rules(), before, "the host's firewall hears nothing of it");
    for gateway in ["10.9.0.1", "fd00:9::1"] {
        for asker in ["web", "too"] {
            assert_eq!(called(&host, asker, "call", gateway, "5432"), "db 127.0.0.1", "{gateway}");
            assert_eq!(called(&host, asker, "call-udp", gateway, "5432"), "time 127.0.0.1", "{gateway}");
            assert_eq!(called(&host, asker, "call", gateway, "5433"), "six ::1", "on localhost, wherever that is");
            // Taken by the relay, and given up: nobody listens there.
            assert_eq!(called(&host, asker, "call", gateway, "5434"), "closed");
            assert_eq!(called(&host, asker, "call", gateway, "5435"), "refused", "a port that nobody asked for");
        }
        for port in ["5432", "5433"] {
            assert_eq!(called(&host, "poor", "call", gateway, port), "refused", "a neighbour did not ask");
        }
        assert_ne!(called(&host, "poor", "call-udp", gateway, "5432"), "time 127.0.0.1");
    }
    let by_name = "nc host.docker.internal 5432 </dev/null";
    assert_eq!(host.ok(&["exec", "web", "sh", "-c", by_name]), "db 127.0.0.1");
    // Its loopback is its own: neither the port there nor the socket behind it is anybody else's.
    assert_eq!(called(&host, "web", "call", "127.0.0.1", "5432"), "refused");
    let pid = host.ok(&["inspect", "-f", "{{.State.Pid}}", "web"]);
    let table = host.sh(&format!("nsenter -t {pid} -n nft list table inet rrun-host-loopback"));
    let inner = table.split("dnat ip to 127.0.0.1:").nth(1).and_then(|t| t.split_whitespace().next());
    let inner = inner.expect("the translation in nft's words");
    assert_eq!(called(&host, "web", "call", "127.0.0.1", inner), "db 127.0.0.1");
    assert_eq!(called(&host, "poor", "call", "10.9.0.2", inner), "refused");
    // And so is the port: the container may listen there itself.
    host.ok(&["exec", "-d", "web", PROGRAM, "tcp", "0.0.0.0", "5432", "mine"]);
    eventually("its own server", || {
        (called(&host, "poor", "call", "10.9.0.2", "5432") == "mine 10.9.0.4").then_some(())
    });
    assert_eq!(called(&host, "web", "call", "10.9.0.1", "5432"), "db 127.0.0.1");
    let shown = host.ok(&["inspect", "-f", "{{json .HostConfig.HostLoopback}}", "web"]);
    assert_eq!(shown, r#"["5432-5434","5432/udp"]"#);
    assert_eq!(host.ok(&["inspect", "-f", "{{json .HostConfig.HostLoopback}}", "poor"]), "null");
}

#[test]
fn gateways_come_and_go_and_so_does_the_monitor() {
    let host = Host::new();
    let _db = Server::on_host(&host, "tcp", "127.0.0.1", 5432, "db");
    web(&host, &["--host-loopback", "5432"]);
    host.ok(&["network", "create", "--subnet", "10.8.0.0/24", "more"]);
    host.ok(&["network", "create", "--internal", "--subnet", "10.7.0.0/24", "inner"]);
    let call = |gateway: &str| called(&host, "web", "call", gateway, "5432");
    host.ok(&["network", "connect", "more", "web"]);
    host.ok(&["network", "connect", "inner", "web"]);
    assert_eq!((call("10.9.0.1"), call("10.8.0.1")), ("db 127.0.0.1".into(), "db 127.0.0.1".into()));
    assert_eq!(call("10.7.0.1"), "refused", "an internal network leads nowhere");
    host.ok(&["network", "disconnect", "net", "web"]);
    assert_eq!(call("10.8.0.1"), "db 127.0.0.1");
    // Whoever takes over from a killed monitor relays again.
    let id = host.ok(&["inspect", "-f", "{{.Id}}", "web"]);
    let state = std::fs::read_to_string(host.outside(host.state().join("containers").join(&id).join("state.json")));
    let state: serde_json::Value = serde_json::from_str(&state.expect("state.json")).expect("JSON");
    host.sh(&format!("kill -9 {0}; while [ -e /proc/{0} ]; do sleep 0.01; done", state["monitor_pid"]));
    host.ok(&["ps"]);
    eventually("the relay is back", || (call("10.8.0.1") == "db 127.0.0.1").then_some(()));
    host.ok(&["restart", "-t", "0", "web"]);
    assert_eq!(call("10.8.0.1"), "db 127.0.0.1");
}

#[test]
fn beside_an_egress_policy_it_is_a_permission() {
    let host = Host::new();
    let _db = Server::on_host(&host, "tcp", "127.0.0.1", 5432, "db");
    let _open = Server::on_host(&host, "tcp", "0.0.0.0", 80, "open");
    web(&host, &["--egress", "deny", "--host-loopback", "5432"]);
    assert_eq!(called(&host, "web", "call", "10.9.0.1", "5432"), "db 127.0.0.1");
    assert_ne!(called(&host, "web", "call", "10.9.0.1", "80"), "open 10.9.0.2");
}

#[test]
fn where_the_host_is_no_gateway_it_is_refused() {
    let host = Host::new().with_lan();
    host.ok(&["network", "create", "--internal", "inner"]);
    host.ok(&["run", "-d", "--name", "cc", "busybox", "sleep", "1000"]);
    let refused = |flags: &[&str]| {
        let line = [&["run", "--rm", "--host-loopback", "5432"], flags, &["busybox", "true"]].concat();
        let e = host.fails(125, &line);
        assert!(e.contains("hint:"), "{e}");
        e
    };
    for mode in ["none", "host", "container:cc"] {
        let e = refused(&["--network", mode]);
        assert!(e.contains(&format!("conflicting options: host-loopback and the network mode {mode}")), "{e}");
    }
    let e = refused(&["--network", "inner"]);
    assert!(e.contains("--host-loopback is not possible: network inner is internal: nothing leads out of it"), "{e}");
    host.ok(&["network", "create", "-o", "com.docker.network.bridge.inhibit_ipv4=true", "far"]);
    assert!(refused(&["--network", "far"]).contains("the host is not the gateway of network far"));
    if !lacks(&["macvlan"]) {
        host.ok(&["network", "create", "-d", "macvlan", "-o", "parent=lan0", "--subnet", "198.51.100.0/24", "lan"]);
        let e = refused(&["--network", "lan"]);
        assert!(e.contains("containers on macvlan network lan are cut off from their host"), "{e}");
    }
    let e = host.fails(125, &["run", "--rm", "--host-loopback", "5432,99999", "busybox", "true"]);
    assert!(e.contains("invalid --host-loopback port: \"99999\"") && e.contains("hint:"), "{e}");
    assert_eq!(host.ok(&["ps", "-aq", "--filter", "name=."]).lines().count(), 1, "nothing stays but cc");
    let plan = host.ok(&["explain", "run", "--host-loopback", "5432", "busybox", "true"]);
    assert!(plan.contains("let the container reach 127.0.0.1 of the host, port 5432/tcp, as 172.17.0.1"), "{plan}");
}
