//! What `network create` asks, and everything that can be wrong with it.

use super::vlan::{self, HOST, is_vlan};
use super::{BridgeOptions, GatewayMode, VlanOptions, is_predefined};
use crate::dhcp;
use crate::ipam::{self, pools::overlap, range::IpRange};
use crate::model::{Ipam, Network, Pool};
use ipnetwork::IpNetwork;
use plan::{Error, Kind, Result};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The request as given on the command line; addresses are still text.
#[derive(Clone, Debug)]
pub struct NetworkRequest {
    pub name: String,
    /// `bridge` when not given.
    pub driver: String,
    pub subnets: Vec<String>,
    pub gateways: Vec<String>,
    pub ip_ranges: Vec<String>,
    /// `--aux-address name=ip`, in the order given.
    pub aux: Vec<(String, String)>,
    pub internal: bool,
    /// `None`: as the options say, else IPv4 alone.
    pub enable_ipv4: Option<bool>,
    pub enable_ipv6: Option<bool>,
    /// `--route`, as text.
    pub routes: Vec<String>,
    pub attachable: bool,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    pub ipam: Ipam,
    /// The swarm's routing mesh, which there is none of.
    pub ingress: bool,
    /// `local`, or nothing.
    pub scope: String,
    /// Only settings, for others to take with `config_from`.
    pub config_only: bool,
    pub config_from: Option<String>,
    /// Asked by its containers' resolvers instead of the host's servers.
    pub dns: Vec<IpAddr>,
    pub disable_dns: bool,
}

/// "Any subnet of this size": is it IPv6, and the prefix length.
pub(super) type AnySubnet = (bool, u8);

/// The address families of a network; one at least.
#[derive(Clone, Copy, Debug)]
pub(super) struct Families {
    pub ipv4: bool,
    pub ipv6: bool,
}

impl Default for NetworkRequest {
    fn default() -> NetworkRequest {
        NetworkRequest {
            name: String::new(),
            driver: "bridge".into(),
            subnets: Vec::new(),
            gateways: Vec::new(),
            ip_ranges: Vec::new(),
            aux: Vec::new(),
            internal: false,
            enable_ipv4: None,
            enable_ipv6: None,
            routes: Vec::new(),
            attachable: false,
            options: BTreeMap::new(),
            labels: BTreeMap::new(),
            ipam: Ipam::default(),
            ingress: false,
            scope: String::new(),
            config_only: false,
            config_from: None,
            dns: Vec::new(),
            disable_dns: false,
        }
    }
}

impl NetworkRequest {
    /// What can be said without looking at other networks. Which address families it has.
    pub(super) fn check(&self) -> Result<Families> {
        check_name(&self.name)?;
        self.check_config()?;
        self.check_scope()?;
        self.check_ipam()?;
        if self.config_only {
            self.check_unknown_driver()?;
            return Ok(self.families(&BridgeOptions::parse(&self.options).unwrap_or_default()));
        }
        self.check_driver()
    }

    /// The driver and its options.
    pub(super) fn check_driver(&self) -> Result<Families> {
        match self.driver.as_str() {
            "bridge" => drop(BridgeOptions::parse(&self.options)?),
            "macvlan" | "ipvlan" => drop(VlanOptions::parse(&self.driver, &self.options)?),
            "host" | "null" | "none" => {
                let name = if self.driver == "host" { "host" } else { "null" };
                return Err(Error::new(Kind::Conflict, format!("only one instance of {name:?} network is allowed"))
                    .with_hint("it is there already: use --network host or --network none"));
            }
            "overlay" => {
                return Err(Error::invalid("This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.")
                    .with_hint("rrun has no swarm: use --driver bridge"));
            }
            other => {
                return Err(Error::invalid(format!("network driver {other:?} is not supported"))
                    .with_hint("bridge, macvlan and ipvlan are"));
            }
        }
        let options = match self.driver.as_str() {
            "bridge" => BridgeOptions::parse(&self.options)?,
            _ => BridgeOptions::default(),
        };
        let families = self.families(&options);
        if !families.ipv4 && !families.ipv6 {
            return Err(Error::invalid("IPv4 or IPv6 must be enabled").with_hint("add --ipv6, or drop --ipv4=false"));
        }
        let isolated = options.mode4 == GatewayMode::Isolated || options.mode6 == GatewayMode::Isolated;
        if isolated && !self.internal {
            return Err(Error::invalid("gateway mode 'isolated' can only be used for an internal network")
                .with_hint("add --internal"));
        }
        if self.internal && (options.vrf.is_some() || options.unmanaged) {
            return Err(Error::invalid("an internal network has neither a VRF nor an unmanaged bridge")
                .with_hint("drop --internal: routes there are not for rrun's firewall to close"));
        }
        options.check_reach(self.internal, families.ipv6)?;
        Ok(families)
    }

