//! The main job: `rrun run` and its flags, seen from the kernel's side.

use rrun_tests::Host;
use rrun_tests::host::eventually;
use std::io::Write;
use std::process::Stdio;

#[test]
fn network_none_has_only_loopback() {
    let host = Host::new();
    let out = host.ok(&["run", "--rm", "--network", "none", "busybox", "ip", "-o", "link", "show"]);
    let names: Vec<&str> = out.lines().filter_map(|l| l.split(": ").nth(1)).collect();
    assert_eq!(names, ["lo"], "{out}");
    assert!(out.contains("LOOPBACK,UP"), "lo is up: {out}");
}

#[test]
fn default_bridge_gives_eth0_an_address() {
    let host = Host::new();
    let out = host.ok(&["run", "--rm", "busybox", "ip", "-o", "-4", "addr", "show", "eth0"]);
    assert!(out.contains("172.17.0.2/16"), "{out}");
    let bridge = host.ip("-4 addr show rrun0");
    assert_eq!(bridge[0]["addr_info"][0]["local"], "172.17.0.1");
}

#[test]
fn exit_codes_are_dockers() {
    let host = Host::new();
    let run = |args: &[&str]| host.rrun(&[&["run", "--rm", "--network", "none"], args].concat());
    assert_eq!(run(&["busybox", "true"]).code, 0);
    assert_eq!(run(&["busybox", "sh", "-c", "exit 42"]).code, 42);
    assert_eq!(run(&["busybox", "sh", "-c", "sh -c 'kill -9 $$'; exit $?"]).code, 137);
    let missing = run(&["busybox", "no-such-program"]).expect(127);
    assert!(
        missing.stderr.contains("exec: \"no-such-program\": executable file not found in $PATH"),
        "{}",
        missing.stderr
    );
    let directory = run(&["busybox", "/etc"]).expect(126);
    assert!(directory.stderr.contains("/etc"), "{}", directory.stderr);
    run(&["busybox", "/etc/passwd"]).expect(126);
    let image = run(&["--pull", "never", "no-such-image"]).expect(125);
    assert!(image.stderr.contains("No such image: no-such-image:latest"), "{}", image.stderr);
    let flag = run(&["--no-such-flag", "busybox"]).expect(125);
    assert!(flag.stderr.contains("--no-such-flag"), "{}", flag.stderr);
    assert_eq!(host.ok(&["ps", "-aq"]), "", "--rm leaves no container, whatever the end");
}

