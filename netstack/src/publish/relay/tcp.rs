//! Relayed TCP connections: bytes both ways, each direction ended on its own.

use super::{Route, TCP};
use crate::poll::{Poller, Slab};
use crate::publish::ports::HeldSocket;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, sockopt};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Connections at once; what comes after them waits in the listeners' backlogs.
const LIMIT: usize = 1024;
/// Bytes read at once, and so the most that one direction keeps in memory.
const CHUNK: usize = 16 * 1024;
/// Chunks moved for one connection before the others get their turn.
const TURN: usize = 64;
const BACKLOG: i32 = 512;

pub(super) fn listen(socket: &OwnedFd) -> Result<(), Errno> {
    match rustix::net::listen(socket, BACKLOG) {
        // Listening asks for the port once more, and meets connections in TIME_WAIT again (see
        // `socket::hold`).
        Err(Errno::ADDRINUSE) => {
            sockopt::set_socket_reuseaddr(socket, true)?;
            rustix::net::listen(socket, BACKLOG)?;
            sockopt::set_socket_reuseaddr(socket, false)
        }
        other => other,
    }
}

/// One way: from one socket to the other.
#[derive(Debug, Default)]
struct Direction {
    /// Read but not yet taken by the receiver, from `at` on.
    pending: Vec<u8>,
    at: usize,
    /// The sender will send no more.
    ended: bool,
    /// The receiver has been told so, or can take no more.
    closed: bool,
}

#[derive(Debug)]
struct Connection {
    /// The place of the socket it came by.
    by: usize,
    client: OwnedFd,
    server: OwnedFd,
    up: Direction,
    down: Direction,
    queued: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Turn {
    /// Nothing more until the kernel reports an event.
    Blocked,
    /// Its turn is over before its bytes are.
    More,
    Finished,
    /// One side was reset: so must the other be.
    Reset,
}

#[derive(Debug)]
pub(super) struct Connections {
    table: Slab<Connection>,
    /// Keys with something to do.
    queue: Vec<u64>,
    buffer: Vec<u8>,
}

impl Connections {
    pub fn new() -> Connections {
        Connections { table: Slab::new(), queue: Vec::new(), buffer: Vec::new() }
    }

    pub fn has_room(&self) -> bool {
        self.table.len() < LIMIT
    }

