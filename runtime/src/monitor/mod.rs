//! The process beside each container: it holds the terminal or pipes, writes the log, serves
//! `monitor.sock`, and is there when the container ends.

mod clients;
mod report;
mod stdio;
mod watch;

pub use report::{Outcome, Report, Started};
pub use stdio::{Marks, Pipes, pipes, reclaim};
pub use watch::{Exit, Farewell, NoService, Service, Setup, run};

use crate::cgroup::{Layout, monitors};
use plan::Result;
use std::os::fd::{AsFd, RawFd};

/// Starts a monitor: a copy of this process in a session and control groups of its own, which runs `run`, with no open file
/// but `keep`. Returns its pid.
///
/// How the container's start went is read from a pipe among `keep`, see [`Report::receive`].
/// The v1 groups it leaves itself, when nobody waits any more: [`crate::cgroup::monitors::settle`].
pub fn spawn(layout: &Layout, keep: &[RawFd], run: impl FnOnce() -> i32) -> Result<i32> {
    let birthplace = monitors::birthplace(layout);
    crate::sys::spawn::detached(birthplace.as_ref().map(AsFd::as_fd), keep, run)
}
