//! `exec`: the program is our own child, its pipes or terminal are in our hands.

use super::program::{Ends, Program, Stream};
use super::queue::CHUNK;
use super::session::{self, AttachEnd, BACKLOG, Options, Outputs, Remote, Stdio};
use crate::sys::poll::Poll;
use plan::Result;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Relays between `stdio` and the child `pid` until it has ended and its output is written.
///
/// If the detach keys are typed, a process in the background takes over for as long as the program
/// lives, because a program whose terminal vanishes is hung up.
pub fn relay(pid: i32, pidfd: OwnedFd, ends: Ends, stdio: &Stdio<'_>, options: Options) -> Result<AttachEnd> {
    let mut program = Program::new(pid, pidfd, ends)?;
    if !options.stdin {
        program.input_end();
    }
    session::run(&mut Direct { program }, stdio, options)
}

struct Direct {
    program: Program,
}

impl Remote for Direct {
    fn watch(&self, poll: &mut Poll, room: &Outputs) {
        self.program.watch(poll, room.stdout.len() < BACKLOG, room.stderr.len() < BACKLOG);
    }

    fn turn(&mut self, poll: &Poll, out: &mut Outputs) -> Result<()> {
        self.program.turn(poll)?;
        for (stream, queue) in [(Stream::Stdout, &mut out.stdout), (Stream::Stderr, &mut out.stderr)] {
            if queue.len() < BACKLOG {
                self.program.read(poll, stream, queue);
            }
        }
        Ok(())
    }

    fn input_room(&self) -> usize {
        (BACKLOG + CHUNK).saturating_sub(self.program.input_backlog())
    }

    fn input(&mut self, bytes: &[u8]) {
        self.program.input(bytes);
    }

    fn input_end(&mut self) {
        self.program.input_end();
    }

    fn resize(&mut self, size: (u16, u16)) {
        // It fails only when the terminal is already gone, and then there is nothing to resize.
        let _ = self.program.resize(size);
    }

    fn signal(&mut self, number: i32) -> Result<()> {
        self.program.signal(number)
    }

    fn detach(&mut self) -> Result<()> {
        if crate::sys::spawn::fork_background()? {
            // The copy: keeps the program's streams open and empty until its end.
            let mut poll = Poll::default();
            let mut out = Outputs::default();
            while self.program.finished().is_none() {
                poll.clear();
                self.program.watch(&mut poll, true, true);
                if poll.wait(self.program.timeout()).is_err() || self.turn(&poll, &mut out).is_err() {
                    break;
                }
                out.stdout.clear();
                out.stderr.clear();
            }
            crate::sys::spawn::exit_now(0);
        }
        Ok(())
    }

    fn end(&self) -> Option<AttachEnd> {
        self.program.finished().map(|ending| AttachEnd::Exited(ending.code))
    }

    fn timeout(&self) -> Option<Duration> {
        self.program.timeout()
    }
}
