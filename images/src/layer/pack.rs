//! The other way round: a directory becomes a tar stream.
//!
//! The tree may belong to a running, hostile container: everything is opened relative to a directory
//! already held, no symlink is followed, and a file that changes while it is read keeps the size that
//! its header announced. The same tree gives the same bytes: names are sorted, times are whole seconds.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use plan::{Error, Result};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use tar::{Builder, EntryType, Header};

use super::confined::OPAQUE;
use super::name::join;
use super::shown;

/// Open directories are held down to here; no real tree comes near.
const MAX_DEPTH: usize = 512;

/// File systems that are views of the kernel: a walk through them neither ends nor means anything.
const KERNEL: [u32; 7] = [
    0x9fa0,      // proc
    0x6265_6572, // sysfs
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup2
    0x1cd1,      // devpts
    0x1980_0202, // mqueue
    0x7363_6673, // securityfs (s-c-f-s)
];

/// Writes trees to one tar stream.
pub struct Packer<W: Write> {
    out: Builder<W>,
    /// Overlayfs' marks become a layer's: device 0:0 a `.wh.` name, an opaque directory `.wh..wh..opq`.
    whiteouts: bool,
    /// Files with several names: the first one.
    seen: HashMap<(u64, u64), Vec<u8>>,
    bytes: u64,
}

impl<W: Write> Packer<W> {
    /// Of a tree as people see it.
    pub fn new(out: W) -> Packer<W> {
        Packer { out: Builder::new(out), whiteouts: false, seen: HashMap::new(), bytes: 0 }
    }

    /// Of the upper directory of an overlay: what changed above the layers below.
    pub fn of_layer(out: W) -> Packer<W> {
        Packer { whiteouts: true, ..Packer::new(out) }
    }

    /// Bytes of files so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// All in a directory, named below `name` (empty: the archive's root). `itself`: a member for the
    /// directory too.
    pub fn directory(&mut self, dir: BorrowedFd<'_>, name: &[u8], itself: bool) -> Result<()> {
        let stat = rustix::fs::fstat(dir).map_err(|e| failed(name, e))?;
        if itself {
            self.member(&stat, name, b"", &xattrs(dir).map_err(|e| failed(name, e))?, &mut std::io::empty())?;
        }
        self.children(dir, name, 0)
    }

    /// One file of a directory, with all below it, under `name`.
    pub fn file(&mut self, dir: BorrowedFd<'_>, base: &CStr, name: &[u8]) -> Result<()> {
        self.one(dir, base, name, 0)
    }

