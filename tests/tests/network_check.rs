//! `network check`: foreign rules explained, what is ours found and put right.

use rrun_tests::Host;
use rrun_tests::host::{HOST_LAN, HOST_LAN6, NEIGHBOUR, NEIGHBOUR6};
use rrun_tests::peer::{PROGRAM, Server, call, serve, serve_as};
use serde_json::Value;

/// Two networks in use, every kind of publish, and one network that nobody uses.
fn busy() -> Host {
    let host = Host::new().with_lan();
    host.ok(&["network", "create", "--ipv6", "six"]);
    host.ok(&["network", "create", "--internal", "inside"]);
    host.ok(&["network", "create", "-o", "com.docker.network.bridge.enable_icc=false", "apart"]);
    let narrow = format!("8083:80,from={NEIGHBOUR},from=10.0.0.0/8,from={NEIGHBOUR6}");
    let flags =
        ["--network", "six", "--name", "web", "-p", "8080:80", "-p", "127.0.0.1:8081:80", "-p", "[::1]:8082:80"];
    let more = ["-p", &narrow, "-p", "iface=lan0:8084:80", "-p", "9000-9499:9000-9499", "-p", "9600-9619:80-99/udp"];
    serve_as(&host, "tcp", &[&flags[..], &more].concat(), "::", 80, "web");
    host.ok(&["run", "-d", "--name", "idle", "busybox", "sleep", "1000"]);
    host.ok(&["run", "-d", "--name", "shut", "--network", "inside", "busybox", "sleep", "1000"]);
    host
}

#[track_caller]
fn findings(host: &Host, flags: &[&str]) -> (i32, Vec<(String, String)>) {
    let ran = host.rrun(&[&["network", "check", "--format", "json"], flags].concat());
    let doc: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {} {}", ran.stdout, ran.stderr));
    let text = |f: &Value, key: &str| f[key].as_str().unwrap_or_default().to_string();
    let list = doc.as_array().expect("a list").iter();
    (ran.code, list.map(|f| (text(f, "Code"), format!("{}: {}", text(f, "Thing"), text(f, "Problem")))).collect())
}

#[track_caller]
fn found(host: &Host, code: &str) -> String {
    let (exit, all) = findings(host, &[]);
    assert_eq!(exit, 1, "{all:?}");
    let told: Vec<&str> = all.iter().filter(|(c, _)| c == code).map(|(_, text)| text.as_str()).collect();
    assert!(!told.is_empty(), "no {code} in {all:?}");
    told.join("\n")
}

/// Repaired at once, and nothing to repair the second time.
#[track_caller]
fn repairs(host: &Host) {
    let ran = host.rrun(&["network", "check", "--repair"]);
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("repaired"), "{}", ran.stdout);
    assert_eq!(findings(host, &["--repair"]), (0, Vec::new()));
    assert_eq!(host.ok(&["network", "check"]), "");
}

#[track_caller]
fn works(host: &Host) {
    assert_eq!(host.neighbour(&call(HOST_LAN, 8080)), format!("web {NEIGHBOUR}"));
    assert_eq!(host.neighbour(&call(HOST_LAN6, 8080)), format!("web {NEIGHBOUR6}"));
    assert_eq!(host.neighbour(&call(HOST_LAN, 8083)), format!("web {NEIGHBOUR}"));
    assert_eq!(host.neighbour(&call(HOST_LAN, 8084)), format!("web {NEIGHBOUR}"));
}

#[test]
fn a_healthy_host_has_no_findings() {
    let host = Host::new();
    assert_eq!(findings(&host, &[]), (0, Vec::new()), "nothing there yet");
    let host = busy();
    assert_eq!(findings(&host, &[]), (0, Vec::new()));
    assert_eq!(host.ok(&["network", "check", "--repair"]), "");
    works(&host);
    let e = host.fails(125, &["network", "check", "--format", "yaml"]);
    assert!(e.contains("unknown format yaml"), "{e}");
}

