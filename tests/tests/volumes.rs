//! Volumes that are file systems of their own: what is mounted, for whom, until when, and that nothing of the host's
//! is ever removed with them.

use rrun_tests::Host;
use rrun_tests::host::eventually;
use serde_json::Value;

#[track_caller]
fn run(host: &Host, flags: &[&str], command: &[&str]) -> String {
    host.ok(&[&["run", "--rm", "--network", "none"], flags, &["busybox"], command].concat())
}

#[track_caller]
fn start(host: &Host, name: &str, flags: &[&str]) {
    let base = ["run", "-d", "--name", name, "--network", "none"];
    host.ok(&[&base, flags, &["busybox", "sleep", "1000"]].concat());
}

#[track_caller]
fn create(host: &Host, name: &str, options: &[&str]) {
    let mut args = vec!["volume", "create"];
    options.iter().for_each(|o| args.extend(["-o", o]));
    assert_eq!(host.ok(&[&args[..], &[name]].concat()), name);
}

/// A directory of the host with a file in it.
fn precious(host: &Host) -> String {
    let dir = format!("{}/precious", host.dir.display());
    host.sh(&format!("mkdir -p {dir}/deep; echo dear > {dir}/deep/file"));
    dir
}

/// What the host has mounted on a volume: `type source`.
fn mounted(host: &Host, name: &str) -> Vec<String> {
    let data = format!("{}/volumes/{name}/_data", host.root().display());
    let table = host.sh("cat /proc/mounts");
    let lines = table.lines().map(|l| l.split(' ').collect::<Vec<_>>()).filter(|w| w[1] == data);
    lines.map(|w| format!("{} {}", w[2], w[0])).collect()
}

#[test]
fn memory_is_shared_while_somebody_uses_it() {
    let host = Host::new();
    create(&host, "mem", &["type=tmpfs", "device=tmpfs", "o=size=1m,mode=0710,uid=7,nosuid"]);
    let look = |name: &str| -> Value {
        serde_json::from_str(&host.ok(&["volume", "inspect", "-f", "{{json .}}", name])).expect("JSON")
    };
    let options = serde_json::json!({"type": "tmpfs", "device": "tmpfs", "o": "size=1m,mode=0710,uid=7,nosuid"});
    assert_eq!((&look("mem")["Options"], &look("mem")["Driver"]), (&options, &"local".into()));
    assert!(mounted(&host, "mem").is_empty(), "nobody uses it");
    start(&host, "one", &["-v", "mem:/m"]);
    assert_eq!(mounted(&host, "mem"), ["tmpfs tmpfs"]);
    assert_eq!(
        host.ok(&["exec", "one", "sh", "-c", "stat -c '%a %u' /m; df -k /m | tail -1 | awk '{print $2}'; grep -c ' /m tmpfs .*nosuid' /proc/mounts; echo 1 > /m/x"]),
        "710 7\n1024\n1"
    );
    start(&host, "two", &["--volumes-from", "one:ro"]);
    assert_eq!(mounted(&host, "mem").len(), 1);
    assert_eq!(host.ok(&["exec", "two", "cat", "/m/x"]), "1");
    assert_ne!(host.rrun(&["exec", "two", "touch", "/m/y"]).code, 0, "read-only for this one");
    assert_eq!(run(&host, &["-v", "mem:/other", "-v", "mem:/again:ro"], &["cat", "/other/x", "/again/x"]), "1\n1");
    host.ok(&["rm", "-f", "one"]);
    assert_eq!(mounted(&host, "mem"), ["tmpfs tmpfs"], "the other one still uses it");
    assert_eq!(host.ok(&["exec", "two", "cat", "/m/x"]), "1");
    let e = host.fails(1, &["volume", "rm", "mem"]);
    assert!(e.contains("remove mem: volume is in use - ["), "{e}");
    host.ok(&["restart", "-t", "0", "two"]);
    assert_eq!(host.ok(&["exec", "two", "ls", "/m"]), "", "its last user has stopped in between");
    host.ok(&["stop", "-t", "0", "two"]);
    assert!(mounted(&host, "mem").is_empty());
    assert_eq!(host.sh(&format!("ls {}/volumes", host.state().display())), "", "and no lease is left");
    host.ok(&["rm", "two"]);
    assert_eq!(run(&host, &["-v", "mem:/m"], &["sh", "-c", "touch /m/x; ls /m"]), "x");
    assert_eq!(run(&host, &["-v", "mem:/m"], &["ls", "/m"]), "", "whoever is told of the end finds it unmounted");
    // What is there stays as it is: Docker's answer to other options.
    create(&host, "mem", &["type=none", "device=/etc", "o=bind"]);
    assert_eq!(look("mem")["Options"], options);
    host.ok(&["volume", "rm", "mem"]);
}

