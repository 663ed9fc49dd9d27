//! The monitor's other duties in its loop: the network's (DNS, relays, changes while the container
//! runs) and the health check.

use super::health::Checker;
use super::undo;
use netstack::model::PortSpec;
use netstack::sandbox::Sandbox;
use plan::{Error, HostThing, Result};
use runtime::cgroup::{Layout, monitors};
use runtime::monitor::Service;
use serde_json::{Value, json};
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// `connect` and `disconnect` send it after they have changed the container's endpoints.
pub const REFRESH: &str = "refresh";
/// `port add` sends it with the ports to publish; the answer is [`super::ports::Answer`].
pub const PUBLISH: &str = "publish";
/// `port rm` sends it with the ports to close.
pub const WITHDRAW: &str = "withdraw";
/// What its resolver has done so far: `inspect` asks.
pub const DNS: &str = "dns";

/// What the network asks of the loop, and what is asked of it.
pub struct Network<'a> {
    sandbox: &'a mut Sandbox,
    /// The undo list, which changes with the ports…
    things: &'a mut Vec<HostThing>,
    /// …and where it is written down.
    state_dir: PathBuf,
}

impl<'a> Network<'a> {
    pub fn new(sandbox: &'a mut Sandbox, things: &'a mut Vec<HostThing>, state_dir: PathBuf) -> Network<'a> {
        Network { sandbox, things, state_dir }
    }

    fn publish(&mut self, specs: &[PortSpec]) -> Result<Value> {
        let joining = self.sandbox.reserve_ports(specs)?;
        let answer = json!({ "bindings": joining.bindings(), "warnings": joining.warnings() });
        let before = self.things.len();
        self.things.extend(joining.undo());
        let done = match undo::replace(&self.state_dir, self.things) {
            Ok(()) => self.sandbox.publish(joining),
            // Nothing has been done yet, so nothing has to be written down.
            Err(e) => Err(joining.release().err().map_or(e.clone(), |left| e.with_note(left.to_string()))),
        };
        done.map(|()| answer).inspect_err(|_| {
            self.things.truncate(before);
            // What the list has too much is taken back twice, which does no harm.
            let _ = undo::replace(&self.state_dir, self.things);
        })
    }

    /// What can be done now, and what follows the host's prefix.
    fn turn(&mut self) {
        self.sandbox.ready();
        while let Some(moving) = self.sandbox.moving() {
            let gone: std::collections::HashSet<HostThing> = moving.gone().iter().cloned().collect();
            self.things.extend(moving.undo().iter().cloned());
            // Without room to write it down, or where the kernel resists, it is tried again at the next change.
            if undo::replace(&self.state_dir, self.things).is_err() || self.sandbox.move_to(moving).is_err() {
                return;
            }
            self.things.retain(|thing| !gone.contains(thing));
            let _ = undo::replace(&self.state_dir, self.things);
        }
    }

    fn withdraw(&mut self, specs: &[PortSpec]) -> Result<Value> {
        let left = self.sandbox.withdraw_ports(specs)?;
        let answer = json!({ "bindings": left.bindings });
        let gone: std::collections::HashSet<&HostThing> = left.things.iter().collect();
        self.things.retain(|thing| !gone.contains(thing));
        undo::replace(&self.state_dir, self.things)?;
        left.release()?;
        Ok(answer)
    }
}

fn specs(value: &Value) -> Result<Vec<PortSpec>> {
    serde_json::from_value(value.clone())
        .map_err(|e| Error::invalid("a request to the monitor names no ports").with_cause(e.to_string()))
}

/// How long a container has to last before its monitor leaves its caller's v1 control groups. A third of a
/// millisecond, that takes, which would make the end of a short one late.
const SETTLED: Duration = Duration::from_millis(20);

/// What a monitor does beside its container, as its loop drives it: `runtime` knows none of it.
pub struct Duties<'a> {
    network: Option<Network<'a>>,
    checker: Option<Checker<'a>>,
    /// When it moves, and out of which hierarchies.
    moving: Option<(Instant, Layout)>,
    resized: &'a mut dyn FnMut((u16, u16)),
}

impl<'a> Duties<'a> {
    /// `resized` is told of the terminal's new rows and columns.
    pub fn new(
        network: Option<Network<'a>>,
        checker: Option<Checker<'a>>,
        cgroups: &Layout,
        resized: &'a mut dyn FnMut((u16, u16)),
    ) -> Duties<'a> {
        let moving = (!cgroups.v1.is_empty()).then(|| (Instant::now() + SETTLED, cgroups.v1_part()));
        Duties { network, checker, moving, resized }
    }
}

impl Service for Duties<'_> {
    fn fds(&self, out: &mut Vec<(RawFd, i16)>) {
        if let Some(network) = &self.network {
            let mut interests = Vec::new();
            network.sandbox.fds(&mut interests);
            out.extend(interests.iter().map(|i| {
                let read = if i.read { libc::POLLIN } else { 0 };
                (i.fd, read | if i.write { libc::POLLOUT } else { 0 })
            }));
        }
        out.extend(self.checker.iter().filter_map(Checker::output).map(|fd| (fd, libc::POLLIN)));
    }

    fn ready(&mut self, fd: RawFd, _: i16) {
        match &mut self.checker {
            Some(checker) if checker.output() == Some(fd) => checker.listen(),
            _ => self.network.iter_mut().for_each(Network::turn),
        }
    }

    fn timeout(&self) -> Option<Duration> {
        let network = self.network.as_ref().and_then(|n| n.sandbox.timeout());
        let moving = self.moving.as_ref().map(|(at, _)| at.saturating_duration_since(Instant::now()));
        [network, self.checker.as_ref().and_then(Checker::timeout), moving].into_iter().flatten().min()
    }

    fn tick(&mut self) {
        if let Some((_, v1)) = self.moving.take_if(|(at, _)| *at <= Instant::now()) {
            monitors::settle(&v1);
        }
        if let Some(network) = &mut self.network {
            network.turn();
        }
        let Some(checker) = &mut self.checker else { return };
        checker.tick();
        if let (Some(health), Some(network)) = (checker.news(), &self.network) {
            // Names that several share lead past the unhealthy ones. Where there is no room to say so, they
            // lead to all of them.
            let _ = network.sandbox.set_health(&health.to_string());
        }
    }

    fn request(&mut self, request: &Value) -> Option<Result<Value>> {
        let network = self.network.as_mut()?;
        if request.get(DNS).is_some() {
            return Some(Ok(json!(network.sandbox.dns_counters())));
        }
        if request.get(REFRESH).is_some() {
            return Some(network.sandbox.refresh().map(|()| json!({})));
        }
        if let Some(ports) = request.get(PUBLISH) {
            return Some(specs(ports).and_then(|specs| network.publish(&specs)));
        }
        let ports = request.get(WITHDRAW)?;
        Some(specs(ports).and_then(|specs| network.withdraw(&specs)))
    }

    fn resized(&mut self, size: (u16, u16)) {
        (self.resized)(size);
    }

    fn ended(&mut self, pid: i32, status: i32) {
        if let Some(checker) = &mut self.checker {
            checker.ended(pid, status);
        }
    }
}