    /// Of a configuration network, which any driver may use: some driver must know the options.
    fn check_unknown_driver(&self) -> Result<()> {
        let vlan = ["macvlan", "ipvlan"].iter().any(|d| VlanOptions::parse(d, &self.options).is_ok());
        if vlan { Ok(()) } else { BridgeOptions::parse(&self.options).map(drop) }
    }

    /// `--config-only` and `--config-from`.
    fn check_config(&self) -> Result<()> {
        let refuse = |text: &str, hint: &str| Err(Error::invalid(text).with_hint(hint));
        if self.config_only && (self.ingress || self.internal || self.attachable || !self.scope.is_empty()) {
            return refuse(
                "configuration network can only contain network specific fields. Network operator fields like [ ingress | internal | attachable | scope ] are not supported.",
                "give them to the network that is made with --config-from",
            );
        }
        if self.config_from.is_none() {
            return Ok(());
        }
        if self.config_only {
            return refuse(
                "a configuration network cannot depend on another configuration network",
                "give --config-only or --config-from",
            );
        }
        let own = !self.subnets.is_empty()
            || !self.ip_ranges.is_empty()
            || !self.gateways.is_empty()
            || !self.aux.is_empty()
            || !self.options.is_empty()
            || !self.labels.is_empty()
            || self.enable_ipv6.is_some()
            || self.enable_ipv4.is_some()
            || !self.routes.is_empty()
            || self.ipam != Ipam::default();
        if own {
            return refuse(
                "user-specified configurations are not supported if the network depends on a configuration network",
                "leave --config-from out, or everything that the configuration network says",
            );
        }
        Ok(())
    }

    fn check_scope(&self) -> Result<()> {
        if self.ingress {
            return Err(Error::invalid("Ingress network can only be global scope network")
                .with_hint("an ingress network belongs to a swarm, and rrun has none: leave --ingress out"));
        }
        match self.scope.as_str() {
            "" | "local" => Ok(()),
            scope @ ("swarm" | "global") => {
                Err(Error::invalid(format!("cannot create a {scope} scoped network when swarm is not active"))
                    .with_hint("rrun's networks have scope local: leave --scope out"))
            }
            other => Err(Error::invalid(format!("invalid network scope \"{}\"", other.escape_debug()))
                .with_hint("rrun's networks have scope local: leave --scope out")),
        }
    }

    fn check_ipam(&self) -> Result<()> {
        let driver = self.ipam.driver.as_str();
        if !matches!(driver, "default" | "null" | dhcp::DRIVER) {
            return Err(Error::invalid(format!("could not resolve driver \"{}\" in registry", driver.escape_debug()))
                .with_hint("address managers are default, null (no addresses) and dhcp (a server on the network)"));
        }
        if let Some(key) = self.ipam.options.keys().find(|k| driver != dhcp::DRIVER || *k != dhcp::TIMEOUT) {
            return Err(Error::invalid(format!(
                "unknown option \"{}\" of address manager {driver}",
                key.escape_debug()
            ))
            .with_hint(format!("only dhcp has one: --ipam-opt {}=SECONDS", dhcp::TIMEOUT)));
        }
        dhcp::patience(&self.ipam)?;
        if driver == dhcp::DRIVER && (self.enable_ipv6 == Some(true) || self.enable_ipv4 == Some(false)) {
            return Err(Error::invalid("address manager dhcp gives IPv4 addresses only")
                .with_hint("leave --ipv6 and --ipv4=false out"));
        }
        if driver == dhcp::DRIVER && self.driver == "ipvlan" {
            return Err(Error::invalid("no address manager dhcp for network driver ipvlan").with_hint(
                "its containers share one MAC address, by which a DHCP server tells them apart: use macvlan",
            ));
        }
        if driver != "default" && self.options.get(vlan::HOST_ACCESS).is_some_and(|v| v != "false") {
            return Err(Error::invalid(format!("{} needs addresses that rrun gives out", vlan::HOST_ACCESS))
                .with_hint("leave --ipam-driver out"));
        }
        if driver != "default" && !self.subnets.is_empty() {
            return Err(Error::invalid(format!("{driver} ipam driver does not handle specific address pool requests"))
                .with_hint("leave --subnet out, or --ipam-driver"));
        }
        Ok(())
    }

