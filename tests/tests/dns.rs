//! Names: the embedded resolver of user networks, and the files under /etc.

use rrun_tests::Host;
use rrun_tests::peer::mount;

/// What `nslookup NAME` finds inside a container, as bare addresses.
fn addresses(host: &Host, container: &str, name: &str) -> Vec<String> {
    let out = host.rrun(&["exec", container, "nslookup", name]).stdout;
    // The first "Address" is the server's own.
    let mut found: Vec<String> = out
        .lines()
        .filter_map(|l| l.strip_prefix("Address"))
        .skip(1)
        .filter_map(|l| l.rsplit(' ').next())
        .map(str::to_string)
        .collect();
    found.sort();
    found
}

#[test]
fn names_aliases_and_short_ids_on_user_networks() {
    let host = Host::new();
    host.ok(&["network", "create", "--subnet", "10.9.0.0/24", "n"]);
    let asker = host.ok(&["run", "-d", "--network", "n", "--name", "asker", "busybox", "sleep", "1000"]);
    let one = host.ok(&[
        "run",
        "-d",
        "--network",
        "n",
        "--name",
        "one",
        "--network-alias",
        "pool",
        "busybox",
        "sleep",
        "1000",
    ]);
    host.ok(&["run", "-d", "--network", "n", "--name", "two", "--network-alias", "pool", "busybox", "sleep", "1000"]);
    assert_eq!(addresses(&host, &asker, "one"), ["10.9.0.3"]);
    assert_eq!(addresses(&host, &asker, "ONE"), ["10.9.0.3"]);
    assert_eq!(addresses(&host, &asker, "one.n"), ["10.9.0.3"]);
    assert_eq!(addresses(&host, &asker, &one[..12]), ["10.9.0.3"]);
    assert_eq!(addresses(&host, &asker, "pool"), ["10.9.0.3", "10.9.0.4"]);
    let ptr = host.ok(&["exec", "asker", "nslookup", "10.9.0.4"]);
    assert!(ptr.contains("two.n"), "{ptr}");
    // Gone with the container, at once.
    host.ok(&["rm", "-f", "two"]);
    assert_eq!(addresses(&host, &asker, "pool"), ["10.9.0.3"]);
    assert!(addresses(&host, &asker, "two").is_empty());
    assert_eq!(host.ok(&["exec", "asker", "grep", "nameserver", "/etc/resolv.conf"]), "nameserver 127.0.0.11");
}

#[test]
fn only_over_shared_networks() {
    let host = Host::new();
    host.ok(&["network", "create", "n1"]);
    host.ok(&["network", "create", "n2"]);
    host.ok(&["run", "-d", "--network", "n1", "--name", "aa", "busybox", "sleep", "1000"]);
    host.ok(&["run", "-d", "--network", "n2", "--name", "bb", "busybox", "sleep", "1000"]);
    assert!(addresses(&host, "aa", "bb").is_empty());
    host.ok(&["network", "connect", "n1", "bb"]);
    assert_eq!(addresses(&host, "aa", "bb").len(), 1);
    // The default bridge has no names.
    host.ok(&["run", "-d", "--name", "plain", "busybox", "sleep", "1000"]);
    assert!(!host.ok(&["exec", "plain", "cat", "/etc/resolv.conf"]).contains("127.0.0.11"));
    let e = host.fails(125, &["run", "--rm", "--network-alias", "x", "busybox", "true"]);
    assert!(e.contains("network-scoped aliases are only supported for user-defined networks"), "{e}");
}

