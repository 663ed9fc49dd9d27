//! Which subnets networks get, what they keep away from, what the configuration says about it, and the
//! routes that containers get beside the default one.

use rrun_tests::Host;
use rrun_tests::host::{HOST_LAN, NEIGHBOUR, NEIGHBOUR6};
use rrun_tests::peer::{PROGRAM, Server, call, mount, serve, serve_as};
use serde_json::Value;

fn subnets(host: &Host, network: &str) -> Vec<String> {
    let text = host.ok(&["network", "inspect", "-f", "{{range .IPAM.Config}}{{.Subnet}} {{end}}", network]);
    text.split_whitespace().map(str::to_string).collect()
}

fn configure(host: &Host, text: &str) {
    std::fs::write(host.outside(host.dir.join("config.toml")), text).expect("write the configuration");
}

fn created(host: &Host, args: &[&str]) -> Vec<String> {
    let name = args.last().expect("a name");
    host.ok(&[&["network", "create"], args].concat());
    subnets(host, name)
}

#[test]
fn small_subnets_from_a_wide_range() {
    let host = Host::new();
    assert_eq!(subnets(&host, "bridge"), ["172.17.0.0/16"], "Docker's, for the default one");
    // Docker has room for 31 networks in all.
    for i in 0..40 {
        assert_eq!(created(&host, &[&format!("n{i}")]), [format!("172.18.{i}.0/24")]);
    }
    host.ok(&["network", "rm", "n7"]);
    assert_eq!(created(&host, &["again"]), ["172.18.7.0/24"], "the first that is free");
}

#[test]
fn automatic_subnets_keep_away_from_everything() {
    let host = Host::new().with_lan();
    host.sh(&format!(
        "ip route add 172.17.0.0/16 via {NEIGHBOUR}; \
         ip route add 172.18.0.0/25 via {NEIGHBOUR} table 55; \
         ip rule add to 172.18.1.64/26 lookup 55; \
         ip link add vpn0 type veth peer name vpn1; ip addr add 172.18.2.9/24 dev vpn0; \
         ip route add blackhole 172.18.3.0/24; \
         ip route add 0.0.0.0/1 via {NEIGHBOUR}; ip route add 128.0.0.0/1 via {NEIGHBOUR}"
    ));
    std::fs::write(host.outside("/etc/resolv.conf"), "nameserver 172.18.4.53\n").expect("write");
    assert_eq!(created(&host, &["a"]), ["172.18.6.0/24"]);
    assert_eq!(subnets(&host, "bridge"), ["172.18.5.0/24"], "not Docker's where a VPN has it");
    let out = host.ok(&["run", "--rm", "busybox", "ip", "-o", "-4", "addr", "show", "eth0"]);
    assert!(out.contains("172.18.5.2/24"), "{out}");
    // A company's aggregate that leaves nothing is better shared than refused.
    host.sh(&format!("ip route add 172.16.0.0/12 via {NEIGHBOUR}; ip route add 192.168.0.0/16 via {NEIGHBOUR}"));
    assert_eq!(created(&host, &["b"]), ["172.18.0.0/24"]);
    host.sh("ip rule del to 172.18.1.64/26 lookup 55; ip link del vpn0");
    for net in ["172.17.0.0/16", "172.16.0.0/12", "192.168.0.0/16", "172.18.3.0/24", "0.0.0.0/1", "128.0.0.0/1"] {
        host.sh(&format!("ip route del {net}"));
    }
    host.sh("ip route flush table 55");
}

