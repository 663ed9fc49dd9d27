//! `--egress`: where a container may connect to. `--net-rate`: how fast.

use rrun_tests::Host;
use rrun_tests::dns::{self, Upstream, ask};
use rrun_tests::host::{HOST_LAN, HOST_LAN6, NEIGHBOUR, NEIGHBOUR6, eventually};
use rrun_tests::kernel::lacks;
use rrun_tests::peer::{Server, call, call_inside, mount, serve};
use serde_json::Value;

/// Starts a container that sleeps, with both peer programs mounted.
fn sleeper(host: &Host, name: &str, flags: &[&str]) {
    let (peer, dns) = (mount(), dns::mount());
    let mut args = vec!["run", "-d", "--name", name, "-v", &peer, "-v", &dns];
    args.extend(flags);
    args.extend(["busybox", "sleep", "1000"]);
    host.ok(&args);
}

/// What a container hears from ADDR:PORT: the server's text, or why not.
fn calls(host: &Host, container: &str, addr: &str, port: u16) -> String {
    let line = call_inside(addr, port);
    let words: Vec<&str> = ["exec", container].into_iter().chain(line.split(' ')).collect();
    let ran = host.rrun(&words);
    ran.stdout.split_whitespace().next().unwrap_or_default().to_string()
}

/// The chain and sets in the container's own namespace, from nft itself.
fn table(host: &Host, container: &str) -> Vec<Value> {
    let pid = host.ok(&["inspect", "-f", "{{.State.Pid}}", container]);
    let text = host.sh(&format!("nsenter -t {pid} -n nft -j list table inet rrun-egress"));
    let doc: Value = serde_json::from_str(&text).expect("nft prints JSON");
    doc["nftables"].as_array().expect("a list").clone()
}

fn elements(host: &Host, container: &str, set: &str) -> Vec<Value> {
    let items = table(host, container);
    let found = items.iter().find(|i| i["set"]["name"] == set).unwrap_or_else(|| panic!("no set {set}: {items:?}"));
    found["set"]["elem"].as_array().cloned().unwrap_or_default()
}

const NO: &str = "No";

