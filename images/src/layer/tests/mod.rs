//! Layers made by hand (here), by other tar programs (`writers`), and hostile ones.

mod hostile;
mod mutated;
mod overlay;
mod sound;
mod trees;
mod writers;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use plan::Result;

use super::*;

/// A directory of its own, gone with the value.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Scratch {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("rrun-layer-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        fs::create_dir(&dir).unwrap();
        Scratch(dir)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove_tree(&self.0).unwrap();
    }
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

pub fn me() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

/// A tar archive built header by header, so that it can say anything.
#[derive(Clone, Default)]
pub struct Tar {
    bytes: Vec<u8>,
}

impl Tar {
    pub fn new() -> Tar {
        Tar::default()
    }

    /// A ustar header owned by the caller, 0644 or 0755, mtime 1; `tweak` may change all of it.
    pub fn raw(mut self, flag: u8, name: &[u8], data: &[u8], tweak: impl FnOnce(&mut tar::UstarHeader)) -> Tar {
        let mut header = tar::Header::new_ustar();
        let (uid, gid) = me();
        header.set_uid(uid.into());
        header.set_gid(gid.into());
        header.set_mode(if flag == b'5' { 0o755 } else { 0o644 });
        header.set_mtime(1);
        header.set_size(data.len() as u64);
        header.set_device_major(0).unwrap();
        header.set_device_minor(0).unwrap();
        let ustar = header.as_ustar_mut().unwrap();
        ustar.typeflag = [flag];
        ustar.name[..name.len()].copy_from_slice(name);
        tweak(ustar);
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(data);
        self.bytes.resize(self.bytes.len().div_ceil(512) * 512, 0);
        self
    }

    pub fn file(self, name: &str, data: &[u8]) -> Tar {
        self.raw(b'0', name.as_bytes(), data, |_| {})
    }

    pub fn dir(self, name: &str) -> Tar {
        self.raw(b'5', name.as_bytes(), b"", |_| {})
    }

    pub fn symlink(self, name: &str, target: &str) -> Tar {
        self.link(b'2', name, target)
    }

    pub fn hard_link(self, name: &str, target: &str) -> Tar {
        self.link(b'1', name, target)
    }

    fn link(self, flag: u8, name: &str, target: &str) -> Tar {
        self.raw(flag, name.as_bytes(), b"", |h| h.linkname[..target.len()].copy_from_slice(target.as_bytes()))
    }

    pub fn device(self, flag: u8, name: &str, major: &[u8], minor: &[u8]) -> Tar {
        self.raw(flag, name.as_bytes(), b"", |h| {
            (h.dev_major, h.dev_minor) = ([0; 8], [0; 8]);
            h.dev_major[..major.len()].copy_from_slice(major);
            h.dev_minor[..minor.len()].copy_from_slice(minor);
        })
    }

    /// A PAX header for the member that follows.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Tar {
        let mut data = Vec::new();
        for (key, value) in records {
            let body = key.len() + value.len() + 3;
            let length = (body + 1..).find(|n| body + n.to_string().len() == *n).unwrap();
            data.extend_from_slice(format!("{length} {key}=").as_bytes());
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        self.raw(b'x', b"PaxHeader", &data, |_| {})
    }

    pub fn end(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&[0; 1024]);
        self.bytes
    }
}

/// Applies to `root` below a scratch directory that holds a canary beside it.
pub struct Bench {
    pub scratch: Scratch,
}

impl Bench {
    pub fn new() -> Bench {
        let scratch = Scratch::new();
        fs::create_dir(scratch.path("root")).unwrap();
        fs::write(scratch.path("canary"), b"untouched").unwrap();
        Bench { scratch }
    }

    pub fn root(&self) -> PathBuf {
        self.scratch.path("root")
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    pub fn apply_with(&self, tar: &[u8], limits: &Limits) -> Result<Applied> {
        let result = apply(&mut &tar[..], &self.root(), limits);
        let beside: Vec<_> =
            fs::read_dir(self.root().parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(beside.len(), 2, "something outside the root: {beside:?}");
        assert_eq!(fs::read(self.scratch.path("canary")).unwrap(), b"untouched");
        result
    }

    pub fn apply(&self, tar: Tar) -> Result<Applied> {
        self.apply_with(&tar.end(), &Limits::default())
    }
}

/// Applies to a fresh root and expects an error that contains `words`.
pub fn refused(tar: Tar, words: &str) {
    let error = Bench::new().apply(tar).expect_err(words);
    assert!(error.to_string().contains(words), "{error}");
    assert!(error.hint.is_some(), "{error}");
}

/// One line for each file: kind, mode, owner, size or device, mtime, links, xattrs, content.
pub fn listing(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    list_into(root, root, &mut lines);
    lines.sort();
    lines
}

fn list_into(root: &Path, path: &Path, lines: &mut Vec<String>) {
    use std::hash::{DefaultHasher, Hash, Hasher};
    use std::os::unix::fs::MetadataExt;
    let m = fs::symlink_metadata(path).unwrap();
    let mut content = DefaultHasher::new();
    let mut xattrs = Vec::new();
    if m.is_file() {
        fs::read(path).unwrap().hash(&mut content);
    } else if m.is_symlink() {
        fs::read_link(path).unwrap().hash(&mut content);
    }
    if !m.is_symlink() {
        let mut names = vec![0; 4096];
        let n = rustix::fs::llistxattr(path, &mut names).unwrap();
        for name in names[..n].split(|b| *b == 0).filter(|n| !n.is_empty()) {
            let mut value = vec![0; 65536];
            let n = rustix::fs::lgetxattr(path, name, &mut value).unwrap();
            xattrs.push((String::from_utf8_lossy(name).into_owned(), value[..n].to_vec()));
        }
        xattrs.sort();
    }
    let size = if m.is_dir() { 0 } else { m.size() };
    let links = if m.is_dir() { 0 } else { m.nlink() };
    lines.push(format!(
        "{:?} {:o} {}:{} size {size} dev {} mtime {}.{:09} links {links} {xattrs:?} {:x}",
        path.strip_prefix(root).unwrap(),
        m.mode(),
        m.uid(),
        m.gid(),
        m.rdev(),
        m.mtime(),
        m.mtime_nsec(),
        content.finish()
    ));
    if m.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            list_into(root, &entry.unwrap().path(), lines);
        }
    }
}
