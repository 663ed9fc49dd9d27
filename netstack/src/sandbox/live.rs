//! The networking of a running container, held by its monitor.

use super::announce::Announcer;
use super::doors::Doors;
use super::follow::Watcher;
use super::ports::exactly;
use super::{Files, Published, SandboxPlan, SandboxRequest, endpoint};
use crate::apply;
use crate::dhcp::Keeper;
use crate::dns::{self, SharedNetwork};
use crate::driver::bridge;
use crate::egress::Gate;
use crate::firewall::{self, Element};
use crate::mdns;
use crate::model::{Endpoint, PortBinding};
use crate::networks::{Netstack, VERSION, read_json, write_json};
use crate::nl::{self, Socket, Visit};
use crate::poll::Interest;
use crate::publish::{self, HostLoopback, Ports};
use plan::{Error, Result, ResultExt};
use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

/// How long the kernel may take to destroy deleted elements. Closing an nfnetlink socket before
/// that waits for it, holding the lock that every other change of the host's firewall needs.
const DESTRUCTION: Duration = Duration::from_millis(60);

/// How often the kernel repeats itself on a connection whose program is gone; unset, eight times.
const ORPHAN_RETRIES: &str = "/proc/sys/net/ipv4/tcp_orphan_retries";

/// The host's resolver configuration, whose servers the embedded one asks.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// What a container needs of its monitor for as long as it runs: bound host ports, relays, the
/// resolver, and the one socket that added its firewall elements and will delete them.
pub struct Sandbox {
    pub(super) netstack: Netstack,
    pub(super) request: SandboxRequest,
    /// Keeps the namespace until [`Sandbox::close`]: networks may be connected meanwhile.
    pub(super) netns: OwnedFd,
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) elements: Vec<Element>,
    pub(super) ports: Option<Ports>,
    resolver: Option<dns::Server>,
    loopback: Option<HostLoopback>,
    files: Option<Files>,
    pub(super) nft: Option<Socket>,
    pub(super) announcer: Announcer,
    pub(super) keepers: Vec<Keeper>,
    pub(super) watcher: Option<Watcher>,
    /// Of its networks with multicast DNS.
    reflectors: Vec<mdns::Member>,
}

impl Sandbox {
    pub(crate) fn started(plan: SandboxPlan, netns: BorrowedFd<'_>) -> Result<Sandbox> {
        let elements = bridge::published(&plan.endpoints, &plan.bindings);
        let mut sandbox = Sandbox {
            netstack: plan.netstack,
            request: plan.request,
            netns: duplicate(netns)?,
            endpoints: plan.endpoints,
            elements,
            ports: plan.ports,
            resolver: None,
            loopback: plan.loopback,
            files: plan.files,
            nft: plan.nft,
            announcer: Announcer::default(),
            keepers: Vec::new(),
            watcher: None,
            reflectors: Vec::new(),
        };
        sandbox.announcer.start(&sandbox.endpoints);
        sandbox.keep_leases()?;
        sandbox.watch_prefixes()?;
        sandbox.join_mdns();
        if let Some(sockets) = plan.resolver {
            sandbox.start_resolver(sockets, false)?;
        }
        Ok(sandbox)
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
        out.extend(self.resolver.as_ref().map(dns::Server::interest));
        out.extend(self.loopback.as_ref().map(HostLoopback::interest));
        out.extend(self.keepers.iter().filter_map(Keeper::interest));
        out.extend(self.watched());
        out.extend(self.reflectors.iter().filter_map(mdns::Member::interest));
    }

    /// When [`Sandbox::ready`] wants to be called even if nothing is ready.
    pub fn timeout(&self) -> Option<Duration> {
        let ports = self.ports.as_ref().and_then(Ports::timeout);
        let resolver = self.resolver.as_ref().and_then(dns::Server::timeout);
        let loopback = self.loopback.as_ref().and_then(HostLoopback::timeout);
        let leases = self.keepers.iter().map(Keeper::timeout);
        let mdns = self.reflectors.iter().filter_map(mdns::Member::timeout);
        let own = self.announcer.timeout().into_iter().chain(self.next_look()).chain(mdns);
        ports.into_iter().chain(resolver).chain(loopback).chain(own).chain(leases).min()
    }

