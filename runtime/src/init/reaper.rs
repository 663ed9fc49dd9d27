//! `--init`: pid 1 stays rrun's own, the program becomes its child.
//!
//! Pid 1 inherits the container's orphans and must wait for them, and a signal it has no handler for
//! does not reach it. The reaper waits, and passes every signal on.

use crate::sys::process as sys_process;
use crate::sys::spawn::exit_now;
use nix::sys::signal::{SigSet, Signal};
use plan::{Error, Result};
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, getpid};

/// Forks. In the child, which goes on to exec, it returns; the parent never does: it ends with the
/// program's status (128 + n for a signal).
pub(super) fn stay_behind() -> Result<()> {
    let failed = |e: Errno| Error::os("fork the program from init", e.raw_os_error());
    // Blocked before the fork, so that none is lost in between.
    let all = SigSet::all();
    all.thread_block().map_err(|e| failed(Errno::from_raw_os_error(e as i32)))?;
    match sys_process::fork().map_err(failed)? {
        None => {
            // A process group of its own, in the foreground if there is a terminal: Ctrl-C then
            // reaches the program once, not the reaper too.
            rustix::process::setpgid(None, None).map_err(failed)?;
            match rustix::termios::tcsetpgrp(rustix::stdio::stdin(), getpid()) {
                Ok(()) | Err(Errno::NOTTY | Errno::BADF | Errno::INVAL) => {}
                Err(e) => return Err(failed(e)),
            }
            sys_process::set_signal_mask(None).map_err(failed)
        }
        Some(pid) => {
            // The report pipe must close when the program is executed, whoever else held it.
            sys_process::close_all_but(&mut []);
            // What it is, instead of the monitor that it was forked from. The name is only for ps.
            sys_process::retitle("rrun-init");
            let _ = rustix::thread::set_name(c"rrun-init");
            let code = match Pid::from_raw(pid) {
                Some(program) => reap(program, &all),
                None => 1,
            };
            exit_now(code)
        }
    }
}

fn reap(program: Pid, all: &SigSet) -> i32 {
    loop {
        match all.wait() {
            Ok(Signal::SIGCHLD) => {
                if let Some(code) = collect(program) {
                    return code;
                }
            }
            // Stops of the terminal are the program's business; it gets its own.
            Ok(Signal::SIGTTIN | Signal::SIGTTOU) => {}
            Ok(signal) => forward(program, signal),
            // A realtime signal, which Signal does not know: nothing to do.
            Err(_) => {}
        }
    }
}

fn forward(program: Pid, signal: Signal) {
    if let Some(signal) = rustix::process::Signal::from_named_raw(signal as i32) {
        // It may be gone, or may have become somebody else's; both are no reason to stop.
        let _ = rustix::process::kill_process(program, signal);
    }
}

/// Waits for all that have ended; the program's exit code if it is among them.
fn collect(program: Pid) -> Option<i32> {
    let mut code = None;
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        if pid == program {
            code = status.exit_status().or_else(|| status.terminating_signal().map(|n| 128 + n));
        }
    }
    code
}
