//! Descriptors that are read and written without ever blocking the loop, and without spoiling them
//! for others.
//!
//! O_NONBLOCK belongs to the open file, not to the descriptor: set on our stdin it is set on the
//! shell's too, and on every program of the pipeline that shares it. So it is set only where the
//! open file is ours alone. What we share with the shell is opened once more through /proc where
//! that gives an open file of our own (terminals and pipes), is asked with MSG_DONTWAIT (sockets),
//! or is touched only when poll(2) says it will not block, in pieces that it promises to take.

use super::queue::Flow;
use crate::sys::poll::{GONE, Poll, READ, WRITE};
use rustix::buffer::Buffer;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// A write of at most this many bytes to a pipe that polls writable does not block (POSIX).
const PIPE_BUF: usize = 4096;

const PIPEFS_MAGIC: u64 = 0x5049_5045;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// Its open file is ours alone and has O_NONBLOCK.
    NonBlocking,
    Socket,
    /// Blocking, shared: poll first, then a little.
    Careful,
    /// Files and devices that are always ready.
    Steady,
}

pub struct Port {
    fd: OwnedFd,
    manner: Manner,
}

impl Port {
    /// For an open file that no other process uses: our end of a pipe, a pty master, a socket.
    pub fn own(fd: OwnedFd) -> io::Result<Port> {
        let flags = rustix::fs::fcntl_getfl(&fd)?;
        if !flags.contains(OFlags::NONBLOCK) {
            rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
        }
        Ok(Port { fd, manner: Manner::NonBlocking })
    }

