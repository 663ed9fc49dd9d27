//! What the child tells its parent: one line of times, and one line of error if it comes to that.
//!
//! The pipe is close-on-exec. Its end after the first line means that exec succeeded.

use plan::{Error, Journal, Mark, Result, ResultExt};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::time::Instant;

/// The child's end.
pub(crate) struct Reporter {
    pipe: File,
    /// When the clock of the marks stood at `offset`; CLOCK_MONOTONIC is the same for both.
    since: Instant,
    offset: u32,
    marks: Vec<Mark>,
    silent: bool,
    sent: bool,
}

impl Reporter {
    pub(crate) fn new(pipe: OwnedFd, journal: &Journal) -> Reporter {
        let offset = journal.now();
        let silent = journal.is_silent();
        Reporter { pipe: pipe.into(), since: Instant::now(), offset, marks: Vec::new(), silent, sent: false }
    }

    /// Microseconds on the parent's journal clock.
    pub(crate) fn now(&self) -> u32 {
        let passed = u32::try_from(self.since.elapsed().as_micros()).unwrap_or(u32::MAX);
        self.offset.saturating_add(passed)
    }

    pub(crate) fn mark(&mut self, step: usize, begin_us: u32) {
        if self.silent {
            return;
        }
        let step = u16::try_from(step).unwrap_or(u16::MAX);
        self.marks.push(Mark { step, begin_us, end_us: self.now() });
    }

    /// Everything but exec itself is done. Errors are of no use here: if the parent is gone, so are
    /// we soon.
    pub(crate) fn send_marks(&mut self) {
        self.sent = true;
        let mut line = serde_json::to_vec(&self.marks).unwrap_or_default();
        line.push(b'\n');
        let _ = self.pipe.write_all(&line);
    }

    pub(crate) fn send_error(&mut self, error: Error) {
        if !self.sent {
            self.send_marks();
        }
        let line = serde_json::to_vec(&error).unwrap_or_default();
        let _ = self.pipe.write_all(&line);
    }
}

/// How the child's report ended.
pub(super) enum Outcome {
    /// The program runs.
    Executed,
    Failed(Error),
    /// The child died without a word.
    Lost,
}

/// Reads to the end of the pipe, adding the child's marks to the journal.
pub(super) fn receive(pipe: OwnedFd, journal: &mut Journal) -> Result<Outcome> {
    let mut text = Vec::with_capacity(4096);
    File::from(pipe).read_to_end(&mut text).doing(|| "read the container's report")?;
    let mut lines = text.splitn(2, |b| *b == b'\n');
    let (Some(first), Some(rest)) = (lines.next(), lines.next()) else { return Ok(Outcome::Lost) };
    for mark in serde_json::from_slice::<Vec<Mark>>(first).unwrap_or_default() {
        journal.push(mark);
    }
    if rest.is_empty() {
        return Ok(Outcome::Executed);
    }
    Ok(match serde_json::from_slice(rest) {
        Ok(error) => Outcome::Failed(error),
        Err(_) => Outcome::Lost,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use plan::Kind;

    fn talk(say: impl FnOnce(&mut Reporter)) -> (Outcome, Journal) {
        let (read, write) = std::io::pipe().unwrap();
        let mut journal = Journal::new();
        let mut reporter = Reporter::new(write.into(), &journal);
        say(&mut reporter);
        drop(reporter);
        (receive(read.into(), &mut journal).unwrap(), journal)
    }

    #[test]
    fn marks_then_silence_is_success() {
        let (outcome, journal) = talk(|r| {
            r.mark(3, 0);
            r.send_marks();
        });
        assert!(matches!(outcome, Outcome::Executed));
        assert_eq!(journal.marks()[0].step, 3);
    }

    #[test]
    fn an_error_arrives_whole() {
        let (outcome, journal) = talk(|r| {
            r.mark(0, 0);
            r.send_error(Error::os("mount proc on /proc", 1).with_kind(Kind::System).with_hint("a\nhint"));
        });
        let Outcome::Failed(e) = outcome else { panic!("no error") };
        assert_eq!((e.errno, e.hint.as_deref()), (Some(1), Some("a\nhint")));
        assert_eq!(journal.marks().len(), 1);
    }

    #[test]
    fn silence_alone_is_a_death() {
        assert!(matches!(talk(|_| {}).0, Outcome::Lost));
    }
}
