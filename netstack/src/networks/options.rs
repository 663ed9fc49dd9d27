//! Driver options of bridge networks: Docker's names, each also by its last word alone, and podman's.

use super::uplink::AUTO;
use crate::model::{Announce, Network};
use crate::sandbox::options::{self as endpoint_options, ADVERTISE_INTERVAL, ADVERTISE_MESSAGES};
use plan::{Error, Result};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub const NAME: &str = "com.docker.network.bridge.name";
pub const ICC: &str = "com.docker.network.bridge.enable_icc";
pub const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
pub const MTU: &str = "com.docker.network.driver.mtu";
pub const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
const INHIBIT_4: &str = "com.docker.network.bridge.inhibit_ipv4";
const GATEWAY_MODE_4: &str = "com.docker.network.bridge.gateway_mode_ipv4";
const GATEWAY_MODE_6: &str = "com.docker.network.bridge.gateway_mode_ipv6";
const TRUSTED: &str = "com.docker.network.bridge.trusted_host_interfaces";
const DEFAULT_BRIDGE: &str = "com.docker.network.bridge.default_bridge";
pub(super) const IFACE_PREFIX: &str = "com.docker.network.container_iface_prefix";
const HOST_4: &str = "com.docker.network.host_ipv4";
const HOST_6: &str = "com.docker.network.host_ipv6";
const ENABLE_4: &str = "com.docker.network.enable_ipv4";
const ENABLE_6: &str = "com.docker.network.enable_ipv6";
const NO_DEFAULT_ROUTE: &str = "no_default_route";
const METRIC: &str = "metric";
const VLAN: &str = "vlan";
const VRF: &str = "vrf";
const MODE: &str = "mode";
const ISOLATE: &str = "isolate";
const NDP_PROXY: &str = "ndp_proxy";
const PREFIX_FROM: &str = "ipv6_prefix_from";
const MDNS: &str = "mdns";

const ALL: [&str; 26] = [
    NAME,
    ICC,
    MASQUERADE,
    MTU,
    HOST_BINDING,
    INHIBIT_4,
    GATEWAY_MODE_4,
    GATEWAY_MODE_6,
    TRUSTED,
    DEFAULT_BRIDGE,
    IFACE_PREFIX,
    HOST_4,
    HOST_6,
    ENABLE_4,
    ENABLE_6,
    NO_DEFAULT_ROUTE,
    METRIC,
    VLAN,
    VRF,
    MODE,
    ISOLATE,
    NDP_PROXY,
    PREFIX_FROM,
    MDNS,
    ADVERTISE_MESSAGES,
    ADVERTISE_INTERVAL,
];

/// Other words for the same.
const SYNONYMS: [(&str, &str); 5] = [
    ("outbound_addr4", HOST_4),
    ("outbound_addr6", HOST_6),
    ("icc", ICC),
    ("masquerade", MASQUERADE),
    ("host_binding", HOST_BINDING),
];

/// What the bridge does with packets between its containers and the world, for one address family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GatewayMode {
    /// Out under the host's address, in by published ports.
    #[default]
    Nat,
    /// The same, and whoever has a route to the containers reaches all of their ports.
    NatUnprotected,
    /// No translation: published ports are container ports, reached by a route to the subnet.
    Routed,
    /// No way out, and the host itself has no address on the bridge.
    Isolated,
}

/// The options of a bridge network, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeOptions {
    pub name: Option<String>,
    /// May containers of this network talk to each other?
    pub icc: bool,
    /// Do they leave under the host's address?
    pub masquerade: bool,
    /// The host address that `-p` without one binds.
    pub host_binding: Option<IpAddr>,
    /// Somebody else on the bridge is the IPv4 gateway.
    pub inhibit_ipv4: bool,
    pub mode4: GatewayMode,
    pub mode6: GatewayMode,
    /// Host interfaces through which published container ports may be addressed directly.
    pub trusted: Vec<String>,
    pub mtu: Option<u32>,
    pub iface_prefix: String,
    /// The host's address under which containers leave, instead of that of the outgoing interface.
    pub host4: Option<Ipv4Addr>,
    pub host6: Option<Ipv6Addr>,
    pub enable_ipv4: Option<bool>,
    pub enable_ipv6: Option<bool>,
    /// Containers never get their default route from this network.
    pub no_default_route: bool,
    /// Of that default route.
    pub metric: Option<u32>,
    /// The bridge filters VLANs, and containers are in this one.
    pub vlan: Option<u16>,
    /// The VRF that the bridge belongs to.
    pub vrf: Option<String>,
    /// The bridge is somebody else's: cables are plugged into it, and that is all.
    pub unmanaged: bool,
    /// The interface on which the host answers for the containers' IPv6 addresses, or `auto`.
    pub ndp_proxy: Option<String>,
    /// The interface, or `auto`, whose IPv6 prefix the network's subnet is a part of, and stays so.
    pub prefix_from: Option<String>,
    /// The interface, or `auto`, to which multicast DNS is carried.
    pub mdns: Option<String>,
}

