//! `--network macvlan` where there is no network of that name: one on the interface of the host's
//! default route, with the subnets that the host itself has there.

use super::vlan::{PARENT, carries_frames, is_vlan, share};
use super::{Netstack, Network, VERSION, VlanOptions, random_hex};
use crate::ipam;
use crate::ipam::pools::overlap;
use crate::ipam::range::IpRange;
use crate::model::Pool;
use crate::nl::Socket;
use ipnetwork::IpNetwork;
use plan::{Error, Kind, Result};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The auxiliary address that is the host's own on that LAN.
const THIS_HOST: &str = "this-host";

/// How much of the LAN's subnet is for containers: the last of so many equal parts.
const PARTS_4: u8 = 2;
const PARTS_6: u8 = 16;

impl Netstack {
    /// The network that a container means by this name: one there is, or for `macvlan` and `ipvlan`
    /// the automatic one, which is on record from its first use on.
    ///
    /// # Errors
    /// As [`Netstack::network`]; no default route to put an automatic network on.
    pub fn joinable(&self, wanted: &str) -> Result<Network> {
        match self.network(wanted) {
            Err(e) if e.kind == Kind::NotFound && is_vlan(wanted) => self.automatic(wanted),
            found => found,
        }
    }

    /// What it would be now. Writes nothing.
    fn automatic(&self, driver: &str) -> Result<Network> {
        let mut route = Socket::route()?;
        let mut pools = Vec::new();
        let (v4, v6) = (route.default_route(false)?, route.default_route(true)?);
        let (index, _) = v4.or(v6).ok_or_else(|| {
            Error::not_found(format!("network {driver} not found, and no default route to put an automatic one on"))
                .with_hint(format!(
                    "name an interface: rrun network create -d {driver} -o parent=eth0 --subnet 192.168.1.0/24 {driver}"
                ))
        })?;
        for (at, net) in route.addresses()?.into_iter().filter(|(at, _)| *at == index) {
            let lan = !pools.iter().any(|p: &Pool| p.subnet.is_ipv4() == net.is_ipv4());
            if lan && is_global(net.ip()) && ipam::usable(net).is_some() {
                let gateway = if net.is_ipv4() { v4 } else { v6 }.filter(|(i, _)| *i == at).and_then(|(_, gw)| gw);
                pools.push(pool(net, gateway));
            }
        }
        let parent = match route.links()?.into_iter().find(|l| l.index == index) {
            Some(link) => {
                carries_frames(&link, driver)?;
                link.name
            }
            None => String::new(),
        };
        if !pools.iter().any(|p| p.subnet.is_ipv4()) {
            return Err(Error::not_found(format!(
                "network {driver} not found, and {parent} has no IPv4 subnet to share"
            ))
            .with_hint(format!(
                "say which: rrun network create -d {driver} -o parent={parent} --subnet 192.168.1.0/24 {driver}"
            )));
        }
        let network = Network {
            version: VERSION,
            id: random_hex()?,
            name: driver.to_string(),
            driver: driver.to_string(),
            created: plan::time::ZERO.to_string(),
            enable_ipv4: true,
            enable_ipv6: pools.iter().any(|p| p.subnet.is_ipv6()),
            pools,
            options: BTreeMap::from([(PARENT.to_string(), parent.clone())]),
            ..Network::default()
        };
        self.fits(&network, &parent)?;
        Ok(network)
    }

    /// Beside the networks there are.
    fn fits(&self, network: &Network, parent: &str) -> Result<()> {
        let others = self.networks()?;
        share(&VlanOptions::of(network), parent, &others)?;
        let mut taken = others.iter().flat_map(|o| o.pools.iter().map(move |p| (o, p.subnet)));
        match taken.find(|(_, t)| network.pools.iter().any(|p| overlap(p.subnet, *t))) {
            Some((other, _)) => Err(Error::conflict(format!(
                "no automatic network {}: network {} has the subnet of {parent} already",
                network.name, other.name
            ))
            .with_hint(format!("use it: --network {}", other.name))),
            None => Ok(()),
        }
    }
}

/// What the first user of an automatic network should know, in one line.
pub fn announcement(network: &Network) -> Option<String> {
    if network.created != plan::time::ZERO || !is_vlan(&network.driver) {
        return None;
    }
    let parts: Vec<String> = network
        .pools
        .iter()
        .map(|p| {
            let range = p.ip_range.unwrap_or(p.subnet.into());
            match p.gateway {
                Some(gateway) => format!("{} of {} (gateway {gateway})", range, p.subnet),
                None => format!("{} of {}", range, p.subnet),
            }
        })
        .collect();
    let parent = network.options.get(PARENT).map(String::as_str).unwrap_or_default();
    Some(format!(
        "made network {} on {parent}, with addresses from {}: keep your LAN's DHCP server off them, or `rrun network create` your own",
        network.name,
        parts.join(" and ")
    ))
}

/// The last part of the subnet: DHCP servers and people start at the beginning.
fn pool(net: IpNetwork, gateway: Option<IpAddr>) -> Pool {
    let subnet = IpNetwork::new(net.network(), net.prefix()).unwrap_or(net);
    let (parts, bits) = if subnet.is_ipv4() { (PARTS_4, 32) } else { (PARTS_6, 128) };
    // A tiny subnet is not divided.
    let prefix = subnet.prefix() + if bits - subnet.prefix() > parts + 2 { parts } else { 0 };
    let last = ipam::address(ipam::bounds(subnet).1, subnet);
    let range = IpNetwork::new(last, prefix).and_then(|r| IpNetwork::new(r.network(), prefix)).ok();
    // A router's link-local address serves too; it is just not one of this subnet.
    Pool {
        subnet,
        ip_range: range.map(IpRange::from),
        gateway,
        aux: BTreeMap::from([(THIS_HOST.to_string(), net.ip())]),
    }
}

fn is_global(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_link_local() && !ip.is_loopback(),
        IpAddr::V6(ip) => !ip.is_unicast_link_local() && !ip.is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_get_the_end_of_the_lan() {
        let range = |net: &str| pool(net.parse().unwrap(), None).ip_range.unwrap().to_string();
        assert_eq!(range("192.168.1.7/24"), "192.168.1.192/26");
        assert_eq!(range("10.1.2.3/8"), "10.192.0.0/10");
        assert_eq!(range("192.168.1.1/29"), "192.168.1.0/29");
        assert_eq!(range("2001:db8:51::1/64"), "2001:db8:51:0:ffff::/80");
        let p = pool("192.168.1.7/24".parse().unwrap(), None);
        assert_eq!(
            (p.subnet.to_string().as_str(), p.aux[THIS_HOST].to_string().as_str()),
            ("192.168.1.0/24", "192.168.1.7")
        );
    }
}