#[test]
fn only_what_is_allowed_in_both_families() {
    let host = Host::new().with_lan();
    host.ok(&["network", "create", "--ipv6", "--subnet", "10.9.0.0/24", "--subnet", "fd09::/64", "n"]);
    let _web = Server::on_neighbour(&host, "tcp", NEIGHBOUR, 80, "web");
    let _db = Server::on_neighbour(&host, "tcp", NEIGHBOUR, 5432, "db");
    let _web6 = Server::on_neighbour(&host, "tcp", NEIGHBOUR6, 80, "web6");
    let _db6 = Server::on_neighbour(&host, "tcp", NEIGHBOUR6, 5432, "db6");
    let _own = Server::on_host(&host, "tcp", HOST_LAN, 9000, "host");
    let _own6 = Server::on_host(&host, "tcp", HOST_LAN6, 9000, "host6");
    serve(&host, &["--name", "peer", "--network", "n", "--ip", "10.9.0.50", "--ip6", "fd09::50"], 80, "peer");
    sleeper(&host, "free", &["--network", "n"]);
    let rules = "deny,allow=198.51.100.0/24:80/tcp,allow=[2001:db8:51::/64]:80-81/tcp,deny=198.51.100.7";
    sleeper(&host, "held", &["--network", "n", "--egress", rules]);

    // Without a policy everything is open: what is refused below is refused by the policy.
    for (addr, port, text) in [
        (NEIGHBOUR, 80, "web"),
        (NEIGHBOUR, 5432, "db"),
        (NEIGHBOUR6, 80, "web6"),
        (NEIGHBOUR6, 5432, "db6"),
        (HOST_LAN, 9000, "host"),
        (HOST_LAN6, 9000, "host6"),
        ("10.9.0.50", 80, "peer"),
    ] {
        assert_eq!(calls(&host, "free", addr, port), text, "{addr}:{port}");
    }
    for (addr, port, text) in [(NEIGHBOUR, 80, "web"), (NEIGHBOUR6, 80, "web6")] {
        assert_eq!(calls(&host, "held", addr, port), text, "{addr}:{port}");
    }
    // Refused at once, not after a time-out; the host, and neighbours on the same bridge, too.
    for (addr, port) in [
        (NEIGHBOUR, 5432),
        (NEIGHBOUR6, 5432),
        (HOST_LAN, 9000),
        (HOST_LAN6, 9000),
        ("10.9.0.50", 80),
        ("198.51.100.7", 80),
        ("10.9.0.1", 80),
    ] {
        let said = calls(&host, "held", addr, port);
        assert!(said != "timeout" && [NO, "Permission", "refused"].contains(&said.as_str()), "{addr}:{port}: {said}");
    }
    // The rules are there to be read, with their reasons, and count what they refuse.
    let items = table(&host, "held");
    let rules: Vec<&Value> = items.iter().filter_map(|i| i.get("rule")).collect();
    assert!(rules.iter().any(|r| r["comment"] == "--egress does not allow it"), "{rules:?}");
    let refused: u64 = rules
        .iter()
        .filter_map(|r| r["expr"].as_array())
        .flatten()
        .filter_map(|e| e["counter"]["packets"].as_u64())
        .sum();
    assert!(refused >= 7, "{refused} packets refused");
    // Names of containers are answered, and it can be reached itself.
    assert!(ask(&host, "held", "peer", "A", &[]).starts_with("NOERROR 10.9.0.50/"));
    let inspected = host.ok(&["inspect", "-f", "{{json .HostConfig.Egress}} {{json .HostConfig.CapDrop}}", "held"]);
    assert!(inspected.starts_with("[\"deny,allow=198.51.100.0/24:80/tcp") && inspected.ends_with("[\"NET_RAW\"]"));
}

#[test]
fn what_is_published_still_answers() {
    let host = Host::new().with_lan();
    serve(&host, &["--name", "web", "-p", "8080:80", "--egress", "deny"], 80, "web");
    assert!(host.neighbour(&call(HOST_LAN, 8080)).starts_with("web 198.51.100.2"));
    assert!(host.sh(&call("127.0.0.1", 8080)).starts_with("web "));
    assert!(host.sh(&call("::1", 8080)).starts_with("web "));
}