#[test]
fn foreign_rules_are_explained_with_the_line_that_helps() {
    let host = busy();
    let _world = Server::on_neighbour(&host, "tcp", NEIGHBOUR, 7000, "world");
    for rules in [
        "iptables -P FORWARD DROP",
        "iptables -P FORWARD DROP; iptables -N DOCKER-USER; iptables -I FORWARD -j DOCKER-USER; iptables -A FORWARD -i docker0 -j ACCEPT",
        "nft add table ip mine; nft 'add chain ip mine through { type filter hook forward priority 5; policy accept; }'; nft add rule ip mine through ct state established,related accept; nft add rule ip mine through drop",
        "nft add table ip pre; nft 'add chain ip pre in { type filter hook prerouting priority -200; policy accept; }'; nft 'add rule ip pre in iifname { \"rrun0\", \"br9\" } drop'",
    ] {
        host.sh(rules);
        let outbound = || {
            host.rrun(&["run", "--rm", "-v", &rrun_tests::peer::mount(), "busybox", PROGRAM, "call", NEIGHBOUR, "7000"])
        };
        assert_ne!(outbound().code, 0, "{rules}");
        let told = found(&host, "foreign-drop");
        assert!(told.contains("rrun0") && told.contains("table ip "), "{told}");
        // Others' rules are not rrun's to change.
        assert_eq!(host.rrun(&["network", "check", "--repair"]).code, 1);
        let said = host.rrun(&["network", "check"]).stdout;
        let fix = said.lines().find_map(|l| l.strip_prefix("         ")).expect("a line to type");
        host.sh(fix);
        assert_eq!(outbound().stdout, format!("world {HOST_LAN}\n"), "{fix}");
        works(&host);
        assert_eq!(host.ok(&["network", "check"]), "", "{fix}");
        host.sh(
            "iptables -P FORWARD ACCEPT; for t in filter mine pre; do nft delete table ip $t 2>/dev/null || true; done",
        );
    }
}

#[test]
fn a_flushed_firewall_is_found_and_any_command_brings_it_back() {
    let host = busy();
    host.sh("nft flush ruleset");
    assert!(found(&host, "table-missing").contains("published ports are closed"));
    assert_eq!(host.try_sh("nft list table inet rrun").code, 1, "looking changes nothing");
    repairs(&host);
    works(&host);
    for command in [
        &["ps"][..],
        &["port", "web"],
        &["inspect", "web"],
        &["logs", "web"],
        &["exec", "idle", "true"],
        &["run", "--rm", "busybox", "true"],
        &["network", "ls"],
        &["port", "add", "idle", "7777:80"],
    ] {
        host.sh("nft flush ruleset");
        assert_ne!(host.try_neighbour(&call(HOST_LAN, 8080)).code, 0);
        host.ok(command);
        works(&host);
    }
    assert_eq!(host.ok(&["network", "check"]), "");
}

#[test]
fn altered_rules_and_elements_are_found_and_written_anew() {
    let host = busy();
    // A rule gone, one too many, a chain that is nobody's, and a policy.
    host.sh("h=$(nft -a list chain inet rrun published_only | sed -n 's/.*this port is not published.*handle //p' | head -n1); nft delete rule inet rrun published_only handle $h");
    assert!(
        found(&host, "table-altered")
            .contains("chain published_only: a rule is missing or altered: this port is not published")
    );
    host.sh("nft add rule inet rrun forward accept; nft 'add chain inet rrun mine { type filter hook forward priority -5; policy drop; }'");
    let (_, all) = findings(&host, &[]);
    assert!(all.iter().any(|f| f.1.contains("chain mine: rrun has not written it")), "{all:?}");
    assert!(all.iter().any(|f| f.1.contains("chain forward: a rule is not rrun's")), "{all:?}");
    assert_ne!(host.try_neighbour(&call(HOST_LAN, 8080)).code, 0);
    repairs(&host);
    works(&host);
    // Elements lost and left over.
    host.sh("nft flush map inet rrun publish4_any; nft delete element inet rrun bridges '{ \"rrun0\" }'; \
             nft add element inet rrun publish4_any '{ tcp . 4444 : 172.17.0.99 }'");
    assert!(found(&host, "element-missing").contains("publish4_any"));
    assert!(found(&host, "element-stale").contains("tcp . 4444 : 172.17.0.99"));
    repairs(&host);
    works(&host);
    // The same port, led elsewhere.
    host.sh("nft delete element inet rrun publish4_any '{ tcp . 8080 }'; nft add element inet rrun publish4_any '{ tcp . 8080 : 172.17.0.99 }'");
    assert_ne!(host.try_neighbour(&call(HOST_LAN, 8080)).code, 0);
    repairs(&host);
    works(&host);
    // A set gone, as in the table of an older rrun, whose stamp differs: every start notices.
    host.sh("nft flush table inet rrun; nft delete map inet rrun publish6_iface; nft flush set inet rrun layout; nft add element inet rrun layout '{ 0x1 }'");
    assert!(found(&host, "table-outdated").contains("not those of this version"));
    host.ok(&["run", "--rm", "busybox", "true"]);
    works(&host);
    assert_eq!(host.ok(&["network", "check"]), "");
    // A set that cannot be mended in place: the whole table is replaced, and everything published again.
    host.sh("nft flush table inet rrun; nft delete set inet rrun internal; nft 'add set inet rrun internal { type ipv4_addr; }'");
    assert!(found(&host, "table-altered").contains("set internal: it is of another type"));
    repairs(&host);
    works(&host);
}

