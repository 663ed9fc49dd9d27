//! Making a network: everything checked, what was left open chosen, the record written.

use super::options::{self, NAME};
use super::request::Families;
use super::taken::{Surroundings, inside};
use super::uplink::Uplink;
use super::vlan::{self, VlanOptions};
use super::{ADOPTED, BridgeOptions, Netstack, NetworkRequest, VERSION, random_hex};
use crate::apply;
use crate::driver::bridge;
use crate::model::{Network, Pool};
use crate::nl::{Link, Socket};
use crate::static_route::{StaticRoute, Via};
use ipnetwork::IpNetwork;
use plan::{Error, Result, ResultExt};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What a record remembers beside its fields.
type Extra = BTreeMap<String, serde_json::Value>;

/// What IPv6 asks of every link (RFC 8200).
const IPV6_MIN_MTU: u32 = 1280;

impl Netstack {
    /// Checks everything, chooses what was left open, and records the network.
    ///
    /// Errors carry Docker's texts, e.g. `network with name X already exists`, `invalid pool
    /// request: Pool overlaps with other one on this address space`.
    pub fn create(&self, mut request: NetworkRequest) -> Result<Network> {
        self.config.check()?;
        let own = request.config_from.is_none() && !request.config_only;
        let defaults = self.config.default_opts.get(&request.driver).filter(|_| own);
        for (key, value) in defaults.into_iter().flatten() {
            request.options.entry(key.clone()).or_insert_with(|| value.clone());
        }
        let families = request.check()?;
        if request.driver == "bridge" {
            // Under one name each, so that `network update` finds them.
            request.options = options::canonical(request.options);
        }
        let _lock = self.lock()?;
        let others = self.networks()?;
        let families = match request.config_from.clone() {
            None => families,
            Some(from) => {
                let config =
                    others.iter().find(|n| n.config_only && (n.name == from || n.id == from)).ok_or_else(|| {
                        Error::not_found(format!("configuration network {from:?} does not exist"))
                            .with_hint(format!("make it: `rrun network create --config-only {from}`"))
                    })?;
                request.adopt(config);
                request.check_driver()?
            }
        };
        if others.iter().any(|n| n.name == request.name) {
            return Err(Error::conflict(format!("network with name {} already exists", request.name))
                .with_hint(format!("choose another name, or `rrun network rm {}` first", request.name)));
        }
        let id = random_hex()?;
        if request.config_only {
            return self.create_config(id, families, request);
        }
        let bridged = request.driver == "bridge";
        let options = if bridged { BridgeOptions::parse(&request.options)? } else { BridgeOptions::default() };
        let mut extra = Extra::new();
        let mut adopted = None;
        if bridged {
            adopted = own_bridge(&request.name, &id, &options, &others)?;
        } else {
            extra = own_parent(&request, &id, &others)?;
        }
        let kept = match &adopted {
            Some(link) => addresses_of(link)?,
            None => Vec::new(),
        };
        let (mut pools, any) = request.pools()?;
        let uplink = Uplink::of(&options, &pools)?;
        uplink.place(&mut pools)?;
        let mut surroundings = self.surroundings(&others, Some(&options.bridge_name(&id)), &uplink.interfaces)?;
        for pool in &pools {
            // A network on the host's LAN has the LAN's subnet: only other networks are in its way.
            surroundings.check(pool.subnet, bridged)?;
            surroundings.take(pool.subnet);
        }
        let enable_ipv6 = families.ipv6 || pools.iter().any(|p| p.subnet.is_ipv6());
        for (wanted, ipv6) in [(families.ipv4, false), (enable_ipv6, true)] {
            let automatic = request.ipam.driver == "default";
            if !automatic || !wanted || pools.iter().any(|p| p.subnet.is_ipv6() == ipv6) {
                continue;
            }
            let size = any.iter().find(|(v6, _)| *v6 == ipv6).map(|(_, size)| *size);
            pools.push(match kept.iter().find(|a| a.is_ipv6() == ipv6).filter(|_| size.is_none()) {
                Some(own) => pool_of(*own),
                None => {
                    let part = if ipv6 { uplink.part(&surroundings, size) } else { None };
                    let subnet = part.unwrap_or_else(|| self.free_subnet(&surroundings, ipv6, size))?;
                    surroundings.take(subnet);
                    request.automatic(subnet)?
                }
            });
        }
        let routes = static_routes(&request, &pools)?;
        let inherited_mtu = match &adopted {
            Some(link) => Some(link.mtu).filter(|mtu| *mtu != 1500),
            None if request.internal || !bridged => None,
            None => surroundings.way_out_mtu.map(|mtu| if enable_ipv6 { mtu.max(IPV6_MIN_MTU) } else { mtu }),
        };
        if let (Some(mtu @ ..IPV6_MIN_MTU), true) = (options.mtu, enable_ipv6) {
            return Err(Error::invalid(format!("invalid MTU number: {mtu}"))
                .with_hint(format!("IPv6 needs at least {IPV6_MIN_MTU}")));
        }
        if adopted.is_some() {
            let kept: Vec<String> = kept.iter().map(ToString::to_string).collect();
            extra.insert(ADOPTED.to_string(), kept.into());
        }
        let internal = request.is_internal();
        let mut network = Network {
            version: VERSION,
            id,
            name: request.name,
            driver: request.driver,
            created: plan::time::now_rfc3339(),
            enable_ipv4: families.ipv4,
            enable_ipv6,
            internal,
            attachable: request.attachable,
            pools,
            options: request.options,
            labels: request.labels,
            ipam: request.ipam,
            config_only: false,
            config_from: request.config_from.unwrap_or_default(),
            dns: request.dns,
            disable_dns: request.disable_dns,
            routes,
            inherited_mtu,
            extra,
        };
        uplink.note(&mut network);
        self.save(&network)?;
        Ok(network)
    }

