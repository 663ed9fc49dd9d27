//! The bound socket that keeps programs of the host off a published port.
//!
//! TCP needs no `listen` and no packet filter for that: a bound socket without `SO_REUSEADDR`
//! already makes every other `bind` (or, at the latest, `listen`) fail with `EADDRINUSE`, and a
//! connection that arrives before the DNAT element exists is refused instead of half accepted.
//! A UDP socket cannot refuse, so its receive buffer is shrunk to the kernel's minimum: one
//! datagram at most waits in it. Measured for 500 ports: 1.8 ms, against 5.6 ms with a classic BPF
//! filter on each (the kernel allocates and JITs a program a socket) and 3.7 ms with a socket a family.

use crate::model::Proto;
use nix::sys::socket as sys;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

/// Which addresses of the host one socket holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    One(IpAddr),
    /// 0.0.0.0 and [::] by a single dual-stack socket.
    Any,
}

impl Scope {
    /// Addresses as in leases and bindings, IPv4 first.
    pub fn addresses(self, ipv6: bool) -> Vec<IpAddr> {
        match self {
            Scope::One(ip) => vec![ip],
            Scope::Any if ipv6 => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
            Scope::Any => vec![Ipv4Addr::UNSPECIFIED.into()],
        }
    }
}

/// What the host's kernel makes of IPv6: asked once, for each of 500 sockets it is the same.
#[derive(Clone, Copy, Debug)]
pub struct Ipv6 {
    /// It knows it at all (`ipv6.disable=1` removes it).
    pub known: bool,
    /// A new socket is for IPv6 alone (`net.ipv6.bindv6only`).
    alone: bool,
}

impl Ipv6 {
    pub fn look() -> Ipv6 {
        match open(Proto::Udp, AddressFamily::INET6) {
            Ok(probe) => Ipv6 { known: true, alone: sockopt::ipv6_v6only(&probe).unwrap_or_default() },
            Err(_) => Ipv6 { known: false, alone: false },
        }
    }
}

/// Binds `port` (0: the kernel chooses one, outside `ip_local_reserved_ports`), of one interface if
/// one is named. `Ok(None)`: this kernel lacks the protocol (SCTP), or the host the interface, and
/// there is nothing to reserve against.
pub fn hold(proto: Proto, scope: Scope, iface: Option<&str>, ipv6: Ipv6, port: u16) -> Result<Option<OwnedFd>, Errno> {
    let (address, dual) = match scope {
        Scope::One(ip) => (ip, false),
        Scope::Any if ipv6.known => (Ipv6Addr::UNSPECIFIED.into(), true),
        Scope::Any => (Ipv4Addr::UNSPECIFIED.into(), false),
    };
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = match open(proto, family) {
        Err(Errno::PROTONOSUPPORT | Errno::SOCKTNOSUPPORT) if proto == Proto::Sctp => return Ok(None),
        other => other?,
    };
    if family == AddressFamily::INET6 && ipv6.alone == dual {
        sockopt::set_ipv6_v6only(&socket, !dual)?;
    }
    if let Some(iface) = iface {
        let raw = |e: nix::errno::Errno| Errno::from_raw_os_error(e as i32);
        match sys::setsockopt(&socket, sys::sockopt::BindToDevice, &OsString::from(iface)).map_err(raw) {
            Err(Errno::NODEV) => return Ok(None),
            other => other?,
        }
    }
    if proto == Proto::Udp {
        sockopt::set_socket_recv_buffer_size(&socket, 0)?;
    }
    let at = SocketAddr::new(address, port);
    match rustix::net::bind(&socket, &at) {
        Err(Errno::ADDRINUSE) if proto == Proto::Tcp && port != 0 => {
            // Connections of an earlier holder in TIME_WAIT block a plain bind for a minute. A
            // living one still fails here. Cleared again at once: the port must not be shared.
            sockopt::set_socket_reuseaddr(&socket, true)?;
            rustix::net::bind(&socket, &at)?;
            sockopt::set_socket_reuseaddr(&socket, false)?;
        }
        other => other?,
    }
    Ok(Some(socket))
}

/// The port a socket is bound to.
pub fn local_port(socket: &OwnedFd) -> Result<u16, Errno> {
    let address = SocketAddr::try_from(rustix::net::getsockname(socket)?)?;
    Ok(address.port())
}

fn open(proto: Proto, family: AddressFamily) -> Result<OwnedFd, Errno> {
    let (kind, protocol) = match proto {
        Proto::Tcp => (SocketType::STREAM, ipproto::TCP),
        Proto::Udp => (SocketType::DGRAM, ipproto::UDP),
        Proto::Sctp => (SocketType::STREAM, ipproto::SCTP),
    };
    rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, Some(protocol))
}
