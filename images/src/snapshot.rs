//! Layers unpacked and shared: `layers/<16 hex>/` is the directory, `layers/<16 hex>.json` says
//! what it is. The name is the head of the chain ID, short because a mount has only a page for the
//! names of all its layers.
//!
//! A layer exists when its record does: the record is written last and removed first. Whoever
//! installs or removes one holds `layers/.lock-<16 hex>` and works in `layers/.tmp-<16 hex>`; what
//! lies there without a living holder of the lock is rubbish.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use plan::{Error, Kind, Result, ResultExt};
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::layer::{self, Applied};

const VERSION: u32 = 1;

/// The record of an installed layer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    /// `sha256:…` of this layer with all below it.
    pub chain_id: String,
    /// `sha256:…` of the uncompressed tar.
    pub diff_id: String,
    /// The chain ID of the layer below.
    pub parent: Option<String>,
    /// Bytes of data in the tar.
    pub size: u64,
    /// What the directory holds, and in which boot it was known to: see [`reserve`].
    files: u64,
    file_bytes: u64,
    boot_id: String,
    #[serde(flatten)]
    extra: BTreeMap<String, serde_json::Value>,
}

impl Record {
    /// Whether a directory of so many files and bytes can be this layer.
    pub(crate) fn holds(&self, files: u64, bytes: u64) -> bool {
        (self.files, self.file_bytes) == (files, bytes)
    }
}

/// One layer of an image to be.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub chain_id: String,
    pub diff_id: String,
}

/// A layer that is ours to unpack. Dropped without [`Slot::commit`], it leaves nothing behind.
#[derive(Debug)]
pub struct Slot {
    layers: PathBuf,
    wanted: Wanted,
    /// Chain IDs below, topmost first.
    below: Vec<String>,
    dir: PathBuf,
    _lock: Lock,
}

/// The directory name of a layer: the first 16 hex digits of its chain ID.
pub fn dir_name(chain: &str) -> &str {
    let hex = chain.strip_prefix("sha256:").unwrap_or(chain);
    hex.get(..16).unwrap_or(hex)
}

pub fn layers_dir(root: &Path) -> PathBuf {
    root.join("layers")
}

/// Whether the layer is installed.
pub fn exists(root: &Path, chain: &str) -> bool {
    matches!(record(root, chain), Ok(Some(_)))
}

/// The record of a layer, `None` if it is not installed. Errors when the record cannot be read, is
/// of a newer rrun, or belongs to another layer whose chain ID begins alike.
pub fn record(root: &Path, chain: &str) -> Result<Option<Record>> {
    read_record(&layers_dir(root), chain)
}

/// All installed layers. Records that cannot be read are passed over.
pub fn list(root: &Path) -> Result<Vec<Record>> {
    let layers = layers_dir(root);
    let records = names_in(&layers)?.into_iter().filter_map(|name| {
        let name = name.strip_suffix(".json")?;
        is_dir_name(name).then(|| load(&layers.join(format!("{name}.json"))).ok().flatten()).flatten()
    });
    Ok(records.collect())
}

/// The overlay's lower directories of an image whose chain IDs are `chains`, lowest first: the base
/// directory, and the layers relative to it, topmost first. A layer whose root directory is opaque
/// (`.wh..wh..opq` at its top) is the last: overlayfs itself pays no attention to that mark there.
pub fn lower(root: &Path, chains: &[String]) -> (PathBuf, Vec<PathBuf>) {
    let layers = layers_dir(root);
    let mut lower = Vec::with_capacity(chains.len());
    for chain in chains.iter().rev() {
        let name = PathBuf::from(dir_name(chain));
        let mut mark = [0; 1];
        let opaque = rustix::fs::lgetxattr(layers.join(&name), layer::OPAQUE, &mut mark).is_ok() && &mark == b"y";
        lower.push(name);
        if opaque {
            break;
        }
    }
    (layers, lower)
}

