//! The writing side: lines into a file that may be full, removed or rotated, without ever holding
//! up the container.

use super::encode;
use super::rotated;
use crate::relay::Stream;
use plan::time::Timestamp;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

/// A line longer than this is written as several records, of which only the last has the newline.
const MAX_LINE: usize = 16 * 1024;

/// How much is encoded before it is written out. The lines of `yes` grow by a factor of 35.
const BATCH: usize = 64 * 1024;

/// How the log is kept small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// Bytes of one file; `None` never rotates.
    pub max_size: Option<u64>,
    /// How many files there may be, the current one included (at least 1).
    pub max_files: u32,
}

impl Default for Rotation {
    /// As Docker: no limit.
    fn default() -> Rotation {
        Rotation { max_size: None, max_files: 1 }
    }
}

pub struct Writer {
    path: PathBuf,
    rotation: Rotation,
    /// Opened at the first line: many containers never write one.
    file: Option<File>,
    /// Bytes in the file, all of them whole records.
    size: u64,
    /// The file may end in half a record.
    torn: bool,
    batch: Vec<u8>,
    /// Records in `batch`.
    records: u64,
    /// The beginning of a line of each stream.
    partial: [Vec<u8>; 2],
    dropped: u64,
}

impl Writer {
    /// Nothing is opened or created until there is something to write.
    pub fn new(path: impl Into<PathBuf>, rotation: Rotation) -> Writer {
        Writer {
            path: path.into(),
            rotation,
            file: None,
            size: 0,
            torn: false,
            batch: Vec::new(),
            records: 0,
            partial: [Vec::new(), Vec::new()],
            dropped: 0,
        }
    }

    /// How many records could not be written (full disk, directory gone).
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Takes output as it was read; whole lines are on their way to the file after [`Writer::flush`].
    pub fn write(&mut self, stream: Stream, bytes: &[u8]) {
        let suffix = encode::suffix(stream, Timestamp::now());
        let mut partial = std::mem::take(&mut self.partial[stream as usize]);
        let mut rest = bytes;
        // A character that the last read cut in two is made whole first.
        while let [b @ 0x80..0xc0, after @ ..] = rest
            && !partial.is_empty()
            && bytes.len() - rest.len() < 3
        {
            partial.push(*b);
            rest = after;
        }
        while !rest.is_empty() {
            let line = rest.iter().position(|b| *b == b'\n').map_or(rest.len(), |n| n + 1);
            // The newline itself is not counted, so that 16 KiB and a newline are one record.
            let ends = rest[line - 1] == b'\n';
            let text = line - usize::from(ends);
            if partial.len() + text > MAX_LINE {
                let cut = character_boundary(&partial, rest);
                let (old, new) = (cut.min(partial.len()), cut.saturating_sub(partial.len()));
                self.record(&[&partial[..old], &rest[..new]], &suffix);
                partial.drain(..old);
                rest = &rest[new..];
            } else if ends {
                self.record(&[&partial, &rest[..line]], &suffix);
                partial.clear();
                rest = &rest[line..];
            } else {
                partial.extend_from_slice(rest);
                break;
            }
        }
        self.partial[stream as usize] = partial;
    }

    /// The stream has ended: what came after its last newline is a record, too.
    pub fn end(&mut self, stream: Stream) {
        let partial = std::mem::take(&mut self.partial[stream as usize]);
        if !partial.is_empty() {
            self.record(&[&partial], &encode::suffix(stream, Timestamp::now()));
        }
    }

    /// Writes out what is encoded. What cannot be written is dropped and counted; the next attempt
    /// is made with the next output.
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

    /// Gives back memory that is not in use.
    pub fn release(&mut self) {
        self.batch.shrink_to_fit();
        for partial in &mut self.partial {
            partial.shrink_to_fit();
        }
    }

    fn record(&mut self, parts: &[&[u8]], suffix: &str) {
        let before = self.batch.len();
        encode::record(&mut self.batch, parts, suffix);
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
        for n in (1..self.rotation.max_files).rev() {
            let from = if n == 1 { current.clone() } else { rotated(&current, n - 1) };
            let _ = std::fs::rename(from, rotated(&current, n));
        }
    }
}

