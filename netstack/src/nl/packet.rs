//! Whole packets of one interface, past the kernel's own IP: for what is said before an interface has
//! an address (DHCP), or about the address itself (ARP, neighbour advertisements).

use plan::{Error, Result};
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// As on the wire (linux/if_ether.h).
pub const IPV4: u16 = 0x0800;
pub const ARP: u16 = 0x0806;
pub const IPV6: u16 = 0x86dd;

/// Every station on the link.
pub const BROADCAST: [u8; 6] = [0xff; 6];

/// A packet socket of the network namespace that its opener was in. The kernel makes the link-layer
/// header.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
    index: u32,
    protocol: u16,
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl PacketSocket {
    /// Non-blocking, on the interface with this index, for packets of this protocol.
    ///
    /// # Errors
    /// No CAP_NET_RAW; no such interface.
    pub fn open(index: u32, protocol: u16) -> Result<PacketSocket> {
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: no pointers; the result is checked. Protocol 0: nothing is received before bind.
        let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        if fd < 0 {
            return Err(Error::io("open a packet socket", &io::Error::last_os_error()));
        }
        // SAFETY: a descriptor of our own, a moment old.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let socket = PacketSocket { fd, index, protocol };
        let address = socket.address([0; 6]);
        // SAFETY: the address is a live sockaddr_ll, and its length is given.
        let bound = unsafe { libc::bind(socket.fd.as_raw_fd(), (&raw const address).cast(), LENGTH) };
        if bound < 0 {
            return Err(Error::io("bind a packet socket", &io::Error::last_os_error()));
        }
        Ok(socket)
    }

    /// Lets in only whole UDP datagrams to this port: the interface may carry anything, and every
    /// packet would wake its reader. What came in before stays.
    ///
    /// # Errors
    /// Of setsockopt(2).
    pub fn only_udp_to(&self, port: u16) -> Result<()> {
        use libc::{
            BPF_ABS, BPF_B, BPF_H, BPF_IND, BPF_JEQ, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_LDX, BPF_MSH, BPF_RET,
        };
        let op = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
        // The packet begins with its IP header.
        let mut program = [
            op(BPF_LD | BPF_B | BPF_ABS, 0, 0, 9),
            op(BPF_JMP | BPF_JEQ | BPF_K, 0, 6, libc::IPPROTO_UDP as u32),
            op(BPF_LD | BPF_H | BPF_ABS, 0, 0, 6),
            // More fragments, or a later one.
            op(BPF_JMP | BPF_JSET | BPF_K, 4, 0, 0x3fff),
            op(BPF_LDX | BPF_B | BPF_MSH, 0, 0, 0),
            op(BPF_LD | BPF_H | BPF_IND, 0, 0, 2),
            op(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, port.into()),
            op(BPF_RET | BPF_K, 0, 0, u32::MAX),
            op(BPF_RET | BPF_K, 0, 0, 0),
        ];
        attach_filter(self.as_fd(), &mut program)
    }

    /// Sends one packet to the station `to`.
    ///
    /// # Errors
    /// The interface is down or gone; its queue is full.
    pub fn send(&self, to: [u8; 6], packet: &[u8]) -> io::Result<()> {
        let address = self.address(to);
        // SAFETY: both buffers are live for the call, and their lengths are given.
        let sent = unsafe {
            libc::sendto(
                self.fd.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                libc::MSG_NOSIGNAL,
                (&raw const address).cast(),
                LENGTH,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Takes the next packet, if there is one: how much of the buffer it fills.
    pub fn receive(&self, buffer: &mut [u8]) -> Option<usize> {
        rustix::io::read(&self.fd, buffer).ok()
    }

    fn address(&self, station: [u8; 6]) -> libc::sockaddr_ll {
        // SAFETY: all zeroes is a valid sockaddr_ll.
        let mut a: libc::sockaddr_ll = unsafe { zeroed() };
        a.sll_family = libc::AF_PACKET as u16;
        a.sll_protocol = self.protocol.to_be();
        a.sll_ifindex = self.index.cast_signed();
        a.sll_halen = 6;
        a.sll_addr[..6].copy_from_slice(&station);
        a
    }
}

/// Lets a socket hear only what the program says yes to.
pub(super) fn attach_filter(fd: BorrowedFd<'_>, program: &mut [libc::sock_filter]) -> Result<()> {
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the program and its description are live for the call, which copies them.
    let set = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const filter).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if set < 0 {
        return Err(Error::io("attach a filter to a socket", &io::Error::last_os_error()));
    }
    Ok(())
}

const LENGTH: libc::socklen_t = size_of::<libc::sockaddr_ll>() as libc::socklen_t;

/// The Internet checksum (RFC 1071) of these pieces, each but the last of even length.
pub fn checksum(pieces: &[&[u8]]) -> u16 {
    let mut sum: u32 = 0;
    for piece in pieces {
        for pair in piece.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
