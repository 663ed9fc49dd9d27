//! Driver options of bridge networks, each by what it does to the kernel and to real traffic.

use rrun_tests::Host;
use rrun_tests::host::{HOST_LAN, HOST_LAN6, NEIGHBOUR, NEIGHBOUR6};
use rrun_tests::kernel;
use rrun_tests::peer::{PROGRAM, Server, call, mount, serve, serve_as};
use serde_json::{Value, json};

const PREFIX: &str = "com.docker.network.bridge";

/// Dual-stack, 10.9.0.0/24 and fd00:9::/64.
fn network(host: &Host, options: &[&str]) -> String {
    let mut args = vec!["network", "create", "--subnet", "10.9.0.0/24", "--subnet", "fd00:9::/64"];
    for o in options {
        args.extend(["-o", o]);
    }
    args.push("net");
    let id = host.ok(&args);
    format!("br-{}", &id[..12])
}

fn addresses(host: &Host, link: &str) -> Vec<String> {
    let shown = host.ip(&format!("addr show {link}"));
    let list = shown[0]["addr_info"].as_array().cloned().unwrap_or_default();
    let global = list.iter().filter(|a| a["scope"] == "global");
    global.map(|a| format!("{}/{}", a["local"].as_str().unwrap_or_default(), a["prefixlen"])).collect()
}

fn call_in(host: &Host, network: &str, addr: &str, port: &str) -> i32 {
    host.rrun(&["run", "--rm", "--network", network, "-v", &mount(), "busybox", PROGRAM, "call", addr, port]).code
}

#[test]
fn an_existing_bridge_is_used_and_kept() {
    let host = Host::new();
    host.sh("ip link add br9 type bridge; ip addr add 10.20.0.7/24 dev br9; ip link set br9 up");
    host.ok(&["network", "create", "-o", &format!("{PREFIX}.name=br9"), "mine"]);
    let out = host.ok(&["network", "inspect", "-f", "{{json .IPAM.Config}}", "mine"]);
    let config: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((&config[0]["Subnet"], &config[0]["Gateway"]), (&json!("10.20.0.0/24"), &json!("10.20.0.7")));
    let web = serve(&host, &["--network", "mine"], 80, "on it");
    let ip = host.ok(&["inspect", "-f", "{{.NetworkSettings.Networks.mine.IPAddress}}", &web]);
    assert!(host.sh(&call(&ip, 80)).starts_with("on it "));
    let ports = host.ip("link show master br9");
    assert_eq!(ports.as_array().map(Vec::len), Some(1), "plugged into that bridge");
    host.ok(&["rm", "-f", &web]);
    host.ok(&["network", "rm", "mine"]);
    assert_eq!(addresses(&host, "br9"), ["10.20.0.7/24"]);

    // With a subnet of its own the network adds its gateway, and takes it along again.
    host.ok(&["network", "create", "--interface-name", "br9", "--subnet", "10.21.0.0/24", "other"]);
    assert_eq!(addresses(&host, "br9"), ["10.20.0.7/24", "10.21.0.1/24"]);
    let e = host.fails(1, &["network", "create", "-o", "name=br9", "third"]);
    assert!(e.contains("networks have same bridge name") && e.contains("network other"), "{e}");
    host.ok(&["network", "rm", "other"]);
    assert_eq!(addresses(&host, "br9"), ["10.20.0.7/24"]);

    host.sh("ip link add v9 type veth peer name v8");
    let e = host.fails(1, &["network", "create", "-o", "name=v9", "cable"]);
    assert!(e.contains("interface v9 exists and is no bridge") && e.contains("hint:"), "{e}");
    host.sh("ip link del br9; ip link del v9");
}

