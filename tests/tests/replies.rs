//! A container on several networks answers through the network that it was called by.
//!
//! The callers stand beyond the LAN's router, so that their answers need a default route: those on a network
//! of the container's own never did.

use rrun_tests::Host;
use rrun_tests::host::{HOST_LAN, HOST_LAN6, NEIGHBOUR, NEIGHBOUR6};
use rrun_tests::kernel::lacks;
use rrun_tests::lan::{LAN6, RANGE, SUBNET, create, endpoint};
use rrun_tests::peer::{call, serve_as};
use serde_json::Value;

/// The caller's addresses, behind the router that the neighbour is.
const FAR: &str = "203.0.113.7";
const FAR6: &str = "2001:db8:f::7";

/// Gives the neighbour an address beyond itself, which it uses towards `to` and `to6`. The IPv6 one is its
/// interface's: questions for neighbours must come from that, and its link-local one is being checked.
fn far_away(host: &Host, to: &str, to6: &str, via: &str) {
    host.neighbour(&format!("ip addr add {FAR}/32 dev lo; ip -6 addr add {FAR6}/128 dev eth0 nodad"));
    let (via4, via6) = if via.is_empty() { ("", "") } else { (" via 198.51.100.1", " via 2001:db8:51::1") };
    host.neighbour(&format!(
        "ip route replace {to}{via4} dev eth0 src {FAR}; ip -6 route replace {to6}{via6} dev eth0 src {FAR6} metric 1"
    ));
}

/// Network `lan` on the host's own LAN, whose router is the neighbour.
fn on_lan(driver: &str) -> Host {
    let host = Host::new().with_lan();
    let parent = ["--subnet", SUBNET, "--ip-range", RANGE, "--gateway", NEIGHBOUR, "-o", "parent=lan0"];
    create(&host, driver, "lan", &[&parent[..], &LAN6].concat());
    host
}

/// The rules of the container's namespace that are not the kernel's own.
fn rules(host: &Host, container: &str) -> Vec<String> {
    let pid = host.ok(&["inspect", "-f", "{{.State.Pid}}", container]);
    let mut found = Vec::new();
    for family in ["-4", "-6"] {
        let text = host.sh(&format!("nsenter -t {pid} -n ip -j {family} rule"));
        let all: Vec<Value> = serde_json::from_str(&text).expect("ip prints JSON");
        let text = |v: &Value| v.as_str().map(str::to_string).unwrap_or_default();
        let ours = all.iter().filter(|r| r["priority"].as_u64().is_some_and(|p| p > 0 && p < 32766));
        found.extend(ours.map(|r| format!("{} {}", text(&r["src"]), text(&r["table"]))));
    }
    found
}

/// A host that takes a source address only from where it is, as firewalld has it for IPv6 and many for both.
fn strict(host: &Host) {
    host.sh("nft 'table inet strict { chain prerouting { type filter hook prerouting priority -150; \
         fib saddr . iif oif missing drop; }; }'");
}

/// Without the rules, which is what there would be without the feature.
fn without_rules(host: &Host, container: &str) {
    let pid = host.ok(&["inspect", "-f", "{{.State.Pid}}", container]);
    for family in ["-4", "-6"] {
        host.sh(&format!(
            "nsenter -t {pid} -n sh -c 'ip {family} rule del priority 30001; ip {family} rule del priority 30000'"
        ));
    }
}

