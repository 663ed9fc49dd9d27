//! One image layer, a tar stream, unpacked into a directory that overlayfs will use as a lower one.
//!
//! [`member`] reads the stream, [`name`] says what a name asks for (file or whiteout), [`confined`]
//! finds directories without ever leaving the root, [`applier`] makes the files, [`implied`] puts
//! unmentioned directories right, [`tree`] removes all of it again. A layer is hostile until its digest is
//! known, and may be so after. [`pack`] is the way back: from a directory to a tar stream.

mod applier;
mod confined;
mod implied;
mod member;
mod name;
mod number;
mod pack;
mod pax;
mod sparse;
mod tree;

#[cfg(test)]
mod tests;

use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use plan::{Error, Result, ResultExt};
use rustix::fs::{Mode, OFlags};

pub(crate) use confined::OPAQUE;
pub(crate) use implied::inherit;
pub use pack::Packer;
pub(crate) use tree::measure;
pub use tree::{remove_tree, remove_tree_at};

/// What one layer may ask for.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Members of the archive.
    pub entries: u64,
    /// Bytes in the archive besides plain headers, holes not counted. What is free on the file system
    /// bounds them anyway; `None` for nothing more.
    pub bytes: Option<u64>,
    /// Directories above one another in a name.
    pub depth: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { entries: 2_000_000, bytes: None, depth: 1000 }
    }
}

/// What [`apply`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Members of the archive.
    pub entries: u64,
    /// Bytes of the files' data in the archive, holes not counted.
    pub bytes: u64,
    /// Directories that members lie in but the archive does not mention (relative to `dir`, parents
    /// first; empty: `dir` itself). They are root's, 0755, until someone who knows the layers below
    /// puts that right, as [`snapshot`](crate::snapshot) does.
    pub implied: Vec<PathBuf>,
}

/// Unpacks the uncompressed tar stream `tar` into the existing, empty directory `dir`, and reads
/// the stream to its end. Whiteouts become overlayfs' own; nothing outside `dir` is touched.
///
/// Errors name the member and the reason; `dir` is then to be thrown away. An error of `tar` that
/// carries a [`plan::Error`] inside comes back as that error.
pub fn apply(tar: &mut dyn Read, dir: &Path, limits: &Limits) -> Result<Applied> {
    let root = rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .doing(|| format!("open {}", dir.display()))?;
    run(tar, root, limits, Manner::Layer)
}

/// Unpacks a tar stream into a directory that has a life of its own: whiteouts are names like any other,
/// what is there is replaced. `owner` takes the place of the owners in the archive. Nothing outside
/// `dir` is touched, whatever symlinks it holds.
///
/// # Errors
/// As [`apply`]; what was unpacked before stays.
pub fn extract(tar: &mut dyn Read, dir: OwnedFd, owner: Option<(u32, u32)>) -> Result<Applied> {
    run(tar, dir, &Limits::default(), Manner::Plain { owner })
}

/// What a tar stream is unpacked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// A lower directory of an overlay.
    Layer,
    /// A directory as people see it.
    Plain { owner: Option<(u32, u32)> },
}

fn run(tar: &mut dyn Read, root: OwnedFd, limits: &Limits, manner: Manner) -> Result<Applied> {
    let disk = rustix::fs::fstatvfs(&root).doing(|| "look at the disk")?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let budget = limits.bytes.map_or(free, |bytes| bytes.min(free));

    let mut members = member::Members::new(tar, budget);
    let mut applier = applier::Applier::new(root, limits, manner);
    while let Some(mut member) = members.next()? {
        if let Manner::Plain { owner: Some((uid, gid)) } = manner {
            (member.uid, member.gid) = (uid, gid);
        }
        applier.apply(&member, &mut members)?;
    }
    members.drain()?;
    applier.finish()
}

const BROKEN_HINT: &str = "the image is broken or hostile: ask whoever built it, or pull it anew";

/// The image's fault, not the machine's.
fn broken(problem: impl Into<String>) -> Error {
    Error::invalid(problem).with_hint(BROKEN_HINT)
}

/// A name out of a layer as it may appear in a message: no control characters (they would reach the
/// terminal), not too long, bytes that are not UTF-8 as \x…
fn shown(bytes: &[u8]) -> String {
    const MOST: usize = 200;
    let mut text = String::new();
    for chunk in bytes[..bytes.len().min(MOST)].utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() { text.extend(c.escape_default()) } else { text.push(c) }
        }
        text.extend(chunk.invalid().iter().flat_map(|b| std::ascii::escape_default(*b)).map(char::from));
    }
    if bytes.len() > MOST {
        text.push('…');
    }
    text
}
