//! One simulated host: namespaces, directories and cgroups of its own.

#![expect(unsafe_code, reason = "the test makes system calls of its own")]

use crate::census::Census;
use nix::sched::{CloneFlags, setns};
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// Panics with everything the command said unless it ended with `code`.
    #[track_caller]
    pub fn expect(self, code: i32) -> Ran {
        assert_eq!(self.code, code, "exit code\nstdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }
}

/// A private mount and network namespace with its own directories, held open by a sleeping process.
pub struct Host {
    /// Everything of this host lies below: a tmpfs that only its mount namespace sees.
    pub dir: PathBuf,
    holder: Child,
    lan: Option<Child>,
    cgroups: Vec<PathBuf>,
    before: Option<Census>,
}

/// Address of the host on its LAN, and of the neighbour.
pub const HOST_LAN: &str = "198.51.100.1";
pub const NEIGHBOUR: &str = "198.51.100.2";
pub const HOST_LAN6: &str = "2001:db8:51::1";
pub const NEIGHBOUR6: &str = "2001:db8:51::2";

static NEXT: AtomicU32 = AtomicU32::new(0);

impl Host {
    /// A host with only a loopback interface, and the busybox image imported as `busybox`.
    pub fn new() -> Host {
        let host = Host::bare();
        host.ok(&["import", "--change", r#"CMD ["sh"]"#, &env("RRUN_ROOTFS"), "busybox"]);
        host
    }

    /// A host without any image.
    pub fn bare() -> Host {
        assert!(nix::unistd::geteuid().is_root(), "black-box tests make namespaces: run tests/run.sh, or as root");
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        // A test that was killed leaves its directory, and pids come round again: the clock tells them apart.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.subsec_nanos());
        let name = format!("rrun-test-{}-{n}-{now:x}", std::process::id());
        let dir = PathBuf::from("/tmp").join(&name);
        fs::create_dir(&dir).expect("a directory for the host");
        let cgroups = make_cgroups(&name);
        let mut script = format!(
            "set -e; mount --make-rprivate /; mount -t tmpfs -o mode=0755 host {0}; mkdir {0}/root {0}/state {0}/tmp; \
             printf '# a test host has no resolver\\n' > {0}/tmp/resolv.conf; mount --bind {0}/tmp/resolv.conf /etc/resolv.conf; \
             ip link set lo up; sysctl -qw net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.default.accept_dad=0; ",
            dir.display()
        );
        for c in &cgroups {
            let parent = c.parent().expect("cgroup directories have parents");
            script.push_str(&format!("mount --bind {} {}; ", c.display(), parent.display()));
        }
        script.push_str("echo ready; exec sleep infinity");
        let holder = hold(&script, &cgroups);
        let mut host = Host { dir, holder, lan: None, cgroups, before: None };
        host.before = Some(Census::take(&host));
        host
    }

    /// Adds a second namespace as the neighbour on the LAN: `lan0` here, `eth0` there.
    pub fn with_lan(mut self) -> Host {
        let lan =
            hold("set -e; mount --make-rprivate /; ip link set lo up; echo ready; exec sleep infinity", &self.cgroups);
        let pid = lan.id();
        self.lan = Some(lan);
        self.sh(&format!(
            "ip link add lan0 type veth peer name eth0 netns {pid}; ip addr add {HOST_LAN}/24 dev lan0; \
             ip -6 addr add {HOST_LAN6}/64 dev lan0 nodad; ip link set lan0 up; \
             ip route add default via {NEIGHBOUR}; ip -6 route add default via {NEIGHBOUR6}"
        ));
        self.neighbour(&format!(
            "ip addr add {NEIGHBOUR}/24 dev eth0; ip -6 addr add {NEIGHBOUR6}/64 dev eth0 nodad; ip link set eth0 up"
        ));
        self.before = Some(Census::take(&self));
        self
    }

    /// `rrun ARGS` on this host.
    #[track_caller]
    pub fn rrun(&self, args: &[&str]) -> Ran {
        run(self.command(args))
    }

    /// `rrun ARGS`, which must succeed; its standard output without the last newline.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        let ran = self.rrun(args);
        assert_eq!(ran.code, 0, "rrun {args:?}\nstdout: {}\nstderr: {}", ran.stdout, ran.stderr);
        ran.stdout.trim_end_matches('\n').to_string()
    }

    /// `rrun ARGS`, which must fail with `code`; its standard error.
    #[track_caller]
    pub fn fails(&self, code: i32, args: &[&str]) -> String {
        let ran = self.rrun(args);
        assert_eq!(ran.code, code, "rrun {args:?}\nstdout: {}\nstderr: {}", ran.stdout, ran.stderr);
        assert!(!ran.stderr.contains("panicked"), "rrun {args:?} panicked: {}", ran.stderr);
        ran.stderr
    }

    /// `rrun ARGS`, which must fail: 125 for input that cannot mean anything, 1 for what the world refuses.
    /// Its standard error.
    #[track_caller]
    pub fn refuses(&self, args: &[&str]) -> String {
        let ran = self.rrun(args);
        assert!(
            matches!(ran.code, 1 | 125),
            "rrun {args:?}: {}\nstdout: {}\nstderr: {}",
            ran.code,
            ran.stdout,
            ran.stderr
        );
        assert!(!ran.stderr.contains("panicked"), "rrun {args:?} panicked: {}", ran.stderr);
        ran.stderr
    }

    /// `rrun ARGS` as a command still to be spawned (with pipes of the caller's choice).
    pub fn command(&self, args: &[&str]) -> Command {
        let mut c = Command::new(env("RRUN_BIN"));
        c.args(args);
        self.enter(&mut c);
        c
    }

    /// A shell command on the host, which must succeed; trimmed standard output.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        let ran = self.try_sh(script);
        assert_eq!(ran.code, 0, "{script}\nstdout: {}\nstderr: {}", ran.stdout, ran.stderr);
        ran.stdout.trim_end().to_string()
    }

    /// A shell command on the host.
    pub fn try_sh(&self, script: &str) -> Ran {
        let mut c = Command::new("sh");
        c.args(["-ec", script]);
        self.enter(&mut c);
        run(c)
    }

    /// A shell command on the LAN neighbour, which must succeed; trimmed standard output.
    #[track_caller]
    pub fn neighbour(&self, script: &str) -> String {
        let ran = self.try_neighbour(script);
        assert_eq!(ran.code, 0, "{script}\nstdout: {}\nstderr: {}", ran.stdout, ran.stderr);
        ran.stdout.trim_end().to_string()
    }

    pub fn try_neighbour(&self, script: &str) -> Ran {
        let mut c = Command::new("sh");
        c.args(["-ec", script]);
        self.enter_neighbour(&mut c);
        run(c)
    }

    /// `ip -j ARGS` on the host.
    #[track_caller]
    pub fn ip(&self, args: &str) -> serde_json::Value {
        let text = self.sh(&format!("ip -j {args}"));
        serde_json::from_str(if text.is_empty() { "[]" } else { &text }).expect("ip prints JSON")
    }

    /// The elements of a map or set of table `inet rrun`, as nft prints them in JSON.
    #[track_caller]
    pub fn nft_elements(&self, set: &str) -> Vec<serde_json::Value> {
        let ran = self.try_sh("nft -j list table inet rrun");
        if ran.code != 0 {
            return Vec::new();
        }
        let doc: serde_json::Value = serde_json::from_str(&ran.stdout).expect("nft prints JSON");
        let items = doc["nftables"].as_array().cloned().unwrap_or_default();
        let found = items.iter().find_map(|i| {
            let s = i.get("map").or_else(|| i.get("set"))?;
            (s["name"] == set).then(|| s["elem"].as_array().cloned().unwrap_or_default())
        });
        found.unwrap_or_else(|| panic!("no map or set {set} in table inet rrun"))
    }

    /// Runs `command` in this host's namespaces and cgroup, with its directories in the environment.
    pub fn enter(&self, command: &mut Command) {
        command.env_clear();
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("RRUN_ROOT", self.dir.join("root")).env("RRUN_STATE", self.dir.join("state"));
        command.env("RRUN_CONFIG", self.dir.join("config.toml"));
        command.current_dir("/");
        enter(command, self.holder.id(), &self.cgroups);
    }

    /// Runs `command` in the neighbour's namespaces.
    pub fn enter_neighbour(&self, command: &mut Command) {
        let lan = self.lan.as_ref().expect("a host with_lan");
        enter(command, lan.id(), &self.cgroups);
    }

    pub fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    pub fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// A path of this host as the test process can open it.
    pub fn outside(&self, path: impl AsRef<Path>) -> PathBuf {
        let p = path.as_ref();
        PathBuf::from(format!("/proc/{}/root", self.holder.id())).join(p.strip_prefix("/").unwrap_or(p))
    }

    pub fn holder_pid(&self) -> u32 {
        self.holder.id()
    }

    pub fn cgroups(&self) -> &[PathBuf] {
        &self.cgroups
    }

    /// Removes every container and custom network, then proves that nothing is left.
    pub fn check_clean(&self) {
        let before = self.before.as_ref().expect("taken when the host was made");
        let ids = self.ok(&["ps", "-aq"]);
        if !ids.is_empty() {
            let mut args = vec!["rm", "-f", "-v"];
            args.extend(ids.lines());
            self.ok(&args);
        }
        self.ok(&["network", "prune", "-f"]);
        // Network namespaces die asynchronously, and a monitor lingers ~60 ms with its firewall socket.
        let deadline = Instant::now() + patience();
        loop {
            let left = Census::take(self).left_over(before);
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "left behind:\n{}", left.join("\n"));
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Default for Host {
    fn default() -> Host {
        Host::new()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let checked = if std::thread::panicking() {
            Ok(())
        } else {
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.check_clean()))
        };
        // Whatever happened, the machine is left as it was: everything this host started is in its
        // cgroups, so it is killed by pid from there.
        for _ in 0..200 {
            let pids = crate::census::pids_below(&self.cgroups);
            if pids.is_empty() {
                break;
            }
            for pid in pids {
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
            }
            let _ = self.holder.try_wait();
            if let Some(lan) = &mut self.lan {
                let _ = lan.try_wait();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        for c in &self.cgroups {
            crate::census::remove_cgroup(c);
        }
        let _ = fs::remove_dir(&self.dir);
        if let Err(panic) = checked {
            std::panic::resume_unwind(panic);
        }
    }
}

/// One directory per cgroup hierarchy, bind-mounted over its mount point inside the host, so that the
/// host sees a cgroup tree of its own. Processes sit in a leaf, as v2 wants it.
fn make_cgroups(name: &str) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("/proc/self/mountinfo");
    let mut out = Vec::new();
    for line in mounts.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let point = Path::new(left.split(' ').nth(4).unwrap_or_default());
        let kind = right.split(' ').next().unwrap_or_default();
        if kind == "cgroup2" {
            let controllers = fs::read_to_string(point.join("cgroup.controllers")).unwrap_or_default();
            for c in controllers.split_whitespace() {
                let _ = fs::write(point.join("cgroup.subtree_control"), format!("+{c}"));
            }
        } else if kind != "cgroup" {
            continue;
        }
        let own = point.join(name);
        if fs::create_dir(&own).is_err() {
            continue;
        }
        if let Ok(parent) = fs::read_to_string(point.join("cpuset.mems")) {
            let _ = fs::write(own.join("cpuset.mems"), parent);
            let _ =
                fs::write(own.join("cpuset.cpus"), fs::read_to_string(point.join("cpuset.cpus")).unwrap_or_default());
        }
        fs::create_dir(own.join("harness")).expect("a leaf cgroup for the harness");
        for f in ["cpuset.mems", "cpuset.cpus"] {
            if let Ok(v) = fs::read_to_string(own.join(f)) {
                let _ = fs::write(own.join("harness").join(f), v);
            }
        }
        out.push(own);
    }
    out
}

/// Starts a process in new mount and network namespaces that runs `script`, and waits for its "ready".
fn hold(script: &str, cgroups: &[PathBuf]) -> Child {
    use std::io::BufRead;
    let mut c = Command::new("unshare");
    c.args(["-m", "-n", "sh", "-c", script]).stdin(Stdio::null()).stdout(Stdio::piped());
    join_cgroups(&mut c, cgroups);
    let mut child = c.spawn().expect("unshare (util-linux)");
    let mut line = String::new();
    let out = child.stdout.as_mut().expect("piped");
    std::io::BufReader::new(out).read_line(&mut line).expect("the holder's first line");
    assert_eq!(line, "ready\n", "the simulated host could not be set up");
    child
}

fn join_cgroups(command: &mut Command, cgroups: &[PathBuf]) {
    let tasks: Vec<PathBuf> = cgroups
        .iter()
        .map(|c| {
            let leaf = c.join("harness");
            // v1: one thread through `tasks`, which spares the wait that `cgroup.procs` costs.
            if leaf.join("tasks").exists() { leaf.join("tasks") } else { leaf.join("cgroup.procs") }
        })
        .collect();
    // SAFETY: between fork and exec of a single-threaded child; only writes files.
    unsafe {
        command.pre_exec(move || {
            for t in &tasks {
                fs::write(t, "0")?;
            }
            Ok(())
        });
    }
}

fn enter(command: &mut Command, pid: u32, cgroups: &[PathBuf]) {
    join_cgroups(command, cgroups);
    let net = File::open(format!("/proc/{pid}/ns/net")).expect("the host's network namespace");
    let mnt = File::open(format!("/proc/{pid}/ns/mnt")).expect("the host's mount namespace");
    // SAFETY: as above; setns is a bare system call.
    unsafe {
        command.pre_exec(move || {
            setns(&net, CloneFlags::CLONE_NEWNET)?;
            setns(&mnt, CloneFlags::CLONE_NEWNS)?;
            nix::unistd::chdir("/")?;
            Ok(())
        });
    }
}

/// Runs `command` to its end, without input.
#[track_caller]
pub fn run(mut command: Command) -> Ran {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let out = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    use std::os::unix::process::ExitStatusExt;
    Ran {
        code: out.status.code().unwrap_or_else(|| 128 + out.status.signal().unwrap_or(0)),
        stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
    }
}

/// A path that tests/run.sh puts into the environment.
pub fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run tests/run.sh"))
}

/// Polls `f` until it gives a value; panics with `what` after ten seconds, or as many more times as
/// `RRUN_TEST_SLOW` says that this machine is slower than others.
#[track_caller]
pub fn eventually<T>(what: &str, mut f: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience();
    loop {
        if let Some(v) = f() {
            return v;
        }
        assert!(Instant::now() < deadline, "did not happen in {:?}: {what}", patience());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// How long a test waits for what a machine at ease does in a moment.
pub fn patience() -> Duration {
    let slow = std::env::var("RRUN_TEST_SLOW").ok().and_then(|v| v.parse().ok()).unwrap_or(1);
    Duration::from_secs(10) * slow
}
