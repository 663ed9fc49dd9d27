//! The only `unsafe` of this crate: one file per family of system calls.

#![expect(unsafe_code, reason = "system calls that no safe crate makes; one file per family")]

pub mod bpf;
pub mod entry;
pub mod fdpass;
mod memory;
pub mod mount;
pub mod pidfd;
pub mod poll;
pub mod process;
pub mod seal;
pub mod security;
pub mod signals;
pub mod spawn;

/// The errno that the last failed call of the C library left.
fn errno() -> rustix::io::Errno {
    rustix::io::Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(rustix::io::Errno::IO)
}
