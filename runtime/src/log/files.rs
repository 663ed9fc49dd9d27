//! The files of a rotated log, read from any place in them.

use super::{pack, packed, rotated};
use flate2::read::GzDecoder;
use plan::{Error, Result, ResultExt};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek};
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const BLOCK: usize = 64 * 1024;

/// Longer than any record of ours: 16 KiB, each byte escaped, and its envelope.
const LONGEST: usize = 256 * 1024;

/// One file, open, and the place where reading goes on.
pub struct LogFile {
    content: Content,
    path: PathBuf,
    /// Device and inode, of the original if it has been compressed: the name may come to mean another file.
    identity: (u64, u64),
    /// Lines that are passed over.
    skip: u64,
    /// The beginning of a line whose end has not been read.
    partial: Vec<u8>,
    /// In the middle of a line that is too long to be a record.
    skipping: bool,
}

enum Content {
    Plain {
        file: File,
        position: u64,
    },
    /// Nothing is added to it any more. Read only forwards.
    Packed(Box<GzDecoder<File>>),
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
        // In this order: a compressed file is there before its original goes.
        let opened = match LogFile::open(name)? {
            None if n > 0 => LogFile::open_packed(packed(path, n))?,
            opened => opened,
        };
        let Some(file) = opened else {
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
        let Some((file, identity)) = regular(&path)? else { return Ok(None) };
        let content = Content::Plain { file, position: 0 };
        Ok(Some(LogFile { content, path, identity, skip: 0, partial: Vec::new(), skipping: false }))
    }

    fn open_packed(path: PathBuf) -> Result<Option<LogFile>> {
        let Some((file, (device, inode))) = regular(&path)? else { return Ok(None) };
        let decoder = GzDecoder::new(file);
        let identity = (device, pack::origin(&decoder).unwrap_or(inode));
        let content = Content::Packed(Box::new(decoder));
        Ok(Some(LogFile { content, path, identity, skip: 0, partial: Vec::new(), skipping: false }))
    }

    /// Whether the name still means this file.
    pub fn is_at(&self, path: &Path) -> bool {
        std::fs::symlink_metadata(path).is_ok_and(|m| (m.dev(), m.ino()) == self.identity)
    }

    pub fn seek_to_end(&mut self) -> Result<()> {
        // Not the size: half a line at the end belongs to what comes.
        self.seek_to_tail(0).map(drop)
    }

    /// Goes to the last `wanted` lines; returns how many there are, at most `wanted`.
    pub fn seek_to_tail(&mut self, wanted: u64) -> Result<u64> {
        let words = || format!("read the log {}", self.path.display());
        match &mut self.content {
            Content::Plain { file, position } => {
                let (begin, lines) = tail_of(file, wanted).doing(words)?;
                *position = begin;
                Ok(lines)
            }
            Content::Packed(decoder) => {
                // Read twice: once to count, and once from its beginning.
                let mut block = vec![0; BLOCK];
                let mut lines = 0;
                while let Ok(n @ 1..) = decoder.read(&mut block) {
                    lines += block[..n].iter().filter(|b| **b == b'\n').count() as u64;
                }
                let mut file = decoder.get_ref().try_clone().doing(words)?;
                file.rewind().doing(words)?;
                **decoder = GzDecoder::new(file);
                let found = lines.min(wanted);
                self.skip = lines - found;
                Ok(found)
            }
        }
    }

    /// What comes next; nothing at the end, which a file that was damaged has earlier.
    fn next_block(&mut self, block: &mut [u8]) -> Result<usize> {
        let words = || format!("read the log {}", self.path.display());
        match &mut self.content {
            Content::Packed(decoder) => Ok(decoder.read(block).unwrap_or(0)),
            Content::Plain { file, position } => loop {
                match file.read_at(block, *position) {
                    Ok(n) => {
                        *position += n as u64;
                        return Ok(n);
                    }
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(Error::io(words(), &e)),
                }
            },
        }
    }

    /// Hands over the complete lines from here to the end of the file, each with its newline.
    pub fn lines(&mut self, each: &mut dyn FnMut(&[u8]) -> Result<ControlFlow<()>>) -> Result<ControlFlow<()>> {
        if let Content::Plain { file, position } = &mut self.content {
            let size = file.metadata().doing(|| format!("read the log {}", self.path.display()))?.len();
            if size < *position {
                // Half a record that could not be finished was taken back.
                *position = size;
                self.partial.clear();
            }
        }
        let mut block = vec![0; BLOCK];
        loop {
            let n = self.next_block(&mut block)?;
            if n == 0 {
                return Ok(ControlFlow::Continue(()));
            }
            let mut rest = &block[..n];
            while let Some(end) = rest.iter().position(|b| *b == b'\n') {
                let (line, after) = rest.split_at(end + 1);
                let too_long = std::mem::take(&mut self.skipping);
                let flow = if too_long || self.skip > 0 {
                    self.skip = self.skip.saturating_sub(1);
                    ControlFlow::Continue(())
                } else if self.partial.is_empty() {
                    each(line)?
                } else {
                    self.partial.extend_from_slice(line);
                    each(&self.partial)?
                };
                self.partial.clear();
                if flow.is_break() {
                    return Ok(flow);
                }
                rest = after;
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

/// Where the last `wanted` lines begin, reading backwards from the end, and how many they are.
fn tail_of(file: &File, wanted: u64) -> io::Result<(u64, u64)> {
    let mut end = file.metadata()?.len();
    let mut block = vec![0; BLOCK];
    let mut newlines = 0;
    while end > 0 {
        let begin = end.saturating_sub(BLOCK as u64);
        let part = &mut block[..(end - begin) as usize];
        file.read_exact_at(part, begin)?;
        // Each line ends with a newline, so before the line looked for there is one more.
        for (i, _) in part.iter().enumerate().rev().filter(|(_, b)| **b == b'\n') {
            if newlines == wanted {
                return Ok((begin + i as u64 + 1, wanted));
            }
            newlines += 1;
        }
        end = begin;
    }
    Ok((0, newlines))
}

/// The file at a path, if there is one, with device and inode.
fn regular(path: &Path) -> Result<Option<(File, (u64, u64))>> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let words = || format!("read the log {}", path.display());
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) if e.raw_os_error() == Some(libc::ELOOP) => return Err(refused(path, "it is a symbolic link")),
        Err(e) => return Err(Error::io(words(), &e)),
    };
    let meta = file.metadata().doing(words)?;
    if !meta.is_file() {
        return Err(refused(path, "it is not a regular file"));
    }
    let identity = (meta.dev(), meta.ino());
    Ok(Some((file, identity)))
}

fn refused(path: &Path, cause: &str) -> Error {
    Error::system(format!("the log {} is not read", path.display()))
        .with_cause(cause)
        .with_hint("somebody has replaced the container's log: remove it, new output makes a new one")
}
