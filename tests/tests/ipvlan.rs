//! ipvlan networks, networks without a parent, and parents with a VLAN tag: what not every kernel has.
//! A VM of the distribution's kernel runs them all (vagrant/vm.sh).

use rrun_tests::Host;
use rrun_tests::host::{HOST_LAN, NEIGHBOUR, NEIGHBOUR6, eventually};
use rrun_tests::kernel::lacks;
use rrun_tests::lan::{LAN6, RANGE, SUBNET, create, endpoint, inspect, is_gone, link_of};
use rrun_tests::peer::{PROGRAM, Server, call, call_inside, mount, serve, serve_as};

const ON_LAN: [&str; 8] = ["--subnet", SUBNET, "--ip-range", RANGE, "--gateway", NEIGHBOUR, "-o", "parent=lan0"];

#[test]
fn ipvlan_l2_shares_the_parents_mac_address() {
    if lacks(&["ipvlan"]) {
        return;
    }
    let host = Host::new().with_lan();
    create(&host, "ipvlan", "lan", &[&ON_LAN[..], &LAN6].concat());
    let web = serve_as(&host, "tcp", &["--network", "lan", "--name", "web"], "::", 80, "web");
    let (address, address6) =
        (endpoint(&host, &web, "lan", "IPAddress"), endpoint(&host, &web, "lan", "GlobalIPv6Address"));
    let link = link_of(&host, &web, "eth0");
    assert_eq!(link["linkinfo"]["info_kind"], "ipvlan");
    assert_eq!(link["linkinfo"]["info_data"]["mode"], "l2");
    assert_eq!(link["address"], host.ip("link show lan0")[0]["address"], "the parent's");
    assert_eq!(endpoint(&host, &web, "lan", "MacAddress"), "", "it has none of its own");
    assert_eq!(host.neighbour(&call(&address, 80)), format!("web {NEIGHBOUR}"));
    assert_eq!(host.neighbour(&call(&address6, 80)), format!("web {NEIGHBOUR6}"));
    assert_ne!(host.try_sh(&call(&address, 80)).code, 0, "the host does not reach it through its own parent");
    let _server = Server::on_neighbour(&host, "tcp", "::", 7000, "lan");
    let out = host.ok(&[
        "run",
        "--rm",
        "--network",
        "lan",
        "-v",
        &mount(),
        "busybox",
        "sh",
        "-c",
        &format!(
            "{}; {}; {}; nslookup web 127.0.0.11; ip route",
            call_inside(NEIGHBOUR, 7000),
            call_inside(&address, 80),
            call_inside(&address6, 80)
        ),
    ]);
    assert!(out.starts_with("lan 198.51.100.65\nweb 198.51.100.65\nweb 2001:db8:51::"), "{out}");
    assert!(out.contains(&address) && out.contains(&format!("default via {NEIGHBOUR} dev eth0")), "{out}");

    // The address of a container that ended a moment ago is the next one's.
    for _ in 0..5 {
        host.ok(&["restart", "-t", "0", "web"]);
    }
    eventually("it answers again", || (host.try_neighbour(&call(&address, 80)).code == 0).then_some(()));
    host.ok(&["rm", "-f", "web"]);
    let next = serve(&host, &["--network", "lan", "--ip", &address], 80, "next");
    assert_eq!(host.neighbour(&call(&address, 80)), format!("next {NEIGHBOUR}"));

    // Joined and left while it runs.
    let id = serve(&host, &[], 80, "late");
    host.ok(&["network", "connect", "--ip", "198.51.100.90", "lan", &id]);
    assert_eq!(host.neighbour(&call("198.51.100.90", 80)), format!("late {NEIGHBOUR}"));
    host.ok(&["network", "disconnect", "lan", &id]);
    assert_ne!(host.rrun(&["exec", &id, "ip", "link", "show", "eth1"]).code, 0);
    let e = host.fails(1, &["network", "connect", "lan", &next]);
    assert!(e.contains("already exists in network lan"), "{e}");
}

