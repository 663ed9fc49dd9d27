//! macvlan networks, and what ipvlan shares with them: containers as machines of their own on the host's LAN.
//!
//! The LAN is a cable to a neighbour; `lan0`, the host's end of it, is the parent.

use rrun_tests::Host;
use rrun_tests::host::{HOST_LAN, HOST_LAN6, NEIGHBOUR, NEIGHBOUR6, eventually};
use rrun_tests::kernel::lacks;
use rrun_tests::lan::{LAN6, RANGE, SUBNET, create, endpoint, inspect, is_gone, link_of};
use rrun_tests::peer::{PROGRAM, Server, call, call_inside, mount, serve, serve_as};

/// A host with a LAN and a network `lan` of this driver on it.
fn on_lan(driver: &str, options: &[&str]) -> Host {
    let host = Host::new().with_lan();
    create(
        &host,
        driver,
        "lan",
        &[&["--subnet", SUBNET, "--ip-range", RANGE, "--gateway", NEIGHBOUR, "-o", "parent=lan0"], options].concat(),
    );
    host
}

/// Everything that a macvlan in mode bridge is: its own machine on the LAN, siblings and all.
#[test]
fn macvlan_bridge_is_on_the_lan() {
    if lacks(&["macvlan"]) {
        return;
    }
    let host = on_lan("macvlan", &LAN6);
    let web = serve_as(&host, "tcp", &["--network", "lan", "--name", "web"], "::", 80, "web");
    let address = endpoint(&host, &web, "lan", "IPAddress");
    let address6 = endpoint(&host, &web, "lan", "GlobalIPv6Address");
    assert_eq!(address, "198.51.100.64", "the first of the range: nothing is reserved but the gateway");
    assert_eq!(endpoint(&host, &web, "lan", "Gateway"), NEIGHBOUR);
    assert_eq!(endpoint(&host, &web, "lan", "IPv6Gateway"), NEIGHBOUR6);
    assert_eq!(host.neighbour(&call(&address, 80)), format!("web {NEIGHBOUR}"), "the LAN reaches it as it is");
    assert_eq!(host.neighbour(&call(&address6, 80)), format!("web {NEIGHBOUR6}"));
    let mac = endpoint(&host, &web, "lan", "MacAddress");
    assert!(host.neighbour(&format!("ip neigh show {address}")).contains(&mac), "under its own MAC address");
    assert_ne!(host.try_sh(&call(&address, 80)).code, 0, "the host does not, through its own parent");

    let server = Server::on_neighbour(&host, "tcp", "::", 7000, "lan");
    let inside =
        |command: &str| host.ok(&["run", "--rm", "--network", "lan", "-v", &mount(), "busybox", "sh", "-c", command]);
    let out = inside(&format!(
        "{}; {}; {}; {PROGRAM} call $(nslookup web 127.0.0.11 | sed -n 's/^Address: //p' | grep -F 198.) 80",
        call_inside(NEIGHBOUR, 7000),
        call_inside(NEIGHBOUR6, 7000),
        call_inside(&address, 80)
    ));
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "lan 198.51.100.65", "the LAN sees the container's own address");
    assert!(lines[1].starts_with("lan 2001:db8:51::"), "{out}");
    assert_eq!(&lines[2..], ["web 198.51.100.65", "web 198.51.100.65"], "a sibling, by address and by name");
    drop(server);

    let link = link_of(&host, &web, "eth0");
    assert_eq!(link["linkinfo"]["info_kind"], "macvlan");
    assert_eq!(link["linkinfo"]["info_data"]["mode"], "bridge");
    assert!(host.try_sh("nft list table inet rrun").code != 0, "no firewall for a network without bridges");

    let net = inspect(&host, "lan");
    assert_eq!((net["Driver"].as_str(), net["Options"]["parent"].as_str()), (Some("macvlan"), Some("lan0")));
    assert_eq!(net["Containers"][&web]["IPv4Address"], "198.51.100.64/24");
    assert_eq!(net["Containers"][&web]["MacAddress"], mac.as_str());
    let e = host.fails(1, &["network", "rm", "lan"]);
    assert!(e.contains("network lan has active endpoints (name:\"web\""), "{e}");
    host.ok(&["rm", "-f", "web"]);
    host.ok(&["network", "rm", "lan"]);
    host.sh("ip link show lan0");
}

