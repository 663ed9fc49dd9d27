//! What makes a command line a habit: completion, help with examples, the manual, colours, the package.

use rrun_tests::Host;
use rrun_tests::host::env;

#[test]
fn shells_complete_verbs_flags_and_names() {
    let host = Host::new();
    host.ok(&["create", "--name", "webserver", "--network", "none", "busybox"]);
    host.ok(&["network", "create", "my-net"]);
    host.ok(&["volume", "create", "my-data"]);
    // As bash's function calls it: the words, and which of them the cursor is in.
    let complete = |words: &str, index: usize| {
        host.sh(&format!(
            "export COMPLETE=bash _CLAP_COMPLETE_INDEX={index} _CLAP_COMPLETE_COMP_TYPE=9 _CLAP_COMPLETE_SPACE=true _CLAP_IFS=$'\\n'; \
             {} -- rrun {words}",
            env("RRUN_BIN")
        ))
    };
    assert!(complete("ru", 1).lines().any(|l| l == "run"), "{}", complete("ru", 1));
    assert!(complete("run --net", 2).contains("--network"));
    assert_eq!(complete("start web", 2), "webserver");
    assert_eq!(complete("rm -f web", 3), "webserver");
    assert_eq!(complete("run --network my", 3), "my-net");
    assert_eq!(complete("network inspect my", 3), "my-net");
    assert_eq!(complete("volume rm my", 3), "my-data");
    assert_eq!(complete("run busy", 2), "busybox:latest");
    for shell in ["bash", "zsh", "fish", "elvish"] {
        let script = host.ok(&["completion", shell]);
        assert!(script.contains("COMPLETE") && script.contains("rrun"), "{shell}: {script}");
    }
    let script = host.dir.join("tmp/completion");
    host.sh(&format!("{} completion bash > {1}; bash -n {1}", env("RRUN_BIN"), script.display()));
    assert!(host.refuses(&["completion", "tcsh"]).contains("one of bash"));
    host.ok(&["rm", "webserver"]);
    host.ok(&["network", "rm", "my-net"]);
    host.ok(&["volume", "rm", "my-data"]);
}

#[test]
fn help_manual_and_colours() {
    let host = Host::bare();
    let help = host.ok(&["help", "network", "create"]);
    assert!(help.contains("--subnet") && help.contains("Examples:\n") && help.contains("macvlan"), "{help}");
    assert!(host.ok(&["run", "--help"]).contains("rrun run -d --name web -p 8080:80 nginx"));
    let dir = host.dir.join("tmp/man");
    std::fs::create_dir(host.outside(&dir)).expect("a directory");
    host.ok(&["man", dir.to_str().expect("UTF-8")]);
    let pages = host.sh(&format!("ls {}", dir.display()));
    for page in ["rrun.1", "rrun-run.1", "rrun-network-create.1", "rrun-system-check.1"] {
        assert!(pages.lines().any(|l| l == page), "no {page} in {pages}");
    }
    let run = host.sh(&format!("cat {}/rrun-run.1", dir.display()));
    assert!(run.contains(".TH") && run.contains("publish") && run.contains("Examples"), "{run}");
    // No colours at all, on a terminal neither, and whatever NO_COLOR says (no-color.org).
    for set in ["TERM=xterm", "TERM=xterm NO_COLOR=1"] {
        let shown = host.sh(&format!("{set} script -qec '{} run --help' /dev/null", env("RRUN_BIN")));
        assert!(shown.contains("--publish") && !shown.contains('\x1b'), "{shown}");
    }
}

#[test]
fn what_docker_has_and_rrun_has_not_is_told_with_the_reason() {
    let host = Host::bare();
    for (line, code, reason) in [
        (&["build", "."][..], 1, "buildah"),
        (&["image", "build", "."], 1, "buildah"),
        (&["compose", "up"], 1, "converter"),
        (&["swarm", "init"], 1, "no swarm"),
        (&["volume", "update", "x"], 1, "no swarm"),
        (&["-H", "tcp://x", "ps"], 125, "no daemon"),
        (&["--context", "x", "ps"], 125, "no daemon"),
        (&["rm", "-l", "x"], 125, "link"),
        (&["image", "pull", "-a", "x"], 125, "one by one"),
        (&["image", "ls", "--tree"], 125, "one platform"),
        (&["pull", "--disable-content-trust=false", "x"], 125, "sha256"),
    ] {
        let said = host.fails(code, line);
        assert!(said.lines().any(|l| l.starts_with("hint: ") && l.contains(reason)), "{line:?}: {said}");
    }
    // What is no more than a typing mistake is not taken for it.
    assert!(host.fails(1, &["imagess"]).contains("did you mean image"));
    assert!(host.ok(&["--help"]).contains("COMPATIBILITY.md"));
    assert_eq!(host.ok(&["-v"]), host.ok(&["--version"]));
}

