//! Garbage: layers and blobs that no image refers to, and what a killed process left in `tmp/`.

use super::Store;
use super::lock::{Lock, share_file, try_lock_file};
use super::record::{self, Record};
use crate::digest::{Digest, chain_ids};
use crate::snapshot;
use plan::{Error, Kind, Result, ResultExt};
use std::collections::HashSet;
use std::path::Path;

impl Store {
    /// Keeps content from being collected while it is not yet named. Held by pull, load and import;
    /// also for whoever is about to use an image that might be removed meanwhile.
    pub fn hold(&self) -> Result<Lock> {
        share_file(&self.tmp()?.join(CONTENT_LOCK))
    }

    /// As [`Store::hold`], after clearing away what a killed pull left, when nobody else is pulling.
    pub(crate) fn hold_swept(&self) -> Result<Lock> {
        let tmp = self.tmp()?;
        if let Some(_alone) = try_lock_file(&tmp.join(CONTENT_LOCK))? {
            self.sweep(&tmp)?;
        }
        self.hold()
    }

    /// Removes every layer and blob that no image refers to. Returns the chain IDs of the layers, as
    /// far as their records could be read. Does nothing while a pull is under way: what it fetched
    /// has no image yet, and the next collection finds the rest.
    pub fn collect(&self) -> Result<Vec<String>> {
        let _lock = self.lock_refs()?;
        self.collect_locked()
    }

    /// Clears away the complete layers of an image that failed, when they are of no use to another
    /// attempt: a broken image stays broken, a full disk needs them gone.
    pub(crate) fn collect_after(&self, e: &Error) {
        if e.kind == Kind::Invalid || matches!(e.errno, Some(libc::ENOSPC | libc::EDQUOT)) {
            // The failure itself is what the caller hears of.
            let _ = self.collect();
        }
    }

    /// The caller holds the lock of `refs/`. Lock order: `refs/lock`, then the content lock, which is
    /// only tried: a pull takes them the other way round.
    pub(super) fn collect_locked(&self) -> Result<Vec<String>> {
        let tmp = self.tmp()?;
        let Some(_alone) = try_lock_file(&tmp.join(CONTENT_LOCK))? else { return Ok(Vec::new()) };
        self.sweep(&tmp)?;
        let mut blobs: HashSet<Digest> = HashSet::new();
        let mut chains: HashSet<String> = HashSet::new();
        for id in record::ids(&self.root)? {
            // A record that cannot be read may refer to anything: collect nothing.
            let parts = Record::load(&self.root, &id)?.parts;
            chains.extend(chain_ids(&parts.diff_ids).iter().map(|c| c.to_string()));
            blobs.extend(parts.blobs);
            blobs.insert(parts.manifest);
            blobs.insert(id);
        }
        let removed = snapshot::retain(&self.root, &|chain| chains.contains(chain))?;
        let dir = self.root.join("blobs/sha256");
        for name in names_in(&dir)? {
            let keep = Digest::parse(&format!("sha256:{name}")).is_ok_and(|d| blobs.contains(&d));
            if !keep {
                remove_any(&dir.join(name))?;
            }
        }
        Ok(removed)
    }

    /// The caller is alone: everything in progress belonged to the dead.
    fn sweep(&self, tmp: &Path) -> Result<()> {
        for name in names_in(tmp)? {
            if name != CONTENT_LOCK {
                remove_any(&tmp.join(name))?;
            }
        }
        snapshot::sweep(&self.root)
    }
}

const CONTENT_LOCK: &str = "content.lock";

fn names_in(dir: &Path) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.doing(|| format!("read {}", dir.display()))?,
    };
    // Names that are not UTF-8 are none of ours.
    Ok(entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect())
}

fn remove_any(path: &Path) -> Result<()> {
    let result = match std::fs::symlink_metadata(path) {
        Ok(m) if m.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(e) => Err(e),
    };
    match result {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.doing(|| format!("remove {}", path.display())),
    }
}