#[test]
fn ipvlan_l3_routes_by_device() {
    if lacks(&["ipvlan"]) {
        return;
    }
    let host = Host::new().with_lan();
    for mode in ["l3", "l3s"] {
        create(
            &host,
            "ipvlan",
            mode,
            &[
                "--subnet",
                "10.7.0.0/24",
                "--subnet",
                "10.7.1.0/24",
                "--ipv6",
                "--subnet",
                "fd07::/64",
                "-o",
                "parent=lan0",
                "-o",
                &format!("ipvlan_mode={mode}"),
            ],
        );
        host.neighbour(&format!("ip route replace 10.7.0.0/16 via {HOST_LAN} onlink dev eth0; ip -6 route replace fd07::/64 via 2001:db8:51::1"));
        let web = serve_as(&host, "tcp", &["--network", mode, "--name", "web", "--ip", "10.7.1.9"], "::", 80, "web");
        assert_eq!(link_of(&host, &web, "eth0")["linkinfo"]["info_data"]["mode"], mode);
        assert_eq!(endpoint(&host, &web, mode, "Gateway"), "");
        let routes = host.ok(&["exec", &web, "sh", "-c", "ip route; ip -6 route"]);
        assert!(routes.contains("default dev eth0") && !routes.contains("via"), "{routes}");
        assert_eq!(routes.matches("default dev eth0").count(), 2, "both families: {routes}");
        let out = host.ok(&[
            "run",
            "--rm",
            "--network",
            mode,
            "-v",
            &mount(),
            "busybox",
            "sh",
            "-c",
            &format!("ip -o -4 addr show eth0; {}", call_inside("10.7.1.9", 80)),
        ]);
        assert!(
            out.contains("10.7.0.1/24") && out.contains("web 10.7.0.1"),
            "from another subnet, through the parent: {out}"
        );
        // The neighbour routes to the host, which hands it up by address.
        assert_eq!(host.neighbour(&call("10.7.1.9", 80)), format!("web {NEIGHBOUR}"), "{mode}");
        let address6 = endpoint(&host, &web, mode, "GlobalIPv6Address");
        assert_eq!(host.neighbour(&call(&address6, 80)), format!("web {NEIGHBOUR6}"), "{mode}");
        host.ok(&["rm", "-f", "web"]);
        host.ok(&["network", "rm", mode]);
    }
}

#[test]
fn ipvlan_flags_keep_siblings_apart() {
    if lacks(&["ipvlan"]) {
        return;
    }
    let host = Host::new().with_lan();
    for flag in ["private", "vepa"] {
        create(&host, "ipvlan", flag, &[&ON_LAN[..], &["-o", &format!("ipvlan_flag={flag}")]].concat());
        let web = serve(&host, &["--network", flag], 80, "web");
        let address = endpoint(&host, &web, flag, "IPAddress");
        assert_eq!(host.neighbour(&call(&address, 80)), format!("web {NEIGHBOUR}"));
        let ran =
            host.rrun(&["run", "--rm", "--network", flag, "-v", &mount(), "busybox", PROGRAM, "call", &address, "80"]);
        assert_ne!(ran.code, 0, "{flag}: {}", ran.stdout);
        host.ok(&["rm", "-f", &web]);
        host.ok(&["network", "rm", flag]);
    }
}

#[test]
fn ipvlan_gives_the_host_access() {
    if lacks(&["ipvlan"]) {
        return;
    }
    let host = Host::new().with_lan();
    for mode in ["l2", "l3"] {
        create(
            &host,
            "ipvlan",
            mode,
            &[
                "--subnet",
                "10.7.0.0/24",
                "-o",
                "parent=lan0",
                "-o",
                "host_access=true",
                "-o",
                &format!("ipvlan_mode={mode}"),
            ],
        );
        let shim = format!("hs-{}", &inspect(&host, mode)["Id"].as_str().expect("an ID")[..12]);
        let web = serve(&host, &["--network", mode], 80, "web");
        let address = endpoint(&host, &web, mode, "IPAddress");
        assert_eq!(host.sh(&call(&address, 80)), "web 10.7.0.254", "{mode}");
        let _server = Server::on_host(&host, "tcp", "0.0.0.0", 7001, "host");
        let out = host.ok(&[
            "run",
            "--rm",
            "--network",
            mode,
            "-v",
            &mount(),
            "busybox",
            PROGRAM,
            "call",
            "10.7.0.254",
            "7001",
        ]);
        assert!(out.starts_with("host 10.7.0."), "{mode}: {out}");
        host.ok(&["rm", "-f", &web]);
        host.ok(&["network", "rm", mode]);
        is_gone(&host, &shim);
    }
}

