//! Volumes as things of their own: `volumes/<name>/_data`, and beside it what was said of them.

use crate::container::events::{self, Event};
use crate::container::{Entry, file, names, remove};
use crate::context::Context;
use plan::{Error, Result, ResultExt};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;

const FILE: &str = "volume.json";
const VERSION: u32 = 1;

/// `volume.json`: only `volume create` writes one. A volume made by `-v` needs none.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Said {
    version: u32,
    created: String,
    labels: BTreeMap<String, String>,
    #[serde(flatten)]
    extra: BTreeMap<String, Value>,
}

/// A volume that is there.
#[derive(Clone, Debug)]
pub struct Volume {
    pub name: String,
    /// RFC 3339.
    pub created: String,
    pub labels: BTreeMap<String, String>,
    /// The directory that containers see.
    pub mountpoint: PathBuf,
}

impl Volume {
    /// Made without a name: nobody will ask for it by its name again.
    pub fn is_anonymous(&self) -> bool {
        names::is_id(&self.name)
    }
}

/// All volumes, by name.
///
/// # Errors
/// The directory cannot be read.
pub fn list(ctx: &Context) -> Result<Vec<Volume>> {
    let dir = ctx.root.join("volumes");
    let entries = match std::fs::read_dir(&dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.doing(|| format!("read {}", dir.display()))?,
    };
    let names = entries.flatten().filter_map(|e| e.file_name().into_string().ok()).filter(|n| names::is_valid(n));
    // What is half made or just going is not there.
    let mut all: Vec<Volume> = names.filter_map(|name| find(ctx, &name).ok()).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

/// # Errors
/// Docker's, if there is no such volume; a damaged `volume.json`.
pub fn find(ctx: &Context, name: &str) -> Result<Volume> {
    let dir = ctx.volume_dir(name);
    let mountpoint = dir.join("_data");
    let made = match names::is_valid(name).then(|| std::fs::metadata(&mountpoint)) {
        Some(Ok(meta)) if meta.is_dir() => meta.modified().ok(),
        _ => {
            return Err(Error::not_found(format!("get {}: no such volume", name.escape_debug()))
                .with_hint("`rrun volume ls` lists the volumes"));
        }
    };
    let said = file::read::<Said>(&dir, FILE, VERSION)?;
    let (created, labels) = match said {
        Some(said) => (said.created, said.labels),
        None => (made.map_or_else(String::new, moment), BTreeMap::new()),
    };
    Ok(Volume { name: name.to_owned(), created, labels, mountpoint })
}

fn moment(at: std::time::SystemTime) -> String {
    let since = at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    plan::time::format(plan::time::Timestamp { seconds, nanos: 0 })
}

/// Makes a volume, unless it is there.
///
/// # Errors
/// A name that is none; the file system.
pub fn create(ctx: &Context, name: &str, labels: BTreeMap<String, String>) -> Result<Volume> {
    if !names::is_valid(name) {
        return Err(Error::invalid(format!(
            "create {0}: \"{0}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed",
            name.escape_debug()
        ))
        .with_hint("If you intended to pass a host directory, use absolute path"));
    }
    let dir = ctx.volume_dir(name);
    crate::container::make_private_dir(&dir)?;
    let handle = file::open_dir(&dir)?;
    rustix::io::retry_on_intr(|| rustix::fs::flock(&handle, FlockOperation::LockExclusive))
        .doing(|| format!("lock volume {name}"))?;
    let data = dir.join("_data");
    if !data.exists() {
        let said = Said { version: VERSION, created: plan::time::now_rfc3339(), labels, extra: BTreeMap::new() };
        file::replace(&dir, FILE, &said)?;
        super::public_dir(&data).doing(|| format!("create {}", data.display()))?;
        events::write(ctx, &[Event::volume("create", name, &[])]);
    }
    find(ctx, name)
}

/// The containers that mount a volume, running or not.
pub fn users<'e>(entries: &'e [Entry], name: &str) -> Vec<&'e str> {
    let uses = |e: &'e Entry| match e {
        Entry::Container(r) => r.mounts.iter().any(|m| m.name.as_deref() == Some(name)).then_some(r.id.as_str()),
        Entry::Broken { .. } => None,
    };
    entries.iter().filter_map(uses).collect()
}

/// Removes a volume that nobody uses.
///
/// # Errors
/// Docker's for one in use or not there; a file that resists.
pub fn delete(ctx: &Context, entries: &[Entry], name: &str) -> Result<()> {
    find(ctx, name)?;
    let users = users(entries, name);
    if !users.is_empty() {
        return Err(Error::conflict(format!("remove {name}: volume is in use - [{}]", users.join(", "))).with_hint(
            format!("rrun rm {}", users.iter().map(|u| &u[..12.min(u.len())]).collect::<Vec<_>>().join(" ")),
        ));
    }
    remove::tree(&ctx.volume_dir(name))?;
    events::write(ctx, &[Event::volume("destroy", name, &[])]);
    Ok(())
}

/// Bytes in a volume's files.
pub fn size(volume: &Volume) -> u64 {
    crate::container::view::bytes_below(&volume.mountpoint)
}
