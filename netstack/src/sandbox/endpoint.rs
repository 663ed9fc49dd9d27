//! Deciding one endpoint: names, addresses, identity.

use super::options::{self, HOST_IFNAME};
use super::request::{self, Mode, SandboxRequest};
use crate::apply::vlan::Patience;
use crate::dhcp::{self, Dhcp};
use crate::ipam::Leases;
use crate::model::{Endpoint, EndpointConfig, Network, Pool};
use crate::networks::uplink;
use crate::networks::vlan::is_vlan;
use crate::networks::{BridgeOptions, GatewayMode, Netstack, VERSION, VlanOptions, is_predefined, random_hex};
use crate::nl::Socket;
use plan::{Error, Kind, Result, ResultExt};
use sha2::{Digest, Sha256};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// The tables from here on are rrun's in a container's namespace. Far from those that people number by hand.
const FIRST_TABLE: u32 = 1000;

/// `<state>/networks/<network>/endpoints/<container>.json`.
pub(crate) fn record(state: &Path, network_id: &str, container_id: &str) -> PathBuf {
    state.join("networks").join(network_id).join("endpoints").join(format!("{container_id}.json"))
}

/// One endpoint, decided; with [`Mode::Real`] its addresses are leased. Releases what it leased
/// when it fails halfway. `others` is where the container is already.
pub(crate) fn decide(
    netstack: &Netstack,
    request: &SandboxRequest,
    network: &Network,
    config: &EndpointConfig,
    others: &[Endpoint],
    mode: Mode,
    route: &Socket,
) -> Result<(Endpoint, [u8; 6])> {
    let bridge = BridgeOptions::of(network);
    let vlan = is_vlan(&network.driver).then(|| VlanOptions::of(network));
    let prefix = vlan.as_ref().map_or(&bridge.iface_prefix, |v| &v.iface_prefix);
    if vlan.as_ref().is_some_and(|v| v.upper.is_exclusive()) {
        refuse_second(netstack, network, request)?;
    }
    let wanted = request::wanted(network, config)?;
    let mut mac = request::mac(network, config, &request.container_name)?;
    if config.mac.is_none() && is_anothers(netstack, network, request, mac)? {
        mac = request::mac(network, config, &request.container_id)?;
    }
    let taken: Vec<&str> = others.iter().map(|e| e.ifname.as_str()).collect();
    let ifname = request::ifname(config, prefix, &taken)?;
    let host_ifname = match vlan {
        Some(_) => no_host_ifname(network, config)?,
        None => host_ifname(network, request, config, mode, route)?,
    };

    let ndp_proxy = bridge.ndp_proxy.as_ref().map(|wanted| uplink::interface(wanted, network)).transpose()?;
    let mut addresses: Vec<(IpAddr, u8, Option<IpAddr>)> = Vec::new();
    {
        let leases = netstack.leases(&network.id);
        let owner = request.container_id.as_str();
        match mode {
            Mode::DryRun => {
                for w in &wanted {
                    let (ip, pool) = first_with_room(&w.pools, |pool| match w.ip {
                        Some(ip) => Ok(ip),
                        None => leases.preview(network, pool),
                    })?;
                    addresses.push((ip, pool.subnet.prefix(), pool.default_gateway()));
                }
            }
            Mode::Real => {
                let mut locked = leases.lock()?;
                netstack.still_there(network).inspect_err(|_| discard(&leases))?;
                if locked.is_new() {
                    netstack.recall(network, &locked)?;
                }
                for w in &wanted {
                    match first_with_room(&w.pools, |pool| locked.lease(network, pool, w.ip, w.last_in(pool), owner)) {
                        Ok((ip, pool)) => addresses.push((ip, pool.subnet.prefix(), pool.default_gateway())),
                        Err(e) => {
                            let undone: Result<()> =
                                addresses.iter().try_for_each(|(ip, _, _)| locked.release(*ip, owner));
                            return Err(match undone {
                                Ok(()) => e,
                                Err(u) => e.with_note(u.to_string()),
                            });
                        }
                    }
                }
            }
        }
    }
    let v4 = addresses.iter().find_map(|(ip, prefix, gw)| match ip {
        IpAddr::V4(ip) => Some((*ip, *prefix, *gw)),
        IpAddr::V6(_) => None,
    });
    let v6 = addresses.iter().find_map(|(ip, prefix, gw)| match ip {
        IpAddr::V6(ip) => Some((*ip, *prefix, *gw)),
        IpAddr::V4(_) => None,
    });
    let device_route = vlan.as_ref().is_some_and(|v| v.upper.routes_by_device());
    let own_mac = config.mac.is_some() || vlan.as_ref().is_none_or(|v| crate::driver::vlan::own_mac(v.upper));
    let gateway = !network.internal && !device_route;
    let endpoint = Endpoint {
        version: VERSION,
        id: endpoint_id(&network.id, &request.container_id),
        network_id: network.id.clone(),
        network: network.name.clone(),
        container_id: request.container_id.clone(),
        container_name: request.container_name.clone(),
        hostname: request.hostname.clone(),
        host_ifname,
        mac: if own_mac { crate::step::mac_text(&mac) } else { String::new() },
        ipv4: v4.map(|a| a.0),
        prefix4: v4.map_or(0, |a| a.1),
        gateway4: v4.and_then(|a| match a.2 {
            Some(IpAddr::V4(gw)) if gateway => Some(gw),
            _ => None,
        }),
        ipv6: v6.map(|a| a.0),
        prefix6: v6.map_or(0, |a| a.1),
        gateway6: v6.and_then(|a| match a.2 {
            Some(IpAddr::V6(gw)) if gateway => Some(gw),
            _ => None,
        }),
        aliases: config.aliases.clone(),
        dns_names: dns_names(network, request, config),
        gw_priority: config.gw_priority,
        internal: network.internal,
        no_default_route: bridge.no_default_route,
        metric: bridge.metric,
        table: (FIRST_TABLE..).find(|t| others.iter().all(|e| e.table != *t)).unwrap_or_default(),
        routed4: bridge.mode4 == GatewayMode::Routed,
        routed6: bridge.mode6 == GatewayMode::Routed,
        trusted: !bridge.trusted.is_empty(),
        unmanaged: bridge.unmanaged,
        routes: network.routes.iter().chain(&config.routes).copied().collect(),
        link_local: config.link_local.clone(),
        links: config.links.clone(),
        sysctls: options::sysctls(&config.driver_opts, &ifname)?,
        announce: options::announce(network, config)?,
        dhcp: dhcp(network, request, config)?,
        ifname,
        health: None,
        driver: network.driver.clone(),
        device_route,
        shim: vlan.as_ref().and_then(|v| v.shim_name(&network.id)),
        host_is_gateway: vlan.is_none()
            && !bridge.unmanaged
            && !bridge.inhibit_ipv4
            && network.ipam.driver != dhcp::DRIVER,
        ndp_proxy,
        mdns: bridge.mdns.clone(),
        follows: bridge.prefix_from.is_some(),
        former: Vec::new(),
        rate: request.rate,
    };
    Ok((endpoint, mac))
}

