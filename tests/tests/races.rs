//! Names that change while a container is put together. A neighbour that shares a volume exchanges a directory of
//! it for a symbolic link that leads to the host, as fast as it can; some hundred containers start meanwhile.
//!
//! A start may fail. It may never hang, touch what is the host's, or begin with less confinement.

use rrun_tests::Host;
use rrun_tests::canary::{CONFINED, Canary, are_confined};
use rrun_tests::host::env;
use std::time::{Duration, Instant};

/// Starts, or as many as a slow machine gets done in a while.
const STARTS: usize = 200;
const A_WHILE: Duration = Duration::from_secs(12);

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
