//! pause and unpause, rename, update, attach: a container that runs, and what is done to it.

use rrun_tests::Host;
use rrun_tests::host::eventually;
use serde_json::Value;
use std::io::{Read, Write};
use std::process::{Child, Stdio};

const COUNTS: &str = "trap 'exit 0' TERM; i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done";

fn lines(host: &Host, name: &str) -> usize {
    host.rrun(&["logs", name]).stdout.lines().count()
}

fn field(host: &Host, name: &str, template: &str) -> String {
    host.ok(&["inspect", "-f", template, name])
}

/// What is in a file of the container's cgroup: `v1` in its hierarchy, or `v2`.
fn limit(host: &Host, name: &str, v1: &str, v2: &str) -> String {
    let pid = field(host, name, "{{.State.Pid}}");
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("its cgroups");
    let id = field(host, name, "{{.Id}}");
    for root in host.cgroups() {
        for file in [v1, v2] {
            let path = root.join("rrun").join(&id).join(file);
            if let Ok(text) = std::fs::read_to_string(&path) {
                return text.trim().to_string();
            }
        }
    }
    panic!("neither {v1} nor {v2} for {groups}");
}

#[test]
fn paused_means_that_nothing_moves() {
    let host = Host::new();
    host.ok(&["run", "-d", "--name", "cc", "--network", "none", "busybox", "sh", "-c", COUNTS]);
    eventually("it counts", || (lines(&host, "cc") > 3).then_some(()));
    assert_eq!(host.ok(&["pause", "cc"]), "cc");
    let count = lines(&host, "cc");
    host.sh("sleep 0.3");
    assert_eq!(lines(&host, "cc"), count, "it goes on");
    assert_eq!(field(&host, "cc", "{{.State.Status}} {{.State.Paused}} {{.State.Running}}"), "paused true true");
    assert!(host.ok(&["ps", "--format", "{{.Status}}"]).ends_with(" (Paused)"));
    assert_eq!(host.ok(&["ps", "-q", "--filter", "status=paused"]), host.ok(&["ps", "-q"]));
    assert_eq!(host.ok(&["ps", "-q", "--filter", "status=running"]), "");
    for (args, says) in [
        (&["pause", "cc"][..], "is already paused"),
        (&["exec", "cc", "true"], "is paused, unpause the container before exec"),
        (&["attach", "cc"], "You cannot attach to a paused container, unpause it first"),
        (&["start", "cc"], "cannot start a paused container, try unpause instead"),
        (&["rm", "cc"], "container is paused and must be unpaused first"),
    ] {
        let e = host.fails(1, args);
        assert!(e.contains(says) && e.contains("hint: "), "{args:?}: {e}");
    }
    assert_eq!(host.ok(&["unpause", "cc"]), "cc");
    eventually("it counts on", || (lines(&host, "cc") > count).then_some(()));
    let e = host.fails(1, &["unpause", "cc"]);
    assert!(e.contains("is not paused"), "{e}");
    // Stopping one that stands still works as if it did not.
    host.ok(&["pause", "cc"]);
    host.ok(&["stop", "cc"]);
    assert_eq!(field(&host, "cc", "{{.State.Status}} {{.State.ExitCode}}"), "exited 0");
    let e = host.fails(1, &["pause", "cc"]);
    assert!(e.contains("is not running"), "{e}");
    host.ok(&["start", "cc"]);
    host.ok(&["pause", "cc"]);
    host.ok(&["kill", "cc"]);
    assert_eq!(host.ok(&["wait", "cc"]), "137");
    host.ok(&["start", "cc"]);
    host.ok(&["pause", "cc"]);
    host.ok(&["restart", "-t", "5", "cc"]);
    assert_eq!(field(&host, "cc", "{{.State.Status}}"), "running");
    host.ok(&["pause", "cc"]);
    host.ok(&["rm", "-f", "cc"]);
}

/// Where the hierarchies are mounted.
const TREE: &str = "/sys/fs/cgroup";

