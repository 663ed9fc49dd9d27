//! restart, restart policies, their back-off, and what runs again after a boot.

use rrun_tests::Host;
use rrun_tests::host::{eventually, patience};
use serde_json::Value;
use std::fs;
use std::time::Duration;

fn state(host: &Host, c: &str) -> Value {
    serde_json::from_str(&host.ok(&["inspect", "-f", "{{json .State}}", c])).expect("JSON")
}

fn restarts(host: &Host, c: &str) -> u32 {
    host.ok(&["inspect", "-f", "{{.RestartCount}}", c]).parse().expect("a number")
}

/// A detached container without a network that runs `script`.
#[track_caller]
fn run(host: &Host, name: &str, flags: &[&str], script: &str) {
    let base = ["run", "-d", "--name", name, "--network", "none"];
    host.ok(&[&base, flags, &["busybox", "sh", "-c", script]].concat());
}

const WAITS: &str = "trap 'exit 0' TERM; echo up; while :; do sleep 0.05; done";

fn up(host: &Host, name: &str, times: usize) {
    eventually("it is up", || (host.rrun(&["logs", name]).stdout.matches("up").count() >= times).then_some(()));
}

#[test]
fn always_starts_again_with_what_it_had() {
    let host = Host::new();
    host.ok(&[
        "run",
        "-d",
        "--name",
        "web",
        "--restart",
        "always",
        "-p",
        "8080:80",
        "busybox",
        "sh",
        "-c",
        "echo life >> /lives; echo up; sleep 0.2; exit 3",
    ]);
    eventually("it has been started again twice", || (restarts(&host, "web") >= 2).then_some(()));
    // The same container: its files, its name, its ports.
    eventually("a third life", || {
        let ran = host.rrun(&["exec", "web", "cat", "/lives"]);
        (ran.code == 0 && ran.stdout.lines().count() >= 3).then_some(())
    });
    let waiting = eventually("it waits for its next start", || {
        let state = state(&host, "web");
        (state["Status"] == "restarting").then_some(state)
    });
    assert_eq!(waiting["Running"], true, "Docker counts it as running: {waiting}");
    assert_eq!(waiting["Restarting"], true);
    assert_eq!((waiting["ExitCode"].as_i64(), waiting["Pid"].as_i64()), (Some(3), Some(0)));
    let names = host.ok(&["ps", "-a", "--filter", "name=web", "--format", "{{.Status}}"]);
    assert!(names.starts_with("Restarting (3)") || names.starts_with("Up "), "{names}");
    host.ok(&["stop", "web"]);
    let ended = state(&host, "web");
    assert_eq!((ended["Status"].as_str(), ended["Restarting"].as_bool()), (Some("exited"), Some(false)));
    let count = host.rrun(&["logs", "web"]).stdout.len();
    // A stopped container stays down: a policy that went on would have written more by now.
    host.sh("sleep 1");
    assert_eq!(host.rrun(&["logs", "web"]).stdout.len(), count);
    assert_eq!(host.nft_elements("publish4_any").len(), 0, "its port is free");
    // Starting it by hand counts from nothing.
    host.ok(&["start", "web"]);
    assert!(restarts(&host, "web") <= 1);
}

#[test]
fn on_failure_gives_up_after_its_maximum_and_never_starts_a_success_again() {
    let host = Host::new();
    run(&host, "bad", &["--restart", "on-failure:2"], "echo up; exit 7");
    let end = eventually("it has given up", || {
        let state = state(&host, "bad");
        (state["Status"] == "exited").then_some(state)
    });
    assert_eq!(end["ExitCode"], 7);
    assert_eq!(restarts(&host, "bad"), 2);
    assert_eq!(host.rrun(&["logs", "bad"]).stdout, "up\nup\nup\n");
    run(&host, "good", &["--restart", "on-failure"], "echo up");
    eventually("it has ended", || (state(&host, "good")["Status"] == "exited").then_some(()));
    assert_eq!((restarts(&host, "good"), host.rrun(&["logs", "good"]).stdout.as_str()), (0, "up\n"));
    assert_eq!(
        host.ok(&["inspect", "-f", "{{json .HostConfig.RestartPolicy}}", "bad"]),
        r#"{"MaximumRetryCount":2,"Name":"on-failure"}"#
    );
}

