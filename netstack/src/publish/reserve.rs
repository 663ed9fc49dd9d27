//! Chooses host ports and holds them: a lease against other containers, a socket against the
//! programs of the host.

use super::descriptors::Room;
use super::holder;
use super::lease::{self, Held, Lease, Leases};
use super::ports::{HeldSocket, Ports, Taken};
use super::socket::{self, Ipv6, Scope};
use crate::model::{PortBinding, PortSpec, Proto};
use crate::nl::Socket;
use ipnetwork::IpNetwork;
use plan::{Error, Result, ResultExt};
use rustix::io::Errno;
use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

/// Blocks of free ports tried in a row before a range without host ports is scattered.
const BLOCK_TRIES: usize = 16;
/// Free ports the kernel proposes but a container without a monitor still leases.
const PICK_TRIES: usize = 256;

/// A fixed range this long is bound while the container's first process is at its root: 500 sockets
/// take 2 ms.
const LONG: u16 = 64;

/// Reserves the host ports of `specs` for container `owner` (its full ID).
///
/// Fixed ports are taken before ranges to choose from, those before ephemeral ports, so that no
/// flag takes what a later one names. `default_ip` stands in for an absent address; without it a
/// port is published on 0.0.0.0 and [::] under the same number. Either all is taken or nothing.
pub fn reserve(state: &Path, owner: &str, specs: &[PortSpec], default_ip: Option<IpAddr>) -> Result<Ports> {
    beside(state, specs, default_ip, &Ports::none(owner))
}

/// As [`reserve`], but long fixed ranges are kept from other containers only, until [`Ports::hold_rest`].
pub fn begin(state: &Path, owner: &str, specs: &[PortSpec], default_ip: Option<IpAddr>) -> Result<Ports> {
    take(state, specs, default_ip, &Ports::none(owner), true)
}

/// As [`reserve`], for a container that holds ports already.
pub(super) fn beside(state: &Path, specs: &[PortSpec], default_ip: Option<IpAddr>, already: &Ports) -> Result<Ports> {
    take(state, specs, default_ip, already, false)
}

fn take(
    state: &Path,
    specs: &[PortSpec],
    default_ip: Option<IpAddr>,
    already: &Ports,
    in_two_parts: bool,
) -> Result<Ports> {
    if specs.is_empty() {
        return Ok(Ports::none(&already.owner));
    }
    let mut r = Reservation::begin(already, specs, default_ip)?;
    r.in_two_parts = in_two_parts;
    let mut leases = Leases::lock(state, &already.owner)?;
    leases.keep(already.files());
    match r.take_all(&mut leases, specs) {
        Ok(()) => Ok(r.ports),
        Err(refused) => {
            let error = refused.into_error(state, &already.owner);
            match r.ports.release() {
                Ok(()) => Err(error),
                Err(e) => Err(error.with_note(e.to_string())),
            }
        }
    }
}

/// What [`reserve`] would choose now, without holding or writing anything: for `explain`.
pub fn preview(specs: &[PortSpec], default_ip: Option<IpAddr>) -> Result<Vec<PortBinding>> {
    let ipv6 = Ipv6::look();
    let mut bindings = Vec::new();
    for spec in specs {
        let scope = scope(spec, default_ip);
        let length = spec.container.1 - spec.container.0;
        let first = match spec.host {
            Some((first, _)) => first,
            None => match socket::hold(spec.proto, scope, spec.iface.as_deref(), ipv6, 0) {
                Ok(Some(probe)) => {
                    let port = socket::local_port(&probe).doing(|| "choose a free port")?;
                    port.min(u16::MAX - length)
                }
                _ => ephemeral_range().0,
            },
        };
        push_bindings(&mut bindings, spec, scope.addresses(ipv6.known), (first, first + length), spec.container);
    }
    Ok(bindings)
}

/// Why a port could not be had.
enum Refused {
    /// A container has it.
    Leased(Proto, Held),
    /// A program of the host has it, or the kernel does not allow it.
    Kernel {
        proto: Proto,
        at: SocketAddr,
        errno: Errno,
    },
    /// Every port of the range, or every ephemeral port, is taken.
    Exhausted(String),
    Other(Error),
}

impl From<Error> for Refused {
    fn from(e: Error) -> Refused {
        Refused::Other(e)
    }
}

impl Refused {
    /// Another port of the range may be free.
    fn is_conflict(&self) -> bool {
        matches!(self, Refused::Leased(..) | Refused::Kernel { errno: Errno::ADDRINUSE, .. })
    }

