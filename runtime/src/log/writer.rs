//! The writing side: output as it comes, cut into lines, without ever holding up the container for a disk.

use super::Format;
use super::journal::Journal;
use super::store::{Rotation, Store};
use crate::relay::Stream;
use plan::time::Timestamp;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

/// A line longer than this is written as several records, of which only the last has the newline.
const MAX_LINE: usize = 16 * 1024;

/// A line of output, or a piece of a long one.
pub(super) struct Piece<'a> {
    pub stream: Stream,
    /// Its text, to be put together; with the newline at its end, if there was one.
    pub parts: &'a [&'a [u8]],
    /// What it begins is in the piece before.
    pub continues: bool,
    /// The line ends with it.
    pub last: bool,
}

enum Target {
    Store(Store),
    Journal(Journal),
}

pub struct Writer {
    /// The beginning of a line of each stream.
    partial: [Vec<u8>; 2],
    /// A piece of that line has been written already.
    continues: [bool; 2],
    target: Target,
}

impl Writer {
    /// In Docker's json-file format. Nothing is opened or created until there is something to write.
    pub fn new(path: impl Into<PathBuf>, rotation: Rotation) -> Writer {
        Writer::to_files(path, Format::Json, rotation, String::new())
    }

    /// `attributes`: a JSON object that each line of [`Format::Json`] carries, or nothing.
    pub fn to_files(path: impl Into<PathBuf>, format: Format, rotation: Rotation, attributes: String) -> Writer {
        Writer::of(Target::Store(Store::new(path.into(), format, rotation, attributes)))
    }

    pub fn to_journal(journal: Journal) -> Writer {
        Writer::of(Target::Journal(journal))
    }

    fn of(target: Target) -> Writer {
        Writer { partial: [Vec::new(), Vec::new()], continues: [false; 2], target }
    }

    /// How many records could not be written (full disk, directory gone, a journal that does not listen).
    pub fn dropped(&self) -> u64 {
        match &self.target {
            Target::Store(store) => store.dropped(),
            Target::Journal(journal) => journal.dropped(),
        }
    }

    /// Takes output as it was read; whole lines are on their way after [`Writer::flush`].
    pub fn write(&mut self, stream: Stream, bytes: &[u8]) {
        self.begin(stream);
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
                self.piece(stream, &[&partial[..old], &rest[..new]], false);
                partial.drain(..old);
                rest = &rest[new..];
            } else if ends {
                self.piece(stream, &[&partial, &rest[..line]], true);
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
            self.begin(stream);
            self.piece(stream, &[&partial], true);
        }
    }

    fn begin(&mut self, stream: Stream) {
        let now = Timestamp::now();
        match &mut self.target {
            Target::Store(store) => store.begin(stream, now),
            Target::Journal(journal) => journal.begin(now),
        }
    }

    fn piece(&mut self, stream: Stream, parts: &[&[u8]], last: bool) {
        let continues = std::mem::replace(&mut self.continues[stream as usize], !last);
        let piece = Piece { stream, parts, continues, last };
        match &mut self.target {
            Target::Store(store) => store.record(&piece),
            Target::Journal(journal) => journal.record(&piece),
        }
    }

    /// Writes out what is encoded. What a file cannot take is dropped and counted, and the next attempt is
    /// made with the next output; what the journal cannot take at once waits.
    pub fn flush(&mut self) {
        match &mut self.target {
            Target::Store(store) => store.flush(),
            Target::Journal(journal) => journal.flush(),
        }
    }

    /// What must be writable before [`Writer::flush`] gets any further.
    pub fn waits_for(&self) -> Option<BorrowedFd<'_>> {
        match &self.target {
            Target::Store(_) => None,
            Target::Journal(journal) => journal.waits_for(),
        }
    }

    /// So much waits that no more output should be read.
    pub fn is_full(&self) -> bool {
        matches!(&self.target, Target::Journal(journal) if journal.is_full())
    }

    /// A child of this process has ended; `true` if it was one of the log's.
    pub fn child_ended(&mut self, pid: i32, status: i32) -> bool {
        match &mut self.target {
            Target::Store(store) => store.child_ended(pid, status),
            Target::Journal(_) => false,
        }
    }

    /// The container has ended: the last lines, and nothing that goes on after us.
    pub fn close(&mut self) {
        self.end(Stream::Stdout);
        self.end(Stream::Stderr);
        match &mut self.target {
            Target::Store(store) => store.close(),
            Target::Journal(journal) => journal.close(),
        }
    }

    /// Gives back memory that is not in use.
    pub fn release(&mut self) {
        for partial in &mut self.partial {
            partial.shrink_to_fit();
        }
        match &mut self.target {
            Target::Store(store) => store.release(),
            Target::Journal(journal) => journal.release(),
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
    use super::super::rotated;
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
        let mut w = Writer::new(&path, Rotation { max_size: Some(1000), max_files: 3, compress: false });
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

        let mut one =
            Writer::new(dir.path().join("one"), Rotation { max_size: Some(300), max_files: 1, compress: false });
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
        let mut w = Writer::new("/nonexistent/log", Rotation { max_size: Some(10), max_files: 2, compress: false });
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