#[test]
fn host_access_is_a_device_of_the_hosts_own() {
    if lacks(&["macvlan"]) {
        return;
    }
    let host =
        on_lan("macvlan", &[&LAN6[..], &["-o", "host_access=true", "--aux-address", "host=198.51.100.70"]].concat());
    let net = inspect(&host, "lan");
    let shim = format!("hs-{}", &net["Id"].as_str().expect("an ID")[..12]);
    let own6 = net["IPAM"]["Config"][1]["AuxiliaryAddresses"]["host"].as_str().expect("chosen").to_string();
    assert!(host.sh(&format!("ip -o addr show {shim}")).contains("198.51.100.70/32"), "as asked for");
    let web = serve_as(&host, "tcp", &["--network", "lan"], "::", 80, "web");
    let (address, address6) =
        (endpoint(&host, &web, "lan", "IPAddress"), endpoint(&host, &web, "lan", "GlobalIPv6Address"));
    assert_eq!(host.sh(&call(&address, 80)), "web 198.51.100.70");
    assert_eq!(host.sh(&call(&address6, 80)), format!("web {own6}"));
    assert_eq!(host.neighbour(&call(&address, 80)), format!("web {NEIGHBOUR}"));

    // And back: at the host's address on the network, and at its address on the LAN.
    let _server = Server::on_host(&host, "tcp", "::", 7001, "host");
    for there in ["198.51.100.70", own6.as_str(), HOST_LAN] {
        let out =
            host.ok(&["run", "--rm", "--network", "lan", "-v", &mount(), "busybox", PROGRAM, "call", there, "7001"]);
        assert!(out.starts_with("host "), "{there}: {out}");
    }
    // The LAN finds the host where it was: the shim does not answer for it.
    let lan_mac = host.ip("link show lan0")[0]["address"].as_str().expect("a MAC").to_string();
    host.neighbour(&format!(
        "ip neigh flush dev eth0; {}; ip neigh show {HOST_LAN} | grep -q {lan_mac}",
        call(HOST_LAN, 7001)
    ));

    // Another container cannot be given the host's address.
    let e = host.fails(125, &["run", "--rm", "--network", "lan", "--ip", "198.51.100.70", "busybox", "true"]);
    assert!(e.contains("Address already in use"), "{e}");
    host.ok(&["rm", "-f", &web]);
    assert_eq!(
        host.sh(&format!("ip route show dev {shim}; ip -6 route show dev {shim} proto static")),
        "",
        "no route outlives its container"
    );

    // Networks that come and go while a container runs have their routes too.
    let id = serve(&host, &[], 80, "late");
    host.ok(&["network", "connect", "--ip", "198.51.100.90", "lan", &id]);
    assert_eq!(host.sh(&call("198.51.100.90", 80)), "late 198.51.100.70");
    host.ok(&["network", "disconnect", "lan", &id]);
    assert_eq!(host.sh(&format!("ip route show dev {shim}")), "");
    host.ok(&["network", "rm", "lan"]);
    is_gone(&host, &shim);

    let e = host.refuses(&[
        "network",
        "create",
        "-d",
        "macvlan",
        "-o",
        "parent=lan0",
        "-o",
        "macvlan_mode=private",
        "-o",
        "host_access=true",
        "x",
    ]);
    assert!(e.contains("host_access is not possible with macvlan mode private") && e.contains("hint:"), "{e}");
}

