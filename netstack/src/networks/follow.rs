//! A network that follows the prefix of one of the host's interfaces (`ipv6_prefix_from`): when the provider
//! gives another, subnet, bridge and firewall move along, each address to the same place in the new prefix.
//!
//! Whoever notices first does it: the monitor of a container on the network, a start, `network check
//! --repair`. The containers' own addresses are their monitors' business ([`crate::sandbox`]).

use super::uplink::{self, moved_pool};
use super::{BridgeOptions, Netstack, Network};
use crate::driver::bridge;
use crate::firewall::{self, Element};
use crate::ipam::pools::overlap;
use crate::nl::{Batch, Socket};
use ipnetwork::{IpNetwork, Ipv6Network};
use plan::{Error, Result};
use std::net::Ipv6Addr;

/// What is left of an address whose prefix is gone without a word: as long as RFC 4862 (5.5.3 e) has hosts
/// distrust a router that says an address is over at once.
const GRACE: u32 = 2 * 60 * 60;

/// A prefix in the place of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub from: Ipv6Network,
    pub to: Ipv6Network,
}

impl Netstack {
    /// What has changed since the network was made, or last moved. Reads only.
    pub(crate) fn prefix_change(&self, network: &Network) -> Result<Option<Change>> {
        let Some(wanted) = BridgeOptions::of(network).prefix_from else { return Ok(None) };
        let Some(from) = network.prefix_of_uplink() else { return Ok(None) };
        // An interface that is gone, or has no prefix just now, is no reason to give up the one there was.
        let Ok(name) = uplink::interface(&wanted, network) else { return Ok(None) };
        let mut route = Socket::route()?;
        let Some(index) = route.ifindex(&name)? else { return Ok(None) };
        let addresses = route.addresses6(index)?;
        let to = uplink::current(&addresses, Some(from)).filter(|to| *to != from);
        Ok(to.map(|to| Change { from, to }))
    }

    /// How many more seconds an address of an earlier prefix is good for.
    pub(crate) fn time_left(&self, network: &Network, ip: Ipv6Addr) -> Result<u32> {
        let mut route = Socket::route()?;
        let name = BridgeOptions::of(network).prefix_from.map(|wanted| uplink::interface(&wanted, network));
        let index = match name {
            Some(Ok(name)) => route.ifindex(&name)?,
            _ => None,
        };
        let addresses = index.map_or(Ok(Vec::new()), |index| route.addresses6(index))?;
        let left = addresses.iter().filter(|a| a.net.contains(ip)).map(|a| a.valid.max(1)).max();
        Ok(left.unwrap_or(GRACE))
    }

    /// The network as it is now, moved if it had to be.
    ///
    /// # Errors
    /// The new place is another network's; the kernel refuses.
    pub(crate) fn follow_prefix(&self, network: Network) -> Result<Network> {
        if self.prefix_change(&network)?.is_none() {
            return Ok(network);
        }
        let _lock = self.lock()?;
        // Somebody may have been faster.
        let old = self.network(&network.id)?;
        let Some(change) = self.prefix_change(&old)? else { return Ok(old) };
        let mut new = old.clone();
        for pool in new.pools.iter_mut().filter(|p| p.subnet.is_ipv6()) {
            *pool = moved_pool(pool, change.from, change.to);
            self.free_for(&old, pool.subnet, change.to)?;
        }
        new.set_prefix_of_uplink(change.to);
        self.save(&new)?;
        self.move_bridge(&old, &new, self.time_left(&new, change.from.ip())?)?;
        Ok(new)
    }

    fn free_for(&self, network: &Network, subnet: IpNetwork, prefix: Ipv6Network) -> Result<()> {
        let stays = |why: String| {
            Err(Error::conflict(format!("network {} cannot follow to {subnet}: {why}", network.name))
                .with_hint(format!("it stays where it is; make it anew: `rrun network rm {}`", network.name)))
        };
        if subnet.prefix() <= prefix.prefix() {
            return stays(format!("the prefix is only {prefix} now"));
        }
        let others = self.networks()?;
        let taken = others.iter().find(|o| o.id != network.id && o.pools.iter().any(|p| overlap(p.subnet, subnet)));
        taken.map_or(Ok(()), |other| stays(format!("network {} has it", other.name)))
    }

    /// The firewall hears of the new subnet before the bridge has it, and forgets the old one after.
    fn move_bridge(&self, old: &Network, new: &Network, left: u32) -> Result<()> {
        let mut route = Socket::route()?;
        let name = BridgeOptions::of(new).bridge_name(&new.id);
        let Some(index) = route.ifindex(&name)? else { return Ok(()) };
        let (before, after) = (firewall::network_elements(old), firewall::network_elements(new));
        let without = |all: &[Element], some: &[Element]| -> Vec<Element> {
            all.iter().filter(|e| !some.contains(e)).cloned().collect()
        };
        let mut nft = Socket::netfilter()?;
        if firewall::has_network(&mut nft, old)? == Some(true) {
            firewall::add(&mut nft, &without(&after, &before))?
                .map_err(|f| f.error(format!("tell the firewall about network {}", new.name)))?;
        }
        let mut batch = Batch::new();
        let (were, are) = (bridge::gateways(old), bridge::gateways(new));
        for gateway in &are {
            batch.add_address(0, index, *gateway);
        }
        for gateway in were.iter().filter(|g| !are.contains(g)) {
            if let IpNetwork::V6(gateway) = gateway {
                batch.deprecate_address(0, index, *gateway, left);
            }
        }
        match route.run(batch)? {
            // Somebody took the old address away; the rest of the batch is done all the same.
            Err(f) if f.errno != libc::EADDRNOTAVAIL => {
                return Err(f.error(format!("move bridge {name} to its new prefix")));
            }
            _ => {}
        }
        firewall::delete(&mut nft, &without(&before, &after))
    }
}
