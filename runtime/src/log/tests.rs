use super::*;
use crate::relay::Stream;
use crate::test_dir::TestDir;
use plan::Result;
use plan::time::Timestamp;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// Keeps what it gets, up to a limit.
#[derive(Default)]
struct Kept {
    lines: Vec<String>,
    caught_up: usize,
    stop_after: Option<usize>,
}

impl Sink for Kept {
    fn record(&mut self, record: &Record<'_>) -> Result<ControlFlow<()>> {
        self.lines.push(String::from_utf8(record.log.to_vec()).unwrap());
        Ok(match self.stop_after {
            Some(n) if self.lines.len() >= n => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        })
    }

    fn caught_up(&mut self) -> Result<ControlFlow<()>> {
        self.caught_up += 1;
        Ok(ControlFlow::Continue(()))
    }
}

fn lines(path: &Path, options: ReadOptions<'_>) -> Vec<String> {
    let mut kept = Kept::default();
    read(path, options, &mut kept).unwrap();
    kept.lines
}

fn tail(path: &Path, n: u64) -> Vec<String> {
    lines(path, ReadOptions { tail: Some(n), ..ReadOptions::default() })
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|i| format!("line {i}\n")).collect()
}

fn write_numbers(w: &mut Writer, range: std::ops::Range<u32>) {
    for line in numbers(range) {
        w.write(Stream::Stdout, line.as_bytes());
    }
    w.flush();
}

#[test]
fn what_was_written_is_read_back_byte_for_byte() {
    let dir = TestDir::new("read-all");
    let path = dir.path().join("log");
    assert_eq!(lines(&path, ReadOptions::default()), Vec::<String>::new());
    let text: String = (0..3000u32)
        .map(|i| {
            format!(
                "{}\t\"q\" \\ <é> 🦀\x07{}",
                "x".repeat((i * 37 % 900) as usize),
                if i % 3 == 0 { "\n" } else { "" }
            )
        })
        .collect();
    let mut w = Writer::new(&path, Rotation::default());
    for piece in text.as_bytes().chunks(4097) {
        w.write(Stream::Stdout, piece);
    }
    w.end(Stream::Stdout);
    w.flush();
    assert!(lines(&path, ReadOptions::default()).concat() == text);
}

#[test]
fn the_tail_is_found_in_one_file_and_across_rotated_ones() {
    let dir = TestDir::new("read-tail");
    for (name, rotation) in [
        ("one", Rotation::default()),
        ("many", Rotation { max_size: Some(200_000), max_files: 5, compress: false }),
        ("small", Rotation { max_size: Some(100), max_files: 50, compress: false }),
    ] {
        let path = dir.path().join(name);
        let count = if name == "small" { 40 } else { 5000 };
        write_numbers(&mut Writer::new(&path, rotation), 0..count);
        assert_eq!(lines(&path, ReadOptions::default()), numbers(0..count), "{name}");
        for n in [0, 1, 2, 10, 39, count - 1, count, count + 1, u32::MAX] {
            let n = n.min(count + 7);
            assert_eq!(tail(&path, u64::from(n)), numbers(count.saturating_sub(n)..count), "{name} {n}");
        }
        assert_eq!(tail(&path, u64::MAX), numbers(0..count));
    }
}

#[test]
fn half_a_record_at_the_end_and_rubbish_in_between_cost_only_themselves() {
    let dir = TestDir::new("read-torn");
    let path = dir.path().join("log");
    write_numbers(&mut Writer::new(&path, Rotation::default()), 0..3);
    let mut text = std::fs::read(&path).unwrap();
    text.extend_from_slice(b"rubbish\n{\"log\":1}\n\n");
    text.extend(std::iter::repeat_n(b'z', 1_000_000));
    text.extend_from_slice(b"\n");
    std::fs::write(&path, &text).unwrap();
    write_numbers(&mut Writer::new(&path, Rotation::default()), 3..5);
    let mut text = std::fs::read(&path).unwrap();
    text.extend_from_slice(b"{\"log\":\"half");
    std::fs::write(&path, &text).unwrap();
    assert_eq!(lines(&path, ReadOptions::default()), numbers(0..5));
    assert_eq!(tail(&path, 2), numbers(3..5));
}

