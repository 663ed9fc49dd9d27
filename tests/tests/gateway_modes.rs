//! Gateway modes of bridge networks: who reaches a container at which address, and under which
//! address it goes out. IPv4 and IPv6, with real connections from the LAN, the host and neighbours.

use rrun_tests::Host;
use rrun_tests::host::{HOST_LAN, HOST_LAN6, NEIGHBOUR, NEIGHBOUR6};
use rrun_tests::peer::{PROGRAM, Server, call, mount, serve_as};
use serde_json::Value;

const MODE4: &str = "com.docker.network.bridge.gateway_mode_ipv4";
const MODE6: &str = "com.docker.network.bridge.gateway_mode_ipv6";

/// A dual-stack network with these options, 10.9.0.0/24 and fd00:9::/64.
fn network(host: &Host, options: &[String]) {
    let mut args = vec!["network", "create", "--subnet", "10.9.0.0/24", "--subnet", "fd00:9::/64"];
    for o in options {
        args.extend(["-o", o]);
    }
    args.push("net");
    host.ok(&args);
    // The LAN knows the way to the containers, as a router there would.
    host.neighbour(&format!("ip route add 10.9.0.0/24 via {HOST_LAN}; ip -6 route add fd00:9::/64 via {HOST_LAN6}"));
}

/// A server on ports 80 and 81, of which 80 is published as 8080.
fn server(host: &Host) -> String {
    let id = serve_as(host, "tcp", &["--network", "net", "--name", "web", "-p", "8080:80"], "::", 80, "web");
    host.ok(&["exec", "-d", "web", PROGRAM, "tcp", "::", "81", "hidden"]);
    rrun_tests::host::eventually("the second server listens", || {
        (host.rrun(&["exec", "web", PROGRAM, "call", "127.0.0.1", "81"]).code == 0).then_some(())
    });
    id
}

fn reaches(host: &Host, addr: &str, port: u16) -> bool {
    host.try_neighbour(&call(addr, port)).code == 0
}

