//! The monitor's loop with a plain shell as its container: no namespaces, no root.
//!
//! Each test forks a process that becomes the monitor, because a monitor reaps every child it finds.

#![expect(unsafe_code, reason = "the test makes system calls of its own")]
#![expect(clippy::unwrap_used, reason = "a test helper fails by panicking, like the test itself")]

mod harness;

use harness::{Client, Monitored, Wanted, expect, pattern, pty, with_stdin};
use runtime::attach::{self, AttachEnd, AttachOptions};
use runtime::relay::Stdio;
use rustix::fs::OFlags;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::time::{Duration, Instant};

#[test]
fn exit_codes_and_both_streams_reach_the_foreground() {
    for (i, (script, code, signal)) in [
        ("echo out; echo err >&2", 0, None),
        ("echo out; echo err >&2; exit 7", 7, None),
        ("echo out; echo err >&2; kill -9 $$", 137, Some(9)),
    ]
    .into_iter()
    .enumerate()
    {
        let mut m = Monitored::start(&format!("exit-{i}"), Wanted { foreground: true, ..Wanted::new(script) });
        let client = Client::attach(m.foreground.take().unwrap(), AttachOptions::default);
        let (out, err, end) = client.finish();
        assert_eq!((&out[..], &err[..], end), (&b"out\n"[..], &b"err\n"[..], AttachEnd::Exited(code)));
        let result = m.finish();
        assert_eq!((result["code"].as_i64(), result["signal"].as_i64()), (Some(code.into()), signal));
    }
}

#[test]
fn output_is_kept_for_a_foreground_client_that_comes_late() {
    let mut m = Monitored::start("late", Wanted { foreground: true, ..Wanted::new("echo early") });
    std::thread::sleep(Duration::from_millis(2500));
    let (out, _, end) = Client::attach(m.foreground.take().unwrap(), AttachOptions::default).finish();
    assert_eq!((&out[..], end), (&b"early\n"[..], AttachEnd::Exited(0)));
    m.finish();
}

#[test]
fn a_foreground_client_that_never_speaks_does_not_hold_the_container_up() {
    let mut m = Monitored::start("mute", Wanted { foreground: true, ..Wanted::new("yes | head -c 1000000; exit 3") });
    drop(m.foreground.take());
    assert_eq!(m.finish()["code"], 3);
}

#[test]
fn fifty_megabytes_arrive_whole_at_a_slow_reader_and_in_the_log() {
    let wanted = Wanted { foreground: true, ..Wanted::new("yes 0123456789abcdef | head -c 50000000; exit 5") };
    let mut m = Monitored::start("50mb", wanted);
    let mut client = Client::attach(m.foreground.take().unwrap(), AttachOptions::default);
    let line = b"0123456789abcdef\n";
    let (mut total, mut buf) = (0, vec![0; 1 << 20]);
    let mut pauses = 0;
    loop {
        let n = client.stdout.read(&mut buf).unwrap();
        if n == 0 {
            break;
        }
        assert!(buf[..n].iter().enumerate().all(|(i, b)| *b == line[(total + i) % line.len()]));
        total += n;
        if total / 5_000_000 > pauses {
            pauses += 1;
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    assert_eq!(total, 50_000_000);
    assert_eq!(client.finish().2, AttachEnd::Exited(5));
    m.finish();
}

#[test]
fn sixty_four_megabytes_go_in_and_come_back() {
    let wanted = Wanted { foreground: true, stdin: true, stdin_once: true, ..Wanted::new("exec cat") };
    let mut m = Monitored::start("64mb", wanted);
    let mut client = Client::attach(m.foreground.take().unwrap(), with_stdin);
    let data = pattern(64 << 20);
    let mut stdin = client.stdin.take().unwrap();
    let sent = data.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&sent).unwrap());
    let (out, _, end) = client.finish();
    writer.join().unwrap();
    assert!(out == data, "{} of {} bytes", out.len(), data.len());
    assert_eq!(end, AttachEnd::Exited(0));
    m.finish();
}

#[test]
fn the_end_of_stdin_reaches_the_container_and_nothing_before_it_is_lost() {
    let wanted = Wanted { foreground: true, stdin: true, stdin_once: true, ..Wanted::new("cat; echo done") };
    let mut m = Monitored::start("half-close", wanted);
    let mut client = Client::attach(m.foreground.take().unwrap(), with_stdin);
    client.stdin.take().unwrap().write_all(b"hi\n").unwrap();
    let (out, _, end) = client.finish();
    assert_eq!((&out[..], end), (&b"hi\ndone\n"[..], AttachEnd::Exited(0)));
    m.finish();
}

