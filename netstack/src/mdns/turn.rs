//! Whose turn it is: one monitor of a network reflects for all.
//!
//! It holds a lock on a FIFO of the network's state directory, and is its only writer. When it lets go, or is
//! killed, the kernel hangs up on those that wait at the other end: nobody has to look from time to time.

use plan::{Error, Result, ResultExt};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;

#[derive(Debug)]
pub(super) struct Turn {
    path: PathBuf,
    held: Option<OwnedFd>,
    waiting: Option<OwnedFd>,
}

impl Turn {
    pub fn new(path: PathBuf) -> Turn {
        Turn { path, held: None, waiting: None }
    }

    /// Takes it if nobody has it, and waits otherwise.
    ///
    /// # Errors
    /// Of the file system.
    pub fn take(&mut self) -> Result<bool> {
        if self.held.is_some() {
            return Ok(true);
        }
        let doing = || format!("wait at {}", self.path.display());
        match nix::unistd::mkfifo(&self.path, nix::sys::stat::Mode::from_bits_truncate(0o600)) {
            Ok(()) | Err(nix::errno::Errno::EEXIST) => {}
            Err(e) => return Err(Error::os(doing(), e as i32)),
        }
        let flags = OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        // Before the lock is tried: who lets go of it in between hangs up on us.
        self.waiting = Some(open(&self.path, flags | OFlags::RDONLY, Mode::empty()).doing(doing)?);
        let own = open(&self.path, flags | OFlags::RDWR, Mode::empty()).doing(doing)?;
        match flock(&own, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                self.held = Some(own);
                self.waiting = None;
                Ok(true)
            }
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(e) => Err(Error::os(doing(), e.raw_os_error())),
        }
    }

    /// Not to be waited for any more, until it is tried again.
    pub fn give_up(&mut self) {
        self.waiting = None;
    }

    pub fn fd(&self) -> Option<RawFd> {
        self.waiting.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Has whoever had it let go?
    pub fn is_free(&self) -> bool {
        let Some(waiting) = &self.waiting else { return false };
        let mut fds = [PollFd::from_borrowed_fd(waiting.as_fd(), PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|n| n > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_has_it_and_the_next_hears_when_it_is_free() {
        let path = std::env::temp_dir().join(format!("rrun-turn-{}", std::process::id()));
        let mut turns = [0; 3].map(|_| Turn::new(path.clone()));
        assert!(turns[0].take().unwrap() && turns[0].take().unwrap());
        assert!(!turns[1].take().unwrap() && !turns[2].take().unwrap());
        assert!(!turns[1].is_free() && turns[0].fd().is_none() && turns[1].fd().is_some());
        let [first, mut second, mut third] = turns;
        drop(first);
        assert!(second.is_free() && third.is_free());
        assert!(second.take().unwrap());
        assert!(!third.take().unwrap() && !third.is_free(), "it waits for the next one");
        drop(second);
        assert!(third.is_free() && third.take().unwrap());
        std::fs::remove_file(path).unwrap();
    }
}