/// Takes hold of the layers of one image, lowest first: `None` for one that is installed, a [`Slot`]
/// for one that is ours to unpack. Waits while another process unpacks the same (`waiting` hears the
/// chain ID). All of an image at once and in order, so that two pulls never wait for each other.
///
/// A layer that was installed before the machine last started is counted through first: we do not
/// sync, so a power cut may have cost its newest files. One that lost some is unpacked anew.
pub fn reserve(root: &Path, wanted: &[Wanted], waiting: &mut dyn FnMut(&str)) -> Result<Vec<Option<Slot>>> {
    let layers = make_layers_dir(root)?;
    let mut slots = Vec::with_capacity(wanted.len());
    let mut below: Vec<String> = Vec::new();
    for layer in wanted {
        slots.push(reserve_one(&layers, layer, &below, waiting)?);
        below.insert(0, layer.chain_id.clone());
    }
    Ok(slots)
}

fn reserve_one(
    layers: &Path,
    wanted: &Wanted,
    below: &[String],
    waiting: &mut dyn FnMut(&str),
) -> Result<Option<Slot>> {
    let chain = &wanted.chain_id;
    let name = dir_name(chain);
    if !is_dir_name(name) {
        return Err(Error::invalid(format!("invalid chain ID {chain:?}")));
    }
    let boot = boot_id()?;
    if read_record(layers, chain)?.is_some_and(|record| record.boot_id == boot) {
        return Ok(None);
    }
    let lock = match Lock::try_take(layers, name)? {
        Some(lock) => lock,
        None => {
            waiting(chain);
            Lock::take(layers, name)?
        }
    };
    let installed = layers.join(name);
    if let Some(mut record) = read_record(layers, chain)? {
        if record.boot_id == boot {
            return Ok(None);
        }
        if layer::measure(&installed).is_ok_and(|found| found == (record.files, record.file_bytes)) {
            record.boot_id = boot;
            write_record(layers, &record)?;
            return Ok(None);
        }
        remove_file(&record_path(layers, chain))?;
    }
    layer::remove_tree(&installed)?;
    let dir = make_empty(layers, name)?;
    Ok(Some(Slot { layers: layers.to_owned(), wanted: wanted.clone(), below: below.to_vec(), dir, _lock: lock }))
}

fn make_layers_dir(root: &Path) -> Result<PathBuf> {
    let layers = layers_dir(root);
    DirBuilder::new().recursive(true).mode(0o700).create(&layers).doing(|| format!("make {}", layers.display()))?;
    Ok(layers)
}

/// The work directory of the holder of the lock `name`.
fn make_empty(layers: &Path, name: &str) -> Result<PathBuf> {
    let dir = layers.join(format!(".tmp-{name}"));
    layer::remove_tree(&dir)?;
    fs::create_dir(&dir).doing(|| format!("make {}", dir.display()))?;
    // mkdir's mode is subject to the umask, and this will be somebody's root directory.
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).doing(|| format!("chmod {}", dir.display()))?;
    Ok(dir)
}

impl Slot {
    pub fn chain_id(&self) -> &str {
        &self.wanted.chain_id
    }

    pub fn diff_id(&self) -> &str {
        &self.wanted.diff_id
    }

