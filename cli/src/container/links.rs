//! `--link` on the default bridge, which has no DNS: the linked container is a line in /etc/hosts, and, for
//! who asks for it as Docker 29 wants to be asked, a dozen variables.
//! (On networks with DNS a link is a name that the asker's own resolver knows.)

use super::record::Record;
use super::{find, life};
use crate::context::Context;
use netstack::networks::is_predefined;
use plan::{Error, Kind, Result};
use runtime::state::Status;
use std::net::{IpAddr, Ipv4Addr};

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

/// Docker 29's switch for variables that it once set always. They hand the linked container's own, secrets
/// included, to the asker, so nobody gets them unasked.
const SWITCH: &str = "DOCKER_KEEP_DEPRECATED_LEGACY_LINKS_ENV_VARS";

/// Was the container made under the switch?
pub fn wants_variables() -> bool {
    std::env::var_os(SWITCH).is_some_and(|v| v == "1")
}

/// The variables of all links: where each is, which ports it exposes, and what it was given itself.
///
/// # Errors
/// The linked container is gone, or its endpoint unreadable.
pub fn environment(ctx: &Context, record: &Record) -> Result<Vec<String>> {
    let mut all = Vec::new();
    if !record.host.link_variables {
        return Ok(all);
    }
    for network in record.networks.iter().filter(|n| is_predefined(&n.network)) {
        for link in &network.links {
            let target = find(ctx, &link.container)?;
            let endpoints = ctx.netstack().endpoints_of(&target.id)?;
            let address = endpoints.iter().find(|e| e.network == network.network).and_then(|e| e.ipv4);
            if let Some(ip) = address {
                let name = format!("/{}/{}", record.name, link.alias);
                all.extend(variables(&name, ip, &target.config.exposed_ports, &target.config.env));
            }
        }
    }
    Ok(all)
}

/// `name` is `/asker/alias`.
fn variables(name: &str, ip: Ipv4Addr, exposed: &[String], env: &[String]) -> Vec<String> {
    let alias = name.rsplit('/').next().unwrap_or(name).to_uppercase().replace('-', "_");
    let mut ports: Vec<(&str, u16)> = exposed
        .iter()
        .filter_map(|p| p.split_once('/').and_then(|(port, proto)| Some((proto, port.parse().ok()?))))
        .collect();
    // TCP first, then by name.
    ports.sort_by_key(|&(proto, port)| (proto != "tcp", proto, port));
    let url = |(proto, port): (&str, u16)| format!("{proto}://{ip}:{port}");
    let stem = |(proto, port): (&str, u16)| format!("{alias}_PORT_{port}_{}", proto.to_uppercase());
    let mut out = Vec::new();
    if let Some(first) = ports.first() {
        out.push(format!("{alias}_PORT={}", url(*first)));
    }
    for run in ports.chunk_by(|a, b| a.0 == b.0 && b.1 == a.1.wrapping_add(1)) {
        for &(proto, port) in run {
            let stem = stem((proto, port));
            out.push(format!("{stem}={}", url((proto, port))));
            out.push(format!("{stem}_ADDR={ip}"));
            out.push(format!("{stem}_PORT={port}"));
            out.push(format!("{stem}_PROTO={proto}"));
        }
        if let [first, .., last] = run {
            let stem = stem(*first);
            out.push(format!("{stem}_START={}", url(*first)));
            out.push(format!("{stem}_PORT_START={}", first.1));
            out.push(format!("{stem}_END={}", url(*last)));
            out.push(format!("{stem}_PORT_END={}", last.1));
        }
    }
    out.push(format!("{alias}_NAME={name}"));
    let own = env.iter().filter_map(|e| e.split_once('=')).filter(|(name, _)| !matches!(*name, "HOME" | "PATH"));
    out.extend(own.map(|(name, value)| format!("{alias}_ENV_{name}={value}")));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_name_ports_ranges_and_the_targets_own() {
        let exposed = ["53/udp", "81/tcp", "80/tcp", "443/tcp"].map(String::from);
        let env = ["PATH=/bin", "PASSWORD=x", "ODD"].map(String::from);
        let all = variables("/app/my-db", Ipv4Addr::new(172, 17, 0, 2), &exposed, &env);
        for wanted in [
            "MY_DB_PORT=tcp://172.17.0.2:80",
            "MY_DB_PORT_80_TCP=tcp://172.17.0.2:80",
            "MY_DB_PORT_80_TCP_ADDR=172.17.0.2",
            "MY_DB_PORT_80_TCP_PORT=80",
            "MY_DB_PORT_80_TCP_PROTO=tcp",
            "MY_DB_PORT_80_TCP_START=tcp://172.17.0.2:80",
            "MY_DB_PORT_80_TCP_PORT_START=80",
            "MY_DB_PORT_80_TCP_END=tcp://172.17.0.2:81",
            "MY_DB_PORT_80_TCP_PORT_END=81",
            "MY_DB_PORT_443_TCP_PORT=443",
            "MY_DB_PORT_53_UDP=udp://172.17.0.2:53",
            "MY_DB_NAME=/app/my-db",
            "MY_DB_ENV_PASSWORD=x",
        ] {
            assert!(all.iter().any(|v| v == wanted), "{wanted} in {all:?}");
        }
        assert_eq!(all.len(), 1 + 4 * 4 + 4 + 2, "{all:?}");
    }
}
