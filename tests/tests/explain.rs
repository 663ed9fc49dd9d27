//! `--explain`, `rrun explain` and `--script`: every step speaks, and nothing is touched by asking.

use rrun_tests::Host;

#[test]
fn a_run_explains_itself_with_times() {
    let host = Host::new();
    let ran = host.rrun(&["run", "--rm", "--explain", "-p", "8080:80", "busybox", "echo", "the output"]).expect(0);
    assert_eq!(ran.stdout, "the output\n", "the explanation is not in the way of the output");
    let text = ran.stderr;
    for part in [
        "namespaces",
        "overlay",
        "veth",
        "172.17.0.2",
        "8080",
        "capabilit",
        "filter system calls",
        "pivot",
        "cgroup",
        " µs",
        "undo:",
        "$ ip ",
        "$ mount ",
    ] {
        assert!(text.contains(part), "{part:?} is missing:\n{text}");
    }
    let steps =
        text.lines().filter(|l| l.trim_start().split('.').next().is_some_and(|n| n.parse::<u32>().is_ok())).count();
    assert!(steps >= 15, "{steps} steps:\n{text}");
}

#[test]
fn explaining_touches_nothing_and_needs_no_root() {
    let host = Host::new();
    let before = host.sh(&format!(
        "find {} {} | sort; ip link; nft list ruleset",
        host.root().display(),
        host.state().display()
    ));
    let text = host.ok(&["explain", "run", "--rm", "-p", "8080:80", "busybox", "true"]);
    assert!(text.contains("172.17.0.2") && text.contains("veth") && !text.contains(" µs"), "{text}");
    let after = host.sh(&format!(
        "find {} {} | sort; ip link; nft list ruleset",
        host.root().display(),
        host.state().display()
    ));
    assert_eq!(before, after);
    // As nobody, whom the store is closed to.
    let nobody = |args: &str| {
        host.try_sh(&format!(
            "exec setpriv --reuid 65534 --regid 65534 --clear-groups {} {args}",
            rrun_tests::host::env("RRUN_BIN")
        ))
    };
    let ran = nobody("explain run --network none busybox true").expect(0);
    assert!(ran.stdout.contains("pivot"), "{}{}", ran.stdout, ran.stderr);
    let ran = nobody("run --network none busybox true").expect(125);
    assert!(ran.stderr.contains("root") && ran.stderr.contains("hint: sudo rrun"), "{}", ran.stderr);
}

#[test]
fn the_script_is_a_shell_script() {
    let host = Host::new();
    let script = host.ok(&["explain", "run", "--rm", "--script", "-p", "8080:80", "busybox", "true"]);
    assert!(script.starts_with("#!/bin/sh\n"), "{script}");
    std::fs::write(host.outside(host.dir.join("script")), &script).expect("write");
    host.sh(&format!("sh -n {}/script", host.dir.display()));
    for part in ["ip link add", "mount -t overlay", "nft add element inet rrun"] {
        assert!(script.contains(part), "{part:?} is missing:\n{script}");
    }
}

#[test]
fn secrets_are_not_explained() {
    let host = Host::new();
    let text = host.ok(&["explain", "run", "-e", "PASSWORD=hunter2", "busybox", "true"]);
    assert!(!text.contains("hunter2"), "{text}");
}
