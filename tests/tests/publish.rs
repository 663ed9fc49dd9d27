//! `-p`: from where a published port is reachable, from where it is not, and who the server sees.

use rrun_tests::Host;
use rrun_tests::host::{HOST_LAN, HOST_LAN6, NEIGHBOUR, NEIGHBOUR6, env, eventually};
use rrun_tests::kernel::lacks;
use rrun_tests::peer::{PROGRAM, Server, call, call_inside, call_udp, mount, serve, serve_as};

#[test]
fn reachable_from_everywhere_with_the_callers_address() {
    let host = Host::new().with_lan();
    let web = serve(&host, &["-p", "8080:80", "--name", "web"], 80, "web");
    let ip = host.ok(&["inspect", "-f", "{{.NetworkSettings.Networks.bridge.IPAddress}}", &web]);
    // From a neighbour, with its true address.
    assert_eq!(host.neighbour(&call(HOST_LAN, 8080)), format!("web {NEIGHBOUR}"));
    // From the host, on each of its addresses.
    for addr in ["127.0.0.1", HOST_LAN, "172.17.0.1"] {
        assert!(host.sh(&call(addr, 8080)).starts_with("web "), "{addr}");
    }
    assert!(host.sh(&call("::1", 8080)).starts_with("web "));
    // IPv6 from a neighbour to a container that has only IPv4.
    assert!(host.neighbour(&call(HOST_LAN6, 8080)).starts_with("web "));
    // From the container itself (hairpin), and from another container, by the host's address.
    assert!(host.ok(&["exec", "web", PROGRAM, "call", HOST_LAN, "8080"]).starts_with("web "));
    host.ok(&["network", "create", "other"]);
    let inside = call_inside(HOST_LAN, 8080);
    let mut args = vec!["run", "--rm", "--network", "other", "-v"];
    let mount = mount();
    args.extend([mount.as_str(), "busybox"]);
    args.extend(inside.split(' '));
    assert!(host.ok(&args).starts_with("web "));
    // Directly on the container's address: the host may, a neighbour that routes to it may not.
    assert_eq!(host.sh(&call(&ip, 80)), "web 172.17.0.1");
    host.neighbour(&format!("ip route add 172.17.0.0/16 via {HOST_LAN}"));
    assert_ne!(host.try_neighbour(&call(&ip, 80)).code, 0, "direct routing from outside is closed");
    assert_eq!(host.ok(&["port", "web"]), "80/tcp -> 0.0.0.0:8080\n80/tcp -> [::]:8080");
    assert_eq!(host.ok(&["port", "web", "80"]), "0.0.0.0:8080\n[::]:8080");
    host.ok(&["rm", "-f", "web"]);
    assert_ne!(host.try_neighbour(&call(HOST_LAN, 8080)).code, 0, "gone with the container");
}

#[test]
fn of_a_long_range_in_the_foreground_every_port_is_reached() {
    let host = Host::new();
    let mount = mount();
    let range = "9000-9199:1000-1199";
    let server = [PROGRAM, "tcp", "0.0.0.0", "1199", "last"];
    let args = [&["run", "--rm", "--name", "web", "-v", &mount, "-p", range, "busybox"][..], &server].concat();
    let mut foreground = host.command(&args);
    let mut foreground = foreground.stdout(std::process::Stdio::null()).spawn().expect("rrun run");
    // What is relayed begins to listen last.
    for addr in ["127.0.0.1", "::1"] {
        eventually(addr, || host.try_sh(&call(addr, 9199)).stdout.starts_with("last ").then_some(()));
    }
    host.ok(&["rm", "-f", "web"]);
    foreground.wait().expect("ended");
}

#[test]
fn a_server_sees_who_calls_over_ipv6_too() {
    let host = Host::new().with_lan();
    host.ok(&["network", "create", "--ipv6", "six"]);
    serve_as(&host, "tcp", &["-p", "8080:80", "--network", "six"], "::", 80, "six");
    assert_eq!(host.neighbour(&call(HOST_LAN6, 8080)), format!("six {NEIGHBOUR6}"));
    assert_eq!(host.neighbour(&call(HOST_LAN, 8080)), format!("six {NEIGHBOUR}"));
    assert!(host.sh(&call("::1", 8080)).starts_with("six "));
}

