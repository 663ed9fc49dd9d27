//! Hears of changes to this namespace's global IPv6 addresses.

use super::packet::attach_filter;
use plan::{Error, Result};
use rustix::io::Errno;
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A netlink socket that nothing is asked on. Addresses of containers' cables are link-local, or in other
/// namespaces: their starts wake nobody.
#[derive(Debug)]
pub struct AddressWatch {
    fd: OwnedFd,
}

impl AsFd for AddressWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AddressWatch {
    /// Of the namespace that this thread is in. Non-blocking.
    ///
    /// # Errors
    /// Of socket(2) and bind(2).
    pub fn open() -> Result<AddressWatch> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: no pointers; the result is checked.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE) };
        if fd < 0 {
            return Err(Error::io("open a netlink socket", &io::Error::last_os_error()));
        }
        // SAFETY: a fresh descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        only_global(fd.as_fd())?;
        // SAFETY: all zeroes is a valid sockaddr_nl.
        let mut own: libc::sockaddr_nl = unsafe { zeroed() };
        own.nl_family = libc::AF_NETLINK as libc::sa_family_t;
        own.nl_groups = libc::RTMGRP_IPV6_IFADDR as u32;
        let length = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
        // SAFETY: the address is live for the call, and its length is given.
        if unsafe { libc::bind(fd.as_raw_fd(), (&raw const own).cast(), length) } < 0 {
            return Err(Error::io("listen to changes of addresses", &io::Error::last_os_error()));
        }
        Ok(AddressWatch { fd })
    }

    /// Has anything changed since the last time? What exactly, whoever asks looks up.
    pub fn stirred(&self) -> bool {
        let mut stirred = false;
        let mut buffer = [0; 512];
        loop {
            match rustix::io::read(&self.fd, &mut buffer) {
                // More happened than the socket holds.
                Ok(_) | Err(Errno::NOBUFS) => stirred = true,
                Err(Errno::INTR) => {}
                Err(_) => return stirred,
            }
        }
    }
}

/// Behind the header of 16 bytes: family, prefix length, flags, scope.
fn only_global(fd: BorrowedFd<'_>) -> Result<()> {
    use libc::{BPF_ABS, BPF_B, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET};
    let op = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    attach_filter(
        fd,
        &mut [
            op(BPF_LD | BPF_B | BPF_ABS, 0, 0, 19),
            op(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, libc::RT_SCOPE_UNIVERSE.into()),
            op(BPF_RET | BPF_K, 0, 0, u32::MAX),
            op(BPF_RET | BPF_K, 0, 0, 0),
        ],
    )
}