impl Default for BridgeOptions {
    fn default() -> BridgeOptions {
        BridgeOptions {
            name: None,
            icc: true,
            masquerade: true,
            host_binding: None,
            inhibit_ipv4: false,
            mode4: GatewayMode::Nat,
            mode6: GatewayMode::Nat,
            trusted: Vec::new(),
            mtu: None,
            iface_prefix: "eth".into(),
            host4: None,
            host6: None,
            enable_ipv4: None,
            enable_ipv6: None,
            no_default_route: false,
            metric: None,
            vlan: None,
            vrf: None,
            unmanaged: false,
            ndp_proxy: None,
            prefix_from: None,
            mdns: None,
        }
    }
}

impl BridgeOptions {
    /// Of a network on record, which were checked when it was created; a record changed by hand
    /// falls back to the defaults.
    pub fn of(network: &Network) -> BridgeOptions {
        BridgeOptions::parse(&network.options).unwrap_or_else(|_| BridgeOptions::default())
    }

    /// Checks and reads. Options not known are refused: a misspelt one would silently do nothing.
    pub fn parse(options: &BTreeMap<String, String>) -> Result<BridgeOptions> {
        let mut o = BridgeOptions::default();
        for (key, value) in options {
            match full_name(key) {
                Some(NAME) => o.name = Some(interface("bridge name", value)?),
                Some(ICC) => o.icc = boolean(key, value)?,
                Some(MASQUERADE) => o.masquerade = boolean(key, value)?,
                Some(HOST_BINDING) => o.host_binding = Some(address(key, value, "127.0.0.1 or ::1")?),
                Some(INHIBIT_4) => o.inhibit_ipv4 = boolean(key, value)?,
                Some(GATEWAY_MODE_4) => o.mode4 = gateway_mode(value)?,
                Some(GATEWAY_MODE_6) => o.mode6 = gateway_mode(value)?,
                Some(TRUSTED) => {
                    let names = value.split(':').filter(|n| !n.is_empty());
                    o.trusted = names.map(|n| interface("interface name", n)).collect::<Result<_>>()?;
                }
                Some(DEFAULT_BRIDGE) => {
                    if boolean(key, value)? {
                        return Err(Error::conflict("there is one default bridge already: network bridge")
                            .with_hint(format!("leave {key} out")));
                    }
                }
                Some(MTU) => o.mtu = mtu(value)?,
                Some(IFACE_PREFIX) => o.iface_prefix = iface_prefix(key, value)?,
                Some(HOST_4) => o.host4 = Some(address(key, value, "192.0.2.7, an IPv4 address of this host")?),
                Some(HOST_6) => o.host6 = Some(address(key, value, "2001:db8::7, an IPv6 address of this host")?),
                Some(ENABLE_4) => o.enable_ipv4 = Some(boolean(key, value)?),
                Some(ENABLE_6) => o.enable_ipv6 = Some(boolean(key, value)?),
                Some(NO_DEFAULT_ROUTE) => o.no_default_route = boolean(key, value)?,
                Some(METRIC) => {
                    o.metric = Some(value.parse().ok().filter(|m| *m != 0).ok_or_else(|| {
                        invalid(key, value).with_hint("a number from 1 to 4294967295; the lowest wins")
                    })?);
                }
                Some(VLAN) => {
                    o.vlan = Some(value.parse().ok().filter(|v| (1..=4094).contains(v)).ok_or_else(|| {
                        Error::invalid(format!("vlan id must be between 1-4094, received: {value}"))
                            .with_hint("as in -o vlan=100")
                    })?);
                }
                Some(VRF) => o.vrf = Some(interface("VRF name", value)?),
                Some(MODE) => {
                    o.unmanaged = match value.as_str() {
                        "managed" => false,
                        "unmanaged" => true,
                        _ => return Err(invalid(key, value).with_hint("managed or unmanaged")),
                    }
                }
                Some(NDP_PROXY) => o.ndp_proxy = Some(interface("interface name", value)?),
                Some(PREFIX_FROM) => o.prefix_from = Some(interface("interface name", value)?),
                Some(MDNS) => {
                    o.mdns = match boolean(key, value) {
                        Ok(on) => on.then(|| AUTO.to_string()),
                        Err(_) => Some(interface("interface name", value)?),
                    };
                }
                Some(ADVERTISE_MESSAGES | ADVERTISE_INTERVAL) => {
                    endpoint_options::announcement(options, Announce::default())?;
                }
                // Networks are always kept apart; podman's users say so.
                Some(ISOLATE) => match value.as_str() {
                    "strict" => {}
                    _ if boolean(key, value)? => {}
                    _ => {
                        return Err(invalid(key, value).with_hint(
                            "rrun always isolates networks: join a container to both, or publish its port",
                        ));
                    }
                },
                _ => {
                    let known = ALL.map(|name| name.rsplit('.').next().unwrap_or(name)).join(", ");
                    return Err(Error::invalid(format!("unknown option {key} of network driver bridge"))
                        .with_hint(format!("known, with or without Docker's prefix: {known}")));
                }
            }
        }
        o.agree()
    }