#[test]
fn times_bound_what_is_read() {
    let dir = TestDir::new("read-since");
    let path = dir.path().join("log");
    let text: String = (0..10)
        .map(|i| format!("{{\"log\":\"line {i}\\n\",\"stream\":\"stderr\",\"time\":\"2026-01-01T00:00:0{i}.5Z\"}}\n"))
        .collect();
    std::fs::write(&path, text).unwrap();
    let at = |s| Some(plan::time::parse(&format!("2026-01-01T00:00:0{s}Z")).unwrap());
    assert_eq!(lines(&path, ReadOptions { since: at(7), ..ReadOptions::default() }), numbers(7..10));
    assert_eq!(lines(&path, ReadOptions { until: at(2), ..ReadOptions::default() }), numbers(0..2));
    let both = ReadOptions { since: at(3), until: at(6), tail: Some(6), ..ReadOptions::default() };
    assert_eq!(lines(&path, both), numbers(4..6));
}

#[test]
fn a_reader_that_has_enough_ends_it() {
    let dir = TestDir::new("read-stop");
    let path = dir.path().join("log");
    write_numbers(&mut Writer::new(&path, Rotation::default()), 0..100);
    let mut kept = Kept { stop_after: Some(3), ..Kept::default() };
    let mut alive = || true;
    let follow = Some(Follow { is_alive: &mut alive, wake: None });
    read(&path, ReadOptions { follow, ..ReadOptions::default() }, &mut kept).unwrap();
    assert_eq!(kept.lines, numbers(0..3));
}

#[test]
fn following_sees_every_line_across_rotations_and_ends_with_the_container() {
    let dir = TestDir::new("follow");
    let path = dir.path().join("log");
    let rotation = Rotation { max_size: Some(20_000), max_files: 400, compress: false };
    let writer_path = path.clone();
    let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let over = done.clone();
    // The log does not exist when following begins.
    let writer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        let mut w = Writer::new(&writer_path, rotation);
        for begin in (0..20_000).step_by(100) {
            write_numbers(&mut w, begin..begin + 100);
            std::thread::sleep(Duration::from_micros(500));
        }
        over.store(true, std::sync::atomic::Ordering::SeqCst);
    });
    let mut kept = Kept::default();
    let mut alive = || !done.load(std::sync::atomic::Ordering::SeqCst);
    let follow = Some(Follow { is_alive: &mut alive, wake: None });
    read(&path, ReadOptions { follow, ..ReadOptions::default() }, &mut kept).unwrap();
    writer.join().unwrap();
    assert!(kept.lines == numbers(0..20_000), "{} lines", kept.lines.len());
    assert!(kept.caught_up > 1);
}

#[test]
fn the_end_of_the_watched_process_is_noticed_at_once() {
    let dir = TestDir::new("follow-end");
    let path = dir.path().join("log");
    let mut child = std::process::Command::new("sleep").arg("0.1").spawn().unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    let process = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    let mut alive = || child.try_wait().unwrap().is_none();
    let follow = Some(Follow { is_alive: &mut alive, wake: Some(std::os::fd::AsFd::as_fd(&process)) });
    let begin = Instant::now();
    read(&path, ReadOptions { follow, ..ReadOptions::default() }, &mut Kept::default()).unwrap();
    assert!(begin.elapsed() >= Duration::from_millis(90));
}

#[test]
fn following_ends_at_the_given_time() {
    let dir = TestDir::new("follow-until");
    let path = dir.path().join("log");
    let now = Timestamp::now();
    let until = Some(Timestamp { seconds: now.seconds + 1, ..now });
    let mut alive = || true;
    let follow = Some(Follow { is_alive: &mut alive, wake: None });
    read(&path, ReadOptions { follow, until, ..ReadOptions::default() }, &mut Kept::default()).unwrap();
    assert!(Timestamp::now() > now);
}