    /// Does what can be done now; never blocks.
    pub fn ready(&mut self) {
        if let Some(ports) = &mut self.ports {
            ports.ready();
        }
        if let Some(resolver) = &mut self.resolver {
            resolver.ready();
        }
        if let Some(loopback) = &mut self.loopback {
            loopback.ready();
        }
        self.announcer.ready(self.netns.as_fd());
        self.renew_leases();
        self.look_at_prefixes();
        self.reflectors.iter_mut().for_each(mdns::Member::ready);
    }

    /// Looks at the endpoints again, after somebody connected or disconnected a network: published
    /// ports follow the new default route, names and files the new set of networks.
    pub fn refresh(&mut self) -> Result<()> {
        let id = self.request.container_id.clone();
        let before = std::mem::replace(&mut self.endpoints, self.netstack.endpoints_of(&id)?);
        let joined = self.endpoints.iter().filter(|e| !before.iter().any(|b| b.network_id == e.network_id));
        self.announcer.start(joined);
        self.keep_leases()?;
        self.watch_prefixes()?;
        self.join_mdns();
        if Doors::of(&before) != Doors::of(&self.endpoints)
            && let Some(ports) = self.ports.take()
        {
            // Another kind of network is in charge now: host ports become container ports, or the reverse.
            // Or none is, and they wait for one: closed first, and only then free for others.
            if bridge::any_publishing_endpoint(&self.endpoints).is_none() {
                let closed = std::mem::take(&mut self.elements);
                firewall::withdraw(self.firewall()?, &closed)?;
            }
            ports.release()?;
            self.record()?;
        }
        self.reserve()?;
        let wanted = bridge::published(&self.endpoints, self.bindings());
        let without = |all: &[Element], some: &[Element]| -> Vec<Element> {
            let some: HashSet<&Element> = some.iter().collect();
            all.iter().filter(|e| !some.contains(e)).cloned().collect()
        };
        let (gone, new) = (without(&self.elements, &wanted), without(&wanted, &self.elements));
        if !gone.is_empty() || !new.is_empty() {
            let nft = self.firewall()?;
            firewall::withdraw(nft, &gone)?;
            firewall::publish(nft, &new)?;
        }
        self.elements = wanted;
        self.serve()?;
        let named = self.wants_resolver();
        let (shared, forwards) = (self.shared(), self.forwards_to_host());
        match &mut self.resolver {
            Some(resolver) => resolver.set_networks(&shared, forwards),
            None if named => {
                let home = nl::current()?;
                let visit = Visit::enter(self.netns.as_fd(), home.as_fd())?;
                let sockets = dns::bind_in_current_netns()?;
                drop(visit);
                self.start_resolver(sockets, true)?;
            }
            None => {}
        }
        self.lead_to_loopback()?;
        self.netstack.export_names()?;
        self.rewrite_files(&before)
    }

    /// The host's own loopback is called by the gateways there are now; a monitor that took over has no sockets yet.
    fn lead_to_loopback(&mut self) -> Result<()> {
        let gateways = publish::gateways(&self.endpoints);
        let there = self.loopback.as_ref().is_some_and(|l| l.leads(&gateways));
        if there || self.request.host_loopback.is_empty() {
            return Ok(());
        }
        let home = nl::current()?;
        let _visit = Visit::enter(self.netns.as_fd(), home.as_fd())?;
        match &mut self.loopback {
            Some(loopback) => loopback.lead(gateways),
            none => {
                *none = Some(HostLoopback::open_in_current_netns(&self.request.host_loopback, gateways)?);
                Ok(())
            }
        }
    }