#[test]
fn private_and_vepa_keep_siblings_apart() {
    if lacks(&["macvlan"]) {
        return;
    }
    let host = Host::new().with_lan();
    for mode in ["private", "vepa"] {
        create(
            &host,
            "macvlan",
            mode,
            &["--subnet", SUBNET, "--ip-range", RANGE, "-o", "parent=lan0", "-o", &format!("macvlan_mode={mode}")],
        );
        let web = serve(&host, &["--network", mode], 80, "web");
        assert_eq!(link_of(&host, &web, "eth0")["linkinfo"]["info_data"]["mode"], mode);
        let address = endpoint(&host, &web, mode, "IPAddress");
        assert_eq!(host.neighbour(&call(&address, 80)), format!("web {NEIGHBOUR}"), "the LAN reaches it in every mode");
        let ran =
            host.rrun(&["run", "--rm", "--network", mode, "-v", &mount(), "busybox", PROGRAM, "call", &address, "80"]);
        assert_ne!(ran.code, 0, "{mode}: a sibling does not: {}", ran.stdout);
        assert_eq!(endpoint(&host, &web, mode, "Gateway"), "", "none was given");
        assert!(!host.ok(&["exec", &web, "ip", "route"]).contains("default"));
        host.ok(&["rm", "-f", &web]);
        host.ok(&["network", "rm", mode]);
    }
}

#[test]
fn passthru_has_its_parent_to_itself() {
    if lacks(&["macvlan"]) {
        return;
    }
    let host = on_lan("macvlan", &["-o", "macvlan_mode=passthru"]);
    let mac = |host: &Host| host.ip("link show lan0")[0]["address"].as_str().expect("a MAC").to_string();
    let before = mac(&host);
    let web = serve(&host, &["--network", "lan", "--name", "web"], 80, "web");
    assert_eq!(link_of(&host, &web, "eth0")["linkinfo"]["info_data"]["mode"], "passthru");
    assert_eq!(link_of(&host, &web, "eth0")["address"], before.as_str(), "the parent's other self");
    assert_eq!(host.neighbour(&call(&endpoint(&host, &web, "lan", "IPAddress"), 80)), format!("web {NEIGHBOUR}"));
    let e = host.fails(125, &["run", "--rm", "--network", "lan", "busybox", "true"]);
    assert!(e.contains("passthru") && e.contains("web") && e.contains("hint:"), "{e}");
    host.ok(&["restart", "-t", "0", "web"]);
    host.ok(&["rm", "-f", "web"]);
    // A MAC address of one's own is the parent's too, for as long.
    host.ok(&[
        "run",
        "-d",
        "--name",
        "own",
        "--network",
        "lan",
        "--mac-address",
        "02:42:ac:11:00:42",
        "busybox",
        "sleep",
        "1000",
    ]);
    assert_eq!(mac(&host), "02:42:ac:11:00:42");
    assert_eq!(endpoint(&host, "own", "lan", "MacAddress"), "02:42:ac:11:00:42");
    host.ok(&["rm", "-f", "own"]);
    eventually("the parent has its own MAC address again", || (mac(&host) == before).then_some(()));
    let refused = |options: &[&str]| {
        host.fails(1, &[&["network", "create", "-d", "macvlan", "-o", "parent=lan0"], options, &["other"]].concat())
    };
    let id = inspect(&host, "lan")["Id"].as_str().expect("an ID").to_string();
    let e = refused(&["--subnet", "10.7.0.0/24"]);
    assert!(
        e.contains(&format!("macvlan network {id} is already using parent interface lan0 in mode passthru")),
        "{e}"
    );
    host.ok(&["network", "rm", "lan"]);
    let id = create(&host, "macvlan", "lan", &["--subnet", SUBNET, "-o", "parent=lan0"]);
    let e = refused(&["--subnet", "10.7.0.0/24", "-o", "macvlan_mode=passthru"]);
    assert!(
        e.contains(&format!("cannot use mode passthru, macvlan network {id} is already using parent interface lan0")),
        "{e}"
    );
}

