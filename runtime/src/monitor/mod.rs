//! The process beside each container: it holds the terminal or pipes, writes the log, serves
//! `monitor.sock`, and is there when the container ends.

mod clients;
mod report;
mod stdio;
mod watch;

pub use report::{Outcome, Report, Started};
pub use stdio::{Marks, Pipes, pipes, reclaim};
pub use watch::{Exit, Farewell, NoService, Service, Setup, run};

use plan::Result;
use std::os::fd::RawFd;

/// Starts a monitor: a copy of this process in a session of its own, which runs `run`, with no open file
/// but `keep`. Returns its pid.
///
/// How the container's start went is read from a pipe among `keep`, see [`Report::receive`].
pub fn spawn(keep: &[RawFd], run: impl FnOnce() -> i32) -> Result<i32> {
    crate::sys::spawn::detached(keep, run)
}
