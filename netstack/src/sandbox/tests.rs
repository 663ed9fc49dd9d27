//! Plans as text: what would be done, in order, without root.

use super::*;
use crate::driver::bridge::Facts;
use crate::model::Pool;
use crate::step::Step;
use ::plan::Action;
use std::collections::BTreeMap;

pub(crate) fn endpoint(network: &str, v4: &str, v6: Option<&str>) -> Endpoint {
    Endpoint {
        version: 1,
        id: format!("{network}-endpoint"),
        network_id: format!("{network:0<64}"),
        network: network.into(),
        container_id: format!("{:c<64}", "web"),
        container_name: "web".into(),
        hostname: "web".into(),
        ifname: "eth0".into(),
        host_ifname: "veth0000001".into(),
        mac: "02:00:00:00:00:01".into(),
        ipv4: Some(v4.parse().unwrap()),
        prefix4: 16,
        gateway4: Some("172.17.0.1".parse().unwrap()),
        ipv6: v6.map(|ip| ip.parse().unwrap()),
        prefix6: 64,
        gateway6: v6.map(|_| "fd00::1".parse().unwrap()),
        dns_names: vec!["web".into()],
        ..Endpoint::default()
    }
}

fn network(name: &str, subnets: &[(&str, &str)], options: &[(&str, &str)]) -> Network {
    Network {
        version: 1,
        id: format!("{name:0<64}"),
        name: name.into(),
        driver: "bridge".into(),
        enable_ipv4: true,
        enable_ipv6: subnets.len() > 1,
        pools: subnets
            .iter()
            .map(|(subnet, gateway)| Pool {
                subnet: subnet.parse().unwrap(),
                ip_range: None,
                gateway: Some(gateway.parse().unwrap()),
                aux: BTreeMap::new(),
            })
            .collect(),
        options: options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
        ..Network::default()
    }
}

fn binding(host_ip: &str, host: (u16, u16), container: (u16, u16)) -> PortBinding {
    let host_ip = host_ip.parse().unwrap();
    let proto = crate::model::Proto::Tcp;
    PortBinding { host_ip, host, container, proto, iface: None, from: Vec::new(), routed: false }
}

fn lines(steps: &[Step]) -> Vec<String> {
    steps.iter().map(Action::line).collect()
}

fn plan(networks: &[(Network, Facts)], endpoints: &[Endpoint], bindings: &[PortBinding], dns: bool) -> Vec<Step> {
    let macs = vec![[2, 0, 0, 0, 0, 1]; endpoints.len()];
    let own = Own {
        state: Path::new("/run/rrun"),
        files: None,
        namespace: true,
        dns,
        egress: None,
        loopback: &[],
        rate: Rate::default(),
    };
    let networks: Vec<_> = networks.iter().map(|(n, f)| (n.clone(), driver::Facts::Bridge(*f))).collect();
    compose(&networks, endpoints, &macs, bindings, own)
}

#[test]
fn the_usual_attach_changes_no_rule_and_no_bridge() {
    let net = network("bridge", &[("172.17.0.0/16", "172.17.0.1")], &[("com.docker.network.bridge.name", "rrun0")]);
    let steps = plan(
        &[(net, Facts::ready())],
        &[endpoint("bridge", "172.17.0.2", None)],
        &[binding("0.0.0.0", (8080, 8080), (80, 80))],
        false,
    );
    assert_eq!(
        lines(&steps),
        [
            "lease 172.17.0.2 on network bridge",
            "reserve 0.0.0.0:8080/tcp on the host",
            "create a virtual cable: eth0 inside the container, veth0000001 plugged into rrun0",
            "switch IPv6 off on eth0",
            "bring up the container's own loopback, lo",
            "give eth0 172.17.0.2/16 and bring it up",
            "send all other IPv4 traffic to 172.17.0.1 through eth0",
            "publish 0.0.0.0:8080/tcp → container port 80",
            "let others on network bridge find it as web",
        ]
    );
}

#[test]
fn an_endpoint_without_names_says_so() {
    let net = network("bridge", &[("172.17.0.0/16", "172.17.0.1")], &[]);
    let mut nameless = endpoint("bridge", "172.17.0.2", None);
    nameless.dns_names.clear();
    let steps = plan(&[(net, Facts::ready())], &[nameless], &[], false);
    let last = lines(&steps).pop();
    assert_eq!(last.as_deref(), Some("note its place on network bridge, where nobody has a name"));
}