#[test]
fn wishes_that_cannot_be_are_named() {
    let host = Host::new().with_lan();
    let cases: &[(&str, &[&str], &str)] = &[
        (
            "macvlan",
            &["-o", "macvlan_mode=x"],
            "requested macvlan mode 'x' is not valid, 'bridge' mode is the macvlan driver default",
        ),
        (
            "ipvlan",
            &["-o", "ipvlan_mode=x"],
            "requested ipvlan mode 'x' is not valid, 'l2' mode is the ipvlan driver default",
        ),
        (
            "ipvlan",
            &["-o", "ipvlan_flag=x"],
            "requested ipvlan flag 'x' is not valid, 'bridge' is the ipvlan driver default",
        ),
        ("macvlan", &["-o", "parent=lo"], "loopback interface is not a valid macvlan parent link"),
        ("ipvlan", &["-o", "parent=lo"], "loopback interface is not a valid ipvlan parent link"),
        ("macvlan", &["-o", "parent=eth7"], "invalid subinterface vlan name eth7, example formatting is eth0.10"),
        ("macvlan", &["-o", "parent=eth7.10"], "-o parent interface was not found on the host: eth7"),
        ("macvlan", &["-o", "parent=lan0.4095"], "vlan id must be between 1-4094, received: 4095"),
        ("ipvlan", &["-o", "parent=lan0.0"], "vlan id must be between 1-4094, received: 0"),
        ("macvlan", &["-o", "parent=lan0.x"], "unable to parse a valid vlan id from: x"),
        ("macvlan", &["-o", "colour=red"], "unknown option colour of network driver macvlan"),
        ("macvlan", &["-o", "com.docker.network.driver.mtu=-1", "-o", "parent=lan0"], "invalid MTU number: -1"),
    ];
    for (driver, flags, text) in cases {
        let e = host.refuses(&[&["network", "create", "-d", driver], *flags, &["x"]].concat());
        assert!(e.contains(text) && e.contains("hint:"), "{flags:?}: {e}");
    }
    assert_eq!(host.ok(&["network", "ls", "-q"]).lines().count(), 3, "nothing half-made");
    if !lacks(&["tun"]) {
        host.sh("ip tuntap add dev tun7 mode tun");
        for parent in ["parent=tun7", "parent=tun7.50"] {
            let e = host.refuses(&["network", "create", "-d", "ipvlan", "--subnet", "10.7.0.0/24", "-o", parent, "x"]);
            assert!(e.contains("tun7 is not a valid ipvlan parent link") && e.contains("hint:"), "{e}");
        }
        host.sh("ip link del tun7");
    }
    // One ipvlan network a parent; macvlan networks share theirs, but not with ipvlan.
    create(&host, "ipvlan", "ip", &["--subnet", "10.7.0.0/24", "-o", "parent=lan0"]);
    let e = host.fails(1, &["network", "create", "-d", "ipvlan", "--subnet", "10.8.0.0/24", "-o", "parent=lan0", "x"]);
    assert!(e.contains("network ip is already using parent interface lan0") && e.contains("hint:"), "{e}");
    let e = host.fails(1, &["network", "create", "-d", "macvlan", "--subnet", "10.8.0.0/24", "-o", "parent=lan0", "x"]);
    assert!(e.contains("network ip is already using parent interface lan0") && e.contains("not both"), "{e}");
    let e =
        host.fails(125, &["run", "--rm", "--network", "ip", "--mac-address", "02:42:ac:11:00:42", "busybox", "true"]);
    assert!(e.contains("ipvlan interfaces do not support custom mac address assignment") && e.contains("hint:"), "{e}");
}

#[test]
fn macvlan_networks_share_a_parent() {
    if lacks(&["macvlan"]) {
        return;
    }
    let host = on_lan("macvlan", &[]);
    create(&host, "macvlan", "second", &["--subnet", "10.7.0.0/29", "--subnet", "10.7.1.0/24", "-o", "parent=lan0"]);
    let web = serve(&host, &["--network", "second", "--ip", "10.7.1.9", "--name", "web"], 80, "web");
    let out = host.ok(&["exec", &web, "ip", "-o", "-4", "addr", "show", "eth0"]);
    assert!(out.contains("10.7.1.9/24"), "an address of the second subnet: {out}");
    // Six addresses in the first subnet, none of them a gateway's; then the second has its turn.
    let got: Vec<String> = (0..7)
        .map(|_| {
            let id = host.ok(&["run", "-d", "--network", "second", "busybox", "sleep", "1000"]);
            endpoint(&host, &id, "second", "IPAddress")
        })
        .collect();
    assert_eq!(got[0], "10.7.0.1");
    assert_eq!(&got[5..], ["10.7.0.6", "10.7.1.1"]);
    // Two networks, two interfaces, one parent; names of both.
    let out = host.ok(&[
        "run",
        "--rm",
        "--network",
        "lan",
        "--network",
        "second",
        "-v",
        &mount(),
        "busybox",
        "sh",
        "-c",
        &format!(
            "ip -o -4 addr | grep -o 'eth[01]' | sort -u; ip route add 10.7.1.9 dev eth1; {}; ip route show default",
            call_inside("10.7.1.9", 80)
        ),
    ]);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(&lines[..2], ["eth0", "eth1"]);
    assert!(lines[2].starts_with("web 10.7."), "{out}");
    assert!(lines[3].contains(NEIGHBOUR) && lines[3].contains("eth0"), "{out}");
}

