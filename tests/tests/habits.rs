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
