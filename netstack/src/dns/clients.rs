//! Clients that ask by TCP: after a truncated answer, or by habit. One question at a time each,
//! so that none can make us keep more than one question and one answer for it.

use super::CLIENT;
use crate::poll::{Poller, Slab};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Connections at once; a new one then takes the place of the one idle longest.
const LIMIT: usize = 64;
/// From one complete question to the next. Dripping bytes do not count.
const IDLE: Duration = Duration::from_secs(10);
/// No question is longer.
const LARGEST: usize = 4096;
/// Connections accepted before others get their turn.
const TURN: usize = 64;

#[derive(Debug)]
struct Client {
    socket: OwnedFd,
    received: Vec<u8>,
    reply: Vec<u8>,
    sent: usize,
    /// A question is being looked up.
    waiting: bool,
    ended: bool,
    since: Instant,
}

/// What a client wants of the server.
#[derive(Debug)]
pub enum Want {
    Nothing,
    Answer(Vec<u8>),
    /// It is gone; a question of it may still be on its way.
    Gone,
}

#[derive(Debug)]
pub struct Clients {
    table: Slab<Client>,
    /// When the first of them may have been idle too long; a lower bound.
    next: Option<Instant>,
    /// Given up for a moment when descriptors run out: a connection that can neither be accepted
    /// nor turned away would wake the loop for ever.
    spare: Option<OwnedFd>,
}

impl Clients {
    pub fn new(listener: &OwnedFd) -> Clients {
        Clients { table: Slab::new(), next: None, spare: listener.try_clone().ok() }
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.next
    }

    /// Takes new connections. Those closed to make room for them are returned.
    pub fn accept(&mut self, poller: &Poller, listener: &OwnedFd, now: Instant) -> Vec<u64> {
        let mut closed = Vec::new();
        for _ in 0..TURN {
            match rustix::net::accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(socket) => {
                    if self.table.len() >= LIMIT {
                        closed.extend(self.evict());
                    }
                    let (received, reply) = Default::default();
                    let client = Client { socket, received, reply, sent: 0, waiting: false, ended: false, since: now };
                    let key = self.table.insert(client);
                    let watched =
                        self.table.get_mut(key).is_some_and(|c| poller.add_edges(&c.socket, CLIENT | key).is_ok());
                    if !watched {
                        self.table.remove(key);
                    }
                    self.next.get_or_insert(now + IDLE);
                }
                Err(Errno::CONNABORTED | Errno::INTR) => {}
                Err(Errno::MFILE | Errno::NFILE) if self.spare.take().is_some() => {
                    let _turned_away = rustix::net::accept_with(listener, SocketFlags::CLOEXEC);
                }
                Err(_) => break,
            }
            if self.spare.is_none() {
                self.spare = listener.try_clone().ok();
            }
        }
        closed
    }

    fn evict(&mut self) -> Option<u64> {
        let oldest = self.table.iter().min_by_key(|(_, c)| (c.waiting, c.since)).map(|(key, _)| key)?;
        self.table.remove(oldest);
        Some(oldest)
    }

    /// Moves bytes; a complete question comes back, to be answered with [`Clients::reply`] now or
    /// later.
    pub fn progress(&mut self, key: u64, now: Instant) -> Want {
        let Some(client) = self.table.get_mut(key) else { return Want::Nothing };
        match client.progress(now) {
            Ok(Some(question)) => Want::Answer(question),
            Ok(None) => Want::Nothing,
            Err(Closed) => {
                self.table.remove(key);
                Want::Gone
            }
        }
    }

    /// Hands over the answer; [`Clients::progress`] then sends it.
    pub fn reply(&mut self, key: u64, answer: &[u8]) {
        if let Some(client) = self.table.get_mut(key) {
            client.waiting = false;
            client.reply = (answer.len() as u16).to_be_bytes().to_vec();
            client.reply.extend_from_slice(answer);
            client.sent = 0;
        }
    }

    /// Closes those that have been idle too long and returns them.
    pub fn expire(&mut self, now: Instant) -> Vec<u64> {
        if self.next.is_none_or(|at| at > now) {
            return Vec::new();
        }
        let old: Vec<u64> = self.table.iter().filter(|(_, c)| c.since + IDLE <= now).map(|(key, _)| key).collect();
        for key in &old {
            self.table.remove(*key);
        }
        self.next = self.table.iter().map(|(_, c)| c.since + IDLE).min();
        old
    }
}

struct Closed;

impl Client {
    fn progress(&mut self, now: Instant) -> Result<Option<Vec<u8>>, Closed> {
        while self.sent < self.reply.len() {
            match rustix::net::send(&self.socket, &self.reply[self.sent..], SendFlags::NOSIGNAL) {
                Ok(n) => self.sent += n,
                Err(Errno::AGAIN) => return Ok(None),
                Err(_) => return Err(Closed),
            }
        }
        self.reply = Vec::new();
        self.sent = 0;
        while !self.waiting {
            if let [high, low, rest @ ..] = &self.received[..] {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                if length > LARGEST {
                    return Err(Closed);
                }
                if rest.len() >= length {
                    let question = rest[..length].to_vec();
                    self.received.drain(..2 + length);
                    self.waiting = true;
                    self.since = now;
                    return Ok(Some(question));
                }
            }
            if self.ended {
                return Err(Closed);
            }
            let mut buffer = [0; 1024];
            match rustix::net::recv(&self.socket, &mut buffer[..], RecvFlags::empty()) {
                // It may have closed its half only: a question already here is still answered.
                Ok((0, _)) => self.ended = true,
                Ok((n, _)) => self.received.extend_from_slice(&buffer[..n]),
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => {}
                Err(_) => return Err(Closed),
            }
        }
        Ok(None)
    }
}
