//! The host's own IPv6 wires, of whose prefix a network's subnet can be a part (`ndp_proxy`,
//! `ipv6_prefix_from`).

use super::taken::Surroundings;
use super::{BridgeOptions, Network};
use crate::model::Pool;
use crate::nl::{Address6, Socket};
use ipnetwork::{IpNetwork, Ipv6Network};
use plan::{Error, Result};
use std::cmp::Reverse;
use std::net::{IpAddr, Ipv6Addr};

/// Instead of an interface's name.
pub(super) const AUTO: &str = "auto";
/// In a record: the interface's prefix that the network's subnet is a part of.
const PREFIX: &str = "ipv6_prefix";
/// What a network gets of a prefix: so many bits of it number its parts, and none is larger than a /80.
const PART_BITS: u8 = 16;
const LARGEST_PART: u8 = 80;
/// The longest prefix that there are parts of.
const LONGEST: u8 = 120;

/// The interface that such an option means, for a network that exists.
pub(crate) fn interface(wanted: &str, network: &Network) -> Result<String> {
    find(&mut Socket::route()?, wanted, network.pools.iter().map(|p| p.subnet).find(IpNetwork::is_ipv6))
}

/// By name; `auto` is the one on whose wire the subnet lies, else that of the default route.
fn find(route: &mut Socket, wanted: &str, subnet: Option<IpNetwork>) -> Result<String> {
    if wanted != AUTO {
        return match route.ifindex(wanted)? {
            Some(_) => Ok(wanted.to_string()),
            None => Err(Error::not_found(format!("interface {wanted} was not found on the host"))
                .with_hint("`ip link` shows the interfaces there are")),
        };
    }
    let links = route.links()?;
    let name = |index: u32| links.iter().find(|l| l.index == index && l.name != "lo").map(|l| l.name.clone());
    let routes = route.routes()?;
    let around = |wire: &IpNetwork, part: IpNetwork| {
        wire.prefix() > 0 && wire.prefix() < part.prefix() && wire.contains(part.ip())
    };
    let wires = routes.iter().filter(|r| !r.gateway && subnet.is_some_and(|s| around(&r.destination, s)));
    let nearest = wires.max_by_key(|r| r.destination.prefix()).and_then(|r| name(r.interface?));
    let way_out = || Ok(route.default_route(true)?.and_then(|(index, _)| name(index)));
    nearest.map_or_else(way_out, |found| Ok(Some(found)))?.ok_or_else(|| {
        Error::not_found("the host has no IPv6 default route by which to find its interface")
            .with_hint("name it instead of auto, for example eth0")
    })
}

/// By name; `auto` is the interface of the default route, IPv4 first.
pub(crate) fn way_out(wanted: &str) -> Result<String> {
    let mut route = Socket::route()?;
    if wanted != AUTO {
        return find(&mut route, wanted, None);
    }
    let v4 = route.default_route(false)?;
    let index = v4.map_or_else(|| route.default_route(true), |found| Ok(Some(found)))?.map(|(index, _)| index);
    let name = route.links()?.into_iter().find(|l| Some(l.index) == index).map(|l| l.name);
    name.ok_or_else(|| {
        Error::not_found("the host has no default route by which to find its interface")
            .with_hint("name it instead of auto, for example eth0")
    })
}

/// The prefix of these addresses that is in use: `kept` for as long as it is not deprecated, else the
/// global one, else the unique local one, that is preferred for longest.
pub(crate) fn current(addresses: &[Address6], kept: Option<Ipv6Network>) -> Option<Ipv6Network> {
    let usable = addresses.iter().filter(|a| a.preferred > 0 && a.net.prefix() <= LONGEST);
    let mut all: Vec<(Ipv6Network, u32)> = usable.map(|a| (network_of(a.net), a.preferred)).collect();
    all.sort_by_key(|(net, preferred)| (Some(*net) != kept, net.ip().is_unique_local(), Reverse(*preferred), *net));
    all.first().map(|(net, _)| *net)
}