    /// The empty directory to unpack to.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes the layer appear, whole, after the caller has verified its digest. The layers below
    /// come first: directories that this one does not mention take after theirs.
    pub fn commit(self, applied: &Applied) -> Result<()> {
        let chain = &self.wanted.chain_id;
        let parent = self.below.first();
        if let Some(parent) = parent
            && read_record(&self.layers, parent)?.is_none()
        {
            return Err(Error::system(format!(
                "install the layer {chain}: the layer below, {parent}, is not installed"
            )));
        }
        let below: Vec<PathBuf> = self.below.iter().map(|chain| self.layers.join(dir_name(chain))).collect();
        layer::inherit(&self.dir, &below, &applied.implied)?;
        let (files, file_bytes) = layer::measure(&self.dir)?;
        let installed = self.layers.join(dir_name(chain));
        fs::rename(&self.dir, &installed).doing(|| format!("install the layer {}", installed.display()))?;
        let record = Record {
            version: VERSION,
            chain_id: chain.clone(),
            diff_id: self.wanted.diff_id.clone(),
            parent: parent.cloned(),
            size: applied.bytes,
            files,
            file_bytes,
            boot_id: boot_id()?,
            extra: BTreeMap::new(),
        };
        write_record(&self.layers, &record).inspect_err(|_| {
            // Without a record it is rubbish; what cannot be removed now, the next sweep tries.
            let _ = layer::remove_tree(&installed);
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // After a commit nothing is there any more. What cannot be removed now, the next sweep tries.
        let _ = layer::remove_tree(&self.dir);
    }
}

/// A layer whose digest only its end will tell (an import). Dropped without [`Staged::commit`], it
/// leaves nothing behind.
#[derive(Debug)]
pub struct Staged {
    root: PathBuf,
    dir: PathBuf,
    _lock: Lock,
}

/// An empty directory to unpack a lowest layer to.
pub fn stage(root: &Path) -> Result<Staged> {
    let layers = make_layers_dir(root)?;
    loop {
        let name = format!("{:016x}", RandomState::new().build_hasher().finish());
        if let Some(lock) = Lock::try_take(&layers, &name)? {
            let dir = make_empty(&layers, &name)?;
            return Ok(Staged { root: root.to_owned(), dir, _lock: lock });
        }
    }
}

impl Staged {
    /// The empty directory to unpack to.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes it the layer `diff_id`, unless that is installed already.
    pub fn commit(self, diff_id: &str, applied: &Applied) -> Result<()> {
        let wanted = Wanted { chain_id: diff_id.to_owned(), diff_id: diff_id.to_owned() };
        let Some(slot) = reserve(&self.root, &[wanted], &mut |_| {})?.pop().flatten() else { return Ok(()) };
        // rename(2) takes the place of an empty directory.
        fs::rename(&self.dir, &slot.dir).doing(|| format!("install the layer {}", slot.dir.display()))?;
        slot.commit(applied)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        let _ = layer::remove_tree(&self.dir);
    }
}

/// Removes a layer. `false` if it is being installed by someone, or is not there.
pub fn remove(root: &Path, chain: &str) -> Result<bool> {
    let layers = layers_dir(root);
    if !is_dir_name(dir_name(chain)) || read_record(&layers, chain)?.is_none() {
        return Ok(false);
    }
    let Some(_lock) = Lock::try_take(&layers, dir_name(chain))? else { return Ok(false) };
    remove_file(&record_path(&layers, chain))?;
    layer::remove_tree(&layers.join(dir_name(chain)))?;
    Ok(true)
}

/// Removes every layer for whose chain ID `keep` says no; returns their chain IDs. Layers whose
/// records cannot be read stay.
pub fn retain(root: &Path, keep: &dyn Fn(&str) -> bool) -> Result<Vec<String>> {
    let mut removed = Vec::new();
    for record in list(root)? {
        if !keep(&record.chain_id) && remove(root, &record.chain_id)? {
            removed.push(record.chain_id);
        }
    }
    Ok(removed)
}

/// Removes what killed processes left: half-unpacked layers, locks, directories without a record.
/// What belongs to a living process stays.
pub fn sweep(root: &Path) -> Result<()> {
    let layers = layers_dir(root);
    for file in names_in(&layers)? {
        let name = file.strip_prefix(".tmp-").or_else(|| file.strip_prefix(".lock-")).unwrap_or(&file);
        let name = name.strip_suffix(".json").unwrap_or(name);
        if !is_dir_name(name) || file.ends_with(".json") && !file.starts_with('.') {
            continue;
        }
        let Some(_lock) = Lock::try_take(&layers, name)? else { continue };
        layer::remove_tree(&layers.join(format!(".tmp-{name}")))?;
        remove_file(&layers.join(format!(".tmp-{name}.json")))?;
        if !layers.join(format!("{name}.json")).exists() {
            layer::remove_tree(&layers.join(name))?;
        }
    }
    Ok(())
}

/// Waits until all layers are on the disk (syncfs). A pull does without: see [`reserve`].
pub fn sync(root: &Path) -> Result<()> {
    let layers = layers_dir(root);
    let dir = File::open(&layers).doing(|| format!("open {}", layers.display()))?;
    rustix::fs::syncfs(&dir).doing(|| format!("sync {}", layers.display()))
}

fn is_dir_name(name: &str) -> bool {
    name.len() == 16 && name.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
}

fn record_path(layers: &Path, chain: &str) -> PathBuf {
    layers.join(format!("{}.json", dir_name(chain)))
}

fn read_record(layers: &Path, chain: &str) -> Result<Option<Record>> {
    let path = record_path(layers, chain);
    match load(&path)? {
        Some(record) if record.chain_id != chain => Err(Error::conflict(format!(
            "layer {chain}: {} belongs to the layer {}, whose ID begins alike",
            path.display(),
            record.chain_id
        ))
        .with_hint("remove the image that uses the other layer first")),
        found => Ok(found),
    }
}

fn load(path: &Path) -> Result<Option<Record>> {
    let text = match fs::read(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.doing(|| format!("read {}", path.display()))?,
    };
    let damaged = |cause: String| {
        Error::new(Kind::System, format!("read {}", path.display()))
            .with_cause(cause)
            .with_hint("remove this file to have the layer unpacked anew at the next pull")
    };
    // The version first: a newer record need not have our fields.
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let Version { version } = serde_json::from_slice(&text).map_err(|e| damaged(e.to_string()))?;
    if version > VERSION {
        return Err(Error::system(format!("read {}", path.display()))
            .with_cause(format!("written by a newer rrun (format {version}, this one knows {VERSION})"))
            .with_hint("use that rrun, or another --root"));
    }
    serde_json::from_slice(&text).map(Some).map_err(|e| damaged(e.to_string()))
}

fn write_record(layers: &Path, record: &Record) -> Result<()> {
    let path = record_path(layers, &record.chain_id);
    let temporary = layers.join(format!(".tmp-{}.json", dir_name(&record.chain_id)));
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(&serde_json::to_vec(record)?)?;
        fs::rename(&temporary, &path)
    };
    write().doing(|| format!("write {}", path.display()))
}

fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done.doing(|| format!("remove {}", path.display())),
    }
}