/// Where to cut the line that consists of `partial` and `rest`: at [`MAX_LINE`], or up to three bytes
/// before it where that would split a character of UTF-8.
fn character_boundary(partial: &[u8], rest: &[u8]) -> usize {
    let byte = |n: usize| partial.get(n).or_else(|| rest.get(n - partial.len())).copied();
    let is_inside = |n: &usize| byte(*n).is_some_and(|b| b & 0xc0 == 0x80);
    (MAX_LINE - 3..=MAX_LINE).rev().find(|n| !is_inside(n)).unwrap_or(MAX_LINE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;
    use serde_json::Value;

    fn records(path: &std::path::Path) -> Vec<(String, String)> {
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'));
        text.lines()
            .map(|l| {
                let v: Value = serde_json::from_str(l).unwrap();
                assert!(plan::time::parse(v["time"].as_str().unwrap()).is_some());
                (v["stream"].as_str().unwrap().to_string(), v["log"].as_str().unwrap().to_string())
            })
            .collect()
    }

    #[test]
    fn lines_are_put_together_and_long_ones_cut() {
        let dir = TestDir::new("log-lines");
        let path = dir.path().join("log");
        let mut w = Writer::new(&path, Rotation::default());
        w.write(Stream::Stdout, b"");
        w.flush();
        assert!(!path.exists(), "nothing is created before the first line");
        w.write(Stream::Stdout, b"one\ntw");
        w.write(Stream::Stderr, b"err\n");
        w.write(Stream::Stdout, b"o\n\nrest");
        w.end(Stream::Stdout);
        w.end(Stream::Stderr);
        w.flush();
        let out = |s: &str| ("stdout".to_string(), s.to_string());
        let expected = [out("one\n"), ("stderr".into(), "err\n".into()), out("two\n"), out("\n"), out("rest")];
        assert_eq!(records(&path), expected);
    }

    #[test]
    fn long_lines_keep_every_byte_and_every_character() {
        for length in [MAX_LINE - 1, MAX_LINE, MAX_LINE + 1, 3 * MAX_LINE, 100_000] {
            for read in [1000, MAX_LINE, 65_536] {
                let dir = TestDir::new(&format!("log-long-{length}-{read}"));
                let path = dir.path().join("log");
                let line: String = "a日é🦀"
                    .chars()
                    .cycle()
                    .scan(0, |n, c| {
                        *n += c.len_utf8();
                        (*n <= length).then_some(c)
                    })
                    .collect();
                let text = format!("{line}\nend\n");
                let mut w = Writer::new(&path, Rotation::default());
                for piece in text.as_bytes().chunks(read) {
                    w.write(Stream::Stdout, piece);
                    w.flush();
                }
                let records = records(&path);
                assert!(records.iter().all(|(_, l)| l.len() <= MAX_LINE + 1));
                assert_eq!(records.iter().map(|(_, l)| l.as_str()).collect::<String>(), text);
                assert!(records.len() <= line.len() / (MAX_LINE - 3) + 2, "cut no more often than needed");
            }
        }
    }

    #[test]
    fn rotation_keeps_so_many_files_of_such_a_size() {
        let dir = TestDir::new("log-rotate");
        let path = dir.path().join("log");
        let mut w = Writer::new(&path, Rotation { max_size: Some(1000), max_files: 3 });
        for i in 0..100 {
            w.write(Stream::Stdout, format!("line {i}\n").as_bytes());
            if i % 7 == 0 {
                w.flush();
            }
        }
        w.flush();
        assert_eq!(w.dropped(), 0);
        let mut kept = Vec::new();
        for file in [rotated(&path, 2), rotated(&path, 1), path.clone()] {
            assert!(std::fs::metadata(&file).unwrap().len() <= 1000);
            kept.extend(records(&file).into_iter().map(|(_, l)| l));
        }
        assert!(!rotated(&path, 3).exists());
        let first = 100 - kept.len();
        let expected: Vec<String> = (first..100).map(|i| format!("line {i}\n")).collect();
        assert_eq!(kept, expected);
        assert!(kept.len() > 20);

        let mut one = Writer::new(dir.path().join("one"), Rotation { max_size: Some(300), max_files: 1 });
        for i in 0..20 {
            one.write(Stream::Stdout, format!("{i}\n").as_bytes());
        }
        one.flush();
        let last = records(&dir.path().join("one"));
        assert_eq!(last.last().unwrap().1, "19\n");
        assert!(last.len() < 5);
        assert!(!dir.path().join("one.1").exists());
    }

    #[test]
    fn a_full_disk_costs_records_and_nothing_else() {
        let mut w = Writer::new("/dev/full", Rotation::default());
        for _ in 0..10 {
            w.write(Stream::Stdout, b"a\nb\n");
            w.flush();
        }
        assert_eq!(w.dropped(), 20);
        let mut w = Writer::new("/nonexistent/log", Rotation { max_size: Some(10), max_files: 2 });
        w.write(Stream::Stdout, b"a\nb\nc\n");
        w.flush();
        assert_eq!(w.dropped(), 3);
    }

    #[test]
    fn a_removed_file_is_made_anew_and_a_torn_one_mended() {
        let dir = TestDir::new("log-removed");
        let path = dir.path().join("log");
        let mut w = Writer::new(&path, Rotation::default());
        w.write(Stream::Stdout, b"1\n");
        w.flush();
        std::fs::remove_file(&path).unwrap();
        w.write(Stream::Stdout, b"2\n");
        w.flush();
        assert_eq!(records(&path).len(), 1);

        std::fs::write(&path, "{\"log\":\"half").unwrap();
        let mut w = Writer::new(&path, Rotation::default());
        w.write(Stream::Stdout, b"whole\n");
        w.flush();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("{\"log\":\"half\n{\"log\":\"whole\\n\""), "{text}");
    }

    #[test]
    fn a_symlink_in_the_place_of_the_log_is_not_followed() {
        let dir = TestDir::new("log-link");
        let (path, victim) = (dir.path().join("log"), dir.path().join("victim"));
        std::fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, &path).unwrap();
        let mut w = Writer::new(&path, Rotation::default());
        w.write(Stream::Stdout, b"x\n");
        w.flush();
        assert_eq!((w.dropped(), std::fs::read_to_string(&victim).unwrap().as_str()), (1, "precious"));
    }
}