#[test]
fn bridges_cables_and_settings_come_back() {
    let host = busy();
    let bridge = format!("br-{}", &host.ok(&["network", "inspect", "-f", "{{.Id}}", "six"])[..12]);
    let cable = |master: &str| {
        let links = host.ip("link");
        let link = links.as_array().expect("links").iter().find(|l| l["master"] == master).cloned().expect("a cable");
        link["ifname"].as_str().expect("a name").to_string()
    };
    let port = cable(&bridge);
    for (harm, code) in [
        (format!("ip link del {bridge}"), "bridge-missing"),
        (format!("ip link set {bridge} down"), "bridge-down"),
        (format!("ip -4 addr flush dev {bridge}"), "gateway-missing"),
        (format!("ip link set {port} nomaster"), "unplugged"),
        ("ip link add vethabcdef0 type veth peer name x0; ip link set vethabcdef0 master rrun0".into(), "cable-leaked"),
        ("sysctl -qw net.ipv4.ip_forward=0".into(), "no-forwarding"),
        ("sysctl -qw net.ipv6.conf.all.forwarding=0".into(), "no-forwarding"),
    ] {
        host.sh(&harm);
        found(&host, code);
        repairs(&host);
        works(&host);
    }
    assert_eq!(host.try_sh("ip link show vethabcdef0").code, 1);
    // Not rrun's to repair: a route that takes a network's addresses, filters that are too strict.
    host.sh(&format!("ip route add 172.17.0.0/24 via {NEIGHBOUR}"));
    let told = found(&host, "route-collision");
    assert!(told.contains("route to 172.17.0.0/24 through lan0: it takes addresses of network bridge"), "{told}");
    host.sh("ip route del 172.17.0.0/24; ip link add other type veth peer name other1; ip link set other up; ip addr add 203.0.113.1/24 dev other; \
             ip route add default via 203.0.113.2 metric 50; sysctl -qw net.ipv4.conf.lan0.rp_filter=1");
    let told = found(&host, "strict-rp-filter");
    assert!(told.contains("several ways out (lan0, other)"), "{told}");
    host.sh("sysctl -qw net.ipv4.conf.lan0.rp_filter=2; ip link del other");
    assert_eq!(host.ok(&["network", "check"]), "");
}

#[test]
fn what_the_dead_left_is_found_and_swept_up() {
    let host = busy();
    let (state, ghost) = (host.state(), "0".repeat(64));
    let state = state.display();
    let network = host.ok(&["network", "inspect", "-f", "{{.Id}}", "six"]);
    let subnet = host.ok(&["network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", "six"]);
    let address = subnet.replace(".0/", ".200/").split('/').next().expect("an address").to_string();
    host.sh(&format!(
        "printf {ghost} > {state}/networks/{network}/leases/{address}; mkdir -p {state}/ports/tcp/66xx; \
         printf {ghost} > '{state}/ports/tcp/66xx/0.0.0.0:6666'; \
         cd {state}/networks/{network}/endpoints; sed 's/\"container_id\": *\"[0-9a-f]*\"/\"container_id\":\"{ghost}\"/' *.json > {ghost}.json"
    ));
    for (code, text) in
        [("lease-stale", address.as_str()), ("port-stale", "0.0.0.0:6666"), ("endpoint-stale", ghost.as_str())]
    {
        let told = found(&host, code);
        assert!(told.contains(text) && told.contains("container 000000000000, is gone"), "{told}");
    }
    repairs(&host);
    // The other way round: held, and the file that says so is gone.
    host.sh(&format!("rm '{state}/ports/tcp/80xx/0.0.0.0:8080'"));
    assert!(found(&host, "lease-missing").contains("0.0.0.0:8080"));
    repairs(&host);
    let e = host.fails(125, &["run", "--rm", "-p", "8080:80", "busybox", "true"]);
    assert!(e.contains("port is already allocated"), "{e}");
    // The lease of a stopped container is a memory, not a leak.
    host.ok(&["stop", "-t", "0", "idle"]);
    assert_eq!(host.ok(&["network", "check"]), "");
    // Starts that are under way are no leaks either.
    std::thread::scope(|s| {
        let runs = s.spawn(|| {
            for _ in 0..20 {
                host.ok(&["run", "--rm", "-p", "6000-6003:80-83", "busybox", "true"]);
            }
        });
        while !runs.is_finished() {
            let (_, all) = findings(&host, &["--repair"]);
            assert!(!all.iter().any(|(code, _)| code == "cable-leaked" || code == "element-stale"), "{all:?}");
        }
    });
    serve(&host, &["-p", "5000:80"], 80, "after");
    assert!(host.sh(&call("127.0.0.1", 5000)).starts_with("after "));
}
