//! Real terminals: rrun on one side of a pseudo-terminal, the test on the other.

#![expect(unsafe_code, reason = "the test makes system calls of its own")]

use nix::pty::{Winsize, openpty};
use rrun_tests::Host;
use rrun_tests::host::eventually;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

/// A command on a terminal, and all that the terminal has shown.
struct Session {
    child: Child,
    master: File,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Session {
    fn start(mut command: Command, rows: u16, cols: u16) -> Session {
        let size = Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).expect("a pseudo-terminal");
        let slave = |fd: &OwnedFd| Stdio::from(fd.try_clone().expect("dup"));
        command.stdin(slave(&pty.slave)).stdout(slave(&pty.slave)).stderr(slave(&pty.slave));
        // SAFETY: setsid and TIOCSCTTY are bare system calls between fork and exec.
        unsafe {
            command.pre_exec(|| {
                nix::unistd::setsid()?;
                if libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let child = command.spawn().expect("spawn");
        // The command holds copies of the slave: with them gone the reader sees the end.
        drop(command);
        drop(pty.slave);
        let master = File::from(pty.master);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (mut reader, sink) = (master.try_clone().expect("dup"), Arc::clone(&seen));
        std::thread::spawn(move || {
            let mut buf = [0u8; 4096];
            while let Ok(n @ 1..) = reader.read(&mut buf) {
                sink.lock().expect("lock").extend_from_slice(&buf[..n]);
            }
        });
        Session { child, master, seen }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().expect("lock")).into_owned()
    }

    fn send(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).expect("type");
    }

    #[track_caller]
    fn expect(&self, text: &str) {
        eventually(&format!("{text:?} on the terminal"), || self.text().contains(text).then_some(()));
    }

    fn end(mut self) -> (i32, String) {
        let code = self.child.wait().expect("wait").code().unwrap_or(-1);
        (code, self.text())
    }
}

#[test]
fn who_publishes_from_a_terminal_is_told_from_where_it_is_reachable() {
    let host = Host::new().with_lan();
    let args = ["run", "-d", "-p", "8080:80", "-p", "127.0.0.1:8081:80", "busybox", "sleep", "1000"];
    let s = Session::start(host.command(&args), 24, 80);
    s.expect("0.0.0.0:8080/tcp is reachable from every network this host is on (lan0 198.51.100.1");
    s.expect("127.0.0.1:8081/tcp is reachable from this host only");
    s.expect("hint: -p 127.0.0.1:");
    assert_eq!(s.end().0, 0);
}

#[test]
fn a_shell_on_a_terminal() {
    let host = Host::new();
    let mut s = Session::start(host.command(&["run", "-it", "--rm", "--network", "none", "busybox", "sh"]), 33, 101);
    s.expect("# ");
    s.send("stty size; tty; echo do\"\"ne\n");
    s.expect("33 101");
    s.expect("/dev/pts/0");
    s.expect("done");
    // A resize on our side arrives inside.
    let size = Winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one winsize.
    assert_eq!(unsafe { libc::ioctl(s.master.as_raw_fd(), libc::TIOCSWINSZ, &size) }, 0);
    eventually("the new size", || {
        s.master.write_all(b"stty size\n").expect("type");
        std::thread::sleep(std::time::Duration::from_millis(50));
        s.text().contains("40 120").then_some(())
    });
    // Ctrl-C reaches the program in the container, not rrun.
    s.send("sleep 1000\n");
    std::thread::sleep(std::time::Duration::from_millis(100));
    s.send("\u{3}");
    s.send("echo al\"\"ive; exit 6\n");
    s.expect("alive");
    let (code, _) = s.end();
    assert_eq!(code, 6);
}

#[test]
fn the_callers_terminal_is_put_back() {
    let host = Host::new();
    let script = format!(
        "stty -a > {0}/before; {1} run -it --rm --network none busybox true; stty -a > {0}/after",
        host.dir.display(),
        rrun_tests::host::env("RRUN_BIN")
    );
    let mut c = Command::new("sh");
    c.args(["-c", &script]);
    host.enter(&mut c);
    let (code, text) = Session::start(c, 24, 80).end();
    assert_eq!(code, 0, "{text}");
    assert_eq!(
        host.sh(&format!("cat {}/before", host.dir.display())),
        host.sh(&format!("cat {}/after", host.dir.display()))
    );
}

#[test]
fn exec_on_a_terminal() {
    let host = Host::new();
    host.ok(&["run", "-d", "--name", "cc", "--network", "none", "busybox", "sleep", "1000"]);
    let mut s = Session::start(host.command(&["exec", "-it", "cc", "sh"]), 20, 70);
    s.expect("# ");
    s.send("stty size; exit 3\n");
    s.expect("20 70");
    assert_eq!(s.end().0, 3);
}

#[test]
fn detach_and_attach_again() {
    let host = Host::new();
    let mut s =
        Session::start(host.command(&["run", "-it", "--name", "cc", "--network", "none", "busybox", "sh"]), 24, 80);
    s.expect("# ");
    s.send("\u{10}\u{11}");
    let (code, _) = s.end();
    assert_eq!(code, 0, "detached");
    assert_eq!(host.ok(&["ps", "--format", "{{.Names}}"]), "cc");
    let mut s = Session::start(host.command(&["attach", "cc"]), 24, 80);
    s.send("echo ba\"\"ck; exit 5\n");
    s.expect("back");
    assert_eq!(s.end().0, 5);
    let until = host.sh("date +%s.%N");
    let told = [
        "events",
        "--since",
        "5m",
        "--until",
        &until,
        "-f",
        "event=attach",
        "-f",
        "event=detach",
        "-f",
        "event=resize",
    ];
    let told = host.ok(&told);
    let words: Vec<&str> = told.lines().filter_map(|line| line.split(' ').nth(2)).collect();
    assert_eq!(words.first(), Some(&"attach"), "{told}");
    assert_eq!(words.iter().filter(|w| **w == "attach").count(), 2, "{told}");
    assert_eq!(words.iter().filter(|w| **w == "detach").count(), 1, "{told}");
    assert!(told.contains("width=80"), "{told}");
}

#[test]
fn no_terminal_no_t() {
    let host = Host::new();
    let e = host.fails(125, &["run", "-it", "--rm", "busybox", "true"]);
    assert!(e.contains("the input device is not a TTY"), "{e}");
    host.ok(&["run", "-t", "--rm", "--network", "none", "busybox", "tty"]);
}

#[test]
fn much_output_on_a_terminal() {
    let host = Host::new();
    let s = Session::start(
        host.command(&["run", "-t", "--rm", "--network", "none", "busybox", "sh", "-c", "seq 1 100000"]),
        24,
        80,
    );
    let seen = Arc::clone(&s.seen);
    assert_eq!(s.end().0, 0);
    eventually("the last line", || {
        let text = String::from_utf8_lossy(&seen.lock().expect("lock")).into_owned();
        (text.lines().filter(|l| !l.is_empty()).count() == 100_000).then_some(())
    });
}
