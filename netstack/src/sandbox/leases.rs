//! The DHCP leases of a running container: when the server changes its mind, the interface, the record
//! and the files follow.

use super::{Sandbox, endpoint};
use crate::apply;
use crate::dhcp::{Event, Keeper, Lease};
use crate::networks::write_json;
use crate::nl::{self, Socket, Visit};
use plan::Result;
use std::os::fd::AsFd;

impl Sandbox {
    /// One keeper for each endpoint that has its address from a server.
    pub(super) fn keep_leases(&mut self) -> Result<()> {
        self.keepers.retain(|k| self.endpoints.iter().any(|e| e.network_id == k.network_id));
        for e in &self.endpoints {
            if !self.keepers.iter().any(|k| k.network_id == e.network_id) {
                self.keepers.extend(Keeper::of(e)?);
            }
        }
        Ok(())
    }

    /// Does what the time and the servers say; never blocks.
    pub(super) fn renew_leases(&mut self) {
        for i in 0..self.keepers.len() {
            let Some(event) = self.keepers[i].ready(self.netns.as_fd()) else { continue };
            let network = self.keepers[i].network_id.clone();
            let lease = match event {
                Event::Granted(lease) => Some(lease),
                Event::Lost => None,
            };
            // There is nobody to tell; the container shows by its interface how it stands.
            let _ = self.change_lease(&network, lease);
        }
    }

    fn change_lease(&mut self, network_id: &str, new: Option<Lease>) -> Result<()> {
        let before = self.endpoints.clone();
        let Some(e) = self.endpoints.iter_mut().find(|e| e.network_id == network_id) else { return Ok(()) };
        let old = e.dhcp.as_ref().and_then(|d| d.lease.clone());
        e.set_lease(new.clone());
        let (ifname, record) = (e.ifname.clone(), endpoint::record(&self.netstack.state, network_id, &e.container_id));
        write_json(&record, e)?;
        let place = |l: &Option<Lease>| l.as_ref().map(|l| (l.ip, l.prefix, l.router));
        if place(&old) == place(&new) {
            return Ok(());
        }
        let home = nl::current()?;
        let visit = Visit::enter(self.netns.as_fd(), home.as_fd())?;
        let route = Socket::route()?;
        if let Some(index) = route.ifindex(&ifname)? {
            apply::address_and_routes(route, index, old.as_ref(), new.as_ref(), [&before, &self.endpoints])?;
        }
        drop(visit);
        self.rewrite_files(&before)
    }
}
