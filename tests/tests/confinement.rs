//! What a container is kept from: capabilities, system calls, users, files, as a program inside sees it.

#![expect(unsafe_code, reason = "the test makes system calls of its own")]

use rrun_tests::Host;
use rrun_tests::fixture::LayerTar;
use rrun_tests::host::{env, eventually};
use serde_json::Value;

/// What the prober says when run with these flags.
#[track_caller]
fn probe(host: &Host, flags: &[&str]) -> Value {
    let volume = format!("{}:/prober:ro", env("RRUN_PROBER"));
    let first = ["run", "--rm", "--network", "none", "-v", &volume];
    let out = host.ok(&[&first, flags, &["busybox", "/prober"]].concat());
    serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}"))
}

#[track_caller]
fn all(report: &Value, part: &str, names: &[&str], expected: &str) {
    let wrong: Vec<String> = names
        .iter()
        .map(|n| (n, &report[part][n]))
        .filter(|(_, got)| *got != expected)
        .map(|(n, got)| format!("{n}: {got}"))
        .collect();
    assert!(wrong.is_empty(), "{part} should be {expected}: {wrong:?}");
}

const DEFAULT_CAPS: &str = "00000000a80425fb";
const NONE: &str = "0000000000000000";

/// Refused to everyone in a default container, whatever the user (measured in Docker's).
const REFUSED: &[&str] = &[
    "unshare mnt",
    "unshare cgroup",
    "unshare uts",
    "unshare ipc",
    "unshare user",
    "unshare pid",
    "unshare net",
    "unshare time",
    "unshare user+net+mnt",
    "setns",
    "clone user",
    "fsconfig",
    "fsmount",
    "move_mount",
    "mount_setattr",
    "open_by_handle_at",
    "quotactl",
    "swapon",
    "swapoff",
    "acct",
    "bpf map_create",
    "bpf prog_load",
    "perf_event_open",
    "userfaultfd",
    "userfaultfd user mode",
    "fanotify_init",
    "syslog read",
    "syslog size",
    "init_module",
    "finit_module",
    "delete_module",
    "kexec_load",
    "kexec_file_load",
    "reboot",
    "lsm_list_modules",
    "io_uring_setup",
    "keyctl",
    "add_key",
    "request_key",
    "clock_settime",
    "settimeofday",
    "sethostname",
    "setdomainname",
    "kcmp",
    "process_madvise",
    "pidfd_getfd",
    "get_mempolicy",
    "set_mempolicy",
    "mbind",
    "move_pages",
    "migrate_pages",
    "personality ADDR_NO_RANDOMIZE",
    "personality READ_IMPLIES_EXEC",
    "iopl",
    "ioperm",
    "sysfs",
    "ustat",
    "uselib",
    "lookup_dcookie",
    "nfsservctl",
    "_sysctl",
    "create_module",
    "socket alg",
    "socket vsock",
    "mount new",
    "mount bind",
    "mount remount",
    "mount propagation",
    "umount2",
    "pivot_root",
    "fsopen",
    "fspick",
    "open_tree",
    "SIOCSIFFLAGS",
    "sched_fifo",
    "raise rlimit",
    "adjtimex set",
    "vhangup",
    "i386 keyctl",
    "i386 unshare",
    "i386 socketcall socket",
    "i386 socket alg",
];
const UNKNOWN: &[&str] = &["clone3", "open_tree_attr", "number 1000", "x32 getpid", "i386 clone3"];
const GRANTED: &[&str] = &[
    "landlock",
    "ptrace traceme",
    "process_vm_readv",
    "personality query",
    "personality linux32",
    "mlockall",
    "modify_ldt",
    "socket unix",
    "socket inet",
    "socket mptcp",
    "socket ping",
    "socket netlink route",
    "socket netlink netfilter",
    "SO_BINDTODEVICE",
    "bind port 79",
    "adjtimex read",
    "memfd_create",
    "openat2",
    "pidfd_open",
    "inotify",
    "i386 getpid",
];
const ROOTS: &[&str] = &["setuid 0", "setgroups", "socket raw icmp", "socket raw ip", "socket packet", "mknod fifo"];
const READ_ONLY: &[&str] = &[
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/hostname",
    "/proc/sys/vm/drop_caches",
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/irq/default_smp_affinity",
    "/sys/power/state",
];

