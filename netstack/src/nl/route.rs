//! Links, addresses and routes: the typed messages of rtnetlink, put into a batch.

use super::socket::{Batch, Socket};
use crate::static_route::{StaticRoute, Via};
use crate::step::Veth;
use ipnetwork::IpNetwork;
use netlink_packet_core::{DefaultNla, NLM_F_REQUEST, NetlinkMessage, Parseable};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    AfSpecBridge, BridgeStpState, BridgeVlanInfo, BridgeVlanInfoFlags, InfoBridgePort, InfoData, InfoKind,
    InfoPortKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use plan::Result;
use rtnetlink::{
    AddressMessageBuilder, LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

pub(super) const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_EXCL: u16 = 0x200;
pub(super) const NLM_F_CREATE: u16 = 0x400;
pub(super) const NEW: u16 = NLM_F_CREATE | NLM_F_EXCL;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_INET_CONF: u16 = 1;
const IPV4_DEVCONF_ARP_NOTIFY: u16 = 22;

/// Everything a batch can ask of links, addresses and routes. `tag` names the step.
impl Batch {
    /// A bridge without spanning tree: ports forward at once instead of after 30 s of listening.
    /// With `vlan`, every port and the bridge itself is in that VLAN.
    pub fn add_bridge(&mut self, tag: usize, name: &str, mac: [u8; 6], mtu: Option<u32>, vlan: Option<u16>) {
        // Without an address of its own a bridge takes the lowest of its ports', which changes as
        // containers come and go, and with it the gateway's entry in every neighbour cache.
        let mut b = LinkBridge::new(name).address(mac.to_vec()).stp_state(BridgeStpState::Disabled).forward_delay(0);
        if let Some(mtu) = mtu {
            b = b.mtu(mtu);
        }
        if let Some(vlan) = vlan {
            b = b.vlan_filtering(true).vlan_default_pvid(vlan);
        }
        self.push(tag, RouteNetlinkMessage::NewLink(b.build()), NEW);
    }

    /// The pair in one message: the peer is born inside `netns` under its final name, the host end
    /// born on the bridge and up. The peer must not be up yet (ENOTCONN: it opens before its
    /// partner exists).
    pub fn add_veth(&mut self, tag: usize, veth: &Veth, bridge: u32, netns: BorrowedFd<'_>) {
        let mut peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name(veth.peer.as_str())
            .address(veth.mac.to_vec())
            .setns_by_fd(netns.as_raw_fd());
        let mut host = LinkVeth::new(&veth.host, &veth.peer).controller(bridge).up();
        if let Some(mtu) = veth.mtu {
            peer = peer.mtu(mtu);
            host = host.mtu(mtu);
        }
        let host = host.set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build())));
        self.push(tag, RouteNetlinkMessage::NewLink(host.build()), NEW);
        self.port(tag, &veth.host, veth.isolated, veth.hairpin);
    }

    /// A port among neighbours, or one that sees nobody but the host.
    pub fn isolate(&mut self, tag: usize, name: &str, isolated: bool) {
        let port = LinkMessageBuilder::<LinkBridgePort>::default().name(name).set_port_kind(InfoPortKind::Bridge);
        let port = port.append_info_data(InfoBridgePort::Isolated(isolated));
        self.push(tag, RouteNetlinkMessage::NewLink(port.build()), 0);
    }

    pub fn set_mtu(&mut self, tag: usize, name: &str, mtu: u32) {
        let m = LinkUnspec::new_with_name(name).mtu(mtu).build();
        self.push(tag, RouteNetlinkMessage::NewLink(m), 0);
    }

    /// Plugs an existing link into a bridge (repair).
    pub fn enslave(&mut self, tag: usize, name: &str, bridge: u32, isolated: bool, hairpin: bool) {
        let m = LinkUnspec::new_with_name(name).controller(bridge).up().build();
        self.push(tag, RouteNetlinkMessage::NewLink(m), 0);
        self.port(tag, name, isolated, hairpin);
    }

    fn port(&mut self, tag: usize, name: &str, isolated: bool, hairpin: bool) {
        if !isolated && !hairpin {
            return;
        }
        // Port settings are only heard once the port exists: a message of their own.
        let mut port = LinkMessageBuilder::<LinkBridgePort>::default().name(name).set_port_kind(InfoPortKind::Bridge);
        if isolated {
            port = port.append_info_data(InfoBridgePort::Isolated(true));
        }
        if hairpin {
            port = port.append_info_data(InfoBridgePort::HairpinMode(true));
        }
        self.push(tag, RouteNetlinkMessage::NewLink(port.build()), 0);
    }

    /// Makes a link a member of a VRF or a bridge.
    pub fn set_master(&mut self, tag: usize, index: u32, master: u32) {
        let m = LinkUnspec::new_with_index(index).controller(master).build();
        self.push(tag, RouteNetlinkMessage::NewLink(m), 0);
    }

    /// A bridge port's VLAN: untagged, both ways. It leaves VLAN 1, where bridges put new ports.
    pub fn port_vlan(&mut self, tag: usize, index: u32, vlan: u16) {
        let message = |vid, flags| {
            let mut m = LinkMessage::default();
            m.header.interface_family = AddressFamily::Bridge;
            m.header.index = index;
            let info = AfSpecBridge::VlanInfo(BridgeVlanInfo { vid, flags });
            m.attributes.push(LinkAttribute::AfSpecBridge(vec![info]));
            m
        };
        let member = BridgeVlanInfoFlags::Pvid | BridgeVlanInfoFlags::Untagged;
        self.push(tag, RouteNetlinkMessage::SetLink(message(vlan, member)), 0);
        if vlan != 1 {
            self.push(tag, RouteNetlinkMessage::DelLink(message(1, BridgeVlanInfoFlags::empty())), 0);
        }
    }

    /// Of a link that is down.
    pub fn rename(&mut self, tag: usize, index: u32, name: &str) {
        let m = LinkUnspec::new_with_index(index).name(name.to_string()).build();
        self.push(tag, RouteNetlinkMessage::NewLink(m), 0);
    }

    pub fn link_up(&mut self, tag: usize, index: u32) {
        let m = LinkUnspec::new_with_index(index).up().build();
        self.push(tag, RouteNetlinkMessage::NewLink(m), 0);
    }

    /// Has the kernel announce the interface's addresses when it comes up (gratuitous ARP): the
    /// neighbours may still remember the address under another container's MAC.
    pub fn announce(&mut self, tag: usize, index: u32) {
        let mut conf = Vec::new();
        super::nft::attr(&mut conf, IPV4_DEVCONF_ARP_NOTIFY, &1u32.to_ne_bytes());
        let mut inet = Vec::new();
        super::nft::attr(&mut inet, IFLA_INET_CONF, &conf);
        let mut spec = Vec::new();
        super::nft::attr(&mut spec, libc::AF_INET as u16, &inet);
        let m = LinkUnspec::new_with_index(index)
            .append_extra_attribute(LinkAttribute::Other(DefaultNla::new(IFLA_AF_SPEC, spec)))
            .build();
        self.push(tag, RouteNetlinkMessage::NewLink(m), 0);
    }

    /// IPv6 without duplicate address detection: leases are unique, and the address would stay
    /// unusable for a second or two. One that is there already stays.
    pub fn add_address(&mut self, tag: usize, index: u32, address: IpNetwork) {
        let m = match address {
            IpNetwork::V4(a) => {
                AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(a.ip(), a.prefix()).build()
            }
            IpNetwork::V6(a) => {
                let mut m = AddressMessageBuilder::<Ipv6Addr>::new().index(index).address(a.ip(), a.prefix()).build();
                m.header.flags |= AddressHeaderFlags::Nodad;
                m.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
                m
            }
        };
        self.push(tag, RouteNetlinkMessage::NewAddress(m), NLM_F_CREATE | NLM_F_REPLACE);
    }

    pub fn delete_address(&mut self, tag: usize, index: u32, address: IpNetwork) {
        let m = match address {
            IpNetwork::V4(a) => {
                AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(a.ip(), a.prefix()).build()
            }
            IpNetwork::V6(a) => {
                AddressMessageBuilder::<Ipv6Addr>::new().index(index).address(a.ip(), a.prefix()).build()
            }
        };
        self.push(tag, RouteNetlinkMessage::DelAddress(m), 0);
    }

    /// In place of the one there is, if there is one: networks come and go while a container runs.
    pub fn default_route(&mut self, tag: usize, index: u32, gateway: IpAddr, metric: Option<u32>) {
        let any = if gateway.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
        let m = route(index, any, 0, Via::Gateway(gateway), metric);
        self.push(tag, RouteNetlinkMessage::NewRoute(m), NLM_F_CREATE | NLM_F_REPLACE);
    }

    pub fn static_route(&mut self, tag: usize, index: u32, wanted: &StaticRoute) {
        let to = wanted.destination;
        let m = route(index, to.ip(), to.prefix(), wanted.via, wanted.metric);
        self.push(tag, RouteNetlinkMessage::NewRoute(m), NEW);
    }

    /// The first of the kind; for routes that do not go with their interface.
    pub fn delete_static_route(&mut self, tag: usize, index: u32, gone: &StaticRoute) {
        let m = route(index, gone.destination.ip(), gone.destination.prefix(), gone.via, gone.metric);
        self.push(tag, RouteNetlinkMessage::DelRoute(m), 0);
    }

    /// The default route with the lowest metric, of one family.
    pub fn delete_default_route(&mut self, tag: usize, ipv6: bool) {
        let mut m = RouteMessage::default();
        m.header.address_family = if ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
        m.header.table = RouteHeader::RT_TABLE_MAIN;
        m.header.scope = RouteScope::NoWhere;
        self.push(tag, RouteNetlinkMessage::DelRoute(m), 0);
    }

    /// Deleting waits for a kernel grace period (8 to 60 ms): only for what outlives namespaces.
    pub fn delete_link(&mut self, tag: usize, name: &str) {
        let m = LinkUnspec::new_with_name(name).build();
        self.push(tag, RouteNetlinkMessage::DelLink(m), 0);
    }
}

