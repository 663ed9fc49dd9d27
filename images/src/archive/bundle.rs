//! Named pieces of an archive or directory, readable at random and by several threads.

use crate::ingest::{self, Decoder};
use crate::manifest::printable;
use crate::store::Store;
use plan::{Error, Result, ResultExt};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, IsTerminal, Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Members of an image archive: each layer has a handful, and an image at most some hundred layers.
const MAX_MEMBERS: usize = 100_000;
/// Links followed from one name.
const MAX_LINKS: usize = 8;
const BUFFER: usize = 256 << 10;

/// The whole.
pub(super) enum Bundle {
    Archive { file: Arc<File>, members: HashMap<String, Member> },
    Directory(PathBuf),
}

pub(super) enum Member {
    File {
        offset: u64,
        size: u64,
    },
    /// A name inside the archive: docker wrote duplicate layers as symlinks.
    Link(String),
}

/// A run of bytes in a file.
#[derive(Clone)]
pub(super) struct Piece {
    file: Arc<File>,
    offset: u64,
    pub size: u64,
}

impl Bundle {
    pub fn open(store: &Store, path: &Path) -> Result<Bundle> {
        let what = || format!("open {}", path.display());
        if std::fs::metadata(path).doing(what)?.is_dir() {
            return Ok(Bundle::Directory(path.to_owned()));
        }
        let file = File::open(path).doing(what)?;
        Bundle::from_file(store, file).map_err(|e| e.context(printable(&path.display().to_string())))
    }

    pub fn stdin(store: &Store) -> Result<Bundle> {
        let stdin = io::stdin();
        if stdin.is_terminal() {
            return Err(Error::invalid("requested load from stdin, but stdin is empty")
                .with_hint("redirect an archive into it, or name a file with -i"));
        }
        let file = File::from(stdin.as_fd().try_clone_to_owned().doing(|| "duplicate standard input")?);
        Bundle::from_file(store, file)
    }

