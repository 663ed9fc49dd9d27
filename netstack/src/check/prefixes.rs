//! Networks that follow the prefix of one of the host's interfaces (`ipv6_prefix_from`).

use super::{Finding, Wanted};
use crate::networks::Netstack;
use plan::Result;
use std::net::IpAddr;

pub fn check(netstack: &Netstack, wanted: &Wanted, findings: &mut Vec<Finding>) -> Result<()> {
    for (network, endpoints) in &wanted.networks {
        if let Some(change) = netstack.prefix_change(network)? {
            let problem = format!("it is a part of {}, and the interface has {} now", change.from, change.to);
            findings.push(Finding::ours("prefix-changed", format!("network {}", network.name), problem));
        }
        for e in endpoints.iter().filter(|e| e.follows) {
            let outside = |ip| !network.pools.iter().any(|p| p.subnet.contains(IpAddr::V6(ip)));
            let Some(ip) = e.ipv6.filter(|ip| outside(*ip)) else { continue };
            findings.push(Finding {
                code: "address-left-behind",
                thing: format!("container {}", e.container_name),
                problem: format!("its address {ip} is of an earlier prefix of network {}", network.name),
                fix: Some(format!("rrun restart {}", e.container_name)),
                ours: false,
                repaired: false,
            });
        }
    }
    Ok(())
}
