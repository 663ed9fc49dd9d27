//! One flock per container, on its directory itself: no lock file to make, lose or leak.
//!
//! A lock belongs to the open file description. The command line hands its own on to the monitor
//! when it starts a container, so "start under way" holds even if the command line is killed.

use super::file;
use crate::context::Context;
use plan::{Error, Result, ResultExt};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::FlockOperation;

pub struct Lock(OwnedFd);

impl Lock {
    /// Waits for the container's lock.
    ///
    /// # Errors
    /// No such container (also when it was removed while we waited).
    pub fn take(ctx: &Context, id: &str) -> Result<Lock> {
        Lock::acquire(ctx, id, FlockOperation::LockExclusive)?.ok_or_else(|| super::no_such(id))
    }

    /// `None`: somebody else holds it.
    ///
    /// # Errors
    /// No such container.
    pub fn try_take(ctx: &Context, id: &str) -> Result<Option<Lock>> {
        Lock::acquire(ctx, id, FlockOperation::NonBlockingLockExclusive)
    }

    fn acquire(ctx: &Context, id: &str, how: FlockOperation) -> Result<Option<Lock>> {
        let dir = ctx.container_dir(id);
        let fd = match file::open_dir(&dir) {
            Ok(fd) => fd,
            Err(e) if e.errno == Some(libc::ENOENT) => return Err(super::no_such(id)),
            Err(e) => return Err(e),
        };
        match rustix::io::retry_on_intr(|| rustix::fs::flock(&fd, how)) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(e) => return Err(Error::os(format!("lock container {id}"), e.raw_os_error())),
        }
        // The directory may have been removed while we waited for it.
        let held = rustix::fs::fstat(&fd).doing(|| format!("stat container {id}"))?;
        match rustix::fs::stat(&dir) {
            Ok(now) if now.st_ino == held.st_ino && now.st_dev == held.st_dev => Ok(Some(Lock(fd))),
            _ => Err(super::no_such(id)),
        }
    }

    /// The lock of a directory that only we know yet.
    ///
    /// # Errors
    /// Of flock(2).
    pub fn of_new(dir: OwnedFd) -> Result<Lock> {
        rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive).doing(|| "lock the new container")?;
        Ok(Lock(dir))
    }
}

/// The container's directory.
impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
