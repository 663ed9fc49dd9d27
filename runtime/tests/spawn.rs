//! What a freshly spawned monitor finds, with a shell in its place.
#![expect(clippy::unwrap_used, reason = "a test helper fails by panicking, like the test itself")]

use runtime::monitor::spawn;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// Runs `script` as the monitor; what it writes to the descriptor whose number is in `$1`.
fn say(script: &str, more: &[BorrowedFd<'_>]) -> String {
    let shell = std::fs::File::open(std::fs::canonicalize("/bin/sh").unwrap()).unwrap();
    let (mut read, write) = std::io::pipe().unwrap();
    let number = write.as_raw_fd().to_string();
    let keep: Vec<BorrowedFd<'_>> = [write.as_fd()].into_iter().chain(more.iter().copied()).collect();
    let pid = spawn(shell.as_fd(), &["monitor", "-c", script, "sh", &number], &keep).unwrap();
    assert!(pid > 1);
    drop(write);
    let mut text = String::new();
    read.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn it_inherits_nothing_but_what_it_is_given() {
    let leaked = std::fs::File::open("/etc/passwd").unwrap();
    // As a shell would leave it to us: open across exec.
    rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).unwrap();
    let given = std::fs::File::open("/etc/group").unwrap();
    let text = say("ls -l /proc/self/fd > /proc/$$/fd/$1", &[given.as_fd()]);
    let fds: Vec<&str> = text.lines().filter_map(|l| l.split_once(" -> ")).map(|(_, target)| target).collect();
    let count = |target: &str| fds.iter().filter(|t| t.contains(target)).count();
    // stdin and stderr; what we gave and its report pipe, which is its stdout here as well; and the
    // directory that ls reads.
    let expected = [count("/dev/null"), count("/etc/group"), count("pipe:"), count("/proc/")];
    assert_eq!((expected, fds.len()), ([2, 1, 2, 1], 6), "{text}");
}

#[test]
fn it_stands_alone_with_a_clean_slate() {
    // This process ignores SIGPIPE, as every Rust program does.
    let text = say("{ pwd; cat /proc/$$/stat; grep -E 'Sig(Ign|Blk)' /proc/self/status; } > /proc/$$/fd/$1", &[]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "/");
    let stat: Vec<&str> = lines[1].split(' ').collect();
    assert_eq!(stat[0], stat[5], "leader of its own session: {text}");
    assert_eq!(stat[6], "0", "no controlling terminal");
    for line in &lines[2..] {
        // Bits 31 and 32 are the C library's own.
        let mask = u64::from_str_radix(line.split('\t').nth(1).unwrap(), 16).unwrap();
        assert_eq!(mask & !0x1_8000_0000, 0, "{text}");
    }
    assert_eq!(lines.len(), 4);
}

#[test]
fn what_cannot_be_executed_is_an_error_at_once() {
    let text = std::fs::File::open("/etc/passwd").unwrap();
    let e = spawn(text.as_fd(), &["x"], &[]).unwrap_err();
    assert!(e.to_string().starts_with("start the monitor process: "), "{e}");
    assert!(spawn(text.as_fd(), &["nul\0"], &[]).is_err());
    let stdin = std::io::stdin();
    assert!(spawn(text.as_fd(), &["x"], &[stdin.as_fd()]).is_err());
}