#[test]
fn without_a_parent_a_wire_of_their_own() {
    if lacks(&["dummy", "macvlan", "ipvlan"]) {
        return;
    }
    let host = Host::new().with_lan();
    for (driver, prefix) in [("macvlan", "dm"), ("ipvlan", "di")] {
        let id = create(&host, driver, "inner", &["--subnet", "10.7.0.0/24", "--gateway", "10.7.0.1"]);
        let dummy = format!("{prefix}-{}", &id[..12]);
        assert!(host.sh(&format!("ip -d link show {dummy}")).contains("dummy"));
        assert_eq!(host.sh(&format!("ip -o addr show {dummy}")), "", "the host is not on it");
        assert_eq!(inspect(&host, "inner")["Internal"], true);
        let web = serve(&host, &["--network", "inner", "--name", "web"], 80, "web");
        let out = host.ok(&[
            "run",
            "--rm",
            "--network",
            "inner",
            "-v",
            &mount(),
            "busybox",
            "sh",
            "-c",
            &format!(
                "{PROGRAM} call $(nslookup web 127.0.0.11 | sed -n 's/^Address: //p' | grep -F 10.7.) 80; ip route"
            ),
        ]);
        assert!(out.starts_with("web 10.7.0.3") && !out.contains("default"), "{driver}: {out}");
        // Lost behind our back, with the devices of running containers.
        host.sh(&format!("ip link del {dummy}"));
        let ran = host.rrun(&["network", "ls"]).expect(0);
        assert!(
            ran.stderr.contains(&format!("restored: parent {dummy} of network inner was missing")),
            "{}",
            ran.stderr
        );
        assert!(ran.stderr.contains("restored: eth0 of container web was missing"), "{}", ran.stderr);
        let again = host.ok(&[
            "run",
            "--rm",
            "--network",
            "inner",
            "-v",
            &mount(),
            "busybox",
            PROGRAM,
            "call",
            "10.7.0.2",
            "80",
        ]);
        assert!(again.starts_with("web "), "{driver}: {again}");
        host.ok(&["rm", "-f", &web]);
        host.sh(&format!("ip link del {dummy}"));
        host.ok(&["run", "--rm", "--network", "inner", "busybox", "true"]);
        host.sh(&format!("ip link show {dummy}"));
        host.ok(&["network", "rm", "inner"]);
        is_gone(&host, &dummy);
    }
}