/// There while a running container has been renamed on this network since the machine booted.
fn renamed(state: &Path, network_id: &str) -> PathBuf {
    state.join("networks").join(network_id).join("renamed")
}

/// A container was renamed while it ran: its MAC address is still that of its old name.
pub(crate) fn note_rename(state: &Path, network_id: &str) -> Result<()> {
    let path = renamed(state, network_id);
    std::fs::write(&path, "").doing(|| format!("write {}", path.display()))
}

/// Has a neighbour this MAC address, because it had our name when it started?
fn is_anothers(netstack: &Netstack, network: &Network, request: &SandboxRequest, mac: [u8; 6]) -> Result<bool> {
    if !renamed(&netstack.state, &network.id).exists() {
        return Ok(false);
    }
    let text = crate::step::mac_text(&mac);
    Ok(netstack.endpoints(network)?.iter().any(|e| e.mac == text && e.container_id != request.container_id))
}

/// What to ask the network's own server for.
fn dhcp(network: &Network, request: &SandboxRequest, config: &EndpointConfig) -> Result<Option<Dhcp>> {
    if network.ipam.driver != dhcp::DRIVER {
        return Ok(None);
    }
    // The short ID, which is the default, tells nobody anything.
    let named = !request.container_id.starts_with(&request.hostname);
    Ok(Some(Dhcp {
        hostname: if named { request.hostname.clone() } else { request.container_name.clone() },
        wanted: config.ip.or(config.last.ip),
        exact: config.ip.is_some(),
        patience: dhcp::patience(&network.ipam)?,
        lease: None,
    }))
}

