//! What Podman's users bring along beside Docker's flags.

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};
use rrun_tests::Host;
use rrun_tests::host::HOST_LAN;
use rrun_tests::kernel::lacks;
use rrun_tests::lan::{RANGE, SUBNET, create, endpoint, inspect};
use rrun_tests::peer::{call, serve};
use std::os::fd::AsRawFd;

#[test]
fn a_network_with_its_options_behind_a_colon() {
    let host = Host::new();
    host.ok(&["network", "create", "--ipv6", "--subnet", "10.1.0.0/24", "--subnet", "fd00:1::/64", "a"]);
    host.ok(&["network", "create", "--subnet", "10.2.0.0/24", "b"]);
    let a = "a:ip=10.1.0.9,ip=fd00:1::9,mac=02:42:ac:00:00:05,alias=Www,interface_name=lan0,host_interface_name=web-a";
    let web = serve(&host, &["--name", "web", "--network", a, "--network", "b:alias=x"], 80, "web");
    assert_eq!(endpoint(&host, &web, "a", "IPAddress"), "10.1.0.9");
    assert_eq!(endpoint(&host, &web, "a", "GlobalIPv6Address"), "fd00:1::9");
    assert_eq!(endpoint(&host, &web, "a", "MacAddress"), "02:42:ac:00:00:05");
    assert!(host.ok(&["exec", &web, "ip", "link", "show", "lan0"]).contains("02:42:ac:00:00:05"));
    let port = host.ip("link show web-a");
    assert_eq!(port[0]["master"], inspect(&host, "a")["Id"].as_str().map(|id| format!("br-{}", &id[..12])).unwrap());
    let names = [
        "run",
        "--rm",
        "--network",
        "a",
        "--network",
        "b",
        "busybox",
        "sh",
        "-c",
        "wget -qO- -T2 http://Www; nslookup x",
    ];
    assert!(host.rrun(&names).stdout.contains("10.2.0.2"), "{:?}", host.rrun(&names));
    // The name is somebody's while it lives, and its own again in the next life.
    let e = host.refuses(&["run", "--rm", "--network", "a:host_interface_name=web-a", "busybox", "true"]);
    assert!(e.contains("the host has an interface web-a already") && e.contains("hint:"), "{e}");
    host.ok(&["restart", "-t", "0", "web"]);
    assert_eq!(host.ip("link show web-a")[0]["operstate"], "UP");
    host.ok(&["network", "disconnect", "a", "web"]);
    let option = "com.docker.network.endpoint.host_ifname=web-late";
    host.ok(&["network", "connect", "--driver-opt", option, "a", "web"]);
    host.ip("link show web-late");
    for (spec, text) in [
        ("a:colour=red", "invalid field key colour"),
        ("a:name=b", "invalid field key name"),
        ("a:ip=10.1.0.300", "10.1.0.300"),
        ("a:host_interface_name=much-too-long-a-name", "invalid interface name \"much-too-long-a-name\""),
        ("c:alias=x", "network c not found"),
    ] {
        let e = host.refuses(&["run", "--rm", "--network", spec, "busybox", "true"]);
        assert!(e.contains(text) && e.contains("hint:"), "{spec}: {e}");
    }
}