#[test]
fn without_masquerade_containers_keep_their_address() {
    let host = Host::new().with_lan();
    network(&host, &[&format!("{PREFIX}.enable_ip_masquerade=false")]);
    host.neighbour(&format!("ip route add 10.9.0.0/24 via {HOST_LAN}; ip -6 route add fd00:9::/64 via {HOST_LAN6}"));
    let web = serve(&host, &["--network", "net", "-p", "8080:80"], 80, "web");
    for (neighbour, own) in [(NEIGHBOUR, "10.9.0.2"), (NEIGHBOUR6, "fd00:9::2")] {
        let _lan = Server::on_neighbour(&host, "tcp", neighbour, 9000, "lan");
        assert_eq!(host.ok(&["exec", &web, PROGRAM, "call", neighbour, "9000"]), format!("lan {own}"));
        assert_ne!(host.try_neighbour(&call(own, 80)).code, 0, "which opens nothing");
    }
    assert_eq!(host.neighbour(&call(HOST_LAN, 8080)), format!("web {NEIGHBOUR}"));
}

#[test]
fn outbound_addresses_of_a_network() {
    let host = Host::new().with_lan();
    host.sh("ip addr add 198.51.100.77/24 dev lan0; ip -6 addr add 2001:db8:51::77/64 dev lan0 nodad");
    network(&host, &["com.docker.network.host_ipv4=198.51.100.77", "outbound_addr6=2001:db8:51::77"]);
    let web = serve_as(&host, "tcp", &["--network", "net", "-p", "8080:80"], "::", 80, "web");
    let other = serve(&host, &[], 80, "plain");
    for (neighbour, source) in [(NEIGHBOUR, "198.51.100.77"), (NEIGHBOUR6, "2001:db8:51::77")] {
        let _lan = Server::on_neighbour(&host, "tcp", neighbour, 9000, "lan");
        // The neighbour has to find the new address first.
        let seen = rrun_tests::host::eventually("an answer", || {
            Some(host.rrun(&["exec", &web, PROGRAM, "call", neighbour, "9000"])).filter(|ran| ran.code == 0)
        });
        assert_eq!(seen.stdout.trim_end(), format!("lan {source}"));
    }
    let _lan = Server::on_neighbour(&host, "tcp", NEIGHBOUR, 9000, "lan");
    assert_eq!(
        host.ok(&["exec", &other, PROGRAM, "call", NEIGHBOUR, "9000"]),
        format!("lan {HOST_LAN}"),
        "this one alone"
    );
    assert_eq!(host.neighbour(&call(HOST_LAN6, 8080)), format!("web {NEIGHBOUR6}"), "in as ever");
    let e = host.refuses(&["network", "create", "-o", "host_ipv4=fd00::1", "bad"]);
    assert!(e.contains("invalid value for host_ipv4") && e.contains("hint:"), "{e}");
    host.sh("ip addr del 198.51.100.77/24 dev lan0; ip -6 addr del 2001:db8:51::77/64 dev lan0");
}

#[test]
fn icc_off_leaves_the_way_out_and_published_ports() {
    let host = Host::new().with_lan();
    // Where another program has it on, an isolated neighbour's frames are rewritten while they are still
    // frames, and the bridge does not pass them on: nobody but rrun on this host.
    host.try_sh("sysctl -qw net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0");
    let modules = host.sh("cat /proc/sys/net/bridge/bridge-nf-call-iptables 2>/dev/null || echo none");
    let bridge = network(&host, &["icc=false"]);
    let web = serve_as(&host, "tcp", &["--network", "net", "-p", "8080:80"], "::", 80, "web");
    for (own, gateway, lan) in [("10.9.0.2", "10.9.0.1", HOST_LAN), ("fd00:9::2", "fd00:9::1", HOST_LAN6)] {
        assert_ne!(call_in(&host, "net", own, "80"), 0, "a neighbour on the bridge, {own}");
        assert_eq!(call_in(&host, "net", lan, "8080"), 0, "by the published port, {lan}");
        assert!(host.sh(&call(own, 80)).starts_with("web "), "the host");
        assert!(host.neighbour(&call(lan, 8080)).starts_with("web "), "the LAN");
        let _gate = Server::on_host(&host, "tcp", gateway, 9000, "gate");
        assert_eq!(host.ok(&["exec", &web, PROGRAM, "call", gateway, "9000"]), format!("gate {own}"));
    }
    let ports = host.ip(&format!("-d link show master {bridge}"));
    assert_eq!(ports[0]["linkinfo"]["info_slave_data"]["isolated"], true, "the bridge's own isolation");
    let now = host.sh("cat /proc/sys/net/bridge/bridge-nf-call-iptables 2>/dev/null || echo none");
    assert_eq!(modules, now, "br_netfilter is none of our business");
}