    /// An open regular file under `name`; anything else is left out.
    pub fn opened(&mut self, fd: OwnedFd, name: &[u8]) -> Result<()> {
        let fail = |e: Errno| failed(name, e);
        // What was opened counts: a path may mean another file by now.
        let stat = rustix::fs::fstat(&fd).map_err(fail)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(());
        }
        let attributes = xattrs(fd.as_fd()).map_err(fail)?;
        self.bytes += stat.st_size.unsigned_abs();
        self.member(&stat, name, b"", &attributes, &mut File::from(fd))
    }

    /// The end of the archive.
    pub fn finish(self) -> Result<W> {
        self.out.into_inner().map_err(|e| Error::io("write the archive", &e))
    }

    fn children(&mut self, dir: BorrowedFd<'_>, name: &[u8], depth: usize) -> Result<()> {
        let fail = |e: Errno| failed(name, e);
        if depth > MAX_DEPTH {
            return Err(Error::invalid(format!("{} lies more than {MAX_DEPTH} directories deep", shown(name))));
        }
        if KERNEL.contains(&(rustix::fs::fstatfs(dir).map_err(fail)?.f_type as u32)) {
            return Ok(());
        }
        let mut names: Vec<CString> = Vec::new();
        for entry in Dir::read_from(dir).map_err(fail)? {
            let base = entry.map_err(fail)?.file_name().to_owned();
            if base.as_c_str() != c"." && base.as_c_str() != c".." {
                names.push(base);
            }
        }
        names.sort();
        for base in names {
            self.one(dir, &base, &join(name, base.to_bytes()), depth)?;
        }
        Ok(())
    }

    fn one(&mut self, dir: BorrowedFd<'_>, base: &CStr, name: &[u8], depth: usize) -> Result<()> {
        let fail = |e: Errno| failed(name, e);
        let stat = match rustix::fs::statat(dir, base, AtFlags::SYMLINK_NOFOLLOW) {
            // Removed since the directory was read.
            Err(Errno::NOENT) if depth > 0 => return Ok(()),
            other => other.map_err(fail)?,
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::Directory && stat.st_nlink > 1 {
            let key = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.seen.get(&key).cloned() {
                return self.header(EntryType::Link, &stat, name, &first, &[], 0, &mut std::io::empty());
            }
            if kind != FileType::Socket {
                self.seen.insert(key, name.to_vec());
            }
        }
        match kind {
            FileType::Directory => {
                let fd = open(dir, base, OFlags::RDONLY | OFlags::DIRECTORY).map_err(fail)?;
                let attributes = xattrs(fd.as_fd()).map_err(fail)?;
                if self.whiteouts && self.has_redirect(&fd) {
                    return Err(Error::system(format!("{}: a directory that overlayfs renamed in place", shown(name)))
                        .with_hint("a layer cannot say so: copy the directory to another name and remove this one"));
                }
                self.member(&stat, name, b"", &attributes, &mut std::io::empty())?;
                let mut value = [0u8; 8];
                if self.whiteouts
                    && matches!(rustix::fs::fgetxattr(&fd, OPAQUE, &mut value), Ok(n) if value[..n] == *b"y")
                {
                    self.marker(&stat, &join(name, b".wh..wh..opq"))?;
                }
                self.children(fd.as_fd(), name, depth + 1)
            }
            FileType::RegularFile => {
                let fd = open(dir, base, OFlags::RDONLY).map_err(fail)?;
                self.opened(fd, name)
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(dir, base, Vec::new()).map_err(fail)?;
                self.member(&stat, name, target.as_bytes(), &[], &mut std::io::empty())
            }
            FileType::CharacterDevice if self.whiteouts && stat.st_rdev == 0 => {
                let (parent, last) = match name.iter().rposition(|b| *b == b'/') {
                    Some(at) => (&name[..at], &name[at + 1..]),
                    None => (&b""[..], name),
                };
                self.marker(&stat, &join(parent, &[b".wh.", last].concat()))
            }
            FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo => {
                self.member(&stat, name, b"", &[], &mut std::io::empty())
            }
            // A socket without its listener is nothing.
            _ => Ok(()),
        }
    }

    fn has_redirect(&self, dir: &OwnedFd) -> bool {
        rustix::fs::fgetxattr(dir, "trusted.overlay.redirect", &mut [0u8; 4096]).is_ok()
    }

    /// An empty file whose name says something of the layers below.
    fn marker(&mut self, stat: &Stat, name: &[u8]) -> Result<()> {
        let mut plain = *stat;
        (plain.st_mode, plain.st_size, plain.st_uid, plain.st_gid) = (libc::S_IFREG, 0, 0, 0);
        self.member(&plain, name, b"", &[], &mut std::io::empty())
    }

    fn member(
        &mut self,
        stat: &Stat,
        name: &[u8],
        link: &[u8],
        attributes: &[(String, Vec<u8>)],
        content: &mut dyn Read,
    ) -> Result<()> {
        let (kind, size) = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => (EntryType::Directory, 0),
            FileType::Symlink => (EntryType::Symlink, 0),
            FileType::CharacterDevice => (EntryType::Char, 0),
            FileType::BlockDevice => (EntryType::Block, 0),
            FileType::Fifo => (EntryType::Fifo, 0),
            _ => (EntryType::Regular, stat.st_size.unsigned_abs()),
        };
        self.header(kind, stat, name, link, attributes, size, content)
    }

    /// What ustar's fields are too small for goes into PAX records before the header.
    #[expect(clippy::too_many_arguments, reason = "the fields of one header")]
    fn header(
        &mut self,
        kind: EntryType,
        stat: &Stat,
        name: &[u8],
        link: &[u8],
        attributes: &[(String, Vec<u8>)],
        size: u64,
        content: &mut dyn Read,
    ) -> Result<()> {
        let doing = |e: std::io::Error| Error::io(format!("write {} to the archive", shown(name)), &e);
        let mut name = if name.is_empty() { b".".to_vec() } else { name.to_vec() };
        if kind.is_dir() {
            name.push(b'/');
        }
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(stat.st_mode & 0o7777);
        header.set_uid(stat.st_uid.into());
        header.set_gid(stat.st_gid.into());
        header.set_size(size);
        header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
        if matches!(kind, EntryType::Char | EntryType::Block) {
            header.set_device_major(rustix::fs::major(stat.st_rdev)).map_err(doing)?;
            header.set_device_minor(rustix::fs::minor(stat.st_rdev)).map_err(doing)?;
        }
        let before_1970 = stat.st_mtime.to_string();
        let mut records: Vec<(&str, &[u8])> = Vec::new();
        let raw = header.as_old_mut();
        for (key, value, field) in [("path", &name[..], &mut raw.name), ("linkpath", link, &mut raw.linkname)] {
            let short = value.len().min(field.len());
            field[..short].copy_from_slice(&value[..short]);
            if value.len() > field.len() {
                records.push((key, value));
            }
        }
        if stat.st_mtime < 0 {
            records.push(("mtime", before_1970.as_bytes()));
        }
        records.extend(attributes.iter().map(|(key, value)| (key.as_str(), value.as_slice())));
        header.set_cksum();
        self.out.append_pax_extensions(records).map_err(doing)?;
        self.out.append(&header, Exactly { inner: content, left: size }).map_err(doing)
    }
}