#[test]
fn other_names_go_to_the_upstream() {
    let host = Host::new().with_lan();
    // A resolver on the neighbour that knows one name: enough of DNS to answer A questions.
    let script = r#"
import socket
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.bind(("198.51.100.2",53)); print("ready",flush=True)
while True:
    q,a=s.recvfrom(512)
    end=q.index(b"\0",12)+5
    if q[end-4:end-2]!=b"\0\1": s.sendto(q[:2]+b"\x81\x80"+q[4:6]+b"\0\0\0\0\0\0"+q[12:end],a); continue
    s.sendto(q[:2]+b"\x81\x80"+q[4:6]+b"\0\1\0\0\0\0"+q[12:end]+b"\xc0\x0c\0\1\0\1\0\0\0\x05\0\4\xcb\0\x71\x07",a)
"#;
    let mut python = std::process::Command::new("python3");
    python.args(["-c", script]).stdout(std::process::Stdio::piped());
    host.enter_neighbour(&mut python);
    let mut server = python.spawn().expect("python3");
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(server.stdout.as_mut().expect("piped")), &mut line)
        .expect("ready");
    host.ok(&["network", "create", "n"]);
    host.ok(&["network", "create", "--internal", "closed"]);
    host.ok(&["run", "-d", "--network", "n", "--dns", "198.51.100.2", "--name", "open", "busybox", "sleep", "1000"]);
    assert_eq!(addresses(&host, "open", "example.test"), ["203.0.113.7"]);
    // From the host's resolv.conf, also when it changes later.
    host.ok(&["run", "-d", "--network", "n", "--name", "hostdns", "busybox", "sleep", "1000"]);
    host.sh("echo nameserver 198.51.100.2 > /etc/resolv.conf");
    assert_eq!(addresses(&host, "hostdns", "example.test"), ["203.0.113.7"]);
    // An internal network leaks nothing (CVE-2024-29018).
    host.ok(&["run", "-d", "--network", "closed", "--name", "shut", "busybox", "sleep", "1000"]);
    assert!(addresses(&host, "shut", "example.test").is_empty());
    server.kill().expect("kill");
    server.wait().expect("wait");
}

#[test]
fn a_container_may_serve_dns_itself() {
    let host = Host::new();
    host.ok(&["network", "create", "n"]);
    let id = rrun_tests::peer::serve_as(&host, "udp", &["--network", "n", "--name", "dd"], "0.0.0.0", 53, "own");
    let out = host.ok(&[
        "run",
        "--rm",
        "--network",
        "n",
        "-v",
        &mount(),
        "busybox",
        "sh",
        "-c",
        "/peer call-udp $(nslookup dd | awk '/^Address/{a=$NF} END{print a}') 53",
    ]);
    assert!(out.starts_with("own "), "{out}");
    assert_eq!(addresses(&host, &id, "dd").len(), 1, "and its resolver still answers");
}

#[test]
fn files_under_etc() {
    let host = Host::new();
    host.ok(&["network", "create", "--subnet", "10.9.0.0/24", "n"]);
    let out = host.ok(&[
        "run",
        "--rm",
        "--network",
        "n",
        "--hostname",
        "box",
        "--domainname",
        "example.test",
        "--add-host",
        "db:10.1.1.1",
        "--add-host",
        "gw:host-gateway",
        "busybox",
        "cat",
        "/etc/hosts",
    ]);
    for line in ["127.0.0.1\tlocalhost", "10.1.1.1\tdb", "172.17.0.1\tgw", "10.9.0.2\tbox.example.test box"] {
        assert!(out.lines().any(|l| l == line), "{line:?} is missing:\n{out}");
    }
    let out = host.ok(&[
        "run",
        "--rm",
        "--dns",
        "192.0.2.53",
        "--dns-search",
        "example.test",
        "--dns-option",
        "timeout:1",
        "busybox",
        "cat",
        "/etc/resolv.conf",
    ]);
    for line in ["nameserver 192.0.2.53", "search example.test", "options timeout:1"] {
        assert!(out.lines().any(|l| l == line), "{line:?} is missing:\n{out}");
    }
    assert_eq!(host.ok(&["run", "--rm", "--hostname", "box", "busybox", "cat", "/etc/hostname"]), "box");
    let e = host.fails(125, &["run", "--rm", "--add-host", "nonsense", "busybox", "true"]);
    assert!(e.contains("bad format for add-host: \"nonsense\""), "{e}");
    let e = host.fails(125, &["run", "--rm", "--dns", "nonsense", "busybox", "true"]);
    assert!(e.contains("IP address is not correctly formatted: nonsense"), "{e}");
}
