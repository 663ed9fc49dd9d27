//! The same starts with docker, podman, runc and crun, as far as they are installed and can do it here;
//! what one of them cannot do has no figure, and its reason goes to standard error.

use crate::{BRIDGE, NONE, PORT, RANGE, Table, median, ms};
use rrun_tests::Host;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub fn starts(table: &mut Table) {
    let world = World::make(&["unshare", "-n"]);
    engines(&world, table);
    runtimes(&world, table);
}

/// `docker pull` of an image in the registry on `host`: wall time, and processor time of the client and of
/// the daemon with all that it started.
pub fn pull(host: &Host, name: &str) -> Option<(Duration, Duration)> {
    let world = World::make(&["nsenter", "-n", "-t", &host.holder_pid().to_string()]);
    let engine = Dockerd::start(&world, "--bridge=none --iptables=false")?;
    let before = engine.processor_time();
    let begin = Instant::now();
    let client =
        world.sh(&format!("docker -H unix://{}/docker.sock pull -q {name} >&2; times | tail -n1", world.dir))?;
    let wall = begin.elapsed();
    let client: f64 = client.split_whitespace().filter_map(seconds).sum();
    Some((wall, engine.processor_time() - before + Duration::from_secs_f64(client)))
}

/// "0m1.250s" of the shell's `times`.
fn seconds(text: &str) -> Option<f64> {
    let (minutes, seconds) = text.strip_suffix('s')?.split_once('m')?;
    Some(minutes.parse::<f64>().ok()? * 60.0 + seconds.parse::<f64>().ok()?)
}

/// A mount namespace of the peers' own with a tmpfs for their files, as rrun's simulated host has them, but
/// with the machine's own cgroup tree: runc and crun look for their cgroups under the paths of
/// /proc/self/cgroup. crun takes no hybrid tree, so the empty v2 one beside v1 is hidden.
struct World {
    holder: Child,
    dir: String,
}

impl World {
    /// `network` is the program that goes into the network namespace or makes it.
    fn make(network: &[&str]) -> World {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("rrun-bench-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir(&dir).expect("a directory for the peers");
        let dir = dir.display().to_string();
        let script = format!(
            "ip link set lo up; mount -t tmpfs bench {dir}; mount -t tmpfs run /run; \
             if mountpoint -q /sys/fs/cgroup/unified; then umount -l /sys/fs/cgroup/unified; fi; exec sleep infinity"
        );
        let mut command = Command::new(network[0]);
        command.args(&network[1..]).args(["unshare", "-m", "--propagation=private", "sh", "-ec", &script]);
        let holder = command.stdin(Stdio::null()).spawn().expect("a namespace for the peers");
        let world = World { holder, dir };
        let comm = format!("/proc/{}/comm", world.holder.id());
        while std::fs::read_to_string(&comm).expect("the holder runs").trim() != "sleep" {
            std::thread::sleep(Duration::from_millis(20));
        }
        world
    }

    fn command(&self, program: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-m", "-n", "-t", &self.holder.id().to_string()]).args(program);
        command
    }

    /// A shell command in this world: what it printed, if it succeeded.
    fn sh(&self, script: &str) -> Option<String> {
        let out = self.command(&["sh", "-ec", script]).stdin(Stdio::null()).output().ok()?;
        out.status.success().then(|| String::from_utf8_lossy(&out.stdout).trim().to_string())
    }

    fn has(&self, program: &str) -> bool {
        self.sh(&format!("command -v {program}")).is_some()
    }

    fn time(&self, n: usize, script: &str) -> Option<Duration> {
        let pid = self.holder.id().to_string();
        let script = format!("exec {script}");
        median(n, &["sh", "-ec", &script], |c| {
            let inner = std::mem::replace(c, Command::new("nsenter"));
            c.args(["-m", "-n", "-t", &pid]).arg(inner.get_program()).args(inner.get_args()).stdin(Stdio::null());
        })
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        let _ = std::fs::remove_dir(&self.dir);
        // Docker and podman leave the cgroups above their containers' behind.
        for left in ["docker", "libpod_parent/conmon", "libpod_parent"] {
            let _ = std::fs::remove_dir(format!("/sys/fs/cgroup/{left}"));
            for hierarchy in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
                let _ = std::fs::remove_dir(hierarchy.path().join(left));
            }
        }
    }
}

