//! Questions passed on: the client's bytes to a server, the server's bytes back.
//!
//! The first server gets a head start; one that is silent, refuses or fails is joined by the next,
//! and the first good answer counts. Nobody waits for a dead server longer than the head start.

use super::message::{self, Incoming, Query};
use super::upstream::Upstreams;
use super::{Asker, UPSTREAM};
use crate::poll::{Poller, Slab};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketType};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Questions on their way at once; more are refused, as by Docker.
const LIMIT: usize = 1024;
/// Until the next server is asked as well, or the last one again.
const HEAD_START: Duration = Duration::from_millis(500);
/// After this the answer is SERVFAIL: just before the C library's own five seconds are over.
const GIVE_UP: Duration = Duration::from_millis(4500);
/// Turned down for now, not answered: another server may do better.
const FAILURES: [u8; 3] = [message::SERVFAIL, message::NOTIMP, message::REFUSED];
const LARGEST: usize = u16::MAX as usize;

/// An answer for a client.
pub type Reply = (Asker, Vec<u8>);

#[derive(Debug)]
struct Lookup {
    asker: Asker,
    query: Vec<u8>,
    /// Servers not asked yet, the next one last.
    rest: Vec<SocketAddr>,
    attempts: Vec<Attempt>,
    next: Instant,
    give_up: Instant,
    /// The best bad news so far.
    failure: Option<Vec<u8>>,
}

#[derive(Debug)]
struct Attempt {
    server: SocketAddr,
    socket: OwnedFd,
    /// By TCP: what of question and answer has passed.
    stream: Option<Stream>,
}

#[derive(Debug, Default)]
struct Stream {
    sent: usize,
    received: Vec<u8>,
}

#[derive(Debug)]
pub struct Lookups {
    table: Slab<Lookup>,
    /// When the first of them wants attention; a lower bound.
    next: Option<Instant>,
}

impl Lookups {
    pub fn new() -> Lookups {
        Lookups { table: Slab::new(), next: None }
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.next
    }

    /// Passes a question on; an answer right now only if that is impossible.
    pub fn ask(
        &mut self,
        poller: &Poller,
        up: &mut Upstreams,
        query: &Query,
        asker: Asker,
        now: Instant,
    ) -> Option<Reply> {
        let mut rest = up.order(now);
        rest.reverse();
        if rest.is_empty() || self.table.len() >= LIMIT {
            return Some((asker, query.empty(message::REFUSED)));
        }
        let lookup = Lookup {
            asker,
            query: query.raw.to_vec(),
            rest,
            attempts: Vec::new(),
            next: now,
            give_up: now + GIVE_UP,
            failure: None,
        };
        let key = self.table.insert(lookup);
        self.advance(poller, up, key, now)
    }

    /// One of a question's sockets has something to say.
    pub fn ready(&mut self, poller: &Poller, up: &mut Upstreams, key: u64, now: Instant) -> Option<Reply> {
        let lookup = self.table.get_mut(key)?;
        let mut buffer = Vec::with_capacity(LARGEST);
        let mut i = 0;
        while i < lookup.attempts.len() {
            let attempt = &mut lookup.attempts[i];
            match attempt.progress(&lookup.query, &mut buffer) {
                Progress::Waiting => i += 1,
                Progress::Answer(answer) if FAILURES.contains(&message::response_code(&answer)) => {
                    lookup.failure = Some(answer);
                    lookup.attempts.remove(i);
                }
                Progress::Answer(answer) => {
                    up.note(attempt.server, true, now);
                    return self.table.remove(key).map(|l| (l.asker, answer));
                }
                Progress::Failed => {
                    up.note(attempt.server, false, now);
                    lookup.attempts.remove(i);
                }
            }
        }
        match lookup.attempts.is_empty() {
            true => self.advance(poller, up, key, now),
            false => None,
        }
    }

    /// Those that have waited long enough ask the next server, or give up.
    pub fn expire(&mut self, poller: &Poller, up: &mut Upstreams, now: Instant) -> Vec<Reply> {
        if self.next.is_none_or(|at| at > now) {
            return Vec::new();
        }
        let due: Vec<u64> = self.table.iter().filter(|(_, l)| l.next <= now).map(|(key, _)| key).collect();
        let mut replies = Vec::new();
        for key in due {
            if let Some(l) = self.table.get_mut(key)
                && let Some(waiting) = l.attempts.last()
            {
                up.note(waiting.server, false, now);
            }
            replies.extend(self.advance(poller, up, key, now));
        }
        self.next = self.table.iter().map(|(_, l)| l.next).min();
        replies
    }

