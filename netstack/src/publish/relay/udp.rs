//! Relayed datagrams: a session for each client, with a socket of its own towards the container,
//! so that answers find their way back.

use super::{Route, UDP_SESSION};
use crate::poll::{Poller, Slab};
use crate::publish::ports::HeldSocket;
use crate::publish::socket::Scope;
use nix::cmsg_space;
use nix::sys::socket as sys;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};
use std::collections::HashMap;
use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Sessions at once; a new client then takes the place of the one silent longest.
const LIMIT: usize = 1024;
/// Silence after which a session is forgotten (Docker's proxy: 90 s).
const IDLE: Duration = Duration::from_secs(90);
/// Datagrams taken from one socket before others get their turn.
const TURN: usize = 64;
/// The default `net.core.rmem_default`; reservation had shrunk the buffer to nothing.
const RECEIVE_BUFFER: usize = 212_992;

/// Who speaks: the held socket, the client, and which of the host's addresses it has called.
type Flow = (usize, SocketAddr, Option<IpAddr>);

#[derive(Debug)]
struct Session {
    flow: Flow,
    container: OwnedFd,
    used: Instant,
}

#[derive(Debug)]
pub(super) struct Sessions {
    table: Slab<Session>,
    by_flow: HashMap<Flow, u64>,
    /// When the oldest may expire; a lower bound.
    next: Option<Instant>,
    buffer: Vec<u8>,
}

/// Makes a reserved socket receive, and tell which address a datagram was sent to: the answer
/// must come from there.
pub(super) fn prepare(held: &HeldSocket) -> Result<(), Errno> {
    sockopt::set_socket_recv_buffer_size(&held.socket, RECEIVE_BUFFER)?;
    let raw = |e: nix::errno::Errno| Errno::from_raw_os_error(e as i32);
    match held.scope {
        Scope::Any => sys::setsockopt(&held.socket, sys::sockopt::Ipv6RecvPacketInfo, &true).map_err(raw),
        Scope::One(ip) if !ip.is_unspecified() => Ok(()),
        Scope::One(IpAddr::V4(_)) => sys::setsockopt(&held.socket, sys::sockopt::Ipv4PacketInfo, &true).map_err(raw),
        Scope::One(IpAddr::V6(_)) => {
            sys::setsockopt(&held.socket, sys::sockopt::Ipv6RecvPacketInfo, &true).map_err(raw)
        }
    }
}

impl Sessions {
    pub fn new() -> Sessions {
        Sessions { table: Slab::new(), by_flow: HashMap::new(), next: None, buffer: Vec::new() }
    }

    pub fn timeout(&self, now: Instant) -> Option<Duration> {
        self.next.map(|at| at.saturating_duration_since(now))
    }

    /// Datagrams of clients, on to the container.
    pub fn requests(&mut self, poller: &Poller, i: usize, held: &HeldSocket, route: Route, now: Instant) {
        self.buffer.resize(u16::MAX as usize, 0);
        for _ in 0..TURN {
            let Some((n, client, called)) = receive(&held.socket, &mut self.buffer) else { return };
            let ip = client.ip().to_canonical();
            let Some(to) = route.to(ip).filter(|_| held.admits(ip)) else { continue };
            let to = SocketAddr::new(to, held.container_port);
            let Some(key) = self.session(poller, (i, client, called), to, now) else { continue };
            if let Some(session) = self.table.get_mut(key) {
                session.used = now;
                // A refusal that an earlier datagram met is reported here: the client learns
                // nothing of it by UDP, and this datagram deserves its own try.
                let again = rustix::net::send(&session.container, &self.buffer[..n], SendFlags::empty());
                if again == Err(Errno::CONNREFUSED) {
                    let _ = rustix::net::send(&session.container, &self.buffer[..n], SendFlags::empty());
                }
            }
        }
    }

    fn session(&mut self, poller: &Poller, flow: Flow, to: SocketAddr, now: Instant) -> Option<u64> {
        if let Some(key) = self.by_flow.get(&flow) {
            return Some(*key);
        }
        if self.table.len() >= LIMIT {
            let oldest = self.table.iter().min_by_key(|(_, s)| s.used).map(|(key, _)| key)?;
            self.forget(oldest);
        }
        let container = connect(to).ok()?;
        let key = self.table.insert(Session { flow, container, used: now });
        let watched = self.table.get_mut(key).is_some_and(|s| poller.add_read(&s.container, UDP_SESSION | key).is_ok());
        self.by_flow.insert(flow, key);
        if !watched {
            self.forget(key);
            return None;
        }
        self.next.get_or_insert(now + IDLE);
        Some(key)
    }

