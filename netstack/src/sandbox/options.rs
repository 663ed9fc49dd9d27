//! Options of one endpoint, `--driver-opt` under Docker's names.

use crate::model::{Announce, EndpointConfig, Network};
use plan::{Error, Result};
use std::collections::BTreeMap;

/// The interface's name inside the container.
pub const IFNAME: &str = "com.docker.network.endpoint.ifname";
/// Kernel parameters of the interface, separated by commas, with `IFNAME` for its name.
pub const SYSCTLS: &str = "com.docker.network.endpoint.sysctls";
/// The name of the cable's end on the host.
pub const HOST_IFNAME: &str = "com.docker.network.endpoint.host_ifname";
const PREFIX: &str = "com.docker.network.endpoint.";
/// How often its addresses are announced when it comes up; also a network's option.
pub const ADVERTISE_MESSAGES: &str = "com.docker.network.advertise_addr_nmsgs";
/// Milliseconds between two announcements; also a network's option.
pub const ADVERTISE_INTERVAL: &str = "com.docker.network.advertise_addr_ms";

/// What the interface's own name stands as in [`SYSCTLS`].
const PLACEHOLDER: &str = "IFNAME";

/// Checks what does not depend on the network. Options of other programs' drivers pass.
///
/// # Errors
/// Docker's texts.
pub fn check(options: &BTreeMap<String, String>) -> Result<()> {
    for key in options.keys().filter(|k| k.starts_with(PREFIX)) {
        if key != IFNAME && key != SYSCTLS && key != HOST_IFNAME {
            return Err(Error::invalid(format!("unknown endpoint option {key}"))
                .with_hint(format!("endpoints have {IFNAME}, {SYSCTLS} and {HOST_IFNAME}")));
        }
    }
    sysctls(options, PLACEHOLDER)?;
    announcement(options, Announce::default()).map(drop)
}

/// The parameters of interface `ifname`: paths below /proc/sys (a name may have dots in it) and values.
pub(super) fn sysctls(options: &BTreeMap<String, String>, ifname: &str) -> Result<Vec<(String, String)>> {
    let list = options.get(SYSCTLS).map(String::as_str).unwrap_or_default();
    list.split(',').filter(|s| !s.is_empty()).map(|s| sysctl(s, ifname)).collect()
}

/// `net.X.Y.IFNAME.Z=V`. Nothing else: a part with a slash or dots of its own would lead out of
/// the interface's directory.
fn sysctl(text: &str, ifname: &str) -> Result<(String, String)> {
    let wrong = || {
        Error::invalid(format!(
            "unrecognised network interface sysctl '{}'; represent 'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'",
            text.escape_debug()
        ))
        .with_hint(format!("for example --driver-opt {SYSCTLS}=net.ipv4.conf.IFNAME.log_martians=1"))
    };
    let (key, value) = text.split_once('=').ok_or_else(wrong)?;
    let word = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    match key.split('.').collect::<Vec<_>>()[..] {
        ["net", family @ ("ipv4" | "ipv6" | "mpls"), table, PLACEHOLDER, name]
            if word(table) && word(name) && !value.contains('\0') =>
        {
            Ok((format!("net/{family}/{table}/{ifname}/{name}"), value.to_string()))
        }
        _ => Err(wrong()),
    }
}

/// What the endpoint says, else what its network says, else three messages a second apart.
pub(super) fn announce(network: &Network, config: &EndpointConfig) -> Result<Announce> {
    announcement(&config.driver_opts, announcement(&network.options, Announce::default())?)
}

/// Docker's limits.
///
/// # Errors
/// Docker's texts.
pub fn announcement(options: &BTreeMap<String, String>, default: Announce) -> Result<Announce> {
    let number = |key: &str, unit: &str, low: u64, high: u64, default: u64| -> Result<u64> {
        let Some(text) = options.get(key) else { return Ok(default) };
        let hint = format!("from {low} to {high}");
        let n: i64 = text.parse().map_err(|_| {
            Error::invalid(format!("value for option {key} {text:?} must be {unit}")).with_hint(hint.clone())
        })?;
        u64::try_from(n)
            .ok()
            .filter(|n| (low..=high).contains(n))
            .ok_or_else(|| Error::invalid(format!("{key} must be in the range {low} to {high}")).with_hint(hint))
    };
    Ok(Announce {
        messages: number(ADVERTISE_MESSAGES, "an integer", 0, 3, default.messages.into())? as u32,
        interval_ms: number(ADVERTISE_INTERVAL, "integer milliseconds", 100, 2000, default.interval_ms)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    }

    #[test]
    fn parameters_of_the_interface_only() {
        let o = options(&[(SYSCTLS, "net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.neigh.IFNAME.ucast_solicit=2")]);
        assert_eq!(
            sysctls(&o, "eth3").unwrap(),
            [
                ("net/ipv4/conf/eth3/log_martians".to_string(), "1".to_string()),
                ("net/ipv6/neigh/eth3/ucast_solicit".to_string(), "2".to_string())
            ]
        );
        for bad in [
            "net.ipv4.conf.eth0.log_martians=1",
            "net.core.somaxconn=1",
            "net.ipv4.conf.IFNAME.x",
            "net.ipv5.conf.IFNAME.x=1",
            "net.ipv4.a/b.IFNAME.x=1",
            "kernel.shmmax=1",
        ] {
            let e = check(&options(&[(SYSCTLS, bad)])).unwrap_err();
            assert!(e.message.starts_with("unrecognised network interface sysctl '"), "{e}");
        }
    }

    #[test]
    fn announcements_within_dockers_limits() {
        let of = |k: &str, v: &str| check(&options(&[(k, v)])).map_err(|e| e.message).err().unwrap_or_default();
        assert_eq!(of(ADVERTISE_MESSAGES, "4"), format!("{ADVERTISE_MESSAGES} must be in the range 0 to 3"));
        assert_eq!(of(ADVERTISE_MESSAGES, "-1"), format!("{ADVERTISE_MESSAGES} must be in the range 0 to 3"));
        assert_eq!(
            of(ADVERTISE_MESSAGES, "x"),
            format!("value for option {ADVERTISE_MESSAGES} \"x\" must be an integer")
        );
        assert_eq!(of(ADVERTISE_INTERVAL, "2001"), format!("{ADVERTISE_INTERVAL} must be in the range 100 to 2000"));
        assert_eq!(
            of(ADVERTISE_INTERVAL, "x"),
            format!("value for option {ADVERTISE_INTERVAL} \"x\" must be integer milliseconds")
        );
        assert_eq!(of(ADVERTISE_INTERVAL, "100"), "");
        assert!(of("com.docker.network.endpoint.ifnmae", "x").starts_with("unknown endpoint option"));
    }
}