#[test]
fn a_directory_of_the_host_is_never_removed() {
    let host = Host::new();
    let dir = precious(&host);
    let device = format!("device={dir}");
    let bind = ["type=none", device.as_str(), "o=bind"];
    let kept = || assert_eq!(host.sh(&format!("cat {dir}/deep/file")), "dear");
    let data = format!("{}/volumes/v1/_data", host.root().display());
    create(&host, "v1", &bind);
    assert_eq!(run(&host, &["-v", "v1:/d"], &["sh", "-c", "cat /d/deep/file; echo new > /d/new"]), "dear");
    assert_eq!(host.sh(&format!("cat {dir}/new")), "new");
    host.ok(&["volume", "rm", "v1"]);
    kept();
    // Mounted still, for nobody: by somebody who was killed before he could take it back.
    create(&host, "v1", &bind);
    host.sh(&format!("mount --bind {dir} {data}; mount --bind {dir} {data}"));
    host.ok(&["volume", "rm", "v1"]);
    kept();
    assert!(mounted(&host, "v1").is_empty());
    // A container and its monitor are killed, and with them all that was known of them is lost.
    create(&host, "v1", &bind);
    start(&host, "lost", &["-v", "v1:/d"]);
    kill(&host, "lost");
    host.sh(&format!("rm -r {}/*", host.state().display()));
    assert_eq!(mounted(&host, "v1").len(), 1, "the kernel does not know of that");
    host.ok(&["rm", "-v", "lost"]);
    host.ok(&["volume", "rm", "v1"]);
    kept();
    // The same, with the state: the next command unmounts.
    create(&host, "v1", &bind);
    start(&host, "killed", &["-v", "v1:/d"]);
    kill(&host, "killed");
    host.ok(&["ps"]);
    assert!(mounted(&host, "v1").is_empty(), "{:?}", mounted(&host, "v1"));
    host.ok(&["rm", "killed"]);
    host.ok(&["volume", "rm", "v1"]);
    kept();
    // Made for one container, and removed with it.
    let mount = format!("type=volume,target=/d,volume-opt=type=none,volume-opt=o=bind,volume-opt=device={dir}");
    assert_eq!(run(&host, &["--mount", &mount], &["cat", "/d/deep/file"]), "dear");
    kept();
    start(&host, "own", &["--mount", &mount]);
    let own = host.ok(&["volume", "ls", "-q"]);
    assert_eq!(
        host.ok(&["volume", "inspect", "-f", "{{.Options.o}} {{.Labels}}", &own]),
        "bind map[com.docker.volume.anonymous:]"
    );
    host.ok(&["rm", "-f", "-v", "own"]);
    assert_eq!(host.ok(&["volume", "ls", "-q"]), "");
    kept();
    // What somebody else has mounted in a plain volume is not ours to take down, let alone to empty.
    host.ok(&["volume", "create", "plain"]);
    host.sh(&format!(
        "mkdir {0}/volumes/plain/_data/sub; mount --bind {dir} {0}/volumes/plain/_data/sub",
        host.root().display()
    ));
    let e = host.fails(1, &["volume", "rm", "plain"]);
    assert!(e.contains("remove plain: something is mounted on ") && e.contains("hint: umount "), "{e}");
    kept();
    host.sh(&format!("umount {}/volumes/plain/_data/sub", host.root().display()));
    host.ok(&["volume", "rm", "plain"]);
    // Nor does pruning take it, nor is it counted.
    create(&host, "v1", &bind);
    host.ok(&["volume", "create", "v2"]);
    assert!(!host.ok(&["system", "df", "-v"]).contains("v1"));
    assert!(host.ok(&["volume", "prune", "-a", "-f"]).starts_with("Deleted Volumes:\nv2\n\n"));
    assert_eq!(host.ok(&["volume", "ls", "-q"]), "v1");
    host.ok(&["volume", "rm", "v1"]);
    kept();
}

