//! Ports of a running container, published and withdrawn without a restart.
//!
//! As everywhere: reserved first, written down for undo, then done. What leaves goes the other way
//! round: unreachable first, struck off the undo list, and only then free for others.

use super::doors::Doors;
use super::plan::why_unpublished;
use super::{Published, Sandbox, vrf};
use crate::driver::bridge;
use crate::firewall::{self, Element};
use crate::model::{PortBinding, PortSpec};
use crate::networks::write_json;
use crate::nl::Socket;
use crate::publish::{self, Leaving, Ports};
use crate::step::Step;
use plan::{Action, HostThing, Result, Undo};
use std::collections::HashSet;

/// Reserved for a running container, and not reachable yet.
#[derive(Debug)]
pub struct Joining {
    specs: Vec<PortSpec>,
    /// `None`: the container is on internal networks only; they wait for another.
    ports: Option<Ports>,
    elements: Vec<Element>,
    /// Why they have to wait, if that is worth a word.
    waiting: Option<String>,
}

impl Joining {
    /// What the end of the container has to take back, besides what it had to before.
    pub fn undo(&self) -> Vec<HostThing> {
        let ports = self.ports.iter().flat_map(Ports::undo);
        things(self.bindings(), &self.elements).into_iter().chain(ports).collect()
    }

    pub fn bindings(&self) -> &[PortBinding] {
        self.ports.as_ref().map_or(&[], |p| &p.bindings)
    }

    pub fn warnings(&self) -> &[String] {
        self.ports.as_ref().map_or(self.waiting.as_slice(), |p| &p.warnings)
    }

    /// Gives up what [`Sandbox::publish`] was not asked to do.
    pub fn release(self) -> Result<()> {
        self.ports.map_or(Ok(()), Ports::release)
    }
}

/// Not reachable any more, and still reserved.
#[derive(Debug)]
pub struct Left {
    /// What nobody has to take back any more.
    pub things: Vec<HostThing>,
    pub bindings: Vec<PortBinding>,
    leaving: Vec<Leaving>,
}

impl Left {
    /// From here on others may have the ports.
    pub fn release(self) -> Result<()> {
        self.leaving.into_iter().try_for_each(Leaving::release)
    }
}

/// The firewall's part of the undo list.
fn things(bindings: &[PortBinding], elements: &[Element]) -> Vec<HostThing> {
    match (Step::Publish { bindings: bindings.to_vec(), elements: elements.to_vec() }).undo() {
        Undo::Remove(things) => things,
        Undo::Nothing | Undo::DiesWith(_) => Vec::new(),
    }
}

impl Sandbox {
    /// Reserves more host ports. Write [`Joining::undo`] down, then [`Sandbox::publish`] them.
    ///
    /// # Errors
    /// Docker's texts for a port that somebody has.
    pub fn reserve_ports(&self, specs: &[PortSpec]) -> Result<Joining> {
        let (specs, through) = (specs.to_vec(), bridge::any_publishing_endpoint(&self.endpoints));
        let Some(through) = through else {
            let waiting = self.endpoints.iter().find_map(why_unpublished);
            return Ok(Joining { specs, ports: None, elements: Vec::new(), waiting });
        };
        let network = self.netstack.network(&through.network_id)?;
        let default = self.netstack.default_bind(&network);
        let (state, id) = (&self.netstack.state, &self.request.container_id);
        let (on_host, routed) = Doors::of(&self.endpoints).split(&specs, default)?;
        let mut ports = match &self.ports {
            Some(held) => held.reserve_more(state, &on_host, default)?,
            None => publish::reserve(state, id, &on_host, default)?,
        };
        ports.bindings.extend(routed);
        ports.warnings.extend(Socket::route().ok().and_then(|mut route| vrf::hidden(&network, &mut route)));
        let elements = bridge::published(&self.endpoints, &ports.bindings);
        Ok(Joining { specs, ports: Some(ports), elements, waiting: None })
    }

