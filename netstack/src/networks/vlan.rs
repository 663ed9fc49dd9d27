//! Driver options of macvlan and ipvlan networks, under Docker's names, and the rules for sharing a
//! parent interface.

use super::options::{IFACE_PREFIX, MTU, boolean, iface_prefix, mtu};
use crate::model::{Announce, Network};
use crate::nl::Link;
use crate::sandbox::options::{self as endpoint_options, ADVERTISE_INTERVAL, ADVERTISE_MESSAGES};
use plan::{Error, Result};
use std::collections::BTreeMap;

pub const PARENT: &str = "parent";
const MACVLAN_MODE: &str = "macvlan_mode";
const IPVLAN_MODE: &str = "ipvlan_mode";
const IPVLAN_FLAG: &str = "ipvlan_flag";
pub const HOST_ACCESS: &str = "host_access";
const BROADCAST_LIMIT: &str = "bclim";

/// The auxiliary address that the host's own device has, with `host_access`. Docker's users reserve
/// one of that name for a device they make by hand.
pub const HOST: &str = "host";

/// In a record: the sub-interface that is the parent was made by rrun, and goes with its last network.
pub(super) const MADE_PARENT: &str = "made_parent";

/// What an upper device is, and how it treats its siblings on the same parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upper {
    Macvlan(MacvlanMode),
    Ipvlan(IpvlanMode, IpvlanFlag),
}

/// Who hears whom among macvlan devices of one parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MacvlanMode {
    /// They talk to each other directly.
    Bridge,
    /// They do not talk to each other at all.
    Private,
    /// Only by way of the switch outside, which must send frames back where they came from.
    Vepa,
    /// There is only one, and it is the parent's other self.
    Passthru,
}

/// The layer at which ipvlan devices of one parent are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpvlanMode {
    L2,
    /// The parent routes between them; no broadcasts.
    L3,
    /// The same, and the host's firewall sees what comes in.
    L3s,
}

/// As the macvlan modes of the same names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpvlanFlag {
    Bridge,
    Private,
    Vepa,
}

impl Upper {
    pub fn driver(self) -> &'static str {
        match self {
            Upper::Macvlan(_) => "macvlan",
            Upper::Ipvlan(..) => "ipvlan",
        }
    }

    /// Traffic finds its way by address alone: no gateway, the default route is the device itself.
    pub fn routes_by_device(self) -> bool {
        matches!(self, Upper::Ipvlan(IpvlanMode::L3 | IpvlanMode::L3s, _))
    }

    /// Only one device at a time.
    pub fn is_exclusive(self) -> bool {
        self == Upper::Macvlan(MacvlanMode::Passthru)
    }

    /// A device of the host beside the containers' could talk to them.
    fn siblings_talk(self) -> bool {
        matches!(self, Upper::Macvlan(MacvlanMode::Bridge) | Upper::Ipvlan(_, IpvlanFlag::Bridge))
    }

    /// `mode bridge`, as `ip link add` takes it.
    pub fn words(self) -> String {
        match self {
            Upper::Macvlan(mode) => format!("mode {}", mode.name()),
            Upper::Ipvlan(mode, flag) => format!("mode {} {}", mode.name(), flag.name()),
        }
    }
}

impl MacvlanMode {
    const ALL: [MacvlanMode; 4] = [MacvlanMode::Bridge, MacvlanMode::Private, MacvlanMode::Vepa, MacvlanMode::Passthru];

    fn name(self) -> &'static str {
        match self {
            MacvlanMode::Bridge => "bridge",
            MacvlanMode::Private => "private",
            MacvlanMode::Vepa => "vepa",
            MacvlanMode::Passthru => "passthru",
        }
    }
}

impl IpvlanMode {
    const ALL: [IpvlanMode; 3] = [IpvlanMode::L2, IpvlanMode::L3, IpvlanMode::L3s];

    fn name(self) -> &'static str {
        match self {
            IpvlanMode::L2 => "l2",
            IpvlanMode::L3 => "l3",
            IpvlanMode::L3s => "l3s",
        }
    }
}

impl IpvlanFlag {
    const ALL: [IpvlanFlag; 3] = [IpvlanFlag::Bridge, IpvlanFlag::Private, IpvlanFlag::Vepa];

    fn name(self) -> &'static str {
        match self {
            IpvlanFlag::Bridge => "bridge",
            IpvlanFlag::Private => "private",
            IpvlanFlag::Vepa => "vepa",
        }
    }
}

/// Is this one of the two drivers that put containers on the host's own LAN?
pub fn is_vlan(driver: &str) -> bool {
    matches!(driver, "macvlan" | "ipvlan")
}