#[test]
fn a_name_opens_the_way_to_what_it_stands_for() {
    let host = Host::new().with_lan();
    host.ok(&["network", "create", "--ipv6", "--subnet", "10.9.0.0/24", "--subnet", "fd09::/64", "n"]);
    host.neighbour("ip addr add 198.51.100.9/24 dev eth0");
    let records =
        ["web.test=198.51.100.2,2001:db8:51::2/300", "a.sub.test=198.51.100.9/7", "other.test=198.51.100.9/300"];
    let upstream = Upstream::on_neighbour(&host, NEIGHBOUR, &records);
    host.sh(&format!("echo nameserver {NEIGHBOUR} > /etc/resolv.conf"));
    let _web = Server::on_neighbour(&host, "tcp", "::", 80, "web");
    serve(&host, &["--name", "db", "--network", "n", "--ip", "10.9.0.50"], 5432, "db");
    let rules = ["--egress", "deny,allow=web.test:80", "--egress", "allow=*.sub.test:80/tcp,allow=db:5432"];
    sleeper(&host, "held", &[&["--network", "n"], &rules[..]].concat());

    let said = calls(&host, "held", NEIGHBOUR, 80);
    assert_eq!(said, NO, "nobody has asked yet");
    assert_eq!(ask(&host, "held", "Web.Test", "A", &[]), "NOERROR 198.51.100.2/300");
    assert_eq!(calls(&host, "held", NEIGHBOUR, 80), "web");
    assert_ne!(calls(&host, "held", NEIGHBOUR6, 80), "web");
    assert_eq!(ask(&host, "held", "web.test", "AAAA", &[]), "NOERROR 2001:db8:51::2/300");
    assert_eq!(calls(&host, "held", NEIGHBOUR6, 80), "web");
    assert_ne!(calls(&host, "held", NEIGHBOUR, 5432), "refused", "another port is not even tried");
    // By TCP as well, below a name, and from the cache of a container's names.
    assert_eq!(calls(&host, "held", "198.51.100.9", 80), NO);
    assert_eq!(ask(&host, "held", "a.sub.test", "A", &["tcp"]), "NOERROR 198.51.100.9/7");
    assert_eq!(calls(&host, "held", "198.51.100.9", 80), "web");
    assert_eq!(calls(&host, "held", "10.9.0.50", 5432), NO);
    assert!(ask(&host, "held", "db.n", "A", &[]).starts_with("NOERROR 10.9.0.50"));
    assert_eq!(calls(&host, "held", "10.9.0.50", 5432), NO, "db.n is not the name that was allowed");
    assert!(ask(&host, "held", "db", "A", &[]).starts_with("NOERROR 10.9.0.50"));
    assert_eq!(calls(&host, "held", "10.9.0.50", 5432), "db");
    // It leaves again: the element has a time, the answer's own but never less than a minute.
    let timeouts = |set: &str| -> Vec<u64> {
        elements(&host, "held", set).iter().filter_map(|e| e["elem"]["timeout"].as_u64()).collect()
    };
    assert_eq!(timeouts("names4_1"), [450], "300 s and a half");
    assert_eq!(timeouts("names4_2"), [90], "7 s would be too short to connect in");
    // With names only, DNS itself is no way out: nothing else is asked for.
    assert_eq!(ask(&host, "held", "other.test", "A", &[]), "REFUSED");
    assert_eq!(ask(&host, "held", "secret.evil.test", "TXT", &["tcp"]), "REFUSED");
    assert!(!upstream.asked().iter().any(|q| q.contains("evil") || q.contains("other")), "{:?}", upstream.asked());
}

#[test]
fn names_need_no_user_network_and_servers_of_the_container_are_reached() {
    let host = Host::new().with_lan();
    let upstream = Upstream::on_neighbour(&host, NEIGHBOUR, &["web.test=198.51.100.2/300"]);
    let _web = Server::on_neighbour(&host, "tcp", NEIGHBOUR, 80, "web");
    sleeper(&host, "held", &["--dns", NEIGHBOUR, "--egress", "deny,allow=web.test:80,allow=192.0.2.0/24"]);
    assert_eq!(host.ok(&["exec", "held", "grep", "^nameserver", "/etc/resolv.conf"]), "nameserver 127.0.0.11");
    // The resolver may ask its server from within the container's namespace; the container may not.
    assert_eq!(ask(&host, "held", "web.test", "A", &[]), "NOERROR 198.51.100.2/300");
    assert_eq!(calls(&host, "held", NEIGHBOUR, 80), "web");
    assert_eq!(calls(&host, "held", NEIGHBOUR, 53), NO);
    // A subnet is allowed as well: then any name may be asked for.
    assert_eq!(ask(&host, "held", "none.test", "A", &[]), "NXDOMAIN");
    assert_eq!(upstream.asked().len(), 2);
    // Another network changes nothing about the policy.
    host.ok(&["network", "create", "n"]);
    serve(&host, &["--name", "db", "--network", "n"], 80, "db");
    host.ok(&["network", "connect", "n", "held"]);
    let db = host.ok(&["inspect", "-f", "{{.NetworkSettings.Networks.n.IPAddress}}", "db"]);
    assert_eq!(calls(&host, "held", &db, 80), NO);
}

