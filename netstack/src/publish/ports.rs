//! The reserved host ports of one container, held by its monitor: joined by more and given back
//! while it runs, relayed where DNAT cannot deliver.

use super::lease;
use super::relay::{Relay, Target};
use super::socket::Scope;
use super::{descriptors, reserve};
use crate::model::{PortBinding, PortSpec, Proto};
use crate::poll::Interest;
use ipnetwork::IpNetwork;
use plan::{Error, HostThing, Result};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Reserved host ports, held for as long as this value lives. The leases outlive it: they are in
/// the undo list, so that the ports of a container whose monitor was killed stay taken.
#[derive(Debug)]
pub struct Ports {
    /// In the order of the `-p` flags; without an address IPv4 precedes IPv6.
    pub bindings: Vec<PortBinding>,
    /// What could not be done but need not stop the container, one line each.
    pub warnings: Vec<String>,
    pub(super) owner: String,
    pub(super) taken: Vec<Taken>,
    /// The relay knows sockets by their place: it stays when others leave.
    pub(super) sockets: Vec<Option<HeldSocket>>,
    pub(super) relay: Option<Relay>,
    /// Leased, to be bound by [`Ports::hold_rest`].
    pub(super) later: Vec<reserve::Later>,
}

/// One range of host ports, taken in one go.
#[derive(Debug)]
pub(super) struct Taken {
    pub proto: Proto,
    pub scope: Scope,
    pub iface: Option<String>,
    pub host: (u16, u16),
    pub container: (u16, u16),
    /// Its leases.
    pub files: Vec<PathBuf>,
    /// The places of its sockets.
    pub sockets: Vec<usize>,
}

/// A bound socket and what it stands for.
#[derive(Debug)]
pub(super) struct HeldSocket {
    pub socket: OwnedFd,
    pub proto: Proto,
    pub scope: Scope,
    pub container_port: u16,
    /// Who may connect; empty: everybody.
    pub from: Arc<[IpNetwork]>,
}

impl HeldSocket {
    pub fn admits(&self, client: IpAddr) -> bool {
        self.from.is_empty() || self.from.iter().any(|net| net.contains(client))
    }
}

impl Taken {
    /// Is this what a person means by `wanted`? What they leave out fits everything.
    fn is_meant_by(&self, wanted: &PortSpec) -> bool {
        let address = |ip: IpAddr| match self.scope {
            Scope::One(own) => own == ip || own.is_unspecified() && ip.is_unspecified(),
            Scope::Any => ip.is_unspecified(),
        };
        self.proto == wanted.proto
            && self.container == wanted.container
            && wanted.host.is_none_or(|host| host == self.host)
            && wanted.host_ip.is_none_or(address)
            && (wanted.iface.is_none() || wanted.iface == self.iface)
    }

    fn is_of(&self, b: &PortBinding) -> bool {
        let address = match self.scope {
            Scope::One(ip) => b.host_ip == ip,
            Scope::Any => b.host_ip.is_unspecified(),
        };
        address && (b.proto, b.host, b.container) == (self.proto, self.host, self.container) && b.iface == self.iface
    }
}

/// What [`Ports::take_out`] took out: still reserved until it is released.
#[derive(Debug)]
pub struct Leaving {
    pub bindings: Vec<PortBinding>,
    owner: String,
    files: Vec<PathBuf>,
    _sockets: Vec<HeldSocket>,
}

impl Leaving {
    /// As [`Ports::undo`].
    pub fn undo(&self) -> Vec<HostThing> {
        leases(&self.files, &self.owner)
    }

    /// Gives leases and sockets back.
    pub fn release(self) -> Result<()> {
        self.files.iter().try_for_each(|file| lease::release(file, &self.owner))
    }
}

fn leases<'a>(files: impl IntoIterator<Item = &'a PathBuf>, owner: &str) -> Vec<HostThing> {
    let lease = |path: &PathBuf| HostThing::Lease { path: path.clone(), owner: owner.to_owned() };
    files.into_iter().map(lease).collect()
}

impl Ports {
    pub(super) fn none(owner: &str) -> Ports {
        Ports {
            bindings: Vec::new(),
            warnings: Vec::new(),
            owner: owner.to_owned(),
            taken: Vec::new(),
            sockets: Vec::new(),
            relay: None,
            later: Vec::new(),
        }
    }