#[test]
fn default_bind_addresses_of_a_network() {
    let host = Host::new().with_lan();
    host.ok(&["network", "create", "-o", &format!("{PREFIX}.host_binding_ipv4=127.0.0.1"), "four"]);
    host.ok(&["network", "create", "--ipv6", "-o", "host_binding_ipv4=2001:db8:51::1", "six"]);
    let four = serve(&host, &["--network", "four", "-p", "8080:80"], 80, "four");
    let six = serve_as(&host, "tcp", &["--network", "six", "-p", "8081:80"], "::", 80, "six");
    assert_eq!(host.ok(&["port", &four]), "80/tcp -> 127.0.0.1:8080");
    assert_eq!(host.ok(&["port", &six]), "80/tcp -> [2001:db8:51::1]:8081");
    assert!(host.sh(&call("127.0.0.1", 8080)).starts_with("four "));
    assert_ne!(host.try_neighbour(&call(HOST_LAN, 8080)).code, 0);
    assert_eq!(host.neighbour(&call(HOST_LAN6, 8081)), format!("six {NEIGHBOUR6}"));
    assert_ne!(host.try_neighbour(&call(HOST_LAN, 8081)).code, 0);
}

#[test]
fn somebody_else_may_be_the_gateway() {
    let host = Host::new();
    let bridge = network(&host, &[&format!("{PREFIX}.inhibit_ipv4=true"), "container_iface_prefix=net"]);
    assert_eq!(addresses(&host, &bridge), ["fd00:9::1/64"]);
    let out = host.ok(&["run", "--rm", "--network", "net", "busybox", "ip", "route"]);
    assert!(out.contains("default via 10.9.0.1 dev net0"), "{out}");
}

#[test]
fn families_by_flag_and_by_option() {
    let host = Host::new().with_lan();
    host.ok(&["network", "create", "--ipv4=false", "--ipv6", "six"]);
    host.ok(&["network", "create", "-o", "com.docker.network.enable_ipv4=false", "-o", "enable_ipv6=true", "opt"]);
    host.ok(&["network", "create", "--ipv4", "-o", "enable_ipv4=false", "flag"]);
    for (name, families) in [("six", "false true"), ("opt", "false true"), ("flag", "true false")] {
        assert_eq!(host.ok(&["network", "inspect", "-f", "{{.EnableIPv4}} {{.EnableIPv6}}", name]), families, "{name}");
    }
    let web = serve_as(&host, "tcp", &["--network", "six", "-p", "8080:80"], "::", 80, "web");
    assert_eq!(host.ok(&["exec", &web, "sh", "-c", "ip -4 -o addr show eth0; ip -4 route"]), "", "no IPv4 at all");
    assert_eq!(host.neighbour(&call(HOST_LAN6, 8080)), format!("web {NEIGHBOUR6}"));
    assert!(host.neighbour(&call(HOST_LAN, 8080)).starts_with("web "), "IPv4 clients are relayed");
    let _lan = Server::on_neighbour(&host, "tcp", NEIGHBOUR6, 9000, "lan");
    assert_eq!(host.ok(&["exec", &web, PROGRAM, "call", NEIGHBOUR6, "9000"]), format!("lan {HOST_LAN6}"));
    let e = host.refuses(&["network", "create", "--ipv4=false", "none-at-all"]);
    assert!(e.contains("IPv4 or IPv6 must be enabled"), "{e}");
    let e = host.refuses(&["network", "create", "--ipv4=false", "--ipv6", "--subnet", "10.9.0.0/24", "torn"]);
    assert!(e.contains("IPv4 is switched off"), "{e}");
}

