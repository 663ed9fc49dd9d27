//! One container on one network: names and parameters of its interface, its addresses and how long it
//! keeps them, which way out it takes, what it calls others.

use rrun_tests::Host;
use rrun_tests::host::{eventually, patience};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

const SLEEP: [&str; 3] = ["busybox", "sleep", "1000"];

/// `run -d FLAGS busybox sleep 1000`; the ID.
fn sleeper(host: &Host, flags: &[&str]) -> String {
    host.ok(&[&["run", "-d"], flags, &SLEEP].concat())
}

/// A field of the container's settings on a network.
fn on(host: &Host, container: &str, network: &str, field: &str) -> String {
    host.ok(&["inspect", "-f", &format!("{{{{(index .NetworkSettings.Networks \"{network}\").{field}}}}}"), container])
}

fn inside(host: &Host, container: &str, script: &str) -> String {
    host.ok(&["exec", container, "sh", "-c", script])
}

#[test]
fn interface_names_in_every_spelling() {
    let host = Host::new();
    host.ok(&["network", "create", "Net-A"]);
    host.ok(&["network", "create", "b"]);
    host.ok(&["network", "create", "c"]);
    let id = sleeper(
        &host,
        &[
            "--network",
            "name=Net-A,ifname=Wan0,alias=MixedCase",
            "--network",
            "name=b,interface_name=lan0",
            "--network",
            "name=c,driver-opt=com.docker.network.endpoint.ifname=dmz0",
        ],
    );
    let names = inside(&host, &id, "ls /sys/class/net | sort | xargs");
    assert_eq!(names, "Wan0 dmz0 lan0 lo");
    assert_eq!(on(&host, &id, "Net-A", "Aliases"), "[MixedCase]", "nothing is lower-cased");
    host.ok(&["network", "create", "d"]);
    host.ok(&["network", "connect", "--interface-name", "vpn0", "d", &id]);
    host.ok(&["exec", &id, "ip", "link", "show", "vpn0"]);
    host.ok(&["network", "create", "e"]);
    let e = host.fails(1, &["network", "connect", "--interface-name", "vpn0", "e", &id]);
    assert!(e.contains("error renaming interface") && e.contains("file exists"), "{e}");
    // A name that is free again is used again.
    host.ok(&["network", "disconnect", "d", &id]);
    host.ok(&["network", "connect", "--driver-opt", "com.docker.network.endpoint.ifname=vpn0", "e", &id]);
    host.ok(&["exec", &id, "ip", "link", "show", "vpn0"]);
    for bad in ["name=b,ifname=a/b", "name=b,ifname=sixteen-letters-", "name=b,ifname=lo"] {
        let e = host.fails(125, &["run", "--rm", "--network", bad, "busybox", "true"]);
        assert!(e.contains("invalid interface name"), "{bad}: {e}");
    }
}

#[test]
fn parameters_of_the_interface() {
    let host = Host::new();
    host.ok(&["network", "create", "--ipv6", "n"]);
    host.ok(&["network", "create", "m"]);
    let id = sleeper(
        &host,
        &[
            "--network",
            "\"name=n\",\"driver-opt=com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.IFNAME.hop_limit=7\"",
            "--network",
            "m",
            "--sysctl",
            "net.ipv4.conf.eth0.arp_ignore=2",
            "--sysctl",
            "net.ipv4.neigh.eth1.ucast_solicit=5",
            "--sysctl",
            "net.core.somaxconn=321",
        ],
    );
    let read = |path: &str| inside(&host, &id, &format!("cat /proc/sys/net/{path}"));
    assert_eq!(read("ipv4/conf/eth0/log_martians"), "1");
    assert_eq!(read("ipv6/conf/eth0/hop_limit"), "7");
    assert_eq!(read("ipv4/conf/eth0/arp_ignore"), "2");
    assert_eq!(read("ipv4/neigh/eth1/ucast_solicit"), "5");
    assert_eq!(read("core/somaxconn"), "321");
    let text = host.ok(&[
        "explain",
        "run",
        "--network",
        "n",
        "--sysctl",
        "net.ipv4.conf.eth0.arp_ignore=2",
        "busybox",
        "true",
    ]);
    assert!(text.contains("arp_ignore=2"), "{text}");
    let option = "com.docker.network.endpoint.sysctls=net.ipv4.conf.eth0.log_martians=1";
    let e = host.fails(125, &["run", "--rm", "--network", &format!("name=n,driver-opt={option}"), "busybox", "true"]);
    assert!(
        e.contains("unrecognised network interface sysctl 'net.ipv4.conf.eth0.log_martians=1'; represent 'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'"),
        "{e}"
    );
    let e = host.fails(125, &["run", "--rm", "--sysctl", "net.ipv4.conf.eth4.arp_ignore=1", "busybox", "true"]);
    assert!(e.contains("unable to determine network endpoint for sysctl net.ipv4.conf.eth4.arp_ignore"), "{e}");
    let e = host.fails(125, &["run", "--rm", "--sysctl", "net.ipv4.conf.eth0.no_such=1", "busybox", "true"]);
    assert!(e.contains("no_such"), "{e}");
}