#[test]
fn an_ip_range_from_one_address_to_another() {
    let host = Host::new();
    let span = ["--ip-range", "10.3.0.10-10.3.0.12", "--ip-range", "fd00:3::a0-fd00:3::a9"];
    host.ok(
        &[&["network", "create", "--subnet", "10.3.0.0/24", "--subnet", "fd00:3::/64"], &span[..], &["net"]].concat()
    );
    let config = inspect(&host, "net")["IPAM"]["Config"].clone();
    assert_eq!((&config[0]["IPRange"], &config[0]["Gateway"]), (&"10.3.0.10-10.3.0.12".into(), &"10.3.0.10".into()));
    assert_eq!(config[1]["IPRange"], "fd00:3::a0-fd00:3::a9");
    for (n, (v4, v6)) in [("10.3.0.11", "fd00:3::a1"), ("10.3.0.12", "fd00:3::a2")].into_iter().enumerate() {
        let name = format!("c{n}");
        host.ok(&["run", "-d", "--name", &name, "--network", "net", "busybox", "sleep", "1000"]);
        assert_eq!(endpoint(&host, &name, "net", "IPAddress"), v4);
        assert_eq!(endpoint(&host, &name, "net", "GlobalIPv6Address"), v6);
    }
    let status = &inspect(&host, "net")["Status"]["IPAM"]["Subnets"];
    assert_eq!(status["10.3.0.0/24"]["DynamicIPsAvailable"], 0);
    assert_eq!(status["fd00:3::/64"]["DynamicIPsAvailable"], 7);
    let e = host.refuses(&["run", "--rm", "--network", "net", "busybox", "true"]);
    assert!(
        e.contains("no available IPv4 addresses on this network's address pools: net (") && e.contains(span[1]),
        "{e}"
    );
    // Outside of it on request, as with a block.
    host.ok(&["run", "--rm", "--network", "net", "--ip", "10.3.0.200", "busybox", "true"]);
    for (range, text) in [
        ("10.3.0.12-10.3.0.10", "invalid ip-range 10.3.0.12-10.3.0.10: it ends before it begins"),
        ("10.3.0.10-fd00::1", "the addresses are of different families"),
        (
            "10.3.0.10-10.4.0.10",
            "invalid ip-range 10.3.0.10-10.4.0.10: it is bigger than its parent subnet 10.3.0.0/24",
        ),
        ("10.4.0.1-10.4.0.9", "parent subnet 10.3.0.0/24 doesn't contain ip-range"),
        ("10.3.0.10-many", "not two addresses"),
    ] {
        let e = host.refuses(&["network", "create", "--subnet", "10.3.0.0/24", "--ip-range", range, "x"]);
        assert!(e.contains(text) && e.contains("hint:"), "{range}: {e}");
    }
    // One network may take another's settings.
    host.ok(&[
        "network",
        "create",
        "--config-only",
        "--subnet",
        "10.5.0.0/24",
        "--ip-range",
        "10.5.0.7-10.5.0.9",
        "plan",
    ]);
    host.ok(&["network", "create", "--config-from", "plan", "taken"]);
    assert_eq!(inspect(&host, "taken")["IPAM"]["Config"][0]["IPRange"], "10.5.0.7-10.5.0.9");
}

#[test]
fn a_hosts_file_of_the_host() {
    let host = Host::new();
    let file = host.dir.join("tmp/my-hosts");
    host.sh(&format!("printf '# ours\\n192.0.2.1 printer' > {}", file.display()));
    let file = file.to_str().expect("UTF-8");
    let hosts = |flags: &[&str]| host.ok(&[&["run", "--rm"], flags, &["busybox", "cat", "/etc/hosts"]].concat());
    let text = hosts(&["--hosts-file", file, "--add-host", "db:10.0.0.5"]);
    let at = |line: &str| text.find(line).unwrap_or_else(|| panic!("{line:?} not in\n{text}"));
    assert!(at("127.0.0.1\tlocalhost") < at("10.0.0.5\tdb") && at("172.17.0.2\t") < at("# ours\n192.0.2.1 printer"));
    assert_eq!(hosts(&["--network", "host", "--hosts-file", file]), "# ours\n192.0.2.1 printer");
    assert!(!hosts(&["--hosts-file", "none"]).contains("printer"));
    // Read at each start, and followed by a network that comes.
    host.ok(&["create", "--name", "web", "--hosts-file", file, "busybox", "sleep", "1000"]);
    host.sh(&format!("echo '192.0.2.2 scanner' > {file}"));
    host.ok(&["start", "web"]);
    host.ok(&["network", "create", "--subnet", "10.9.0.0/24", "net"]);
    host.ok(&["network", "connect", "net", "web"]);
    let text = host.ok(&["exec", "web", "cat", "/etc/hosts"]);
    assert!(text.contains("192.0.2.2 scanner") && text.contains("10.9.0.2\t") && !text.contains("printer"), "{text}");
    host.ok(&["stop", "-t", "0", "web"]);
    host.sh(&format!("rm {file}"));
    assert!(host.refuses(&["start", "web"]).contains("--hosts-file"), "a start without what it asked for");
    for (flags, said) in [
        (["--hosts-file", "image"], "--hosts-file image is not supported"),
        (["--hosts-file", "/nowhere"], "read --hosts-file /nowhere"),
        (["--hosts-file", "/dev"], "not a regular file"),
    ] {
        let e = host.refuses(&[&["run", "--rm"], &flags[..], &["busybox", "true"]].concat());
        assert!(e.contains(said), "{e}");
    }
}

