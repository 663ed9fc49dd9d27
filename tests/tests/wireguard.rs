//! A host with a WireGuard tunnel, as people have VPNs: networks keep away from what is behind it, containers
//! go out through it, and what they publish is reached over it.
//!
//! The tunnel's other end is the LAN's neighbour.

use rrun_tests::Host;
use rrun_tests::host::{HOST_LAN, NEIGHBOUR, eventually};
use rrun_tests::kernel::lacks;
use rrun_tests::peer::{PROGRAM, Server, call, mount, serve_as};
use serde_json::Value;

const HERE: &str = "10.99.0.1";
const THERE: &str = "10.99.0.2";
const HERE6: &str = "fd99::1";
const THERE6: &str = "fd99::2";
/// Addresses of the neighbour's that only the tunnel leads to.
const FAR: &str = "203.0.113.9";
const FAR6: &str = "2001:db8:99::9";

/// A host with a tunnel `wg0` to its neighbour, which carries whatever is routed into it.
fn with_tunnel() -> Host {
    let host = Host::new().with_lan();
    let (ours, theirs) = (host.sh("wg genkey"), host.sh("wg genkey"));
    let public = |key: &str| host.sh(&format!("echo {key} | wg pubkey"));
    let end = |key: &str, peer: &str, endpoint: &str, allowed: &str, own: [&str; 2]| {
        format!(
            "ip link add wg0 type wireguard; \
             echo {key} | wg set wg0 listen-port 51820 private-key /dev/stdin peer {peer} endpoint {endpoint}:51820 allowed-ips {allowed}; \
             ip addr add {}/24 dev wg0; ip addr add {}/64 dev wg0 nodad; ip link set wg0 up",
            own[0], own[1]
        )
    };
    host.sh(&end(&ours, &public(&theirs), NEIGHBOUR, "0.0.0.0/0,::/0", [HERE, HERE6]));
    // The other end believes containers' addresses, too, so that what it refuses is not why they are not reached.
    let allowed = format!("{HERE}/32,{HERE6}/128,172.16.0.0/12");
    host.neighbour(&end(&theirs, &public(&ours), HOST_LAN, &allowed, [THERE, THERE6]));
    host.neighbour(&format!("ip addr add {FAR}/32 dev lo; ip addr add {FAR6}/128 dev lo"));
    host
}

/// Everything goes through the tunnel but the tunnel's own packets and the LAN: what wg-quick does.
fn everything_through_it(host: &Host) {
    host.sh("wg set wg0 fwmark 51820");
    for family in ["-4", "-6"] {
        host.sh(&format!(
            "ip {family} route add default dev wg0 table 51820; ip {family} rule add not fwmark 51820 table 51820; \
             ip {family} rule add table main suppress_prefixlength 0"
        ));
    }
}

fn mtu(host: &Host, link: &str) -> Value {
    host.ip(&format!("link show {link}"))[0]["mtu"].clone()
}

fn subnet(host: &Host, network: &str) -> String {
    host.ok(&["network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", network])
}

#[test]
fn networks_keep_away_from_what_is_behind_a_tunnel() {
    if lacks(&["wireguard"]) {
        return;
    }
    let host = with_tunnel();
    // What AllowedIPs become: routes without a router.
    host.sh(
        "ip route add 172.17.0.0/16 dev wg0; ip route add 172.18.0.0/23 dev wg0; ip route add 172.18.3.7/32 dev wg0",
    );
    assert_eq!(subnet(&host, "bridge"), "172.18.2.0/24");
    host.ok(&["network", "create", "a"]);
    assert_eq!(subnet(&host, "a"), "172.18.4.0/24", "the default network has the first one");
    for (wanted, theirs) in [
        ("172.18.1.0/25", "172.18.0.0/23 of the host's route to 172.18.0.0/23 on wg0"),
        ("172.18.3.0/24", "172.18.3.7/32 of the host's route to 172.18.3.7/32 on wg0"),
        ("10.99.0.64/26", "10.99.0.0/24 of the host's route to 10.99.0.0/24 on wg0"),
        ("fd99::/80", "fd99::/64 of the host's route to fd99::/64 on wg0"),
    ] {
        let e = host.fails(1, &["network", "create", "--subnet", wanted, "clash"]);
        assert!(e.contains("Pool overlaps with other one on this address space"), "{e}");
        assert!(e.contains(&format!("hint: {wanted} overlaps {theirs}; choose another --subnet")), "{e}");
    }
    // Switched off, it has no routes, and tomorrow it will.
    host.sh("ip link set wg0 down");
    let e = host.fails(1, &["network", "create", "--subnet", "10.99.0.64/26", "clash"]);
    assert!(e.contains("10.99.0.1/24 of wg0"), "{e}");
    host.sh("ip link del wg0");
    host.ok(&["network", "create", "--subnet", "10.99.0.64/26", "clash"]);
}

