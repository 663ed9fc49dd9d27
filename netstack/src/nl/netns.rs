//! A moment inside another network namespace.

use plan::{Result, ResultExt};
use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// This thread's network namespace (`/proc/self` would be the main thread's).
pub fn current() -> Result<OwnedFd> {
    rustix::fs::open("/proc/thread-self/ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .doing(|| "open the network namespace of this process")
}

/// While it lives, this thread is in the other namespace; dropping it goes back.
///
/// Sockets opened meanwhile stay in the namespace they were born in, and `/proc/sys/net` shows
/// that namespace's settings. Only for a single-threaded process: other threads do not follow.
pub struct Visit<'a> {
    home: BorrowedFd<'a>,
}

impl<'a> Visit<'a> {
    pub fn enter(netns: BorrowedFd<'_>, home: BorrowedFd<'a>) -> Result<Visit<'a>> {
        move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))
            .doing(|| "enter the container's network namespace")?;
        Ok(Visit { home })
    }
}

/// Does something in a new network namespace that nobody else is in, and that ends with it. Only for a
/// single-threaded process.
pub fn in_empty_netns<T>(act: impl FnOnce() -> Result<T>) -> Result<T> {
    let home = current()?;
    // SAFETY: only unsharing the file table can invalidate what other code relies on; this leaves it.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }
        .doing(|| "make an empty network namespace")?;
    // From here on as after any visit.
    let _visit = Visit { home: home.as_fd() };
    act()
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        // Staying would make every later action of the monitor happen in the wrong namespace.
        move_into_link_name_space(self.home, Some(LinkNameSpaceType::Network))
            .expect("a process may always return to a namespace whose descriptor it holds");
    }
}
