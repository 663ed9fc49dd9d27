//! Driver options of bridge networks, under Docker's names.

use crate::model::{Announce, Network};
use crate::sandbox::options::{self as endpoint_options, ADVERTISE_INTERVAL, ADVERTISE_MESSAGES};
use plan::{Error, Result};
use std::collections::BTreeMap;
use std::net::IpAddr;

pub const NAME: &str = "com.docker.network.bridge.name";
pub const ICC: &str = "com.docker.network.bridge.enable_icc";
const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
pub const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
const GATEWAY_MODE_4: &str = "com.docker.network.bridge.gateway_mode_ipv4";
const GATEWAY_MODE_6: &str = "com.docker.network.bridge.gateway_mode_ipv6";
pub const MTU: &str = "com.docker.network.driver.mtu";
pub(super) const IFACE_PREFIX: &str = "com.docker.network.container_iface_prefix";

/// Options that Docker has and rrun will have.
const LATER: [&str; 5] = [
    "com.docker.network.bridge.inhibit_ipv4",
    "com.docker.network.bridge.trusted_host_interfaces",
    "com.docker.network.bridge.default_bridge",
    "com.docker.network.host_ipv4",
    "com.docker.network.host_ipv6",
];

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
    pub mtu: Option<u32>,
    pub iface_prefix: String,
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
            match key.as_str() {
                NAME => o.name = Some(bridge_name(value)?),
                ICC => o.icc = boolean(key, value)?,
                MASQUERADE => o.masquerade = boolean(key, value)?,
                HOST_BINDING => {
                    o.host_binding = Some(value.parse().map_err(|_| {
                        Error::invalid(format!("invalid value for {key}: {value:?} is no IP address"))
                            .with_hint("for example 127.0.0.1 or ::1")
                    })?);
                }
                GATEWAY_MODE_4 | GATEWAY_MODE_6 => gateway_mode(value)?,
                MTU => o.mtu = mtu(value)?,
                IFACE_PREFIX => o.iface_prefix = iface_prefix(key, value)?,
                ADVERTISE_MESSAGES | ADVERTISE_INTERVAL => {
                    endpoint_options::announcement(options, Announce::default())?;
                }
                later if LATER.contains(&later) => {
                    return Err(
                        Error::invalid(format!("option {key} is not supported yet; issue 4")).with_hint("leave it out")
                    );
                }
                _ => {
                    return Err(Error::invalid(format!("unknown option {key} of network driver bridge")).with_hint(
                        format!("known: {NAME}, {ICC}, {MASQUERADE}, {HOST_BINDING}, {MTU}, {IFACE_PREFIX}"),
                    ));
                }
            }
        }
        Ok(o)
    }

    /// The bridge's name on the host.
    pub fn bridge_name(&self, network_id: &str) -> String {
        match &self.name {
            Some(name) => name.clone(),
            None => format!("br-{}", network_id.get(..12).unwrap_or(network_id)),
        }
    }
}

impl Default for BridgeOptions {
    fn default() -> BridgeOptions {
        BridgeOptions {
            name: None,
            icc: true,
            masquerade: true,
            host_binding: None,
            mtu: None,
            iface_prefix: "eth".into(),
        }
    }
}

/// As Docker takes them: 1, t, true, 0, f, false in Go's spellings.
pub(super) fn boolean(key: &str, value: &str) -> Result<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(Error::invalid(format!("invalid value for {key}: {value:?}")).with_hint("true or false")),
    }
}

/// `None` for 0: the kernel's default.
pub(super) fn mtu(value: &str) -> Result<Option<u32>> {
    let number = value.parse::<i64>().ok().and_then(|m| u32::try_from(m).ok());
    let mtu = number.filter(|m| *m == 0 || (68..=65535).contains(m)).ok_or_else(|| {
        Error::invalid(format!("invalid MTU number: {value}"))
            .with_hint("from 68 (1280 with IPv6) to 65535, usually 1500 or a little less")
    })?;
    Ok(Some(mtu).filter(|m| *m != 0))
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
    Err(Error::invalid(format!("invalid value for {key}: {value:?}"))
        .with_hint("letters, digits, _ and -, at most 12 of them"))
}

/// What the kernel accepts as an interface name.
fn bridge_name(value: &str) -> Result<String> {
    let ok = !value.is_empty()
        && value.len() < libc::IFNAMSIZ
        && value != "."
        && value != ".."
        && value != "lo"
        && value.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b':' && b != b'"');
    if ok {
        return Ok(value.to_string());
    }
    Err(Error::invalid(format!("invalid bridge name {value:?}")).with_hint("1 to 15 characters, no space, / or :"))
}

fn gateway_mode(value: &str) -> Result<()> {
    match value {
        "nat" => Ok(()),
        "nat-unprotected" | "routed" | "isolated" => {
            Err(Error::invalid(format!("gateway mode {value} is not supported yet; issue 4")).with_hint("use nat"))
        }
        _ => Err(Error::invalid(format!("unknown gateway mode {value}")).with_hint("use nat")),
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
        let o =
            parse(&[(NAME, "br9"), (ICC, "false"), (MASQUERADE, "0"), (MTU, "1400"), (GATEWAY_MODE_4, "nat")]).unwrap();
        assert_eq!((o.icc, o.masquerade, o.mtu), (false, false, Some(1400)));
        assert_eq!(o.bridge_name("0123456789abcdef"), "br9");
        assert_eq!(parse(&[]).unwrap().bridge_name("0123456789abcdef"), "br-0123456789ab");
    }

    #[test]
    fn bad_options_are_named() {
        let text = |pairs: &[(&str, &str)]| parse(pairs).unwrap_err().to_string();
        assert_eq!(text(&[(MTU, "-1")]), "invalid MTU number: -1");
        assert_eq!(text(&[(GATEWAY_MODE_6, "bogus")]), "unknown gateway mode bogus");
        assert_eq!(text(&[(GATEWAY_MODE_6, "routed")]), "gateway mode routed is not supported yet; issue 4");
        assert_eq!(text(&[("colour", "red")]), "unknown option colour of network driver bridge");
        assert_eq!(text(&[(NAME, "a name")]), "invalid bridge name \"a name\"");
        assert!(text(&[(ICC, "perhaps")]).contains("enable_icc"));
        assert!(text(&[("com.docker.network.host_ipv4", "1.2.3.4")]).contains("not supported yet; issue 4"));
    }
}