/// Kills a container and its monitor.
fn kill(host: &Host, name: &str) {
    let id = host.ok(&["inspect", "-f", "{{.Id}}", name]);
    let state = host.sh(&format!("cat {}/containers/{id}/state.json", host.state().display()));
    let state: Value = serde_json::from_str(&state).expect("JSON");
    let (pid, monitor) = (&state["pid"], &state["monitor_pid"]);
    host.sh(&format!("kill -9 {monitor} {pid}"));
    eventually("both are gone", || {
        (host.try_sh(&format!("test -e /proc/{pid}/exe -o -e /proc/{monitor}/exe")).code != 0).then_some(())
    });
}

#[test]
fn options_of_a_mount_make_the_volume() {
    let host = Host::new();
    let dir = precious(&host);
    let quoted = "type=volume,source=mem,target=/m,volume-driver=local,volume-label=tier=db,volume-opt=type=tmpfs,volume-opt=device=tmpfs,\"volume-opt=o=size=2m,mode=0700\"";
    assert_eq!(
        run(&host, &["--mount", quoted], &["sh", "-c", "df -k /m | tail -1 | awk '{print $2}'; stat -c %a /m"]),
        "2048\n700"
    );
    assert_eq!(host.ok(&["volume", "inspect", "-f", "{{.Options.o}} {{.Labels.tier}}", "mem"]), "size=2m,mode=0700 db");
    assert_eq!(host.ok(&["volume", "ls", "-q", "-f", "label=tier=db"]), "mem");
    // An empty one begins as what the image has there; another's is left alone.
    let names = run(
        &host,
        &["--mount", "type=volume,source=bin,target=/bin,volume-opt=type=tmpfs,volume-opt=device=tmpfs"],
        &["/bin/sh", "-c", "ls /bin | wc -l"],
    );
    assert!(names.parse::<u32>().is_ok_and(|n| n > 10), "{names}");
    let nocopy = "type=volume,source=no,target=/etc,volume-nocopy,volume-opt=type=tmpfs,volume-opt=device=tmpfs";
    assert_eq!(run(&host, &["--mount", nocopy], &["ls", "/etc"]), "hostname\nhosts\nresolv.conf");
    let bind = |more: &str| {
        format!("type=volume,source=dir,target=/d{more},volume-opt=type=none,volume-opt=o=bind,volume-opt=device={dir}")
    };
    assert_eq!(run(&host, &["--mount", &bind("")], &["ls", "/d"]), "deep");
    assert_eq!(run(&host, &["--mount", &bind(",volume-subpath=deep")], &["ls", "/d"]), "file");
    let readonly = format!(
        "type=volume,source=ro,target=/d,volume-opt=type=none,\"volume-opt=o=bind,ro\",volume-opt=device={dir}"
    );
    assert_eq!(run(&host, &["--mount", &readonly], &["sh", "-c", "touch /d/x 2>/dev/null || echo no"]), "no");
    // Policies start it again with its volume.
    start(&host, "again", &["--restart", "always", "--mount", quoted]);
    host.ok(&["exec", "again", "sh", "-c", "touch /m/x; kill -9 -1; true"]);
    let pid = host.ok(&["inspect", "-f", "{{.State.Pid}}", "again"]);
    host.sh(&format!("kill -9 {pid}"));
    eventually("a second life", || {
        (host.ok(&["inspect", "-f", "{{.RestartCount}} {{.State.Running}}", "again"]) == "1 true").then_some(())
    });
    eventually("its volume", || {
        (host.rrun(&["exec", "again", "grep", "-c", " /m tmpfs", "/proc/mounts"]).stdout == "1\n").then_some(())
    });
    host.ok(&["rm", "-f", "again"]);
    // Without its monitor it runs on, and the next one takes the volume back at the end.
    start(&host, "taken", &["-v", "dir:/d"]);
    let id = host.ok(&["inspect", "-f", "{{.Id}}", "taken"]);
    let monitor = host.sh(&format!(
        "sed 's/.*\"monitor_pid\":\\([0-9]*\\).*/\\1/' {}/containers/{id}/state.json",
        host.state().display()
    ));
    host.sh(&format!("kill -9 {monitor}"));
    assert_eq!(host.ok(&["exec", "taken", "cat", "/d/deep/file"]), "dear");
    host.ok(&["stop", "-t", "0", "taken"]);
    assert!(mounted(&host, "dir").is_empty());
    // At rest, files are copied from and to what it would see.
    assert_eq!(
        host.sh(&format!(
            "cd {}; {1} cp taken:/d/deep/file got; cat got",
            host.dir.display(),
            rrun_tests::host::env("RRUN_BIN")
        )),
        "dear"
    );
    host.sh(&format!(
        "cd {}; echo put > put; {1} cp put taken:/d/deep/put",
        host.dir.display(),
        rrun_tests::host::env("RRUN_BIN")
    ));
    assert_eq!(host.sh(&format!("cat {dir}/deep/put")), "put");
    assert!(mounted(&host, "dir").is_empty());
    host.ok(&["rm", "taken"]);
    for name in ["bin", "dir", "mem", "no", "ro"] {
        host.ok(&["volume", "rm", name]);
    }
    assert_eq!(host.sh(&format!("ls {dir}/deep")), "file\nput");
}

