//! Device nodes and the links in `/dev`.

use super::tree::Tree;
use crate::spec::Device;
use crate::spec::defaults::{DEVICE_LINKS, DEVICES};
use plan::{Error, Result};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, makedev, mknodat};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::path::Path;

/// The six nodes and the links; gives back our own, verified `null`.
pub(super) fn standard(tree: &Tree) -> Result<OwnedFd> {
    let failed = |name: &str, e: Errno| make_error(&Path::new("/dev").join(name), e);
    let dev = tree.ensure(Path::new("/dev"), super::tree::Kind::Directory).map_err(|e| failed("", e))?;
    for (name, major, minor) in DEVICES {
        let mode = Mode::from(0o666);
        match mknodat(&dev, name, FileType::CharacterDevice, mode, makedev(major, minor)) {
            // An image with nodes of its own and no tmpfs on /dev (an OCI bundle).
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(failed(name, e)),
        }
    }
    for (name, to) in DEVICE_LINKS {
        match rustix::fs::symlinkat(to, &dev, name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(failed(name, e)),
        }
    }
    verified_null(&dev)
}

/// Masks show this node, so it must be the null device and no link to something the image chose
/// (CVE-2025-31133).
pub(super) fn verified_null(dir: &OwnedFd) -> Result<OwnedFd> {
    let error = |e: Errno| Error::os("open the container's /dev/null", e.raw_os_error());
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(dir, c"null", flags, Mode::empty()).map_err(error)?;
    let stat = rustix::fs::statat(&fd, c"", AtFlags::EMPTY_PATH).map_err(error)?;
    let real = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == makedev(1, 3);
    if real {
        return Ok(fd);
    }
    Err(Error::system("the image's /dev/null is not the null device")
        .with_hint("mount a tmpfs on /dev, or remove the file from the image"))
}

/// A device that was asked for, with the mode and owner it has on the host.
pub(super) fn one(tree: &Tree, device: &Device) -> Result<()> {
    let failed = |e: Errno| make_error(&device.path, e);
    let (dir, name) = tree.parent(&device.path).map_err(failed)?;
    let kind = match device.kind {
        'b' => FileType::BlockDevice,
        'p' => FileType::Fifo,
        _ => FileType::CharacterDevice,
    };
    let number = if device.kind == 'p' { 0 } else { makedev(device.major, device.minor) };
    match mknodat(&dir, name, kind, Mode::from(device.mode), number) {
        // `--device /dev/null`: one of the standard nodes, or the image's own, is that very device.
        Err(Errno::EXIST) if is_node(&dir, name, kind, number) => return Ok(()),
        made => made.map_err(failed)?,
    }
    if device.uid == 0 && device.gid == 0 {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
    rustix::fs::chownat(&dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)
}

fn is_node(dir: &OwnedFd, name: impl rustix::path::Arg, kind: FileType, number: u64) -> bool {
    rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == kind && stat.st_rdev == number)
}

fn make_error(path: &Path, e: Errno) -> Error {
    let error = Error::os(format!("make device node {}", path.display()), e.raw_os_error());
    match e {
        Errno::PERM => {
            error.with_hint("making device nodes takes CAP_MKNOD, and the caller's own device cgroup must allow it")
        }
        Errno::EXIST => error.with_hint("the image or another option already puts something there"),
        _ => error,
    }
}