#[test]
fn a_container_that_does_not_read_its_input_still_ends() {
    let wanted =
        Wanted { foreground: true, stdin: true, stdin_once: true, ..Wanted::new("exec <&-; sleep 0.3; exit 4") };
    let mut m = Monitored::start("deaf", wanted);
    let mut client = Client::attach(m.foreground.take().unwrap(), with_stdin);
    let mut stdin = client.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(&vec![b'x'; 20 << 20]).is_err());
    assert_eq!(client.finish().2, AttachEnd::Exited(4));
    assert!(writer.join().unwrap(), "nobody read it all");
    m.finish();
}

#[test]
fn signals_get_past_input_that_nobody_reads() {
    let script = "trap 'echo got; exit 9' USR1; echo ready; while :; do sleep 0.05; done";
    let wanted = Wanted { foreground: true, stdin: true, stdin_once: true, ..Wanted::new(script) };
    let mut m = Monitored::start("past", wanted);
    let (tell, tid) = std::sync::mpsc::channel();
    let mut client = Client::attach(m.foreground.take().unwrap(), move || {
        let signals = Some(attach::capture(false, true).unwrap());
        // SAFETY: gettid touches no memory.
        tell.send(unsafe { libc::gettid() }).unwrap();
        AttachOptions { stdin: true, sig_proxy: true, signals, ..AttachOptions::default() }
    });
    let mut stdin = client.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(&vec![b'x'; 20 << 20]).is_err());
    expect(&mut client.stdout, "ready\n");
    std::thread::sleep(Duration::from_millis(200));
    // SAFETY: tgkill touches no memory; the thread blocks this signal.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid.recv().unwrap(), libc::SIGUSR1) };
    let (out, _, end) = client.finish();
    assert_eq!((&out[..], end), (&b"got\n"[..], AttachEnd::Exited(9)));
    assert!(writer.join().unwrap());
    m.finish();
}

#[test]
fn a_terminal_has_a_size_keys_and_its_owner_gets_it_back() {
    let wanted = Wanted {
        foreground: true,
        tty: true,
        stdin: true,
        ..Wanted::new("trap 'stty size; exit 3' INT; echo up; while :; do sleep 0.05; done")
    };
    let mut m = Monitored::start("tty", wanted);
    let (master, slave) = pty();
    runtime::tty::set_size(&master, (33, 111)).unwrap();
    let before = rustix::termios::tcgetattr(&slave).unwrap().local_modes;
    let stream = m.foreground.take().unwrap();
    let client_slave = slave.try_clone().unwrap();
    let thread = std::thread::spawn(move || {
        let fd = client_slave.as_fd();
        let options = AttachOptions { stdin: true, tty: true, ..AttachOptions::default() };
        attach::client_with(stream, &Stdio { stdin: fd, stdout: fd, stderr: fd }, options)
    });
    let mut terminal = File::from(master);
    expect(&mut terminal, "up\r\n");
    let during = rustix::termios::tcgetattr(&slave).unwrap().local_modes;
    assert!(!during.contains(rustix::termios::LocalModes::ISIG));
    terminal.write_all(b"\x03").unwrap();
    expect(&mut terminal, "33 111\r\n");
    assert_eq!(thread.join().unwrap().unwrap(), AttachEnd::Exited(3));
    assert_eq!(rustix::termios::tcgetattr(&slave).unwrap().local_modes, before);
    assert!(!rustix::fs::fcntl_getfl(&slave).unwrap().contains(OFlags::NONBLOCK));
    m.finish();
}