#[test]
fn it_survives_a_killed_monitor_a_flushed_host_and_a_restart() {
    let host = Host::new().with_lan();
    let _upstream = Upstream::on_neighbour(&host, NEIGHBOUR, &["web.test=198.51.100.2/300"]);
    host.sh(&format!("echo nameserver {NEIGHBOUR} > /etc/resolv.conf"));
    let _web = Server::on_neighbour(&host, "tcp", NEIGHBOUR, 80, "web");
    sleeper(&host, "held", &["--egress", "deny,allow=web.test:80"]);
    assert_eq!(ask(&host, "held", "web.test", "A", &[]), "NOERROR 198.51.100.2/300");
    let pid: i32 = host.ok(&["inspect", "-f", "{{.State.Pid}}", "held"]).parse().expect("a pid");
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
    let monitor: i32 = stat.rsplit(") ").next().and_then(|s| s.split(' ').nth(1)?.parse().ok()).expect("a parent");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(monitor), nix::sys::signal::Signal::SIGKILL).expect("killed");
    eventually("it is gone", || std::fs::read_link(format!("/proc/{monitor}/exe")).is_err().then_some(()));
    host.sh("nft flush ruleset");
    assert_ne!(
        calls(&host, "held", NEIGHBOUR, 5432),
        "refused",
        "closed without a monitor, and without the host's table"
    );
    host.ok(&["ps"]);
    // The host's own table comes back with the next start.
    host.ok(&["run", "--rm", "busybox", "true"]);
    eventually("the new monitor's resolver opens the way again", || {
        let ran = host.rrun(&["exec", "held", dns::PROGRAM, "ask", "127.0.0.11", "web.test", "A"]);
        ran.stdout.starts_with("NOERROR 198.51.100.2").then_some(())
    });
    assert_eq!(calls(&host, "held", NEIGHBOUR, 80), "web");
    host.ok(&["restart", "-t", "0", "held"]);
    assert_eq!(calls(&host, "held", NEIGHBOUR, 80), NO, "a new life begins closed");
    assert_eq!(ask(&host, "held", "web.test", "A", &[]), "NOERROR 198.51.100.2/300");
    assert_eq!(calls(&host, "held", NEIGHBOUR, 80), "web");
}

#[test]
fn only_some_destinations_denied() {
    let host = Host::new().with_lan();
    host.neighbour("ip addr add 169.254.169.254/32 dev eth0");
    let _meta = Server::on_neighbour(&host, "tcp", "169.254.169.254", 80, "metadata");
    let _web = Server::on_neighbour(&host, "tcp", NEIGHBOUR, 80, "web");
    sleeper(&host, "held", &["--egress", "deny=169.254.0.0/16,deny=*:25/tcp"]);
    sleeper(&host, "free", &[]);
    assert_eq!(calls(&host, "free", "169.254.169.254", 80), "metadata");
    assert_eq!(calls(&host, "held", "169.254.169.254", 80), NO);
    assert_eq!(calls(&host, "held", NEIGHBOUR, 80), "web");
    assert_eq!(calls(&host, "held", NEIGHBOUR, 25), NO);
}

#[test]
fn mistakes_have_a_remedy_and_bypasses_a_warning() {
    let host = Host::new();
    for (flags, want) in [
        (&["--egress", "allow=1.2.3.4"][..], "allow without deny"),
        (&["--egress", "deny,allow=1.2.3"], "neither an address, a subnet nor a name"),
        (&["--egress", "deny", "--network", "host"], "conflicting options: egress and the network mode host"),
        (&["--egress", "deny", "--network", "none"], "conflicting options: egress and the network mode none"),
        (&["--net-rate", "in=10mb"], "invalid net-rate \"in=10mb\""),
        (&["--net-rate", "in=1mbit", "--network", "host"], "conflicting options: net-rate and the network mode host"),
    ] {
        let e = host.fails(125, &[&["run", "--rm"], flags, &["busybox", "true"]].concat());
        assert!(e.contains(want), "{flags:?}: {e}");
        assert!(e.lines().filter(|l| !l.is_empty()).count() >= 2, "a line says what to do: {e}");
    }
    let ran = host.rrun(&["run", "--rm", "--egress", "deny", "--cap-add", "NET_ADMIN", "busybox", "true"]).expect(0);
    assert!(ran.stderr.contains("NET_ADMIN can remove what --egress sets up"), "{}", ran.stderr);
    // Without NET_RAW no frame can be written past the rules.
    let caps = host.ok(&["run", "--rm", "--egress", "deny", "busybox", "grep", "CapBnd", "/proc/self/status"]);
    let bits = u64::from_str_radix(caps.rsplit('\t').next().expect("a number"), 16).expect("hexadecimal");
    assert_eq!(bits & 1 << 13, 0, "{caps}");
    let plan = host.ok(&["explain", "run", "--egress", "deny,allow=web.test:443", "busybox", "true"]);
    assert!(plan.contains("let the container connect to web.test (tcp and udp 443) and refuse the rest"), "{plan}");
    assert!(plan.contains("tcp dport 443 ip daddr @names4_1 accept"), "{plan}");
}