/// What this kernel says to mseal(2) without any filter: it came with Linux 6.10.
fn mseal_here() -> &'static str {
    // SAFETY: seals an empty range of addresses.
    match unsafe { libc::syscall(462, 0usize, 0usize, 0usize) } {
        0 => "OK",
        _ => "ENOSYS",
    }
}

#[test]
fn root_in_a_default_container() {
    let host = Host::new();
    let r = probe(&host, &[]);
    all(&r, "process", &["CapPrm", "CapEff", "CapBnd"], DEFAULT_CAPS);
    all(&r, "process", &["CapInh", "CapAmb"], NONE);
    assert_eq!(r["process"]["NoNewPrivs"], "0");
    assert_eq!(r["process"]["Seccomp"], "2");
    assert_eq!(r["process"]["Uid"], "0 0 0 0");
    assert_eq!(r["process"]["keepcaps"], 0);
    all(&r, "calls", REFUSED, "EPERM");
    all(&r, "calls", UNKNOWN, "ENOSYS");
    all(&r, "calls", GRANTED, "OK");
    all(&r, "calls", &["mseal"], mseal_here());
    all(&r, "calls", ROOTS, "OK");
    // Nodes may be made, as in Docker, but the cgroup does not let them be opened.
    all(&r, "calls", &["mknod mem", "mknod kmsg", "mknod disk", "mknod and open null"], "OK");
    let nodes = ["mem", "kmsg", "fuse", "kvm", "loop", "disk"].map(|n| format!("mknod and open {n}"));
    all(&r, "calls", &nodes.each_ref().map(String::as_str), "EPERM");
    all(&r, "writable", READ_ONLY, "EROFS");
    let fds: Vec<&String> = r["fds"].as_object().expect("an object").keys().collect();
    assert_eq!(fds, ["0", "1", "2"], "no descriptor of the host is left open");
}

#[test]
fn a_user_holds_nothing_but_the_bounding_set() {
    let host = Host::new();
    let r = probe(&host, &["-u", "1000:1000"]);
    all(&r, "process", &["CapPrm", "CapEff", "CapInh", "CapAmb"], NONE);
    assert_eq!(r["process"]["CapBnd"], DEFAULT_CAPS);
    assert_eq!(r["process"]["Uid"], "1000 1000 1000 1000");
    assert_eq!(r["process"]["Gid"], "1000 1000 1000 1000");
    assert_eq!(r["process"]["Groups"], "1000");
    all(&r, "calls", REFUSED, "EPERM");
    all(&r, "calls", UNKNOWN, "ENOSYS");
    all(&r, "calls", GRANTED, "OK");
    all(&r, "calls", &["mseal"], mseal_here());
    all(&r, "calls", &["setuid 0", "setgroups", "socket raw icmp", "socket raw ip", "socket packet"], "EPERM");
    let files = ["/proc/sys/kernel/core_pattern", "/*", "/dev/*", "/sys/fs/cgroup/*"];
    for f in files {
        let got = r["writable"][f].as_str().expect("the prober tried it");
        assert!(["EACCES", "EROFS"].contains(&got), "{f}: {got}");
    }
}