#[test]
fn an_unmanaged_bridge_is_only_plugged_into() {
    let host = Host::new();
    let create = ["network", "create", "-o", "mode=unmanaged", "-o", "name=br9", "--subnet", "10.9.0.0/24", "theirs"];
    let e = host.refuses(&create);
    assert!(e.contains("bridge br9 of unmanaged network theirs does not exist") && e.contains("hint:"), "{e}");
    host.sh("ip link add br9 mtu 1400 type bridge; ip addr add 10.9.0.9/24 dev br9; ip link set br9 up");
    let before = host.sh("ip -j addr show br9; sysctl net.ipv4.conf.br9; nft list ruleset");
    host.ok(&create);
    let ran = host.rrun(&[
        "run",
        "-d",
        "--network",
        "theirs",
        "-p",
        "8080:80",
        "-v",
        &mount(),
        "busybox",
        PROGRAM,
        "tcp",
        "0.0.0.0",
        "80",
        "web",
    ]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("network theirs is unmanaged"), "{}", ran.stderr);
    let id = ran.stdout.trim();
    assert!(host.ok(&["exec", id, "ip", "route"]).contains("default via 10.9.0.1"));
    assert!(host.ok(&["exec", id, "ip", "link", "show", "eth0"]).contains("mtu 1400"), "the bridge's own");
    rrun_tests::host::eventually("the server answers", || {
        host.try_sh(&call("10.9.0.2", 80)).stdout.starts_with("web ").then_some(())
    });
    assert_eq!(host.ok(&["port", id]), "");
    assert!(!host.try_sh("nft list set inet rrun bridges").stdout.contains("br9"), "the firewall does not know it");
    host.ok(&["rm", "-f", id]);
    host.sh("ip link set br9 down; ip link del br9");
    let e = host.fails(125, &["run", "--rm", "--network", "theirs", "busybox", "true"]);
    assert!(e.contains("bridge br9 of unmanaged network theirs does not exist"), "{e}");
    host.sh("ip link add br9 mtu 1400 type bridge; ip addr add 10.9.0.9/24 dev br9; ip link set br9 up");
    host.ok(&["network", "rm", "theirs"]);
    let after = host.sh("ip -j addr show br9; sysctl net.ipv4.conf.br9; nft list ruleset");
    let settings =
        |text: &str| text.lines().filter(|l| l.starts_with("net.ipv4")).map(str::to_string).collect::<Vec<_>>();
    assert_eq!(settings(&before), settings(&after));
    assert_eq!(addresses(&host, "br9"), ["10.9.0.9/24"]);
    host.sh("ip link del br9");
}

#[test]
fn the_mtu_is_that_of_the_way_out() {
    let host = Host::new().with_lan();
    let mtu = |link: &str| host.ip(&format!("link show {link}"))[0]["mtu"].clone();
    let inside =
        |network: &str| host.ok(&["run", "--rm", "--network", network, "busybox", "cat", "/sys/class/net/eth0/mtu"]);
    host.sh("ip link set lan0 mtu 1400");
    let id = host.ok(&["network", "create", "slim"]);
    assert_eq!(mtu(&format!("br-{}", &id[..12])), 1400);
    assert_eq!(inside("slim"), "1400");
    host.ok(&["network", "create", "-o", "com.docker.network.driver.mtu=1300", "given"]);
    assert_eq!(inside("given"), "1300");
    host.ok(&["network", "create", "--internal", "inner"]);
    assert_eq!(inside("inner"), "1500", "no way out, no reason");
    assert_eq!(inside("bridge"), "1400", "the default one too");
    // It survives the loss of the bridge.
    host.ok(&["run", "-d", "--network", "slim", "busybox", "sleep", "1000"]);
    host.sh(&format!("ip link del br-{}", &id[..12]));
    assert_eq!(inside("slim"), "1400");
    assert_eq!(mtu(&format!("br-{}", &id[..12])), 1400);
    let e = host.refuses(&["network", "create", "--ipv6", "-o", "mtu=1000", "tiny"]);
    assert!(e.contains("invalid MTU number: 1000") && e.contains("1280"), "{e}");
    // VPNs: with a table of their own, or with two halves of the world, which a default route does not tell.
    host.sh("ip link add vpn0 mtu 1380 type veth peer name vpn1; ip link set vpn1 up; ip link set vpn0 up; ip addr add 10.98.0.1/24 dev vpn0");
    for (there, gone) in [
        ("route add default via 10.98.0.2 table 77; ip rule add not fwmark 77 table 77", "rule del not fwmark 77"),
        ("route add 0.0.0.0/1 via 10.98.0.2; ip route add 128.0.0.0/1 via 10.98.0.2", "link del vpn0"),
    ] {
        host.sh(&format!("ip {there}"));
        host.ok(&["network", "create", "through"]);
        assert_eq!(inside("through"), "1380", "{there}");
        host.ok(&["network", "rm", "through"]);
        host.sh(&format!("ip {gone}"));
    }
    host.sh("ip link set lan0 mtu 1500");
}