    /// What does not go together.
    fn agree(self) -> Result<BridgeOptions> {
        let closed = self.mode6 == GatewayMode::Nat && self.trusted.is_empty() || self.mode6 == GatewayMode::Isolated;
        if self.ndp_proxy.is_some() && closed {
            return Err(Error::invalid("option ndp_proxy is for containers that are reached by their own addresses")
                .with_hint(
                    "add -o gateway_mode_ipv6=routed (published container ports) or nat-unprotected (all of them)",
                ));
        }
        if !self.unmanaged {
            return Ok(self);
        }
        let refuse = |what: &str, hint: &str| {
            Err(Error::invalid(format!("an unmanaged bridge network {what}")).with_hint(hint.to_string()))
        };
        if self.name.is_none() {
            return refuse("needs the name of an existing bridge", &format!("add -o {NAME}=BRIDGE"));
        }
        if self.vrf.is_some() || self.mode4 != GatewayMode::Nat || self.mode6 != GatewayMode::Nat {
            return refuse(
                "has no VRF and no gateway mode",
                "rrun only plugs containers in: set the bridge up yourself",
            );
        }
        if self.ndp_proxy.is_some() || self.prefix_from.is_some() || self.mdns.is_some() {
            return refuse(
                "has only what its bridge has of the LAN",
                "leave ndp_proxy, ipv6_prefix_from and mdns out: whoever set the bridge up says what is on it",
            );
        }
        if self.host4.is_some() || self.host6.is_some() || !self.trusted.is_empty() {
            return refuse("has no NAT and no firewall", "leave host_ipv4, host_ipv6 and trusted_host_interfaces out");
        }
        Ok(self)
    }

    /// The bridge's name on the host.
    pub fn bridge_name(&self, network_id: &str) -> String {
        match &self.name {
            Some(name) => name.clone(),
            None => format!("br-{}", network_id.get(..12).unwrap_or(network_id)),
        }
    }

    /// What is about the LAN needs a way there.
    pub(super) fn check_reach(&self, internal: bool, ipv6: bool) -> Result<()> {
        let asked = [(&self.ndp_proxy, NDP_PROXY), (&self.prefix_from, PREFIX_FROM), (&self.mdns, MDNS)];
        let Some((_, option)) = asked.iter().find(|(value, _)| value.is_some()) else { return Ok(()) };
        if internal {
            return Err(Error::invalid(format!("option {option} is for networks that are reached from outside"))
                .with_hint("drop --internal"));
        }
        if !ipv6 && *option != MDNS {
            return Err(Error::invalid(format!("option {option} is about IPv6, which this network does not have"))
                .with_hint("add --ipv6"));
        }
        Ok(())
    }

    /// Of one family.
    pub fn mode(&self, ipv6: bool) -> GatewayMode {
        if ipv6 { self.mode6 } else { self.mode4 }
    }

    /// The host's address under which containers leave, of one family.
    pub fn outbound(&self, ipv6: bool) -> Option<IpAddr> {
        if ipv6 { self.host6.map(IpAddr::V6) } else { self.host4.map(IpAddr::V4) }
    }
}

/// An option's full name: as given, by its last word, or by a synonym.
pub fn full_name(key: &str) -> Option<&'static str> {
    let known = ALL.into_iter().find(|name| *name == key || name.rsplit('.').next() == Some(key));
    known.or_else(|| SYNONYMS.iter().find(|(word, _)| *word == key).map(|(_, name)| *name))
}

/// Every option under its full name.
pub fn canonical(options: BTreeMap<String, String>) -> BTreeMap<String, String> {
    options.into_iter().map(|(k, v)| (full_name(&k).map_or(k, str::to_string), v)).collect()
}

fn invalid(key: &str, value: &str) -> Error {
    Error::invalid(format!("invalid value for {key}: {value:?}"))
}

fn address<T: std::str::FromStr>(key: &str, value: &str, example: &str) -> Result<T> {
    value.parse().map_err(|_| invalid(key, value).with_hint(format!("for example {example}")))
}

/// As Docker takes them: 1, t, true, 0, f, false in Go's spellings.
pub(super) fn boolean(key: &str, value: &str) -> Result<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(invalid(key, value).with_hint("true or false")),
    }
}