#[test]
fn called_over_the_lan_answers_over_the_lan() {
    if lacks(&["macvlan"]) {
        return;
    }
    let host = on_lan("macvlan");
    host.ok(&["network", "create", "--ipv6", "--subnet", "10.9.0.0/24", "--subnet", "fd00:9::/64", "net"]);
    let flags = ["--network", "name=net,gw-priority=1", "--network", "lan", "--name", "web"];
    serve_as(&host, "tcp", &flags, "::", 80, "web");
    let (v4, v6) = (endpoint(&host, "web", "lan", "IPAddress"), endpoint(&host, "web", "lan", "GlobalIPv6Address"));
    far_away(&host, &format!("{v4}/32"), &format!("{v6}/128"), "");
    strict(&host);
    let default = host.ok(&["exec", "web", "sh", "-c", "ip route; ip -6 route"]);
    assert!(default.contains("default via 10.9.0.1 dev eth0") && default.contains("default via fd00:9::1 dev eth0"));
    assert_eq!(host.neighbour(&call(&v4, 80)), format!("web {FAR}"));
    assert_eq!(host.neighbour(&call(&v6, 80)), format!("web {FAR6}"));
    host.neighbour(&format!("ping -c 1 -W 2 -I {FAR} {v4} >/dev/null || ! command -v ping >/dev/null"));
    // Its own connections go by the default route, as ever.
    assert!(host.ok(&["exec", "web", "ip", "route", "get", "192.0.2.1"]).contains("via 10.9.0.1 dev eth0"));
    assert_eq!(rules(&host, "web"), ["all main".into(), format!("{v4} 1001"), "all main".into(), format!("{v6} 1001")]);
    without_rules(&host, "web");
    assert_ne!(host.try_neighbour(&call(&v4, 80)).code, 0, "the answer leaves by the other network, and is lost");
    assert_ne!(host.try_neighbour(&call(&v6, 80)).code, 0);
    // A device that is made anew gets its ways back, rules or routes.
    let pid = host.ok(&["inspect", "-f", "{{.State.Pid}}", "web"]);
    for _ in 0..2 {
        host.sh(&format!("nsenter -t {pid} -n ip link del eth1"));
        let ran = host.rrun(&["network", "ls"]).expect(0);
        assert!(ran.stderr.contains("restored: "), "{}", ran.stderr);
        assert_eq!(host.neighbour(&call(&v4, 80)), format!("web {FAR}"));
        assert_eq!(host.neighbour(&call(&v6, 80)), format!("web {FAR6}"));
    }
}

#[test]
fn ports_are_published_through_the_bridge_beside_a_lan() {
    if lacks(&["macvlan"]) {
        return;
    }
    let host = on_lan("macvlan");
    host.ok(&["network", "create", "--ipv6", "--subnet", "10.9.0.0/24", "--subnet", "fd00:9::/64", "net"]);
    far_away(&host, &format!("{HOST_LAN}/32"), &format!("{HOST_LAN6}/128"), "");
    let flags = ["--network", "name=lan,gw-priority=1", "--network", "net", "-p", "8080:80", "--name", "web"];
    serve_as(&host, "tcp", &flags, "::", 80, "web");
    let default = host.ok(&["exec", "web", "sh", "-c", "ip route; ip -6 route"]);
    assert!(default.contains(&format!("default via {NEIGHBOUR} dev eth0")), "{default}");
    assert_eq!(host.neighbour(&call(HOST_LAN, 8080)), format!("web {FAR}"), "DNAT to net, answered through net");
    assert_eq!(host.neighbour(&call(HOST_LAN6, 8080)), format!("web {FAR6}"));
    without_rules(&host, "web");
    assert_ne!(host.try_neighbour(&call(HOST_LAN, 8080)).code, 0);
}

