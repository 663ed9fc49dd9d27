//! One netlink socket: a batch out in one `sendto`, the refused message found by sequence number.

use netlink_packet_core::{NetlinkMessage, NetlinkPayload, NetlinkSerializable};
use netlink_packet_route::RouteNetlinkMessage;
use plan::{Error, Result, ResultExt, errno_name};
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x1;
pub(super) const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;
/// In an acknowledgement: the original request is not echoed, attributes follow the error.
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;

/// A refused message of a batch: which one (its tag), why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What the caller gave to [`Batch::push`]: a step's index, usually.
    pub tag: usize,
    /// Positive errno.
    pub errno: i32,
    /// The kernel's own sentence (extended ack), when it has one.
    pub kernel: Option<String>,
}

impl Failure {
    /// As the user's error: "doing: sentence (ERRNO)".
    pub fn error(&self, doing: impl Into<String>) -> Error {
        let e = Error::os(doing, self.errno);
        match &self.kernel {
            Some(k) => e.with_cause(format!("{k}: {}", errno_name(self.errno))),
            None => e,
        }
    }
}

/// Messages that go out together.
#[derive(Default)]
pub struct Batch {
    pub(super) buf: Vec<u8>,
    /// Of each message, in order: its tag, or `None` for the begin and end of an nftables
    /// transaction.
    pub(super) tags: Vec<Option<usize>>,
}

impl Batch {
    pub fn new() -> Batch {
        Batch { buf: Vec::with_capacity(1024), tags: Vec::with_capacity(8) }
    }

    pub fn is_empty(&self) -> bool {
        self.tags.is_empty()
    }

    /// Appends a typed message; `flags` beside REQUEST (`NLM_F_CREATE`, …).
    pub fn push(&mut self, tag: usize, message: RouteNetlinkMessage, flags: u16) {
        let mut m = NetlinkMessage::from(message);
        m.header.flags = NLM_F_REQUEST | flags;
        self.append(Some(tag), m);
    }

    fn append<I: NetlinkSerializable>(&mut self, tag: Option<usize>, mut m: NetlinkMessage<I>) {
        m.header.sequence_number = self.tags.len() as u32;
        m.finalize();
        let at = self.buf.len();
        self.buf.resize(at + m.buffer_len(), 0);
        m.serialize(&mut self.buf[at..]);
        while !self.buf.len().is_multiple_of(4) {
            self.buf.push(0);
        }
        self.tags.push(tag);
    }
}

