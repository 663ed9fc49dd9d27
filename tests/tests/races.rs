//! Names that change while a container is put together. A neighbour that shares a volume exchanges a directory of
//! it for a symbolic link that leads to the host, as fast as it can; some hundred containers start meanwhile.
//!
//! A start may fail. It may never hang, touch what is the host's, or begin with less confinement.

use rrun_tests::Host;
use rrun_tests::host::env;
use std::time::{Duration, Instant};

/// Starts, or as many as a slow machine gets done in a while.
const STARTS: usize = 200;
const A_WHILE: Duration = Duration::from_secs(25);

/// A directory of the host's that nobody may touch.
struct Canary<'h> {
    host: &'h Host,
    dir: String,
    before: String,
}

impl<'h> Canary<'h> {
    fn new(host: &'h Host) -> Canary<'h> {
        let dir = format!("{}/canary", host.dir.display());
        host.sh(&format!(
            "mkdir -p {dir}/x {dir}/pts {dir}/shm {dir}/sub; echo secret > {dir}/key; cp {dir}/key {dir}/sub/key; \
             printf 'spy:x:0:0::/:\\n' > {dir}/passwd; chmod 700 {dir}/x"
        ));
        let mut canary = Canary { host, dir, before: String::new() };
        canary.before = canary.look();
        canary
    }

    /// The host's mounts as well: none may come from a container.
    fn look(&self) -> String {
        let dir = &self.dir;
        self.host.sh(&format!(
            "find {dir} -printf '%p %y %m %U:%G %s %n %T@\\n' | sort; cat {dir}/key {dir}/sub/key {dir}/passwd; \
             stat -c '%a %u:%g %t:%T' /dev/null; cut -d' ' -f4,5 /proc/self/mountinfo | grep -v /overlay | sort"
        ))
    }

    #[track_caller]
    fn is_untouched(&self) {
        assert_eq!(self.look(), self.before);
    }
}

/// The neighbour: makes what `prepare` says in the volume (at /v), then exchanges /v/`name` and /v/other.
#[track_caller]
fn attacker(host: &Host, name: &str, prepare: &str) {
    let prober = format!("{}:/prober:ro", env("RRUN_PROBER"));
    let script = format!("{prepare}; exec /prober swap /v/{name} /v/other");
    host.ok(&[
        "run",
        "-d",
        "--name",
        "evil",
        "--network",
        "none",
        "-v",
        "shared:/v",
        "-v",
        &prober,
        "busybox",
        "sh",
        "-ec",
        &script,
    ]);
    rrun_tests::host::eventually("the two change places", || {
        let kind = || host.ok(&["exec", "evil", "sh", "-c", &format!("[ -L /v/{name} ] && echo link || echo other")]);
        let first = kind();
        (0..50).any(|_| kind() != first).then_some(())
    });
}

/// Runs these until enough is done; what `run` printed each time that it did.
#[track_caller]
fn start_many(host: &Host, flags: &[&str], script: &str) -> Vec<String> {
    let args = [&["run", "--rm", "--network", "none"], flags, &["busybox", "sh", "-c", script]].concat();
    let began = Instant::now();
    let mut printed = Vec::new();
    for n in 0..STARTS {
        if began.elapsed() > A_WHILE {
            println!("{n} starts");
            break;
        }
        let ran = host.rrun(&args);
        assert!(matches!(ran.code, 0 | 125..=127), "{}: {}{}", ran.code, ran.stdout, ran.stderr);
        assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
        if ran.code == 0 {
            printed.push(ran.stdout);
        }
    }
    host.ok(&["rm", "-f", "evil"]);
    printed
}

/// What holds in every container that starts: procfs and sysfs are the kernel's, masks are the container's null
/// device, and the parameters of the host cannot be written.
const CONFINED: &str = "grep -c ' /proc rw\\| /proc ro' /proc/self/mountinfo; \
    for f in /proc/keys /proc/timer_list /proc/kcore; do [ ! -e $f ] || stat -c %t:%T $f; done; \
    (echo x > /proc/sys/kernel/core_pattern) 2>/dev/null && echo written; true";

#[track_caller]
fn are_confined(printed: &[String]) {
    assert!(!printed.is_empty(), "not one has started");
    for text in printed {
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("1"), "one file system at /proc: {text}");
        assert!(lines.all(|l| l == "1:3"), "{text}");
    }
}