#[test]
fn a_collision_names_the_other_side() {
    let host = Host::new().with_lan();
    host.sh("ip route add 10.80.0.0/16 dev lan0; ip -6 route add fd80::/32 dev lan0");
    host.ok(&["network", "create", "--subnet", "10.9.0.0/24", "first"]);
    for (subnet, other) in [
        ("10.9.0.128/25", "10.9.0.0/24 of network first"),
        ("198.51.100.0/25", "198.51.100.0/24 of the host's route to 198.51.100.0/24 on lan0"),
        ("10.80.3.0/24", "10.80.0.0/16 of the host's route to 10.80.0.0/16 on lan0"),
        ("fd80:0:1::/64", "fd80::/32 of the host's route to fd80::/32 on lan0"),
    ] {
        let e = host.fails(1, &["network", "create", "--subnet", subnet, "clash"]);
        assert!(e.contains("invalid pool request: Pool overlaps with other one on this address space"), "{e}");
        assert!(e.contains(&format!("hint: {subnet} overlaps {other}")), "{subnet}: {e}");
    }
    // What lies behind a router may be cut: the more specific route wins.
    host.sh(&format!("ip route add 10.0.0.0/8 via {NEIGHBOUR}"));
    host.ok(&["network", "create", "--subnet", "10.99.0.0/24", "cut"]);
    host.sh("ip route del 10.80.0.0/16; ip -6 route del fd80::/32; ip route del 10.0.0.0/8");
}

#[test]
fn pools_of_the_configuration_and_of_a_size() {
    let host = Host::bare();
    configure(
        &host,
        "[network]\ndefault-address-pools = [\n { base = \"10.60.0.0/16\", size = 28 },\n \
         { base = \"fd60::/48\", size = 64 },\n]\n",
    );
    assert_eq!(subnets(&host, "bridge"), ["10.60.0.0/28"]);
    assert_eq!(created(&host, &["--ipv6", "a"]), ["10.60.0.16/28", "fd60::/64"]);
    assert_eq!(created(&host, &["--subnet", "0.0.0.0/26", "b"]), ["10.60.0.64/26"]);
    assert_eq!(created(&host, &["--subnet", "::/80", "cc"]), ["10.60.0.32/28", "fd60:0:0:1::/80"]);
    assert_eq!(created(&host, &["--subnet", "0.0.0.0/28", "--subnet", "::/64", "d"])[1], "fd60:0:0:2::/64");
    let e = host.fails(1, &["network", "create", "--subnet", "0.0.0.0/8", "huge"]);
    assert!(e.contains("all predefined address pools have been fully subnetted"), "{e}");
    let e = host.refuses(&["network", "create", "--subnet", "0.0.0.0/26", "--gateway", "10.60.0.65", "g"]);
    assert!(e.contains("gateway") && e.contains("hint:"), "{e}");
    for (pool, text) in [
        ("{ base = \"10.60.0.0/16\", size = 8 }", "invalid default address pool: base 10.60.0.0/16, size 8"),
        ("{ base = \"10.60.0.0/16\", size = 200 }", "invalid default address pool"),
    ] {
        configure(&host, &format!("[network]\ndefault-address-pools = [{pool}]\n"));
        let e = host.refuses(&["network", "ls"]);
        assert!(e.contains(text) && e.contains("hint:"), "{e}");
    }
    configure(&host, "");
}

