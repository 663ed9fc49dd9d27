//! The end of a container, as its monitor sees it: recorded, cleaned up, told.

use super::lock::Lock;
use super::record::Record;
use super::{remove, undo, workers};
use crate::context::Context;
use netstack::sandbox::Sandbox;
use plan::{HostThing, Result};
use runtime::host::HostFacts;
use runtime::monitor::Exit;
use runtime::state::{self, State};

/// What a monitor holds for its container.
pub struct Held {
    pub facts: HostFacts,
    pub things: Vec<HostThing>,
    pub sandbox: Option<Sandbox>,
    pub state: State,
}

/// Returns when the last client has heard of it.
///
/// # Errors
/// Something on the host resists; the next command tries again.
pub fn end(ctx: &Context, record: &Record, mut held: Held, mut exit: Exit) -> Result<()> {
    // Whoever starts, removes or repairs this container waits until it is in order again.
    let lock = Lock::take(ctx, &record.id)?;
    // Only a killed process can be one that memory ran out for.
    let killed = exit.signal == Some(libc::SIGKILL);
    let cgroup = held.things.iter().find_map(|t| match t {
        HostThing::CgroupDir { path } => Some(path),
        _ => None,
    });
    let oom = killed && cgroup.is_some_and(|path| runtime::cgroup::oom_kills(path, &held.facts) > 0);
    held.state.set_exited(exit.code, oom);
    held.state.finished_at = exit.finished_at;
    held.state.log_dropped = exit.log_dropped;

    let recorded = record_end(ctx, record, &held.state);
    // Its elements go over the socket that made them, which is closed only after everyone has been
    // told: closing it waits for the kernel (design §4, trap 4).
    let closed = held.sandbox.map(Sandbox::close);
    // Name, addresses and ports are free, the end is on record. What is left nobody needs to wait
    // for; whoever wants to start or remove this container waits for our lock.
    exit.farewell.tell();
    let keep_state = recorded.is_err();
    held.things.retain(|t| match t {
        HostThing::CgroupDir { .. } => true,
        HostThing::StateDir { .. } => !keep_state,
        // What the sandbox could not take back is tried once more by name.
        _ => closed.as_ref().is_none_or(|c| !c.failures.is_empty()),
    });
    let undone = undo::walk(&held.things, &held.facts);
    let removed = if record.host.auto_remove { remove_all(ctx, record) } else { Ok(()) };
    if undone.is_ok() && removed.is_ok() && !keep_state {
        workers::leave(ctx);
    }
    drop(lock);
    exit.farewell.send();
    if let Some(closed) = closed {
        closed.linger();
    }
    undone.and(removed)
}

/// The end outlives us in the record's directory; on a full disk in the volatile one. A container
/// of `--rm` has no record to keep.
fn record_end(ctx: &Context, record: &Record, end: &State) -> Result<()> {
    let volatile = ctx.state_dir(&record.id);
    if record.host.auto_remove {
        return remove::hide(ctx, record);
    }
    match state::save(&ctx.container_dir(&record.id), end) {
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

fn remove_all(ctx: &Context, record: &Record) -> Result<()> {
    remove::anonymous_volumes(ctx, record)?;
    remove::files(ctx, &record.id)
}
