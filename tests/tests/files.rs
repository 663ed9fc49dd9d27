//! A container's files from outside: cp, export, diff, commit; and volumes.

use rrun_tests::Host;
use rrun_tests::host::env;
use std::fs;

/// A directory of the host for the test's own files, and the same as a path for `cp`.
fn place(host: &Host) -> String {
    let dir = host.dir.join("tmp/files");
    fs::create_dir_all(host.outside(&dir)).expect("a directory");
    dir.display().to_string()
}

/// Docker's table of what a source and a destination mean, on a running and on a stopped container.
#[test]
fn cp_means_what_docker_means() {
    let host = Host::new();
    let d = place(&host);
    host.sh(&format!(
        "cd {d}; mkdir -p dir/sub; echo one > dir/a; echo two > dir/sub/b; echo file > f; ln -s f link; chmod 4755 f"
    ));
    host.ok(&["run", "-d", "--name", "live", "--network", "none", "-v", "vol:/vol", "busybox", "sleep", "1000"]);
    host.ok(&[
        "create",
        "--name",
        "rest",
        "--network",
        "none",
        "-v",
        "vol2:/vol",
        "busybox",
        "sh",
        "-c",
        "cat /new /vol/f; ls -ln /new",
    ]);
    host.ok(&["start", "rest"]);
    host.ok(&["wait", "rest"]);
    for c in ["live", "rest"] {
        let to = |path: &str| format!("{c}:{path}");
        let back = |path: &str| host.try_sh(&format!("{} cp {c}:{path} - | tar -xO", env("RRUN_BIN"))).stdout;
        // A file to a new name, over an existing file, into a directory.
        host.ok(&["cp", &format!("{d}/f"), &to("/new")]);
        assert_eq!(back("/new"), "file\n", "{c}");
        host.ok(&["cp", &format!("{d}/dir/a"), &to("/new")]);
        assert_eq!(back("new"), "one\n", "{c}: relative to /");
        host.ok(&["cp", &format!("{d}/f"), &to("/tmp/")]);
        assert_eq!(back("/tmp/f"), "file\n");
        // Into a volume, which is mounted for one at rest too.
        host.ok(&["cp", &format!("{d}/f"), &to("/vol")]);
        let volume = if c == "live" { "vol" } else { "vol2" };
        assert_eq!(host.sh(&format!("cat {}/volumes/{volume}/_data/f", host.root().display())), "file");
        // A directory to a new name, into a directory, its contents only.
        host.ok(&["cp", &format!("{d}/dir"), &to("/copy")]);
        assert_eq!(back("/copy/sub/b"), "two\n");
        host.ok(&["cp", &format!("{d}/dir"), &to("/copy")]);
        assert_eq!(back("/copy/dir/a"), "one\n");
        host.ok(&["cp", &format!("{d}/dir/."), &to("/tmp")]);
        assert_eq!(back("/tmp/a"), "one\n");
        // Back, the same way.
        host.sh(&format!("rm -rf {d}/out; mkdir {d}/out"));
        host.ok(&["cp", &to("/copy"), &format!("{d}/out")]);
        host.ok(&["cp", &to("/copy/."), &format!("{d}/out/fresh")]);
        host.ok(&["cp", &to("/new"), &format!("{d}/out/n")]);
        assert_eq!(host.sh(&format!("cd {d}/out; cat copy/sub/b fresh/a n")), "two\none\none");
        // A symbolic link is copied as one, or followed.
        host.ok(&["cp", &format!("{d}/link"), &to("/tmp/l1")]);
        host.ok(&["cp", "-L", &format!("{d}/link"), &to("/tmp/l2")]);
        let list = host.sh(&format!("{} cp {c}:/tmp - | tar -tv", env("RRUN_BIN")));
        assert!(list.contains("tmp/l1 -> f") && list.contains("tmp/l2\n"), "{list}");
        // Through standard input and output.
        host.sh(&format!("tar -C {d} -cz dir | {} cp - {c}:/var", env("RRUN_BIN")));
        assert_eq!(back("/var/dir/a"), "one\n");
        // What cannot be.
        for (args, words) in [
            ([to("/none").as_str(), &format!("{d}/x")], format!("Could not find the file /none in container {c}")),
            ([&format!("{d}/none"), &to("/x")], format!("lstat {d}/none: no such file or directory")),
            ([&format!("{d}/dir"), &to("/new")], "cannot copy directory".into()),
            ([&format!("{d}/f"), &to("/no/where")], format!("Could not find the file /no in container {c}")),
            ([&format!("{d}/f"), &to("/nowhere/")], "no such directory".into()),
            ([&format!("{d}/f/"), &to("/x")], "not a directory".into()),
            ([&to("/new"), &format!("{d}/no/where")], "does not exist".into()),
            ([&to("/new"), &to("/x")], "copying between containers is not supported".into()),
            ([&format!("{d}/f"), &format!("{d}/g")], "must specify at least one container source".into()),
        ] {
            let e = host.refuses(&["cp", args[0], args[1]]);
            assert!(e.contains(&words) && e.contains("hint:"), "{args:?}: {e}");
        }
        let e = host.try_sh(&format!("echo | {} cp - {c}:/new", env("RRUN_BIN"))).stderr;
        assert!(e.contains("must be a directory"), "{e}");
    }
    // The container at rest starts with what was put there; owners are root's unless -a says otherwise.
    host.sh(&format!("chown 1234:5678 {d}/f"));
    host.ok(&["cp", &format!("{d}/f"), "rest:/new"]);
    let out = host.ok(&["start", "-a", "rest"]);
    assert!(out.starts_with("file\nfile\n-rwxr-xr-x") && out.contains(" 0        0 "), "{out}");
    host.ok(&["cp", "-a", &format!("{d}/f"), "rest:/new"]);
    assert!(host.ok(&["start", "-a", "rest"]).contains("1234     5678"));
    host.ok(&["cp", "rest:/new", &format!("{d}/mine")]);
    assert_eq!(host.sh(&format!("stat -c %u:%g {d}/mine")), "0:0");
    // What is read-only stays as it is.
    host.ok(&["create", "--name", "ro", "--network", "none", "-v", "vol:/vol:ro", "busybox"]);
    let e = host.refuses(&["cp", &format!("{d}/f"), "ro:/vol/z"]);
    assert!(e.contains("read-only"), "{e}");
    host.ok(&["rm", "-f", "live", "rest", "ro"]);
}