#[test]
fn addresses_survive_a_restart() {
    let host = Host::new();
    host.ok(&["network", "create", "--ipv6", "n"]);
    let facts = |c: &str| ["IPAddress", "GlobalIPv6Address", "MacAddress"].map(|f| on(&host, c, "n", f));
    for name in ["one", "two", "three"] {
        sleeper(&host, &["--network", "n", "--name", name]);
    }
    let (one, two) = (facts("one"), facts("two"));
    assert_ne!(one[2], two[2]);
    host.ok(&["stop", "-t", "0", "one", "two"]);
    assert_eq!(on(&host, "one", "n", "IPAddress"), "", "a stopped container has none");
    // Neither a newcomer nor the other one takes it meanwhile.
    sleeper(&host, &["--network", "n", "--name", "four"]);
    assert!(!one.contains(&facts("four")[0]) && !two.contains(&facts("four")[0]));
    host.ok(&["start", "two", "one"]);
    assert_eq!((facts("one"), facts("two")), (one.clone(), two.clone()));
    host.ok(&["restart", "-t", "0", "one"]);
    assert_eq!(facts("one"), one);
    // A network that is connected later keeps its address as well.
    host.ok(&["network", "create", "later"]);
    host.ok(&["network", "connect", "later", "two"]);
    let ip = on(&host, "two", "later", "IPAddress");
    host.ok(&["stop", "-t", "0", "two"]);
    sleeper(&host, &["--network", "later", "--name", "five"]);
    host.ok(&["start", "two"]);
    assert_eq!(on(&host, "two", "later", "IPAddress"), ip);
    // After a reboot nothing is left but the records; whoever starts first does not take what others had.
    host.ok(&["stop", "-t", "0", "one", "two", "three", "four", "five"]);
    let before = facts_of_lease(&host, "n");
    assert!(before.is_empty(), "nobody living holds a lease: {before:?}");
    host.sh(&format!("rm -rf {}/*", host.state().display()));
    sleeper(&host, &["--network", "n", "--name", "fresh"]);
    host.ok(&["start", "one"]);
    assert_eq!(facts("one"), one);
    assert!(!two.contains(&facts("fresh")[0]) && !one.contains(&facts("fresh")[0]));
    // Removed, its addresses are anybody's again.
    host.ok(&["rm", "-f", "one"]);
    sleeper(&host, &["--network", "n", "--name", "heir"]);
    assert_eq!(facts("heir")[0], one[0]);
}

/// Addresses in use beside the gateway, as `network inspect` counts them.
fn facts_of_lease(host: &Host, network: &str) -> Vec<String> {
    let text = host.ok(&["network", "inspect", "-f", "{{json .Containers}}", network]);
    let all: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    all.as_object().into_iter().flatten().map(|(id, _)| id.clone()).collect()
}

#[test]
fn a_scarce_address_is_given_away() {
    let host = Host::new();
    host.ok(&["network", "create", "--subnet", "10.9.0.0/29", "small"]);
    sleeper(&host, &["--network", "small", "--name", "first"]);
    let ip = on(&host, "first", "small", "IPAddress");
    host.ok(&["stop", "-t", "0", "first"]);
    let got: Vec<String> =
        (0..5).map(|_| on(&host, &sleeper(&host, &["--network", "small"]), "small", "IPAddress")).collect();
    assert!(!got[..4].contains(&ip), "{got:?}");
    assert_eq!(got[4], ip, "better somebody has it than nobody");
    let e = host.fails(1, &["start", "first"]);
    assert!(e.contains("no available IPv4 addresses on this network's address pools: small ("), "{e}");
}

