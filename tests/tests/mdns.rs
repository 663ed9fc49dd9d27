//! Multicast DNS between a bridge network and the LAN (`-o mdns`): containers find what is there, and are found.

use rrun_tests::Host;
use rrun_tests::host::{HOST_LAN, NEIGHBOUR, env, eventually};
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

const PROGRAM: &str = "/mdnspeer";

fn program() -> String {
    PathBuf::from(env("RRUN_PEER")).with_file_name("mdnspeer").display().to_string()
}

fn mount() -> String {
    format!("{}:{PROGRAM}:ro", program())
}

/// A printer on the LAN, until dropped.
struct Printer {
    child: Child,
    log: PathBuf,
}

impl Printer {
    fn new(host: &Host, family: &str, address: &str) -> Printer {
        let log = host.outside(host.dir.join("tmp").join(format!("printer-{family}.log")));
        let mut c = Command::new(program());
        c.args(["serve", family, "eth0", "printer", address, "631"]).stdin(Stdio::null());
        c.stdout(std::fs::File::create(&log).expect("its log"));
        host.enter_neighbour(&mut c);
        let printer = Printer { child: c.spawn().expect("the mdnspeer program"), log };
        eventually("the printer is ready", || (!printer.heard().is_empty()).then_some(()));
        printer
    }

    /// "ready", and each question.
    fn heard(&self) -> Vec<String> {
        std::fs::read_to_string(&self.log).unwrap_or_default().lines().map(str::to_string).collect()
    }
}

impl Drop for Printer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A container that announces itself as `name`, with a server on port 80 that is published as 8080.
fn announcer(host: &Host, family: &str, network: &str, name: &str, flags: &[&str]) -> String {
    let kind = if family == "6" { "GlobalIPv6Address" } else { "IPAddress" };
    let mount = mount();
    let args = [&["run", "-d", "--network", network, "--name", name, "-v", &mount], flags].concat();
    let id = host.ok(&[&args[..], &["busybox", "sleep", "1000"]].concat());
    let ip = host.ok(&["inspect", "-f", &format!("{{{{.NetworkSettings.Networks.{network}.{kind}}}}}"), name]);
    host.ok(&["exec", "-d", name, PROGRAM, "serve", family, "eth0", name, &ip, "80"]);
    eventually("it listens", || {
        let sockets = host.ok(&["exec", name, "sh", "-c", "cat /proc/net/udp /proc/net/udp6"]);
        sockets.contains(":14E9 ").then_some(())
    });
    id
}

fn idle(host: &Host, network: &str, name: &str) {
    host.ok(&["run", "-d", "--network", network, "--name", name, "-v", &mount(), "busybox", "sleep", "1000"]);
}

fn ask_inside(host: &Host, container: &str, what: &[&str]) -> String {
    host.rrun(&[&["exec", container, PROGRAM, "ask"], what].concat()).stdout.trim_end().to_string()
}

fn ask_from_lan(host: &Host, what: &str) -> String {
    host.try_neighbour(&format!("{} ask {what}", program())).stdout.trim_end().to_string()
}

/// A monitor begins to reflect a moment after its container has started.
#[track_caller]
fn comes(what: &str, mut answer: impl FnMut() -> String, wanted: &str) {
    let mut last = String::new();
    let deadline = std::time::Instant::now() + rrun_tests::host::patience();
    while std::time::Instant::now() < deadline {
        last = answer();
        if last == wanted {
            return;
        }
    }
    panic!("{what}: {last:?}, not {wanted:?}");
}

#[test]
fn behind_nat_both_sides_find_each_other_and_get_what_they_can_reach() {
    let host = Host::new().with_lan();
    host.ok(&["network", "create", "-o", "mdns=true", "net"]);
    let printer = Printer::new(&host, "4", NEIGHBOUR);
    announcer(&host, "4", "net", "web", &["-p", "8080:80"]);
    let found = format!("printer.local A {NEIGHBOUR}");
    comes("the printer", || ask_inside(&host, "web", &["4", "eth0", "printer.local", "A"]), &found);
    // Whoever wants the answer for itself gets it too: through the group, or at a port of its own.
    assert_eq!(ask_inside(&host, "web", &["4", "eth0", "printer.local", "A", "qu"]), found);
    assert_eq!(ask_inside(&host, "web", &["4", "eth0", "printer.local", "A", "legacy"]), found);
    assert!(printer.heard().iter().all(|q| !q.contains("QU")), "{:?}", printer.heard());
    // The container is where its published port is.
    assert_eq!(ask_from_lan(&host, "4 eth0 web.local A"), format!("web.local A {HOST_LAN}"));
    let service = format!("web._http._tcp.local SRV 8080 web.local, web.local A {HOST_LAN}");
    assert_eq!(ask_from_lan(&host, "4 eth0 web._http._tcp.local SRV"), service);
    assert_eq!(ask_from_lan(&host, "4 eth0 web._http._tcp.local SRV legacy"), service);
    assert_eq!(ask_from_lan(&host, "4 eth0 nobody.local A"), "nothing");
    assert_eq!(host.ok(&["network", "check"]), "");
    host.ok(&["rm", "-f", "web"]);
    host.ok(&["network", "rm", "net"]);
}