/// 0 means: not said.
pub(super) fn mtu(value: &str) -> Result<Option<u32>> {
    let number = value.parse().ok().filter(|m| *m == 0 || (68..=65535).contains(m));
    let number: u32 = number.ok_or_else(|| {
        Error::invalid(format!("invalid MTU number: {value}"))
            .with_hint("from 68 (1280 with IPv6) to 65535, usually 1500 or a little less")
    })?;
    Ok(Some(number).filter(|m| *m != 0))
}

/// What the interfaces inside are called, before the number.
pub(super) fn iface_prefix(key: &str, value: &str) -> Result<String> {
    let ok = !value.is_empty()
        && value.len() <= 12
        && value != "lo"
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if ok {
        return Ok(value.to_string());
    }
    Err(invalid(key, value).with_hint("letters, digits, _ and -, at most 12 of them"))
}

/// What the kernel accepts as an interface name.
fn interface(what: &str, value: &str) -> Result<String> {
    let ok = !value.is_empty()
        && value.len() < libc::IFNAMSIZ
        && value != "."
        && value != ".."
        && value != "lo"
        && value.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b':' && b != b'"');
    if ok {
        return Ok(value.to_string());
    }
    Err(Error::invalid(format!("invalid {what} {value:?}")).with_hint("1 to 15 characters, no space, / or :"))
}

fn gateway_mode(value: &str) -> Result<GatewayMode> {
    match value {
        "" | "nat" => Ok(GatewayMode::Nat),
        "nat-unprotected" => Ok(GatewayMode::NatUnprotected),
        "routed" => Ok(GatewayMode::Routed),
        "isolated" => Ok(GatewayMode::Isolated),
        _ => Err(Error::invalid(format!("unknown gateway mode {value}"))
            .with_hint("nat, nat-unprotected, routed or isolated")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<BridgeOptions> {
        BridgeOptions::parse(&pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect())
    }

    #[test]
    fn options_are_read() {
        let o = parse(&[(NAME, "br9"), (ICC, "false"), (MASQUERADE, "0"), (MTU, "1400"), (GATEWAY_MODE_4, "routed")])
            .unwrap();
        assert_eq!((o.icc, o.masquerade, o.mtu, o.mode4), (false, false, Some(1400), GatewayMode::Routed));
        assert_eq!(o.bridge_name("0123456789abcdef"), "br9");
        assert_eq!(parse(&[]).unwrap().bridge_name("0123456789abcdef"), "br-0123456789ab");
        assert_eq!(parse(&[(TRUSTED, "wg0:eth1.5")]).unwrap().trusted, ["wg0", "eth1.5"]);
    }

    #[test]
    fn the_last_word_is_enough() {
        let o = parse(&[("mtu", "1400"), ("host_binding_ipv4", "::1"), ("icc", "f"), ("outbound_addr4", "192.0.2.1")]);
        let o = o.unwrap();
        assert_eq!((o.mtu, o.icc, o.host4), (Some(1400), false, Some(Ipv4Addr::new(192, 0, 2, 1))));
        assert_eq!(o.host_binding, Some("::1".parse().unwrap()));
        for name in ALL {
            assert_eq!(full_name(name.rsplit('.').next().unwrap()), Some(name), "no two options share it");
        }
    }

    #[test]
    fn bad_options_are_named() {
        let text = |pairs: &[(&str, &str)]| {
            let e = parse(pairs).unwrap_err();
            assert!(e.hint.is_some(), "{e}");
            e.to_string()
        };
        assert_eq!(text(&[(MTU, "-1")]), "invalid MTU number: -1");
        assert_eq!(text(&[(GATEWAY_MODE_6, "bogus")]), "unknown gateway mode bogus");
        assert_eq!(text(&[("colour", "red")]), "unknown option colour of network driver bridge");
        assert_eq!(text(&[(NAME, "a name")]), "invalid bridge name \"a name\"");
        assert!(text(&[(ICC, "perhaps")]).contains("enable_icc"));
        assert_eq!(text(&[(VLAN, "4095")]), "vlan id must be between 1-4094, received: 4095");
        assert_eq!(text(&[(HOST_4, "::1")]), "invalid value for com.docker.network.host_ipv4: \"::1\"");
        assert_eq!(text(&[(METRIC, "0")]), "invalid value for metric: \"0\"");
        assert_eq!(text(&[(ISOLATE, "false")]), "invalid value for isolate: \"false\"");
        assert_eq!(text(&[(MODE, "unmanaged")]), "an unmanaged bridge network needs the name of an existing bridge");
        assert_eq!(
            text(&[(MODE, "unmanaged"), (NAME, "br9"), (HOST_4, "192.0.2.1")]),
            "an unmanaged bridge network has no NAT and no firewall"
        );
    }
}