    /// Ports of a container that started on internal networks only wait for one that is not.
    fn reserve(&mut self) -> Result<()> {
        let Some(through) = bridge::any_publishing_endpoint(&self.endpoints) else { return Ok(()) };
        if self.ports.is_some() || self.request.ports.is_empty() {
            return Ok(());
        }
        let default = self.netstack.default_bind(&self.netstack.network(&through.network_id)?);
        let (specs, routed) = Doors::of(&self.endpoints).split(&self.request.ports, default)?;
        let mut ports = publish::reserve(&self.netstack.state, &self.request.container_id, &specs, default)?;
        ports.bindings.extend(routed);
        self.ports = Some(ports);
        self.record()
    }

    /// One member for each network that has it.
    fn join_mdns(&mut self) {
        self.reflectors.retain(|m| self.endpoints.iter().any(|e| e.network_id == m.network_id));
        let new = self.endpoints.iter().filter(|e| !self.reflectors.iter().any(|m| m.network_id == e.network_id));
        let new: Vec<_> = new.filter_map(|e| mdns::Member::of(&self.netstack, e)).collect();
        self.reflectors.extend(new);
    }

    /// A container with an egress policy has a resolver on the default bridge as well: names open
    /// doors there too.
    fn wants_resolver(&self) -> bool {
        self.request.egress.is_some() || self.endpoints.iter().any(Endpoint::has_names)
    }

    /// `resumed`: an earlier monitor may have let the container out to addresses already.
    fn start_resolver(&mut self, sockets: dns::Sockets, resumed: bool) -> Result<()> {
        let gate = match &self.request.egress {
            Some(policy) => {
                let home = nl::current()?;
                let _visit = Visit::enter(self.netns.as_fd(), home.as_fd())?;
                Some(Gate::new(policy.clone(), resumed)?)
            }
            None => None,
        };
        let server = dns::Server::new(
            sockets,
            dns::Config {
                state: self.netstack.state.clone(),
                records: self.netstack.root.join("networks"),
                networks: self.shared(),
                servers: self.request.dns.servers.clone(),
                forwards_to_host: self.forwards_to_host(),
                resolv_conf: PathBuf::from(RESOLV_CONF),
                netns: duplicate(self.netns.as_fd())?,
                gate,
            },
        )?;
        self.resolver = Some(server);
        Ok(())
    }

    /// What its resolver has done; `None` without one.
    pub fn dns_counters(&self) -> Option<dns::Counters> {
        self.resolver.as_ref().map(dns::Server::counters)
    }

    /// What its health check has found, for the resolvers of its neighbours ([`Endpoint::health`]).
    pub fn set_health(&self, health: &str) -> Result<()> {
        self.netstack.endpoints_of(&self.request.container_id)?.into_iter().try_for_each(|mut e| {
            e.health = Some(health.to_string());
            write_json(&endpoint::record(&self.netstack.state, &e.network_id, &e.container_id), &e)
        })
    }

    /// The networks whose names it may ask for. The default bridge has none.
    fn shared(&self) -> Vec<SharedNetwork> {
        self.endpoints
            .iter()
            .filter(|e| e.has_names())
            .map(|e| SharedNetwork { id: e.network_id.clone(), name: e.network.clone(), links: e.links.clone() })
            .collect()
    }

    /// Internal networks leak nothing, not even questions.
    fn forwards_to_host(&self) -> bool {
        self.endpoints.iter().any(|e| !e.internal)
    }

