//! Signals as readable events: blocked, and taken from a signalfd in the poll loop.
//!
//! nix and rustix know no real-time signals here; Docker forwards those too.

use rustix::io::Errno;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

/// Blocks a set of signals for as long as it lives, and delivers them one at a time.
pub struct Signals {
    fd: OwnedFd,
    before: libc::sigset_t,
}

impl Signals {
    /// Blocks `numbers` for the calling thread; what was pending or comes from now on is read by
    /// [`Signals::next`]. Invalid numbers are `EINVAL`.
    pub fn block(numbers: &[i32]) -> Result<Signals, Errno> {
        let set = set_of(numbers)?;
        // SAFETY: `set` is initialised and read only; flags are valid.
        let raw = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if raw < 0 {
            return Err(super::errno());
        }
        // SAFETY: signalfd returned a new descriptor that nothing else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        let before = mask(libc::SIG_BLOCK, &set)?;
        Ok(Signals { fd, before })
    }

    /// The number of the next signal; `None` when none is waiting.
    pub fn next(&self) -> Option<i32> {
        let mut info = [0u8; size_of::<libc::signalfd_siginfo>()];
        match rustix::io::read(&self.fd, &mut info) {
            // The number is the first field of struct signalfd_siginfo.
            Ok(n) if n == info.len() => Some(i32::from_ne_bytes([info[0], info[1], info[2], info[3]])),
            _ => None,
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // Signals that came and were not read are dropped rather than left to strike when the mask
        // is lifted: whoever blocked them took charge of them.
        while self.next().is_some() {}
        // Cannot fail: the mask came from the kernel.
        let _ = mask(libc::SIG_SETMASK, &self.before);
    }
}

/// Blocks a set of signals for as long as it lives; what comes meanwhile strikes afterwards.
pub struct Blocked {
    before: libc::sigset_t,
}

impl Blocked {
    pub fn new(numbers: &[i32]) -> Result<Blocked, Errno> {
        Ok(Blocked { before: mask(libc::SIG_BLOCK, &set_of(numbers)?)? })
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // Cannot fail: the mask came from the kernel.
        let _ = mask(libc::SIG_SETMASK, &self.before);
    }
}

fn set_of(numbers: &[i32]) -> Result<libc::sigset_t, Errno> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set it is given.
    let mut set = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        set.assume_init()
    };
    for &n in numbers {
        // SAFETY: `set` is initialised; the C library checks the number.
        if unsafe { libc::sigaddset(&raw mut set, n) } != 0 {
            return Err(Errno::INVAL);
        }
    }
    Ok(set)
}

fn mask(how: i32, set: &libc::sigset_t) -> Result<libc::sigset_t, Errno> {
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `set` is initialised and read only; `before` is written by the call when it succeeds.
    unsafe {
        match libc::pthread_sigmask(how, set, before.as_mut_ptr()) {
            0 => Ok(before.assume_init()),
            n => Err(Errno::from_raw_os_error(n)),
        }
    }
}

/// Sends `number` to the calling process itself.
pub fn raise(number: i32) {
    // SAFETY: kill touches no memory; the target is ourselves.
    unsafe {
        libc::kill(libc::getpid(), number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tell_me(number: i32) {
        // To this thread and no other: the mask is the thread's own, and tests run in many.
        // SAFETY: tgkill touches no memory; pid and tid are our own.
        unsafe {
            libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::gettid(), number);
        }
    }

    #[test]
    fn a_blocked_signal_is_read_instead_of_striking() {
        let realtime = libc::SIGRTMIN() + 3;
        let signals = Signals::block(&[libc::SIGUSR1, realtime]).unwrap();
        assert_eq!(signals.next(), None);
        tell_me(libc::SIGUSR1);
        assert_eq!(signals.next(), Some(libc::SIGUSR1));
        tell_me(realtime);
        assert_eq!(signals.next(), Some(realtime));
        tell_me(libc::SIGUSR1);
        drop(signals); // would kill this process if the pending signal were let through
        assert!(Signals::block(&[0]).is_err());
        assert!(Signals::block(&[65]).is_err());
    }
}