#[test]
fn the_first_container_of_a_network_sets_the_host_up() {
    let net = network("front", &[("10.5.0.0/24", "10.5.0.1"), ("fd00::/64", "fd00::1")], &[]);
    let steps = plan(&[(net, Facts::default())], &[endpoint("front", "10.5.0.2", Some("fd00::2"))], &[], true);
    assert_eq!(
        lines(&steps)[2..7],
        [
            "let the host forward IPv4 packets",
            "let the host forward IPv6 packets",
            "load the firewall table inet rrun",
            "tell the firewall about network front",
            "create bridge br-front0000000, the switch of network front, with 10.5.0.1/24, fd00::1/64",
        ]
    );
    let words: String = steps.iter().filter_map(Action::shell).map(|s| s + "\n").collect();
    for command in [
        "nft add element inet rrun bridges '{ \"br-front0000000\" }'",
        "nft add element inet rrun home6 '{ fd00::/64 . \"br-front0000000\" }'",
        "ip addr add fd00::1/64 dev br-front0000000 nodad",
        "netns \"$NETNS\"",
        "sysctl -w net.ipv6.conf.eth0.disable_ipv6=0 net.ipv6.conf.eth0.accept_ra=0",
        "ip -n \"$NETNS\" route add default via fd00::1 dev eth0",
    ] {
        assert!(words.contains(command), "{command} not in\n{words}");
    }
    assert!(matches!(steps[steps.len() - 2], Step::DnsServer));
}

#[test]
fn every_step_has_a_reason_and_undo_is_mostly_nothing() {
    let net = network("front", &[("10.5.0.0/24", "10.5.0.1")], &[]);
    let steps = plan(
        &[(net, Facts::default())],
        &[endpoint("front", "10.5.0.2", None)],
        &[binding("0.0.0.0", (80, 80), (80, 80)), binding("127.0.0.1", (8000, 8499), (8000, 8499))],
        true,
    );
    for s in &steps {
        assert!(s.why().len() > 40, "{}", s.line());
    }
    let things: Vec<HostThing> =
        steps.iter().filter_map(|s| if let Undo::Remove(t) = s.undo() { Some(t) } else { None }).flatten().collect();
    let kinds: Vec<&str> = things
        .iter()
        .map(|t| match t {
            HostThing::Lease { .. } => "lease",
            HostThing::NftElement { .. } => "element",
            HostThing::DnsRecord { .. } => "record",
            HostThing::Route { .. } => "route",
            HostThing::Neighbour { .. } => "neighbour",
            HostThing::CgroupDir { .. } | HostThing::VolumeMount { .. } | HostThing::StateDir { .. } => "not ours",
        })
        .collect();
    assert_eq!(kinds, ["lease", "element", "element", "element", "record"]);
    assert_eq!(
        things[3],
        HostThing::NftElement {
            set: "publish4_addr_range".into(),
            element: "127.0.0.1 . tcp . 8000-8499 : 10.5.0.2".into()
        }
    );
}

#[test]
fn the_default_route_goes_by_priority_then_name_and_never_inside() {
    let (mut a, mut b, mut c) =
        (endpoint("a", "10.1.0.2", None), endpoint("b", "10.2.0.2", Some("fd00::2")), endpoint("c", "10.3.0.2", None));
    (a.ifname, b.ifname, c.ifname) = ("eth0".into(), "eth1".into(), "eth2".into());
    let through = |endpoints: &[Endpoint]| -> Vec<String> {
        bridge::routes(endpoints)
            .into_iter()
            .map(|s| match s {
                Step::DefaultRoute { gateway, ifname, .. } => format!("{gateway} {ifname}"),
                other => panic!("{other:?}"),
            })
            .collect()
    };
    assert_eq!(through(&[c.clone(), b.clone(), a.clone()]), ["172.17.0.1 eth0", "fd00::1 eth1"]);
    c.gw_priority = 1;
    assert_eq!(through(&[a.clone(), b.clone(), c.clone()])[0], "172.17.0.1 eth2");
    c.internal = true;
    assert_eq!(through(&[a, b, c])[0], "172.17.0.1 eth0");
}

#[test]
fn ports_go_to_the_address_of_their_own_family() {
    let both = [endpoint("a", "10.1.0.2", Some("fd00::2"))];
    let only4 = [endpoint("a", "10.1.0.2", None)];
    let bindings =
        [binding("0.0.0.0", (80, 80), (80, 80)), binding("::", (80, 80), (80, 80)), binding("::1", (81, 81), (80, 80))];
    let texts = |endpoints: &[Endpoint]| -> Vec<String> {
        bridge::published(endpoints, &bindings).iter().map(|e| format!("{} {e}", e.set())).collect()
    };
    assert_eq!(
        texts(&both),
        [
            "publish4_any tcp . 80 : 10.1.0.2",
            "publish4_any_port tcp . 80 : 80",
            "publish6_any tcp . 80 : fd00::2",
            "publish6_any_port tcp . 80 : 80"
        ]
    );
    assert_eq!(texts(&only4), ["publish4_any tcp . 80 : 10.1.0.2", "publish4_any_port tcp . 80 : 80"]);
}

#[test]
fn isolation_within_a_network_is_in_the_cable() {
    let net = network("quiet", &[("10.5.0.0/24", "10.5.0.1")], &[("com.docker.network.bridge.enable_icc", "false")]);
    let steps = plan(&[(net, Facts::default())], &[endpoint("quiet", "10.5.0.2", None)], &[], false);
    let words: String = steps.iter().filter_map(Action::shell).map(|s| s + "\n").collect();
    assert!(words.contains("ip link set veth0000001 type bridge_slave isolated on"));
    assert!(!words.contains("inet rrun talkative"));
}