/// S23: symlinks to the host, mounts exchanged under way, programs and libraries of the container's.
#[test]
fn a_hostile_container_gets_nothing_of_the_host() {
    let host = Host::new();
    let d = place(&host);
    host.sh(&format!("mkdir {d}/canary; echo secret > {d}/canary/key; mkdir {d}/in; echo data > {d}/in/x"));
    let before = host.sh(&format!("find {d}/canary -printf '%p %y %m %s %T@\\n'; cat {d}/canary/key"));
    host.ok(&["run", "-d", "--name", "evil", "--network", "none", "busybox", "sh", "-c", &format!(
        "mkdir -p /dir /real; echo mine > /real/x; ln -s {d}/canary /out; ln -s / /self; ln -s ../../../../../../..{d}/canary /up; \
         printf '#!/bin/sh\\ntouch /ran' > /bin/tar; cp /bin/tar /bin/xz; cp /bin/tar /bin/unpigz; chmod 755 /bin/tar /bin/xz /bin/unpigz; \
         mkdir -p /lib; cp /bin/tar /lib/libnss_files.so.2; \
         while :; do mv /dir /dir.1; ln -s {d}/canary /dir; rm /dir; mv /dir.1 /dir; done"
    )]);
    for link in ["out", "up"] {
        let e = host.refuses(&["cp", &format!("evil:/{link}/key"), &format!("{d}/stolen")]);
        assert!(e.contains("Could not find the file"), "{e}");
        host.refuses(&["cp", &format!("{d}/in/x"), &format!("evil:/{link}/planted")]);
    }
    host.ok(&["cp", "evil:/self/real/x", &format!("{d}/followed")]);
    assert_eq!(host.sh(&format!("cat {d}/followed")), "mine");
    for _ in 0..40 {
        host.rrun(&["cp", &format!("{d}/in/x"), "evil:/dir/planted"]);
        host.rrun(&["cp", "evil:/dir/key", &format!("{d}/stolen")]);
        host.rrun(&["cp", &format!("{d}/in/."), "evil:/dir"]);
    }
    host.sh(&format!("{} export evil | tar -t > /dev/null", env("RRUN_BIN")));
    host.ok(&["diff", "evil"]);
    assert_eq!(host.sh(&format!("find {d}/canary -printf '%p %y %m %s %T@\\n'; cat {d}/canary/key")), before);
    assert_eq!(host.try_sh(&format!("cat {d}/stolen 2>/dev/null")).stdout, "");
    assert_eq!(host.ok(&["exec", "evil", "sh", "-c", "ls /ran 2>/dev/null | wc -l"]), "0", "nothing of it was run");
    // An archive that comes out of a container stays in the directory it is meant for.
    host.sh(&format!(
        "cd {d}; mkdir t; cd t; ln -s {d}/canary l; tar -cf ../bad.tar l; rm l; mkdir l; echo x > l/planted; tar -rf ../bad.tar l/planted; \
         mkdir ../into; {} cp - evil:/real < ../bad.tar",
        env("RRUN_BIN")
    ));
    host.ok(&["cp", "evil:/real/.", &format!("{d}/into")]);
    assert_eq!(host.sh(&format!("ls {d}/canary")), "key");
    host.ok(&["rm", "-f", "evil"]);
}

