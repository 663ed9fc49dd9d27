//! The flags of `docker run`, all of them: what each does to a container, or why it is refused.

use rrun_tests::Host;
use rrun_tests::host::eventually;
use serde_json::Value;
use std::fs;

#[track_caller]
fn run(host: &Host, flags: &[&str], command: &[&str]) -> String {
    host.ok(&[&["run", "--rm", "--network", "none"], flags, &["busybox"], command].concat())
}

#[track_caller]
fn start(host: &Host, name: &str, flags: &[&str]) -> String {
    let base = ["run", "-d", "--name", name, "--network", "none"];
    host.ok(&[&base, flags, &["busybox", "sleep", "1000"]].concat())
}

fn field(host: &Host, name: &str, template: &str) -> String {
    host.ok(&["inspect", "-f", template, name])
}

/// A file of the container's group, by its name in v1 or v2.
fn limit(host: &Host, path: &str, names: &[&str]) -> Option<String> {
    let files = host.cgroups().iter().flat_map(|c| names.iter().map(move |n| c.join(path).join(n)));
    files.filter_map(|f| fs::read_to_string(f).ok()).next().map(|t| t.trim().to_string())
}

/// The namespace of a container's first process, or of the host.
fn ns(host: &Host, name: Option<&str>, kind: &str) -> String {
    let pid = name.map_or("self".to_string(), |n| field(host, n, "{{.State.Pid}}"));
    host.sh(&format!("readlink /proc/{pid}/ns/{kind}"))
}

