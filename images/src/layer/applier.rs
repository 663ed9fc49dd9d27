//! Makes the files of a layer, one member after the other.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::rc::Rc;

use plan::Result;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::confined::{self, Root, failed};
use super::member::{Kind, Member, Members};
use super::name::{Name, Place};
use super::number::Moment;
use super::{Applied, Limits, Manner, broken, shown, tree};

/// Data is looked at in pieces of this size; one that is all zeros becomes a hole. Smaller ones
/// would shred files into extents for little gain.
const PIECE: usize = 64 << 10;
const BUFFER: usize = 4 * PIECE;

/// Memory for the names of directories that still wait for their times.
const MAX_PENDING: usize = 32 << 20;

pub struct Applier<'l> {
    root: Root,
    limits: &'l Limits,
    manner: Manner,
    entries: u64,
    bytes: u64,
    root_seen: bool,
    /// Times of directories, set last: making a file in one changes them.
    pending: Vec<(Vec<u8>, Moment)>,
    pending_bytes: usize,
    buffer: Vec<u8>,
}

impl<'l> Applier<'l> {
    pub fn new(root: OwnedFd, limits: &'l Limits, manner: Manner) -> Applier<'l> {
        Applier {
            root: Root::new(root),
            limits,
            manner,
            entries: 0,
            bytes: 0,
            root_seen: false,
            pending: Vec::new(),
            pending_bytes: 0,
            buffer: vec![0; BUFFER],
        }
    }

    /// Makes one member, reading its data from `members`.
    pub fn apply(&mut self, member: &Member, members: &mut Members<'_>) -> Result<()> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(broken(format!("the layer has more than {} entries", self.limits.entries)));
        }
        let name = match self.manner {
            Manner::Layer => Name::parse(&member.name, self.limits)?,
            Manner::Plain { .. } => Name::plain(&member.name, self.limits)?,
        };
        match name {
            Name::Aufs => Ok(()),
            Name::Root if member.kind == Kind::Directory => {
                self.root_seen = true;
                let top = self.root.top();
                give_attributes(&top, member).map_err(|e| failed(b"/", e))?;
                self.pend(Vec::new(), member.mtime)
            }
            Name::Root => {
                Err(broken(format!("{}: a name for the root directory, on something else", shown(&member.name))))
            }
            Name::Opaque(dir) => {
                let fd = self.root.make(&dir)?;
                confined::open_to_read(&fd, b".").and_then(confined::set_opaque).map_err(|e| failed(&member.name, e))
            }
            Name::Whiteout(place) => self.whiteout(&place),
            Name::Path(place) => self.file(&place, member, members),
        }
    }

    /// Sets the times that had to wait, and reports.
    pub fn finish(mut self) -> Result<Applied> {
        self.set_pending()?;
        let root = (!self.root_seen).then(PathBuf::new);
        let others = self.root.implied.into_iter().map(|path| PathBuf::from(OsString::from_vec(path)));
        Ok(Applied { entries: self.entries, bytes: self.bytes, implied: root.into_iter().chain(others).collect() })
    }

    /// A whiteout speaks of the layers below only. A file that this layer has at the name hides
    /// theirs anyway; a directory must be made to.
    fn whiteout(&mut self, place: &Place) -> Result<()> {
        let dir = self.root.make(&place.parent)?;
        let made = rustix::fs::mknodat(&dir, place.base.as_slice(), FileType::CharacterDevice, Mode::empty(), 0);
        let done = match made {
            Err(Errno::EXIST) => match confined::open_to_read(&dir, &place.base) {
                Ok(ours) => confined::set_opaque(ours),
                Err(Errno::NOTDIR | Errno::LOOP) => Ok(()),
                Err(e) => Err(e),
            },
            made => made,
        };
        done.map_err(|e| failed(&place.path(), e))
    }