#[test]
fn tcp_segments_fit_the_narrower_way() {
    let host = Host::new().with_lan();
    network(&host, &["mtu=1500"]);
    let web = serve_as(&host, "tcp", &["--network", "net", "-p", "8080:80"], "::", 80, "web");
    // A tunnel somewhere on the way: only the route knows.
    host.sh("ip link set lan0 mtu 1400");
    host.sh("nft 'table inet watch { chain out { type filter hook postrouting priority 300; \
             tcp flags syn tcp option maxseg size 1360 counter; tcp flags syn tcp option maxseg size 1340 counter; \
             tcp flags syn tcp option maxseg size > 1360 counter; }; }'");
    let packets = || -> Vec<u64> {
        let doc: Value = serde_json::from_str(&host.sh("nft -j list table inet watch")).expect("JSON");
        let rules = doc["nftables"].as_array().cloned().unwrap_or_default();
        let counters = rules.iter().filter_map(|r| r["rule"]["expr"].as_array());
        counters.filter_map(|e| e.iter().find_map(|e| e["counter"]["packets"].as_u64())).collect()
    };
    for (neighbour, lan) in [(NEIGHBOUR, HOST_LAN), (NEIGHBOUR6, HOST_LAN6)] {
        let _lan = Server::on_neighbour(&host, "tcp", neighbour, 9000, "lan");
        // Where the kernel is busy with another test's thousand links, addresses become usable late.
        let there = || host.rrun(&["exec", &web, PROGRAM, "call", neighbour, "9000"]).code == 0;
        rrun_tests::host::eventually("the neighbour is reached", || there().then_some(()));
        host.neighbour(&call(lan, 8080));
    }
    // SYN and its answer, each way, some of them twice: 1400 less 40 bytes of headers in IPv4, less 60 in IPv6.
    let seen = packets();
    assert!(seen[0] >= 4 && seen[1] >= 4 && seen[2] == 0, "{seen:?}");
    host.sh("nft delete table inet watch; ip link set lan0 mtu 1500");
}

#[test]
fn a_full_bridge_says_what_to_do() {
    let host = Host::new();
    let bridge = network(&host, &[]);
    let cables: String = (0..511)
        .map(|i| format!("link add p{i} master {bridge} type veth peer name q{i}\nlink set q{i} master {bridge}\n"))
        .collect();
    std::fs::write(host.outside(host.dir.join("tmp/cables")), cables).expect("write");
    host.sh(&format!(
        "ip -batch {}/tmp/cables; ip link add last master {bridge} type veth peer name tsal",
        host.dir.display()
    ));
    let e = host.fails(125, &["run", "--rm", "--network", "net", "busybox", "true"]);
    assert!(e.contains(&format!("bridge {bridge} is full: a Linux bridge has at most 1023 ports")), "{e}");
    assert!(e.contains("hint:") && e.contains("another network") && !e.contains("exchange full"), "{e}");
    assert_eq!(host.ok(&["ps", "-aq"]), "");
    host.sh("ip link del last");
    host.ok(&["run", "--rm", "--network", "net", "busybox", "true"]);
    host.ok(&["network", "rm", "net"]);
    let loose: String = (0..511).map(|i| format!("link del p{i}\n")).collect();
    std::fs::write(host.outside(host.dir.join("tmp/cables")), loose).expect("write");
    host.sh(&format!("ip -batch {}/tmp/cables", host.dir.display()));
}

