//! Paths inside the root, resolved by the kernel so that they stay there.

use plan::{Error, Result};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

/// openat2 gives up with EAGAIN when a rename anywhere races with `..` in the path; that often it is
/// an attack.
const TRIES: u32 = 128;
/// As many as the kernel follows.
const MAX_LINKS: u32 = 40;
/// What proc(5) and devpts answer to statfs, from linux/magic.h.
pub(crate) const PROC_MAGIC: u32 = 0x9fa0;
pub(crate) const DEVPTS_MAGIC: u32 = 0x1cd1;

/// A directory tree by the descriptor of its root.
pub(crate) struct Tree {
    root: OwnedFd,
}

/// What a mount point has to be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    File,
}

impl Tree {
    pub(crate) fn new(root: OwnedFd) -> Tree {
        Tree { root }
    }

    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Opens `path` as if the tree's root were `/`; magic links (`/proc/*/fd/*`) are refused, since
    /// they lead anywhere.
    pub(crate) fn open(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        open_in(self.root.as_fd(), path, flags, ResolveFlags::empty())
    }

    /// As [`Tree::open`], refusing symbolic links altogether.
    pub(crate) fn open_plain(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        open_in(self.root.as_fd(), path, flags, ResolveFlags::NO_SYMLINKS)
    }

    /// Opens `path` (O_PATH), making what is missing of it: directories, and at the end a directory
    /// or an empty file. Symbolic links are followed inside the root, dangling ones too: `/var/run`
    /// may point to a `/run` that is not there yet.
    pub(crate) fn ensure(&self, path: &Path, kind: Kind) -> rustix::io::Result<OwnedFd> {
        match self.open(path, OFlags::PATH) {
            Ok(fd) => return check_kind(fd, kind),
            Err(Errno::NOENT) => {}
            Err(e) => return Err(e),
        }
        if let Some(made) = self.make_last(path, kind)? {
            return Ok(made);
        }
        let mut todo: VecDeque<OsString> = components(path).collect();
        let mut done = PathBuf::from(".");
        let mut links = 0;
        while let Some(name) = todo.pop_front() {
            if name == ".." {
                done.pop();
                if done.as_os_str().is_empty() {
                    done.push(".");
                }
                continue;
            }
            let parent = self.open(&done, OFlags::PATH | OFlags::DIRECTORY)?;
            match rustix::fs::readlinkat(&parent, &name, Vec::new()) {
                Ok(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::LOOP);
                    }
                    let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                    if target.is_absolute() {
                        done = PathBuf::from(".");
                    }
                    for part in components(&target).collect::<Vec<_>>().into_iter().rev() {
                        todo.push_front(part);
                    }
                    continue;
                }
                Err(Errno::INVAL) => {}
                Err(Errno::NOENT) => {
                    make(&parent, &name, if todo.is_empty() { kind } else { Kind::Directory })?;
                }
                Err(e) => return Err(e),
            }
            done.push(name);
        }
        check_kind(self.open(&done, OFlags::PATH)?, kind)
    }

    /// Makes `path` where only its last part is missing, which is nearly always. `None`: it is not so, or
    /// somebody was faster.
    fn make_last(&self, path: &Path, kind: Kind) -> rustix::io::Result<Option<OwnedFd>> {
        let (Some(above), Some(Component::Normal(name))) = (path.parent(), path.components().next_back()) else {
            return Ok(None);
        };
        let Ok(above) = self.open(above, OFlags::PATH | OFlags::DIRECTORY) else { return Ok(None) };
        match make(&above, name, kind) {
            // What was made, or else what replaced it: the caller gets no symbolic link from us.
            Ok(true) => {
                let made =
                    rustix::fs::openat(&above, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
                let found = FileType::from_raw_mode(rustix::fs::fstat(&made)?.st_mode);
                let wanted = if kind == Kind::Directory { FileType::Directory } else { FileType::RegularFile };
                Ok((found == wanted).then_some(made))
            }
            Ok(false) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The directory that holds `path`, made if missing, and the last name.
    pub(crate) fn parent<'a>(&self, path: &'a Path) -> rustix::io::Result<(OwnedFd, &'a OsStr)> {
        let name = path.file_name().ok_or(Errno::INVAL)?;
        let parent = path.parent().unwrap_or(Path::new("/"));
        Ok((self.ensure(parent, Kind::Directory)?, name))
    }
}

/// `false`: there was something already; what it is, the caller checks.
fn make(parent: &OwnedFd, name: &OsStr, kind: Kind) -> rustix::io::Result<bool> {
    let made = match kind {
        Kind::Directory => rustix::fs::mkdirat(parent, name, Mode::from(0o755)),
        Kind::File => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
            rustix::fs::openat(parent, name, flags, Mode::from(0o644)).map(drop)
        }
    };
    match made {
        Err(Errno::EXIST) => Ok(false),
        other => other.map(|()| true),
    }
}

