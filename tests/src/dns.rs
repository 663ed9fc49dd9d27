//! The `dnspeer` program (see `bin/dnspeer.rs`): servers elsewhere, and exact questions inside containers.

use crate::Host;
use crate::host::env;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// Where the program is mounted in containers made with [`mount`].
pub const PROGRAM: &str = "/dnspeer";

fn program() -> String {
    PathBuf::from(env("RRUN_PEER")).with_file_name("dnspeer").display().to_string()
}

/// The `-v` argument that brings the program into a container.
pub fn mount() -> String {
    format!("{}:{PROGRAM}:ro", program())
}

/// What a container is told about NAME, by its own resolver: `NOERROR 10.0.0.2/1`. `how`: `tcp`, `edns`.
#[track_caller]
pub fn ask(host: &Host, container: &str, name: &str, kind: &str, how: &[&str]) -> String {
    let mut args = vec!["exec", container, PROGRAM, "ask", "127.0.0.11", name, kind];
    args.extend(how);
    host.ok(&args)
}

/// A DNS server on port 53 of one of the neighbour's addresses, until dropped.
pub struct Upstream {
    child: Child,
    log: PathBuf,
}

impl Upstream {
    /// With records as `dnspeer serve` takes them.
    #[track_caller]
    pub fn on_neighbour(host: &Host, addr: &str, records: &[&str]) -> Upstream {
        Upstream::spawn(host, |c| host.enter_neighbour(c), addr, records)
    }

    /// On the host itself, as a local resolver.
    #[track_caller]
    pub fn on_host(host: &Host, addr: &str, records: &[&str]) -> Upstream {
        Upstream::spawn(host, |c| host.enter(c), addr, records)
    }

    #[track_caller]
    fn spawn(host: &Host, enter: impl Fn(&mut Command), addr: &str, records: &[&str]) -> Upstream {
        let log = host.outside(host.dir.join("tmp").join(format!("dns-{addr}.log")));
        let mut c = Command::new(program());
        c.args(["serve", addr]).args(records).stdin(Stdio::null());
        c.stdout(std::fs::File::create(&log).expect("a log"));
        enter(&mut c);
        let upstream = Upstream { child: c.spawn().expect("the dnspeer program"), log };
        crate::host::eventually("the server is ready", || upstream.lines().first().map(|l| assert_eq!(l, "ready")));
        upstream
    }

    fn lines(&self) -> Vec<String> {
        std::fs::read_to_string(&self.log).unwrap_or_default().lines().map(str::to_string).collect()
    }

    /// What it was asked, in order: `udp example.test A`.
    pub fn asked(&self) -> Vec<String> {
        self.lines().split_off(1)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