#[test]
fn vlans_keep_containers_of_one_bridge_apart() {
    if kernel::lacks(&["bridge-vlan"]) {
        return;
    }
    let host = Host::new();
    let bridge = network(&host, &["vlan=100"]);
    assert_eq!(host.ip(&format!("-d link show {bridge}"))[0]["linkinfo"]["info_data"]["vlan_filtering"], 1);
    let web = serve(&host, &["--network", "net"], 80, "web");
    let ports = host.sh("bridge -j vlan show");
    let ports: Value = serde_json::from_str(&ports).expect("JSON");
    for port in ports.as_array().into_iter().flatten() {
        assert_eq!(port["vlans"][0]["vlan"], 100, "{port}");
    }
    assert!(host.sh(&call("10.9.0.2", 80)).starts_with("web "), "the gateway is in it");
    assert_eq!(call_in(&host, "net", "10.9.0.2", "80"), 0, "and its neighbours");
    host.ok(&["rm", "-f", &web]);

    // Of somebody else's bridge, each network a VLAN.
    host.sh("ip link add br9 type bridge vlan_filtering 1; ip link set br9 up");
    for (name, vlan) in [("red", "10"), ("blue", "20")] {
        let vlan = format!("vlan={vlan}");
        let subnet = if name == "red" { "10.30.0.0/24" } else { "10.31.0.0/24" };
        host.ok(&[
            "network",
            "create",
            "-o",
            "mode=unmanaged",
            "-o",
            "name=br9",
            "-o",
            &vlan,
            "--subnet",
            subnet,
            name,
        ]);
    }
    let red = serve(&host, &["--network", "red"], 80, "red");
    assert_eq!(call_in(&host, "red", "10.30.0.2", "80"), 0);
    // The blue one claims an address of the red subnet, and still nobody answers.
    let args = [
        "run",
        "--rm",
        "--privileged",
        "--network",
        "blue",
        "-v",
        &mount(),
        "busybox",
        "sh",
        "-c",
        &format!("ip addr add 10.30.0.99/24 dev eth0; {PROGRAM} call 10.30.0.2 80"),
    ];
    assert_ne!(host.rrun(&args).code, 0);
    host.ok(&["rm", "-f", &red]);
    host.ok(&["network", "rm", "red", "blue"]);
    host.sh("ip link del br9");
}

#[test]
fn a_vlan_that_the_kernel_cannot_is_told_at_create() {
    if kernel::has("bridge-vlan") {
        return;
    }
    let host = Host::bare();
    let e = host.refuses(&["network", "create", "-o", "vlan=100", "v"]);
    assert!(e.contains("CONFIG_BRIDGE_VLAN_FILTERING"), "{e}");
    assert_eq!(host.ok(&["network", "ls", "-q"]).lines().count(), 3, "nothing half-made");
}