#[test]
fn containers_reach_the_world_through_it() {
    if lacks(&["wireguard"]) {
        return;
    }
    let host = with_tunnel();
    everything_through_it(&host);
    assert_eq!(mtu(&host, "wg0"), 1420, "room for its own headers");
    let id = host.ok(&["network", "create", "--ipv6", "net"]);
    assert_eq!(mtu(&host, &format!("br-{}", &id[..12])), 1420, "that of the way out, which no default route tells");
    let inside = |network: &str, command: &str| {
        host.ok(&["run", "--rm", "--network", network, "-v", &mount(), "busybox", "sh", "-c", command])
    };
    assert_eq!(inside("net", "cat /sys/class/net/eth0/mtu"), "1420");

    // The other end takes nothing from this host's networks but by the tunnel, and sees the tunnel's address.
    for (far, own) in [(FAR, HERE), (FAR6, HERE6)] {
        let _server = Server::on_neighbour(&host, "tcp", far, 9000, "far");
        let answer = eventually("the tunnel is up", || {
            let args = ["run", "--rm", "--network", "net", "-v", &mount(), "busybox", PROGRAM, "call", far, "9000"];
            let ran = host.rrun(&args);
            (ran.code == 0).then_some(ran.stdout)
        });
        assert_eq!(answer.trim(), format!("far {own}"));
    }
    let _lan = Server::on_neighbour(&host, "tcp", NEIGHBOUR, 9001, "lan");
    assert_eq!(
        inside("net", &format!("{PROGRAM} call {NEIGHBOUR} 9001")),
        format!("lan {HOST_LAN}"),
        "the LAN is reached as before"
    );

    // Containers that know nothing of it are told by their connections.
    host.ok(&["network", "create", "--ipv6", "-o", "mtu=1500", "wide"]);
    host.neighbour(
        "nft 'table inet watch { chain seen { type filter hook input priority 0; \
         iif wg0 tcp flags & (syn | ack) == syn tcp option maxseg size 1380 counter; \
         iif wg0 tcp flags & (syn | ack) == syn tcp option maxseg size 1360 counter; \
         iif wg0 tcp flags & (syn | ack) == syn tcp option maxseg size > 1380 counter; }; }'",
    );
    for far in [FAR, FAR6] {
        let _bulk = Server::on_neighbour(&host, "bulk", far, 9002, "bulk");
        for direction in ["download", "upload"] {
            inside("wide", &format!("{PROGRAM} {direction} {far} 9002 300000"));
        }
    }
    let doc: Value = serde_json::from_str(&host.neighbour("nft -j list table inet watch")).expect("JSON");
    let rules = doc["nftables"].as_array().cloned().unwrap_or_default();
    let expressions = rules.iter().filter_map(|r| r["rule"]["expr"].as_array());
    let seen: Vec<u64> = expressions.filter_map(|e| e.iter().find_map(|e| e["counter"]["packets"].as_u64())).collect();
    assert!(seen[0] >= 2 && seen[1] >= 2 && seen[2] == 0, "1420 less 40 bytes of headers, less 60 in IPv6: {seen:?}");
    host.sh("ip link del wg0");
}

#[test]
fn what_is_published_is_reached_over_it() {
    if lacks(&["wireguard"]) {
        return;
    }
    let host = with_tunnel();
    everything_through_it(&host);
    host.ok(&["network", "create", "--ipv6", "net"]);
    let only_there = format!("{HERE}:8081:80");
    let web = serve_as(&host, "tcp", &["--network", "net", "-p", "8080:80", "-p", &only_there], "::", 80, "web");
    let reached = eventually("the tunnel is up", || {
        let ran = host.try_neighbour(&call(HERE, 8080));
        (ran.code == 0).then_some(ran.stdout)
    });
    assert_eq!(reached.trim(), format!("web {THERE}"), "from the caller's own address");
    assert_eq!(host.neighbour(&call(HERE6, 8080)), format!("web {THERE6}"));
    assert_eq!(host.neighbour(&call(HOST_LAN, 8080)), format!("web {NEIGHBOUR}"), "answers take the way they came by");
    assert_eq!(host.neighbour(&call(HERE, 8081)), format!("web {THERE}"));
    assert_ne!(host.try_neighbour(&call(HOST_LAN, 8081)).code, 0, "published at the tunnel's address alone");
    // The tunnel is no way around the firewall.
    let field = "{{.NetworkSettings.Networks.net.IPAddress}}";
    let address = host.ok(&["inspect", "-f", field, &web]);
    host.neighbour(&format!("ip route add {address} dev wg0"));
    assert_ne!(host.try_neighbour(&call(&address, 80)).code, 0, "not by a route to its own address");
    // It may go and come back while the container runs.
    host.sh("ip link set wg0 down; ip link set wg0 up");
    eventually("it is reached again", || (host.try_neighbour(&call(HERE, 8081)).code == 0).then_some(()));
    host.sh("ip link del wg0");
}

#[test]
fn no_devices_of_their_own_on_it() {
    if lacks(&["wireguard"]) {
        return;
    }
    let host = with_tunnel();
    for driver in ["macvlan", "ipvlan"] {
        for parent in ["wg0", "wg0.50"] {
            let option = format!("parent={parent}");
            let e = host.refuses(&["network", "create", "-d", driver, "--subnet", "10.7.0.0/24", "-o", &option, "x"]);
            assert!(e.contains(&format!("wg0 is not a valid {driver} parent link")) && e.contains("hint:"), "{e}");
        }
    }
    // Nor by themselves, where the default route leads into it.
    host.sh("ip route replace default dev wg0");
    let e = host.refuses(&["run", "--rm", "--network", "macvlan", "busybox", "true"]);
    assert!(e.contains("wg0 is not a valid macvlan parent link") && e.contains("hint:"), "{e}");
    assert_eq!(host.ok(&["network", "ls", "-q"]).lines().count(), 3, "nothing half-made");
    host.sh("ip link del wg0");
}
