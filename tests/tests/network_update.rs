//! `network update`: a network changes under running containers.

use rrun_tests::Host;
use rrun_tests::peer::{PROGRAM, call, serve};

#[test]
fn labels_and_servers_change_in_the_record() {
    let host = Host::new();
    host.ok(&["network", "create", "--label", "old=1", "--label", "kept", "net"]);
    let changes = ["--label-add", "new=2", "--label-rm", "old", "--dns-add", "192.0.2.53", "--dns-add", "2001:db8::53"];
    assert_eq!(host.ok(&[&["network", "update"], &changes[..], &["net"]].concat()), "net");
    assert_eq!(host.ok(&["network", "inspect", "-f", "{{json .Labels}}", "net"]), r#"{"kept":"","new":"2"}"#);
    assert_eq!(host.ok(&["network", "inspect", "-f", "{{json .DNS}}", "net"]), r#"["192.0.2.53","2001:db8::53"]"#);
    host.ok(&["network", "update", "--dns-drop", "192.0.2.53", "net"]);
    assert_eq!(host.ok(&["network", "inspect", "-f", "{{json .DNS}}", "net"]), r#"["2001:db8::53"]"#);
    for (args, text) in [
        (&["--label-rm", "old"][..], "network net has no label old"),
        (&["--dns-drop", "192.0.2.53"], "network net has no DNS server 192.0.2.53"),
        (&["--dns-add", "dns.example"], "IP address is not correctly formatted: dns.example"),
        (&["--mtu", "-1"], "invalid MTU number: -1"),
        (&["--bind", "nowhere"], "invalid value for com.docker.network.bridge.host_binding_ipv4"),
        (&["-o", "com.docker.network.bridge.name=br9"], "cannot be changed"),
    ] {
        let e = host.refuses(&[&["network", "update"], args, &["net"]].concat());
        assert!(e.contains(text) && e.contains("hint:"), "{args:?}: {e}");
    }
    let e = host.fails(1, &["network", "update", "--label-add", "x", "nosuch"]);
    assert!(e.contains("network nosuch not found"), "{e}");
    assert_eq!(host.ok(&["network", "inspect", "-f", "{{json .Labels}}", "net"]), r#"{"kept":"","new":"2"}"#);
}

#[test]
fn neighbours_are_separated_and_joined_while_they_run() {
    let host = Host::new();
    host.ok(&["network", "create", "--ipv6", "net"]);
    serve(&host, &["--name", "web", "--network", "net"], 80, "web");
    let mount = rrun_tests::peer::mount();
    host.ok(&["run", "-d", "--name", "other", "--network", "net", "-v", &mount, "busybox", "sleep", "1000"]);
    let address = host.ok(&["inspect", "-f", "{{.NetworkSettings.Networks.net.IPAddress}}", "web"]);
    let reaches = || host.rrun(&["exec", "other", PROGRAM, "call", &address, "80"]).code == 0;
    assert!(reaches());
    host.ok(&["network", "update", "--icc=false", "net"]);
    assert!(!reaches());
    // For those that come, too; and for the host nothing has changed.
    host.ok(&["run", "-d", "--name", "third", "--network", "net", "-v", &mount, "busybox", "sleep", "1000"]);
    assert_ne!(host.rrun(&["exec", "third", PROGRAM, "call", &address, "80"]).code, 0);
    assert!(host.sh(&call(&address, 80)).starts_with("web "));
    // Plugged in again by repair, it stays separated.
    let links = host.ip("link");
    let veth = links.as_array().expect("links").iter().find(|l| l["master"].is_string()).expect("a cable");
    let veth = veth["ifname"].as_str().expect("a name");
    host.sh(&format!("ip link set {veth} nomaster"));
    host.ok(&["network", "ls"]);
    assert!(!reaches());
    host.ok(&["network", "update", "-o", "com.docker.network.bridge.enable_icc=true", "net"]);
    assert!(reaches());
}

#[test]
fn the_mtu_changes_on_bridge_cables_and_inside() {
    let host = Host::new();
    host.ok(&["network", "create", "net"]);
    host.ok(&["run", "-d", "--name", "web", "--network", "net", "busybox", "sleep", "1000"]);
    host.ok(&["network", "update", "--mtu", "1400", "net"]);
    let bridge = format!("br-{}", &host.ok(&["network", "inspect", "-f", "{{.Id}}", "net"])[..12]);
    for link in host.ip("link").as_array().expect("links") {
        if link["ifname"] == bridge.as_str() || link["master"] == bridge.as_str() {
            assert_eq!(link["mtu"], 1400, "{link}");
        }
    }
    let inside = |name: &str| host.ok(&["exec", name, "cat", "/sys/class/net/eth0/mtu"]);
    assert_eq!(inside("web"), "1400");
    host.ok(&["run", "-d", "--name", "later", "--network", "net", "busybox", "sleep", "1000"]);
    assert_eq!(inside("later"), "1400");
}

#[test]
fn a_new_default_address_is_for_ports_published_from_now_on() {
    let host = Host::new();
    host.ok(&["network", "create", "net"]);
    host.ok(&["run", "-d", "--name", "web", "--network", "net", "-p", "8080:80", "busybox", "sleep", "1000"]);
    let ran = host.rrun(&["network", "update", "--bind", "127.0.0.1", "net"]).expect(0);
    assert!(ran.stderr.contains("published ports stay where they are"), "{}", ran.stderr);
    assert_eq!(host.ok(&["port", "web"]), "80/tcp -> 0.0.0.0:8080\n80/tcp -> [::]:8080");
    host.ok(&["port", "add", "web", "8081:81"]);
    assert_eq!(host.ok(&["port", "web", "81"]), "127.0.0.1:8081");
    host.ok(&["restart", "-t", "0", "web"]);
    assert_eq!(host.ok(&["port", "web", "80"]), "127.0.0.1:8080");
    host.ok(&["network", "update", "--bind", "", "net"]);
    host.ok(&["port", "add", "web", "8082:82"]);
    assert_eq!(host.ok(&["port", "web", "82"]), "0.0.0.0:8082\n[::]:8082");
    // The default bridge, before anything has used it.
    host.ok(&["network", "update", "--bind", "127.0.0.1", "bridge"]);
    host.ok(&["run", "-d", "--name", "other", "-p", "9090:80", "busybox", "sleep", "1000"]);
    assert_eq!(host.ok(&["port", "other"]), "80/tcp -> 127.0.0.1:9090");
}