#[test]
fn udp_and_sctp() {
    let host = Host::new().with_lan();
    serve_as(&host, "udp", &["-p", "5300:53/udp"], "0.0.0.0", 53, "udp");
    assert_eq!(host.neighbour(&call_udp(HOST_LAN, 5300)), format!("udp {NEIGHBOUR}"));
    assert!(host.sh(&call_udp("127.0.0.1", 5300)).starts_with("udp "));
    assert_ne!(host.try_neighbour(&call(HOST_LAN, 5300)).code, 0, "only UDP is published");
    host.ok(&["run", "-d", "-p", "7000:7000/sctp", "busybox", "sleep", "1000"]);
    // By number: names of protocols need /etc/protocols.
    let table = host.sh("nft -n list table inet rrun");
    assert!(table.contains("132 . 7000"), "{table}");
}

/// Not only an element of a map: associations, from everywhere, with the caller's address, over IPv4 and IPv6.
#[test]
fn sctp_reaches_a_server() {
    if lacks(&["SCTP"]) {
        return;
    }
    let host = Host::new().with_lan();
    host.ok(&["network", "create", "--ipv6", "six"]);
    serve_as(&host, "sctp", &["--network", "six", "--name", "web", "-p", "7000:80/sctp"], "::", 80, "sctp");
    let call = |addr: &str| format!("{} call-sctp {addr} 7000", env("RRUN_PEER"));
    assert_eq!(host.neighbour(&call(HOST_LAN)), format!("sctp {NEIGHBOUR}"));
    assert_eq!(host.neighbour(&call(HOST_LAN6)), format!("sctp {NEIGHBOUR6}"));
    assert!(host.sh(&call(HOST_LAN)).starts_with("sctp "));
    let inside = ["run", "--rm", "--network", "six", "-v", &mount(), "busybox", "sh", "-ec"];
    let out = host.ok(&[
        &inside[..],
        &["/peer call-sctp $(nslookup web 127.0.0.11 | sed -n 's/^Address: //p' | grep -F . | tail -n 1) 80"],
    ]
    .concat());
    assert!(out.starts_with("sctp "), "{out}");
    let e = host.refuses(&["run", "--rm", "-p", "7000:80/sctp", "busybox", "true"]);
    assert!(e.contains("port is already allocated"), "{e}");
    host.ok(&["rm", "-f", "web"]);
    assert_ne!(host.try_neighbour(&call(HOST_LAN)).code, 0, "closed again");
}

#[test]
fn an_address_narrows_it() {
    let host = Host::new().with_lan();
    serve(&host, &["-p", "127.0.0.1:8080:80"], 80, "local");
    serve(&host, &["-p", &format!("{HOST_LAN}:8081:80")], 80, "lan");
    assert!(host.sh(&call("127.0.0.1", 8080)).starts_with("local "));
    assert_ne!(host.try_neighbour(&call(HOST_LAN, 8080)).code, 0);
    assert_ne!(host.try_sh(&call("172.17.0.1", 8080)).code, 0);
    // A neighbour that addresses 127.0.0.1 to our interface gets nothing (moby#45610).
    host.neighbour(&format!(
        "sysctl -qw net.ipv4.conf.all.route_localnet=1 net.ipv4.conf.eth0.route_localnet=1; ip addr del 127.0.0.1/8 dev lo; \
         ip route add 127.0.0.1 via {HOST_LAN} dev eth0 src {NEIGHBOUR}"
    ));
    assert_ne!(host.try_neighbour(&call("127.0.0.1", 8080)).code, 0);
    assert_eq!(host.neighbour(&call(HOST_LAN, 8081)), format!("lan {NEIGHBOUR}"));
    assert_ne!(host.try_sh(&call("127.0.0.1", 8081)).code, 0);
}

