//! The monitor between two lives of its container: it waits, and starts it again.

use super::lock::Lock;
use super::monitor::{Asked, Begun, attempt};
use super::record::Record;
use super::{ending, events, undo, workers};
use crate::context::Context;
use plan::{Error, HostThing, Kind, Result};
use runtime::cgroup::Layout;
use runtime::host::HostFacts;
use runtime::state::{self, State, Status};
use runtime::sys::poll::{Poll, READ};
use runtime::sys::signals::Signals;
use std::time::{Duration, Instant};

/// A wait longer than this is worth giving memory back before it.
const LONG: Duration = Duration::from_secs(1);

/// Starts the container again after `pause`, unless somebody stops it meanwhile.
///
/// # Errors
/// The container is gone, or its end cannot be recorded.
pub fn revive(ctx: &Context, id: &str, pause: Duration) -> Result<Option<(Begun, Lock)>> {
    let told = told_to_end_within(pause)?;
    let lock = match Lock::take(ctx, id) {
        Ok(lock) => lock,
        // `rm -f` was faster.
        Err(e) if e.kind == Kind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let Some(mut state) = state::load(&ctx.state_dir(id))?.filter(|s| s.status == Status::Restarting) else {
        return Ok(None);
    };
    state.stopped = ending::is_stopped(ctx, id);
    let mut things = undo::least(ctx, id);
    if !told && !state.stopped {
        // Nobody waits for this start, and nobody hears its words.
        let started = Record::load(&ctx.container_dir(id)).and_then(|record| {
            let asked = Asked { restarts: state.restart_count, ..Asked::default() };
            attempt(ctx, record, &asked, Layout::observe()?, &mut things)
        });
        match started {
            Ok(begun) => return Ok(Some((begun, lock))),
            // Killed on its way to its program: that is no failure of the start.
            Err(_) if ending::is_stopped(ctx, id) => {
                (state.stopped, state.exit_code) = (true, 128 + libc::SIGKILL);
            }
            Err(e) => (state.exit_code, state.error) = (code_of(&e), e.to_string()),
        }
    }
    stay_down(ctx, id, state, &things)?;
    Ok(None)
}

/// What `restarting` said of the last life is now the end of it.
fn stay_down(ctx: &Context, id: &str, state: State, things: &[HostThing]) -> Result<()> {
    let (finished, code, oom) = (state.finished_at.clone(), state.exit_code, state.oom_killed);
    let by_stop = state.stopped && ending::by_stop(ctx, id);
    let mut end = state;
    end.set_exited(code, oom);
    end.finished_at = finished;
    let kept = state::save(&ctx.container_dir(id), &end);
    let facts = HostFacts::observe()?;
    if kept.is_ok() {
        undo::walk(things, &facts)?;
        workers::leave(ctx);
    } else {
        // No room on the disk: the volatile copy speaks for it.
        let rest: Vec<HostThing> =
            things.iter().filter(|t| !matches!(t, HostThing::StateDir { .. })).cloned().collect();
        undo::walk(&rest, &facts)?;
        state::save(&ctx.state_dir(id), &end)?;
    }
    if by_stop {
        events::stopped(ctx, id);
    }
    kept
}

/// As Docker has it for a container whose program could not be started.
fn code_of(e: &Error) -> i32 {
    match e.kind {
        Kind::NoSuchProgram => 127,
        Kind::NotExecutable => 126,
        _ => 128,
    }
}

/// Whether SIGTERM and its like came before the time was over.
fn told_to_end_within(pause: Duration) -> Result<bool> {
    let numbers = [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT, libc::SIGHUP, libc::SIGCHLD];
    let signals = Signals::block(&numbers).map_err(|e| Error::os("block signals", e.raw_os_error()))?;
    let until = Instant::now() + pause;
    let mut poll = Poll::default();
    loop {
        while let Some(number) = signals.next() {
            if matches!(number, libc::SIGTERM | libc::SIGINT | libc::SIGQUIT) {
                return Ok(true);
            }
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        poll.clear();
        poll.watch(&signals, READ);
        let waited = if left > LONG { poll.wait_idle(Some(left)) } else { poll.wait(Some(left)) };
        waited.map_err(|e| Error::os("wait for the next start", e.raw_os_error()))?;
    }
}
