//! The root of an unpacked layer: finds and makes directories in it, and never leaves it.
//!
//! The kernel does the confining: openat2(RESOLVE_IN_ROOT) takes absolute symlinks and `..` as
//! relative to the root, as chroot would. Nobody else writes to the directory meanwhile, so only
//! the archive itself can set traps.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use plan::{Error, Result};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, XattrFlags};
use rustix::io::Errno;

use super::name::join;
use super::{BROKEN_HINT, broken, shown};

pub const OPAQUE: &str = "trusted.overlay.opaque";

/// The kernel's own bound on symlinks in one resolution.
const MAX_SYMLINKS: usize = 40;

/// Memory for the names of implied directories; beyond it they keep their default attributes.
const MAX_IMPLIED: usize = 16 << 20;

pub struct Root {
    root: Rc<OwnedFd>,
    /// The last directory looked up: members of one directory follow one another.
    last: Option<(Vec<u8>, Rc<OwnedFd>)>,
    /// Directories made because a member lies in them, by their real paths.
    pub implied: Vec<Vec<u8>>,
    implied_bytes: usize,
}

impl Root {
    pub fn new(root: OwnedFd) -> Root {
        Root { root: Rc::new(root), last: None, implied: Vec::new(), implied_bytes: 0 }
    }

    /// The root, open for reading.
    pub fn top(&self) -> Rc<OwnedFd> {
        self.root.clone()
    }

    /// The directory at `path` (no `..` in it; symlinks are followed within the root), for use with
    /// the `*at` calls. Missing directories are made.
    pub fn make(&mut self, path: &[u8]) -> Result<Rc<OwnedFd>> {
        if let Some(found) = self.find(path).map_err(|e| failed(path, e))? {
            return Ok(found);
        }
        let made = Rc::new(self.walk(path)?);
        self.last = Some((path.to_vec(), made.clone()));
        Ok(made)
    }

    /// As [`Root::make`], without making anything: `None` if it does not exist as a directory.
    pub fn find(&mut self, path: &[u8]) -> Result<Option<Rc<OwnedFd>>, Errno> {
        if path.is_empty() {
            return Ok(Some(self.root.clone()));
        }
        if let Some((last, fd)) = &self.last
            && last == path
        {
            return Ok(Some(fd.clone()));
        }
        match open(&self.root, path, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS) {
            Ok(fd) => {
                let fd = Rc::new(fd);
                self.last = Some((path.to_vec(), fd.clone()));
                Ok(Some(fd))
            }
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// A directory or symlink went away: what was looked up through it may be another one now.
    pub fn forget(&mut self) {
        self.last = None;
    }

    /// Goes down `path` one component at a time, making what is missing; also where a symlink of
    /// this layer points to, since its target may well come later in the archive.
    fn walk(&mut self, path: &[u8]) -> Result<OwnedFd> {
        let mut left: VecDeque<Vec<u8>> = components(path).collect();
        let mut here: Vec<Vec<u8>> = Vec::new();
        let mut dir = open(&self.root, b".", ResolveFlags::IN_ROOT).map_err(|e| failed(path, e))?;
        let mut symlinks = 0;
        while let Some(part) = left.pop_front() {
            if part == b".." {
                here.pop();
                let back = if here.is_empty() { b".".to_vec() } else { here.join(&b'/') };
                dir = open(&self.root, &back, ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS)
                    .map_err(|e| failed(path, e))?;
                continue;
            }
            let found = stat(&dir, &part).map_err(|e| failed(path, e))?;
            match found.as_ref().map(|s| FileType::from_raw_mode(s.st_mode)) {
                Some(FileType::Directory) => {}
                Some(FileType::Symlink) => {
                    symlinks += 1;
                    if symlinks > MAX_SYMLINKS {
                        return Err(failed(path, Errno::LOOP));
                    }
                    let target =
                        rustix::fs::readlinkat(&dir, part.as_slice(), Vec::new()).map_err(|e| failed(path, e))?;
                    if target.to_bytes().starts_with(b"/") {
                        here.clear();
                        dir = open(&self.root, b".", ResolveFlags::IN_ROOT).map_err(|e| failed(path, e))?;
                    }
                    for part in components(target.to_bytes()).rev() {
                        left.push_front(part);
                    }
                    continue;
                }
                None => self.imply(&dir, &here, &part, false)?,
                Some(_) if found.as_ref().is_some_and(is_whiteout) => {
                    rustix::fs::unlinkat(&dir, part.as_slice(), AtFlags::empty()).map_err(|e| failed(path, e))?;
                    self.imply(&dir, &here, &part, true)?;
                }
                Some(_) => return Err(broken(format!("{}: a file where a directory must be", shown(path)))),
            }
            dir = open(&dir, &part, ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS).map_err(|e| failed(path, e))?;
            here.push(part);
        }
        Ok(dir)
    }

    fn imply(&mut self, dir: &OwnedFd, here: &[Vec<u8>], part: &[u8], opaque: bool) -> Result<()> {
        let path = join(&here.join(&b'/'), part);
        let made = || -> Result<(), Errno> {
            rustix::fs::mkdirat(dir, part, Mode::from_raw_mode(0o755))?;
            let made = open_to_read(dir, part)?;
            // mkdir's mode is subject to the umask.
            rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755))?;
            if opaque { set_opaque(&made) } else { Ok(()) }
        };
        made().map_err(|e| failed(&path, e))?;
        if self.implied_bytes < MAX_IMPLIED {
            self.implied_bytes += path.len() + size_of::<Vec<u8>>();
            self.implied.push(path);
        }
        Ok(())
    }
}

fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = Vec<u8>> + '_ {
    path.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".").map(<[u8]>::to_vec)
}

/// When any mount or rename on the machine comes between, the kernel cannot vouch for a `..` (in a
/// symlink) and says EAGAIN: then again. Containers that start meanwhile mount all the time.
fn open(dir: &OwnedFd, path: &[u8], how: ResolveFlags) -> Result<OwnedFd, Errno> {
    const TRIES: usize = 1000;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut opened = Err(Errno::AGAIN);
    for _ in 0..TRIES {
        opened = rustix::fs::openat2(dir, path, flags, Mode::empty(), how);
        if !matches!(opened, Err(Errno::AGAIN)) {
            break;
        }
    }
    opened
}

/// The directory `name` in `dir` itself, not through a symlink, for the `f*` calls.
pub fn open_to_read(dir: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

/// What is at `name`, itself; `None` if nothing.
pub fn stat(dir: impl AsFd, name: &[u8]) -> Result<Option<Stat>, Errno> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

/// overlayfs' mark for a name that the layers below have and the merged tree has not: character
/// device 0:0.
pub fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// overlayfs' mark for a directory that hides the one of the same name in the layers below.
pub fn set_opaque(dir: impl AsFd) -> Result<(), Errno> {
    rustix::fs::fsetxattr(dir, OPAQUE, b"y", XattrFlags::empty())
}

/// Whether the directory carries that mark.
pub fn is_opaque(dir: impl AsFd) -> Result<bool, Errno> {
    let mut value = [0; 1];
    match rustix::fs::fgetxattr(dir, OPAQUE, &mut value) {
        Ok(n) => Ok(&value[..n] == b"y"),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
        Err(e) => Err(e),
    }
}

/// What the kernel refused for the member at `path`, with what to do about it.
pub fn failed(path: &[u8], errno: Errno) -> Error {
    let error = Error::os(format!("unpack {}", shown(path)), errno.raw_os_error());
    match errno {
        Errno::NOSPC | Errno::DQUOT => {
            error.with_hint("free some disk space: `rrun rmi` removes images you do not need")
        }
        Errno::PERM | Errno::ACCESS => {
            error.with_hint("owners, devices and capabilities of files can only be set by root: use sudo")
        }
        Errno::LOOP | Errno::NAMETOOLONG | Errno::FBIG => error.with_kind(plan::Kind::Invalid).with_hint(BROKEN_HINT),
        _ => error,
    }
}