#[test]
fn ranges_and_ephemeral_ports() {
    let host = Host::new().with_lan();
    serve(&host, &["-p", "9000-9499:1000-1499"], 1234, "range");
    assert_eq!(host.neighbour(&call(HOST_LAN, 9234)), format!("range {NEIGHBOUR}"));
    serve(&host, &["-p", "20000-20099:20000-20099", "--name", "equal"], 20050, "equal");
    assert_eq!(host.neighbour(&call(HOST_LAN, 20050)), format!("equal {NEIGHBOUR}"));
    assert_ne!(host.try_neighbour(&call(HOST_LAN, 20051)).code, 0, "published, but nobody listens");
    // Unpublished ports of the container are closed from outside.
    assert_ne!(host.try_neighbour(&call(HOST_LAN, 1234)).code, 0);
    // Ephemeral: some free port, the same in both families.
    let id = serve(&host, &["-p", "80", "-p", "127.0.0.1::81"], 80, "eph");
    let ports = host.ok(&["port", &id, "80"]);
    let chosen: Vec<&str> = ports.lines().filter_map(|l| l.rsplit(':').next()).collect();
    assert_eq!(chosen.len(), 2);
    assert_eq!(chosen[0], chosen[1], "{ports}");
    assert_eq!(host.neighbour(&call(HOST_LAN, chosen[0].parse().expect("a port"))), format!("eph {NEIGHBOUR}"));
    // First free of a range; then none is left.
    for want in ["9700", "9701"] {
        let id = host.ok(&["run", "-d", "-p", "9700-9701:80", "busybox", "sleep", "1000"]);
        assert_eq!(host.ok(&["port", &id, "80"]).lines().next(), Some(format!("0.0.0.0:{want}").as_str()));
    }
    let e = host.fails(125, &["run", "-d", "-p", "9700-9701:80", "busybox", "true"]);
    assert!(e.contains("all ports are allocated") || e.contains("port is already allocated"), "{e}");
}

#[test]
fn holding_many_ports_leaves_the_containers_limits_alone() {
    let host = Host::new();
    let rrun = rrun_tests::host::env("RRUN_BIN");
    let limits = |flags: &str| host.sh(&format!("ulimit -Sn 256; {rrun} run --rm {flags} busybox sh -c 'ulimit -Sn'"));
    assert_eq!(limits(""), "256");
    assert_eq!(limits("-p 9000-9499:9000-9499"), "256");
    assert_eq!(limits("-p 9000-9499:9000-9499 --ulimit nofile=300:400"), "300");
}

