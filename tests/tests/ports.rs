//! Ports of running containers: added, removed, narrowed to sources and interfaces.

use rrun_tests::Host;
use rrun_tests::host::{HOST_LAN, HOST_LAN6, NEIGHBOUR, NEIGHBOUR6};
use rrun_tests::peer::{Held, PROGRAM, call, call_udp, serve, serve_as};

/// How many rules, over all chains, table `inet rrun` has.
fn rules(host: &Host) -> usize {
    let doc: serde_json::Value = serde_json::from_str(&host.sh("nft -j list table inet rrun")).expect("JSON");
    doc["nftables"].as_array().expect("a list").iter().filter(|i| i.get("rule").is_some()).count()
}

fn leases(host: &Host) -> usize {
    let count = host.sh(&format!("find {}/ports -type f | wc -l", host.state().display()));
    count.parse().expect("a number")
}

#[test]
fn a_port_is_added_and_removed_while_it_runs() {
    let host = Host::new().with_lan();
    host.ok(&["network", "create", "--ipv6", "six"]);
    serve_as(&host, "tcp", &["--name", "web", "--network", "six"], "::", 80, "web");
    let pid = host.ok(&["inspect", "-f", "{{.State.Pid}}", "web"]);
    assert_ne!(host.try_neighbour(&call(HOST_LAN, 8080)).code, 0);
    let before = rules(&host);

    assert_eq!(host.ok(&["port", "add", "web", "8080:80"]), "80/tcp -> 0.0.0.0:8080\n80/tcp -> [::]:8080");
    assert_eq!(host.neighbour(&call(HOST_LAN, 8080)), format!("web {NEIGHBOUR}"));
    assert_eq!(host.neighbour(&call(HOST_LAN6, 8080)), format!("web {NEIGHBOUR6}"));
    assert!(host.sh(&call("127.0.0.1", 8080)).starts_with("web "));
    assert!(host.sh(&call("::1", 8080)).starts_with("web "), "relayed by a monitor that had no ports before");
    host.ok(&["run", "-d", "--name", "other", "-v", &rrun_tests::peer::mount(), "busybox", "sleep", "1000"]);
    assert!(host.ok(&["exec", "other", PROGRAM, "call", HOST_LAN, "8080"]).starts_with("web "));
    assert_eq!(rules(&host), before, "elements, no rules");

    // Shown at once, by everything that shows ports.
    assert_eq!(host.ok(&["port", "web"]), "80/tcp -> 0.0.0.0:8080\n80/tcp -> [::]:8080");
    assert!(host.ok(&["ps", "--filter", "name=web"]).contains("0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"));
    let ports = host.ok(&["inspect", "-f", "{{json .NetworkSettings.Ports}}", "web"]);
    assert_eq!(ports, r#"{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"},{"HostIp":"::","HostPort":"8080"}]}"#);
    assert_eq!(
        host.ok(&["inspect", "-f", "{{json .HostConfig.PortBindings}}", "web"]),
        r#"{"80/tcp":[{"HostIp":"","HostPort":"8080"}]}"#
    );
    // Held against containers and against programs of the host.
    let e = host.fails(125, &["run", "--rm", "-p", "8080:80", "busybox", "true"]);
    assert!(e.contains("port is already allocated") && e.contains("container \"web\""), "{e}");
    let program = format!("{} tcp 0.0.0.0 8080 x", rrun_tests::host::env("RRUN_PEER"));
    assert_ne!(host.try_sh(&format!("timeout 2 {program}")).code, 124, "a host program got the port");
    // The same once more is a conflict with itself, and changes nothing.
    let e = host.fails(1, &["port", "add", "web", "8080:80"]);
    assert!(e.contains("Bind for 0.0.0.0:8080 failed: port is already allocated"), "{e}");
    assert!(host.sh(&call("127.0.0.1", 8080)).starts_with("web "));

    // A second one, then the first goes.
    host.ok(&["port", "add", "web", "127.0.0.1:9090:80"]);
    assert!(host.sh(&call("127.0.0.1", 9090)).starts_with("web "));
    assert_eq!(host.ok(&["port", "rm", "web", "8080:80"]), "80/tcp -> 0.0.0.0:8080\n80/tcp -> [::]:8080");
    for addr in [HOST_LAN, HOST_LAN6] {
        assert_ne!(host.try_neighbour(&call(addr, 8080)).code, 0, "{addr}");
    }
    for addr in ["127.0.0.1", "::1"] {
        assert_ne!(host.try_sh(&call(addr, 8080)).code, 0, "{addr}");
    }
    assert!(host.sh(&call("127.0.0.1", 9090)).starts_with("web "));
    assert_eq!(host.ok(&["port", "web"]), "80/tcp -> 127.0.0.1:9090");
    assert_eq!(host.nft_elements("publish4_any").len() + host.nft_elements("publish6_any").len(), 0);
    let e = host.fails(1, &["port", "rm", "web", "8080:80"]);
    assert!(e.contains("no public port '80/tcp' published for web") && e.contains("hint:"), "{e}");
    assert_eq!(leases(&host), 1);
    // Free for the next one.
    host.ok(&["run", "--rm", "-p", "8080:80", "busybox", "true"]);
    assert_eq!(host.ok(&["inspect", "-f", "{{.State.Pid}}", "web"]), pid, "it was never restarted");
}

#[test]
fn added_ports_survive_restart_repair_and_a_killed_monitor() {
    let host = Host::new().with_lan();
    serve(&host, &["--name", "web", "-p", "7000:80"], 80, "web");
    host.ok(&["port", "add", "web", "8080:80", "9000-9003:80-83"]);
    host.sh("nft flush ruleset");
    assert_ne!(host.try_neighbour(&call(HOST_LAN, 8080)).code, 0);
    host.ok(&["ps"]);
    assert_eq!(host.neighbour(&call(HOST_LAN, 8080)), format!("web {NEIGHBOUR}"));
    assert_eq!(host.neighbour(&call(HOST_LAN, 9000)), format!("web {NEIGHBOUR}"));
    // Another monitor takes over what the first one held.
    let pid: i32 = host.ok(&["inspect", "-f", "{{.State.Pid}}", "web"]).parse().expect("a pid");
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
    let monitor: i32 =
        stat.rsplit(") ").next().and_then(|s| s.split(' ').nth(1)).expect("a parent").parse().expect("pid");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(monitor), nix::sys::signal::Signal::SIGKILL).expect("kill");
    rrun_tests::host::eventually("a new monitor", || {
        host.ok(&["ps"]);
        (host.rrun(&["port", "rm", "web", "7000:80"]).code == 0).then_some(())
    });
    assert_eq!(host.neighbour(&call(HOST_LAN, 8080)), format!("web {NEIGHBOUR}"));
    assert_ne!(host.try_neighbour(&call(HOST_LAN, 7000)).code, 0);
    host.ok(&["port", "add", "web", "7001:80"]);
    // The record follows.
    host.ok(&["restart", "-t", "0", "web"]);
    rrun_tests::host::eventually("the server is back", || {
        (host.try_neighbour(&call(HOST_LAN, 7001)).code == 0).then_some(())
    });
    assert_eq!(host.neighbour(&call(HOST_LAN, 8080)), format!("web {NEIGHBOUR}"));
    assert_ne!(host.try_neighbour(&call(HOST_LAN, 7000)).code, 0);
    assert_eq!(host.ok(&["port", "web", "81"]), "0.0.0.0:9001\n[::]:9001");
    // A stopped container: only the record changes.
    host.ok(&["stop", "-t", "0", "web"]);
    assert_eq!(leases(&host), 0, "all of them end with the container, added ones too");
    assert_eq!(host.ok(&["port", "add", "web", "7002:80"]), "");
    host.ok(&["port", "rm", "web", "9000-9003:80-83"]);
    let e = host.fails(1, &["port", "rm", "web", "1:1"]);
    assert!(e.contains("no public port '1/tcp' published for web"), "{e}");
    host.ok(&["start", "web"]);
    assert_eq!(
        host.ok(&["port", "web"]),
        "80/tcp -> 0.0.0.0:7001\n80/tcp -> 0.0.0.0:7002\n80/tcp -> 0.0.0.0:8080\n80/tcp -> [::]:7001\n80/tcp -> [::]:7002\n80/tcp -> [::]:8080"
    );
}