#[test]
fn a_container_made_anew_under_its_name_keeps_its_mac() {
    let host = Host::new();
    host.ok(&["network", "create", "n"]);
    sleeper(&host, &["--network", "n", "--name", "web"]);
    let mac = on(&host, "web", "n", "MacAddress");
    host.ok(&["rm", "-f", "web"]);
    sleeper(&host, &["--network", "n", "--name", "other"]);
    sleeper(&host, &["--network", "n", "--name", "web"]);
    assert_eq!(on(&host, "web", "n", "MacAddress"), mac);
    assert_ne!(on(&host, "other", "n", "MacAddress"), mac);
    let text = inside(&host, "web", "cat /sys/class/net/eth0/address");
    assert_eq!(text, mac);
    // One that was renamed while it runs has still the address of its old name: the heir gets another.
    host.ok(&["rename", "web", "former"]);
    sleeper(&host, &["--network", "n", "--name", "web"]);
    let heir = on(&host, "web", "n", "MacAddress");
    assert_eq!(on(&host, "former", "n", "MacAddress"), mac);
    assert_ne!(heir, mac, "no two stations with one address");
    host.ok(&["exec", "web", "ping", "-c1", "-W5", "former"]);
    host.ok(&["rm", "-f", "web"]);
    host.ok(&["rename", "former", "web"]);
    // `network connect` can say another one.
    host.ok(&["network", "create", "m"]);
    host.ok(&["network", "connect", "--mac-address", "02:42:00:00:00:77", "m", "web"]);
    assert_eq!(inside(&host, "web", "cat /sys/class/net/eth1/address"), "02:42:00:00:00:77");
}

/// What tcpdump sees on an interface of the host, line by line, until dropped.
struct Capture {
    child: std::process::Child,
    lines: Receiver<String>,
}

impl Capture {
    fn start(host: &Host, interface: &str, filter: &str) -> Capture {
        let mut c = Command::new("tcpdump");
        c.args(["-l", "-n", "-e", "-i", interface, filter])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        host.enter(&mut c);
        let mut child = c.spawn().expect("tcpdump");
        let mut line = String::new();
        let mut told = BufReader::new(child.stderr.take().expect("piped"));
        while !line.contains("listening on") {
            line.clear();
            assert_ne!(told.read_line(&mut line).expect("tcpdump's words"), 0, "tcpdump does not listen");
        }
        // Its parting words need somebody to take them.
        std::thread::spawn(move || std::io::copy(&mut told, &mut std::io::sink()));
        let out = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Capture { child, lines }
    }