    /// Takes over what a configuration network says.
    pub(super) fn adopt(&mut self, from: &Network) {
        self.config_from = Some(from.name.clone());
        self.options.clone_from(&from.options);
        self.labels.clone_from(&from.labels);
        self.ipam.clone_from(&from.ipam);
        (self.enable_ipv4, self.enable_ipv6) = (Some(from.enable_ipv4), Some(from.enable_ipv6));
        self.routes = from.routes.iter().map(ToString::to_string).collect();
        for pool in &from.pools {
            self.subnets.push(pool.subnet.to_string());
            self.ip_ranges.extend(pool.ip_range.map(|r| r.to_string()));
            self.gateways.extend(pool.gateway.map(|g| g.to_string()));
            self.aux.extend(pool.aux.iter().map(|(name, ip)| (name.clone(), ip.to_string())));
        }
    }

    /// Asked for, or because there is no parent: then the containers are on a wire that ends nowhere.
    pub(super) fn is_internal(&self) -> bool {
        let parent = self.options.get(vlan::PARENT).is_some_and(|p| !p.is_empty());
        self.internal || is_vlan(&self.driver) && !parent
    }

    /// A flag beats an option, and an IPv6 subnet says enough.
    fn families(&self, options: &BridgeOptions) -> Families {
        let ipv6_subnet = self.subnets.iter().any(|s| s.contains(':'));
        Families {
            ipv4: self.enable_ipv4.or(options.enable_ipv4).unwrap_or(true),
            ipv6: self.enable_ipv6.or(options.enable_ipv6).unwrap_or(false) || ipv6_subnet,
        }
    }