    /// Makes reserved ports reachable: one transaction of the firewall. When it fails, they are
    /// nobody's again.
    ///
    /// # Errors
    /// The kernel's; the record cannot be written.
    pub fn publish(&mut self, joining: Joining) -> Result<()> {
        let Joining { specs, ports, elements, .. } = joining;
        if let Some(ports) = ports {
            let bindings = ports.bindings.clone();
            match &mut self.ports {
                Some(held) => held.join(ports),
                none => *none = Some(ports),
            }
            if let Err(mut e) = self.make_reachable(&elements) {
                let taken_back = bindings.iter().map(exactly).try_for_each(|spec| {
                    // Of a pair of families the first takes both.
                    let leaving = self.ports.as_mut().and_then(|p| p.take_out(&spec).ok());
                    leaving.map_or(Ok(()), Leaving::release)
                });
                let withdrawn = self.firewall().and_then(|nft| firewall::withdraw(nft, &elements));
                for failure in [taken_back, withdrawn, self.record()].into_iter().filter_map(Result::err) {
                    e = e.with_note(failure.to_string());
                }
                return Err(e);
            }
            self.elements.extend(elements);
        }
        self.request.ports.extend(specs);
        Ok(())
    }

    fn make_reachable(&mut self, elements: &[Element]) -> Result<()> {
        // For whoever has to restore the firewall.
        self.record()?;
        firewall::publish(self.firewall()?, elements)?;
        self.serve()
    }

    /// Relays what DNAT cannot deliver. To be called once after the start, when nothing waits for it any
    /// more: 500 ports take a millisecond.
    ///
    /// # Errors
    /// Of listen(2), of a limit on descriptors.
    pub fn serve(&mut self) -> Result<()> {
        let target = bridge::target(&self.endpoints);
        self.ports.as_mut().map_or(Ok(()), |ports| ports.serve(target))
    }

    /// As [`Sandbox::serve`], but most of many ports follow while [`Sandbox::ready`] is called.
    ///
    /// # Errors
    /// As [`Sandbox::serve`], of the first ones.
    pub fn begin_to_serve(&mut self) -> Result<()> {
        let target = bridge::target(&self.endpoints);
        self.ports.as_mut().map_or(Ok(()), |ports| ports.begin_to_serve(target))
    }

    /// Closes the ports that `wanted` means, established connections included. Strike [`Left::things`]
    /// off the undo list, then [`Left::release`] them.
    ///
    /// # Errors
    /// One of them is not published like that: then none is closed.
    pub fn withdraw_ports(&mut self, wanted: &[PortSpec]) -> Result<Left> {
        let mut left = Left { things: Vec::new(), bindings: Vec::new(), leaving: Vec::new() };
        let Some(ports) = &mut self.ports else {
            for spec in wanted {
                let before = self.request.ports.len();
                self.request.ports.retain(|own| !publish::is_meant(own, spec));
                if self.request.ports.len() == before {
                    return Err(publish::not_published(spec, None));
                }
            }
            return Ok(left);
        };
        wanted.iter().try_for_each(|spec| ports.check(spec))?;
        for spec in wanted {
            // Named twice, it is gone already.
            let Ok(leaving) = ports.take_out(spec) else { continue };
            left.bindings.extend(leaving.bindings.iter().cloned());
            left.things.extend(leaving.undo());
            left.leaving.push(leaving);
        }
        let elements = bridge::published(&self.endpoints, &left.bindings);
        left.things.extend(things(&left.bindings, &elements));
        firewall::withdraw(self.firewall()?, &elements)?;
        let gone: HashSet<Element> = elements.into_iter().collect();
        self.elements.retain(|e| !gone.contains(e));
        self.record()?;
        Ok(left)
    }

    /// The one socket for additions and deletions (design §4, trap 4).
    pub(super) fn firewall(&mut self) -> Result<&mut Socket> {
        match &mut self.nft {
            Some(nft) => Ok(nft),
            none => Ok(none.insert(Socket::netfilter()?)),
        }
    }

    /// What to restore when somebody flushes the firewall.
    pub(super) fn record(&self) -> Result<()> {
        let path = Published::path(&self.netstack.state, &self.request.container_id);
        write_json(&path, &Published::new(self.bindings()))
    }
}

/// The one request that names exactly this binding.
pub(super) fn exactly(b: &PortBinding) -> PortSpec {
    PortSpec {
        host_ip: b.iface.is_none().then_some(b.host_ip),
        host: (!b.routed).then_some(b.host),
        container: b.container,
        proto: b.proto,
        iface: b.iface.clone(),
        from: b.from.clone(),
    }
}