#[test]
fn the_freezer_of_cgroup_v1_does_it_too() {
    let host = Host::new();
    // A machine with v1 has the v2 hierarchy as well, and below the host's own mount of it another: both away. On a
    // machine with v2 alone, v1 in its place.
    let v1 = host.try_sh("[ -d /sys/fs/cgroup/freezer ]").code == 0;
    if v1 {
        host.sh("umount /sys/fs/cgroup/unified");
        host.try_sh("umount /sys/fs/cgroup/unified");
    } else if host
        .try_sh(&format!("umount {TREE}; umount {TREE}; mount -t tmpfs none {TREE}; mkdir {TREE}/freezer"))
        .code
        != 0
        || host.try_sh(&format!("mount -t cgroup -o freezer none {TREE}/freezer")).code != 0
    {
        println!("skipped: kernel has no cgroup v1 freezer");
        return;
    }
    host.ok(&["run", "-d", "--name", "cc", "--network", "none", "busybox", "sh", "-c", COUNTS]);
    eventually("it counts", || (lines(&host, "cc") > 3).then_some(()));
    host.ok(&["pause", "cc"]);
    let state = format!("{TREE}/freezer/rrun/{}/freezer.state", field(&host, "cc", "{{.Id}}"));
    assert_eq!(host.sh(&format!("cat {state}")), "FROZEN");
    let count = lines(&host, "cc");
    host.sh("sleep 0.2");
    assert_eq!(lines(&host, "cc"), count);
    host.ok(&["unpause", "cc"]);
    eventually("it counts on", || (lines(&host, "cc") > count).then_some(()));
    host.ok(&["pause", "cc"]);
    host.ok(&["stop", "cc"]);
    assert_eq!(field(&host, "cc", "{{.State.ExitCode}}"), "0");
    host.ok(&["start", "cc"]);
    host.ok(&["pause", "cc"]);
    host.ok(&["rm", "-f", "cc"]);
    if !v1 {
        // The hierarchy goes with its last group and mount.
        eventually("the groups are gone", || {
            (host
                .try_sh(&format!("rmdir {TREE}/freezer/rrun/monitors 2>/dev/null || true; rmdir {TREE}/freezer/rrun"))
                .code
                == 0)
                .then_some(())
        });
        // What the host had below its own.
        host.sh(&format!("umount {TREE}/freezer; umount {TREE}; mount -t cgroup2 none {TREE}"));
    }
}

#[test]
fn a_new_name_is_the_name_everywhere() {
    let host = Host::new();
    host.ok(&["network", "create", "net"]);
    host.ok(&["run", "-d", "--name", "old", "--network", "net", "busybox", "sleep", "1000"]);
    host.ok(&["run", "-d", "--name", "asker", "--network", "net", "busybox", "sleep", "1000"]);
    host.ok(&["create", "--name", "taken", "--network", "none", "busybox", "true"]);
    assert_eq!(host.ok(&["rename", "old", "new"]), "");
    assert_eq!(field(&host, "new", "{{.Name}}"), "/new");
    let e = host.fails(1, &["inspect", "old"]);
    assert!(e.contains("No such object: old"), "{e}");
    // Its neighbours find it by the new name, and not by the old one.
    eventually("DNS knows the new name", || {
        (host.rrun(&["exec", "asker", "nslookup", "new", "127.0.0.11"]).code == 0).then_some(())
    });
    eventually("DNS has forgotten the old one", || {
        (host.rrun(&["exec", "asker", "nslookup", "old", "127.0.0.11"]).code != 0).then_some(())
    });
    let e = host.fails(1, &["rename", "new", "taken"]);
    assert!(
        e.contains("Error when allocating new name: Conflict. The container name \"/taken\" is already in use"),
        "{e}"
    );
    assert_eq!(field(&host, "new", "{{.Name}}"), "/new");
    let e = host.fails(1, &["rename", "new", "new"]);
    assert!(e.contains("Renaming a container with the same name as its current name"), "{e}");
    let e = host.fails(125, &["rename", "new", "../x"]);
    assert!(e.contains("Invalid container name (../x)"), "{e}");
    let e = host.fails(1, &["rename", "nope", "x1"]);
    assert!(e.contains("No such container: nope"), "{e}");
    // The old name is free, and the new one lasts.
    host.ok(&["run", "-d", "--name", "old", "--network", "none", "busybox", "sleep", "1000"]);
    host.ok(&["restart", "-t", "0", "new"]);
    assert_eq!(field(&host, "new", "{{.State.Status}}"), "running");
}