    /// Forgets the question of a client that has gone.
    pub fn forget(&mut self, asker: Asker) {
        let gone: Vec<u64> = self.table.iter().filter(|(_, l)| l.asker == asker).map(|(key, _)| key).collect();
        gone.into_iter().for_each(|key| drop(self.table.remove(key)));
    }

    /// Asks the next server, else the last one again, else answers with the failure.
    fn advance(&mut self, poller: &Poller, up: &mut Upstreams, key: u64, now: Instant) -> Option<Reply> {
        let lookup = self.table.get_mut(key)?;
        while now < lookup.give_up {
            let Some(server) = lookup.rest.pop() else { break };
            match lookup.start(poller, up, server, key) {
                Ok(()) => break,
                // Out of descriptors: no other server would help.
                Err(Errno::MFILE | Errno::NFILE) => lookup.rest.clear(),
                Err(_) => up.note(server, false, now),
            }
        }
        if lookup.attempts.is_empty() || now >= lookup.give_up {
            let lookup = self.table.remove(key)?;
            let failure = lookup.failure.or_else(|| match message::parse(&lookup.query) {
                Incoming::Query(query) => Some(query.empty(message::SERVFAIL)),
                _ => None,
            });
            return failure.map(|failure| (lookup.asker, failure));
        }
        if now > lookup.next && lookup.rest.is_empty() {
            lookup.attempts.iter().filter(|a| a.stream.is_none()).for_each(|a| a.send(&lookup.query));
        }
        lookup.next = (now + HEAD_START).min(lookup.give_up);
        let next = lookup.next;
        self.next = Some(self.next.map_or(next, |n| n.min(next)));
        None
    }
}

impl Lookup {
    fn start(&mut self, poller: &Poller, up: &Upstreams, server: SocketAddr, key: u64) -> Result<(), Errno> {
        let tcp = matches!(self.asker, Asker::Tcp(_));
        let kind = if tcp { SocketType::STREAM } else { SocketType::DGRAM };
        let socket = up.connect(server, kind)?;
        poller.add_edges(&socket, UPSTREAM | key)?;
        let attempt = Attempt { server, socket, stream: tcp.then(Stream::default) };
        if !tcp {
            attempt.send(&self.query);
        }
        self.attempts.push(attempt);
        Ok(())
    }
}

enum Progress {
    Waiting,
    Answer(Vec<u8>),
    Failed,
}

impl Attempt {
    fn send(&self, query: &[u8]) {
        // What cannot be sent is what gets lost on the way: the next attempt makes up for it.
        let _ = rustix::net::send(&self.socket, query, SendFlags::NOSIGNAL);
    }

    fn progress(&mut self, query: &[u8], buffer: &mut Vec<u8>) -> Progress {
        let Incoming::Query(question) = message::parse(query) else { return Progress::Failed };
        match &mut self.stream {
            Some(stream) => stream.progress(&self.socket, &question, buffer),
            None => loop {
                buffer.clear();
                match rustix::net::recv(&self.socket, rustix::buffer::spare_capacity(buffer), RecvFlags::empty()) {
                    Ok(_) if question.is_answered_by(buffer) => break Progress::Answer(buffer.clone()),
                    // A late answer to something else, or a forgery: the real one may still come.
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => break Progress::Waiting,
                    // Nothing listens there.
                    Err(_) => break Progress::Failed,
                }
            },
        }
    }
}

impl Stream {
    fn progress(&mut self, socket: &OwnedFd, question: &Query, buffer: &mut Vec<u8>) -> Progress {
        let mut framed = Vec::with_capacity(question.raw.len() + 2);
        framed.extend_from_slice(&(question.raw.len() as u16).to_be_bytes());
        framed.extend_from_slice(question.raw);
        while self.sent < framed.len() {
            match rustix::net::send(socket, &framed[self.sent..], SendFlags::NOSIGNAL) {
                Ok(n) => self.sent += n,
                Err(Errno::AGAIN) => return Progress::Waiting,
                Err(_) => return Progress::Failed,
            }
        }
        loop {
            if let [high, low, answer @ ..] = &self.received[..] {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                if answer.len() >= length {
                    let answer = answer[..length].to_vec();
                    return if question.is_answered_by(&answer) { Progress::Answer(answer) } else { Progress::Failed };
                }
            }
            buffer.clear();
            match rustix::net::recv(socket, rustix::buffer::spare_capacity(buffer), RecvFlags::empty()) {
                Ok(_) if buffer.is_empty() => return Progress::Failed,
                Ok(_) => self.received.extend_from_slice(buffer),
                Err(Errno::AGAIN) => return Progress::Waiting,
                Err(Errno::INTR) => {}
                Err(_) => return Progress::Failed,
            }
        }
    }
}
