//! Looking: stats, top, events, info, version, df, prune, check.

use rrun_tests::Host;
use rrun_tests::host::{env, eventually};
use serde_json::Value;
use std::process::Stdio;

#[test]
fn stats_tell_what_the_kernel_counts() {
    let host = Host::new().with_lan();
    let hold = "head -c 30000000 /dev/zero > /dev/shm/x; sleep 1000 & sleep 1000 & wget -qO- http://198.51.100.2:9/ 2>/dev/null; while :; do :; done";
    host.ok(&["run", "-d", "--name", "busy", "-m", "100m", "--pids-limit", "50", "busybox", "sh", "-c", hold]);
    host.ok(&["run", "-d", "--name", "idle", "--network", "none", "busybox", "sleep", "1000"]);
    host.ok(&["create", "--name", "made", "--network", "none", "busybox"]);
    eventually("the memory is filled", || {
        let percent = host.ok(&["stats", "--no-stream", "--format", "{{.MemPerc}} {{.PIDs}}", "busy"]);
        let (memory, pids) = percent.split_once("% ")?;
        (memory.parse::<f64>().ok()? > 25.0 && pids.parse::<u32>().ok()? >= 3).then_some(())
    });
    let lines = host.ok(&["stats", "--no-stream", "--format", "json"]);
    let of = |name: &str| -> Value {
        lines
            .lines()
            .map(|l| serde_json::from_str::<Value>(l).expect("JSON"))
            .find(|v| v["Name"] == name)
            .expect("a row")
    };
    let number = |v: &Value| v.as_str().expect("text").trim_end_matches('%').parse::<f64>().expect("a number");
    let (busy, idle) = (of("busy"), of("idle"));
    assert!(number(&busy["CPUPerc"]) > 5.0 && number(&idle["CPUPerc"]) < 5.0, "{lines}");
    assert!(busy["MemUsage"].as_str().expect("text").ends_with("/ 100MiB"), "{busy}");
    assert!(number(&busy["MemPerc"]) > 25.0, "{busy}");
    assert!(number(&busy["PIDs"]) >= 3.0, "{busy}");
    assert_ne!(busy["NetIO"], "0B / 0B");
    assert_eq!(idle["NetIO"], "0B / 0B");
    let table = host.ok(&["stats", "--no-stream", "-a"]);
    assert!(table.starts_with("CONTAINER ID   NAME"), "{table}");
    assert!(table.lines().any(|l| l.contains("made") && l.contains("0B / 0B")), "{table}");
    let e = host.fails(1, &["stats", "--no-stream", "nope"]);
    assert!(e.contains("No such container: nope"), "{e}");
    // The live table goes on until it is told to stop.
    let mut live = host.command(&["stats", "idle"]);
    let mut live = live.stdout(Stdio::piped()).spawn().expect("stats");
    std::thread::sleep(std::time::Duration::from_millis(2500));
    live.kill().expect("kill");
    let out = live.wait_with_output().expect("its output");
    assert!(String::from_utf8_lossy(&out.stdout).matches("CONTAINER ID").count() >= 2);
    host.ok(&["rm", "-f", "busy", "idle", "made"]);
}

#[test]
fn top_shows_processes_without_running_any() {
    let host = Host::new();
    host.ok(&[
        "run",
        "-d",
        "--name",
        "web",
        "--network",
        "none",
        "-u",
        "1234",
        "busybox",
        "sh",
        "-c",
        "sleep 777 & sleep 888; true",
    ]);
    host.ok(&["exec", "-u", "0", "web", "sh", "-c", "printf '#!/bin/sh\\ntouch /ran\\n' > /bin/ps; chmod 755 /bin/ps"]);
    eventually("all three run", || (host.ok(&["top", "web"]).lines().count() == 4).then_some(()));
    let table = host.ok(&["top", "web"]);
    let head: Vec<&str> = table.lines().next().expect("a header").split_whitespace().collect();
    assert_eq!(head, ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]);
    assert!(table.contains("sleep 777") && table.contains("sleep 888") && table.contains("1234"), "{table}");
    let pid: Vec<&str> = table.lines().find(|l| l.ends_with("sleep 777")).expect("a row").split_whitespace().collect();
    assert_eq!(host.sh(&format!("tr '\\0' ' ' < /proc/{}/cmdline", pid[1])).trim(), "sleep 777", "a pid of the host's");
    let custom = host.ok(&["top", "web", "-o", "pid,args"]);
    assert!(custom.starts_with("PID") && custom.contains("sleep 888") && !custom.contains("nextest"), "{custom}");
    assert!(host.refuses(&["top", "web", "-o", "args"]).contains("Couldn't find PID field in ps output"));
    assert_eq!(host.ok(&["exec", "web", "sh", "-c", "ls /ran 2>/dev/null | wc -l"]), "0");
    host.ok(&["stop", "-t", "0", "web"]);
    assert!(host.fails(1, &["top", "web"]).contains("is not running"));
    host.ok(&["rm", "web"]);
}

