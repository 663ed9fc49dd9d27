//! One lease in the monitor's hands: renewed in time, and given back at the end.

use super::client::{Client, Event, Saying};
use super::message::{Answer, CLIENT_PORT, Identity, SERVER_PORT};
use super::{LARGEST, broadcast, frame, transaction, unix_now};
use crate::model::Endpoint;
use crate::nl::packet::{self, PacketSocket};
use crate::nl::{self, Socket, Visit};
use crate::poll::Interest;
use plan::Result;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

/// Idle but for a few messages in the life of a lease: it holds no socket in between.
#[derive(Debug)]
pub(crate) struct Keeper {
    pub network_id: String,
    ifname: String,
    client: Client,
    ear: Option<Ear>,
}

/// Where answers come in.
#[derive(Debug)]
enum Ear {
    /// Before there is an address, and when any server may answer.
    Packets(PacketSocket),
    /// From the server of the lease.
    Datagrams(UdpSocket),
}

impl Keeper {
    /// `None`: its address is not a server's.
    pub fn of(endpoint: &Endpoint) -> Result<Option<Keeper>> {
        let (Some(dhcp), Some(mac)) = (&endpoint.dhcp, endpoint.mac_bytes()) else { return Ok(None) };
        let who = Identity { mac, hostname: dhcp.hostname.clone() };
        let now = Instant::now();
        let client = match &dhcp.lease {
            Some(lease) => {
                let age = Duration::from_secs(unix_now().saturating_sub(lease.since));
                Client::bound(who, transaction()?, lease.clone(), age, now)
            }
            None => Client::new(who, transaction()?, dhcp.wanted, now),
        };
        let (network_id, ifname) = (endpoint.network_id.clone(), endpoint.ifname.clone());
        Ok(Some(Keeper { network_id, ifname, client, ear: None }))
    }

    pub fn interest(&self) -> Option<Interest> {
        let fd = match self.ear.as_ref()? {
            Ear::Packets(socket) => socket.as_fd().as_raw_fd(),
            Ear::Datagrams(socket) => socket.as_raw_fd(),
        };
        Some(Interest { fd, read: true, write: false })
    }

    pub fn timeout(&self) -> Duration {
        self.client.due().saturating_duration_since(Instant::now())
    }

    /// Listens, and says what is due.
    pub fn ready(&mut self, netns: BorrowedFd<'_>) -> Option<Event> {
        let mut change = self.listen();
        let (saying, event) = self.client.turn(Instant::now());
        change = event.or(change);
        if let Some(saying) = saying {
            // What cannot be sent now is tried again; in the end the lease is over.
            let _ = self.say(saying, netns);
        }
        if self.client.listening().is_none() {
            self.ear = None;
        }
        change
    }

    fn listen(&mut self) -> Option<Event> {
        let mut change = None;
        let mut buffer = [0; LARGEST];
        loop {
            let message = match self.ear.as_ref()? {
                Ear::Packets(socket) => socket.receive(&mut buffer).map(|n| frame::unwrap(&buffer[..n])),
                Ear::Datagrams(socket) => socket.recv(&mut buffer).ok().map(|n| Some(&buffer[..n])),
            };
            let Some(message) = message else { return change };
            if let Some(answer) = message.and_then(Answer::decode)
                && let Some(event) = self.client.hear(&answer, unix_now(), Instant::now())
            {
                change = Some(event);
            }
        }
    }

    fn say(&mut self, saying: Saying, netns: BorrowedFd<'_>) -> Result<()> {
        let broadcasts = matches!(saying, Saying::Broadcast { .. });
        match (&self.ear, broadcasts) {
            (Some(Ear::Packets(_)), true) | (Some(Ear::Datagrams(_)), false) => {}
            _ => self.ear = Some(self.open(&saying, netns)?),
        }
        match (&self.ear, saying) {
            (Some(Ear::Packets(socket)), saying) => broadcast(socket, saying),
            (Some(Ear::Datagrams(socket)), Saying::Unicast { to, message, .. }) => {
                // The kernel finds the server's station; an error is a try without an answer.
                let _ = socket.send_to(&message, (to, SERVER_PORT));
            }
            _ => {}
        }
        Ok(())
    }

    fn open(&self, saying: &Saying, netns: BorrowedFd<'_>) -> Result<Ear> {
        let home = nl::current()?;
        let _visit = Visit::enter(netns, home.as_fd())?;
        if let Saying::Unicast { from, .. } = saying
            && let Ok(socket) = datagrams(*from)
        {
            return Ok(Ear::Datagrams(socket));
        }
        let index = Socket::route()?.ifindex(&self.ifname)?.ok_or_else(|| {
            plan::Error::system(format!("interface {} is not in the container's namespace", self.ifname))
        })?;
        let socket = PacketSocket::open(index, packet::IPV4)?;
        socket.only_udp_to(CLIENT_PORT)?;
        Ok(Ear::Packets(socket))
    }

    /// Gives the address back. Nobody answers that, and nobody waits.
    pub fn release(&self, netns: BorrowedFd<'_>) -> Result<()> {
        let Some(Saying::Unicast { from, to, message }) = self.client.release() else { return Ok(()) };
        let home = nl::current()?;
        let _visit = Visit::enter(netns, home.as_fd())?;
        if let Ok(socket) = datagrams(from) {
            let _ = socket.send_to(&message, (to, SERVER_PORT));
        }
        Ok(())
    }
}

/// In the namespace this thread is in.
fn datagrams(own: Ipv4Addr) -> std::io::Result<UdpSocket> {
    let socket = UdpSocket::bind((own, CLIENT_PORT))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}