#[test]
fn removing_a_port_ends_its_connections_and_no_others() {
    let host = Host::new().with_lan();
    serve_as(&host, "echo", &["--name", "echo", "-p", "8080:80", "-p", "8081:80"], "0.0.0.0", 80, "welcome");
    for (addr, port, ends) in [("127.0.0.1", 8081, false), ("127.0.0.1", 8080, true), ("::1", 8080, true)] {
        let mut client = Held::by_host(&host, addr, port);
        assert_eq!(client.hears(), "welcome", "{addr}:{port}");
        if host.ok(&["port", "echo"]).contains(":8080") {
            host.ok(&["port", "rm", "echo", "8080:80"]);
        }
        assert_eq!(client.echoes("still there"), !ends, "{addr}:{port}");
        host.ok(&["port", "add", "echo", "8080:80"]);
    }
}

#[test]
fn udp_ports_follow_at_once() {
    let host = Host::new().with_lan();
    serve_as(&host, "udp", &["--name", "dns"], "0.0.0.0", 53, "udp");
    // A client that has been talking to a closed port is heard as soon as it opens.
    assert_ne!(host.try_neighbour(&call_udp(HOST_LAN, 5300)).code, 0);
    host.ok(&["port", "add", "dns", "5300:53/udp"]);
    assert_eq!(host.neighbour(&call_udp(HOST_LAN, 5300)), format!("udp {NEIGHBOUR}"));
    assert!(host.neighbour(&call_udp(HOST_LAN6, 5300)).starts_with("udp "));
    host.ok(&["port", "rm", "dns", "5300:53/udp"]);
    assert_ne!(host.try_neighbour(&call_udp(HOST_LAN, 5300)).code, 0);
}

