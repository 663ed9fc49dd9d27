//! The whole of networking on simulated hosts: real links, real firewall, real connections.
//! Needs root; otherwise each test says that it was skipped.

mod host;

use host::*;

#[test]
fn a_container_on_the_default_bridge() {
    on_a_host("default_bridge", |host| {
        let before = fingerprint();
        let web = host.start("web", &["bridge"], &["8080:80"]);
        web.serve(80);
        eprintln!("first attach: {} µs", web.micros);
        assert_eq!(web.ip().to_string(), "172.17.0.2");
        println!("{}", fingerprint());
        assert_eq!(ask(&host.ns, "172.17.0.2", 80), Ok("172.17.0.1".into()), "from the host, directly");
        assert_eq!(ask(&host.ns, "127.0.0.1", 8080), Ok("172.17.0.1".into()), "from the host, by loopback");
        assert_eq!(ask(&host.ns, LAN_HOST, 8080), Ok(LAN_HOST.into()), "from the host, by its LAN address");
        assert_eq!(ask(&host.lan, LAN_HOST, 8080), Ok(LAN_NEIGHBOUR.into()), "the neighbour, with its own address");
        assert_eq!(ask(&web.ns, LAN_HOST, 8080), Ok("172.17.0.1".into()), "from the container itself");
        let other = host.start("other", &["bridge"], &[]);
        eprintln!("second attach: {} µs", other.micros);
        assert_eq!(ask(&other.ns, "172.17.0.2", 80), Ok("172.17.0.3".into()), "from a container beside it");
        assert_eq!(ask(&other.ns, LAN_HOST, 8080), Ok("172.17.0.1".into()), "and by the published port: a hairpin");
        host.stop(other);
        host.stop(web);
        let _ = before;
    });
}
