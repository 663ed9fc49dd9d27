//! One end of a reflector: the multicast groups of mDNS on one interface of the host.

use crate::nl::Socket;
use nix::sys::socket as sys;
use plan::{Error, Result};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};

/// RFC 6762, 3.
pub(super) const PORT: u16 = 5353;
const GROUP4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const GROUP6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
/// Proves that nobody has forwarded it (11).
const TTL: u32 = 255;

#[derive(Debug)]
pub(super) struct Side {
    pub ifname: String,
    pub index: u32,
    /// Of each family that the interface has, IPv4 first.
    pub sockets: [Option<UdpSocket>; 2],
    /// The host's own addresses there: what comes from them is the host's own, or went through us.
    pub own: Vec<IpAddr>,
}

impl Side {
    /// # Errors
    /// There is no such interface, or it has neither family.
    pub fn open(ifname: &str) -> Result<Side> {
        let mut route = Socket::route()?;
        let index = route.ifindex(ifname)?.ok_or_else(|| {
            Error::not_found(format!("interface {ifname} was not found on the host"))
                .with_hint("`ip link` shows the interfaces there are")
        })?;
        let own = route.addresses()?.into_iter().filter(|(at, _)| *at == index).map(|(_, net)| net.ip()).collect();
        let mut errno = Errno::ADDRNOTAVAIL;
        let sockets = [false, true].map(|ipv6| group(ifname, index, ipv6).inspect_err(|e| errno = *e).ok());
        if sockets.iter().all(Option::is_none) {
            return Err(Error::os(format!("listen to mDNS on {ifname}"), errno.raw_os_error()));
        }
        Ok(Side { ifname: ifname.to_string(), index, sockets, own })
    }

    /// To everybody there.
    pub fn say(&self, ipv6: bool, message: &[u8]) {
        if let Some(socket) = &self.sockets[usize::from(ipv6)] {
            // Lost is lost: who asks asks again, who tells tells twice.
            let _ = socket.send_to(message, self.group(ipv6));
        }
    }

    /// Asks everybody there from a port of its own, at which the answer will come in.
    pub fn ask(&self, ipv6: bool, message: &[u8]) -> Option<UdpSocket> {
        self.sockets[usize::from(ipv6)].as_ref()?;
        let socket = datagrams(&self.ifname, self.index, ipv6).ok()?;
        socket.send_to(message, self.group(ipv6)).ok()?;
        Some(socket)
    }

    fn group(&self, ipv6: bool) -> SocketAddr {
        match ipv6 {
            true => SocketAddrV6::new(GROUP6, PORT, 0, self.index).into(),
            false => SocketAddr::new(GROUP4.into(), PORT),
        }
    }
}

/// Bound to the group's address, so that what is meant for the host's own responder alone is not taken from it.
fn group(ifname: &str, index: u32, ipv6: bool) -> std::result::Result<UdpSocket, Errno> {
    let socket = datagrams(ifname, index, ipv6)?;
    // Beside the host's own avahi or systemd-resolved: multicast comes to all of them.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if ipv6 {
        rustix::net::bind(&socket, &SocketAddrV6::new(GROUP6, PORT, 0, index))?;
        sockopt::set_ipv6_add_membership(&socket, &GROUP6, index)?;
    } else {
        rustix::net::bind(&socket, &SocketAddr::new(GROUP4.into(), PORT))?;
        sockopt::set_ip_add_membership_with_ifindex(&socket, &GROUP4, &Ipv4Addr::UNSPECIFIED, index)?;
    }
    Ok(socket)
}

/// Speaks on this interface only, and not to the host itself: no reflector of this host hears another.
fn datagrams(ifname: &str, index: u32, ipv6: bool) -> std::result::Result<UdpSocket, Errno> {
    let family = if ipv6 { AddressFamily::INET6 } else { AddressFamily::INET };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, Some(ipproto::UDP))?;
    let raw = |e: nix::errno::Errno| Errno::from_raw_os_error(e as i32);
    sys::setsockopt(&socket, sys::sockopt::BindToDevice, &OsString::from(ifname)).map_err(raw)?;
    if ipv6 {
        sockopt::set_ipv6_v6only(&socket, true)?;
        sockopt::set_ipv6_multicast_if(&socket, index)?;
        sockopt::set_ipv6_multicast_loop(&socket, false)?;
        sockopt::set_ipv6_multicast_hops(&socket, TTL)?;
    } else {
        sockopt::set_ip_multicast_if_with_ifindex(&socket, &Ipv4Addr::UNSPECIFIED, &Ipv4Addr::UNSPECIFIED, index)?;
        sockopt::set_ip_multicast_loop(&socket, false)?;
        sockopt::set_ip_multicast_ttl(&socket, TTL)?;
    }
    Ok(UdpSocket::from(socket))
}
