//! The whole of networking on simulated hosts: real links, real firewall, real connections.
//! Needs root; otherwise each test says that it was skipped.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod host;

use host::*;
use netstack::model::EndpointConfig;
use std::net::IpAddr;
use std::os::fd::AsFd;

const TIMED_OUT: &str = "timed out";

fn answer(ip: &str) -> Result<String, String> {
    Ok(ip.to_string())
}

fn silence() -> Result<String, String> {
    Err(TIMED_OUT.to_string())
}

#[test]
fn published_ports_are_reached_from_everywhere() {
    on_a_host("published", |host| {
        let web = host.start("web", &["bridge"], &["8080:80", "9000-9499:9000-9499", "9800-9801:80-81"]);
        let other = host.start("other", &["bridge"], &[]);
        web.serve(80);
        web.serve(9123);
        assert_eq!((web.ip().to_string(), other.ip().to_string()), ("172.17.0.2".into(), "172.17.0.3".into()));
        assert_eq!(ask(&host.ns, "172.17.0.2", 80), answer("172.17.0.1"), "from the host, directly");
        assert_eq!(ask(&host.ns, "127.0.0.1", 8080), answer("172.17.0.1"), "from the host, by loopback");
        assert_eq!(ask(&host.ns, "127.5.5.5", 8080), answer("172.17.0.1"), "all of 127/8 is loopback");
        assert_eq!(ask(&host.ns, LAN_HOST, 8080), answer(LAN_HOST), "from the host, by its LAN address");
        assert_eq!(ask(&host.lan, LAN_HOST, 8080), answer(LAN_NEIGHBOUR), "the neighbour, with its own address");
        assert_eq!(ask(&web.ns, LAN_HOST, 8080), answer("172.17.0.1"), "from the container itself");
        assert_eq!(ask(&other.ns, LAN_HOST, 8080), answer("172.17.0.1"), "from a container beside it: a hairpin");
        assert_eq!(ask(&other.ns, "172.17.0.2", 80), answer("172.17.0.3"), "and directly");
        assert_eq!(ask(&host.lan, LAN_HOST, 9123), answer(LAN_NEIGHBOUR), "in a range");
        assert_eq!(ask(&host.lan, LAN_HOST, 9800), answer(LAN_NEIGHBOUR), "in a range whose numbers change");
        assert_eq!(ask(&web.ns, LAN_HOST, 9123), answer("172.17.0.1"));
        host.stop(other);
        host.stop(web);
        assert!(ask_in_vain(&host.lan, LAN_HOST, 8080).is_err(), "nobody answers afterwards");
    });
}

#[test]
fn what_is_not_published_is_closed() {
    on_a_host("closed", |host| {
        let web = host.start("web", &["bridge"], &["8080:80", "127.0.0.1:8081:81"]);
        web.serve(80);
        web.serve(81);
        assert_eq!(ask(&host.ns, "127.0.0.1", 8081), answer("172.17.0.1"), "loopback only, and the host is asking");
        assert_eq!(ask(&host.ns, LAN_HOST, 8081), Err("connection refused".into()), "another address of the host");
        assert_eq!(ask(&host.lan, LAN_HOST, 8081), Err("connection refused".into()), "the neighbour");
        let direct = "containers are reached through published ports only";
        assert_eq!(counted(direct), 0);
        assert_eq!(
            ask_in_vain(&host.lan, "172.17.0.2", 80),
            silence(),
            "by a route to the subnet, even to a published port"
        );
        assert!(counted(direct) > 0);
        assert_eq!(ask(&host.lan, "172.17.0.1", 8080), answer(LAN_NEIGHBOUR), "the bridge's own address is the host");

        // A frame that claims to be for 127.0.0.1.
        let forged = "127.0.0.1 never comes in by a wire";
        assert_eq!(counted(forged), 0);
        inside(&host.lan, || forge_syn("127.0.0.1", 8081, LAN_HOST));
        assert_eq!(counted(forged), 1);
        inside(&web.ns, || forge_syn("127.0.0.1", 8081, "172.17.0.1"));
        assert_eq!(counted(forged), 2);
        host.stop(web);
    });
}

