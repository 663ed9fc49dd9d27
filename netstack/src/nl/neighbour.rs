//! The neighbour table's proxies: addresses that this host answers for on one of its interfaces.

use super::route::{NLM_F_CREATE, NLM_F_REPLACE};
use super::socket::{Batch, Socket};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use plan::Result;
use std::net::Ipv6Addr;

impl Batch {
    /// One that is there already stays.
    pub fn proxy_neighbour(&mut self, tag: usize, index: u32, ip: Ipv6Addr) {
        self.push(tag, RouteNetlinkMessage::NewNeighbour(proxy(index, ip)), NLM_F_CREATE | NLM_F_REPLACE);
    }

    pub fn delete_proxy_neighbour(&mut self, tag: usize, index: u32, ip: Ipv6Addr) {
        self.push(tag, RouteNetlinkMessage::DelNeighbour(proxy(index, ip)), 0);
    }
}

impl Socket {
    /// Every IPv6 address that this namespace answers for, with the interface's index.
    pub fn proxies(&mut self) -> Result<Vec<(u32, Ipv6Addr)>> {
        let mut all = Vec::new();
        let mut request = NeighbourMessage::default();
        request.header.family = AddressFamily::Inet6;
        // Without it the kernel lists the cache, which is another table.
        request.header.flags = NeighbourFlags::Proxy;
        self.dump(RouteNetlinkMessage::GetNeighbour(request), |m| {
            let RouteNetlinkMessage::NewNeighbour(m) = m else { return };
            all.extend(m.attributes.iter().find_map(|a| match a {
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => Some((m.header.ifindex, *ip)),
                _ => None,
            }));
        })?;
        Ok(all)
    }
}

fn proxy(index: u32, ip: Ipv6Addr) -> NeighbourMessage {
    let mut m = NeighbourMessage::default();
    m.header.family = AddressFamily::Inet6;
    m.header.ifindex = index;
    m.header.flags = NeighbourFlags::Proxy;
    m.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)));
    m
}
