//! What a container asks for, and what is wrong with asking for it.

use super::options::IFNAME;
use crate::dhcp;
use crate::egress::Policy;
use crate::model::{DnsConfig, EndpointConfig, Network, Pool, PortSpec};
use crate::networks::is_predefined;
use crate::publish::LoopbackPort;
use crate::rate::Rate;
use ipnetwork::IpNetwork;
use plan::{Error, Result};
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

/// Take what is decided, or only say what would be?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Leases addresses and reserves ports.
    Real,
    /// Writes nothing, needs no privilege: for `explain`.
    DryRun,
}

/// One container's wishes.
#[derive(Clone, Debug, Default)]
pub struct SandboxRequest {
    /// 64 hex digits. Its directory `<state>/containers/<id>` must exist: that is what makes the
    /// owner of a lease alive.
    pub container_id: String,
    pub container_name: String,
    pub hostname: String,
    pub domainname: String,
    /// The networks to join, `eth0` first. None: `--network none`.
    pub endpoints: Vec<EndpointConfig>,
    /// `--network host` or `ns:…`: no namespace of its own, `endpoints` is empty.
    pub host_network: bool,
    pub ports: Vec<PortSpec>,
    pub dns: DnsConfig,
    /// Its record stays when it ends, and may be started again: then with the same addresses.
    pub keep_addresses: bool,
    /// Where hosts, resolv.conf and hostname are to be written; `None` when nothing mounts them.
    pub files: Option<PathBuf>,
    /// What follows our own lines in its hosts file, and on the host's network stands for the host's.
    pub hosts_base: Option<String>,
    /// `--egress`.
    pub egress: Option<Policy>,
    /// `--host-loopback`.
    pub host_loopback: Vec<LoopbackPort>,
    /// `--net-rate`, of each cable.
    pub rate: Rate,
}

/// What one address of an endpoint comes from: the first of the pools that has room.
#[derive(Clone, Debug)]
pub(crate) struct Wanted<'a> {
    pub pools: Vec<&'a Pool>,
    pub ip: Option<IpAddr>,
    /// Of its last run.
    pub last: Option<IpAddr>,
}

impl Wanted<'_> {
    /// The address of its last run, if it was one of this pool's.
    pub fn last_in(&self, pool: &Pool) -> Option<IpAddr> {
        self.last.filter(|ip| pool.subnet.contains(*ip))
    }
}

/// Can it have endpoints at all?
pub(crate) fn joinable(network: &Network) -> Result<()> {
    if !network.config_only {
        return Ok(());
    }
    Err(Error::invalid("cannot create endpoint on configuration-only network")
        .with_hint(format!("make one of it: `rrun network create --config-from {} NAME`", network.name)))
}

/// Checks one endpoint against its network, and pairs its explicit addresses with pools: one address
/// a family, IPv4 first.
pub(crate) fn wanted<'a>(network: &'a Network, config: &EndpointConfig) -> Result<Vec<Wanted<'a>>> {
    joinable(network)?;
    let here = |ip: Option<Ipv6Addr>| ip.map(|ip| IpAddr::V6(network.in_its_prefix(ip)));
    let explicit = [config.ip.map(IpAddr::V4), here(config.ip6)];
    let last = [config.last.ip.map(IpAddr::V4), here(config.last.ip6)];
    if is_predefined(&network.name) {
        if explicit.iter().any(Option::is_some) {
            return Err(Error::invalid("user-specified IP address is supported on user-defined networks only")
                .with_hint("create one: `rrun network create --subnet 10.20.30.0/24 NAME`"));
        }
        if !config.aliases.is_empty() {
            return Err(Error::invalid("network-scoped aliases are only supported for user-defined networks")
                .with_hint("create one: `rrun network create NAME`"));
        }
    }
    if network.disable_dns && !(config.aliases.is_empty() && config.links.is_empty()) {
        return Err(Error::invalid(format!(
            "network {} has no DNS: nobody would hear of aliases and links",
            network.name
        ))
        .with_hint("leave them out, or create the network without --disable-dns"));
    }
    // With DHCP the server says which addresses there are.
    let known = explicit.iter().flatten().filter(|ip| ip.is_ipv6() || network.ipam.driver != dhcp::DRIVER);
    for ip in known {
        if !network.pools.iter().any(|p| p.subnet.contains(*ip)) {
            let subnets: Vec<String> = network.pools.iter().map(|p| p.subnet.to_string()).collect();
            return Err(Error::invalid(format!(
                "invalid endpoint settings:\nno configured subnet contains IP address {ip}"
            ))
            .with_hint(format!("network {} has {}", network.name, subnets.join(" and "))));
        }
    }
    if let Some(ip) = config.link_local.iter().find(|ip| link_local(**ip).is_none()) {
        return Err(Error::invalid(format!("invalid link-local IP address: {ip}"))
            .with_hint("link-local addresses are 169.254.0.0/16 and fe80::/10"));
    }
    if !network.enable_ipv6 && config.link_local.iter().any(IpAddr::is_ipv6) {
        return Err(Error::invalid(format!("network {} has no IPv6 for a link-local address", network.name))
            .with_hint("create it with --ipv6"));
    }
    super::options::check(&config.driver_opts)?;
    let mut all = Vec::new();
    for ipv6 in [false, true] {
        let (ip, last) = (explicit[usize::from(ipv6)], last[usize::from(ipv6)]);
        let mut pools: Vec<&Pool> = network.pools.iter().filter(|p| p.subnet.is_ipv6() == ipv6).collect();
        if let Some(ip) = ip {
            pools.retain(|p| p.subnet.contains(ip));
        }
        // Where it was before comes first.
        pools.sort_by_key(|p| !last.is_some_and(|l| p.subnet.contains(l)));
        if !pools.is_empty() {
            all.push(Wanted { pools, ip, last });
        }
    }
    Ok(all)
}

