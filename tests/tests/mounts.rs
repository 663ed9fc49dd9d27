//! --mount, -v and --volumes-from: what is shown where, what may be written, and what outlives whom.

use rrun_tests::Host;
use rrun_tests::host::env;
use std::fs;
use std::os::unix::fs::MetadataExt;

#[track_caller]
fn run(host: &Host, flags: &[&str], command: &[&str]) -> String {
    host.ok(&[&["run", "--rm", "--network", "none"], flags, &["busybox"], command].concat())
}

#[track_caller]
fn start(host: &Host, name: &str, flags: &[&str]) -> String {
    let base = ["run", "-d", "--name", name, "--network", "none"];
    host.ok(&[&base, flags, &["busybox", "sleep", "1000"]].concat())
}

#[test]
fn mounts_of_every_kind() {
    let host = Host::new();
    let dir = host.dir.display().to_string();
    host.sh(&format!("mkdir -p {dir}/src/below; echo host > {dir}/src/file; mount -t tmpfs below {dir}/src/below; mkdir {dir}/src/below/x"));
    let mount = |text: &str| format!("type=bind,source={dir}/src,target=/m{text}");
    let try_write = "touch /m/new 2>/dev/null && echo wrote; touch /m/below/new 2>/dev/null && echo wrote below; ls -d /m/below/x 2>/dev/null; true";
    assert_eq!(run(&host, &["--mount", &mount("")], &["sh", "-c", try_write]), "wrote\nwrote below\n/m/below/x");
    assert_eq!(run(&host, &["--mount", &mount(",readonly")], &["sh", "-c", try_write]), "/m/below/x");
    assert_eq!(run(&host, &["-v", &format!("{dir}/src:/m:ro")], &["sh", "-c", try_write]), "/m/below/x");
    assert_eq!(
        run(&host, &["--mount", &mount(",ro,bind-recursive=writable")], &["sh", "-c", try_write]),
        "wrote below\n/m/below/x"
    );
    assert_eq!(
        run(&host, &["--mount", &mount(",bind-recursive=disabled")], &["sh", "-c", try_write]),
        "wrote\nwrote below"
    );
    assert_eq!(
        run(
            &host,
            &["--mount", &mount(",ro,bind-propagation=rprivate,bind-recursive=readonly")],
            &["sh", "-c", try_write]
        ),
        "/m/below/x"
    );
    // Propagation: what the host mounts later is seen with rslave, and not without.
    host.sh(&format!("mount --bind {dir}/src {dir}/src; mount --make-shared {dir}/src"));
    start(&host, "slave", &["--mount", &mount(",bind-propagation=rslave")]);
    start(&host, "alone", &["--mount", &mount("")]);
    host.sh(&format!("mkdir {dir}/src/late; mount -t tmpfs late {dir}/src/late; mkdir {dir}/src/late/y"));
    assert_eq!(host.ok(&["exec", "slave", "ls", "/m/late"]), "y");
    assert_eq!(host.ok(&["exec", "alone", "ls", "/m/late"]), "");
    host.ok(&["rm", "-f", "slave", "alone"]);
    host.sh(&format!("umount {dir}/src/late; umount -R {dir}/src; umount {dir}/src/below"));
    // tmpfs with size and mode.
    let out = run(
        &host,
        &["--mount", "type=tmpfs,target=/t,tmpfs-size=3m,tmpfs-mode=0751"],
        &["sh", "-c", "df -k /t | tail -1 | awk '{print $2}'; stat -c %a /t; grep ' /t ' /proc/mounts"],
    );
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[..2], ["3072", "751"]);
    assert!(lines[2].contains("noexec") && lines[2].contains("nosuid"), "{}", lines[2]);
    // A bind source that is not there is not made; nonsense is named.
    for (text, says) in [
        ("type=bind,source=/no/where,target=/m", "bind source path does not exist: /no/where"),
        ("type=bind,source=/tmp", "target is required"),
        ("type=foo,target=/m", "mount type unknown"),
        ("type=tmpfs,target=/m,volume-nocopy", "cannot mix 'volume-*' options with mount type 'tmpfs'"),
        ("type=volume,source=vv,target=/m,volume-driver=nfs", "volume-driver is not supported here"),
        ("type=image,source=x,target=/m", "not supported by rrun"),
    ] {
        let e = host.fails(125, &["run", "--rm", "--mount", text, "busybox", "true"]);
        assert!(e.contains(says) && e.contains("hint: "), "{text}: {e}");
    }
}

