//! The caller's own terminal or pipes on one side, a program somewhere on the other: the loop that
//! `run`, `attach`, `start -a` and `exec` share.

use super::detach::Scanner;
use super::port::Port;
use super::queue::{CHUNK, Flow, Queue};
use crate::sys::poll::{GONE, Poll, READ, WRITE};
use crate::sys::signals::{self, Signals};
use crate::tty::{self, RawMode};
use plan::{Error, Result};
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// How much may wait for a slow reader before its source is left alone.
pub const BACKLOG: usize = 256 * 1024;

/// How to attach.
#[derive(Default)]
pub struct Options {
    /// Pass our standard input on.
    pub stdin: bool,
    /// The program has a terminal: ours goes into raw mode (if stdin is passed on), its size follows.
    pub tty: bool,
    /// Pass the signals that we receive on (never with `tty`, where the keys themselves go through).
    pub sig_proxy: bool,
    /// See [`super::detach`]; empty turns detaching off.
    pub detach_keys: Vec<u8>,
    /// Signals that the caller has already blocked (see [`capture`]), so that none was lost since.
    pub signals: Option<Signals>,
    /// The program's output is not for us (`run -a stderr`).
    pub without_stdout: bool,
    pub without_stderr: bool,
}

/// How an attachment ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachEnd {
    /// The program ended; its exit code as the shell counts (128 + signal).
    Exited(i32),
    /// The detach keys were typed.
    Detached,
    /// Nobody reads our output any more (`rrun run … | head -1`); a program in our place would have
    /// died of SIGPIPE.
    OutputClosed,
    /// We were told to end by this signal, and the terminal has been given back.
    Signalled(i32),
    /// The monitor vanished without a word about the program.
    Lost,
}

/// The program's side.
pub trait Remote {
    /// Adds what it waits for. Output is taken only where there is `room`.
    fn watch(&self, poll: &mut Poll, room: &Outputs);
    /// Moves what can be moved: input away, output into `out`.
    fn turn(&mut self, poll: &Poll, out: &mut Outputs) -> Result<()>;
    /// How many bytes of input it takes now.
    fn input_room(&self) -> usize;
    fn input(&mut self, bytes: &[u8]);
    fn input_end(&mut self);
    fn resize(&mut self, size: (u16, u16));
    fn signal(&mut self, number: i32) -> Result<()>;
    /// We leave by the detach keys.
    fn detach(&mut self) -> Result<()>;
    /// How it ended, once everything it had to say is in the outputs.
    fn end(&self) -> Option<AttachEnd>;
    /// The longest it wants to wait without an event.
    fn timeout(&self) -> Option<Duration>;
}

/// Output on its way to our stdout and stderr.
#[derive(Default)]
pub struct Outputs {
    pub stdout: Queue,
    pub stderr: Queue,
}

/// Blocks the signals that a session with these options will handle, from now on: to be called
/// before the container is started, so that a Ctrl-C in between reaches it rather than us.
pub fn capture(tty: bool, sig_proxy: bool) -> Result<Signals> {
    let mut numbers = vec![libc::SIGWINCH];
    if tty {
        // Only to give the terminal back before we obey.
        numbers.extend([libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGTSTP, libc::SIGCONT]);
    } else if sig_proxy {
        let named = [
            libc::SIGHUP,
            libc::SIGINT,
            libc::SIGQUIT,
            libc::SIGUSR1,
            libc::SIGUSR2,
            libc::SIGALRM,
            libc::SIGTERM,
            libc::SIGIO,
            libc::SIGPWR,
        ];
        numbers.extend(named);
        numbers.extend(libc::SIGRTMIN()..=libc::SIGRTMAX());
    }
    Signals::block(&numbers).map_err(|e| Error::os("block signals", e.raw_os_error()))
}

/// Our own descriptors.
pub struct Stdio<'a> {
    pub stdin: BorrowedFd<'a>,
    pub stdout: BorrowedFd<'a>,
    pub stderr: BorrowedFd<'a>,
}

/// Relays until the program has ended and all its output is written, or we leave.
pub fn run(remote: &mut dyn Remote, stdio: &Stdio<'_>, options: Options) -> Result<AttachEnd> {
    let Options { stdin, tty, sig_proxy, detach_keys, signals, without_stdout, without_stderr } = options;
    let signals = match signals {
        Some(s) => s,
        None => capture(tty, sig_proxy)?,
    };
    let port = |fd, name| Port::shared(fd).map_err(|e| Error::io(format!("use {name}"), &e));
    let terminal = [stdio.stdout, stdio.stdin].into_iter().find(|fd| tty::is_tty(fd));
    let mut session = Session {
        input: stdin.then(|| port(stdio.stdin, "stdin")).transpose()?,
        stdout: (!without_stdout).then(|| port(stdio.stdout, "stdout")).transpose()?,
        stderr: (!without_stderr).then(|| port(stdio.stderr, "stderr")).transpose()?,
        outputs: Outputs::default(),
        scanner: Scanner::new(detach_keys),
        typed: Queue::default(),
        terminal: if tty { terminal } else { None },
        raw: (tty && stdin && tty::is_tty(stdio.stdin)).then(|| RawMode::enter(stdio.stdin)).transpose()?,
        proxy: sig_proxy && !tty,
        signals,
    };
    session.send_size(remote);
    session.relay(remote)
}

