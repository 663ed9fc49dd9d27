//! create, start, stop, kill, wait, rm, ps, inspect, logs: a container's life as Docker's users live it.

use rrun_tests::Host;
use rrun_tests::host::eventually;
use serde_json::Value;
use std::process::Stdio;
use std::time::{Duration, Instant};

fn state(host: &Host, c: &str) -> String {
    host.ok(&["inspect", "-f", "{{.State.Status}}", c])
}

#[test]
fn create_start_stop_start_remove() {
    let host = Host::new();
    let id = host.ok(&[
        "create",
        "--name",
        "cc",
        "--network",
        "none",
        "busybox",
        "sh",
        "-c",
        "echo up; trap 'exit 0' TERM; while :; do sleep 0.05; done",
    ]);
    assert_eq!(id.len(), 64);
    assert_eq!(state(&host, "cc"), "created");
    assert_eq!(host.ok(&["ps", "-q"]), "");
    assert_eq!(host.ok(&["ps", "-aq"]), id[..12]);
    assert_eq!(host.ok(&["start", "cc"]), "cc");
    assert_eq!(state(&host, &id[..6]), "running");
    assert_eq!(host.ok(&["start", "cc"]), "cc", "starting a running container is no error");
    let e = host.fails(1, &["rm", "cc"]);
    assert!(
        e.contains(
            "cannot remove container \"cc\": container is running: stop the container before removing or force remove"
        ),
        "{e}"
    );
    eventually("it is up", || host.rrun(&["logs", "cc"]).stdout.contains("up").then_some(()));
    assert_eq!(host.ok(&["stop", "cc"]), "cc");
    assert_eq!(state(&host, "cc"), "exited");
    assert_eq!(host.ok(&["stop", "cc"]), "cc", "stopping a stopped container is no error");
    assert_eq!(host.ok(&["wait", "cc"]), "0");
    host.ok(&["start", "cc"]);
    eventually("both lives are in the log", || (host.rrun(&["logs", "cc"]).stdout == "up\nup\n").then_some(()));
    assert_eq!(host.ok(&["rm", "-f", "cc"]), "cc");
    assert_eq!(host.ok(&["ps", "-aq"]), "");
    let e = host.fails(1, &["rm", "cc"]);
    assert!(e.contains("No such container: cc"), "{e}");
    host.ok(&["rm", "-f", "cc"]);
}

#[test]
fn stop_kills_what_does_not_listen() {
    let host = Host::new();
    host.ok(&[
        "run",
        "-d",
        "--name",
        "deaf",
        "--network",
        "none",
        "busybox",
        "sh",
        "-c",
        "trap '' TERM; echo up; while :; do sleep 0.05; done",
    ]);
    eventually("it is up", || host.rrun(&["logs", "deaf"]).stdout.contains("up").then_some(()));
    let begin = Instant::now();
    host.ok(&["stop", "-t", "1", "deaf"]);
    assert!(begin.elapsed() >= Duration::from_secs(1), "it was given its second");
    assert_eq!(host.ok(&["wait", "deaf"]), "137");
    // The image's or the user's stop signal is what is sent.
    host.ok(&[
        "run",
        "-d",
        "--name",
        "quit",
        "--stop-signal",
        "SIGUSR1",
        "--network",
        "none",
        "busybox",
        "sh",
        "-c",
        "trap 'exit 5' USR1; echo up; while :; do sleep 0.05; done",
    ]);
    eventually("it is up", || host.rrun(&["logs", "quit"]).stdout.contains("up").then_some(()));
    host.ok(&["stop", "quit"]);
    assert_eq!(host.ok(&["wait", "quit"]), "5");
}

