//! The command line's half of a start: a monitor is spawned, and tells how it went.

use super::life;
use super::lock::Lock;
use super::monitor::{Asked, Order};
use super::record::Record;
use crate::context::Context;
use plan::{Error, Result, ResultExt, Spoken};
use runtime::cgroup::Layout;
use runtime::monitor::{Outcome, Report};
use runtime::spec::{Namespace, RunSpec};
use runtime::state::Status;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// What the starter wants beside the container itself.
#[derive(Default)]
pub struct Start {
    /// A connection to the monitor that is there before the program's first byte.
    pub attach: bool,
    /// The words and times of every step.
    pub explain: bool,
    /// Rows and columns of the starter's terminal.
    pub console: Option<(u16, u16)>,
    /// The container runs, and only its monitor is missing.
    pub take_over: bool,
    /// How often it has been started again by its policy.
    pub restarts: u32,
}

pub struct Started {
    pub explain: Vec<Spoken>,
    pub warnings: Vec<String>,
    /// The connection, if asked for.
    pub stream: Option<UnixStream>,
}

/// Starts a stopped container. `None`: it runs already.
///
/// # Errors
/// The step that failed; the container is then as before.
pub fn start(ctx: &Context, record: &Record, lock: Lock, wishes: Start) -> Result<Option<Started>> {
    let Some(lock) = life::repair_locked(ctx, &record.id, lock)? else {
        return Err(super::no_such(&record.name));
    };
    match life::state(ctx, &record.id)? {
        state if state.status == Status::Restarting => return Ok(None),
        state if life::is_paused(record, &state, &Layout::observe()?) => {
            return Err(Error::conflict("cannot start a paused container, try unpause instead")
                .with_hint(format!("rrun unpause {}", record.name)));
        }
        state if state.status == Status::Running => return Ok(None),
        _ => {}
    }
    launch(ctx, record, lock, wishes).map(Some)
}

/// As [`start`], for a container that was made a moment ago and has never run.
///
/// # Errors
/// The step that failed.
pub fn launch(ctx: &Context, record: &Record, lock: Lock, wishes: Start) -> Result<Started> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).doing(|| "create a pipe")?;
    let pair = wishes.attach.then(runtime::sys::fdpass::socketpair).transpose();
    let pair = pair.map_err(|e| Error::io("create a socket pair", &e.into()))?;
    let (ours, theirs) = pair.map_or((None, None), |(a, b)| (Some(a), Some(b)));
    let lends = record.has_own_netns() && !wishes.take_over;
    let pair = lends.then(runtime::sys::fdpass::socketpair).transpose();
    let pair = pair.map_err(|e| Error::io("create a socket pair", &e.into()))?;
    let (lender, netns) = pair.map_or((None, None), |(a, b)| (Some(a), Some(b)));
    let mut keep = vec![write.as_raw_fd(), lock.as_fd().as_raw_fd()];
    keep.extend([&theirs, &netns].into_iter().flatten().map(AsRawFd::as_raw_fd));
    let Start { explain, attach: stays, console, restarts, .. } = wishes;
    let asked = Asked { explain, stays, console, netns, restarts };
    let attached = theirs.map(UnixStream::from);
    let layout = Layout::observe()?;
    let cgroups = layout.clone();
    let order = Order { report: write, lock, attached, asked, take_over: wishes.take_over, cgroups };
    // The monitor has its own copies of all in the order. Ours go with it: the monitor's death has to
    // be noticed here, and the lock is its to give up.
    runtime::monitor::spawn(&layout, &keep, move || super::monitor::main(ctx, record, order))?;
    if let Some(lender) = lender {
        // While the monitor plans; without it, it makes its own.
        let _ = runtime::exec::netns::lend(lender);
    }
    let report = Report::receive(read)?;
    match report.outcome {
        Outcome::Ok(_) => Ok(Started {
            explain: report.explain.unwrap_or_default(),
            warnings: report.warnings,
            stream: ours.map(UnixStream::from),
        }),
        Outcome::Error(e) => Err(e),
    }
}

/// Resolves each `container:<id>` to the process whose namespace is shared.
///
/// # Errors
/// Docker's texts for a container that is not there, does not run, or does not share.
pub fn join(ctx: &Context, record: &Record, spec: &mut RunSpec) -> Result<()> {
    let of = |mode: &str| mode.strip_prefix("container:").map(str::to_string);
    if let Some(target) = record.joined_container() {
        let (_, pid) = sharer(ctx, record, target, "network")?;
        spec.namespaces.net = handle(pid, "net");
    }
    if let Some(target) = of(&record.host.pid_mode) {
        let (_, pid) = sharer(ctx, record, &target, "pid")?;
        spec.namespaces.pid = handle(pid, "pid");
    }
    if let Some(target) = of(&record.host.ipc_mode) {
        let (owner, pid) = sharer(ctx, record, &target, "ipc")?;
        if owner.host.ipc_mode != "shareable" {
            return Err(Error::conflict(format!(
                "cannot join IPC namespace of container {}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)",
                owner.name
            ))
            .with_hint("make that container with --ipc shareable"));
        }
        spec.namespaces.ipc = handle(pid, "ipc");
        // POSIX shared memory is files in the owner's tmpfs.
        for mount in spec.mounts.iter_mut().filter(|m| m.target == Path::new("/dev/shm") && m.kind == "tmpfs") {
            mount.kind = "bind".into();
            mount.source = format!("/proc/{pid}/root/dev/shm").into();
            mount.options = ["rbind", "rprivate", "nosuid", "noexec", "nodev"].map(String::from).to_vec();
        }
    }
    Ok(())
}

fn handle(pid: i32, kind: &str) -> Namespace {
    Namespace::Path(format!("/proc/{pid}/ns/{kind}").into())
}

fn sharer(ctx: &Context, record: &Record, target: &str, what: &str) -> Result<(Record, i32)> {
    if target == record.id {
        return Err(Error::invalid(format!("cannot join own {what} namespace")).with_hint("name another container"));
    }
    let owner = super::find(ctx, target)?;
    let state = life::state(ctx, &owner.id)?;
    if state.status == Status::Running {
        return Ok((owner, state.pid));
    }
    let (name, status) = (&owner.name, state.status);
    Err(Error::conflict(format!(
        "cannot join {what} namespace of a non running container: container {name} is {status}"
    ))
    .with_hint(format!("rrun start {name}")))
}
