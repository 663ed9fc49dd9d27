//! The journal of events: one JSON line each, appended to `<state>/events`.
//!
//! Written after the fact, and before whoever waits for it is told; a line that cannot be written is nobody's failure.
//! Two files of a mebibyte at most: the older one is `events.1`.

use super::Event;
use crate::context::Context;
use plan::time::Timestamp;
use plan::{Result, ResultExt};
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

/// The journal, and what it is called when a new one is begun.
const FILE: &str = "events";
const OLD: &str = "events.1";
const MOST: u64 = 1 << 20;

fn path(ctx: &Context) -> PathBuf {
    ctx.state.join(FILE)
}

/// Appends what happened together, in one write: O_APPEND keeps the lines of other processes apart.
pub fn write(ctx: &Context, events: &[Event]) {
    if events.is_empty() {
        return;
    }
    let now = Timestamp::now();
    let now = now.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(now.nanos));
    // One after the other all the same, for whoever sorts them.
    let lines: String = (now..).zip(events).map(|(at, event)| format!("{}\n", event.document(at))).collect();
    let path = path(ctx);
    let options = std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(&path);
    let Ok(mut file) = options else { return };
    let _ = file.write_all(lines.as_bytes());
    if file.metadata().is_ok_and(|m| m.len() > MOST) {
        let _ = std::fs::rename(&path, ctx.state.join(OLD));
    }
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