#[test]
fn with_a_route_addresses_stay_as_they_are() {
    let host = Host::new().with_lan();
    let options = ["-o", "gateway_mode_ipv4=routed", "-o", "gateway_mode_ipv6=routed", "-o", "mdns=lan0"];
    let subnets = ["--subnet", "10.9.0.0/24", "--subnet", "fd00:9::/64"];
    host.ok(&[&["network", "create"], &options[..], &subnets, &["net"]].concat());
    let _printer = Printer::new(&host, "6", "2001:db8:51::2");
    announcer(&host, "4", "net", "web", &["-p", "8080:80"]);
    announcer(&host, "6", "net", "six", &[]);
    comes("by IPv4", || ask_from_lan(&host, "4 eth0 web.local A"), "web.local A 10.9.0.2");
    let service = "web._http._tcp.local SRV 80 web.local, web.local A 10.9.0.2";
    assert_eq!(ask_from_lan(&host, "4 eth0 web._http._tcp.local SRV"), service);
    comes("by IPv6", || ask_from_lan(&host, "6 eth0 six.local AAAA"), "six.local AAAA fd00:9::3");
    let printer = "printer.local AAAA 2001:db8:51::2";
    assert_eq!(ask_inside(&host, "six", &["6", "eth0", "printer.local", "AAAA"]), printer);
    assert_eq!(ask_inside(&host, "six", &["6", "eth0", "printer.local", "AAAA", "legacy"]), printer);
}

#[test]
fn one_monitor_at_a_time_and_the_next_takes_over() {
    let host = Host::new().with_lan();
    host.ok(&["network", "create", "-o", "mdns=lan0", "net"]);
    let printer = Printer::new(&host, "4", NEIGHBOUR);
    let found = format!("printer.local A {NEIGHBOUR}");
    let ask = |container: &str| ask_inside(&host, container, &["4", "eth0", "printer.local", "A"]);
    for name in ["one", "two", "three", "four"] {
        idle(&host, "net", name);
    }
    comes("the first", || ask("one"), &found);
    let before = printer.heard().len();
    assert_eq!(ask("three"), found);
    assert_eq!(printer.heard().len(), before + 1, "each question once: {:?}", printer.heard());
    // It ends, is killed, leaves the network.
    host.ok(&["rm", "-f", "one"]);
    comes("after its end", || ask("three"), &found);
    let text = host.sh(&format!(
        "cat {}/containers/{}/state.json",
        host.state().display(),
        host.ok(&["inspect", "-f", "{{.Id}}", "two"])
    ));
    let state: Value = serde_json::from_str(&text).expect("JSON");
    host.sh(&format!("kill -9 {0}; while [ -e /proc/{0} ]; do sleep 0.01; done", state["monitor_pid"]));
    comes("after its death", || ask("four"), &found);
    host.ok(&["network", "connect", "bridge", "three"]);
    for name in ["two", "three"] {
        host.ok(&["network", "disconnect", "net", name]);
    }
    comes("after it left", || ask("four"), &found);
    let before = printer.heard().len();
    assert_eq!(ask("four"), found);
    assert_eq!(printer.heard().len(), before + 1);
}

#[test]
fn networks_are_not_joined_by_it() {
    let host = Host::new().with_lan();
    for name in ["a", "b"] {
        host.ok(&["network", "create", "-o", "mdns=lan0", name]);
    }
    host.ok(&["network", "create", "none-of-it"]);
    announcer(&host, "4", "b", "web", &["-p", "8080:80"]);
    idle(&host, "a", "asker");
    idle(&host, "none-of-it", "deaf");
    let _printer = Printer::new(&host, "4", NEIGHBOUR);
    let found = format!("printer.local A {NEIGHBOUR}");
    comes("the LAN", || ask_inside(&host, "asker", &["4", "eth0", "printer.local", "A"]), &found);
    comes("from the LAN", || ask_from_lan(&host, "4 eth0 web.local A"), &format!("web.local A {HOST_LAN}"));
    assert_eq!(ask_inside(&host, "asker", &["4", "eth0", "web.local", "A"]), "nothing", "the other network");
    assert_eq!(ask_inside(&host, "deaf", &["4", "eth0", "printer.local", "A"]), "nothing", "without the option");
}

#[test]
fn the_lan_may_come_later() {
    let host = Host::new().with_lan();
    host.sh("ip route del default; ip -6 route del default");
    host.ok(&["network", "create", "-o", "mdns=auto", "net"]);
    idle(&host, "net", "web");
    let _printer = Printer::new(&host, "4", NEIGHBOUR);
    assert_eq!(ask_inside(&host, "web", &["4", "eth0", "printer.local", "A"]), "nothing");
    host.sh(&format!("ip route add default via {NEIGHBOUR}"));
    // A new monitor looks at once; one that runs does within half a minute.
    host.ok(&["restart", "-t", "0", "web"]);
    let found = format!("printer.local A {NEIGHBOUR}");
    comes("with a way out", || ask_inside(&host, "web", &["4", "eth0", "printer.local", "A"]), &found);
}

#[test]
fn what_cannot_be_is_named() {
    let host = Host::new().with_lan();
    for (args, text) in [
        (&["--internal", "-o", "mdns=true"][..], "option mdns is for networks that are reached from outside"),
        (&["-o", "mdns=eth9"], "interface eth9 was not found on the host"),
        (&["-o", "mode=unmanaged", "-o", "mdns=true", "-o", "com.docker.network.bridge.name=x"], "unmanaged bridge"),
    ] {
        let e = host.refuses(&[&["network", "create"], args, &["x"]].concat());
        assert!(e.contains(text) && e.contains("hint:"), "{args:?}: {e}");
    }
    host.ok(&["network", "create", "-o", "mdns=false", "quiet"]);
    host.ok(&["network", "create", "-o", "mdns=true", "net"]);
    let plan = |network: &str| host.ok(&["explain", "run", "--network", network, "busybox", "true"]);
    let line = "carry multicast DNS between network net and the interface of the default route";
    assert!(plan("net").contains(line) && !plan("quiet").contains("multicast DNS"), "{}", plan("net"));
}