    /// For an open file that others use as well, such as our stdin. It is left exactly as it is.
    pub fn shared(fd: BorrowedFd<'_>) -> io::Result<Port> {
        let stat = rustix::fs::fstat(fd)?;
        let manner = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Socket => Manner::Socket,
            FileType::Fifo => Manner::Careful,
            FileType::CharacterDevice if rustix::termios::isatty(fd) => Manner::Careful,
            _ => Manner::Steady,
        };
        if manner == Manner::Careful
            && let Some(own) = reopen(fd, &stat)
        {
            return Ok(Port { fd: own, manner: Manner::NonBlocking });
        }
        Ok(Port { fd: fd.try_clone_to_owned()?, manner })
    }

    /// Reads once. The hang-up of a terminal (EIO from a pty whose other side is closed) is its end.
    pub fn read(&self, buf: impl Buffer<u8, Output = usize>) -> io::Result<Flow> {
        if self.manner == Manner::Careful && !self.ready(READ)? {
            return Ok(Flow::Blocked);
        }
        let result = match self.manner {
            Manner::Socket => rustix::net::recv(&self.fd, buf, RecvFlags::DONTWAIT).map(|(n, _)| n),
            _ => rustix::io::read(&self.fd, buf),
        };
        match result {
            Ok(0) => Ok(Flow::End),
            Ok(n) => Ok(Flow::Moved(n)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(Flow::Blocked),
            Err(Errno::IO) if rustix::termios::isatty(&self.fd) || is_master(&self.fd) => Ok(Flow::End),
            Err(Errno::CONNRESET) => Ok(Flow::End),
            Err(e) => Err(e.into()),
        }
    }

    /// Writes once, perhaps only a part.
    pub fn write(&self, bytes: &[u8]) -> io::Result<Flow> {
        let mut bytes = bytes;
        if self.manner == Manner::Careful {
            if !self.ready(WRITE)? {
                return Ok(Flow::Blocked);
            }
            bytes = &bytes[..bytes.len().min(PIPE_BUF)];
        }
        let result = match self.manner {
            Manner::Socket => rustix::net::send(&self.fd, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL),
            _ => rustix::io::write(&self.fd, bytes),
        };
        match result {
            Ok(n) => Ok(Flow::Moved(n)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(Flow::Blocked),
            Err(e) => Err(e.into()),
        }
    }

    fn ready(&self, what: i16) -> io::Result<bool> {
        let mut poll = Poll::default();
        poll.watch(&self.fd, what);
        poll.wait(Some(Duration::ZERO))?;
        Ok(poll.events(&self.fd) & (what | GONE) != 0)
    }
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A second open file for the same pipe or terminal, non-blocking. `None` where that would be
/// something else or is not allowed.
fn reopen(fd: BorrowedFd<'_>, stat: &rustix::fs::Stat) -> Option<OwnedFd> {
    // A named pipe would never report the end to a reader who opened it after the last writer left;
    // an anonymous one does. Opening a pty master anew makes a new pair.
    let fifo = FileType::from_raw_mode(stat.st_mode) == FileType::Fifo;
    if fifo && rustix::fs::fstatfs(fd).ok()?.f_type as u64 != PIPEFS_MAGIC || is_master(fd) {
        return None;
    }
    let access = rustix::fs::fcntl_getfl(fd).ok()? & OFlags::RWMODE;
    let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let own = rustix::fs::open(format!("/proc/self/fd/{}", fd.as_raw_fd()), flags, Mode::empty()).ok()?;
    let again = rustix::fs::fstat(&own).ok()?;
    (again.st_ino == stat.st_ino && again.st_dev == stat.st_dev && again.st_rdev == stat.st_rdev).then_some(own)
}

/// Whether it is the master side of a pseudo-terminal (`/dev/ptmx` is character device 5:2).
fn is_master(fd: impl AsFd) -> bool {
    rustix::fs::fstat(fd).is_ok_and(|s| {
        FileType::from_raw_mode(s.st_mode) == FileType::CharacterDevice && s.st_rdev == rustix::fs::makedev(5, 2)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nonblocking(fd: impl AsFd) -> bool {
        rustix::fs::fcntl_getfl(fd).unwrap().contains(OFlags::NONBLOCK)
    }

    /// Fills `to` until it blocks, reads it all back from `from`, and sees the end.
    fn fill_and_empty(from: &Port, to: Port) {
        let data: Vec<u8> = (0..2_000_000u32).map(|i| (i % 251) as u8).collect();
        let mut buf = vec![0; 100_000];
        assert_eq!(from.read(&mut buf[..]).unwrap(), Flow::Blocked);
        let (mut sent, mut got) = (0, Vec::new());
        let mut blocked = 0;
        while got.len() < data.len() {
            match to.write(&data[sent..]).unwrap() {
                Flow::Moved(n) => sent += n,
                _ => blocked += 1,
            }
            if sent < data.len() && blocked == 0 {
                continue;
            }
            if let Flow::Moved(n) = from.read(&mut buf[..]).unwrap() {
                got.extend_from_slice(&buf[..n]);
            }
        }
        assert!(blocked > 0);
        assert!(got == data);
        drop(to);
        assert_eq!(from.read(&mut buf[..]).unwrap(), Flow::End);
    }

    #[test]
    fn a_shared_pipe_is_used_without_blocking_and_stays_blocking() {
        let (read, write) = std::io::pipe().unwrap();
        let from = Port::shared(read.as_fd()).unwrap();
        let to = Port::shared(write.as_fd()).unwrap();
        assert!(!nonblocking(&read) && !nonblocking(&write));
        drop(write);
        fill_and_empty(&from, to);
    }

    #[test]
    fn without_proc_poll_and_small_pieces_do_as_well() {
        let (read, write) = std::io::pipe().unwrap();
        let from = Port { fd: read.into(), manner: Manner::Careful };
        let to = Port { fd: write.into(), manner: Manner::Careful };
        fill_and_empty(&from, to);
    }

    #[test]
    fn a_shared_socket_too() {
        let (a, b) = crate::sys::fdpass::socketpair().unwrap();
        let (from, to) = (Port::shared(a.as_fd()).unwrap(), Port::shared(b.as_fd()).unwrap());
        assert!(!nonblocking(&a));
        drop(b);
        fill_and_empty(&from, to);
    }

    #[test]
    fn a_named_pipe_ends_although_its_writer_left_early() {
        let dir = crate::test_dir::TestDir::new("fifo");
        let path = dir.path().join("f");
        rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::RWXU, 0).unwrap();
        let writer = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let reader = std::fs::File::open(&path).unwrap();
        drop(writer);
        let port = Port::shared(reader.as_fd()).unwrap();
        assert_eq!(port.read(&mut [0; 8][..]).unwrap(), Flow::End);
    }

    #[test]
    fn the_master_of_a_closed_terminal_is_at_its_end() {
        let (master, slave) = crate::tty::pair();
        let shared = Port::shared(slave.as_fd()).unwrap();
        assert!(!nonblocking(&slave));
        assert_eq!(shared.read(&mut [0; 8][..]).unwrap(), Flow::Blocked);
        let port = Port::own(master).unwrap();
        assert_eq!(port.read(&mut [0; 8][..]).unwrap(), Flow::Blocked);
        drop((shared, slave));
        assert_eq!(port.read(&mut [0; 8][..]).unwrap(), Flow::End);
    }
}
