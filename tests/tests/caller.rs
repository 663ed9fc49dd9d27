//! A detached container outlives whoever started it: the unit that is stopped, the session that ends.

use rrun_tests::Host;
use rrun_tests::census::pids_below;
use rrun_tests::host::{env, eventually};
use rrun_tests::peer::{call, mount, serve};
use std::fs;
use std::path::PathBuf;

/// A cgroup of each hierarchy, as systemd makes one for a unit.
struct Unit(Vec<PathBuf>);

impl Unit {
    fn new(host: &Host) -> Unit {
        let dirs: Vec<PathBuf> = host.cgroups().iter().map(|c| c.join("unit")).collect();
        for dir in &dirs {
            fs::create_dir(dir).expect("a cgroup for the unit");
            for f in ["cpuset.mems", "cpuset.cpus"] {
                if let Ok(v) = fs::read_to_string(dir.parent().expect("a parent").join(f)) {
                    let _ = fs::write(dir.join(f), v);
                }
            }
        }
        Unit(dirs)
    }

    /// `rrun ARGS` as a process of the unit.
    #[track_caller]
    fn rrun(&self, host: &Host, args: &[&str]) {
        // The host sees its own corner of each hierarchy at the mount point. v1 takes a thread at a time.
        let enter = host.cgroups().iter().map(|c| c.parent().expect("the mount point").join("unit")).map(|dir| {
            format!("if [ -e {0}/tasks ]; then echo 0 > {0}/tasks; else echo 0 > {0}/cgroup.procs; fi; ", dir.display())
        });
        let quoted: Vec<String> = args.iter().map(|a| format!("'{a}'")).collect();
        host.sh(&format!("{}{} {}", enter.collect::<String>(), env("RRUN_BIN"), quoted.join(" ")));
    }

    /// What `systemctl stop` does: everybody in the group is killed, and the group removed, which fails while
    /// somebody is in it.
    fn stop(self) {
        for pid in pids_below(&self.0) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
        for dir in &self.0 {
            eventually("the unit's cgroup is empty", || fs::remove_dir(dir).ok());
        }
    }
}

#[test]
fn stopping_the_unit_that_started_it_leaves_a_container_alone() {
    let host = Host::new();
    let unit = Unit::new(&host);
    let port = ["run", "-d", "--name", "web", "-p", "[::1]:8080:80", "-v"];
    let mount = mount();
    let server = [mount.as_str(), "busybox", "/peer", "tcp", "0.0.0.0", "80", "web"];
    unit.rrun(&host, &[&port[..], &server].concat());
    let again = ["run", "-d", "--name", "again", "--restart", "always", "busybox", "sh", "-c", "echo up; sleep 1000"];
    unit.rrun(&host, &again);
    eventually("the monitors have left the unit", || pids_below(&unit.0).is_empty().then_some(()));
    unit.stop();

    assert_eq!(host.ok(&["ps", "--format", "{{.Names}}"]).lines().count(), 2);
    // A relayed port, a log, and somebody who notes the end: that is the monitor's work.
    eventually("the server is ready", || host.ok(&["logs", "web"]).contains("ready").then_some(()));
    assert!(host.sh(&call("::1", 8080)).starts_with("web "));
    let pid = host.ok(&["inspect", "-f", "{{.State.Pid}}", "again"]);
    host.sh(&format!("kill -9 {pid}"));
    eventually("started again, by its own monitor", || {
        (host.ok(&["logs", "again"]).matches("up").count() == 2).then_some(())
    });
    host.ok(&["stop", "-t", "0", "web"]);
    assert_eq!(host.ok(&["inspect", "-f", "{{.State.ExitCode}}", "web"]), "137");
}

/// All monitors sit in one group, which belongs to no container and stays.
#[test]
fn monitors_have_a_group_of_their_own() {
    let host = Host::new();
    let ids = [serve(&host, &["--name", "one"], 80, "one"), serve(&host, &["--name", "two"], 80, "two")];
    let groups: Vec<PathBuf> = host.cgroups().iter().map(|c| c.join("rrun/monitors")).collect();
    for group in &groups {
        eventually("both monitors are in it", || {
            (fs::read_to_string(group.join("cgroup.procs")).ok()?.lines().count() == 2).then_some(())
        });
    }
    for pid in pids_below(&groups) {
        let name = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        assert!(ids.iter().any(|id| name.contains(&format!("rrun monitor {id}"))), "{name}");
    }
    host.ok(&["rm", "-f", "one", "two"]);
    eventually("it is empty again", || pids_below(&groups).is_empty().then_some(()));
}