#[test]
fn publish_all_and_expose() {
    let host = Host::new();
    let id = host.ok(&["run", "-d", "-P", "--expose", "80", "--expose", "90-91/udp", "busybox", "sleep", "1000"]);
    let ports = host.ok(&["port", &id]);
    for p in ["80/tcp", "90/udp", "91/udp"] {
        assert!(ports.contains(&format!("{p} -> 0.0.0.0:")), "{ports}");
    }
    let exposed = host.ok(&["run", "-d", "--expose", "80", "busybox", "sleep", "1000"]);
    assert_eq!(host.ok(&["inspect", "-f", "{{json .NetworkSettings.Ports}}", &exposed]), r#"{"80/tcp":null}"#);
}

#[test]
fn conflicts_are_told_apart() {
    let host = Host::new();
    host.ok(&["run", "-d", "--name", "first", "-p", "8080:80", "busybox", "sleep", "1000"]);
    let e = host.fails(125, &["run", "--name", "second", "-p", "8080:80", "busybox", "true"]);
    assert!(e.contains("Bind for 0.0.0.0:8080 failed: port is already allocated"), "{e}");
    assert!(e.contains("driver failed programming external connectivity on endpoint second ("), "{e}");
    assert!(e.contains("hint:"), "{e}");
    // An address is part of "any address".
    host.fails(125, &["run", "--rm", "-p", "127.0.0.1:8080:80", "busybox", "true"]);
    // A program of the host, not a container.
    let _server = Server::on_host(&host, "tcp", "0.0.0.0", 8090, "host");
    let e = host.fails(125, &["run", "--rm", "-p", "8090:80", "busybox", "true"]);
    assert!(e.contains("failed to bind host port 0.0.0.0:8090/tcp: address already in use"), "{e}");
    // In the midst of a long range, which is bound when the container's first process is there already.
    for flags in [&["run", "--rm"][..], &["run", "-d", "--name", "half"]] {
        let e = host.fails(125, &[flags, &["-p", "8085-8584:9000-9499", "busybox", "true"]].concat());
        assert!(e.contains("failed to bind host port 0.0.0.0:8090/tcp: address already in use"), "{e}");
        assert!(e.contains("driver failed programming external connectivity on endpoint "), "{e}");
    }
    assert_eq!(host.ok(&["ps", "-aq"]).lines().count(), 1);
    // And the other way round: a program of the host cannot take a published port.
    let taken = host.try_sh(&format!("{} tcp 0.0.0.0 8080 x", rrun_tests::host::env("RRUN_PEER")));
    assert_ne!(taken.code, 0, "{}", taken.stdout);
    // Freed at the end.
    host.ok(&["rm", "-f", "first"]);
    host.ok(&["run", "--rm", "-p", "8080:80", "busybox", "true"]);
}

#[test]
fn back_to_back_runs_on_one_port() {
    let host = Host::new();
    for _ in 0..20 {
        host.ok(&["run", "--rm", "-p", "8080:80", "busybox", "true"]);
    }
}

#[test]
fn bad_port_specs_are_named() {
    let host = Host::new();
    for (spec, text) in [
        ("80:", "no port specified: 80:<empty>"),
        ("8080:80/icmp", "invalid proto: icmp"),
        ("1.2.3.400:80:80", "invalid IP address: 1.2.3.400"),
        ("8080:99999", "invalid containerPort: 99999"),
        ("99999:80", "invalid hostPort: 99999"),
        ("8000-8001:80-82", "invalid ranges specified for container and host Ports: 80-82 and 8000-8001"),
    ] {
        let e = host.fails(125, &["run", "--rm", "-p", spec, "busybox", "true"]);
        assert!(e.contains(text), "{spec}: {e}");
    }
    let e = host.fails(125, &["run", "--rm", "--network", "container:x", "-p", "80:80", "busybox", "true"]);
    assert!(e.contains("conflicting options: port publishing and the container type network mode"), "{e}");
}

/// How many rules, over all chains, table `inet rrun` has.
fn rules(host: &Host) -> usize {
    let doc: serde_json::Value = serde_json::from_str(&host.sh("nft -j list table inet rrun")).expect("JSON");
    doc["nftables"].as_array().expect("a list").iter().filter(|i| i.get("rule").is_some()).count()
}

#[test]
fn no_rule_grows_with_ports() {
    let host = Host::new();
    host.ok(&["run", "-d", "busybox", "sleep", "1000"]);
    let before = rules(&host);
    host.ok(&["run", "-d", "-p", "9000-9499:9000-9499", "-p", "8080:80", "busybox", "sleep", "1000"]);
    assert_eq!(rules(&host), before);
}

#[test]
fn five_thousand_ports_as_a_range_and_one_by_one() {
    let host = Host::new().with_lan();
    serve(&host, &["--name", "first", "-p", "8080:80"], 80, "first");
    let before = rules(&host);
    serve(&host, &["--name", "range", "-p", "10000-14999:10000-14999"], 14999, "range");
    assert_eq!(host.neighbour(&call(HOST_LAN, 14999)), format!("range {NEIGHBOUR}"));
    assert_eq!(host.nft_elements("publish4_any_range").len(), 1, "one element, however many ports");
    let flags: Vec<String> = (20000..25000).map(|port| format!("-p={port}:80")).collect();
    let mut flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    flags.extend(["--name", "single"]);
    serve(&host, &flags, 80, "single");
    for port in [20000, 22500, 24999] {
        assert_eq!(host.neighbour(&call(HOST_LAN, port)), format!("single {NEIGHBOUR}"));
    }
    assert!(host.neighbour(&call(HOST_LAN6, 24999)).starts_with("single "));
    assert_eq!(host.nft_elements("publish4_any").len(), 5001);
    assert_eq!(rules(&host), before);
    // One more, one less, and all of them after a flush.
    host.ok(&["port", "add", "first", "8081:80"]);
    host.ok(&["port", "add", "single", "25000:80"]);
    host.ok(&["port", "rm", "single", "20000:80"]);
    assert_ne!(host.try_neighbour(&call(HOST_LAN, 20000)).code, 0);
    host.sh("nft flush ruleset");
    host.ok(&["ps", "-q"]);
    for (port, who) in [(8081, "first"), (14999, "range"), (24999, "single"), (25000, "single")] {
        assert_eq!(host.neighbour(&call(HOST_LAN, port)), format!("{who} {NEIGHBOUR}"));
    }
    assert_eq!(rules(&host), before);
}

#[test]
fn more_ports_than_the_open_files_limit_has_room_for() {
    let host = Host::new().with_lan();
    let rrun = rrun_tests::host::env("RRUN_BIN");
    let ran = host.try_sh(&format!(
        "ulimit -Sn 512; ulimit -Hn 512; {rrun} run -d --name web -v {} -p 9000-9999:9000-9999 busybox {} tcp 0.0.0.0 9999 web",
        mount(),
        PROGRAM
    ));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("published ports are reserved against other containers only"), "{}", ran.stderr);
    assert!(ran.stderr.contains("the open-files limit is 512"), "{}", ran.stderr);
    rrun_tests::host::eventually("the last port is published all the same", || {
        (host.try_neighbour(&call(HOST_LAN, 9999)).stdout == format!("web {NEIGHBOUR}\n")).then_some(())
    });
    let e = host.fails(125, &["run", "--rm", "-p", "9998:80", "busybox", "true"]);
    assert!(e.contains("port is already allocated"), "{e}");
    // What is added then is told the same.
    let ran = host.rrun(&["port", "add", "web", "8000-8099:9000-9099"]).expect(0);
    assert!(ran.stderr.contains("open-files limit is 512"), "{}", ran.stderr);
}