    /// The pools given with `--subnet`, each with its range, gateway and auxiliary addresses. Apart
    /// from them, what may be any subnet of its size.
    pub(super) fn pools(&self) -> Result<(Vec<Pool>, Vec<AnySubnet>)> {
        let mut subnets = Vec::new();
        let mut any = Vec::new();
        for text in &self.subnets {
            match cidr(text, "subnet")? {
                net if net.ip().is_unspecified() && net.prefix() > 0 => any.push((net.is_ipv6(), net.prefix())),
                _ => subnets.push(subnet(text)?),
            }
        }
        if subnets.len() < self.ip_ranges.len() || subnets.len() < self.gateways.len() {
            return Err(
                Error::invalid("every ip-range or gateway must have a corresponding subnet").with_hint("add --subnet")
            );
        }
        for (i, a) in subnets.iter().enumerate() {
            if let Some(b) = subnets[..i].iter().find(|b| overlap(*a, **b)) {
                return Err(Error::invalid("multiple overlapping subnet configuration is not supported")
                    .with_hint(format!("{b} and {a} overlap")));
            }
        }
        for v4 in [true, false] {
            let anys = any.iter().filter(|(v6, _)| *v6 != v4).count();
            let count = subnets.iter().filter(|s| s.is_ipv4() == v4).count() + anys;
            if self.driver == "bridge" && !self.config_only && count > 1 {
                return Err(Error::invalid("bridge driver doesn't support multiple subnets")
                    .with_hint("give one IPv4 and one IPv6 --subnet at most"));
            }
        }
        let v4_given = subnets.iter().any(|s| s.is_ipv4()) || any.iter().any(|(v6, _)| !v6);
        let options = BridgeOptions::parse(&self.options).unwrap_or_default();
        if v4_given && !self.families(&options).ipv4 {
            return Err(Error::invalid("an IPv4 --subnet was given, but IPv4 is switched off")
                .with_hint("drop --ipv4=false, or the subnet"));
        }
        let mut pools: Vec<Pool> = subnets
            .into_iter()
            .map(|subnet| Pool { subnet, ip_range: None, gateway: None, aux: BTreeMap::new() })
            .collect();
        for text in &self.ip_ranges {
            let range = IpRange::parse_span(text).unwrap_or_else(|| cidr(text, "ip-range").map(IpRange::Block))?;
            // An ip-range is told apart from the others by the subnet it starts in.
            let pool = pools.iter_mut().find(|p| p.subnet.contains(range.first())).ok_or_else(|| {
                match self.subnets.as_slice() {
                    [only] => invalid_config(format!(
                        "invalid ip-range {text}: parent subnet {only} doesn't contain ip-range"
                    )),
                    _ => Error::invalid(format!("no matching subnet for range {text}")),
                }
                .with_hint("the range must lie inside the --subnet")
            })?;
            if let Some(old) = pool.ip_range {
                return Err(Error::invalid(format!(
                    "cannot configure multiple ranges ({text}, {old}) on the same subnet ({})",
                    pool.subnet
                ))
                .with_hint("give one --ip-range a subnet"));
            }
            if !range.fits(pool.subnet) {
                let what = if matches!(range, IpRange::Block(_)) { "CIDR block is" } else { "it is" };
                return Err(invalid_config(format!(
                    "invalid ip-range {text}: {what} bigger than its parent subnet {}",
                    pool.subnet
                ))
                .with_hint("all of it must lie inside the --subnet"));
            }
            if let IpRange::Block(net) = range
                && net.ip() != net.network()
            {
                return Err(invalid_config(format!("invalid ip-range {text}: it should be {}", canonical(net)))
                    .with_hint("the bits after the prefix must be 0"));
            }
            pool.ip_range = Some(range);
        }
        for text in &self.gateways {
            let gateway = ip(text, "gateway")?;
            let pool = find(&mut pools, gateway).ok_or_else(|| {
                match self.subnets.as_slice() {
                    [only] => invalid_config(format!(
                        "invalid gateway {text}: parent subnet {only} doesn't contain this address"
                    )),
                    _ => Error::invalid(format!("no matching subnet for gateway {text}")),
                }
                .with_hint("the gateway must lie inside the --subnet")
            })?;
            if let Some(old) = pool.gateway {
                return Err(Error::invalid(format!(
                    "cannot configure multiple gateways ({text}, {old}) for the same subnet ({})",
                    pool.subnet
                ))
                .with_hint("give one --gateway a subnet"));
            }
            if !ipam::usable(pool.subnet).is_some_and(|(a, b)| (a..=b).contains(&ipam::number(gateway))) {
                return Err(invalid_config(format!(
                    "invalid gateway {text}: no interface may have the first or broadcast address of {}",
                    pool.subnet
                ))
                .with_hint("choose an address in between"));
            }
            pool.gateway = Some(gateway);
        }
        for (name, text) in &self.aux {
            let address = ip(text, "auxiliary address")?;
            let pool = find(&mut pools, address).ok_or_else(|| {
                match self.subnets.as_slice() {
                    [only] => invalid_config(format!(
                        "invalid auxiliary address {text}: parent subnet {only} doesn't contain this address"
                    )),
                    _ => Error::invalid(format!("no matching subnet for aux-address {text}")),
                }
                .with_hint("reserve addresses inside the --subnet")
            })?;
            pool.aux.insert(name.clone(), address);
        }
        for pool in &mut pools {
            self.complete(pool)?;
        }
        Ok((pools, any))
    }

    /// A pool nobody asked for in particular.
    pub(super) fn automatic(&self, subnet: IpNetwork) -> Result<Pool> {
        let mut pool = Pool { subnet, ip_range: None, gateway: None, aux: BTreeMap::new() };
        self.complete(&mut pool)?;
        Ok(pool)
    }

    /// A bridge is its network's gateway, so it needs an address. On a LAN the gateway is somebody
    /// else, or nobody: what was not given is not reserved. A configuration network does not know yet.
    fn complete(&self, pool: &mut Pool) -> Result<()> {
        if self.config_only {
            return Ok(());
        }
        if !is_vlan(&self.driver) {
            let mode = BridgeOptions::parse(&self.options)?.mode(pool.subnet.is_ipv6());
            return if mode == GatewayMode::Isolated { Ok(()) } else { fill_gateway(pool) };
        }
        let options = VlanOptions::parse(&self.driver, &self.options)?;
        if options.host_access && !pool.aux.contains_key(HOST) {
            let host = ipam::last_free(pool).ok_or_else(|| no_room(pool))?;
            pool.aux.insert(HOST.into(), host);
        }
        ipam::has_room(pool).then_some(()).ok_or_else(|| no_room(pool))
    }
}

