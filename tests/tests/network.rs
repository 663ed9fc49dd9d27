//! Networks: made, listed, inspected, joined, left and removed, as Docker's users know it.

use rrun_tests::Host;
use rrun_tests::host::{HOST_LAN, NEIGHBOUR};
use rrun_tests::peer::{PROGRAM, Server, call, mount, serve, serve_as};
use serde_json::Value;

fn inspect(host: &Host, name: &str) -> Value {
    let text = host.ok(&["network", "inspect", name]);
    serde_json::from_str::<Value>(&text).expect("JSON")[0].clone()
}

#[test]
fn the_predefined_three() {
    let host = Host::bare();
    let out = host.ok(&["network", "ls"]);
    let rows: Vec<Vec<&str>> = out.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NETWORK", "ID", "NAME", "DRIVER", "SCOPE"]);
    let rest: Vec<&[&str]> = rows[1..].iter().map(|r| &r[1..]).collect();
    assert_eq!(rest, [&["bridge", "bridge", "local"], &["host", "host", "local"], &["none", "null", "local"]]);
    for name in ["bridge", "host", "none"] {
        let e = host.fails(1, &["network", "rm", name]);
        assert!(e.contains(&format!("{name} is a pre-defined network and cannot be removed")), "{e}");
        let e = host.refuses(&["network", "create", name]);
        assert!(
            e.contains(&format!("operation is not permitted on predefined {name} network"))
                || e.contains(&format!("network with name {name} already exists")),
            "{e}"
        );
    }
}

#[test]
fn create_inspect_and_remove() {
    let host = Host::bare();
    let id = host.ok(&[
        "network",
        "create",
        "--subnet",
        "10.9.0.0/24",
        "--ip-range",
        "10.9.0.128/25",
        "--gateway",
        "10.9.0.254",
        "--aux-address",
        "router=10.9.0.129",
        "--label",
        "team=net",
        "-o",
        "com.docker.network.bridge.name=mybr",
        "my-net",
    ]);
    assert_eq!(id.len(), 64);
    let net = inspect(&host, "my-net");
    assert_eq!(net["Id"], id.as_str());
    assert_eq!(net["IPAM"]["Config"][0]["Subnet"], "10.9.0.0/24");
    assert_eq!(net["IPAM"]["Config"][0]["IPRange"], "10.9.0.128/25");
    assert_eq!(net["IPAM"]["Config"][0]["Gateway"], "10.9.0.254");
    assert_eq!(net["IPAM"]["Config"][0]["AuxiliaryAddresses"]["router"], "10.9.0.129");
    assert_eq!(net["Labels"]["team"], "net");
    assert_eq!(net["Driver"], "bridge");
    let bridge = host.ip("addr show mybr");
    assert_eq!(bridge[0]["addr_info"][0]["local"], "10.9.0.254");
    assert_eq!(host.ok(&["network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", &id[..6]]), "10.9.0.254");
    assert_eq!(host.ok(&["network", "ls", "-q", "--filter", "name=my-"]), id[..12]);
    assert_eq!(host.ok(&["network", "ls", "--format", "{{.Name}}", "--filter", "label=team=net"]), "my-net");
    let e = host.fails(1, &["network", "create", "my-net"]);
    assert!(e.contains("network with name my-net already exists"), "{e}");
    let e = host.fails(1, &["network", "create", "--subnet", "10.9.0.0/16", "clash"]);
    assert!(e.contains("Pool overlaps with other one on this address space"), "{e}");
    assert_eq!(host.ok(&["network", "rm", "my-net"]), "my-net");
    assert_ne!(host.try_sh("ip link show mybr").code, 0, "the bridge goes with the network");
    let e = host.fails(1, &["network", "rm", "my-net"]);
    assert!(e.contains("network my-net not found"), "{e}");
    host.ok(&["network", "rm", "-f", "my-net"]);
}

