//! File descriptors across a Unix socket (SCM_RIGHTS): how the child hands its pty master to the
//! parent. Nothing here allocates on the sending side, so a freshly cloned child may use it.

use rustix::io::{Errno, Result};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The most descriptors in one message.
pub const MAX_FDS: usize = 16;

/// A connected pair of Unix stream sockets, close-on-exec.
pub fn socketpair() -> Result<(OwnedFd, OwnedFd)> {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
}

/// Sends `bytes` (at least one: a stream socket carries no empty message) with `fds` attached.
/// The bytes must be few enough to fit the socket's buffer; a short write is `EMSGSIZE`.
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
    if bytes.is_empty() || fds.len() > MAX_FDS {
        return Err(Errno::INVAL);
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::INVAL);
    }
    loop {
        match rustix::net::sendmsg(&socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL) {
            Ok(n) if n == bytes.len() => return Ok(()),
            Ok(_) => return Err(Errno::MSGSIZE),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
}

/// Sends a datagram that consists of a descriptor alone, without waiting.
pub fn send_datagram(socket: impl AsFd, fd: BorrowedFd<'_>) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [fd];
    if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(Errno::INVAL);
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    rustix::net::sendmsg(&socket, &[], &mut control, flags).map(drop)
}

/// Receives bytes into `buf` and the descriptors that came with them (close-on-exec). A length of 0
/// means that the other end is closed. More than [`MAX_FDS`] descriptors are `EMSGSIZE`, and those
/// that did arrive are closed.
pub fn recv(socket: impl AsFd, buf: &mut [u8]) -> Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = loop {
        let mut iov = [IoSliceMut::new(buf)];
        match rustix::net::recvmsg(&socket, &mut iov, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            other => break other?,
        }
    };
    let mut fds = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = part {
            fds.extend(received);
        }
    }
    if message.flags.contains(ReturnFlags::CTRUNC) {
        return Err(Errno::MSGSIZE);
    }
    Ok((message.bytes, fds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::FdFlags;
    use std::io::{Read, Write};

    #[test]
    fn a_pipe_crosses_and_works() {
        let (a, b) = socketpair().unwrap();
        let (read, write) = std::io::pipe().unwrap();
        send(&a, b"x", &[read.as_fd(), write.as_fd()]).unwrap();
        drop((read, write));
        let mut buf = [0; 8];
        let (n, mut fds) = recv(&b, &mut buf).unwrap();
        assert_eq!((n, fds.len()), (1, 2));
        assert!(rustix::io::fcntl_getfd(&fds[0]).unwrap().contains(FdFlags::CLOEXEC));
        let mut write = std::fs::File::from(fds.pop().unwrap());
        let mut read = std::fs::File::from(fds.pop().unwrap());
        write.write_all(b"through").unwrap();
        drop(write);
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
    }

    #[test]
    fn bytes_alone_and_the_end() {
        let (a, b) = socketpair().unwrap();
        send(&a, b"abc", &[]).unwrap();
        assert_eq!(send(&a, b"", &[]).unwrap_err(), Errno::INVAL);
        drop(a);
        let mut buf = [0; 8];
        let (n, fds) = recv(&b, &mut buf).unwrap();
        assert_eq!((&buf[..n], fds.len()), (&b"abc"[..], 0));
        assert_eq!(recv(&b, &mut buf).unwrap().0, 0);
    }

    #[test]
    fn sending_to_a_closed_end_is_an_error_and_no_signal() {
        let (a, b) = socketpair().unwrap();
        drop(b);
        assert_eq!(send(&a, b"x", &[]).unwrap_err(), Errno::PIPE);
    }
}