/// A blocking netlink socket of one network namespace: the one its creator was in.
pub struct Socket {
    fd: OwnedFd,
    seq: u32,
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Socket {
    /// `NETLINK_ROUTE`: links, addresses, routes.
    pub fn route() -> Result<Socket> {
        Socket::open(libc::NETLINK_ROUTE)
    }

    /// `NETLINK_NETFILTER`: nftables and conntrack.
    pub fn netfilter() -> Result<Socket> {
        Socket::open(libc::NETLINK_NETFILTER)
    }

    fn open(protocol: c_int) -> Result<Socket> {
        // SAFETY: no pointers; the result is checked.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol) };
        if fd < 0 {
            return Err(Error::io("open a netlink socket", &io::Error::last_os_error()));
        }
        // SAFETY: a fresh descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let socket = Socket { fd, seq: 0 };
        // Sentences instead of bare errnos (4.12), and no echo of the request in them.
        socket.option(libc::SOL_NETLINK, libc::NETLINK_EXT_ACK, 1);
        socket.option(libc::SOL_NETLINK, libc::NETLINK_CAP_ACK, 1);
        Ok(socket)
    }

    /// Options whose absence costs words or speed but not correctness: the result does not matter.
    fn option(&self, level: c_int, name: c_int, value: c_int) {
        // SAFETY: `value` is a live c_int of the length given.
        unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                level,
                name,
                (&raw const value).cast(),
                size_of::<c_int>() as libc::socklen_t,
            );
        }
    }

    /// Sends the batch in one system call and reads the answer: done, or the first refusal.
    ///
    /// The kernel does not stop at a refused route message: it goes on with the rest of the buffer.
    /// So a failed batch may have been done in parts; what undoes the whole undoes that too.
    /// An nftables transaction is done wholly or not at all.
    pub fn run(&mut self, mut batch: Batch) -> Result<std::result::Result<(), Failure>> {
        let base = self.seq;
        self.seq = self.seq.wrapping_add(batch.tags.len() as u32);
        let Some(last) = batch.tags.iter().rposition(Option::is_some) else { return Ok(Ok(())) };
        let mut at = 0;
        while at < batch.buf.len() {
            let k = read_u32(&batch.buf, at + 8);
            batch.buf[at + 8..at + 12].copy_from_slice(&base.wrapping_add(k).to_ne_bytes());
            // A refusal is always told. So only the last message asks to be told of success: they
            // are done in order, and that is one answer to read instead of one a message.
            if k as usize == last {
                let flags = read_u16(&batch.buf, at + 6) | NLM_F_ACK;
                batch.buf[at + 6..at + 8].copy_from_slice(&flags.to_ne_bytes());
            }
            at += align(read_u32(&batch.buf, at) as usize);
        }
        self.send(&batch.buf)?;
        let mut buf = Vec::with_capacity(16 * 1024);
        loop {
            self.receive(&mut buf)?;
            let mut at = 0;
            while let Some(m) = Message::at(&buf, at) {
                at += align(m.len);
                let index = m.seq.wrapping_sub(base) as usize;
                // Others are left over from an earlier batch that stopped at its first failure.
                let Some(tag) = batch.tags.get(index).filter(|_| m.kind == NLMSG_ERROR) else { continue };
                match m.failure() {
                    Some((errno, kernel)) => {
                        // The begin and end of a transaction stand for the whole of it.
                        let tag = tag.or(batch.tags[last]).unwrap_or(0);
                        return Ok(Err(Failure { tag, errno, kernel }));
                    }
                    None if index == last => return Ok(Ok(())),
                    None => {}
                }
            }
        }
    }

    /// Asks for everything of a kind (`RTM_GETLINK`, …) and hands each answer to `each`.
    pub fn dump(&mut self, request: RouteNetlinkMessage, mut each: impl FnMut(RouteNetlinkMessage)) -> Result<()> {
        let mut m = NetlinkMessage::from(request);
        m.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        m.header.sequence_number = self.seq;
        self.seq = self.seq.wrapping_add(1);
        m.finalize();
        let mut out = vec![0; m.buffer_len()];
        m.serialize(&mut out);
        let read = self.list(&out, |slice| {
            // A message of a kind the typed crate cannot read is of no interest here.
            if let Ok(m) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(slice)
                && let NetlinkPayload::InnerMessage(inner) = m.payload
            {
                each(inner);
            }
        })?;
        read.map_err(|errno| Error::os("list the kernel's links, addresses or routes", errno))
    }

    /// Sends one raw request for everything of a kind and hands each message of the answer, header
    /// included, to `each`. An errno is the kernel's refusal.
    pub(super) fn list(&mut self, request: &[u8], mut each: impl FnMut(&[u8])) -> Result<std::result::Result<(), i32>> {
        self.send(request)?;
        let mut buf = Vec::with_capacity(64 * 1024);
        loop {
            self.receive(&mut buf)?;
            let mut at = 0;
            while let Some(raw) = Message::at(&buf, at) {
                let slice = &buf[at..at + raw.len];
                at += align(raw.len);
                match raw.kind {
                    NLMSG_DONE => return Ok(Ok(())),
                    NLMSG_ERROR => {
                        if let Some((errno, _)) = raw.failure() {
                            return Ok(Err(errno));
                        }
                    }
                    _ => each(slice),
                }
            }
        }
    }

    /// Sends `n` raw requests at once and returns the payloads of their answers (after the netlink
    /// header), or errnos. For requests with exactly one answer, such as "get set element".
    pub(super) fn ask_all(
        &mut self,
        mut requests: Vec<u8>,
        n: usize,
    ) -> Result<Vec<std::result::Result<Vec<u8>, i32>>> {
        let base = self.seq;
        self.seq = self.seq.wrapping_add(n as u32);
        let (mut at, mut k) = (0, 0);
        while at < requests.len() {
            requests[at + 8..at + 12].copy_from_slice(&base.wrapping_add(k).to_ne_bytes());
            k += 1;
            at += align(read_u32(&requests, at) as usize);
        }
        self.send(&requests)?;
        let mut answers = vec![None; n];
        let mut buf = Vec::with_capacity(16 * 1024);
        while answers.iter().any(Option::is_none) {
            self.receive(&mut buf)?;
            let mut at = 0;
            while let Some(m) = Message::at(&buf, at) {
                let payload = &buf[at + HEADER..at + m.len];
                at += align(m.len);
                if let Some(answer) = answers.get_mut(m.seq.wrapping_sub(base) as usize) {
                    *answer = Some(match m.kind {
                        NLMSG_ERROR => Err(m.failure().map_or(libc::ENODATA, |(e, _)| e)),
                        _ => Ok(payload.to_vec()),
                    });
                }
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }

    /// The index of an interface, `None` when there is none of that name.
    ///
    /// One ioctl instead of a netlink question and answer: the generic interface requests work on
    /// any socket.
    pub fn ifindex(&self, name: &str) -> Result<Option<u32>> {
        if name.is_empty() || name.len() >= libc::IFNAMSIZ {
            return Ok(None);
        }
        match rustix::net::netdevice::name_to_index(&self.fd, name) {
            Ok(index) => Ok(Some(index)),
            Err(Errno::NODEV) => Ok(None),
            Err(e) => Err(Error::os(format!("look up interface {name}"), e.raw_os_error())),
        }
    }

    fn send(&self, buf: &[u8]) -> Result<()> {
        // Thousands of unequal ports do not fit the default send buffer (208 KiB).
        if buf.len() > 128 * 1024 {
            let want = c_int::try_from(buf.len() * 2).unwrap_or(c_int::MAX);
            self.option(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, want);
        }
        // SAFETY: an all-zero sockaddr_nl is valid: it means "the kernel".
        let mut to: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        to.nl_family = libc::AF_NETLINK as libc::sa_family_t;
        loop {
            // SAFETY: buffer and address are live for the call and have the lengths given.
            let n = unsafe {
                libc::sendto(
                    self.fd.as_raw_fd(),
                    buf.as_ptr().cast(),
                    buf.len(),
                    0,
                    (&raw const to).cast(),
                    size_of::<libc::sockaddr_nl>() as libc::socklen_t,
                )
            };
            if n >= 0 {
                return Ok(());
            }
            let e = io::Error::last_os_error();
            if e.kind() != io::ErrorKind::Interrupted {
                return Err(Error::io("send to the kernel over netlink", &e));
            }
        }
    }

    /// Fills `buf` anew, as far as its capacity goes.
    fn receive(&self, buf: &mut Vec<u8>) -> Result<()> {
        buf.clear();
        rustix::io::retry_on_intr(|| recv(&self.fd, spare_capacity(buf), RecvFlags::empty()))
            .map(drop)
            .doing(|| "read the kernel's answer over netlink")
    }
}

/// The header of a received message and where its payload lies.
struct Message<'a> {
    len: usize,
    kind: u16,
    flags: u16,
    seq: u32,
    payload: &'a [u8],
}

