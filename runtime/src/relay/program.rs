//! A running program as its parent holds it: its pipes or its terminal, and its end.

use super::port::Port;
use super::queue::{Flow, Queue};
use crate::sys::pidfd;
use crate::sys::poll::{Poll, READ, WRITE};
use crate::tty;
use plan::{Error, Result};
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, waitpid};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long we wait for the end of the output after the program has ended, if something else (a
/// process it left behind) keeps the pipe open. What the program itself wrote is in the pipe by then
/// and is read in any case, however long our own reader takes.
const DRAIN: Duration = Duration::from_secs(2);

/// More than any pipe or terminal holds: who still writes beyond this is not the program.
const LEFT_BEHIND: usize = 2 * 1024 * 1024;

/// How often an overdue end is looked at while our own reader is slow.
const OVERDUE: Duration = Duration::from_millis(50);

/// The parent's ends of a program's standard streams.
pub enum Ends {
    Pipes {
        /// `None` when the program's stdin is /dev/null.
        stdin: Option<OwnedFd>,
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
    /// The master of its terminal.
    Tty(OwnedFd),
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// As the shell counts: its own code, or 128 + signal; 255 when nobody can know.
    pub code: i32,
    pub signal: Option<i32>,
}

pub struct Program {
    pid: i32,
    pidfd: OwnedFd,
    tty: bool,
    /// With a terminal, input and `stdout` are the same open file and there is no `stderr`.
    input: Option<Port>,
    input_queue: Queue,
    /// Close the input once the queue is empty.
    input_ends: bool,
    stdout: Output,
    stderr: Output,
    ended: Option<(Ending, Instant)>,
}

/// An output of the program.
#[derive(Default)]
struct Output {
    /// `None` once it is at its end.
    port: Option<Port>,
    /// Nothing was in it when last read.
    dry: bool,
    /// Bytes read since the program ended.
    afterwards: usize,
}

/// One of the program's two outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Program {
    pub fn new(pid: i32, pidfd: OwnedFd, ends: Ends) -> Result<Program> {
        let own = |fd: OwnedFd| Port::own(fd).map_err(|e| Error::io("prepare the container's streams", &e));
        let tty = matches!(ends, Ends::Tty(_));
        let (input, stdout, stderr) = match ends {
            Ends::Pipes { stdin, stdout, stderr } => (stdin.map(own).transpose()?, own(stdout)?, Some(own(stderr)?)),
            Ends::Tty(master) => {
                let twin = master.try_clone().map_err(|e| Error::io("duplicate the terminal", &e))?;
                (Some(own(twin)?), own(master)?, None)
            }
        };
        Ok(Program {
            pid,
            pidfd,
            tty,
            input,
            input_queue: Queue::default(),
            input_ends: false,
            stdout: Output { port: Some(stdout), ..Output::default() },
            stderr: Output { port: stderr, ..Output::default() },
            ended: None,
        })
    }

    pub fn pid(&self) -> i32 {
        self.pid
    }

    pub fn has_tty(&self) -> bool {
        self.tty
    }

    /// Adds what the program's side waits for; its outputs only if they may be read.
    pub fn watch(&self, poll: &mut Poll, stdout: bool, stderr: bool) {
        if self.ended.is_none() {
            poll.watch(&self.pidfd, READ);
        }
        for (output, wanted) in [(&self.stdout, stdout), (&self.stderr, stderr)] {
            if let (Some(port), true) = (&output.port, wanted) {
                poll.watch(port, READ);
            }
        }
        if let Some(input) = &self.input {
            // Interest in nothing still reports that a pipe's reader is gone. A terminal's master
            // reports its hang-up through the output side.
            let events = if self.input_queue.is_empty() { 0 } else { WRITE };
            if events != 0 || !self.tty {
                poll.watch(input, events);
            }
        }
    }

    /// Sends queued input and notices the end of the process.
    pub fn turn(&mut self, poll: &Poll) -> Result<()> {
        self.write_input(poll);
        if self.ended.is_none() && poll.events(&self.pidfd) != 0 {
            let ending = self.reap()?;
            self.has_ended(ending);
        }
        Ok(())
    }

    /// Notes how the process ended, for a caller that reaped it along with other children.
    pub fn has_ended(&mut self, ending: Ending) {
        self.ended.get_or_insert((ending, Instant::now()));
    }

    /// Reads one of the outputs into `queue`, once, if there is something to read. Callers leave it
    /// alone while their queue is full.
    pub fn read(&mut self, poll: &Poll, stream: Stream, queue: &mut Queue) {
        let overdue = self.overdue();
        let output = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        let Some(port) = &output.port else { return };
        if poll.events(port) == 0 && !overdue {
            return;
        }
        // No error of reading a pipe or pty can be mended: what it held is lost, so it is over.
        match queue.fill(port).unwrap_or(Flow::End) {
            Flow::Moved(n) => {
                output.dry = false;
                if self.ended.is_some() {
                    output.afterwards += n;
                }
            }
            Flow::Blocked => output.dry = true,
            Flow::End => output.port = None,
        }
    }

    /// Whether an output is at its end.
    pub fn is_closed(&self, stream: Stream) -> bool {
        match stream {
            Stream::Stdout => self.stdout.port.is_none(),
            Stream::Stderr => self.stderr.port.is_none(),
        }
    }

    /// Whether it still takes input.
    pub fn takes_input(&self) -> bool {
        self.input.is_some() && !self.input_ends
    }

    /// Bytes of input that wait for the program to read.
    pub fn input_backlog(&self) -> usize {
        self.input_queue.len()
    }

    pub fn input(&mut self, bytes: &[u8]) {
        if self.takes_input() {
            self.input_queue.push(bytes);
        }
    }

    /// Closes its stdin once it has read everything. A terminal has no such end: Ctrl-D is a key.
    pub fn input_end(&mut self) {
        if !self.tty {
            self.input_ends = true;
            if self.input_queue.is_empty() {
                self.input = None;
            }
        }
    }

    pub fn resize(&self, size: (u16, u16)) -> Result<()> {
        match &self.stdout.port {
            Some(master) if self.tty => tty::set_size(master, size),
            _ => Err(Error::conflict("the container has no terminal to resize")),
        }
    }

    /// `ESRCH` once it has ended.
    pub fn signal(&self, number: i32) -> Result<()> {
        if self.ended.is_some() {
            return Err(Error::os("signal the program", libc::ESRCH));
        }
        pidfd::send_signal(&self.pidfd, number).map_err(|e| Error::os("signal the program", e.raw_os_error()))
    }

    /// How it ended, if it has.
    pub fn ending(&self) -> Option<Ending> {
        self.ended.map(|(ending, _)| ending)
    }

    /// How it ended, once all its output has been read.
    pub fn finished(&self) -> Option<Ending> {
        let overdue = self.overdue();
        let done = |o: &Output| o.port.is_none() || overdue && (o.dry || o.afterwards > LEFT_BEHIND);
        self.ending().filter(|_| done(&self.stdout) && done(&self.stderr))
    }

    /// How long until [`Program::finished`] may say so without a further event.
    pub fn timeout(&self) -> Option<Duration> {
        self.ended.map(|(_, at)| DRAIN.saturating_sub(at.elapsed()).max(OVERDUE))
    }

    /// Whether it ended so long ago that an output which is still open is not waited for.
    fn overdue(&self) -> bool {
        self.ended.is_some_and(|(_, at)| at.elapsed() >= DRAIN)
    }

    pub fn release(&mut self) {
        self.input_queue.release();
    }

    fn write_input(&mut self, poll: &Poll) {
        let Some(port) = &self.input else { return };
        let events = poll.events(port);
        if self.input_queue.is_empty() && events & crate::sys::poll::GONE == 0 {
            return;
        }
        let drained: io::Result<Flow> = self.input_queue.drain(port);
        // EPIPE: the program has closed its stdin, and what it did not want is dropped.
        let gone = drained.is_err() || events & crate::sys::poll::GONE != 0 && !self.tty;
        if gone {
            self.input_queue.clear();
        }
        if gone || self.input_ends && self.input_queue.is_empty() {
            self.input = None;
        }
    }

    fn reap(&self) -> Result<Ending> {
        let pid = Pid::from_raw(self.pid).ok_or_else(|| Error::os("wait for the program", libc::ESRCH))?;
        loop {
            match waitpid(Some(pid), WaitOptions::empty()) {
                Ok(Some((_, status))) => return Ok(Ending::of(status.as_raw())),
                Ok(None) | Err(Errno::INTR) => {}
                // Not our child (we took it over from a monitor that was killed).
                Err(Errno::CHILD) => return Ok(Ending::of_stranger(&self.pidfd)),
                Err(e) => return Err(Error::os("wait for the program", e.raw_os_error())),
            }
        }
    }
}

impl Ending {
    /// From a wait status.
    pub fn of(status: i32) -> Ending {
        if libc::WIFSIGNALED(status) {
            let signal = libc::WTERMSIG(status);
            Ending { code: 128 + signal, signal: Some(signal) }
        } else {
            Ending { code: libc::WEXITSTATUS(status), signal: None }
        }
    }

    /// Of a process that somebody else reaps: the kernel may remember, else Docker's 255 it is.
    fn of_stranger(pidfd: impl AsFd) -> Ending {
        pidfd::reaped_status(pidfd).map_or(Ending { code: 255, signal: None }, Ending::of)
    }
}
