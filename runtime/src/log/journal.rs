//! The log as entries of systemd's journal: one datagram each, in its native protocol.
//!
//! Fields are those of Docker's driver of that name. An entry that the socket does not take as a datagram
//! goes as a sealed file in memory; one that it does not take at once waits, or is dropped where the
//! container must not be held up (`mode=non-blocking`).

use super::writer::Piece;
use crate::relay::Stream;
use crate::sys::fdpass;
use plan::time::{self, Timestamp};
use plan::{Error, Result};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// Where the journal listens.
const SOCKET: &str = "/run/systemd/journal/socket";

/// Where the container may be held up: output is not read while more than this waits.
const BACKLOG: usize = 64 * 1024;

/// How long the last entries of a container wait for a journal that takes none at all.
const PATIENCE: Duration = Duration::from_secs(2);

/// Priorities of syslog(3): a line of stdout is information, one of stderr an error.
const INFORMATION: u8 = 6;
const ERROR: u8 = 3;

pub struct Journal {
    /// `None` after the listener has gone, until the next entry tries again.
    socket: Option<OwnedFd>,
    /// The fields that every entry has.
    constant: Vec<u8>,
    /// RFC 3339, of the output at hand.
    time: String,
    ordinal: u64,
    /// The long line of each stream whose pieces are being sent: its ID, and how many there were.
    long: [(String, u32); 2],
    queue: VecDeque<Vec<u8>>,
    queued: usize,
    /// Bytes beyond which entries are dropped, where nobody must wait.
    capacity: Option<usize>,
    dropped: u64,
}

/// What became of an entry.
enum Sent {
    Yes,
    Later,
    Never,
}

impl Journal {
    /// `fields` go with every entry. With a `capacity`, entries that find so many bytes waiting are dropped.
    ///
    /// # Errors
    /// Docker's text where there is no journal.
    pub fn open(fields: &[(String, String)], capacity: Option<usize>) -> Result<Journal> {
        let socket = connect().map_err(|e| {
            let missing = matches!(e, Errno::NOENT | Errno::CONNREFUSED);
            let error = Error::os(
                match missing {
                    true => "failed to initialize logging driver: journald is not enabled on this host".to_owned(),
                    false => format!("failed to initialize logging driver: connect to {SOCKET}"),
                },
                e.raw_os_error(),
            );
            error.with_hint(format!(
                "is {SOCKET} there (systemctl status systemd-journald)? Without systemd take --log-driver local"
            ))
        })?;
        let mut constant = Vec::new();
        for (name, value) in fields {
            field(&mut constant, name, &[value.as_bytes()]);
        }
        field(&mut constant, "CONTAINER_LOG_EPOCH", &[random_id().as_bytes()]);
        Ok(Journal {
            socket: Some(socket),
            constant,
            time: String::new(),
            ordinal: 0,
            long: Default::default(),
            queue: VecDeque::new(),
            queued: 0,
            capacity,
            dropped: 0,
        })
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    pub(super) fn begin(&mut self, now: Timestamp) {
        self.time = time::format(now);
    }

    pub(super) fn record(&mut self, piece: &Piece<'_>) {
        self.ordinal += 1;
        let entry = self.entry(piece);
        let full = |capacity: usize| self.queued > 0 && self.queued + entry.len() > capacity;
        if self.capacity.is_some_and(full) {
            self.dropped += 1;
            return;
        }
        self.queued += entry.len();
        self.queue.push_back(entry);
        self.flush();
    }

    fn entry(&mut self, piece: &Piece<'_>) -> Vec<u8> {
        let mut entry = Vec::with_capacity(self.constant.len() + 512);
        let mut parts = piece.parts.to_vec();
        if let Some(last) = parts.last_mut() {
            *last = last.strip_suffix(b"\n").unwrap_or(last);
        }
        field(&mut entry, "MESSAGE", &parts);
        let priority = match piece.stream {
            Stream::Stdout => INFORMATION,
            Stream::Stderr => ERROR,
        };
        let mut text =
            format!("PRIORITY={priority}\nSYSLOG_TIMESTAMP={}\nCONTAINER_LOG_ORDINAL={}\n", self.time, self.ordinal);
        if piece.continues || !piece.last {
            let (id, count) = &mut self.long[piece.stream as usize];
            if !piece.continues {
                (*id, *count) = (random_id(), 0);
            }
            *count += 1;
            // Writing to a string does not fail.
            let _ = write!(
                text,
                "CONTAINER_PARTIAL_ID={id}\nCONTAINER_PARTIAL_ORDINAL={count}\nCONTAINER_PARTIAL_LAST={}\n",
                piece.last
            );
            if !piece.last {
                text.push_str("CONTAINER_PARTIAL_MESSAGE=true\n");
            }
        }
        entry.extend_from_slice(text.as_bytes());
        entry.extend_from_slice(&self.constant);
        entry
    }

    /// Sends what waits, as far as the journal takes it at once.
    pub(super) fn flush(&mut self) {
        while let Some(entry) = self.queue.front() {
            match send(&mut self.socket, entry) {
                Sent::Later => return,
                Sent::Yes => {}
                Sent::Never => self.dropped += 1,
            }
            self.queued -= entry.len();
            self.queue.pop_front();
        }
    }

    pub(super) fn waits_for(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().filter(|_| !self.queue.is_empty()).map(AsFd::as_fd)
    }

    pub(super) fn is_full(&self) -> bool {
        self.capacity.is_none() && self.queued > BACKLOG
    }

    /// Whoever watches this container's end waits for a busy journal, but not for one that has died.
    pub(super) fn close(&mut self) {
        let mut until = Instant::now() + PATIENCE;
        let mut poll = crate::sys::poll::Poll::default();
        loop {
            let waiting = self.queue.len();
            self.flush();
            if self.queue.len() < waiting {
                until = Instant::now() + PATIENCE;
            }
            let left = until.saturating_duration_since(Instant::now());
            let Some(socket) = self.waits_for().filter(|_| !left.is_zero()) else { break };
            poll.clear();
            poll.watch(socket, crate::sys::poll::WRITE);
            if poll.wait(Some(left)).is_err() {
                break;
            }
        }
        self.dropped += self.queue.len() as u64;
        self.queue.clear();
        self.queued = 0;
    }

    pub(super) fn release(&mut self) {
        self.queue.shrink_to_fit();
    }
}

fn connect() -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(SOCKET)?)?;
    Ok(socket)
}