#[test]
fn volumes_their_parts_and_what_is_copied_up() {
    let host = Host::new();
    host.ok(&["import", &env("RRUN_ROOTFS"), "base"]);
    // With files at the mount point in the image, a volume begins as a copy of them.
    assert_eq!(
        run(&host, &["--mount", "source=full,target=/bin"], &["/bin/sh", "-c", "ls /bin | wc -l"])
            .parse::<u32>()
            .map(|n| n > 10),
        Ok(true)
    );
    host.ok(&[
        "run",
        "--rm",
        "--network",
        "none",
        "--mount",
        "source=empty,target=/etc,volume-nocopy",
        "busybox",
        "true",
    ]);
    assert_eq!(
        host.sh(&format!(
            "ls {}/volumes/empty/_data | grep -v -e hosts -e hostname -e resolv.conf | wc -l",
            host.root().display()
        )),
        "0"
    );
    run(
        &host,
        &["--mount", "source=data,target=/d"],
        &["sh", "-c", "mkdir -p /d/a/b; echo part > /d/a/b/file; ln -s /etc /d/out; ln -s a /d/in"],
    );
    assert_eq!(run(&host, &["--mount", "source=data,target=/p,volume-subpath=a/b"], &["cat", "/p/file"]), "part");
    assert_eq!(
        run(&host, &["--mount", "source=data,target=/p,volume-subpath=in/b,ro"], &["cat", "/p/file"]),
        "part",
        "a link inside is followed"
    );
    // A link that a container has made leads nowhere but inside the volume.
    host.sh(&format!("ln -s ../../../.. {}/volumes/data/_data/up", host.root().display()));
    let ran = host.rrun(&[
        "run",
        "--rm",
        "--network",
        "none",
        "--mount",
        "source=data,target=/p,volume-subpath=out",
        "busybox",
        "ls",
        "/p",
    ]);
    assert_ne!(ran.code, 0, "{}", ran.stdout);
    assert_eq!(
        run(&host, &["--mount", "source=data,target=/p,volume-subpath=up"], &["ls", "/p"]),
        "a\nin\nout\nup",
        "the volume is as far up as it gets"
    );
    let e =
        host.fails(125, &["run", "--rm", "--mount", "source=data,target=/p,volume-subpath=../x", "busybox", "true"]);
    assert!(e.contains("relative path within the volume"), "{e}");
    let e = host.fails(
        125,
        &[
            "run",
            "--rm",
            "--network",
            "none",
            "--mount",
            "source=data,target=/p,volume-subpath=missing",
            "busybox",
            "true",
        ],
    );
    assert!(e.contains("no such file"), "{e}");
}

#[test]
fn volumes_of_another_container() {
    let host = Host::new();
    let dir = host.dir.display().to_string();
    host.sh(&format!("mkdir {dir}/bind; echo b > {dir}/bind/file"));
    host.ok(&[
        "create",
        "--name",
        "from",
        "--network",
        "none",
        "-v",
        "named:/named",
        "-v",
        "/anonymous",
        "-v",
        &format!("{dir}/bind:/bind"),
        "--tmpfs",
        "/t",
        "busybox",
        "true",
    ]);
    run(&host, &["--volumes-from", "from"], &["sh", "-c", "echo one > /named/x; echo two > /anonymous/x"]);
    let out = run(
        &host,
        &["--volumes-from", "from:ro"],
        &[
            "sh",
            "-c",
            "cat /named/x /anonymous/x /bind/file; touch /named/y 2>/dev/null || echo read-only; ls -d /t 2>/dev/null || echo no tmpfs",
        ],
    );
    assert_eq!(out, "one\ntwo\nb\nread-only\nno tmpfs");
    // The user's own mount at the same place wins.
    assert_eq!(
        run(&host, &["--volumes-from", "from", "-v", &format!("{dir}/bind:/named")], &["cat", "/named/file"]),
        "b"
    );
    // A volume that somebody still uses outlives its maker; the last one takes it along.
    start(&host, "user", &["--volumes-from", "from"]);
    host.ok(&["rm", "-v", "from"]);
    assert_eq!(host.ok(&["exec", "user", "cat", "/anonymous/x"]), "two");
    host.ok(&["rm", "-f", "-v", "user"]);
    assert_eq!(host.sh(&format!("ls {}/volumes", host.root().display())), "named");
    let e = host.fails(125, &["run", "--volumes-from", "nope", "busybox", "true"]);
    assert!(e.contains("No such container: nope"), "{e}");
    start(&host, "other", &[]);
    let e = host.fails(125, &["run", "--volumes-from", "other:xx", "busybox", "true"]);
    assert!(e.contains("invalid mode: xx"), "{e}");
    assert!(
        fs::metadata(host.outside(format!("{dir}/bind"))).is_ok_and(|m| m.nlink() > 0),
        "the host's directory is not ours to remove"
    );
}