    fn into_error(self, state: &Path, us: &str) -> Error {
        let (proto, at, errno) = match self {
            Refused::Leased(proto, held) => return lease::refusal(state, us, proto, &held),
            Refused::Exhausted(hint) => return Error::conflict("all ports are allocated").with_hint(hint),
            Refused::Other(e) => return e,
            Refused::Kernel { proto, at, errno } => (proto, at, errno),
        };
        let name = format!("{proto:?}").to_lowercase();
        let mut error = Error::os(format!("failed to bind host port {at}/{name}"), errno.raw_os_error());
        match errno {
            Errno::ADDRINUSE => {
                // Docker's text ends here, without the errno's name.
                error.cause = Some("address already in use".to_owned());
                let who = holder::host_program(proto, at.port()).unwrap_or_else(|| "a program of the host".to_owned());
                error
                    .with_kind(plan::Kind::Conflict)
                    .with_hint(format!("{who} uses {}/{name}: stop it, or choose another host port", at.port()))
            }
            Errno::ADDRNOTAVAIL => {
                error.cause = Some("cannot assign requested address".to_owned());
                error.with_hint(format!("{} is no address of this host: see ip address", at.ip()))
            }
            Errno::ACCESS => error.with_hint("ports below net.ipv4.ip_unprivileged_port_start need root"),
            _ => error,
        }
    }
}

struct Reservation {
    ports: Ports,
    ipv6: Ipv6,
    default_ip: Option<IpAddr>,
    /// Sockets that the open-files limit still allows.
    budget: u64,
    room: Room,
    /// Long fixed ranges are bound later.
    in_two_parts: bool,
}

/// A range that is leased and not yet bound.
#[derive(Debug)]
pub(super) struct Later {
    spec: PortSpec,
    /// Its place among what was taken.
    place: usize,
    /// How many sockets it may have.
    budget: u64,
}

impl Ports {
    /// The second part of [`begin`]. To be called when the container's first process has been cloned: it
    /// inherits neither these sockets nor the limit that they take.
    ///
    /// # Errors
    /// As [`reserve`]'s about programs of the host.
    pub fn hold_rest(&mut self, state: &Path) -> Result<()> {
        let later = std::mem::take(&mut self.later);
        if later.is_empty() {
            return Ok(());
        }
        let owner = self.owner.clone();
        let mut r = Reservation {
            ports: std::mem::replace(self, Ports::none(&owner)),
            ipv6: Ipv6::look(),
            default_ip: None,
            budget: 0,
            room: Room::lasting(),
            in_two_parts: false,
        };
        let held = later.iter().try_for_each(|later| r.hold(later));
        *self = r.ports;
        held.map_err(|refused| refused.into_error(state, &owner))
    }
}

impl Reservation {
    fn hold(&mut self, later: &Later) -> Result<(), Refused> {
        let taken = &self.ports.taken[later.place];
        let (scope, host, container) = (taken.scope, taken.host, taken.container);
        self.budget = later.budget;
        let first = self.ports.sockets.len();
        self.bind(&later.spec, scope, host, container, None)?;
        self.ports.taken[later.place].sockets = (first..self.ports.sockets.len()).collect();
        Ok(())
    }

    fn begin(already: &Ports, specs: &[PortSpec], default_ip: Option<IpAddr>) -> Result<Reservation> {
        let wanted: u64 = specs.iter().map(|s| u64::from(s.container.1 - s.container.0) + 1).sum();
        let room = Room::new(wanted, already.held() as u64);
        let mut ports = Ports::none(&already.owner);
        if room.sockets < wanted {
            ports.warnings.push(format!(
                "{} of {wanted} published ports are reserved against other containers only, not against programs of the host: the open-files limit is {} (raise it with ulimit -Hn)",
                wanted - room.sockets,
                room.limit
            ));
        }
        Ok(Reservation { ports, ipv6: Ipv6::look(), default_ip, budget: room.sockets, room, in_two_parts: false })
    }

    fn take_all(&mut self, leases: &mut Leases, specs: &[PortSpec]) -> Result<(), Refused> {
        // The same fixed publish written twice is one publish.
        let mut seen = HashSet::new();
        let first: Vec<bool> = specs
            .iter()
            .map(|s| !is_fixed(s) || seen.insert((s.host_ip, &s.iface, s.host, s.container, s.proto)))
            .collect();
        let mut order: Vec<usize> = (0..specs.len()).filter(|&i| first[i]).collect();
        order.sort_by_key(|&i| match specs[i].host {
            Some(_) if is_fixed(&specs[i]) => 0,
            Some(_) => 1,
            None => 2,
        });
        let mut chosen = vec![Vec::new(); specs.len()];
        for i in order {
            let spec = &specs[i];
            chosen[i] = match spec.host {
                Some(host) if is_fixed(spec) => {
                    self.take(leases, spec, host, spec.container, None)?;
                    vec![(host, spec.container)]
                }
                Some(host) => self.first_free(leases, spec, host)?,
                None => self.ephemeral(leases, spec)?,
            };
        }
        for (spec, chosen) in specs.iter().zip(chosen) {
            for (host, container) in chosen {
                let addresses = scope(spec, self.default_ip).addresses(self.ipv6.known);
                push_bindings(&mut self.ports.bindings, spec, addresses, host, container);
            }
        }
        Ok(())
    }