/// The options of a macvlan or ipvlan network, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VlanOptions {
    /// `None`: a dummy interface of the network's own, which leads nowhere.
    pub parent: Option<String>,
    pub upper: Upper,
    pub mtu: Option<u32>,
    pub iface_prefix: String,
    /// The host has a device of its own among the containers'.
    pub host_access: bool,
    /// Of macvlan: broadcasts to more devices than this wait in a queue; -1: none does.
    pub broadcast_limit: Option<i32>,
}

/// A parent that rrun makes when it is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parent {
    /// 802.1Q: what leaves through it leaves `base` with this tag.
    Tagged {
        name: String,
        base: String,
        tag: u16,
    },
    Dummy {
        name: String,
    },
}

impl Parent {
    pub fn name(&self) -> &str {
        match self {
            Parent::Tagged { name, .. } | Parent::Dummy { name } => name,
        }
    }
}

impl VlanOptions {
    /// Of a network on record; one changed by hand falls back to the defaults.
    pub fn of(network: &Network) -> VlanOptions {
        VlanOptions::parse(&network.driver, &network.options)
            .unwrap_or_else(|_| VlanOptions::new(default_upper(&network.driver)))
    }

    fn new(upper: Upper) -> VlanOptions {
        VlanOptions {
            parent: None,
            upper,
            mtu: None,
            iface_prefix: "eth".into(),
            host_access: false,
            broadcast_limit: None,
        }
    }

    /// Checks and reads. Options not known are refused: a misspelt one would silently do nothing.
    pub fn parse(driver: &str, options: &BTreeMap<String, String>) -> Result<VlanOptions> {
        let mut o = VlanOptions::new(default_upper(driver));
        for (key, value) in options {
            match (key.as_str(), o.upper) {
                (PARENT, _) => o.parent = parent(driver, value)?,
                (MACVLAN_MODE, Upper::Macvlan(_)) => {
                    let mode = choose(&MacvlanMode::ALL, MacvlanMode::name, value).ok_or_else(|| {
                        not_valid(
                            "macvlan mode",
                            value,
                            "'bridge' mode is the macvlan driver default",
                            "bridge, private, vepa or passthru",
                        )
                    })?;
                    o.upper = Upper::Macvlan(mode);
                }
                (IPVLAN_MODE, Upper::Ipvlan(_, flag)) => {
                    let mode = choose(&IpvlanMode::ALL, IpvlanMode::name, value).ok_or_else(|| {
                        not_valid("ipvlan mode", value, "'l2' mode is the ipvlan driver default", "l2, l3 or l3s")
                    })?;
                    o.upper = Upper::Ipvlan(mode, flag);
                }
                (IPVLAN_FLAG, Upper::Ipvlan(mode, _)) => {
                    let flag = choose(&IpvlanFlag::ALL, IpvlanFlag::name, value).ok_or_else(|| {
                        not_valid(
                            "ipvlan flag",
                            value,
                            "'bridge' is the ipvlan driver default",
                            "bridge, private or vepa",
                        )
                    })?;
                    o.upper = Upper::Ipvlan(mode, flag);
                }
                (BROADCAST_LIMIT, Upper::Macvlan(_)) => {
                    o.broadcast_limit = Some(value.parse().map_err(|_| {
                        Error::invalid(format!("invalid value for option {key}: {value:?}"))
                            .with_hint("a number of devices, or -1: broadcasts are never queued")
                    })?);
                }
                (HOST_ACCESS, _) => o.host_access = boolean(key, value)?,
                (ADVERTISE_MESSAGES | ADVERTISE_INTERVAL, _) => {
                    endpoint_options::announcement(options, Announce::default())?;
                }
                (MTU, _) => o.mtu = mtu(value)?,
                (IFACE_PREFIX, _) => o.iface_prefix = iface_prefix(key, value)?,
                _ => {
                    let own = match o.upper {
                        Upper::Macvlan(_) => MACVLAN_MODE.to_string(),
                        Upper::Ipvlan(..) => format!("{IPVLAN_MODE}, {IPVLAN_FLAG}"),
                    };
                    return Err(Error::invalid(format!("unknown option {key} of network driver {driver}"))
                        .with_hint(format!("known: {PARENT}, {own}, {HOST_ACCESS}, {MTU}, {IFACE_PREFIX}")));
                }
            }
        }
        if o.host_access && !o.upper.siblings_talk() {
            return Err(Error::invalid(format!(
                "{HOST_ACCESS} is not possible with {driver} {}: devices on one parent do not talk to each other",
                o.upper.words()
            ))
            .with_hint(match o.upper {
                Upper::Macvlan(_) => format!("leave {MACVLAN_MODE} out: bridge is the default"),
                Upper::Ipvlan(..) => format!("leave {IPVLAN_FLAG} out: bridge is the default"),
            }));
        }
        Ok(o)
    }