#[test]
fn every_byte_of_input_and_output_arrives() {
    let host = Host::new();
    let mut command =
        host.command(&["run", "-i", "--rm", "--network", "none", "busybox", "sh", "-c", "cat; echo end >&2"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("spawn rrun");
    let sent: Vec<u8> = (0..40_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut stdin = child.stdin.take().expect("piped");
    let copy = sent.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&copy));
    let out = child.wait_with_output().expect("wait");
    writer.join().expect("the writer").expect("all input is taken");
    assert!(out.stdout == sent, "{} bytes came back of {}", out.stdout.len(), sent.len());
    assert_eq!(String::from_utf8_lossy(&out.stderr), "end\n");
    assert!(out.status.success());
}

#[test]
fn the_environment_is_the_documented_one() {
    let host = Host::new();
    std::fs::write(host.outside(host.dir.join("envs")), "# a comment\nFROM_FILE=1\nHOST_VALUE\n").expect("env file");
    let file = host.dir.join("envs");
    let file = file.to_str().expect("UTF-8");
    let mut command = host.command(&[
        "run",
        "--rm",
        "--network",
        "none",
        "-e",
        "A=b c",
        "-e",
        "HOST_VALUE2",
        "--env-file",
        file,
        "--hostname",
        "box",
        "busybox",
        "env",
    ]);
    command.env("HOST_VALUE", "x").env("HOST_VALUE2", "y").env("SECRET", "not for containers");
    let out = command.output().expect("run");
    let mut lines: Vec<String> = String::from_utf8_lossy(&out.stdout).lines().map(str::to_string).collect();
    lines.sort();
    let want = [
        "A=b c",
        "FROM_FILE=1",
        "HOME=/root",
        "HOSTNAME=box",
        "HOST_VALUE2=y",
        "HOST_VALUE=x",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ];
    assert_eq!(lines, want, "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn working_directory_user_entrypoint_and_hostname() {
    let host = Host::new();
    let run = |args: &[&str]| host.ok(&[&["run", "--rm", "--network", "none"], args].concat());
    assert_eq!(run(&["-w", "/made/for/me", "busybox", "pwd"]), "/made/for/me");
    assert_eq!(run(&["-u", "www-data", "busybox", "id"]), "uid=33(www-data) gid=33(www-data) groups=33(www-data)");
    assert_eq!(run(&["-u", "1000:5", "busybox", "sh", "-c", "id -u; id -g"]), "1000\n5");
    assert_eq!(run(&["--entrypoint", "echo", "busybox", "a", "b"]), "a b");
    assert_eq!(run(&["-h", "box.example", "busybox", "hostname"]), "box.example");
    assert!(
        host.fails(125, &["run", "--rm", "-u", "nobody-knows", "busybox", "id"])
            .contains("unable to find user nobody-knows")
    );
}

#[test]
fn the_container_is_alone_in_its_namespaces() {
    let host = Host::new();
    let inside = host.ok(&[
        "run",
        "--rm",
        "--network",
        "none",
        "busybox",
        "sh",
        "-c",
        "echo $$; ps -o pid,args; for n in mnt pid uts ipc net cgroup; do readlink /proc/self/ns/$n; done",
    ]);
    let mut lines = inside.lines();
    assert_eq!(lines.next(), Some("1"), "the program is PID 1");
    let host_ns = host.sh("for n in mnt pid uts ipc net cgroup; do readlink /proc/self/ns/$n; done");
    for ns in host_ns.lines() {
        assert!(!inside.contains(ns), "{ns} is shared with the host:\n{inside}");
    }
}

#[test]
fn read_only_roots_tmpfs_and_volumes() {
    let host = Host::new();
    let run = |args: &[&str]| host.rrun(&[&["run", "--rm", "--network", "none"], args].concat());
    assert_ne!(run(&["--read-only", "busybox", "touch", "/x"]).code, 0);
    run(&[
        "--read-only",
        "--tmpfs",
        "/scratch:size=1m,mode=1777",
        "busybox",
        "sh",
        "-c",
        "touch /scratch/x && grep -q ' /scratch tmpfs .*size=1024k' /proc/mounts",
    ])
    .expect(0);
    let dir = host.dir.join("shared");
    let dir = dir.to_str().expect("UTF-8");
    host.sh(&format!("mkdir {dir}; echo hello > {dir}/f"));
    assert_eq!(run(&["-v", &format!("{dir}:/data:ro"), "busybox", "cat", "/data/f"]).stdout, "hello\n");
    assert_ne!(run(&["-v", &format!("{dir}:/data:ro"), "busybox", "touch", "/data/g"]).code, 0);
    run(&["-v", &format!("{dir}:/data"), "busybox", "sh", "-c", "echo there > /data/g"]).expect(0);
    assert_eq!(host.sh(&format!("cat {dir}/g")), "there");
    // A named volume keeps what one container wrote for the next.
    run(&["-v", "keep:/v", "busybox", "sh", "-c", "echo kept > /v/f"]).expect(0);
    assert_eq!(run(&["-v", "keep:/v", "busybox", "cat", "/v/f"]).stdout, "kept\n");
}

#[test]
fn writes_stay_in_the_container() {
    let host = Host::new();
    host.ok(&["run", "--name", "one", "--network", "none", "busybox", "sh", "-c", "echo mine > /etc/mine"]);
    host.rrun(&["run", "--rm", "--network", "none", "busybox", "cat", "/etc/mine"]).expect(1);
    // A stopped container's layer is still there when it starts again.
    host.ok(&["start", "-a", "one"]);
    let upper = host.sh(&format!("cat {}/containers/*/upper/etc/mine", host.root().display()));
    assert_eq!(upper, "mine");
}

#[test]
fn limits_reach_the_cgroup() {
    let host = Host::new();
    let id = host.ok(&[
        "run",
        "-d",
        "--network",
        "none",
        "-m",
        "64m",
        "--cpus",
        "0.5",
        "--pids-limit",
        "50",
        "busybox",
        "sleep",
        "1000",
    ]);
    let read = |v1: &str, v2: &str| {
        host.cgroups()
            .iter()
            .find_map(|c| [v1, v2].iter().find_map(|f| std::fs::read_to_string(c.join("rrun").join(&id).join(f)).ok()))
    };
    assert_eq!(read("memory.limit_in_bytes", "memory.max").as_deref().map(str::trim), Some("67108864"));
    assert_eq!(read("pids.max", "pids.max").as_deref().map(str::trim), Some("50"));
    let cpu = read("cpu.cfs_quota_us", "cpu.max");
    assert!(matches!(cpu.as_deref().map(str::trim), Some("50000" | "50000 100000")), "{cpu:?}");
    host.ok(&["rm", "-f", &id]);
}

#[test]
fn memory_over_the_limit_is_killed_and_said_so() {
    let host = Host::new();
    host.rrun(&[
        "run",
        "--name",
        "hog",
        "--network",
        "none",
        "-m",
        "16m",
        "busybox",
        "sh",
        "-c",
        "x=a; while :; do x=$x$x; done",
    ])
    .expect(137);
    assert_eq!(host.ok(&["inspect", "-f", "{{.State.OOMKilled}} {{.State.ExitCode}}", "hog"]), "true 137");
}

#[test]
fn init_reaps_and_forwards_signals() {
    let host = Host::new();
    let id = host.ok(&[
        "run",
        "-d",
        "--init",
        "--network",
        "none",
        "busybox",
        "sh",
        "-c",
        "trap 'exit 7' TERM; (sleep 0.1 &) ; while :; do sleep 0.1; done",
    ]);
    // The orphan of the subshell is reaped by PID 1: no zombie stays.
    eventually("the orphan is reaped", || {
        let out = host.ok(&["exec", &id, "ps", "-o", "stat,args"]);
        (!out.lines().any(|l| l.starts_with('Z'))).then_some(())
    });
    host.ok(&["stop", &id]);
    assert_eq!(host.ok(&["wait", &id]), "7");
}

#[test]
fn detached_prints_the_id_and_goes_on() {
    let host = Host::new();
    let id = host.ok(&[
        "run",
        "-d",
        "--name",
        "bg",
        "--network",
        "none",
        "busybox",
        "sh",
        "-c",
        "echo out; echo err >&2; sleep 1000; true",
    ]);
    assert_eq!(id.len(), 64);
    eventually("both lines are logged", || (host.rrun(&["logs", "bg"]).stdout == "out\n").then_some(()));
    assert_eq!(host.rrun(&["logs", "bg"]).stderr, "err\n");
    let pid = host.ok(&["inspect", "-f", "{{.State.Pid}}", "bg"]);
    let cmdline = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).expect("a live process");
    assert!(cmdline.starts_with("sh\0-c\0"), "{cmdline:?}");
    let e = host.fails(125, &["run", "-d", "--name", "bg", "busybox", "true"]);
    assert!(e.contains("Conflict. The container name \"/bg\" is already in use by container"), "{e}");
    host.ok(&["rm", "-f", "bg"]);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn the_caller_may_hang_up_but_not_the_container() {
    let host = Host::new();
    // Closing standard input of the caller ends a `cat`, as it does with Docker.
    let mut command = host.command(&["run", "-i", "--rm", "--network", "none", "busybox", "cat"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("spawn");
    child.stdin.take().expect("piped").write_all(b"x\n").expect("write");
    let out = child.wait_with_output().expect("wait");
    assert_eq!(out.stdout, b"x\n");
    // A signal to the foreground command reaches the program.
    let mut child = host
        .command(&[
            "run",
            "--rm",
            "--name",
            "sig",
            "--network",
            "none",
            "busybox",
            "sh",
            "-c",
            "trap 'echo got; exit 3' TERM; echo up; while :; do sleep 0.05; done",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .expect("spawn");
    let mut out = child.stdout.take().expect("piped");
    let mut first = [0u8; 3];
    std::io::Read::read_exact(&mut out, &mut first).expect("up");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::Signal::SIGTERM)
        .expect("kill");
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut out, &mut rest).expect("read");
    assert_eq!(rest, "got\n");
    assert_eq!(child.wait().expect("wait").code(), Some(3));
}
