//! Putting back what was lost behind our back, and taking away what is no longer wanted.

use crate::apply;
use crate::driver::{self, bridge, vlan};
use crate::firewall::{self, Element};
use crate::ipam::Leases;
use crate::model::{Endpoint, Network};
use crate::networks::vlan::is_vlan;
use crate::networks::{BridgeOptions, Netstack, VERSION, VlanOptions, read_json};
use crate::nl::{self, Batch, Socket, Visit};
use crate::publish;
use crate::sandbox::Published;
use crate::step::Step;
use plan::{HostThing, Result, ResultExt};
use std::collections::HashSet;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
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
    // So do the host's routes to an address, and its answers for one, while nobody else can have it.
    let routes: Vec<_> = things
        .iter()
        .filter_map(|t| match t {
            HostThing::Route { destination, device } => Some((*destination, device)),
            _ => None,
        })
        .collect();
    if !routes.is_empty() {
        note(Socket::route().and_then(|mut route| {
            routes.iter().try_for_each(|(ip, device)| apply::vlan::delete_host_route(&mut route, *ip, device))
        }));
    }
    for thing in things {
        if let HostThing::Neighbour { address, device } = thing {
            note(Socket::route().and_then(|mut route| apply::neighbour::delete_proxy(&mut route, *address, device)));
        }
    }
    for thing in things {
        match thing {
            HostThing::DnsRecord { path } => note(remove_file(path)),
            HostThing::Lease { path, owner } => note(release(path, owner)),
            HostThing::NftElement { .. }
            | HostThing::Route { .. }
            | HostThing::Neighbour { .. }
            | HostThing::CgroupDir { .. }
            | HostThing::VolumeMount { .. }
            | HostThing::StateDir { .. } => {}
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

/// Has another program loaded br_netfilter, so that bridged frames go through the IP rules?
pub(crate) fn br_netfilter() -> bool {
    std::fs::read("/proc/sys/net/bridge/bridge-nf-call-iptables").is_ok_and(|t| t.first() == Some(&b'1'))
}

/// As far as one may ask.
fn has_all<'a>(nft: &mut Socket, mut elements: impl Iterator<Item = &'a Element>) -> Result<bool> {
    elements.try_fold(true, |all, e| Ok(all && firewall::has(nft, e)? != Some(false)))
}

/// A set or map is flushed as a whole: of thousands of ports one element each says enough.
fn first_of_each_set(elements: &[Element]) -> impl Iterator<Item = &Element> {
    let mut seen = HashSet::new();
    elements.iter().filter(move |e| seen.insert(e.set()))
}

/// Removes a file; one that is not there is no error.
pub(crate) fn remove_file(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.doing(|| format!("remove {}", path.display())),
    }
}

impl Netstack {
    /// Compares bridges, firewall, plugged cables and parent interfaces with what the records say, and
    /// restores what is missing. Returns what it did, one line each; usually nothing.
    ///
    /// A network counts when a living container is on it; `netns` finds the namespace of one, which
    /// is entered when its device is gone. The calling process must be single-threaded.
    pub fn repair(&self, netns: impl Fn(&str) -> Option<OwnedFd>) -> Result<Vec<String>> {
        let mut done = self.repair_bridges()?;
        for network in self.networks()?.into_iter().filter(|n| is_vlan(&n.driver)) {
            done.extend(self.repair_vlan(&network, &netns)?);
        }
        Ok(done)
    }

