//! The nouns: a network, an endpoint, what a container asks for and what it got.

use crate::dhcp::Dhcp;
use crate::ipam::range::IpRange;
use crate::networks::vlan::is_vlan;
use crate::rate::Rate;
use crate::static_route::StaticRoute;
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A network as stored in `networks/<id>.json`. Unknown fields survive a rewrite.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Network {
    pub version: u32,
    pub id: String,
    pub name: String,
    /// `bridge`, `macvlan`, `ipvlan`, `host`, `null`.
    pub driver: String,
    /// RFC 3339 with nanoseconds, UTC.
    pub created: String,
    pub enable_ipv4: bool,
    pub enable_ipv6: bool,
    pub internal: bool,
    pub attachable: bool,
    pub pools: Vec<Pool>,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    /// Who gives out its addresses.
    #[serde(default)]
    pub ipam: Ipam,
    /// Holds settings for other networks and can have no container.
    #[serde(default)]
    pub config_only: bool,
    /// The network whose settings it took; empty: its own.
    #[serde(default)]
    pub config_from: String,
    /// Servers that its containers' resolvers ask, unless told otherwise by `--dns`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<IpAddr>,
    /// Its containers have no names on it, and ask the host's servers themselves.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disable_dns: bool,
    /// Routes that every container on it gets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<StaticRoute>,
    /// Taken over from the host's way out (or from the bridge that was there) when the network was
    /// made and nobody said otherwise. `None`: the kernel's 1500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inherited_mtu: Option<u32>,
    #[serde(flatten)]
    pub extra: BTreeMap<String, serde_json::Value>,
}

/// `--ipam-driver` and `--ipam-opt`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipam {
    /// `default`, `null` (no addresses at all) or `dhcp` (a server on the network gives them).
    pub driver: String,
    pub options: BTreeMap<String, String>,
}

impl Default for Ipam {
    fn default() -> Ipam {
        Ipam { driver: "default".into(), options: BTreeMap::new() }
    }
}

/// One subnet of a network. A bridge network's gateway is decided when the network is created; on a LAN
/// there is one only if the user says so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    pub subnet: IpNetwork,
    pub ip_range: Option<IpRange>,
    pub gateway: Option<IpAddr>,
    pub aux: BTreeMap<String, IpAddr>,
}

impl Pool {
    /// The auxiliary address, by Docker's name for it, that containers take for their gateway when
    /// that is not the bridge.
    pub fn default_gateway_name(ipv6: bool) -> &'static str {
        if ipv6 { "DefaultGatewayIPv6" } else { "DefaultGatewayIPv4" }
    }

    /// Where containers send what is not on their subnet.
    pub fn default_gateway(&self) -> Option<IpAddr> {
        self.aux.get(Pool::default_gateway_name(self.subnet.is_ipv6())).copied().or(self.gateway)
    }
}

/// What a container asks of one network: kept in `container.json`, valid over restarts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointConfig {
    /// Name or ID as the user gave it (resolved and replaced by the name at create).
    pub network: String,
    pub aliases: Vec<String>,
    pub ip: Option<Ipv4Addr>,
    pub ip6: Option<Ipv6Addr>,
    /// `02:42:…`
    pub mac: Option<String>,
    pub driver_opts: BTreeMap<String, String>,
    pub gw_priority: i64,
    /// `--link-local-ip`: on the interface beside its own addresses.
    pub link_local: Vec<IpAddr>,
    pub links: Vec<Link>,
    /// What it had when it ran last, and gets again if nobody else has it.
    pub last: LastAddresses,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<StaticRoute>,
}

impl EndpointConfig {
    /// Every address it asks for or remembers.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let v4 = [self.ip, self.last.ip].into_iter().flatten().map(IpAddr::V4);
        v4.chain([self.ip6, self.last.ip6].into_iter().flatten().map(IpAddr::V6))
    }
}

/// `--link CONTAINER[:ALIAS]`: another container under a name that only this one knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Name or ID as written.
    pub container: String,
    pub alias: String,
}

/// The addresses of a container's last run on one network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LastAddresses {
    pub ip: Option<Ipv4Addr>,
    pub ip6: Option<Ipv6Addr>,
}