    /// Settings for other networks: nothing is allocated, nothing can clash.
    fn create_config(&self, id: String, families: Families, request: NetworkRequest) -> Result<Network> {
        let (mut pools, any) = request.pools()?;
        for (ipv6, size) in any {
            let anywhere = if ipv6 { IpAddr::from([0; 16]) } else { IpAddr::from([0; 4]) };
            let subnet = IpNetwork::new(anywhere, size)
                .map_err(|e| Error::invalid(format!("invalid subnet {anywhere}/{size}")).with_cause(e.to_string()))?;
            pools.push(Pool { subnet, ip_range: None, gateway: None, aux: BTreeMap::new() });
        }
        let network = Network {
            version: VERSION,
            id,
            name: request.name,
            driver: "null".into(),
            created: plan::time::now_rfc3339(),
            enable_ipv4: families.ipv4,
            enable_ipv6: families.ipv6,
            pools,
            options: request.options,
            labels: request.labels,
            routes: request.routes.iter().map(|text| StaticRoute::parse(text)).collect::<Result<_>>()?,
            ipam: request.ipam,
            config_only: true,
            ..Network::default()
        };
        self.save(&network)?;
        Ok(network)
    }

    /// Of the configured pools; `size` in place of theirs, where somebody asked for "any such".
    fn free_subnet(&self, surroundings: &Surroundings, ipv6: bool, size: Option<u8>) -> Result<IpNetwork> {
        let mut pools = if ipv6 { self.ipv6_pools()? } else { self.config.pools() };
        if let Some(size) = size {
            pools.retain(|(base, _)| base.prefix() <= size);
            pools.iter_mut().for_each(|(_, own)| *own = size);
        }
        surroundings.pick(&pools, ipv6)
    }

    /// The configured ones, else this root's own.
    pub(super) fn ipv6_pools(&self) -> Result<Vec<(IpNetwork, u8)>> {
        let mut pools = self.config.pools();
        if !pools.iter().any(|(base, _)| base.is_ipv6()) {
            pools.push((self.unique_local_prefix()?, 64));
        }
        Ok(pools)
    }

    /// This root's own ULA prefix (RFC 4193): chosen at random once, then kept, so that networks
    /// of different machines do not clash when they are joined one day.
    fn unique_local_prefix(&self) -> Result<IpNetwork> {
        let path = self.dir().join("ula-prefix");
        if let Some(kept) = std::fs::read_to_string(&path).ok().and_then(|t| t.trim().parse().ok()) {
            return Ok(kept);
        }
        let digits = random_hex()?;
        let text = format!("fd{}:{}:{}::/48", &digits[0..2], &digits[2..6], &digits[6..10]);
        let prefix: IpNetwork = text.parse().expect("twelve hex digits make a /48");
        crate::ipam::make_dir(&self.dir())?;
        std::fs::write(&path, format!("{prefix}\n")).doing(|| format!("write {}", path.display()))?;
        Ok(prefix)
    }
}

