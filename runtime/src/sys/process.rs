//! Making processes: clone3, exec, and what a fresh child sheds of its parent.

use super::spawn::exit_now;
use rustix::io::{Errno, Result};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Reset handled signals to their default in the child (ignored ones stay ignored).
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
/// Born inside a cgroup: no migration, so no wait for a grace period (design §4, trap 3).
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `struct clone_args` of linux/sched.h, as of Linux 5.7.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Ends the child if its function unwinds: the frames above belong to the parent's story.
struct NeverReturn;

impl Drop for NeverReturn {
    fn drop(&mut self) {
        exit_now(1);
    }
}

/// A child in new namespaces (`CLONE_NEW*` bits), optionally born in the v2 cgroup that `cgroup` (a
/// directory) names; it runs `child`, which had better not return: then it exits with 1. Gives the child's pid and pidfd.
///
/// The address space is copied (no CLONE_VM), so the child may allocate. The caller must be
/// single-threaded: a lock held by another thread at this moment would stay locked in the child.
/// The child must end by exec or [`exit_now`]: the C library's idea of its thread id is the parent's.
pub fn clone3(namespaces: u64, cgroup: Option<BorrowedFd<'_>>, child: impl FnOnce()) -> Result<(i32, OwnedFd)> {
    let mut pidfd: libc::c_int = -1;
    let mut args = CloneArgs {
        flags: namespaces | libc::CLONE_PIDFD as u64 | CLONE_CLEAR_SIGHAND,
        pidfd: &raw mut pidfd as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if let Some(dir) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(dir.as_raw_fd().unsigned_abs());
    }
    // SAFETY: `args` is a valid clone_args of the size given; without CLONE_VM and with a null stack
    // the child continues on its own copy of this stack, as after fork.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) };
    match pid {
        -1 => Err(super::errno()),
        0 => {
            let _guard = NeverReturn;
            child();
            exit_now(1)
        }
        _ => {
            // SAFETY: on success the kernel stored a fresh descriptor there that nobody else owns.
            let fd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok((pid as i32, fd))
        }
    }
}

/// Signals that shells, nohup, cron, Python or Rust's own start-up leave ignored, which exec would
/// hand on to the container. (Handlers are gone already: CLONE_CLEAR_SIGHAND.)
const OFTEN_IGNORED: [libc::c_int; 13] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGPIPE,
    libc::SIGTERM,
    libc::SIGCHLD,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGXFSZ,
    libc::SIGALRM,
];

/// Default dispositions and an empty mask, as a program expects to find them.
pub fn reset_signals() -> Result<()> {
    for signal in OFTEN_IGNORED {
        // SAFETY: setting SIG_DFL installs no handler.
        if unsafe { libc::signal(signal, libc::SIG_DFL) } == libc::SIG_ERR {
            return Err(super::errno());
        }
    }
    set_signal_mask(None)
}

/// Blocks the given signals and no others (`None`: blocks nothing).
pub fn set_signal_mask(blocked: Option<&[libc::c_int]>) -> Result<()> {
    let mut set = nix::sys::signal::SigSet::empty();
    for signal in blocked.unwrap_or_default() {
        let signal = nix::sys::signal::Signal::try_from(*signal).map_err(|e| Errno::from_raw_os_error(e as i32))?;
        set.add(signal);
    }
    set.thread_set_mask().map_err(|e| Errno::from_raw_os_error(e as i32))
}

/// A plain fork for `--init`: `Some(pid)` in the parent, `None` in the child. Same conditions as
/// [`clone3`].
pub fn fork() -> Result<Option<i32>> {
    let mut args = CloneArgs { exit_signal: libc::SIGCHLD as u64, ..CloneArgs::default() };
    // SAFETY: as in `clone3`; no pointers are in `args`.
    match unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) } {
        -1 => plain_fork(),
        0 => Ok(None),
        pid => Ok(Some(pid as i32)),
    }
}

