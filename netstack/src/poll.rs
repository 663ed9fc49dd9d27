//! The vocabulary between the monitor's poll loop and this crate's services, and the small pieces
//! those services share: an epoll instance and a table whose keys never dangle.

use plan::{Result, ResultExt};
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

/// One descriptor that the monitor's poll loop watches for a service.
///
/// A service with many sockets keeps them in an epoll instance of its own and shows only that, so
/// that 500 published ports cost the loop one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest {
    pub fd: RawFd,
    pub read: bool,
    pub write: bool,
}

/// An epoll instance. A token comes back with each event of the descriptor it was added with.
#[derive(Debug)]
pub(crate) struct Poller {
    epoll: OwnedFd,
}

/// Events fetched in one system call.
const BATCH: usize = 64;

impl Poller {
    pub fn new() -> Result<Poller> {
        let epoll = epoll::create(CreateFlags::CLOEXEC).doing(|| "create an epoll instance")?;
        Ok(Poller { epoll })
    }

    pub fn interest(&self) -> Interest {
        Interest { fd: self.epoll.as_raw_fd(), read: true, write: false }
    }

    /// Level-triggered, for reading: listeners and datagram sockets.
    pub fn add_read(&self, fd: impl AsFd, token: u64) -> Result<(), Errno> {
        epoll::add(&self.epoll, fd, EventData::new_u64(token), EventFlags::IN)
    }

    pub fn want(&self, fd: impl AsFd, token: u64, flags: EventFlags) -> Result<(), Errno> {
        epoll::modify(&self.epoll, fd, EventData::new_u64(token), flags)
    }

    /// Edge-triggered, both directions: a relayed connection, worked on until the kernel says
    /// EAGAIN, so that no half-closed socket can wake the loop again and again.
    pub fn add_edges(&self, fd: impl AsFd, token: u64) -> Result<(), Errno> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.epoll, fd, EventData::new_u64(token), flags)
    }

    pub fn add_nested(&self, inner: &Poller, token: u64) -> Result<(), Errno> {
        self.add_read(&inner.epoll, token)
    }

    pub fn want_nested(&self, inner: &Poller, token: u64, flags: EventFlags) -> Result<(), Errno> {
        self.want(&inner.epoll, token, flags)
    }

    /// The tokens of what is ready now; never blocks.
    pub fn ready(&self, tokens: &mut Vec<u64>) {
        let mut events = [const { MaybeUninit::<epoll::Event>::uninit() }; BATCH];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        tokens.clear();
        // EINTR is the only error an epoll descriptor of our own can give: the loop comes back.
        if let Ok((events, _)) = epoll::wait(&self.epoll, &mut events, Some(&now)) {
            tokens.extend(events.iter().map(|e| e.data.u64()));
        }
    }
}

/// A table with stable keys: a key of something removed finds nothing, even when its place has been
/// taken again. Keys are below 2⁶⁰, the upper four bits are the user's.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    entries: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    pub fn new() -> Slab<T> {
        Slab { entries: Vec::new(), free: Vec::new() }
    }

    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    pub fn insert(&mut self, value: T) -> u64 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push((0, None));
            (self.entries.len() - 1) as u32
        });
        let entry = &mut self.entries[index as usize];
        entry.1 = Some(value);
        key(entry.0, index)
    }

    pub fn get_mut(&mut self, key: u64) -> Option<&mut T> {
        let (generation, value) = self.entries.get_mut(key as u32 as usize)?;
        if *generation == generation_of(key) { value.as_mut() } else { None }
    }

    pub fn remove(&mut self, key: u64) -> Option<T> {
        let (generation, value) = self.entries.get_mut(key as u32 as usize)?;
        if *generation != generation_of(key) {
            return None;
        }
        let taken = value.take()?;
        *generation = generation.wrapping_add(1) & GENERATIONS;
        self.free.push(key as u32);
        Some(taken)
    }

    pub fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.entries.iter().enumerate().filter_map(|(i, (g, v))| v.as_ref().map(|v| (key(*g, i as u32), v)))
    }
}

const GENERATIONS: u32 = (1 << 28) - 1;

fn key(generation: u32, index: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(index)
}

fn generation_of(key: u64) -> u32 {
    (key >> 32) as u32 & GENERATIONS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_dies_with_its_value() {
        let mut slab = Slab::new();
        let a = slab.insert("a");
        assert_eq!(slab.remove(a), Some("a"));
        let b = slab.insert("b");
        assert_ne!(a, b);
        assert_eq!(slab.get_mut(a), None);
        assert_eq!(slab.remove(a), None);
        assert_eq!(slab.len(), 1);
        assert_eq!(slab.iter().map(|(k, v)| (k, *v)).collect::<Vec<_>>(), [(b, "b")]);
    }
}
