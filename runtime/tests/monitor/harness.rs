//! A monitor in a forked process, and clients with pipes for their stdio.

#![expect(unsafe_code, reason = "the test makes system calls of its own")]

use runtime::attach::{self, AttachEnd, AttachOptions};
use runtime::log::{Rotation, Writer};
use runtime::monitor::{self, Exit, NoService, Setup};
use runtime::relay::{Ends, Stdio};
use runtime::sys::spawn;
use rustix::fs::OFlags;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::thread::JoinHandle;
use std::time::Duration;

pub struct Wanted {
    pub script: &'static str,
    pub tty: bool,
    pub stdin: bool,
    pub stdin_once: bool,
    pub foreground: bool,
    pub log: Option<PathBuf>,
    pub stop_timeout: Option<Duration>,
}

impl Wanted {
    pub fn new(script: &'static str) -> Wanted {
        Wanted {
            script,
            tty: false,
            stdin: false,
            stdin_once: false,
            foreground: false,
            log: None,
            stop_timeout: Some(Duration::from_secs(20)),
        }
    }
}

pub struct Monitored {
    pid: i32,
    dir: PathBuf,
    pub foreground: Option<UnixStream>,
    result: File,
}

impl Monitored {
    pub fn start(name: &str, wanted: Wanted) -> Monitored {
        let dir = std::env::temp_dir().join(format!("rrun-monitor-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (result, report) = std::io::pipe().unwrap();
        let listener = attach::listen(&dir).unwrap();
        // SAFETY: the child uses nothing that another thread may hold locked but the allocator, which
        // the C library makes usable after fork.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0);
        if pid == 0 {
            drop((ours, result));
            // SAFETY: a plain system call.
            unsafe { libc::setsid() };
            close_all_but(&[theirs.as_raw_fd(), report.as_raw_fd(), listener.as_raw_fd()]);
            let before = std::fs::read_dir("/proc/self/fd").unwrap().count();
            let (child, ends) = shell(&wanted);
            let mut service = NoService;
            let exit = monitor::run(Setup {
                pid: child,
                pidfd: pidfd_open(Pid::from_raw(child).unwrap(), PidfdFlags::empty()).unwrap(),
                ends,
                log: wanted
                    .log
                    .map(|path| Writer::new(path, Rotation { max_size: Some(1 << 20), max_files: 2, compress: false })),
                listener: Some(listener),
                attached: wanted.foreground.then_some(theirs),
                stdin_once: wanted.stdin_once,
                stop_signal: libc::SIGTERM,
                stop_timeout: wanted.stop_timeout,
                service: &mut service,
            });
            let Ok(Exit { code, signal, log_dropped, farewell, .. }) = exit else { spawn::exit_now(99) };
            let fds = std::fs::read_dir("/proc/self/fd").unwrap().count();
            // The connection of the foreground and the listener are closed by now.
            let grown = fds as i64 - before as i64;
            let text = json!({ "code": code, "signal": signal, "dropped": log_dropped, "grown": grown }).to_string();
            File::from(OwnedFd::from(report)).write_all(text.as_bytes()).unwrap();
            farewell.send();
            spawn::exit_now(0);
        }
        drop((theirs, report));
        let foreground = wanted.foreground.then_some(ours);
        Monitored { pid, dir, foreground, result: File::from(OwnedFd::from(result)) }
    }

    pub fn connect(&self) -> UnixStream {
        attach::connect(&self.dir).unwrap()
    }

    pub fn request(&self, request: Value) -> plan::Result<Value> {
        attach::request(&self.connect(), &request)
    }

    /// What `monitor::run` returned, and the monitor's own end.
    pub fn finish(mut self) -> Value {
        let mut text = String::new();
        self.result.read_to_string(&mut text).unwrap();
        let pid = Pid::from_raw(self.pid).unwrap();
        let (_, status) = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()).unwrap().unwrap();
        assert_eq!(status.exit_status(), Some(0), "the monitor itself failed");
        std::fs::remove_dir_all(&self.dir).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    pub fn kill(&self, signal: i32) {
        // SAFETY: kill touches no memory; the pid is our own child, which nobody has waited for.
        unsafe { libc::kill(self.pid, signal) };
    }
}

/// The forked process has copies of what other tests have open, whose ends they wait for.
fn close_all_but(kept: &[i32]) {
    let mut kept: Vec<u32> = kept.iter().map(|fd| fd.cast_unsigned()).collect();
    kept.sort_unstable();
    let mut from = 3;
    for fd in kept.into_iter().chain([u32::MAX]) {
        if fd > from {
            // SAFETY: closes descriptors that nothing in this process uses.
            unsafe { libc::syscall(libc::SYS_close_range, from, fd - 1, 0) };
        }
        from = fd.wrapping_add(1);
    }
}

fn shell(wanted: &Wanted) -> (i32, Ends) {
    let mut command = Command::new("sh");
    command.args(["-c", wanted.script]);
    if !wanted.tty {
        let pipes = monitor::pipes(wanted.stdin).unwrap();
        command.stdin(pipes.stdin).stdout(pipes.stdout).stderr(pipes.stderr);
        return (command.spawn().unwrap().id().cast_signed(), pipes.ends);
    }
    let (master, slave) = pty();
    command.stdin(slave.try_clone().unwrap()).stdout(slave.try_clone().unwrap()).stderr(slave);
    // SAFETY: between fork and exec, two system calls.
    unsafe {
        command.pre_exec(|| {
            libc::setsid();
            libc::ioctl(0, libc::TIOCSCTTY, 0);
            Ok(())
        });
    }
    (command.spawn().unwrap().id().cast_signed(), Ends::Tty(master))
}

pub fn pty() -> (OwnedFd, OwnedFd) {
    use rustix::pty::{OpenptFlags, openpt, ptsname, unlockpt};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let slave = rustix::fs::open(name.as_c_str(), flags, rustix::fs::Mode::empty()).unwrap();
    (master, slave)
}

/// A client in a thread of its own, with pipes for its stdio.
pub struct Client {
    pub stdin: Option<File>,
    pub stdout: File,
    pub stderr: File,
    pub thread: JoinHandle<plan::Result<AttachEnd>>,
}

impl Client {
    pub fn attach(stream: UnixStream, options: impl FnOnce() -> AttachOptions + Send + 'static) -> Client {
        let (stdin, write_in) = std::io::pipe().unwrap();
        let (read_out, stdout) = std::io::pipe().unwrap();
        let (read_err, stderr) = std::io::pipe().unwrap();
        let thread = std::thread::spawn(move || {
            let stdio = Stdio { stdin: stdin.as_fd(), stdout: stdout.as_fd(), stderr: stderr.as_fd() };
            attach::client_with(stream, &stdio, options())
        });
        let file = |fd: OwnedFd| File::from(fd);
        let (stdin, stdout, stderr) = (write_in.into(), read_out.into(), read_err.into());
        Client { stdin: Some(file(stdin)), stdout: file(stdout), stderr: file(stderr), thread }
    }

    /// Everything it writes, and how it ended.
    pub fn finish(mut self) -> (Vec<u8>, Vec<u8>, AttachEnd) {
        drop(self.stdin);
        let mut stderr = self.stderr;
        let errors = std::thread::spawn(move || {
            let mut text = Vec::new();
            stderr.read_to_end(&mut text).unwrap();
            text
        });
        let mut out = Vec::new();
        self.stdout.read_to_end(&mut out).unwrap();
        (out, errors.join().unwrap(), self.thread.join().unwrap().unwrap())
    }
}

pub fn with_stdin() -> AttachOptions {
    AttachOptions { stdin: true, ..AttachOptions::default() }
}

/// Reads until `text` ends with what is expected.
pub fn expect(file: &mut File, expected: &str) {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(expected.as_bytes()) {
        assert_eq!(file.read(&mut byte).unwrap(), 1, "end after {:?}", String::from_utf8_lossy(&text));
        text.push(byte[0]);
    }
}

pub fn pattern(length: usize) -> Vec<u8> {
    let mut state = 1u32;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(length)
    .collect()
}