#[test]
fn export_diff_and_commit() {
    let host = Host::new();
    let d = place(&host);
    let change = "echo new > /etc/new; rm /etc/passwd; mkdir /tmp/dir; echo x > /tmp/dir/f; chmod 4755 /tmp/dir/f; ln /tmp/dir/f /tmp/dir/g; \
                  rm -rf /var; mkdir /var; sleep 1000";
    host.ok(&[
        "run",
        "-d",
        "--name",
        "ctr",
        "--network",
        "none",
        "-v",
        "vol:/data",
        "-e",
        "A=b",
        "busybox",
        "sh",
        "-c",
        change,
    ]);
    host.ok(&[
        "exec",
        "ctr",
        "sh",
        "-c",
        "until [ -d /var ] && [ -e /tmp/dir/g ]; do sleep 0.01; done; sleep 0.2; echo in > /data/volume",
    ]);
    host.ok(&["run", "--name", "idle", "--network", "none", "busybox", "true"]);
    assert_eq!(host.ok(&["diff", "idle"]), "", "it has changed nothing");
    host.ok(&["run", "--name", "mode", "--network", "none", "busybox", "chmod", "700", "/etc"]);
    assert_eq!(host.ok(&["diff", "mode"]), "C /etc");
    for turn in ["running", "stopped"] {
        let diff = host.ok(&["diff", "ctr"]);
        for line in ["C /etc", "A /etc/new", "D /etc/passwd", "A /tmp/dir", "A /tmp/dir/f", "C /var"] {
            assert!(diff.lines().any(|l| l == line), "{turn}: no {line} in\n{diff}");
        }
        assert!(!diff.contains("host") && !diff.contains("resolv"), "{turn}: where its own files were mounted\n{diff}");
        host.ok(&["export", "-o", &format!("{d}/root.tar"), "ctr"]);
        let names = host.sh(&format!("tar -tvf {d}/root.tar"));
        assert!(names.contains("etc/new") && names.contains("bin/busybox"), "{turn}");
        assert!(!names.contains("etc/passwd") && !names.contains("data/volume"), "{turn}: volumes stay out");
        assert!(names.contains("link to tmp/dir/f"), "{turn}: hard links stay");
        if turn == "running" {
            host.ok(&["stop", "-t", "0", "ctr"]);
        }
    }
    // An exported root can be imported again.
    host.ok(&["import", &format!("{d}/root.tar"), "again"]);
    assert_eq!(host.ok(&["run", "--rm", "--network", "none", "again", "cat", "/etc/new"]), "new");

    let id = host.ok(&[
        "commit",
        "-m",
        "why",
        "-a",
        "me",
        "-c",
        "CMD [\"cat\",\"/etc/new\"]",
        "-c",
        "LABEL x=y",
        "ctr",
        "made:1",
    ]);
    assert!(id.starts_with("sha256:"), "{id}");
    assert_eq!(host.ok(&["run", "--rm", "--network", "none", "made:1"]), "new");
    let look = "ls /etc/passwd 2>&1 | tail -c 10; echo $A; stat -c '%a %h' /tmp/dir/f; ls /var | wc -l";
    let seen = host.ok(&["run", "--rm", "--network", "none", "made:1", "sh", "-c", look]);
    assert!(seen.contains("b\n4755 2\n0"), "{seen}");
    let shown = host.ok(&[
        "image",
        "inspect",
        "-f",
        "{{.Author}} {{.Comment}} {{index .Config.Labels \"x\"}} {{len .RootFS.Layers}}",
        "made:1",
    ]);
    assert_eq!(shown, "me why y 2");
    assert!(host.ok(&["history", "made:1"]).lines().nth(1).expect("the newest").contains("sh -c"));
    // On top of that again; saved and loaded it is the same.
    host.ok(&["run", "--name", "two", "--network", "none", "made:1", "sh", "-c", "echo 2 > /etc/new"]);
    host.ok(&["commit", "two", "made:2"]);
    host.ok(&["save", "-o", &format!("{d}/made.tar"), "made:2"]);
    host.ok(&["rm", "ctr", "two"]);
    host.ok(&["rmi", "made:2"]);
    host.ok(&["load", "-i", &format!("{d}/made.tar")]);
    assert_eq!(host.ok(&["run", "--rm", "--network", "none", "made:2", "cat", "/etc/new"]), "2");
    let e = host.fails(1, &["commit", "none", "x"]);
    assert!(e.contains("No such container: none"), "{e}");
}