    pub fn has_work(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Takes the clients waiting on one listener; true if descriptors ran out.
    pub fn accept(&mut self, poller: &Poller, by: usize, held: &HeldSocket, route: Route) -> bool {
        while self.has_room() {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let (client, peer) = match rustix::net::acceptfrom_with(&held.socket, flags) {
                Ok(accepted) => accepted,
                Err(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS) => return true,
                Err(Errno::CONNABORTED | Errno::INTR) => continue,
                Err(_) => return false,
            };
            let peer = peer.and_then(|p| SocketAddr::try_from(p).ok()).map(|p| p.ip().to_canonical());
            let Some(to) = peer.filter(|ip| held.admits(*ip)).and_then(|ip| route.to(ip)) else {
                reset(&client);
                continue;
            };
            match connect_to(to, route.refused, held.container_port) {
                Ok(server) => self.insert(poller, by, client, server),
                Err(e) => {
                    reset(&client);
                    if matches!(e, Errno::MFILE | Errno::NFILE) {
                        return true;
                    }
                }
            }
        }
        false
    }

    fn insert(&mut self, poller: &Poller, by: usize, client: OwnedFd, server: OwnedFd) {
        // In TIME_WAIT it would otherwise keep the port from the next container for a minute: both
        // sides of such a meeting must have said that they do not mind.
        let _ = sockopt::set_socket_reuseaddr(&client, true);
        // A peer that vanished without a word is noticed after the host's keepalive time.
        let _ = sockopt::set_socket_keepalive(&client, true);
        let _ = sockopt::set_socket_keepalive(&server, true);
        let _ = sockopt::set_tcp_nodelay(&client, true);
        let _ = sockopt::set_tcp_nodelay(&server, true);
        let (up, down) = Default::default();
        let key = self.table.insert(Connection { by, client, server, up, down, queued: false });
        let Some(c) = self.table.get_mut(key) else { return };
        let watched = poller.add_edges(&c.client, TCP | key).and_then(|()| poller.add_edges(&c.server, TCP | key));
        if watched.is_err()
            && let Some(c) = self.table.remove(key)
        {
            reset(&c.client);
        }
    }

    /// Ends what came by the socket at place `by`.
    pub fn cut(&mut self, by: usize) {
        let keys: Vec<u64> = self.table.iter().filter(|(_, c)| c.by == by).map(|(key, _)| key).collect();
        for c in keys.into_iter().filter_map(|key| self.table.remove(key)) {
            reset(&c.client);
            reset(&c.server);
        }
    }

    /// Something happened on one of the connection's sockets.
    pub fn wake(&mut self, key: u64) {
        if let Some(c) = self.table.get_mut(key)
            && !c.queued
        {
            c.queued = true;
            self.queue.push(key);
        }
    }

    /// One turn for every connection that has something to do.
    pub fn work(&mut self) {
        self.buffer.resize(CHUNK, 0);
        for key in std::mem::take(&mut self.queue) {
            let Some(c) = self.table.get_mut(key) else { continue };
            c.queued = false;
            match c.turn(&mut self.buffer) {
                Turn::Blocked => {}
                Turn::More => self.wake(key),
                Turn::Finished => drop(self.table.remove(key)),
                Turn::Reset => {
                    if let Some(c) = self.table.remove(key) {
                        reset(&c.client);
                        reset(&c.server);
                    }
                }
            }
        }
        if self.table.len() == 0 {
            self.buffer = Vec::new();
        }
    }
}

impl Connection {
    fn turn(&mut self, buffer: &mut [u8]) -> Turn {
        let up = self.up.turn(&self.client, &self.server, buffer);
        let down = self.down.turn(&self.server, &self.client, buffer);
        match (up, down) {
            (Turn::Reset, _) | (_, Turn::Reset) => Turn::Reset,
            (Turn::Finished, Turn::Finished) => Turn::Finished,
            (Turn::More, _) | (_, Turn::More) => Turn::More,
            _ => Turn::Blocked,
        }
    }
}

impl Direction {
    fn turn(&mut self, from: &OwnedFd, to: &OwnedFd, buffer: &mut [u8]) -> Turn {
        for _ in 0..TURN {
            if self.at < self.pending.len() {
                match rustix::net::send(to, &self.pending[self.at..], SendFlags::NOSIGNAL) {
                    Ok(n) => self.at += n,
                    Err(Errno::AGAIN) => return Turn::Blocked,
                    Err(_) => self.give_up(),
                }
                continue;
            }
            self.pending = Vec::new();
            self.at = 0;
            if self.ended {
                if !self.closed {
                    self.closed = true;
                    // ENOTCONN: the receiver is gone altogether, which ends it as well.
                    let _ = rustix::net::shutdown(to, Shutdown::Write);
                }
                return Turn::Finished;
            }
            match rustix::net::recv(from, &mut *buffer, RecvFlags::empty()) {
                Ok((0, _)) => self.ended = true,
                Ok((n, _)) => match rustix::net::send(to, &buffer[..n], SendFlags::NOSIGNAL) {
                    Ok(sent) if sent == n => {}
                    Ok(sent) => self.pending = buffer[sent..n].to_vec(),
                    Err(Errno::AGAIN) => self.pending = buffer[..n].to_vec(),
                    Err(_) => self.give_up(),
                },
                Err(Errno::AGAIN) => return Turn::Blocked,
                Err(Errno::INTR) => {}
                Err(_) => return Turn::Reset,
            }
        }
        Turn::More
    }

    /// The receiver takes no more of this direction; what it still sends must not be lost, so the
    /// other direction goes on.
    fn give_up(&mut self) {
        (self.pending, self.at) = (Vec::new(), 0);
        (self.ended, self.closed) = (true, true);
    }
}

/// On the loopback a refusal is there at once, though the connect that met it says "in progress".
fn connect_to(ip: IpAddr, otherwise: Option<IpAddr>, port: u16) -> Result<OwnedFd, Errno> {
    let first = connect(SocketAddr::new(ip, port))?;
    match otherwise {
        Some(other) if sockopt::socket_error(&first)? == Err(Errno::CONNREFUSED) => {
            connect(SocketAddr::new(other, port))
        }
        _ => Ok(first),
    }
}

fn connect(to: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if matches!(to.ip(), IpAddr::V4(_)) { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &to) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(e) => Err(e),
    }
}

/// Ends a connection as the kernel ends one to a closed port, so that nobody takes a failure for
/// a regular end.
fn reset(socket: &OwnedFd) {
    let _ = sockopt::set_socket_linger(socket, Some(Duration::ZERO));
}
