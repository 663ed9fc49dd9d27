//! Networks that follow the prefix of one of the host's interfaces: when it changes, a running container gets
//! the address in the same place of the new one. The old address goes on until its time is over, so
//! connections that began with it live; no new one begins with it.

use super::{Sandbox, endpoint};
use crate::apply;
use crate::dhcp::unix_now;
use crate::driver::bridge;
use crate::firewall::{self, Element};
use crate::model::{Endpoint, Former};
use crate::networks::write_json;
use crate::nl::{self, AddressWatch, Socket, Visit};
use crate::poll::Interest;
use crate::step::Step;
use ipnetwork::Ipv6Network;
use plan::{Action, HostThing, Result, Undo};
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

/// What tells the monitor to look.
#[derive(Debug)]
pub(crate) struct Watcher {
    watch: AddressWatch,
    /// The next turn looks at the host's prefixes.
    due: bool,
}

/// An endpoint on its way to another prefix: the address is leased, nothing else has happened.
#[derive(Debug)]
pub struct Moving {
    before: Vec<Endpoint>,
    after: Vec<Endpoint>,
    network_id: String,
    from: Ipv6Network,
    /// How long the old address goes on.
    left: u32,
    elements: Vec<Element>,
    undo: Vec<HostThing>,
    gone: Vec<HostThing>,
}

impl Moving {
    /// What the end of the container has to take back, besides what it had to before.
    pub fn undo(&self) -> &[HostThing] {
        &self.undo
    }

    /// What nobody has to take back any more when it has moved.
    pub fn gone(&self) -> &[HostThing] {
        &self.gone
    }
}

fn things(steps: impl IntoIterator<Item = Step>) -> Vec<HostThing> {
    let undo = steps.into_iter().map(|step| step.undo());
    undo.filter_map(|undo| if let Undo::Remove(things) = undo { Some(things) } else { None }).flatten().collect()
}

impl Sandbox {
    /// One watcher is enough for all networks, and for what the host answers for. A monitor that has just
    /// begun looks once by itself.
    pub(super) fn watch_prefixes(&mut self) -> Result<()> {
        let wanted = self.endpoints.iter().any(|e| e.follows || e.ndp_proxy.is_some());
        if !wanted {
            self.watcher = None;
        } else if self.watcher.is_none() {
            self.watcher = Some(Watcher { watch: AddressWatch::open()?, due: true });
        }
        Ok(())
    }

    pub(super) fn watched(&self) -> Option<Interest> {
        let watcher = self.watcher.as_ref()?;
        Some(Interest { fd: watcher.watch.as_fd().as_raw_fd(), read: true, write: false })
    }

    /// When a former address ends, or at once.
    pub(super) fn next_look(&self) -> Option<Duration> {
        let watcher = self.watcher.as_ref()?;
        let now = unix_now();
        let ends = self.endpoints.iter().flat_map(|e| &e.former).map(|f| f.until.saturating_sub(now));
        ends.chain(watcher.due.then_some(0)).min().map(Duration::from_secs)
    }

    pub(super) fn look_at_prefixes(&mut self) {
        let Some(watcher) = &mut self.watcher else { return };
        watcher.due |= watcher.watch.stirred();
        // There is nobody to tell; `network check` finds what is left.
        let _ = self.forget_former();
    }

    /// An endpoint whose network's prefix has changed, one at a time. Write [`Moving::undo`] down, then
    /// [`Sandbox::move_to`] it. What cannot be moved stays, until the next change.
    pub fn moving(&mut self) -> Option<Moving> {
        let watcher = self.watcher.as_mut().filter(|w| w.due)?;
        watcher.due = false;
        // The entries go when their interface goes down, and nobody tells but its addresses.
        let _ = Socket::route().and_then(|mut r| apply::neighbour::restore_proxies(&mut r, &self.endpoints));
        self.endpoints.iter().filter(|e| e.follows).find_map(|e| self.out_of_place(e).ok()?)
    }

