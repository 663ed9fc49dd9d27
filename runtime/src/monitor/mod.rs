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
use std::os::fd::BorrowedFd;

/// Starts a monitor: rrun itself (`exe`, sealed) with `argv`, in a session of its own, inheriting
/// nothing but `keep` (under the same numbers, to be named in `argv`). Returns its pid.
///
/// How the container's start went is read from a pipe among `keep`, see [`Report::receive`].
pub fn spawn(exe: BorrowedFd<'_>, argv: &[&str], keep: &[BorrowedFd<'_>]) -> Result<i32> {
    crate::sys::spawn::detached(exe, argv, keep)
}
