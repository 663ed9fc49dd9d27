//! `exec`'s side of the relay, with a plain shell as the program.

#![expect(unsafe_code, reason = "the test makes system calls of its own")]
#![expect(clippy::unwrap_used, reason = "a test helper fails by panicking, like the test itself")]

use runtime::monitor::{Pipes, pipes};
use runtime::relay::{AttachEnd, Ends, Options, Stdio, relay};
use rustix::fs::OFlags;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

type Relayed = JoinHandle<plan::Result<AttachEnd>>;

/// Relays `script`; gives the other ends of the relay's stdin, stdout and stderr.
#[expect(clippy::zombie_processes, reason = "the relay itself collects its program")]
fn start(script: &str, options: Options) -> (File, File, File, Relayed) {
    let Pipes { stdin, stdout, stderr, ends } = pipes(true).unwrap();
    let child = Command::new("sh").args(["-c", script]).stdin(stdin).stdout(stdout).stderr(stderr).spawn().unwrap();
    let (own_in, to_it) = std::io::pipe().unwrap();
    let (from_it, own_out) = std::io::pipe().unwrap();
    let (errors, own_err) = std::io::pipe().unwrap();
    let thread = std::thread::spawn(move || {
        let stdio = Stdio { stdin: own_in.as_fd(), stdout: own_out.as_fd(), stderr: own_err.as_fd() };
        run(child.id().cast_signed(), ends, &stdio, options)
    });
    let file = |fd: OwnedFd| File::from(fd);
    (file(to_it.into()), file(from_it.into()), file(errors.into()), thread)
}

fn run(pid: i32, ends: Ends, stdio: &Stdio<'_>, options: Options) -> plan::Result<AttachEnd> {
    let pidfd = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
    relay(pid, pidfd, ends, stdio, options)
}

fn all(mut file: File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

fn stdin() -> Options {
    Options { stdin: true, ..Options::default() }
}

#[test]
fn streams_stay_apart_and_the_code_comes_back() {
    let (to, from, errors, thread) = start("cat; echo err >&2; exit 42", stdin());
    (&to).write_all(b"through").unwrap();
    drop(to);
    assert_eq!((all(from), all(errors)), (b"through".to_vec(), b"err\n".to_vec()));
    assert_eq!(thread.join().unwrap().unwrap(), AttachEnd::Exited(42));
    let (_to, from, _errors, thread) = start("cat; kill -TERM $$", Options::default());
    assert_eq!(all(from), b"", "without -i its stdin is at its end");
    assert_eq!(thread.join().unwrap().unwrap(), AttachEnd::Exited(143));
}

#[test]
fn sixty_four_megabytes_both_ways_with_a_slow_reader() {
    let (mut to, mut from, _errors, thread) = start("exec cat", stdin());
    let data: Vec<u8> = (0..64u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let sent = data.clone();
    let writer = std::thread::spawn(move || to.write_all(&sent).unwrap());
    let (mut total, mut buf) = (0, vec![0; 1 << 20]);
    loop {
        let n = from.read(&mut buf).unwrap();
        if n == 0 {
            break;
        }
        assert!(buf[..n] == data[total..total + n]);
        if total >> 22 != (total + n) >> 22 {
            std::thread::sleep(Duration::from_millis(10));
        }
        total += n;
    }
    writer.join().unwrap();
    assert_eq!(total, data.len());
    assert_eq!(thread.join().unwrap().unwrap(), AttachEnd::Exited(0));
}

#[test]
fn what_the_program_wrote_arrives_however_late_it_is_read() {
    // The program is long gone, something else holds its pipe, and we begin to read after the time
    // that is allowed for that.
    let (_to, from, _errors, thread) = start("head -c 600000 /dev/zero; sleep 7 & exit 0", Options::default());
    std::thread::sleep(Duration::from_millis(3500));
    let begin = Instant::now();
    assert_eq!(all(from).len(), 600_000);
    assert_eq!(thread.join().unwrap().unwrap(), AttachEnd::Exited(0));
    assert!(begin.elapsed() < Duration::from_secs(3));
}

#[test]
fn detaching_leaves_a_program_its_terminal() {
    use rustix::pty::{OpenptFlags, openpt, ptsname, unlockpt};
    let pair = || {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        (master, rustix::fs::open(name.as_c_str(), flags, rustix::fs::Mode::empty()).unwrap())
    };
    let (inner_master, inner) = pair();
    let done = std::env::temp_dir().join(format!("rrun-relay-detach-{}", std::process::id()));
    let script =
        format!("trap 'exit 1' HUP; echo up; read x; sleep 0.5; tty > /dev/tty && echo $x > {}", done.display());
    let mut command = Command::new("sh");
    command.args(["-c", &script]);
    command.stdin(inner.try_clone().unwrap()).stdout(inner.try_clone().unwrap()).stderr(inner);
    // SAFETY: between fork and exec, two system calls.
    unsafe {
        command.pre_exec(|| {
            libc::setsid();
            libc::ioctl(0, libc::TIOCSCTTY, 0);
            Ok(())
        });
    }
    let mut child = command.spawn().unwrap();
    drop(command);
    let (outer_master, outer) = pair();
    let pid = child.id().cast_signed();
    let thread = std::thread::spawn(move || {
        let fd = outer.as_fd();
        let options = Options { stdin: true, tty: true, detach_keys: vec![0x10, 0x11], ..Options::default() };
        run(pid, Ends::Tty(inner_master), &Stdio { stdin: fd, stdout: fd, stderr: fd }, options)
    });
    let mut terminal = File::from(outer_master);
    let mut seen = Vec::new();
    while !seen.ends_with(b"up\r\n") {
        let mut byte = [0];
        terminal.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
    terminal.write_all(b"kept\n\x10\x11").unwrap();
    assert_eq!(thread.join().unwrap().unwrap(), AttachEnd::Detached);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(std::fs::read_to_string(&done).unwrap(), "kept\n");
    std::fs::remove_file(done).unwrap();
}
