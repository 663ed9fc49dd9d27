//! The program's way in, without that of Rust's standard library.
//!
//! Theirs reads /proc/self/maps to find the main thread's guard page, and installs signal handlers and a
//! stack for them, to put words to a stack overflow: a fortieth of a whole start. What else it does is
//! done here.

use std::io::Write;

/// Makes `fn() -> u8` the program's `main`; it returns the exit code.
#[macro_export]
macro_rules! entry {
    ($run:path) => {
        // SAFETY: the C library calls the one function of this name once, with the process's only thread;
        // it is defined nowhere else (`#![no_main]`).
        #[unsafe(no_mangle)]
        extern "C" fn main(_: std::ffi::c_int, _: *const *const std::ffi::c_char) -> std::ffi::c_int {
            $crate::sys::entry::begin();
            let code = $run();
            $crate::sys::entry::end();
            std::ffi::c_int::from(code)
        }
    };
}

/// Descriptors 0 to 2 are open, so that no file of ours becomes somebody's standard output; writing to a
/// pipe without a reader is an error, not a signal.
pub fn begin() {
    let mut fds = [0, 1, 2].map(|fd| libc::pollfd { fd, events: 0, revents: 0 });
    // SAFETY: an array of three that outlives the call, which does not wait.
    let found = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, 0) };
    if found > 0 {
        for closed in fds.iter().filter(|p| p.revents & libc::POLLNVAL != 0) {
            // SAFETY: a terminated string. The lowest free number is the one that is missing.
            if unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) } != closed.fd {
                super::spawn::exit_now(125);
            }
        }
    }
    // SAFETY: SIG_IGN installs no handler.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
    }
}

/// What the standard library keeps back of the output is written.
pub fn end() {
    let _ = std::io::stdout().flush();
}