struct Session<'a> {
    /// `None` once it is at its end, or was never passed on.
    input: Option<Port>,
    /// `None` once nobody reads it.
    stdout: Option<Port>,
    stderr: Option<Port>,
    outputs: Outputs,
    scanner: Scanner,
    /// What was read from `input` and has not been scanned.
    typed: Queue,
    terminal: Option<BorrowedFd<'a>>,
    raw: Option<RawMode>,
    proxy: bool,
    signals: Signals,
}

impl Session<'_> {
    fn relay(&mut self, remote: &mut dyn Remote) -> Result<AttachEnd> {
        let mut poll = Poll::default();
        loop {
            if let Some(end) = remote.end()
                && self.outputs.stdout.is_empty()
                && self.outputs.stderr.is_empty()
            {
                return Ok(end);
            }
            poll.clear();
            poll.watch(&self.signals, READ);
            if let Some(input) = &self.input
                && remote.input_room() >= CHUNK
            {
                poll.watch(input, READ);
            }
            for (port, queue) in [(&self.stdout, &self.outputs.stdout), (&self.stderr, &self.outputs.stderr)] {
                // Watched even when there is nothing to write: that nobody reads is worth knowing.
                if let Some(port) = port {
                    poll.watch(port, if queue.is_empty() { 0 } else { WRITE });
                }
            }
            remote.watch(&mut poll, &self.outputs);
            poll.wait(remote.timeout()).map_err(|e| Error::os("wait for events", e.raw_os_error()))?;

            while let Some(number) = self.signals.next() {
                if let Some(end) = self.on_signal(number, remote)? {
                    return Ok(end);
                }
            }
            remote.turn(&poll, &mut self.outputs)?;
            if self.write_out(&poll) {
                return Ok(AttachEnd::OutputClosed);
            }
            if self.read_in(&poll, remote)? {
                remote.detach()?;
                return Ok(AttachEnd::Detached);
            }
        }
    }

    /// Passes typed or piped bytes on; `true` when the detach keys were among them.
    fn read_in(&mut self, poll: &Poll, remote: &mut dyn Remote) -> Result<bool> {
        let Some(input) = &self.input else { return Ok(false) };
        if poll.events(input) == 0 {
            return Ok(false);
        }
        let mut passed = Vec::new();
        // A terminal that hangs up, or a stdin that was never open for reading, is just an end.
        let flow = self.typed.fill(input).unwrap_or(Flow::End);
        let found = self.scanner.feed(self.typed.as_slice(), &mut passed);
        self.typed.clear();
        if flow == Flow::End {
            self.scanner.finish(&mut passed);
            self.typed.release();
        }
        remote.input(&passed);
        if flow == Flow::End {
            self.input = None;
            remote.input_end();
        }
        Ok(found)
    }

    /// Writes what our readers take; `true` when nobody reads stdout any more.
    fn write_out(&mut self, poll: &Poll) -> bool {
        let broken = |port: &Option<Port>, queue: &mut Queue| match port {
            Some(p) => {
                let gone = poll.events(p) & GONE != 0 && queue.is_empty();
                gone || queue.drain(p).is_err()
            }
            None => {
                queue.clear();
                false
            }
        };
        if broken(&self.stderr, &mut self.outputs.stderr) {
            self.stderr = None;
            self.outputs.stderr.clear();
        }
        broken(&self.stdout, &mut self.outputs.stdout)
    }

    /// What a signal to us means; `Some` when it ends the session.
    fn on_signal(&mut self, number: i32, remote: &mut dyn Remote) -> Result<Option<AttachEnd>> {
        match number {
            libc::SIGWINCH => self.send_size(remote),
            libc::SIGTSTP => {
                // As an editor does: cooked while stopped, raw again afterwards.
                if let Some(raw) = &self.raw {
                    raw.suspend();
                }
                signals::raise(libc::SIGSTOP);
                self.resume(remote)?;
            }
            libc::SIGCONT => self.resume(remote)?,
            n if self.proxy => {
                // A program that has just ended needs no signal; its exit code is on the way.
                if let Err(e) = remote.signal(n)
                    && e.errno != Some(libc::ESRCH)
                {
                    return Err(e);
                }
            }
            n => return Ok(Some(AttachEnd::Signalled(n))),
        }
        Ok(None)
    }

    fn resume(&mut self, remote: &mut dyn Remote) -> Result<()> {
        if let Some(raw) = &self.raw {
            raw.resume()?;
        }
        self.send_size(remote);
        Ok(())
    }

    fn send_size(&self, remote: &mut dyn Remote) {
        if let Some(size) = self.terminal.and_then(tty::size) {
            remote.resize(size);
        }
    }
}

/// Where `run`, `attach` and `exec` write: the process's own descriptors.
pub fn own_stdio() -> Stdio<'static> {
    Stdio { stdin: rustix::stdio::stdin(), stdout: rustix::stdio::stdout(), stderr: rustix::stdio::stderr() }
}
