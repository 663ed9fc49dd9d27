//! What the configuration file says about networks.

use super::{Wishes, options};
use crate::ipam::pools;
use ipnetwork::IpNetwork;
use plan::{Error, Result};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

/// Docker's daemon flags, as far as they are about networks. What is called "of the default bridge"
/// is about network `bridge` alone, as there.
#[derive(Clone, Debug)]
pub struct Config {
    /// Base and prefix length of the networks cut from it, both families.
    pub default_pools: Vec<(IpNetwork, u8)>,
    /// The host address that `-p` without one binds; `None`: all of them.
    pub default_bind: Option<IpAddr>,
    /// The host knows its containers by name ([`super::Netstack::export_names`]).
    pub host_names: bool,
    /// Of each driver: options that `network create` adds when they are not given.
    pub default_opts: BTreeMap<String, BTreeMap<String, String>>,
    pub bridge: DefaultBridge,
    /// Every container of a root: who they are is not known here.
    pub containers: fn(&Path) -> Vec<Wishes>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            default_pools: Vec::new(),
            default_bind: None,
            host_names: false,
            default_opts: BTreeMap::new(),
            bridge: DefaultBridge::default(),
            containers: |_| Vec::new(),
        }
    }
}

/// The default bridge, as far as somebody wants it different.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DefaultBridge {
    pub mtu: Option<u32>,
    pub icc: Option<bool>,
    pub ip_masq: Option<bool>,
    pub ipv6: bool,
    /// The bridge's own address with its prefix: the subnet and the gateway.
    pub bip: Option<IpNetwork>,
    pub bip6: Option<IpNetwork>,
    /// The part of the subnet that containers get addresses of.
    pub fixed_cidr: Option<IpNetwork>,
    pub fixed_cidr_v6: Option<IpNetwork>,
    /// The containers' default route, when it is not the bridge.
    pub default_gateway: Option<IpAddr>,
    pub default_gateway_v6: Option<IpAddr>,
}

impl Config {
    /// The configured pools, else ours.
    pub(super) fn pools(&self) -> Vec<(IpNetwork, u8)> {
        let given = |ipv6: bool| self.default_pools.iter().any(|(base, _)| base.is_ipv6() == ipv6);
        let ours = pools::default_pools().into_iter().filter(|(base, _)| !given(base.is_ipv6()));
        self.default_pools.iter().copied().chain(ours).collect()
    }

    /// Where the default bridge looks first: Docker's 172.17.0.0/16, unless pools are configured.
    pub(super) fn bridge_pools(&self) -> Vec<(IpNetwork, u8)> {
        let mut pools = self.pools();
        if !self.default_pools.iter().any(|(base, _)| base.is_ipv4()) {
            pools.insert(0, pools::first_default());
        }
        pools
    }

    /// Refuses what could not be worked with later.
    pub fn check(&self) -> Result<()> {
        for (base, size) in &self.default_pools {
            let bits = if base.is_ipv4() { 32 } else { 128 };
            if base.ip() != base.network() || *size < base.prefix() || *size > bits - 2 {
                return Err(Error::invalid(format!("invalid default address pool: base {base}, size {size}"))
                    .with_hint("as in base = \"10.100.0.0/16\", size = 24: a size between the base's prefix and 30 (IPv6: 126)"));
            }
        }
        if let Some(opts) = self.default_opts.get("bridge") {
            options::BridgeOptions::parse(opts).map_err(|e| e.context("default-network-opts of driver bridge"))?;
        }
        self.bridge.check()
    }
}

impl DefaultBridge {
    fn check(&self) -> Result<()> {
        let wrong = |key: &str, what: String, hint: &str| {
            Err(Error::invalid(format!("configuration key {key}: {what}")).with_hint(hint.to_string()))
        };
        for (key, bip, range, gateway, ipv6) in [
            ("bip", self.bip, self.fixed_cidr, self.default_gateway, false),
            ("bip6", self.bip6, self.fixed_cidr_v6, self.default_gateway_v6, true),
        ] {
            if let Some(bip) = bip {
                let usable = crate::ipam::usable(bip)
                    .is_some_and(|(first, last)| (first..=last).contains(&crate::ipam::number(bip.ip())));
                if bip.is_ipv6() != ipv6 || !usable {
                    let hint = "the bridge's own address with its prefix, for example 192.168.90.1/24";
                    return wrong(key, format!("{bip} is no address that the bridge can have"), hint);
                }
            }
            if range.is_some_and(|r| r.is_ipv6() != ipv6) || gateway.is_some_and(|g| g.is_ipv6() != ipv6) {
                let hint = "fixed-cidr and default-gateway are IPv4, those with -v6 are IPv6";
                return wrong(key, "an address of the other family beside it".into(), hint);
            }
            if let (Some(bip), Some(range)) = (bip, range)
                && !(bip.contains(range.network()) && range.prefix() >= bip.prefix())
            {
                return wrong(
                    key,
                    format!("fixed-cidr {range} is not inside {bip}"),
                    "choose a part of the bridge's subnet",
                );
            }
            if let (Some(gateway), Some(subnet)) = (gateway, bip.or(range))
                && !subnet.contains(gateway)
            {
                let hint = "the default gateway must be on the bridge's subnet: set bip as well";
                return wrong(key, format!("default-gateway {gateway} is not inside {subnet}"), hint);
            }
        }
        Ok(())
    }

    /// Nothing when nothing is configured; else a text that changes when the configuration does.
    pub(super) fn fingerprint(&self) -> Option<String> {
        (*self != DefaultBridge::default()).then(|| format!("{self:?}"))
    }
}
