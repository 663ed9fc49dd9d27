//! The log as files: appended to, rotated, compressed once they are full.

use super::encode::Encoder;
use super::pack::Packing;
use super::writer::Piece;
use super::{Format, packed, rotated, with_suffix};
use crate::relay::Stream;
use plan::time::Timestamp;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

/// How much is encoded before it is written out. The lines of `yes` grow by a factor of 35.
const BATCH: usize = 64 * 1024;

/// How the log is kept small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// Bytes of one file; `None` never rotates.
    pub max_size: Option<u64>,
    /// How many files there may be, the current one included (at least 1).
    pub max_files: u32,
    /// Whether the older ones are compressed.
    pub compress: bool,
}

impl Default for Rotation {
    /// As Docker's json-file: no limit.
    fn default() -> Rotation {
        Rotation { max_size: None, max_files: 1, compress: false }
    }
}

pub(super) struct Store {
    path: PathBuf,
    rotation: Rotation,
    encoder: Encoder,
    /// Opened at the first line: many containers never write one.
    file: Option<File>,
    /// Bytes in the file, all of them whole records.
    size: u64,
    /// The file may end in half a record.
    torn: bool,
    batch: Vec<u8>,
    /// Records in `batch`.
    records: u64,
    dropped: u64,
    packing: Option<Packing>,
}

impl Store {
    pub fn new(path: PathBuf, format: Format, rotation: Rotation, attributes: String) -> Store {
        Store {
            path,
            rotation,
            encoder: Encoder::new(format, attributes),
            file: None,
            size: 0,
            torn: false,
            batch: Vec::new(),
            records: 0,
            dropped: 0,
            packing: None,
        }
    }

    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    pub fn begin(&mut self, stream: Stream, now: Timestamp) {
        self.encoder.begin(stream, now);
    }

    pub fn record(&mut self, piece: &Piece<'_>) {
        let before = self.batch.len();
        self.encoder.record(&mut self.batch, piece);
        if let Some(max) = self.rotation.max_size
            && self.size + self.batch.len() as u64 > max
            && self.size + before as u64 > 0
        {
            let last = self.batch.split_off(before);
            self.flush();
            self.rotate();
            self.batch = last;
        }
        self.records += 1;
        if self.batch.len() >= BATCH {
            self.flush();
        }
    }

    pub fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        if self.write_batch().is_err() {
            self.dropped += self.records;
        }
        self.batch.clear();
        self.records = 0;
    }

    pub fn release(&mut self) {
        self.batch.shrink_to_fit();
    }

    fn write_batch(&mut self) -> io::Result<()> {
        self.open()?;
        let Some(file) = &mut self.file else { return Ok(()) };
        if self.torn {
            // Half a record of an earlier failure: a newline keeps it from spoiling the next one.
            file.write_all(b"\n")?;
            self.size += 1;
            self.torn = false;
        }
        match file.write_all(&self.batch) {
            Ok(()) => {
                self.size += self.batch.len() as u64;
                Ok(())
            }
            Err(e) => {
                // Some of it may have been written: a full disk can always be cut shorter.
                self.torn = file.set_len(self.size).is_err();
                Err(e)
            }
        }
    }

    /// Opens the file unless it is open, and anew if somebody has removed it.
    fn open(&mut self) -> io::Result<()> {
        if let Some(file) = &self.file
            && file.metadata()?.nlink() > 0
        {
            return Ok(());
        }
        // NOFOLLOW: the name must not lead elsewhere. NONBLOCK: nor to a pipe that nobody reads.
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(&self.path)?;
        self.size = file.metadata()?.len();
        let mut last = [b'\n'];
        if self.size > 0 {
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
        }
        self.torn = last[0] != b'\n';
        self.file = Some(file);
        Ok(())
    }

    /// Moves every file one number up; the one with the highest number goes.
    fn rotate(&mut self) {
        self.file = None;
        self.size = 0;
        let current = self.path.clone();
        // What fails here leaves a file longer than wished, and never stops the container.
        if self.rotation.max_files <= 1 {
            let _ = std::fs::remove_file(&current);
            return;
        }
        let oldest = self.rotation.max_files - 1;
        if self.rotation.compress {
            // Either name may be its own, and the next one may come under the other.
            let _ = std::fs::remove_file(rotated(&current, oldest));
            let _ = std::fs::remove_file(packed(&current, oldest));
        }
        for n in (1..=oldest).rev() {
            let from = if n == 1 { current.clone() } else { rotated(&current, n - 1) };
            let _ = std::fs::rename(from, rotated(&current, n));
            if self.rotation.compress && n > 1 {
                let _ = std::fs::rename(packed(&current, n - 1), packed(&current, n));
            }
        }
        if let Some(packing) = &mut self.packing {
            packing.number += 1;
        }
        self.pack();
    }

    fn half_packed(&self) -> PathBuf {
        with_suffix(&self.path, ".packing")
    }

    /// Compresses the youngest file that is not, unless one is being compressed. In a flood of output
    /// some go as they are: nothing waits for this.
    fn pack(&mut self) {
        if !self.rotation.compress || self.packing.is_some() {
            return;
        }
        let Some(number) = (1..self.rotation.max_files).find(|n| rotated(&self.path, *n).exists()) else { return };
        let to = self.half_packed();
        let _ = std::fs::remove_file(&to);
        // What cannot be compressed is still a log; the next rotation tries again.
        self.packing = Packing::begin(&rotated(&self.path, number), &to, number).ok();
    }

    /// The compressed file takes the place of its original, whose number may be another by now.
    pub fn child_ended(&mut self, pid: i32, status: i32) -> bool {
        let Some(packing) = self.packing.take_if(|p| p.is(pid)) else { return false };
        let (from, number) = (self.half_packed(), packing.number);
        let there = rotated(&self.path, number).exists();
        // Under both names for a moment, so that no reader finds neither.
        let kept = status == 0 && there && std::fs::rename(&from, packed(&self.path, number)).is_ok();
        let _ = std::fs::remove_file(if kept { rotated(&self.path, number) } else { from });
        // What failed waits for the next rotation; what has meanwhile gone holds up nothing.
        if kept || !there {
            self.pack();
        }
        true
    }

    pub fn close(&mut self) {
        self.flush();
        if let Some(packing) = self.packing.take() {
            packing.abandon();
            let _ = std::fs::remove_file(self.half_packed());
        }
    }
}