#[test]
fn routed_networks_bear_a_strict_host() {
    let host = Host::new().with_lan();
    host.ok(&["network", "create", "--subnet", "10.8.0.0/24", "nat"]);
    let mode = ["-o", "com.docker.network.bridge.gateway_mode_ipv4=routed"];
    host.ok(&[&["network", "create", "--subnet", "10.9.0.0/24"], &mode[..], &["routed"]].concat());
    far_away(&host, "10.9.0.0/24", "fd00:9::/64", HOST_LAN);
    host.sh(&format!("ip route replace {FAR}/32 via {NEIGHBOUR}"));
    let flags = ["--network", "name=routed,gw-priority=1", "--network", "nat", "-p", "80", "--name", "web"];
    serve_as(&host, "tcp", &flags, "0.0.0.0", 80, "web");
    assert_eq!(host.neighbour(&call("10.9.0.2", 80)), format!("web {FAR}"));
    // The other way round, routed beside the default route; the host takes an address only from where it is.
    host.ok(&["network", "disconnect", "routed", "web"]);
    host.ok(&["network", "connect", "--gw-priority", "-1", "--ip", "10.9.0.2", "routed", "web"]);
    strict(&host);
    let from = |ip: &str| host.ok(&["exec", "web", "ip", "route", "get", FAR, "from", ip]);
    assert!(from("10.9.0.2").contains("via 10.9.0.1"), "{}", from("10.9.0.2"));
    assert!(from("10.8.0.2").contains("via 10.8.0.1"));
    host.ok(&["exec", "web", "ping", "-c", "1", "-W", "2", "-I", "10.9.0.2", FAR]);
    without_rules_v4(&host, "web");
    assert_ne!(host.rrun(&["exec", "web", "ping", "-c", "1", "-W", "1", "-I", "10.9.0.2", FAR]).code, 0);
}

fn without_rules_v4(host: &Host, container: &str) {
    let pid = host.ok(&["inspect", "-f", "{{.State.Pid}}", container]);
    host.sh(&format!("nsenter -t {pid} -n ip rule del priority 30001"));
}

#[test]
fn the_rules_follow_networks_that_come_and_go() {
    let host = Host::new();
    for (name, net) in [("a", "1"), ("b", "2"), ("c", "3")] {
        let (v4, v6) = (format!("10.{net}.0.0/24"), format!("fd00:{net}::/64"));
        host.ok(&["network", "create", "--ipv6", "--subnet", &v4, "--subnet", &v6, name]);
    }
    host.ok(&["network", "create", "--internal", "--subnet", "10.4.0.0/24", "inner"]);
    host.ok(&["network", "create", "-o", "no_default_route=true", "--subnet", "10.5.0.0/24", "mute"]);
    host.ok(&["run", "-d", "--name", "web", "--network", "a", "busybox", "sleep", "1000"]);
    let rules = || rules(&host, "web");
    assert_eq!(rules(), [""; 0], "one way out needs none");
    host.ok(&["network", "connect", "inner", "web"]);
    host.ok(&["network", "connect", "mute", "web"]);
    assert_eq!(rules(), [""; 0], "nor do networks that lead nowhere");
    host.ok(&["network", "connect", "b", "web"]);
    let b = ["all main", "10.2.0.2 1003", "all main", "fd00:2::2 1003"];
    assert_eq!(rules(), b);
    let pid = host.ok(&["inspect", "-f", "{{.State.Pid}}", "web"]);
    let table = |family: &str, n: &str| host.sh(&format!("nsenter -t {pid} -n ip {family} route show table {n}"));
    assert_eq!(table("-4", "1003"), "default via 10.2.0.1 dev eth3 proto static");
    assert!(table("-6", "1003").starts_with("default via fd00:2::1 dev eth3"));
    // The third takes the default route from the first, which gets rules of its own.
    host.ok(&["network", "connect", "--gw-priority", "9", "c", "web"]);
    assert_eq!(
        rules().iter().map(|r| &r[..8]).collect::<Vec<_>>(),
        ["all main", "10.2.0.2", "10.1.0.2", "all main", "fd00:2::", "fd00:1::"]
    );
    assert_eq!(table("-4", "1000"), "default via 10.1.0.1 dev eth0 proto static");
    let from = |ip: &str, to: &str| host.ok(&["exec", "web", "ip", "route", "get", to, "from", ip]);
    assert!(from("10.1.0.2", "192.0.2.1").contains("via 10.1.0.1 dev eth0"));
    assert!(from("10.2.0.2", "192.0.2.1").contains("via 10.2.0.1 dev eth3"));
    assert!(from("10.3.0.2", "192.0.2.1").contains("via 10.3.0.1 dev eth4"));
    assert!(from("10.2.0.2", "10.1.0.1").contains("dev eth0"), "neighbours stay neighbours");
    assert!(from("10.2.0.2", "10.2.0.77").contains("dev eth3") && !from("10.2.0.2", "10.2.0.77").contains("via"));
    host.ok(&["network", "disconnect", "c", "web"]);
    assert_eq!(rules(), b);
    host.ok(&["network", "disconnect", "a", "web"]);
    assert_eq!(rules(), [""; 0], "the last way out has the default route");
    assert!(from("10.2.0.2", "192.0.2.1").contains("via 10.2.0.1 dev eth3"));
    // A connection that fails leaves nothing.
    let e = host.refuses(&[
        "network",
        "connect",
        "--driver-opt",
        "com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.nonsense=1",
        "a",
        "web",
    ]);
    assert!(e.contains("nonsense"), "{e}");
    assert_eq!(rules(), [""; 0]);
    // Stopped, connected, started: as if it had been there.
    host.ok(&["stop", "-t", "0", "web"]);
    host.ok(&["network", "connect", "a", "web"]);
    host.ok(&["start", "web"]);
    assert_eq!(rules().len(), 4, "{:?}", rules());
}