    fn out_of_place(&self, e: &Endpoint) -> Result<Option<Moving>> {
        let network = self.netstack.network(&e.network_id)?;
        let network = self.netstack.follow_prefix(network)?;
        let Some(pool) = network.pools.iter().find(|p| p.subnet.is_ipv6()) else { return Ok(None) };
        let Some(old) = e.ipv6.filter(|ip| !pool.subnet.contains(IpAddr::V6(*ip))) else { return Ok(None) };
        let left = self.netstack.time_left(&network, old)?;
        let leases = self.netstack.leases(&network.id);
        let wanted = IpAddr::V6(network.in_its_prefix(old));
        let got = {
            let mut locked = leases.lock()?;
            let place = locked.lease(&network, pool, Some(wanted), None, &e.container_id);
            place.or_else(|_| locked.lease(&network, pool, None, None, &e.container_id))?
        };
        let IpAddr::V6(ip) = got else { return Ok(None) };
        let mut new = e.clone();
        new.former.push(Former { ip: old, until: unix_now().saturating_add(left.into()) });
        (new.ipv6, new.prefix6) = (Some(ip), pool.subnet.prefix());
        new.gateway6 = match pool.default_gateway() {
            Some(IpAddr::V6(gateway)) if e.gateway6.is_some() => Some(gateway),
            _ => None,
        };
        let before = self.endpoints.clone();
        let after: Vec<Endpoint> =
            before.iter().map(|b| if b.network_id == e.network_id { new.clone() } else { b.clone() }).collect();
        let elements = bridge::published(&after, self.bindings());
        let lease = |ip| Step::LeaseAddress {
            network: network.name.clone(),
            ip,
            path: leases.path(ip),
            owner: e.container_id.clone(),
        };
        let publish = |elements: Vec<Element>| Step::Publish { bindings: Vec::new(), elements };
        let only = |all: &[Element], but: &[Element]| all.iter().filter(|e| !but.contains(e)).cloned().collect();
        let added = publish(only(&elements, &self.elements));
        let removed = publish(only(&self.elements, &elements));
        let proxies = bridge::proxies(&new).filter(|s| matches!(s, Step::ProxyNeighbour { ip: at, .. } if *at == ip));
        let undo = things([lease(IpAddr::V6(ip)), added].into_iter().chain(proxies));
        let gone = things([lease(IpAddr::V6(old)), removed]);
        let from = Ipv6Network::new(old, e.prefix6).map_err(|e| plan::Error::system(e.to_string()))?;
        Ok(Some(Moving { before, after, network_id: network.id.clone(), from, left, elements, undo, gone }))
    }

    /// Interface, record, firewall, names and files.
    ///
    /// # Errors
    /// The kernel's; the record cannot be written.
    pub fn move_to(&mut self, moving: Moving) -> Result<()> {
        self.endpoints = moving.after;
        // There may be more than this one.
        self.watcher.iter_mut().for_each(|w| w.due = true);
        let Some(e) = self.endpoints.iter().find(|e| e.network_id == moving.network_id).cloned() else { return Ok(()) };
        write_json(&endpoint::record(&self.netstack.state, &e.network_id, &e.container_id), &e)?;
        {
            let home = nl::current()?;
            let _visit = Visit::enter(self.netns.as_fd(), home.as_fd())?;
            let states = [&moving.before[..], &self.endpoints];
            apply::change_prefix(Socket::route()?, moving.from, moving.left, &e, states)?;
        }
        let mut route = Socket::route()?;
        for (ip, uplink) in e.answered().filter(|(ip, _)| Some(*ip) == e.ipv6) {
            apply::neighbour::add_proxy(&mut route, ip, &uplink)?;
        }
        let old = std::mem::replace(&mut self.elements, moving.elements);
        if old != self.elements {
            // Not withdrawn: connections through the old ones go on.
            let (new, nft) = (self.elements.clone(), self.firewall()?);
            firewall::delete(nft, &old.iter().filter(|e| !new.contains(e)).cloned().collect::<Vec<_>>())?;
            firewall::publish(nft, &new.iter().filter(|e| !old.contains(e)).cloned().collect::<Vec<_>>())?;
        }
        let leases = self.netstack.leases(&e.network_id);
        leases.lock()?.release(IpAddr::V6(moving.from.ip()), &e.container_id)?;
        self.serve()?;
        self.announcer.start([&e]);
        self.netstack.export_names()?;
        self.rewrite_files(&moving.before)
    }

    /// The kernel has ended them in the container; the host need not answer for them any more.
    fn forget_former(&mut self) -> Result<()> {
        let now = unix_now();
        for e in self.endpoints.iter_mut().filter(|e| e.former.iter().any(|f| f.until <= now)) {
            let over: Vec<Ipv6Addr> = e.former.iter().filter(|f| f.until <= now).map(|f| f.ip).collect();
            e.former.retain(|f| f.until > now);
            write_json(&endpoint::record(&self.netstack.state, &e.network_id, &e.container_id), e)?;
            let Some(uplink) = &e.ndp_proxy else { continue };
            let mut route = Socket::route()?;
            over.iter().try_for_each(|ip| apply::neighbour::delete_proxy(&mut route, *ip, uplink))?;
        }
        Ok(())
    }
}