/// Names that are not UTF-8 are none of ours.
fn names_in(dir: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.doing(|| format!("read {}", dir.display()))?,
    };
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
}

fn boot_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = fs::read_to_string(path).doing(|| format!("read {path}"))?;
    Ok(text.trim().to_owned())
}

/// An exclusive lock on `layers/.lock-<name>`; the kernel frees it when its holder dies. Its file
/// goes with it, which is why taking it checks that the name still means the file locked.
#[derive(Debug)]
struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    fn try_take(layers: &Path, name: &str) -> Result<Option<Lock>> {
        Lock::attempt(layers, name, FlockOperation::NonBlockingLockExclusive)
    }

    fn take(layers: &Path, name: &str) -> Result<Lock> {
        let lock = Lock::attempt(layers, name, FlockOperation::LockExclusive)?;
        Ok(lock.expect("a blocking flock does not return EWOULDBLOCK"))
    }

    fn attempt(layers: &Path, name: &str, how: FlockOperation) -> Result<Option<Lock>> {
        let path = layers.join(format!(".lock-{name}"));
        loop {
            let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
            let file = file.doing(|| format!("open {}", path.display()))?;
            match rustix::fs::flock(&file, how) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(Errno::INTR) => continue,
                Err(e) => return Err(e).doing(|| format!("lock {}", path.display())),
            }
            let locked = file.metadata().doing(|| format!("look at {}", path.display()))?;
            if fs::metadata(&path).is_ok_and(|named| named.ino() == locked.ino() && named.dev() == locked.dev()) {
                return Ok(Some(Lock { path, _file: file }));
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Still held here, so the name is ours to remove. Left behind, it only awaits a sweep.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests;