#[test]
fn the_wait_doubles() {
    let host = Host::new();
    run(&host, "bad", &["--restart", "on-failure:4"], "date +%s%N | cut -c1-13; exit 1");
    eventually("it has given up", || (state(&host, "bad")["Status"] == "exited").then_some(()));
    let log = host.rrun(&["logs", "-t", "bad"]).stdout;
    let times: Vec<f64> = log
        .lines()
        .filter_map(|l| l.split_whitespace().next()?.split(':').nth(2)?.trim_end_matches('Z').parse().ok())
        .collect();
    assert_eq!(times.len(), 5, "{log}");
    // Seconds of the minute; each wait is at least what Docker's is, however slow the machine.
    for (n, pair) in times.windows(2).enumerate() {
        let passed = (pair[1] - pair[0]).rem_euclid(60.0);
        let least = 0.1 * f64::from(1 << n);
        assert!(passed >= least, "wait {n}: {passed} s, {least} s at least\n{log}");
    }
}

#[test]
fn a_container_that_waits_for_its_start_can_be_stopped_killed_removed_and_started() {
    let host = Host::new();
    let waits = |after| {
        eventually("a wait", || {
            (state(&host, "cc")["Status"] == "restarting" && restarts(&host, "cc") >= after).then_some(())
        });
    };
    run(&host, "cc", &["--restart", "always"], "exit 1");
    // Long enough for the five commands that meet it: each wait is twice the one before, the first 0.1 s.
    waits(if patience() > Duration::from_secs(10) { 7 } else { 4 });
    let e = host.fails(1, &["rm", "cc"]);
    assert!(e.contains("container is restarting: stop the container before removing or force remove"), "{e}");
    let e = host.fails(1, &["exec", "cc", "true"]);
    assert!(e.contains("is restarting, wait until the container is running"), "{e}");
    let e = host.fails(1, &["attach", "cc"]);
    assert!(e.contains("You cannot attach to a restarting container, wait until it is running"), "{e}");
    let e = host.fails(1, &["pause", "cc"]);
    assert!(e.contains("is restarting, wait until the container is running"), "{e}");
    assert_eq!(host.ok(&["start", "cc"]), "cc", "it is as good as started");
    host.ok(&["kill", "cc"]);
    assert_eq!(state(&host, "cc")["Status"], "exited");
    assert_eq!(host.ok(&["wait", "cc"]), "1");
    host.ok(&["start", "cc"]);
    waits(2);
    host.ok(&["rm", "-f", "cc"]);
    assert_eq!(host.ok(&["ps", "-aq"]), "");
}

#[test]
fn a_start_that_fails_later_ends_the_restarts_with_its_reason() {
    let host = Host::new();
    run(&host, "cc", &["--restart", "always"], "rm /bin/sh; exit 1");
    let end = eventually("it cannot start again", || {
        let state = state(&host, "cc");
        (state["Status"] == "exited").then_some(state)
    });
    assert_eq!(end["ExitCode"], 127);
    assert!(end["Error"].as_str().is_some_and(|e| e.contains("executable file not found")), "{end}");
}

#[test]
fn restart_stops_and_starts_several() {
    let host = Host::new();
    for name in ["aa", "bb"] {
        run(&host, name, &["--restart", "unless-stopped"], WAITS);
        up(&host, name, 1);
    }
    let before = state(&host, "aa")["Pid"].clone();
    assert_eq!(host.ok(&["restart", "-t", "5", "aa", "bb"]), "aa\nbb");
    for name in ["aa", "bb"] {
        up(&host, name, 2);
        assert_eq!(restarts(&host, name), 0, "by hand it does not count");
    }
    assert_ne!(state(&host, "aa")["Pid"], before);
    // The signal is the user's; a stopped container is just started.
    run(&host, "cc", &[], "trap 'echo usr; exit 0' USR1; echo up; while :; do sleep 0.05; done");
    up(&host, "cc", 1);
    host.ok(&["restart", "-s", "USR1", "cc"]);
    up(&host, "cc", 2);
    assert!(host.rrun(&["logs", "cc"]).stdout.contains("usr"));
    host.ok(&["stop", "-t", "0", "cc"]);
    host.ok(&["restart", "cc"]);
    up(&host, "cc", 3);
    let e = host.fails(1, &["restart", "nope"]);
    assert!(e.contains("No such container: nope"), "{e}");
}