fn no_room(pool: &Pool) -> Error {
    invalid_config(format!("invalid subnet {}: it has no address for a container", pool.subnet))
        .with_hint("use a larger one, for example a /24")
}

/// The first address that nothing else reserved; inside the range if there is one, as Docker does.
fn fill_gateway(pool: &mut Pool) -> Result<()> {
    if pool.gateway.is_some() {
        return Ok(());
    }
    let (mut first, last) = ipam::usable(pool.subnet).ok_or_else(|| no_room(pool))?;
    if let Some(range) = pool.ip_range {
        first = first.max(range.bounds().0);
    }
    let aux: Vec<u128> = pool.aux.values().map(|ip| ipam::number(*ip)).collect();
    let gateway = (first..=last).find(|n| !aux.contains(n)).ok_or_else(|| no_room(pool))?;
    pool.gateway = Some(ipam::address(gateway, pool.subnet));
    Ok(())
}

fn check_name(name: &str) -> Result<()> {
    if name.trim().is_empty() {
        return Err(Error::invalid("invalid name: name is empty").with_hint("give the network a name"));
    }
    if is_predefined(name) {
        return Err(Error::invalid(format!("operation is not permitted on predefined {name} network "))
            .with_hint("choose another name"));
    }
    let first = name.as_bytes()[0].is_ascii_alphanumeric();
    let rest = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if !first || !rest || name.len() > 200 {
        return Err(Error::invalid(format!(
            "{name:?} includes invalid characters for a network name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed"
        ))
        .with_hint("start with a letter or digit; at most 200 characters"));
    }
    Ok(())
}

fn find(pools: &mut [Pool], ip: IpAddr) -> Option<&mut Pool> {
    pools.iter_mut().find(|p| p.subnet.contains(ip))
}

/// Docker's daemon prefixes what it finds wrong with this line.
fn invalid_config(what: String) -> Error {
    Error::invalid(format!("invalid network config:\n{what}"))
}

fn subnet(text: &str) -> Result<IpNetwork> {
    let net = cidr(text, "subnet")?;
    if net.ip() != net.network() {
        return Err(invalid_config(format!("invalid subnet {text}: it should be {}", canonical(net)))
            .with_hint("the bits after the prefix must be 0"));
    }
    let unusable = match net {
        IpNetwork::V4(n) => n.ip().is_loopback() || n.ip().is_multicast() || n.ip().is_unspecified(),
        IpNetwork::V6(n) => n.ip().is_loopback() || n.ip().is_multicast() || n.ip().is_unspecified(),
    };
    if unusable {
        return Err(invalid_config(format!("invalid subnet {text}: not an address that an interface can have"))
            .with_hint("use a private range, for example 10.20.30.0/24"));
    }
    Ok(net)
}

fn cidr(text: &str, what: &str) -> Result<IpNetwork> {
    let bad = || {
        Error::invalid(format!("invalid {what}: invalid CIDR address: {text}"))
            .with_hint("an address and a prefix length, for example 10.20.30.0/24")
    };
    if !text.contains('/') {
        return Err(bad());
    }
    text.parse::<IpNetwork>().map_err(|_| bad())
}

fn ip(text: &str, what: &str) -> Result<IpAddr> {
    text.parse().map_err(|_| {
        Error::invalid(format!("invalid {what}: invalid IP address: {text}"))
            .with_hint("an address without a prefix, for example 10.20.30.1")
    })
}