#[test]
fn every_flag_of_docker_run_is_known() {
    let host = Host::new();
    // `docker run --help` of 28.x, with a value each; refused ones say why.
    let taken: &[&[&str]] = &[
        &["--add-host", "a:1.2.3.4"],
        &["--annotation", "a=b"],
        &["-a", "stdout"],
        &["--attach", "stderr"],
        &["--cap-add", "SYS_TIME"],
        &["--cap-drop", "ALL"],
        &["--cgroup-parent", "/mine"],
        &["--cgroupns", "private"],
        &["--cpu-period", "50000"],
        &["--cpu-quota", "20000"],
        &["--cpu-shares", "512"],
        &["-c", "512"],
        &["--cpus", "0.5"],
        &["--cpuset-cpus", "0"],
        &["--cpuset-mems", "0"],
        &["--detach-keys", "ctrl-a"],
        &["--device", "/dev/null:/dev/x:r"],
        &["--device-cgroup-rule", "c 42:* rmw"],
        &["--disable-content-trust"],
        &["--dns", "1.2.3.4"],
        &["--dns-opt", "a"],
        &["--dns-option", "b"],
        &["--dns-search", "x.y"],
        &["--domainname", "d"],
        &["--entrypoint", "/bin/true"],
        &["-e", "A=b"],
        &["--env", "A"],
        &["--expose", "80"],
        &["--group-add", "5"],
        &["--health-cmd", "true"],
        &["--health-interval", "5s"],
        &["--health-retries", "2"],
        &["--health-start-interval", "1s"],
        &["--health-start-period", "1s"],
        &["--health-timeout", "1s"],
        &["-h", "box"],
        &["--hostname", "box"],
        &["--init"],
        &["-i"],
        &["--ipc", "private"],
        &["--isolation", "default"],
        &["-l", "a=b"],
        &["--label", "c"],
        &["--log-driver", "none"],
        &["--log-opt", "max-size=1m"],
        &["-m", "32m"],
        &["--memory", "32m"],
        &["--memory-reservation", "16m"],
        &["-m", "32m", "--memory-swap", "64m"],
        &["--mount", "type=tmpfs,target=/t"],
        &["--no-healthcheck"],
        &["--oom-kill-disable=false"],
        &["--oom-score-adj", "500"],
        &["--pid", "host"],
        &["--pids-limit", "99"],
        &["--platform", "linux/amd64"],
        &["--privileged"],
        &["--pull", "missing"],
        &["-q"],
        &["--quiet"],
        &["--read-only"],
        &["--restart", "no"],
        &["--runtime", "runc"],
        &["--security-opt", "no-new-privileges"],
        &["--shm-size", "1m"],
        &["--sig-proxy=false"],
        &["--stop-signal", "TERM"],
        &["--stop-timeout", "1"],
        &["--sysctl", "kernel.msgmax=1024"],
        &["--tmpfs", "/t"],
        &["--ulimit", "nofile=64"],
        &["-u", "1000"],
        &["--user", "0:0"],
        &["--userns", "host"],
        &["--uts", "host"],
        &["-v", "/tmp:/t"],
        &["--volume", "/vol"],
        &["--volume-driver", "local"],
        &["-w", "/tmp"],
        &["--workdir", "/tmp"],
        &["--memory-swappiness", "-1"],
    ];
    for flags in taken.iter().filter(|f| !(cfg!(target_arch = "aarch64") && f[0] == "--platform")) {
        let ran = host.rrun(&[&["run", "--rm", "--network", "none"], *flags, &["busybox", "true"]].concat());
        assert_eq!(ran.code, 0, "{flags:?}: {}", ran.stderr);
    }
    host.sh("for h in /sys/fs/cgroup /sys/fs/cgroup/*; do rmdir $h/mine 2>/dev/null || true; done");
    let refused: &[(&[&str], &str)] = &[
        (&["--gpus", "all"], "could not select device driver \"\" with capabilities: [[gpu]]"),
        (&["--runtime", "kata"], "unknown or invalid runtime name: kata"),
        (&["--isolation", "hyperv"], "invalid isolation \"hyperv\" on linux"),
        (&["--storage-opt", "size=1G"], "--storage-opt is supported only for overlay over xfs"),
        (&["--volume-driver", "nfs"], "error looking up volume plugin nfs: plugin \"nfs\" not found"),
        (&["--disable-content-trust=false"], "does not verify signatures"),
        (&["--use-api-socket"], "no API socket"),
        (&["--cpu-count", "2"], "\"--cpu-count\" requires the Docker daemon to run on windows"),
        (&["--cpu-percent", "50"], "\"--cpu-percent\" requires"),
        (&["--io-maxbandwidth", "1m"], "\"--io-maxbandwidth\" requires"),
        (&["--io-maxiops", "9"], "\"--io-maxiops\" requires"),
        (&["--userns", "private"], "--userns: invalid USER mode"),
        (&["--cgroupns", "x"], "--cgroupns: invalid CGROUP mode"),
        (&["--pid", "x"], "--pid: invalid PID mode"),
        (&["--uts", "x"], "--uts: invalid UTS mode"),
        (&["--uts", "host", "-h", "x"], "conflicting options: hostname and the UTS mode"),
        (&["--ipc", "x"], "invalid IPC mode: x"),
        (&["--cgroup-parent", "../x"], "invalid cgroup-parent: ../x"),
        (&["--memory-swappiness", "101"], "Valid memory swappiness range is 0-100"),
        (&["--annotation", "x"], "invalid annotation 'x'"),
        (&["--device-cgroup-rule", "x"], "invalid device cgroup format 'x'"),
        (&["--device-read-bps", "x"], "bad format: x"),
        (&["--blkio-weight", "5"], "Range of blkio weight is from 10 to 1000"),
        (&["--cpus", "1", "--cpu-period", "50000"], "Conflicting options: Nano CPUs and CPU Period cannot both be set"),
    ];
    for (flags, says) in refused {
        let e = host.fails(125, &[&["run", "--rm"], *flags, &["busybox", "true"]].concat());
        assert!(e.contains(says) && e.contains("hint: "), "{flags:?}: {e}");
    }
}

#[test]
fn limits_are_in_the_group() {
    let host = Host::new();
    let id = start(
        &host,
        "cc",
        &[
            "-m",
            "64m",
            "--memory-swap",
            "96m",
            "--memory-reservation",
            "32m",
            "--cpu-shares",
            "512",
            "--cpu-period",
            "50000",
            "--cpu-quota",
            "25000",
            "--cpuset-cpus",
            "0",
            "--cpuset-mems",
            "0",
            "--pids-limit",
            "33",
            "--cgroup-parent",
            "/some/where",
        ],
    );
    let path = format!("some/where/{id}");
    let read = |names: &[&str]| limit(&host, &path, names).unwrap_or_else(|| panic!("{names:?} below {path}"));
    assert_eq!(read(&["memory.limit_in_bytes", "memory.max"]), "67108864");
    assert_eq!(read(&["memory.soft_limit_in_bytes", "memory.low"]), "33554432");
    if let Some(swap) = limit(&host, &path, &["memory.memsw.limit_in_bytes", "memory.swap.max"]) {
        assert!(["100663296", "33554432"].contains(&swap.as_str()), "{swap}");
    }
    assert!(["512", "20"].contains(&read(&["cpu.shares", "cpu.weight"]).as_str()));
    assert!(["25000", "25000 50000"].contains(&read(&["cpu.cfs_quota_us", "cpu.max"]).as_str()));
    assert_eq!(read(&["cpuset.cpus"]), "0");
    assert_eq!(read(&["pids.max"]), "33");
    // They are real: the fork bomb ends at its limit, the processor is the one allowed.
    assert_eq!(
        host.ok(&["exec", "cc", "sh", "-c", "grep Cpus_allowed_list /proc/self/status | tr -d '\\t'"]),
        "Cpus_allowed_list:0"
    );
    let ran = host.rrun(&["exec", "cc", "sh", "-c", "i=0; while [ $i -lt 60 ]; do sleep 5 & i=$((i+1)); done; wait"]);
    assert!(ran.stderr.contains("can't fork"), "{} {}", ran.code, ran.stderr);
    host.ok(&["rm", "-f", "cc"]);
    assert_eq!(limit(&host, &path, &["pids.max"]), None, "its group is gone");
    host.sh("for h in /sys/fs/cgroup /sys/fs/cgroup/*; do rmdir $h/some/where $h/some 2>/dev/null || true; done");
}