/// The bridge's name is free, or it is there already for this network to use.
fn own_bridge(name: &str, id: &str, options: &BridgeOptions, others: &[Network]) -> Result<Option<Link>> {
    refuse_shared_bridge(others, id, options)?;
    let adopted = match &options.name {
        Some(bridge) => apply::existing_bridge(&mut Socket::route()?, bridge)?,
        None => None,
    };
    if options.unmanaged && adopted.is_none() {
        return Err(bridge::missing(name, &options.bridge_name(id)));
    }
    Ok(adopted)
}

/// The parent may be used by this network too, and is there or can be made.
fn own_parent(request: &NetworkRequest, id: &str, others: &[Network]) -> Result<Extra> {
    let options = VlanOptions::parse(&request.driver, &request.options)?;
    let parent = options.parent_name(id);
    vlan::share(&options, &parent, others)?;
    if options.parent.is_none() {
        return Ok(Extra::new());
    }
    let made = || Extra::from([(vlan::MADE_PARENT.to_string(), serde_json::Value::Bool(true))]);
    let links = Socket::route()?.links()?;
    let find = |name: &str| links.iter().find(|l| l.name == name);
    if let Some(link) = find(&parent) {
        vlan::carries_frames(link, &request.driver)?;
        // Made for another network: whichever of them goes last takes it along.
        let shared = others.iter().any(|n| n.sits_on(&parent) && n.made_parent());
        return Ok(if shared { made() } else { Extra::new() });
    }
    let (base, _) = vlan::tagged(&parent)?;
    match find(&base) {
        Some(link) => vlan::carries_frames(link, &request.driver).map(|()| made()),
        None => Err(Error::invalid(format!("-o parent interface was not found on the host: {base}"))
            .with_hint("`ip link` shows the interfaces there are")),
    }
}

/// Two networks on one bridge would be one network. Unmanaged ones may: VLANs keep them apart, or
/// whoever set the bridge up.
fn refuse_shared_bridge(others: &[Network], id: &str, options: &BridgeOptions) -> Result<()> {
    let bridge = options.bridge_name(id);
    let clashes = |n: &&Network| {
        let theirs = BridgeOptions::of(n);
        n.driver == "bridge" && theirs.bridge_name(&n.id) == bridge && !(theirs.unmanaged && options.unmanaged)
    };
    match others.iter().find(clashes) {
        None => Ok(()),
        Some(other) => Err(Error::conflict(format!(
            "cannot create network {id} ({bridge}): conflicts with network {} ({bridge}): networks have same bridge name",
            other.id
        ))
        .with_hint(format!("choose another -o {NAME}=NAME; network {} has this one", other.name))),
    }
}

/// What a bridge that is there has already, without link-local ones.
fn addresses_of(link: &Link) -> Result<Vec<IpNetwork>> {
    let mut all = Socket::route()?.addresses()?;
    all.retain(|(index, a)| *index == link.index && !matches!(a, IpNetwork::V6(a) if a.ip().is_unicast_link_local()));
    Ok(all.into_iter().map(|(_, a)| a).collect())
}

/// The subnet that such an address is on, with the host as its gateway.
fn pool_of(own: IpNetwork) -> Pool {
    let subnet = IpNetwork::new(own.network(), own.prefix()).unwrap_or(own);
    Pool { subnet, ip_range: None, gateway: Some(own.ip()), aux: BTreeMap::new() }
}

fn static_routes(request: &NetworkRequest, pools: &[Pool]) -> Result<Vec<StaticRoute>> {
    let subnets: Vec<IpNetwork> = pools.iter().map(|p| p.subnet).collect();
    let routes = request.routes.iter().map(|text| StaticRoute::parse(text)).collect::<Result<Vec<_>>>()?;
    for route in &routes {
        if let Via::Gateway(gateway) = route.via
            && !inside(&subnets, gateway)
        {
            let names: Vec<String> = subnets.iter().map(ToString::to_string).collect();
            return Err(Error::invalid(format!("no matching subnet for route gateway {gateway}"))
                .with_hint(format!("a gateway must be on the network itself: {}", names.join(" or "))));
        }
        if routes.iter().filter(|r| (r.destination, r.metric) == (route.destination, route.metric)).count() > 1 {
            return Err(Error::invalid(format!("route {} is specified multiple times", route.destination))
                .with_hint("give the second one another metric"));
        }
    }
    Ok(routes)
}
