//! Containers under addresses of the host's own wire (`-o ndp_proxy`): a router on the LAN asks for them by
//! neighbour solicitation, and reaches them.

use rrun_tests::Host;
use rrun_tests::host::{HOST_LAN6, NEIGHBOUR6, eventually};
use rrun_tests::lan::endpoint;
use rrun_tests::peer::{PROGRAM, Server, call, serve_as};
use serde_json::Value;

const PART: &str = "2001:db8:51:0:8000::/80";
const WEB: &str = "2001:db8:51:0:8000::2";

const ROUTED: [&str; 4] = ["-o", "gateway_mode_ipv6=routed", "-o", "ndp_proxy=auto"];

fn create(host: &Host, options: &[&str]) -> String {
    host.ok(&[&["network", "create", "--subnet", "10.9.0.0/24"], options, &["net"]].concat())
}

fn web(host: &Host, flags: &[&str]) -> String {
    serve_as(host, "tcp", &[&["--network", "net", "--name", "web", "-p", "8080:80"], flags].concat(), "::", 80, "web")
}

/// What the host answers for on its LAN.
fn answers(host: &Host) -> Vec<String> {
    let list = host.ip("-6 neigh show proxy dev lan0");
    let of = |v: &Value| v["dst"].as_str().unwrap_or_default().to_string();
    list.as_array().into_iter().flatten().map(of).collect()
}

/// Does the router find out which station has the address, and is that the host?
fn resolves(host: &Host, ip: &str) -> bool {
    host.neighbour("ip -6 neigh flush dev eth0");
    host.try_neighbour(&call(ip, 80));
    let entries = host.neighbour(&format!("ip -j -6 neigh show {ip} dev eth0"));
    let entries: Value = serde_json::from_str(&entries).expect("JSON");
    let own = host.ip("link show lan0")[0]["address"].clone();
    entries[0]["lladdr"] == own
}

fn reaches(host: &Host, ip: &str) -> bool {
    host.try_neighbour(&call(ip, 80)).code == 0
}

#[track_caller]
fn findings(host: &Host, flags: &[&str]) -> Vec<(String, String)> {
    let ran = host.rrun(&[&["network", "check", "--format", "json"], flags].concat());
    let doc: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {} {}", ran.stdout, ran.stderr));
    let text = |f: &Value, key: &str| f[key].as_str().unwrap_or_default().to_string();
    doc.as_array().expect("a list").iter().map(|f| (text(f, "Code"), text(f, "Problem"))).collect()
}

#[test]
fn a_router_finds_the_container_on_the_hosts_wire() {
    let host = Host::new().with_lan();
    let refused = host.refuses(&["network", "create", "--subnet", PART, "-o", "gateway_mode_ipv6=routed", "net"]);
    assert!(refused.contains("Pool overlaps"), "without the option the host's wire is not to be cut: {refused}");
    create(&host, &[&ROUTED[..], &["--subnet", PART]].concat());
    let id = web(&host, &[]);
    assert_eq!(answers(&host), [WEB]);
    assert!(resolves(&host, WEB));
    assert_eq!(host.neighbour(&call(WEB, 80)), format!("web {NEIGHBOUR6}"));
    assert!(!resolves(&host, "2001:db8:51:0:8000::3"), "for nobody else");
    if host.try_sh("command -v ping").code == 0 {
        host.neighbour(&format!("ping -6 -c 1 -W 2 {WEB} >/dev/null"));
    }
    // The host goes on reaching its own wire, and is reached there.
    let _lan = Server::on_neighbour(&host, "tcp", NEIGHBOUR6, 9000, "lan");
    assert_eq!(host.sh(&call(NEIGHBOUR6, 9000)), format!("lan {HOST_LAN6}"));
    assert_eq!(host.ok(&["exec", "web", PROGRAM, "call", NEIGHBOUR6, "9000"]), format!("lan {WEB}"));
    assert_eq!(host.ok(&["network", "check"]), "");
    let undo = host.sh(&format!("cat {}/containers/{id}/undo.json", host.state().display()));
    assert!(undo.contains(&format!("{{\"neighbour\":{{\"address\":\"{WEB}\",\"device\":\"lan0\"}}}}")), "{undo}");
    host.ok(&["rm", "-f", "web"]);
    assert_eq!(answers(&host), Vec::<String>::new());
    assert!(!resolves(&host, WEB) && !reaches(&host, WEB));
}

#[test]
fn a_part_of_the_wire_is_chosen_where_none_is_given() {
    let host = Host::new().with_lan();
    let six = ["--ipv6", "-o", "gateway_mode_ipv6=nat-unprotected", "-o", "ndp_proxy=lan0"];
    create(&host, &six);
    web(&host, &[]);
    // Not the first /80, in which the host itself and its router are.
    assert_eq!(endpoint(&host, "web", "net", "GlobalIPv6Address"), "2001:db8:51:0:1::2");
    assert_eq!(host.neighbour(&call("2001:db8:51:0:1::2", 80)), format!("web {NEIGHBOUR6}"));
    let second = host.ok(&[&["network", "create"], &six[..], &["second"]].concat());
    let subnets = host.ok(&["network", "inspect", "-f", "{{json .IPAM.Config}}", &second]);
    assert!(subnets.contains("2001:db8:51:0:2::/80"), "{subnets}");
}