#[test]
fn update_changes_limits_of_what_runs() {
    let host = Host::new();
    host.ok(&[
        "run",
        "-d",
        "--name",
        "cc",
        "--network",
        "none",
        "-m",
        "64m",
        "--memory-swap",
        "128m",
        "busybox",
        "sleep",
        "1000",
    ]);
    host.ok(&["create", "--name", "later", "--network", "none", "busybox", "sleep", "1000"]);
    let out = host.ok(&[
        "update",
        "-m",
        "96m",
        "--pids-limit",
        "77",
        "--cpu-shares",
        "2048",
        "--cpus",
        "0.5",
        "--cpuset-cpus",
        "0",
        "cc",
        "later",
    ]);
    assert_eq!(out, "cc\nlater");
    host.ok(&["start", "later"]);
    for name in ["cc", "later"] {
        assert_eq!(limit(&host, name, "memory.limit_in_bytes", "memory.max"), "100663296");
        assert_eq!(limit(&host, name, "pids.max", "pids.max"), "77");
        assert!(["2048", "79"].contains(&limit(&host, name, "cpu.shares", "cpu.weight").as_str()));
        assert!(["50000", "50000 100000"].contains(&limit(&host, name, "cpu.cfs_quota_us", "cpu.max").as_str()));
        assert_eq!(limit(&host, name, "cpuset.cpus", "cpuset.cpus"), "0");
    }
    assert_eq!(field(&host, "cc", "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}}"), "100663296 77");
    // More memory than memory and swap together were: only with the other.
    let e = host.fails(125, &["update", "-m", "1g", "cc"]);
    assert!(
        e.contains(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"
        ),
        "{e}"
    );
    host.ok(&["update", "-m", "1g", "--memory-swap", "2g", "cc"]);
    assert_eq!(limit(&host, "cc", "memory.limit_in_bytes", "memory.max"), "1073741824");
    host.ok(&["update", "-m", "64m", "--memory-swap", "64m", "cc"]);
    assert_eq!(limit(&host, "cc", "memory.limit_in_bytes", "memory.max"), "67108864");
    assert_eq!(limit(&host, "cc", "pids.max", "pids.max"), "77", "what is not named stays");
    host.ok(&["update", "--pids-limit", "-1", "cc"]);
    assert_eq!(limit(&host, "cc", "pids.max", "pids.max"), "max");
    // What the kernel refuses is not recorded.
    host.fails(125, &["update", "--cpuset-cpus", "999", "cc"]);
    assert_eq!(field(&host, "cc", "{{.HostConfig.CpusetCpus}}"), "0");
    let e = host.fails(125, &["update", "cc"]);
    assert!(e.contains("you must provide one or more flags when using this command"), "{e}");
    let e = host.fails(125, &["update", "-m", "1m", "cc"]);
    assert!(e.contains("Minimum memory limit allowed is 6MB"), "{e}");
}

#[test]
fn update_changes_the_restart_policy_of_what_runs() {
    let host = Host::new();
    host.ok(&[
        "run",
        "-d",
        "--name",
        "cc",
        "--network",
        "none",
        "busybox",
        "sh",
        "-c",
        "while [ ! -e /end ]; do sleep 0.02; done; rm /end; exit 4",
    ]);
    host.ok(&["update", "--restart", "always", "cc"]);
    host.ok(&["exec", "cc", "touch", "/end"]);
    eventually("it lives again", || {
        (field(&host, "cc", "{{.RestartCount}} {{.State.Status}}") == "1 running").then_some(())
    });
    host.ok(&["update", "--restart", "no", "cc"]);
    host.ok(&["exec", "cc", "touch", "/end"]);
    eventually("it has ended", || (field(&host, "cc", "{{.State.Status}}") == "exited").then_some(()));
    host.ok(&["run", "-d", "--rm", "--name", "rm", "--network", "none", "busybox", "sleep", "1000"]);
    let e = host.fails(1, &["update", "--restart", "always", "rm"]);
    assert!(e.contains("Restart policy cannot be updated because AutoRemove is enabled for the container"), "{e}");
}

fn attach(host: &Host, args: &[&str]) -> Child {
    host.command(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("spawn")
}

#[test]
fn several_are_attached_at_once() {
    let host = Host::new();
    host.ok(&[
        "run",
        "-d",
        "-i",
        "--name",
        "cc",
        "--network",
        "none",
        "busybox",
        "sh",
        "-c",
        "while read l; do echo got $l; done; echo bye",
    ]);
    let mut listeners: Vec<Child> = (0..3).map(|_| attach(&host, &["attach", "--no-stdin", "cc"])).collect();
    let mut talker = attach(&host, &["attach", "cc"]);
    // Each hears what is said after it came; so it is said until all have heard it.
    let mut stdin = talker.stdin.take().expect("piped");
    let mut outs: Vec<_> = listeners.iter_mut().map(|l| l.stdout.take().expect("piped")).collect();
    let writer = std::thread::spawn(move || {
        for n in 0..400 {
            if stdin.write_all(format!("word{n}\n").as_bytes()).is_err() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    });
    for out in &mut outs {
        let mut chunk = [0u8; 4];
        out.read_exact(&mut chunk).expect("something is heard");
    }
    writer.join().expect("the writer");
    host.ok(&["stop", "-t", "0", "cc"]);
    for mut l in listeners {
        let code = l.wait().expect("wait").code();
        assert_eq!(code, Some(137), "each learns how it ended");
    }
    talker.wait().expect("wait");
}

#[test]
fn signals_are_passed_on_or_not() {
    let host = Host::new();
    let script = "trap 'echo usr' USR1; while :; do echo up; sleep 0.02; done";
    host.ok(&["run", "-d", "--name", "cc", "--network", "none", "busybox", "sh", "-c", script]);
    eventually("it is up", || host.rrun(&["logs", "cc"]).stdout.contains("up").then_some(()));
    let mut proxy = attach(&host, &["attach", "cc"]);
    let mut not = attach(&host, &["attach", "--sig-proxy=false", "cc"]);
    // Output is passed on once they are attached, and then signals are theirs to pass on.
    for child in [&mut proxy, &mut not] {
        child.stdout.as_mut().expect("piped").read_exact(&mut [0u8; 2]).expect("something is heard");
    }
    let heard = |host: &Host| host.rrun(&["logs", "cc"]).stdout.matches("usr").count();
    eventually("the signal arrives", || {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(proxy.id().cast_signed()), nix::sys::signal::Signal::SIGUSR1)
            .expect("kill");
        (heard(&host) > 0).then_some(())
    });
    let before = heard(&host);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(not.id().cast_signed()), nix::sys::signal::Signal::SIGUSR1)
        .expect("kill");
    not.wait().expect("it dies of it");
    host.sh("sleep 0.2");
    assert!(heard(&host) <= before + 1, "what was under way from the first");
    host.ok(&["kill", "cc"]);
    proxy.wait().expect("wait");
}

