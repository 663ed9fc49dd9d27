//! The networks that are always there: `bridge`, as the configuration wants it, `host` and `none`.

use super::config::DefaultBridge;
use super::{Netstack, VERSION, options, vlan};
use crate::ipam;
use crate::ipam::range::IpRange;
use crate::model::{Network, Pool};
use ipnetwork::IpNetwork;
use plan::Result;
use sha2::{Digest, Sha256};
use std::net::IpAddr;

/// The three networks that are always there, and their drivers.
pub(super) const PREDEFINED: [(&str, &str); 3] = [("bridge", "bridge"), ("host", "host"), ("none", "null")];

/// In the record of the default bridge: the configuration that it was made from.
const CONFIGURED: &str = "configured";

/// Is this the name of a network that is always there?
pub fn is_predefined(name: &str) -> bool {
    PREDEFINED.iter().any(|(n, _)| *n == name)
}

/// The same on every machine: they are names, not things.
pub fn predefined_id(name: &str) -> String {
    Sha256::digest(format!("rrun predefined network {name}")).iter().map(|b| format!("{b:02x}")).collect()
}

impl Netstack {
    /// A predefined network as it is, or would be, at its first use. Writes nothing.
    pub(super) fn predefined(&self, name: &str, driver: &str, others: &[Network]) -> Result<Network> {
        let mut network = Network {
            version: VERSION,
            id: predefined_id(name),
            name: name.to_string(),
            driver: driver.to_string(),
            // Docker's "never": nothing is on record yet.
            created: plan::time::ZERO.to_string(),
            enable_ipv4: true,
            ..Network::default()
        };
        if driver == "bridge" {
            self.configure(&mut network, others)?;
        }
        Ok(network)
    }

    fn configure(&self, network: &mut Network, others: &[Network]) -> Result<()> {
        let wanted = &self.config.bridge;
        network.options.insert(options::NAME.into(), "rrun0".into());
        for (option, value) in [(options::ICC, wanted.icc), (options::MASQUERADE, wanted.ip_masq)] {
            network.options.extend(value.map(|v| (option.to_string(), v.to_string())));
        }
        network.options.extend(wanted.mtu.map(|mtu| (options::MTU.to_string(), mtu.to_string())));
        network.extra.extend(wanted.fingerprint().map(|f| (CONFIGURED.to_string(), f.into())));
        network.enable_ipv6 = wanted.ipv6 || wanted.bip6.is_some() || wanted.fixed_cidr_v6.is_some();

        let surroundings = self.surroundings(others, Some("rrun0"), &[])?;
        network.inherited_mtu = surroundings.way_out_mtu;
        let v4 = match wanted.subnet(false) {
            Some(subnet) => subnet,
            None => surroundings.pick(&self.config.bridge_pools(), false)?,
        };
        network.pools.push(wanted.pool(v4));
        if network.enable_ipv6 {
            let v6 = match wanted.subnet(true) {
                Some(subnet) => subnet,
                None => surroundings.pick(&self.ipv6_pools()?, true)?,
            };
            network.pools.push(wanted.pool(v6));
        }
        Ok(())
    }

    /// Is this record what the configuration says now? The default bridge follows the configuration
    /// as soon as nobody uses it.
    pub(super) fn is_current(&self, network: &Network) -> bool {
        if network.name != "bridge" || network.id != predefined_id("bridge") {
            return true;
        }
        let made_from = network.extra.get(CONFIGURED).and_then(|f| f.as_str());
        made_from == self.config.bridge.fingerprint().as_deref()
            || self.endpoints(network).is_ok_and(|users| !users.is_empty())
    }

    /// Makes the choice of [`Netstack::predefined`] last, when the default bridge is used first, and
    /// that of an automatic network.
    /// Returns what is on record, which another process may have decided a moment before.
    pub(crate) fn settle(&self, network: Network) -> Result<Network> {
        if network.created != plan::time::ZERO {
            return Ok(network);
        }
        let _lock = self.lock()?;
        if vlan::is_vlan(&network.driver) {
            return self.settle_automatic(network);
        }
        let old = self.load(&self.record(&network.id))?;
        match old {
            Some(settled) if self.is_current(&settled) => return Ok(settled),
            // Made from another configuration: its bridge has the wrong addresses.
            Some(old) => self.dismantle(&old)?,
            None => {}
        }
        // Choose again: another network may have been created since.
        let mut others = self.stored()?;
        others.retain(|n| n.id != network.id);
        let mut network = self.predefined(&network.name, &network.driver, &others)?;
        network.created = plan::time::now_rfc3339();
        self.save(&network)?;
        Ok(network)
    }

    fn settle_automatic(&self, network: Network) -> Result<Network> {
        if let Some(settled) = self.load(&self.record(&network.id))? {
            return Ok(settled);
        }
        let mut network = self.joinable(&network.name)?;
        if network.created == plan::time::ZERO {
            network.created = plan::time::now_rfc3339();
            self.save(&network)?;
        }
        Ok(network)
    }
}

impl DefaultBridge {
    /// `bip` says which; `fixed-cidr` alone does too.
    fn subnet(&self, ipv6: bool) -> Option<IpNetwork> {
        let (bip, range) = if ipv6 { (self.bip6, self.fixed_cidr_v6) } else { (self.bip, self.fixed_cidr) };
        bip.or(range).and_then(|net| IpNetwork::new(net.network(), net.prefix()).ok())
    }

    fn pool(&self, subnet: IpNetwork) -> Pool {
        let ipv6 = subnet.is_ipv6();
        let (bip, range, gateway) = if ipv6 {
            (self.bip6, self.fixed_cidr_v6, self.default_gateway_v6)
        } else {
            (self.bip, self.fixed_cidr, self.default_gateway)
        };
        let own: Option<IpAddr> = bip.map(|b| b.ip()).or_else(|| ipam::default_gateway(subnet));
        // The bridge keeps its address, containers go to the other.
        let elsewhere = gateway.filter(|g| Some(*g) != own);
        let aux = elsewhere.map(|g| (Pool::default_gateway_name(ipv6).to_string(), g)).into_iter().collect();
        Pool { subnet, ip_range: range.filter(|_| bip.is_some()).map(IpRange::from), gateway: own, aux }
    }
}
