//! Bridges, cables, and the settings of the host that packets depend on.

use super::{Damage, Finding, Wanted};
use crate::apply;
use crate::driver::bridge;
use crate::model::Network;
use crate::networks::{BridgeOptions, Netstack};
use crate::nl::{Batch, Link, Route, Socket};
use ipnetwork::IpNetwork;
use plan::Result;
use std::collections::HashSet;

pub fn sysctls(wanted: &Wanted, findings: &mut Vec<Finding>) -> Result<()> {
    for (ipv6, key) in forwarding(wanted) {
        if !on(key) {
            let family = if ipv6 { "IPv6" } else { "IPv4" };
            findings.push(
                Finding::ours(
                    "no-forwarding",
                    key,
                    format!(
                        "the host does not forward {family}: containers have no way out, published ports no way in"
                    ),
                )
                .with_fix(format!("sysctl -w {}=1", key.replace('/', "."))),
            );
        }
    }
    let mut route = Socket::route()?;
    let links = route.links()?;
    let mut routes = route.routes()?;
    routes.retain(|r| r.table == u32::from(libc::RT_TABLE_MAIN));
    for (network, _) in wanted.in_use() {
        let name = BridgeOptions::of(network).bridge_name(&network.id);
        let Some(own) = links.iter().find(|l| l.name == name) else { continue };
        for pool in &network.pools {
            overrides(&routes, &links, own, network, pool.subnet, findings);
        }
    }
    let uplinks = ways_out(&routes, wanted, &links);
    if uplinks.len() > 1 {
        for name in uplinks.iter().filter(|name| strict(name)) {
            findings.push(Finding {
                code: "strict-rp-filter",
                thing: format!("net/ipv4/conf/{name}/rp_filter"),
                problem: format!(
                    "the host has several ways out ({}), and {name} drops what it would not itself answer by the same way",
                    uplinks.join(", ")
                ),
                fix: Some(format!("sysctl -w net.ipv4.conf.all.rp_filter=2 net.ipv4.conf.{name}.rp_filter=2")),
                ours: false,
                repaired: false,
            });
        }
    }
    Ok(())
}

/// A route that leads part of a network's subnet somewhere else: answers to those containers go astray.
fn overrides(
    routes: &[Route],
    links: &[Link],
    own: &Link,
    network: &Network,
    subnet: IpNetwork,
    findings: &mut Vec<Finding>,
) {
    for r in routes {
        let to = r.destination;
        if to.prefix() < subnet.prefix() || !subnet.contains(to.ip()) {
            continue;
        }
        let Some(link) = links.iter().find(|l| Some(l.index) == r.interface && l.index != own.index) else { continue };
        // The host's own addresses have routes of their own kind, through lo.
        if link.name == "lo" {
            continue;
        }
        let filter = if subnet.is_ipv4() && strict(&own.name) { "; rp_filter then drops what they send" } else { "" };
        findings.push(Finding {
            code: "route-collision",
            thing: format!("route to {to} through {}", link.name),
            problem: format!("it takes addresses of network {} ({subnet} on {}){filter}", network.name, own.name),
            fix: Some(format!("ip route del {to} dev {}", link.name)),
            ours: false,
            repaired: false,
        });
    }
}

/// The interfaces of IPv4 default routes.
fn ways_out(routes: &[Route], wanted: &Wanted, links: &[Link]) -> Vec<String> {
    let bridges = wanted.bridges();
    let mut names: Vec<String> = routes
        .iter()
        .filter(|r| r.destination.prefix() == 0 && r.destination.is_ipv4())
        .filter_map(|r| links.iter().find(|l| Some(l.index) == r.interface).map(|l| l.name.clone()))
        .filter(|name| !bridges.contains(name))
        .collect();
    names.sort();
    names.dedup();
    names
}

/// The stricter of the interface's own setting and that of all counts.
fn strict(name: &str) -> bool {
    let read = |who: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{who}/rp_filter")).unwrap_or_default();
        text.trim().parse::<u8>().unwrap_or(0)
    };
    read("all").max(read(name)) == 1
}

fn on(key: &str) -> bool {
    std::fs::read(format!("/proc/sys/{key}")).is_ok_and(|t| t.first() == Some(&b'1'))
}