#[test]
fn the_default_bridge_follows_the_configuration() {
    let host = Host::new().with_lan();
    host.ok(&["run", "--rm", "busybox", "true"]);
    assert!(host.sh("ip -4 addr show rrun0").contains("172.17.0.1/16"), "as it is without");
    configure(
        &host,
        "[network]\nbip = \"10.70.0.5/24\"\nfixed-cidr = \"10.70.0.128/25\"\nipv6 = true\nfixed-cidr-v6 = \"fd70::/64\"\n\
         mtu = 1380\nicc = false\nip-masq = false\ndns = [\"192.0.2.53\"]\ndns-search = [\"corp.example\"]\n\
         host-gateway-ip = \"192.0.2.99\"\nip = \"127.0.0.1\"\n\
         [network.default-network-opts.bridge]\n\"com.docker.network.driver.mtu\" = \"1350\"\nenable_ipv6 = \"true\"\n",
    );
    let web = serve_as(&host, "tcp", &["-p", "8080:80", "--add-host", "up:host-gateway"], "::", 80, "web");
    let addr = host.sh("ip -o addr show rrun0");
    assert!(addr.contains("10.70.0.5/24") && addr.contains("fd70::1/64") && !addr.contains("172.17."), "{addr}");
    let inside = host.ok(&[
        "exec",
        &web,
        "sh",
        "-c",
        "ip -o addr show eth0; ip route; cat /etc/resolv.conf /etc/hosts; cat /sys/class/net/eth0/mtu",
    ]);
    for text in [
        "10.70.0.128/24",
        "fd70::2/64",
        "default via 10.70.0.5",
        "nameserver 192.0.2.53",
        "search corp.example",
        "192.0.2.99\tup",
        "\n1380",
    ] {
        assert!(inside.contains(text), "{text}: {inside}");
    }
    assert_eq!(host.ok(&["port", &web]), "80/tcp -> 127.0.0.1:8080");
    assert_ne!(
        host.rrun(&["run", "--rm", "-v", &mount(), "busybox", PROGRAM, "call", "10.70.0.128", "80"]).code,
        0,
        "icc"
    );
    host.neighbour(&format!("ip route add 10.70.0.0/24 via {HOST_LAN}"));
    let _lan = Server::on_neighbour(&host, "tcp", NEIGHBOUR, 9000, "lan");
    assert_eq!(host.ok(&["exec", &web, PROGRAM, "call", NEIGHBOUR, "9000"]), "lan 10.70.0.128", "ip-masq");
    // Of other networks only what default-network-opts says, and that only unless they say otherwise.
    host.ok(&["network", "create", "mine"]);
    let mtu = |net: &str| host.ok(&["run", "--rm", "--network", net, "busybox", "cat", "/sys/class/net/eth0/mtu"]);
    assert_eq!((mtu("mine").as_str(), subnets(&host, "mine").len()), ("1350", 2));
    host.ok(&["network", "create", "-o", "com.docker.network.driver.mtu=1450", "own"]);
    assert_eq!(mtu("own"), "1450");

    // Another gateway than the bridge. While somebody uses the bridge it stays as it is.
    configure(&host, "[network]\nbip = \"10.71.0.1/24\"\ndefault-gateway = \"10.71.0.9\"\n");
    host.ok(&["run", "--rm", "busybox", "true"]);
    assert!(host.sh("ip -o addr show rrun0").contains("10.70.0.5/24"));
    host.ok(&["rm", "-f", &web]);
    let out = host.ok(&["run", "--rm", "busybox", "ip", "route"]);
    assert!(out.contains("default via 10.71.0.9"), "{out}");
    assert!(host.sh("ip -o addr show rrun0").contains("10.71.0.1/24"));
    for (text, about) in [
        ("bip = \"10.71.0.0/24\"", "bip: 10.71.0.0/24 is no address that the bridge can have"),
        ("bip = \"10.71.0.1/24\"\nfixed-cidr = \"10.0.0.0/8\"", "fixed-cidr 10.0.0.0/8 is not inside"),
        ("bipp = \"10.71.0.1/24\"", "bipp"),
    ] {
        configure(&host, &format!("[network]\n{text}\n"));
        let e = host.refuses(&["network", "ls"]);
        assert!(e.contains(about) && e.contains("hint:"), "{e}");
    }
    configure(&host, "");
}

