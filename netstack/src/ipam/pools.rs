//! Which subnet a network gets when nobody says: the first free one of the default pools.

use super::bounds;
use ipnetwork::IpNetwork;
use plan::{Error, Kind, Result};

/// Something already using addresses: a network of ours or a route of the host.
#[derive(Clone, Debug)]
pub struct Taken {
    pub net: IpNetwork,
    /// `network front`, `the host's route to 10.0.0.0/8`.
    pub by: String,
    /// A route only keeps automatic choices away; an explicit subnet may overlap it.
    pub route: bool,
}

/// Base and prefix length of what is cut from it, as `--default-address-pool` has it: 31 IPv4
/// networks.
pub fn default_pools() -> Vec<(IpNetwork, u8)> {
    [
        ("172.17.0.0/16", 16),
        ("172.18.0.0/16", 16),
        ("172.19.0.0/16", 16),
        ("172.20.0.0/14", 16),
        ("172.24.0.0/14", 16),
        ("172.28.0.0/14", 16),
        ("192.168.0.0/16", 20),
    ]
    .into_iter()
    .map(|(base, size)| (base.parse().expect("a literal subnet"), size))
    .collect()
}

/// The first subnet of the pools, of the family asked for, that overlaps nothing.
///
/// Unlike Docker, routes through gateways count too: those are the VPNs that people collide with.
pub fn pick(pools: &[(IpNetwork, u8)], ipv6: bool, taken: &[Taken]) -> Result<IpNetwork> {
    for (base, size) in pools.iter().filter(|(b, _)| b.is_ipv6() == ipv6) {
        let (mut at, last) = bounds(*base);
        let width = 1u128 << (if ipv6 { 128 } else { 32 } - size);
        while at <= last {
            let candidate =
                IpNetwork::new(super::address(at, *base), *size).expect("the configuration checked the size");
            // Step over everything that overlaps, to the end of what it covers.
            match taken.iter().filter(|t| overlap(t.net, candidate)).map(|t| bounds(t.net).1).max() {
                None => return Ok(candidate),
                Some(end) => {
                    let past = end.max(at + (width - 1));
                    let Some(next) = past.checked_add(1) else { break };
                    at = next.div_ceil(width) * width;
                }
            }
        }
    }
    let who = taken.iter().filter(|t| t.net.is_ipv6() == ipv6).take(3).map(|t| t.by.as_str()).collect::<Vec<_>>();
    Err(Error::new(Kind::Conflict, "all predefined address pools have been fully subnetted").with_hint(format!(
        "give a free one with --subnet, or remove networks (`rrun network prune`); taken by {}{}",
        who.join(", "),
        if taken.len() > 3 { ", …" } else { "" }
    )))
}

/// Do the two share an address?
pub fn overlap(a: IpNetwork, b: IpNetwork) -> bool {
    if a.is_ipv4() != b.is_ipv4() {
        return false;
    }
    let ((a0, a1), (b0, b1)) = (bounds(a), bounds(b));
    a0 <= b1 && b0 <= a1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(nets: &[&str]) -> Vec<Taken> {
        nets.iter().map(|n| Taken { net: n.parse().unwrap(), by: format!("network {n}"), route: false }).collect()
    }

    fn first(nets: &[&str]) -> String {
        pick(&default_pools(), false, &taken(nets)).unwrap().to_string()
    }

    #[test]
    fn there_are_31_default_networks() {
        let mut used = Vec::new();
        while let Ok(net) = pick(&default_pools(), false, &used) {
            used.push(Taken { net, by: "test".into(), route: false });
        }
        assert_eq!(used.len(), 31);
        assert_eq!(used[0].net.to_string(), "172.17.0.0/16");
        assert_eq!(used[30].net.to_string(), "192.168.240.0/20");
    }

    #[test]
    fn a_route_of_any_size_is_avoided() {
        assert_eq!(first(&["172.17.3.0/24"]), "172.18.0.0/16");
        assert_eq!(first(&["172.16.0.0/12"]), "192.168.0.0/20");
        assert_eq!(first(&["172.16.0.0/12", "192.168.1.7/32"]), "192.168.16.0/20");
        assert_eq!(first(&["172.16.0.0/12", "192.168.0.0/17"]), "192.168.128.0/20");
        let e = pick(&default_pools(), false, &taken(&["0.0.0.0/1", "128.0.0.0/1"])).unwrap_err();
        assert_eq!(e.to_string(), "all predefined address pools have been fully subnetted");
        assert!(e.hint.unwrap().contains("network 0.0.0.0/1"));
    }

    #[test]
    fn ula_pools_are_cut_into_64s() {
        let pools = [("fd12:3456:789a::/48".parse().unwrap(), 64)];
        let t = taken(&["fd12:3456:789a::/64", "172.17.0.0/16"]);
        assert_eq!(pick(&pools, true, &t).unwrap().to_string(), "fd12:3456:789a:1::/64");
    }
}
