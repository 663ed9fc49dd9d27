//! The connections to a monitor, from the request to the farewell.

use crate::attach::protocol::{self, Channel, Tag, WINDOW};
use crate::relay::{BACKLOG, Flow, Program, Stream};
use crate::sys::poll::{Poll, READ, WRITE};
use plan::{Error, Result};
use serde_json::{Value, json};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;

/// More connections at once wait in the listener's queue.
const MOST: usize = 256;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Has asked for nothing yet, or only for single answers.
    Visitor,
    /// Gets the output; with `stdin` its input goes to the container.
    Attached { stdin: bool },
    /// Gets the exit code.
    Waiting,
}

pub struct Client {
    channel: Channel,
    role: Role,
    /// Bytes of its input that it has not been given credit for.
    owed: usize,
    /// Nothing more will come from it, or it broke the protocol.
    gone: bool,
    /// It reads no more. What it has sent still counts: keys typed before leaving, and that it left.
    deaf: bool,
    /// The command that started the container: no output is read before it says what it wants.
    awaited: bool,
}

/// What a client wants that the monitor itself must do.
pub enum Wish {
    Request(Value),
    Signal(i32),
    /// Rows and columns of its terminal.
    Resize((u16, u16)),
}

#[derive(Default)]
pub struct Clients {
    list: Vec<Client>,
    /// accept(2) failed (no descriptor left): not tried again before a client leaves.
    resting: bool,
}

impl Clients {
    /// Takes over the connection of the command that started us.
    pub fn inherit(&mut self, socket: OwnedFd) -> Result<()> {
        let channel = Channel::new(socket)?;
        self.list.push(Client { channel, role: Role::Visitor, owed: 0, gone: false, deaf: false, awaited: true });
        Ok(())
    }

    /// Takes connections from the socket. Only root and our own user may talk to a monitor; the
    /// directory's mode keeps others out already, but the socket may have been inherited or moved.
    pub fn accept(&mut self, listener: &UnixListener) {
        while self.list.len() < MOST {
            match listener.accept() {
                Ok((stream, _)) => {
                    let own = rustix::process::geteuid();
                    let peer = rustix::net::sockopt::socket_peercred(&stream);
                    if !peer.is_ok_and(|p| p.uid.is_root() || p.uid == own) {
                        continue;
                    }
                    if let Ok(channel) = Channel::new(stream.into()) {
                        let role = Role::Visitor;
                        self.list.push(Client { channel, role, owed: 0, gone: false, deaf: false, awaited: false });
                    }
                }
                Err(e) => {
                    let passing = matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::ECONNABORTED | libc::EINTR));
                    self.resting = !passing;
                    return;
                }
            }
        }
    }

    /// Whether there is room for another connection.
    pub fn accepts(&self) -> bool {
        !self.resting && self.list.len() < MOST
    }

    pub fn watch(&self, poll: &mut Poll) {
        for c in &self.list {
            // A client that sends beyond its window gets no hearing until its input has been read.
            let read = if c.owed <= 2 * WINDOW { READ } else { 0 };
            let write = if c.channel.backlog() > 0 { WRITE } else { 0 };
            poll.watch(&c.channel, read | write);
        }
    }

    /// How many are attached.
    pub fn attached(&self) -> usize {
        self.list.iter().filter(|c| matches!(c.role, Role::Attached { .. })).count()
    }

    /// How far the slowest of them lags behind, in bytes.
    pub fn backlog(&self) -> usize {
        self.list.iter().map(|c| c.channel.backlog()).max().unwrap_or(0)
    }

    /// Whether somebody is still awaited.
    pub fn awaited(&self) -> bool {
        self.list.iter().any(|c| c.awaited)
    }

    /// Passes output on to everyone attached.
    pub fn output(&mut self, stream: Stream, bytes: &[u8]) {
        let tag = match stream {
            Stream::Stdout => Tag::Stdout,
            Stream::Stderr => Tag::Stderr,
        };
        for c in self.list.iter_mut().filter(|c| matches!(c.role, Role::Attached { .. }) && !c.deaf) {
            for piece in bytes.chunks(protocol::MAX_STREAM) {
                c.channel.push(tag, piece);
            }
        }
    }

    /// Reads and obeys what clients say. `serve` answers what only the monitor can.
    pub fn hear(
        &mut self,
        poll: &Poll,
        program: &mut Program,
        stdin_once: bool,
        serve: &mut dyn FnMut(&Program, Wish, usize) -> Result<Value>,
    ) {
        let attached = self.attached();
        for c in &mut self.list {
            if poll.events(&c.channel) & !WRITE == 0 {
                continue;
            }
            let flow = c.channel.fill();
            // What arrived before the end still counts.
            let sane = c.obey(program, stdin_once, &mut |p, wish| serve(p, wish, attached));
            if !sane || matches!(flow, Ok(Flow::End) | Err(_)) {
                c.gone = true;
                c.awaited = false;
            }
        }
    }

    /// Gives credit for input, sends what is queued, and forgets who has gone.
    pub fn settle(&mut self, program: &mut Program, stdin_once: bool) {
        // No credit once the container takes no more: its client then stops reading, as a writer to
        // a pipe without a reader would.
        let credit = program.takes_input() && program.input_backlog() < BACKLOG / 2;
        let before = self.list.len();
        self.list.retain_mut(|c| {
            if credit && c.owed > 0 {
                let owed = i32::try_from(std::mem::take(&mut c.owed)).unwrap_or(i32::MAX);
                c.channel.push(Tag::Credit, &owed.to_le_bytes());
            }
            if c.channel.backlog() > 0 && c.channel.flush().is_err() {
                c.channel.forget_backlog();
                c.deaf = true;
            }
            if c.gone && stdin_once && c.role == (Role::Attached { stdin: true }) {
                program.input_end();
            }
            !c.gone
        });
        if self.list.len() < before {
            self.resting = false;
            if self.list.is_empty() {
                self.list.shrink_to_fit();
            }
        }
    }

    pub fn release(&mut self) {
        for c in &mut self.list {
            c.channel.release();
        }
    }

    /// Tells everyone who waits or is attached how it ended, as far as their sockets take it at once.
    pub fn tell(&mut self, code: i32) {
        self.list.retain_mut(|c| {
            if c.role != Role::Visitor {
                c.channel.push(Tag::Exit, &code.to_le_bytes());
            }
            c.channel.flush().is_ok() && c.channel.backlog() > 0
        });
    }

    /// Sees every byte off, however slowly they read: everything else has been cleaned up by now, and
    /// a client that hangs up is let go.
    pub fn see_off(mut self) {
        let mut poll = Poll::default();
        while !self.list.is_empty() {
            poll.clear();
            for c in &self.list {
                poll.watch(&c.channel, WRITE);
            }
            if poll.wait(None).is_err() {
                return;
            }
            self.list.retain_mut(|c| c.channel.flush().is_ok() && c.channel.backlog() > 0);
        }
    }
}

