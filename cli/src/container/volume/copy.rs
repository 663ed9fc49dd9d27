//! Filling a fresh volume with what the image has at its mount point.
//!
//! Image content is hostile input: the path to the directory is resolved inside the image's own
//! tree (openat2), and below it no symbolic link is ever followed.

use crate::container::tree::{self, child};
use plan::{Error, Result, ResultExt};
use runtime::spec::Root;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};
use std::collections::HashMap;
use std::ffi::CStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Open directories are held down to here; no real tree comes near.
const MAX_DEPTH: usize = 256;

/// Copies the image's `path` into the empty directory `to`. No such directory in the image: nothing
/// to do. `seat` is a directory that the image's layers can be mounted over.
///
/// The layers are joined by an overlay in a mount namespace of a child's own, so that the host
/// never sees it and nothing has to be unmounted.
///
/// # Errors
/// Of the copy.
pub fn from_image(root: &Root, path: &Path, to: &Path, seat: &Path) -> Result<()> {
    let Root::Overlay { base, lower, .. } = root else { return Ok(()) };
    child::spawn(true, || tree::joined(base, lower, seat).and_then(|image| directory(&image, path, to)))?.join()
}

fn directory(image: &OwnedFd, path: &Path, to: &Path) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let from = match tree::resolve(image.as_fd(), path, flags) {
        Ok(fd) => fd,
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => return Ok(()),
        Err(e) => return Err(Error::os(format!("open {} in the image", path.display()), e.raw_os_error())),
    };
    let to =
        rustix::fs::open(to, flags | OFlags::NOFOLLOW, Mode::empty()).doing(|| format!("open {}", to.display()))?;
    let mut copy = Copy { root: to.as_fd(), seen: HashMap::new() };
    copy.children(from.as_fd(), to.as_fd(), &mut PathBuf::new(), 0)?;
    let stat = rustix::fs::fstat(&from).doing(|| "stat the image's directory")?;
    attributes(from.as_fd(), to.as_fd(), &stat).doing(|| format!("copy the attributes of {}", path.display()))
}

struct Copy<'a> {
    root: BorrowedFd<'a>,
    /// Files with several names: where their first copy is, relative to `root`.
    seen: HashMap<(u64, u64), PathBuf>,
}

impl Copy<'_> {
    fn children(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, at: &mut PathBuf, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(Error::invalid(format!("{} lies more than {MAX_DEPTH} directories deep", at.display())));
        }
        for entry in Dir::read_from(from).doing(|| format!("read {}", at.display()))? {
            let entry = entry.doing(|| format!("read {}", at.display()))?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            at.push(std::ffi::OsStr::from_bytes(name.to_bytes()));
            self.one(from, to, name, at, depth)?;
            at.pop();
        }
        Ok(())
    }

    fn one(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CStr,
        at: &mut PathBuf,
        depth: usize,
    ) -> Result<()> {
        let shown = at.display().to_string();
        let doing = || format!("copy {shown}");
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW).doing(doing)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let open = |dir: BorrowedFd<'_>, flags: OFlags| {
            rustix::fs::openat(
                dir,
                name,
                flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC,
                Mode::RUSR | Mode::WUSR,
            )
        };
        match kind {
            FileType::Directory => {
                rustix::fs::mkdirat(to, name, Mode::RWXU).doing(doing)?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY;
                let (from, to) = (open(from, flags).doing(doing)?, open(to, flags).doing(doing)?);
                self.children(from.as_fd(), to.as_fd(), at, depth + 1)?;
                attributes(from.as_fd(), to.as_fd(), &stat).doing(doing)
            }
            FileType::RegularFile => {
                let key = (stat.st_dev, stat.st_ino);
                if stat.st_nlink > 1
                    && let Some(first) = self.seen.get(&key)
                {
                    return rustix::fs::linkat(self.root, first, to, name, AtFlags::empty()).doing(doing);
                }
                let from = open(from, OFlags::RDONLY).doing(doing)?;
                let to = open(to, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL).doing(doing)?;
                let (mut from, mut to) = (File::from(from), File::from(to));
                std::io::copy(&mut from, &mut to).doing(doing)?;
                if stat.st_nlink > 1 {
                    self.seen.insert(key, at.clone());
                }
                attributes(from.as_fd(), to.as_fd(), &stat).doing(doing)
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(from, name, Vec::new()).doing(doing)?;
                rustix::fs::symlinkat(target, to, name).doing(doing)?;
                named_attributes(to, name, &stat).doing(doing)
            }
            FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice => {
                let mode = Mode::from_raw_mode(stat.st_mode);
                rustix::fs::mknodat(to, name, kind, mode, stat.st_rdev).doing(doing)?;
                named_attributes(to, name, &stat).doing(doing)?;
                // mknod(2) heeds the umask.
                rustix::fs::chmodat(to, name, mode, AtFlags::empty()).doing(doing)
            }
            // A socket without its listener is nothing.
            _ => Ok(()),
        }
    }
}

fn owner(stat: &Stat) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds: i64, nanos: u64| Timespec { tv_sec: seconds, tv_nsec: nanos.cast_signed() };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

/// Owner first (chown clears set-id bits and capabilities), time last.
fn attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>, stat: &Stat) -> rustix::io::Result<()> {
    let (uid, gid) = owner(stat);
    rustix::fs::fchown(to, uid, gid)?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode))?;
    extended(from, to)?;
    rustix::fs::futimens(to, &times(stat))
}

fn named_attributes(to: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> rustix::io::Result<()> {
    let (uid, gid) = owner(stat);
    rustix::fs::chownat(to, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    rustix::fs::utimensat(to, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)
}

/// File capabilities, ACLs and user attributes; overlay's own (`trusted.`) stay behind.
fn extended(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let mut list = vec![0u8; 64 << 10];
    let used = match rustix::fs::flistxattr(from, &mut list) {
        Ok(used) => used,
        Err(rustix::io::Errno::OPNOTSUPP) => return Ok(()),
        Err(e) => return Err(e),
    };
    for name in list[..used].split_inclusive(|b| *b == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        if name.to_bytes().starts_with(b"trusted.") {
            continue;
        }
        let mut value = vec![0u8; 64 << 10];
        let size = rustix::fs::fgetxattr(from, name, &mut value)?;
        match rustix::fs::fsetxattr(to, name, &value[..size], rustix::fs::XattrFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