    /// The parent's name on the host.
    pub fn parent_name(&self, network_id: &str) -> String {
        match &self.parent {
            Some(name) => name.clone(),
            None => {
                let prefix = if self.upper.driver() == "macvlan" { "dm" } else { "di" };
                format!("{prefix}-{}", network_id.get(..12).unwrap_or(network_id))
            }
        }
    }

    /// The parent as rrun would make it; `None` for one that only the host's administrator can.
    pub fn makes(&self, network: &Network) -> Option<Parent> {
        let name = self.parent_name(&network.id);
        if self.parent.is_none() {
            return Some(Parent::Dummy { name });
        }
        let (base, tag) = tagged(&name).ok().filter(|_| network.made_parent())?;
        Some(Parent::Tagged { name, base, tag })
    }

    /// The host's own device among the containers', when `host_access` is on.
    pub fn shim_name(&self, network_id: &str) -> Option<String> {
        self.host_access.then(|| format!("hs-{}", network_id.get(..12).unwrap_or(network_id)))
    }
}

impl Network {
    pub(crate) fn made_parent(&self) -> bool {
        self.extra.contains_key(MADE_PARENT)
    }

    /// Does it use this interface as its parent?
    pub(crate) fn sits_on(&self, parent: &str) -> bool {
        is_vlan(&self.driver) && VlanOptions::of(self).parent_name(&self.id) == parent
    }
}

/// May a new network with these options use this parent beside the networks there are?
pub(super) fn share(options: &VlanOptions, parent: &str, others: &[Network]) -> Result<()> {
    for other in others.iter().filter(|n| n.sits_on(parent)) {
        let theirs = VlanOptions::of(other).upper;
        let (ours, id) = (options.upper, &other.id);
        let (text, hint) = match (ours, theirs) {
            (Upper::Macvlan(_), Upper::Macvlan(MacvlanMode::Passthru)) => (
                format!("macvlan network {id} is already using parent interface {parent} in mode passthru"),
                format!("network {} has {parent} to itself: use another parent, or remove it", other.name),
            ),
            (Upper::Macvlan(MacvlanMode::Passthru), Upper::Macvlan(_)) => (
                format!("cannot use mode passthru, macvlan network {id} is already using parent interface {parent}"),
                format!("a passthru network needs {parent} to itself: remove network {}, or use another mode", other.name),
            ),
            (Upper::Macvlan(_), Upper::Macvlan(_)) => continue,
            (Upper::Ipvlan(..), Upper::Ipvlan(..)) => (
                format!("network {} is already using parent interface {parent}", other.name),
                "all ipvlan devices of a parent have one mode: use that network with more subnets, or a sub-interface such as eth0.10".into(),
            ),
            _ => (
                format!("network {} is already using parent interface {parent}", other.name),
                format!("an interface carries macvlan or ipvlan, not both: use {}, or another parent", theirs.driver()),
            ),
        };
        return Err(Error::conflict(text).with_hint(hint));
    }
    Ok(())
}

/// Devices of their own on a LAN need one: the kernel refuses (EINVAL) parents without Ethernet frames.
pub(super) fn carries_frames(link: &Link, driver: &str) -> Result<()> {
    if link.ethernet {
        return Ok(());
    }
    let name = &link.name;
    Err(Error::invalid(format!("{name} is not a valid {driver} parent link: it carries bare packets, not Ethernet frames"))
        .with_hint(format!("use the interface of a LAN (`ip link` says link/ether); containers of a bridge network reach what is behind {name} by the host's routes")))
}

/// `eth0.50`: base and tag.
///
/// Errors: Docker's texts.
pub(super) fn tagged(name: &str) -> Result<(String, u16)> {
    let invalid = |text: String| {
        Error::invalid(text).with_hint(format!(
        "`ip link` shows the interfaces there are; eth0.10 is made on the fly, with VLAN tag 10, where eth0 exists (asked for: {name})"
    ))
    };
    let (base, tag) = name
        .split_once('.')
        .ok_or_else(|| invalid(format!("invalid subinterface vlan name {name}, example formatting is eth0.10")))?;
    if base.is_empty() || tag.contains('.') {
        return Err(invalid(format!(
            "required interface name format is: name.vlan_id, ex. eth0.10 for vlan 10, instead received {name}"
        )));
    }
    let tag: i64 = tag
        .parse()
        .map_err(|_| invalid(format!("unable to parse a valid vlan id from: {tag} (ex. eth0.10 for vlan 10)")))?;
    // 12 bits, of which 0 means "no VLAN" and 4095 is reserved (802.1Q, 9.6).
    match u16::try_from(tag).ok().filter(|t| (1..=4094).contains(t)) {
        Some(tag) => Ok((base.to_string(), tag)),
        None => Err(invalid(format!("vlan id must be between 1-4094, received: {tag}"))),
    }
}