#[test]
fn it_follows_connections_restarts_and_crashes() {
    let host = Host::new().with_lan();
    create(&host, &[&ROUTED[..], &["--subnet", PART]].concat());
    host.ok(&["network", "create", "plain"]);
    let id = serve_as(&host, "tcp", &["--network", "plain", "--name", "web", "-p", "8080:80"], "::", 80, "web");
    assert!(answers(&host).is_empty());
    host.ok(&["network", "connect", "--gw-priority", "1", "net", "web"]);
    assert!(answers(&host) == [WEB] && resolves(&host, WEB) && reaches(&host, WEB));
    host.ok(&["network", "disconnect", "net", "web"]);
    assert!(answers(&host).is_empty() && !resolves(&host, WEB));
    host.ok(&["network", "connect", "--gw-priority", "1", "--ip6", "2001:db8:51:0:8000::77", "net", "web"]);
    host.ok(&["restart", "-t", "0", "web"]);
    assert_eq!(answers(&host), ["2001:db8:51:0:8000::77"], "the same after a restart");
    eventually("the server is back", || reaches(&host, "2001:db8:51:0:8000::77").then_some(()));
    host.ok(&["stop", "-t", "0", "web"]);
    assert!(answers(&host).is_empty());
    host.ok(&["start", "web"]);
    assert_eq!(answers(&host), ["2001:db8:51:0:8000::77"]);
    // Monitor and container are killed: the next command takes it back.
    let text = host.sh(&format!("cat {}/containers/{id}/state.json", host.state().display()));
    let state: Value = serde_json::from_str(&text).expect("JSON");
    let pid = host.ok(&["inspect", "-f", "{{.State.Pid}}", "web"]);
    host.sh(&format!("kill -9 {}; kill -9 {pid}", state["monitor_pid"]));
    eventually("it is taken back", || {
        host.ok(&["ps", "-a"]);
        answers(&host).is_empty().then_some(())
    });
    host.ok(&["rm", "-f", "web"]);
}

#[test]
fn what_is_lost_or_left_over_is_found() {
    let host = Host::new().with_lan();
    create(&host, &[&ROUTED[..], &["--subnet", PART]].concat());
    web(&host, &[]);
    // The kernel forgets entries with the interface; when its addresses are back the monitor says them again.
    host.sh(&format!(
        "ip link set lan0 down; ip -6 neigh del proxy {WEB} dev lan0 2>/dev/null || true; ip link set lan0 up"
    ));
    host.sh(&format!("ip -6 addr replace {HOST_LAN6}/64 dev lan0 nodad; ip -6 route replace default via {NEIGHBOUR6}"));
    eventually("the host answers again", || (answers(&host) == [WEB]).then_some(()));
    // Nobody hears of what is taken away by hand.
    host.sh(&format!("ip -6 neigh del proxy {WEB} dev lan0; sysctl -qw net.ipv6.conf.lan0.proxy_ndp=0"));
    host.sh("ip -6 neigh add proxy 2001:db8:51:0:8000::99 dev lan0; ip -6 neigh add proxy 2001:db8:51::99 dev lan0");
    let told = findings(&host, &[]);
    assert_eq!(
        told,
        [
            (
                "neighbour-missing".to_string(),
                format!("it does not answer for container address {WEB}: the router does not find it")
            ),
            (
                "neighbour-leaked".to_string(),
                "it answers for 2001:db8:51:0:8000::99, which is no container's".to_string()
            ),
        ],
        "an entry outside the network is somebody else's"
    );
    host.ok(&["network", "check", "--repair"]);
    let mut now = answers(&host);
    now.sort();
    assert_eq!(now, ["2001:db8:51:0:8000::2", "2001:db8:51::99"]);
    assert!(resolves(&host, WEB) && reaches(&host, WEB));
    assert_eq!(findings(&host, &[]), []);
    host.sh("ip -6 neigh del proxy 2001:db8:51::99 dev lan0");
}

#[test]
fn what_cannot_be_is_named() {
    let host = Host::new().with_lan();
    for (args, text) in [
        (&["--ipv6", "-o", "ndp_proxy=auto"][..], "option ndp_proxy is for containers that are reached by their own"),
        (&["-o", "gateway_mode_ipv6=routed", "-o", "ndp_proxy=auto"], "which this network does not have"),
        (&[&ROUTED[..], &["--ipv6", "--internal"]].concat(), "for networks that are reached from outside"),
        (
            &["--ipv6", "-o", "gateway_mode_ipv6=routed", "-o", "ndp_proxy=eth9"],
            "interface eth9 was not found on the host",
        ),
        // The host's own address is in it, or its router's.
        (&[&ROUTED[..], &["--subnet", "2001:db8:51::/80"]].concat(), "Pool overlaps"),
        (&[&ROUTED[..], &["--subnet", "2001:db8:51::/64"]].concat(), "Pool overlaps"),
    ] {
        let e = host.refuses(&[&["network", "create"], args, &["net"]].concat());
        assert!(e.contains(text) && e.contains("hint:"), "{args:?}: {e}");
    }
    host.sh("ip -6 route del default");
    let e = host.refuses(&[&["network", "create", "--ipv6"], &ROUTED[..], &["net"]].concat());
    assert!(e.contains("no IPv6 default route by which to find its interface"), "{e}");
    create(&host, &[&ROUTED[..], &["--subnet", PART]].concat());
    let plan = host.ok(&["explain", "run", "--network", "net", "busybox", "true"]);
    for line in ["answer on lan0 for 2001:db8:51:0:8000::2", "ip -6 neigh add proxy 2001:db8:51:0:8000::2 dev lan0"] {
        assert!(plan.contains(line), "{line} not in\n{plan}");
    }
}