fn network_of(net: Ipv6Network) -> Ipv6Network {
    Ipv6Network::new(net.network(), net.prefix()).unwrap_or(net)
}

/// The same place in another prefix.
pub(crate) fn moved(ip: Ipv6Addr, from: Ipv6Network, to: Ipv6Network) -> Ipv6Addr {
    let place = u128::from(ip) & !u128::from(from.mask()) & !u128::from(to.mask());
    Ipv6Addr::from(u128::from(to.network()) | place)
}

/// The subnet, and every address that is told of it.
pub(crate) fn moved_pool(pool: &Pool, from: Ipv6Network, to: Ipv6Network) -> Pool {
    let place = |ip: IpAddr| match ip {
        IpAddr::V6(ip) => IpAddr::V6(moved(ip, from, to)),
        v4 => v4,
    };
    let net = |net: IpNetwork| IpNetwork::new(place(net.ip()), net.prefix()).unwrap_or(net);
    Pool {
        subnet: net(pool.subnet),
        ip_range: pool.ip_range.map(|range| range.moved(place)),
        gateway: pool.gateway.map(place),
        aux: pool.aux.iter().map(|(name, ip)| (name.clone(), place(*ip))).collect(),
    }
}

impl Network {
    /// The interface's prefix that its subnet is a part of.
    pub(crate) fn prefix_of_uplink(&self) -> Option<Ipv6Network> {
        self.extra.get(PREFIX)?.as_str()?.parse().ok()
    }

    /// Where an address of an earlier prefix is now.
    pub(crate) fn in_its_prefix(&self, ip: Ipv6Addr) -> Ipv6Addr {
        let Some(prefix) = self.prefix_of_uplink() else { return ip };
        let here = moved(ip, prefix, prefix);
        if self.pools.iter().any(|p| p.subnet.contains(IpAddr::V6(here))) { here } else { ip }
    }

    pub(crate) fn set_prefix_of_uplink(&mut self, prefix: Ipv6Network) {
        self.extra.insert(PREFIX.to_string(), prefix.to_string().into());
    }
}

/// What a new network has to do with the host's wires.
#[derive(Debug, Default)]
pub(super) struct Uplink {
    /// Of whose prefix its subnet may be a part.
    pub interfaces: Vec<String>,
    /// Of the interface that it follows, or that the host answers on.
    prefix: Option<Ipv6Network>,
    follows: bool,
}

impl Uplink {
    /// # Errors
    /// An interface that is not there, or has no prefix to follow.
    pub fn of(options: &BridgeOptions, pools: &[Pool]) -> Result<Uplink> {
        let subnet = pools.iter().map(|p| p.subnet).find(IpNetwork::is_ipv6);
        if let Some(wanted) = options.mdns.as_ref().filter(|wanted| *wanted != AUTO) {
            find(&mut Socket::route()?, wanted, None)?;
        }
        let mut uplink = Uplink { follows: options.prefix_from.is_some(), ..Uplink::default() };
        // What it follows comes first: its prefix is the one to take a part of.
        for wanted in [&options.prefix_from, &options.ndp_proxy].into_iter().flatten() {
            let mut route = Socket::route()?;
            let name = find(&mut route, wanted, subnet)?;
            if uplink.prefix.is_none() {
                let index = route.ifindex(&name)?.unwrap_or_default();
                uplink.prefix = current(&route.addresses6(index)?, None);
            }
            if uplink.prefix.is_none() && (uplink.follows || subnet.is_none()) {
                return Err(Error::not_found(format!("interface {name} has no IPv6 prefix now to take a part of"))
                    .with_hint("`ip -6 addr` shows its addresses; a part of any other is given with --subnet"));
            }
            uplink.interfaces.push(name);
        }
        Ok(uplink)
    }