fn send(socket: &mut Option<OwnedFd>, entry: &[u8]) -> Sent {
    // A journal that was started anew listens on another socket: tried once more.
    for _ in 0..2 {
        if socket.is_none() {
            *socket = connect().ok();
        }
        let Some(connected) = socket.as_ref() else { return Sent::Never };
        let sent = match rustix::net::send(connected, entry, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Err(Errno::MSGSIZE | Errno::NOBUFS) => {
                sealed(entry).and_then(|file| fdpass::send_datagram(connected, file.as_fd()))
            }
            sent => sent.map(drop),
        };
        match sent {
            Ok(()) => return Sent::Yes,
            Err(Errno::AGAIN) => return Sent::Later,
            Err(Errno::INTR) => {}
            Err(_) => *socket = None,
        }
    }
    Sent::Never
}

/// The journal maps it, and takes only what nobody can change any more.
fn sealed(entry: &[u8]) -> rustix::io::Result<OwnedFd> {
    let memory = rustix::fs::memfd_create("journal-entry", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = File::from(memory);
    file.write_all(entry).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    Ok(file.into())
}

/// `NAME=value`; a value of several lines is preceded by its length.
fn field(out: &mut Vec<u8>, name: &str, parts: &[&[u8]]) {
    out.extend_from_slice(name.as_bytes());
    if parts.iter().any(|part| part.contains(&b'\n')) {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        out.push(b'\n');
        out.extend((length as u64).to_le_bytes());
    } else {
        out.push(b'=');
    }
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out.push(b'\n');
}

/// 64 hexadecimal digits, as Docker's.
fn random_id() -> String {
    let mut bytes = [0u8; 32];
    // Without randomness (never, after boot) entries are only harder to tell apart.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_one_line_and_of_several() {
        let mut out = Vec::new();
        field(&mut out, "MESSAGE", &[b"a=", b"b"]);
        field(&mut out, "LABEL", &[b"one\ntwo"]);
        assert_eq!(out, b"MESSAGE=a=b\nLABEL\n\x07\0\0\0\0\0\0\0one\ntwo\n");
    }
}
