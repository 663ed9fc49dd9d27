//! New processes of rrun itself: the monitor, and the background half of a detached `exec`.

use super::signals;
use plan::{Error, Result, ResultExt};
use rustix::io::Errno;
use std::ffi::{CString, c_char, c_void};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Room for the few system calls between clone and exec.
const STACK: usize = 16 * 1024;

/// What the new process needs, prepared beforehand: between clone and exec nothing may allocate,
/// because parent and child share their memory.
struct Launch {
    exe: RawFd,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    null: RawFd,
    /// Ascending, all above 2.
    keep: Vec<RawFd>,
    /// What failed, if exec was not reached.
    errno: i32,
}

/// Starts `exe` (an open executable, see `sys::seal`) with `argv` in a session of its own: working
/// directory `/`, stdio on /dev/null, no signal blocked or ignored, no open file but `keep`, which
/// stay open under their numbers. Returns its pid once the new program runs; the caller need not
/// wait for it.
///
/// CLONE_VFORK|CLONE_VM spares the copy of our page tables, and its return means that exec succeeded.
pub fn detached(exe: BorrowedFd<'_>, argv: &[&str], keep: &[BorrowedFd<'_>]) -> Result<i32> {
    let doing = || "start the monitor process";
    let strings = |list: &mut dyn Iterator<Item = Vec<u8>>| -> Result<Vec<CString>> {
        list.map(|s| CString::new(s).map_err(|_| Error::invalid("an argument contains a NUL byte"))).collect()
    };
    let args = strings(&mut argv.iter().map(|a| a.as_bytes().to_vec()))?;
    let env = strings(&mut std::env::vars_os().map(|(k, v)| {
        use std::os::unix::ffi::OsStringExt;
        [k.into_vec(), b"=".to_vec(), v.into_vec()].concat()
    }))?;
    let pointers = |list: &[CString]| list.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect();
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").doing(|| "open /dev/null")?;
    let mut keep: Vec<RawFd> = keep.iter().map(|fd| fd.as_raw_fd()).collect();
    keep.sort_unstable();
    if keep.first().is_some_and(|fd| *fd <= 2) {
        return Err(Error::system("start the monitor process").with_cause("it cannot inherit our stdio"));
    }
    let mut launch = Launch {
        exe: exe.as_raw_fd(),
        argv: pointers(&args),
        envp: pointers(&env),
        null: null.as_raw_fd(),
        keep,
        errno: 0,
    };
    let mut stack = vec![0u8; STACK];
    // A signal handler must not run in the child while it borrows our memory.
    let all: Vec<i32> = (1..=31).filter(|n| !matches!(*n, libc::SIGKILL | libc::SIGSTOP)).collect();
    let blocked = signals::Blocked::new(&all).map_err(|e| Error::os(doing(), e.raw_os_error()))?;
    // SAFETY: the stack grows down from its end and, like `launch` and what it points to, outlives
    // the child's use of it: with CLONE_VFORK we go on only after exec or _exit. `child` makes system
    // calls only.
    let pid = unsafe {
        let top = stack.as_mut_ptr().add(STACK).cast::<c_void>();
        libc::clone(child, top, libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD, (&raw mut launch).cast())
    };
    drop(blocked);
    match (pid, launch.errno) {
        (-1, _) => Err(Error::os(doing(), super::errno().raw_os_error())),
        (pid, 0) => Ok(pid),
        (pid, errno) => {
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                // It has ended by itself; only its remains are collected.
                let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
            }
            Err(Error::os(doing(), errno))
        }
    }
}

extern "C" fn child(launch: *mut c_void) -> i32 {
    // SAFETY: `detached` passes a pointer to its own `Launch`, valid and unaliased until we exec.
    let launch = unsafe { &mut *launch.cast::<Launch>() };
    // SAFETY: plain system calls on numbers and on pointers prepared by `detached`; nothing here
    // allocates, locks or unwinds. errno is shared with the suspended parent, which does not mind.
    unsafe {
        let failed = |launch: &mut Launch| {
            launch.errno = *libc::__errno_location();
            libc::_exit(127)
        };
        // exec resets handlers, but what is ignored would stay so down to the container: Rust ignores
        // SIGPIPE, nohup and background jobs of a shell the others.
        for n in [libc::SIGPIPE, libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGCHLD] {
            libc::signal(n, libc::SIG_DFL);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::setsid();
        if libc::chdir(c"/".as_ptr()) != 0 {
            failed(launch);
        }
        for fd in 0..=2 {
            if libc::dup2(launch.null, fd) < 0 {
                failed(launch);
            }
        }
        // Everything else goes at exec, whatever the shell left open; then the chosen few are kept.
        if libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) != 0 {
            failed(launch);
        }
        for i in 0..launch.keep.len() {
            if libc::fcntl(launch.keep[i], libc::F_SETFD, 0) != 0 {
                failed(launch);
            }
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        libc::syscall(
            libc::SYS_execveat,
            launch.exe,
            c"".as_ptr(),
            launch.argv.as_ptr(),
            launch.envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
        failed(launch)
    }
}

/// Takes possession of a descriptor that [`detached`] kept open under number `fd`, and shuts it at
/// the next exec. To be called once for each number.
pub fn inherited(fd: RawFd) -> Result<OwnedFd> {
    // SAFETY: fcntl on a number; it fails if nothing is open there.
    if fd <= 2 || unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } != 0 {
        return Err(Error::invalid(format!("descriptor {fd} was not inherited")));
    }
    // SAFETY: it is open, and the numbers were chosen by the process that started us: nothing in this
    // one has opened it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
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