#[test]
fn what_the_host_tells_is_masked() {
    let host = Host::new();
    let r = probe(&host, &[]);
    let hidden = ["empty directory", "null device", "ENOENT"];
    for path in [
        "/proc/acpi",
        "/proc/asound",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/sys/firmware",
        "/sys/devices/virtual/powercap",
        "/sys/devices/system/cpu/cpu0/thermal_throttle",
    ] {
        let got = r["paths"][path].as_str().expect("a string");
        assert!(hidden.contains(&got), "{path}: {got}");
    }
    let devices = r["devices"].as_object().expect("an object");
    for (path, what) in devices {
        let what = what.as_str().expect("a string");
        let known = ["c 1:3 ", "c 1:5 ", "c 1:7 ", "c 1:8 ", "c 1:9 ", "c 5:0 ", "c 5:2 "];
        let node = what.starts_with("c ") || what.starts_with("b ");
        assert!(!node || known.iter().any(|k| what.starts_with(k)), "{path}: {what}");
    }
    for name in ["null", "zero", "full", "random", "urandom"] {
        let what = devices[&format!("/dev/{name}")].as_str().expect("a string");
        assert!(what.ends_with("666 0:0 OK"), "/dev/{name}: {what}");
    }
}

#[test]
fn capabilities_come_and_go() {
    let host = Host::new();
    let bits = |flags: &[&str], set: &str| {
        let r = probe(&host, flags);
        u64::from_str_radix(r["process"][set].as_str().expect("a string"), 16).expect("hex")
    };
    let default = 0xa804_25fb;
    assert_eq!(bits(&["--cap-drop", "ALL"], "CapEff"), 0);
    assert_eq!(bits(&["--cap-drop", "ALL", "--cap-add", "net_admin"], "CapEff"), 1 << 12);
    assert_eq!(bits(&["--cap-add", "CAP_SYS_ADMIN", "--cap-drop", "chown"], "CapEff"), default & !1 | 1 << 21);
    assert_eq!(bits(&["--cap-add", "SYS_ADMIN", "-u", "1000"], "CapEff"), 0);
    assert_eq!(bits(&["--cap-add", "SYS_ADMIN", "-u", "1000"], "CapBnd"), default | 1 << 21);
    // Whatever the caller lacks is left out, not an error.
    let own = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let own = own.lines().find_map(|l| l.strip_prefix("CapPrm:")).expect("a line CapPrm");
    let own = u64::from_str_radix(own.trim(), 16).expect("hex");
    assert_eq!(bits(&["--cap-add", "ALL"], "CapEff"), own);
    assert_eq!(bits(&["--privileged"], "CapEff"), own);
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(bits(&["--cap-add", "ALL"], set), 0, "{set}");
    }
}

#[test]
fn the_filter_follows_capabilities_and_options() {
    let host = Host::new();
    let admin = probe(&host, &["--cap-add", "SYS_ADMIN"]);
    all(&admin, "calls", &["unshare mnt", "unshare uts", "unshare user", "clone user"], "OK");
    assert_eq!(admin["calls"]["clone3"], "EINVAL");
    all(&admin, "calls", &["keyctl", "io_uring_setup", "socket alg", "kcmp"], "EPERM");

    let open = probe(&host, &["--security-opt", "seccomp=unconfined"]);
    assert_eq!(open["process"]["Seccomp"], "0");
    assert_eq!(open["calls"]["unshare user"], "OK");
    assert_eq!(open["calls"]["unshare mnt"], "EPERM", "the capability still lacks");

    let stuck = probe(&host, &["--security-opt", "no-new-privileges"]);
    assert_eq!(stuck["process"]["NoNewPrivs"], "1");
    all(&stuck, "calls", REFUSED, "EPERM");

    let profile = host.dir.join("profile.json");
    let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"syscalls":[
        {"names":["socket"],"action":"SCMP_ACT_ERRNO","errnoRet":13,"args":[{"index":0,"value":2,"op":"SCMP_CMP_EQ"}]},
        {"names":["mlockall"],"action":"SCMP_ACT_ERRNO","errnoRet":95}]}"#;
    std::fs::write(host.outside(&profile), text).expect("write the profile");
    let option = format!("seccomp={}", profile.display());
    let own = probe(&host, &["--security-opt", &option]);
    assert_eq!(own["calls"]["socket inet"], "EACCES");
    assert_eq!(own["calls"]["socket inet6"], "OK");
    assert_eq!(own["calls"]["mlockall"], "EOPNOTSUPP");
    std::fs::write(host.outside(&profile), r#"{"defaultAction":"ALLOW"}"#).expect("write the profile");
    let e = host.fails(125, &["run", "--rm", "--security-opt", &option, "busybox", "true"]);
    assert!(e.contains("defaultAction"), "{e}");
}