#[test]
fn networks_are_apart_in_both_families() {
    on_a_host("isolation", |host| {
        host.network("front", |r| r.enable_ipv6 = Some(true));
        host.network("back", |r| r.enable_ipv6 = Some(true));
        let a = host.start("aaa", &["front"], &["8080:80"]);
        let b = host.start("bbb", &["back"], &[]);
        let c = host.start("ccc", &["front"], &[]);
        a.serve(80);
        for (ip, c_ip) in [(a.ip(), c.ip()), (a.ip6(), c.ip6())] {
            assert_eq!(ask_in_vain(&b.ns, &ip.to_string(), 80), silence(), "from another network");
            assert_eq!(ask_in_vain(&host.lan, &ip.to_string(), 80), silence(), "from the LAN");
            assert_eq!(ask(&c.ns, &ip.to_string(), 80), answer(&c_ip.to_string()), "from the same network");
        }
        assert_eq!(ask(&b.ns, LAN_HOST, 8080), answer(&b.ip().to_string()), "another network, by the published port");
        assert_eq!(ask(&b.ns, LAN_HOST_6, 8080), answer(&b.ip6().to_string()));
        assert_eq!(ask(&host.lan, LAN_HOST_6, 8080), answer(LAN_NEIGHBOUR_6), "the neighbour's true IPv6 address");
        assert_eq!(ask(&host.ns, LAN_HOST_6, 8080), answer(LAN_HOST_6));
        let gateway6 = a.sandbox.endpoints()[0].gateway6.unwrap().to_string();
        assert_eq!(ask(&a.ns, LAN_HOST_6, 8080), answer(&gateway6), "itself, by IPv6");
        assert_eq!(ask(&c.ns, LAN_HOST_6, 8080), answer(&gateway6), "a hairpin by IPv6");
        for container in [a, b, c] {
            host.stop(container);
        }
        host.net.remove("front").unwrap();
        host.net.remove("back").unwrap();
    });
}

#[test]
fn the_world_sees_the_host() {
    on_a_host("masquerade", |host| {
        host.network("six", |r| r.enable_ipv6 = Some(true));
        host.network("bare", |r| {
            r.options.insert("com.docker.network.bridge.enable_ip_masquerade".into(), "false".into());
        });
        let a = host.start("aaa", &["six"], &[]);
        let b = host.start("bbb", &["bare"], &[]);
        serve_in(&host.lan, 7000);
        assert_eq!(ask(&a.ns, LAN_NEIGHBOUR, 7000), answer(LAN_HOST));
        assert_eq!(ask(&a.ns, LAN_NEIGHBOUR_6, 7000), answer(LAN_HOST_6));
        assert_eq!(ask(&b.ns, LAN_NEIGHBOUR, 7000), answer(&b.ip().to_string()), "masquerade switched off");
        host.stop(a);
        host.stop(b);
    });
}

