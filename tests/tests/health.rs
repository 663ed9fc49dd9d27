//! Health checks: of the image and of flags, their states, their arithmetic, and what they cost.

use rrun_tests::Host;
use rrun_tests::fixture::{Compression, busybox_layer, oci_dir};
use rrun_tests::host::eventually;
use serde_json::{Value, json};
use std::fs;

fn health(host: &Host, name: &str) -> Value {
    serde_json::from_str(&host.ok(&["inspect", "-f", "{{json .State.Health}}", name])).expect("JSON")
}

fn becomes(host: &Host, name: &str, status: &str) -> Value {
    eventually(&format!("{name} is {status}"), || {
        let health = health(host, name);
        (health["Status"] == status).then_some(health)
    })
}

#[track_caller]
fn run(host: &Host, name: &str, flags: &[&str]) {
    let base = ["run", "-d", "--name", name, "--network", "none"];
    host.ok(&[&base, flags, &["busybox", "sleep", "1000"]].concat());
}

fn volatile(host: &Host, name: &str) -> Value {
    let id = host.ok(&["inspect", "-f", "{{.Id}}", name]);
    let file = host.outside(host.state()).join("containers").join(id).join("state.json");
    serde_json::from_str(&fs::read_to_string(file).expect("state.json")).expect("JSON")
}

#[test]
fn from_starting_to_healthy_to_unhealthy_and_back() {
    let host = Host::new();
    let check = "test -e /well && echo fine || { echo ill >&2; exit 1; }";
    run(
        &host,
        "cc",
        &[
            "--health-cmd",
            check,
            "--health-interval",
            "200ms",
            "--health-retries",
            "3",
            "--health-start-period",
            "1h",
            "--health-start-interval",
            "100ms",
        ],
    );
    assert_eq!(health(&host, "cc")["Status"], "starting");
    assert!(host.ok(&["ps", "--format", "{{.Status}}"]).ends_with(" (health: starting)"));
    assert_eq!(volatile(&host, "cc")["health"], "starting", "where DNS looks");
    // Within the start period failures do not count.
    eventually("some have failed", || (health(&host, "cc")["Log"].as_array()?.len() >= 4).then_some(()));
    assert_eq!(
        (&health(&host, "cc")["Status"], &health(&host, "cc")["FailingStreak"]),
        (&json!("starting"), &json!(0))
    );
    host.ok(&["exec", "cc", "touch", "/well"]);
    let well = becomes(&host, "cc", "healthy");
    let last = well["Log"].as_array().and_then(|l| l.last().cloned()).expect("a check");
    assert_eq!((last["ExitCode"].as_i64(), last["Output"].as_str()), (Some(0), Some("fine\n")));
    assert!(last["Start"].as_str() < last["End"].as_str());
    assert!(host.ok(&["ps", "--format", "{{.Status}}"]).ends_with(" (healthy)"));
    host.ok(&["exec", "cc", "rm", "/well"]);
    let ill = becomes(&host, "cc", "unhealthy");
    assert!(ill["FailingStreak"].as_i64() >= Some(3), "{ill}");
    assert_eq!(volatile(&host, "cc")["health"], "unhealthy");
    assert_eq!(host.ok(&["ps", "-q", "--filter", "health=unhealthy"]), host.ok(&["ps", "-q"]));
    assert_eq!(host.ok(&["ps", "-q", "--filter", "health=healthy"]), "");
    eventually("five at most are kept", || (health(&host, "cc")["Log"].as_array()?.len() == 5).then_some(()));
    host.ok(&["exec", "cc", "touch", "/well"]);
    assert_eq!(becomes(&host, "cc", "healthy")["FailingStreak"], 0);
    let journal = fs::read_to_string(host.outside(host.state().join("events"))).expect("the journal");
    for status in ["healthy", "unhealthy"] {
        assert!(journal.contains(&format!("\"Action\":\"health_status: {status}\"")), "{journal}");
    }
    // Nobody checks what has ended; the next life begins anew.
    host.ok(&["stop", "-t", "0", "cc"]);
    assert_eq!(health(&host, "cc")["Status"], "unhealthy");
    host.ok(&["start", "cc"]);
    assert_eq!(volatile(&host, "cc")["health_log"], Value::Null);
    becomes(&host, "cc", "healthy");
}

