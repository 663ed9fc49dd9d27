//! Putting back what was lost behind our back, and taking away what is no longer wanted.

use crate::apply;
use crate::driver::bridge;
use crate::firewall::{self, Element};
use crate::ipam::Leases;
use crate::model::{Endpoint, Network};
use crate::networks::{BridgeOptions, Netstack, VERSION, read_json};
use crate::nl::{Batch, Socket};
use crate::publish;
use crate::sandbox::Published;
use crate::step::Step;
use plan::{HostThing, Result, ResultExt};
use std::net::IpAddr;
use std::path::Path;

/// Takes back what a container left on the host, from its undo list. For a container without a
/// monitor; a living monitor does the same with [`crate::sandbox::Sandbox::close`]. Idempotent:
/// what is gone is done. Cgroups and state directories are left to the caller.
///
/// The caller holds the container's lock, so that no second undo of the same list meets the next
/// owner of a port.
pub fn undo(things: &[HostThing]) -> Result<()> {
    let mut first = None;
    let mut note = |r: Result<()>| {
        if let Err(e) = r {
            first.get_or_insert(e);
        }
    };
    // A port is free for others when its lease is gone, so its elements go first.
    let elements: Vec<Element> = things
        .iter()
        .filter_map(|t| match t {
            HostThing::NftElement { set, element } => Some(Element::parse(set, element)),
            _ => None,
        })
        .filter_map(|parsed| parsed.map_err(|e| note(Err(e))).ok())
        .collect();
    if !elements.is_empty() {
        note(Socket::netfilter().and_then(|mut nft| firewall::retire(&mut nft, &elements)));
    }
    for thing in things {
        match thing {
            HostThing::DnsRecord { path } => note(remove_file(path)),
            HostThing::Lease { path, owner } => note(release(path, owner)),
            HostThing::NftElement { .. } | HostThing::CgroupDir { .. } | HostThing::StateDir { .. } => {}
        }
    }
    first.map_or(Ok(()), Err)
}

/// An address lease is freed under its network's lock, which also keeps the hint; any other is a
/// port's.
fn release(path: &Path, owner: &str) -> Result<()> {
    let address: Option<IpAddr> = path.file_name().and_then(|n| n.to_str()?.parse().ok());
    let network = path.parent().filter(|p| p.ends_with("leases")).and_then(Path::parent);
    match (address, network) {
        (Some(ip), Some(network)) => {
            if !path.exists() {
                return Ok(());
            }
            Leases::of_directory(network).lock()?.release(ip, owner)
        }
        _ => publish::release(path, owner),
    }
}

/// Removes a file; one that is not there is no error.
pub(crate) fn remove_file(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.doing(|| format!("remove {}", path.display())),
    }
}

impl Netstack {
    /// Compares bridges, firewall and plugged cables with what the records say, and restores what
    /// is missing. Returns what it did, one line each; usually nothing.
    ///
    /// A network counts when a living container is on it.
    pub fn repair(&self) -> Result<Vec<String>> {
        let mut done = Vec::new();
        let mut in_use = Vec::new();
        for network in self.networks()?.into_iter().filter(|n| n.driver == "bridge") {
            let endpoints = self.endpoints(&network)?;
            if !endpoints.is_empty() {
                in_use.push((network, endpoints));
            }
        }
        if in_use.is_empty() {
            return Ok(done);
        }
        let mut nft = Socket::netfilter()?;
        let mut route = Socket::route()?;
        if firewall::is_loaded(&mut nft)? == Some(false) && firewall::load(&mut nft)? {
            done.push(format!("firewall table inet {} was missing, or another version's", firewall::TABLE));
        }
        done.extend(self.restore_elements(&mut nft)?);
        for (network, _) in &in_use {
            let bridge = BridgeOptions::of(network).bridge_name(&network.id);
            if route.ifindex(&bridge)?.is_none() && apply::create_bridge(&mut route, network)? {
                done.push(format!("bridge {bridge} of network {} was missing", network.name));
            }
            done.extend(self.replug(&mut route, network)?);
        }
        Ok(done)
    }