#[test]
fn what_only_one_version_of_cgroups_has() {
    let host = Host::new();
    let ran = host
        .rrun(&[
            "run",
            "-d",
            "--name",
            "cc",
            "--network",
            "none",
            "-m",
            "64m",
            "--memory-swappiness",
            "10",
            "--oom-kill-disable",
            "--kernel-memory",
            "32m",
            "--blkio-weight",
            "300",
            "busybox",
            "sleep",
            "1000",
        ])
        .expect(0);
    let path = format!("rrun/{}", ran.stdout.trim());
    match limit(&host, &path, &["memory.swappiness"]) {
        Some(swappiness) => {
            assert_eq!(swappiness, "10");
            let oom = limit(&host, &path, &["memory.oom_control"]).expect("v1 has it");
            assert!(oom.contains("oom_kill_disable 1"), "{oom}");
        }
        None => {
            assert!(ran.stderr.contains("Memory swappiness discarded"), "{}", ran.stderr);
            assert!(ran.stderr.contains("OomKillDisable discarded"), "{}", ran.stderr);
        }
    }
    match limit(&host, &path, &["blkio.bfq.weight", "io.bfq.weight", "io.weight"]) {
        Some(weight) => assert!(weight.contains("300") || weight.contains("2930"), "{weight}"),
        None => assert!(ran.stderr.contains("Weight discarded"), "{}", ran.stderr),
    }
    assert!(ran.stderr.contains("Specifying a kernel memory limit is deprecated"), "{}", ran.stderr);
    let ran = host.rrun(&["run", "--rm", "--network", "none", "--oom-kill-disable", "busybox", "true"]).expect(0);
    assert!(ran.stderr.contains("no memory limit is set"), "{}", ran.stderr);
    // Realtime: v1 only, and only if the parents have some to give.
    let ran = host.rrun(&["run", "--rm", "--network", "none", "--cpu-rt-runtime", "1000", "busybox", "true"]);
    assert!(
        ran.code == 0 && ran.stderr.contains("real-time") || ran.stderr.contains("cpu.rt_runtime_us"),
        "{}: {}",
        ran.code,
        ran.stderr
    );
}

#[test]
fn disks_are_limited() {
    let host = Host::new();
    let disk = host
        .try_sh("lsblk -dno PATH,TYPE,RO,SIZE | awk '$2 == \"disk\" && $3 == 0 && $4 != \"0B\" {print $1; exit}'")
        .stdout;
    let disk = disk.trim();
    if disk.is_empty() {
        println!("skipped: kernel has no disk");
        return;
    }
    let rate = |value: &str| format!("{disk}:{value}");
    let id = start(
        &host,
        "cc",
        &[
            "--device-read-bps",
            &rate("1mb"),
            "--device-write-bps",
            &rate("2mb"),
            "--device-read-iops",
            &rate("100"),
            "--device-write-iops",
            &rate("200"),
        ],
    );
    let path = format!("rrun/{id}");
    let all: String = [
        "blkio.throttle.read_bps_device",
        "blkio.throttle.write_bps_device",
        "blkio.throttle.read_iops_device",
        "blkio.throttle.write_iops_device",
        "io.max",
    ]
    .iter()
    .filter_map(|n| limit(&host, &path, &[n]))
    .collect();
    if all.is_empty() {
        println!("skipped: kernel has no blkio controller here");
        return;
    }
    for number in ["1048576", "2097152", "100", "200"] {
        assert!(all.contains(number), "{number}: {all}");
    }
    host.ok(&["update", "--device-read-bps", &rate("3mb"), "cc"]);
    let now = limit(&host, &path, &["blkio.throttle.read_bps_device", "io.max"]).expect("it is still there");
    assert!(now.contains("3145728"), "{now}");
    let doc: Value = serde_json::from_str(&host.ok(&["inspect", "cc"])).expect("JSON");
    assert_eq!(doc[0]["HostConfig"]["BlkioDeviceReadBps"][0]["Rate"], 3_145_728);
}