#[test]
fn a_bridge_may_belong_to_a_vrf() {
    let host = Host::new().with_lan();
    let e = host.refuses(&["network", "create", "-o", "vrf=blue", "v"]);
    assert!(e.contains("VRF blue of network v does not exist") && e.contains("hint:"), "{e}");
    assert_eq!(host.ip("link").as_array().map(Vec::len), Some(2), "no bridge is left");
    if kernel::lacks(&["vrf"]) {
        return;
    }
    host.sh("ip link add blue type vrf table 100; ip link set blue up");
    let bridge = network(&host, &["vrf=blue"]);
    assert_eq!(host.ip(&format!("link show {bridge}"))[0]["master"], "blue");
    assert!(host.sh("ip route show table 100").contains("10.9.0.0/24"));
    let web = serve(&host, &["--network", "net"], 80, "web");
    assert_eq!(call_in(&host, "net", "10.9.0.2", "80"), 0);
    host.ok(&["rm", "-f", &web]);

    // Published ports: the command says what hides them, and with the two routes that it names they are there.
    let server = ["--network", "net", "--name", "web", "-v", &mount(), "busybox", PROGRAM, "tcp", "::", "80", "web"];
    let ran = host.rrun(&[&["run", "-d", "-p", "8080:80"], &server[..]].concat()).expect(0);
    assert!(ran.stderr.contains("VRF blue hides 10.9.0.0/24 fd00:9::/64"), "{}", ran.stderr);
    assert_ne!(host.try_neighbour(&call(HOST_LAN, 8080)).code, 0);
    for subnet in ["10.9.0.0/24", "fd00:9::/64"] {
        let way_in = format!("ip route add {subnet} dev {bridge}");
        assert!(ran.stderr.contains(&format!("`{way_in}`")), "{}", ran.stderr);
        host.sh(&way_in);
    }
    assert!(ran.stderr.contains("`ip route add SUBNET dev INTERFACE vrf blue`"), "{}", ran.stderr);
    host.sh("ip route add 198.51.100.0/24 dev lan0 vrf blue; ip route add 2001:db8:51::/64 dev lan0 vrf blue");
    assert_eq!(host.neighbour(&call(HOST_LAN, 8080)), format!("web {NEIGHBOUR}"));
    assert_eq!(host.neighbour(&call(HOST_LAN6, 8080)), format!("web {NEIGHBOUR6}"));
    assert!(!host.rrun(&["port", "add", "web", "8081:80"]).expect(0).stderr.contains("hides"), "nothing is hidden now");
    assert_eq!(host.neighbour(&call(HOST_LAN, 8081)), format!("web {NEIGHBOUR}"));
    host.ok(&["rm", "-f", "web"]);
    host.ok(&["network", "rm", "net"]);
    host.sh("ip link del blue");
}

#[test]
fn values_that_mean_nothing_are_named() {
    let host = Host::bare();
    for (option, text) in [
        ("colour=red", "unknown option colour of network driver bridge"),
        ("enable_icc=perhaps", "invalid value for enable_icc: \"perhaps\""),
        ("name=much-too-long-name", "invalid bridge name"),
        ("com.docker.network.driver.mtu=-1", "invalid MTU number: -1"),
        ("trusted_host_interfaces=a/b", "invalid interface name"),
        ("vlan=4095", "vlan id must be between 1-4094, received: 4095"),
        ("metric=0", "invalid value for metric"),
        ("mode=sideways", "invalid value for mode"),
        ("isolate=false", "invalid value for isolate"),
        ("com.docker.network.bridge.default_bridge=true", "there is one default bridge already"),
        ("container_iface_prefix=a b", "invalid value for container_iface_prefix"),
    ] {
        let e = host.refuses(&["network", "create", "-o", option, "x"]);
        assert!(e.contains(text) && e.contains("hint:"), "{option}: {e}");
    }
    assert_eq!(host.ok(&["network", "ls", "-q"]).lines().count(), 3, "nothing half-made");
}

#[test]
fn what_a_bridge_loses_comes_back_with_its_options() {
    let host = Host::new().with_lan();
    host.sh("ip addr add 198.51.100.77/24 dev lan0");
    let bridge = network(&host, &["icc=false", "host_ipv4=198.51.100.77", "mtu=1400"]);
    let web = serve(&host, &["--network", "net", "-p", "8080:80"], 80, "web");
    let _lan = Server::on_neighbour(&host, "tcp", NEIGHBOUR, 9000, "lan");
    for lost in [format!("ip link del {bridge}"), "nft flush ruleset".to_string()] {
        host.sh(&lost);
        host.ok(&["run", "--rm", "--network", "net", "busybox", "true"]);
        assert_eq!(host.neighbour(&call(HOST_LAN, 8080)), format!("web {NEIGHBOUR}"), "after {lost}");
        let out = host.ok(&["exec", &web, PROGRAM, "call", NEIGHBOUR, "9000"]);
        assert_eq!(out, "lan 198.51.100.77", "after {lost}");
        assert_ne!(call_in(&host, "net", "10.9.0.2", "80"), 0, "after {lost}");
        assert_eq!(host.ip(&format!("link show {bridge}"))[0]["mtu"], 1400);
        assert_eq!(addresses(&host, &bridge), ["10.9.0.1/24", "fd00:9::1/64"], "after {lost}");
    }
    host.sh("ip addr del 198.51.100.77/24 dev lan0");
}
