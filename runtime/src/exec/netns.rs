//! A network namespace made ahead, by the command that waits for the container anyway.
//!
//! Making one is most of what clone3 takes (0.4 of 0.6 ms), and the kernel can do it on another CPU while the
//! monitor plans.

use super::Away;
use crate::sys::fdpass;
use plan::{Error, Result};
use rustix::io::Errno;
use rustix::thread::UnshareFlags;
use std::os::fd::{AsFd, OwnedFd};

/// Waits until the monitor asks, makes one and sends it. The caller, which is single-threaded, is in its own again
/// afterwards.
///
/// # Errors
/// Of the system calls. The monitor then makes its own, and says what is wrong with that.
pub fn lend(monitor: impl AsFd) -> Result<()> {
    let failed = |e: Errno| Error::os("lend a network namespace", e.raw_os_error());
    let mut byte = [0];
    if fdpass::recv(&monitor, &mut byte).map_err(failed)?.0 == 0 {
        // It has failed before, and its report says why.
        return Ok(());
    }
    let away = Away::unshared_net()?;
    let made = Away::open("net")?;
    drop(away);
    fdpass::send(monitor, &byte, &[made.as_fd()]).map_err(failed)
}

/// Asks for one, as early as can be. Not before the asker runs: where a process that has just forked goes on
/// computing, its child waits for that CPU though there is another (0.5 ms).
pub fn ask(command: impl AsFd) {
    // It may be dead.
    let _ = fdpass::send(command, &[0], &[]);
}

/// What the command sent; `None` if it died or could not.
pub fn borrow(command: impl AsFd) -> Option<OwnedFd> {
    let mut byte = [0];
    fdpass::recv(command, &mut byte).ok()?.1.pop()
}

impl Away {
    fn unshared_net() -> Result<Away> {
        let own = Away::open("net")?;
        crate::sys::process::unshare(UnshareFlags::NEWNET)
            .map_err(|e| Error::os("make a network namespace", e.raw_os_error()))?;
        Ok(Away { own, kind: rustix::thread::LinkNameSpaceType::Network })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fdpass::socketpair;

    fn inode(fd: impl AsFd) -> u64 {
        rustix::fs::fstat(fd).unwrap().st_ino
    }

    #[test]
    fn who_lends_one_stays_at_home() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let (a, b) = socketpair().unwrap();
        let before = inode(Away::open("net").unwrap());
        ask(&b);
        std::thread::spawn(move || {
            lend(&a).unwrap();
            assert_eq!(inode(Away::open("net").unwrap()), before);
        })
        .join()
        .unwrap();
        let lent = borrow(&b).expect("a namespace");
        assert_ne!(inode(lent), before);
        assert!(borrow(&b).is_none(), "the other end is closed");
    }
}