#[test]
fn ports_wait_for_a_network_that_has_a_way_in() {
    let host = Host::new().with_lan();
    host.ok(&["network", "create", "--internal", "inside"]);
    serve(&host, &["--name", "web", "--network", "inside"], 80, "web");
    assert_eq!(host.ok(&["port", "add", "web", "8080:80"]), "");
    assert_ne!(host.try_neighbour(&call(HOST_LAN, 8080)).code, 0);
    host.ok(&["network", "create", "outside"]);
    host.ok(&["network", "connect", "outside", "web"]);
    assert_eq!(host.neighbour(&call(HOST_LAN, 8080)), format!("web {NEIGHBOUR}"));
    assert!(host.ok(&["port", "web"]).contains("80/tcp -> 0.0.0.0:8080"));

    // The last way in goes, and the host's port is free for whoever wants it…
    host.ok(&["network", "disconnect", "outside", "web"]);
    assert_eq!(host.ok(&["port", "web"]), "");
    assert_eq!(host.ok(&["ps", "--format", "{{.Ports}}"]), "");
    let other = serve(&host, &["-p", "8080:80"], 80, "other");
    assert_eq!(host.neighbour(&call(HOST_LAN, 8080)), format!("other {NEIGHBOUR}"));
    assert!(host.refuses(&["network", "connect", "outside", "web"]).contains("port is already allocated"));
    host.ok(&["rm", "-f", &other]);
    // …and comes back with the next.
    host.rrun(&["network", "disconnect", "outside", "web"]);
    host.ok(&["network", "connect", "outside", "web"]);
    assert_eq!(host.neighbour(&call(HOST_LAN, 8080)), format!("web {NEIGHBOUR}"));
}