#[test]
fn kill_sends_any_signal() {
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
        "trap 'echo hup' HUP; echo up; while :; do sleep 0.05; done",
    ]);
    eventually("it is up", || host.rrun(&["logs", "cc"]).stdout.contains("up").then_some(()));
    assert_eq!(host.ok(&["kill", "-s", "HUP", "cc"]), "cc");
    eventually("it got the signal", || host.rrun(&["logs", "cc"]).stdout.contains("hup").then_some(()));
    host.ok(&["kill", "-s", "9", "cc"]);
    assert_eq!(host.ok(&["wait", "cc"]), "137");
    let e = host.fails(1, &["kill", "cc"]);
    assert!(e.contains("is not running"), "{e}");
    let e = host.rrun(&["kill", "-s", "NONSENSE", "cc"]);
    assert!(e.code != 0 && e.stderr.contains("NONSENSE"), "{}", e.stderr);
}

#[test]
fn wait_waits_for_the_end() {
    let host = Host::new();
    host.ok(&["run", "-d", "--name", "cc", "--network", "none", "busybox", "sh", "-c", "sleep 0.5; exit 9"]);
    assert_eq!(host.ok(&["wait", "cc"]), "9");
    assert_eq!(state(&host, "cc"), "exited");
}

#[test]
fn ps_shows_filters_and_formats() {
    let host = Host::new();
    host.ok(&["run", "-d", "--name", "web", "-l", "tier=front", "-p", "8080:80", "busybox", "sleep", "1000"]);
    host.ok(&["run", "--name", "done", "--network", "none", "busybox", "sh", "-c", "exit 0"]);
    host.rrun(&["run", "--name", "failed", "--network", "none", "busybox", "sh", "-c", "exit 3"]).expect(3);
    let table = host.ok(&["ps", "-a"]);
    let head: Vec<&str> =
        table.lines().next().expect("a header").split("  ").map(str::trim).filter(|s| !s.is_empty()).collect();
    assert_eq!(head, ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]);
    let web = table.lines().find(|l| l.contains("web")).expect("a row");
    assert!(web.contains("\"sleep 1000\"") && web.contains("Up ") && web.contains("0.0.0.0:8080->80/tcp"), "{web}");
    assert!(table.lines().any(|l| l.contains("Exited (3)") && l.contains("failed")), "{table}");
    let names = |args: &[&str]| {
        let out = host.ok(&[&["ps", "--format", "{{.Names}}"], args].concat());
        let mut v: Vec<String> = out.lines().map(str::to_string).collect();
        v.sort();
        v
    };
    assert_eq!(names(&[]), ["web"]);
    assert_eq!(names(&["-a"]), ["done", "failed", "web"]);
    assert_eq!(names(&["--filter", "label=tier=front"]), ["web"]);
    assert_eq!(names(&["-a", "--filter", "exited=3"]), ["failed"]);
    assert_eq!(names(&["-a", "--filter", "status=exited"]), ["done", "failed"]);
    assert_eq!(names(&["-a", "--filter", "name=fai"]), ["failed"]);
    assert_eq!(names(&["-a", "--filter", "ancestor=busybox"]), ["done", "failed", "web"]);
    assert_eq!(names(&["-a", "--filter", "network=none"]), ["done", "failed"]);
    assert_eq!(names(&["-n", "1"]), ["failed"], "the latest");
    let row: Value = serde_json::from_str(&host.ok(&["ps", "--format", "json"])).expect("one JSON line");
    assert_eq!(row["Names"], "web");
    assert_eq!(row["Labels"], "tier=front");
    assert_eq!(row["State"], "running");
    let e = host.rrun(&["ps", "--filter", "colour=red"]);
    assert!(e.code != 0 && e.stderr.contains("invalid filter"), "{}", e.stderr);
    let e = host.rrun(&["ps", "--format", "{{.Nope}}"]);
    assert!(e.code != 0 && e.stderr.contains("template parsing error"), "{}", e.stderr);
}

