//! The bridge of a network as a device: made, completed where something is missing, taken away.

use super::{sysctl, sysctl_if_there};
use crate::driver::bridge;
use crate::model::Network;
use crate::networks::{BridgeOptions, GatewayMode};
use crate::nl::{Batch, Link, Socket};
use plan::{Error, Result};

/// The network's bridge with its addresses, up; `true` when it was not there before. An unmanaged
/// one is only looked for.
pub(crate) fn create_bridge(route: &mut Socket, network: &Network) -> Result<bool> {
    let options = BridgeOptions::of(network);
    let name = options.bridge_name(&network.id);
    if options.unmanaged {
        return route.ifindex(&name)?.map(|_| false).ok_or_else(|| bridge::missing(&network.name, &name));
    }
    let doing = || format!("create bridge {name}");
    let mut batch = Batch::new();
    batch.add_bridge(0, &name, bridge::mac(&network.id, "gateway"), bridge::mtu(network), options.vlan);
    let created = match route.run(batch)? {
        Ok(()) => true,
        Err(f) if f.errno == libc::EEXIST => false,
        Err(f) if f.errno == libc::EOPNOTSUPP => {
            return Err(f.error(doing()).with_hint(match options.vlan {
                Some(_) => "this kernel's bridges know no VLANs: it needs CONFIG_BRIDGE_VLAN_FILTERING",
                None => "this kernel has no bridges: modprobe bridge, or enable CONFIG_BRIDGE",
            }));
        }
        Err(f) => return Err(f.error(doing())),
    };
    complete(route, network, &name, created).map_err(|e| {
        // Half a bridge would pass for a whole one from now on.
        match created.then(|| delete(route, &name)) {
            Some(Err(left)) => e.with_note(left.to_string()),
            _ => e,
        }
    })?;
    Ok(created)
}

/// Membership, settings, addresses, and up.
fn complete(route: &mut Socket, network: &Network, name: &str, created: bool) -> Result<()> {
    let options = BridgeOptions::of(network);
    let index = index_of(route, name)?;
    if let Some(vrf) = &options.vrf {
        // Before the addresses: joining moves the routes of an interface.
        let master = route.ifindex(vrf)?.ok_or_else(|| {
            Error::not_found(format!("VRF {vrf} of network {} does not exist", network.name))
                .with_hint(format!("create it: ip link add {vrf} type vrf table 100 && ip link set {vrf} up"))
        })?;
        let mut batch = Batch::new();
        batch.set_master(0, index, master);
        route.run(batch)?.map_err(|f| f.error(format!("make bridge {name} a member of VRF {vrf}")))?;
    }
    // So that the host reaches 127.0.0.1 publishes: packets from 127.0.0.1 may leave here, to be
    // masqueraded. The firewall drops what claims to go there.
    sysctl(&format!("ipv4/conf/{name}/route_localnet"), "1")?;
    if network.enable_ipv6 && options.mode6 != GatewayMode::Isolated {
        sysctl(&format!("ipv6/conf/{name}/disable_ipv6"), "0")?;
        sysctl(&format!("ipv6/conf/{name}/accept_ra"), "0")?;
        // Until its link-local address has been checked for duplicates (up to two seconds), the
        // bridge could not look for the containers behind it.
        sysctl(&format!("ipv6/conf/{name}/accept_dad"), "0")?;
    } else if created {
        // Not even a link-local address. A bridge that was there before is left as it was.
        sysctl_if_there(&format!("ipv6/conf/{name}/disable_ipv6"), "1")?;
    }
    for address in bridge::gateways(network) {
        // Each on its own: EEXIST, of a bridge that was there, must not stop the next.
        let mut one = Batch::new();
        one.add_address(0, index, address);
        match route.run(one)? {
            Err(f) if f.errno != libc::EEXIST => return Err(f.error(format!("give bridge {name} {address}"))),
            _ => {}
        }
    }
    let mut batch = Batch::new();
    batch.link_up(0, index);
    route.run(batch)?.map_err(|f| f.error(format!("bring bridge {name} up")))
}