fn route(index: u32, to: IpAddr, prefix: u8, via: Via, metric: Option<u32>) -> RouteMessage {
    let kind = match via {
        Via::Gateway(_) => RouteType::Unicast,
        Via::Blackhole => RouteType::BlackHole,
        Via::Unreachable => RouteType::Unreachable,
        Via::Prohibit => RouteType::Prohibit,
    };
    match to {
        IpAddr::V4(ip) => {
            let mut m = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(ip, prefix).kind(kind);
            // One that leads nowhere leads through no interface.
            if let Via::Gateway(IpAddr::V4(gw)) = via {
                m = m.output_interface(index).gateway(gw);
            }
            metric.into_iter().fold(m, RouteMessageBuilder::priority).build()
        }
        IpAddr::V6(ip) => {
            let mut m = RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(ip, prefix).kind(kind);
            if let Via::Gateway(IpAddr::V6(gw)) = via {
                m = m.output_interface(index).gateway(gw);
            }
            metric.into_iter().fold(m, RouteMessageBuilder::priority).build()
        }
    }
}

/// A route as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub destination: IpNetwork,
    pub interface: Option<u32>,
    /// Through a router; otherwise its destination is on the wire itself.
    pub gateway: bool,
    pub table: u32,
    pub metric: u32,
}

