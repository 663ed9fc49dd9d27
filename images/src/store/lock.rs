//! Advisory locks on files of the store. The kernel frees them when a process dies.

use plan::{Error, Result, ResultExt};
use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Held until dropped. The file stays: removing it would let two processes hold "the" lock.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

fn open(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
        .doing(|| format!("open {}", path.display()))
}

fn take(file: File, path: &Path, how: FlockOperation) -> Result<Option<Lock>> {
    loop {
        match flock(&file, how) {
            Ok(()) => return Ok(Some(Lock { _file: file })),
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(e) => return Err(Error::os(format!("lock {}", path.display()), e.raw_os_error())),
        }
    }
}

/// Waits until nobody else holds it.
pub(crate) fn lock_file(path: &Path) -> Result<Lock> {
    take(open(path)?, path, FlockOperation::LockExclusive).map(|l| l.expect("a blocking lock is held on return"))
}

/// Together with other sharers.
pub(super) fn share_file(path: &Path) -> Result<Lock> {
    take(open(path)?, path, FlockOperation::LockShared).map(|l| l.expect("a blocking lock is held on return"))
}

/// `None` when somebody holds it.
pub(crate) fn try_lock_file(path: &Path) -> Result<Option<Lock>> {
    take(open(path)?, path, FlockOperation::NonBlockingLockExclusive)
}
