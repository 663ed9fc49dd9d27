//! What a freshly spawned monitor finds. One test alone in its process: a monitor is split off from
//! processes with a single thread, which the test harness is not.
#![expect(clippy::unwrap_used, reason = "a test helper fails by panicking, like the test itself")]

use runtime::cgroup::Layout;
use runtime::monitor::spawn;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;

/// What a monitor writes to `write`: runs `look` in one.
fn say(more: &[i32], look: impl FnOnce() -> String) -> String {
    let (mut read, mut write) = std::io::pipe().unwrap();
    let keep: Vec<i32> = [write.as_raw_fd()].iter().chain(more).copied().collect();
    let pid = spawn(&Layout::default(), &keep, || {
        let text = look();
        // It must end for the reader, whose copy is the last.
        i32::from(write.write_all(text.as_bytes()).is_err())
    })
    .unwrap();
    assert!(pid > 1);
    drop(write);
    let mut text = String::new();
    read.read_to_string(&mut text).unwrap();
    text
}

fn open_files() -> String {
    let fds = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    fds.filter_map(|e| std::fs::read_link(e.path()).ok()).map(|t| format!("{}\n", t.display())).collect()
}

#[test]
fn it_inherits_nothing_but_what_it_is_given() {
    let leaked = std::fs::File::open("/etc/passwd").unwrap();
    // As a shell would leave it to us: open across exec.
    rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).unwrap();
    let given = std::fs::File::open("/etc/group").unwrap();
    let text = say(&[given.as_raw_fd()], open_files);
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    for target in text.lines() {
        *count.entry(target.split(':').next().unwrap()).or_default() += 1;
    }
    let directory = count.keys().find(|k| k.starts_with("/proc/")).copied().unwrap();
    let expected = BTreeMap::from([("/dev/null", 3), ("/etc/group", 1), ("pipe", 1), (directory, 1)]);
    assert_eq!(count, expected, "{text}");
}

#[test]
fn it_stands_alone_with_a_clean_slate() {
    let text = say(&[], || {
        let read = |path: &str| std::fs::read_to_string(path).unwrap();
        let status = read("/proc/self/status");
        let masks = status.lines().filter(|l| l.starts_with("SigIgn") || l.starts_with("SigBlk"));
        let masks: Vec<&str> = masks.collect();
        format!("{}\n{}{}", std::env::current_dir().unwrap().display(), read("/proc/self/stat"), masks.join("\n"))
    });
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "/");
    let stat: Vec<&str> = lines[1].rsplit(") ").next().unwrap().split(' ').collect();
    let pid = lines[1].split(' ').next().unwrap();
    assert_eq!(pid, stat[3], "leader of its own session: {text}");
    assert_eq!(stat[4], "0", "no controlling terminal");
    let mask = |line: &str| u64::from_str_radix(line.split('\t').nth(1).unwrap(), 16).unwrap();
    let pipe = 1 << (rustix::process::Signal::PIPE.as_raw() - 1);
    // Ignored: SIGPIPE, as in every Rust program. (Bits 31 and 32 are the C library's own.)
    assert_eq!((mask(lines[2]), mask(lines[3]) & !0x1_8000_0000), (0, pipe), "{text}");
    assert_eq!(lines.len(), 4);
}

#[test]
fn it_cannot_inherit_our_stdio() {
    let e = spawn(&Layout::default(), &[0], || 0).unwrap_err();
    assert!(e.to_string().starts_with("start the monitor process: "), "{e}");
}
