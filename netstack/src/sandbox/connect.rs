//! Joining and leaving networks while the container runs.
//!
//! Done by the command, not by the monitor; which is then asked to [`super::Sandbox::refresh`].

use super::{Mode, Own, SandboxPlan, SandboxRequest, compose, endpoint, request};
use crate::apply;
use crate::dhcp;
use crate::driver::{bridge, reply};
use crate::model::{Endpoint, EndpointConfig, Network};
use crate::networks::Netstack;
use crate::nl::{self, Batch, Socket, Visit};
use crate::static_route::Via;
use crate::step::{Reply, Step};
use plan::{Error, Journal, Result};
use std::os::fd::{AsFd, BorrowedFd};

impl Netstack {
    /// Checks a connection that will only be made when the container starts: does the network
    /// exist, may it be joined, does it have the addresses asked for?
    pub fn check_endpoint(&self, config: &EndpointConfig) -> Result<()> {
        let network = self.joinable(&config.network)?;
        refuse_predefined(&network.name)?;
        request::wanted(&network, config)?;
        request::mac(&network, config, "").map(drop)
    }

    /// Joins a running container, whose namespace is `netns`, to one more network. Leaves nothing
    /// when it fails. `request` says who the container is; its `endpoints` are not looked at.
    ///
    /// The calling process must be single-threaded.
    pub fn connect(
        &self,
        request: &SandboxRequest,
        config: &EndpointConfig,
        netns: BorrowedFd<'_>,
    ) -> Result<Endpoint> {
        let network = self.joinable(&config.network)?;
        refuse_predefined(&network.name)?;
        let mut all = self.endpoints_of(&request.container_id)?;
        if all.iter().any(|e| e.network_id == network.id) {
            return Err(Error::conflict(format!(
                "endpoint with name {} already exists in network {}",
                request.container_name, network.name
            ))
            .with_hint("it is connected already"));
        }
        let network = self.follow_prefix(self.settle(network)?)?;
        let route = Socket::route()?;
        let mut nft = None;
        let facts = self.observe(&network, &route, &mut nft)?;
        let (mut new, mac) = endpoint::decide(self, request, &network, config, &all, Mode::Real, &route)?;
        new.health = all.iter().find_map(|e| e.health.clone());
        let others = all.clone();
        all.push(new.clone());
        if let Err(e) = bridge::check_routes(&all) {
            self.forget_endpoint(&new)?;
            return Err(e);
        }

        // The egress policy is there already, and knows no networks.
        let rate = request.rate;
        let own =
            Own { state: &self.state, files: None, namespace: true, dns: false, egress: None, loopback: &[], rate };
        let mut steps = compose(&[(network.clone(), facts)], std::slice::from_ref(&new), &[mac], &[], own);
        // Loopback is up already, and the default routes are those of the whole container.
        let whole = |s: &Step| {
            matches!(
                s,
                Step::DefaultRoute { .. }
                    | Step::DeviceRoute { .. }
                    | Step::StaticRoute { .. }
                    | Step::Reply(_)
                    | Step::LoopbackUp
            )
        };
        steps.retain(|s| !whole(s));
        let after = |s: &Step| matches!(s, Step::AskDhcp { .. } | Step::DnsRecord { .. });
        let at = steps.iter().position(after).unwrap_or(steps.len());
        let asked = bridge::static_routes(&all);
        let new_routes = asked.into_iter().skip(bridge::static_routes(&others).len());
        let (gone, replies) = reply::difference(&others, &all);
        steps.splice(at..at, bridge::routes(&all).into_iter().chain(replies));
        let at = steps.iter().position(|s| matches!(s, Step::DnsRecord { .. })).unwrap_or(steps.len());
        steps.splice(at..at, new_routes);
        let mut plan = SandboxPlan::of_steps(self, request, steps);
        plan.others = others.clone();
        plan.endpoints.push(new.clone());
        plan.networks.push(network);
        (plan.route, plan.nft) = (Some(route), nft);
        let yielded = self.yield_ways(&others, &all, &gone, netns);
        yielded.and_then(|()| plan.execute(netns, &mut Journal::silent(), 0)).map_err(|e| {
            match self.unplug(&new, Some(netns)).and_then(|()| self.restore_ways(request, &all, &others, netns)) {
                Ok(()) => e,
                Err(u) => e.with_note(u.to_string()),
            }
        })?;
        // A DHCP server may have had its say.
        Ok(plan.endpoints.pop().unwrap_or(new))
    }

    /// Takes a container off a network. `netns` is `None` when it has no living process any more.
    ///
    /// Errors: `container ID is not connected to network X`.
    pub fn disconnect(&self, request: &SandboxRequest, network: &str, netns: Option<BorrowedFd<'_>>) -> Result<()> {
        let network = self.network(network)?;
        let mut all = self.endpoints_of(&request.container_id)?;
        let Some(at) = all.iter().position(|e| e.network_id == network.id) else {
            let short = request.container_id.get(..12).unwrap_or(&request.container_id);
            return Err(Error::not_found(format!("container {short} is not connected to network {}", network.name))
                .with_hint(format!("`rrun network inspect {}` shows who is", network.name)));
        };
        let before = all.clone();
        let gone = all.remove(at);
        if let (Some(netns), Some(keeper)) = (netns, dhcp::Keeper::of(&gone)?) {
            keeper.release(netns)?;
        }
        self.unplug(&gone, netns)?;
        let Some(netns) = netns else { return Ok(()) };
        forget_routes(&gone, netns)?;
        // Its default route went with the interface; another network may have one.
        self.restore_ways(request, &before, &all, netns)
    }

