//! Talking to a container's monitor: attaching to its streams, waiting, resizing, signalling.
//!
//! The socket is a path in the container's own 0700 directory, never an abstract one, which a
//! container on the host's network could reach (CVE-2020-15257). `protocol` says what is spoken.

pub mod protocol;

use crate::relay::{self, BACKLOG, Flow, Outputs, Remote};
use crate::sys::poll::{Poll, READ, WRITE};
use plan::{Error, Kind, Result, ResultExt};
use protocol::{Channel, Tag};
use rustix::fs::{Mode, OFlags};
use serde_json::{Value, json};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use relay::{AttachEnd, Options as AttachOptions, capture};

/// The name of the socket in a container's volatile directory.
pub const SOCKET: &str = "monitor.sock";

/// How long a monitor may take to answer a request; it does nothing that takes long.
const PATIENCE: Duration = Duration::from_secs(10);

/// Creates the socket in `dir`, replacing what a killed monitor left.
pub fn listen(dir: &Path) -> Result<UnixListener> {
    let (_held, path) = short_path(dir)?;
    let name = || format!("create {}", dir.join(SOCKET).display());
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io(name(), &e)),
        _ => {}
    }
    let listener = UnixListener::bind(&path).doing(name)?;
    // Only after bind can the mode be set; until then the directory's 0700 guards it.
    rustix::fs::chmod(&path, Mode::RUSR | Mode::WUSR).doing(name)?;
    Ok(listener)
}

/// Connects to the monitor of the container whose volatile directory is `dir`. [`Kind::NotFound`] if
/// there is none, or nobody listens.
pub fn connect(dir: &Path) -> Result<UnixStream> {
    let (_held, path) = short_path(dir)?;
    UnixStream::connect(path).map_err(|e| {
        let error = Error::io(format!("connect to {}", dir.join(SOCKET).display()), &e);
        match e.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => error.with_kind(Kind::NotFound),
            _ => error,
        }
    })
}

/// A path to the socket that fits the 108 bytes of a socket address however deep `dir` lies, and the
/// descriptor that it goes through.
fn short_path(dir: &Path) -> Result<(OwnedFd, PathBuf)> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let held = rustix::fs::open(dir, flags, Mode::empty()).map_err(|e| {
        let error = Error::os(format!("open {}", dir.display()), e.raw_os_error());
        if e == rustix::io::Errno::NOENT { error.with_kind(Kind::NotFound) } else { error }
    })?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", held.as_raw_fd()));
    Ok((held, path))
}

/// Sends one request and returns the value of its answer.
pub fn request(stream: &UnixStream, request: &Value) -> Result<Value> {
    let socket = stream.as_fd().try_clone_to_owned().doing(|| "duplicate the monitor's socket")?;
    let mut channel = Channel::new(socket)?;
    channel.push_json(Tag::Request, request);
    match answer(&mut channel, Some(PATIENCE))? {
        (Tag::Reply, payload) => protocol::outcome(&payload),
        _ => Err(vanished()),
    }
}