#[test]
fn modes_without_ports_refuse_and_ephemeral_ports_are_told() {
    let host = Host::new();
    host.ok(&["run", "-d", "--name", "alone", "--network", "none", "busybox", "sleep", "1000"]);
    host.ok(&["run", "-d", "--name", "web", "-P", "--expose", "80", "--expose", "81", "busybox", "sleep", "1000"]);
    host.ok(&["run", "-d", "--name", "guest", "--network", "container:web", "busybox", "sleep", "1000"]);
    let e = host.fails(1, &["port", "add", "alone", "8080:80"]);
    assert!(e.contains("Published ports are discarded when using none network mode"), "{e}");
    let e = host.fails(1, &["port", "add", "guest", "8080:80"]);
    assert!(e.contains("conflicting options: port publishing and the container type network mode"), "{e}");
    let e = host.fails(125, &["port", "add", "web", "8080:80/icmp"]);
    assert!(e.contains("invalid proto: icmp"), "{e}");
    let told = host.ok(&["port", "add", "web", "90"]);
    assert!(told.starts_with("90/tcp -> 0.0.0.0:"), "{told}");
    // One of -P goes, the other stays, over a restart too.
    host.ok(&["port", "rm", "web", "81"]);
    host.ok(&["restart", "-t", "0", "web"]);
    let ports = host.ok(&["port", "web"]);
    assert!(ports.contains("80/tcp -> ") && ports.contains("90/tcp -> ") && !ports.contains("81/tcp -> "), "{ports}");
    // Part of a range is not a port of its own.
    host.ok(&["port", "add", "web", "9000-9009:9000-9009"]);
    let e = host.fails(1, &["port", "rm", "web", "9001:9001"]);
    assert!(e.contains("it is published as 9000-9009:9000-9009/tcp"), "{e}");
}

#[test]
fn ports_of_a_routed_network_open_and_close() {
    let host = Host::new().with_lan();
    let routed = "com.docker.network.bridge.gateway_mode_ipv4=routed";
    host.ok(&["network", "create", "--subnet", "10.77.0.0/24", "-o", routed, "net"]);
    serve(&host, &["--name", "web", "--network", "net"], 80, "web");
    let address = host.ok(&["inspect", "-f", "{{.NetworkSettings.Networks.net.IPAddress}}", "web"]);
    host.neighbour(&format!("ip route add 10.77.0.0/24 via {HOST_LAN}"));
    assert_ne!(host.try_neighbour(&call(&address, 80)).code, 0);
    host.ok(&["port", "add", "web", "8080:80"]);
    assert_eq!(host.neighbour(&call(&address, 80)), format!("web {NEIGHBOUR}"));
    host.ok(&["port", "rm", "web", "8080:80"]);
    assert_ne!(host.try_neighbour(&call(&address, 80)).code, 0);
    assert_eq!(host.ok(&["inspect", "-f", "{{json .HostConfig.PortBindings}}", "web"]), "{}");
    assert_eq!(host.ok(&["network", "check"]), "");
}