#[test]
fn inspect_has_dockers_fields() {
    let host = Host::new();
    host.ok(&[
        "run",
        "-d",
        "--name",
        "cc",
        "-e",
        "A=b",
        "-l",
        "k=v",
        "-p",
        "127.0.0.1:8080:80",
        "-m",
        "64m",
        "--hostname",
        "box",
        "busybox",
        "sleep",
        "1000",
    ]);
    let doc: Value = serde_json::from_str(&host.ok(&["inspect", "cc"])).expect("JSON");
    let c = &doc[0];
    assert_eq!(c["Name"], "/cc");
    assert_eq!(c["Path"], "sleep");
    assert_eq!(c["Args"][0], "1000");
    assert_eq!(c["State"]["Running"], true);
    let pid = c["State"]["Pid"].as_i64().expect("a pid");
    assert!(std::fs::read_to_string(format!("/proc/{pid}/cmdline")).expect("alive").starts_with("sleep\0"));
    assert_eq!(c["Config"]["Hostname"], "box");
    assert_eq!(c["Config"]["Labels"]["k"], "v");
    assert!(c["Config"]["Env"].as_array().is_some_and(|e| e.iter().any(|v| v == "A=b")));
    assert_eq!(c["HostConfig"]["Memory"], 67_108_864);
    assert_eq!(c["HostConfig"]["PortBindings"]["80/tcp"][0]["HostPort"], "8080");
    assert_eq!(c["NetworkSettings"]["Ports"]["80/tcp"][0]["HostIp"], "127.0.0.1");
    assert_eq!(c["NetworkSettings"]["Networks"]["bridge"]["IPAddress"], "172.17.0.2");
    assert_eq!(c["NetworkSettings"]["Networks"]["bridge"]["IPPrefixLen"], 16);
    let net: Value = serde_json::from_str(&host.ok(&["inspect", "bridge"])).expect("JSON");
    assert_eq!(net[0]["Driver"], "bridge");
    let image: Value = serde_json::from_str(&host.ok(&["inspect", "busybox"])).expect("JSON");
    assert!(image[0]["RepoTags"].as_array().is_some_and(|t| t.iter().any(|v| v == "busybox:latest")));
    let ran = host.rrun(&["inspect", "cc", "no-such-thing"]).expect(1);
    assert!(ran.stderr.contains("No such object: no-such-thing"), "{}", ran.stderr);
    assert!(ran.stdout.contains("\"/cc\""), "what was found is printed");
}

#[test]
fn logs_follow_tail_and_timestamps() {
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
        "for i in 1 2 3; do echo line $i; done; sleep 0.6; echo last; printf no-newline",
    ]);
    let mut follow = host.command(&["logs", "-f", "cc"]).stdout(Stdio::piped()).spawn().expect("spawn");
    let mut text = String::new();
    std::io::Read::read_to_string(follow.stdout.as_mut().expect("piped"), &mut text).expect("read");
    assert!(follow.wait().expect("wait").success(), "logs -f ends with the container");
    assert_eq!(text, "line 1\nline 2\nline 3\nlast\nno-newline");
    assert_eq!(host.rrun(&["logs", "--tail", "2", "cc"]).stdout, "last\nno-newline");
    assert_eq!(host.rrun(&["logs", "-n", "0", "cc"]).stdout, "");
    let stamped = host.rrun(&["logs", "-t", "--tail", "1", "cc"]).stdout;
    assert!(stamped.starts_with("20") && stamped.ends_with("Z no-newline"), "{stamped}");
    host.ok(&["run", "--name", "quiet", "--log-driver", "none", "--network", "none", "busybox", "echo", "x"]);
    let e = host.rrun(&["logs", "quiet"]);
    assert!(e.code != 0 && e.stderr.contains("configured logging driver does not support reading"), "{}", e.stderr);
}

#[test]
fn a_long_log_is_complete_and_valid() {
    let host = Host::new();
    host.ok(&[
        "run",
        "--name",
        "cc",
        "--network",
        "none",
        "busybox",
        "sh",
        "-c",
        "seq 1 200000; head -c 40000 /dev/zero | tr '\\0' x; printf '\\377\\n'",
    ]);
    let out = host.rrun(&["logs", "cc"]).expect(0).stdout;
    let mut lines = out.lines();
    for n in 1..=200_000 {
        assert_eq!(lines.next().and_then(|l| l.parse::<i32>().ok()), Some(n));
    }
    assert_eq!(lines.next().map(|l| l.chars().filter(|c| *c == 'x').count()), Some(40_000));
    let id = host.ok(&["inspect", "-f", "{{.Id}}", "cc"]);
    let log =
        std::fs::read_to_string(host.outside(host.root().join("containers").join(id).join("log"))).expect("the log");
    for line in log.lines() {
        let v: Value = serde_json::from_str(line).expect("each line is JSON");
        assert!(v["log"].is_string() && v["stream"] == "stdout" && v["time"].is_string());
    }
}

