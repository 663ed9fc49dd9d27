//! pidfds: signals that cannot reach the wrong process, and the end of one that is not our child.

use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd};

/// `struct pidfd_info` of Linux 6.13, as far as its first version goes.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup_id: u64,
    /// pid, tgid, ppid and the eight user and group ids.
    ids: [u32; 11],
    exit_code: i32,
}

const PIDFD_INFO_EXIT: u64 = 1 << 3;

/// `_IOWR(0xFF, 11, struct pidfd_info)`.
const PIDFD_GET_INFO: libc::Ioctl = 0xC040_FF0B_u32 as libc::Ioctl;

/// The wait status (as `waitpid` reports it) of a process that has been reaped by its parent,
/// provided that the pidfd was opened while it lived. `None` while it is not reaped yet, and on
/// kernels before 6.15, which keep no such record.
pub fn reaped_status(pidfd: impl AsFd) -> Option<i32> {
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: the ioctl writes at most the 64 bytes whose size its number encodes, into `info`,
    // which has that layout and outlives the call; every bit pattern is valid for its fields.
    let rc = unsafe { libc::ioctl(pidfd.as_fd().as_raw_fd(), PIDFD_GET_INFO, &raw mut info) };
    (rc == 0 && info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code)
}

/// Sends signal `number` (1 to 64, real-time ones included).
pub fn send_signal(pidfd: impl AsFd, number: i32) -> Result<(), Errno> {
    // 0 would only ask whether the process is there; nobody who calls this means that.
    if !(1..=64).contains(&number) {
        return Err(Errno::INVAL);
    }
    // SAFETY: pidfd_send_signal takes two integers, a null siginfo and flags 0; it touches no memory.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            number,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if rc == 0 { Ok(()) } else { Err(super::errno()) }
}

/// Waits until the process has ended or the time is over; `None` waits forever.
pub fn wait(pidfd: impl AsFd, timeout: Option<std::time::Duration>) -> Result<bool, Errno> {
    let mut poll = super::poll::Poll::default();
    let end = timeout.map(|t| std::time::Instant::now() + t);
    loop {
        poll.clear();
        poll.watch(pidfd.as_fd(), super::poll::READ);
        let left = end.map(|e| e.saturating_duration_since(std::time::Instant::now()));
        poll.wait(left)?;
        if poll.events(pidfd.as_fd()) != 0 {
            return Ok(true);
        }
        if left.is_some_and(|l| l.is_zero()) {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    use std::time::Duration;

    #[test]
    fn an_end_is_seen_and_an_early_timeout_too() {
        let mut child = std::process::Command::new("sleep").arg("0.2").spawn().unwrap();
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        assert!(!wait(&pidfd, Some(Duration::from_millis(10))).unwrap());
        assert!(wait(&pidfd, None).unwrap());
        assert_eq!(reaped_status(&pidfd), None, "not reaped yet");
        child.wait().unwrap();
        // Kernels before 6.15 answer None here, which is why callers have a fallback.
        assert!(matches!(reaped_status(&pidfd), Some(0) | None));
    }
}