/// As many bytes as were announced: what is missing is zeros, what is too much stays away.
struct Exactly<'a> {
    inner: &'a mut dyn Read,
    left: u64,
}

impl Read for Exactly<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buf.len());
        if most == 0 {
            return Ok(0);
        }
        let n = match self.inner.read(&mut buf[..most])? {
            0 => {
                buf[..most].fill(0);
                most
            }
            n => n,
        };
        self.left -= n as u64;
        Ok(n)
    }
}

fn open(dir: BorrowedFd<'_>, base: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    // NONBLOCK: should a FIFO have taken the file's place, nobody waits for its writer.
    let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::openat(dir, base, flags, Mode::empty())
}

/// File capabilities, ACLs and user attributes as PAX records; what the file system keeps for itself
/// (`trusted.`) or the host's policy put there (`security.selinux`) stays.
fn xattrs(fd: BorrowedFd<'_>) -> Result<Vec<(String, Vec<u8>)>, Errno> {
    let mut list = vec![0u8; 64 << 10];
    let used = match rustix::fs::flistxattr(fd, &mut list) {
        Ok(used) => used,
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut found = Vec::new();
    for name in list[..used].split(|b| *b == 0).filter_map(|n| std::str::from_utf8(n).ok()) {
        let wanted =
            name.starts_with("user.") || name == "security.capability" || name.starts_with("system.posix_acl_");
        if !wanted || name.starts_with("user.overlay.") {
            continue;
        }
        let mut value = vec![0u8; 64 << 10];
        match rustix::fs::fgetxattr(fd, name, &mut value) {
            Ok(n) => found.push((format!("SCHILY.xattr.{name}"), value[..n].to_vec())),
            // Taken away since it was listed.
            Err(Errno::NODATA) => {}
            Err(e) => return Err(e),
        }
    }
    found.sort();
    Ok(found)
}

fn failed(name: &[u8], e: Errno) -> Error {
    Error::os(format!("read {}", if name.is_empty() { "/".to_owned() } else { shown(name) }), e.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::{Limits, apply};
    use crate::testing::Scratch;
    use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};

    fn dir(path: &std::path::Path) -> OwnedFd {
        rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap()
    }

    #[test]
    fn a_tree_survives_the_way_through_an_archive() {
        let scratch = Scratch::new();
        let (from, to) = (scratch.dir.join("from"), scratch.dir.join("to"));
        let long = "n".repeat(200);
        std::fs::create_dir_all(from.join("d").join(&long)).unwrap();
        std::fs::create_dir(&to).unwrap();
        std::fs::write(from.join("d").join(&long).join("f"), b"deep").unwrap();
        std::fs::write(from.join("a"), b"hello").unwrap();
        std::fs::set_permissions(from.join("a"), std::fs::Permissions::from_mode(0o4755)).unwrap();
        std::fs::hard_link(from.join("a"), from.join("d/b")).unwrap();
        symlink("x".repeat(150), from.join("l")).unwrap();
        let hole = File::create(from.join("hole")).unwrap();
        hole.write_all_at(b"end", 3_000_000).unwrap();
        rustix::fs::mknodat(dir(&from), "p", FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();

        let mut packer = Packer::new(Vec::new());
        packer.directory(dir(&from).as_fd(), b"", true).unwrap();
        assert_eq!(packer.bytes(), 4 + 5 + 3_000_003);
        let tar = packer.finish().unwrap();
        let mut again = Packer::new(Vec::new());
        again.directory(dir(&from).as_fd(), b"", true).unwrap();
        assert!(again.finish().unwrap() == tar);

        apply(&mut &tar[..], &to, &Limits::default()).unwrap();
        assert_eq!(std::fs::read(to.join("d").join(&long).join("f")).unwrap(), b"deep");
        let (a, b) = (std::fs::metadata(to.join("a")).unwrap(), std::fs::metadata(to.join("d/b")).unwrap());
        assert_eq!((a.ino(), a.mode() & 0o7777, a.len()), (b.ino(), 0o4755, 5));
        assert_eq!(std::fs::read_link(to.join("l")).unwrap().as_os_str().len(), 150);
        assert_eq!(std::fs::metadata(to.join("hole")).unwrap().len(), 3_000_003);
        assert_eq!(a.mtime(), std::fs::metadata(from.join("a")).unwrap().mtime());
        assert!(std::fs::symlink_metadata(to.join("p")).unwrap().mode() & libc::S_IFMT == libc::S_IFIFO);
    }

    #[test]
    fn one_file_under_another_name() {
        let scratch = Scratch::new();
        std::fs::write(scratch.dir.join("f"), b"x").unwrap();
        let mut packer = Packer::new(Vec::new());
        packer.file(dir(&scratch.dir).as_fd(), c"f", b"g/h").unwrap();
        let e = packer.file(dir(&scratch.dir).as_fd(), c"none", b"none").unwrap_err();
        assert_eq!(e.errno, Some(libc::ENOENT));
        let tar = packer.finish().unwrap();
        let mut archive = tar::Archive::new(&tar[..]);
        let names: Vec<_> = archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().into_owned()).collect();
        assert_eq!(names, [std::path::Path::new("g/h")]);
    }

    #[test]
    fn what_shrinks_is_filled_and_what_grows_is_cut() {
        for content in [&b"ab"[..], b"abcdef"] {
            let mut out = Vec::new();
            Exactly { inner: &mut &content[..], left: 4 }.read_to_end(&mut out).unwrap();
            assert_eq!(out.len(), 4);
            assert!(out.starts_with(b"ab"));
        }
    }
}
