//! Questions passed on: the client's bytes to a server, the server's bytes back.
//!
//! The first server gets a head start; then all the others are asked at once, and the first good
//! answer counts. Nobody waits for a dead server longer than the head start. Only "there is no such
//! name" waits a little for the servers before it: the first may know names that the others do not
//! (a VPN's, say), and is asked first for that.

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
/// Until the other servers are asked as well.
const HEAD_START: Duration = Duration::from_millis(150);
/// A server that says nothing for so long is slow; it is asked again, in case a packet was lost.
const PATIENCE: Duration = Duration::from_millis(500);
/// After this the answer is SERVFAIL: just before the C library's own five seconds are over.
const GIVE_UP: Duration = Duration::from_millis(4500);
/// Turned down for now, not answered: another server may do better.
const FAILURES: [u8; 3] = [message::SERVFAIL, message::NOTIMP, message::REFUSED];
const LARGEST: usize = u16::MAX as usize;

/// An answer for a client.
#[derive(Debug)]
pub struct Reply {
    pub asker: Asker,
    pub query: Vec<u8>,
    pub answer: Vec<u8>,
    /// A server has given it; else it is ours, or a server's refusal.
    pub good: bool,
}

#[derive(Debug)]
struct Lookup {
    asker: Asker,
    query: Vec<u8>,
    /// Servers not asked yet, in order.
    rest: Vec<SocketAddr>,
    /// In the order in which they were asked.
    attempts: Vec<Attempt>,
    begun: Instant,
    next: Instant,
    /// The best bad news so far.
    failure: Option<Vec<u8>>,
    /// "There is no such name", from a server that is not the first.
    negative: Option<Vec<u8>>,
}