#[test]
fn a_tagged_parent_is_made_and_removed() {
    if lacks(&["8021q", "macvlan", "ipvlan"]) {
        return;
    }
    let host = Host::new().with_lan();
    host.neighbour("ip link add link eth0 name eth0.50 type vlan id 50; ip addr add 10.50.0.250/24 dev eth0.50; ip link set eth0.50 up");
    for driver in ["macvlan", "ipvlan"] {
        create(
            &host,
            driver,
            "tagged",
            &["--subnet", "10.50.0.0/24", "--gateway", "10.50.0.250", "-o", "parent=lan0.50"],
        );
        let link = &host.ip("-d link show lan0.50")[0];
        assert_eq!((&link["linkinfo"]["info_data"]["id"], &link["link"]), (&50.into(), &"lan0".into()));
        assert_eq!(host.sh("ip -o addr show lan0.50"), "", "the host stays off the containers' VLAN");
        let mut dump = tcpdump(&host);
        let web = serve(&host, &["--network", "tagged", "--name", "web"], 80, "web");
        let address = endpoint(&host, &web, "tagged", "IPAddress");
        assert_eq!(host.neighbour(&call(&address, 80)), "web 10.50.0.250");
        let seen = eventually("a tagged frame", || {
            let mut line = String::new();
            std::io::BufRead::read_line(&mut dump.1, &mut line).ok()?;
            (line.contains("vlan 50") && line.contains(&address)).then_some(line)
        });
        assert!(seen.contains("802.1Q"), "{seen}");
        let _ = dump.0.kill();
        let _ = dump.0.wait();
        // Lost with everything on it.
        host.sh("ip link del lan0.50");
        let ran = host.rrun(&["network", "ls"]).expect(0);
        assert!(ran.stderr.contains("restored: parent lan0.50 of network tagged was missing"), "{}", ran.stderr);
        assert_eq!(host.neighbour(&call(&address, 80)), "web 10.50.0.250");
        host.ok(&["rm", "-f", "web"]);
        if driver == "macvlan" {
            // The last network takes it along, whichever that is.
            create(&host, driver, "second", &["--subnet", "10.51.0.0/24", "-o", "parent=lan0.50"]);
            host.ok(&["network", "rm", "tagged"]);
            host.sh("ip link show lan0.50");
            host.ok(&["network", "rm", "second"]);
        } else {
            host.ok(&["network", "rm", "tagged"]);
        }
        is_gone(&host, "lan0.50");
    }
    // One that was there before stays.
    host.sh("ip link add link lan0 name lan0.60 type vlan id 60; ip link set lan0.60 up");
    create(&host, "macvlan", "theirs", &["--subnet", "10.60.0.0/24", "-o", "parent=lan0.60"]);
    host.ok(&["run", "--rm", "--network", "theirs", "busybox", "true"]);
    host.ok(&["network", "rm", "theirs"]);
    host.sh("ip link show lan0.60; ip link del lan0.60");
    // Its parent is down: said at once, and nothing stays behind.
    host.sh("ip link set lan0 down");
    let e =
        host.refuses(&["network", "create", "-d", "macvlan", "--subnet", "10.70.0.0/24", "-o", "parent=lan0.70", "x"]);
    assert!(e.contains("lan0.70") && e.contains("hint: ip link set lan0 up"), "{e}");
    is_gone(&host, "lan0.70");
    assert!(!host.ok(&["network", "ls"]).contains(" x "));
    host.sh("ip link set lan0 up");
}

/// What arrives at the neighbour with a tag, one line a frame.
fn tcpdump(host: &Host) -> (std::process::Child, std::io::BufReader<std::process::ChildStdout>) {
    use std::process::{Command, Stdio};
    let mut c = Command::new("tcpdump");
    c.args(["-lnei", "eth0", "vlan"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    host.enter_neighbour(&mut c);
    let mut child = c.spawn().expect("tcpdump");
    // Its first words: it listens.
    let mut first = [0u8; 1];
    std::io::Read::read_exact(child.stderr.as_mut().expect("piped"), &mut first).expect("tcpdump's greeting");
    let out = child.stdout.take().expect("piped");
    (child, std::io::BufReader::new(out))
}

/// A host has an eth0 of its own, whose name its containers' devices have, too.
#[test]
fn the_hosts_eth0_is_not_in_the_way() {
    if lacks(&["dummy", "macvlan", "ipvlan"]) {
        return;
    }
    let host = Host::new();
    host.sh("ip link add eth0 type dummy; ip link set eth0 up; ip link add eth1 type dummy");
    create(&host, "macvlan", "mac", &["--subnet", "10.7.0.0/24", "-o", "parent=eth0"]);
    create(&host, "ipvlan", "ip", &["--subnet", "10.8.0.0/24"]);
    for network in ["mac", "ip"] {
        let id = serve(&host, &["--network", network], 80, "web");
        assert_eq!(link_of(&host, &id, "eth0")["ifname"], "eth0", "{network}");
        host.ok(&["network", "connect", if network == "mac" { "ip" } else { "mac" }, &id]);
        assert_eq!(link_of(&host, &id, "eth1")["ifname"], "eth1", "{network}");
        host.ok(&["rm", "-f", &id]);
    }
    host.ok(&["network", "rm", "mac", "ip"]);
    host.sh("ip link del eth0; ip link del eth1");
}
