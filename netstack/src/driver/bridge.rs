//! A bridge network: a switch on the host, a cable to each container, NAT to the world.

use crate::firewall::{Element, network_elements};
use crate::model::{Endpoint, Network, PortBinding};
use crate::networks::{BridgeOptions, GatewayMode};
use crate::publish::Target;
use crate::sandbox::link_local;
use crate::static_route::Via;
use crate::step::{Step, Veth};
use ipnetwork::IpNetwork;
use plan::{Error, Result};
use std::net::IpAddr;

/// What the host looks like, as far as the recipe depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The bridge is there.
    pub bridge: bool,
    /// The firewall table is there.
    pub firewall: bool,
    /// …and knows the network.
    pub admitted: bool,
    /// The host forwards already; only looked at when the bridge is missing.
    pub forwards4: bool,
    pub forwards6: bool,
    /// Another program loaded br_netfilter, so that bridged frames go through the IP rules.
    pub br_netfilter: bool,
}

impl Facts {
    /// Everything in place: the usual case.
    pub fn ready() -> Facts {
        Facts { bridge: true, firewall: true, admitted: true, forwards4: true, forwards6: true, br_netfilter: false }
    }
}

/// What the network itself lacks on this host: nothing, except for its first container and after
/// somebody removed things by hand.
pub fn prepare(network: &Network, facts: Facts) -> Vec<Step> {
    let options = BridgeOptions::of(network);
    let mut steps = Vec::new();
    if options.unmanaged {
        return steps;
    }
    if !facts.bridge {
        if network.enable_ipv4 && !facts.forwards4 {
            steps.push(Step::EnableForwarding { ipv6: false });
        }
        if network.enable_ipv6 && !facts.forwards6 {
            steps.push(Step::EnableForwarding { ipv6: true });
        }
        // The firewall first: the bridge must not forward for a moment without it.
    }
    if !facts.firewall {
        steps.push(Step::EnsureFirewall);
    }
    if !facts.admitted {
        steps.push(Step::AdmitNetwork { network: network.name.clone(), elements: network_elements(network) });
    }
    if !facts.bridge {
        steps.push(Step::EnsureBridge {
            network: network.name.clone(),
            bridge: options.bridge_name(&network.id),
            addresses: gateways(network),
            mtu: mtu(network),
            vlan: options.vlan,
            vrf: options.vrf,
        });
    }
    steps
}

/// The gateway's addresses, with their prefixes, as far as the bridge has them.
pub fn gateways(network: &Network) -> Vec<IpNetwork> {
    let options = BridgeOptions::of(network);
    let on_bridge = |subnet: &IpNetwork| {
        options.mode(subnet.is_ipv6()) != GatewayMode::Isolated
            && !options.unmanaged
            && !(subnet.is_ipv4() && options.inhibit_ipv4)
    };
    let pools = network.pools.iter().filter(|p| on_bridge(&p.subnet));
    pools.filter_map(|p| IpNetwork::new(p.gateway?, p.subnet.prefix()).ok()).collect()
}

/// Of the bridge and of every interface on it; `None`: the kernel's 1500.
pub fn mtu(network: &Network) -> Option<u32> {
    BridgeOptions::of(network).mtu.or(network.inherited_mtu)
}

/// The cable.
pub fn plug(network: &Network, endpoint: &Endpoint, mac: [u8; 6], facts: Facts) -> Step {
    let options = BridgeOptions::of(network);
    Step::CreateVeth(Veth {
        host: endpoint.host_ifname.clone(),
        peer: endpoint.ifname.clone(),
        bridge: options.bridge_name(&network.id),
        mac,
        mtu: mtu(network),
        isolated: !options.icc && !options.unmanaged,
        // A bridge of ours gives every port its VLAN by itself.
        vlan: options.vlan.filter(|_| options.unmanaged),
        // With br_netfilter a container that connects to its own published port has its packets
        // rewritten while they are still frames, and they must leave by the port they came in.
        hairpin: facts.br_netfilter && !options.unmanaged,
    })
}

