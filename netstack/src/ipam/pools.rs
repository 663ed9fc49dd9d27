//! Which subnet a network gets when nobody says: the first free one of the default pools.

use super::bounds;
use ipnetwork::IpNetwork;
use plan::{Error, Kind, Result};

/// Something already using addresses.
#[derive(Clone, Debug)]
pub struct Taken {
    pub net: IpNetwork,
    /// `network front`, `the host's route to 10.0.0.0/8 on tun0`.
    pub by: String,
    pub owner: Owner,
}

/// How close it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// A network of ours.
    Network,
    /// The host itself: an address, or what is on the wire of one of its interfaces.
    Host,
    /// Somewhere behind a router.
    Gateway,
}

/// Docker's choice for its default bridge, which is ours too.
pub fn first_default() -> (IpNetwork, u8) {
    ("172.17.0.0/16".parse().expect("a literal subnet"), 16)
}

/// Base and prefix length of what is cut from it. The ranges are Docker's; the networks are /24s, so
/// that there are 3,840 of them instead of 30.
pub fn default_pools() -> Vec<(IpNetwork, u8)> {
    [("172.18.0.0/15", 24), ("172.20.0.0/14", 24), ("172.24.0.0/13", 24), ("192.168.0.0/16", 24)]
        .into_iter()
        .map(|(base, size)| (base.parse().expect("a literal subnet"), size))
        .collect()
}

/// The first subnet of the pools, of the family asked for, that overlaps nothing.
pub fn pick(pools: &[(IpNetwork, u8)], ipv6: bool, taken: &[Taken]) -> Result<IpNetwork> {
    let mut used: Vec<(u128, u128)> = taken.iter().filter(|t| t.net.is_ipv6() == ipv6).map(|t| bounds(t.net)).collect();
    used.sort_unstable();
    for (base, size) in pools.iter().filter(|(b, size)| b.is_ipv6() == ipv6 && *size >= b.prefix()) {
        let (mut at, last) = bounds(*base);
        let width = 1u128 << (if ipv6 { 128 } else { 32 } - size);
        // Both are in order, so each is looked at once.
        let mut used = used.iter().peekable();
        while at <= last {
            let Some((from, to)) = used.next_if(|(from, _)| *from <= at + (width - 1)) else {
                return IpNetwork::new(super::address(at, *base), *size).map_err(|e| {
                    Error::invalid(format!("invalid default address pool: base {base}, size {size}"))
                        .with_cause(e.to_string())
                });
            };
            // Step over everything that overlaps, to the end of what it covers.
            if *to >= at {
                debug_assert!(from <= to);
                let Some(next) = to.checked_add(1).and_then(|n| n.checked_next_multiple_of(width)) else { break };
                at = next;
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
        let of = |n: &&str| Taken { net: n.parse().unwrap(), by: format!("network {n}"), owner: Owner::Network };
        nets.iter().map(of).collect()
    }

    fn first(nets: &[&str]) -> String {
        pick(&default_pools(), false, &taken(nets)).unwrap().to_string()
    }

    #[test]
    fn there_are_thousands_of_default_networks() {
        let mut used = Vec::new();
        while let Ok(net) = pick(&default_pools(), false, &used) {
            assert!(used.iter().rev().take(9).all(|t: &Taken| !overlap(t.net, net)));
            used.push(Taken { net, by: "test".into(), owner: Owner::Network });
        }
        assert_eq!(used.len(), 14 * 256 + 256);
        assert_eq!(used[0].net.to_string(), "172.18.0.0/24");
        assert_eq!(used[3839].net.to_string(), "192.168.255.0/24");
        assert!(used.iter().all(|t| !overlap(t.net, first_default().0)));
    }

    #[test]
    fn a_route_of_any_size_is_avoided() {
        assert_eq!(first(&["172.17.3.0/24"]), "172.18.0.0/24");
        assert_eq!(first(&["172.18.0.0/24", "172.18.1.77/32"]), "172.18.2.0/24");
        assert_eq!(first(&["172.16.0.0/12"]), "192.168.0.0/24");
        assert_eq!(first(&["172.16.0.0/12", "192.168.0.0/17", "192.168.0.0/24"]), "192.168.128.0/24");
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
