//! `rrun network inspect`.

use netstack::model::{Endpoint, Network};
use serde_json::{Map, Value, json};

pub fn network(n: &Network, endpoints: &[Endpoint]) -> Value {
    let pools: Vec<Value> = n
        .pools
        .iter()
        .map(|p| {
            let mut o = Map::new();
            o.insert("Subnet".into(), p.subnet.to_string().into());
            if let Some(r) = p.ip_range {
                o.insert("IPRange".into(), r.to_string().into());
            }
            if let Some(g) = p.gateway {
                o.insert("Gateway".into(), g.to_string().into());
            }
            if !p.aux.is_empty() {
                o.insert("AuxiliaryAddresses".into(), json!(p.aux));
            }
            Value::Object(o)
        })
        .collect();
    let containers: Map<String, Value> = endpoints
        .iter()
        .map(|e| {
            let cidr = |addr: Option<String>, len: u8| addr.map(|a| format!("{a}/{len}")).unwrap_or_default();
            let doc = json!({
                "Name": e.container_name,
                "EndpointID": e.id,
                "MacAddress": e.mac,
                "IPv4Address": cidr(e.ipv4.map(|a| a.to_string()), e.prefix4),
                "IPv6Address": cidr(e.ipv6.map(|a| a.to_string()), e.prefix6),
            });
            (e.container_id.clone(), doc)
        })
        .collect();
    json!({
        "Name": n.name,
        "Id": n.id,
        "Created": n.created,
        "Scope": "local",
        "Driver": n.driver,
        "EnableIPv4": n.enable_ipv4,
        "EnableIPv6": n.enable_ipv6,
        "IPAM": {"Driver": "default", "Options": {}, "Config": pools},
        "Internal": n.internal,
        "Attachable": n.attachable,
        "Ingress": false,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": false,
        "Containers": containers,
        "Options": n.options,
        "Labels": n.labels,
    })
}