#[test]
fn dockers_filters_and_keys() {
    let host = Host::new();
    host.ok(&["tag", "busybox", "first"]);
    host.ok(&["import", "-c", "LABEL a=b", &env("RRUN_ROOTFS"), "second"]);
    let images = |filter: &str| host.ok(&["images", "-f", filter, "--format", "{{.Repository}}"]);
    assert_eq!(images("since=first"), "second");
    assert_eq!(images("before=second:latest").lines().count(), 2);
    assert_eq!((images("until=1h"), images("until=2100-01-01T00:00:00Z").lines().count()), (String::new(), 3));
    assert!(host.refuses(&["images", "-f", "until=soon"]).contains("until"));
    // As `-a` would: all that nobody uses.
    host.ok(&["create", "--name", "web", "--network", "none", "first"]);
    host.ok(&["create", "--name", "web2", "--network", "none", "first"]);
    let pruned = host.ok(&["image", "prune", "-f", "--filter", "dangling=false", "--filter", "label=a=b"]);
    assert!(pruned.contains("untagged: second:latest"), "{pruned}");

    let names = |filter: &str| host.ok(&["ps", "-a", "-f", filter, "--format", "{{.Names}}"]);
    assert_eq!((names("name=^web$"), names("name=^/web$")), ("web".into(), "web".into()));
    assert_eq!((names("name=eb").lines().count(), names("name=web[0-9]")), (2, "web2".into()));
    assert_eq!((names("is-task=false").lines().count(), names("is-task=true")), (2, String::new()));

    let event = host.ok(&[
        "events",
        "--since",
        "1h",
        "--until",
        "0s",
        "--format",
        "{{.Time}} {{.From}} {{.Status}} {{.Scope}}",
    ]);
    assert!(event.lines().any(|l| l.ends_with(" first create local")), "{event}");
    assert_eq!(host.ok(&["events", "--since", "1h", "--until", "0s", "-f", "service=x"]), "");
    assert_eq!(host.ok(&["info", "-f", "{{.Swarm.LocalNodeState}}"]), "inactive");
    let room = "{{range .Images}}{{.Repository}} {{.Containers}}|{{end}}{{len .BuildCache}}";
    assert_eq!(host.ok(&["system", "df", "-v", "--format", room]), "busybox 2|first 2|0");

    let (ours, other) = match cfg!(target_arch = "aarch64") {
        true => ("linux/arm64", "linux/amd64"),
        false => ("linux/amd64", "linux/arm64"),
    };
    for verb in [&["history"][..], &["image", "inspect"], &["save", "-o", "/dev/null"], &["rmi", "--no-prune", "-f"]] {
        let said = host.fails(1, &[verb, &["--platform", other, "first"]].concat());
        assert!(said.contains("does not match the specified platform"), "{verb:?}: {said}");
        host.ok(&[verb, &["--platform", ours, "first"]].concat());
    }
}

/// Docker's command line: a switch may have a value, and what is said last counts.
#[test]
fn switches_take_values_and_the_last_word_counts() {
    let host = Host::new();
    let run = |flags: &[&str], command: &[&str]| {
        host.ok(&[&["run", "--network", "none"], flags, &["busybox"], command].concat())
    };
    assert_eq!(
        run(&["--rm=true", "-it=false", "--init=1"], &["sh", "-c", "cat /proc/1/comm; echo \"$0\"", "--rm=true"])
            .lines()
            .last(),
        Some("--rm=true")
    );
    assert_eq!(host.ok(&["ps", "-aq"]), "");
    run(&["--rm", "--rm=F", "--name", "one", "--name=two", "-t=0"], &["true"]);
    assert_eq!(host.ok(&["ps", "-a=true", "--format", "{{.Names}}"]), "two");
    assert_eq!(
        run(&["--rm", "--rm", "--read-only=true", "-e", "A=true"], &["sh", "-c", "touch /x 2>/dev/null || echo $A"]),
        "true"
    );
    let id = host.ok(&["run", "-d=true", "--network", "none", "busybox", "sleep", "1000"]);
    assert_eq!(host.ok(&["container", "exec", "-it=false", "--privileged=f", &id, "echo", "ok"]), "ok");
    assert!(host.ok(&["explain", "run", "--rm=true", "--network", "none", "busybox", "true"]).contains("never synced"));
    host.ok(&["rm", "-f=true", &id, "two"]);
    let e = host.fails(125, &["run", "--rm=maybe", "busybox", "true"]);
    assert!(
        e.contains(
            "invalid argument \"maybe\" for \"--rm\" flag: strconv.ParseBool: parsing \"maybe\": invalid syntax"
        ),
        "{e}"
    );
}

/// A script's `--name "$NAME"` with nothing in it.
#[test]
fn an_empty_value_is_none() {
    let host = Host::new();
    let empty =
        ["--name", "", "--platform=", "--stop-signal", "", "--ip=", "--ip6=", "--mac-address", "", "--cidfile="];
    let out = host.ok(&[
        &["run", "--rm"][..],
        &empty,
        &[
            "--shm-size=0",
            "--health-interval",
            "0",
            "busybox",
            "sh",
            "-c",
            "df -k /dev/shm | tail -1 | awk '{print $2}'",
        ],
    ]
    .concat());
    assert_eq!(out, "65536", "Docker's default size");
    host.ok(&[&["create"], &empty[..], &["busybox"]].concat());
    assert!(!host.ok(&["ps", "-a", "--format", "{{.Names}}"]).is_empty());
    host.ok(&[&["explain", "run"], &empty[..], &["busybox"]].concat());
}
