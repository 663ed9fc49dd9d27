//! Leaving the host's tree, and what is done from inside the new root.

use super::tree::{Kind, Tree};
use crate::sys::mount::{Change, setattr_path};
use plan::{Error, Result};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use std::path::Path;

/// No mount made from here on reaches the host, and none of the host's comes here.
pub(crate) fn isolate() -> Result<()> {
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)
        .map_err(|e| Error::os("cut mount propagation on /", e.raw_os_error()))
}

/// Makes the tree the root directory. `pivot_root(".", ".")` stacks the old root on the new one, so
/// no directory in the image is needed to put it; then it is unmounted.
pub(crate) fn enter(tree: &Tree) -> Result<()> {
    let failed = |e: Errno| {
        let error = Error::os("change the root", e.raw_os_error());
        match e {
            Errno::INVAL => error.with_hint("pivot_root(2) refuses when the host's own root is an initramfs"),
            _ => error,
        }
    };
    rustix::process::fchdir(tree.root()).map_err(failed)?;
    rustix::process::pivot_root(".", ".").map_err(failed)?;
    // The old tree is private, so this does not reach the host. Lazily: it is busy (our stdio).
    unmount(".", UnmountFlags::DETACH).map_err(failed)?;
    rustix::process::chdir("/").map_err(failed)
}

pub(crate) fn readonly_root() -> Result<()> {
    setattr_path(c"/", false, Change::attributes(libc::MOUNT_ATTR_RDONLY, 0))
        .map_err(|e| Error::os("make the root read-only", e.raw_os_error()))
}

/// Changes to `path`, made if missing and wanted. Resolved inside the root without magic links: a
/// WORKDIR of /proc/self/fd/7 leads nowhere (CVE-2024-21626), a symbolic link stays inside
/// (CVE-2026-55686).
pub(crate) fn working_directory(path: &Path, create: bool) -> Result<()> {
    let failed = |e: Errno| {
        let error = Error::os(format!("chdir to cwd ({path:?})"), e.raw_os_error());
        match e {
            Errno::NOENT => error.with_hint("the directory must exist in the container"),
            Errno::NOTDIR => error.with_hint("in the container that is a file"),
            Errno::LOOP => error.with_hint("links such as /proc/self/fd/* are no working directory"),
            _ => error,
        }
    };
    let root =
        rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    let tree = Tree::new(root);
    let dir =
        if create { tree.ensure(path, Kind::Directory) } else { tree.open(path, OFlags::PATH | OFlags::DIRECTORY) };
    rustix::process::fchdir(dir.map_err(failed)?).map_err(failed)?;
    // The kernel says "(unreachable)" of a directory outside the root.
    let here = rustix::process::getcwd(Vec::new()).map_err(failed)?;
    if here.as_bytes().first() == Some(&b'/') {
        return Ok(());
    }
    Err(Error::system(format!("the working directory {path:?} is outside the container's root"))
        .with_hint("name a directory inside"))
}
