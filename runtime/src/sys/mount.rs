//! mount_setattr(2), which rustix lacks.

use rustix::io::Result;
use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `struct mount_attr`: bits to set and clear, and the propagation to change to (0: leave).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Change {
    pub set: u64,
    pub clear: u64,
    pub propagation: u64,
    userns_fd: u64,
}

impl Change {
    pub fn attributes(set: u64, clear: u64) -> Change {
        Change { set, clear, ..Change::default() }
    }

    /// `propagation`: one of MS_PRIVATE, MS_SLAVE, MS_SHARED, MS_UNBINDABLE.
    pub fn propagation(propagation: u64) -> Change {
        Change { propagation, ..Change::default() }
    }
}

/// Changes the mount that `fd` itself is.
pub fn setattr(fd: BorrowedFd<'_>, recursive: bool, change: Change) -> Result<()> {
    call(fd.as_raw_fd(), c"", libc::AT_EMPTY_PATH, recursive, change)
}

/// Changes the mount at an absolute path.
pub fn setattr_path(path: &CStr, recursive: bool, change: Change) -> Result<()> {
    call(libc::AT_FDCWD, path, 0, recursive, change)
}

fn call(dir: i32, path: &CStr, flags: i32, recursive: bool, change: Change) -> Result<()> {
    let flags = flags | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: `change` is a valid mount_attr of the size given, only read by the kernel.
    let rc = unsafe {
        libc::syscall(libc::SYS_mount_setattr, dir, path.as_ptr(), flags, &raw const change, size_of::<Change>())
    };
    if rc == 0 { Ok(()) } else { Err(super::errno()) }
}