    /// Subnets of a network that follows may be given without the prefix that they are a part of
    /// (`::8000:0:0:0/80`).
    ///
    /// # Errors
    /// A subnet that is no part of it.
    pub fn place(&self, pools: &mut [Pool]) -> Result<()> {
        let Some(prefix) = self.prefix.filter(|_| self.follows) else { return Ok(()) };
        let nowhere = Ipv6Network::new(Ipv6Addr::UNSPECIFIED, prefix.prefix()).unwrap_or(prefix);
        for pool in pools {
            let IpNetwork::V6(subnet) = pool.subnet else { continue };
            if nowhere.contains(subnet.ip()) {
                *pool = moved_pool(pool, nowhere, prefix);
            } else if !prefix.contains(subnet.ip()) {
                return Err(Error::invalid(format!("subnet {subnet} is no part of {prefix}, the prefix to follow"))
                    .with_hint("leave the prefix out, as in --subnet ::8000:0:0:0/80, or --subnet altogether"));
            }
            if subnet.prefix() <= prefix.prefix() {
                return Err(Error::invalid(format!(
                    "subnet {} is not smaller than {prefix}, which the wire has",
                    pool.subnet
                ))
                .with_hint("give the containers a part of it, for example a /80"));
            }
        }
        Ok(())
    }

    /// A free part of the prefix; `None` where there is none to take one of.
    pub fn part(&self, surroundings: &Surroundings, size: Option<u8>) -> Option<Result<IpNetwork>> {
        let prefix = self.prefix?;
        let size = size.unwrap_or((prefix.prefix() + PART_BITS).clamp(LARGEST_PART, 124));
        Some(surroundings.pick(&[(IpNetwork::V6(prefix), size)], true))
    }

    /// The record remembers what it follows.
    pub fn note(&self, network: &mut Network) {
        if let Some(prefix) = self.prefix.filter(|_| self.follows) {
            network.set_prefix_of_uplink(prefix);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn net(text: &str) -> Ipv6Network {
        text.parse().unwrap()
    }

    fn address(text: &str, preferred: u32) -> Address6 {
        Address6 { net: net(text), preferred, valid: u32::MAX }
    }

    #[test]
    fn the_prefix_in_use() {
        let all = [
            address("fd00:7::1/64", u32::MAX),
            address("2001:db8:1::5/64", 0),
            address("2001:db8:2::5/64", 100),
            address("2001:db8:3::5/64", 900),
            address("2001:db8:4::5/128", u32::MAX),
        ];
        assert_eq!(current(&all, None), Some(net("2001:db8:3::/64")), "global, preferred for longest, not one address");
        assert_eq!(current(&all, Some(net("2001:db8:2::/64"))), Some(net("2001:db8:2::/64")), "no change without need");
        assert_eq!(current(&all, Some(net("2001:db8:1::/64"))), Some(net("2001:db8:3::/64")), "deprecated");
        assert_eq!(current(&all[..2], None), Some(net("fd00:7::/64")));
        assert_eq!(current(&[], None), None);
    }

    #[test]
    fn a_pool_keeps_its_place_in_another_prefix() {
        let pool = Pool {
            subnet: "::8000:0:0:0/80".parse().unwrap(),
            ip_range: Some("::8000:0:0:ff00/120".parse().unwrap()),
            gateway: Some("::8000:0:0:1".parse().unwrap()),
            aux: BTreeMap::from([("a".to_string(), "::8000:0:0:9".parse().unwrap())]),
        };
        let there = moved_pool(&pool, net("::/64"), net("2001:db8:5:6::/64"));
        assert_eq!(there.subnet.to_string(), "2001:db8:5:6:8000::/80");
        assert_eq!(there.ip_range.unwrap().to_string(), "2001:db8:5:6:8000::ff00/120");
        assert_eq!(there.gateway.unwrap().to_string(), "2001:db8:5:6:8000::1");
        assert_eq!(there.aux["a"].to_string(), "2001:db8:5:6:8000::9");
        assert_eq!(moved_pool(&there, net("2001:db8:5:6::/64"), net("::/64")), pool);
        // From a /60's twelfth /64 into a prefix that has no room for so many.
        let moved = moved("2001:db8:0:1c::1".parse().unwrap(), net("2001:db8:0:10::/60"), net("2001:db8:9::/64"));
        assert_eq!(moved.to_string(), "2001:db8:9::1");
    }
}