fn ports(host: &Host) -> Value {
    let text = host.ok(&["inspect", "-f", "{{json .NetworkSettings.Ports}}", "web"]);
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn nat_lets_in_published_ports_only() {
    let host = Host::new().with_lan();
    network(&host, &[format!("{MODE4}=nat"), format!("{MODE6}=nat")]);
    server(&host);
    for (lan, ctr) in [(HOST_LAN, "10.9.0.2"), (HOST_LAN6, "fd00:9::2")] {
        assert!(reaches(&host, lan, 8080), "{lan}");
        assert!(!reaches(&host, ctr, 80), "not by a route, {ctr}");
        assert!(!reaches(&host, ctr, 81), "{ctr}");
    }
}

#[test]
fn nat_unprotected_opens_every_port_to_who_has_a_route() {
    let host = Host::new().with_lan();
    network(&host, &[format!("{MODE4}=nat-unprotected"), format!("{MODE6}=nat-unprotected")]);
    server(&host);
    for (lan, ctr, neighbour) in [(HOST_LAN, "10.9.0.2", NEIGHBOUR), (HOST_LAN6, "fd00:9::2", NEIGHBOUR6)] {
        assert_eq!(host.neighbour(&call(lan, 8080)), format!("web {neighbour}"), "published as ever");
        assert_eq!(host.neighbour(&call(ctr, 80)), format!("web {neighbour}"));
        assert_eq!(host.neighbour(&call(ctr, 81)), format!("hidden {neighbour}"));
        let _lan = Server::on_neighbour(&host, "tcp", neighbour, 9000, "lan");
        assert_eq!(host.ok(&["exec", "web", PROGRAM, "call", neighbour, "9000"]), format!("lan {lan}"), "out by NAT");
    }
}

#[test]
fn routed_opens_the_containers_own_ports_without_nat() {
    let host = Host::new().with_lan();
    network(&host, &[format!("{MODE4}=routed"), format!("{MODE6}=routed")]);
    server(&host);
    for (lan, ctr, neighbour, ping) in
        [(HOST_LAN, "10.9.0.2", NEIGHBOUR, "ping -4"), (HOST_LAN6, "fd00:9::2", NEIGHBOUR6, "ping -6")]
    {
        assert_eq!(host.neighbour(&call(ctr, 80)), format!("web {neighbour}"), "the published container port");
        assert!(!reaches(&host, ctr, 81), "no other");
        assert!(!reaches(&host, lan, 8080), "the host's port means nothing");
        assert!(host.sh(&call(ctr, 80)).starts_with("web "), "and the host is a neighbour like any other");
        if host.try_sh("command -v ping").code == 0 {
            host.neighbour(&format!("{ping} -c 1 -W 2 {ctr} >/dev/null"));
        }
        let _lan = Server::on_neighbour(&host, "tcp", neighbour, 9000, "lan");
        let out = host.ok(&["exec", "web", PROGRAM, "call", neighbour, "9000"]);
        assert_eq!(out, format!("lan {ctr}"), "out under its own address");
    }
    assert_eq!(
        ports(&host)["80/tcp"],
        serde_json::json!([{"HostIp": "0.0.0.0", "HostPort": ""}, {"HostIp": "::", "HostPort": ""}])
    );
    assert_eq!(host.ok(&["port", "web"]), "80/tcp -> 0.0.0.0:\n80/tcp -> [::]:");
    assert_eq!(host.ok(&["ps", "--format", "{{.Ports}}"]), "80/tcp");
    // Nobody took the host's port, and its rule is one element a family.
    let _own = Server::on_host(&host, "tcp", "0.0.0.0", 8080, "host");
    assert_eq!((host.nft_elements("open4").len(), host.nft_elements("open6").len()), (1, 1));
    assert!(host.nft_elements("publish4_any").is_empty());
    // A container of another network comes in by the same door, and by no other.
    host.ok(&["network", "create", "--ipv6", "other"]);
    let from_other = |addr: &str, port: &str| {
        host.rrun(&["run", "--rm", "--network", "other", "-v", &mount(), "busybox", PROGRAM, "call", addr, port]).code
    };
    assert_eq!((from_other("10.9.0.2", "80"), from_other("fd00:9::2", "80")), (0, 0));
    assert_ne!(from_other("10.9.0.2", "81"), 0);
    host.ok(&["rm", "-f", "web"]);
    assert_eq!((host.nft_elements("open4").len(), host.nft_elements("open6").len()), (0, 0), "closed behind it");
}

#[test]
fn each_family_has_its_own_mode() {
    let host = Host::new().with_lan();
    network(&host, &["gateway_mode_ipv6=routed".to_string()]);
    server(&host);
    assert_eq!(host.neighbour(&call(HOST_LAN, 8080)), format!("web {NEIGHBOUR}"));
    assert_eq!(host.neighbour(&call("fd00:9::2", 80)), format!("web {NEIGHBOUR6}"));
    assert!(!reaches(&host, "10.9.0.2", 80));
    assert!(!reaches(&host, HOST_LAN6, 8080));
    assert_eq!(
        ports(&host)["80/tcp"],
        serde_json::json!([{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": ""}])
    );
    // Another network in charge: the container's ports go back to the host, and return.
    host.ok(&["network", "create", "--ipv6", "plain"]);
    host.ok(&["network", "connect", "--gw-priority", "9", "plain", "web"]);
    assert_eq!(host.neighbour(&call(HOST_LAN6, 8080)), format!("web {NEIGHBOUR6}"));
    assert!(!reaches(&host, "fd00:9::2", 80));
    host.ok(&["network", "disconnect", "plain", "web"]);
    assert_eq!(host.neighbour(&call("fd00:9::2", 80)), format!("web {NEIGHBOUR6}"));
    assert!(!reaches(&host, HOST_LAN6, 8080));
}

#[test]
fn isolated_leaves_the_host_out() {
    let host = Host::new().with_lan();
    let id = host.ok(&[
        "network",
        "create",
        "--internal",
        "--subnet",
        "10.9.0.0/31",
        "--subnet",
        "fd00:9::/64",
        "-o",
        &format!("{MODE4}=isolated"),
        "-o",
        &format!("{MODE6}=isolated"),
        "net",
    ]);
    let bridge = host.ip(&format!("addr show br-{}", &id[..12]));
    assert_eq!(bridge[0]["addr_info"].as_array().map(Vec::len), Some(0), "no address at all: {bridge}");
    serve_as(&host, "tcp", &["--network", "net", "--name", "web", "-p", "8080:80"], "::", 80, "web");
    // Without a gateway a /31 has room for two.
    let (v4, v6) =
        ("{{.NetworkSettings.Networks.net.IPAddress}}", "{{.NetworkSettings.Networks.net.GlobalIPv6Address}}");
    let (v4, v6) = (host.ok(&["inspect", "-f", v4, "web"]), host.ok(&["inspect", "-f", v6, "web"]));
    assert_eq!(v4, "10.9.0.0");
    for addr in [&v4, &v6] {
        let args = ["run", "--rm", "--network", "net", "-v", &mount(), "busybox", PROGRAM, "call", addr, "80"];
        assert!(host.ok(&args).starts_with("web "), "{addr}");
        assert_ne!(host.try_sh(&call(addr, 80)).code, 0, "not even the host, {addr}");
    }
    assert_eq!(host.ok(&["exec", "web", "sh", "-c", "ip route | grep default || true"]), "");
    assert_eq!(ports(&host)["80/tcp"], Value::Null, "nothing is published");
    host.ok(&["run", "-d", "--network", "net", "busybox", "sleep", "1000"]);
    let e = host.fails(125, &["run", "--rm", "--network", "net", "busybox", "true"]);
    assert!(e.contains("no available IPv4 addresses on this network's address pools: net ("), "{e}");
}

#[test]
fn trusted_interfaces_reach_published_container_ports() {
    let host = Host::new().with_lan();
    network(&host, &["com.docker.network.bridge.trusted_host_interfaces=wg9:lan0".to_string()]);
    server(&host);
    for (lan, ctr, neighbour) in [(HOST_LAN, "10.9.0.2", NEIGHBOUR), (HOST_LAN6, "fd00:9::2", NEIGHBOUR6)] {
        assert_eq!(host.neighbour(&call(ctr, 80)), format!("web {neighbour}"), "directly");
        assert!(!reaches(&host, ctr, 81), "published ones only");
        assert_eq!(host.neighbour(&call(lan, 8080)), format!("web {neighbour}"), "and by the host's port");
    }
    // Other networks are nobody's trusted interface.
    host.ok(&["network", "create", "--ipv6", "other"]);
    for addr in ["10.9.0.2", "fd00:9::2"] {
        let args = ["run", "--rm", "--network", "other", "-v", &mount(), "busybox", PROGRAM, "call", addr, "80"];
        assert_ne!(host.rrun(&args).code, 0, "{addr}");
    }
}

#[test]
fn modes_that_mean_nothing_are_named() {
    let host = Host::bare();
    for (option, text) in [
        (format!("{MODE4}=bogus"), "unknown gateway mode bogus"),
        (format!("{MODE6}=isolated"), "gateway mode 'isolated' can only be used for an internal network"),
        ("mode=unmanaged".into(), "an unmanaged bridge network needs the name of an existing bridge"),
    ] {
        let e = host.refuses(&["network", "create", "-o", &option, "x"]);
        assert!(e.contains(text) && e.contains("hint:"), "{option}: {e}");
    }
    assert_eq!(host.ok(&["network", "ls", "-q"]).lines().count(), 3, "nothing half-made");
}

#[test]
fn a_flushed_table_comes_back_with_its_modes() {
    let host = Host::new().with_lan();
    network(
        &host,
        &[format!("{MODE4}=routed"), format!("{MODE6}=nat-unprotected"), "trusted_host_interfaces=lan0".into()],
    );
    server(&host);
    for lost in [
        "nft flush ruleset",
        "nft flush set inet rrun routed4; nft flush set inet rrun open4; nft delete table inet rrun",
    ] {
        host.sh(lost);
        host.ok(&["run", "--rm", "busybox", "true"]);
        assert_eq!(host.neighbour(&call("10.9.0.2", 80)), format!("web {NEIGHBOUR}"), "after {lost}");
        assert_eq!(host.neighbour(&call("fd00:9::2", 81)), format!("hidden {NEIGHBOUR6}"));
        assert!(!reaches(&host, "10.9.0.2", 81), "and no more than that");
    }
}

#[test]
fn the_firewall_needs_no_names_of_protocols() {
    let host = Host::new();
    // As on a host without the package netbase.
    if host.try_sh("test -e /etc/protocols").code == 0 {
        host.sh("mount --bind /dev/null /etc/protocols");
    }
    host.ok(&["network", "create", "-o", "gateway_mode_ipv4=routed", "net"]);
    assert_eq!(host.try_sh("nft list set inet rrun routed4 | grep -c 172.18.0.0/24").stdout, "1\n");
    // There nft lists published ports by numbers, and they are no strangers for that.
    for port in ["8080:80", "8081:81/udp", "8082:82/sctp"] {
        host.ok(&["run", "-d", "-p", port, "busybox", "sleep", "1000"]);
    }
    assert_eq!(host.ok(&["network", "check"]), "");
    host.try_sh("umount /etc/protocols");
}
