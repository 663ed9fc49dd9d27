//! The networking of a running container, held by its monitor.

use super::{Published, SandboxPlan, endpoint};
use crate::driver::bridge;
use crate::firewall::{self, Element};
use crate::model::{Endpoint, PortBinding};
use crate::networks::Netstack;
use crate::nl::Socket;
use crate::poll::Interest;
use crate::publish::Ports;
use plan::{Error, Result};
use std::net::IpAddr;
use std::time::Duration;

/// How long the kernel may take to destroy deleted elements. Closing an nfnetlink socket before
/// that waits for it, holding the lock that every other change of the host's firewall needs.
const DESTRUCTION: Duration = Duration::from_millis(60);

/// What a container needs of its monitor for as long as it runs: bound host ports, relays, the
/// resolver, and the one socket that added its firewall elements and will delete them.
pub struct Sandbox {
    netstack: Netstack,
    container_id: String,
    endpoints: Vec<Endpoint>,
    elements: Vec<Element>,
    ports: Option<Ports>,
    nft: Option<Socket>,
}

impl Sandbox {
    pub(crate) fn started(plan: SandboxPlan) -> Sandbox {
        let elements = bridge::published(&plan.endpoints, &plan.bindings);
        Sandbox {
            netstack: plan.netstack,
            container_id: plan.container_id,
            endpoints: plan.endpoints,
            elements,
            ports: plan.ports,
            nft: plan.nft,
        }
    }

    /// On every network it is on now.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    pub fn bindings(&self) -> &[PortBinding] {
        self.ports.as_ref().map_or(&[], |p| &p.bindings)
    }

    /// What the monitor's poll loop is to watch. May change after every [`Sandbox::ready`].
    pub fn fds(&self, out: &mut Vec<Interest>) {
        out.extend(self.ports.as_ref().and_then(Ports::interest));
    }

    /// When [`Sandbox::ready`] wants to be called even if nothing is ready.
    pub fn timeout(&self) -> Option<Duration> {
        self.ports.as_ref().and_then(Ports::timeout)
    }

    /// Does what can be done now; never blocks.
    pub fn ready(&mut self) {
        if let Some(ports) = &mut self.ports {
            ports.ready();
        }
    }

    /// Looks at the endpoints again, after somebody connected or disconnected a network: published
    /// ports follow the new default route.
    pub fn refresh(&mut self) -> Result<()> {
        self.endpoints = self.netstack.endpoints_of(&self.container_id)?;
        let wanted = bridge::published(&self.endpoints, self.bindings());
        let gone: Vec<Element> = self.elements.iter().filter(|e| !wanted.contains(e)).cloned().collect();
        let new: Vec<Element> = wanted.iter().filter(|e| !self.elements.contains(e)).cloned().collect();
        if let Some(nft) = &mut self.nft {
            firewall::withdraw(nft, &gone)?;
            firewall::publish(nft, &new)?;
        }
        self.elements = wanted;
        if let Some(ports) = &mut self.ports {
            ports.serve(bridge::target(&self.endpoints))?;
        }
        Ok(())
    }

    /// Takes everything back, as [`crate::repair::undo`] would from `undo.json`. What fails is
    /// reported, not repeated; the rest is done all the same.
    ///
    /// The result still holds the firewall socket: keep it until there is nothing else to do, then
    /// [`Closed::linger`].
    pub fn close(mut self) -> Closed {
        let mut failures = Vec::new();
        let mut note = |r: Result<()>| failures.extend(r.err());
        if let Some(nft) = &mut self.nft {
            note(firewall::withdraw(nft, &self.elements));
        }
        if let Some(ports) = self.ports.take() {
            note(ports.release());
        }
        for e in &self.endpoints {
            note(self.netstack.forget_endpoint(e));
        }
        Closed { failures, nft: self.nft }
    }
}

/// A sandbox that is no more, but for one socket.
pub struct Closed {
    /// What could not be taken back.
    pub failures: Vec<Error>,
    nft: Option<Socket>,
}

impl Closed {
    /// Waits until closing the socket costs nobody anything, and closes it.
    pub fn linger(self) {
        if self.nft.is_some() {
            std::thread::sleep(DESTRUCTION);
        }
    }
}

impl Netstack {
    /// The endpoints of one container, in order of their interfaces. One look into each network.
    pub fn endpoints_of(&self, container_id: &str) -> Result<Vec<Endpoint>> {
        let mut found: Vec<Endpoint> = Vec::new();
        let Ok(networks) = std::fs::read_dir(self.state.join("networks")) else { return Ok(found) };
        for network in networks.flatten() {
            let id = network.file_name().to_string_lossy().into_owned();
            let path = endpoint::record(&self.state, &id, container_id);
            found.extend(crate::networks::read_json::<Endpoint>(&path, crate::networks::VERSION, |e| e.version)?);
        }
        found.sort_by(|a, b| (a.ifname.len(), &a.ifname).cmp(&(b.ifname.len(), &b.ifname)));
        Ok(found)
    }

    /// The published ports of a running container.
    pub fn bindings_of(&self, container_id: &str) -> Result<Vec<PortBinding>> {
        Published::read(&self.state, container_id)
    }

    /// Record and leases.
    pub(crate) fn forget_endpoint(&self, e: &Endpoint) -> Result<()> {
        crate::repair::remove_file(&endpoint::record(&self.state, &e.network_id, &e.container_id))?;
        let leases = self.leases(&e.network_id);
        let mut locked = leases.lock()?;
        let v4 = e.ipv4.map(IpAddr::V4);
        let v6 = e.ipv6.map(IpAddr::V6);
        v4.into_iter().chain(v6).try_for_each(|ip| locked.release(ip, &e.container_id))
    }
}