#[test]
fn internal_networks_are_closed_both_ways() {
    on_a_host("internal", |host| {
        host.network("vault", |r| {
            r.internal = true;
            r.enable_ipv6 = Some(true);
        });
        let web = host.start("aaa", &["bridge"], &["8080:80"]);
        web.serve(80);
        let a = host.start("bbb", &["vault"], &["9090:90"]);
        let b = host.start("ccc", &["vault"], &[]);
        a.serve(90);
        assert!(a.sandbox.bindings().is_empty(), "nothing is published");
        serve_in(&host.lan, 7000);
        serve_in(&host.ns, 7001);
        assert_eq!(ask(&b.ns, &a.ip().to_string(), 90), answer(&b.ip().to_string()), "among themselves");
        assert_eq!(ask(&b.ns, &a.ip6().to_string(), 90), answer(&b.ip6().to_string()));
        assert_eq!(ask(&a.ns, LAN_NEIGHBOUR, 7000), Err("network unreachable".into()), "no way out");
        // Even for one that gives itself a route.
        let gateways =
            host.net.network("vault").unwrap().pools.into_iter().filter_map(|p| p.gateway).collect::<Vec<_>>();
        inside(&a.ns, || default_routes("eth0", &gateways));
        for outside in [LAN_NEIGHBOUR, LAN_HOST, LAN_NEIGHBOUR_6, LAN_HOST_6] {
            assert_eq!(
                ask_in_vain(&a.ns, outside, if outside.ends_with('2') { 7000 } else { 7001 }),
                silence(),
                "{outside}"
            );
        }
        assert_eq!(ask_in_vain(&a.ns, LAN_HOST, 8080), silence(), "published ports of others");
        assert_eq!(ask_in_vain(&a.ns, &web.ip().to_string(), 80), silence());
        assert_eq!(ask_in_vain(&host.lan, &a.ip().to_string(), 90), silence(), "no way in");
        assert_eq!(ask_in_vain(&web.ns, &a.ip().to_string(), 90), silence());
        for gateway in &gateways {
            assert!(ask(&a.ns, &gateway.to_string(), 7001).is_ok(), "the gateway itself, {gateway}");
        }
        for container in [web, a, b] {
            host.stop(container);
        }
    });
}

#[test]
fn icc_off_keeps_neighbours_apart() {
    on_a_host("icc", |host| {
        host.network("quiet", |r| {
            r.options.insert("com.docker.network.bridge.enable_icc".into(), "false".into());
        });
        let a = host.start("aaa", &["quiet"], &["8080:80"]);
        let b = host.start("bbb", &["quiet"], &[]);
        a.serve(80);
        let gateway = a.sandbox.endpoints()[0].gateway4.unwrap();
        assert_eq!(ask(&host.ns, &a.ip().to_string(), 80), answer(&gateway.to_string()), "the host may");
        assert_eq!(ask(&host.lan, LAN_HOST, 8080), answer(LAN_NEIGHBOUR));
        assert!(ask_in_vain(&b.ns, &a.ip().to_string(), 80).is_err(), "the neighbour may not");
        inside(&b.ns, || host_route("eth0", a.ip(), gateway.into()));
        assert!(ask_in_vain(&b.ns, &a.ip().to_string(), 80).is_err(), "nor by way of the gateway");
        host.stop(a);
        host.stop(b);
    });
}

#[test]
fn the_relay_serves_loopback_v6_and_foreign_families() {
    on_a_host("relay", |host| {
        let mut web = host.start("web", &["bridge"], &["8080:80"]);
        web.serve(80);
        assert_eq!(ask_while_served(&mut web.sandbox, &host.ns, "::1", 8080), answer("172.17.0.1"));
        assert_eq!(
            ask_while_served(&mut web.sandbox, &host.lan, LAN_HOST_6, 8080),
            answer("172.17.0.1"),
            "an IPv6 client of a container that has IPv4 only"
        );
        host.stop(web);
        // Relayed connections in TIME_WAIT are nobody's.
        host.stop(host.start("aaa", &["bridge"], &["8080:80"]));
    });
}