impl Client {
    /// Does what its frames say; `false` when it does not speak our protocol.
    fn obey(
        &mut self,
        program: &mut Program,
        stdin_once: bool,
        serve: &mut dyn FnMut(&Program, Wish) -> Result<Value>,
    ) -> bool {
        loop {
            let (tag, payload) = match self.channel.next_frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => return true,
                Err(_) => return false,
            };
            self.awaited = false;
            let input = self.role == (Role::Attached { stdin: true });
            match tag {
                Tag::Stdin if input => {
                    program.input(payload);
                    self.owed += payload.len();
                }
                Tag::StdinEnd if input => {
                    if stdin_once {
                        program.input_end();
                    }
                }
                // Neither has an answer, and neither can fail in a way that the client could mend.
                Tag::Resize => {
                    if let Some(size) = protocol::decode_size(payload) {
                        let _ = serve(program, Wish::Resize(size));
                    }
                }
                Tag::Signal => {
                    if let Some(number) = protocol::decode_number(payload) {
                        let _ = serve(program, Wish::Signal(number));
                    }
                }
                Tag::Detach => self.role = Role::Visitor,
                Tag::Request => {
                    let answer = serde_json::from_slice(payload)
                        .map_err(|e| Error::invalid("a request to the monitor is not JSON").with_cause(e.to_string()))
                        .and_then(|request: Value| answer(&mut self.role, program, request, serve));
                    match answer {
                        Ok(Some(value)) => self.channel.push_json(Tag::Reply, &protocol::accept(value)),
                        Ok(None) => {}
                        Err(e) => self.channel.push_json(Tag::Reply, &protocol::refusal(&e)),
                    }
                }
                // Input from someone who did not attach with it, or frames that only we send.
                _ => return false,
            }
        }
    }
}

/// The value of the answer; `None` where the answer comes later.
fn answer(
    role: &mut Role,
    program: &mut Program,
    request: Value,
    serve: &mut dyn FnMut(&Program, Wish) -> Result<Value>,
) -> Result<Option<Value>> {
    if let Some(attach) = request.get("attach") {
        let stdin = attach.get("stdin").and_then(Value::as_bool).unwrap_or(false);
        *role = Role::Attached { stdin };
        return Ok(Some(json!({ "tty": program.has_tty() })));
    }
    if request.get("wait").is_some() {
        *role = Role::Waiting;
        return Ok(None);
    }
    if let Some(size) = request.get("resize") {
        let size: (u16, u16) = serde_json::from_value(size.clone())
            .map_err(|e| Error::invalid("a terminal's size is [rows, columns]").with_cause(e.to_string()))?;
        return serve(program, Wish::Resize(size)).map(Some);
    }
    if let Some(number) = request.get("signal") {
        let number = number.as_i64().and_then(|n| i32::try_from(n).ok());
        let number = number.ok_or_else(|| Error::invalid("a signal is a number"))?;
        return serve(program, Wish::Signal(number)).map(Some);
    }
    serve(program, Wish::Request(request)).map(Some)
}

impl AsFd for Client {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.channel.as_fd()
    }
}
