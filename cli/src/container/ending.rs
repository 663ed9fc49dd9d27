//! The end of a container, as its monitor sees it: recorded, cleaned up, told.

use super::events::{self, Joined};
use super::lock::Lock;
use super::record::Record;
use super::volume::store;
use super::{remove, undo, workers};
use crate::context::Context;
use netstack::sandbox::Sandbox;
use plan::{HostThing, Result};
use runtime::host::HostFacts;
use runtime::monitor::Exit;
use runtime::state::{self, State, Status};
use std::os::fd::OwnedFd;

/// What a monitor holds for its container.
pub struct Held {
    pub facts: HostFacts,
    pub things: Vec<HostThing>,
    pub sandbox: Option<Sandbox>,
    /// Its mounts, whose taking down nobody needs to wait for. `None` for a monitor that took over.
    pub mounts: Option<OwnedFd>,
    pub state: State,
}

/// In a container's volatile directory: the user ended it, so it is not started again.
const STOPPED: &str = "stopped";

/// How: only of the first kind Docker's events say so.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Will {
    /// `stop` and `restart`.
    Stop,
    /// `kill` and `rm -f`.
    Kill,
}

/// Notes that the user wants the container to end, before anything ends it. Without room or
/// directory there is nothing to prevent.
pub fn mark_stopped(ctx: &Context, id: &str, will: Will) {
    let word = if will == Will::Stop { "stop" } else { "kill" };
    let _ = std::fs::write(ctx.state_dir(id).join(STOPPED), word);
}

/// Whether a container that [`is_stopped`] was so by `stop`.
pub fn by_stop(ctx: &Context, id: &str) -> bool {
    std::fs::read(ctx.state_dir(id).join(STOPPED)).is_ok_and(|word| word == b"stop")
}

pub fn is_stopped(ctx: &Context, id: &str) -> bool {
    ctx.state_dir(id).join(STOPPED).exists()
}

/// Returns when the last client has heard of it; `true`: it is to be started again.
///
/// # Errors
/// Something on the host resists; the next command tries again.
pub fn end(ctx: &Context, mut record: Record, mut held: Held, mut exit: Exit) -> Result<bool> {
    // Whoever starts, removes or repairs this container waits until it is in order again.
    let lock = Lock::take(ctx, &record.id)?;
    // Its name or its restart policy may be others by now.
    if let Ok(now) = Record::load(&ctx.container_dir(&record.id)) {
        record = now;
    }
    // Only a killed process can be one that memory ran out for.
    let killed = exit.signal == Some(libc::SIGKILL);
    let cgroup = held.things.iter().find_map(|t| match t {
        HostThing::CgroupDir { path } => Some(path),
        _ => None,
    });
    let oom = killed && cgroup.is_some_and(|path| runtime::cgroup::oom_kills(path, &held.facts) > 0);
    held.state.stopped = is_stopped(ctx, &record.id);
    let left_alone = !held.state.stopped && !exit.told;
    let again = left_alone && record.host.restart.again(exit.code, held.state.restart_count);
    match again {
        true => held.state.set_restarting(exit.code, oom),
        false => held.state.set_exited(exit.code, oom),
    }
    held.state.finished_at = exit.finished_at;
    held.state.log_dropped = exit.log_dropped;

    let recorded = record_end(ctx, &record, &held.state);
    let networks = Joined::of(&record, held.sandbox.as_ref().map_or(&[], Sandbox::endpoints));
    // Its elements go over the socket that made them, which is closed only after everyone has been
    // told: closing it waits for the kernel (design §4, trap 4).
    let mut closed = held.sandbox.map(Sandbox::close);
    if held.things.iter().any(|t| matches!(t, HostThing::VolumeMount { .. })) {
        // Whoever is told of the end may take the disk away, or expects the next tmpfs to be empty.
        drop(held.mounts.take());
        if undo::volumes(&held.things).is_empty() {
            held.things.retain(|t| !matches!(t, HostThing::VolumeMount { .. }));
        }
    }
    let doomed = match record.host.auto_remove {
        true => remove::own_volumes(ctx, &record),
        false => Ok(Vec::new()),
    };
    // Whoever is told may ask for what happened at once.
    events::die(ctx, &record, &held.state, &networks, doomed.as_deref().unwrap_or_default());
    // Name, addresses and ports are free, the end is on record. What is left nobody needs to wait
    // for; whoever wants to start or remove this container waits for our lock.
    exit.farewell.tell();
    if let Some(closed) = &mut closed {
        closed.abandon();
    }
    drop(held.mounts);
    let keep_state = recorded.is_err() || again;
    held.things.retain(|t| match t {
        HostThing::CgroupDir { .. } | HostThing::VolumeMount { .. } => true,
        HostThing::StateDir { .. } => !keep_state,
        // What the sandbox could not take back is tried once more by name.
        _ => closed.as_ref().is_none_or(|c| !c.failures.is_empty()),
    });
    let undone = undo::walk(&held.things, &held.facts);
    let removed = match record.host.auto_remove {
        true => remove_all(ctx, &record, doomed),
        false => Ok(()),
    };
    if undone.is_ok() && removed.is_ok() && !keep_state {
        workers::leave(ctx);
    }
    drop(lock);
    // A client that reads slowly must not hold up the next life.
    if !again {
        exit.farewell.send();
    }
    if let Some(closed) = closed {
        closed.linger();
    }
    undone.and(removed).map(|()| again)
}

/// The end outlives us in the record's directory; on a full disk in the volatile one. A container
/// of `--rm` has no record to keep.
fn record_end(ctx: &Context, record: &Record, end: &State) -> Result<()> {
    let volatile = ctx.state_dir(&record.id);
    if record.host.auto_remove {
        return remove::hide(ctx, record);
    }
    let kept = state::save(&ctx.container_dir(&record.id), end);
    if end.status == Status::Restarting {
        // As long as the monitor lives this one counts.
        return state::save(&volatile, end);
    }
    match kept {
        Ok(()) => {
            // From now on the copy that outlives us counts.
            let _ = std::fs::remove_file(volatile.join(state::FILE));
            Ok(())
        }
        Err(e) => {
            state::save(&volatile, end)?;
            Err(e)
        }
    }
}

fn remove_all(ctx: &Context, record: &Record, volumes: Result<Vec<&str>>) -> Result<()> {
    for volume in volumes? {
        store::discard(ctx, volume)?;
    }
    remove::files(ctx, &record.id)
}