#[test]
fn broadcasts_of_macvlan_have_a_limit() {
    if lacks(&["macvlan"]) {
        return;
    }
    let host = Host::new().with_lan();
    let lan = ["--subnet", SUBNET, "--ip-range", RANGE, "-o", "parent=lan0"];
    create(&host, "macvlan", "lan", &[&lan[..], &["-o", "bclim=4711"]].concat());
    let plan = host.ok(&["explain", "run", "--script", "--network", "lan", "busybox", "true"]);
    assert!(plan.contains("type macvlan mode bridge bclim 4711"), "{plan}");
    let id = serve(&host, &["--network", "lan"], 80, "web");
    assert_ne!(host.neighbour(&call(&endpoint(&host, &id, "lan", "IPAddress"), 80)), HOST_LAN);
    let pid: u32 = host.ok(&["inspect", "-f", "{{.State.Pid}}", &id]).parse().expect("a pid");
    match broadcast_limit(pid) {
        Some(limit) => assert_eq!(limit, 4711),
        None => println!("skipped: kernel has no IFLA_MACVLAN_BC_CUTOFF"),
    }
    let e = host.refuses(&[&["network", "create", "-d", "macvlan"], &lan[..], &["-o", "bclim=few", "x"]].concat());
    assert!(e.contains("invalid value for option bclim: \"few\""), "{e}");
    let e = host.refuses(&["network", "create", "-d", "ipvlan", "-o", "parent=lan0", "-o", "bclim=1", "x"]);
    assert!(e.contains("bclim") && e.contains("hint:"), "{e}");
}

/// IFLA_MACVLAN_BC_CUTOFF of the device in the namespace of `pid`: iproute2 shows it from 6.4 on, we ask ourselves.
fn broadcast_limit(pid: u32) -> Option<i32> {
    const GET_LINK: u16 = 18;
    const REQUEST_AND_DUMP: u16 = 0x301;
    const BC_CUTOFF: u16 = 9;
    let answer = std::thread::spawn(move || {
        let net = std::fs::File::open(format!("/proc/{pid}/ns/net")).expect("the namespace");
        nix::sched::setns(net, nix::sched::CloneFlags::CLONE_NEWNET).expect("of this thread");
        let mut request = Vec::new();
        request.extend(32u32.to_ne_bytes());
        request.extend(GET_LINK.to_ne_bytes());
        request.extend(REQUEST_AND_DUMP.to_ne_bytes());
        request.resize(32, 0);
        let mut answer = vec![0u8; 1 << 16];
        let route = Some(SockProtocol::NetlinkRoute);
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, route).expect("netlink");
        assert_eq!(send(socket.as_raw_fd(), &request, MsgFlags::empty()), Ok(32));
        let n = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty()).expect("an answer");
        answer.truncate(n);
        answer
    })
    .join()
    .expect("the thread");
    let head = [8u16.to_ne_bytes(), BC_CUTOFF.to_ne_bytes()].concat();
    let data = b"macvlan\0";
    let kind = answer.windows(data.len()).position(|w| w == data)?;
    let at = kind + answer[kind..].windows(4).position(|w| w == head)? + 4;
    Some(i32::from_ne_bytes(answer.get(at..at + 4)?.try_into().ok()?))
}