#[test]
fn a_device_without_a_gateway_is_a_way_too() {
    if lacks(&["ipvlan"]) {
        return;
    }
    let host = Host::new().with_lan();
    let l3 =
        ["--subnet", "10.7.0.0/24", "--ipv6", "--subnet", "fd07::/64", "-o", "parent=lan0", "-o", "ipvlan_mode=l3"];
    create(&host, "ipvlan", "l3", &l3);
    host.ok(&["network", "create", "--ipv6", "--subnet", "10.9.0.0/24", "--subnet", "fd00:9::/64", "net"]);
    far_away(&host, "10.7.0.0/24", "fd07::/64", HOST_LAN);
    host.sh(&format!("ip route replace {FAR}/32 via {NEIGHBOUR}; ip -6 route replace {FAR6}/128 via {NEIGHBOUR6}"));
    let flags = ["--network", "name=net,gw-priority=1", "--network", "l3", "--name", "web"];
    serve_as(&host, "tcp", &flags, "::", 80, "web");
    let routes = host.ok(&["exec", "web", "sh", "-c", "ip route show table 1001; ip -6 route show table 1001"]);
    assert_eq!(routes.matches("default dev eth1").count(), 2, "{routes}");
    let (v4, v6) = (endpoint(&host, "web", "l3", "IPAddress"), endpoint(&host, "web", "l3", "GlobalIPv6Address"));
    assert_eq!(host.neighbour(&call(&v4, 80)), format!("web {FAR}"));
    assert_eq!(host.neighbour(&call(&v6, 80)), format!("web {FAR6}"));
}

#[test]
fn explained_before_it_is_done() {
    let host = Host::new();
    host.ok(&["network", "create", "--subnet", "10.1.0.0/24", "a"]);
    host.ok(&["network", "create", "--subnet", "10.2.0.0/24", "b"]);
    let plan = host.ok(&["explain", "run", "--script", "--network", "a", "--network", "b", "busybox", "true"]);
    for line in [
        "ip -n \"$NETNS\" rule add lookup main suppress_prefixlength 0 priority 30000",
        "ip -n \"$NETNS\" route add default via 10.2.0.1 dev eth1 table 1001",
        "ip -n \"$NETNS\" rule add from 10.2.0.2 lookup 1001 priority 30001",
    ] {
        assert!(plan.contains(line), "{line} not in\n{plan}");
    }
    let one = host.ok(&["explain", "run", "--script", "--network", "a", "busybox", "true"]);
    assert!(!one.contains("rule add"), "{one}");
}