#[test]
fn what_is_no_log_file_is_refused() {
    let dir = TestDir::new("read-link");
    let path = dir.path().join("log");
    std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
    let e = read(&path, ReadOptions::default(), &mut Kept::default()).unwrap_err();
    assert!(e.to_string().ends_with("it is a symbolic link"), "{e}");
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(read(&path, ReadOptions::default(), &mut Kept::default()).is_err());
    // Nor may an older file of a rotation be one.
    std::fs::remove_dir(&path).unwrap();
    std::fs::write(&path, "").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", rotated(&path, 1)).unwrap();
    assert!(read(&path, ReadOptions::default(), &mut Kept::default()).is_err());
}

#[test]
fn the_plain_format_keeps_every_byte() {
    let dir = TestDir::new("plain");
    let path = dir.path().join("log");
    let mut text: Vec<u8> = (0..=255u8).cycle().take(60_000).collect();
    text.extend(b"\n\nlast without a newline");
    let mut w = Writer::to_files(&path, Format::Plain, Rotation::default(), String::new());
    for piece in text.chunks(4097) {
        w.write(Stream::Stderr, piece);
    }
    w.close();
    struct Bytes(Vec<u8>);
    impl Sink for Bytes {
        fn record(&mut self, record: &Record<'_>) -> Result<ControlFlow<()>> {
            assert_eq!(record.stream, Stream::Stderr);
            assert!(plan::time::parse(record.time).is_some());
            self.0.extend_from_slice(&record.log);
            Ok(ControlFlow::Continue(()))
        }
        fn caught_up(&mut self) -> Result<ControlFlow<()>> {
            Ok(ControlFlow::Continue(()))
        }
    }
    let mut read_back = Bytes(Vec::new());
    read(&path, ReadOptions { format: Format::Plain, ..ReadOptions::default() }, &mut read_back).unwrap();
    assert!(read_back.0 == text);
}

/// As its monitor would have it, one after the other.
fn pack_by_hand(path: &Path, n: u32) {
    let from = std::fs::File::open(rotated(path, n)).unwrap();
    pack::compress(from, std::fs::File::create(packed(path, n)).unwrap()).unwrap();
    std::fs::remove_file(rotated(path, n)).unwrap();
}

#[test]
fn compressed_files_are_read_like_the_others() {
    let dir = TestDir::new("read-packed");
    let path = dir.path().join("log");
    let rotation = Rotation { max_size: Some(100_000), max_files: 9, compress: false };
    write_numbers(&mut Writer::new(&path, rotation), 0..8000);
    (2..=4).for_each(|n| pack_by_hand(&path, n));
    assert!(std::fs::metadata(packed(&path, 2)).unwrap().len() < 50_000);
    assert_eq!(lines(&path, ReadOptions::default()), numbers(0..8000));
    for n in [0, 1, 100, 3000, 4321, 7999, 8000] {
        assert_eq!(tail(&path, n), numbers(8000 - u32::try_from(n).unwrap()..8000), "{n}");
    }
    // A damaged one costs what is behind the damage.
    let bytes = std::fs::read(packed(&path, 3)).unwrap();
    std::fs::write(packed(&path, 3), &bytes[..bytes.len() / 2]).unwrap();
    let all = lines(&path, ReadOptions::default());
    assert!(all.len() > 6000 && all.len() < 8000 && all.last() == Some(&"line 7999\n".to_string()));
}

#[test]
fn a_file_is_the_same_to_its_reader_before_and_after_it_is_compressed() {
    let dir = TestDir::new("same-packed");
    let path = dir.path().join("log");
    write_numbers(&mut Writer::new(&path, Rotation::default()), 0..10);
    let mut known = files::newer_than(&path, None).unwrap();
    let known = known.remove(0);
    std::fs::rename(&path, rotated(&path, 1)).unwrap();
    pack_by_hand(&path, 1);
    assert!(files::newer_than(&path, Some(&known)).unwrap().is_empty(), "nothing is newer than itself");
    write_numbers(&mut Writer::new(&path, Rotation::default()), 10..20);
    assert_eq!(files::newer_than(&path, Some(&known)).unwrap().len(), 1);
}