    fn file(&mut self, place: &Place, member: &Member, members: &mut Members<'_>) -> Result<()> {
        if member.kind == Kind::Socket {
            return Ok(());
        }
        let dir = self.root.make(&place.parent)?;
        let base = place.base.as_slice();
        let fail = |e: Errno| failed(&place.path(), e);
        match member.kind {
            Kind::File => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let fd =
                    self.make(&dir, place, || rustix::fs::openat(&dir, base, flags, Mode::from_raw_mode(0o600)))?;
                self.write(&fd, place, member, members)?;
                give_attributes(&fd, member).map_err(fail)?;
                rustix::fs::futimens(&fd, &times(member.mtime)).map_err(fail)
            }
            Kind::Directory => {
                let fd = self.directory(&dir, place)?;
                give_attributes(&fd, member).map_err(fail)?;
                self.pend(place.path(), member.mtime)
            }
            Kind::HardLink => self.hard_link(&dir, place, member),
            Kind::Symlink => {
                if member.link.is_empty() {
                    return Err(broken(format!("{}: symlink without a target", shown(&place.path()))));
                }
                self.make(&dir, place, || rustix::fs::symlinkat(member.link.as_slice(), &dir, base))?;
                self.give_owner_and_times(&dir, place, member)
            }
            Kind::CharDevice if member.device == (0, 0) => {
                Err(broken(format!("{}: character device 0:0, which would hide a file", shown(&place.path()))))
            }
            Kind::CharDevice => self.special(&dir, place, member, FileType::CharacterDevice),
            Kind::BlockDevice => self.special(&dir, place, member, FileType::BlockDevice),
            Kind::Fifo => self.special(&dir, place, member, FileType::Fifo),
            Kind::Socket => Ok(()),
        }
    }

    /// Makes something new at `place`. What is there already goes: the last member of a name wins.
    fn make<T>(&mut self, dir: &OwnedFd, place: &Place, make: impl Fn() -> Result<T, Errno>) -> Result<T> {
        match make() {
            Err(Errno::EXIST) => {
                self.clear(dir, place)?;
                make().map_err(|e| failed(&place.path(), e))
            }
            made => made.map_err(|e| failed(&place.path(), e)),
        }
    }

    /// An existing directory is taken over with what is in it. One that takes the place of
    /// something else (a whiteout, a file) hides what the layers below have there, as those did.
    fn directory(&mut self, dir: &OwnedFd, place: &Place) -> Result<OwnedFd> {
        let base = place.base.as_slice();
        let fail = |e: Errno| failed(&place.path(), e);
        let make = || rustix::fs::mkdirat(dir, base, Mode::from_raw_mode(0o700));
        let opaque = match make() {
            Ok(()) => false,
            Err(Errno::EXIST) => match confined::open_to_read(dir, base) {
                Ok(fd) => return Ok(fd),
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    self.clear(dir, place)?;
                    make().map_err(fail)?;
                    self.manner == Manner::Layer
                }
                Err(e) => return Err(fail(e)),
            },
            Err(e) => return Err(fail(e)),
        };
        let fd = confined::open_to_read(dir, base).map_err(fail)?;
        if opaque {
            confined::set_opaque(&fd).map_err(fail)?;
        }
        Ok(fd)
    }

    fn clear(&mut self, dir: &OwnedFd, place: &Place) -> Result<()> {
        let there = confined::stat(dir, &place.base).map_err(|e| failed(&place.path(), e))?;
        match there.map(|s| FileType::from_raw_mode(s.st_mode)) {
            Some(FileType::Directory) => {
                self.root.forget();
                let gone = place.path();
                self.pending.retain(|(path, _)| {
                    !(path.starts_with(&gone) && matches!(path.get(gone.len()), None | Some(b'/')))
                });
                self.pending_bytes = self.pending.iter().map(|(path, _)| pending_size(path)).sum();
            }
            Some(FileType::Symlink) => self.root.forget(),
            _ => {}
        }
        tree::remove_tree_at(dir.as_fd(), OsStr::from_bytes(&place.base)).map_err(|e| e.context(shown(&place.path())))
    }

    /// Writes the data, leaving holes where the map has them and where long runs are zero.
    fn write(&mut self, file: &OwnedFd, place: &Place, member: &Member, members: &mut Members<'_>) -> Result<()> {
        let fail = |e: Errno| failed(&place.path(), e);
        let mut end = 0;
        for extent in &member.extents {
            let (mut at, mut left) = (extent.offset, extent.length);
            self.bytes += left;
            while left > 0 {
                let want = usize::try_from(left).unwrap_or(BUFFER).min(BUFFER);
                let mut filled = 0;
                while filled < want {
                    filled += members.read(&mut self.buffer[filled..want])?;
                }
                for (start, run) in data_runs(&self.buffer[..want]) {
                    write_all_at(file, run, at + start as u64).map_err(fail)?;
                    end = at + (start + run.len()) as u64;
                }
                at += want as u64;
                left -= want as u64;
            }
        }
        if end < member.size {
            rustix::fs::ftruncate(file, member.size).map_err(fail)?;
        }
        Ok(())
    }

    /// A second name for a file of this layer. Its target is a path from the root, whose last
    /// component is not followed.
    fn hard_link(&mut self, dir: &Rc<OwnedFd>, place: &Place, member: &Member) -> Result<()> {
        let name = place.path();
        let fail = |e: Errno| failed(&name, e);
        let wrong = |why: &str| broken(format!("{}: hard link to {}, {why}", shown(&name), shown(&member.link)));
        let target = Name::hard_link_target(&member.link, self.limits).map_err(|e| e.context(shown(&name)))?;
        let target = target.ok_or_else(|| wrong("the root directory"))?;
        let missing = || wrong("which is not in this layer");
        let from = self.root.find(&target.parent).map_err(fail)?.ok_or_else(missing)?;
        let source = confined::stat(&from, &target.base).map_err(fail)?.ok_or_else(missing)?;
        if FileType::from_raw_mode(source.st_mode) == FileType::Directory {
            return Err(wrong("a directory"));
        }
        if confined::is_whiteout(&source) {
            return Err(missing());
        }
        if let Some(there) = confined::stat(dir, &place.base).map_err(fail)?
            && (there.st_dev, there.st_ino) == (source.st_dev, source.st_ino)
        {
            return Ok(());
        }
        self.make(dir, place, || {
            rustix::fs::linkat(&from, target.base.as_slice(), dir.as_fd(), place.base.as_slice(), AtFlags::empty())
        })
    }

    fn special(&mut self, dir: &OwnedFd, place: &Place, member: &Member, kind: FileType) -> Result<()> {
        let base = place.base.as_slice();
        let number = rustix::fs::makedev(member.device.0, member.device.1);
        self.make(dir, place, || rustix::fs::mknodat(dir, base, kind, Mode::from_raw_mode(0o600), number))?;
        self.give_owner_and_times(dir, place, member)
    }

    /// For what cannot be opened: symlinks, devices, FIFOs. We have just made it, so the chmod,
    /// which would follow a symlink, has none to follow.
    fn give_owner_and_times(&self, dir: &OwnedFd, place: &Place, member: &Member) -> Result<()> {
        let base = place.base.as_slice();
        let give = || -> Result<(), Errno> {
            let (uid, gid) = (Uid::from_raw(member.uid), Gid::from_raw(member.gid));
            rustix::fs::chownat(dir, base, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
            if member.kind != Kind::Symlink {
                rustix::fs::chmodat(dir, base, Mode::from_raw_mode(member.mode), AtFlags::empty())?;
            }
            rustix::fs::utimensat(dir, base, &times(member.mtime), AtFlags::SYMLINK_NOFOLLOW)
        };
        give().map_err(|e| failed(&place.path(), e))
    }

    fn pend(&mut self, path: Vec<u8>, mtime: Moment) -> Result<()> {
        self.pending_bytes += pending_size(&path);
        self.pending.push((path, mtime));
        if self.pending_bytes > MAX_PENDING { self.set_pending() } else { Ok(()) }
    }

    fn set_pending(&mut self) -> Result<()> {
        self.pending_bytes = 0;
        for (path, mtime) in std::mem::take(&mut self.pending) {
            // A directory that has gone since takes its times along.
            let Some(dir) = self.root.find(&path).map_err(|e| failed(&path, e))? else { continue };
            rustix::fs::utimensat(&dir, ".", &times(mtime), AtFlags::empty()).map_err(|e| failed(&path, e))?;
        }
        Ok(())
    }
}