/// A link-local address with its prefix; `None` if it is none.
pub(crate) fn link_local(ip: IpAddr) -> Option<IpNetwork> {
    let (inside, prefix) = match ip {
        IpAddr::V4(ip) => (ip.is_link_local(), 16),
        IpAddr::V6(ip) => (ip.is_unicast_link_local(), 64),
    };
    IpNetwork::new(ip, prefix).ok().filter(|_| inside)
}

/// The interface's MAC address: as asked for, or made from network and container name, so that a
/// container made anew under the same name is no stranger to its neighbours' caches, to switches
/// and to DHCP servers.
pub(crate) fn mac(network: &Network, config: &EndpointConfig, container_name: &str) -> Result<[u8; 6]> {
    let Some(text) = &config.mac else {
        return Ok(crate::driver::bridge::mac(&network.id, container_name));
    };
    if network.driver == "ipvlan" {
        return Err(Error::invalid("ipvlan interfaces do not support custom mac address assignment")
            .with_hint("they all have their parent's: leave the MAC address out, or use a macvlan network"));
    }
    let bad = || {
        Error::invalid(format!("{text} is not a valid mac address"))
            .with_hint("six bytes such as 02:42:ac:11:00:05; the first must be even, and not all may be 0")
    };
    let mut mac = [0u8; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut mac {
        let part = parts.next().filter(|p| p.len() == 2).ok_or_else(bad)?;
        *byte = u8::from_str_radix(part, 16).map_err(|_| bad())?;
    }
    // The lowest bit of the first byte makes it a group address.
    if parts.next().is_some() || mac[0] & 1 == 1 || mac == [0; 6] {
        return Err(bad());
    }
    Ok(mac)
}

/// # Errors
/// No interface can have this name.
pub(super) fn valid_ifname(name: &str, option: &str) -> Result<()> {
    let valid = !name.is_empty()
        && name.len() < libc::IFNAMSIZ
        && !matches!(name, "." | ".." | "lo" | "all" | "default")
        && name.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b':');
    if valid {
        return Ok(());
    }
    Err(Error::invalid(format!("invalid interface name {name:?}"))
        .with_hint(format!("{option}: 1 to 15 characters without space, / or :")))
}

/// The name of the interface inside: asked for, or the network's prefix and the number in order of
/// attachment.
pub(crate) fn ifname(config: &EndpointConfig, prefix: &str, taken: &[&str]) -> Result<String> {
    let name = match config.driver_opts.get(IFNAME) {
        Some(name) => name.clone(),
        None => {
            let free = (0..).map(|i| format!("{prefix}{i}")).find(|n| !taken.contains(&n.as_str()));
            free.expect("there are more numbers than interfaces")
        }
    };
    valid_ifname(&name, IFNAME)?;
    if taken.contains(&name.as_str()) {
        return Err(Error::conflict(format!("error renaming interface {name}: file exists"))
            .with_hint("give each network's interface another name"));
    }
    Ok(name)
}
