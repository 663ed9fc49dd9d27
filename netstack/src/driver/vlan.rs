//! macvlan and ipvlan networks: containers as machines of their own on the host's LAN.
//!
//! A network has a parent interface; each container gets a device on top of it. There is no bridge,
//! no NAT and no firewall of the host in between, so there is nothing to publish either.

use crate::driver::bridge;
use crate::model::{Endpoint, Network};
use crate::networks::VlanOptions;
use crate::networks::vlan::{HOST, Upper};
use crate::step::{Shim, Step, UpperDevice};

/// What the host looks like, as far as the recipe depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The parent interface is there.
    pub parent: bool,
    /// So is the host's own device beside the containers'.
    pub shim: bool,
}

/// What the network itself lacks on this host.
pub fn prepare(network: &Network, facts: Facts) -> Vec<Step> {
    let options = VlanOptions::of(network);
    let mut steps = Vec::new();
    if !facts.parent
        && let Some(parent) = options.makes(network)
    {
        steps.push(Step::EnsureParent { network: network.name.clone(), parent });
    }
    if !facts.shim
        && let Some(shim) = shim(network)
    {
        steps.push(Step::EnsureShim(shim));
    }
    steps
}

/// The host's own device on the network, with `host_access`.
pub fn shim(network: &Network) -> Option<Shim> {
    let options = VlanOptions::of(network);
    Some(Shim {
        network: network.name.clone(),
        name: options.shim_name(&network.id)?,
        parent: options.parent_name(&network.id),
        kind: options.upper,
        mac: own_mac(options.upper).then(|| bridge::mac(&network.id, HOST)),
        mtu: options.mtu,
        addresses: network.pools.iter().filter_map(|p| p.aux.get(HOST).copied()).collect(),
    })
}

/// The container's device.
pub fn plug(network: &Network, endpoint: &Endpoint, mac: [u8; 6]) -> Step {
    let options = VlanOptions::of(network);
    Step::CreateUpper(UpperDevice {
        ifname: endpoint.ifname.clone(),
        parent: options.parent_name(&network.id),
        kind: options.upper,
        mac: (!endpoint.mac.is_empty()).then_some(mac),
        mtu: options.mtu,
        broadcast_limit: options.broadcast_limit,
    })
}

/// A passthru device takes its parent's MAC address when it is made; another one is set afterwards.
pub fn rename(network: &Network, endpoint: &Endpoint, mac: [u8; 6]) -> Option<Step> {
    let given = VlanOptions::of(network).upper.is_exclusive() && !endpoint.mac.is_empty();
    given.then(|| Step::SetMac { ifname: endpoint.ifname.clone(), mac })
}

/// The host's routes to the container.
pub fn host_routes(network: &Network, endpoint: &Endpoint) -> Vec<Step> {
    let Some(shim) = &endpoint.shim else { return Vec::new() };
    endpoint
        .addresses()
        .filter_map(|ip| {
            let pool = network.pools.iter().find(|p| p.subnet.contains(ip))?;
            Some(Step::HostRoute { ip, shim: shim.clone(), source: *pool.aux.get(HOST)? })
        })
        .collect()
}