#[test]
fn static_routes_of_networks_and_containers() {
    let host = Host::new();
    host.ok(&[
        "network",
        "create",
        "--subnet",
        "10.9.0.0/24",
        "--subnet",
        "fd00:9::/64",
        "--route",
        "10.50.0.0/16,10.9.0.254",
        "--route",
        "10.50.0.0/16,10.9.0.253,50",
        "--route",
        "fd50::/32,fd00:9::fe,7",
        "--route",
        "10.51.0.0/16,blackhole",
        "--route",
        "10.52.0.0/16,unreachable,9",
        "--route",
        "10.53.0.0/16,prohibit",
        "--route",
        "fd51::/32,blackhole",
        "net",
    ]);
    host.ok(&[
        "network",
        "create",
        "--subnet",
        "10.8.0.0/24",
        "--route",
        "10.60.0.0/16,10.8.0.254",
        "--route",
        "10.61.0.0/16,blackhole",
        "late",
    ]);
    host.ok(&[
        "run",
        "-d",
        "--name",
        "cc",
        "--network",
        "net",
        "--route",
        "10.54.0.0/16,10.9.0.77",
        "busybox",
        "sleep",
        "1000",
    ]);
    let routes = || host.ok(&["exec", "cc", "sh", "-c", "ip route; ip -6 route"]);
    for line in [
        "default via 10.9.0.1 dev eth0",
        "10.50.0.0/16 via 10.9.0.254 dev eth0",
        "10.50.0.0/16 via 10.9.0.253 dev eth0  metric 50",
        "fd50::/32 via fd00:9::fe dev eth0  metric 7",
        "blackhole 10.51.0.0/16",
        "unreachable 10.52.0.0/16  metric 9",
        "prohibit 10.53.0.0/16",
        "blackhole fd51::/32",
        "10.54.0.0/16 via 10.9.0.77 dev eth0",
    ] {
        assert!(routes().contains(line), "{line}: {}", routes());
    }
    // As traffic has it: a blackhole swallows, the others answer.
    let e =
        host.rrun(&["run", "--rm", "--network", "net", "-v", &mount(), "busybox", PROGRAM, "call", "10.53.0.1", "80"]);
    assert!(e.stdout.contains("ermission denied") || e.stdout.contains("rohibited"), "{}", e.stdout);

    host.ok(&["network", "connect", "--route", "10.62.0.0/16,10.8.0.253", "late", "cc"]);
    for line in
        ["10.60.0.0/16 via 10.8.0.254 dev eth1", "blackhole 10.61.0.0/16", "10.62.0.0/16 via 10.8.0.253 dev eth1"]
    {
        assert!(routes().contains(line), "{line}: {}", routes());
    }
    host.ok(&["network", "disconnect", "late", "cc"]);
    assert!(!routes().contains("10.6"), "they leave with their network: {}", routes());
    assert!(routes().contains("blackhole 10.51.0.0/16"), "and only those");
    // They are on record.
    host.ok(&["restart", "-t", "0", "cc"]);
    assert!(routes().contains("10.54.0.0/16 via 10.9.0.77 dev eth0"));

    for (route, text) in [
        ("10.50.0.0/16", "not a destination, a gateway and perhaps a metric"),
        ("10.50.0.1/16,10.9.0.9", "the destination should be 10.50.0.0/16"),
        ("10.50.0.0/16,fd00::1", "different address families"),
        ("10.50.0.0/16,10.9.0.9,x", "invalid metric: x"),
    ] {
        let e = host.refuses(&["network", "create", "--subnet", "10.7.0.0/24", "--route", route, "x"]);
        assert!(e.contains(text) && e.contains("hint:"), "{route}: {e}");
    }
    let e = host.refuses(&["network", "create", "--subnet", "10.7.0.0/24", "--route", "10.50.0.0/16,10.9.0.9", "x"]);
    assert!(e.contains("no matching subnet for route gateway 10.9.0.9"), "{e}");
    let e =
        host.fails(125, &["run", "--rm", "--network", "net", "--route", "10.50.0.0/16,10.1.1.1", "busybox", "true"]);
    assert!(e.contains("no network of this container contains route gateway 10.1.1.1"), "{e}");
    assert_eq!(host.ok(&["ps", "-aq"]).lines().count(), 1, "nothing half-made");
}

