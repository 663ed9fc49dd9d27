//! Removing a tree that a container or an image has shaped.
//!
//! Everything goes through directory fds: no symlink is followed, no mount is entered, whatever
//! runs meanwhile. Depth is no limit either (a container can nest directories without end): below a
//! certain depth a subtree is first moved up to the top.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use plan::{Error, Result, ResultExt};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, RenameFlags, ResolveFlags};
use rustix::io::Errno;

use super::shown;

/// Levels held open at once: each costs an fd and a buffer.
const MAX_OPEN: usize = 32;

/// Passes over a directory that something else keeps filling, before we give up.
const MAX_PASSES: usize = 16;

/// Removes `path` and all below it, a directory or any other file; nothing there is fine. Refuses
/// to cross into another mount: what was removed until then stays removed.
pub fn remove_tree(path: &Path) -> Result<()> {
    let name = path.file_name().ok_or_else(|| Error::invalid(format!("remove {}: not a name", path.display())))?;
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    match rustix::fs::open(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(parent) => remove_tree_at(parent.as_fd(), name),
        Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(e).doing(|| format!("open {}", parent.display())),
    }
}

/// As [`remove_tree`], for `name` (a single component) in the directory `parent`.
pub fn remove_tree_at(parent: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.contains(&b'/') || bytes.contains(&0) {
        return Err(Error::invalid(format!("remove {}: not a name", shown(bytes))));
    }
    let name = CString::new(bytes).map_err(|_| Error::invalid("remove: name with a NUL byte"))?;
    match rustix::fs::unlinkat(parent, &name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR) => {}
        Err(e) => return Err(failed(&name, e)),
    }
    let Some(top) = open(parent, &name)? else { return Ok(()) };
    let mut removal = Removal { top: &top, moved: 0 };
    removal.remove_dir(parent, &name, &top, 0)
}

struct Removal<'t> {
    top: &'t OwnedFd,
    /// Subtrees moved up to the top so far.
    moved: u64,
}

impl Removal<'_> {
    /// Empties `dir` and removes it: it is `name` in `parent`.
    fn remove_dir(&mut self, parent: BorrowedFd<'_>, name: &CStr, dir: &OwnedFd, depth: usize) -> Result<()> {
        let mut passes = 0;
        loop {
            let moved = self.moved;
            self.empty(dir, depth)?;
            match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                // Either we moved subtrees up to here, or another process adds files.
                Err(Errno::NOTEMPTY | Errno::EXIST) if self.moved > moved || passes < MAX_PASSES => passes += 1,
                Err(e) => return Err(failed(name, e)),
            }
            rustix::fs::seek(dir, rustix::fs::SeekFrom::Start(0)).doing(|| "rewind a directory")?;
        }
    }

    fn empty(&mut self, dir: &OwnedFd, depth: usize) -> Result<()> {
        for name in unlink_files(dir)? {
            if depth < MAX_OPEN {
                if let Some(child) = open(dir.as_fd(), &name)? {
                    self.remove_dir(dir.as_fd(), &name, &child, depth + 1)?;
                }
            } else {
                self.move_up(dir, &name)?;
            }
        }
        Ok(())
    }

    fn move_up(&mut self, dir: &OwnedFd, name: &CStr) -> Result<()> {
        loop {
            self.moved += 1;
            let up = format!(".removing-{}", self.moved);
            match rustix::fs::renameat_with(dir, name, self.top, up, RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => {}
                done => return done.map_err(|e| failed(name, e)),
            }
        }
    }
}

/// Counts what is below `dir`: files of any kind, and the bytes of the regular ones. Enough to see
/// whether a crash cost some of it.
pub(crate) fn measure(dir: &Path) -> Result<(u64, u64)> {
    let doing = || format!("look through {}", dir.display());
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = rustix::fs::open(dir, flags, Mode::empty()).doing(doing)?;
    let (mut files, mut bytes) = (0, 0);
    let mut left = vec![b".".to_vec()];
    let mut buffer = Vec::with_capacity(16 << 10);
    while let Some(path) = left.pop() {
        let fd = match rustix::fs::openat2(&top, &path[..], flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
            // Deeper than names reach: counted, not entered.
            Err(Errno::NAMETOOLONG) => continue,
            opened => opened.doing(doing)?,
        };
        let mut entries = RawDir::new(&fd, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry.doing(doing)?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            files += 1;
            let stat = rustix::fs::statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW).doing(doing)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => left.push([&path[..], b"/", name.to_bytes()].concat()),
                FileType::RegularFile => bytes += u64::try_from(stat.st_size).unwrap_or(0),
                _ => {}
            }
        }
    }
    Ok((files, bytes))
}

/// Unlinks every entry of `dir` that is not a directory, and names those that are.
fn unlink_files(dir: &OwnedFd) -> Result<Vec<CString>> {
    let mut directories = Vec::new();
    let mut buffer = Vec::with_capacity(16 << 10);
    let mut entries = RawDir::new(dir, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry.doing(|| "read a directory to remove")?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        if entry.file_type() != FileType::Directory {
            match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => continue,
                Err(Errno::ISDIR) => {}
                Err(e) => return Err(failed(name, e)),
            }
        }
        directories.push(name.to_owned());
    }
    Ok(directories)
}

/// Opens the directory `name` itself; `None` if it has gone.
fn open(parent: BorrowedFd<'_>, name: &CStr) -> Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    match rustix::fs::openat2(parent, name, flags, Mode::empty(), how) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(failed(name, e)),
    }
}

fn failed(name: &CStr, errno: Errno) -> Error {
    let error = Error::os(format!("remove {}", shown(name.to_bytes())), errno.raw_os_error());
    match errno {
        Errno::XDEV | Errno::BUSY => error
            .with_kind(plan::Kind::Conflict)
            .with_cause("something is mounted there")
            .with_hint("see `findmnt`, unmount it, then remove again"),
        Errno::PERM => error.with_hint("the file may be immutable: see `lsattr`, and `chattr -i` it"),
        _ => error,
    }
}
