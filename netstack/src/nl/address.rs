//! IPv6 addresses with what time they have left.

use super::route::{NLM_F_CREATE, NLM_F_REPLACE};
use super::socket::{Batch, Socket};
use ipnetwork::Ipv6Network;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, CacheInfo};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use plan::Result;
use std::net::IpAddr;

/// An address of an interface. Seconds; `u32::MAX` is for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address6 {
    pub net: Ipv6Network,
    /// 0: deprecated, no new connection is to begin with it.
    pub preferred: u32,
    pub valid: u32,
}

impl Batch {
    /// No new connection begins with this address any more, and after so many seconds it is gone. Taken
    /// away and given back: changing it where it is, the kernel gives the route to its prefix a time that is
    /// over already (seen in 6.18: seconds where it expects a moment).
    pub fn deprecate_address(&mut self, tag: usize, index: u32, net: Ipv6Network, seconds: u32) {
        let mut m = AddressMessage::default();
        m.header.family = AddressFamily::Inet6;
        m.header.index = index;
        m.header.prefix_len = net.prefix();
        m.attributes.push(AddressAttribute::Address(IpAddr::V6(net.ip())));
        self.push(tag, RouteNetlinkMessage::DelAddress(m.clone()), 0);
        let mut info = CacheInfo::default();
        (info.ifa_preferred, info.ifa_valid) = (0, seconds);
        m.attributes.push(AddressAttribute::CacheInfo(info));
        m.header.flags |= AddressHeaderFlags::Nodad;
        m.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        self.push(tag, RouteNetlinkMessage::NewAddress(m), NLM_F_CREATE | NLM_F_REPLACE);
    }
}

impl Socket {
    /// The IPv6 addresses of the interface with this index, without link-local ones.
    pub fn addresses6(&mut self, index: u32) -> Result<Vec<Address6>> {
        let mut all = Vec::new();
        let mut request = AddressMessage::default();
        request.header.family = AddressFamily::Inet6;
        self.dump(RouteNetlinkMessage::GetAddress(request), |m| {
            let RouteNetlinkMessage::NewAddress(m) = m else { return };
            let (mut address, mut times) = (None, (u32::MAX, u32::MAX));
            for a in &m.attributes {
                match a {
                    // On a point-to-point link ADDRESS is the other side's.
                    AddressAttribute::Local(IpAddr::V6(ip)) => address = Some(*ip),
                    AddressAttribute::Address(IpAddr::V6(ip)) if address.is_none() => address = Some(*ip),
                    AddressAttribute::CacheInfo(info) => times = (info.ifa_preferred, info.ifa_valid),
                    _ => {}
                }
            }
            let net = address.filter(|ip| m.header.index == index && !ip.is_unicast_link_local());
            let net = net.and_then(|ip| Ipv6Network::new(ip, m.header.prefix_len).ok());
            all.extend(net.map(|net| Address6 { net, preferred: times.0, valid: times.1 }));
        })?;
        Ok(all)
    }
}
