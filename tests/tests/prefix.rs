//! Networks that follow the IPv6 prefix of the host's interface (`-o ipv6_prefix_from`), as providers change it.

use rrun_tests::Host;
use rrun_tests::host::{HOST_LAN6, NEIGHBOUR6, eventually};
use rrun_tests::lan::endpoint;
use rrun_tests::peer::{Held, call, mount, serve_as};
use serde_json::Value;

const OLD: &str = "2001:db8:51:0:1::2";
const NEW: &str = "2001:db8:52:0:1::2";
const FOLLOWS: [&str; 5] = ["--ipv6", "-o", "gateway_mode_ipv6=routed", "-o", "ipv6_prefix_from=auto"];

fn create(host: &Host, options: &[&str]) {
    host.ok(&[&["network", "create", "--subnet", "10.9.0.0/24"], &FOLLOWS[..], options, &["net"]].concat());
}

/// The provider gives another prefix; the old one goes on for some minutes.
fn renumber(host: &Host) {
    host.sh("ip -6 addr add 2001:db8:52::1/64 dev lan0 nodad");
    host.sh(&format!("ip -6 addr change {HOST_LAN6}/64 dev lan0 valid_lft 600 preferred_lft 0"));
    host.neighbour("ip -6 addr add 2001:db8:52::2/64 dev eth0 nodad");
}

fn address(host: &Host, container: &str) -> String {
    endpoint(host, container, "net", "GlobalIPv6Address")
}

#[track_caller]
fn arrives(host: &Host, container: &str, at: &str) {
    eventually("the container has followed", || (address(host, container) == at).then_some(()));
}

/// The global IPv6 addresses of a container's interface, each with its preferred time.
fn inside(host: &Host, container: &str) -> Vec<(String, u64)> {
    let pid = host.ok(&["inspect", "-f", "{{.State.Pid}}", container]);
    let text = host.sh(&format!("nsenter -t {pid} -n ip -j -6 addr show dev eth0 scope global"));
    let doc: Value = serde_json::from_str(&text).expect("JSON");
    let of = |a: &Value| Some((a["local"].as_str()?.to_string(), a["preferred_life_time"].as_u64()?));
    let mut all: Vec<_> = doc[0]["addr_info"].as_array().into_iter().flatten().filter_map(of).collect();
    all.sort();
    all
}

fn answers(host: &Host) -> Vec<String> {
    let list = host.ip("-6 neigh show proxy dev lan0");
    let of = |v: &Value| v["dst"].as_str().unwrap_or_default().to_string();
    let mut all: Vec<_> = list.as_array().into_iter().flatten().map(of).collect();
    all.sort();
    all
}

fn codes(host: &Host) -> Vec<String> {
    let ran = host.rrun(&["network", "check", "--format", "json"]);
    let doc: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    doc.as_array().into_iter().flatten().filter_map(|f| f["Code"].as_str().map(str::to_string)).collect()
}

#[test]
fn running_containers_follow_and_their_connections_live() {
    let host = Host::new().with_lan();
    create(&host, &["-o", "ndp_proxy=lan0"]);
    let flags = ["--network", "net", "--name", "web", "--add-host", "host:host-gateway", "-p", "8080:80"];
    serve_as(&host, "echo", &flags, "::", 80, "welcome");
    host.ok(&["run", "-d", "--network", "net", "--name", "idle", "-v", &mount(), "busybox", "sleep", "1000"]);
    assert_eq!((address(&host, "web").as_str(), address(&host, "idle").as_str()), (OLD, "2001:db8:51:0:1::3"));
    // What it answers from its address on this network leaves by this network.
    host.ok(&["network", "create", "--ipv6", "second"]);
    host.ok(&["network", "connect", "--gw-priority", "9", "second", "idle"]);
    let mut call = Held::by_neighbour(&host, OLD, 80);
    assert_eq!(call.hears(), "welcome");

    renumber(&host);
    arrives(&host, "web", NEW);
    arrives(&host, "idle", "2001:db8:52:0:1::3");
    let forever = u64::from(u32::MAX);
    eventually("the old address is deprecated", || {
        (inside(&host, "web") == [(OLD.to_string(), 0), (NEW.to_string(), forever)]).then_some(())
    });
    assert!(call.echoes("still there"), "a connection to the old address");
    let mut fresh = Held::by_neighbour(&host, NEW, 80);
    assert_eq!(fresh.hears(), "welcome", "and one to the new");
    let routes = host.ok(&["exec", "web", "ip", "-6", "route"]);
    assert!(routes.contains("default via 2001:db8:52:0:1::1 dev eth0"), "{routes}");
    let pid = host.ok(&["inspect", "-f", "{{.State.Pid}}", "idle"]);
    let rules = host.sh(&format!("nsenter -t {pid} -n ip -6 rule; nsenter -t {pid} -n ip -6 route show table all"));
    let table = rules.lines().find(|l| l.contains("from 2001:db8:52:0:1::3 ")).and_then(|l| l.rsplit(' ').next());
    let way = format!("default via 2001:db8:52:0:1::1 dev eth0 table {}", table.expect("a rule for its answers"));
    assert!(rules.contains(&way) && rules.contains("from 2001:db8:51:0:1::3 "), "{rules}");
    let hosts = host.ok(&["exec", "web", "cat", "/etc/hosts"]);
    assert!(hosts.contains(NEW) && !hosts.contains(OLD), "{hosts}");
    let found = host.ok(&["exec", "idle", "nslookup", "web"]);
    assert!(found.contains(NEW) && !found.contains(OLD), "{found}");
    let open = serde_json::to_string(&host.nft_elements("open6")).expect("JSON");
    assert!(open.contains(NEW) && !open.contains(OLD), "{open}");
    let network = host.ok(&["network", "inspect", "-f", "{{json .IPAM.Config}}", "net"]);
    assert!(network.contains("2001:db8:52:0:1::/80") && !network.contains("2001:db8:51:"), "{network}");
    assert_eq!(codes(&host), Vec::<String>::new());

    host.ok(&["restart", "-t", "0", "web"]);
    assert_eq!(address(&host, "web"), NEW);
    assert_eq!(answers(&host).iter().filter(|ip| ip.ends_with(":1::2")).collect::<Vec<_>>(), [NEW]);
    host.ok(&["rm", "-f", "web", "idle"]);
    assert!(answers(&host).is_empty(), "old and new");
    host.ok(&["run", "--rm", "--network", "net", "busybox", "true"]);
}