#[test]
fn the_oom_score_is_raised_and_lowered_if_one_may() {
    let host = Host::new();
    assert_eq!(run(&host, &["--oom-score-adj", "700"], &["cat", "/proc/self/oom_score_adj"]), "700");
    let ran = host
        .rrun(&[
            "run",
            "--rm",
            "--network",
            "none",
            "--oom-score-adj",
            "-500",
            "busybox",
            "cat",
            "/proc/self/oom_score_adj",
        ])
        .expect(0);
    assert!(
        ran.stdout.trim() == "-500" || ran.stderr.contains("WARNING: the caller lacks CAP_SYS_RESOURCE"),
        "{} {}",
        ran.stdout,
        ran.stderr
    );
}

#[test]
fn namespaces_are_private_the_hosts_or_anothers() {
    let host = Host::new();
    start(&host, "own", &["--ipc", "shareable", "--hostname", "own"]);
    for kind in ["pid", "ipc", "uts", "cgroup"] {
        assert_ne!(ns(&host, Some("own"), kind), ns(&host, None, kind), "{kind}");
    }
    start(&host, "hosts", &["--pid", "host", "--ipc", "host", "--uts", "host", "--cgroupns", "host"]);
    for kind in ["pid", "ipc", "uts", "cgroup"] {
        assert_eq!(ns(&host, Some("hosts"), kind), ns(&host, None, kind), "{kind}");
    }
    assert_eq!(host.ok(&["exec", "hosts", "hostname"]), host.sh("uname -n"));
    assert!(
        host.ok(&["exec", "hosts", "sh", "-c", "ls -d /proc/[0-9]* | wc -l"]).parse::<u32>().expect("a number") > 5
    );
    start(&host, "guest", &["--pid", "container:own", "--ipc", "container:own"]);
    for kind in ["pid", "ipc"] {
        assert_eq!(ns(&host, Some("guest"), kind), ns(&host, Some("own"), kind), "{kind}");
    }
    // Processes and shared memory are seen from both sides; the rest is not shared.
    assert_eq!(host.ok(&["exec", "guest", "cat", "/proc/1/comm"]), "sleep");
    assert_eq!(host.ok(&["exec", "guest", "sh", "-c", "ps | grep -c '[s]leep 1000'"]), "2");
    host.ok(&["exec", "own", "sh", "-c", "echo shared > /dev/shm/x"]);
    assert_eq!(host.ok(&["exec", "guest", "cat", "/dev/shm/x"]), "shared");
    assert_ne!(ns(&host, Some("guest"), "mnt"), ns(&host, Some("own"), "mnt"));
    assert!(field(&host, "guest", "{{.HostConfig.PidMode}}").starts_with("container:"));
    // It keeps its target by ID, and is told when that is down.
    host.ok(&["rename", "own", "owner"]);
    host.ok(&["restart", "-t", "0", "guest"]);
    host.ok(&["stop", "-t", "0", "owner"]);
    eventually("who shares pid 1 goes with it", || {
        (field(&host, "guest", "{{.State.Running}}") == "false").then_some(())
    });
    let e = host.fails(1, &["start", "guest"]);
    assert!(e.contains("non running container") && e.contains("rrun start owner"), "{e}");
    start(&host, "closed", &[]);
    let e = host.fails(125, &["run", "--rm", "--network", "none", "--ipc", "container:closed", "busybox", "true"]);
    assert!(e.contains("non-shareable IPC"), "{e}");
    let e = host.fails(125, &["run", "--rm", "--pid", "container:nope", "busybox", "true"]);
    assert!(e.contains("No such container: nope"), "{e}");
    // `none`: an IPC namespace of its own, and no shared memory.
    assert_eq!(
        host.rrun(&[
            "run",
            "--rm",
            "--network",
            "none",
            "--ipc",
            "none",
            "busybox",
            "sh",
            "-c",
            "mount | grep -c /dev/shm"
        ])
        .stdout
        .trim(),
        "0"
    );
}

