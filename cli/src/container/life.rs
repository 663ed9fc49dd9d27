//! Whether a container lives: what its files say, as far as the kernel agrees.
//!
//! `<state>/containers/<id>/state.json` is there while it runs and names processes; the copy beside
//! the record is there from the first start on and outlives a reboot. Where they and the kernel
//! disagree, somebody was killed or the power went: [`repair`] finishes what they could not.

use super::ending::Will;
use super::events::{self, Joined};
use super::lock::Lock;
use super::record::Record;
use super::start::{self, Start};
use super::{ending, remove, signal, takeover, undo, workers};
use crate::context::Context;
use plan::{Error, HostThing, Kind, Result, ResultExt};
use runtime::cgroup::Layout;
use runtime::host::HostFacts;
use runtime::state::{self, State, Status};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// The exit code of a container whose end nobody saw.
const UNKNOWN: i32 = 255;

/// How long a monitor may take from its container's end to having put everything in order.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was found, and whether it is as it should be.
struct Sight {
    state: State,
    /// The process is gone, but its monitor lives and is about to say how it ended.
    ending: bool,
    /// Nobody is left to clean up.
    orphaned: bool,
}

fn look(ctx: &Context, id: &str) -> Result<Sight> {
    let sight = |state, ending, orphaned| Ok(Sight { state, ending, orphaned });
    match state::load(&ctx.state_dir(id))? {
        Some(state) if state.status == Status::Running => {
            if state::is_alive(&state) {
                return sight(state, false, false);
            }
            let ending = state::monitor_alive(&state);
            sight(lost(state), ending, !ending)
        }
        // Its monitor waits; if that was killed, the end of its last life is all there is.
        Some(state) if state.status == Status::Restarting => match state::monitor_alive(&state) {
            true => sight(state, false, false),
            false => sight(ended(state), false, true),
        },
        // An end that the disk had no room for.
        Some(state) => sight(state, false, true),
        None => match state::load(&ctx.container_dir(id))? {
            // Of an earlier boot: the volatile half went with it.
            Some(state) if state.status == Status::Running => sight(lost(state), false, true),
            Some(state) if state.status == Status::Restarting => sight(ended(state), false, true),
            Some(state) => sight(state, false, ctx.state_dir(id).exists()),
            None => sight(State::created(id), false, ctx.state_dir(id).exists()),
        },
    }
}

/// A state that claims to run, told as an end that nobody saw.
fn lost(mut state: State) -> State {
    state.set_exited(UNKNOWN, false);
    state
}

/// A state that waits for another start, told as the end that it was.
fn ended(mut state: State) -> State {
    let (code, oom, finished) = (state.exit_code, state.oom_killed, state.finished_at.clone());
    state.set_exited(code, oom);
    state.finished_at = finished;
    state
}