    pub(super) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.taken.iter().flat_map(|t| &t.files)
    }

    /// The lease files, for `undo.json`.
    pub fn undo(&self) -> Vec<HostThing> {
        leases(self.files(), &self.owner)
    }

    /// How many sockets are held.
    pub(super) fn held(&self) -> usize {
        self.sockets.iter().flatten().count()
    }

    /// Reserves more ports for the same container; they are the caller's until [`Ports::join`].
    pub fn reserve_more(&self, state: &Path, specs: &[PortSpec], default_ip: Option<IpAddr>) -> Result<Ports> {
        reserve::beside(state, specs, default_ip, self)
    }

    /// Holds what `more` holds, too. The relay hears of it by [`Ports::serve`].
    pub fn join(&mut self, mut more: Ports) {
        let mut free = (0..self.sockets.len()).filter(|&i| self.sockets[i].is_none()).collect::<Vec<_>>().into_iter();
        let mut places = Vec::with_capacity(more.sockets.len());
        for socket in more.sockets {
            let place = free.next().unwrap_or(self.sockets.len());
            match self.sockets.get_mut(place) {
                Some(slot) => *slot = socket,
                None => self.sockets.push(socket),
            }
            places.push(place);
        }
        for taken in &mut more.taken {
            taken.sockets.iter_mut().for_each(|i| *i = places[*i]);
        }
        self.taken.append(&mut more.taken);
        self.bindings.append(&mut more.bindings);
    }

    /// Are there ports that `wanted` means?
    ///
    /// # Errors
    /// There are none of that kind, or only as part of a range.
    pub fn check(&self, wanted: &PortSpec) -> Result<()> {
        if self.taken.iter().any(|t| t.is_meant_by(wanted)) || self.bindings.iter().any(|b| is_routed(b, wanted)) {
            return Ok(());
        }
        let inside = |t: &&Taken| {
            t.proto == wanted.proto && t.container.0 <= wanted.container.0 && wanted.container.1 <= t.container.1
        };
        Err(not_published(wanted, self.taken.iter().find(inside).map(|t| (t.host, t.container))))
    }

    /// Stops holding the ports that `wanted` means; their relayed connections end.
    ///
    /// # Errors
    /// As [`Ports::check`].
    pub fn take_out(&mut self, wanted: &PortSpec) -> Result<Leaving> {
        self.check(wanted)?;
        let (out, stay): (Vec<Taken>, Vec<Taken>) =
            std::mem::take(&mut self.taken).into_iter().partition(|t| t.is_meant_by(wanted));
        self.taken = stay;
        let mut leaving =
            Leaving { bindings: Vec::new(), owner: self.owner.clone(), files: Vec::new(), _sockets: Vec::new() };
        let (routed, kept) = std::mem::take(&mut self.bindings).into_iter().partition(|b| is_routed(b, wanted));
        self.bindings = kept;
        leaving.bindings.extend::<Vec<PortBinding>>(routed);
        for taken in out {
            let (gone, kept) = std::mem::take(&mut self.bindings).into_iter().partition(|b| taken.is_of(b));
            self.bindings = kept;
            leaving.bindings.extend::<Vec<PortBinding>>(gone);
            leaving.files.extend(taken.files);
            for i in taken.sockets {
                if let Some(relay) = &mut self.relay {
                    relay.forget(i);
                }
                leaving._sockets.extend(self.sockets[i].take());
            }
        }
        Ok(leaving)
    }

    /// Relays what DNAT cannot deliver (see [`super::relay`]) to the container's addresses. Called when
    /// the firewall's elements are in place, and again when addresses or ports have changed.
    pub fn serve(&mut self, target: Target) -> Result<()> {
        match self.relay_to(target)? {
            (Some(relay), sockets) => relay.listen(sockets, usize::MAX),
            (None, _) => Ok(()),
        }
    }

    /// As [`Ports::serve`], but of many sockets most begin to listen a little later, while [`Ports::ready`] is
    /// called: a container that ends at once need not wait for them.
    pub fn begin_to_serve(&mut self, target: Target) -> Result<()> {
        match self.relay_to(target)? {
            (Some(relay), sockets) => relay.listen_to_some(sockets),
            (None, _) => Ok(()),
        }
    }

    fn relay_to(&mut self, target: Target) -> Result<(Option<&mut Relay>, &[Option<HeldSocket>])> {
        match &mut self.relay {
            Some(relay) => relay.retarget(&self.sockets, target),
            None => self.relay = Relay::start(&self.sockets, target)?,
        }
        if self.relay.is_some() {
            // Two descriptors a connection. The container has its own limit by now.
            descriptors::raise();
        }
        Ok((self.relay.as_mut(), &self.sockets))
    }

    /// What to poll for the relay; `None` when there is nothing to relay.
    pub fn interest(&self) -> Option<Interest> {
        self.relay.as_ref().map(Relay::interest)
    }

    /// When [`Ports::ready`] wants to be called at the latest.
    pub fn timeout(&self) -> Option<Duration> {
        self.relay.as_ref().and_then(Relay::timeout)
    }

    /// Relays without ever blocking; to be called on readiness and on timeout.
    pub fn ready(&mut self) {
        if let Some(relay) = &mut self.relay {
            relay.ready(&self.sockets);
        }
    }

    /// Gives leases and sockets back.
    pub fn release(self) -> Result<()> {
        self.files().try_for_each(|file| lease::release(file, &self.owner))
    }
}

/// A port of a routed network, which has no host port to be named by.
fn is_routed(b: &PortBinding, wanted: &PortSpec) -> bool {
    b.routed && (b.proto, b.container) == (wanted.proto, wanted.container)
}

/// As [`Ports::check`] compares, of a request on record.
pub fn is_meant(own: &PortSpec, wanted: &PortSpec) -> bool {
    own.proto == wanted.proto
        && own.container == wanted.container
        && (wanted.host.is_none() || wanted.host == own.host)
        && wanted.host_ip.is_none_or(|ip| own.host_ip.map_or(ip.is_unspecified(), |own| own == ip))
        && (wanted.iface.is_none() || wanted.iface == own.iface)
}

/// Docker's text for a port that is not published; `around` is the published range it is part of.
pub fn not_published(wanted: &PortSpec, around: Option<((u16, u16), (u16, u16))>) -> Error {
    let range = |(from, to): (u16, u16)| if from == to { from.to_string() } else { format!("{from}-{to}") };
    let error =
        Error::not_found(format!("no public port '{}/{}' published", range(wanted.container), wanted.proto.name()));
    match around {
        Some((host, container)) => error.with_hint(format!(
            "it is published as {}:{}/{}: name it like that",
            range(host),
            range(container),
            wanted.proto.name()
        )),
        None => error.with_hint("`rrun port CONTAINER` lists those that are"),
    }
}