#[test]
fn detaching_leaves_it_running_and_the_next_client_takes_over() {
    let wanted = Wanted { stdin: true, ..Wanted::new("while read line; do echo got $line; done; exit 6") };
    let m = Monitored::start("detach", wanted);
    let keys = || AttachOptions { stdin: true, detach_keys: vec![0x10, 0x11], ..AttachOptions::default() };
    let mut first = Client::attach(m.connect(), keys);
    first.stdin.as_mut().unwrap().write_all(b"one\n").unwrap();
    expect(&mut first.stdout, "got one\n");
    first.stdin.as_mut().unwrap().write_all(b"two\n\x10\x11never").unwrap();
    assert_eq!(first.finish().2, AttachEnd::Detached);
    // Everybody attached sees everything; the end of one client's input is not the container's.
    let mut second = Client::attach(m.connect(), keys);
    second.stdin.as_mut().unwrap().write_all(b"three\n").unwrap();
    expect(&mut second.stdout, "got three\n");
    let mut third = Client::attach(m.connect(), keys);
    while m.request(json!({ "stats": {} })).unwrap()["clients"] != 2 {
        std::thread::sleep(Duration::from_millis(5));
    }
    third.stdin.as_mut().unwrap().write_all(b"four\n").unwrap();
    expect(&mut second.stdout, "got four\n");
    expect(&mut third.stdout, "got four\n");
    drop(second.stdin.take());
    drop(third.stdin.take());
    std::thread::sleep(Duration::from_millis(50));
    m.request(json!({ "signal": libc::SIGKILL })).unwrap();
    assert_eq!(second.finish().2, AttachEnd::Exited(137));
    assert_eq!(third.finish().2, AttachEnd::Exited(137));
    m.finish();
}

#[test]
fn a_client_killed_in_the_middle_frees_the_container() {
    let wanted = Wanted { foreground: true, ..Wanted::new("yes | head -c 10000000; exit 2") };
    let mut m = Monitored::start("dropped", wanted);
    let stream = m.foreground.take().unwrap();
    let raw = stream.try_clone().unwrap();
    let mut client = Client::attach(stream, AttachOptions::default);
    expect(&mut client.stdout, "y\ny\n");
    raw.shutdown(std::net::Shutdown::Both).unwrap();
    assert_eq!(client.finish().2, AttachEnd::Lost);
    assert_eq!(m.finish()["code"], 2);
}

#[test]
fn nobody_reading_our_output_ends_the_client_and_not_the_container() {
    let wanted = Wanted { foreground: true, ..Wanted::new("yes | head -c 3000000; exit 2") };
    let mut m = Monitored::start("epipe", wanted);
    let client = Client::attach(m.foreground.take().unwrap(), AttachOptions::default);
    let Client { stdin: _stdin, stdout, stderr: _stderr, thread } = client;
    drop(stdout);
    assert_eq!(thread.join().unwrap().unwrap(), AttachEnd::OutputClosed);
    assert_eq!(m.finish()["code"], 2);
}

#[test]
fn waiters_learn_the_code() {
    let m = Monitored::start("wait", Wanted::new("sleep 0.3; exit 11"));
    let streams = [m.connect(), m.connect()];
    let waiters = streams.map(|s| std::thread::spawn(|| attach::wait(s)));
    for w in waiters {
        assert_eq!(w.join().unwrap().unwrap(), Some(11));
    }
    m.finish();
}

#[test]
fn sigterm_stops_the_container_and_sighup_does_not() {
    let m = Monitored::start("term", Wanted::new("trap 'exit 8' TERM; while :; do sleep 0.02; done"));
    settle();
    m.kill(libc::SIGHUP);
    settle();
    assert!(m.request(json!({ "stats": {} })).is_ok());
    m.kill(libc::SIGTERM);
    assert_eq!(m.finish()["code"], 8);

    let patience = Duration::from_millis(300);
    let wanted = Wanted { stop_timeout: Some(patience), ..Wanted::new("trap '' TERM; while :; do sleep 0.02; done") };
    let m = Monitored::start("kill", wanted);
    settle();
    let begin = Instant::now();
    m.kill(libc::SIGTERM);
    assert_eq!(m.finish()["code"], 137);
    assert!(begin.elapsed() >= patience);
}

/// How many times slower than others this machine is said to be.
fn slowness() -> u32 {
    std::env::var("RRUN_TEST_SLOW").ok().and_then(|v| v.parse().ok()).unwrap_or(1)
}

/// As long as a shell may take to have set its trap, on a machine that may be slow.
fn settle() {
    std::thread::sleep(Duration::from_millis(100) * slowness());
}

#[test]
fn a_full_log_never_blocks_the_container() {
    let wanted = Wanted { log: Some("/dev/full".into()), ..Wanted::new("yes | head -c 2000000; exit 1") };
    let result = Monitored::start("full", wanted).finish();
    assert_eq!((result["code"].as_i64(), result["dropped"].as_u64()), (Some(1), Some(1_000_000)));
}

