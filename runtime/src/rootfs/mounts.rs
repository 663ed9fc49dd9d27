//! Mounting: new file systems, binds, the overlay.

use super::tree::{Kind, Tree, is_directory};
use crate::planner::options;
use crate::step::Change as Wanted;
use crate::sys::mount::{Change, setattr};
use plan::{Error, Result};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// `mount x on /y: cause`.
fn failed(what: impl std::fmt::Display, on: &Path, e: Errno) -> Error {
    Error::os(format!("mount {what} on {}", on.display()), e.raw_os_error())
}

/// Puts the detached mount `from` on top of what `target` is.
pub(super) fn attach(from: &OwnedFd, target: &OwnedFd) -> rustix::io::Result<()> {
    move_mount(
        from,
        c"",
        target,
        c"",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH,
    )
}

/// A detached copy of the mount (tree) at a path of the host, or of a process's own mounts if the
/// path begins with its `/proc/<pid>/root`: the kernel copies only out of the mount namespace that the
/// caller is in, so we go there for a moment.
pub(super) fn clone_tree(source: &Path, recursive: bool) -> Result<OwnedFd> {
    let Some((namespace, inside)) = of_process(source) else { return copy(source, recursive) };
    let failed = |e: Errno| Error::os(format!("enter the mounts behind {}", source.display()), e.raw_os_error());
    let open = |path: &Path| rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let own = open(Path::new("/proc/self/ns/mnt")).map_err(failed)?;
    let enter = |ns: &OwnedFd| move_into_link_name_space(ns.as_fd(), Some(LinkNameSpaceType::Mount));
    open(&namespace).and_then(|ns| enter(&ns)).map_err(failed)?;
    let copied = copy(&inside, recursive);
    enter(&own).map_err(failed)?;
    copied
}

/// `/proc/7/root/dev/shm` as `/proc/7/ns/mnt` and `/dev/shm`.
fn of_process(path: &Path) -> Option<(PathBuf, PathBuf)> {
    let (pid, inside) = path.to_str()?.strip_prefix("/proc/")?.split_once("/root/")?;
    pid.parse::<u32>().ok()?;
    Some((PathBuf::from(format!("/proc/{pid}/ns/mnt")), Path::new("/").join(inside)))
}

/// `/volumes/x/_data/./a/b`: what follows the dot is looked up inside what precedes it. Containers
/// write there, and a symbolic link of theirs must not lead out (CVE-2021-25741 and kin).
fn of_volume(path: &Path) -> Option<(&Path, &Path)> {
    let (volume, inside) = path.to_str()?.split_once("/./")?;
    Some((Path::new(volume), Path::new(inside)))
}

fn copy(source: &Path, recursive: bool) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let copied = match of_volume(source) {
        None => open_tree(CWD, source, flags),
        Some((volume, inside)) => rustix::fs::open(volume, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .and_then(|volume| Tree::new(volume).open(inside, OFlags::PATH))
            .and_then(|part| open_tree(part, c"", flags | OpenTreeFlags::AT_EMPTY_PATH)),
    };
    copied.map_err(|e| {
        let error = Error::os(format!("bind {}", source.display()), e.raw_os_error());
        match e {
            Errno::NOENT => error.with_hint("the source must exist on the host"),
            // The kernel refuses to copy unbindable mounts.
            Errno::INVAL => error.with_hint("an unbindable mount cannot be shown in a second place"),
            _ => error,
        }
    })
}

/// The overlay, mounted over `base` itself: no directory is needed for it, and names relative to
/// `base` keep many layers within the page that mount(2) takes. (fsconfig takes 256 bytes a value, and
/// `lowerdir+` is Linux 6.7.)
pub(super) fn overlay(base: &Path, lower: &[PathBuf], upper: &Path, work: &Path, volatile: bool) -> Result<Tree> {
    let data = CString::new(options::overlay_data(lower, upper, work, volatile))
        .map_err(|_| Error::invalid("a zero byte in a layer's path"))?;
    if data.as_bytes().len() >= 4096 {
        return Err(Error::invalid(format!("{} layers are more than one overlay mount takes", lower.len()))
            .with_hint("squash the image: docker export | rrun import"));
    }
    rustix::process::chdir(base).map_err(|e| failed("the root", base, e))?;
    rustix::mount::mount("overlay", base, "overlay", MountFlags::empty(), data.as_c_str()).map_err(|e| {
        let error = failed("overlay", base, e);
        match e {
            Errno::NODEV => error.with_hint("the kernel has no overlay file system: modprobe overlay"),
            Errno::INVAL => error.with_hint(
                "the upper directory may be on a file system that overlay refuses (overlay itself, NFS): see dmesg, and use --root on another",
            ),
            Errno::NOENT => error.with_hint("a layer is missing from the store: pull the image again"),
            Errno::BUSY => error.with_hint("another container uses the same writable directory"),
            _ => error,
        }
    })?;
    open_root(base)
}

/// A copy of the directory's mount on the directory itself.
pub(super) fn bind_root(path: &Path) -> Result<Tree> {
    let error = |e: Errno| failed("the root", path, e);
    let clone = clone_tree(path, true)?;
    setattr(clone.as_fd(), true, Change::propagation(libc::MS_PRIVATE)).map_err(error)?;
    let target =
        rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(error)?;
    attach(&clone, &target).map_err(error)?;
    Ok(Tree::new(clone))
}

fn open_root(path: &Path) -> Result<Tree> {
    let fd = rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| failed("the root", path, e))?;
    Ok(Tree::new(fd))
}