/// An image whose user files are these.
fn image_with(host: &Host, name: &str, passwd: LayerTar) {
    let prober = std::fs::read(env("RRUN_PROBER")).expect("the prober");
    let tar = passwd.file("prober", 0o755, &prober).finish();
    let path = host.dir.join(format!("{name}.tar"));
    std::fs::write(host.outside(&path), tar).expect("write the image");
    host.ok(&["import", path.to_str().expect("UTF-8"), name]);
}

fn as_user(host: &Host, image: &str, user: &str) -> rrun_tests::Ran {
    host.rrun(&["run", "--rm", "--network", "none", "-u", user, image, "/prober"])
}

#[test]
fn a_number_is_never_a_name_and_never_root_by_accident() {
    let host = Host::new();
    let passwd = "root:x:0:0::/root:\n4242:x:0:0::/:\n-1:x:0:0::/:\n+0:x:0:0::/:\nhalf:x::\nu:x:1000:1000::/home/u:\n";
    let group = "root:x:0:\ng:x:2000:\nmore:x:3000:u\n";
    let layer = LayerTar::new().dir("etc", 0o755);
    image_with(
        &host,
        "users",
        layer.file("etc/passwd", 0o644, passwd.as_bytes()).file("etc/group", 0o644, group.as_bytes()),
    );
    for (user, uid, groups) in [
        ("0", "0", "0"),
        ("u", "1000", "1000 3000"),
        ("1000", "1000", "1000 3000"),
        ("1000:", "1000", "1000 3000"),
        ("u:g", "1000", "2000"),
        ("u:2000", "1000", "2000"),
        ("4242", "4242", "0"),
        ("4242:7", "4242", "7"),
        (":g", "0", "2000"),
    ] {
        let ran = as_user(&host, "users", user).expect(0);
        let r: Value = serde_json::from_str(&ran.stdout).expect("JSON");
        assert_eq!(r["process"]["Uid"], [uid; 4].join(" "), "{user:?}");
        assert_eq!(r["process"]["Groups"], groups, "{user:?}");
    }
    for (user, text) in [
        ("-1", "-1"),
        ("+0", "+0"),
        (" 0", " 0"),
        ("half", "unable to find user half: no matching entries in passwd file"),
        ("nobody", "unable to find user nobody: no matching entries in passwd file"),
        ("u:nogroup", "unable to find group nogroup: no matching entries in group file"),
        ("2147483648", "uids and gids must be in range 0-2147483647"),
        ("4294967296", "uids and gids must be in range 0-2147483647"),
    ] {
        let ran = host.rrun(&["run", "--rm", "--network", "none", &format!("--user={user}"), "users", "/prober"]);
        assert_eq!(ran.code, 125, "{user:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(text), "{user:?}: {}", ran.stderr);
    }
}

#[test]
fn hostile_user_files_neither_hang_nor_lead_out() {
    let host = Host::new();
    let secret = host.dir.join("secret-passwd");
    std::fs::write(host.outside(&secret), "spy:x:0:0::/:\n").expect("write");
    let etc = || LayerTar::new().dir("etc", 0o755);
    image_with(&host, "fifo", etc().entry("etc/passwd", tar::EntryType::Fifo, 0o644, "", b""));
    let ran = as_user(&host, "fifo", "spy").expect(125);
    assert!(ran.stderr.contains("/etc/passwd cannot be used: it is not a regular file"), "{}", ran.stderr);

    image_with(&host, "link", etc().symlink("etc/passwd", &format!("/../../..{}", secret.display())));
    let ran = as_user(&host, "link", "spy").expect(125);
    assert!(ran.stderr.contains("unable to find user spy"), "{}", ran.stderr);

    image_with(&host, "magic", etc().symlink("etc/passwd", "/proc/self/fd/3"));
    as_user(&host, "magic", "spy").expect(125);

    // A link that stays in the image is as good as the file.
    let inside = etc().symlink("etc/passwd", "../real").file("real", 0o644, b"spy:x:77:78::/:\n");
    image_with(&host, "inside", inside);
    let ran = as_user(&host, "inside", "spy").expect(0);
    assert!(ran.stdout.contains(r#""Uid":"77 77 77 77""#), "{}", ran.stdout);
}

#[test]
fn limits_and_parameters() {
    let host = Host::new();
    let r = probe(&host, &["--ulimit", "nofile=100:200", "--ulimit", "core=0", "--sysctl", "kernel.msgmax=4096"]);
    assert_eq!(r["rlimits"]["Max open files"], serde_json::json!(["100", "200"]));
    assert_eq!(r["rlimits"]["Max core file size"], serde_json::json!(["0", "0"]));
    assert_eq!(r["sysctls"]["kernel.msgmax"], "4096");
    assert_eq!(r["sysctls"]["net.ipv4.ip_unprivileged_port_start"], "0");
    assert_eq!(r["sysctls"]["net.ipv4.ping_group_range"], "0 2147483647");
    let e = host.fails(125, &["run", "--rm", "--sysctl", "kernel.core_pattern=|/x", "busybox", "true"]);
    assert!(e.contains("sysctl 'kernel.core_pattern") && e.contains("is not allowed"), "{e}");
    let shared = ["run", "--rm", "--network", "host", "--sysctl", "net.core.somaxconn=1", "busybox", "true"];
    let e = host.fails(125, &shared);
    assert!(e.contains("not allowed in host network namespace"), "{e}");
}

/// An image whose program is /proc/self/exe runs rrun itself inside the container, and root in there
/// can take hold of it (CVE-2019-5736).
#[test]
fn nobody_inside_can_write_to_the_rrun_executable() {
    let host = Host::new();
    let overwrite = "readlink /proc/1/exe /proc/$1/exe; : > /proc/$1/exe";
    // `import` waits for its input, which nobody closes.
    let itself = ["-d", "-i", "--network", "none", "--entrypoint", "/proc/self/exe", "--name", "bad"];
    host.ok(&[&["run"], &itself[..], &["busybox", "import", "-", "x"]].concat());
    let says = host.ok(&["exec", "bad", "cat", "/proc/1/cmdline"]);
    assert!(says.starts_with("/proc/self/exe\0import"), "{says:?}");
    let refused = host.rrun(&["exec", "bad", "sh", "-c", overwrite, "sh", "1"]);
    assert!(refused.stderr.contains("Read-only file system"), "{refused:?}");

    // The same through a joining process.
    let mut joined = host.command(&["exec", "-i", "bad", "/proc/self/exe", "import", "-", "y"]);
    let mut joined = joined.stdin(std::process::Stdio::piped()).spawn().expect("rrun exec starts");
    let pid = eventually("the joined process", || {
        let list = host.ok(&["exec", "bad", "ps", "-o", "pid,args"]);
        let line = list.lines().find(|l| l.ends_with("import - y"))?;
        line.split_whitespace().next().map(str::to_string)
    });
    let refused = host.rrun(&["exec", "bad", "sh", "-c", overwrite, "sh", &pid]);
    assert!(refused.stderr.contains("Read-only file system"), "{refused:?}");

    // And the monitor, should a container see it. (Truncating asks for the mount's leave first; what comes
    // next would be "text file busy", which passes.)
    let state = std::fs::read(
        host.outside(host.state().join("containers"))
            .read_dir()
            .expect("a running container")
            .next()
            .expect("one")
            .expect("an entry")
            .path()
            .join("state.json"),
    )
    .expect("its state");
    let state: Value = serde_json::from_slice(&state).expect("JSON");
    let exe = format!("/proc/{}/exe", state["monitor_pid"]);
    let error = std::fs::OpenOptions::new().write(true).truncate(true).open(&exe).expect_err("writable");
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem, "{exe}: {error}");
    host.ok(&["rm", "-f", "bad"]);
    joined.wait().expect("its end");
}
