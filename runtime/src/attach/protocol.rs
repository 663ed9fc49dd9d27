//! What is spoken on `monitor.sock` and on the socket pair between `rrun run` and its monitor.
//!
//! A message is a frame: one byte that says what it is, the length of the rest as a little-endian
//! u32, the rest. The client begins with one [`Tag::Request`], a JSON object with one key:
//!
//! | request | answer |
//! |---|---|
//! | `{"attach":{"stdin":bool}}` | `{"ok":{"tty":bool}}`, then the streams, at last [`Tag::Exit`] |
//! | `{"wait":{}}` | [`Tag::Exit`] once the container has ended |
//! | `{"resize":[rows,columns]}` | `{"ok":{}}` |
//! | `{"signal":number}` | `{"ok":{}}` |
//! | `{"stats":{}}` | `{"ok":{"pid":…,"clients":…,"log_dropped":…}}` |
//! | anything else | what the monitor's service answers (refreshing its network, say) |
//!
//! Of its standard input a client sends at most [`WINDOW`] bytes before the monitor has passed some
//! on and says so with [`Tag::Credit`]: so the connection never fills up with input that nobody reads,
//! and a signal or a resize behind it always gets through.
//!
//! A refusal is `{"error":{…}}`, a [`plan::Error`]. More requests may follow on the same connection.

use crate::relay::{Flow, Port, Queue};
use plan::{Error, Result};
use serde_json::{Value, json};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The most bytes of a stream in one frame.
pub const MAX_STREAM: usize = 64 * 1024;

/// The most bytes of standard input under way from one client.
pub const WINDOW: usize = 256 * 1024;

/// The longest message of all: an answer. A client that claims more is cut off.
const MAX_FRAME: usize = 1024 * 1024;

const HEADER: usize = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// Client: a JSON object.
    Request,
    /// Monitor: a JSON object.
    Reply,
    /// Client: bytes for the container's standard input.
    Stdin,
    /// Client: its standard input is at its end.
    StdinEnd,
    /// Client: two little-endian u16, rows and columns.
    Resize,
    /// Client: a little-endian i32.
    Signal,
    /// Client: leaves on purpose; the container's standard input stays open.
    Detach,
    /// Monitor: the container's output.
    Stdout,
    Stderr,
    /// Monitor: the container has ended, after the last output. A little-endian i32, the exit code.
    Exit,
    /// Monitor: a little-endian i32, how many more bytes of standard input may be sent.
    Credit,
}

const TAGS: [Tag; 11] = [
    Tag::Request,
    Tag::Reply,
    Tag::Stdin,
    Tag::StdinEnd,
    Tag::Resize,
    Tag::Signal,
    Tag::Detach,
    Tag::Stdout,
    Tag::Stderr,
    Tag::Exit,
    Tag::Credit,
];

impl Tag {
    fn byte(self) -> u8 {
        // Small and stable: the position in the list, from 1, so that a stray zero is no tag.
        TAGS.iter().position(|t| *t == self).map_or(0, |i| i as u8 + 1)
    }

    fn of(byte: u8) -> Option<Tag> {
        TAGS.get(usize::from(byte).wrapping_sub(1)).copied()
    }
}

/// One end of a connection: frames in, frames out, never blocking.
pub struct Channel {
    port: Port,
    inbox: Queue,
    outbox: Queue,
    /// How much of `inbox` is the frame that was handed out last.
    taken: usize,
}

impl Channel {
    /// Takes over a connected stream socket.
    pub fn new(socket: OwnedFd) -> Result<Channel> {
        let port = Port::own(socket).map_err(|e| Error::io("prepare the monitor's socket", &e))?;
        Ok(Channel { port, inbox: Queue::default(), outbox: Queue::default(), taken: 0 })
    }

    /// Bytes that wait to be sent.
    pub fn backlog(&self) -> usize {
        self.outbox.len()
    }

    pub fn push(&mut self, tag: Tag, payload: &[u8]) {
        debug_assert!(payload.len() <= MAX_FRAME, "callers split what is longer");
        let mut header = [tag.byte(), 0, 0, 0, 0];
        header[1..].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        self.outbox.push(&header);
        self.outbox.push(payload);
    }

    pub fn push_json(&mut self, tag: Tag, value: &Value) {
        let text = value.to_string();
        if text.len() <= MAX_FRAME {
            self.push(tag, text.as_bytes());
        } else {
            self.push(tag, refusal(&Error::system("the answer is too long")).to_string().as_bytes());
        }
    }

    /// Sends what the socket takes. An error means that the other end is gone.
    pub fn flush(&mut self) -> io::Result<Flow> {
        self.outbox.drain(&self.port)
    }

    /// Drops what was to be sent: nobody is there to read it.
    pub fn forget_backlog(&mut self) {
        self.outbox.clear();
    }

    /// Reads once. `End` means that the other end has closed.
    pub fn fill(&mut self) -> io::Result<Flow> {
        self.inbox.consume(std::mem::take(&mut self.taken));
        self.inbox.fill(&self.port)
    }