#[test]
fn bad_requests_are_named() {
    let host = Host::bare();
    let cases: &[(&[&str], &str)] = &[
        (&["--subnet", "10.0.0.1/24"], "invalid subnet 10.0.0.1/24: it should be 10.0.0.0/24"),
        (
            &["--subnet", "10.0.0.0/24", "--gateway", "10.1.0.1"],
            "invalid gateway 10.1.0.1: parent subnet 10.0.0.0/24 doesn't contain this address",
        ),
        (&["--gateway", "10.1.0.1"], "every ip-range or gateway must have a corresponding subnet"),
        (&["--subnet", "10.0.0.0/24", "--ip-range", "10.0.0.0/16"], "ip-range"),
        (
            &["--subnet", "10.0.0.0/24", "--subnet", "10.0.0.0/25"],
            "multiple overlapping subnet configuration is not supported",
        ),
        (&["--subnet", "banana"], "banana"),
        (&["--driver", "overlay2"], "overlay2"),
        (&["-o", "com.docker.network.driver.mtu=-1"], "invalid MTU number: -1"),
        (&["--ipv4=false"], "IPv4 or IPv6 must be enabled"),
    ];
    for (flags, text) in cases {
        let args = [&["network", "create"], *flags, &["x"]].concat();
        let ran = host.rrun(&args);
        assert!(matches!(ran.code, 1 | 125), "{args:?}: {}", ran.code);
        assert!(ran.stderr.contains(text), "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.contains("hint:"), "{args:?}: {}", ran.stderr);
    }
    for name in ["../x", "a/b", "-rf", "", "a b"] {
        assert_ne!(host.rrun(&["network", "create", "--", name]).code, 0, "{name:?}");
    }
    assert_eq!(host.ok(&["network", "ls", "-q"]).lines().count(), 3, "nothing half-made");
    assert_eq!(host.ip("link").as_array().map(Vec::len), Some(1), "no bridge either");
}

#[test]
fn static_addresses_and_macs() {
    let host = Host::new();
    host.ok(&["network", "create", "--subnet", "10.9.0.0/29", "--ipv6", "--subnet", "fd00:9::/64", "small"]);
    let out = host.ok(&[
        "run",
        "--rm",
        "--network",
        "small",
        "--ip",
        "10.9.0.5",
        "--ip6",
        "fd00:9::99",
        "--mac-address",
        "02:42:ac:11:00:42",
        "busybox",
        "ip",
        "addr",
        "show",
        "eth0",
    ]);
    for text in ["inet 10.9.0.5/29", "inet6 fd00:9::99/64", "02:42:ac:11:00:42"] {
        assert!(out.contains(text), "{out}");
    }
    let id = host.ok(&["run", "-d", "--network", "small", "--ip", "10.9.0.5", "busybox", "sleep", "1000"]);
    let e = host.fails(125, &["run", "--rm", "--network", "small", "--ip", "10.9.0.5", "busybox", "true"]);
    assert!(e.contains("Address already in use"), "{e}");
    let e = host.fails(125, &["run", "--rm", "--network", "small", "--ip", "10.10.0.5", "busybox", "true"]);
    assert!(e.contains("no configured subnet contains IP address 10.10.0.5"), "{e}");
    let e = host.fails(125, &["run", "--rm", "--ip", "172.17.0.9", "busybox", "true"]);
    assert!(e.contains("user-specified IP address is supported on user-defined networks only"), "{e}");
    // A /29 has five addresses beside the gateway: four more fit, the next does not, and a freed one is given again.
    let more: Vec<String> =
        (0..4).map(|_| host.ok(&["run", "-d", "--network", "small", "busybox", "sleep", "1000"])).collect();
    let e = host.fails(125, &["run", "-d", "--network", "small", "busybox", "sleep", "1000"]);
    assert!(e.contains("no available IPv4 addresses on this network's address pools: small ("), "{e}");
    assert_eq!(host.ok(&["ps", "-q"]).lines().count(), 5);
    host.ok(&["rm", "-f", &more[0]]);
    host.ok(&["run", "-d", "--network", "small", "busybox", "sleep", "1000"]);
    host.ok(&["rm", "-f", &id]);
}

#[test]
fn networks_are_isolated_from_each_other() {
    let host = Host::new().with_lan();
    host.ok(&["network", "create", "--ipv6", "one"]);
    host.ok(&["network", "create", "--ipv6", "two"]);
    let a = serve_as(&host, "tcp", &["--network", "one", "--name", "aa"], "::", 80, "a");
    let net = |f: &str| host.ok(&["inspect", "-f", &format!("{{{{.NetworkSettings.Networks.one.{f}}}}}"), &a]);
    let (v4, v6) = (net("IPAddress"), net("GlobalIPv6Address"));
    let call_from = |network: &str, addr: &str| {
        host.rrun(&["run", "--rm", "--network", network, "-v", &mount(), "busybox", PROGRAM, "call", addr, "80"]).code
    };
    for addr in [&v4, &v6] {
        assert_eq!(call_from("one", addr), 0, "same network, {addr}");
        assert_ne!(call_from("two", addr), 0, "another network, {addr}");
        assert_ne!(call_from("bridge", addr), 0, "the default network, {addr}");
    }
    // Outwards every network reaches the LAN, masqueraded as the host.
    let _server = Server::on_neighbour(&host, "tcp", NEIGHBOUR, 9000, "lan");
    let out =
        host.ok(&["run", "--rm", "--network", "two", "-v", &mount(), "busybox", PROGRAM, "call", NEIGHBOUR, "9000"]);
    assert_eq!(out, format!("lan {HOST_LAN}"));
}

#[test]
fn internal_networks_have_no_way_out_or_in() {
    let host = Host::new().with_lan();
    host.ok(&["network", "create", "--internal", "closed"]);
    serve(&host, &["--network", "closed", "--name", "inner", "-p", "8080:80"], 80, "inner");
    assert_eq!(host.ok(&["exec", "inner", "sh", "-c", "ip route | grep default || true"]), "");
    let _server = Server::on_neighbour(&host, "tcp", NEIGHBOUR, 9000, "lan");
    assert_ne!(host.rrun(&["exec", "inner", PROGRAM, "call", NEIGHBOUR, "9000"]).code, 0);
    assert_ne!(host.try_neighbour(&call(HOST_LAN, 8080)).code, 0, "nothing is published from an internal network");
    // Among themselves they talk.
    let out = host.ok(&["run", "--rm", "--network", "closed", "-v", &mount(), "busybox", "sh", "-c", &format!("{PROGRAM} call $(getent hosts inner 2>/dev/null | cut -d' ' -f1 || true) 80 2>/dev/null || {PROGRAM} call {} 80", host.ok(&["inspect", "-f", "{{.NetworkSettings.Networks.closed.IPAddress}}", "inner"]))]);
    assert!(out.starts_with("inner "), "{out}");
}

#[test]
fn no_talk_within_a_network_without_icc() {
    let host = Host::new();
    host.ok(&["network", "create", "-o", "com.docker.network.bridge.enable_icc=false", "mute"]);
    let id = serve(&host, &["--network", "mute"], 80, "x");
    let ip = host.ok(&["inspect", "-f", "{{.NetworkSettings.Networks.mute.IPAddress}}", &id]);
    let ran = host.rrun(&["run", "--rm", "--network", "mute", "-v", &mount(), "busybox", PROGRAM, "call", &ip, "80"]);
    assert_ne!(ran.code, 0, "{}", ran.stdout);
    assert!(host.sh(&call(&ip, 80)).starts_with("x "), "the host still reaches it");
}

#[test]
fn host_and_container_networks() {
    let host = Host::new();
    let ours = host.sh("readlink /proc/self/ns/net");
    assert_eq!(host.ok(&["run", "--rm", "--network", "host", "busybox", "readlink", "/proc/self/ns/net"]), ours);
    host.ok(&["run", "-d", "--name", "first", "--hostname", "shared", "busybox", "sleep", "1000"]);
    let first = host.ok(&["exec", "first", "readlink", "/proc/self/ns/net"]);
    let joined = host.ok(&[
        "run",
        "--rm",
        "--network",
        "container:first",
        "busybox",
        "sh",
        "-c",
        "readlink /proc/self/ns/net; hostname",
    ]);
    assert_eq!(joined, format!("{first}\nshared"));
    host.ok(&["stop", "-t", "0", "first"]);
    let e = host.fails(125, &["run", "--rm", "--network", "container:first", "busybox", "true"]);
    assert!(e.contains("cannot join network namespace of a non running container"), "{e}");
    let e = host.fails(125, &["run", "--rm", "--network", "container:first", "-h", "x", "busybox", "true"]);
    assert!(e.contains("conflicting options: hostname and the network mode"), "{e}");
}

#[test]
fn connect_and_disconnect_live_and_stopped() {
    let host = Host::new();
    host.ok(&["network", "create", "extra"]);
    serve(&host, &["--name", "cc", "-p", "8080:80"], 80, "c");
    host.ok(&["network", "connect", "--ip", "172.18.0.77", "--alias", "aka", "extra", "cc"]);
    let addr = host.ok(&["exec", "cc", "ip", "-o", "-4", "addr", "show", "eth1"]);
    assert!(addr.contains("172.18.0.77/24"), "{addr}");
    assert!(inspect(&host, "extra")["Containers"].as_object().is_some_and(|c| c.len() == 1));
    let out = host.ok(&[
        "run",
        "--rm",
        "--network",
        "extra",
        "-v",
        &mount(),
        "busybox",
        "sh",
        "-c",
        &format!("{PROGRAM} call 172.18.0.77 80; nslookup aka 127.0.0.11 | grep -c 172.18.0.77"),
    ]);
    assert!(out.starts_with("c ") && out.ends_with('1'), "{out}");
    let e = host.fails(1, &["network", "rm", "extra"]);
    assert!(e.contains("error while removing network: network extra has active endpoints (name:\"cc\""), "{e}");
    host.ok(&["network", "disconnect", "bridge", "cc"]);
    assert_ne!(host.rrun(&["exec", "cc", "ip", "link", "show", "eth0"]).code, 0);
    assert!(
        host.ok(&["exec", "cc", "ip", "route", "show", "default"]).contains("172.18.0.1"),
        "the gateway moves over"
    );
    assert!(host.sh(&call("127.0.0.1", 8080)).starts_with("c "), "the published port follows");
    host.ok(&["stop", "-t", "0", "cc"]);
    host.ok(&["network", "connect", "bridge", "cc"]);
    host.ok(&["network", "disconnect", "extra", "cc"]);
    host.ok(&["start", "cc"]);
    assert!(host.ok(&["exec", "cc", "ip", "-o", "-4", "addr"]).contains("172.17.0."));
    let e = host.fails(1, &["network", "disconnect", "extra", "cc"]);
    assert!(e.contains("is not connected to network extra"), "{e}");
    host.ok(&["network", "rm", "extra"]);
    let e = host.fails(1, &["network", "connect", "host", "cc"]);
    assert!(
        e.contains("cannot connect container to host network - container must be created in host network mode"),
        "{e}"
    );
}

#[test]
fn prune_removes_what_nobody_uses() {
    let host = Host::new();
    host.ok(&["network", "create", "used"]);
    host.ok(&["network", "create", "--label", "keep", "kept"]);
    host.ok(&["network", "create", "idle"]);
    host.ok(&["run", "-d", "--network", "used", "busybox", "sleep", "1000"]);
    assert_eq!(host.ok(&["network", "prune", "-f", "--filter", "label!=keep"]), "Deleted Networks:\nidle");
    assert_eq!(host.ok(&["network", "prune", "-f"]), "Deleted Networks:\nkept");
    assert_eq!(host.ok(&["network", "ls", "--format", "{{.Name}}"]), "bridge\nhost\nnone\nused");
}

#[test]
fn automatic_subnets_do_not_collide() {
    let host = Host::bare();
    host.sh("ip link add d0 type bridge; ip addr add 172.18.5.1/16 dev d0; ip link set d0 up");
    host.ok(&["network", "create", "--ipv6", "a"]);
    host.ok(&["network", "create", "b"]);
    assert_eq!(inspect(&host, "a")["IPAM"]["Config"][0]["Subnet"], "172.19.0.0/24", "172.18 is on a link of the host");
    let v6 = inspect(&host, "a")["IPAM"]["Config"][1]["Subnet"].as_str().expect("an automatic ULA").to_string();
    assert!(v6.starts_with("fd") && v6.ends_with("::/64"), "{v6}");
    assert_eq!(inspect(&host, "b")["IPAM"]["Config"][0]["Subnet"], "172.19.1.0/24");
    host.sh("ip link del d0");
}

#[test]
fn what_is_lost_behind_our_back_comes_back() {
    let host = Host::new().with_lan();
    serve(&host, &["-p", "8080:80", "--name", "web"], 80, "web");
    assert_eq!(host.neighbour(&call(HOST_LAN, 8080)), format!("web {NEIGHBOUR}"));
    host.sh("nft flush ruleset");
    host.ok(&["run", "--rm", "busybox", "true"]);
    assert_eq!(
        host.neighbour(&call(HOST_LAN, 8080)),
        format!("web {NEIGHBOUR}"),
        "the table is restored with its elements"
    );
    host.neighbour(&format!("ip route add 172.17.0.0/16 via {HOST_LAN}"));
    assert_ne!(host.try_neighbour(&call("172.17.0.2", 80)).code, 0, "and so is the protection");
    host.sh("ip link del rrun0");
    host.ok(&["run", "--rm", "busybox", "true"]);
    assert_eq!(
        host.neighbour(&call(HOST_LAN, 8080)),
        format!("web {NEIGHBOUR}"),
        "the bridge is made again, the veth enslaved"
    );
    // A lease that vanished is taken again before another container can get the address.
    host.sh(&format!("rm {}/networks/*/leases/172.17.0.2", host.state().display()));
    let id = host.ok(&["run", "-d", "busybox", "sleep", "1000"]);
    assert_ne!(host.ok(&["inspect", "-f", "{{.NetworkSettings.Networks.bridge.IPAddress}}", &id]), "172.17.0.2");
}

#[test]
fn ipv4_only_networks_have_no_ipv6() {
    let host = Host::new();
    let out = host.ok(&[
        "run",
        "--rm",
        "busybox",
        "sh",
        "-c",
        "ip -6 addr show eth0; cat /proc/sys/net/ipv6/conf/eth0/disable_ipv6",
    ]);
    assert_eq!(out, "1");
    host.ok(&["network", "create", "--ipv6", "six"]);
    let out = host.ok(&[
        "run",
        "--rm",
        "--network",
        "six",
        "busybox",
        "sh",
        "-c",
        "cat /proc/sys/net/ipv6/conf/eth0/accept_ra; ip -6 route show default",
    ]);
    assert!(out.starts_with("0\ndefault via fd"), "{out}");
}

#[test]
fn foreign_tables_and_policies_are_left_alone() {
    let host = Host::new();
    host.sh("nft 'table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; tcp dport 1 accept; }; }'");
    let before = host.sh("nft list table ip filter");
    host.ok(&["network", "create", "n"]);
    host.ok(&["run", "--rm", "--network", "n", "-p", "8080:80", "busybox", "true"]);
    host.ok(&["network", "rm", "n"]);
    assert_eq!(host.sh("nft list table ip filter"), before);
    let others = host.sh("nft list tables");
    let mut tables: Vec<&str> = others.lines().collect();
    tables.sort_unstable();
    assert_eq!(tables, ["table inet rrun", "table ip filter"]);
}
