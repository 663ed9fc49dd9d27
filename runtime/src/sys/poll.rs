//! poll(2) over a set that is rebuilt for every wait without allocating again.
//!
//! poll and not epoll: the sets are small, stdin or stdout may be a regular file (which epoll
//! refuses), and interest changes at almost every turn.

use super::memory;
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
        self.ppoll(timeout, None)
    }

    /// As [`Poll::wait`], for a wait that is likely to be long: first gives back the free pages of the
    /// heap and our mappings of the program's own code and constants. Those stay in the page cache,
    /// shared by all, and are mapped again as they are needed, a fault per 64 KiB.
    pub fn wait_idle(&mut self, timeout: Option<Duration>) -> Result<(), Errno> {
        memory::trim_heap();
        self.ppoll(timeout, Some(&memory::program()))
    }

    /// One function and one way into the kernel, so that an idle process has two pieces of code mapped.
    fn ppoll(&mut self, timeout: Option<Duration>, forget: Option<&memory::Program>) -> Result<(), Errno> {
        let mut spec = timeout.map(|t| libc::timespec {
            tv_sec: i64::try_from(t.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(t.subsec_nanos()),
        });
        let time = spec.as_mut().map_or(std::ptr::null_mut(), std::ptr::from_mut);
        let (set, length) = (self.set.as_mut_ptr(), self.set.len());
        for segment in forget.iter().flat_map(|program| program.clean()) {
            // SAFETY: MADV_DONTNEED on a private, unmodified mapping of a file only makes the next access
            // read the same bytes again; this very code included.
            unsafe {
                libc::syscall(libc::SYS_madvise, segment.begin, segment.length, libc::MADV_DONTNEED);
            }
        }
        // SAFETY: `set` is an initialised array of `length`, `time` is null or points to `spec` (which
        // the kernel may update), and the signal mask is left alone; all outlive the call.
        let n = unsafe { libc::syscall(libc::SYS_ppoll, set, length, time, std::ptr::null::<libc::sigset_t>(), 8) };
        if n < 0 {
            let errno = super::errno();
            for p in &mut self.set {
                p.revents = 0;
            }
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

    #[test]
    fn an_idle_wait_loses_nothing() {
        let (read, mut write) = std::io::pipe().unwrap();
        let text = String::from("kept");
        let mut poll = Poll::default();
        for _ in 0..3 {
            poll.clear();
            poll.watch(&read, READ);
            poll.wait_idle(Some(Duration::from_millis(1))).unwrap();
            assert!(!poll.any());
        }
        std::io::Write::write_all(&mut write, b"x").unwrap();
        poll.wait_idle(None).unwrap();
        assert_eq!((poll.events(&read), text.as_str()), (READ, "kept"));
    }
}