#[test]
fn what_docker_says_of_ports() {
    let host = Host::new();
    host.ok(&["run", "-d", "--name", "web", "-p", "8080:80", "busybox", "sleep", "1000"]);
    let _server = Server::on_host(&host, "udp", "0.0.0.0", 8090, "host");
    for (spec, text) in [
        ("8080:", "no port specified: 8080:<empty>"),
        ("80/icmp", "invalid proto: icmp"),
        ("localhost:80:80", "invalid IP address: localhost"),
        ("http", "invalid containerPort: http"),
        ("http:80", "invalid hostPort: http"),
        ("9000-9001:80-85", "invalid ranges specified for container and host Ports: 80-85 and 9000-9001"),
        ("published=8080,target", "invalid publish opts format (should be name=value but got 'target')"),
        ("8080:80", "Bind for 0.0.0.0:8080 failed: port is already allocated"),
        ("8090:80/udp", "failed to bind host port 0.0.0.0:8090/udp: address already in use"),
        ("192.0.2.77:80:80", "failed to bind host port 192.0.2.77:80/tcp: cannot assign requested address"),
        ("8080-8080:80", "port is already allocated"),
    ] {
        let run = host.fails(125, &["run", "--rm", "--name", "other", "-p", spec, "busybox", "true"]);
        let add = host.refuses(&["port", "add", "web", spec]);
        for e in [&run, &add] {
            assert!(e.contains(text) && e.contains("hint: "), "{spec}: {e}");
        }
        if text.starts_with("Bind") || text.starts_with("failed") {
            assert!(run.contains("failed to set up container networking: driver failed programming external connectivity on endpoint other ("), "{run}");
        }
    }
    let e = host.fails(1, &["port", "web", "81"]);
    assert!(e.contains("no public port '81/tcp' published for web"), "{e}");
}