#[test]
fn info_version_df_and_prune() {
    let host = Host::new();
    host.ok(&["import", &env("RRUN_ROOTFS"), "unused"]);
    host.ok(&[
        "run",
        "-d",
        "--name",
        "up",
        "--network",
        "none",
        "-v",
        "/data",
        "busybox",
        "sh",
        "-c",
        "head -c 100000 /dev/zero > /f; head -c 50000 /dev/zero > /data/f; sleep 1000",
    ]);
    host.ok(&[
        "run",
        "--name",
        "down",
        "--network",
        "none",
        "-v",
        "/data",
        "--label",
        "keep",
        "busybox",
        "sh",
        "-c",
        "head -c 70000 /dev/zero > /f",
    ]);
    assert_eq!(
        host.ok(&["info", "-f", "{{.Containers}} {{.ContainersRunning}} {{.ContainersStopped}} {{.Images}}"]),
        "2 1 1 2"
    );
    let info = host.ok(&["info"]);
    assert!(
        info.contains("Containers: 2\n  Running: 1")
            && info.contains("Cgroup Version:")
            && info.contains("Kernel Version:"),
        "{info}"
    );
    assert_eq!(host.ok(&["version", "-f", "{{.Server.Os}}"]), "linux");
    eventually("the files are there", || {
        (host.ok(&["exec", "up", "sh", "-c", "stat -c %s /data/f 2>/dev/null || true"]) == "50000").then_some(())
    });
    let rows =
        host.ok(&["system", "df", "--format", "{{.Type}}|{{.TotalCount}}|{{.Active}}|{{.Size}}|{{.Reclaimable}}"]);
    assert!(rows.contains("Containers|2|1|170kB|70kB (41%)"), "{rows}");
    assert!(rows.contains("Local Volumes|2|2|50kB|0B (0%)"), "{rows}");
    assert!(rows.lines().any(|l| l.starts_with("Images|2|1|")), "{rows}");
    let verbose = host.ok(&["system", "df", "-v"]);
    for part in [
        "Images space usage:",
        "Containers space usage:",
        "Local Volumes space usage:",
        "unused",
        "down",
        "SHARED SIZE",
    ] {
        assert!(verbose.contains(part), "{part}: {verbose}");
    }
    host.ok(&["network", "create", "lonely"]);
    let asked = host.sh(&format!("echo n | {} system prune -a", env("RRUN_BIN")));
    assert!(asked.starts_with("WARNING! This will remove:\n  - all stopped containers"), "{asked}");
    let out = host.ok(&["container", "prune", "-f", "--filter", "label!=keep"]);
    assert_eq!(out, "Total reclaimed space: 0B");
    let out = host.ok(&["system", "prune", "-af", "--volumes"]);
    for part in [
        "Deleted Containers:",
        "Deleted Networks:\nlonely",
        "Deleted Volumes:",
        "untagged: unused:latest",
        "Total reclaimed space: ",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
    assert_eq!(host.ok(&["ps", "-a", "--format", "{{.Names}}"]), "up");
    assert_eq!(host.ok(&["images", "--format", "{{.Repository}}"]), "busybox");
    assert_eq!(host.ok(&["volume", "ls", "-q"]).lines().count(), 1);
    assert!(
        host.refuses(&["system", "prune", "-f", "--volumes", "--filter", "until=1h"]).contains("not supported with")
    );
    host.ok(&["rm", "-fv", "up"]);
}

#[test]
fn check_finds_what_was_damaged() {
    let host = Host::new();
    host.ok(&["create", "--name", "fine", "--network", "none", "busybox"]);
    host.ok(&["create", "--name", "broken", "--network", "none", "busybox"]);
    assert!(host.ok(&["system", "check"]).contains("all is sound"));
    let root = host.root().display().to_string();
    host.sh(&format!(
        "cd {root}; big=$(ls -S blobs/sha256/* | head -n1); printf x >> $big; rm $(find layers -name hostname -o -name passwd | head -n1); \
         echo nonsense > containers/$(readlink containers/names/broken | tr -d './')/container.json"
    ));
    let found = host.rrun(&["system", "check"]).expect(1).stdout;
    for part in ["does not match its name", "has lost or gained files", "container broken", "hint:", "3 problems"] {
        assert!(found.contains(part), "{part}: {found}");
    }
    let repaired = host.rrun(&["system", "check", "--repair"]).expect(1).stdout;
    assert!(repaired.contains("repaired: image") && repaired.contains("2 problems"), "{repaired}");
    host.ok(&["rm", "-f", "fine", "broken"]);
    host.ok(&["rmi", "-f", "busybox"]);
    assert!(host.ok(&["system", "check"]).contains("all is sound"));
}