#[test]
fn a_flushed_firewall_and_a_deleted_bridge_come_back() {
    on_a_host("repair", |host| {
        let web = host.start("aaa", &["bridge"], &["8080:80"]);
        web.serve(80);
        host.network("front", |r| {
            r.options.insert("com.docker.network.bridge.enable_icc".into(), "false".into());
        });
        let quiet = host.start("bbb", &["front"], &["8090:80"]);
        quiet.serve(80);
        let before = fingerprint();
        assert_eq!(host.net.repair(|_| None).unwrap(), Vec::<String>::new(), "nothing to do");

        command("nft", &["flush", "ruleset"]);
        assert!(ask_in_vain(&host.lan, LAN_HOST, 8080).is_err());
        let done = host.net.repair(|_| None).unwrap();
        assert_eq!(done.len(), 5, "{done:?}");
        assert!(settled_fingerprint(2) == before);
        assert_eq!(ask(&host.lan, LAN_HOST, 8080), answer(LAN_NEIGHBOUR));
        assert_eq!(ask_in_vain(&host.lan, &web.ip().to_string(), 80), silence());

        // The next start does it by itself.
        command("nft", &["flush", "ruleset"]);
        let other = host.start("ccc", &["bridge"], &[]);
        assert_eq!(ask(&host.lan, LAN_HOST, 8090), answer(LAN_NEIGHBOUR));
        host.stop(other);

        command("ip", &["link", "del", "rrun0"]);
        assert!(ask_in_vain(&host.lan, LAN_HOST, 8080).is_err());
        let other = host.start("ddd", &["bridge"], &[]);
        assert_eq!(ask(&host.lan, LAN_HOST, 8080), answer(LAN_NEIGHBOUR));
        assert_eq!(ask(&other.ns, &web.ip().to_string(), 80), answer(&other.ip().to_string()));
        host.stop(other);

        let bridge = format!("br-{}", &host.net.network("front").unwrap().id[..12]);
        command("ip", &["link", "del", &bridge]);
        let done = host.net.repair(|_| None).unwrap();
        assert_eq!(done.len(), 2, "{done:?}");
        assert_eq!(ask(&host.lan, LAN_HOST, 8090), answer(LAN_NEIGHBOUR));
        assert!(settled_fingerprint(2) == before);
        host.stop(web);
        host.stop(quiet);
    });
}

#[test]
fn what_a_bridge_and_its_sets_lose_comes_back() {
    on_a_host("mend", |host| {
        host.network("front", |r| {
            r.enable_ipv6 = Some(true);
            for (key, value) in [("host_ipv4", LAN_HOST), ("gateway_mode_ipv6", "routed"), ("mtu", "1400")] {
                r.options.insert(key.into(), value.into());
            }
        });
        let web = host.start("aaa", &["front"], &["8080:80"]);
        web.serve(80);
        let bridge = format!("br-{}", &host.net.network("front").unwrap().id[..12]);
        let before = fingerprint();
        let repair = || host.net.repair(|_| None).unwrap();
        assert_eq!(repair(), Vec::<String>::new(), "nothing to do");
        for set in ["outbound4", "no_direct4", "routed6", "open6"] {
            let kind = if set == "outbound4" { "map" } else { "set" };
            command("nft", &["flush", kind, "inet", "rrun", set]);
            assert_eq!(repair().len(), 1, "{set}");
            assert!(settled_fingerprint(1) == before, "{set}");
        }
        command("ip", &["addr", "flush", "dev", &bridge, "scope", "global"]);
        let done = repair();
        assert_eq!(done.len(), 2, "an address a family: {done:?}");
        command("ip", &["link", "set", &bridge, "down"]);
        assert!(repair().iter().any(|l| l.ends_with("was down")));
        assert_eq!(ask(&host.lan, LAN_HOST, 8080), answer(LAN_NEIGHBOUR));
        assert!(settled_fingerprint(1) == before);
        assert_eq!(repair(), Vec::<String>::new());
        host.stop(web);
    });
}

fn now(host: &Host, live: usize) -> (String, Vec<String>) {
    (settled_fingerprint(live), files(&host.state))
}

