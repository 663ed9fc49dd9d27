//! Reading back what went to the journal, through `journalctl`: its files are systemd's own affair.

use super::reader::{self, Follow, LOOK, LOOK_CLOSELY, ReadOptions, Record, Sink};
use crate::relay::Stream;
use crate::sys::poll::{Poll, READ};
use plan::time::{self, Timestamp};
use plan::{Error, Result, ResultExt};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read};
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;

/// The program that knows the journal's files.
const PROGRAM: &str = "journalctl";

/// Fields that say where an entry comes from; the others are what the user asked for.
const OURS: [&str; 13] = [
    "MESSAGE",
    "PRIORITY",
    "SYSLOG_IDENTIFIER",
    "SYSLOG_TIMESTAMP",
    "CONTAINER_ID",
    "CONTAINER_ID_FULL",
    "CONTAINER_NAME",
    "CONTAINER_TAG",
    "IMAGE_NAME",
    "CONTAINER_LOG_EPOCH",
    "CONTAINER_LOG_ORDINAL",
    "CONTAINER_PARTIAL_MESSAGE",
    "CONTAINER_PARTIAL_LAST",
];

/// Reads what container `id` has written into `sink`.
///
/// # Errors
/// No `journalctl`; what it complains about.
pub fn read(id: &str, options: ReadOptions<'_>, sink: &mut dyn Sink) -> Result<()> {
    let ReadOptions { tail, since, until, follow, .. } = options;
    let mut reading = Reading { id, since, until, cursor: None, done: false };
    // The journal counts what it has; of what comes before a moment only we know how much that is.
    let mut last = until.and(tail).map(|n| (n, VecDeque::new()));
    let lines = match (&last, tail) {
        (None, Some(0)) => "1".to_owned(),
        (None, Some(n)) => n.to_string(),
        _ => "all".to_owned(),
    };
    let mut begin = vec![format!("--lines={lines}")];
    begin.extend(since.map(|s| format!("--since=@{}", s.seconds)));
    for entry in reading.entries(&begin)? {
        match &mut last {
            Some((wanted, kept)) => {
                if reading.is_early(&entry) {
                    kept.push_back(entry);
                }
                if kept.len() as u64 > *wanted {
                    kept.pop_front();
                }
            }
            // Only its place in the journal was asked for.
            None if tail == Some(0) => {}
            None => reading.pass(&entry, sink)?,
        }
    }
    for entry in last.into_iter().flat_map(|(_, kept)| kept) {
        reading.pass(&entry, sink)?;
    }
    if sink.caught_up()?.is_break() || reading.done {
        return Ok(());
    }
    match follow {
        Some(follow) => reading.follow(follow, sink),
        None => Ok(()),
    }
}

type Entry = Map<String, Value>;

struct Reading<'a> {
    id: &'a str,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    /// Where in the journal the last entry stands.
    cursor: Option<String>,
    /// The sink has enough, or the time is over.
    done: bool,
}