fn forwarding(wanted: &Wanted) -> Vec<(bool, &'static str)> {
    let four = wanted.in_use().any(|(n, _)| n.enable_ipv4).then_some((false, "net/ipv4/ip_forward"));
    let six = wanted.in_use().any(|(n, _)| n.enable_ipv6).then_some((true, "net/ipv6/conf/all/forwarding"));
    four.into_iter().chain(six).collect()
}

pub fn repair_sysctls(wanted: &Wanted) -> Result<()> {
    for (ipv6, key) in forwarding(wanted) {
        if !on(key) {
            apply::enable_forwarding(ipv6)?;
        }
    }
    Ok(())
}

pub fn bridges(wanted: &Wanted, findings: &mut Vec<Finding>, damage: &mut Damage) -> Result<()> {
    let mut route = Socket::route()?;
    let links = route.links()?;
    let addresses = route.addresses()?;
    for (network, endpoints) in wanted.in_use() {
        let name = BridgeOptions::of(network).bridge_name(&network.id);
        let thing = format!("bridge {name} of network {}", network.name);
        let Some(own) = links.iter().find(|l| l.name == name) else {
            findings.push(Finding::ours("bridge-missing", thing, "it is gone, and its containers are unplugged"));
            continue;
        };
        if !own.up {
            findings
                .push(Finding::ours("bridge-down", &thing, "it is down").with_fix(format!("ip link set {name} up")));
        }
        for address in bridge::gateways(network) {
            if !addresses.contains(&(own.index, address)) {
                findings.push(
                    Finding::ours("gateway-missing", &thing, format!("it lacks {address}, its containers' gateway"))
                        .with_fix(format!("ip addr add {address} dev {name}")),
                );
            }
        }
        for e in endpoints {
            match links.iter().find(|l| l.name == e.host_ifname) {
                Some(l) if l.master != Some(own.index) => findings.push(
                    Finding::ours(
                        "unplugged",
                        &thing,
                        format!("{} of container {} is not plugged in", l.name, e.container_name),
                    )
                    .with_fix(format!("ip link set {} master {name}", l.name)),
                ),
                Some(_) => {}
                None => findings.push(Finding {
                    code: "cable-missing",
                    thing: format!("container {}", e.container_name),
                    problem: format!("its cable {} to network {} is gone", e.host_ifname, network.name),
                    fix: Some(format!("rrun restart {}", e.container_name)),
                    ours: false,
                    repaired: false,
                }),
            }
        }
    }
    damage.leaked = leaked(wanted, &links);
    Ok(())
}

pub fn leak(name: &String) -> Finding {
    let problem = "it is on a bridge of rrun's, and no container's";
    Finding::ours("cable-leaked", format!("interface {name}"), problem).with_fix(format!("ip link del {name}"))
}

/// Cables on our bridges that look like ours and are no living container's.
fn leaked(wanted: &Wanted, links: &[Link]) -> HashSet<String> {
    let endpoints = wanted.networks.iter().flat_map(|(_, endpoints)| endpoints);
    let known: HashSet<&str> = endpoints.map(|e| e.host_ifname.as_str()).collect();
    let names: HashSet<String> = wanted.networks.iter().map(|(n, _)| BridgeOptions::of(n).bridge_name(&n.id)).collect();
    let bridges: HashSet<u32> = links.iter().filter(|l| names.contains(&l.name)).map(|l| l.index).collect();
    let ours = |name: &str| {
        name.strip_prefix("veth").is_some_and(|d| d.len() == 7 && d.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    links
        .iter()
        .filter(|l| l.master.is_some_and(|m| bridges.contains(&m)))
        .filter(|l| ours(&l.name) && !known.contains(l.name.as_str()))
        .map(|l| l.name.clone())
        .collect()
}

pub fn repair(netstack: &Netstack, damage: &Damage) -> Result<()> {
    netstack.repair_bridges()?;
    let mut route = Socket::route()?;
    for name in &damage.leaked {
        let mut batch = Batch::new();
        batch.delete_link(0, name);
        match route.run(batch)? {
            Err(f) if f.errno != libc::ENODEV => return Err(f.error(format!("delete {name}"))),
            _ => {}
        }
    }
    Ok(())
}