/// The container's state, true now. Waits for an end that is just being recorded, and finishes one
/// that nobody recorded.
///
/// # Errors
/// A damaged state file; no such container, if it was one of `--rm` whose end was never finished.
pub fn state(ctx: &Context, id: &str) -> Result<State> {
    let deadline = Instant::now() + PATIENCE;
    let mut tried = false;
    loop {
        let sight = look(ctx, id)?;
        if sight.orphaned && !tried {
            tried = true;
            // What resists is no reason not to say how it stands; `rm` and `start` say what it is.
            let _ = repair(ctx, id);
            if !ctx.container_dir(id).exists() {
                return Err(super::no_such(id));
            }
            continue;
        }
        if !sight.ending || Instant::now() > deadline {
            return Ok(sight.state);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whether it runs now.
///
/// # Errors
/// A damaged state file.
pub fn is_running(ctx: &Context, id: &str) -> Result<bool> {
    Ok(state(ctx, id)?.status == Status::Running)
}

/// The network namespace of a running container.
///
/// # Errors
/// A damaged state file; not being root.
pub fn namespace(ctx: &Context, id: &str) -> Result<Option<OwnedFd>> {
    let state = state(ctx, id)?;
    if state.status != Status::Running {
        return Ok(None);
    }
    let path = format!("/proc/{}/ns/net", state.pid);
    let netns = File::open(&path).doing(|| format!("open {path}"))?;
    // The pid is still the container's, so the handle cannot be a stranger's.
    Ok(runtime::state::is_alive(&state).then(|| netns.into()))
}

/// Finishes what a killed monitor or a lost boot left undone. Cheap when there is nothing to do.
///
/// # Errors
/// Something on the host resists; it is tried again by the next command.
pub fn repair(ctx: &Context, id: &str) -> Result<()> {
    let sight = look(ctx, id)?;
    if !sight.orphaned && !remove::is_nameless(ctx, id) {
        return match sight.state.status {
            Status::Running => takeover::replace_monitor(ctx, id),
            _ => workers::forget(ctx, id),
        };
    }
    // Whoever holds the lock is starting, ending or repairing it.
    match Lock::try_take(ctx, id) {
        Ok(Some(lock)) => {
            let next = next_life(ctx, id)?;
            match (next, repair_locked(ctx, id, lock)?) {
                (Some((record, restarts)), Some(lock)) => {
                    start::launch(ctx, &record, lock, Start { restarts, ..Start::default() }).map(drop)
                }
                _ => Ok(()),
            }
        }
        Ok(None) => Ok(()),
        // Its directory is gone: an end of `--rm` that was killed on the way.
        Err(e) if e.kind == Kind::NotFound => finish(ctx, id),
        Err(e) => Err(e),
    }
}

/// A container whose monitor is gone and whose policy now starts it once more, and how often it has been
/// then; asked before the repair, which forgets it.
fn next_life(ctx: &Context, id: &str) -> Result<Option<(Record, u32)>> {
    // What ran in an earlier boot is for `rrun boot`.
    let (true, Some(last)) = (look(ctx, id)?.orphaned, state::load(&ctx.state_dir(id))?) else { return Ok(None) };
    let Ok(record) = Record::load(&ctx.container_dir(id)) else { return Ok(None) };
    let policy = record.host.restart;
    let restarts = match last.status {
        Status::Running if policy.again(UNKNOWN, last.restart_count) => last.restart_count.saturating_add(1),
        // It was decided, and counted, when it ended.
        Status::Restarting if !policy.is_none() => last.restart_count,
        _ => return Ok(None),
    };
    let wanted = !ending::is_stopped(ctx, id) && !remove::is_nameless(ctx, id);
    Ok(wanted.then_some((record, restarts)))
}

/// As [`repair`], for a holder of the lock. `None`: the container was one of `--rm`, and is gone.
///
/// # Errors
/// As [`repair`].
pub fn repair_locked(ctx: &Context, id: &str, lock: Lock) -> Result<Option<Lock>> {
    if remove::is_nameless(ctx, id) {
        finish(ctx, id)?;
        if let Ok(record) = Record::load(&ctx.container_dir(id)) {
            remove::anonymous_volumes(ctx, &record)?;
        }
        remove::give_up_addresses(ctx, id)?;
        remove::files(ctx, id)?;
        return Ok(None);
    }
    let sight = look(ctx, id)?;
    if !sight.orphaned {
        return Ok(Some(lock));
    }
    let record = Record::load(&ctx.container_dir(id));
    let ended = sight.state.status == Status::Exited;
    let kept = match &record {
        Ok(record) if ended && !record.host.auto_remove => state::save(&ctx.container_dir(id), &sight.state),
        _ => Ok(()),
    };
    if kept.is_err() {
        // No room on the disk: the volatile copy goes on speaking for it, and the rest is cleaned up.
        let mut things = left_behind(ctx, id);
        things.retain(|t| !matches!(t, HostThing::StateDir { .. }));
        undo::walk(&things, &HostFacts::observe()?)?;
        state::save(&ctx.state_dir(id), &sight.state)?;
        return Ok(Some(lock));
    }
    // A start that was cut short has no end to tell of.
    if let (Ok(record), true) = (&record, ended && ctx.state_dir(id).join(state::FILE).exists()) {
        let endpoints = ctx.netstack().endpoints_of(id).unwrap_or_default();
        events::die(ctx, record, &sight.state, &Joined::of(record, &endpoints), &[]);
    }
    finish(ctx, id)?;
    let record = record?;
    // What has not ended is a start that was killed half-way: the container is as before.
    if ended && record.host.auto_remove {
        remove::anonymous_volumes(ctx, &record)?;
        remove::discard(ctx, &record)?;
        return Ok(None);
    }
    Ok(Some(lock))
}

/// The undo list; what cannot be read is no reason to leave the rest.
fn left_behind(ctx: &Context, id: &str) -> Vec<HostThing> {
    undo::load(&ctx.state_dir(id)).ok().flatten().unwrap_or_else(|| undo::least(ctx, id))
}

/// Takes back what a container without a monitor left.
fn finish(ctx: &Context, id: &str) -> Result<()> {
    let dir = ctx.state_dir(id);
    // Killed after the addresses were leased and before they were written down.
    let unwritten = dir.exists() && !matches!(undo::load(&dir), Ok(Some(_)));
    undo::walk(&left_behind(ctx, id), &HostFacts::observe()?)?;
    if unwritten {
        ctx.netstack().sweep()?;
    }
    ctx.netstack().export_names()?;
    workers::forget(ctx, id)
}

/// Repairs every container whose monitor is gone. Every command begins with it: it reads one
/// directory and asks the kernel once a container.
///
/// # Errors
/// None that concern the command at hand: what cannot be repaired now is met again later.
pub fn sweep(ctx: &Context) {
    for id in workers::orphans(ctx) {
        // The user asked for something else; `rm -f` of this very container shows the error.
        let _ = repair(ctx, &id);
    }
}

/// Sends `number`, waits `grace` (`None`: for ever), then SIGKILL; returns when the container's
/// end is recorded and cleaned up. It is not started again, and one that is about to be is not.
/// Success if it does not run.
///
/// # Errors
/// It does not end; its cleanup fails.
pub fn stop(ctx: &Context, record: &Record, number: i32, grace: Option<Duration>, will: Will) -> Result<()> {
    let id = record.id.as_str();
    loop {
        let state = look(ctx, id)?.state;
        match state.status {
            Status::Running => {
                ending::mark_stopped(ctx, id, will);
                let path = record.cgroup_path();
                state::stop(&state, number, grace, &mut |number| {
                    events::container(ctx, record, "kill", &[("signal", number.to_string())]);
                    thaw(&path)
                })?;
            }
            Status::Restarting => {
                ending::mark_stopped(ctx, id, will);
                state::signal_monitor(&state, libc::SIGTERM)?;
                // It may be just between waiting and starting: then it is told once more.
                std::thread::sleep(Duration::from_millis(2));
                continue;
            }
            Status::Created | Status::Exited => {}
        }
        return settle(ctx, id);
    }
}

/// Lets a container that may be paused go on.
///
/// # Errors
/// The kernel refuses.
pub fn thaw(path: &Path) -> Result<()> {
    runtime::cgroup::thaw(path, &Layout::observe()?)
}

/// Sends one signal, and does not wait. A signal that ends the container keeps it from being
/// started again.
///
/// # Errors
/// Docker's text for one that does not run.
pub fn kill(ctx: &Context, record: &Record, number: i32) -> Result<()> {
    let state = state(ctx, &record.id)?;
    let ends = number == libc::SIGKILL || signal::parse(record.stop_signal()).is_ok_and(|stop| stop == number);
    if ends {
        ending::mark_stopped(ctx, &record.id, Will::Kill);
    }
    if ends && state.status == Status::Restarting {
        return stop(ctx, record, number, None, Will::Kill);
    }
    state::signal(&state, number)?;
    if ends { thaw(&record.cgroup_path()) } else { Ok(()) }
}

/// Whether all its processes stand still.
pub fn is_paused(record: &Record, state: &State, layout: &Layout) -> bool {
    state.status == Status::Running && runtime::cgroup::is_frozen(&record.cgroup_path(), layout)
}

/// For what needs a container that answers: `exec` and `attach`.
///
/// # Errors
/// Docker's texts for one that is paused or waits for its next start.
pub fn expect_awake(record: &Record, state: &State, purpose: &str) -> Result<()> {
    let name = &record.name;
    if state.status == Status::Restarting {
        return Err(Error::conflict(match purpose {
            "exec" => format!("Container {} is restarting, wait until the container is running", record.id),
            _ => "You cannot attach to a restarting container, wait until it is running".to_string(),
        })
        .with_hint(format!("`rrun logs {name}` tells why it keeps ending")));
    }
    if is_paused(record, state, &Layout::observe()?) {
        return Err(Error::conflict(match purpose {
            "exec" => format!("Container {} is paused, unpause the container before exec", record.id),
            _ => "You cannot attach to a paused container, unpause it first".to_string(),
        })
        .with_hint(format!("rrun unpause {name}")));
    }
    Ok(())
}

/// Waits until the container has ended, and gives its exit code. One of `--rm` may be gone by then:
/// the monitor's own word counts. One that waits for its next start is waited for as well.
///
/// # Errors
/// A damaged state file.
pub fn wait(ctx: &Context, id: &str) -> Result<i32> {
    while look(ctx, id)?.state.status == Status::Restarting {
        std::thread::sleep(Duration::from_millis(10));
    }
    match runtime::attach::connect(&ctx.state_dir(id)) {
        Ok(stream) => {
            if let Some(code) = runtime::attach::wait(stream)? {
                return Ok(code);
            }
        }
        Err(e) if e.kind == Kind::NotFound => {}
        Err(e) => return Err(e),
    }
    // No monitor: the process alone can still be watched.
    state::wait(&look(ctx, id)?.state, None)?;
    settle(ctx, id)?;
    Ok(look(ctx, id)?.state.exit_code)
}

/// After the process's end: waits for its monitor to have put everything in order, or does it.
fn settle(ctx: &Context, id: &str) -> Result<()> {
    state(ctx, id)?;
    match Lock::take(ctx, id).and_then(|lock| repair_locked(ctx, id, lock)) {
        Err(e) if e.kind != Kind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Ends whatever still runs of a container whose record or state cannot be read, by its cgroup.
///
/// # Errors
/// Something on the host resists.
pub fn take_down(ctx: &Context, id: &str) -> Result<()> {
    finish(ctx, id)
}