/// A new instance of a file system, detached.
pub(super) fn instance(kind: &str, source: &str, attributes: u64, data: &[String]) -> rustix::io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, c"source", source)?;
    for option in data {
        match option.split_once('=') {
            Some((key, value)) => fsconfig_set_string(&context, key, value)?,
            None => fsconfig_set_flag(&context, option.as_str())?,
        }
    }
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::from_bits_retain(attributes as u32);
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Mounts a new file system on `target`. procfs and sysfs only on a real directory of that name:
/// through a symbolic link they would be somewhere else than everything after expects.
pub(super) fn new_filesystem(
    tree: &Tree,
    kind: &str,
    source: &str,
    target: &Path,
    attributes: u64,
    data: &[String],
) -> Result<OwnedFd> {
    let at = if matches!(kind, "proc" | "sysfs") {
        plain_directory(tree, target)
    } else {
        tree.ensure(target, Kind::Directory)
    };
    let at = at.map_err(|e| {
        let error = failed(kind, target, e);
        match e {
            Errno::LOOP | Errno::NOTDIR => error.with_hint("in this image it is no ordinary directory"),
            _ => error,
        }
    })?;
    let mounted = instance(kind, source, attributes, data).map_err(|e| instance_error(kind, target, data, e))?;
    attach(&mounted, &at).map_err(|e| failed(kind, target, e))?;
    Ok(mounted)
}

fn plain_directory(tree: &Tree, target: &Path) -> rustix::io::Result<OwnedFd> {
    match tree.open_plain(target, OFlags::PATH | OFlags::DIRECTORY) {
        Err(Errno::NOENT) => {
            tree.ensure(target, Kind::Directory)?;
            tree.open_plain(target, OFlags::PATH | OFlags::DIRECTORY)
        }
        other => other,
    }
}

fn instance_error(kind: &str, target: &Path, data: &[String], e: Errno) -> Error {
    let error = failed(kind, target, e);
    match e {
        Errno::NODEV => error.with_hint(format!("the kernel has no file system {kind}: see /proc/filesystems")),
        Errno::INVAL if !data.is_empty() => {
            error.with_hint(format!("one of its options is refused: {}", data.join(",")))
        }
        Errno::PERM => error.with_hint("mounting takes CAP_SYS_ADMIN, and a caller that is not itself confined"),
        _ => error,
    }
}

/// `sys` of the procfs just mounted, from before anything covers it.
pub(super) fn proc_sys(procfs: &OwnedFd) -> Option<OwnedFd> {
    rustix::fs::openat(procfs, c"sys", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()
}

/// Attaches the clone `from` of `source` to `target`, which is made like it if missing.
pub(super) fn bind(tree: &Tree, from: OwnedFd, source: &Path, target: &Path, wanted: &Wanted) -> Result<()> {
    let error = |e: Errno| Error::os(format!("bind {} to {}", source.display(), target.display()), e.raw_os_error());
    let kind = if is_directory(&from).map_err(error)? { Kind::Directory } else { Kind::File };
    apply(&from, wanted).map_err(error)?;
    let at = tree.ensure(target, kind).map_err(|e| match e {
        Errno::NOTDIR | Errno::ISDIR => error(e).with_hint(
            "Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the expected type",
        ),
        _ => error(e),
    })?;
    attach(&from, &at).map_err(error)
}

fn apply(mount: &OwnedFd, wanted: &Wanted) -> rustix::io::Result<()> {
    // Whatever is not asked for is cut: a copy of a shared mount is its peer.
    let cut = wanted.propagation.bits();
    if wanted.propagation_recursive || wanted.propagation == crate::step::Propagation::Private {
        let mut all = Change::propagation(cut);
        all.set = wanted.set_recursive;
        all.clear = wanted.clear_recursive;
        setattr(mount.as_fd(), true, all)?;
    } else {
        setattr(mount.as_fd(), true, Change::propagation(libc::MS_PRIVATE))?;
        setattr(mount.as_fd(), false, Change::propagation(cut))?;
        if wanted.set_recursive | wanted.clear_recursive != 0 {
            setattr(mount.as_fd(), true, Change::attributes(wanted.set_recursive, wanted.clear_recursive))?;
        }
    }
    if wanted.set | wanted.clear != 0 {
        setattr(mount.as_fd(), false, Change::attributes(wanted.set, wanted.clear))?;
    }
    Ok(())
}

/// The v1 view: a small tmpfs whose directories are the container's own groups.
pub(super) fn cgroups(
    tree: &Tree,
    target: &Path,
    binds: &[(PathBuf, String)],
    links: &[(String, String)],
    readonly: bool,
) -> Result<()> {
    let hard = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    let error = |e: Errno| failed("cgroup", target, e);
    let at = tree.ensure(target, Kind::Directory).map_err(error)?;
    let top = instance("tmpfs", "tmpfs", hard, &["mode=755".to_string()]).map_err(error)?;
    for (name, to) in links {
        rustix::fs::symlinkat(to.as_str(), &top, name.as_str()).map_err(error)?;
    }
    attach(&top, &at).map_err(error)?;
    for (source, name) in binds {
        let error = |e: Errno| {
            Error::os(format!("bind {} to {}", source.display(), target.join(name).display()), e.raw_os_error())
        };
        rustix::fs::mkdirat(&top, name.as_str(), Mode::from(0o755)).map_err(error)?;
        // In a tmpfs of our own the name leads where we made it.
        move_mount(clone_tree(source, false)?, c"", &top, name.as_str(), MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .map_err(error)?;
    }
    // All of them at once.
    let mut change = Change::propagation(libc::MS_PRIVATE);
    change.set = hard | if readonly { libc::MOUNT_ATTR_RDONLY } else { 0 };
    setattr(top.as_fd(), true, change).map_err(error)
}