#[test]
fn a_check_that_hangs_is_killed_and_one_that_is_not_there_is_said() {
    let host = Host::new();
    run(
        &host,
        "slow",
        &[
            "--health-cmd",
            "echo begun; sleep 77.7",
            "--health-interval",
            "100ms",
            "--health-timeout",
            "300ms",
            "--health-retries",
            "1",
        ],
    );
    let ill = becomes(&host, "slow", "unhealthy");
    let first = &ill["Log"][0];
    assert_eq!(
        (first["ExitCode"].as_i64(), first["Output"].as_str()),
        (Some(-1), Some("Health check exceeded timeout (300ms)"))
    );
    // While a check hangs the monitor does all else.
    assert_eq!(host.ok(&["exec", "slow", "echo", "x"]), "x");
    host.ok(&["stop", "-t", "0", "slow"]);
    // Without a shell in the image there is nothing that could run a line.
    let dir = host.dir.join("none");
    let layer = busybox_layer();
    oci_dir(
        &host.outside(&dir),
        "none:1",
        &[(layer, Compression::None)],
        json!({
            "Cmd": ["sleep", "1000"], "Healthcheck": {"Test": ["CMD", "no-such-check"], "Interval": 100_000_000, "Retries": 1},
        }),
    );
    host.ok(&["load", "-i", dir.to_str().expect("UTF-8")]);
    host.ok(&["run", "-d", "--name", "lost", "--network", "none", "none:1"]);
    let ill = becomes(&host, "lost", "unhealthy");
    assert_eq!(ill["Log"][0]["ExitCode"], -1);
    assert!(ill["Log"][0]["Output"].as_str().is_some_and(|o| o.contains("executable file not found")), "{ill}");
}

#[test]
fn the_images_check_is_used_changed_and_switched_off() {
    let host = Host::new();
    host.ok(&[
        "import",
        "--change",
        "HEALTHCHECK --interval=100ms --retries=1 CMD test \"$WHO\" = me -a \"$(pwd)\" = /srv",
        "--change",
        "ENV WHO=me",
        "--change",
        "WORKDIR /srv",
        "--change",
        "CMD [\"sleep\", \"1000\"]",
        "--change",
        "STOPSIGNAL SIGUSR1",
        &rrun_tests::host::env("RRUN_ROOTFS"),
        "checked",
    ]);
    host.ok(&["run", "-d", "--name", "cc", "--network", "none", "checked"]);
    // It runs as an exec would: the container's environment, user and directory.
    becomes(&host, "cc", "healthy");
    let doc: Value = serde_json::from_str(&host.ok(&["inspect", "cc"])).expect("JSON");
    assert_eq!(doc[0]["Config"]["Healthcheck"]["Interval"], 100_000_000);
    assert_eq!(doc[0]["Config"]["StopSignal"], "SIGUSR1");
    host.ok(&[
        "run",
        "-d",
        "--name",
        "more",
        "--network",
        "none",
        "--health-interval",
        "150ms",
        "-e",
        "WHO=you",
        "checked",
    ]);
    becomes(&host, "more", "unhealthy");
    let doc: Value = serde_json::from_str(&host.ok(&["inspect", "more"])).expect("JSON");
    assert_eq!(
        (&doc[0]["Config"]["Healthcheck"]["Interval"], &doc[0]["Config"]["Healthcheck"]["Retries"]),
        (&json!(150_000_000), &json!(1))
    );
    host.ok(&["run", "-d", "--name", "off", "--network", "none", "--no-healthcheck", "checked"]);
    assert!(!host.ok(&["inspect", "-f", "{{json .State}}", "off"]).contains("Health"));
    assert!(!host.ok(&["ps", "--filter", "name=off", "--format", "{{.Status}}"]).contains('('));
    assert_eq!(host.ok(&["ps", "--filter", "health=none", "--format", "{{.Names}}"]), "off");
    let image: Value = serde_json::from_str(&host.ok(&["inspect", "--type", "image", "checked"])).expect("JSON");
    assert_eq!(image[0]["Config"]["Healthcheck"]["Retries"], 1);
    for (flags, says) in [
        (&["--no-healthcheck", "--health-cmd", "x"][..], "--no-healthcheck conflicts with --health-* options"),
        (&["--health-interval", "soon"], "time: invalid duration \"soon\""),
        (&["--health-interval=-1s"], "--health-interval cannot be negative"),
        (&["--health-timeout", "1us"], "Timeout in Healthcheck cannot be less than 1ms"),
        (&["--health-retries", "-1"], "--health-retries cannot be negative"),
    ] {
        let e = host.fails(125, &[&["run"], flags, &["busybox", "true"]].concat());
        assert!(e.contains(says), "{flags:?}: {e}");
    }
}