    /// A plain archive in a regular file is read where it lies; anything else is decompressed into a
    /// nameless file first, because an archive names its layers before or after it holds them.
    fn from_file(store: &Store, mut file: File) -> Result<Bundle> {
        let is_regular = file.metadata().doing(|| "look at the archive")?.is_file();
        if is_regular && file.stream_position().doing(|| "look at the archive")? == 0 {
            let mut head = [0u8; 8];
            let n = file.read_at(&mut head, 0).doing(|| "read the archive")?;
            if let Decoder::Plain(_) = Decoder::new(&head[..n])? {
                return Bundle::index(file);
            }
        }
        let mut spool = store.blob_writer()?;
        let mut decoder = Decoder::new(BufReader::with_capacity(BUFFER, file))?;
        let mut buffer = vec![0u8; BUFFER];
        loop {
            let n = match decoder.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(ingest::unwrap(e)),
            };
            spool.write_all(&buffer[..n]).doing(|| "unpack the archive for reading")?;
        }
        Bundle::index(spool.into_anonymous()?)
    }

    fn index(file: File) -> Result<Bundle> {
        let length = file.metadata().doing(|| "look at the archive")?.len();
        let mut members = HashMap::new();
        let mut archive = tar::Archive::new(At { file: &file, position: 0, length });
        for entry in archive.entries_with_seek().map_err(|e| damaged(&e))? {
            let entry = match entry {
                Ok(entry) => entry,
                Err(_) if members.is_empty() => {
                    return Err(Error::invalid("this is not a tar archive").with_hint(
                        "load reads what docker save, skopeo and buildah write, plain or compressed with gzip or zstd",
                    ));
                }
                Err(e) => return Err(damaged(&e)),
            };
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let kind = entry.header().entry_type();
            let member = if kind.is_file() || kind.is_contiguous() {
                let (offset, size) = (entry.raw_file_position(), entry.size());
                if offset.checked_add(size).is_none_or(|end| end > length) {
                    return Err(Error::invalid("the archive is cut short")
                        .with_cause(format!("{} is not complete", printable(&name))));
                }
                Member::File { offset, size }
            } else if kind.is_symlink() || kind.is_hard_link() {
                let target = entry.link_name_bytes().unwrap_or_default();
                let target = String::from_utf8_lossy(&target);
                // A hard link counts from the top, a symbolic one from its directory.
                let dir = if kind.is_symlink() { name.rsplit_once('/').map_or("", |(dir, _)| dir) } else { "" };
                Member::Link(format!("{dir}/{target}"))
            } else {
                continue;
            };
            if members.len() == MAX_MEMBERS {
                return Err(Error::invalid(format!("the archive has more than {MAX_MEMBERS} members")));
            }
            // What leads out of the archive can never be asked for.
            if let Some(name) = inside(&name) {
                members.insert(name, member);
            }
        }
        Ok(Bundle::Archive { file: Arc::new(file), members })
    }

    /// Finds a piece by its name from the top; `None` if there is none.
    pub fn locate(&self, name: &str) -> Result<Option<Piece>> {
        let Some(mut name) = inside(name) else {
            return Err(Error::invalid(format!("the archive refers to {:?}, outside of itself", printable(name))));
        };
        match self {
            Bundle::Archive { file, members } => {
                for _ in 0..=MAX_LINKS {
                    match members.get(&name) {
                        None => return Ok(None),
                        Some(Member::File { offset, size }) => {
                            return Ok(Some(Piece { file: file.clone(), offset: *offset, size: *size }));
                        }
                        Some(Member::Link(target)) => {
                            name = inside(target).ok_or_else(|| {
                                Error::invalid(format!("{} in the archive is a link to the outside", printable(&name)))
                            })?;
                        }
                    }
                }
                Err(Error::invalid(format!("{} in the archive is a link to itself", printable(&name))))
            }
            Bundle::Directory(dir) => {
                let path = dir.join(&name);
                // O_NONBLOCK: a FIFO must not hold us up.
                let file = match OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path) {
                    Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                    other => other.doing(|| format!("open {}", path.display()))?,
                };
                let metadata = file.metadata().doing(|| format!("look at {}", path.display()))?;
                if !metadata.is_file() {
                    return Err(Error::invalid(format!("{} is not a file", path.display())));
                }
                Ok(Some(Piece { file: Arc::new(file), offset: 0, size: metadata.len() }))
            }
        }
    }

    /// As [`Bundle::locate`], for what has to be there.
    pub fn need(&self, name: &str) -> Result<Piece> {
        self.locate(name)?.ok_or_else(|| {
            Error::invalid(format!("{} is missing in the archive", printable(name)))
                .with_hint("the archive is incomplete: save it again")
        })
    }
}

impl Piece {
    pub fn reader(&self) -> PieceReader {
        PieceReader { piece: self.clone(), done: 0 }
    }

    /// All of it; the caller has looked at the size.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.reader().read_to_end(&mut bytes).doing(|| "read the archive")?;
        Ok(bytes)
    }
}

/// Reads a piece without moving the file's position, which other threads share.
pub(super) struct PieceReader {
    piece: Piece,
    done: u64,
}

impl Read for PieceReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.piece.size - self.done).unwrap_or(usize::MAX);
        let most = left.min(buf.len());
        let n = self.piece.file.read_at(&mut buf[..most], self.piece.offset + self.done)?;
        self.done += n as u64;
        Ok(n)
    }
}

/// A file from its beginning, with a position of its own.
struct At<'a> {
    file: &'a File,
    position: u64,
    length: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(buf, self.position)?;
        self.position += n as u64;
        Ok(n)
    }
}

impl Seek for At<'_> {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        let position = match to {
            io::SeekFrom::Start(n) => Some(n),
            io::SeekFrom::Current(n) => self.position.checked_add_signed(n),
            io::SeekFrom::End(n) => self.length.checked_add_signed(n),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

/// The name without `.` and `..`, from the top; `None` if it is absolute or leads above it.
fn inside(name: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

fn damaged(e: &io::Error) -> Error {
    Error::invalid("the archive is damaged").with_cause(printable(&e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::inside;

    #[test]
    fn names_stay_inside() {
        assert_eq!(inside("./a//b/../c").as_deref(), Some("a/c"));
        for bad in ["", ".", "..", "../x", "a/../../x", "a/.."] {
            assert_eq!(inside(bad), None, "{bad}");
        }
    }
}