impl Route {
    fn of(m: &RouteMessage) -> Option<Route> {
        let any = match m.header.address_family {
            AddressFamily::Inet => IpAddr::from([0; 4]),
            AddressFamily::Inet6 => IpAddr::from([0; 16]),
            _ => return None,
        };
        let mut to = any;
        let mut route = Route {
            destination: IpNetwork::new(any, 0).ok()?,
            interface: None,
            gateway: false,
            table: u32::from(m.header.table),
            metric: 0,
        };
        for a in &m.attributes {
            match a {
                RouteAttribute::Destination(RouteAddress::Inet(ip)) => to = IpAddr::V4(*ip),
                RouteAttribute::Destination(RouteAddress::Inet6(ip)) => to = IpAddr::V6(*ip),
                RouteAttribute::Oif(index) => route.interface = Some(*index),
                RouteAttribute::Gateway(_) | RouteAttribute::Via(_) | RouteAttribute::MultiPath(_) => {
                    route.gateway = true;
                }
                RouteAttribute::Table(table) => route.table = *table,
                RouteAttribute::Priority(metric) => route.metric = *metric,
                _ => {}
            }
        }
        route.destination = IpNetwork::new(to, m.header.destination_prefix_length).ok()?;
        Some(route)
    }
}

/// An interface as listed: index, name, its bridge's index, that of the interface it is part of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    pub master: Option<u32>,
    pub lower: Option<u32>,
    pub up: bool,
    pub bridge: bool,
    /// Carries Ethernet frames; tunnels (WireGuard, tun) carry bare packets.
    pub ethernet: bool,
    pub mtu: u32,
}

