//! One probe, one forked child: nothing that a probe does to its process outlives it.

#![expect(unsafe_code, reason = "the test makes system calls of its own")]

use std::io;

/// How a probe ended: `OK`, the name of an errno, or the signal that ended the child.
pub fn attempt(probe: impl FnOnce() -> io::Result<()>) -> String {
    // SAFETY: this program has a single thread; the child runs the probe and leaves by _exit.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return format!("fork: {}", name(errno()));
    }
    if pid == 0 {
        let code = match probe() {
            Ok(()) => 0,
            Err(e) => e.raw_os_error().unwrap_or(255),
        };
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(code) }
    }
    let mut status = 0;
    loop {
        // SAFETY: `status` is ours; a traced child may stop first, and is then sent on to its end.
        let rc = unsafe { libc::waitpid(pid, &mut status, libc::WUNTRACED) };
        if rc < 0 {
            return format!("waitpid: {}", name(errno()));
        }
        if libc::WIFEXITED(status) {
            return name(libc::WEXITSTATUS(status));
        }
        if libc::WIFSIGNALED(status) {
            return format!("signal {}", libc::WTERMSIG(status));
        }
        // SAFETY: our own child.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
}

pub fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(255)
}

/// A system call by number, with integers and pointers as they are.
pub fn call(number: i64, args: &[i64]) -> io::Result<i64> {
    let mut a = [0; 6];
    a[..args.len()].copy_from_slice(args);
    // SAFETY: the kernel checks every pointer; callers that pass buffers keep them alive over the call.
    let rc = unsafe { libc::syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(rc) }
}

pub fn name(errno: i32) -> String {
    let known = match errno {
        0 => return "OK".to_string(),
        255 => return "no errno".to_string(),
        n => nix::errno::Errno::from_raw(n),
    };
    match known {
        nix::errno::Errno::UnknownErrno => format!("errno {errno}"),
        e => format!("{e:?}"),
    }
}