#[test]
fn containers_come_go_and_restart() {
    if lacks(&["macvlan"]) {
        return;
    }
    let host = on_lan("macvlan", &[]);
    let flags = ["--network", "lan", "--name", "web", "--ip", "198.51.100.80", "--mac-address", "02:42:ac:11:00:50"];
    let id = serve(&host, &flags, 80, "web");
    for _ in 0..5 {
        host.ok(&["restart", "-t", "0", "web"]);
    }
    // The same addresses at once, though the kernel is still busy with the device of its last life.
    eventually("the server answers again", || (host.try_neighbour(&call("198.51.100.80", 80)).code == 0).then_some(()));
    assert_eq!(endpoint(&host, "web", "lan", "MacAddress"), "02:42:ac:11:00:50");
    let pid = host.ok(&["inspect", "-f", "{{.State.Pid}}", &id]);
    host.ok(&["kill", "web"]);
    eventually("its end is known", || (host.ok(&["ps", "-q"]).is_empty()).then_some(()));
    assert_ne!(pid, "0");
    host.ok(&["start", "web"]);

    // A bridge container joins the LAN while it runs, and leaves again; one that is stopped as well.
    let bridged = host.ok(&[
        "run",
        "-d",
        "--name",
        "bb",
        "-p",
        "8080:80",
        "-v",
        &mount(),
        "busybox",
        PROGRAM,
        "tcp",
        "0.0.0.0",
        "80",
        "bb",
    ]);
    host.ok(&["network", "connect", "--ip", "198.51.100.81", "--alias", "aka", "lan", "bb"]);
    assert_eq!(host.neighbour(&call("198.51.100.81", 80)), format!("bb {NEIGHBOUR}"));
    assert_eq!(
        host.sh(&call("127.0.0.1", 8080)).split(' ').next(),
        Some("bb"),
        "published through the bridge, which has the default route"
    );
    let out = host.ok(&["exec", "web", "nslookup", "aka", "127.0.0.11"]);
    assert!(out.contains("198.51.100.81"), "{out}");
    host.ok(&["network", "disconnect", "lan", "bb"]);
    assert_ne!(host.rrun(&["exec", "bb", "ip", "link", "show", "eth1"]).code, 0, "the device is gone at once");
    assert_eq!(
        host.ok(&["exec", "bb", "ip", "route", "show", "default"]).split_whitespace().nth(2),
        Some("172.17.0.1")
    );
    host.ok(&["stop", "-t", "0", "bb"]);
    host.ok(&["network", "connect", "lan", "bb"]);
    host.ok(&["network", "disconnect", "bridge", "bb"]);
    host.ok(&["start", "bb"]);
    let address = endpoint(&host, &bridged, "lan", "IPAddress");
    eventually("it serves the LAN", || (host.try_neighbour(&call(&address, 80)).code == 0).then_some(()));
    assert_eq!(host.ok(&["port", "bb"]), "", "and publishes nothing any more");
}

