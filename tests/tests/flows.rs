//! What outlives its programs. UDP knows no end of a connection: what the kernel once decided about a sender
//! must not outlive a published port's coming, going and moving. TCP repeats itself to those who are gone.

use rrun_tests::Host;
use rrun_tests::host::{HOST_LAN, HOST_LAN6, eventually};
use rrun_tests::peer::serve_as;

/// One datagram from the neighbour, always from the same port: the answer, or "nothing".
fn ask(host: &Host, address: &str, port: u16) -> String {
    let script = r#"
import socket,sys
s=socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET,socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET,socket.SO_REUSEADDR,1)
s.bind(("",40000)); s.settimeout(1)
s.sendto(b"?",(sys.argv[1],int(sys.argv[2])))
try: print(s.recvfrom(99)[0].decode().split()[0])
except OSError: print("nothing")
"#;
    host.neighbour(&format!("python3 -c '{script}' {address} {port}"))
}

#[test]
fn a_sender_reaches_whoever_has_the_port_now() {
    let host = Host::new().with_lan();
    host.ok(&["network", "create", "--ipv6", "one"]);
    host.ok(&["network", "create", "--ipv6", "two"]);
    // The host tracks connections from its first network on.
    host.ok(&["run", "-d", "--network", "two", "busybox", "sleep", "1000"]);
    let both = |want: &str| {
        for address in [HOST_LAN, HOST_LAN6] {
            assert_eq!(ask(&host, address, 5300), want, "{address}");
        }
    };
    both("nothing");
    // It comes: the flows to nobody are forgotten.
    serve_as(&host, "udp", &["--network", "one", "--name", "first", "-p", "5300:53/udp"], "::", 53, "first");
    both("first");
    // It moves to another network of the container, and back.
    host.ok(&["network", "connect", "two", "first"]);
    host.ok(&["network", "disconnect", "one", "first"]);
    both("first");
    host.ok(&["network", "connect", "--gw-priority", "9", "one", "first"]);
    both("first");
    // It goes, and comes with another container at another address.
    host.ok(&["stop", "-t", "0", "first"]);
    both("nothing");
    serve_as(&host, "udp", &["--network", "one", "--name", "second", "-p", "5300:53/udp"], "::", 53, "second");
    both("second");
    host.ok(&["rm", "-f", "second"]);
    // A range is flushed port by port; other ports keep their flows.
    serve_as(
        &host,
        "udp",
        &["--network", "one", "--name", "third", "-p", "5200-5400:5200-5400/udp"],
        "::",
        5300,
        "third",
    );
    both("third");
}

/// A client that is gone with its host cannot acknowledge the end of a connection. The kernel tells it eight
/// times, for 107 seconds, in which the server's namespace would stay, with its address.
#[test]
fn a_connection_to_nobody_does_not_keep_the_cable() {
    let host = Host::new();
    host.ok(&["network", "create", "net"]);
    // It neither reads nor ends when the client does.
    let server = ["run", "-d", "--name", "server", "--network", "net", "busybox"];
    host.ok(&[&server[..], &["nc", "-l", "-p", "99", "-e", "sleep", "1000"]].concat());
    let client = ["run", "-d", "-i", "--name", "client", "--network", "net", "busybox"];
    host.ok(&[&client[..], &["sh", "-c", "sleep 1000 | nc server 99"]].concat());
    let state = |state: &str| {
        eventually(state, || {
            host.ok(&["exec", "server", "netstat", "-tn"]).lines().any(|l| l.ends_with(state)).then_some(())
        });
    };
    // busybox' netstat pads its last column.
    state("ESTABLISHED ");
    host.ok(&["rm", "-f", "client"]);
    state("CLOSE_WAIT  ");
    host.ok(&["rm", "-f", "server"]);
    let cables =
        || host.ip("link").as_array().map_or(0, |links| links.iter().filter(|l| l["link_index"].is_i64()).count());
    eventually("the server's cable is gone", || (cables() == 0).then_some(()));
}