impl Reading<'_> {
    fn start(&self, arguments: &[String]) -> Result<(Child, ChildStdout)> {
        let mut command = Command::new(PROGRAM);
        command.args(["--all", "--output=json", "--no-pager", "--quiet"]).args(arguments);
        command.arg(format!("CONTAINER_ID_FULL={}", self.id)).stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|e| {
            Error::io(format!("read the journal: start {PROGRAM}"), &e)
                .with_hint(format!("on a machine that has it: {PROGRAM} CONTAINER_ID_FULL={}", self.id))
        })?;
        let out = child.stdout.take().ok_or_else(|| Error::system("journalctl has no output"))?;
        Ok((child, out))
    }

    /// Everything that a `journalctl` without --follow prints.
    fn entries(&mut self, arguments: &[String]) -> Result<Vec<Entry>> {
        let (child, out) = self.start(arguments)?;
        let mut entries = Vec::new();
        for line in BufReader::with_capacity(64 << 10, out).lines() {
            entries.extend(self.parse(line.doing(|| "read the journal")?.as_bytes()));
        }
        let ended = child.wait_with_output().doing(|| format!("wait for {PROGRAM}"))?;
        // 1 is also "nothing found", about which it says nothing.
        if !ended.status.success() && !ended.stderr.is_empty() {
            let said = String::from_utf8_lossy(&ended.stderr);
            return Err(Error::system("read the journal")
                .with_cause(said.trim().to_owned())
                .with_hint(format!("see what `{PROGRAM} CONTAINER_ID_FULL={}` says", self.id)));
        }
        Ok(entries)
    }

    fn parse(&mut self, line: &[u8]) -> Option<Entry> {
        let entry: Entry = serde_json::from_slice(line).ok()?;
        self.cursor = entry.get("__CURSOR").and_then(Value::as_str).map(str::to_owned).or(self.cursor.take());
        Some(entry)
    }

    fn after(&self) -> Vec<String> {
        let mut arguments = vec!["--lines=all".to_owned()];
        arguments.extend(self.cursor.as_ref().map(|cursor| format!("--after-cursor={cursor}")));
        arguments
    }

    fn follow(&mut self, follow: Follow<'_>, sink: &mut dyn Sink) -> Result<()> {
        let Follow { is_alive, mut wake } = follow;
        let mut arguments = self.after();
        arguments.push("--follow".to_owned());
        let (mut child, out) = self.start(&arguments)?;
        let outcome = self.listen(out, is_alive, &mut wake, sink);
        let _ = child.kill();
        let _ = child.wait();
        outcome?;
        if self.done {
            return Ok(());
        }
        // What the journal had not written yet when the container ended.
        let _ = Command::new(PROGRAM).arg("--sync").stdin(Stdio::null()).stderr(Stdio::null()).status();
        for entry in self.entries(&self.after())? {
            self.pass(&entry, sink)?;
        }
        sink.caught_up().map(drop)
    }

    /// Until the container has ended, or the reader has enough.
    fn listen(
        &mut self,
        mut out: ChildStdout,
        is_alive: &mut dyn FnMut() -> bool,
        wake: &mut Option<std::os::fd::BorrowedFd<'_>>,
        sink: &mut dyn Sink,
    ) -> Result<()> {
        let mut poll = Poll::default();
        let mut pending = Vec::new();
        let mut block = vec![0; 64 << 10];
        let (mut ended, mut asked) = (false, Instant::now());
        let mut alive = is_alive();
        while alive && !self.done && self.until.is_none_or(|u| Timestamp::now() <= u) {
            poll.clear();
            poll.watch(&out, READ);
            if let Some(process) = wake {
                poll.watch(process, READ);
            }
            let interval = if ended { LOOK_CLOSELY } else { LOOK };
            poll.wait(Some(interval)).map_err(|e| Error::os("wait for the journal", e.raw_os_error()))?;
            if poll.events(out.as_fd()) != 0 {
                match out.read(&mut block).doing(|| "read the journal")? {
                    // It has ended: what it missed is read when the container has.
                    0 => std::thread::sleep(interval),
                    n => pending.extend_from_slice(&block[..n]),
                }
                while let Some(end) = pending.iter().position(|b| *b == b'\n') {
                    let line: Vec<u8> = pending.drain(..=end).collect();
                    if let Some(entry) = self.parse(&line) {
                        self.pass(&entry, sink)?;
                    }
                }
                self.done |= sink.caught_up()?.is_break();
            }
            if wake.is_some_and(|process| poll.events(process) != 0) {
                (*wake, ended) = (None, true);
            }
            if ended || asked.elapsed() >= LOOK {
                alive = is_alive();
                asked = Instant::now();
            }
        }
        Ok(())
    }

    fn is_early(&self, entry: &Entry) -> bool {
        let time = time::parse(&moment(entry));
        self.until.is_none_or(|until| time.is_some_and(|t| t <= until))
    }

    fn pass(&mut self, entry: &Entry, sink: &mut dyn Sink) -> Result<()> {
        if self.done {
            return Ok(());
        }
        let time = moment(entry);
        let text = |name: &str| entry.get(name).and_then(Value::as_str);
        let mut log = bytes(entry.get("MESSAGE"));
        if text("CONTAINER_PARTIAL_MESSAGE") != Some("true") {
            log.push(b'\n');
        }
        let stream = if text("PRIORITY") == Some("3") { Stream::Stderr } else { Stream::Stdout };
        let attributes: BTreeMap<String, String> = entry
            .iter()
            .filter(|(name, _)| !name.starts_with('_') && !OURS.contains(&name.as_str()))
            .filter(|(name, _)| !name.starts_with("CONTAINER_PARTIAL_"))
            .map(|(name, value)| (name.clone(), String::from_utf8_lossy(&bytes(Some(value))).into_owned()))
            .collect();
        let record = Record { stream, time: &time, log: Cow::Owned(log), attributes };
        self.done |= reader::pass(&record, self.since, self.until, sink)? == ControlFlow::Break(());
        Ok(())
    }
}

/// When the line was written; failing that, when the journal heard of it.
fn moment(entry: &Entry) -> String {
    let text = |name: &str| entry.get(name).and_then(Value::as_str);
    let heard = || {
        let micros: i64 = text("__REALTIME_TIMESTAMP")?.parse().ok()?;
        let nanos = u32::try_from(micros.rem_euclid(1_000_000) * 1000).ok()?;
        Some(time::format(Timestamp { seconds: micros.div_euclid(1_000_000), nanos }))
    };
    text("SYSLOG_TIMESTAMP").map(str::to_owned).or_else(heard).unwrap_or_default()
}

/// A value is text, or its bytes as numbers where it is not printable.
fn bytes(value: Option<&Value>) -> Vec<u8> {
    match value {
        Some(Value::String(text)) => text.clone().into_bytes(),
        Some(Value::Array(numbers)) => {
            numbers.iter().filter_map(|n| n.as_u64().and_then(|n| u8::try_from(n).ok())).collect()
        }
        _ => Vec::new(),
    }
}
