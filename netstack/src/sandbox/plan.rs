//! Deciding a whole sandbox.

use super::doors::Doors;
use super::request::{self, Mode, SandboxRequest};
use super::{Files, Own, SandboxPlan, compose, endpoint, vrf};
use crate::driver::bridge::any_publishing_endpoint;
use crate::driver::{Facts, bridge, vlan};
use crate::files::{self, Resolver};
use crate::firewall;
use crate::model::{Endpoint, Network, PortBinding};
use crate::networks::vlan::is_vlan;
use crate::networks::{BridgeOptions, Netstack, VlanOptions, automatic};
use crate::nl::Socket;
use crate::publish::{self, Ports};
use crate::rate::Rate;
use crate::step::Step;
use plan::{Error, Result};
use std::net::IpAddr;

impl Netstack {
    /// Decides a container's networking. With [`Mode::Real`] the addresses are leased and the ports
    /// reserved when this returns: write [`SandboxPlan::undo`] down, then apply. When it fails,
    /// nothing is left taken.
    ///
    /// Errors carry Docker's texts: `network X not found`, `Address already in use`, `no available
    /// IPv4 addresses on this network's address pools: NAME (ID)`, `Bind for … failed: port is
    /// already allocated`, …
    pub fn plan_sandbox(&self, request: &SandboxRequest, mode: Mode) -> Result<SandboxPlan> {
        if request.host_network || request.endpoints.is_empty() {
            return Ok(self.trivial(request));
        }
        let mut route = Socket::route()?;
        let mut nft = None;
        let mut warnings = Vec::new();
        let mut networks: Vec<(Network, Facts)> = Vec::new();
        for config in &request.endpoints {
            let mut network = self.joinable(&config.network)?;
            request::joinable(&network)?;
            if network.driver != "bridge" && !is_vlan(&network.driver) {
                return Err(Error::invalid(
                    "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
                )
                .with_hint(format!("network {} excludes all others", network.name)));
            }
            if networks.iter().any(|(n, _)| n.id == network.id) {
                return Err(Error::invalid(format!("network {:?} is specified multiple times", network.name))
                    .with_hint("name it once"));
            }
            if mode == Mode::Real {
                warnings.extend(automatic::announcement(&network));
                network = self.follow_prefix(self.settle(network)?)?;
            }
            let facts = self.observe(&network, &route, &mut nft)?;
            networks.push((network, facts));
        }

        let mut endpoints: Vec<Endpoint> = Vec::new();
        let mut macs = Vec::new();
        let decided = self.decide_all(request, &networks, mode, &route, &mut endpoints, &mut macs);
        let decided = decided.and_then(|()| bridge::check_routes(&endpoints));
        let reachable = || if request.host_loopback.is_empty() { Ok(()) } else { publish::check_loopback(&endpoints) };
        let decided = decided.and_then(|()| reachable());
        let ports = decided.and_then(|()| self.ports(request, &networks, &endpoints, mode));
        let (bindings, ports) = match ports {
            Ok(found) => found,
            Err(e) => return Err(self.give_back(&endpoints, e)),
        };
        let dns = request.egress.is_some() || endpoints.iter().any(Endpoint::has_names);
        let files = self.files(request, &endpoints, dns);
        let egress = request.egress.as_ref();
        let (rate, loopback) = (request.rate, request.host_loopback.as_slice());
        let own = Own { state: &self.state, files: files.as_ref(), namespace: true, dns, egress, loopback, rate };
        let mut steps = compose(&networks, &endpoints, &macs, &bindings, own);
        steps.extend(self.config.host_names.then_some(Step::ExportNames));
        let mut plan = SandboxPlan::of_steps(self, request, steps);
        warnings.extend(ports.iter().flat_map(|p| p.warnings.clone()));
        for (network, _) in networks.iter().filter(|_| ports.is_some()) {
            warnings.extend(vrf::hidden(network, &mut route));
        }
        if bindings.is_empty() && !request.ports.is_empty() {
            warnings.extend(endpoints.iter().find_map(why_unpublished));
        }
        if let Some(e) = endpoints.iter().find(|e| request.rate.inbound.is_some() && !e.is_bridged()) {
            warnings.push(format!(
                "what arrives on {} network {} is not limited: the device has no end on the host",
                e.driver, e.network
            ));
        }
        plan.warnings = warnings;
        plan.endpoints = endpoints;
        plan.bindings = bindings;
        plan.networks = networks.into_iter().map(|(n, _)| n).collect();
        plan.files = files;
        plan.ports = ports;
        (plan.route, plan.nft) = (Some(route), nft);
        Ok(plan)
    }