#[test]
fn what_cannot_be_mounted_is_told_in_dockers_words() {
    let host = Host::new();
    for (options, says) in [
        (&["foo=1"][..], "create bad: invalid option: \"foo\""),
        (&["type=tmpfs"], "create bad: missing required option: \"device\""),
        (&["device=/x"], "create bad: missing required option: \"type\""),
        (&["o=bind", "device=/x"], "create bad: missing required option: \"type\""),
        (&["size=1g"], "create bad: quota size requested but no quota support"),
        (
            &["type=cifs", "device=//nas:445/x"],
            "create bad: port not allowed in CIFS device URL, include 'port' in 'o='",
        ),
    ] {
        let mut args = vec!["volume", "create"];
        options.iter().for_each(|o| args.extend(["-o", o]));
        let e = host.refuses(&[&args[..], &["bad"]].concat());
        assert!(e.contains(says) && e.contains("hint: "), "{options:?}: {e}");
    }
    let e = host.refuses(&["run", "--rm", "--mount", "source=bad,target=/m,volume-opt=type=nfs", "busybox", "true"]);
    assert!(e.contains("create bad: missing required option: \"device\""), "{e}");
    let dir = format!("{}/volumes", host.root().display());
    assert_eq!(host.ok(&["volume", "ls", "-q"]), "");
    let failing = |name: &str, options: &[&str], says: &str, hint: &str| {
        create(&host, name, options);
        let e = host.fails(125, &["run", "--rm", "--network", "none", "-v", &format!("{name}:/m"), "busybox", "true"]);
        assert!(e.contains(&says.replace("DATA", &format!("{dir}/{name}/_data"))), "{e}");
        assert!(e.contains(hint) && !e.contains("hunter2"), "{e}");
        assert!(mounted(&host, name).is_empty());
        host.ok(&["volume", "rm", name]);
    };
    let begins = "error while mounting volume 'DATA': failed to mount local volume: mount ";
    failing(
        "gone",
        &["type=none", "device=/no/such/dir", "o=bind"],
        &format!("{begins}/no/such/dir:DATA, flags: 0x1000: no such file or directory"),
        "hint: /no/such/dir must be there first",
    );
    failing(
        "kind",
        &["type=nosuchfs", "device=x", "o=user=u,password=hunter2"],
        &format!("{begins}x:DATA, data: user=u,password=********: no such device"),
        "hint: the kernel has no file system \"nosuchfs\"",
    );
    failing(
        "data",
        &["type=tmpfs", "device=tmpfs", "o=colour=red"],
        &format!("{begins}tmpfs:DATA, data: colour=red: invalid argument"),
        "hint: an option is refused",
    );
    failing(
        "none",
        &["type=tmpfs", "device="],
        "error while mounting volume 'DATA': missing device in volume options",
        "hint: ",
    );
    failing(
        "name",
        &["type=nfs", "device=:/x", "o=addr=no-such-host.invalid,soft"],
        "error while mounting volume 'DATA': error resolving passed in network volume address: lookup no-such-host.invalid",
        "hint: write its address",
    );
}

