//! How the LAN reaches what a container tells of itself: where its network is behind NAT, at the host's
//! address and its published ports.

use super::message::Translation;
use crate::model::{Endpoint, Network, PortBinding, Proto};
use crate::networks::{BridgeOptions, GatewayMode, Netstack};
use std::net::{IpAddr, Ipv6Addr};

pub(super) struct Home<'a> {
    netstack: &'a Netstack,
    network: &'a Network,
    options: BridgeOptions,
    /// Of the host, on the LAN.
    own: &'a [IpAddr],
    /// Who tells.
    speaker: IpAddr,
}

impl<'a> Home<'a> {
    pub fn of(netstack: &'a Netstack, network: &'a Network, own: &'a [IpAddr], speaker: IpAddr) -> Home<'a> {
        Home { netstack, network, options: BridgeOptions::of(network), own, speaker }
    }

    fn is_behind_nat(&self, ipv6: bool) -> bool {
        self.options.mode(ipv6) == GatewayMode::Nat
    }

    fn bindings(&self) -> Vec<PortBinding> {
        let endpoints = self.netstack.endpoints(self.network).unwrap_or_default();
        let speaker =
            endpoints.iter().find(|e| e.addresses().any(|ip| ip == self.speaker) || is_link_local(e, self.speaker));
        speaker.and_then(|e| self.netstack.bindings_of(&e.container_id).ok()).unwrap_or_default()
    }
}

impl Translation for Home<'_> {
    fn address(&self, ip: IpAddr) -> Option<IpAddr> {
        let ours = self.network.pools.iter().any(|p| p.subnet.contains(ip));
        if !ours || !self.is_behind_nat(ip.is_ipv6()) {
            return None;
        }
        let reachable = |own: &&IpAddr| match own {
            IpAddr::V4(_) => ip.is_ipv4(),
            IpAddr::V6(own) => ip.is_ipv6() && !own.is_unicast_link_local(),
        };
        self.own.iter().find(reachable).copied()
    }

    fn port(&self, proto: Proto, port: u16) -> Option<u16> {
        let bindings = self.bindings();
        let on_lan = |b: &&PortBinding| {
            let here = b.host_ip.is_unspecified() || self.own.contains(&b.host_ip);
            b.proto == proto && here && !b.routed && (b.container.0..=b.container.1).contains(&port)
        };
        let binding = bindings.iter().find(on_lan)?;
        Some(binding.host.0 + (port - binding.container.0))
    }
}

/// IPv6 speaks of itself from an address that the kernel made of the interface's MAC address (RFC 4291,
/// appendix A).
fn is_link_local(e: &Endpoint, ip: IpAddr) -> bool {
    let (IpAddr::V6(ip), Some(mac)) = (ip, e.mac_bytes()) else { return false };
    let [a, b, c, d, e, f] = mac.map(u16::from);
    let made = Ipv6Addr::new(0xfe80, 0, 0, 0, (a ^ 2) << 8 | b, c << 8 | 0xff, 0xfe00 | d, e << 8 | f);
    ip == made
}
