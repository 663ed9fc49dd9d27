//! A container whose monitor was killed gets a new one from the next command that notices.
//!
//! The container runs on meanwhile: its output pipes have readers of their own and fill up, its
//! addresses, routes and published ports are the kernel's. What stands still is its log, its DNS
//! server and the relays for [::1], and nobody would clean up at its end.

use super::ending::Held;
use super::lock::Lock;
use super::monitor::{Begun, sandbox_request};
use super::record::Record;
use super::spec::run_spec;
use super::start::{self, Start};
use super::{life, logging, undo, workers};
use crate::context::Context;
use plan::{Error, Kind, Result, ResultExt};
use runtime::attach;
use runtime::cgroup::Layout;
use runtime::host::HostFacts;
use runtime::monitor::{Report, reclaim};
use runtime::relay::Ends;
use runtime::state::{self, Identity, State};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

/// Starts a monitor for a container that runs without one.
///
/// # Errors
/// The new monitor could not take hold of it; the container is as before.
pub fn replace_monitor(ctx: &Context, id: &str) -> Result<()> {
    let Some(lock) = Lock::try_take(ctx, id)? else { return Ok(()) };
    // Somebody may have done it before we had the lock, or it may have ended.
    match state::load(&ctx.state_dir(id))? {
        Some(now) if state::is_alive(&now) && !state::monitor_alive(&now) => {}
        _ => return Ok(()),
    }
    let record = Record::load(&ctx.container_dir(id))?;
    start::launch(ctx, &record, lock, Start { take_over: true, ..Start::default() })?;
    workers::forget(ctx, id)
}

/// The new monitor's beginning. On an error the container is left alone.
///
/// # Errors
/// It has ended; its state is damaged; a host port is somebody else's by now.
pub fn begin(ctx: &Context, record: Record, cgroups: Layout) -> Result<Begun> {
    workers::enter(ctx, &record.id)?;
    hold(ctx, record, cgroups).inspect_err(|_| workers::leave(ctx))
}

fn hold(ctx: &Context, record: Record, cgroups: Layout) -> Result<Begun> {
    let id = &record.id;
    let state_dir = ctx.state_dir(id);
    let mut state = life::state(ctx, id)?;
    let ended = || Error::new(Kind::Conflict, format!("container {} has ended", record.name));
    let pidfd = state::open(&state)?.ok_or_else(ended)?;
    let things = undo::load(&state_dir)?.unwrap_or_else(|| undo::least(ctx, id));
    let sandbox = match record.networks.is_empty() {
        true => None,
        false => {
            let path = format!("/proc/{}/ns/net", state.pid);
            let netns = File::open(&path).doing(|| format!("open {path}"))?;
            let request = sandbox_request(ctx, &record, &run_spec(ctx, &record)?)?;
            Some(ctx.netstack().resume(&request, netns.as_fd())?)
        }
    };
    let log = logging::writer(ctx, &record)?;
    let ends = streams(&state)?;
    let listener = attach::listen(&state_dir)?;
    let own = Identity::of(std::process::id().cast_signed())
        .ok_or_else(|| Error::os("read the monitor's own start time", libc::ESRCH))?;
    (state.monitor_pid, state.monitor_start_time) = (own.pid, own.start_time);
    state::save(&state_dir, &state)?;
    let held = Held { facts: HostFacts::of(cgroups)?, things, sandbox, mounts: None, state };
    let (pid, report) = (held.state.pid, Report::started(held.state.pid));
    Ok(Begun { record, spec: None, held, pid, pidfd, ends, listener, report, log, console: None })
}

/// Its pipes, found again. A terminal has hung up with its monitor: there is nothing more to read.
fn streams(state: &State) -> Result<Ends> {
    if let Some(marks) = state.streams {
        return reclaim(state.pid, marks);
    }
    let nothing = || File::open("/dev/null").map(OwnedFd::from).doing(|| "open /dev/null");
    Ok(Ends::Pipes { stdin: None, stdout: nothing()?, stderr: nothing()? })
}
