//! Volumes as things of their own: `volumes/<name>/_data`, and beside it what was said of them.

use super::mount;
use crate::container::events::{self, Event};
use crate::container::{Entry, file, names, remove};
use crate::context::Context;
use plan::{Error, Result, ResultExt};
use rustix::fd::OwnedFd;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const FILE: &str = "volume.json";
const VERSION: u32 = 1;

/// Docker's label of a volume that was made without a name.
pub const ANONYMOUS: &str = "com.docker.volume.anonymous";

/// `volume.json`, of a volume that was made by `volume create`, with labels or with options.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Said {
    version: u32,
    created: String,
    labels: BTreeMap<String, String>,
    /// Of the driver: what is mounted there.
    #[serde(default)]
    options: BTreeMap<String, String>,
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
    /// Of the driver: what is mounted there while containers use it.
    pub options: BTreeMap<String, String>,
    /// The directory that containers see.
    pub mountpoint: PathBuf,
}

impl Volume {
    /// Made without a name: nobody will ask for it by its name again.
    pub fn is_anonymous(&self) -> bool {
        self.labels.contains_key(ANONYMOUS)
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
    let none = || {
        Error::not_found(format!("get {}: no such volume", name.escape_debug()))
            .with_hint("`rrun volume ls` lists the volumes")
    };
    if !names::is_valid(name) {
        return Err(none());
    }
    let dir = ctx.volume_dir(name);
    let mountpoint = dir.join("_data");
    let said = file::read::<Said>(&dir, FILE, VERSION)?;
    let made = match std::fs::symlink_metadata(&mountpoint) {
        Ok(meta) if meta.is_dir() => meta.modified().ok(),
        // A server that is away makes its mount unreadable, and is no reason not to know of the volume.
        Err(e) if e.kind() != std::io::ErrorKind::NotFound && said.as_ref().is_some_and(|s| !s.options.is_empty()) => {
            None
        }
        _ => return Err(none()),
    };
    let (created, labels, options) = match said {
        Some(said) => (said.created, said.labels, said.options),
        // Only what is made without a name is called like this.
        None => {
            let anonymous = names::is_id(name).then(|| (ANONYMOUS.to_owned(), String::new()));
            (made.map_or_else(String::new, moment), anonymous.into_iter().collect(), BTreeMap::new())
        }
    };
    Ok(Volume { name: name.to_owned(), created, labels, options, mountpoint })
}

fn moment(at: std::time::SystemTime) -> String {
    let since = at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    plan::time::format(plan::time::Timestamp { seconds, nanos: 0 })
}

/// The options of a volume that is there, or about to be with these.
///
/// # Errors
/// A damaged `volume.json`.
pub fn options(ctx: &Context, name: &str, wanted: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>> {
    let dir = ctx.volume_dir(name);
    match file::read::<Said>(&dir, FILE, VERSION)? {
        Some(said) => Ok(said.options),
        None if wanted.is_empty() || dir.join("_data").exists() => Ok(BTreeMap::new()),
        None => Ok(wanted.clone()),
    }
}

/// # Errors
/// Docker's texts for a name that no volume may have.
pub fn check_name(name: &str) -> Result<()> {
    let shown = name.escape_debug();
    match name.len() {
        _ if names::is_valid(name) => Ok(()),
        1 => Err(Error::invalid(format!(
            "create {shown}: volume name is too short, names should be at least two alphanumeric characters"
        ))
        .with_hint("write a longer name, or /HOST/DIR for a directory of the host")),
        _ => Err(Error::invalid(format!(
            "create {shown}: \"{shown}\" includes invalid characters for a local volume name, only \
             \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
        ))
        .with_hint("write -v /HOST/DIR:/TARGET or -v NAME:/TARGET")),
    }
}

/// Makes a volume, unless it is there: then it stays as it is, as with Docker.
///
/// # Errors
/// A name that is none, options that mean nothing; the file system.
pub fn create(
    ctx: &Context,
    name: &str,
    labels: &BTreeMap<String, String>,
    options: &BTreeMap<String, String>,
) -> Result<()> {
    check_name(name)?;
    if find(ctx, name).is_ok() {
        return Ok(());
    }
    super::options::check(options).map_err(|e| e.context(format!("create {name}")))?;
    let _lock = lock(ctx, name)?;
    let dir = ctx.volume_dir(name);
    if !dir.join("_data").exists() && labels.is_empty() && options.is_empty() {
        // For the moment at which it was made.
        say(&dir, labels, options)?;
    }
    begin(ctx, name, labels, options)
}

fn say(dir: &Path, labels: &BTreeMap<String, String>, options: &BTreeMap<String, String>) -> Result<()> {
    let (labels, options) = (labels.clone(), options.clone());
    let said = Said {
        version: VERSION,
        created: moment(std::time::SystemTime::now()),
        labels,
        options,
        extra: BTreeMap::new(),
    };
    file::replace(dir, FILE, &said)
}

/// The directory of a volume that is not there yet, under its lock.
pub(super) fn begin(
    ctx: &Context,
    name: &str,
    labels: &BTreeMap<String, String>,
    options: &BTreeMap<String, String>,
) -> Result<()> {
    let dir = ctx.volume_dir(name);
    let data = dir.join("_data");
    if data.exists() {
        return Ok(());
    }
    if !(labels.is_empty() && options.is_empty()) {
        let mut labels = labels.clone();
        if names::is_id(name) {
            labels.insert(ANONYMOUS.into(), String::new());
        }
        say(&dir, &labels, options)?;
    }
    super::public_dir(&data).doing(|| format!("create {}", data.display()))?;
    events::write(ctx, &[Event::volume("create", name, &[])]);
    Ok(())
}

/// Waits for the lock of a volume, which is its directory; that is made if it is not there.
pub(super) fn lock(ctx: &Context, name: &str) -> Result<OwnedFd> {
    let dir = ctx.volume_dir(name);
    loop {
        crate::container::make_private_dir(&dir)?;
        match lock_existing(&dir) {
            Ok(Some(lock)) => return Ok(lock),
            // Removed meanwhile.
            Ok(None) => {}
            Err(e) => return Err(e.context(format!("lock volume {name}"))),
        }
    }
}

/// `None`: there is no such directory.
pub(super) fn lock_existing(dir: &Path) -> Result<Option<OwnedFd>> {
    loop {
        let handle = match file::open_dir(dir) {
            Err(e) if e.errno == Some(libc::ENOENT) => return Ok(None),
            other => other?,
        };
        rustix::io::retry_on_intr(|| rustix::fs::flock(&handle, FlockOperation::LockExclusive))
            .doing(|| format!("lock {}", dir.display()))?;
        let held = rustix::fs::fstat(&handle).doing(|| format!("stat {}", dir.display()))?;
        if rustix::fs::stat(dir).is_ok_and(|now| (now.st_dev, now.st_ino) == (held.st_dev, held.st_ino)) {
            return Ok(Some(handle));
        }
    }
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
        return Err(in_use(name, &users));
    }
    discard(ctx, name)?;
    events::write(ctx, &[Event::volume("destroy", name, &[])]);
    Ok(())
}

/// Removes a volume's directory. What is mounted in it is not its own, least of all the host's directory behind a
/// bind mount: nothing is removed as long as anything is mounted there.
///
/// # Errors
/// A container has it mounted; something else is mounted there; a file that resists.
pub fn discard(ctx: &Context, name: &str) -> Result<()> {
    let dir = ctx.volume_dir(name);
    let Some(_lock) = lock_existing(&dir)? else { return Ok(()) };
    if let Some(user) = mount::user(&mount::leases(ctx, name)) {
        return Err(in_use(name, &[&user]));
    }
    let options = file::read::<Said>(&dir, FILE, VERSION).ok().flatten().map(|said| said.options);
    if options.is_some_and(|o| super::options::file_system(&o).is_some()) {
        // Left by somebody who was killed, or whose state was lost.
        runtime::volume::unmount(&dir.join("_data"))?;
    }
    expect_unmounted(&dir).map_err(|e| e.context(format!("remove {name}")))?;
    remove::tree(&dir)?;
    remove::tree(&mount::leases(ctx, name))
}

fn in_use(name: &str, users: &[&str]) -> Error {
    Error::conflict(format!("remove {name}: volume is in use - [{}]", users.join(", ")))
        .with_hint(format!("rrun rm {}", users.iter().map(|u| &u[..12.min(u.len())]).collect::<Vec<_>>().join(" ")))
}

/// # Errors
/// Something is mounted on a directory or below it.
pub(super) fn expect_unmounted(dir: &Path) -> Result<()> {
    match runtime::volume::mounts_below(dir)?.first() {
        None => Ok(()),
        Some(at) => Err(Error::conflict(format!("something is mounted on {}", at.display()))
            .with_hint(format!("umount {}", at.display()))),
    }
}

/// Bytes in a volume's files.
pub fn size(volume: &Volume) -> u64 {
    crate::container::view::bytes_below(&volume.mountpoint)
}