#[test]
fn nothing_is_published_and_ipv6_is_off() {
    if lacks(&["macvlan"]) {
        return;
    }
    let host = on_lan("macvlan", &[]);
    let ran = host.rrun(&["run", "-d", "--network", "lan", "-p", "8080:80", "busybox", "sleep", "1000"]).expect(0);
    assert!(ran.stderr.contains("Published ports are discarded when using macvlan network lan"), "{}", ran.stderr);
    assert_eq!(host.ok(&["port", ran.stdout.trim()]), "");
    assert_eq!(host.sh("ss -Hltn sport = :8080"), "", "nothing holds the port");
    let out = host.ok(&[
        "exec",
        ran.stdout.trim(),
        "sh",
        "-c",
        "ip -6 addr show eth0; cat /proc/sys/net/ipv6/conf/eth0/disable_ipv6",
    ]);
    assert_eq!(out, "1", "CVE-2024-32473");
    create(
        &host,
        "macvlan",
        "six",
        &[
            "--ipv6",
            "--subnet",
            "2001:db8:51::/64",
            "--ip-range",
            "2001:db8:51::100/120",
            "--ipv4=false",
            "-o",
            "parent=lan0",
        ],
    );
    let out = host.ok(&[
        "run",
        "--rm",
        "--network",
        "six",
        "busybox",
        "sh",
        "-c",
        "ip -o -4 addr show eth0; ip -o -6 addr show eth0 scope global; cat /proc/sys/net/ipv6/conf/eth0/accept_ra",
    ]);
    assert!(out.contains("2001:db8:51::100/64") && out.ends_with("\n0") && !out.contains("inet "), "{out}");
}

#[test]
fn an_automatic_network_on_the_default_route() {
    if lacks(&["macvlan"]) {
        return;
    }
    let host = Host::new();
    let e = host.fails(125, &["run", "--rm", "--network", "macvlan", "busybox", "true"]);
    assert!(e.contains("network macvlan not found, and no default route") && e.contains("hint:"), "{e}");
    drop(host);

    let host = Host::new().with_lan();
    let _server = Server::on_neighbour(&host, "tcp", "::", 7000, "lan");
    assert_eq!(host.ok(&["network", "ls", "-q"]).lines().count(), 3, "not before it is used");
    let args = ["run", "--rm", "--network", "macvlan", "-v", &mount(), "busybox", PROGRAM, "call", NEIGHBOUR, "7000"];
    let explained = host.ok(&[&["explain"], &args[..]].concat());
    assert!(explained.contains("on top of lan0 of the host (macvlan, mode bridge)"), "{explained}");
    assert_eq!(host.ok(&["network", "ls", "-q"]).lines().count(), 3, "explaining makes nothing");
    let ran = host.rrun(&args).expect(0);
    assert_eq!(ran.stdout, "lan 198.51.100.192\n", "the last quarter of the LAN");
    let told: Vec<&str> = ran.stderr.lines().collect();
    assert_eq!(told.len(), 1, "{}", ran.stderr);
    assert!(
        told[0].contains("made network macvlan on lan0") && told[0].contains("198.51.100.192/26"),
        "{}",
        ran.stderr
    );
    let again = host.rrun(&args).expect(0);
    assert_eq!(again.stderr, "", "said once");
    let net = inspect(&host, "macvlan");
    assert_eq!(net["IPAM"]["Config"][0]["Gateway"], NEIGHBOUR);
    assert_eq!(net["IPAM"]["Config"][0]["AuxiliaryAddresses"]["this-host"], HOST_LAN);
    assert_eq!(net["IPAM"]["Config"][1]["AuxiliaryAddresses"]["this-host"], HOST_LAN6);
    let e = host.fails(125, &["run", "--rm", "--network", "ipvlan", "busybox", "true"]);
    assert!(e.contains("network macvlan is already using parent interface lan0") && e.contains("hint:"), "{e}");
    host.ok(&["network", "rm", "macvlan"]);

    // A network of that name is just that.
    create(&host, "bridge", "macvlan", &["--subnet", "10.7.0.0/24"]);
    assert!(
        host.ok(&["run", "--rm", "--network", "macvlan", "busybox", "ip", "-o", "-4", "addr"]).contains("10.7.0.2/24")
    );
    host.ok(&["network", "rm", "macvlan"]);
    // On a running container.
    let id = host.ok(&["run", "-d", "busybox", "sleep", "1000"]);
    let ran = host.rrun(&["network", "connect", "macvlan", &id]).expect(0);
    assert!(ran.stderr.contains("made network macvlan on lan0"), "{}", ran.stderr);
}