    /// `--network host` and `--network none`.
    fn trivial(&self, request: &SandboxRequest) -> SandboxPlan {
        let files = self.files(request, &[], false);
        let own = Own {
            state: &self.state,
            files: files.as_ref(),
            namespace: !request.host_network,
            dns: false,
            egress: None,
            loopback: &[],
            rate: Rate::default(),
        };
        let mut plan = SandboxPlan::of_steps(self, request, compose(&[], &[], &[], &[], own));
        plan.files = files;
        plan
    }

    fn decide_all(
        &self,
        request: &SandboxRequest,
        networks: &[(Network, Facts)],
        mode: Mode,
        route: &Socket,
        endpoints: &mut Vec<Endpoint>,
        macs: &mut Vec<[u8; 6]>,
    ) -> Result<()> {
        for ((network, _), config) in networks.iter().zip(&request.endpoints) {
            let (endpoint, mac) = endpoint::decide(self, request, network, config, endpoints, mode, route)?;
            endpoints.push(endpoint);
            macs.push(mac);
        }
        Ok(())
    }

    /// Chooses host ports and, for real, holds them. A container on internal networks only
    /// publishes nothing.
    fn ports(
        &self,
        request: &SandboxRequest,
        networks: &[(Network, Facts)],
        endpoints: &[Endpoint],
        mode: Mode,
    ) -> Result<(Vec<PortBinding>, Option<Ports>)> {
        let through = any_publishing_endpoint(endpoints).filter(|_| !request.ports.is_empty());
        let Some(through) = through else { return Ok((Vec::new(), None)) };
        let network = networks.iter().map(|(n, _)| n).find(|n| n.id == through.network_id);
        let default = network.map_or(self.config.default_bind, |n| self.default_bind(n));
        let (specs, routed) = Doors::of(endpoints).split(&request.ports, default)?;
        if mode == Mode::DryRun {
            let mut bindings = publish::preview(&specs, default)?;
            bindings.extend(routed);
            return Ok((bindings, None));
        }
        let mut ports = publish::begin(&self.state, &request.container_id, &specs, default)
            .map_err(|e| no_connectivity(e, request, through))?;
        ports.bindings.extend(routed);
        Ok((ports.bindings.clone(), Some(ports)))
    }

    /// The host address that `-p` without one binds on this network; `None`: all of them.
    pub(crate) fn default_bind(&self, network: &Network) -> Option<IpAddr> {
        BridgeOptions::of(network).host_binding.or(self.config.default_bind)
    }

    /// Releases the leases of a plan that came to nothing.
    fn give_back(&self, endpoints: &[Endpoint], mut error: Error) -> Error {
        for e in endpoints {
            let leases = self.leases(&e.network_id);
            let freed = leases
                .lock()
                .and_then(|mut locked| e.addresses().try_for_each(|ip| locked.release(ip, &e.container_id)));
            if let Err(e) = freed {
                error = error.with_note(e.to_string());
            }
        }
        error
    }

    /// One look at the kernel: what does the network lack? The firewall is asked, and `nft` opened
    /// for it, for bridges only.
    pub(crate) fn observe(&self, network: &Network, route: &Socket, nft: &mut Option<Socket>) -> Result<Facts> {
        if is_vlan(&network.driver) {
            return self.observe_vlan(network, route).map(Facts::Vlan);
        }
        let nft = match nft {
            Some(nft) => nft,
            none => none.insert(Socket::netfilter()?),
        };
        self.observe_bridge(network, route, nft).map(Facts::Bridge)
    }

