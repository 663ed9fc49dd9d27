//! The files of a rotated log, read from any place in them.

use super::rotated;
use plan::{Error, Result, ResultExt};
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const BLOCK: usize = 64 * 1024;

/// Longer than any record of ours: 16 KiB, each byte escaped, and its envelope.
const LONGEST: usize = 256 * 1024;

/// One file, open, and the place where reading goes on.
pub struct LogFile {
    file: File,
    path: PathBuf,
    /// Device and inode: the name may come to mean another file.
    identity: (u64, u64),
    position: u64,
    /// The beginning of a line whose end has not been read.
    partial: Vec<u8>,
    /// In the middle of a line that is too long to be a record.
    skipping: bool,
}

/// The files that have come after `known`, oldest first; all there are if it is `None` or gone.
///
/// They are opened newest first: a rotation in between then shows one of them twice, which is noticed,
/// rather than hiding one.
pub fn newer_than(path: &Path, known: Option<&LogFile>) -> Result<Vec<LogFile>> {
    let mut chain: Vec<LogFile> = Vec::new();
    let mut gap = false;
    for n in 0.. {
        let name = if n == 0 { path.to_path_buf() } else { rotated(path, n) };
        let Some(file) = LogFile::open(name)? else {
            // One may be missing for a moment, while they move up one after the other.
            if std::mem::replace(&mut gap, true) {
                break;
            }
            continue;
        };
        if known.is_some_and(|k| k.identity == file.identity) {
            break;
        }
        if chain.last().is_none_or(|last| last.identity != file.identity) {
            chain.push(file);
        }
    }
    chain.reverse();
    Ok(chain)
}

impl LogFile {
    fn open(path: PathBuf) -> Result<Option<LogFile>> {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
        let words = || format!("read the log {}", path.display());
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) if e.raw_os_error() == Some(libc::ELOOP) => return Err(refused(&path, "it is a symbolic link")),
            Err(e) => return Err(Error::io(words(), &e)),
        };
        let meta = file.metadata().doing(words)?;
        if !meta.is_file() {
            return Err(refused(&path, "it is not a regular file"));
        }
        let identity = (meta.dev(), meta.ino());
        Ok(Some(LogFile { file, path, identity, position: 0, partial: Vec::new(), skipping: false }))
    }

    /// Whether the name still means this file.
    pub fn is_at(&self, path: &Path) -> bool {
        std::fs::symlink_metadata(path).is_ok_and(|m| (m.dev(), m.ino()) == self.identity)
    }

    pub fn seek_to_end(&mut self) -> Result<()> {
        // Not the size: half a line at the end belongs to what comes.
        self.seek_to_tail(0).map(drop)
    }

    /// Goes to the last `wanted` lines, reading backwards from the end; returns how many there are, at
    /// most `wanted`.
    pub fn seek_to_tail(&mut self, wanted: u64) -> Result<u64> {
        let words = || format!("read the log {}", self.path.display());
        let mut end = self.file.metadata().doing(words)?.len();
        let mut block = vec![0; BLOCK];
        let mut newlines = 0;
        while end > 0 {
            let begin = end.saturating_sub(BLOCK as u64);
            let part = &mut block[..(end - begin) as usize];
            self.file.read_exact_at(part, begin).doing(words)?;
            // Each line ends with a newline, so before the line looked for there is one more.
            for (i, _) in part.iter().enumerate().rev().filter(|(_, b)| **b == b'\n') {
                if newlines == wanted {
                    self.position = begin + i as u64 + 1;
                    return Ok(wanted);
                }
                newlines += 1;
            }
            end = begin;
        }
        self.position = 0;
        Ok(newlines)
    }

    /// Hands over the complete lines from here to the end of the file.
    pub fn lines(&mut self, each: &mut dyn FnMut(&[u8]) -> Result<ControlFlow<()>>) -> Result<ControlFlow<()>> {
        let words = || format!("read the log {}", self.path.display());
        if self.file.metadata().doing(words)?.len() < self.position {
            // Half a record that could not be finished was taken back.
            self.position = self.file.metadata().doing(words)?.len();
            self.partial.clear();
        }
        let mut block = vec![0; BLOCK];
        loop {
            let n = match self.file.read_at(&mut block, self.position) {
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Error::io(words(), &e)),
            };
            if n == 0 {
                return Ok(ControlFlow::Continue(()));
            }
            self.position += n as u64;
            let mut rest = &block[..n];
            while let Some(end) = rest.iter().position(|b| *b == b'\n') {
                let flow = if std::mem::take(&mut self.skipping) {
                    ControlFlow::Continue(())
                } else if self.partial.is_empty() {
                    each(&rest[..end])?
                } else {
                    self.partial.extend_from_slice(&rest[..end]);
                    each(&self.partial)?
                };
                self.partial.clear();
                if flow.is_break() {
                    return Ok(flow);
                }
                rest = &rest[end + 1..];
            }
            if !self.skipping {
                self.partial.extend_from_slice(rest);
                if self.partial.len() > LONGEST {
                    self.partial = Vec::new();
                    self.skipping = true;
                }
            }
        }
    }
}

fn refused(path: &Path, cause: &str) -> Error {
    Error::system(format!("the log {} is not read", path.display()))
        .with_cause(cause)
        .with_hint("somebody has replaced the container's log: remove it, new output makes a new one")
}
