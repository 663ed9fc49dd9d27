//! Hiding and protecting paths by mounting over them.

use super::devices::verified_null;
use super::mounts::{attach, instance};
use super::tree::{Tree, is_directory};
use crate::sys::mount::{Change, setattr};
use plan::{Error, Result};
use rustix::fs::{FileType, Mode, OFlags, makedev, mknodat};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Attributes of the empty directory that covers others.
const SEALED: u64 =
    libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;

/// Opens what is there to be covered; what is not there needs no cover.
fn existing(tree: &Tree, path: &Path) -> rustix::io::Result<Option<OwnedFd>> {
    match tree.open(path, OFlags::PATH) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(e) => Err(e),
    }
}

/// A further detached copy of a mount that is attached in our namespace.
fn copy_of(fd: &OwnedFd, recursive: bool) -> rustix::io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(fd, c"", flags)
}

/// Covers files with the null device and directories with an empty read-only tmpfs (one for all).
pub(super) fn mask(tree: &Tree, paths: &[PathBuf], null: Option<&OwnedFd>) -> Result<()> {
    let mut empty: Option<OwnedFd> = None;
    let mut own_null: Option<OwnedFd> = None;
    for path in paths {
        let failed = |e: Errno| Error::os(format!("mask {}", path.display()), e.raw_os_error());
        let Some(at) = existing(tree, path).map_err(failed)? else { continue };
        if is_directory(&at).map_err(failed)? {
            let cover = match &empty {
                Some(mounted) => copy_of(mounted, false),
                None => instance("tmpfs", "tmpfs", SEALED, &["nr_inodes=1".into()]),
            };
            let cover = cover.map_err(failed)?;
            attach(&cover, &at).map_err(failed)?;
            empty.get_or_insert(cover);
            continue;
        }
        let cover = match null.or(own_null.as_ref()) {
            Some(node) => copy_of(node, false).map_err(failed)?,
            // /dev is the user's own mount: its null may be anything.
            None => private_null()?,
        };
        attach(&cover, &at).map_err(failed)?;
        if null.is_none() && own_null.is_none() {
            own_null = Some(cover);
        }
    }
    Ok(())
}

/// A null device in a tmpfs that nobody else sees.
fn private_null() -> Result<OwnedFd> {
    let failed = |e: Errno| Error::os("make a null device for masks", e.raw_os_error());
    let dir = instance("tmpfs", "tmpfs", libc::MOUNT_ATTR_NOSUID, &["mode=755".into()]).map_err(failed)?;
    mknodat(&dir, c"null", FileType::CharacterDevice, Mode::from(0o666), makedev(1, 3)).map_err(failed)?;
    verified_null(&dir)
}

/// Binds each path onto itself, read-only with everything below; other attributes stay.
pub(super) fn readonly(tree: &Tree, paths: &[PathBuf]) -> Result<()> {
    for path in paths {
        let failed = |e: Errno| Error::os(format!("make {} read-only", path.display()), e.raw_os_error());
        let Some(at) = existing(tree, path).map_err(failed)? else { continue };
        let copy = copy_of(&at, true).map_err(failed)?;
        setattr(copy.as_fd(), true, Change::attributes(libc::MOUNT_ATTR_RDONLY, 0)).map_err(failed)?;
        attach(&copy, &at).map_err(failed)?;
    }
    Ok(())
}