impl Socket {
    /// All interfaces of this namespace.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        let mut links = Vec::new();
        self.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()), |m| {
            if let RouteNetlinkMessage::NewLink(m) = m {
                let up = m.header.flags.contains(LinkFlags::Up);
                let (index, name) = (m.header.index, String::new());
                let ethernet = m.header.link_layer_type == LinkLayerType::Ether;
                let mut link = Link { index, name, master: None, lower: None, up, bridge: false, ethernet, mtu: 0 };
                for a in m.attributes {
                    match a {
                        LinkAttribute::IfName(n) => link.name = n,
                        LinkAttribute::Controller(c) => link.master = Some(c),
                        LinkAttribute::Link(l) => link.lower = Some(l),
                        LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                        LinkAttribute::LinkInfo(infos) => {
                            link.bridge = infos.iter().any(|i| matches!(i, LinkInfo::Kind(InfoKind::Bridge)));
                        }
                        _ => {}
                    }
                }
                links.push(link);
            }
        })?;
        Ok(links)
    }

    /// Every address of this namespace with its interface's index.
    pub fn addresses(&mut self) -> Result<Vec<(u32, IpNetwork)>> {
        let mut all = Vec::new();
        self.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()), |m| {
            if let RouteNetlinkMessage::NewAddress(m) = m {
                let mut address = None;
                for a in &m.attributes {
                    match a {
                        // On a point-to-point link ADDRESS is the other side's.
                        AddressAttribute::Local(ip) => address = Some(*ip),
                        AddressAttribute::Address(ip) if address.is_none() => address = Some(*ip),
                        _ => {}
                    }
                }
                if let Some(net) = address.and_then(|ip| IpNetwork::new(ip, m.header.prefix_len).ok()) {
                    all.push((m.header.index, net));
                }
            }
        })?;
        Ok(all)
    }

    /// Interface and gateway of the default route that the kernel would use: the lowest metric.
    pub fn default_route(&mut self, ipv6: bool) -> Result<Option<(u32, Option<IpAddr>)>> {
        let mut best: Option<(u32, u32, Option<IpAddr>)> = None;
        let mut request = RouteMessage::default();
        request.header.address_family = if ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
        self.dump(RouteNetlinkMessage::GetRoute(request), |m| {
            let RouteNetlinkMessage::NewRoute(m) = m else { return };
            let plain = m.header.table == RouteHeader::RT_TABLE_MAIN && m.header.kind == RouteType::Unicast;
            if !plain || m.header.destination_prefix_length != 0 {
                return;
            }
            let (mut index, mut metric, mut gateway) = (None, 0, None);
            for a in &m.attributes {
                match a {
                    RouteAttribute::Oif(i) => index = Some(*i),
                    RouteAttribute::Priority(p) => metric = *p,
                    RouteAttribute::Gateway(RouteAddress::Inet(ip)) => gateway = Some(IpAddr::V4(*ip)),
                    RouteAttribute::Gateway(RouteAddress::Inet6(ip)) => gateway = Some(IpAddr::V6(*ip)),
                    _ => {}
                }
            }
            if let Some(index) = index
                && best.is_none_or(|(m, ..)| metric < m)
            {
                best = Some((metric, index, gateway));
            }
        })?;
        Ok(best.map(|(_, index, gateway)| (index, gateway)))
    }

    /// The interface through which this namespace would send to `ip` now, all its routing rules heard; `None`:
    /// nowhere. Nothing is sent.
    pub fn way_to(&mut self, ip: IpAddr) -> Result<Option<u32>> {
        let m = match ip {
            IpAddr::V4(ip) => RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(ip, 32).build(),
            IpAddr::V6(ip) => RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(ip, 128).build(),
        };
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetRoute(m));
        request.header.flags = NLM_F_REQUEST;
        request.finalize();
        let mut out = vec![0; request.buffer_len()];
        request.serialize(&mut out);
        // A refusal says that there is no way, or one that leads to nobody.
        let answer = self.ask_all(out, 1)?.pop().and_then(std::result::Result::ok).unwrap_or_default();
        let attributes = RouteMessage::parse(answer.as_slice()).map(|m| m.attributes).unwrap_or_default();
        Ok(attributes.iter().find_map(|a| if let RouteAttribute::Oif(index) = a { Some(*index) } else { None }))
    }

    /// The single addresses that somebody routed through this interface.
    pub fn host_routes(&mut self, index: u32) -> Result<Vec<IpAddr>> {
        let mut all = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            self.dump(RouteNetlinkMessage::GetRoute(request), |m| {
                let RouteNetlinkMessage::NewRoute(m) = m else { return };
                let there = m.attributes.contains(&RouteAttribute::Oif(index));
                if !there || m.header.table != RouteHeader::RT_TABLE_MAIN || m.header.protocol != RouteProtocol::Static
                {
                    return;
                }
                all.extend(m.attributes.iter().find_map(|a| match (a, m.header.destination_prefix_length) {
                    (RouteAttribute::Destination(RouteAddress::Inet(ip)), 32) => Some(IpAddr::V4(*ip)),
                    (RouteAttribute::Destination(RouteAddress::Inet6(ip)), 128) => Some(IpAddr::V6(*ip)),
                    _ => None,
                }));
            })?;
        }
        Ok(all)
    }

    /// The routes of all of this namespace's tables, both families.
    pub fn routes(&mut self) -> Result<Vec<Route>> {
        let mut all = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            self.dump(RouteNetlinkMessage::GetRoute(request), |m| {
                if let RouteNetlinkMessage::NewRoute(m) = m {
                    all.extend(Route::of(&m));
                }
            })?;
        }
        Ok(all)
    }

    /// The subnets that policy rules speak of, as source or destination, both families.
    pub fn rules(&mut self) -> Result<Vec<IpNetwork>> {
        let mut all = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RuleMessage::default();
            request.header.family = family;
            self.dump(RouteNetlinkMessage::GetRule(request), |m| {
                if let RouteNetlinkMessage::NewRule(m) = m {
                    all.extend(m.attributes.iter().filter_map(|a| match a {
                        RuleAttribute::Source(ip) => IpNetwork::new(*ip, m.header.src_len).ok(),
                        RuleAttribute::Destination(ip) => IpNetwork::new(*ip, m.header.dst_len).ok(),
                        _ => None,
                    }));
                }
            })?;
        }
        Ok(all)
    }
}