    /// Notices that somebody flushed the firewall, and repairs it. One question to the kernel when all
    /// is well: every command that has to do with containers can afford it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn heal(&self) -> Result<Vec<String>> {
        if !self.state.join("networks").exists() {
            return Ok(Vec::new());
        }
        let loaded = firewall::is_loaded(&mut Socket::netfilter()?)?;
        if loaded == Some(false) { self.repair() } else { Ok(Vec::new()) }
    }

    /// The elements of every network in use and every published port of living containers. Those
    /// that are there already stay as they are.
    pub(crate) fn restore_elements(&self, nft: &mut Socket) -> Result<Vec<String>> {
        let mut done = Vec::new();
        for network in self.networks()?.into_iter().filter(|n| n.driver == "bridge") {
            if self.endpoints(&network)?.is_empty() || firewall::has_network(nft, &network)? == Some(true) {
                continue;
            }
            firewall::add(nft, &firewall::network_elements(&network))?
                .map_err(|f| f.error(format!("tell the firewall about network {}", network.name)))?;
            done.push(format!("the firewall did not know network {}", network.name));
        }
        for id in self.living() {
            // One container's damaged record must not keep the others closed.
            let (Ok(bindings), Ok(endpoints)) = (Published::read(&self.state, &id), self.endpoints_of(&id)) else {
                continue;
            };
            let elements = bridge::published(&endpoints, &bindings);
            let Some(first) = elements.first() else { continue };
            if firewall::has(nft, first)? == Some(true) {
                continue;
            }
            firewall::publish(nft, &elements)?;
            let name = endpoints.first().map_or(id.as_str(), |e| e.container_name.as_str());
            done.push(format!("the published ports of container {name} were missing"));
        }
        Ok(done)
    }

    /// Plugs the cables of living containers back into their network's bridge.
    pub(crate) fn replug(&self, route: &mut Socket, network: &Network) -> Result<Vec<String>> {
        let endpoints = self.endpoints(network)?;
        let bridge = BridgeOptions::of(network).bridge_name(&network.id);
        let Some(index) = route.ifindex(&bridge)?.filter(|_| !endpoints.is_empty()) else { return Ok(Vec::new()) };
        let loose: Vec<String> = route
            .links()?
            .into_iter()
            .filter(|l| l.master != Some(index) && endpoints.iter().any(|e| e.host_ifname == l.name))
            .map(|l| l.name)
            .collect();
        let isolated = !BridgeOptions::of(network).icc;
        let mut batch = Batch::new();
        for name in &loose {
            batch.enslave(0, name, index, isolated);
        }
        if !batch.is_empty() {
            route.run(batch)?.map_err(|f| f.error(format!("plug containers into bridge {bridge}")))?;
        }
        Ok(loose.into_iter().map(|name| format!("{name} was not plugged into {bridge}")).collect())
    }

    /// Removes endpoints and leases whose container is gone. For the clean-up after kill -9.
    pub fn sweep(&self) -> Result<()> {
        let Ok(networks) = std::fs::read_dir(self.state.join("networks")) else { return Ok(()) };
        for dir in networks.flatten() {
            let leases = self.leases(&dir.file_name().to_string_lossy());
            let mut locked = leases.lock()?;
            for (ip, owner) in leases.all() {
                if leases.owner(ip).is_none() && !leases.is_remembered(&owner) {
                    locked.release(ip, &owner)?;
                }
            }
            for entry in std::fs::read_dir(dir.path().join("endpoints")).into_iter().flatten().flatten() {
                if let Ok(Some(e)) = read_json::<Endpoint>(&entry.path(), VERSION, |e| e.version)
                    && !self.state.join("containers").join(&e.container_id).is_dir()
                {
                    remove_file(&entry.path())?;
                }
            }
        }
        Ok(())
    }

    fn living(&self) -> Vec<String> {
        std::fs::read_dir(self.state.join("containers"))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|e| e.file_name().into_string().ok())
            .collect()
    }

    /// Makes a new network's bridge and tells the firewall about it, as its first container would:
    /// `network create` does, so that the bridge can be seen and given routes at once.
    ///
    /// # Errors
    /// The kernel or `nft` refuses; the network is then as if it had not been set up.
    pub fn set_up(&self, network: &Network) -> Result<()> {
        if network.driver != "bridge" {
            return Ok(());
        }
        let mut nft = Socket::netfilter()?;
        let mut route = Socket::route()?;
        let facts = self.observe(network, &route, &mut nft)?;
        for step in bridge::prepare(network, facts) {
            match step {
                Step::EnableForwarding { ipv6 } => apply::enable_forwarding(ipv6)?,
                Step::EnsureFirewall => {
                    if firewall::load(&mut nft)? {
                        self.restore_elements(&mut nft)?;
                    }
                }
                Step::AdmitNetwork { network, elements } => firewall::add(&mut nft, &elements)?
                    .map_err(|f| f.error(format!("tell the firewall about network {network}")))?,
                Step::EnsureBridge { .. } => {
                    apply::create_bridge(&mut route, network).inspect_err(|_| {
                        // The error to tell is the bridge's; a network without one admits nobody.
                        let _ = firewall::delete(&mut nft, &firewall::network_elements(network));
                    })?;
                }
                _ => unreachable!("a network needs no other steps"),
            }
        }
        Ok(())
    }

    /// A removed network's bridge and elements.
    pub(crate) fn dismantle(&self, network: &Network) -> Result<()> {
        let mut nft = Socket::netfilter()?;
        let bridge = BridgeOptions::of(network).bridge_name(&network.id);
        let mut route = Socket::route()?;
        if !network.adopted_bridge() && route.ifindex(&bridge)?.is_some() {
            let mut batch = Batch::new();
            batch.delete_link(0, &bridge);
            match route.run(batch)? {
                Err(f) if f.errno != libc::ENODEV => return Err(f.error(format!("delete bridge {bridge}"))),
                _ => {}
            }
        }
        // After the bridge, so that it is never there without its rules.
        firewall::delete(&mut nft, &firewall::network_elements(network))
    }
}
