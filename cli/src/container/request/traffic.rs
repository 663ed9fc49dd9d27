//! `--egress`, `--host-loopback` and `--net-rate`: where a container may connect to, and how fast.

use crate::args::NetworkFlags;
use crate::container::record::HostConfig;
use netstack::egress::Policy;
use netstack::publish;
use netstack::rate::Rate;
use plan::{Error, Result};

/// Needs the network mode and the capabilities in `host`.
///
/// # Errors
/// Rules and rates that mean nothing; a network that is not the container's own.
pub fn fill(flags: &NetworkFlags, host: &mut HostConfig, warnings: &mut Vec<String>) -> Result<()> {
    let policy = Policy::parse(&flags.egress)?;
    host.egress.clone_from(&flags.egress);
    publish::parse_loopback(&flags.host_loopback)?;
    host.host_loopback.clone_from(&flags.host_loopback);
    host.net_rate = Rate::parse(&flags.net_rate)?;
    let limited = host.net_rate != Rate::default();
    let mode = host.network_mode.as_str();
    let shared = mode == "host" || mode == "none" || mode.starts_with("container:") || mode.starts_with("ns:");
    let asked =
        [(policy.is_some(), "egress"), (!host.host_loopback.is_empty(), "host-loopback"), (limited, "net-rate")];
    if let Some((_, flag)) = asked.iter().find(|(asked, _)| shared && *asked) {
        return Err(Error::invalid(format!("conflicting options: {flag} and the network mode {mode}"))
            .with_hint("it needs a network of the container's own: bridge, or one of `rrun network create`"));
    }
    let has = |cap: &str| {
        let named = |c: &String| {
            let c = c.trim().to_ascii_uppercase();
            c == "ALL" || c.strip_prefix("CAP_").unwrap_or(&c) == cap
        };
        host.privileged || host.cap_add.iter().any(named)
    };
    if policy.is_some() && !has("NET_RAW") && !host.cap_drop.iter().any(|c| c.eq_ignore_ascii_case("ALL")) {
        // Who may write raw frames is not stopped by rules about packets.
        host.cap_drop.push("NET_RAW".into());
    }
    for (cap, what) in [("NET_ADMIN", "remove"), ("NET_RAW", "send past")] {
        if (policy.is_some() || limited && cap == "NET_ADMIN") && has(cap) {
            let flag = if policy.is_some() { "--egress" } else { "--net-rate out=" };
            warnings.push(format!("a container with {cap} can {what} what {flag} sets up in its namespace"));
        }
    }
    Ok(())
}