fn check_kind(fd: OwnedFd, kind: Kind) -> rustix::io::Result<OwnedFd> {
    match (kind, is_directory(&fd)?) {
        (Kind::Directory, false) => Err(Errno::NOTDIR),
        (Kind::File, true) => Err(Errno::ISDIR),
        _ => Ok(fd),
    }
}

pub(crate) fn is_directory(fd: &OwnedFd) -> rustix::io::Result<bool> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode) == FileType::Directory)
}

fn components(path: &Path) -> impl Iterator<Item = OsString> + '_ {
    path.components().filter_map(|c| match c {
        Component::Normal(name) => Some(name.to_os_string()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

fn open_in(root: BorrowedFd<'_>, path: &Path, flags: OFlags, more: ResolveFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | more;
    for _ in 0..TRIES {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// `/proc/sys` of the current root, checked to be procfs and not something that poses as it.
pub(crate) fn open_proc_sys() -> Result<OwnedFd> {
    let error = |e: Errno| Error::os("open /proc/sys", e.raw_os_error());
    let fd = rustix::fs::openat2(
        CWD,
        "/proc/sys",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS,
    )
    .map_err(error)?;
    let found = rustix::fs::fstatfs(&fd).map_err(error)?;
    if found.f_type as u32 != PROC_MAGIC {
        return Err(Error::system("/proc is not procfs").with_hint("sysctls are set through it: mount proc on /proc"));
    }
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    /// A directory of the test's own, and a canary beside the tree.
    fn tree(name: &str) -> (PathBuf, Tree) {
        let base = std::env::temp_dir().join(format!("rrun-tree-{}-{name}", std::process::id()));
        fs::create_dir_all(base.join("root")).unwrap();
        fs::create_dir_all(base.join("canary")).unwrap();
        let fd = rustix::fs::open(base.join("root"), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        (base.clone(), Tree::new(fd))
    }

    #[test]
    fn links_lead_nowhere_but_inside() {
        let (base, t) = tree("links");
        symlink(base.join("canary"), base.join("root/abs")).unwrap();
        symlink("../../../../../../canary", base.join("root/up")).unwrap();
        symlink("later/there", base.join("root/dangling")).unwrap();
        t.ensure(Path::new("/abs/x"), Kind::Directory).unwrap();
        t.ensure(Path::new("/up/y"), Kind::File).unwrap();
        t.ensure(Path::new("/dangling/../z"), Kind::File).unwrap();
        assert_eq!(fs::read_dir(base.join("canary")).unwrap().count(), 0);
        let inside = base.strip_prefix("/").unwrap();
        assert!(base.join("root").join(inside).join("canary/x").is_dir());
        assert!(base.join("root/canary/y").is_file());
        assert!(base.join("root/later/z").is_file());
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn loops_and_wrong_kinds_are_errors() {
        let (base, t) = tree("loops");
        symlink("b", base.join("root/a")).unwrap();
        symlink("a", base.join("root/b")).unwrap();
        fs::write(base.join("root/file"), "").unwrap();
        assert_eq!(t.ensure(Path::new("/a/x"), Kind::Directory).unwrap_err(), Errno::LOOP);
        assert_eq!(t.ensure(Path::new("/file"), Kind::Directory).unwrap_err(), Errno::NOTDIR);
        assert_eq!(t.ensure(Path::new("/file/x"), Kind::File).unwrap_err(), Errno::NOTDIR);
        assert_eq!(t.ensure(Path::new("/"), Kind::File).unwrap_err(), Errno::ISDIR);
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn magic_links_are_refused() {
        let root = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let e = Tree::new(root).open(Path::new("/proc/self/fd/0"), OFlags::PATH).unwrap_err();
        assert_eq!(e, Errno::LOOP);
    }
}