    /// Default route and the ways of answers, after an endpoint has gone.
    fn restore_ways(
        &self,
        request: &SandboxRequest,
        before: &[Endpoint],
        after: &[Endpoint],
        netns: BorrowedFd<'_>,
    ) -> Result<()> {
        let mut plan = SandboxPlan::of_steps(self, request, bridge::routes(after));
        plan.execute(netns, &mut Journal::silent(), 0)?;
        let home = nl::current()?;
        let _visit = Visit::enter(netns, home.as_fd())?;
        apply::reply::change(&mut Socket::route()?, before, after)
    }

    /// A default route replaces one of the same metric only: others must go first, or the lowest
    /// metric would win over the highest priority. And what has the default route from now on needs no other.
    fn yield_ways(&self, before: &[Endpoint], after: &[Endpoint], gone: &[Reply], netns: BorrowedFd<'_>) -> Result<()> {
        if !gone.is_empty() {
            let home = nl::current()?;
            let _visit = Visit::enter(netns, home.as_fd())?;
            apply::reply::forget(&mut Socket::route()?, gone)?;
        }
        for ipv6 in [false, true] {
            let (old, new) = (bridge::gateway_endpoint(before, ipv6), bridge::gateway_endpoint(after, ipv6));
            let (Some(old), Some(new)) = (old, new) else { continue };
            if old.metric == new.metric {
                continue;
            }
            let mut batch = Batch::new();
            batch.delete_default_route(0, ipv6);
            let home = nl::current()?;
            let _visit = Visit::enter(netns, home.as_fd())?;
            match Socket::route()?.run(batch)? {
                // The container's own administrator took it away.
                Err(f) if f.errno != libc::ESRCH => return Err(f.error("take the default route away")),
                _ => {}
            }
        }
        Ok(())
    }

    /// Makes the device of an endpoint anew, whose parent vanished and took it along.
    pub(crate) fn replace_device(&self, network: &Network, lost: &Endpoint, netns: BorrowedFd<'_>) -> Result<()> {
        let route = Socket::route()?;
        let facts = self.observe(network, &route, &mut None)?;
        let all = self.endpoints_of(&lost.container_id)?;
        let config = EndpointConfig { mac: Some(lost.mac.clone()).filter(|m| !m.is_empty()), ..Default::default() };
        let mac = request::mac(network, &config, &lost.container_id)?;
        let rate = lost.rate;
        let own =
            Own { state: &self.state, files: None, namespace: true, dns: false, egress: None, loopback: &[], rate };
        let mut steps = compose(&[(network.clone(), facts)], std::slice::from_ref(lost), &[mac], &[], own);
        // It has its leases, and its record.
        steps.retain(|s| {
            !matches!(
                s,
                Step::LeaseAddress { .. }
                    | Step::LoopbackUp
                    | Step::DefaultRoute { .. }
                    | Step::DeviceRoute { .. }
                    | Step::Reply(_)
                    | Step::StaticRoute { .. }
                    | Step::AskDhcp { .. }
                    | Step::DnsRecord { .. }
            )
        });
        steps.extend(bridge::routes(&all));
        // Those through it went with it.
        let lost_routes = bridge::static_routes(&all).into_iter();
        steps.extend(lost_routes.filter(|s| matches!(s, Step::StaticRoute { ifname, .. } if *ifname == lost.ifname)));
        let request = SandboxRequest { container_id: lost.container_id.clone(), ..Default::default() };
        let mut plan = SandboxPlan::of_steps(self, &request, steps);
        plan.route = Some(route);
        plan.execute(netns, &mut Journal::silent(), 0)?;
        let home = nl::current()?;
        let _visit = Visit::enter(netns, home.as_fd())?;
        apply::reply::change(&mut Socket::route()?, &[], &all)
    }

    /// Cable or device, record and leases.
    fn unplug(&self, e: &Endpoint, netns: Option<BorrowedFd<'_>>) -> Result<()> {
        if e.is_bridged() {
            apply::vlan::delete_device(&mut Socket::route()?, &e.host_ifname)?;
        } else if let Some(netns) = netns {
            let home = nl::current()?;
            let _visit = Visit::enter(netns, home.as_fd())?;
            apply::vlan::delete_device(&mut Socket::route()?, &e.ifname)?;
        }
        self.forget_endpoint(e)
    }
}

/// Routes through an interface go with it; those that lead nowhere do not.
fn forget_routes(gone: &Endpoint, netns: BorrowedFd<'_>) -> Result<()> {
    let nowhere: Vec<_> = gone.routes.iter().filter(|r| !matches!(r.via, Via::Gateway(_))).collect();
    if nowhere.is_empty() {
        return Ok(());
    }
    let home = nl::current()?;
    let _visit = Visit::enter(netns, home.as_fd())?;
    let mut route = Socket::route()?;
    for r in nowhere {
        let mut batch = Batch::new();
        batch.delete_static_route(0, 0, r);
        match route.run(batch)? {
            Err(f) if f.errno != libc::ESRCH => return Err(f.error(format!("take route {r} away"))),
            _ => {}
        }
    }
    Ok(())
}

fn refuse_predefined(name: &str) -> Result<()> {
    match name {
        "host" => Err(Error::invalid(
            "cannot connect container to host network - container must be created in host network mode",
        )
        .with_hint("rrun run --network host")),
        "none" => Err(Error::invalid(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode",
        )
        .with_hint("none means no network at all")),
        _ => Ok(()),
    }
}