/// Restores what somebody took off a bridge that is there. One line each; usually nothing.
pub(crate) fn mend_bridge(route: &mut Socket, network: &Network) -> Result<Vec<String>> {
    let options = BridgeOptions::of(network);
    let name = options.bridge_name(&network.id);
    if options.unmanaged {
        return Ok(Vec::new());
    }
    let index = index_of(route, &name)?;
    let mut lost = Vec::new();
    let there = route.addresses()?;
    for address in bridge::gateways(network) {
        if !there.contains(&(index, address)) {
            lost.push(format!("bridge {name} of network {} had lost {address}", network.name));
        }
    }
    let links = route.links()?;
    let bridge = links.iter().find(|l| l.index == index);
    if let (Some(vrf), Some(bridge)) = (&options.vrf, bridge)
        && bridge.master != links.iter().find(|l| l.name == *vrf).map(|l| l.index)
    {
        lost.push(format!("bridge {name} of network {} had left VRF {vrf}", network.name));
    }
    if bridge.is_some_and(|l| !l.up) {
        lost.push(format!("bridge {name} of network {} was down", network.name));
    }
    if !lost.is_empty() {
        complete(route, network, &name, false)?;
    }
    Ok(lost)
}

/// Takes away what the network put on the host: the bridge, or what it added to one that was there.
pub(crate) fn remove_bridge(route: &mut Socket, network: &Network) -> Result<()> {
    let options = BridgeOptions::of(network);
    let name = options.bridge_name(&network.id);
    let Some(index) = route.ifindex(&name)? else { return Ok(()) };
    let Some(kept) = network.adopted_bridge() else { return delete(route, &name) };
    if options.unmanaged {
        return Ok(());
    }
    for address in bridge::gateways(network).into_iter().filter(|a| !kept.contains(a)) {
        let mut batch = Batch::new();
        batch.delete_address(0, index, address);
        match route.run(batch)? {
            Err(f) if f.errno != libc::EADDRNOTAVAIL => {
                return Err(f.error(format!("take {address} off bridge {name}")));
            }
            _ => {}
        }
    }
    sysctl_if_there(&format!("ipv4/conf/{name}/route_localnet"), "0")
}

fn delete(route: &mut Socket, name: &str) -> Result<()> {
    let mut batch = Batch::new();
    batch.delete_link(0, name);
    match route.run(batch)? {
        Err(f) if f.errno != libc::ENODEV => Err(f.error(format!("delete bridge {name}"))),
        _ => Ok(()),
    }
}

/// Puts a port of somebody else's bridge into a VLAN.
pub(crate) fn join_vlan(route: &mut Socket, port: &str, vlan: u16) -> Result<()> {
    let index = index_of(route, port)?;
    let mut batch = Batch::new();
    batch.port_vlan(0, index, vlan);
    match route.run(batch)? {
        Err(f) if f.errno == libc::EOPNOTSUPP => Err(f
            .error(format!("put {port} into VLAN {vlan}"))
            .with_hint("this kernel's bridges know no VLANs: it needs CONFIG_BRIDGE_VLAN_FILTERING")),
        // It was not in VLAN 1.
        Err(f) if f.errno == libc::ENOENT => Ok(()),
        other => other.map_err(|f| f.error(format!("put {port} into VLAN {vlan}"))),
    }
}

fn index_of(route: &Socket, name: &str) -> Result<u32> {
    route.ifindex(name)?.ok_or_else(|| {
        Error::system(format!("interface {name} disappeared")).with_hint("something removed it a moment ago; try again")
    })
}

/// An interface that a network is to use as its bridge.
pub(crate) fn existing_bridge(route: &mut Socket, name: &str) -> Result<Option<Link>> {
    let Some(link) = route.links()?.into_iter().find(|l| l.name == name) else { return Ok(None) };
    if link.bridge {
        return Ok(Some(link));
    }
    Err(Error::conflict(format!("interface {name} exists and is no bridge"))
        .with_hint("choose another name: -o com.docker.network.bridge.name=NAME"))
}