    fn observe_vlan(&self, network: &Network, route: &Socket) -> Result<vlan::Facts> {
        let options = VlanOptions::of(network);
        let name = options.parent_name(&network.id);
        let parent = route.ifindex(&name)?.is_some();
        if !parent && options.makes(network).is_none() {
            return Err(Error::not_found(format!("-o parent interface was not found on the host: {name}"))
                .with_hint(format!("network {} needs it: `ip link` shows the interfaces there are", network.name)));
        }
        let shim = match options.shim_name(&network.id) {
            Some(shim) => route.ifindex(&shim)?.is_some(),
            None => true,
        };
        Ok(vlan::Facts { parent, shim })
    }

    /// Is the bridge there, does the firewall know it?
    pub(crate) fn observe_bridge(&self, network: &Network, route: &Socket, nft: &mut Socket) -> Result<bridge::Facts> {
        let options = BridgeOptions::of(network);
        let name = options.bridge_name(&network.id);
        let bridge = route.ifindex(&name)?.is_some();
        if options.unmanaged && !bridge {
            return Err(bridge::missing(&network.name, &name));
        }
        let (firewall, admitted) = firewall::knows(nft, network)?;
        // Without the privilege to ask, what the bridge says is the best guess.
        let firewall = firewall.unwrap_or(bridge);
        let admitted = firewall && admitted.unwrap_or(bridge);
        let on = |path: &str| std::fs::read(path).is_ok_and(|t| t.first() == Some(&b'1'));
        Ok(bridge::Facts {
            bridge,
            firewall,
            admitted,
            forwards4: bridge || on("/proc/sys/net/ipv4/ip_forward"),
            forwards6: bridge || on("/proc/sys/net/ipv6/conf/all/forwarding"),
            br_netfilter: crate::repair::br_netfilter(),
        })
    }

    pub(crate) fn files(&self, request: &SandboxRequest, endpoints: &[Endpoint], embedded_dns: bool) -> Option<Files> {
        let dir = request.files.clone()?;
        let host_resolv = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let ipv6 = endpoints.iter().any(|e| e.ipv6.is_some());
        let (hosts, resolv_conf) = if request.host_network {
            let mut hosts = match &request.hosts_base {
                Some(base) => base.clone(),
                None => std::fs::read_to_string("/etc/hosts").unwrap_or_default(),
            };
            for (name, ip) in &request.dns.extra_hosts {
                hosts.push_str(&format!("{ip}\t{name}\n"));
            }
            let unchanged =
                request.dns.servers.is_empty() && request.dns.search.is_empty() && request.dns.options.is_empty();
            let resolv = if unchanged {
                host_resolv
            } else {
                files::resolv_conf(&host_resolv, &request.dns, Resolver::Direct { ipv6: true })
            };
            (hosts, resolv)
        } else {
            let resolver = if embedded_dns {
                Resolver::Embedded { forwards_to_host: endpoints.iter().any(|e| !e.internal) }
            } else {
                Resolver::Direct { ipv6 }
            };
            (
                // Loopback keeps IPv6 where no network has it.
                files::hosts(
                    &request.hostname,
                    &request.domainname,
                    endpoints,
                    &request.dns,
                    ipv6 || endpoints.is_empty(),
                ) + request.hosts_base.as_deref().unwrap_or_default(),
                files::resolv_conf(&host_resolv, &request.dns, resolver),
            )
        };
        Some(Files { dir, hosts, resolv_conf, hostname: files::hostname(&request.hostname) })
    }
}

/// Why ports are not published through this endpoint, if that is worth a word.
pub(super) fn why_unpublished(e: &Endpoint) -> Option<String> {
    if e.dhcp.is_some() {
        return Some("Published ports are discarded: the addresses are of a DHCP server's network".into());
    }
    if e.unmanaged {
        return Some(format!("Published ports are discarded: network {} is unmanaged", e.network));
    }
    (!e.is_bridged()).then(|| {
        format!(
            "Published ports are discarded when using {} network {}: its containers have addresses of their own on the LAN",
            e.driver, e.network
        )
    })
}

/// Docker's words around why a port could not be had.
pub(crate) fn no_connectivity(e: Error, request: &SandboxRequest, through: &Endpoint) -> Error {
    e.context(format!(
        "failed to set up container networking: driver failed programming external connectivity on endpoint {} ({})",
        request.container_name, through.id
    ))
}