#[test]
fn policies_are_checked_in_dockers_words() {
    let host = Host::new();
    for (flags, says) in [
        (&["--restart", "always", "--rm"][..], "conflicting options: cannot specify both --restart and --rm"),
        (&["--restart", "sometimes"], "invalid restart policy: unknown policy 'sometimes'"),
        (&["--restart", "always:3"], "maximum retry count can only be used with 'on-failure'"),
        (&["--restart", "on-failure:x"], "maximum retry count must be an integer"),
    ] {
        let e = host.fails(125, &[&["run"], flags, &["busybox", "true"]].concat());
        assert!(e.contains(says) && e.contains("hint: "), "{flags:?}: {e}");
    }
    host.ok(&["run", "--rm", "--restart", "no", "--network", "none", "busybox", "true"]);
}

/// What a power cut leaves: no process, no volatile state, and another boot.
fn reboot(host: &Host) {
    let state = host.outside(host.state());
    for entry in fs::read_dir(state.join("workers")).expect("workers").flatten() {
        let pid: i32 = entry.file_name().to_str().and_then(|n| n.parse().ok()).expect("a pid");
        // Monitors of this host alone: their links name them.
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).expect("a monitor");
    }
    for id in host.ok(&["ps", "-aq", "--no-trunc"]).lines() {
        let pid = host.ok(&["inspect", "-f", "{{.State.Pid}}", id]);
        if pid != "0" {
            host.sh(&format!("kill -9 {pid}; while [ -e /proc/{pid}/exe ]; do sleep 0.01; done"));
        }
    }
    for entry in fs::read_dir(&state).expect("state").flatten() {
        let path = entry.path();
        let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    }
    for entry in fs::read_dir(host.outside(host.root().join("containers"))).expect("containers").flatten() {
        let file = entry.path().join("state.json");
        if let Ok(text) = fs::read_to_string(&file) {
            let mut doc: Value = serde_json::from_str(&text).expect("JSON");
            doc["boot_id"] = "00000000-0000-0000-0000-000000000000".into();
            fs::write(&file, doc.to_string()).expect("write");
        }
    }
    for c in host.cgroups() {
        for entry in fs::read_dir(c.join("rrun")).into_iter().flatten().flatten() {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

#[test]
fn boot_starts_what_the_policies_say() {
    let host = Host::new();
    let all = ["al", "as", "un", "us", "fa", "ok", "no"];
    for (name, policy) in
        all.iter().zip(["always", "always", "unless-stopped", "unless-stopped", "on-failure", "on-failure", "no"])
    {
        run(&host, name, &["--restart", policy], WAITS);
        up(&host, name, 1);
    }
    run(&host, "new", &[], WAITS);
    host.ok(&["create", "--name", "never", "--restart", "always", "--network", "none", "busybox", "true"]);
    // Two are stopped by the user, one has done its work.
    host.ok(&["stop", "as", "us", "ok"]);
    reboot(&host);
    assert_eq!(host.ok(&["ps", "-q"]), "", "nothing starts by itself");
    let mut started: Vec<String> = host.ok(&["boot"]).lines().map(str::to_string).collect();
    started.sort();
    assert_eq!(started, ["al", "as", "fa", "un"]);
    for name in ["al", "un", "fa"] {
        up(&host, name, 2);
    }
    assert_eq!(state(&host, "us")["Status"], "exited");
    assert_eq!(
        (state(&host, "no")["Status"].as_str(), state(&host, "no")["ExitCode"].as_i64()),
        (Some("exited"), Some(255))
    );
    assert_eq!(state(&host, "never")["Status"], "created");
    assert_eq!(host.ok(&["boot"]), "", "what runs is left alone");
}

#[test]
fn boot_starts_a_container_after_the_one_whose_network_it_shares() {
    let host = Host::new();
    run(&host, "zz", &["--restart", "always"], WAITS);
    host.ok(&[
        "run",
        "-d",
        "--name",
        "aa",
        "--restart",
        "always",
        "--network",
        "container:zz",
        "busybox",
        "sleep",
        "1000",
    ]);
    host.ok(&["rename", "zz", "first"]);
    reboot(&host);
    assert_eq!(host.ok(&["boot"]).lines().count(), 2);
    assert_eq!(state(&host, "aa")["Status"], "running");
    // A container that cannot start is named, and keeps nobody from starting.
    host.ok(&["stop", "-t", "0", "first", "aa"]);
    host.ok(&["rm", "first"]);
    run(&host, "other", &["--restart", "always"], WAITS);
    reboot(&host);
    let ran = host.rrun(&["boot"]).expect(1);
    assert_eq!(ran.stdout, "other\n");
    assert!(ran.stderr.contains("start aa"), "{}", ran.stderr);
}

#[test]
fn a_monitor_told_to_end_stops_its_container_without_another_start() {
    let host = Host::new();
    run(&host, "cc", &["--restart", "unless-stopped"], WAITS);
    up(&host, "cc", 1);
    let id = host.ok(&["inspect", "-f", "{{.Id}}", "cc"]);
    let file = host.outside(host.state()).join("containers").join(id).join("state.json");
    let volatile: Value = serde_json::from_str(&fs::read_to_string(file).expect("state.json")).expect("JSON");
    // As the service manager does when the machine goes down.
    host.sh(&format!("kill -TERM {}", volatile["monitor_pid"]));
    eventually("it has ended", || (state(&host, "cc")["Status"] == "exited").then_some(()));
    assert_eq!(host.ok(&["boot"]), "cc", "nobody stopped it");
    up(&host, "cc", 2);
}

/// What the unit says when the machine goes down: everybody ends as by `stop`, and nobody has been stopped.
#[test]
fn all_go_down_together_and_come_up_by_their_policy() {
    let host = Host::new();
    run(&host, "keeps", &["--restart", "unless-stopped"], WAITS);
    run(&host, "once", &[], WAITS);
    run(&host, "gone", &["--rm"], WAITS);
    run(&host, "ended", &["--restart", "always"], WAITS);
    host.ok(&["stop", "-t", "0", "ended"]);
    let mut down: Vec<String> = host.ok(&["boot", "--down"]).lines().map(str::to_string).collect();
    down.sort();
    assert_eq!(down, ["gone", "keeps", "once"]);
    assert_eq!(host.ok(&["ps", "-q"]), "", "it waits for the last");
    assert_eq!(host.ok(&["boot", "--down"]), "");
    let mut up: Vec<String> = host.ok(&["boot"]).lines().map(str::to_string).collect();
    up.sort();
    assert!(up.contains(&"keeps".to_string()) && !up.contains(&"once".to_string()), "{up:?}");
}

/// Each by its own signal, those that stand still or are between two lives as well.
#[test]
fn going_down_reaches_whoever_sleeps_or_restarts() {
    let host = Host::new();
    let traps = "trap 'echo interrupted; exit 0' INT; echo up; while :; do sleep 0.05; done";
    run(&host, "db", &["--restart", "always", "--stop-signal", "SIGINT"], traps);
    run(&host, "frozen", &["--restart", "unless-stopped"], WAITS);
    run(&host, "once", &[], WAITS);
    run(&host, "stopped", &["--restart", "unless-stopped"], WAITS);
    let restless = ["run", "-d", "--name", "restless", "--network", "none", "--restart", "always", "busybox", "false"];
    host.ok(&restless);
    for name in ["db", "frozen", "once", "stopped"] {
        up(&host, name, 1);
    }
    host.ok(&["pause", "frozen"]);
    host.ok(&["stop", "-t", "0", "stopped"]);
    let told = host.ok(&["boot", "--down"]);
    let mut told: Vec<&str> = told.lines().collect();
    told.sort_unstable();
    assert_eq!(told, ["db", "frozen", "once", "restless"]);
    for name in ["db", "frozen", "once", "restless"] {
        assert_eq!(state(&host, name)["Status"], "exited", "{name}");
    }
    assert!(host.ok(&["logs", "db"]).ends_with("interrupted"));
    assert_eq!(state(&host, "db")["ExitCode"], 0);
    assert_eq!(host.ok(&["boot", "--down"]), "", "nobody is left");
    let again = host.ok(&["boot"]);
    let mut again: Vec<&str> = again.lines().collect();
    again.sort_unstable();
    assert_eq!(again, ["db", "frozen", "restless"]);
    host.ok(&["rm", "-f", "restless"]);
}

#[test]
fn the_unit_calls_what_is_there() {
    let text = include_str!("../../cli/dist/rrun.service");
    assert!(text.contains("ExecStart=/usr/bin/rrun boot\n"), "{text}");
    assert!(text.contains("ExecStop=/usr/bin/rrun boot --down\n"), "monitors are in no unit: {text}");
    if std::process::Command::new("systemd-analyze").arg("--version").output().is_ok_and(|o| o.status.success()) {
        let host = Host::bare();
        // The binary that the unit names is where the package puts it.
        let unit = text.replace("/usr/bin/rrun", &rrun_tests::host::env("RRUN_BIN"));
        let dir = host.dir.join("u");
        fs::create_dir(host.outside(&dir))
            .and_then(|()| fs::write(host.outside(dir.join("rrun.service")), unit))
            .expect("written");
        let ran = host.try_sh(&format!("systemd-analyze verify --man=no {}/u/rrun.service", host.dir.display()));
        assert!(!ran.stderr.contains("rrun.service:"), "{}", ran.stderr);
    } else {
        println!("skipped: no systemd-analyze");
    }
}

#[test]
fn who_ends_while_nobody_watches_is_started_again_by_the_next_command() {
    let host = Host::new();
    for (name, policy) in [("always", "always"), ("failing", "on-failure:1"), ("never", "no"), ("ended", "always")] {
        run(&host, name, &["--restart", policy], WAITS);
        up(&host, name, 1);
    }
    let pid = |name: &str| state(&host, name)["Pid"].as_i64().expect("a pid").to_string();
    let lives: Vec<(&str, String)> = ["always", "failing", "never", "ended"].map(|n| (n, pid(n))).into();
    for (name, init) in &lives {
        let monitor = host.sh(&format!("ps -o ppid= -p {init}"));
        host.sh(&format!("kill -9 {monitor}"));
        // `stop` is the user's will, whoever watches: the takeover's monitor hears of it.
        match *name {
            "ended" => drop(host.ok(&["stop", "-t", "0", "ended"])),
            _ => drop(host.sh(&format!("kill -9 {init}"))),
        }
    }
    host.ok(&["ps"]);
    for name in ["always", "failing"] {
        up(&host, name, 2);
        assert_eq!((restarts(&host, name), state(&host, name)["Status"].as_str()), (1, Some("running")), "{name}");
        assert_ne!(Some(&pid(name)), lives.iter().find(|l| l.0 == name).map(|l| &l.1));
    }
    for name in ["never", "ended"] {
        assert_eq!((restarts(&host, name), state(&host, name)["Status"].as_str()), (0, Some("exited")), "{name}");
    }
    assert_eq!(state(&host, "never")["ExitCode"], 255, "nobody saw its end");
    // The one retry that it had is used up.
    let init = pid("failing");
    let monitor = host.sh(&format!("ps -o ppid= -p {init}"));
    host.sh(&format!("kill -9 {monitor} {init}"));
    host.ok(&["ps"]);
    assert_eq!(state(&host, "failing")["Status"], "exited");
    host.ok(&["rm", "-f", "always", "failing", "never", "ended"]);
}
