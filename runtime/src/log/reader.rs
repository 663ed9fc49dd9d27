//! The reading side: the last so many lines, then whatever comes, across rotations.

use super::Format;
use super::files::{self, LogFile};
use crate::relay::Stream;
use crate::sys::poll::{Poll, READ};
use plan::time::{self, Timestamp};
use plan::{Error, Result, ResultExt};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// How often we look whether the container still lives when nothing else wakes us.
pub(super) const LOOK: Duration = Duration::from_millis(200);

/// And when the process that we watch has ended: its monitor may still write the last lines.
pub(super) const LOOK_CLOSELY: Duration = Duration::from_millis(10);

/// One line of output, or a piece of a very long one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    pub stream: Stream,
    /// RFC 3339, as written.
    pub time: &'a str,
    /// With its newline, if it had one.
    pub log: Cow<'a, [u8]>,
    /// What was recorded with it besides: tag, labels, environment.
    pub attributes: BTreeMap<String, String>,
}

/// Where the records go. `Break` ends the reading without an error.
pub trait Sink {
    fn record(&mut self, record: &Record<'_>) -> Result<ControlFlow<()>>;
    /// Everything that is there has been delivered: a good moment to write out buffers.
    fn caught_up(&mut self) -> Result<ControlFlow<()>>;
}

/// What to read. The default is everything that is there.
#[derive(Default)]
pub struct ReadOptions<'a> {
    pub format: Format,
    /// Only the last so many records.
    pub tail: Option<u64>,
    /// Not what is older.
    pub since: Option<Timestamp>,
    /// Not what is newer; also ends following.
    pub until: Option<Timestamp>,
    pub follow: Option<Follow<'a>>,
}

/// Go on until the container has ended.
pub struct Follow<'a> {
    /// Whether more may be written. Asked a few times a second.
    pub is_alive: &'a mut dyn FnMut() -> bool,
    /// A pidfd of the container or its monitor, so that the end is noticed at once.
    pub wake: Option<BorrowedFd<'a>>,
}

/// Reads the log at `path` into `sink`. A log that does not exist (yet) is empty; a symlink in its
/// place is refused (CVE-2026-53489: `logs` run by root must not print what a link names).
pub fn read(path: &Path, options: ReadOptions<'_>, sink: &mut dyn Sink) -> Result<()> {
    let ReadOptions { format, tail, since, until, follow } = options;
    // Before the first look at the file, so that no change after it is missed.
    let changes = if follow.is_some() { Some(watch_directory(path)?) } else { None };
    let mut reading = Reading { path, format, since, until, sink, current: None };
    if reading.read_tail(tail)?.is_break() || reading.sink.caught_up()?.is_break() {
        return Ok(());
    }
    match (follow, changes) {
        (Some(follow), Some(changes)) => reading.follow(follow, &changes),
        _ => Ok(()),
    }
}

struct Reading<'a> {
    path: &'a Path,
    format: Format,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    sink: &'a mut dyn Sink,
    /// The newest file, and how far it has been read.
    current: Option<LogFile>,
}