fn engines(world: &World, table: &mut Table) {
    let d = &world.dir;
    let engine = Dockerd::start(world, "");
    let docker = format!("docker -H unix://{d}/docker.sock");
    let podman = format!(
        "podman --root {d}/podman --runroot {d}/podman-run --tmpdir {d}/podman-tmp --cgroup-manager cgroupfs --runtime runc"
    );
    // Without CAP_SYS_RESOURCE podman cannot raise the limits that it would set by itself.
    let limits = "--ulimit nofile=1024:1024 --ulimit nproc=1000:1000";
    for (program, command, always) in [("docker", &docker, ""), ("podman", &podman, limits)] {
        if !world.has(program) || (program == "docker" && engine.is_none()) {
            continue;
        }
        let rootfs = rrun_tests::host::env("RRUN_ROOTFS");
        if world.sh(&format!("{command} import {rootfs} busybox:bench")).is_none() {
            eprintln!("not measured: {program} does not take the image");
            continue;
        }
        let rows = [(NONE, "--network none", 10), (BRIDGE, "", 10), (PORT, "-p 8080:80", 10)];
        for (row, flags, n) in rows.into_iter().chain([(RANGE, "-p 9000-9499:9000-9499", 1)]) {
            if let Some(time) = world.time(n, &format!("{command} run --rm {always} {flags} busybox:bench true")) {
                table.put(row, program, ms(time));
            }
        }
    }
}

/// A Docker engine in the peers' world, ended when dropped.
struct Dockerd(Child);

impl Dockerd {
    fn start(world: &World, flags: &str) -> Option<Dockerd> {
        if !world.has("dockerd") {
            return None;
        }
        let d = &world.dir;
        let script = format!(
            "exec dockerd --data-root {d}/docker --exec-root {d}/docker-run --pidfile {d}/docker.pid \
             --host unix://{d}/docker.sock {flags} >{d}/dockerd.log 2>&1"
        );
        let engine = Dockerd(world.command(&["sh", "-ec", &script]).stdin(Stdio::null()).spawn().ok()?);
        let up = (0..150).any(|_| {
            std::thread::sleep(Duration::from_millis(100));
            world.sh(&format!("docker -H unix://{d}/docker.sock info")).is_some()
        });
        if !up {
            let log = world.sh(&format!("cat {d}/dockerd.log")).unwrap_or_default();
            eprintln!("not measured: dockerd does not answer: {log}");
        }
        up.then_some(engine)
    }

    /// Of the daemon and of the children that it has waited for (proc_pid_stat(5), fields 14 to 17).
    fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap_or_default();
        let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
        let ticks: u64 = fields.skip(11).take(4).filter_map(|f| f.parse::<u64>().ok()).sum();
        // USER_HZ is 100 on every architecture that rrun is built for.
        Duration::from_millis(ticks * 10)
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.0.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

fn runtimes(world: &World, table: &mut Table) {
    let b = format!("{}/bundle", world.dir);
    for program in ["runc", "crun"] {
        if !world.has(program) {
            continue;
        }
        let made = world.sh(&format!(
            "mkdir -p {b}/rootfs; [ -e {b}/rootfs/bin ] || tar -C {b}/rootfs -xf {}; cd {b}; rm -f config.json; {program} spec; \
             python3 -c 'import json; c = json.load(open(\"config.json\")); p = c[\"process\"]; \
             p.update(terminal=False, args=[\"true\"]); p.pop(\"rlimits\", 0); json.dump(c, open(\"config.json\", \"w\"))'",
            rrun_tests::host::env("RRUN_ROOTFS")
        ));
        if made.is_none() {
            eprintln!("not measured: {program} spec failed");
            continue;
        }
        if let Some(time) = world.time(20, &format!("{program} run --bundle {b} bench-{program}")) {
            table.put(NONE, program, ms(time));
        }
    }
}
