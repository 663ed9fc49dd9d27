//! IPv6 addresses with what time they have left.

use super::socket::Socket;
use ipnetwork::Ipv6Network;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
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