#[derive(Debug)]
struct Attempt {
    server: SocketAddr,
    asked: Instant,
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
        let rest = up.order(now);
        if rest.is_empty() || self.table.len() >= LIMIT {
            let answer = query.empty(message::REFUSED);
            return Some(Reply { asker, query: query.raw.to_vec(), answer, good: false });
        }
        let key = self.table.insert(Lookup {
            asker,
            query: query.raw.to_vec(),
            rest,
            attempts: Vec::new(),
            begun: now,
            next: now + HEAD_START,
            failure: None,
            negative: None,
        });
        let lookup = self.table.get_mut(key)?;
        lookup.ask_next(poller, up, key, now);
        self.settle(poller, up, key, now)
    }

    /// One of a question's sockets has something to say.
    pub fn ready(&mut self, poller: &Poller, up: &mut Upstreams, key: u64, now: Instant) -> Option<Reply> {
        let lookup = self.table.get_mut(key)?;
        let mut buffer = Vec::with_capacity(LARGEST);
        let mut i = 0;
        while i < lookup.attempts.len() {
            let attempt = &mut lookup.attempts[i];
            match attempt.progress(&lookup.query, &mut buffer) {
                Progress::Waiting => {
                    i += 1;
                    continue;
                }
                Progress::Answer(answer) if FAILURES.contains(&message::response_code(&answer)) => {
                    lookup.failure = Some(answer);
                }
                Progress::Answer(answer) => {
                    let server = attempt.server;
                    up.note(server, true, now);
                    if i == 0 || message::response_code(&answer) != message::NXDOMAIN {
                        // Who is still silent after a head start has cost this question one: the next begins elsewhere.
                        let silent =
                            lookup.attempts.iter().filter(|a| a.asked + HEAD_START <= now && a.server != server);
                        silent.for_each(|a| up.note(a.server, false, now));
                        return self.finish(key, Some(answer));
                    }
                    lookup.negative.get_or_insert(answer);
                }
                Progress::Failed => up.note(attempt.server, false, now),
            }
            lookup.attempts.remove(i);
        }
        self.settle(poller, up, key, now)
    }

    /// Those that have waited long enough ask the other servers, or give up.
    pub fn expire(&mut self, poller: &Poller, up: &mut Upstreams, now: Instant) -> Vec<Reply> {
        if self.next.is_none_or(|at| at > now) {
            return Vec::new();
        }
        let due: Vec<u64> = self.table.iter().filter(|(_, l)| l.next <= now).map(|(key, _)| key).collect();
        let mut replies = Vec::new();
        for key in due {
            replies.extend(self.overdue(poller, up, key, now));
        }
        self.next = self.table.iter().map(|(_, l)| l.next).min();
        replies
    }

    /// Forgets the question of a client that has gone.
    pub fn forget(&mut self, asker: Asker) {
        let gone: Vec<u64> = self.table.iter().filter(|(_, l)| l.asker == asker).map(|(key, _)| key).collect();
        gone.into_iter().for_each(|key| drop(self.table.remove(key)));
    }

    fn overdue(&mut self, poller: &Poller, up: &mut Upstreams, key: u64, now: Instant) -> Option<Reply> {
        let lookup = self.table.get_mut(key)?;
        let patient = now < lookup.begun + PATIENCE;
        if !patient {
            lookup.attempts.iter().for_each(|a| up.note(a.server, false, now));
            if lookup.negative.is_some() {
                let negative = lookup.negative.take();
                return self.finish(key, negative);
            }
            if now >= lookup.begun + GIVE_UP {
                return self.finish(key, None);
            }
            lookup.attempts.iter().filter(|a| a.stream.is_none()).for_each(|a| a.send(&lookup.query));
        }
        while !lookup.rest.is_empty() {
            lookup.ask_next(poller, up, key, now);
        }
        lookup.next = if patient { lookup.begun + PATIENCE } else { (now + PATIENCE).min(lookup.begun + GIVE_UP) };
        self.settle(poller, up, key, now)
    }

    /// When nobody is left to wait for, the servers not asked yet are; else the answer is the best
    /// of the bad ones.
    fn settle(&mut self, poller: &Poller, up: &mut Upstreams, key: u64, now: Instant) -> Option<Reply> {
        let lookup = self.table.get_mut(key)?;
        if lookup.attempts.is_empty() {
            while !lookup.rest.is_empty() {
                lookup.ask_next(poller, up, key, now);
            }
        }
        if lookup.attempts.is_empty() {
            let negative = lookup.negative.take();
            return self.finish(key, negative);
        }
        let next = lookup.next;
        self.next = Some(self.next.map_or(next, |n| n.min(next)));
        None
    }

    /// The question is done: with a server's answer, or with what else there is to say.
    fn finish(&mut self, key: u64, answer: Option<Vec<u8>>) -> Option<Reply> {
        let lookup = self.table.remove(key)?;
        let good = answer.is_some();
        let answer = answer.or(lookup.failure).or_else(|| match message::parse(&lookup.query) {
            Incoming::Query(query) => Some(query.empty(message::SERVFAIL)),
            _ => None,
        })?;
        Some(Reply { asker: lookup.asker, query: lookup.query, answer, good })
    }
}

impl Lookup {
    fn ask_next(&mut self, poller: &Poller, up: &mut Upstreams, key: u64, now: Instant) {
        if self.rest.is_empty() {
            return;
        }
        let server = self.rest.remove(0);
        match self.start(poller, up, server, key, now) {
            Ok(()) => {}
            // Out of descriptors: no other server would help.
            Err(Errno::MFILE | Errno::NFILE) => self.rest.clear(),
            Err(_) => up.note(server, false, now),
        }
    }

    fn start(
        &mut self,
        poller: &Poller,
        up: &Upstreams,
        server: SocketAddr,
        key: u64,
        now: Instant,
    ) -> Result<(), Errno> {
        let tcp = matches!(self.asker, Asker::Tcp(_));
        let kind = if tcp { SocketType::STREAM } else { SocketType::DGRAM };
        let socket = up.connect(server, kind)?;
        poller.add_edges(&socket, UPSTREAM | key)?;
        let attempt = Attempt { server, asked: now, socket, stream: tcp.then(Stream::default) };
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
