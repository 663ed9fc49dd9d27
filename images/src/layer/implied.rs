//! Directories that a layer needs but does not mention.
//!
//! A layer that adds `tmp/x` without an entry for `tmp` (Bazel, ko and jib write such ones) does not
//! mean to change `/tmp`. But overlayfs shows a merged directory as the topmost layer has it, so
//! ours must look like the one below.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use plan::{Result, ResultExt};
use rustix::fs::{Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::confined::{failed, is_opaque, open_to_read};

/// What one layer shows at a path.
enum Look {
    Directory(Box<Stat>),
    /// Something that ends the search: a file or whiteout, or an opaque directory above.
    Hidden,
    Absent,
}

/// Gives each of `implied` (paths in the layer at `own`) owner, mode and time of the directory that
/// it will cover in the layers `below`, topmost first. Where there is none it stays as it is.
pub fn inherit(own: &Path, below: &[PathBuf], implied: &[PathBuf]) -> Result<()> {
    if below.is_empty() || implied.is_empty() {
        return Ok(());
    }
    let own = open_layer(own)?;
    let below = below.iter().map(|dir| open_layer(dir)).collect::<Result<Vec<_>>>()?;
    for path in implied {
        inherit_one(&own, &below, path).map_err(|e| failed(path.as_os_str().as_bytes(), e))?;
    }
    Ok(())
}

fn open_layer(dir: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(dir, flags, Mode::empty()).doing(|| format!("open the layer {}", dir.display()))
}

fn inherit_one(own: &OwnedFd, below: &[OwnedFd], path: &Path) -> Result<(), Errno> {
    let mut dir = open_to_read(own, b".")?;
    for part in path {
        dir = open_to_read(&dir, part.as_bytes())?;
        if is_opaque(&dir)? {
            return Ok(());
        }
    }
    for layer in below {
        match look(layer, path.iter())? {
            Look::Absent => {}
            Look::Hidden => return Ok(()),
            Look::Directory(model) => {
                rustix::fs::fchown(&dir, Some(Uid::from_raw(model.st_uid)), Some(Gid::from_raw(model.st_gid)))?;
                rustix::fs::fchmod(&dir, Mode::from_raw_mode(model.st_mode & 0o7777))?;
                let time = |tv_sec, nsec| Timespec { tv_sec, tv_nsec: i64::try_from(nsec).unwrap_or(0) };
                let times = Timestamps {
                    last_access: time(model.st_atime, model.st_atime_nsec),
                    last_modification: time(model.st_mtime, model.st_mtime_nsec),
                };
                return rustix::fs::futimens(&dir, &times);
            }
        }
    }
    Ok(())
}

fn look<'p>(layer: &OwnedFd, path: impl Iterator<Item = &'p OsStr>) -> Result<Look, Errno> {
    let mut dir = open_to_read(layer, b".")?;
    let mut sealed = false;
    for part in path {
        sealed |= is_opaque(&dir)?;
        dir = match open_to_read(&dir, part.as_bytes()) {
            Ok(dir) => dir,
            Err(Errno::NOENT) => return Ok(if sealed { Look::Hidden } else { Look::Absent }),
            Err(Errno::NOTDIR | Errno::LOOP) => return Ok(Look::Hidden),
            Err(e) => return Err(e),
        };
    }
    rustix::fs::fstat(&dir).map(|stat| Look::Directory(Box::new(stat)))
}