/// All ipvlan devices have their parent's MAC address, and so has the one of a passthru network
/// unless the user gives both another.
pub fn own_mac(kind: Upper) -> bool {
    matches!(kind, Upper::Macvlan(_)) && !kind.is_exclusive()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::tests::endpoint;
    use plan::Action;
    use std::collections::BTreeMap;

    fn network(driver: &str, options: &[(&str, &str)], extra: &[&str]) -> Network {
        let pool = crate::model::Pool {
            subnet: "10.5.0.0/24".parse().unwrap(),
            ip_range: None,
            gateway: None,
            aux: BTreeMap::from([(HOST.to_string(), "10.5.0.254".parse().unwrap())]),
        };
        Network {
            id: format!("{:0<64}", "feed"),
            name: "lan".into(),
            driver: driver.into(),
            pools: vec![pool],
            options: options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
            extra: extra.iter().map(|k| (k.to_string(), true.into())).collect(),
            ..Network::default()
        }
    }

    fn words(steps: &[Step]) -> String {
        steps.iter().map(|s| format!("{}\n{}\n", s.line(), s.shell().unwrap_or_default())).collect()
    }

    #[test]
    fn a_tagged_parent_and_a_shim_are_made_where_they_lack() {
        let net = network("macvlan", &[("parent", "eth0.50"), ("host_access", "true")], &["made_parent"]);
        let steps = prepare(&net, Facts::default());
        let text = words(&steps);
        for line in [
            "create eth0.50, eth0 with VLAN tag 50, the parent of network lan",
            "ip link add link eth0 name eth0.50 type vlan id 50",
            "net.ipv6.conf.eth0/50.addr_gen_mode=1",
            "create hs-feed00000000 on top of eth0.50, the host's own place on network lan, with 10.5.0.254",
            "ip addr add 10.5.0.254/32 dev hs-feed00000000",
            "net.ipv4.conf.hs-feed00000000.arp_filter=1 net.ipv6.conf.hs-feed00000000.disable_ipv6=1",
        ] {
            assert!(text.contains(line), "{line} not in\n{text}");
        }
        assert!(steps.iter().all(|s| s.why().len() > 40 && s.undo() == plan::Undo::Nothing));
        assert_eq!(prepare(&net, Facts { parent: true, shim: true }), []);
        // Somebody else's: not ours to make.
        assert_eq!(
            prepare(&network("macvlan", &[("parent", "eth0.50")], &[]), Facts { parent: false, shim: true }),
            []
        );
    }

    #[test]
    fn devices_in_words() {
        let net = network("ipvlan", &[("ipvlan_mode", "l3"), ("ipvlan_flag", "vepa")], &[]);
        let mut e = endpoint("lan", "10.5.0.2", Some("fd00::2"));
        (e.mac, e.driver, e.device_route, e.gateway4, e.gateway6) = (String::new(), "ipvlan".into(), true, None, None);
        let text = words(&[&[plug(&net, &e, [2, 0, 0, 0, 0, 1])], &bridge::routes(&[e.clone()])[..]].concat());
        for line in [
            "create eth0 inside the container, on top of di-feed00000000 of the host (ipvlan, mode l3 vepa)",
            "ip link add link di-feed00000000 name eth0 netns \"$NETNS\" type ipvlan mode l3 vepa",
            "send all other IPv4 traffic straight into eth0",
            "ip -6 -n \"$NETNS\" route add default dev eth0",
        ] {
            assert!(text.contains(line), "{line} not in\n{text}");
        }
        assert_eq!(bridge::any_publishing_endpoint(&[e]), None, "nothing to publish through");
    }

    #[test]
    fn the_hosts_routes_are_in_the_undo_list() {
        let net = network("macvlan", &[("parent", "eth0"), ("host_access", "1")], &[]);
        let mut e = endpoint("lan", "10.5.0.2", None);
        assert_eq!(host_routes(&net, &e), []);
        e.shim = Some("hs-feed00000000".into());
        let steps = host_routes(&net, &e);
        assert_eq!(steps[0].shell().unwrap(), "ip route add 10.5.0.2/32 dev hs-feed00000000 src 10.5.0.254");
        let plan::Undo::Remove(things) = steps[0].undo() else { panic!("not undone") };
        assert_eq!(
            things,
            [plan::HostThing::Route { destination: "10.5.0.2".parse().unwrap(), device: "hs-feed00000000".into() }]
        );
    }

    #[test]
    fn a_passthru_device_and_its_parent_have_one_mac_address() {
        let net = network("macvlan", &[("parent", "eth0"), ("macvlan_mode", "passthru")], &[]);
        let mut e = endpoint("lan", "10.5.0.2", None);
        assert!(rename(&net, &e, [2, 0, 0, 0, 0, 9]).is_some());
        e.mac = String::new();
        assert_eq!(rename(&net, &e, [2, 0, 0, 0, 0, 9]), None);
        assert!(!own_mac(VlanOptions::of(&net).upper));
    }
}