#[test]
fn run_attaches_to_the_streams_named() {
    let host = Host::new();
    let script = "echo out; echo err >&2";
    let run = |flags: &[&str]| {
        host.rrun(&[&["run", "--rm", "--network", "none"], flags, &["busybox", "sh", "-c", script]].concat()).expect(0)
    };
    let ran = run(&["-a", "stdout"]);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("out\n", ""));
    let ran = run(&["-a", "STDERR"]);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", "err\n"));
    let ran = run(&["-a", "stdout", "-a", "stderr"]);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("out\n", "err\n"));
    let mut child = host
        .command(&[
            "run",
            "-a",
            "stdin",
            "-i",
            "--name",
            "in",
            "--network",
            "none",
            "busybox",
            "sh",
            "-c",
            "read x; echo $x",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("spawn");
    child.stdin.take().expect("piped").write_all(b"typed\n").expect("write");
    let out = child.wait_with_output().expect("wait");
    assert_eq!(
        String::from_utf8_lossy(&out.stdout).trim(),
        field(&host, "in", "{{.Id}}"),
        "its ID, and nothing of its output"
    );
    assert_eq!(host.rrun(&["logs", "in"]).stdout, "typed\n");
    let e = host.fails(125, &["run", "-d", "-a", "stdout", "busybox", "true"]);
    assert!(e.contains("--attach") && e.contains("--detach"), "{e}");
    host.fails(125, &["run", "-a", "stdfoo", "busybox", "true"]);
}

#[test]
fn what_happens_is_written_down() {
    let host = Host::new();
    host.ok(&["run", "-d", "--name", "cc", "-l", "k=v", "--network", "none", "busybox", "sleep", "1000"]);
    host.ok(&["pause", "cc"]);
    host.ok(&["unpause", "cc"]);
    host.ok(&["rename", "cc", "dd"]);
    host.ok(&["update", "--pids-limit", "50", "dd"]);
    host.ok(&["kill", "dd"]);
    host.ok(&["wait", "dd"]);
    host.ok(&["restart", "dd"]);
    host.ok(&["stop", "-t", "0", "dd"]);
    host.ok(&["rm", "dd"]);
    let text = std::fs::read_to_string(host.outside(host.state().join("events"))).expect("the journal");
    let events: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).expect("one JSON a line")).collect();
    let seen = |action: &str| events.iter().filter(|e| e["Action"] == action).count();
    for (action, least) in [
        ("create", 1),
        ("start", 2),
        ("pause", 1),
        ("unpause", 1),
        ("rename", 1),
        ("update", 1),
        ("kill", 1),
        ("die", 2),
        ("restart", 1),
        ("stop", 1),
        ("destroy", 1),
    ] {
        assert!(seen(action) >= least, "{action}: {text}");
    }
    let renamed = events.iter().find(|e| e["Action"] == "rename").expect("renamed");
    assert_eq!(
        (renamed["Actor"]["Attributes"]["oldName"].as_str(), renamed["Actor"]["Attributes"]["name"].as_str()),
        (Some("/cc"), Some("dd"))
    );
    let died = events.iter().find(|e| e["Action"] == "die").expect("died");
    assert_eq!(
        (died["Actor"]["Attributes"]["exitCode"].as_str(), died["Actor"]["Attributes"]["k"].as_str()),
        (Some("137"), Some("v"))
    );
    assert!(died["timeNano"].as_i64() > Some(0));
}
