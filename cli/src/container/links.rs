//! `--link` on the default bridge, which has no DNS: the linked container is a line in /etc/hosts.
//! (On networks with DNS a link is a name that the asker's own resolver knows.)

use super::record::Record;
use super::{find, life};
use crate::context::Context;
use netstack::networks::is_predefined;
use plan::{Error, Kind, Result};
use runtime::state::Status;
use std::net::IpAddr;

/// Who is linked must be there when the container is made.
///
/// # Errors
/// Docker's text.
pub fn check_there(ctx: &Context, record: &Record) -> Result<()> {
    for link in record.networks.iter().filter(|n| is_predefined(&n.network)).flat_map(|n| &n.links) {
        find(ctx, &link.container).map_err(|e| e.context(format!("could not get container for {}", link.container)))?;
    }
    Ok(())
}

/// …and must run when it starts.
///
/// # Errors
/// Docker's text.
pub fn check_running(ctx: &Context, record: &Record) -> Result<()> {
    for link in record.networks.iter().filter(|n| is_predefined(&n.network)).flat_map(|n| &n.links) {
        let target = find(ctx, &link.container)?;
        if life::state(ctx, &target.id)?.status != Status::Running {
            return Err(Error::new(
                Kind::Conflict,
                format!("Cannot link to a non running container: /{} AS /{}/{}", target.name, record.name, link.alias),
            )
            .with_hint(format!("rrun start {}", target.name)));
        }
    }
    Ok(())
}

/// The lines: alias, host name and name of each linked container that runs.
pub fn hosts(ctx: &Context, record: &Record) -> Vec<(String, IpAddr)> {
    let mut lines = Vec::new();
    for network in record.networks.iter().filter(|n| is_predefined(&n.network)) {
        for link in &network.links {
            let Ok(target) = find(ctx, &link.container) else { continue };
            let Ok(endpoints) = ctx.netstack().endpoints_of(&target.id) else { continue };
            let Some(endpoint) = endpoints.iter().find(|e| e.network == network.network) else { continue };
            let mut names = vec![link.alias.as_str()];
            for name in [&endpoint.hostname, &target.name] {
                if !names.contains(&name.as_str()) {
                    names.push(name);
                }
            }
            let addresses = endpoint.ipv4.map(IpAddr::V4).into_iter().chain(endpoint.ipv6.map(IpAddr::V6));
            lines.extend(addresses.map(|ip| (names.join(" "), ip)));
        }
    }
    lines
}