impl Reading<'_> {
    /// What is there, or the last `tail` records of it.
    fn read_tail(&mut self, tail: Option<u64>) -> Result<ControlFlow<()>> {
        let mut chain = files::newer_than(self.path, None)?;
        if let Some(wanted) = tail {
            let mut missing = wanted;
            let mut first = chain.len();
            while first > 0 && missing > 0 {
                first -= 1;
                missing -= chain[first].seek_to_tail(missing)?;
            }
            // With nothing missing, older files are left out; the newest is kept to follow it.
            if first == chain.len() && first > 0 {
                first -= 1;
                chain[first].seek_to_end()?;
            }
            chain.drain(..first);
        }
        self.read_chain(chain)
    }

    fn follow(&mut self, follow: Follow<'_>, changes: &OwnedFd) -> Result<()> {
        let Follow { is_alive, mut wake } = follow;
        let mut poll = Poll::default();
        let mut ended = false;
        let mut asked = Instant::now();
        let mut alive = is_alive();
        loop {
            // In this order: what was written before the end is still read.
            if self.read_on()?.is_break() || self.sink.caught_up()?.is_break() || !alive {
                return Ok(());
            }
            if self.until.is_some_and(|u| Timestamp::now() > u) {
                return Ok(());
            }
            poll.clear();
            poll.watch(changes, READ);
            if let Some(process) = wake {
                poll.watch(process, READ);
            }
            let interval = if ended { LOOK_CLOSELY } else { LOOK };
            poll.wait(Some(interval)).map_err(|e| Error::os("wait for the log", e.raw_os_error()))?;
            if poll.events(changes) != 0 {
                forget_events(changes);
            }
            if wake.is_some_and(|process| poll.events(process) != 0) {
                (wake, ended) = (None, true);
            }
            if ended || asked.elapsed() >= LOOK {
                alive = is_alive();
                asked = Instant::now();
            }
        }
    }

    /// What was added since the last time, to this file or to those that have replaced it.
    fn read_on(&mut self) -> Result<ControlFlow<()>> {
        if let Some(mut file) = self.current.take() {
            let replaced = !file.is_at(self.path);
            // After that question, so that what was written before the rotation is in it.
            let flow = self.read_file(&mut file)?;
            if flow.is_break() || !replaced {
                self.current = Some(file);
                return Ok(flow);
            }
            let chain = files::newer_than(self.path, Some(&file))?;
            if chain.is_empty() {
                self.current = Some(file);
                return Ok(ControlFlow::Continue(()));
            }
            return self.read_chain(chain);
        }
        let chain = files::newer_than(self.path, None)?;
        self.read_chain(chain)
    }

    /// Oldest first; the last becomes the current one.
    fn read_chain(&mut self, chain: Vec<LogFile>) -> Result<ControlFlow<()>> {
        for mut file in chain {
            if self.read_file(&mut file)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            self.current = Some(file);
        }
        Ok(ControlFlow::Continue(()))
    }

    fn read_file(&mut self, file: &mut LogFile) -> Result<ControlFlow<()>> {
        let (since, until) = (self.since, self.until);
        let parse = match self.format {
            Format::Json => json,
            Format::Plain => plain,
        };
        let sink = &mut *self.sink;
        file.lines(&mut |line| {
            // A torn or foreign line costs only itself.
            match parse(line) {
                Some(record) => pass(&record, since, until, sink),
                None => Ok(ControlFlow::Continue(())),
            }
        })
    }
}

/// Hands a record on if its time is among those asked for; the first one after them ends the reading.
pub(super) fn pass(
    record: &Record<'_>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    sink: &mut dyn Sink,
) -> Result<ControlFlow<()>> {
    if since.is_some() || until.is_some() {
        let Some(time) = time::parse(record.time) else { return Ok(ControlFlow::Continue(())) };
        if until.is_some_and(|u| time > u) {
            return Ok(ControlFlow::Break(()));
        }
        if since.is_some_and(|s| time < s) {
            return Ok(ControlFlow::Continue(()));
        }
    }
    sink.record(record)
}

fn stream(name: &str) -> Option<Stream> {
    match name {
        "stdout" => Some(Stream::Stdout),
        "stderr" => Some(Stream::Stderr),
        _ => None,
    }
}

fn json(line: &[u8]) -> Option<Record<'_>> {
    #[derive(Deserialize)]
    struct Line<'a> {
        #[serde(borrow)]
        log: Cow<'a, str>,
        stream: &'a str,
        time: &'a str,
        #[serde(default)]
        attrs: BTreeMap<String, String>,
    }
    let Line { log, stream: name, time, attrs } = serde_json::from_slice(line).ok()?;
    let log = match log {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    };
    Some(Record { stream: stream(name)?, time, log, attributes: attrs })
}

fn plain(line: &[u8]) -> Option<Record<'_>> {
    let mut fields = line.splitn(4, |b| *b == b' ');
    let mut word = || std::str::from_utf8(fields.next()?).ok();
    let (time, name, kind) = (word()?, word()?, word()?);
    let text = fields.next()?;
    let log = match kind {
        "F" => text,
        "P" => text.strip_suffix(b"\n")?,
        _ => return None,
    };
    Some(Record { stream: stream(name)?, time, log: Cow::Borrowed(log), attributes: BTreeMap::new() })
}

/// The directory and not the file: it tells of rotation, too, and of a log that is yet to come.
fn watch_directory(path: &Path) -> Result<OwnedFd> {
    let words = || format!("watch the directory of {}", path.display());
    let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).doing(words)?;
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let events = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::DELETE;
    inotify::add_watch(&fd, directory, events).doing(words)?;
    Ok(fd)
}

/// What exactly has happened does not matter: the files themselves are looked at.
fn forget_events(changes: &OwnedFd) {
    let mut buf = [0; 4096];
    while rustix::io::read(changes, &mut buf).is_ok_and(|n| n > 0) {}
}
