//! Bad input anywhere: one clear line, the right exit code, nothing half-made.

use rrun_tests::Host;
use std::fs;

#[test]
fn flags_that_cannot_mean_anything() {
    let host = Host::new();
    let cases: &[(&[&str], &str)] = &[
        (&["-m", "lots"], "lots"),
        (&["-m", "1k"], "emory"),
        (&["--cpus", "-1"], "-1"),
        (&["--cpus", "many"], "many"),
        (&["--pids-limit", "x"], "x"),
        (&["-v", "relative:"], "relative"),
        (&["-v", "a:b:c:d"], "a:b:c:d"),
        (&["-v", "/tmp:relative/path"], "relative/path"),
        (&["--tmpfs", "relative"], "relative"),
        (&["--cap-add", "SYS_NONSENSE"], "SYS_NONSENSE"),
        (&["--ulimit", "nofile=x"], "nofile=x"),
        (&["--ulimit", "nosuch=1"], "nosuch"),
        (&["--security-opt", "nonsense"], "nonsense"),
        (&["--security-opt", "seccomp=/nonexistent.json"], "/nonexistent.json"),
        (&["--sysctl", "kernel.panic=1"], "kernel.panic"),
        (&["-u", "4294967296"], "4294967296"),
        (&["--ip", "banana"], "banana"),
        (&["--mac-address", "zz"], "zz"),
        (&["--network", "nope"], "network nope not found"),
        (&["--network", "container:"], "container"),
        (&["--env-file", "/nonexistent.env"], "/nonexistent.env"),
        (&["--name", "a/b"], "a/b"),
        (&["-w", "relative"], "relative"),
        (&["--stop-signal", "NOPE"], "NOPE"),
        (&["--pull", "sometimes"], "sometimes"),
        (&["--device", "/dev/nonexistent"], "/dev/nonexistent"),
    ];
    // Flags are judged before an image is pulled.
    for ((flags, text), image) in cases.iter().flat_map(|c| [(c, "busybox"), (c, "127.0.0.1:1/x")]) {
        let args = [&["run", "--rm"], *flags, &[image, "true"]].concat();
        let ran = host.rrun(&args);
        assert_eq!(ran.code, 125, "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(text), "{args:?} does not name it: {}", ran.stderr);
        assert!(!ran.stderr.contains("panicked") && !ran.stderr.contains("Unable to find"), "{args:?}: {}", ran.stderr);
    }
    assert_eq!(host.ok(&["ps", "-aq"]), "", "nothing half-made");
}

#[test]
fn command_lines_nobody_can_understand() {
    let host = Host::bare();
    for (line, code, text) in [
        ("frobnicate", 1, "unknown command: rrun frobnicate"),
        ("network frobnicate", 1, "unknown command: rrun network frobnicate"),
        ("rm", 1, "'rrun rm' requires at least 1 argument"),
        ("network create one two", 1, "'rrun network create' requires 1 argument"),
        ("ps what", 1, "'rrun ps' accepts no arguments"),
        ("rm --frobnicate", 125, "unknown flag: --frobnicate"),
        ("run -Z busybox", 125, "unknown shorthand flag: 'Z' in -Z"),
        ("run --memory", 125, "flag needs an argument: --memory"),
    ] {
        let ran = host.rrun(&line.split(' ').collect::<Vec<_>>());
        assert_eq!(ran.code, code, "{line}: {}", ran.stderr);
        assert!(ran.stderr.starts_with(&format!("rrun: {text}\nhint: ")), "{line}: {}", ran.stderr);
        assert_eq!(ran.stderr.lines().count(), 2, "{line}: {}", ran.stderr);
    }
}

#[test]
fn image_names() {
    let host = Host::bare();
    for (name, text) in [
        ("UPPER", "must be lowercase"),
        ("a b", "invalid reference format"),
        ("", "invalid reference format"),
        ("x:", "invalid reference format"),
        ("x@sha256:12", "invalid reference format"),
        ("-x", "-x"),
    ] {
        let ran = host.rrun(&["run", "--rm", "--", name, "true"]);
        assert_eq!(ran.code, 125, "{name:?}: {}", ran.stderr);
        assert!(
            ran.stderr.contains(text) || ran.stderr.contains("invalid reference format"),
            "{name:?}: {}",
            ran.stderr
        );
    }
    let ran = host.rrun(&["run", "--rm", "127.0.0.1:1/x", "true"]).expect(125);
    assert!(ran.stderr.contains("127.0.0.1:1") && ran.stderr.contains("hint:"), "{}", ran.stderr);
}

#[test]
fn damaged_state_stays_with_its_owner() {
    let host = Host::new();
    host.ok(&["run", "-d", "--name", "good", "--network", "none", "busybox", "sleep", "1000"]);
    let bad = host.ok(&["create", "--name", "bad", "--network", "none", "busybox", "true"]);
    let record = host.outside(host.root().join("containers").join(&bad).join("container.json"));
    let good_text = fs::read_to_string(&record).expect("a record");
    for damage in ["", "{", "null", "[]", "{\"version\":999}", &good_text[..good_text.len() / 2], "\u{0}\u{0}\u{0}"] {
        fs::write(&record, damage).expect("damage it");
        let ran = host.rrun(&["ps", "-a", "--format", "{{.Names}}"]).expect(0);
        assert!(ran.stdout.lines().any(|l| l == "good"), "{damage:?}: {}", ran.stdout);
        assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
        let ran = host.rrun(&["start", "bad"]);
        assert!(ran.code != 0 && ran.stderr.contains("container.json"), "{damage:?}: {}", ran.stderr);
        assert!(ran.stderr.contains("hint:"), "{}", ran.stderr);
    }
    // A file of a newer rrun is refused, and untouched.
    fs::write(&record, "{\"version\":999,\"everything\":\"else\"}").expect("write");
    host.rrun(&["start", "bad"]);
    assert_eq!(fs::read_to_string(&record).expect("read"), "{\"version\":999,\"everything\":\"else\"}");
    host.ok(&["rm", "-f", "bad"]);
    assert_eq!(host.ok(&["ps", "-a", "--format", "{{.Names}}"]), "good");
    // The running one's state.
    let id = host.ok(&["inspect", "-f", "{{.Id}}", "good"]);
    let state = host.outside(host.state().join("containers").join(&id).join("state.json"));
    fs::write(&state, "{\"version\":1,\"id\":\"x\",\"pid\":0").expect("damage it");
    let ran = host.rrun(&["ps", "-a"]);
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
    host.ok(&["rm", "-f", "good"]);
}

#[test]
fn a_full_disk() {
    let host = Host::new();
    let root = host.dir.join("small");
    let r = root.to_str().expect("UTF-8").to_string();
    host.sh(&format!("mkdir {r}; mount -t tmpfs -o size=12m small {r}"));
    let with = |args: &[&str]| host.rrun(&[&["--root", r.as_str()], args].concat());
    with(&["import", &rrun_tests::host::env("RRUN_ROOTFS"), "busybox"]).expect(0);
    let running = with(&[
        "run",
        "-d",
        "--name",
        "rr",
        "--network",
        "none",
        "busybox",
        "sh",
        "-c",
        "trap 'exit 3' TERM; while :; do echo x; sleep 0.01; done",
    ])
    .expect(0);
    assert_eq!(running.stdout.trim().len(), 64);
    host.try_sh(&format!(
        "dd if=/dev/zero of={r}/fill bs=64k 2>/dev/null; dd if=/dev/zero of={r}/fill2 bs=1 count=70000 2>/dev/null"
    ));
    // Making something new fails in one line that says what is full…
    let ran = with(&["run", "--rm", "--network", "none", "busybox", "true"]);
    assert_eq!(ran.code, 125, "{}", ran.stderr);
    assert!(ran.stderr.contains("no space left on device"), "{}", ran.stderr);
    let ran = with(&["import", &rrun_tests::host::env("RRUN_ROOTFS"), "again"]);
    assert!(ran.code != 0 && ran.stderr.contains("space"), "{}", ran.stderr);
    // …and what is there can be seen, stopped and removed.
    assert!(with(&["ps"]).expect(0).stdout.contains(" rr"));
    with(&["logs", "--tail", "1", "rr"]).expect(0);
    with(&["stop", "rr"]).expect(0);
    assert_eq!(with(&["wait", "rr"]).expect(0).stdout.trim(), "3", "the exit code is kept");
    with(&["rm", "rr"]).expect(0);
    assert_eq!(with(&["ps", "-aq"]).expect(0).stdout, "");
    host.sh(&format!("umount -l {r}; rmdir {r}"));
}

#[test]
fn a_missing_nft() {
    let host = Host::new();
    // rrun looks in the usual places too, not only in $PATH: a file that cannot be executed lies over it.
    let nft = host.sh("readlink -f $(command -v nft)");
    host.sh(&format!("mount --bind /dev/null {nft}"));
    let ran = host.rrun(&["run", "--rm", "busybox", "true"]).expect(125);
    assert!(ran.stderr.contains("nft") && ran.stderr.contains("hint:"), "{}", ran.stderr);
    assert_eq!(host.ok(&["ps", "-aq"]), "");
    assert_eq!(host.ok(&["run", "--rm", "--network", "none", "busybox", "echo", "fine"]), "fine", "no network, no nft");
    host.sh(&format!("umount {nft}"));
}

#[test]
fn help_and_version_need_nothing() {
    let host = Host::bare();
    for args in [
        &["--help"][..],
        &["run", "--help"],
        &["network", "--help"],
        &["network", "create", "--help"],
        &["--version"],
        &["version"],
    ] {
        let ran = host.rrun(args).expect(0);
        assert!(!ran.stdout.is_empty(), "{args:?}");
    }
    let ran = host.rrun(&["rnu"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("rnu") && ran.stderr.contains("run"), "a similar verb is suggested: {}", ran.stderr);
}
