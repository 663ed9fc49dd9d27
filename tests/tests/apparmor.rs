//! AppArmor: the profile that containers run under, seen from inside, and what it forbids.

use rrun_tests::host::Host;
use rrun_tests::kernel;
use std::io::Write;

/// `cat` of this names the profile of the process that reads it.
const LABEL: &str = "/proc/self/attr/current";

fn label(host: &Host, flags: &[&str]) -> String {
    let args = [&["run", "--rm", "--network", "none"], flags, &["busybox", "cat", LABEL]].concat();
    host.ok(&args)
}

#[test]
fn containers_run_under_the_default_profile() {
    if kernel::lacks(&["AppArmor"]) {
        return;
    }
    let host = Host::new();
    assert_eq!(label(&host, &[]), "rrun-default (enforce)");
    assert!(host.sh("cat /sys/kernel/security/apparmor/profiles").lines().any(|l| l == "rrun-default (enforce)"));
    // Whoever the program runs as, and with what else it may not do.
    assert_eq!(label(&host, &["--user", "33", "--security-opt", "no-new-privileges"]), "rrun-default (enforce)");
    assert_eq!(label(&host, &["--security-opt", "seccomp=unconfined", "--cap-add", "ALL"]), "rrun-default (enforce)");
    // With --init both are under it, and a program can still signal its init.
    let both = host.ok(&[
        "run",
        "--rm",
        "--init",
        "busybox",
        "sh",
        "-c",
        "cat /proc/1/attr/current /proc/self/attr/current; kill -URG 1",
    ]);
    assert_eq!(both, "rrun-default (enforce)\nrrun-default (enforce)");

    assert_eq!(label(&host, &["--privileged"]), "unconfined");
    assert_eq!(label(&host, &["--security-opt", "apparmor=unconfined"]), "unconfined");
    assert_eq!(label(&host, &["--privileged", "--security-opt", "apparmor=rrun-default"]), "rrun-default (enforce)");
}

#[test]
fn exec_has_the_containers_profile() {
    if kernel::lacks(&["AppArmor"]) {
        return;
    }
    let host = Host::new();
    host.ok(&["run", "-d", "--name", "cc", "busybox", "sleep", "1000"]);
    assert_eq!(host.ok(&["exec", "cc", "cat", LABEL]), "rrun-default (enforce)");
    assert_eq!(host.ok(&["exec", "--privileged", "cc", "cat", LABEL]), "unconfined");
    assert_eq!(host.ok(&["inspect", "--format", "{{.AppArmorProfile}}", "cc"]), "rrun-default");
    // The host can still end it.
    host.ok(&["stop", "-t", "5", "cc"]);
    host.ok(&["run", "-d", "--name", "pp", "--privileged", "busybox", "sleep", "1000"]);
    assert_eq!(host.ok(&["exec", "pp", "cat", LABEL]), "unconfined");
    assert_eq!(host.ok(&["inspect", "--format", "{{.AppArmorProfile}}", "pp"]), "unconfined");
}

#[test]
fn it_denies_what_capabilities_would_allow() {
    if kernel::lacks(&["AppArmor"]) {
        return;
    }
    let host = Host::new();
    // SYS_ADMIN may mount, and with the masks off every kernel parameter can be written.
    let open = ["run", "--rm", "--cap-add", "SYS_ADMIN", "--security-opt", "systempaths=unconfined"];
    let attempts = [
        ("mount -t tmpfs none /tmp", "mount: mounting none on /tmp failed: Permission denied"),
        ("echo changed > /proc/sys/kernel/hostname", "Permission denied"),
        ("echo 1 > /proc/sys/vm/drop_caches", "Permission denied"),
        ("echo h > /proc/sysrq-trigger", "Permission denied"),
    ];
    for (attempt, answer) in attempts {
        let shell = ["busybox", "sh", "-c", attempt];
        let ran = host.rrun(&[&open[..], &shell].concat());
        assert!(ran.code != 0 && ran.stderr.contains(answer), "{attempt}: {ran:?}");
    }
    for attempt in ["mkdir -p /mnt; mount -t tmpfs none /tmp", "echo changed > /proc/sys/kernel/hostname"] {
        let free = ["--security-opt", "apparmor=unconfined", "busybox", "sh", "-c", attempt];
        host.ok(&[&open[..], &free].concat());
    }
    // What a container needs of procfs stays: its own processes, and shared memory.
    let own = "echo 500 > /proc/self/oom_score_adj; echo x > /proc/self/comm; echo 65536 > /proc/sys/kernel/shmmax";
    host.ok(&[&open[..], &["busybox", "sh", "-ec", own]].concat());
    // Its processes may signal and trace each other, and not the host's.
    host.ok(&["run", "--rm", "busybox", "sh", "-ec", "sleep 1000 & kill -TERM $!; cat /proc/1/environ >/dev/null"]);
    let outside = host.fails(1, &["run", "--rm", "--pid", "host", "busybox", "sh", "-c", "kill -URG 1"]);
    assert!(outside.contains("Permission denied"), "{outside}");
}

#[test]
fn an_administrators_profile() {
    if kernel::lacks(&["AppArmor"]) {
        return;
    }
    let host = Host::new();
    let name = format!("rrun-test-{}", std::process::id());
    let text =
        format!("profile {name} flags=(attach_disconnected) {{ file, capability, signal, deny /etc/passwd r, }}");
    let parser = |verb: &str| {
        let mut child = std::process::Command::new("apparmor_parser")
            .arg(verb)
            .stdin(std::process::Stdio::piped())
            .spawn()
            .expect("apparmor_parser");
        child.stdin.take().expect("piped").write_all(text.as_bytes()).expect("written");
        assert!(child.wait().expect("ended").success());
    };
    let option = format!("apparmor={name}");
    let refused = host.fails(125, &["run", "--rm", "--security-opt", &option, "busybox", "true"]);
    assert!(
        refused.contains(&format!("AppArmor profile {name}")) && refused.contains("apparmor_parser -r"),
        "{refused}"
    );

    parser("-r");
    let outcome = std::panic::catch_unwind(|| {
        assert_eq!(label(&host, &["--security-opt", &option]), format!("{name} (enforce)"));
        let denied = host.fails(1, &["run", "--rm", "--security-opt", &option, "busybox", "cat", "/etc/passwd"]);
        assert!(denied.contains("Permission denied"), "{denied}");
        host.ok(&["run", "-d", "--name", "cc", "--security-opt", &option, "busybox", "sleep", "1000"]);
        assert_eq!(host.ok(&["inspect", "--format", "{{.AppArmorProfile}}", "cc"]), name);
        assert_eq!(host.ok(&["exec", "cc", "cat", LABEL]), format!("{name} (enforce)"));
    });
    parser("-R");
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// On machines without AppArmor a profile that was asked for is missed aloud, and nothing breaks.
#[test]
fn where_there_is_none_a_wish_is_a_warning() {
    let host = Host::new();
    let ran = host.rrun(&["run", "--rm", "--security-opt", "apparmor=mine", "busybox", "true"]);
    if kernel::has("AppArmor") {
        assert_ne!(ran.code, 0, "{}", ran.stderr);
    } else {
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        assert!(ran.stderr.contains("no AppArmor"), "{}", ran.stderr);
        assert_eq!(host.ok(&["run", "-d", "--name", "cc", "busybox", "true"]).len(), 64);
        assert_eq!(host.ok(&["inspect", "--format", "{{.AppArmorProfile}}", "cc"]), "");
    }
    host.refuses(&["run", "--rm", "--security-opt", "apparmor=", "busybox", "true"]);
}