#[test]
fn the_log_has_what_was_said_whether_anyone_listened_or_not() {
    let path = std::env::temp_dir().join(format!("rrun-monitor-log-{}", std::process::id()));
    let wanted = Wanted { log: Some(path.clone()), ..Wanted::new("echo one; sleep 0.05; echo two >&2; printf three") };
    Monitored::start("log", wanted).finish();
    let records: Vec<(String, String)> = std::fs::read_to_string(&path)
        .unwrap()
        .lines()
        .map(|l| serde_json::from_str::<Value>(l).unwrap())
        .map(|v| (v["stream"].as_str().unwrap().into(), v["log"].as_str().unwrap().into()))
        .collect();
    let expected = [("stdout", "one\n"), ("stderr", "two\n"), ("stdout", "three")];
    assert_eq!(records, expected.map(|(s, l)| (s.to_string(), l.to_string())));
    std::fs::remove_file(path).unwrap();
}

#[test]
fn what_a_program_leaves_behind_is_not_waited_for() {
    let begin = Instant::now();
    let wanted = Wanted { foreground: true, ..Wanted::new("sleep 8 & echo hi; exit 4") };
    let mut m = Monitored::start("orphan", wanted);
    let (out, _, end) = Client::attach(m.foreground.take().unwrap(), AttachOptions::default).finish();
    assert_eq!((&out[..], end), (&b"hi\n"[..], AttachEnd::Exited(4)));
    assert!(begin.elapsed() < Duration::from_secs(6));
    m.finish();
}

#[test]
fn strange_and_fleeting_clients_leave_no_trace() {
    let m = Monitored::start("strange", Wanted::new("while :; do echo x; sleep 0.01; done"));
    for i in 0..600 {
        let mut stream = m.connect();
        let garbage: &[u8] = match i % 4 {
            0 => b"GET / HTTP/1.1\r\n\r\n",
            1 => &[1, 2, 0, 0, 0, b'{', b'{'],
            2 => &[3, 1, 0, 0, 0, b'x'],
            _ => &[],
        };
        stream.write_all(garbage).unwrap();
        if i % 5 == 0 {
            let mut attach = vec![1, 13, 0, 0, 0];
            attach.extend_from_slice(b"{\"attach\":{}}");
            // The garbage may have closed the connection already.
            let _ = stream.write_all(&attach);
        }
    }
    // A slow machine's monitor is still busy with them, and then nobody is attached any more.
    let answers = (0..slowness()).any(|_| m.request(json!({ "stats": {} })).is_ok());
    assert!(answers, "the monitor answers again");
    assert!(m.request(json!({ "fly": 1 })).unwrap_err().to_string().contains("knows no request"));
    let e = m.request(json!({ "resize": [1, 2] })).unwrap_err();
    assert_eq!(e.to_string(), "the container has no terminal to resize");
    assert!(m.request(json!({ "resize": [1, 70000] })).is_err());
    assert!(m.request(json!({ "signal": 700 })).is_err());
    let stats = m.request(json!({ "stats": {} })).unwrap();
    assert_eq!(stats["clients"], 0);
    m.request(json!({ "signal": 9 })).unwrap();
    let result = m.finish();
    assert_eq!(result["code"], 137);
    assert!(result["grown"].as_i64().unwrap() <= 0, "{result}");
}

#[test]
fn the_socket_is_private_and_may_lie_deep() {
    use std::os::unix::fs::PermissionsExt;
    let base = std::env::temp_dir().join(format!("rrun-deep-{}", std::process::id()));
    let deep = base.join("d".repeat(100)).join("e".repeat(100));
    std::fs::create_dir_all(&deep).unwrap();
    let listener = attach::listen(&deep).unwrap();
    let mode = std::fs::metadata(deep.join(attach::SOCKET)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let client = attach::connect(&deep).unwrap();
    assert!(client.as_raw_fd() > 2);
    drop(listener);
    // A dead monitor's socket is "nobody there", and is replaced by the next monitor.
    assert_eq!(attach::connect(&deep).unwrap_err().kind, plan::Kind::NotFound);
    assert_eq!(attach::connect(Path::new("/nonexistent")).unwrap_err().kind, plan::Kind::NotFound);
    attach::listen(&deep).unwrap();
    std::fs::remove_dir_all(base).unwrap();
}