/// In mode passthru. The kernel would refuse it too, without a name.
fn refuse_second(netstack: &Netstack, network: &Network, request: &SandboxRequest) -> Result<()> {
    let others = netstack.endpoints(network)?;
    match others.iter().find(|e| e.container_id != request.container_id) {
        Some(e) => Err(Error::conflict(format!(
            "network {} is in mode passthru, which is for one container at a time: {} is on it",
            network.name, e.container_name
        ))
        .with_hint(format!("`rrun stop {}`, or make the network anew in mode bridge", e.container_name))),
        None => Ok(()),
    }
}

/// Several subnets of a family are used up one after the other.
fn first_with_room<'a>(
    pools: &[&'a Pool],
    mut address: impl FnMut(&Pool) -> Result<IpAddr>,
) -> Result<(IpAddr, &'a Pool)> {
    let (last, others) = pools.split_last().expect("a family without a pool wants no address");
    for pool in others {
        match address(pool) {
            Err(e) if e.kind == Kind::Conflict => {}
            other => return other.map(|ip| (ip, *pool)),
        }
    }
    address(last).map(|ip| (ip, *last))
}

/// The network vanished while we waited for its lock, and waiting recreated its directory.
fn discard(leases: &Leases) {
    // Not empty, or gone already: then there is nothing to tidy.
    let _ = std::fs::remove_file(leases.dir().join("lock"));
    for sub in ["leases", "endpoints", ""] {
        let _ = std::fs::remove_dir(leases.dir().join(sub));
    }
}

/// Container name, aliases, short ID, hostname. The default bridge has no DNS, so no names either.
fn dns_names(network: &Network, request: &SandboxRequest, config: &EndpointConfig) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    if is_predefined(&network.name) || network.disable_dns {
        return names;
    }
    let short = request.container_id.get(..12).unwrap_or(&request.container_id).to_string();
    let all = [request.container_name.clone()].into_iter().chain(config.aliases.iter().cloned());
    for name in all.chain([short, request.hostname.clone()]) {
        if !name.is_empty() && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn endpoint_id(network_id: &str, container_id: &str) -> String {
    Sha256::digest(format!("endpoint {network_id} {container_id}")).iter().map(|b| format!("{b:02x}")).collect()
}

/// A device on top of a parent has no other end.
fn no_host_ifname(network: &Network, config: &EndpointConfig) -> Result<String> {
    match config.driver_opts.get(HOST_IFNAME) {
        None => Ok(String::new()),
        Some(name) => Err(Error::invalid(format!(
            "interface name {name} on the host: containers on {} network {} have no interface there",
            network.driver, network.name
        ))
        .with_hint("leave it out, or use a bridge network")),
    }
}

/// The name that was asked for, once the kernel is done with the namespace of the container's last life; else
/// `veth` and seven digits. New at each start: when a container restarts at once, the kernel may
/// still be busy with the namespace, and the cable, of its previous life.
fn host_ifname(
    network: &Network,
    request: &SandboxRequest,
    config: &EndpointConfig,
    mode: Mode,
    route: &Socket,
) -> Result<String> {
    if let Some(name) = config.driver_opts.get(HOST_IFNAME) {
        request::valid_ifname(name, HOST_IFNAME)?;
        let patience = Patience::new();
        while mode == Mode::Real && route.ifindex(name)?.is_some() {
            if !patience.wait() {
                return Err(Error::conflict(format!("the host has an interface {name} already"))
                    .with_hint("choose another host-ifname: `ip link` shows whose it is"));
            }
        }
        return Ok(name.clone());
    }
    if mode == Mode::DryRun {
        return Ok(format!("veth{}", &endpoint_id(&network.id, &request.container_id)[..7]));
    }
    loop {
        let name = format!("veth{}", &random_hex()?[..7]);
        if route.ifindex(&name)?.is_none() {
            return Ok(name);
        }
    }
}
