//! The host's answers in its containers' place, where a network has `ndp_proxy`.

use super::{Damage, Finding, Wanted};
use crate::apply::neighbour::{self, sysctl_name};
use crate::model::Endpoint;
use crate::networks::BridgeOptions;
use crate::nl::Socket;
use plan::Result;
use std::collections::HashSet;
use std::net::{IpAddr, Ipv6Addr};

pub fn check(wanted: &Wanted, findings: &mut Vec<Finding>, damage: &mut Damage) -> Result<()> {
    let networks: Vec<_> = wanted.networks.iter().filter(|(n, _)| BridgeOptions::of(n).ndp_proxy.is_some()).collect();
    if networks.is_empty() {
        return Ok(());
    }
    let mut route = Socket::route()?;
    let there = neighbour::proxies(&mut route)?;
    for (ip, uplink) in networks.iter().flat_map(|(_, endpoints)| endpoints.iter().flat_map(Endpoint::answered)) {
        let thing = format!("interface {uplink}");
        if route.ifindex(&uplink)?.is_none() {
            findings.push(Finding {
                code: "uplink-missing",
                thing,
                problem: format!("it is gone: nobody answers there for {ip}"),
                fix: None,
                ours: false,
                repaired: false,
            });
        } else if !there.contains(&(ip, uplink.clone())) || !neighbour::is_on(&uplink) {
            let fix = format!(
                "sysctl -w net.ipv6.conf.{}.proxy_ndp=1; ip -6 neigh add proxy {ip} dev {uplink}",
                sysctl_name(&uplink)
            );
            let problem = format!("it does not answer for container address {ip}: the router does not find it");
            findings.push(Finding::ours("neighbour-missing", thing, problem).with_fix(fix));
        }
    }
    // Others' entries are others' business: ours are for addresses of our networks.
    let ours = |ip: Ipv6Addr| networks.iter().any(|(n, _)| n.pools.iter().any(|p| p.subnet.contains(IpAddr::V6(ip))));
    damage.strangers = there.into_iter().filter(|s| ours(s.0) && !wanted.answered.contains(s)).collect::<HashSet<_>>();
    Ok(())
}

pub fn stranger((ip, uplink): &(Ipv6Addr, String)) -> Finding {
    let problem = format!("it answers for {ip}, which is no container's");
    Finding::ours("neighbour-leaked", format!("interface {uplink}"), problem)
        .with_fix(format!("ip -6 neigh del proxy {ip} dev {uplink}"))
}

pub fn repair(damage: &Damage) -> Result<()> {
    if damage.strangers.is_empty() {
        return Ok(());
    }
    let mut route = Socket::route()?;
    damage.strangers.iter().try_for_each(|(ip, uplink)| neighbour::delete_proxy(&mut route, *ip, uplink))
}