/// The filter is already in force when `--init` forks, and Docker's answers clone3 with ENOSYS.
fn plain_fork() -> Result<Option<i32>> {
    // SAFETY: clone with only a signal number: a fork, on a copy of this stack.
    match unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) } {
        -1 => Err(super::errno()),
        0 => Ok(None),
        pid => Ok(Some(pid as i32)),
    }
}

/// Closes every descriptor above stderr but `keep`, whoever owned it: only for a copy of a process, which
/// never returns to the frames of those owners.
pub fn close_all_but(keep: &mut [RawFd]) {
    keep.sort_unstable();
    let mut first = 3;
    for fd in keep.iter().map(|fd| fd.unsigned_abs()).filter(|fd| *fd > 2) {
        close_range(first, fd - 1);
        first = fd + 1;
    }
    close_range(first, u32::MAX);
}

fn close_range(first: u32, last: u32) {
    if first <= last {
        // SAFETY: close_range passes no memory; the caller uses none of the descriptors any more.
        unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    }
}

/// Replaces what `/proc/self/cmdline` and `environ` show by `title`: they are those of the process
/// that this one was forked from, the caller's secrets included. Best effort without /proc.
pub fn retitle(title: &str) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Fields 48 to 51 of proc(5); the name, field 2, is in parentheses and may contain anything.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let bounds: Vec<usize> = after_name.split_whitespace().skip(45).take(4).filter_map(|n| n.parse().ok()).collect();
    let [args, args_end, env, env_end] = bounds[..] else { return };
    for (begin, end, text) in [(args, args_end, title), (env, env_end, "")] {
        if begin == 0 || begin >= end {
            continue;
        }
        // SAFETY: our own, private, writable memory: the kernel put arguments and environment onto the
        // stack at exec, or `seal` showed it a title on the heap. Nothing reads either after this
        // (the process only waits and ends).
        let area = unsafe { std::slice::from_raw_parts_mut(begin as *mut u8, end - begin) };
        area.fill(0);
        let shown = text.len().min(area.len() - 1);
        area[..shown].copy_from_slice(&text.as_bytes()[..shown]);
    }
}

/// Leaves the calling thread's namespaces of these kinds (`CLONE_NEW*`) for new ones.
pub fn unshare(namespaces: rustix::thread::UnshareFlags) -> Result<()> {
    // SAFETY: the namespaces in question are no descriptor tables (CLONE_FILES), the only case in
    // which another part of the program could notice.
    unsafe { rustix::thread::unshare_unsafe(namespaces) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{WaitIdOptions, waitid};
    use std::os::fd::AsFd;

    #[test]
    fn a_child_runs_and_is_waited_for_by_its_pidfd() {
        let (pid, pidfd) = clone3(0, None, || exit_now(7)).unwrap();
        assert!(pid > 1);
        let status = waitid(rustix::process::WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).unwrap().unwrap();
        assert_eq!(status.exit_status(), Some(7));
    }

    #[test]
    fn a_new_title_covers_arguments_and_environment() {
        let (mut read, write) = std::io::pipe().unwrap();
        let (_, pidfd) = clone3(0, None, || {
            retitle("a title");
            for file in ["/proc/self/cmdline", "/proc/self/environ"] {
                let fd = rustix::fs::open(file, rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).unwrap();
                let mut buffer = [0u8; 4096];
                let n = rustix::io::read(&fd, &mut buffer).unwrap();
                rustix::io::write(&write, &buffer[..n]).unwrap();
            }
        })
        .unwrap();
        drop(write);
        let mut seen = Vec::new();
        std::io::Read::read_to_end(&mut read, &mut seen).unwrap();
        waitid(rustix::process::WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).unwrap();
        seen.retain(|b| *b != 0);
        assert_eq!(String::from_utf8_lossy(&seen), "a title");
    }

    #[test]
    fn a_child_that_unwinds_ends() {
        let (_, pidfd) = clone3(0, None, || std::panic::resume_unwind(Box::new(()))).unwrap();
        let status = waitid(rustix::process::WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).unwrap().unwrap();
        assert_eq!(status.exit_status(), Some(1));
    }
}
