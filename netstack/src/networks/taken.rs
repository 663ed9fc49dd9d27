//! What uses addresses already: other networks, and whatever the host can reach.

use super::Netstack;
use crate::files::ResolvConf;
use crate::ipam::pools::{self, Owner, Taken};
use crate::model::Network;
use crate::nl::{Route, Socket};
use ipnetwork::IpNetwork;
use plan::{Error, Result};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The host's own resolvers must stay reachable.
const RESOLV_CONF: &str = "/etc/resolv.conf";
const RT_TABLE_MAIN: u32 = 254;
/// Destinations wider than this are default routes in disguise (0.0.0.0/1 and 128.0.0.0/1 of VPNs):
/// no network could avoid them.
const NARROWEST_DEFAULT: u8 = 4;
/// The kernel's, of every bridge and veth.
const USUAL_MTU: u32 = 1500;
/// Somewhere on the Internet, and not one of the ranges that careful hosts lead nowhere: a root name server.
const FAR_AWAY: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(198, 41, 0, 4)), IpAddr::V6(Ipv6Addr::new(0x2001, 0x503, 0xba3e, 0, 0, 0, 2, 0x30))];

/// One look at everything a new network could collide with.
pub(super) struct Surroundings {
    taken: Vec<Taken>,
    /// The MTU of the interface through which the world is reached, if it is not the usual one.
    pub way_out_mtu: Option<u32>,
}

impl Netstack {
    /// `own`: the bridge of the network in question, whose addresses are no collision. `wires`: interfaces
    /// of whose IPv6 prefix the network may be a part.
    pub(super) fn surroundings(
        &self,
        networks: &[Network],
        own: Option<&str>,
        wires: &[String],
    ) -> Result<Surroundings> {
        let mut taken: Vec<Taken> = Vec::new();
        for n in networks.iter().filter(|n| !n.config_only) {
            taken.extend(n.pools.iter().map(|p| Taken {
                net: p.subnet,
                by: format!("network {}", n.name),
                owner: Owner::Network,
            }));
        }
        let mut route = Socket::route()?;
        let links = route.links()?;
        let name = |index: Option<u32>| links.iter().find(|l| Some(l.index) == index).map(|l| l.name.as_str());
        let ours = |index: Option<u32>| own.is_some() && name(index) == own;
        // All of a wire but its stations: the longer prefix wins, the host's own addresses and its router do not move.
        let shared = |index: Option<u32>, net: &IpNetwork| {
            net.is_ipv6() && net.prefix() < 128 && wires.iter().any(|w| name(index) == Some(w))
        };
        let routes = route.routes()?;
        let counts = |r: &&Route| {
            r.destination.prefix() >= NARROWEST_DEFAULT
                && !ours(r.interface)
                && (r.gateway || !shared(r.interface, &r.destination))
        };
        for r in routes.iter().filter(counts) {
            let device = name(r.interface).map(|n| format!(" on {n}")).unwrap_or_default();
            let table = if r.table < RT_TABLE_MAIN { format!(" in table {}", r.table) } else { String::new() };
            taken.push(Taken {
                net: r.destination,
                by: format!("the host's route to {}{device}{table}", r.destination),
                owner: if r.gateway { Owner::Gateway } else { Owner::Host },
            });
        }
        // An interface that is down has addresses but no routes yet: tomorrow's VPN.
        for (index, address) in route.addresses()?.into_iter().filter(|(index, _)| !ours(Some(*index))) {
            let device = name(Some(index)).unwrap_or("an interface");
            let net = if shared(Some(index), &address) { IpNetwork::from(address.ip()) } else { address };
            taken.push(Taken { net, by: format!("address {address} of {device}"), owner: Owner::Host });
        }
        let router = if wires.is_empty() { None } else { route.default_route(true)? };
        if let Some((_, Some(gateway))) = router {
            taken.push(Taken { net: gateway.into(), by: format!("the host's router {gateway}"), owner: Owner::Host });
        }
        for net in route.rules()?.into_iter().filter(|n| n.prefix() >= NARROWEST_DEFAULT) {
            taken.push(Taken { net, by: format!("the host's routing rule for {net}"), owner: Owner::Gateway });
        }
        let resolv_conf = std::fs::read_to_string(RESOLV_CONF).unwrap_or_default();
        let servers = ResolvConf::parse(&resolv_conf).servers;
        for server in servers.iter().filter_map(|s| s.parse::<IpAddr>().ok()) {
            taken.push(Taken {
                net: IpNetwork::from(server),
                by: format!("the host's nameserver {server}"),
                owner: Owner::Gateway,
            });
        }
        // Not by looking for a default route: VPNs put theirs into a table of their own, or halve it.
        let [far4, far6] = FAR_AWAY;
        let way = match route.way_to(far4)? {
            None => route.way_to(far6)?,
            found => found,
        };
        let mtu = links.iter().find(|l| Some(l.index) == way).map(|l| l.mtu);
        Ok(Surroundings { taken, way_out_mtu: mtu.filter(|mtu| *mtu != USUAL_MTU) })
    }
}

impl Surroundings {
    /// Keeps the next choice away from it.
    pub fn take(&mut self, subnet: IpNetwork) {
        self.taken.push(Taken { net: subnet, by: "this network".into(), owner: Owner::Network });
    }

    /// The first free subnet. What is behind a router counts too, unlike with Docker: those are the
    /// VPNs that people collide with. Unless nothing else is left: more specific routes win.
    pub fn pick(&self, pools: &[(IpNetwork, u8)], ipv6: bool) -> Result<IpNetwork> {
        pools::pick(pools, ipv6, &self.taken).or_else(|e| {
            let near: Vec<Taken> = self.taken.iter().filter(|t| t.owner != Owner::Gateway).cloned().collect();
            pools::pick(pools, ipv6, &near).map_err(|_| e)
        })
    }

    /// An explicit subnet may lie within something behind a router, which goes on to be reached but
    /// for this part. It may not cover or cut what is on the host's own wires.
    pub fn check(&self, subnet: IpNetwork, beside_host: bool) -> Result<()> {
        let counts = |owner| owner == Owner::Network || beside_host && owner == Owner::Host;
        let overlaps = |t: &&Taken| counts(t.owner) && pools::overlap(t.net, subnet);
        // The kernel's /32 and /128 routes to itself say less than the address they come from.
        let found = self.taken.iter().filter(overlaps).min_by_key(|t| (t.owner, t.net.prefix()));
        match found {
            None => Ok(()),
            Some(other) => {
                Err(Error::conflict("invalid pool request: Pool overlaps with other one on this address space")
                    .with_hint(format!("{subnet} overlaps {} of {}; choose another --subnet", other.net, other.by)))
            }
        }
    }
}

/// Of routes and gateways given by hand: is `ip` on one of these subnets?
pub(super) fn inside(subnets: &[IpNetwork], ip: IpAddr) -> bool {
    subnets.iter().any(|s| s.contains(ip))
}