    pub(crate) fn repair_bridges(&self) -> Result<Vec<String>> {
        let mut done = Vec::new();
        let mut in_use = Vec::new();
        for mut network in self.networks()?.into_iter().filter(|n| n.driver == "bridge") {
            if self.prefix_change(&network)?.is_some() {
                network = self.follow_prefix(network)?;
                done.push(format!("network {} followed to another prefix", network.name));
            }
            if !self.endpoints(&network)?.is_empty() {
                in_use.push(network);
            }
        }
        if in_use.is_empty() {
            return Ok(done);
        }
        let mut nft = Socket::netfilter()?;
        let mut route = Socket::route()?;
        let loaded = firewall::is_loaded(&mut nft)? == Some(false) && firewall::load(&mut nft)?;
        if loaded {
            done.push(format!("firewall table inet {} was missing, or another version's", firewall::TABLE));
        }
        done.extend(self.restore_elements(&mut nft, loaded)?);
        for network in &in_use {
            let options = BridgeOptions::of(network);
            let bridge = options.bridge_name(&network.id);
            if options.unmanaged && route.ifindex(&bridge)?.is_none() {
                // Nobody but its owner can make it.
                continue;
            }
            if route.ifindex(&bridge)?.is_some() {
                done.extend(apply::mend_bridge(&mut route, network)?);
            } else if apply::create_bridge(&mut route, network)? {
                done.push(format!("bridge {bridge} of network {} was missing", network.name));
            }
            done.extend(self.replug(&mut route, network)?);
            let answers = apply::neighbour::restore_proxies(&mut route, &self.endpoints(network)?)?;
            done.extend(answers.into_iter().map(|(ip, uplink)| format!("{uplink} did not answer for {ip}")));
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
        if loaded == Some(false) { self.repair_bridges() } else { Ok(Vec::new()) }
    }

    /// Parent, shim, the containers' devices (which die with their parent) and the host's routes.
    fn repair_vlan(&self, network: &Network, netns: impl Fn(&str) -> Option<OwnedFd>) -> Result<Vec<String>> {
        let mut done = Vec::new();
        let endpoints = self.endpoints(network)?;
        let mut route = Socket::route()?;
        if let Some(shim) = VlanOptions::of(network).shim_name(&network.id) {
            for ip in apply::vlan::stale_routes(&mut route, &shim, &endpoints)? {
                apply::vlan::delete_host_route(&mut route, ip, &shim)?;
                done.push(format!("the host still had a route to {ip} on network {}", network.name));
            }
        }
        if endpoints.is_empty() {
            return Ok(done);
        }
        let driver::Facts::Vlan(facts) = self.observe(network, &route, &mut None)? else { return Ok(done) };
        for step in vlan::prepare(network, facts) {
            done.push(format!("{} of network {} was missing", self.prepare(&mut route, &step)?, network.name));
        }
        for e in &endpoints {
            let Some(netns) = netns(&e.container_id) else { continue };
            let home = nl::current()?;
            let visit = Visit::enter(netns.as_fd(), home.as_fd())?;
            let there = Socket::route()?.ifindex(&e.ifname)?.is_some();
            drop(visit);
            if !there {
                self.replace_device(network, e, netns.as_fd())?;
                done.push(format!("{} of container {} was missing", e.ifname, e.container_name));
            } else if !facts.shim {
                // The routes went with the shim.
                for step in vlan::host_routes(network, e) {
                    self.prepare(&mut route, &step)?;
                }
            }
        }
        Ok(done)
    }

    /// Does one of the host's own steps of a macvlan or ipvlan network; the name of what it made.
    fn prepare(&self, route: &mut Socket, step: &Step) -> Result<String> {
        match step {
            Step::EnsureParent { parent, .. } => {
                apply::vlan::ensure_parent(route, parent).map(|_| format!("parent {}", parent.name()))
            }
            Step::EnsureShim(shim) => apply::vlan::ensure_shim(route, shim).map(|_| format!("shim {}", shim.name)),
            Step::HostRoute { ip, shim, source } => {
                apply::vlan::add_host_route(route, *ip, shim, *source).map(|()| format!("route to {ip}"))
            }
            _ => unreachable!("a macvlan or ipvlan network needs no other steps on the host"),
        }
    }

    /// The elements of every network in use and every published port of living containers. Those
    /// that are there already stay as they are. `all`: the table has just been written, so that the
    /// first of a container's elements says nothing about the rest.
    pub(crate) fn restore_elements(&self, nft: &mut Socket, all: bool) -> Result<Vec<String>> {
        let mut done = Vec::new();
        for network in self.networks()?.into_iter().filter(|n| n.driver == "bridge") {
            if self.endpoints(&network)?.is_empty() {
                continue;
            }
            let elements = firewall::network_elements(&network);
            if !all && has_all(nft, elements.iter())? {
                continue;
            }
            firewall::add(nft, &elements)?
                .map_err(|f| f.error(format!("tell the firewall about network {}", network.name)))?;
            done.push(format!("the firewall did not know network {}", network.name));
        }
        for id in self.living() {
            // One container's damaged record must not keep the others closed.
            let (Ok(bindings), Ok(endpoints)) = (Published::read(&self.state, &id), self.endpoints_of(&id)) else {
                continue;
            };
            let elements = bridge::published(&endpoints, &bindings);
            if !all && has_all(nft, first_of_each_set(&elements))? {
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
        let options = BridgeOptions::of(network);
        let hairpin = br_netfilter() && !options.unmanaged;
        let mut batch = Batch::new();
        for name in &loose {
            batch.enslave(0, name, index, !options.icc && !options.unmanaged, hairpin);
        }
        if !batch.is_empty() {
            route.run(batch)?.map_err(|f| f.error(format!("plug containers into bridge {bridge}")))?;
        }
        if let (Some(vlan), true) = (options.vlan, options.unmanaged) {
            loose.iter().try_for_each(|name| apply::join_vlan(route, name, vlan))?;
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

    pub(crate) fn living(&self) -> Vec<String> {
        std::fs::read_dir(self.state.join("containers"))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|e| e.file_name().into_string().ok())
            .collect()
    }

    /// Makes a new network's bridge (or parent interface and shim) and tells the firewall about it, as its first container would:
    /// `network create` does, so that the bridge can be seen and given routes at once.
    ///
    /// # Errors
    /// The kernel or `nft` refuses; the network is then as if it had not been set up.
    pub fn set_up(&self, network: &Network) -> Result<()> {
        let mut route = Socket::route()?;
        if is_vlan(&network.driver) {
            return match self.observe(network, &route, &mut None)? {
                driver::Facts::Vlan(facts) => {
                    vlan::prepare(network, facts).iter().try_for_each(|step| self.prepare(&mut route, step).map(drop))
                }
                driver::Facts::Bridge(_) => Ok(()),
            };
        }
        if network.driver != "bridge" {
            return Ok(());
        }
        let mut nft = Socket::netfilter()?;
        let mut facts = self.observe_bridge(network, &route, &mut nft)?;
        // A bridge that was there before lacks what this network adds to it.
        facts.bridge &= network.adopted_bridge().is_none();
        for step in bridge::prepare(network, facts) {
            match step {
                Step::EnableForwarding { ipv6 } => apply::enable_forwarding(ipv6)?,
                Step::EnsureFirewall => {
                    if firewall::load(&mut nft)? {
                        self.restore_elements(&mut nft, true)?;
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

    /// A removed network's bridge and elements, or parent interface and shim.
    pub(crate) fn dismantle(&self, network: &Network) -> Result<()> {
        let mut route = Socket::route()?;
        if is_vlan(&network.driver) {
            let parent = VlanOptions::of(network).parent_name(&network.id);
            let last = !self.networks()?.iter().any(|n| n.id != network.id && n.sits_on(&parent));
            return apply::vlan::dismantle(&mut route, network, last);
        }
        let mut nft = Socket::netfilter()?;
        apply::remove_bridge(&mut route, network)?;
        // After the bridge, so that it is never there without its rules.
        firewall::delete(&mut nft, &firewall::network_elements(network))
    }
}