#[test]
fn volumes() {
    let host = Host::new();
    assert_eq!(host.ok(&["volume", "create", "--label", "kind=db", "data"]), "data");
    let anonymous = host.ok(&["volume", "create"]);
    assert_eq!(anonymous.len(), 64);
    host.ok(&[
        "run",
        "--name",
        "ctr",
        "--network",
        "none",
        "-v",
        "data:/d",
        "-v",
        "/anon",
        "busybox",
        "sh",
        "-c",
        "echo kept > /d/f",
    ]);
    let table = host.ok(&["volume", "ls"]);
    assert!(table.starts_with("DRIVER    VOLUME NAME\n") && table.contains("local     data"), "{table}");
    assert_eq!(host.ok(&["volume", "ls", "-q"]).lines().count(), 3);
    assert_eq!(host.ok(&["volume", "ls", "-q", "-f", "label=kind=db"]), "data");
    assert_eq!(host.ok(&["volume", "ls", "-q", "-f", "dangling=true"]), anonymous);
    assert_eq!(host.ok(&["volume", "ls", "--format", "{{.Name}} {{.Labels}}", "-f", "name=dat"]), "data kind=db");
    let seen = host.ok(&[
        "volume",
        "inspect",
        "-f",
        "{{.Mountpoint}} {{.Driver}} {{.Scope}} {{index .Labels \"kind\"}}",
        "data",
    ]);
    assert_eq!(seen, format!("{}/volumes/data/_data local local db", host.root().display()));
    assert_eq!(host.ok(&["inspect", "--type", "volume", "-f", "{{.Name}}", "data"]), "data");
    let e = host.fails(1, &["volume", "rm", "data"]);
    let id = host.ok(&["inspect", "-f", "{{.Id}}", "ctr"]);
    assert!(e.contains(&format!("remove data: volume is in use - [{id}]")) && e.contains("hint:"), "{e}");
    let e = host.fails(1, &["volume", "rm", "nope"]);
    assert!(e.contains("get nope: no such volume"), "{e}");
    assert_eq!(host.ok(&["volume", "rm", "-f", "nope"]), "nope");
    assert!(host.refuses(&["volume", "create", "../x"]).contains("invalid characters"));
    assert!(host.refuses(&["volume", "create", "-d", "nfs", "x"]).contains("plugin"));
    assert!(host.refuses(&["volume", "ls", "-f", "size=1"]).contains("invalid filter 'size'"));
    // Anonymous and unused ones only; then, with -a, every unused one.
    let out = host.ok(&["volume", "prune", "-f"]);
    assert!(out.contains(&anonymous) && out.contains("Total reclaimed space: 0B"), "{out}");
    host.ok(&["rm", "-v", "ctr"]);
    assert_eq!(host.ok(&["volume", "ls", "-q"]), "data", "rm -v takes the anonymous one along");
    assert_eq!(host.ok(&["run", "--rm", "--network", "none", "-v", "data:/d", "busybox", "cat", "/d/f"]), "kept");
    assert!(!host.ok(&["volume", "prune", "-f"]).contains("data"));
    assert!(!host.ok(&["volume", "prune", "-af", "--filter", "label!=kind"]).contains("data"));
    let out = host.ok(&["volume", "prune", "-af"]);
    assert!(out.starts_with("Deleted Volumes:\ndata\n") && out.ends_with("Total reclaimed space: 5B"), "{out}");
    assert_eq!(host.ok(&["volume", "ls", "-q"]), "");
}