#[test]
fn nothing_is_left_by_close_by_undo_or_by_failure() {
    on_a_host("leaks", |host| {
        host.network("front", |r| r.enable_ipv6 = Some(true));
        host.stop(host.start("aaa", &["bridge"], &[]));
        host.stop(host.start("aaa", &["front"], &[]));
        let before = now(host, 0);

        host.stop(host.start("bbb", &["front", "bridge"], &["8080:80", "127.0.0.1:9000-9010:9000-9010", "53:53/udp"]));
        assert!(now(host, 0) == before, "close");

        // The monitor was killed: its sockets are closed, its list is walked by somebody else, twice.
        let crashed = host.start("ccc", &["front", "bridge"], &["8080:80", "9800-9801:80-81"]);
        let undo = crashed.undo;
        drop(crashed.sandbox);
        drop(crashed.ns);
        netstack::repair::undo(&undo).unwrap();
        netstack::repair::undo(&undo).unwrap();
        std::fs::remove_dir_all(host.state.join("containers").join(&crashed.id)).unwrap();
        assert!(now(host, 0) == before, "undo");

        // Not even that: the next command sweeps.
        let lost = host.start("ddd", &["front"], &[]);
        std::fs::remove_dir_all(host.state.join("containers").join(&lost.id)).unwrap();
        drop(lost);
        host.net.sweep().unwrap();
        assert!(now(host, 0) == before, "sweep");

        // A port that is taken: the addresses go back.
        let holder = host.start("eee", &["bridge"], &["8080:80"]);
        let with_holder = now(host, 1);
        let request = host.request("fff", &["front", "bridge"], &["8080:80"]);
        let refused = host.net.plan_sandbox(&request, netstack::sandbox::Mode::Real).err().unwrap();
        let text = refused.to_string();
        assert!(text.starts_with("failed to set up container networking: driver failed programming external connectivity on endpoint fff ("), "{text}");
        assert!(text.ends_with("): Bind for 0.0.0.0:8080 failed: port is already allocated"), "{text}");
        std::fs::remove_dir_all(host.state.join("containers").join(&request.container_id)).unwrap();
        assert!(now(host, 1) == with_holder, "a refused port");
        host.stop(holder);

        host.net.remove("front").unwrap();
        assert!(host.net.network("front").is_err());
    });
}

#[test]
fn names_are_answered_inside() {
    on_a_host("names", |host| {
        host.network("front", |r| r.enable_ipv6 = Some(true));
        let db = host.start("ddb", &["front"], &[]);
        let mut web = host.start("aaa", &["front"], &[]);
        let found = resolve_while_served(&mut web, "ddb");
        assert_eq!(found, [db.ip().to_string()]);
        assert_eq!(resolve_while_served(&mut web, "aaa.front"), [web.ip().to_string()]);
        host.stop(db);
        host.stop(web);

        // From the default bridge, where there are no names, to a network that has them.
        let db = host.start("ddb", &["front"], &[]);
        let mut late = host.start("bbb", &["bridge"], &[]);
        let request = host.request("bbb", &[], &[]);
        let config = EndpointConfig { network: "front".into(), aliases: vec!["me".into()], ..Default::default() };
        let e = host.net.connect(&request, &config, late.ns.as_fd()).unwrap();
        late.sandbox.refresh().unwrap();
        assert_eq!(resolve_while_served(&mut late, "ddb"), [db.ip().to_string()]);
        assert_eq!(resolve_while_served(&mut late, "me"), [e.ipv4.unwrap().to_string()]);
        host.stop(db);
        host.stop(late);
    });
}

#[test]
fn udp_follows_the_container_that_publishes_now() {
    on_a_host("udp", |host| {
        // A client that never stops sending from one port keeps its conntrack entry alive.
        let client = inside(&host.lan, || std::net::UdpSocket::bind((LAN_NEIGHBOUR, 0)).unwrap());
        client.set_read_timeout(Some(std::time::Duration::from_secs(3))).unwrap();
        let ask = || {
            client.send_to(b"?", (LAN_HOST, 5353)).unwrap();
            let mut buf = [0; 64];
            client.recv(&mut buf).map(|n| String::from_utf8_lossy(&buf[..n]).into_owned())
        };
        let spare = host.start("ccc", &["bridge"], &[]);
        let first = host.start("aaa", &["bridge"], &["5353:53/udp"]);
        first.echo_udp(53, "first");
        assert_eq!(ask().unwrap(), "first");
        let gone = first.ip();
        host.stop(first);
        host.stop(spare);
        client.send_to(b"?", (LAN_HOST, 5353)).unwrap();
        let second = host.start("bbb", &["bridge"], &["5353:53/udp"]);
        second.echo_udp(53, "second");
        assert_ne!(second.ip(), gone);
        // The first one's last answer may still be in the socket: its namespace dies in its own time.
        let answers: Vec<_> = (0..2).map(|_| ask().unwrap()).collect();
        assert_eq!(answers[1], "second", "{answers:?}");
        host.stop(second);
    });
}