#[test]
fn default_routes_by_network() {
    let host = Host::new().with_lan();
    host.ok(&["network", "create", "--ipv6", "-o", "metric=100", "aaa"]);
    host.ok(&[
        "network",
        "create",
        "--ipv6",
        "-o",
        "no_default_route=true",
        "--route",
        "198.51.100.0/24,172.18.1.1",
        "bbb",
    ]);
    assert_eq!(subnets(&host, "bbb")[0], "172.18.1.0/24");
    host.ok(&["run", "-d", "--name", "cc", "--network", "aaa", "--network", "bbb", "busybox", "sleep", "1000"]);
    let defaults = || host.ok(&["exec", "cc", "sh", "-c", "ip route | grep ^default"]).trim_end().to_string();
    assert_eq!(defaults(), "default via 172.18.0.1 dev eth0  metric 100");
    assert!(host.ok(&["exec", "cc", "ip", "-6", "route", "show", "default"]).contains("metric 100"));
    // A network of higher priority takes over, whatever the metrics.
    host.ok(&["network", "create", "-o", "metric=500", "prio"]);
    host.ok(&["network", "connect", "--gw-priority", "5", "prio", "cc"]);
    assert_eq!(defaults(), "default via 172.18.2.1 dev eth2  metric 500");
    host.ok(&["network", "disconnect", "prio", "cc"]);
    assert_eq!(defaults(), "default via 172.18.0.1 dev eth0  metric 100");

    // Without a default route there are published ports all the same: a static one leads back.
    let web = serve(&host, &["--network", "bbb", "-p", "8080:80"], 80, "web");
    assert_eq!(host.ok(&["exec", &web, "sh", "-c", "(ip route; ip -6 route) | grep ^default || true"]), "");
    assert_eq!(host.neighbour(&call(HOST_LAN, 8080)), format!("web {NEIGHBOUR}"));
}

#[test]
fn internal_networks_leak_nothing() {
    let host = Host::new().with_lan();
    host.ok(&[
        "network",
        "create",
        "--internal",
        "--ipv6",
        "--subnet",
        "10.9.0.0/24",
        "--subnet",
        "fd00:9::/64",
        "closed",
    ]);
    host.neighbour(&format!("ip route add 10.9.0.0/24 via {HOST_LAN}; ip -6 route add fd00:9::/64 via 2001:db8:51::1"));
    serve_as(
        &host,
        "tcp",
        &["--network", "closed", "--name", "inner", "--privileged", "-p", "8080:80"],
        "::",
        80,
        "inner",
    );
    serve_as(&host, "tcp", &["--name", "outer", "-p", "8081:80"], "::", 80, "outer");
    assert_eq!(host.ok(&["exec", "inner", "sh", "-c", "(ip route; ip -6 route) | grep ^default || true"]), "");
    // Even root inside, with a route of its own making, gets nowhere: LAN, host, other networks.
    host.ok(&["exec", "inner", "sh", "-c", "ip route add default via 10.9.0.1; ip -6 route add default via fd00:9::1"]);
    let _a = Server::on_neighbour(&host, "tcp", NEIGHBOUR, 9000, "lan");
    let _b = Server::on_neighbour(&host, "tcp", NEIGHBOUR6, 9000, "lan");
    let _c = Server::on_host(&host, "tcp", "::", 9001, "host");
    for (addr, port) in [
        (NEIGHBOUR, "9000"),
        (NEIGHBOUR6, "9000"),
        (HOST_LAN, "9001"),
        ("2001:db8:51::1", "9001"),
        (HOST_LAN, "8081"),
        ("172.17.0.2", "80"),
    ] {
        assert_ne!(host.rrun(&["exec", "inner", PROGRAM, "call", addr, port]).code, 0, "{addr} {port}");
    }
    for addr in ["10.9.0.2", "fd00:9::2"] {
        assert_ne!(host.try_neighbour(&call(addr, 80)).code, 0, "from the LAN, {addr}");
        assert_ne!(
            host.rrun(&["run", "--rm", "-v", &mount(), "busybox", PROGRAM, "call", addr, "80"]).code,
            0,
            "{addr}"
        );
        assert!(host.sh(&call(addr, 80)).starts_with("inner "), "the host looks after them, {addr}");
    }
    assert_ne!(host.try_neighbour(&call(HOST_LAN, 8080)).code, 0);
    let ports: Value =
        serde_json::from_str(&host.ok(&["inspect", "-f", "{{json .NetworkSettings.Ports}}", "inner"])).expect("JSON");
    assert_eq!(ports["80/tcp"], Value::Null);
}