/// S19 (CVE-2021-30465): a mount's target, three levels of it, in a volume that a neighbour changes.
#[test]
fn a_mount_target_that_becomes_a_link() {
    let host = Host::new();
    let canary = Canary::new(&host);
    attacker(&host, "x", &format!("mkdir /v/x; ln -s {} /v/other", canary.dir));
    let flags = ["-v", "shared:/vol", "-v", "own:/vol/x/sub/deep", "--tmpfs", "/vol/x/tmp"];
    are_confined(&start_many(&host, &flags, CONFINED));
    canary.is_untouched();
}

/// The same, with a link to the container's own /proc, which must not be covered.
#[test]
fn a_mount_target_that_becomes_proc() {
    let host = Host::new();
    let canary = Canary::new(&host);
    host.ok(&["run", "--rm", "--network", "none", "-v", "shared:/v", "busybox", "ln", "-s", "/proc", "/v/fixed"]);
    for over in [&["-v", "own:/vol/fixed"][..], &["--tmpfs", "/vol/fixed"]] {
        let e = host.fails(
            125,
            &[&["run", "--rm", "--network", "none", "-v", "shared:/vol"], over, &["busybox", "true"]].concat(),
        );
        assert!(e.contains("a mount covers /proc") && e.contains("hint:"), "{e}");
    }
    attacker(&host, "x", "mkdir /v/x; ln -s /proc /v/other");
    are_confined(&start_many(&host, &["-v", "shared:/vol", "-v", "own:/vol/x"], CONFINED));
    canary.is_untouched();
}

/// S15 (CVE-2025-31133) and S16: what rrun itself puts into a /dev that is a volume: a node, and two mounts.
#[test]
fn a_dev_that_is_changed_under_way() {
    for (name, make) in [("null", "touch /v/null"), ("pts", "mkdir /v/pts"), ("shm", "mkdir /v/shm")] {
        let host = Host::new();
        let canary = Canary::new(&host);
        attacker(&host, name, &format!("{make}; ln -s {}/{name} /v/other", canary.dir));
        start_many(&host, &["-v", "shared:/dev"], CONFINED).iter().for_each(|text| {
            assert!(text.starts_with("1\n") && text.lines().skip(1).all(|l| l == "1:3"), "{name}: {text}");
        });
        canary.is_untouched();
    }
}

/// S20 (CVE-2026-55686): the working directory is made, in a place that changes.
#[test]
fn a_working_directory_behind_a_link() {
    let host = Host::new();
    let canary = Canary::new(&host);
    attacker(&host, "x", &format!("mkdir /v/x; ln -s {} /v/other", canary.dir));
    are_confined(&start_many(&host, &["-v", "shared:/vol", "-w", "/vol/x/made/here"], CONFINED));
    canary.is_untouched();
}

/// CVE-2021-25741: the part of a volume that is mounted.
#[test]
fn a_part_of_a_volume_that_becomes_a_link() {
    let host = Host::new();
    let canary = Canary::new(&host);
    attacker(&host, "x", &format!("mkdir -p /v/x/sub; echo mine > /v/x/sub/key; ln -s {} /v/other", canary.dir));
    let printed = start_many(&host, &["--mount", "type=volume,src=shared,dst=/m,volume-subpath=x/sub"], "cat /m/key");
    assert!(!printed.is_empty() && printed.iter().all(|text| text == "mine\n"), "{printed:?}");
    canary.is_untouched();
}

/// S9 and S3 in a container that runs: its user file and the directory that `exec` begins in.
#[test]
fn exec_while_files_and_directories_change() {
    let host = Host::new();
    let canary = Canary::new(&host);
    let prober = format!("{}:/prober:ro", env("RRUN_PROBER"));
    let make = format!(
        "printf 'spy:x:77:78::/:\\n' > /etc/passwd; ln -s {0}/passwd /etc/other; mkdir /x; echo mine > /x/key; ln -s {0} /y; \
         /prober swap /x /y & exec /prober swap /etc/passwd /etc/other",
        canary.dir
    );
    host.ok(&["run", "-d", "--name", "evil", "--network", "none", "-v", &prober, "busybox", "sh", "-ec", &make]);
    let began = Instant::now();
    let mut done = 0;
    for _ in 0..STARTS {
        let ran = host.rrun(&["exec", "-u", "spy", "evil", "id", "-u"]);
        assert!(ran.code != 0 || ran.stdout == "77\n", "{}", ran.stdout);
        let ran = host.rrun(&["exec", "-w", "/x", "evil", "cat", "key"]);
        assert!(ran.code != 0 || ran.stdout == "mine\n", "{}", ran.stdout);
        done += usize::from(ran.code == 0);
        if began.elapsed() > A_WHILE {
            break;
        }
    }
    assert!(done > 0, "not one has run");
    host.ok(&["rm", "-f", "evil"]);
    canary.is_untouched();
}