/// Before the interface comes up.
pub fn harden(endpoint: &Endpoint) -> Step {
    Step::HardenInterface { ifname: endpoint.ifname.clone(), ipv6: endpoint.ipv6.is_some() }
}

/// The kernel parameters that were asked for it. Over ours, and before it comes up: some only
/// count then.
pub fn tune(endpoint: &Endpoint) -> Option<Step> {
    (!endpoint.sysctls.is_empty())
        .then(|| Step::TuneInterface { ifname: endpoint.ifname.clone(), settings: endpoint.sysctls.clone() })
}

/// Its addresses, and up.
pub fn configure(endpoint: &Endpoint) -> Step {
    let v4 = endpoint.ipv4.map(|ip| (IpAddr::V4(ip), endpoint.prefix4));
    let v6 = endpoint.ipv6.map(|ip| (IpAddr::V6(ip), endpoint.prefix6));
    let own = v4.into_iter().chain(v6).filter_map(|(ip, prefix)| IpNetwork::new(ip, prefix).ok());
    let addresses = own.chain(endpoint.link_local.iter().filter_map(|ip| link_local(*ip))).collect();
    let announce = endpoint.announce.messages > 0;
    Step::ConfigureInterface { ifname: endpoint.ifname.clone(), addresses, announce }
}

/// Asks the network's DHCP server, where it has one. The interface is up.
pub fn ask(endpoint: &Endpoint) -> Option<Step> {
    let (asked, mac) = (endpoint.dhcp.clone()?, endpoint.mac_bytes()?);
    Some(Step::AskDhcp { network: endpoint.network.clone(), ifname: endpoint.ifname.clone(), mac, asked })
}

/// The host answers for its address on the host's own wire.
pub fn proxies(endpoint: &Endpoint) -> impl Iterator<Item = Step> {
    endpoint.answered().map(|(ip, uplink)| Step::ProxyNeighbour { ip, uplink })
}

/// Multicast DNS to the LAN and back.
pub fn reflect(endpoint: &Endpoint) -> Option<Step> {
    Some(Step::ReflectMdns { network: endpoint.network.clone(), uplink: endpoint.mdns.clone()? })
}

/// The endpoint that the default route goes through, for one family: the highest priority, then the
/// first name, never an internal network.
pub fn gateway_endpoint(endpoints: &[Endpoint], ipv6: bool) -> Option<&Endpoint> {
    best(endpoints, ipv6, |e| !e.no_default_route)
}

fn best(endpoints: &[Endpoint], ipv6: bool, may: impl Fn(&Endpoint) -> bool) -> Option<&Endpoint> {
    endpoints
        .iter()
        .filter(|e| e.leads_out(ipv6) && may(e))
        .min_by(|a, b| b.gw_priority.cmp(&a.gw_priority).then_with(|| a.network.cmp(&b.network)))
}

/// The endpoint that ports are published through, for one family: of the default route, else another that
/// answers leave through (`driver::reply`), else any that a static route may lead back through. Not one on a device without a bridge or on somebody else's bridge, and an address from the network's
/// own DHCP server is not the host's to redirect to.
pub fn publishing_endpoint(endpoints: &[Endpoint], ipv6: bool) -> Option<&Endpoint> {
    let ours = |e: &Endpoint| e.is_bridged() && !e.unmanaged && (ipv6 || e.dhcp.is_none());
    best(endpoints, ipv6, |e| ours(e) && !e.no_default_route).or_else(|| best(endpoints, ipv6, ours))
}

/// The same for whichever family has one: IPv4 first.
pub fn any_publishing_endpoint(endpoints: &[Endpoint]) -> Option<&Endpoint> {
    publishing_endpoint(endpoints, false).or_else(|| publishing_endpoint(endpoints, true))
}

/// The default routes, one a family at most.
pub fn routes(endpoints: &[Endpoint]) -> Vec<Step> {
    [false, true]
        .into_iter()
        .filter_map(|ipv6| {
            let e = gateway_endpoint(endpoints, ipv6)?;
            let gateway = if ipv6 { e.gateway6.map(IpAddr::V6) } else { e.gateway4.map(IpAddr::V4) };
            let ifname = e.ifname.clone();
            Some(match gateway {
                Some(gateway) => Step::DefaultRoute { gateway, ifname, metric: e.metric },
                None => Step::DeviceRoute { ifname, ipv6 },
            })
        })
        .collect()
}