#[test]
fn the_next_start_or_repair_follows_where_nothing_runs() {
    let host = Host::new().with_lan();
    create(&host, &["--subnet", "::8000:0:0:0/80"]);
    let keeps = ["--name", "web", "--network", "net", "--ip6", "2001:db8:51:0:8000::77"];
    host.ok(&[&["run", "-d"], &keeps[..], &["busybox", "sleep", "1000"]].concat());
    host.ok(&["stop", "-t", "0", "web"]);
    renumber(&host);
    assert_eq!(codes(&host), ["prefix-changed"]);
    host.ok(&["start", "web"]);
    assert_eq!(address(&host, "web"), "2001:db8:52:0:8000::77", "an address that was asked for keeps its place");
    assert_eq!(codes(&host), Vec::<String>::new());
    host.ok(&["rm", "-f", "web"]);
    // And back, by hand.
    host.sh(&format!("ip -6 addr change {HOST_LAN6}/64 dev lan0 valid_lft forever preferred_lft forever"));
    host.sh("ip -6 addr del 2001:db8:52::1/64 dev lan0");
    assert_eq!(codes(&host), ["prefix-changed"]);
    host.ok(&["network", "check", "--repair"]);
    assert_eq!(codes(&host), Vec::<String>::new());
    let network = host.ok(&["network", "inspect", "-f", "{{json .IPAM.Config}}", "net"]);
    assert!(network.contains("2001:db8:51:0:8000::/80"), "{network}");
}

#[test]
fn a_prefix_that_is_gone_for_a_while_changes_nothing() {
    let host = Host::new().with_lan();
    create(&host, &["-o", "ndp_proxy=lan0"]);
    serve_as(&host, "tcp", &["--network", "net", "--name", "web", "-p", "8080:80"], "::", 80, "web");
    assert_eq!(answers(&host), [OLD]);
    // The kernel forgets addresses and what it answered for; when the addresses return, the monitor says it again.
    host.sh("ip link set lan0 down; ip -6 neigh del proxy 2001:db8:51:0:1::2 dev lan0 2>/dev/null || true");
    assert_eq!(address(&host, "web"), OLD);
    host.sh(&format!("ip link set lan0 up; ip -6 addr replace {HOST_LAN6}/64 dev lan0 nodad"));
    eventually("the host answers again", || (answers(&host) == [OLD]).then_some(()));
    assert_eq!(address(&host, "web"), OLD);
    assert_eq!(host.neighbour(&call(OLD, 80)), format!("web {NEIGHBOUR6}"));
}

#[test]
fn a_monitor_that_takes_over_catches_up() {
    let host = Host::new().with_lan();
    create(&host, &["-o", "ndp_proxy=lan0"]);
    let id = serve_as(&host, "tcp", &["--network", "net", "--name", "web", "-p", "8080:80"], "::", 80, "web");
    let text = host.sh(&format!("cat {}/containers/{id}/state.json", host.state().display()));
    let state: Value = serde_json::from_str(&text).expect("JSON");
    host.sh(&format!("kill -9 {0}; while [ -e /proc/{0} ]; do sleep 0.01; done", state["monitor_pid"]));
    renumber(&host);
    host.ok(&["ps"]);
    arrives(&host, "web", NEW);
    eventually("the new address is reached", || (host.try_neighbour(&call(NEW, 80)).code == 0).then_some(()));
    assert_eq!(answers(&host), [OLD, NEW]);
    let undo = host.sh(&format!("cat {}/containers/{id}/undo.json", host.state().display()));
    assert!(undo.contains(&format!("leases/{NEW}")) && !undo.contains(&format!("leases/{OLD}")), "{undo}");
}

#[test]
fn what_cannot_be_followed_is_named() {
    let host = Host::new().with_lan();
    host.sh("ip link add p0 type veth peer name p1; ip link set p0 up");
    for (args, text) in [
        (&["--subnet", "2001:db8:77:0:1::/80"][..], "is no part of 2001:db8:51::/64"),
        (&["--subnet", "2001:db8:51::/64"], "is not smaller than 2001:db8:51::/64"),
        (&["--internal"], "for networks that are reached from outside"),
        (&["-o", "ipv6_prefix_from=p0"], "interface p0 has no IPv6 prefix now"),
    ] {
        let e = host.refuses(&[&["network", "create"], &FOLLOWS[..], args, &["x"]].concat());
        assert!(e.contains(text) && e.contains("hint:"), "{args:?}: {e}");
    }
    host.sh("ip link del p0");
    // Another network has the place: this one stays where it is, and its containers go on.
    create(&host, &[]);
    host.ok(&["run", "-d", "--network", "net", "--name", "web", "busybox", "sleep", "1000"]);
    host.ok(&["network", "create", "--subnet", "2001:db8:52:0:1::/80", "other"]);
    renumber(&host);
    assert_eq!(codes(&host), ["prefix-changed"]);
    assert_eq!(address(&host, "web"), OLD);
}