#[test]
fn the_plan_shows_it() {
    let host = Host::new();
    create(&host, "mem", &["type=tmpfs", "device=tmpfs", "o=size=1m"]);
    let data = format!("{}/volumes/mem/_data", host.root().display());
    let plan = host.ok(&["explain", "run", "--network", "none", "-v", "mem:/m", "busybox", "true"]);
    assert!(plan.contains(&format!("  1. mount tmpfs (tmpfs) on {data} (size=1m)  [host]")), "{plan}");
    assert!(plan.contains(&format!("$ mountpoint -q {data} || mount -t tmpfs -o size=1m tmpfs {data}")), "{plan}");
    assert!(plan.contains(&format!("undo: unmount {data} if no other container uses it")), "{plan}");
    assert!(mounted(&host, "mem").is_empty(), "a plan changes nothing");
    let ran =
        host.rrun(&["run", "--rm", "--explain", "--network", "none", "-v", "mem:/m", "busybox", "true"]).expect(0);
    let line = ran.stderr.lines().find(|l| l.contains("mount tmpfs (tmpfs) on")).unwrap_or_default().to_owned();
    assert!(line.ends_with(" µs"), "with its time: {}", ran.stderr);
    host.ok(&["volume", "rm", "mem"]);
}

#[test]
fn the_verbs_beside_dockers() {
    let host = Host::new();
    host.ok(&["import", &rrun_tests::host::env("RRUN_ROOTFS"), "base"]);
    // As soon as the container is made, its volumes are there, and filled.
    host.ok(&["create", "--name", "later", "-v", "named:/bin", "-v", "/own", "--network", "none", "base", "/bin/true"]);
    let names = host.ok(&["volume", "ls", "-q"]);
    let [own, "named"] = names.lines().collect::<Vec<_>>()[..] else { panic!("{names}") };
    assert!(
        host.sh(&format!("ls {}/volumes/named/_data | wc -l", host.root().display()))
            .parse::<u32>()
            .is_ok_and(|n| n > 10)
    );
    assert_eq!(host.ok(&["start", "-a", "later"]), "");
    assert_eq!(host.ok(&["volume", "create", "--name", "old", "--label", "a=b", "--label", "c"]), "old");
    let made = host.ok(&["volume", "create"]);
    let anonymous = "com.docker.volume.anonymous";
    for name in [own, &made] {
        assert_eq!(
            host.ok(&["volume", "inspect", "-f", "{{json .Labels}}", name]),
            format!("{{\"{anonymous}\":\"\"}}")
        );
    }
    let created = host.ok(&["volume", "inspect", "-f", "{{.CreatedAt}}", "old"]);
    assert!(created.len() == "2026-11-24T21:17:25Z".len() && created.ends_with('Z'), "whole seconds: {created}");
    let ls = |filters: &[&str]| {
        let mut args = vec!["volume", "ls", "-q"];
        filters.iter().for_each(|f| args.extend(["-f", f]));
        let mut names: Vec<String> = host.ok(&args).lines().map(str::to_owned).collect();
        names.retain(|n| n.len() < 64);
        names
    };
    assert_eq!(ls(&["driver=local"]), ["named", "old"]);
    assert!(ls(&["driver=nfs"]).is_empty());
    assert_eq!(ls(&["dangling=true"]), ["old"]);
    assert_eq!(ls(&["dangling=0"]), ["named"]);
    assert_eq!(ls(&["name=^o"]), ["old"], "a regular expression");
    assert_eq!(ls(&["name=me", "name=ol"]), ["named", "old"]);
    assert_eq!(ls(&["label=a=b", "LABEL=c"]), ["old"]);
    assert!(ls(&["label=a=x"]).is_empty());
    assert_eq!(host.ok(&["volume", "ls", "-q", "-f", &format!("label={anonymous}")]).lines().count(), 2);
    for (args, says) in [
        (
            &["ls", "-f", "x"][..],
            "invalid argument \"x\" for \"-f, --filter\" flag: bad format of filter (expected name=value)",
        ),
        (&["ls", "-f", "colour=red"], "invalid filter 'colour'"),
        (&["ls", "-f", "dangling=maybe"], "invalid filter 'dangling=[maybe]'"),
        (&["prune", "-f", "--filter", "driver=local"], "invalid filter 'driver'"),
        (
            &["prune", "-f", "-a", "--filter", "all=1"],
            "conflicting options: cannot specify both --all and --filter all=1",
        ),
        (
            &["create", "--name", "a1", "b1"],
            "conflicting options: cannot specify a volume-name through both --name and as a positional arg",
        ),
        (&["create", "a"], "create a: volume name is too short, names should be at least two alphanumeric characters"),
        (
            &["create", "x/y"],
            "create x/y: \"x/y\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path",
        ),
        (&["create", "-d", "nfs", "xy"], "create xy: error looking up volume plugin nfs: plugin \"nfs\" not found"),
        (&["update", "old"], "knows no swarm"),
    ] {
        let e = host.refuses(&[&["volume"], args].concat());
        assert!(e.contains(says) && e.contains("hint: "), "{args:?}: {e}");
    }
    let e = host.refuses(&["run", "--rm", "-v", "x:/y", "busybox", "true"]);
    assert!(e.contains("create x: volume name is too short"), "{e}");
    let ran = host.rrun(&["volume", "inspect", "-f", "{{.Name}}", "old", "nope", "named"]).expect(1);
    assert_eq!(ran.stdout, "old\nnamed\n");
    assert!(ran.stderr.contains("get nope: no such volume"), "{}", ran.stderr);
    assert_eq!(host.rrun(&["volume", "rm", "nope"]).expect(1).stdout, "");
    assert_eq!(host.ok(&["volume", "rm", "-f", "nope"]), "nope");
    assert_eq!(
        host.ok(&["volume", "prune", "-f", "--filter", "label=a"]),
        "Total reclaimed space: 0B",
        "only those without a name"
    );
    assert!(
        host.ok(&["volume", "prune", "-f"])
            .starts_with(&format!("Deleted Volumes:\n{made}\n\nTotal reclaimed space: "))
    );
    assert!(
        host.ok(&["volume", "prune", "-f", "--filter", "all=1", "--filter", "label!=a"]).starts_with("Total reclaimed")
    );
    assert!(host.ok(&["volume", "prune", "-af"]).starts_with("Deleted Volumes:\nold\n\n"));
    let ran = host.rrun(&["volume", "rm", "named", own]).expect(1);
    assert_eq!(ran.stderr.matches("volume is in use - [").count(), 2, "{}", ran.stderr);
    host.ok(&["rm", "-v", "later"]);
    assert_eq!(host.ok(&["volume", "ls", "-q"]), "named");
    // Nothing stays of a container whose volumes could not be made.
    host.sh(&format!("rm -r {0}/volumes; touch {0}/volumes", host.root().display()));
    host.fails(125, &["create", "--name", "no", "-v", "data:/data", "busybox", "true"]);
    assert_eq!(host.ok(&["ps", "-aq"]), "");
    host.sh(&format!("rm {}/volumes", host.root().display()));
}

#[test]
fn many_come_and_go_at_once() {
    let host = Host::new();
    create(&host, "mem", &["type=tmpfs", "device=tmpfs"]);
    let commands = (0..24).map(|_| {
        let mut run = host.command(&[
            "run",
            "--rm",
            "--network",
            "none",
            "-v",
            "mem:/m",
            "busybox",
            "sh",
            "-c",
            "touch /m/$HOSTNAME && test -e /m/$HOSTNAME",
        ]);
        run.spawn().expect("run")
    });
    let commands: Vec<_> = commands.collect();
    for mut run in commands {
        assert!(run.wait().expect("wait").success());
    }
    assert!(mounted(&host, "mem").is_empty(), "{:?}", mounted(&host, "mem"));
    assert_eq!(host.sh(&format!("ls {}/volumes", host.state().display())), "");
    host.ok(&["volume", "rm", "mem"]);
}