impl<'a> Message<'a> {
    fn at(buf: &'a [u8], at: usize) -> Option<Message<'a>> {
        let rest = buf.get(at..)?;
        if rest.len() < HEADER {
            return None;
        }
        let len = read_u32(rest, 0) as usize;
        let payload = rest.get(HEADER..len)?;
        Some(Message { len, kind: read_u16(rest, 4), flags: read_u16(rest, 6), seq: read_u32(rest, 8), payload })
    }

    /// Of an `NLMSG_ERROR`: errno and sentence; `None` for a plain acknowledgement.
    fn failure(&self) -> Option<(i32, Option<String>)> {
        let code = read_u32(self.payload.get(..4)?, 0) as i32;
        if code == 0 {
            return None;
        }
        let mut kernel = None;
        if self.flags & NLM_F_ACK_TLVS != 0 {
            // The offending header, or all of the offending message when it is not capped.
            let echoed = match self.payload.get(4..8) {
                Some(len) if self.flags & NLM_F_CAPPED == 0 => align(read_u32(len, 0) as usize),
                _ => HEADER,
            };
            let mut attrs = self.payload.get(4 + echoed..).unwrap_or_default();
            while attrs.len() >= 4 {
                let (len, kind) = (read_u16(attrs, 0) as usize, read_u16(attrs, 2));
                if kind == NLMSGERR_ATTR_MSG && len > 4 && len <= attrs.len() {
                    let text = &attrs[4..len];
                    let text = text.strip_suffix(&[0]).unwrap_or(text);
                    kernel = Some(String::from_utf8_lossy(text).into_owned());
                }
                attrs = attrs.get(align(len.max(4))..).unwrap_or_default();
            }
        }
        Some((-code, kernel))
    }
}

pub(super) fn align(n: usize) -> usize {
    (n + 3) & !3
}

pub(super) fn read_u16(b: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([b[at], b[at + 1]])
}

pub(super) fn read_u32(b: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}
