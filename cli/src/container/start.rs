//! The command line's half of a start: a monitor is spawned, and tells how it went.

use super::life;
use super::lock::Lock;
use super::monitor::Order;
use super::record::Record;
use crate::context::Context;
use plan::{Error, Kind, Result, ResultExt, Spoken};
use runtime::monitor::{Outcome, Report};
use runtime::spec::RunSpec;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

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
    if life::is_running(ctx, &record.id)? {
        return Ok(None);
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
    let order = Order {
        root: ctx.root.clone(),
        state: ctx.state.clone(),
        config: ctx.config_path.clone(),
        report: write.as_raw_fd(),
        lock: lock.as_fd().as_raw_fd(),
        attached: theirs.as_ref().map(AsRawFd::as_raw_fd),
        explain: wishes.explain,
        console: wishes.console,
        take_over: wishes.take_over,
    };
    let order =
        serde_json::to_string(&order).map_err(|e| Error::system("encode the order").with_cause(e.to_string()))?;
    let exe = runtime::sys::seal::sealed_exe()?;
    let mut keep = vec![write.as_fd(), lock.as_fd()];
    keep.extend(theirs.as_ref().map(OwnedFd::as_fd));
    runtime::monitor::spawn(exe.as_fd(), &["rrun", "monitor", &record.id, &order], &keep)?;
    // The monitor has its own copies now. Ours must go: its death has to be noticed here, and the
    // lock is its to give up.
    drop((write, lock, theirs));
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

/// Resolves `container:<id>` to the process whose network is shared.
///
/// # Errors
/// Docker's texts for a container that is not there or does not run.
pub fn join_network(ctx: &Context, record: &Record, spec: &mut RunSpec) -> Result<()> {
    let Some(target) = record.joined_container() else { return Ok(()) };
    if target == record.id {
        return Err(Error::invalid("cannot join own network namespace").with_hint("name another container"));
    }
    let owner = super::find(ctx, target)?;
    let state = life::state(ctx, &owner.id)?;
    if state.status != runtime::state::Status::Running {
        return Err(Error::new(
            Kind::Conflict,
            format!(
                "cannot join network namespace of a non running container: container {} is {}",
                owner.name, state.status
            ),
        )
        .with_hint(format!("rrun start {}", owner.name)));
    }
    spec.namespaces.net = runtime::spec::Namespace::Path(format!("/proc/{}/ns/net", state.pid).into());
    Ok(())
}
