//! Devices on top of other devices: macvlan, ipvlan, 802.1Q, and the dummy that they can sit on.

use super::route::{NEW, NLM_F_CREATE, NLM_F_REPLACE};
use super::socket::Batch;
use crate::networks::vlan::{IpvlanFlag, IpvlanMode, MacvlanMode, Parent, Upper};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoMacVlan, IpVlanFlags, IpVlanMode, LinkMessage, MacVlanMode};
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteScope};
use rtnetlink::{LinkDummy, LinkIpVlan, LinkMacVlan, LinkMessageBuilder, LinkUnspec, LinkVlan, RouteMessageBuilder};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

/// A device on top of `parent`, as it is to be born.
#[derive(Clone, Copy)]
pub struct NewUpper<'a> {
    pub name: &'a str,
    pub kind: Upper,
    pub parent: u32,
    pub mac: Option<[u8; 6]>,
    pub mtu: Option<u32>,
    /// Of macvlan.
    pub broadcast_limit: Option<i32>,
    /// Born there, under its final name; the parent stays here.
    pub netns: Option<BorrowedFd<'a>>,
}

impl Batch {
    pub fn add_upper(&mut self, tag: usize, new: NewUpper<'_>) {
        let message = match new.kind {
            Upper::Macvlan(mode) => {
                let mode = match mode {
                    MacvlanMode::Bridge => MacVlanMode::Bridge,
                    MacvlanMode::Private => MacVlanMode::Private,
                    MacvlanMode::Vepa => MacVlanMode::Vepa,
                    MacvlanMode::Passthru => MacVlanMode::Passthrough,
                };
                let device = LinkMacVlan::new(new.name, new.parent, mode);
                let limit = new.broadcast_limit.map(InfoMacVlan::BcCutoff);
                born(limit.into_iter().fold(device, |device, limit| device.append_info_data(limit)), new)
            }
            Upper::Ipvlan(mode, flag) => {
                let mode = match mode {
                    IpvlanMode::L2 => IpVlanMode::L2,
                    IpvlanMode::L3 => IpVlanMode::L3,
                    IpvlanMode::L3s => IpVlanMode::L3S,
                };
                let flag = match flag {
                    IpvlanFlag::Bridge => IpVlanFlags::empty(),
                    IpvlanFlag::Private => IpVlanFlags::Private,
                    IpvlanFlag::Vepa => IpVlanFlags::Vepa,
                };
                born(LinkIpVlan::new(new.name, new.parent, mode).flag(flag), new)
            }
        };
        self.push(tag, RouteNetlinkMessage::NewLink(message), NEW);
    }

    /// A parent; `base` is the index of the interface that a tagged one is part of.
    pub fn add_parent(&mut self, tag: usize, parent: &Parent, base: u32) {
        let message = match parent {
            Parent::Tagged { name, tag, .. } => LinkVlan::new(name, base, *tag).build(),
            Parent::Dummy { name } => LinkDummy::new(name).build(),
        };
        self.push(tag, RouteNetlinkMessage::NewLink(message), NEW);
    }

    /// Changes a link's MAC address. That of a passthru macvlan is the parent's, whatever it was
    /// created with; this changes both.
    pub fn set_mac(&mut self, tag: usize, index: u32, mac: [u8; 6]) {
        let m = LinkUnspec::new_with_index(index).address(mac.to_vec()).build();
        self.push(tag, RouteNetlinkMessage::NewLink(m), 0);
    }

    /// Everything goes straight into the device.
    pub fn device_route(&mut self, tag: usize, index: u32, ipv6: bool) {
        let route = if ipv6 {
            RouteMessageBuilder::<Ipv6Addr>::new().output_interface(index).build()
        } else {
            RouteMessageBuilder::<Ipv4Addr>::new().output_interface(index).scope(RouteScope::Link).build()
        };
        self.push(tag, RouteNetlinkMessage::NewRoute(route), NLM_F_CREATE | NLM_F_REPLACE);
    }

    /// One address through one device of the host, which speaks as `source`.
    pub fn host_route(&mut self, tag: usize, index: u32, ip: IpAddr, source: IpAddr) {
        let mut route = exact(index, ip);
        route.attributes.push(RouteAttribute::PrefSource(source.into()));
        self.push(tag, RouteNetlinkMessage::NewRoute(route), NLM_F_CREATE | NLM_F_REPLACE);
    }

    pub fn delete_host_route(&mut self, tag: usize, index: u32, ip: IpAddr) {
        self.push(tag, RouteNetlinkMessage::DelRoute(exact(index, ip)), 0);
    }
}

fn born<T>(builder: LinkMessageBuilder<T>, new: NewUpper<'_>) -> LinkMessage {
    let mut b = builder;
    if let Some(mac) = new.mac {
        b = b.address(mac.to_vec());
    }
    if let Some(mtu) = new.mtu {
        b = b.mtu(mtu);
    }
    if let Some(netns) = new.netns {
        b = b.setns_by_fd(netns.as_raw_fd());
    }
    b.build()
}

/// The route to one address, straight into a device.
fn exact(index: u32, ip: IpAddr) -> RouteMessage {
    match ip {
        IpAddr::V4(ip) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(ip, 32)
            .output_interface(index)
            .scope(RouteScope::Link)
            .build(),
        IpAddr::V6(ip) => {
            RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(ip, 128).output_interface(index).build()
        }
    }
}