fn default_upper(driver: &str) -> Upper {
    if driver == "macvlan" {
        Upper::Macvlan(MacvlanMode::Bridge)
    } else {
        Upper::Ipvlan(IpvlanMode::L2, IpvlanFlag::Bridge)
    }
}

fn parent(driver: &str, value: &str) -> Result<Option<String>> {
    if value == "lo" {
        return Err(Error::invalid(format!("loopback interface is not a valid {driver} parent link"))
            .with_hint("use the interface of a LAN; without a parent the network is internal"));
    }
    if value.len() >= libc::IFNAMSIZ || value.bytes().any(|b| !b.is_ascii_graphic() || b == b'/' || b == b':') {
        return Err(Error::invalid(format!("invalid parent interface {value:?}"))
            .with_hint("1 to 15 characters, no space, / or :"));
    }
    Ok(Some(value.to_string()).filter(|v| !v.is_empty()))
}

fn choose<T: Copy>(all: &[T], name: fn(T) -> &'static str, value: &str) -> Option<T> {
    if value.is_empty() {
        return all.first().copied();
    }
    all.iter().copied().find(|m| name(*m) == value)
}

fn not_valid(what: &str, value: &str, rest: &str, known: &str) -> Error {
    Error::invalid(format!("requested {what} '{value}' is not valid, {rest}")).with_hint(known.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(driver: &str, pairs: &[(&str, &str)]) -> Result<VlanOptions> {
        VlanOptions::parse(driver, &pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect())
    }

    #[test]
    fn options_are_read() {
        let o = parse("macvlan", &[(PARENT, "eth0.50"), (MACVLAN_MODE, "vepa"), (MTU, "1400")]).unwrap();
        assert_eq!((o.parent.as_deref(), o.mtu), (Some("eth0.50"), Some(1400)));
        assert_eq!(o.upper.words(), "mode vepa");
        let o = parse("ipvlan", &[(IPVLAN_MODE, "l3s"), (IPVLAN_FLAG, "private")]).unwrap();
        assert_eq!(o.upper.words(), "mode l3s private");
        assert!(o.upper.routes_by_device() && !parse("ipvlan", &[]).unwrap().upper.routes_by_device());
        assert_eq!(o.parent_name("0123456789abcdef"), "di-0123456789ab");
        assert_eq!(parse("macvlan", &[(PARENT, "")]).unwrap().parent_name("0123456789abcdef"), "dm-0123456789ab");
    }

    #[test]
    fn texts_are_dockers() {
        let text = |driver: &str, pairs: &[(&str, &str)]| {
            let e = parse(driver, pairs).unwrap_err();
            assert!(e.hint.is_some(), "{e}");
            e.to_string()
        };
        assert_eq!(
            text("macvlan", &[(MACVLAN_MODE, "x")]),
            "requested macvlan mode 'x' is not valid, 'bridge' mode is the macvlan driver default"
        );
        assert_eq!(
            text("ipvlan", &[(IPVLAN_MODE, "x")]),
            "requested ipvlan mode 'x' is not valid, 'l2' mode is the ipvlan driver default"
        );
        assert_eq!(
            text("ipvlan", &[(IPVLAN_FLAG, "x")]),
            "requested ipvlan flag 'x' is not valid, 'bridge' is the ipvlan driver default"
        );
        assert_eq!(text("macvlan", &[(PARENT, "lo")]), "loopback interface is not a valid macvlan parent link");
        assert_eq!(text("macvlan", &[(IPVLAN_MODE, "l2")]), "unknown option ipvlan_mode of network driver macvlan");
        assert!(text("macvlan", &[(MACVLAN_MODE, "private"), (HOST_ACCESS, "true")]).contains("not possible"));
        assert!(text("ipvlan", &[(IPVLAN_FLAG, "vepa"), (HOST_ACCESS, "1")]).contains("not possible"));
    }

    #[test]
    fn tags_of_sub_interfaces() {
        assert_eq!(tagged("eth0.50").unwrap(), ("eth0".into(), 50));
        let text = |name: &str| tagged(name).unwrap_err().to_string();
        assert_eq!(text("eth7"), "invalid subinterface vlan name eth7, example formatting is eth0.10");
        assert_eq!(text("eth0.0"), "vlan id must be between 1-4094, received: 0");
        assert_eq!(text("eth0.4095"), "vlan id must be between 1-4094, received: 4095");
        assert!(text("eth0.a").starts_with("unable to parse a valid vlan id from: a"));
        assert!(text("eth0.1.2").ends_with("instead received eth0.1.2"));
    }
}
