//! Descriptor numbers for many sockets, out of the container's way.
//!
//! The container's first process is forked from the monitor while it holds the ports. It opens
//! files with whatever limit the container is to have, so the low numbers must stay free, and the
//! limit raised for the sockets must be lowered again before the fork.

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::os::fd::OwnedFd;

/// So few sockets are in nobody's way.
const FEW: u64 = 64;
/// Where many go: above the usual soft limit, and low enough for a small descriptor table.
const BASE: u64 = 1024;
/// Left for the monitor's other work where the hard limit does not allow that.
const HEADROOM: u64 = 256;

/// Room for the sockets of one reservation. Dropped, the soft limit is what it was.
#[derive(Debug)]
pub struct Room {
    /// How many sockets there may be.
    pub sockets: u64,
    /// The limit that decided it.
    pub limit: u64,
    high: bool,
    before: Option<Rlimit>,
}

impl Room {
    /// For `wanted` sockets beside `held` ones.
    pub fn new(wanted: u64, held: u64) -> Room {
        let now = getrlimit(Resource::Nofile);
        let limit = now.current.unwrap_or(u64::MAX);
        let all = wanted + held;
        if all <= FEW {
            return Room { sockets: wanted, limit, high: false, before: None };
        }
        let raised = BASE + all > limit && raise();
        let limit = if raised { now.maximum.unwrap_or(u64::MAX) } else { limit };
        let high = BASE + all <= limit;
        let sockets = if high { wanted } else { wanted.min(limit.saturating_sub(HEADROOM + held)) };
        Room { sockets, limit, high, before: raised.then_some(now) }
    }

    /// For as many as the limit allows, from now on: nothing is forked any more that could inherit it.
    pub fn lasting() -> Room {
        raise();
        Room { sockets: u64::MAX, limit: u64::MAX, high: false, before: None }
    }

    /// Gives a socket its number.
    pub fn place(&self, socket: OwnedFd) -> Result<OwnedFd, Errno> {
        match self.high {
            true => rustix::io::fcntl_dupfd_cloexec(&socket, BASE as i32),
            false => Ok(socket),
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Some(before) = self.before.take() {
            // Lowering the own soft limit is always allowed; open descriptors stay open.
            let _ = setrlimit(Resource::Nofile, before);
        }
    }
}

/// The soft limit becomes the hard one; false if it was that already, or may not be.
pub fn raise() -> bool {
    let now = getrlimit(Resource::Nofile);
    let all = Rlimit { current: now.maximum, maximum: now.maximum };
    now.current != now.maximum && setrlimit(Resource::Nofile, all).is_ok()
}
