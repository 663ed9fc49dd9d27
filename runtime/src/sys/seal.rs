//! An executable of ourselves that a container cannot overwrite (CVE-2019-5736).
//!
//! A process that joins or becomes a container is visible there as `/proc/<pid>/exe`. Root in the
//! container can open that link, wait until the process is gone and the file no longer busy, and
//! write: the next `rrun` on the host would be theirs. So whatever goes near a container runs from
//! a handle through which the file cannot be written.

use super::mount::{Change, setattr};
use plan::{Error, Result};
use rustix::fs::{CWD, MemfdFlags, SealFlags};
use rustix::mount::OpenTreeFlags;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

const EXE: &str = "/proc/self/exe";

/// A descriptor of the running executable for [`super::process::execveat`].
///
/// First choice: a detached, read-only mount of just that file: no copy, no memory, and not
/// reachable from any mount namespace, so not remountable either. Where the kernel or a filter
/// refuses that: a sealed copy in memory.
pub fn sealed_exe() -> Result<OwnedFd> {
    match readonly_mount() {
        Ok(fd) => Ok(fd),
        Err(_) => sealed_copy().map_err(|e| {
            Error::io("make a protected copy of the rrun executable", &e)
                .with_hint("rrun needs open_tree(2) or memfd_create(2), and /proc")
        }),
    }
}

fn readonly_mount() -> rustix::io::Result<OwnedFd> {
    let fd = rustix::mount::open_tree(CWD, EXE, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    setattr(fd.as_fd(), false, Change::attributes(libc::MOUNT_ATTR_RDONLY, 0))?;
    Ok(fd)
}

fn sealed_copy() -> io::Result<OwnedFd> {
    let memory = rustix::fs::memfd_create("rrun", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut to = std::fs::File::from(memory);
    io::copy(&mut std::fs::File::open(EXE)?, &mut to)?;
    rustix::fs::fcntl_add_seals(&to, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(to.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process::{clone3, execveat};
    use crate::sys::spawn::exit_now;
    use rustix::process::{WaitId, WaitIdOptions, waitid};

    #[test]
    fn the_copy_runs_and_cannot_be_written() {
        let fd = sealed_copy().unwrap();
        assert_eq!(rustix::io::write(&fd, b"x").unwrap_err(), rustix::io::Errno::PERM);
        let (_, pidfd) = clone3(0, None, || {
            execveat(&fd, &[c"test", c"--list", c"--format=terse", c"no such test"], &[]);
            exit_now(99)
        })
        .unwrap();
        let status = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).unwrap().unwrap();
        assert_eq!(status.exit_status(), Some(0));
    }
}
