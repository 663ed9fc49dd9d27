//! poll(2) over a set that is rebuilt for every wait without allocating again.
//!
//! poll and not epoll: the sets are small, stdin or stdout may be a regular file (which epoll
//! refuses), and interest changes at almost every turn.

use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Duration;

/// Readable, or at its end.
pub const READ: i16 = libc::POLLIN;
/// Writable.
pub const WRITE: i16 = libc::POLLOUT;
/// Reported without being asked for: the other end is gone, or an error is pending.
pub const GONE: i16 = libc::POLLHUP | libc::POLLERR | libc::POLLNVAL;

#[derive(Default)]
pub struct Poll {
    set: Vec<libc::pollfd>,
}

impl Poll {
    pub fn clear(&mut self) {
        self.set.clear();
    }

    /// Watches `fd` for `events` ([`READ`], [`WRITE`], or 0 for nothing but [`GONE`]). The
    /// descriptor must stay open until after [`Poll::wait`]; one that does not merely reports
    /// `POLLNVAL`.
    pub fn watch(&mut self, fd: impl AsFd, events: i16) {
        self.watch_raw(fd.as_fd().as_raw_fd(), events);
    }

    pub fn watch_raw(&mut self, fd: RawFd, events: i16) {
        self.set.push(libc::pollfd { fd, events, revents: 0 });
    }

    /// Waits for the first event; `None` waits forever. A signal ends the wait like a timeout.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<(), Errno> {
        let spec = timeout.map(|t| libc::timespec {
            tv_sec: i64::try_from(t.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(t.subsec_nanos()),
        });
        let time = spec.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: `set` is an initialised array of its own length, `time` is null or points to
        // `spec`, and the signal mask is left alone; all outlive the call.
        let n = unsafe { libc::ppoll(self.set.as_mut_ptr(), self.set.len() as libc::nfds_t, time, std::ptr::null()) };
        if n < 0 {
            for p in &mut self.set {
                p.revents = 0;
            }
            let errno = super::errno();
            return if errno == Errno::INTR { Ok(()) } else { Err(errno) };
        }
        Ok(())
    }

    /// What was reported for `fd`: 0 if nothing, or if it was not in the set.
    pub fn events(&self, fd: impl AsFd) -> i16 {
        self.events_raw(fd.as_fd().as_raw_fd())
    }

    /// Whether anything was reported at all.
    pub fn any(&self) -> bool {
        self.set.iter().any(|p| p.revents != 0)
    }

    pub fn events_raw(&self, fd: RawFd) -> i16 {
        self.set.iter().filter(|p| p.fd == fd).fold(0, |all, p| all | p.revents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_what_is_ready() {
        let (read, write) = std::io::pipe().unwrap();
        let mut poll = Poll::default();
        poll.watch(&read, READ);
        poll.watch(&write, WRITE);
        poll.wait(Some(Duration::ZERO)).unwrap();
        assert_eq!((poll.events(&read), poll.events(&write)), (0, WRITE));
        drop(write);
        poll.clear();
        poll.watch(&read, READ);
        poll.wait(None).unwrap();
        assert_ne!(poll.events(&read) & GONE, 0);
    }
}
