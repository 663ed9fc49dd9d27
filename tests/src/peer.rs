//! The `peer` program (see `bin/peer.rs`) on hosts, neighbours and in containers.

use crate::Host;
use crate::host::env;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

/// Where the program is mounted in containers made with [`mount`].
pub const PROGRAM: &str = "/peer";

/// The `-v` argument that brings the program into a container.
pub fn mount() -> String {
    format!("{}:{PROGRAM}:ro", env("RRUN_PEER"))
}

/// Starts a detached container that answers TCP on `port` with `text`, with these flags of `run` before
/// the image; its ID.
#[track_caller]
pub fn serve(host: &Host, flags: &[&str], port: u16, text: &str) -> String {
    serve_as(host, "tcp", flags, "0.0.0.0", port, text)
}

/// As [`serve`], with protocol (`tcp`, `udp`) and listening address.
#[track_caller]
pub fn serve_as(host: &Host, proto: &str, flags: &[&str], addr: &str, port: u16, text: &str) -> String {
    let (mount, port) = (mount(), port.to_string());
    let mut args = vec!["run", "-d", "-v", &mount];
    args.extend(flags);
    args.extend(["busybox", PROGRAM, proto, addr, &port, text]);
    let id = host.ok(&args);
    crate::host::eventually("the server in the container is ready", || {
        host.rrun(&["logs", &id]).stdout.contains("ready").then_some(())
    });
    id
}

/// The shell command that calls a TCP server.
pub fn call(addr: &str, port: u16) -> String {
    format!("{} call {addr} {port}", env("RRUN_PEER"))
}

/// The shell command that calls a UDP server.
pub fn call_udp(addr: &str, port: u16) -> String {
    format!("{} call-udp {addr} {port}", env("RRUN_PEER"))
}

/// The command line that calls from inside a container made with [`mount`].
pub fn call_inside(addr: &str, port: u16) -> String {
    format!("{PROGRAM} call {addr} {port}")
}

/// A server on the host or the neighbour, until dropped.
pub struct Server(Child);

impl Server {
    pub fn on_host(host: &Host, proto: &str, addr: &str, port: u16, text: &str) -> Server {
        Server::spawn(|c| host.enter(c), proto, addr, port, text)
    }

    pub fn on_neighbour(host: &Host, proto: &str, addr: &str, port: u16, text: &str) -> Server {
        Server::spawn(|c| host.enter_neighbour(c), proto, addr, port, text)
    }

    fn spawn(enter: impl Fn(&mut Command), proto: &str, addr: &str, port: u16, text: &str) -> Server {
        let mut c = Command::new(env("RRUN_PEER"));
        c.args([proto, addr, &port.to_string(), text]).stdin(Stdio::null()).stdout(Stdio::piped());
        enter(&mut c);
        let mut child = c.spawn().expect("the peer program");
        let mut line = String::new();
        std::io::BufReader::new(child.stdout.as_mut().expect("piped")).read_line(&mut line).expect("its first line");
        assert_eq!(line, "ready\n", "a server on {addr}:{port}");
        Server(child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A connection to an `echo` server that stays open until dropped.
pub struct Held {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Held {
    pub fn by_host(host: &Host, addr: &str, port: u16) -> Held {
        Held::open(|c| host.enter(c), addr, port)
    }

    pub fn by_neighbour(host: &Host, addr: &str, port: u16) -> Held {
        Held::open(|c| host.enter_neighbour(c), addr, port)
    }

    fn open(enter: impl Fn(&mut Command), addr: &str, port: u16) -> Held {
        let mut c = Command::new(env("RRUN_PEER"));
        c.args(["hold", addr, &port.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        enter(&mut c);
        let mut child = c.spawn().expect("the peer program");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        Held { child, out }
    }

    /// The next line that it prints: the server's, or why there are no more.
    pub fn hears(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).expect("a line, or the end");
        line.trim_end().to_string()
    }

    /// Does it get back what it says?
    pub fn echoes(&mut self, text: &str) -> bool {
        // One that has heard of the end reads no more.
        writeln!(self.child.stdin.as_mut().expect("piped"), "{text}").is_ok() && self.hears() == text
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