#[test]
fn nobody_is_checked_while_paused() {
    let host = Host::new();
    run(&host, "cc", &["--health-cmd", "true", "--health-interval", "100ms"]);
    becomes(&host, "cc", "healthy");
    host.ok(&["pause", "cc"]);
    // A check that had just begun may still be under way.
    host.sh("sleep 0.3");
    let count = |host: &Host| volatile(host, "cc")["probes"].as_array().and_then(|p| p.last().cloned());
    let before = count(&host);
    host.sh("sleep 0.5");
    assert_eq!(count(&host), before);
    host.ok(&["unpause", "cc"]);
    eventually("it is checked again", || (count(&host) != before).then_some(()));
    assert_eq!(health(&host, "cc")["Status"], "healthy");
}

#[test]
fn checking_costs_no_thread_and_leaves_nothing_behind() {
    let host = Host::new();
    run(&host, "cc", &["--health-cmd", "yes | head -c 100000", "--health-interval", "50ms"]);
    becomes(&host, "cc", "healthy");
    let monitor = volatile(&host, "cc")["monitor_pid"].clone();
    eventually("many checks", || (health(&host, "cc")["Log"].as_array()?.len() == 5).then_some(()));
    assert_eq!(fs::read_dir(format!("/proc/{monitor}/task")).expect("its threads").count(), 1);
    let kept = health(&host, "cc")["Log"][4]["Output"].as_str().expect("text").len();
    assert_eq!(kept, 4096, "no more is kept than Docker keeps");
    eventually("no zombie, no open pipe stays", || {
        let fds = fs::read_dir(format!("/proc/{monitor}/fd")).ok()?.count();
        let children = fs::read_to_string(format!("/proc/{monitor}/task/{monitor}/children")).ok()?;
        (fds < 20 && children.split_whitespace().count() <= 1).then_some(())
    });
    // A container with a check ends like any other.
    host.ok(&["stop", "-t", "0", "cc"]);
    assert_eq!(host.ok(&["wait", "cc"]), "137");
}

#[test]
fn a_shared_name_leads_past_the_unhealthy() {
    let host = Host::new();
    host.ok(&["network", "create", "net"]);
    let address = |name: &str| host.ok(&["inspect", "-f", "{{.NetworkSettings.Networks.net.IPAddress}}", name]);
    for name in ["one", "two"] {
        let check = ["--health-cmd", "test ! -e /ill", "--health-interval", "100ms", "--health-retries", "1"];
        let base = ["run", "-d", "--name", name, "--network", "net", "--network-alias", "web"];
        host.ok(&[&base[..], &check, &["busybox", "sleep", "1000"]].concat());
        becomes(&host, name, "healthy");
    }
    host.ok(&["run", "-d", "--name", "asker", "--network", "net", "busybox", "sleep", "1000"]);
    let found = |who: &str| {
        let out = host.rrun(&["exec", "asker", "nslookup", "-type=a", "web", "127.0.0.11"]).stdout;
        out.contains(&format!("Address: {}\n", address(who)))
    };
    eventually("both are found", || (found("one") && found("two")).then_some(()));
    host.ok(&["exec", "one", "touch", "/ill"]);
    becomes(&host, "one", "unhealthy");
    eventually("only the other is found", || (!found("one") && found("two")).then_some(()));
    host.ok(&["exec", "one", "rm", "/ill"]);
    becomes(&host, "one", "healthy");
    eventually("both are found again", || (found("one") && found("two")).then_some(()));
}