    /// Answers of the container, back to the client of that session.
    pub fn answers(&mut self, held: &[Option<HeldSocket>], key: u64, now: Instant) {
        self.buffer.resize(u16::MAX as usize, 0);
        for _ in 0..TURN {
            let Some(session) = self.table.get_mut(key) else { return };
            match rustix::net::recv(&session.container, &mut self.buffer[..], RecvFlags::empty()) {
                Ok((n, _)) => {
                    session.used = now;
                    let (i, client, called) = session.flow;
                    if let Some(held) = &held[i] {
                        send(&held.socket, &self.buffer[..n], client, called);
                    }
                }
                Err(Errno::CONNREFUSED | Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }

    pub fn expire(&mut self, now: Instant) {
        if self.next.is_none_or(|at| at > now) {
            return;
        }
        let old: Vec<u64> = self.table.iter().filter(|(_, s)| s.used + IDLE <= now).map(|(key, _)| key).collect();
        old.into_iter().for_each(|key| self.forget(key));
        self.next = self.table.iter().map(|(_, s)| s.used + IDLE).min();
        if self.table.len() == 0 {
            self.buffer = Vec::new();
        }
    }

    /// Ends what came by the socket at place `by`.
    pub fn cut(&mut self, by: usize) {
        let keys: Vec<u64> = self.table.iter().filter(|(_, s)| s.flow.0 == by).map(|(key, _)| key).collect();
        keys.into_iter().for_each(|key| self.forget(key));
    }

    fn forget(&mut self, key: u64) {
        if let Some(session) = self.table.remove(key) {
            self.by_flow.remove(&session.flow);
        }
    }
}

fn connect(to: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, None)?;
    rustix::net::connect(&socket, &to)?;
    Ok(socket)
}

/// One datagram: length, sender, and the address it was sent to where the socket has many.
fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> Option<(usize, SocketAddr, Option<IpAddr>)> {
    let mut space = cmsg_space!(nix::libc::in6_pktinfo);
    let mut iov = [IoSliceMut::new(buffer)];
    let message =
        sys::recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut iov, Some(&mut space), MsgFlags::MSG_DONTWAIT).ok()?;
    let called = message.cmsgs().ok()?.find_map(|c| match c {
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(IpAddr::from(Ipv6Addr::from(info.ipi6_addr.s6_addr))),
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            Some(IpAddr::from(Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr))))
        }
        _ => None,
    });
    let sender = message.address?;
    let sender = match (sender.as_sockaddr_in(), sender.as_sockaddr_in6()) {
        (Some(v4), _) => SocketAddr::from((v4.ip(), v4.port())),
        // The scope ID makes a link-local client reachable.
        (_, Some(v6)) => SocketAddr::from(std::net::SocketAddrV6::new(v6.ip(), v6.port(), 0, v6.scope_id())),
        _ => return None,
    };
    Some((message.bytes, sender, called))
}

/// Best effort, as UDP is: a full send buffer drops the datagram.
fn send(socket: &OwnedFd, bytes: &[u8], client: SocketAddr, from: Option<IpAddr>) {
    let iov = [IoSlice::new(bytes)];
    let client = SockaddrStorage::from(client);
    let send = |control: &[ControlMessage]| {
        let _ = sys::sendmsg(socket.as_raw_fd(), &iov, control, MsgFlags::MSG_DONTWAIT, Some(&client));
    };
    match from {
        None => send(&[]),
        Some(IpAddr::V6(ip)) => {
            let address = nix::libc::in6_addr { s6_addr: ip.octets() };
            send(&[ControlMessage::Ipv6PacketInfo(&nix::libc::in6_pktinfo { ipi6_addr: address, ipi6_ifindex: 0 })]);
        }
        Some(IpAddr::V4(ip)) => {
            let address = nix::libc::in_addr { s_addr: u32::from(ip).to_be() };
            let any = nix::libc::in_addr { s_addr: 0 };
            let info = nix::libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: address, ipi_addr: any };
            send(&[ControlMessage::Ipv4PacketInfo(&info)]);
        }
    }
}