/// Milliseconds that N bytes take, to or from a server on the neighbour.
fn transfer(host: &Host, container: &str, way: &str, addr: &str, bytes: u64) -> u64 {
    let out = host.ok(&["exec", container, "/peer", way, addr, "7000", &bytes.to_string()]);
    out.parse().unwrap_or_else(|_| panic!("milliseconds: {out}"))
}

#[test]
fn rates_hold_in_both_directions_and_families() {
    if lacks(&["tbf"]) {
        return;
    }
    let host = Host::new().with_lan();
    host.ok(&["network", "create", "--ipv6", "--subnet", "10.9.0.0/24", "--subnet", "fd09::/64", "n"]);
    let _sink = Server::on_neighbour(&host, "bulk", "::", 7000, "");
    sleeper(&host, "slow", &["--network", "n", "--net-rate", "in=8mbit,out=4mbit"]);
    sleeper(&host, "fast", &["--network", "n"]);
    // 8 Mbit/s are a megabyte a second; the bucket lets a little through at once. Faster than the
    // limit is impossible; how much slower is the machine's business.
    for addr in [NEIGHBOUR, NEIGHBOUR6] {
        let down = transfer(&host, "slow", "download", addr, 1_000_000);
        assert!(down > 800, "a megabyte at 8 Mbit/s in {down} ms");
        let up = transfer(&host, "slow", "upload", addr, 500_000);
        assert!(up > 800, "half a megabyte at 4 Mbit/s in {up} ms");
        let free = transfer(&host, "fast", "download", addr, 1_000_000);
        assert!(free < down, "without a limit: {free} ms");
    }
    assert_eq!(host.ok(&["inspect", "-f", "{{json .HostConfig.NetRate}}", "slow"]), r#"{"In":"8mbit","Out":"4mbit"}"#);
    // The kernel says the same, at both ends of the cable; a second network has its own.
    let qdiscs = |where_: &str| host.sh(&format!("{where_} tc qdisc show")).matches("tbf 1: dev").count();
    let pid = host.ok(&["inspect", "-f", "{{.State.Pid}}", "slow"]);
    let inside = format!("nsenter -t {pid} -n");
    assert_eq!((qdiscs(""), qdiscs(&inside)), (1, 1));
    assert!(host.sh("tc qdisc show").contains("rate 8Mbit"));
    host.ok(&["network", "create", "m"]);
    host.ok(&["network", "connect", "m", "slow"]);
    assert_eq!((qdiscs(""), qdiscs(&inside)), (2, 2));
    host.ok(&["restart", "-t", "0", "slow"]);
    // The cables of before go when the kernel gets round to it.
    eventually("limited again", || (qdiscs("") == 2).then_some(()));
    let plan = host.ok(&["explain", "run", "--net-rate", "in=8mbit", "busybox", "true"]);
    assert!(plan.contains("let the container receive at most 8mbit") && plan.contains("tbf rate 8mbit"), "{plan}");
}