fn pending_size(path: &[u8]) -> usize {
    path.len() + size_of::<(Vec<u8>, Moment)>()
}

/// Owner first: a change of owner takes setuid bits and file capabilities away.
fn give_attributes(fd: &OwnedFd, member: &Member) -> Result<(), Errno> {
    rustix::fs::fchown(fd, Some(Uid::from_raw(member.uid)), Some(Gid::from_raw(member.gid)))?;
    rustix::fs::fchmod(fd, Mode::from_raw_mode(member.mode))?;
    for (name, value) in member.xattrs.iter().filter(|(name, _)| xattr_is_kept(name)) {
        match rustix::fs::fsetxattr(fd, name.as_slice(), value, XattrFlags::empty()) {
            // The file system has no such attributes, or this file cannot carry this one.
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// What belongs to the files themselves. Not `trusted.*` and `user.overlay.*`: overlayfs would take
/// them for its own marks (redirects to other directories, metadata-only copies); nor labels of
/// the security modules of the machine that built the image.
fn xattr_is_kept(name: &[u8]) -> bool {
    match name {
        b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default" => true,
        _ => name.starts_with(b"user.") && !name.starts_with(b"user.overlay.") && !name.contains(&0),
    }
}

fn times(mtime: Moment) -> Timestamps {
    let time = Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// The stretches of `buffer` between pieces that are all zeros. The last piece counts as data when
/// it is not whole: a short tail is not worth a hole.
fn data_runs(buffer: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let hole = |from: usize| buffer.get(from..from + PIECE).is_some_and(is_zero);
        while hole(at) {
            at += PIECE;
        }
        if at >= buffer.len() {
            return None;
        }
        let start = at;
        while at < buffer.len() && !hole(at) {
            at += PIECE;
        }
        at = at.min(buffer.len());
        Some((start, &buffer[start..at]))
    })
}

/// Real data shows in the first bytes; the rest is one memcmp of the buffer with itself, shifted.
fn is_zero(bytes: &[u8]) -> bool {
    bytes[..16] == [0; 16] && bytes[16..] == bytes[..bytes.len() - 16]
}

fn write_all_at(file: &OwnedFd, mut data: &[u8], mut at: u64) -> Result<(), Errno> {
    while !data.is_empty() {
        let n = match rustix::io::pwrite(file, data, at) {
            Ok(0) => return Err(Errno::IO),
            Ok(n) => n,
            Err(Errno::INTR) => continue,
            Err(e) => return Err(e),
        };
        data = &data[n..];
        at += n as u64;
    }
    Ok(())
}
