//! The data of `network inspect`, under Docker's field names.

use super::Netstack;
use crate::ipam;
use crate::model::Network;
use plan::Result;
use serde_json::{Map, Value, json};

impl Netstack {
    /// One network as Docker's API shows it, with the endpoints of living containers and the
    /// address counts of API 1.52. `swarm_fields`: with `Peers` and `Services`, which Docker leaves out of JSON
    /// while they are empty, and knows in templates.
    pub fn inspect(&self, network: &Network, swarm_fields: bool) -> Result<Value> {
        let endpoints = self.endpoints(network)?;
        let mut containers = Map::new();
        for e in &endpoints {
            let with_prefix = |ip: Option<String>, prefix: u8| ip.map_or(String::new(), |ip| format!("{ip}/{prefix}"));
            containers.insert(
                e.container_id.clone(),
                json!({
                    "Name": e.container_name,
                    "EndpointID": e.id,
                    "MacAddress": e.mac,
                    "IPv4Address": with_prefix(e.ipv4.map(|ip| ip.to_string()), e.prefix4),
                    "IPv6Address": with_prefix(e.ipv6.map(|ip| ip.to_string()), e.prefix6),
                }),
            );
        }
        let leases = self.leases(&network.id);
        let leased: Vec<_> =
            leases.all().into_iter().map(|(ip, _)| ip).filter(|ip| leases.owner(*ip).is_some()).collect();
        let mut config = Vec::new();
        let mut subnets = Map::new();
        for pool in &network.pools {
            let mut entry = Map::new();
            entry.insert("Subnet".into(), json!(pool.subnet.to_string()));
            entry.insert("IPRange".into(), json!(pool.ip_range.map(|r| r.to_string()).unwrap_or_default()));
            entry.insert("Gateway".into(), json!(pool.gateway.map(|g| g.to_string()).unwrap_or_default()));
            if !pool.aux.is_empty() {
                entry.insert("AuxiliaryAddresses".into(), json!(pool.aux));
            }
            config.push(Value::Object(entry));
            let here = leased.iter().filter(|ip| pool.subnet.contains(**ip));
            let dynamic = here.clone().filter(|ip| pool.ip_range.is_none_or(|r| r.contains(**ip))).count();
            let reserved = usize::from(pool.gateway.is_some()) + pool.aux.len();
            // The network's own and the broadcast address count as in use, as Docker has it.
            let edges = match ipam::usable(pool.subnet) {
                Some((first, last)) => {
                    let (low, high) = ipam::bounds(pool.subnet);
                    usize::from(first > low) + usize::from(last < high)
                }
                None => 0,
            };
            subnets.insert(
                pool.subnet.to_string(),
                json!({
                    "IPsInUse": here.count() + reserved + edges,
                    "DynamicIPsAvailable": ipam::available(pool, dynamic),
                }),
            );
        }
        let ipam_options = if network.ipam.options.is_empty() { Value::Null } else { json!(network.ipam.options) };
        let mut document = json!({
            "Name": network.name,
            "Id": network.id,
            "Created": network.created,
            "Scope": "local",
            "Driver": network.driver,
            "EnableIPv4": network.enable_ipv4,
            "EnableIPv6": network.enable_ipv6,
            "IPAM": { "Driver": network.ipam.driver, "Options": ipam_options, "Config": config },
            "Internal": network.internal,
            "Attachable": network.attachable,
            "Ingress": false,
            "ConfigFrom": { "Network": network.config_from },
            "ConfigOnly": network.config_only,
            "Containers": containers,
            "Options": network.options,
            "Labels": network.labels,
            "Status": { "IPAM": { "Subnets": subnets } },
        });
        // Of a swarm's networks only, so there are none; templates ask for them all the same.
        if swarm_fields {
            document["Peers"] = json!([]);
            document["Services"] = json!({});
        }
        if network.disable_dns {
            document["DisableDNS"] = json!(true);
        }
        if !network.dns.is_empty() {
            document["DNS"] = json!(network.dns);
        }
        Ok(document)
    }
}