#[test]
fn only_those_named_by_from_get_in() {
    let host = Host::new().with_lan();
    host.neighbour("ip addr add 198.51.100.77/24 dev eth0; ip -6 addr add 2001:db8:51::77/64 dev eth0 nodad");
    host.ok(&["network", "create", "--ipv6", "six"]);
    let narrow = format!("8080:80,from={NEIGHBOUR},from={NEIGHBOUR6}");
    serve_as(&host, "tcp", &["--name", "web", "--network", "six", "-p", &narrow], "::", 80, "web");
    let bound = |from: &str, to: &str, port: u16| {
        host.try_neighbour(&format!(
            "python3 -c 'import socket,sys; s=socket.create_connection((sys.argv[2],int(sys.argv[3])),2,(sys.argv[1],0)); print(s.recv(99).decode().split()[0])' {from} {to} {port}"
        ))
    };
    for (from, to, enters) in [
        (NEIGHBOUR, HOST_LAN, true),
        ("198.51.100.77", HOST_LAN, false),
        (NEIGHBOUR6, HOST_LAN6, true),
        ("2001:db8:51::77", HOST_LAN6, false),
    ] {
        let ran = bound(from, to, 8080);
        assert_eq!(ran.stdout.trim() == "web", enters, "{from}: {} {}", ran.stdout, ran.stderr);
    }
    for addr in ["127.0.0.1", "::1", HOST_LAN] {
        assert_ne!(host.try_sh(&call(addr, 8080)).code, 0, "the host itself was not named: {addr}");
    }
    // A container that has only IPv4: IPv6 callers are relayed, by the same list.
    serve(&host, &["--name", "four"], 80, "four");
    host.ok(&[
        "port",
        "add",
        "four",
        &format!("published=9000,target=80,protocol=tcp,from={NEIGHBOUR6},from=127.0.0.0/8"),
    ]);
    assert_eq!(bound(NEIGHBOUR6, HOST_LAN6, 9000).stdout.trim(), "four");
    assert_ne!(bound("2001:db8:51::77", HOST_LAN6, 9000).stdout.trim(), "four");
    assert_ne!(bound(NEIGHBOUR, HOST_LAN, 9000).stdout.trim(), "four");
    assert!(host.sh(&call("127.0.0.1", 9000)).starts_with("four "));
    assert_ne!(host.try_sh(&call("::1", 9000)).code, 0);
    // The list is told.
    assert!(host.ok(&["ps"]).contains(&format!("0.0.0.0:8080->80/tcp from {NEIGHBOUR}/32")), "{}", host.ok(&["ps"]));
    let ports = host.ok(&["inspect", "-f", "{{json .NetworkSettings.Ports}}", "web"]);
    assert!(ports.contains(&format!(r#""From":["{NEIGHBOUR}/32"]"#)), "{ports}");
    // Ranges, an address, UDP; and no rule grows by any of it.
    let before = rules(&host);
    host.ok(&[
        "port",
        "add",
        "web",
        &format!("{HOST_LAN}:9100-9149:80-129,from={NEIGHBOUR}"),
        "9200-9249:9200-9249/udp,from=10.0.0.0/8,from=10.1.0.0/16,from=192.0.2.0/24",
    ]);
    assert_eq!(bound(NEIGHBOUR, HOST_LAN, 9100).stdout.trim(), "web");
    assert_ne!(bound("198.51.100.77", HOST_LAN, 9100).stdout.trim(), "web");
    assert_eq!(rules(&host), before);
    host.ok(&["port", "rm", "web", "8080:80"]);
    assert_ne!(bound(NEIGHBOUR, HOST_LAN, 8080).stdout.trim(), "web");
    // Closed for everybody, not opened for everybody, when the firewall is gone.
    host.sh("nft flush ruleset");
    assert_ne!(bound("198.51.100.77", HOST_LAN, 9100).stdout.trim(), "web");
    assert_ne!(bound("2001:db8:51::77", HOST_LAN6, 9000).stdout.trim(), "four");
}

#[test]
fn published_on_an_interface_whatever_its_address() {
    let host = Host::new().with_lan();
    host.ok(&["network", "create", "--ipv6", "six"]);
    serve_as(&host, "tcp", &["--name", "web", "--network", "six", "-p", "iface=lan0:8080:80"], "::", 80, "web");
    assert_eq!(host.neighbour(&call(HOST_LAN, 8080)), format!("web {NEIGHBOUR}"));
    assert_eq!(host.neighbour(&call(HOST_LAN6, 8080)), format!("web {NEIGHBOUR6}"));
    assert_ne!(host.try_sh(&call("127.0.0.1", 8080)).code, 0, "not by lo");
    host.ok(&["run", "-d", "--name", "other", "-v", &rrun_tests::peer::mount(), "busybox", "sleep", "1000"]);
    assert_ne!(host.rrun(&["exec", "other", PROGRAM, "call", HOST_LAN, "8080"]).code, 0, "not by the bridge");
    // The address changes; the port stays.
    host.sh(&format!("ip addr add 203.0.113.1/24 dev lan0; ip addr del {HOST_LAN}/24 dev lan0"));
    host.neighbour("ip addr add 203.0.113.2/24 dev eth0");
    assert_eq!(host.neighbour(&call("203.0.113.1", 8080)), "web 203.0.113.2");
    assert_eq!(host.ok(&["port", "web"]), "80/tcp -> 0.0.0.0%lan0:8080\n80/tcp -> [::]%lan0:8080");
    assert!(
        host.ok(&["port", "-r", "web", "80"])
            .starts_with("0.0.0.0%lan0:8080  reachable from what arrives by lan0 (203.0.113.1)")
    );
    // The same port on another interface is another port; on any, it is taken.
    host.sh("ip link add spare0 type veth peer name spare1; ip link set spare0 up");
    host.ok(&["run", "-d", "--name", "second", "-p", "iface=spare0:8080:80", "busybox", "sleep", "1000"]);
    let e = host.fails(125, &["run", "--rm", "-p", "8080:80", "busybox", "true"]);
    assert!(e.contains("port is already allocated"), "{e}");
    // One that comes later.
    let ran = host.rrun(&["run", "-d", "-p", "iface=wg7:8085:80", "busybox", "sleep", "1000"]).expect(0);
    assert!(ran.stderr.contains("interface wg7 is not there yet"), "{}", ran.stderr);
    host.ok(&["rm", "-f", "second"]);
    host.sh("ip link del spare0");
}

#[test]
fn reachability_is_told() {
    let host = Host::new().with_lan();
    let narrow = format!("8082:80,from={NEIGHBOUR}");
    serve(&host, &["--name", "web", "-p", "8080:80", "-p", "127.0.0.1:8081:80", "-p", &narrow], 80, "web");
    let told = host.ok(&["port", "--reachable", "web"]);
    assert!(told.contains("0.0.0.0:8080  reachable from every network this host is on ("), "{told}");
    assert!(told.contains(&format!("lan0 {HOST_LAN}")) && told.contains(&format!("lan0 {HOST_LAN6}")), "{told}");
    assert!(told.contains("127.0.0.1:8081  reachable from this host only"), "{told}");
    assert!(told.contains(&format!("0.0.0.0:8082  reachable from {NEIGHBOUR}/32 only: every network")), "{told}");
    let row = host.ok(&["ps", "--format", "{{.Reachable}}"]);
    assert!(row.contains("8081/tcp from this host only"), "{row}");
    // Scripts read the container's ID, and nothing else, from a pipe.
    let ran = host.rrun(&["run", "-d", "-p", "9000:80", "busybox", "sleep", "1000"]).expect(0);
    assert_eq!((ran.stdout.trim().len(), ran.stderr.as_str()), (64, ""));
    // The host's own default address for -p without one.
    std::fs::write(host.outside(host.dir.join("config.toml")), "[network]\ndefault_bind = \"127.0.0.1\"\n")
        .expect("config");
    host.ok(&["run", "-d", "--name", "shy", "-p", "9001:80", "busybox", "sleep", "1000"]);
    assert_eq!(host.ok(&["port", "shy"]), "80/tcp -> 127.0.0.1:9001");
    host.ok(&["port", "add", "shy", "9002:80"]);
    assert!(host.ok(&["port", "shy"]).contains("127.0.0.1:9002"));
}
