//! `rrun exec`, and that what it runs is confined exactly like the container's own program.

use rrun_tests::Host;
use rrun_tests::host::eventually;
use std::io::{Read, Write};
use std::process::Stdio;

fn up(host: &Host, flags: &[&str]) -> String {
    host.ok(&[&["run", "-d", "--network", "none"], flags, &["busybox", "sleep", "1000"]].concat())
}

#[test]
fn codes_output_and_input() {
    let host = Host::new();
    let c = up(&host, &["--name", "cc", "-e", "FROM_RUN=1", "-w", "/tmp"]);
    assert_eq!(host.ok(&["exec", "cc", "sh", "-c", "echo $FROM_RUN; pwd; hostname"]), format!("1\n/tmp\n{}", &c[..12]));
    assert_eq!(host.rrun(&["exec", "cc", "sh", "-c", "exit 42"]).code, 42);
    assert_eq!(host.rrun(&["exec", "cc", "sh", "-c", "kill -9 $$"]).code, 137);
    let e = host.rrun(&["exec", "cc", "nope"]).expect(127);
    assert!(e.stderr.contains("exec: \"nope\": executable file not found in $PATH"), "{}", e.stderr);
    host.rrun(&["exec", "cc", "/etc"]).expect(126);
    assert_eq!(
        host.ok(&["exec", "-e", "A=b", "-w", "/etc", "-u", "33", "cc", "sh", "-c", "echo $A; pwd; id -u"]),
        "b\n/etc\n33"
    );
    let ran = host.rrun(&["exec", "cc", "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("out\n", "err\n"));
    let e = host.fails(1, &["exec", "nope", "true"]);
    assert!(e.contains("No such container: nope"), "{e}");
    host.ok(&["stop", "-t", "0", "cc"]);
    let e = host.fails(1, &["exec", "cc", "true"]);
    assert!(e.contains("is not running"), "{e}");
}

#[test]
fn every_byte_both_ways() {
    let host = Host::new();
    up(&host, &["--name", "cc"]);
    let mut child =
        host.command(&["exec", "-i", "cc", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("spawn");
    let sent: Vec<u8> = (0..20_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut stdin = child.stdin.take().expect("piped");
    let copy = sent.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&copy));
    let mut got = Vec::new();
    child.stdout.take().expect("piped").read_to_end(&mut got).expect("read");
    writer.join().expect("join").expect("write");
    assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
    assert!(child.wait().expect("wait").success());
}

/// systemd and container runtimes do this in a container: on v2 its own group then holds no processes.
#[test]
fn joins_a_container_that_divided_its_cgroup() {
    let host = Host::new();
    let script = "cd /sys/fs/cgroup; [ -d memory ] && cd memory; mkdir kid; echo $$ > kid/cgroup.procs; \
        [ ! -e cgroup.subtree_control ] || echo +memory > cgroup.subtree_control; echo divided; exec sleep 1000";
    host.ok(&["run", "-d", "--name", "cc", "--network", "none", "--privileged", "busybox", "sh", "-c", script]);
    eventually("it is divided", || host.ok(&["logs", "cc"]).contains("divided").then_some(()));
    let groups = host.ok(&["exec", "cc", "sh", "-c", "cat /proc/1/cgroup; echo; cat /proc/self/cgroup"]);
    let (first, ours) = groups.split_once("\n\n").expect("both lists");
    assert!(first.contains(":/kid"), "{first}");
    if let Some(unified) = first.lines().find(|l| *l == "0::/kid") {
        assert!(ours.lines().any(|l| l == unified), "{ours}");
    }
}

#[test]
fn detached_goes_on_alone() {
    let host = Host::new();
    up(&host, &["--name", "cc"]);
    assert_eq!(host.ok(&["exec", "-d", "cc", "sh", "-c", "echo there > /tmp/f; sleep 1000"]), "");
    eventually("it ran", || (host.rrun(&["exec", "cc", "cat", "/tmp/f"]).stdout == "there\n").then_some(()));
    assert!(host.ok(&["exec", "cc", "ps", "-o", "args"]).contains("sleep 1000"));
}

#[test]
fn confined_like_the_container() {
    let host = Host::new();
    let prober = rrun_tests::host::env("RRUN_PROBER");
    let volume = format!("{prober}:/prober:ro");
    for flags in [
        &[][..],
        &["-u", "1000:1000"],
        &["--cap-drop", "ALL", "--cap-add", "CHOWN", "--security-opt", "no-new-privileges"],
        &["--read-only"],
    ] {
        let all = [&["-v", volume.as_str()][..], flags].concat();
        let ran = host.ok(&[
            &["run", "--rm", "--network", "none", "--hostname", "same"],
            all.as_slice(),
            &["busybox", "/prober"],
        ]
        .concat());
        let c = up(&host, &[&["--hostname", "same"], all.as_slice()].concat());
        let execed = host.ok(&["exec", &c, "/prober"]);
        let strip = |text: &str| {
            let mut v: serde_json::Value = serde_json::from_str(text).expect("the prober prints JSON");
            // These two differ by nature: which process it is, and what pids it sees.
            for key in ["pid", "ppid", "pids", "processes", "mounts"] {
                v.as_object_mut().expect("an object").remove(key);
            }
            v
        };
        assert_eq!(strip(&ran), strip(&execed), "{flags:?}");
        host.ok(&["rm", "-f", &c]);
    }
}

#[test]
fn works_without_a_monitor() {
    let host = Host::new();
    let c = up(&host, &["--name", "cc"]);
    let init: i32 = host.ok(&["inspect", "-f", "{{.State.Pid}}", &c]).parse().expect("a pid");
    let stat = std::fs::read_to_string(format!("/proc/{init}/stat")).expect("stat");
    let monitor: i32 =
        stat.rsplit(") ").next().and_then(|s| s.split(' ').nth(1)).and_then(|p| p.parse().ok()).expect("a parent");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(monitor), nix::sys::signal::Signal::SIGKILL)
        .expect("kill the monitor");
    assert_eq!(host.ok(&["exec", "cc", "echo", "still here"]), "still here");
    assert_eq!(host.ok(&["ps", "--format", "{{.Names}} {{.State}}"]), "cc running");
    host.ok(&["stop", "-t", "1", "cc"]);
    assert_eq!(host.ok(&["inspect", "-f", "{{.State.Running}}", "cc"]), "false");
    host.ok(&["rm", "cc"]);
}
