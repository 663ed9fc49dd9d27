//! The doors that names open: what the resolver answers is let out for as long as the answer is good.

use super::Policy;
use super::table::{Group, TABLE, element, groups};
use crate::nl::{Elem, NftBatch, Socket};
use plan::{Error, Result};
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Clients connect some time after they have asked, and ask again after the answer's time is over.
const SHORTEST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// Addresses remembered; more are open all the same, and only told to the kernel more often.
const MOST: usize = 4096;

/// Lives with the resolver, in the monitor.
pub struct Gate {
    policy: Policy,
    /// Of the container's namespace.
    socket: Socket,
    /// Until when an address is open, by its set.
    open: HashMap<(String, IpAddr), Instant>,
    /// An earlier monitor may have opened some as well.
    inherited: bool,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").field("policy", &self.policy).field("open", &self.open.len()).finish_non_exhaustive()
    }
}

impl Gate {
    /// The calling thread is in the container's namespace.
    pub fn new(policy: Policy, inherited: bool) -> Result<Gate> {
        Ok(Gate { policy, socket: Socket::netfilter()?, open: HashMap::new(), inherited })
    }

    /// May the servers outside be asked for this name? `None`: one that no rule could name.
    pub fn may_ask(&self, name: Option<&[u8]>) -> bool {
        self.policy.asks_freely() || name.is_some_and(|name| self.concerns(name))
    }

    /// Does an answer for this name open anything?
    pub fn concerns(&self, name: &[u8]) -> bool {
        self.policy.rules.iter().any(|r| r.to.covers(name))
    }

    /// `name` stands for `addresses`, for so long. To be called before the answer goes out.
    pub fn open(&mut self, name: &[u8], addresses: &[(IpAddr, Duration)], now: Instant) -> Result<()> {
        let policy = self.policy.clone();
        for group in groups(&policy).iter().filter(|g| g.covers(name)) {
            self.admit(group, addresses, now)?;
        }
        Ok(())
    }

    fn admit(&mut self, group: &Group<'_>, addresses: &[(IpAddr, Duration)], now: Instant) -> Result<()> {
        for (ip, ttl) in addresses {
            let ttl = (*ttl).clamp(SHORTEST, LONGEST);
            let key = (group.names_set(ip.is_ipv6()), *ip);
            let known = self.open.get(&key).copied().filter(|until| *until > now);
            // Half of its time is still to come: a name that is asked for often costs nothing.
            if known.is_some_and(|until| until >= now + ttl / 2) {
                continue;
            }
            // A little longer than promised, so that nobody is turned away in the last moment.
            let timeout = ttl + ttl / 2;
            self.put(&element(&key.0, *ip, None, Some(timeout)), known.is_some() || self.inherited)?;
            if self.open.len() >= MOST {
                self.open.retain(|_, until| *until > now);
            }
            if self.open.len() < MOST {
                self.open.insert(key, now + timeout);
            }
        }
        Ok(())
    }

    /// Kernels before 6.12 keep the old time of an element that is added again: it is replaced.
    fn put(&mut self, element: &Elem, present: bool) -> Result<()> {
        let element = std::slice::from_ref(element);
        let told = |errno: i32| Error::os("let the container out to an address", errno);
        if present {
            let mut batch = NftBatch::new(TABLE);
            batch.delete(0, element);
            batch.add(0, element);
            match batch.commit(&mut self.socket)? {
                Ok(()) => return Ok(()),
                Err(failure) if failure.errno != libc::ENOENT => return Err(told(failure.errno)),
                Err(_) => {}
            }
        }
        let mut batch = NftBatch::new(TABLE);
        batch.add(0, element);
        batch.commit(&mut self.socket)?.map_err(|failure| told(failure.errno))
    }
}
