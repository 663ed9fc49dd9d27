//! What happened, as Docker's events: one JSON line each, appended to `<state>/events`.
//!
//! Written after the fact and never waited for; a line that cannot be written is nobody's failure.
//! Two files of a mebibyte at most: the older one is `events.1`.

use super::record::Record;
use crate::context::Context;
use plan::time::Timestamp;
use plan::{Result, ResultExt};
use runtime::state::{Health, State};
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

/// The journal, and what it is called when a new one is begun.
pub const FILE: &str = "events";
const OLD: &str = "events.1";
const MOST: u64 = 1 << 20;

fn path(ctx: &Context) -> PathBuf {
    ctx.state.join(FILE)
}

/// Appends one event of a container.
pub fn container(ctx: &Context, record: &Record, action: &str, more: &[(&str, String)]) {
    let mut attributes: Map<String, Value> =
        record.config.labels.iter().map(|(k, v)| (k.clone(), v.as_str().into())).collect();
    attributes.insert("image".into(), record.image.as_str().into());
    attributes.insert("name".into(), record.name.as_str().into());
    attributes.extend(more.iter().map(|(k, v)| ((*k).to_string(), v.as_str().into())));
    write(ctx, "container", action, &record.id, &record.image, attributes);
}

fn write(ctx: &Context, kind: &str, action: &str, id: &str, from: &str, attributes: Map<String, Value>) {
    let now = Timestamp::now();
    let line = json!({
        "status": action,
        "id": id,
        "from": from,
        "Type": kind,
        "Action": action,
        "Actor": {"ID": id, "Attributes": attributes},
        "scope": "local",
        "time": now.seconds,
        "timeNano": now.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(now.nanos)),
    });
    let path = path(ctx);
    let options = std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(&path);
    let Ok(mut file) = options else { return };
    // One write of one line: O_APPEND keeps those of other processes apart.
    let _ = file.write_all(format!("{line}\n").as_bytes());
    if file.metadata().is_ok_and(|m| m.len() > MOST) {
        let _ = std::fs::rename(&path, ctx.state.join(OLD));
    }
}

pub fn start(ctx: &Context, record: &Record) {
    container(ctx, record, "start", &[]);
}

/// The end of a process, and what became of the container by it.
pub fn die(ctx: &Context, record: &Record, state: &State) {
    if state.oom_killed {
        container(ctx, record, "oom", &[]);
    }
    let lived = match (plan::time::parse(&state.started_at), plan::time::parse(&state.finished_at)) {
        (Some(from), Some(to)) => (to.seconds - from.seconds).max(0),
        _ => 0,
    };
    let more = [("exitCode", state.exit_code.to_string()), ("execDuration", lived.to_string())];
    container(ctx, record, "die", &more);
    if state.stopped {
        container(ctx, record, "stop", &[]);
    }
    if record.host.auto_remove {
        container(ctx, record, "destroy", &[]);
    }
}

/// A container that waited for its next start will not get it.
pub fn stopped(ctx: &Context, id: &str) {
    if let Ok(record) = Record::load(&ctx.container_dir(id)) {
        container(ctx, &record, "stop", &[]);
    }
}

pub fn health(ctx: &Context, record: &Record, health: Health) {
    container(ctx, record, &format!("health_status: {health}"), &[]);
}

/// Reads the journal from its beginning, and goes on where it was when asked again.
pub struct Reader {
    path: PathBuf,
    old: PathBuf,
    file: Option<BufReader<File>>,
    /// Of the file that is open: another one under the name is a new journal.
    inode: u64,
    /// The older file comes first, once.
    begun: bool,
}

impl Reader {
    pub fn open(ctx: &Context) -> Reader {
        Reader { path: path(ctx), old: ctx.state.join(OLD), file: None, inode: 0, begun: false }
    }

    /// What was written since the last call.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn next_batch(&mut self) -> Result<Vec<Value>> {
        let mut events = Vec::new();
        if !std::mem::replace(&mut self.begun, true)
            && let Ok(old) = File::open(&self.old)
        {
            drain(&mut BufReader::new(old), &mut events)?;
        }
        loop {
            if let Some(file) = &mut self.file {
                drain(file, &mut events)?;
            }
            let inode = std::fs::metadata(&self.path).map_or(0, |m| m.ino());
            if inode == 0 || inode == self.inode {
                return Ok(events);
            }
            let file = File::open(&self.path).doing(|| format!("open {}", self.path.display()))?;
            self.inode = file.metadata().doing(|| "look at the events")?.ino();
            self.file = Some(BufReader::new(file));
        }
    }
}

/// Whole lines; half a one (a writer at work, a full disk) is read again or passed over.
fn drain(file: &mut BufReader<File>, events: &mut Vec<Value>) -> Result<()> {
    let mut line = String::new();
    loop {
        line.clear();
        let n = file.read_line(&mut line).doing(|| "read the events")?;
        if n == 0 {
            return Ok(());
        }
        events.extend(serde_json::from_str::<Value>(&line).ok());
    }
}