/// Where published ports lead: the container's addresses on the networks its default routes use.
pub fn target(endpoints: &[Endpoint]) -> Target {
    Target {
        ipv4: publishing_endpoint(endpoints, false).and_then(|e| e.ipv4),
        ipv6: publishing_endpoint(endpoints, true).and_then(|e| e.ipv6),
    }
}

/// The static routes of networks and container, each through the interface that its gateway is on.
pub fn static_routes(endpoints: &[Endpoint]) -> Vec<Step> {
    let mut steps = Vec::new();
    for e in endpoints {
        for route in &e.routes {
            let through = match route.via {
                Via::Gateway(gateway) => endpoints.iter().find(|e| on_link(e, gateway)).unwrap_or(e),
                _ => e,
            };
            steps.push(Step::StaticRoute { route: *route, ifname: through.ifname.clone() });
        }
    }
    steps
}

/// A route's gateway must be on one of the container's subnets.
pub fn check_routes(endpoints: &[Endpoint]) -> Result<()> {
    // What a DHCP server will say is not known yet.
    if endpoints.iter().any(|e| e.dhcp.is_some()) {
        return Ok(());
    }
    for route in endpoints.iter().flat_map(|e| &e.routes) {
        if let Via::Gateway(gateway) = route.via
            && !endpoints.iter().any(|e| on_link(e, gateway))
        {
            return Err(Error::invalid(format!("no network of this container contains route gateway {gateway}"))
                .with_hint("a gateway must be an address of a network that the container is on"));
        }
    }
    Ok(())
}

/// Is this address on the endpoint's own subnet?
pub fn on_link(e: &Endpoint, ip: IpAddr) -> bool {
    let own = if ip.is_ipv4() { e.ipv4.map(IpAddr::V4) } else { e.ipv6.map(IpAddr::V6) };
    let prefix = if ip.is_ipv4() { e.prefix4 } else { e.prefix6 };
    own.and_then(|own| IpNetwork::new(own, prefix).ok()).is_some_and(|net| net.contains(ip))
}

/// An unmanaged network without its bridge.
pub fn missing(network: &str, bridge: &str) -> Error {
    Error::system(format!("bridge {bridge} of unmanaged network {network} does not exist"))
        .with_hint(format!("rrun does not make it: ip link add {bridge} type bridge && ip link set {bridge} up"))
}

/// The elements that send published ports to the container: each binding to the address of its own
/// family, where the container has one. The monitor relays the others. Of a routed network the
/// container's own ports are opened instead; where somebody is trusted, both.
pub fn published(endpoints: &[Endpoint], bindings: &[PortBinding]) -> Vec<Element> {
    let target = target(endpoints);
    let (target4, target6) = (target.ipv4.map(IpAddr::V4), target.ipv6.map(IpAddr::V6));
    bindings
        .iter()
        // [::1] cannot leave the loopback: no element could ever match.
        .filter(|b| !(b.host_ip.is_ipv6() && b.host_ip.is_loopback()))
        .filter_map(|b| {
            let ipv4 = b.host_ip.is_ipv4();
            let target = if ipv4 { target4? } else { target6? };
            let mut elements = if b.routed { Vec::new() } else { Element::published(b, target) };
            let trusted = publishing_endpoint(endpoints, !ipv4).is_some_and(|e| e.trusted);
            if b.routed || trusted && b.iface.is_none() && !b.host_ip.is_loopback() {
                elements.extend(Element::open(b, target));
            }
            Some(elements)
        })
        .flatten()
        .collect()
}

/// 02 as the first byte: a locally administered address. The rest from network and container, so
/// that a container keeps its address over restarts.
pub fn mac(network_id: &str, container_id: &str) -> [u8; 6] {
    use sha2::{Digest, Sha256};
    let d = Sha256::digest(format!("mac {network_id} {container_id}"));
    [0x02, d[0], d[1], d[2], d[3], d[4]]
}
