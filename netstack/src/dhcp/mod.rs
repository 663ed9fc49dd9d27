//! Addresses from a DHCP server on the network (RFC 2131): asked for inside the container's namespace
//! before its program starts, renewed by the monitor, given back at the end.
//!
//! It needs an interface that is up in the namespace, and nothing of the kind of network behind it.

mod client;
mod frame;
mod keeper;
mod message;

pub(crate) use keeper::Keeper;

use crate::model::{Endpoint, Ipam};
use crate::nl::packet::{self, PacketSocket};
pub(crate) use client::Event;
use client::{Client, Saying};
use message::{Answer, CLIENT_PORT, Identity};
use plan::{Error, Kind, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// `--ipam-driver`.
pub const DRIVER: &str = "dhcp";
/// `--ipam-opt`: seconds that a start waits for a server.
pub const TIMEOUT: &str = "timeout";
const PATIENCE: u64 = 10;
/// No message is longer than the link's packets.
const LARGEST: usize = 2048;

/// An endpoint whose address a server gives: what is asked for, and what was got.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dhcp {
    /// What the server is told to call it.
    pub hostname: String,
    /// The address of its last run, or of `--ip`.
    pub wanted: Option<Ipv4Addr>,
    /// `--ip`: no other will do.
    pub exact: bool,
    /// Seconds to wait for a server.
    pub patience: u64,
    pub lease: Option<Lease>,
}

/// What a server granted. Times in seconds from `since`, which is Unix time: a monitor that takes
/// over goes on with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    pub ip: Ipv4Addr,
    pub prefix: u8,
    pub router: Option<Ipv4Addr>,
    pub server: Ipv4Addr,
    pub seconds: u32,
    /// T1.
    pub renew: u32,
    /// T2.
    pub rebind: u32,
    pub since: u64,
}

impl Endpoint {
    /// It has this lease now, or none.
    pub(crate) fn set_lease(&mut self, lease: Option<Lease>) {
        self.ipv4 = lease.as_ref().map(|l| l.ip);
        self.prefix4 = lease.as_ref().map_or(0, |l| l.prefix);
        self.gateway4 = lease.as_ref().and_then(|l| l.router).filter(|_| !self.internal);
        if let Some(dhcp) = &mut self.dhcp {
            dhcp.lease = lease;
        }
    }
}

/// How long a start waits.
///
/// # Errors
/// Not a number of seconds.
pub fn patience(ipam: &Ipam) -> Result<u64> {
    let Some(text) = ipam.options.get(TIMEOUT) else { return Ok(PATIENCE) };
    text.parse().ok().filter(|s| (1..=300).contains(s)).ok_or_else(|| {
        Error::invalid(format!("invalid value for {TIMEOUT}: \"{}\"", text.escape_debug()))
            .with_hint("seconds to wait for a DHCP server, from 1 to 300")
    })
}

/// Asks for an address on the interface with this index, in the namespace this thread is in, and
/// waits for it. The interface is up.
///
/// # Errors
/// No server answers in time.
pub(crate) fn obtain(index: u32, mac: [u8; 6], asked: &Dhcp, network: &str) -> Result<Lease> {
    let socket = PacketSocket::open(index, packet::IPV4)?;
    socket.only_udp_to(CLIENT_PORT)?;
    let who = Identity { mac, hostname: asked.hostname.clone() };
    let mut client = Client::new(who, transaction()?, asked.wanted, Instant::now());
    let deadline = Instant::now() + Duration::from_secs(asked.patience);
    loop {
        let now = Instant::now();
        if now >= deadline {
            return Err(Error::new(
                Kind::System,
                format!("no DHCP server on network {network} answered within {} s", asked.patience),
            )
            .with_hint(format!(
                "is one on its bridge? --ipam-opt {TIMEOUT}=SECONDS waits longer, --ipam-driver default does without"
            )));
        }
        if let (Some(saying), _) = client.turn(now) {
            broadcast(&socket, saying);
        }
        let wait = client.due().min(deadline).saturating_duration_since(Instant::now());
        let wait = Timespec { tv_sec: wait.as_secs().cast_signed(), tv_nsec: wait.subsec_nanos().into() };
        // EINTR: the loop comes round.
        let _ = poll(&mut [PollFd::new(&socket.as_fd(), PollFlags::IN)], Some(&wait));
        let mut buffer = [0; LARGEST];
        while let Some(n) = socket.receive(&mut buffer) {
            let Some(answer) = frame::unwrap(&buffer[..n]).and_then(Answer::decode) else { continue };
            match client.hear(&answer, unix_now(), Instant::now()) {
                Some(Event::Granted(lease)) if asked.exact && asked.wanted != Some(lease.ip) => {
                    let wanted = asked.wanted.unwrap_or(lease.ip);
                    return Err(Error::conflict("Address already in use").with_hint(format!(
                        "the DHCP server {} gives {}, not {wanted}: reserve it there for {}, or leave --ip out",
                        lease.server,
                        lease.ip,
                        crate::step::mac_text(&mac)
                    )));
                }
                Some(Event::Granted(lease)) => return Ok(lease),
                _ => {}
            }
        }
    }
}

fn broadcast(socket: &PacketSocket, saying: Saying) {
    let (from, to, message) = match saying {
        Saying::Broadcast { from, message } => (from, Ipv4Addr::BROADCAST, message),
        Saying::Unicast { from, to, message } => (from, to, message),
    };
    // What is lost is said again.
    let _ = socket.send(packet::BROADCAST, &frame::wrap(from, to, &message));
}

fn transaction() -> Result<u32> {
    let digits = crate::networks::random_hex()?;
    Ok(u32::from_str_radix(&digits[..8], 16).unwrap_or_default())
}

pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