    fn first_free(&mut self, leases: &mut Leases, spec: &PortSpec, host: (u16, u16)) -> Result<Vec<Chosen>, Refused> {
        for port in host.0..=host.1 {
            match self.take(leases, spec, (port, port), spec.container, None) {
                Ok(()) => return Ok(vec![((port, port), spec.container)]),
                Err(refused) if refused.is_conflict() => {}
                Err(refused) => return Err(refused),
            }
        }
        Err(Refused::Exhausted(format!(
            "no host port from {} to {} is free: widen the range, or free one",
            host.0, host.1
        )))
    }

    /// One block if the kernel can be talked into it, for that is one map element; else port by port.
    fn ephemeral(&mut self, leases: &mut Leases, spec: &PortSpec) -> Result<Vec<Chosen>, Refused> {
        if let Some(host) = self.pick(leases, spec, spec.container, BLOCK_TRIES)? {
            return Ok(vec![(host, spec.container)]);
        }
        let mut chosen = Vec::new();
        for port in spec.container.0..=spec.container.1 {
            match self.pick(leases, spec, (port, port), PICK_TRIES)? {
                Some(host) => chosen.push((host, (port, port))),
                None => {
                    let hint = "widen net.ipv4.ip_local_port_range, or name the host port: -p HOST:CONTAINER";
                    return Err(Refused::Exhausted(hint.to_owned()));
                }
            }
        }
        Ok(chosen)
    }

    /// Lets the kernel choose the first port: it knows what is free on both families and skips
    /// `ip_local_reserved_ports`.
    fn pick(
        &mut self,
        leases: &mut Leases,
        spec: &PortSpec,
        container: (u16, u16),
        tries: usize,
    ) -> Result<Option<(u16, u16)>, Refused> {
        let scope = scope(spec, self.default_ip);
        let length = container.1 - container.0;
        let range = ephemeral_range();
        for attempt in 0..tries {
            let (first, socket) = match socket::hold(spec.proto, scope, spec.iface.as_deref(), self.ipv6, 0) {
                Ok(Some(socket)) => (socket::local_port(&socket).doing(|| "choose a free port")?, Some(socket)),
                // No such protocol in this kernel: only the leases decide.
                Ok(None) => (range.0.saturating_add(attempt as u16), None),
                Err(Errno::ADDRINUSE) => return Ok(None),
                Err(errno) => return Err(self.kernel(spec, scope, 0, errno)),
            };
            let Some(last) = first.checked_add(length).filter(|last| *last <= range.1) else { continue };
            match self.take(leases, spec, (first, last), container, socket) {
                Ok(()) => return Ok(Some((first, last))),
                Err(refused) if refused.is_conflict() => {}
                Err(refused) => return Err(refused),
            }
        }
        Ok(None)
    }

    /// Leases and binds one range on all its addresses, or leaves everything as it was.
    fn take(
        &mut self,
        leases: &mut Leases,
        spec: &PortSpec,
        host: (u16, u16),
        container: (u16, u16),
        first: Option<OwnedFd>,
    ) -> Result<(), Refused> {
        let before = (self.ports.sockets.len(), self.budget);
        let mut taken = Taken {
            proto: spec.proto,
            scope: scope(spec, self.default_ip),
            iface: spec.iface.clone(),
            host,
            container,
            files: Vec::new(),
            sockets: Vec::new(),
        };
        let is_long = is_fixed(spec) && spec.iface.is_none() && host.1 - host.0 >= LONG;
        let held = self.lease(leases, &mut taken).and_then(|()| match self.in_two_parts && is_long {
            true => {
                let budget = self.budget.min(u64::from(host.1 - host.0) + 1);
                self.budget -= budget;
                self.ports.later.push(Later { spec: spec.clone(), place: self.ports.taken.len(), budget });
                Ok(())
            }
            false => self.bind(spec, taken.scope, host, container, first),
        });
        match held {
            Ok(()) => {
                taken.sockets = (before.0..self.ports.sockets.len()).collect();
                self.ports.taken.push(taken);
                Ok(())
            }
            Err(refused) => {
                for file in taken.files {
                    leases.give_back(&file)?;
                }
                self.ports.sockets.truncate(before.0);
                self.budget = before.1;
                Err(refused)
            }
        }
    }