#[test]
fn networks_come_and_go_while_it_runs() {
    on_a_host("live", |host| {
        host.network("front", |r| r.enable_ipv6 = Some(true));
        host.network("vault", |r| r.internal = true);
        let mut web = host.start("aaa", &["vault"], &["8080:80"]);
        let peer = host.start("bbb", &["front"], &[]);
        web.serve(80);
        let request = host.request("aaa", &[], &[]);
        let config = EndpointConfig { network: "front".into(), ..Default::default() };
        let e = host.net.connect(&request, &config, web.ns.as_fd()).unwrap();
        assert_eq!(
            (e.ifname.as_str(), e.ipv4.map(|ip| ip.to_string()).unwrap_or_default().ends_with(".3")),
            ("eth1", true)
        );
        web.sandbox.refresh().unwrap();
        assert_eq!(ask(&host.lan, LAN_HOST, 8080), answer(LAN_NEIGHBOUR), "published now");
        assert_eq!(ask(&peer.ns, &e.ipv4.unwrap().to_string(), 80), answer(&peer.ip().to_string()));
        let again = host.net.connect(&request, &config, web.ns.as_fd()).unwrap_err();
        assert_eq!(again.to_string(), "endpoint with name aaa already exists in network front");

        let used = host.net.remove("front").unwrap_err().to_string();
        assert!(
            used.starts_with("error while removing network: network front has active endpoints (name:\"aaa\" id:\"aaa"),
            "{used}"
        );

        host.net.disconnect(&request, "front", Some(web.ns.as_fd())).unwrap();
        web.sandbox.refresh().unwrap();
        assert!(ask_in_vain(&host.lan, LAN_HOST, 8080).is_err(), "and not any more");
        let not = host.net.disconnect(&request, "front", None).unwrap_err();
        assert_eq!(not.to_string(), "container aaa000000000 is not connected to network front");
        host.stop(peer);
        host.stop(web);
        host.net.remove("front").unwrap();
        host.net.remove("vault").unwrap();
    });
}

#[test]
fn a_reused_address_is_found_at_once() {
    on_a_host("garp", |host| {
        for round in 0..3 {
            let a = host.start("aaa", &["bridge"], &["8080:80"]);
            a.serve(80);
            assert_eq!(a.ip().to_string(), "172.17.0.2", "lowest free");
            // The host's neighbour cache knows the address under the MAC of the container before.
            assert_eq!(ask(&host.lan, LAN_HOST, 8080), answer(LAN_NEIGHBOUR), "round {round}");
            host.stop(a);
            let b = host.start("bbb", &["bridge"], &["8080:80"]);
            b.serve(80);
            assert_eq!(ask(&host.lan, LAN_HOST, 8080), answer(LAN_NEIGHBOUR), "round {round}");
            host.stop(b);
        }
    });
}

#[test]
fn forty_at_once_get_forty_addresses() {
    on_a_host("parallel", |host| {
        let ips: Vec<IpAddr> = std::thread::scope(|scope| {
            let starts: Vec<_> = (0..40)
                .map(|i| {
                    scope.spawn(move || {
                        inside(&host.ns, || {
                            let container = host.start(&format!("c{i:02}"), &["bridge"], &["0:80"]);
                            (container.ip(), container)
                        })
                    })
                })
                .collect();
            let started: Vec<_> = starts.into_iter().map(|s| s.join().unwrap()).collect();
            started
                .into_iter()
                .map(|(ip, container)| {
                    host.stop(container);
                    ip
                })
                .collect()
        });
        let mut sorted = ips.clone();
        sorted.sort();
        sorted.dedup();
        assert_eq!(sorted.len(), 40);
        assert_eq!(sorted.last().unwrap().to_string(), "172.17.0.41");
        let table = fingerprint();
        assert_eq!(table.matches("chain forward {").count(), 1);
        assert_eq!(table.matches("goto published_only").count(), 1, "the rules were loaded once");
    });
}
