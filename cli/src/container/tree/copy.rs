//! `cp`'s rules: what a path means at either end, and under which name it arrives.
//!
//! The archive between the two ends names its one file or directory as it will be called there, so the
//! end that unpacks needs no rules of its own.

use super::resolve;
use images::layer::Packer;
use plan::{Error, Result};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::ffi::CString;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// One of the two ends: the host's files, or a container's, which nothing leads out of.
#[derive(Clone, Copy, Debug)]
pub enum End<'f> {
    Host,
    Container { root: BorrowedFd<'f>, name: &'f str },
}

/// What is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kind {
    pub directory: bool,
    /// `DIR/.`: what is in it, not itself.
    pub contents: bool,
}

/// Where it goes: unpacked in a directory, under a name (empty: what is in the source goes right there).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrival {
    pub dir: PathBuf,
    pub name: Vec<u8>,
}

impl End<'_> {
    fn open(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        match self {
            End::Host => rustix::fs::openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty()),
            End::Container { root, .. } => resolve(*root, path, flags),
        }
    }

    fn no_such(&self, path: &Path) -> Error {
        match self {
            End::Host => Error::not_found(format!("lstat {}: no such file or directory", path.display())),
            End::Container { name, .. } => {
                Error::not_found(format!("Could not find the file {} in container {name}", path.display()))
            }
        }
        .with_hint("check the spelling of the path")
    }

    fn failed(&self, path: &Path, e: Errno) -> Error {
        match e {
            Errno::NOENT => self.no_such(path),
            e => Error::os(format!("open {}", path.display()), e.raw_os_error()),
        }
    }

    /// The last name of a path and the directory it is in; `None` for the root and for `..`.
    fn parent(&self, path: &Path) -> Result<Option<(OwnedFd, CString)>> {
        let Some(base) = path.file_name() else { return Ok(None) };
        let above = match path.parent() {
            Some(p) if !p.as_os_str().is_empty() => p,
            _ => Path::new("."),
        };
        let dir = self.open(above, OFlags::PATH | OFlags::DIRECTORY).map_err(|e| self.failed(path, e))?;
        let base = CString::new(base.as_bytes()).map_err(|_| Error::invalid("a path contains a NUL byte"))?;
        Ok(Some((dir, base)))
    }

    /// What a source path means.
    ///
    /// # Errors
    /// It is not there, or claims to be a directory and is none.
    pub fn look(&self, given: &str, follow: bool) -> Result<Kind> {
        let path = Path::new(given);
        let mode = match self.parent(path)?.filter(|_| !follow && !given.ends_with('/') && !is_contents(given)) {
            Some((dir, base)) => rustix::fs::statat(&dir, &base, AtFlags::SYMLINK_NOFOLLOW),
            None => self.open(path, OFlags::PATH).and_then(rustix::fs::fstat),
        };
        let mode = mode.map_err(|e| self.failed(path, e))?.st_mode;
        let directory = FileType::from_raw_mode(mode) == FileType::Directory;
        if !directory && (given.ends_with('/') || is_contents(given)) {
            return Err(
                Error::invalid(format!("{given}: not a directory")).with_hint("leave the slash at its end away")
            );
        }
        Ok(Kind { directory, contents: directory && is_contents(given) })
    }

    /// Writes what a source path means to an archive, under `name`. Returns the bytes of its files.
    ///
    /// # Errors
    /// Of reading, and of writing to `out`.
    pub fn pack(&self, given: &str, follow: bool, name: &[u8], out: impl Write) -> Result<u64> {
        let kind = self.look(given, follow)?;
        let path = Path::new(given);
        let mut packer = Packer::new(out);
        if kind.directory {
            let dir = self.open(path, OFlags::RDONLY | OFlags::DIRECTORY).map_err(|e| self.failed(path, e))?;
            // A directory that takes over the place of one that is there brings its contents only.
            packer.directory(dir.as_fd(), name, !name.is_empty())?;
        } else if follow {
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
            let file = self.open(path, flags).map_err(|e| self.failed(path, e))?;
            packer.opened(file, name)?;
        } else if let Some((dir, base)) = self.parent(path)? {
            packer.file(dir.as_fd(), &base, name)?;
        }
        let bytes = packer.bytes();
        packer.finish()?.flush().map_err(|e| Error::io("write the archive", &e))?;
        Ok(bytes)
    }

    /// Where a copy to `given` arrives, of a source called `base`. `None` for a stream of an archive,
    /// which needs a directory that is there.
    ///
    /// # Errors
    /// Docker's: a directory over a file, a place that is not there.
    pub fn arrival(&self, given: &str, source: Option<(Kind, &str)>) -> Result<Arrival> {
        let path = Path::new(given);
        let there = match self.open(path, OFlags::PATH) {
            Ok(fd) => Some(FileType::from_raw_mode(rustix::fs::fstat(&fd).map_err(|e| self.failed(path, e))?.st_mode)),
            Err(Errno::NOENT) => None,
            Err(e) => return Err(self.failed(path, e)),
        };
        let slash = given.ends_with('/') || is_contents(given);
        match (there, source) {
            (Some(FileType::Directory), None) => Ok(Arrival { dir: path.to_owned(), name: Vec::new() }),
            (_, None) => Err(Error::invalid(format!("destination \"{given}\" must be a directory"))
                .with_hint("the archive on standard input is unpacked into a directory that is there")),
            (Some(FileType::Directory), Some((kind, base))) => {
                let name = if kind.contents { Vec::new() } else { base.as_bytes().to_vec() };
                self.agree(path, &name, kind)?;
                Ok(Arrival { dir: path.to_owned(), name })
            }
            (Some(_), Some((kind, _))) if kind.directory => Err(Error::invalid("cannot copy directory")
                .with_cause(format!("{given} is a file"))
                .with_hint("name a directory as the destination")),
            (Some(_), Some(_)) if slash => {
                Err(Error::invalid(format!("{given}: not a directory")).with_hint("leave the slash at its end away"))
            }
            (None, Some((kind, _))) if slash && !kind.directory => Err(Error::not_found("no such directory")
                .with_cause(given.to_owned())
                .with_hint("leave the slash at its end away, or make the directory first")),
            (_, Some(_)) => self.beside(path),
        }
    }

    /// A file or directory of that name may be there already, if it is of the same sort.
    fn agree(&self, dir: &Path, name: &[u8], kind: Kind) -> Result<()> {
        if name.is_empty() {
            return Ok(());
        }
        let target = dir.join(std::ffi::OsStr::from_bytes(name));
        let Some((above, base)) = self.parent(&target)? else { return Ok(()) };
        let Ok(stat) = rustix::fs::statat(&above, &base, AtFlags::SYMLINK_NOFOLLOW) else { return Ok(()) };
        let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        match (kind.directory, directory) {
            (true, false) => Err(Error::invalid(format!("cannot overwrite non-directory {target:?} with directory"))
                .with_hint("remove it first, or choose another destination")),
            (false, true) => Err(Error::invalid(format!("cannot overwrite directory {target:?} with non-directory"))
                .with_hint("remove it first, or choose another destination")),
            _ => Ok(()),
        }
    }

    /// In the directory of the last name, under that name; a symlink there leads on, as for open(2).
    fn beside(&self, path: &Path) -> Result<Arrival> {
        let mut path = path.to_owned();
        // The kernel's own bound.
        for _ in 0..40 {
            let above = match path.parent() {
                Some(p) if !p.as_os_str().is_empty() => p.to_owned(),
                _ => PathBuf::from("."),
            };
            if self.open(&above, OFlags::PATH | OFlags::DIRECTORY).is_err() {
                return Err(match self {
                    End::Host => Error::not_found(format!("invalid output path: directory {above:?} does not exist"))
                        .with_hint(format!("mkdir -p {}", above.display())),
                    End::Container { .. } => self.no_such(&above),
                });
            }
            let Some((dir, base)) = self.parent(&path)? else { return Err(self.no_such(&path)) };
            match rustix::fs::readlinkat(&dir, &base, Vec::new()) {
                Ok(target) => path = above.join(std::ffi::OsStr::from_bytes(target.as_bytes())),
                Err(_) => return Ok(Arrival { dir: above, name: base.into_bytes() }),
            }
        }
        Err(self.failed(&path, Errno::LOOP))
    }

    /// The directory to unpack into.
    ///
    /// # Errors
    /// It has gone meanwhile.
    pub fn seat(&self, arrival: &Arrival) -> Result<OwnedFd> {
        self.open(&arrival.dir, OFlags::RDONLY | OFlags::DIRECTORY).map_err(|e| self.failed(&arrival.dir, e))
    }
}

/// `DIR/.`
fn is_contents(given: &str) -> bool {
    given == "." || given.ends_with("/.")
}