    /// Waits until `count` lines contain all of `words`; all that came until then.
    #[track_caller]
    fn wait_for(&mut self, count: usize, words: &[&str]) -> Vec<String> {
        let mut came: Vec<String> = Vec::new();
        let matching = |came: &[String]| came.iter().filter(|l| words.iter().all(|w| l.contains(w))).count();
        while matching(&came) < count {
            match self.lines.recv_timeout(patience()) {
                Ok(line) => came.push(line),
                Err(e) => panic!("{e} after {} of {count} {words:?}:\n{}", matching(&came), came.join("\n")),
            }
        }
        came
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn neighbours_are_told_three_times() {
    let host = Host::new();
    let bridge = "com.docker.network.bridge.name=loud0";
    host.ok(&[
        "network",
        "create",
        "--ipv6",
        "--subnet",
        "10.9.0.0/24",
        "--subnet",
        "fd00:9::/64",
        "-o",
        bridge,
        "loud",
    ]);
    let mut arp = Capture::start(&host, "loud0", "arp");
    let mut na = Capture::start(&host, "loud0", "icmp6 and ip6[40] == 136");
    let interval = "com.docker.network.advertise_addr_ms=100";
    sleeper(
        &host,
        &[
            "--network",
            &format!("name=loud,ip=10.9.0.9,ip6=fd00:9::9,mac-address=02:00:00:00:00:09,driver-opt={interval}"),
        ],
    );
    arp.wait_for(3, &["02:00:00:00:00:09 > ff:ff:ff:ff:ff:ff", "10.9.0.9"]);
    na.wait_for(3, &["02:00:00:00:00:09 > 33:33:00:00:00:01", "fd00:9::9"]);
    // Connected later, the same.
    host.ok(&["network", "create", "n"]);
    let id = sleeper(&host, &["--network", "n"]);
    host.ok(&["network", "connect", "--ip", "10.9.0.10", "--driver-opt", interval, "loud", &id]);
    arp.wait_for(3, &["> ff:ff:ff:ff:ff:ff", "10.9.0.10"]);
    // Not a word.
    sleeper(&host, &["--network", "name=loud,ip=10.9.0.11,driver-opt=com.docker.network.advertise_addr_nmsgs=0"]);
    sleeper(&host, &["--network", &format!("name=loud,ip=10.9.0.12,driver-opt={interval}")]);
    let came = arp.wait_for(3, &["10.9.0.12"]);
    assert!(came.iter().all(|line| !line.contains("10.9.0.11")), "advertise_addr_nmsgs=0: {came:?}");
    for (option, text) in [
        ("advertise_addr_nmsgs=4", "com.docker.network.advertise_addr_nmsgs must be in the range 0 to 3"),
        ("advertise_addr_ms=2001", "com.docker.network.advertise_addr_ms must be in the range 100 to 2000"),
        (
            "advertise_addr_ms=x",
            "value for option com.docker.network.advertise_addr_ms \"x\" must be integer milliseconds",
        ),
    ] {
        let e = host.refuses(&["network", "create", "-o", &format!("com.docker.network.{option}"), "bad"]);
        assert!(e.contains(text), "{e}");
        let driver_opt = format!("name=n,driver-opt=com.docker.network.{option}");
        let e = host.refuses(&["run", "--rm", "--network", &driver_opt, "busybox", "true"]);
        assert!(e.contains(text), "{e}");
    }
}

#[test]
fn link_local_addresses() {
    let host = Host::new();
    host.ok(&["network", "create", "--ipv6", "n"]);
    host.ok(&["network", "create", "four"]);
    let id = sleeper(&host, &["--network", "n", "--link-local-ip", "169.254.7.7", "--link-local-ip", "fe80::77"]);
    let shown = inside(&host, &id, "ip addr show eth0");
    assert!(shown.contains("inet 169.254.7.7/16") && shown.contains("inet6 fe80::77/64"), "{shown}");
    assert_eq!(on(&host, &id, "n", "IPAMConfig.LinkLocalIPs"), "[169.254.7.7 fe80::77]");
    host.ok(&["network", "connect", "--link-local-ip", "169.254.8.8", "four", &id]);
    assert!(inside(&host, &id, "ip addr show eth1").contains("169.254.8.8/16"));
    for (flags, text) in [
        (&["--network", "n", "--link-local-ip", "10.0.0.1"][..], "invalid link-local IP address: 10.0.0.1"),
        (&["--network", "name=n,link-local-ip=banana"], "invalid link-local IP address: banana"),
        (&["--network", "four", "--link-local-ip", "fe80::1"], "network four has no IPv6"),
    ] {
        let e = host.refuses(&[&["run", "--rm"], flags, &["busybox", "true"]].concat());
        assert!(e.contains(text) && e.contains("hint:"), "{e}");
    }
}

#[test]
fn the_way_out_follows_priority_and_family() {
    let host = Host::new();
    for (name, v4, v6) in
        [("a", "10.1.0.0/24", ""), ("b", "10.2.0.0/24", "fd00:2::/64"), ("c", "10.3.0.0/24", "fd00:3::/64")]
    {
        let mut args = vec!["network", "create", "--subnet", v4];
        if !v6.is_empty() {
            args.extend(["--ipv6", "--subnet", v6]);
        }
        args.push(name);
        host.ok(&args);
    }
    host.ok(&["network", "create", "--internal", "0-inside"]);
    let id = sleeper(&host, &["--network", "c", "--network", "b", "--network", "a", "--network", "0-inside"]);
    let pid = host.ok(&["inspect", "-f", "{{.State.Pid}}", &id]);
    let ways = || {
        let v4 = inside(&host, &id, "ip -4 route show default | cut -d' ' -f3 | xargs");
        // The host's ip: busybox's shows the routes of all tables, those of answers included.
        let v6 = host.sh(&format!("nsenter -t {pid} -n ip -6 route show default | cut -d' ' -f3 | xargs"));
        (v4, v6)
    };
    let is = |v4: &str, v6: &str| assert_eq!(ways(), (v4.to_string(), v6.to_string()));
    // By name, each family on its own; an internal network never.
    is("10.1.0.1", "fd00:2::1");
    host.ok(&["network", "disconnect", "b", &id]);
    is("10.1.0.1", "fd00:3::1");
    host.ok(&["network", "connect", "--gw-priority", "5", "b", &id]);
    is("10.2.0.1", "fd00:2::1");
    host.ok(&["network", "disconnect", "a", &id]);
    is("10.2.0.1", "fd00:2::1");
    host.ok(&["network", "connect", "--gw-priority", "9", "a", &id]);
    is("10.1.0.1", "fd00:2::1");
    host.ok(&["network", "disconnect", "a", &id]);
    host.ok(&["network", "disconnect", "b", &id]);
    is("10.3.0.1", "fd00:3::1");
    host.ok(&["network", "disconnect", "c", &id]);
    is("", "");
    // Said when it is made, and kept over a restart.
    let id = sleeper(&host, &["--network", "a", "--network", "name=c,gw-priority=1"]);
    let out = inside(&host, &id, "ip route show default");
    assert!(out.contains("via 10.3.0.1 dev eth1"), "{out}");
    assert_eq!(on(&host, &id, "c", "GwPriority"), "1");
    host.ok(&["restart", "-t", "0", &id]);
    assert!(inside(&host, &id, "ip route show default").contains("via 10.3.0.1 dev eth1"));
}

#[test]
fn links_on_a_network_are_the_askers_own_names() {
    let host = Host::new();
    host.ok(&["network", "create", "--subnet", "10.9.0.0/24", "n"]);
    sleeper(&host, &["--network", "n", "--name", "db", "--ip", "10.9.0.50"]);
    sleeper(&host, &["--network", "n", "--name", "sql", "--ip", "10.9.0.60"]);
    let asker = sleeper(&host, &["--network", "n", "--name", "asker", "--link", "db:sql", "--link", "db"]);
    sleeper(&host, &["--network", "n", "--name", "stranger"]);
    let ask = |who: &str, name: &str| {
        let out = host.rrun(&["exec", who, "nslookup", name]).stdout;
        out.lines()
            .filter_map(|l| l.strip_prefix("Address"))
            .skip(1)
            .filter_map(|l| l.rsplit(' ').next())
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(ask("asker", "sql"), "10.9.0.50", "the link comes before the container of that name");
    assert_eq!(ask("asker", "sql.n"), "10.9.0.50");
    assert_eq!(ask("stranger", "sql"), "10.9.0.60", "it is nobody else's");
    assert_eq!(on(&host, &asker, "n", "Links"), "[db:sql db:db]");
    host.ok(&["network", "disconnect", "n", "stranger"]);
    host.ok(&["network", "connect", "--link", "db:store", "n", "stranger"]);
    assert_eq!(ask("stranger", "store"), "10.9.0.50");
}

#[test]
fn links_on_the_default_bridge_are_lines_of_hosts() {
    let host = Host::new();
    let db = sleeper(&host, &["--name", "db"]);
    let ip = on(&host, "db", "bridge", "IPAddress");
    sleeper(&host, &["--name", "app", "--link", "db:store"]);
    let hosts = inside(&host, "app", "cat /etc/hosts");
    assert!(hosts.contains(&format!("{ip}\tstore {} db\n", &db[..12])), "{hosts}");
    assert_eq!(host.ok(&["inspect", "-f", "{{.HostConfig.Links}}", "app"]), "[/db:/app/store]");
    let e = host.refuses(&["run", "-d", "--link", "nobody", "busybox", "true"]);
    assert!(e.contains("could not get container for nobody: No such container: nobody"), "{e}");
    host.ok(&["stop", "-t", "0", "db", "app"]);
    let e = host.fails(1, &["start", "app"]);
    assert!(e.contains("Cannot link to a non running container: /db AS /app/store"), "{e}");
    host.ok(&["start", "db", "app"]);
    assert!(inside(&host, "app", "cat /etc/hosts").contains(&format!("{ip}\tstore ")));
    for (flags, text) in [
        (&["--link", ""][..], "empty string specified for links"),
        (&["--link", "a:b:c"], "bad format for links: a:b:c"),
        (&["--network", "host", "--link", "db"], "conflicting options: host type networking can't be used with links"),
        (
            &["--network", "container:db", "--link", "db"],
            "conflicting options: container type network can't be used with links",
        ),
    ] {
        let e = host.fails(125, &[&["run", "--rm"], flags, &["busybox", "true"]].concat());
        assert!(e.contains(text), "{e}");
    }
}

#[test]
fn a_namespace_made_by_hand() {
    let host = Host::new();
    host.sh("mkdir -p /run/netns; mount -t tmpfs ns /run/netns; ip netns add mine; ip -n mine link add dm0 type bridge; ip -n mine addr add 10.77.0.7/24 dev dm0; ip -n mine link set dm0 up");
    let out = host.ok(&[
        "run",
        "--rm",
        "--network",
        "ns:/run/netns/mine",
        "-h",
        "guest",
        "busybox",
        "sh",
        "-c",
        "ip -4 -o addr show dm0; hostname",
    ]);
    assert!(out.contains("10.77.0.7/24") && out.ends_with("guest"), "{out}");
    let id = sleeper(&host, &["--network", "ns:/run/netns/mine", "--name", "guest"]);
    assert_eq!(
        host.ok(&["inspect", "-f", "{{.HostConfig.NetworkMode}} {{json .NetworkSettings.Networks}}", &id]),
        "ns:/run/netns/mine {}"
    );
    host.ok(&["network", "create", "n"]);
    let e = host.fails(1, &["network", "connect", "n", &id]);
    assert!(e.contains("container sharing network namespace with another container or host cannot be connected to any other network"), "{e}");
    host.ok(&["rm", "-f", &id]);
    host.sh("ip -n mine link show dm0");
    let ran =
        host.rrun(&["run", "--rm", "--network", "ns:/run/netns/mine", "-p", "80:80", "busybox", "true"]).expect(0);
    assert!(
        ran.stderr.contains("Published ports are discarded when using ns:/run/netns/mine network mode"),
        "{}",
        ran.stderr
    );
    for path in ["/etc/passwd", "/run/netns/none", "mine"] {
        let e = host.fails(125, &["run", "--rm", "--network", &format!("ns:{path}"), "busybox", "true"]);
        assert!(e.contains(&format!("{path} is not a network namespace")), "{e}");
    }
    host.sh("ip netns del mine; umount /run/netns");
}

#[test]
fn hosts_names_the_container_and_its_domain() {
    let host = Host::new();
    host.ok(&["network", "create", "--subnet", "10.9.0.0/24", "--subnet", "fd00:9::/64", "n"]);
    let read = |flags: &[&str]| host.ok(&[&["run", "--rm"], flags, &["busybox", "cat", "/etc/hosts"]].concat());
    assert_eq!(
        read(&["--network", "n", "-h", "web", "--domainname", "example.org", "--add-host", "db:10.0.0.5"]),
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n10.0.0.5\tdb\n10.9.0.1\thost.docker.internal host.containers.internal\nfd00:9::1\thost.docker.internal host.containers.internal\n10.9.0.2\tweb.example.org web\nfd00:9::2\tweb.example.org web"
    );
    assert_eq!(
        read(&["-h", "web"]),
        "127.0.0.1\tlocalhost\n172.17.0.1\thost.docker.internal host.containers.internal\n172.17.0.2\tweb"
    );
    // Entries come and go with the networks, what others wrote stays.
    let id = sleeper(&host, &["-h", "web"]);
    inside(&host, &id, "echo '10.7.7.7 mine' >> /etc/hosts");
    host.ok(&["network", "connect", "n", &id]);
    let hosts = inside(&host, &id, "cat /etc/hosts");
    assert!(hosts.contains("10.7.7.7 mine") && hosts.contains("10.9.0.2\tweb"), "{hosts}");
    host.ok(&["network", "disconnect", "n", &id]);
    eventually("the entry is gone", || {
        let hosts = inside(&host, &id, "cat /etc/hosts");
        (hosts.contains("10.7.7.7 mine") && !hosts.contains("10.9.0.2")).then_some(())
    });
}
