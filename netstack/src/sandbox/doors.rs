//! Where the published ports of a container are reached: on the host, at the container's own
//! address, or nowhere. Each address family for itself.

use crate::driver::bridge::publishing_endpoint;
use crate::model::{Endpoint, PortBinding, PortSpec};
use ipnetwork::IpNetwork;
use plan::{Error, Result};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Of one address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    /// A port of the host leads to the container.
    Host,
    /// The container's own port is opened; nobody translates.
    Routed,
    Nowhere,
}

/// Of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Doors {
    v4: Door,
    v6: Door,
}

impl Doors {
    /// A family that the container lacks is relayed to the other one, which takes a host port.
    pub fn of(endpoints: &[Endpoint]) -> Doors {
        let own = |ipv6: bool| {
            publishing_endpoint(endpoints, ipv6).map(|e| {
                let routed = if ipv6 { e.routed6 } else { e.routed4 };
                if routed { Door::Routed } else { Door::Host }
            })
        };
        let relayed = |other: Option<Door>| if other == Some(Door::Host) { Door::Host } else { Door::Nowhere };
        let (v4, v6) = (own(false), own(true));
        Doors { v4: v4.unwrap_or(relayed(v6)), v6: v6.unwrap_or(relayed(v4)) }
    }

    /// Parts what is to be reserved on the host from what is only opened at the container.
    pub fn split(self, specs: &[PortSpec], default: Option<IpAddr>) -> Result<(Vec<PortSpec>, Vec<PortBinding>)> {
        let mut on_host = Vec::new();
        let mut routed = Vec::new();
        let families = [(self.v4, IpAddr::V4(Ipv4Addr::UNSPECIFIED)), (self.v6, IpAddr::V6(Ipv6Addr::UNSPECIFIED))];
        for spec in specs {
            let asked = spec.host_ip.or(default);
            let meant = || families.iter().filter(|(_, any)| asked.is_none_or(|ip| ip.is_ipv4() == any.is_ipv4()));
            for (_, any) in meant().filter(|(door, _)| *door == Door::Routed) {
                if let Some(iface) = &spec.iface {
                    return Err(Error::invalid(format!(
                        "iface={iface} needs a port of the host, and the network is routed"
                    ))
                    .with_hint("leave iface= out, or narrow the port with from=CIDR"));
                }
                let from: Vec<IpNetwork> = spec.from.iter().filter(|n| n.is_ipv4() == any.is_ipv4()).copied().collect();
                // Only sources of the other family may come.
                if from.is_empty() && !spec.from.is_empty() {
                    continue;
                }
                routed.push(PortBinding {
                    host_ip: asked.unwrap_or(*any),
                    host: spec.container,
                    container: spec.container,
                    proto: spec.proto,
                    iface: None,
                    from,
                    routed: true,
                });
            }
            let hosts: Vec<IpAddr> = meant().filter(|(door, _)| *door == Door::Host).map(|(_, any)| *any).collect();
            match hosts.as_slice() {
                [] => {}
                [any] if asked.is_none() => on_host.push(PortSpec { host_ip: Some(*any), ..spec.clone() }),
                _ => on_host.push(spec.clone()),
            }
        }
        Ok((on_host, routed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Proto;
    use crate::sandbox::tests::endpoint;

    fn split(e: Endpoint, host_ip: Option<&str>) -> (Vec<Option<IpAddr>>, Vec<IpAddr>) {
        let spec = PortSpec {
            host_ip: host_ip.map(|ip| ip.parse().unwrap()),
            host: Some((8080, 8080)),
            container: (80, 80),
            proto: Proto::Tcp,
            iface: None,
            from: Vec::new(),
        };
        let (host, routed) = Doors::of(&[e]).split(&[spec], None).unwrap();
        (host.into_iter().map(|s| s.host_ip).collect(), routed.into_iter().map(|b| b.host_ip).collect())
    }

    #[test]
    fn each_family_goes_its_own_way() {
        let any4: IpAddr = "0.0.0.0".parse().unwrap();
        let any6: IpAddr = "::".parse().unwrap();
        let both = || endpoint("n", "10.0.0.2", Some("fd00::2"));
        assert_eq!(split(both(), None), (vec![None], vec![]));
        assert_eq!(split(Endpoint { routed6: true, ..both() }, None), (vec![Some(any4)], vec![any6]));
        assert_eq!(split(Endpoint { routed4: true, routed6: true, ..both() }, None), (vec![], vec![any4, any6]));
        assert_eq!(split(Endpoint { routed6: true, ..both() }, Some("127.0.0.1")).1, Vec::<IpAddr>::new());
        let only4 = || endpoint("n", "10.0.0.2", None);
        assert_eq!(split(only4(), None), (vec![None], vec![]), "IPv6 clients are relayed");
        assert_eq!(split(Endpoint { routed4: true, ..only4() }, None), (vec![], vec![any4]));
        assert_eq!(split(Endpoint { unmanaged: true, ..only4() }, None), (vec![], vec![]));
    }
}