    /// What the container's programs wrote into the files stays there.
    pub(super) fn rewrite_files(&mut self, before: &[Endpoint]) -> Result<()> {
        let Some(old) = &self.files else { return Ok(()) };
        let named = self.wants_resolver();
        let Some(new) = self.netstack.files(&self.request, &self.endpoints, named) else { return Ok(()) };
        let hosts = old.dir.join("hosts");
        let now = std::fs::read_to_string(&hosts).unwrap_or_default();
        let text =
            if now == old.hosts { new.hosts.clone() } else { merge_hosts(&now, before, &new.hosts, &self.endpoints) };
        apply::write_in_place(&hosts, &text)?;
        let resolv_conf = old.dir.join("resolv.conf");
        if std::fs::read_to_string(&resolv_conf).is_ok_and(|now| now == old.resolv_conf) {
            apply::write_in_place(&resolv_conf, &new.resolv_conf)?;
        }
        self.files = Some(new);
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
        if !self.elements.is_empty() && self.nft.is_none() {
            // Of a monitor that took over: the socket that added them died with the first one.
            match Socket::netfilter() {
                Ok(socket) => self.nft = Some(socket),
                Err(e) => note(Err(e)),
            }
        }
        if let Some(nft) = &mut self.nft {
            note(firewall::retire(nft, &self.elements));
        }
        if let Some(ports) = self.ports.take() {
            note(ports.release());
        }
        for keeper in &self.keepers {
            note(keeper.release(self.netns.as_fd()));
        }
        for e in &self.endpoints {
            // A lease whose owner does not run is free; left behind, its owner finds it again.
            note(match self.request.keep_addresses {
                true => self.netstack.forget_record(e),
                false => self.netstack.forget_endpoint(e),
            });
        }
        note(self.netstack.export_names());
        // Nothing was deleted on a socket that published nothing: closing it is free.
        let nft = self.nft.take().filter(|_| !self.elements.is_empty());
        let netns = (!self.endpoints.is_empty()).then_some(self.netns);
        Closed { failures, nft, netns }
    }
}

/// The lines of addresses that are gone leave an edited hosts file, those of new ones join it.
fn merge_hosts(now: &str, before: &[Endpoint], rendered: &str, after: &[Endpoint]) -> String {
    let addresses = |endpoints: &[Endpoint]| -> Vec<String> {
        let v4 = endpoints.iter().filter_map(|e| e.ipv4.map(|ip| ip.to_string()));
        let v6 = endpoints.iter().filter_map(|e| e.ipv6.map(|ip| ip.to_string()));
        let hosts = endpoints.iter().filter(|e| e.host_is_gateway);
        let hosts = hosts.flat_map(|e| {
            [e.gateway4.map(|ip| ip.to_string()), e.gateway6.map(|ip| ip.to_string())].into_iter().flatten()
        });
        v4.chain(v6).chain(hosts).collect()
    };
    let (before, after) = (addresses(before), addresses(after));
    let first = |line: &str| line.split_whitespace().next().unwrap_or_default().to_string();
    let kept = now.lines().filter(|l| !before.contains(&first(l)) || after.contains(&first(l)));
    let new = rendered.lines().filter(|l| after.contains(&first(l)) && !before.contains(&first(l)));
    kept.chain(new).map(|l| format!("{l}\n")).collect()
}

fn duplicate(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    fd.try_clone_to_owned().doing(|| "duplicate the descriptor of the container's network namespace")
}

/// A sandbox that is no more, but for one socket.
pub struct Closed {
    /// What could not be taken back.
    pub failures: Vec<Error>,
    nft: Option<Socket>,
    netns: Option<OwnedFd>,
}

impl Closed {
    /// Lets go of the namespace. What its programs wrote last is still delivered: a connection that they
    /// left open keeps the namespace, its cable and its address until the peer has everything. A peer that
    /// is gone itself would keep them for two minutes, in which the address may be another container's and
    /// each repetition teaches the bridge the wrong port: so the kernel repeats for three seconds only.
    pub fn abandon(&mut self) {
        let Some(netns) = self.netns.take() else { return };
        // At worst it takes the kernel's own time.
        let _ = nl::current().and_then(|home| {
            let _visit = Visit::enter(netns.as_fd(), home.as_fd())?;
            std::fs::write(ORPHAN_RETRIES, "2").doing(|| format!("write {ORPHAN_RETRIES}"))
        });
    }

    /// Waits until closing the socket costs nobody anything, and closes it.
    pub fn linger(self) {
        if self.nft.is_some() {
            std::thread::sleep(DESTRUCTION);
        }
    }
}