/// What it got: decided by the planner, stored while the container runs in
/// `<state>/networks/<network id>/endpoints/<container id>.json`. This file is also the DNS record
/// and the source of `network inspect`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    pub version: u32,
    /// 64 hex digits.
    pub id: String,
    pub network_id: String,
    pub network: String,
    pub container_id: String,
    pub container_name: String,
    pub hostname: String,
    /// In the container: `eth0`.
    pub ifname: String,
    /// On the host: `veth1a2b3c4`. Empty for a device on top of a parent interface.
    pub host_ifname: String,
    /// Empty where it is the parent's.
    pub mac: String,
    pub ipv4: Option<Ipv4Addr>,
    pub prefix4: u8,
    pub gateway4: Option<Ipv4Addr>,
    pub ipv6: Option<Ipv6Addr>,
    pub prefix6: u8,
    pub gateway6: Option<Ipv6Addr>,
    pub aliases: Vec<String>,
    /// Every name it answers to on this network: container name, aliases, short ID.
    pub dns_names: Vec<String>,
    pub gw_priority: i64,
    /// Internal networks never give the default route and never forward DNS.
    pub internal: bool,
    #[serde(default)]
    pub link_local: Vec<IpAddr>,
    #[serde(default)]
    pub links: Vec<Link>,
    /// Of its interface: path below /proc/sys, value.
    #[serde(default)]
    pub sysctls: Vec<(String, String)>,
    #[serde(default)]
    pub announce: Announce,
    /// `starting`, `healthy`, `unhealthy`; nothing without a health check. Names that several
    /// containers share lead past the unhealthy ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<String>,
    /// A server on the network gives the IPv4 address.
    #[serde(default)]
    pub dhcp: Option<Dhcp>,
    /// The network's; empty in older records, which are of bridges.
    #[serde(default)]
    pub driver: String,
    /// The default route needs no gateway: it leads straight into the device.
    #[serde(default)]
    pub device_route: bool,
    /// The host's own device through which the host reaches this one.
    #[serde(default)]
    pub shim: Option<String>,
    /// Its network leaves the default route to others.
    #[serde(default)]
    pub no_default_route: bool,
    /// Of the default route.
    #[serde(default)]
    pub metric: Option<u32>,
    /// The routing table of what answers from its addresses, where the default route leads elsewhere;
    /// 0 in older records.
    #[serde(default)]
    pub table: u32,
    /// Published ports are the container's own, reached by a route to its address.
    #[serde(default)]
    pub routed4: bool,
    #[serde(default)]
    pub routed6: bool,
    /// Some host interfaces may address its published ports directly.
    #[serde(default)]
    pub trusted: bool,
    /// Its bridge is somebody else's: rrun has no firewall there, so no published ports.
    #[serde(default)]
    pub unmanaged: bool,
    /// Of the network and of the container, through this interface.
    #[serde(default)]
    pub routes: Vec<StaticRoute>,
    /// The host's interface on which the host answers for its IPv6 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ndp_proxy: Option<String>,
    /// Its network's IPv6 subnet follows the prefix of one of the host's interfaces.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub follows: bool,
    /// The host's interface to which multicast DNS is carried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mdns: Option<String>,
    /// Addresses of earlier prefixes, which end by themselves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former: Vec<Former>,
    /// Its gateway is the host itself, on a bridge of rrun's.
    #[serde(default)]
    pub host_is_gateway: bool,
    /// How fast it may receive and send: for the device that takes its place.
    #[serde(default)]
    pub rate: Rate,
}

impl Endpoint {
    /// The embedded resolver answers on this network: it has names itself, and hears those of others.
    pub(crate) fn has_names(&self) -> bool {
        !self.dns_names.is_empty()
    }

    pub(crate) fn mac_bytes(&self) -> Option<[u8; 6]> {
        let mut bytes = [0; 6];
        let mut parts = self.mac.split(':');
        for byte in &mut bytes {
            *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
        }
        Some(bytes)
    }

    /// Plugged into a bridge of the host, which can publish its ports.
    pub fn is_bridged(&self) -> bool {
        !is_vlan(&self.driver)
    }

    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.ipv4.map(IpAddr::V4).into_iter().chain(self.ipv6.map(IpAddr::V6))
    }

    /// The addresses that the host answers for in its place, and on which of its interfaces.
    pub(crate) fn answered(&self) -> impl Iterator<Item = (Ipv6Addr, String)> {
        let all = self.ipv6.into_iter().chain(self.former.iter().map(|f| f.ip));
        all.filter_map(|ip| Some((ip, self.ndp_proxy.clone()?)))
    }

    /// Can the default route of this family lead through it?
    pub fn leads_out(&self, ipv6: bool) -> bool {
        let (gateway, address) = if ipv6 {
            (self.gateway6.is_some(), self.ipv6.is_some())
        } else {
            (self.gateway4.is_some(), self.ipv4.is_some())
        };
        !self.internal && (gateway || self.device_route && address)
    }
}

/// An address that connections which began with it still have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Former {
    pub ip: Ipv6Addr,
    /// Unix time in seconds.
    pub until: u64,
}

/// How often, and how fast, an interface that comes up tells its neighbours where its addresses are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announce {
    pub messages: u32,
    pub interval_ms: u64,
}

impl Default for Announce {
    fn default() -> Announce {
        Announce { messages: 3, interval_ms: 1000 }
    }
}

/// [`Endpoint::health`] of a container that fails its health check.
pub const UNHEALTHY: &str = "unhealthy";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proto {
    Tcp,
    Udp,
    Sctp,
}

/// One `-p` as written, after parsing and range checking, before host ports are chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortSpec {
    pub host_ip: Option<IpAddr>,
    /// `None`: ephemeral. Inclusive range.
    pub host: Option<(u16, u16)>,
    /// Inclusive range.
    pub container: (u16, u16),
    pub proto: Proto,
    /// `iface=eth1`: reachable by what arrives through this interface, whatever addresses it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iface: Option<String>,
    /// `from=10.0.0.0/8`: reachable for these only; empty: for everybody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<IpNetwork>,
}

/// A published range, decided. `host.1 - host.0 == container.1 - container.0`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortBinding {
    pub host_ip: IpAddr,
    pub host: (u16, u16),
    pub container: (u16, u16),
    pub proto: Proto,
    /// As in [`PortSpec`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iface: Option<String>,
    /// As in [`PortSpec`], those of this binding's family.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<IpNetwork>,
    /// The network is routed: the container's own port is opened, and `host` means nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub routed: bool,
}

impl PortBinding {
    /// The host's side as ss(8) writes it, without the port: `0.0.0.0`, `[::1]`, `0.0.0.0%eth1`.
    pub fn host_text(&self) -> String {
        let ip = match self.host_ip {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        match &self.iface {
            Some(iface) => format!("{ip}%{iface}"),
            None => ip,
        }
    }
}

/// `--dns`, `--dns-search`, `--dns-option`, `--add-host`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsConfig {
    pub servers: Vec<IpAddr>,
    pub search: Vec<String>,
    pub options: Vec<String>,
    /// name → address; `host-gateway` already replaced.
    pub extra_hosts: Vec<(String, IpAddr)>,
}
