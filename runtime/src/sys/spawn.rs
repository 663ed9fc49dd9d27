//! New processes of rrun itself: the monitor, and the background half of a detached `exec`.

use super::process::clone3;
use super::signals;
use plan::{Error, Result, ResultExt};
use rustix::io::Errno;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

/// Splits off a process that runs `run` and ends with the code it returns, in a session of its own: working
/// directory `/`, stdio on /dev/null, no signal blocked, no open file but `keep`. Returns its pid; the
/// caller need not wait for it.
///
/// `cgroup`: the v2 group that it is born in, if not the caller's.
///
/// It is a copy of this process: `run` finds all that the caller knows, and had better own those of
/// the `keep` that it uses. The caller must be single-threaded: a lock held by another thread at this
/// moment would stay locked.
pub fn detached(cgroup: Option<BorrowedFd<'_>>, keep: &[RawFd], run: impl FnOnce() -> i32) -> Result<i32> {
    let doing = || "start the monitor process";
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").doing(|| "open /dev/null")?;
    let mut keep = keep.to_vec();
    if keep.iter().any(|fd| *fd <= 2) {
        return Err(Error::system(doing()).with_cause("it cannot inherit our stdio"));
    }
    // Signals from the terminal, until it has left that session.
    let blocked = signals::Blocked::new(&[libc::SIGINT, libc::SIGQUIT, libc::SIGTSTP, libc::SIGHUP])
        .map_err(|e| Error::os(doing(), e.raw_os_error()))?;
    // clone3 rather than fork, for the group. The C library then thinks that the child has its parent's thread
    // id, which it uses for mutexes that know their owner; a process with one thread has no use for those.
    let cloned = clone3(0, cgroup, || {
        std::mem::forget(blocked);
        leave(null.as_raw_fd(), &mut keep);
        exit_now(run())
    });
    cloned.map(|(pid, _)| pid).map_err(|e| Error::os(doing(), e.raw_os_error()))
}

/// What [`detached`] promises. None of it can fail, with a directory and descriptors that are there.
fn leave(null: RawFd, keep: &mut [RawFd]) {
    // SAFETY: plain system calls on numbers. The descriptors that are closed belong to frames of the
    // caller that this process never returns to.
    unsafe {
        libc::setsid();
        libc::chdir(c"/".as_ptr());
        for fd in 0..=2 {
            libc::dup2(null, fd);
        }
        super::process::close_all_but(keep);
        // What a shell or nohup left ignored: with SIGCHLD ignored there would be nobody to wait for.
        // SIGPIPE stays so, as in every Rust program.
        for n in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGCHLD] {
            libc::signal(n, libc::SIG_DFL);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Splits off a copy of this process that goes on in the background, in its own session and with
/// stdio on /dev/null; `true` in the copy. Only for a single-threaded process.
pub fn fork_background() -> Result<bool> {
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").doing(|| "open /dev/null")?;
    // SAFETY: the caller has one thread, so the child's memory is consistent, locks included.
    match unsafe { libc::fork() } {
        -1 => Err(Error::os("go on in the background", super::errno().raw_os_error())),
        0 => {
            // SAFETY: system calls on numbers; the three targets are replaced, not closed under a user.
            unsafe {
                libc::setsid();
                for fd in 0..=2 {
                    libc::dup2(null.as_raw_fd(), fd);
                }
            }
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// Ends the process without running destructors: those belong to the process it was split from.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit does not return and touches no memory of ours.
    unsafe { libc::_exit(code) }
}

/// Makes orphans among our descendants our children rather than init's.
pub fn become_subreaper() -> std::result::Result<(), Errno> {
    // SAFETY: prctl with plain integers.
    match unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(super::errno()),
    }
}