    fn lease(&mut self, leases: &mut Leases, taken: &mut Taken) -> Result<(), Refused> {
        for ip in taken.scope.addresses(self.ipv6.known) {
            let lease = Lease { proto: taken.proto, ip, iface: taken.iface.clone(), ports: taken.host };
            leases.take(&lease, &mut taken.files)?.map_err(|held| Refused::Leased(taken.proto, held))?;
        }
        Ok(())
    }

    fn bind(
        &mut self,
        spec: &PortSpec,
        scope: Scope,
        host: (u16, u16),
        container: (u16, u16),
        mut first: Option<OwnedFd>,
    ) -> Result<(), Refused> {
        let proto = spec.proto;
        let from: Arc<[IpNetwork]> = spec.from.as_slice().into();
        for (port, container_port) in (host.0..=host.1).zip(container.0..) {
            if self.budget == 0 {
                break;
            }
            let socket = match first.take() {
                Some(socket) => socket,
                None => match socket::hold(proto, scope, spec.iface.as_deref(), self.ipv6, port) {
                    Ok(Some(socket)) => socket,
                    Ok(None) => {
                        self.without_interface(spec);
                        break;
                    }
                    Err(errno) => return Err(self.kernel(spec, scope, port, errno)),
                },
            };
            let socket = self.room.place(socket).doing(|| format!("hold port {port}"))?;
            self.budget -= 1;
            let held = HeldSocket { socket, proto, scope, container_port, from: Arc::clone(&from) };
            self.ports.sockets.push(Some(held));
        }
        Ok(())
    }

    /// The rules match its name, so nothing is lost when it comes later, as a VPN's does.
    fn without_interface(&mut self, spec: &PortSpec) {
        if let Some(iface) = &spec.iface
            && matches!(Socket::route().and_then(|s| s.ifindex(iface)), Ok(None))
        {
            let warning =
                format!("interface {iface} is not there yet: what is published on it is reachable when it is");
            if !self.ports.warnings.contains(&warning) {
                self.ports.warnings.push(warning);
            }
        }
    }

    /// Which address of a dual-stack socket was refused? Asked one by one, on the error path.
    fn kernel(&self, spec: &PortSpec, scope: Scope, port: u16, errno: Errno) -> Refused {
        let addresses = scope.addresses(self.ipv6.known);
        let iface = spec.iface.as_deref();
        let taken = |ip: &&IpAddr| socket::hold(spec.proto, Scope::One(**ip), iface, self.ipv6, port).is_err();
        let ip = addresses.iter().find(taken).unwrap_or(&addresses[0]);
        Refused::Kernel { proto: spec.proto, at: SocketAddr::new(*ip, port), errno }
    }
}

/// A host range and the container range behind it.
type Chosen = ((u16, u16), (u16, u16));

fn scope(spec: &PortSpec, default_ip: Option<IpAddr>) -> Scope {
    spec.host_ip.or(default_ip).map_or(Scope::Any, Scope::One)
}

/// Is the host port given, and not one of a range to choose from?
fn is_fixed(spec: &PortSpec) -> bool {
    spec.host.is_some_and(|h| h.1 - h.0 == spec.container.1 - spec.container.0)
}

fn push_bindings(
    bindings: &mut Vec<PortBinding>,
    spec: &PortSpec,
    addresses: Vec<IpAddr>,
    host: (u16, u16),
    container: (u16, u16),
) {
    for host_ip in addresses {
        let from: Vec<IpNetwork> = spec.from.iter().filter(|n| n.is_ipv4() == host_ip.is_ipv4()).copied().collect();
        // Only sources of the other family may come: on this address it is published for nobody.
        if from.is_empty() && !spec.from.is_empty() {
            continue;
        }
        let iface = spec.iface.clone();
        bindings.push(PortBinding { host_ip, host, container, proto: spec.proto, iface, from, routed: false });
    }
}

/// `net.ipv4.ip_local_port_range`, or the kernel's default.
fn ephemeral_range() -> (u16, u16) {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut numbers = text.split_whitespace().map_while(|n| n.parse().ok());
    match (numbers.next(), numbers.next()) {
        (Some(lo), Some(hi)) => (lo, hi),
        _ => (32768, 60999),
    }
}

#[cfg(test)]
mod tests;