#[test]
fn what_is_lost_behind_our_back_comes_back() {
    if lacks(&["macvlan"]) {
        return;
    }
    let host = on_lan("macvlan", &["-o", "host_access=true"]);
    let shim = format!("hs-{}", &inspect(&host, "lan")["Id"].as_str().expect("an ID")[..12]);
    let web = serve(&host, &["--network", "lan", "--name", "web"], 80, "web");
    let address = endpoint(&host, &web, "lan", "IPAddress");
    let reached = || host.sh(&call(&address, 80));
    let own = reached();
    host.sh(&format!("ip link del {shim}"));
    assert_ne!(host.try_sh(&call(&address, 80)).code, 0);
    let ran = host.rrun(&["network", "ls"]).expect(0);
    assert!(ran.stderr.contains(&format!("restored: shim {shim} of network lan was missing")), "{}", ran.stderr);
    assert_eq!(reached(), own, "shim and route are back");
    assert_eq!(host.rrun(&["network", "ls"]).expect(0).stderr, "", "and nothing is missing");
    host.sh(&format!("ip route add 198.51.100.99 dev {shim} proto static"));
    let ran = host.rrun(&["network", "ls"]).expect(0);
    assert!(ran.stderr.contains("the host still had a route to 198.51.100.99"), "{}", ran.stderr);

    // The device of a running container: as when its parent went and came back.
    let pid = host.ok(&["inspect", "-f", "{{.State.Pid}}", "web"]);
    host.sh(&format!("nsenter -t {pid} -n ip link del eth0"));
    let ran = host.rrun(&["network", "ls"]).expect(0);
    assert!(ran.stderr.contains("restored: eth0 of container web was missing"), "{}", ran.stderr);
    assert_eq!(reached(), own);
    assert_eq!(host.neighbour(&call(&address, 80)), format!("web {NEIGHBOUR}"));
    assert!(host.ok(&["exec", "web", "ip", "route", "show", "default"]).contains(NEIGHBOUR));

    // It is limited as the lost one was.
    if !lacks(&["tbf"]) {
        let slow =
            ["run", "-d", "--name", "slow", "--network", "lan", "--net-rate", "out=4mbit", "busybox", "sleep", "1000"];
        host.ok(&slow);
        let pid = host.ok(&["inspect", "-f", "{{.State.Pid}}", "slow"]);
        let rate = || host.sh(&format!("nsenter -t {pid} -n tc qdisc show dev eth0"));
        assert!(rate().contains("tbf") && rate().contains("rate 4Mbit"), "{}", rate());
        host.sh(&format!("nsenter -t {pid} -n ip link del eth0"));
        host.rrun(&["network", "ls"]).expect(0);
        assert!(rate().contains("tbf") && rate().contains("rate 4Mbit"), "{}", rate());
        host.ok(&["rm", "-f", "slow"]);
    }

    // A parent that only the administrator can make.
    host.ok(&["rm", "-f", "web"]);
    host.sh("ip link set lan0 down; ip link set lan0 name lan9");
    let e = host.fails(125, &["run", "--rm", "--network", "lan", "busybox", "true"]);
    assert!(e.contains("-o parent interface was not found on the host: lan0") && e.contains("hint:"), "{e}");
    host.sh("ip link set lan9 name lan0; ip link set lan0 up");
    host.ok(&["run", "--rm", "--network", "lan", "busybox", "true"]);
}

#[test]
fn the_plan_speaks_of_devices_and_parents() {
    let host = Host::new().with_lan();
    create(&host, "macvlan", "lan", &["--subnet", SUBNET, "--ip-range", RANGE, "-o", "parent=lan0"]);
    let words = host.ok(&["explain", "run", "--network", "lan", "busybox", "true"]);
    for text in [
        "create eth0 inside the container, on top of lan0 of the host (macvlan, mode bridge)",
        "$ ip link add link lan0 name eth0 address ",
        "netns \"$NETNS\" type macvlan mode bridge",
        "undo: none needed",
    ] {
        let shown = words.contains(text) || text.starts_with("undo") && words.contains("undo:");
        assert!(shown, "{text:?} not in\n{words}");
    }
    assert!(!words.contains("nft add element inet rrun publish"), "{words}");
    let script = host.ok(&["explain", "run", "--script", "--network", "lan", "busybox", "true"]);
    assert!(script.contains("type macvlan mode bridge"), "{script}");
}