fn canonical(net: IpNetwork) -> IpNetwork {
    IpNetwork::new(net.network(), net.prefix()).expect("the prefix was valid before")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(subnets: &[&str], ranges: &[&str], gateways: &[&str]) -> NetworkRequest {
        let owned = |l: &[&str]| l.iter().map(|s| s.to_string()).collect();
        NetworkRequest {
            name: "n".into(),
            subnets: owned(subnets),
            ip_ranges: owned(ranges),
            gateways: owned(gateways),
            ..Default::default()
        }
    }

    fn error(subnets: &[&str], ranges: &[&str], gateways: &[&str]) -> String {
        let e = request(subnets, ranges, gateways).pools().unwrap_err();
        assert!(e.hint.is_some(), "{e}");
        e.to_string()
    }

    #[test]
    fn pools_are_completed() {
        let p = request(&["10.1.0.0/16", "fd00:1::/64"], &["10.1.5.0/24"], &[]).pools().unwrap().0;
        assert_eq!(p[0].gateway, Some("10.1.5.0".parse().unwrap()));
        assert_eq!(p[1].gateway, Some("fd00:1::1".parse().unwrap()));
        let p = request(&["10.1.0.0/16"], &[], &["10.1.0.9"]).pools().unwrap().0;
        assert_eq!(p[0].gateway, Some("10.1.0.9".parse().unwrap()));
    }

    #[test]
    fn the_gateway_steps_aside_for_auxiliary_addresses() {
        let mut r = request(&["10.1.0.0/24"], &[], &[]);
        r.aux = vec![("host".into(), "10.1.0.1".into())];
        assert_eq!(r.pools().unwrap().0[0].gateway, Some("10.1.0.2".parse().unwrap()));
    }

    #[test]
    fn texts_are_dockers() {
        assert_eq!(
            error(&["10.0.0.1/24"], &[], &[]),
            "invalid network config:\ninvalid subnet 10.0.0.1/24: it should be 10.0.0.0/24"
        );
        assert_eq!(error(&[], &["10.0.0.0/25"], &[]), "every ip-range or gateway must have a corresponding subnet");
        assert_eq!(error(&[], &[], &["10.0.0.1"]), "every ip-range or gateway must have a corresponding subnet");
        assert_eq!(
            error(&["10.0.0.0/16", "10.0.1.0/24"], &[], &[]),
            "multiple overlapping subnet configuration is not supported"
        );
        assert_eq!(error(&["10.0.0.0/24", "10.0.1.0/24"], &[], &[]), "bridge driver doesn't support multiple subnets");
        assert_eq!(
            error(&["10.0.0.0/24"], &["10.0.1.0/25"], &[]),
            "invalid network config:\ninvalid ip-range 10.0.1.0/25: parent subnet 10.0.0.0/24 doesn't contain ip-range"
        );
        assert_eq!(
            error(&["10.0.0.0/24"], &["10.0.0.0/16"], &[]),
            "invalid network config:\ninvalid ip-range 10.0.0.0/16: CIDR block is bigger than its parent subnet 10.0.0.0/24"
        );
        assert_eq!(
            error(&["10.0.0.0/24"], &[], &["10.0.1.1"]),
            "invalid network config:\ninvalid gateway 10.0.1.1: parent subnet 10.0.0.0/24 doesn't contain this address"
        );
        assert_eq!(error(&["10.0.0.0/24", "fd00::/64"], &[], &["10.9.0.1"]), "no matching subnet for gateway 10.9.0.1");
        assert_eq!(
            error(&["10.0.0.0/24", "fd00::/64"], &[], &["10.0.0.1", "10.0.0.2"]),
            "cannot configure multiple gateways (10.0.0.2, 10.0.0.1) for the same subnet (10.0.0.0/24)"
        );
        assert_eq!(error(&["10.0.0.0"], &[], &[]), "invalid subnet: invalid CIDR address: 10.0.0.0");
        assert_eq!(
            error(&["10.0.0.0/32"], &[], &[]),
            "invalid network config:\ninvalid subnet 10.0.0.0/32: it has no address for a container"
        );
        assert_eq!(
            error(&["127.0.0.0/8"], &[], &[]),
            "invalid network config:\ninvalid subnet 127.0.0.0/8: not an address that an interface can have"
        );
    }

    #[test]
    fn names_and_drivers_are_checked() {
        let check = |name: &str, driver: &str| {
            let r = NetworkRequest { name: name.into(), driver: driver.into(), ..Default::default() };
            r.check().map(drop).map_err(|e| e.to_string())
        };
        assert_eq!(check("a_b.c-9", "bridge"), Ok(()));
        assert_eq!(check("bridge", "bridge"), Err("operation is not permitted on predefined bridge network ".into()));
        assert!(check("../x", "bridge").unwrap_err().contains("includes invalid characters"));
        assert!(
            check("", "bridge").is_err()
                && check("-rf", "bridge").is_err()
                && check(&"x".repeat(300), "bridge").is_err()
        );
        assert_eq!(check("h", "host"), Err("only one instance of \"host\" network is allowed".into()));
        assert_eq!(check("m", "macvlan"), Ok(()));
        let none = NetworkRequest { name: "n".into(), enable_ipv4: Some(false), ..Default::default() };
        assert_eq!(none.check().unwrap_err().to_string(), "IPv4 or IPv6 must be enabled");
    }
}