#[test]
fn shared_memory_has_its_size_and_sysctls_their_value() {
    let host = Host::new();
    let size = run(&host, &["--shm-size", "5m"], &["sh", "-c", "df -k /dev/shm | tail -1 | awk '{print $2}'"]);
    assert_eq!(size, "5120");
    let out = run(
        &host,
        &["--sysctl", "kernel.msgmax=4242", "--sysctl", "net.ipv4.ip_forward=1"],
        &["sh", "-c", "cat /proc/sys/kernel/msgmax /proc/sys/net/ipv4/ip_forward"],
    );
    assert_eq!(out, "4242\n1");
    let e = host.fails(125, &["run", "--rm", "--ipc", "host", "--sysctl", "kernel.msgmax=1", "busybox", "true"]);
    assert!(e.contains("not allowed in the hosts ipc namespace"), "{e}");
    assert_eq!(
        run(&host, &["--group-add", "33", "-u", "1000"], &["id", "-G"]).split(' ').filter(|g| *g == "33").count(),
        1
    );
}

#[test]
fn devices_and_device_rules() {
    let host = Host::new();
    assert_eq!(
        run(
            &host,
            &["--device", "/dev/zero:/dev/mine:r"],
            &["sh", "-c", "head -c 2 /dev/mine | od -An -tx1; stat -c %t:%T /dev/mine"]
        ),
        " 00 00\n1:5"
    );
    // What is there already, as every container's own or among --privileged's, may be named again.
    assert_eq!(run(&host, &["--device", "/dev/null"], &["stat", "-c", "%t:%T %a", "/dev/null"]), "1:3 666");
    let again = ["--privileged", "--device", "/dev/kmsg", "--device", "/dev/kmsg:/dev/kmsg:r"];
    assert_eq!(run(&host, &again, &["stat", "-c", "%t:%T", "/dev/kmsg"]), "1:b");
    // A rule alone lets nodes be used that the program makes itself. 10:183 is /dev/hwrng; where the kernel
    // has none, opening it fails for that reason and not for want of permission.
    let open = "mknod /tmp/rng c 10 183; head -c 1 /tmp/rng > /dev/null; true";
    let said = |flags: &[&str]| {
        let base = ["run", "--rm", "--network", "none"];
        host.rrun(&[&base, flags, &["busybox", "sh", "-c", open]].concat()).expect(0).stderr
    };
    let refused = said(&[]);
    assert!(refused.contains("not permitted"), "{refused}");
    let allowed = said(&["--device-cgroup-rule", "c 10:183 r"]);
    assert!(!allowed.contains("not permitted"), "{allowed}");
    assert_eq!(
        field_of_created(&host, &["--device-cgroup-rule", "c 1:11 r"], "{{json .HostConfig.DeviceCgroupRules}}"),
        r#"["c 1:11 r"]"#
    );
}

fn field_of_created(host: &Host, flags: &[&str], template: &str) -> String {
    let id = host.ok(&[&["create", "--network", "none"], flags, &["busybox", "true"]].concat());
    field(host, &id, template)
}

#[test]
fn cidfile_labels_annotations() {
    let host = Host::new();
    let dir = host.dir.display();
    host.sh(&format!("printf '# labels\\na=file\\nb=file\\n' > {dir}/labels"));
    let file = format!("{dir}/cid");
    let id = host.ok(&[
        "create",
        "--network",
        "none",
        "--cidfile",
        &file,
        "--label-file",
        &format!("{dir}/labels"),
        "-l",
        "b=flag",
        "--annotation",
        "org.x=y",
        "busybox",
        "true",
    ]);
    assert_eq!(host.sh(&format!("cat {file}")), id);
    let e = host.fails(125, &["run", "--cidfile", &file, "busybox", "true"]);
    assert!(e.contains("container ID file found"), "{e}");
    let doc: Value = serde_json::from_str(&host.ok(&["inspect", &id])).expect("JSON");
    assert_eq!(
        (doc[0]["Config"]["Labels"]["a"].as_str(), doc[0]["Config"]["Labels"]["b"].as_str()),
        (Some("file"), Some("flag"))
    );
    assert_eq!(doc[0]["HostConfig"]["Annotations"]["org.x"], "y");
    host.ok(&["start", &id]);
    eventually("the OCI spec has them", || {
        let text =
            fs::read_to_string(host.outside(host.root().join("containers").join(&id).join("config.json"))).ok()?;
        text.contains("\"org.x\":\"y\"").then_some(())
    });
    // --pull=never: what is not there is not fetched.
    let e = host.fails(125, &["run", "--rm", "--pull", "never", "nowhere.invalid/x:1", "true"]);
    assert!(e.contains("No such image"), "{e}");
    let e = host.fails(125, &["run", "--rm", "--pull", "sometimes", "busybox", "true"]);
    assert!(e.contains("sometimes"), "{e}");
}
