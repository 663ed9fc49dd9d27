//! Changing a network that exists, and the containers that run on it, as far as that can be.

use super::{BridgeOptions, Netstack, options};
use crate::driver;
use crate::firewall::{self, Element};
use crate::model::{Endpoint, Network};
use crate::nl::{self, Batch, Socket, Visit};
use plan::{Error, Result};
use std::collections::BTreeMap;
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsFd;

/// What is to be different.
#[derive(Clone, Debug, Default)]
pub struct NetworkUpdate {
    pub labels_add: BTreeMap<String, String>,
    pub labels_rm: Vec<String>,
    pub dns_add: Vec<IpAddr>,
    pub dns_drop: Vec<IpAddr>,
    /// Driver options, under Docker's names; an empty value takes one back.
    pub options: BTreeMap<String, String>,
}

/// What has become of it.
#[derive(Debug)]
pub struct Updated {
    pub network: Network,
    /// What holds only for containers that start from now on, one line each.
    pub notes: Vec<String>,
}

/// The options that mean nothing but what the next start, or the firewall, reads.
const CHANGEABLE: [&str; 3] = [options::ICC, options::HOST_BINDING, options::MTU];

impl Netstack {
    /// Records the change, and applies it to the bridge and to the containers on it. `netns` opens the
    /// network namespace of a running container; the calling process must be single-threaded.
    ///
    /// # Errors
    /// No such network; a value that cannot be; an option that only a new network can have.
    pub fn update(
        &self,
        wanted: &str,
        change: &NetworkUpdate,
        netns: impl Fn(&str) -> Option<File>,
    ) -> Result<Updated> {
        let _lock = self.lock()?;
        let mut network = self.network(wanted)?;
        if network.driver != "bridge" && !change.options.is_empty() {
            return Err(Error::conflict(format!(
                "options of a network of driver {} cannot be changed",
                network.driver
            ))
            .with_hint("labels and DNS servers can; for the rest make a new network"));
        }
        if matches!(network.name.as_str(), "host" | "none") {
            return Err(Error::conflict(format!("operation is not permitted on predefined {} network ", network.name))
                .with_hint("it has no settings"));
        }
        if network.created == plan::time::ZERO {
            // The default bridge before its first use: settled now, so that the change has a place.
            network.created = plan::time::now_rfc3339();
        }
        let before = BridgeOptions::of(&network);
        apply(&mut network, change)?;
        self.save(&network)?;
        let endpoints = self.endpoints(&network)?;
        let after = BridgeOptions::of(&network);
        if network.driver == "bridge" {
            self.follow(&network, &endpoints, &before, &after, netns)?;
        }
        let mut notes = Vec::new();
        if before.host_binding != after.host_binding && !endpoints.is_empty() {
            notes.push("published ports stay where they are until their container starts again".to_string());
        }
        Ok(Updated { network, notes })
    }

    /// The kernel follows the record.
    fn follow(
        &self,
        network: &Network,
        endpoints: &[Endpoint],
        before: &BridgeOptions,
        after: &BridgeOptions,
        netns: impl Fn(&str) -> Option<File>,
    ) -> Result<()> {
        let bridge = after.bridge_name(&network.id);
        let mut route = Socket::route()?;
        if route.ifindex(&bridge)?.is_none() {
            return Ok(());
        }
        if before.icc != after.icc {
            let mut nft = Socket::netfilter()?;
            let talkative = [Element::talkative(&bridge)];
            // First what forbids, last what allows: nothing is open for a moment that should not be.
            if !after.icc {
                firewall::delete(&mut nft, &talkative)?;
            }
            let mut batch = Batch::new();
            for e in endpoints {
                batch.isolate(0, &e.host_ifname, !after.icc);
            }
            run(&mut route, batch, || format!("isolate the containers on {bridge}"))?;
            if after.icc {
                firewall::add(&mut nft, &talkative)?
                    .map_err(|f| f.error(format!("tell the firewall about network {}", network.name)))?;
            }
        }
        if before.mtu != after.mtu {
            let mtu = driver::bridge::mtu(network).unwrap_or(DEFAULT_MTU);
            let mut batch = Batch::new();
            for name in endpoints.iter().map(|e| &e.host_ifname).chain([&bridge]) {
                batch.set_mtu(0, name, mtu);
            }
            run(&mut route, batch, || format!("set the MTU of {bridge} and its ports to {mtu}"))?;
            for e in endpoints {
                let Some(netns) = netns(&e.container_id) else { continue };
                let home = nl::current()?;
                let visit = Visit::enter(netns.as_fd(), home.as_fd())?;
                let mut batch = Batch::new();
                batch.set_mtu(0, &e.ifname, mtu);
                let done = run(&mut Socket::route()?, batch, || {
                    format!("set the MTU of {} in container {} to {mtu}", e.ifname, e.container_name)
                });
                drop(visit);
                done?;
            }
        }
        Ok(())
    }
}

/// Of a link that was not told another.
const DEFAULT_MTU: u32 = 1500;

/// A container that ends meanwhile takes its cable along.
fn run(route: &mut Socket, batch: Batch, doing: impl Fn() -> String) -> Result<()> {
    if batch.is_empty() {
        return Ok(());
    }
    match route.run(batch)? {
        Err(f) if f.errno != libc::ENODEV => Err(f.error(doing())),
        _ => Ok(()),
    }
}

/// The record's part.
fn apply(network: &mut Network, change: &NetworkUpdate) -> Result<()> {
    for key in &change.labels_rm {
        if network.labels.remove(key).is_none() {
            return Err(Error::not_found(format!("network {} has no label {key}", network.name))
                .with_hint("`rrun network inspect` shows its labels"));
        }
    }
    network.labels.extend(change.labels_add.clone());
    for ip in &change.dns_drop {
        let before = network.dns.len();
        network.dns.retain(|own| own != ip);
        if network.dns.len() == before {
            return Err(Error::not_found(format!("network {} has no DNS server {ip}", network.name))
                .with_hint("`rrun network inspect` shows its servers"));
        }
    }
    for ip in &change.dns_add {
        if !network.dns.contains(ip) {
            network.dns.push(*ip);
        }
    }
    for (key, value) in &change.options {
        if !CHANGEABLE.contains(&key.as_str()) {
            return Err(Error::conflict(format!("option {key} of network {} cannot be changed", network.name))
                .with_hint(format!("{} can; for the rest make a new network", CHANGEABLE.join(", "))));
        }
        match value.is_empty() {
            true => network.options.remove(key),
            false => network.options.insert(key.clone(), value.clone()),
        };
    }
    BridgeOptions::parse(&network.options).map(drop)
}
