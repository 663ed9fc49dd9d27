//! `rrun exec`: another program in a running container, confined exactly as its first one.
//!
//! The same steps, executed by the same code as a start, with joining in the place of making: the
//! caller aims at the pid namespace, its child is born in the container's cgroup, sheds what could be
//! traced, and only then enters.

use crate::cgroup;
use crate::exec::{Io, Launch, Launched, Running, Starting};
use crate::host::HostFacts;
use crate::planner::{self, Plan};
use crate::seccomp;
use crate::spec::{Process, Seccomp};
use crate::step::Step;
use crate::sys::security;
use plan::{Journal, Result, ResultExt};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// What to run, and where.
#[derive(Debug)]
pub struct JoinSpec {
    /// The container's first process; the pidfd decides what is joined.
    pub pid: i32,
    pub process: Process,
    pub seccomp: Seccomp,
    /// As in the container's own spec.
    pub cgroup: PathBuf,
}

/// Plans and runs `join` in the container whose first process `container` (a pidfd from
/// `state::open`, which has made sure that it is the right one) refers to. Returns when the program
/// runs. The caller must be single-threaded and run from a sealed executable (CVE-2019-5736).
pub fn exec(join: &JoinSpec, container: OwnedFd, facts: &HostFacts, io: Io) -> Result<Running> {
    let plan = planner::plan_exec(join, facts)?;
    run(join, container, &plan, io, &mut Journal::silent())
}

/// As [`exec`], with a plan and a journal of the caller's (`--explain`).
pub fn run(join: &JoinSpec, container: OwnedFd, plan: &Plan, io: Io, journal: &mut Journal) -> Result<Running> {
    start(join, container, plan, io, journal)?.go(journal, || Ok(()))
}

/// As [`exec`], returning as soon as the process exists: for a caller that must not wait, not even
/// while the container is paused. It is a child of the caller's, to be waited for.
pub fn launch(join: &JoinSpec, container: OwnedFd, facts: &HostFacts, io: Io) -> Result<Launched> {
    let plan = planner::plan_exec(join, facts)?;
    Ok(start(join, container, &plan, io, &mut Journal::silent())?.launched())
}

fn start(join: &JoinSpec, container: OwnedFd, plan: &Plan, io: Io, journal: &mut Journal) -> Result<Starting> {
    // The child shows up in the container's pid namespace the moment it is born. Not traceable means
    // that nobody there opens its /proc/<pid>/fd (CVE-2016-9962); the clone inherits it.
    security::set_dumpable(false).doing(|| "forbid tracing")?;
    let bounding = plan.steps.iter().find_map(|s| match s {
        Step::DropCapabilities { caps } => Some(caps.bounding.as_slice()),
        _ => None,
    });
    let filter = match join.seccomp {
        Seccomp::Unconfined => Vec::new(),
        _ => seccomp::compile(&join.seccomp, bounding.unwrap_or_default())?,
    };
    // A v2 group with controllers on for its children holds no processes itself (systemd or another
    // container runtime in there made it so): then we join the container's first process where it is.
    let seat = |dir: &Path| cgroup::seat(join.pid, dir, &join.cgroup);
    let launch = Launch {
        plan,
        process: &join.process,
        filter: &filter,
        target: Some(container),
        netns: None,
        fallback: Some(&seat),
    };
    launch.joined(io, journal)
}