impl Netstack {
    /// The networking of a running container whose monitor was killed, held anew: its host ports,
    /// relays, resolver, and the means to take everything back. What the kernel has of it stays as
    /// it is.
    pub fn resume(&self, request: &SandboxRequest, netns: BorrowedFd<'_>) -> Result<Sandbox> {
        let endpoints = self.endpoints_of(&request.container_id)?;
        let bindings = self.bindings_of(&request.container_id)?;
        let mut request = request.clone();
        // The ports that were chosen then, not what would be chosen now.
        if !bindings.is_empty() {
            request.ports = bindings.iter().map(exactly).collect();
        }
        let named = request.egress.is_some() || endpoints.iter().any(Endpoint::has_names);
        let mut sandbox = Sandbox {
            netstack: self.clone(),
            netns: duplicate(netns)?,
            elements: bridge::published(&endpoints, &bindings),
            files: self.files(&request, &endpoints, named),
            request,
            endpoints,
            ports: None,
            resolver: None,
            loopback: None,
            nft: None,
            announcer: Announcer::default(),
            keepers: Vec::new(),
            watcher: None,
            reflectors: Vec::new(),
        };
        sandbox.refresh()?;
        Ok(sandbox)
    }

    /// The endpoints of one container, in order of their interfaces. One look into each network.
    pub fn endpoints_of(&self, container_id: &str) -> Result<Vec<Endpoint>> {
        let mut found: Vec<Endpoint> = Vec::new();
        let Ok(networks) = std::fs::read_dir(self.state.join("networks")) else { return Ok(found) };
        for network in networks.flatten() {
            let id = network.file_name().to_string_lossy().into_owned();
            let path = endpoint::record(&self.state, &id, container_id);
            found.extend(read_json::<Endpoint>(&path, VERSION, |e| e.version)?);
        }
        found.sort_by(|a, b| (a.ifname.len(), &a.ifname).cmp(&(b.ifname.len(), &b.ifname)));
        Ok(found)
    }

    /// A running container is called `new` from now on; its neighbours ask by that name.
    pub fn rename(&self, container_id: &str, old: &str, new: &str) -> Result<()> {
        for mut e in self.endpoints_of(container_id)? {
            e.container_name = new.to_string();
            e.dns_names.iter_mut().filter(|name| *name == old).for_each(|name| *name = new.to_string());
            write_json(&endpoint::record(&self.state, &e.network_id, container_id), &e)?;
            endpoint::note_rename(&self.state, &e.network_id)?;
        }
        Ok(())
    }

    /// The published ports of a running container.
    pub fn bindings_of(&self, container_id: &str) -> Result<Vec<PortBinding>> {
        Published::read(&self.state, container_id)
    }

    /// The host's routes and answers, and the record.
    fn forget_record(&self, e: &Endpoint) -> Result<()> {
        if let Some(shim) = &e.shim {
            let mut route = Socket::route()?;
            e.addresses().try_for_each(|ip| apply::vlan::delete_host_route(&mut route, ip, shim))?;
        }
        for (ip, uplink) in e.answered() {
            apply::neighbour::delete_proxy(&mut Socket::route()?, ip, &uplink)?;
        }
        crate::repair::remove_file(&endpoint::record(&self.state, &e.network_id, &e.container_id))
    }

    /// All of it, leases too.
    pub(crate) fn forget_endpoint(&self, e: &Endpoint) -> Result<()> {
        self.forget_record(e)?;
        let leases = self.leases(&e.network_id);
        let mut locked = leases.lock()?;
        e.addresses().try_for_each(|ip| locked.release(ip, &e.container_id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::tests::endpoint;

    #[test]
    fn an_edited_hosts_file_keeps_its_edits() {
        let (a, b) = (endpoint("a", "10.1.0.2", None), endpoint("b", "10.2.0.2", None));
        let rendered = "127.0.0.1\tlocalhost\n10.2.0.2\tweb\n";
        let edited = "127.0.0.1\tlocalhost\n10.1.0.2\tweb\n10.9.9.9\tmine\n";
        assert_eq!(merge_hosts(edited, &[a], rendered, &[b]), "127.0.0.1\tlocalhost\n10.9.9.9\tmine\n10.2.0.2\tweb\n");
    }
}