#[test]
fn rm_takes_several_and_goes_on_after_an_error() {
    let host = Host::new();
    for name in ["aa", "bb"] {
        host.ok(&["create", "--name", name, "--network", "none", "busybox", "true"]);
    }
    let ran = host.rrun(&["rm", "aa", "nope", "bb"]).expect(1);
    assert_eq!(ran.stdout, "aa\nbb\n");
    assert!(ran.stderr.contains("No such container: nope"), "{}", ran.stderr);
}

#[test]
fn names_and_ids_are_checked() {
    let host = Host::new();
    for name in ["../x", "a/b", ".", "-rf", "a b", "", &"x".repeat(300)] {
        let ran = host.rrun(&["create", "--name", name, "busybox", "true"]);
        // An empty --name is no name at all to Docker.
        assert!(ran.code == 125 || name.is_empty() && ran.code == 0, "{name:?}: {} {}", ran.code, ran.stderr);
        for verb in ["rm", "logs", "inspect", "start", "stop", "kill", "wait"] {
            if name != "-rf" && !name.is_empty() {
                assert_ne!(host.rrun(&[verb, name]).code, 0, "{verb} {name:?}");
            }
        }
    }
    let a = host.ok(&["create", "--network", "none", "busybox", "true"]);
    assert_eq!(host.ok(&["inspect", "-f", "{{.Id}}", &a[..3]]), a);
    let name = host.ok(&["inspect", "-f", "{{.Name}}", &a]);
    assert!(name.starts_with('/') && name.contains('_'), "a name was made up: {name}");
}

#[test]
fn start_attached_and_interactive() {
    let host = Host::new();
    host.ok(&["create", "--name", "cc", "-i", "--network", "none", "busybox", "cat"]);
    let mut child =
        host.command(&["start", "-a", "-i", "cc"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("spawn");
    std::io::Write::write_all(&mut child.stdin.take().expect("piped"), b"through\n").expect("write");
    let out = child.wait_with_output().expect("wait");
    assert_eq!(out.stdout, b"through\n");
    host.ok(&["create", "--name", "ff", "--network", "none", "busybox", "sh", "-c", "exit 4"]);
    assert_eq!(host.rrun(&["start", "-a", "ff"]).code, 4);
}

#[test]
fn a_failed_start_says_why_and_leaves_what_was_there() {
    let host = Host::new();
    // `run` made it, so `run` takes it back: the name is free for the corrected command.
    let ran = host.rrun(&["run", "-d", "--name", "bad", "--network", "none", "busybox", "no-such-program"]).expect(127);
    assert!(ran.stderr.contains("executable file not found"), "{}", ran.stderr);
    assert_eq!(host.ok(&["ps", "-aq"]), "");
    // `start` did not make it, and leaves it as it was.
    host.ok(&["create", "--name", "bad", "--network", "none", "busybox", "no-such-program"]);
    assert_ne!(host.rrun(&["start", "bad"]).code, 0);
    assert_eq!(state(&host, "bad"), "created");
    host.ok(&["rm", "bad"]);
}

#[test]
fn logs_since_and_until_are_moments_or_ages() {
    let host = Host::new();
    host.ok(&["run", "--name", "cc", "--network", "none", "busybox", "echo", "now"]);
    let logs = |flags: &[&str]| host.ok(&[&["logs"], flags, &["cc"]].concat());
    assert_eq!(logs(&["--since", "10m"]), "now");
    assert_eq!(logs(&["--until", "10m"]), "");
    assert_eq!(logs(&["--since", "1h30m", "--until", "2100-01-01T00:00:00Z"]), "now");
    assert_eq!(logs(&["--since", "2100-01-01"]), "");
    assert!(host.fails(125, &["logs", "--since", "soon", "cc"]).contains("soon"));
}
