//! `--ipam-driver dhcp`: addresses from a real server, dnsmasq, on the LAN of a bridge.

use rrun_tests::Host;
use rrun_tests::host::{eventually, patience};
use rrun_tests::kernel::lacks;
use rrun_tests::peer::{call, serve};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// dnsmasq on the neighbour's end of a cable into bridge `lanbr`, until dropped; what it logs.
struct Server {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Leases of two minutes, the shortest it knows, that are renewed after `t1` seconds.
    fn start(host: &Host, range: &str, t1: u32) -> Server {
        let mut c = Command::new("dnsmasq");
        c.args(["-k", "--conf-file=/dev/null", "--port=0", "--interface=dh0", "--bind-interfaces", "--user=root"]);
        c.args(["--leasefile-ro", "--no-ping", "--dhcp-authoritative", "--log-dhcp", "--log-facility=-"]);
        c.args(["--dhcp-option=option:router,10.44.0.1", &format!("--dhcp-range={range},255.255.255.0,2m")]);
        c.args([&format!("--dhcp-option=58,{t1}"), &format!("--dhcp-option=59,{}", t1 * 2)]);
        c.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        host.enter_neighbour(&mut c);
        let mut child = c.spawn().expect("dnsmasq (Debian: dnsmasq-base)");
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let kept = log.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                kept.lock().expect("nobody panicked").push(line);
            }
        });
        let server = Server { child, log };
        server.says(&["DHCP, IP range"], 1);
        server
    }

    /// How many lines have all these words.
    fn count(&self, words: &[&str]) -> usize {
        let log = self.log.lock().expect("nobody panicked");
        log.iter().filter(|l| words.iter().all(|w| l.contains(w))).count()
    }

    #[track_caller]
    fn says(&self, words: &[&str], times: usize) {
        let deadline = Instant::now() + patience() * 2;
        while self.count(words) < times {
            let log = self.log.lock().expect("nobody panicked").join("\n");
            assert!(Instant::now() < deadline, "dnsmasq does not log {words:?} {times} times:\n{log}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A host whose bridge `lanbr` has a cable to the neighbour, and network `lan` on it.
fn host_on_a_lan() -> Host {
    let host = Host::new().with_lan();
    host.neighbour(&format!(
        "ip link add dh0 type veth peer name up0 netns {}; ip addr add 10.44.0.1/24 dev dh0; ip link set dh0 up",
        host.holder_pid()
    ));
    host.sh("ip link add lanbr type bridge; ip link set up0 master lanbr; ip link set up0 up; ip link set lanbr up");
    let name = "com.docker.network.bridge.name=lanbr";
    host.ok(&["network", "create", "--ipam-driver", "dhcp", "--ipam-opt", "timeout=8", "-o", name, "lan"]);
    host
}

fn unplug(host: &Host) {
    host.sh("ip link del up0; ip link del lanbr");
}

fn address(host: &Host, container: &str) -> String {
    host.ok(&["exec", container, "sh", "-c", "ip -o -4 addr show eth0 | xargs | cut -d' ' -f4"])
}

fn default_route(host: &Host, container: &str) -> String {
    host.ok(&["exec", container, "sh", "-c", "ip route | grep ^default | xargs"])
}

#[test]
fn a_server_gives_the_address_and_gets_it_back() {
    let host = host_on_a_lan();
    let server = Server::start(&host, "10.44.0.50,10.44.0.99", 60);
    serve(&host, &["--network", "lan", "--name", "web"], 80, "web");
    let field = |f: &str| host.ok(&["inspect", "-f", &format!("{{{{.NetworkSettings.Networks.lan.{f}}}}}"), "web"]);
    let ip = field("IPAddress");
    assert!(ip.starts_with("10.44.0."), "{ip}");
    assert_eq!(address(&host, "web"), format!("{ip}/24"));
    assert_eq!((field("Gateway"), field("IPPrefixLen")), ("10.44.0.1".to_string(), "24".to_string()));
    let mac = field("MacAddress");
    server.says(&["DHCPACK", &ip, &mac, "web"], 1);
    assert_eq!(default_route(&host, "web"), "default via 10.44.0.1 dev eth0");
    assert!(host.ok(&["exec", "web", "cat", "/etc/hosts"]).contains(&format!("{ip}\t")));
    assert_eq!(host.neighbour(&call(&ip, 80)), "web 10.44.0.1");
    let inspected =
        host.ok(&["network", "inspect", "-f", "{{.IPAM.Driver}} {{json .IPAM.Options}} {{json .Containers}}", "lan"]);
    assert!(
        inspected.starts_with("dhcp {\"timeout\":\"8\"} ") && inspected.contains(&format!("{ip}/24")),
        "{inspected}"
    );
    // Given back, and asked for again: the same container, the same address.
    host.ok(&["stop", "-t", "0", "web"]);
    server.says(&["DHCPRELEASE", &ip, &mac], 1);
    host.ok(&["start", "web"]);
    assert_eq!(field("IPAddress"), ip);
    server.says(&["DHCPDISCOVER", &ip, &mac], 1);
    // A program that ends at once, too.
    let out = host.ok(&["run", "--rm", "--network", "lan", "-h", "shorty", "busybox", "ip", "addr", "show", "eth0"]);
    assert!(out.contains("inet 10.44.0."), "{out}");
    server.says(&["DHCPACK", "shorty"], 1);
    eventually("the second address is given back", || (server.count(&["DHCPRELEASE"]) >= 2).then_some(()));
    // An address of one's own choice is the server's to give.
    let ask =
        |ip: &str| host.rrun(&["run", "--rm", "--network", "lan", "--ip", ip, "busybox", "ip", "addr", "show", "eth0"]);
    assert!(ask("10.44.0.77").expect(0).stdout.contains("inet 10.44.0.77/24"));
    let refused = ask("10.44.0.200").expect(125);
    assert!(
        refused.stderr.contains("Address already in use") && refused.stderr.contains("10.44.0.1 gives"),
        "{}",
        refused.stderr
    );
    host.ok(&["rm", "-f", "web"]);
    server.says(&["DHCPRELEASE", &ip, &mac], 2);
    unplug(&host);
}

#[test]
fn joined_later_beside_another_network() {
    let host = host_on_a_lan();
    let server = Server::start(&host, "10.44.0.50,10.44.0.99", 60);
    host.ok(&["network", "create", "--subnet", "10.9.0.0/24", "n"]);
    host.ok(&["run", "-d", "--network", "n", "--name", "both", "busybox", "sleep", "1000"]);
    host.ok(&["network", "connect", "--gw-priority", "1", "lan", "both"]);
    let routes = || default_route(&host, "both");
    assert_eq!(routes(), "default via 10.44.0.1 dev eth1");
    let ip = host.ok(&["inspect", "-f", "{{.NetworkSettings.Networks.lan.IPAddress}}", "both"]);
    assert!(host.ok(&["exec", "both", "cat", "/etc/hosts"]).contains(&format!("{ip}\t")));
    host.ok(&["network", "disconnect", "lan", "both"]);
    server.says(&["DHCPRELEASE", &ip], 1);
    assert_eq!(routes(), "default via 10.9.0.1 dev eth0");
    let ran = host.rrun(&["run", "--rm", "--network", "lan", "-p", "8080:80", "busybox", "true"]).expect(0);
    assert!(ran.stderr.contains("Published ports are discarded"), "{}", ran.stderr);
    host.ok(&["rm", "-f", "both"]);
    unplug(&host);
}

#[test]
fn leases_are_renewed_and_a_changed_mind_is_followed() {
    let host = host_on_a_lan();
    let server = Server::start(&host, "10.44.0.50,10.44.0.99", 2);
    host.ok(&["run", "-d", "--network", "lan", "--name", "web", "busybox", "sleep", "1000"]);
    let ip = host.ok(&["inspect", "-f", "{{.NetworkSettings.Networks.lan.IPAddress}}", "web"]);
    server.says(&["DHCPACK", &ip], 3);
    assert_eq!(server.count(&["DHCPDISCOVER"]), 1, "renewed, not begun anew");
    // The monitor is killed; the one that takes over goes on renewing.
    let id = host.ok(&["inspect", "-f", "{{.Id}}", "web"]);
    let state = std::fs::read_to_string(host.outside(host.state().join("containers").join(&id).join("state.json")));
    let state: serde_json::Value = serde_json::from_str(&state.expect("state.json")).expect("JSON");
    // A process takes a moment to die, and no command takes over from one that has not.
    host.sh(&format!("kill -9 {0}; while [ -e /proc/{0} ]; do sleep 0.01; done", state["monitor_pid"]));
    host.ok(&["ps"]);
    let before = server.count(&["DHCPACK", &ip]);
    server.says(&["DHCPACK", &ip], before + 2);
    assert_eq!(server.count(&["DHCPDISCOVER"]), 1);
    // Another range: the server denies what it gave, and the container moves.
    drop(server);
    let server = Server::start(&host, "10.44.0.150,10.44.0.199", 60);
    eventually("another address", || (address(&host, "web").starts_with("10.44.0.1")).then_some(()));
    server.says(&["DHCPNAK"], 1);
    let moved = host.ok(&["inspect", "-f", "{{.NetworkSettings.Networks.lan.IPAddress}}", "web"]);
    assert_eq!(address(&host, "web"), format!("{moved}/24"));
    eventually("hosts follows", || host.ok(&["exec", "web", "cat", "/etc/hosts"]).contains(&moved).then_some(()));
    assert_eq!(default_route(&host, "web"), "default via 10.44.0.1 dev eth0");
    host.ok(&["rm", "-f", "web"]);
    server.says(&["DHCPRELEASE", &moved], 1);
    unplug(&host);
}

/// Beside a default route of another network, answers from a leased address have a way of their own.
#[test]
fn the_way_of_answers_moves_with_the_lease() {
    let host = host_on_a_lan();
    let server = Server::start(&host, "10.44.0.50,10.44.0.99", 2);
    host.ok(&["network", "create", "--subnet", "10.9.0.0/24", "n"]);
    let networks = ["--network", "name=n,gw-priority=1", "--network", "lan"];
    host.ok(&[&["run", "-d", "--name", "both"], &networks[..], &["busybox", "sleep", "1000"]].concat());
    let leased = || host.ok(&["inspect", "-f", "{{.NetworkSettings.Networks.lan.IPAddress}}", "both"]);
    let way = |ip: &str| host.rrun(&["exec", "both", "ip", "route", "get", "192.0.2.1", "from", ip]).stdout;
    let first = leased();
    assert!(way(&first).contains("via 10.44.0.1 dev eth1"), "{}", way(&first));
    drop(server);
    let _server = Server::start(&host, "10.44.0.150,10.44.0.199", 60);
    let moved = eventually("another address", || Some(leased()).filter(|ip| ip.starts_with("10.44.0.1")));
    eventually("its way", || way(&moved).contains("via 10.44.0.1 dev eth1").then_some(()));
    let rules = host.ok(&["exec", "both", "ip", "rule"]);
    assert!(rules.contains(&moved) && !rules.contains(&first), "{rules}");
    host.ok(&["rm", "-f", "both"]);
    unplug(&host);
}

#[test]
fn macvlan_containers_are_the_servers_clients_too() {
    if lacks(&["macvlan"]) {
        return;
    }
    let host = Host::new().with_lan();
    host.neighbour(&format!(
        "ip link add dh0 type veth peer name up0 netns {}; ip addr add 10.44.0.1/24 dev dh0; ip link set dh0 up",
        host.holder_pid()
    ));
    host.sh("ip link set up0 up");
    host.ok(&["network", "create", "-d", "macvlan", "-o", "parent=up0", "--ipam-driver", "dhcp", "lan"]);
    let server = Server::start(&host, "10.44.0.50,10.44.0.99", 2);
    serve(&host, &["--network", "lan", "--name", "own"], 80, "own");
    let ip = host.ok(&["inspect", "-f", "{{.NetworkSettings.Networks.lan.IPAddress}}", "own"]);
    assert_eq!(address(&host, "own"), format!("{ip}/24"));
    assert_eq!(default_route(&host, "own"), "default via 10.44.0.1 dev eth0");
    assert_eq!(host.neighbour(&call(&ip, 80)), "own 10.44.0.1");
    server.says(&["DHCPACK", &ip], 2);
    assert_eq!(server.count(&["DHCPDISCOVER"]), 1, "renewed");
    host.ok(&["rm", "-f", "own"]);
    server.says(&["DHCPRELEASE", &ip], 1);
    host.ok(&["network", "rm", "lan"]);
    host.sh("ip link del up0");
}

#[test]
fn without_a_server_the_start_fails_and_leaves_nothing() {
    let host = Host::new();
    host.ok(&["network", "create", "--ipam-driver", "dhcp", "--ipam-opt", "timeout=1", "lonely"]);
    let e = host.fails(125, &["run", "--rm", "--network", "lonely", "busybox", "true"]);
    assert!(e.contains("no DHCP server on network lonely answered within 1 s") && e.contains("hint:"), "{e}");
    assert_eq!(host.ok(&["ps", "-aq"]), "");
    host.ok(&["run", "-d", "--name", "cc", "busybox", "sleep", "1000"]);
    let e = host.refuses(&["network", "connect", "lonely", "cc"]);
    assert!(e.contains("no DHCP server on network lonely answered"), "{e}");
    assert_ne!(host.rrun(&["exec", "cc", "ip", "link", "show", "eth1"]).code, 0, "no half-made interface");
    host.ok(&["network", "rm", "lonely"]);
    for (flags, text) in [
        (&["--subnet", "10.1.0.0/24"][..], "dhcp ipam driver does not handle specific address pool requests"),
        (&["--ipv6"], "address manager dhcp gives IPv4 addresses only"),
        (&["--ipam-opt", "timeout=soon"], "invalid value for timeout"),
        (&["--ipam-opt", "colour=red"], "unknown option \"colour\" of address manager dhcp"),
    ] {
        let e = host.refuses(&[&["network", "create", "--ipam-driver", "dhcp"], flags, &["x"]].concat());
        assert!(e.contains(text), "{e}");
    }
}