/// Waits until the container has ended and its monitor has put everything in order; returns the exit
/// code. `None` if the monitor was gone before it could say.
pub fn wait(stream: UnixStream) -> Result<Option<i32>> {
    let mut channel = Channel::new(stream.into())?;
    channel.push_json(Tag::Request, &json!({ "wait": {} }));
    match answer(&mut channel, None) {
        Ok((Tag::Exit, payload)) => Ok(protocol::decode_number(&payload)),
        Ok((Tag::Reply, payload)) => protocol::outcome(&payload).map(|_| None),
        Ok(_) => Ok(None),
        Err(e) if e.kind == Kind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Sends what is queued and waits for the first frame that comes back.
fn answer(channel: &mut Channel, patience: Option<Duration>) -> Result<(Tag, Vec<u8>)> {
    let end = patience.map(|p| Instant::now() + p);
    let mut poll = Poll::default();
    loop {
        if channel.backlog() > 0 && channel.flush().is_err() {
            return Err(vanished());
        }
        if let Some((tag, payload)) = channel.next_frame()? {
            return Ok((tag, payload.to_vec()));
        }
        let left = end.map(|e| e.saturating_duration_since(Instant::now()));
        if left.is_some_and(|l| l.is_zero()) {
            return Err(Error::system("the container's monitor does not answer")
                .with_hint("look at it with `ps`; the container itself can be stopped and removed without it"));
        }
        poll.clear();
        poll.watch(&*channel, READ | if channel.backlog() > 0 { WRITE } else { 0 });
        poll.wait(left).map_err(|e| Error::os("wait for the container's monitor", e.raw_os_error()))?;
        if poll.events(&*channel) & !WRITE != 0 && matches!(channel.fill(), Ok(Flow::End) | Err(_)) {
            return Err(vanished());
        }
    }
}

fn vanished() -> Error {
    Error::new(Kind::NotFound, "the container's monitor has gone")
}

/// Attaches our stdio to the container at the other end of `stream`, until it ends or we leave.
///
/// The terminal, if it was put into raw mode, is given back however this returns.
pub fn client(stream: UnixStream, options: AttachOptions) -> Result<AttachEnd> {
    client_with(stream, &relay::own_stdio(), options)
}

/// As [`client`], with descriptors other than our own stdio.
pub fn client_with(stream: UnixStream, stdio: &relay::Stdio<'_>, options: AttachOptions) -> Result<AttachEnd> {
    let mut channel = Channel::new(stream.into())?;
    channel.push_json(Tag::Request, &json!({ "attach": { "stdin": options.stdin } }));
    relay::run(&mut Framed { channel, credit: protocol::WINDOW, end: None }, stdio, options)
}

/// The container as seen through its monitor's socket.
struct Framed {
    channel: Channel,
    /// How many bytes of input we may send.
    credit: usize,
    end: Option<AttachEnd>,
}

impl Framed {
    /// Takes the frames that have arrived.
    fn unpack(&mut self, out: &mut Outputs) -> Result<()> {
        while let Some((tag, payload)) = self.channel.next_frame()? {
            match tag {
                Tag::Stdout => out.stdout.push(payload),
                Tag::Stderr => out.stderr.push(payload),
                Tag::Exit => {
                    self.end = protocol::decode_number(payload).map(AttachEnd::Exited).or(Some(AttachEnd::Lost));
                }
                Tag::Reply => {
                    protocol::outcome(payload)?;
                }
                Tag::Credit => {
                    let more = protocol::decode_number(payload).and_then(|n| usize::try_from(n).ok());
                    self.credit = self.credit.saturating_add(more.unwrap_or(0));
                }
                // Only clients send the others.
                _ => {}
            }
        }
        Ok(())
    }
}

impl Remote for Framed {
    fn watch(&self, poll: &mut Poll, room: &Outputs) {
        if self.end.is_some() {
            return;
        }
        // One connection carries both outputs: while either is stuck, both wait.
        let read = if room.stdout.len().max(room.stderr.len()) < BACKLOG { READ } else { 0 };
        let write = if self.channel.backlog() > 0 { WRITE } else { 0 };
        if read | write != 0 {
            poll.watch(&self.channel, read | write);
        }
    }

    fn turn(&mut self, poll: &Poll, out: &mut Outputs) -> Result<()> {
        let events = poll.events(&self.channel);
        if events & !WRITE != 0 {
            let flow = self.channel.fill();
            self.unpack(out)?;
            if self.end.is_none() && matches!(flow, Ok(Flow::End) | Err(_)) {
                self.end = Some(AttachEnd::Lost);
            }
        }
        // What cannot be sent is no loss here: the reason, an exit or the end, is what is read next.
        let _ = self.channel.flush();
        Ok(())
    }

    fn input_room(&self) -> usize {
        self.credit
    }

    fn input(&mut self, bytes: &[u8]) {
        self.credit = self.credit.saturating_sub(bytes.len());
        for piece in bytes.chunks(protocol::MAX_STREAM) {
            self.channel.push(Tag::Stdin, piece);
        }
    }

    fn input_end(&mut self) {
        self.channel.push(Tag::StdinEnd, &[]);
    }

    fn resize(&mut self, size: (u16, u16)) {
        self.channel.push(Tag::Resize, &protocol::encode_size(size));
    }

    fn signal(&mut self, number: i32) -> Result<()> {
        self.channel.push(Tag::Signal, &number.to_le_bytes());
        Ok(())
    }

    fn detach(&mut self) -> Result<()> {
        self.channel.push(Tag::Detach, &[]);
        // Keys typed before belong to the container; a monitor that does not take them in time is
        // stuck behind a program that does not read.
        let end = Instant::now() + Duration::from_secs(1);
        let mut poll = Poll::default();
        while self.channel.backlog() > 0 && self.channel.flush().is_ok() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || self.channel.backlog() == 0 {
                break;
            }
            poll.clear();
            poll.watch(&self.channel, WRITE);
            poll.wait(Some(left)).map_err(|e| Error::os("detach", e.raw_os_error()))?;
        }
        Ok(())
    }

    fn end(&self) -> Option<AttachEnd> {
        self.end
    }

    fn timeout(&self) -> Option<Duration> {
        None
    }
}