    /// The next complete frame of what was read; `Err` when it is not our protocol.
    pub fn next_frame(&mut self) -> Result<Option<(Tag, &[u8])>> {
        self.inbox.consume(std::mem::take(&mut self.taken));
        let Some(header) = self.inbox.as_slice().first_chunk::<HEADER>() else { return Ok(None) };
        let length = u32::from_le_bytes([header[1], header[2], header[3], header[4]]) as usize;
        let tag = Tag::of(header[0]);
        let (Some(tag), true) = (tag, length <= MAX_FRAME) else {
            return Err(Error::invalid("the other end of the monitor's socket does not speak rrun's protocol"));
        };
        if self.inbox.len() < HEADER + length {
            return Ok(None);
        }
        self.taken = HEADER + length;
        Ok(Some((tag, &self.inbox.as_slice()[HEADER..HEADER + length])))
    }

    /// Gives back memory that is not in use.
    pub fn release(&mut self) {
        self.inbox.consume(std::mem::take(&mut self.taken));
        self.inbox.release();
        self.outbox.release();
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.port.as_fd()
    }
}

/// `{"ok": value}`.
pub fn accept(value: Value) -> Value {
    json!({ "ok": value })
}

/// `{"error": …}`, which [`outcome`] turns back.
pub fn refusal(error: &Error) -> Value {
    json!({ "error": error })
}

/// What an answer says: the value of `ok`, or the error.
pub fn outcome(payload: &[u8]) -> Result<Value> {
    let unclear = || Error::system("the container's monitor gave an answer that makes no sense");
    let mut value: Value = serde_json::from_slice(payload).map_err(|e| unclear().with_cause(e.to_string()))?;
    if let Some(error) = value.get_mut("error") {
        let error: Error = serde_json::from_value(error.take()).map_err(|e| unclear().with_cause(e.to_string()))?;
        return Err(error);
    }
    value.get_mut("ok").map(Value::take).ok_or_else(unclear)
}

/// The payload of [`Tag::Resize`].
pub fn encode_size((rows, columns): (u16, u16)) -> [u8; 4] {
    let (r, c) = (rows.to_le_bytes(), columns.to_le_bytes());
    [r[0], r[1], c[0], c[1]]
}

pub fn decode_size(payload: &[u8]) -> Option<(u16, u16)> {
    let b = <[u8; 4]>::try_from(payload).ok()?;
    Some((u16::from_le_bytes([b[0], b[1]]), u16::from_le_bytes([b[2], b[3]])))
}

/// The payload of [`Tag::Signal`], [`Tag::Exit`] and [`Tag::Credit`].
pub fn decode_number(payload: &[u8]) -> Option<i32> {
    <[u8; 4]>::try_from(payload).ok().map(i32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fdpass::socketpair;

    fn channels() -> (Channel, Channel) {
        let (a, b) = socketpair().unwrap();
        (Channel::new(a).unwrap(), Channel::new(b).unwrap())
    }

    #[test]
    fn frames_arrive_whole_whatever_the_socket_does_to_them() {
        let (mut a, mut b) = channels();
        let sizes = [0, 1, 4, 5, 4096, MAX_STREAM, 3, MAX_FRAME, 0];
        for (i, size) in sizes.iter().enumerate() {
            a.push(TAGS[i % TAGS.len()], &vec![i as u8; *size]);
        }
        let mut seen = 0;
        while seen < sizes.len() {
            a.flush().unwrap();
            b.fill().unwrap();
            while let Some((tag, payload)) = b.next_frame().unwrap() {
                assert_eq!(tag, TAGS[seen % TAGS.len()]);
                assert!(payload == vec![seen as u8; sizes[seen]]);
                seen += 1;
            }
        }
        drop(a);
        assert_eq!(b.fill().unwrap(), Flow::End);
    }

    #[test]
    fn another_protocol_is_refused_before_it_costs_memory() {
        for bytes in [&b"GET / HTTP/1.1\r\n"[..], &[1, 255, 255, 255, 255], &[0, 0, 0, 0, 0], &[12, 0, 0, 0, 0]] {
            let (a, b) = socketpair().unwrap();
            let mut channel = Channel::new(b).unwrap();
            rustix::io::write(&a, bytes).unwrap();
            channel.fill().unwrap();
            assert!(channel.next_frame().is_err());
        }
    }

    #[test]
    fn answers_carry_values_and_errors() {
        let ok = accept(json!({"tty": true})).to_string();
        assert_eq!(outcome(ok.as_bytes()).unwrap()["tty"], true);
        let error = Error::os("resize", 25).with_hint("give it a terminal");
        let back = outcome(refusal(&error).to_string().as_bytes()).unwrap_err();
        assert_eq!((back.to_string(), back.hint), (error.to_string(), error.hint));
        assert!(outcome(b"{}").is_err());
        assert!(outcome(b"[").is_err());
    }

    #[test]
    fn sizes_and_numbers_survive() {
        assert_eq!(decode_size(&encode_size((24, 300))), Some((24, 300)));
        assert_eq!(decode_number(&(-7i32).to_le_bytes()), Some(-7));
        assert_eq!(decode_size(b"abc"), None);
        assert_eq!(decode_number(b"abc"), None);
    }
}
