//! Where output is kept, and how it is read back: the drivers, their options, rotation and compression.

use rrun_tests::host::{env, eventually};
use rrun_tests::journal::Journal;
use rrun_tests::{Host, Ran};
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Stdio};

fn seq(range: std::ops::RangeInclusive<u32>) -> String {
    range.map(|n| format!("line {n} of the output\n")).collect()
}

/// Prints lines, all at once or so many at a time.
fn printer(to: u32) -> String {
    format!("i=0; while [ $i -lt {to} ]; do i=$((i+1)); echo line $i of the output; done")
}

fn inspect(host: &Host, name: &str, what: &str) -> String {
    host.ok(&["inspect", "-f", what, name])
}

fn log_files(host: &Host, name: &str) -> Vec<(String, u64)> {
    let dir = host.outside(host.root().join("containers").join(inspect(host, name, "{{.Id}}")));
    let mut files: Vec<(String, u64)> = std::fs::read_dir(dir)
        .expect("the container's directory")
        .flatten()
        .map(|e| (e.file_name().to_string_lossy().into_owned(), e.metadata().expect("metadata").len()))
        .filter(|(name, _)| name.starts_with("log"))
        .collect();
    files.sort();
    files
}

#[test]
fn local_rotates_compresses_and_is_read_as_one() {
    let host = Host::new();
    let script = format!("{}; echo complaint >&2; sleep 1000", printer(6000));
    let options = ["--log-driver", "local", "--log-opt", "max-size=60k", "--log-opt", "max-file=9"];
    let run = [&["run", "-d", "--name", "loc", "--network", "none"], &options[..], &["busybox", "sh", "-c", &script]];
    host.ok(&run.concat());
    eventually("everything is written", || {
        host.rrun(&["logs", "-n", "1", "loc"]).stderr.contains("complaint").then_some(())
    });
    // 6000 lines of 58 to 61 bytes each: five full files and a rest, all but the last compressed.
    let packed = eventually("the full files are compressed", || {
        let files = log_files(&host, "loc");
        let packed: Vec<_> = files.iter().filter(|(name, _)| name.ends_with(".gz")).cloned().collect();
        (packed.len() >= 4 && files.len() == packed.len() + 1).then_some(packed)
    });
    assert!(packed.iter().all(|(_, size)| *size < 20_000), "{packed:?}");
    let dir = host.root().join("containers").join(inspect(&host, "loc", "{{.Id}}"));
    let oldest =
        host.sh(&format!("cd {}; ls log.*.gz | sort -n -t. -k2 | tail -n 1 | xargs zcat | head -n 1", dir.display()));
    assert!(oldest.ends_with("Z stdout F line 1 of the output"), "{oldest}");

    assert_eq!(host.rrun(&["logs", "loc"]).expect(0).stdout, seq(1..=6000));
    assert_eq!(host.rrun(&["logs", "--tail", "5", "loc"]).expect(0).stdout, seq(5997..=6000));
    assert_eq!(host.rrun(&["logs", "--tail", "4001", "loc"]).expect(0).stdout, seq(2001..=6000));
    let stamped = host.rrun(&["logs", "-t", "loc"]).expect(0).stdout;
    let time = |n: usize| stamped.lines().nth(n).and_then(|l| l.split(' ').next()).expect("a time").to_owned();
    assert_eq!(time(0).len(), "2026-11-24T05:34:28.123456789Z".len(), "{}", time(0));
    let between = host.rrun(&["logs", "-t", "--since", &time(1000), "--until", &time(2000), "loc"]).expect(0).stdout;
    assert!(between.lines().count() >= 1001, "{}", between.lines().count());
    assert!(between.lines().all(|l| l >= time(1000).as_str() && l.split(' ').next() <= Some(&time(2000))));
    assert_eq!(
        inspect(
            &host,
            "loc",
            "{{.HostConfig.LogConfig.Type}} {{index .HostConfig.LogConfig.Config \"max-size\"}}|{{.LogPath}}|"
        ),
        "local 60k||"
    );
    host.ok(&["rm", "-f", "loc"]);
}

#[test]
fn following_local_misses_nothing_when_files_rotate_and_are_compressed() {
    let host = Host::new();
    let script = format!("read go; {}", printer(20000));
    let name = [
        "--name",
        "fol",
        "--network",
        "none",
        "--log-driver",
        "local",
        "--log-opt",
        "max-size=50k",
        "--log-opt",
        "max-file=100",
    ];
    host.ok(&[&["run", "-di"], &name[..], &["busybox", "sh", "-c", &script]].concat());
    let follower = host.command(&["logs", "-f", "fol"]).stdout(Stdio::piped()).spawn().expect("logs -f");
    let mut starter =
        host.command(&["attach", "fol"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("attach");
    std::io::Write::write_all(&mut starter.stdin.take().expect("stdin"), b"go\n").expect("go");
    let seen = follower.wait_with_output().expect("logs -f");
    starter.wait().expect("attach");
    assert!(String::from_utf8_lossy(&seen.stdout) == seq(1..=20000), "{} bytes", seen.stdout.len());
    // Nothing goes on after the container's end, and nothing half done is left.
    assert!(log_files(&host, "fol").iter().all(|(name, _)| name != "log.packing"), "{:?}", log_files(&host, "fol"));
    assert!(host.rrun(&["logs", "fol"]).expect(0).stdout == seq(1..=20000));
    // The next life goes on in the same files.
    host.ok(&["start", "fol"]);
    host.ok(&["stop", "-t", "0", "fol"]);
    assert!(host.rrun(&["logs", "fol"]).expect(0).stdout == seq(1..=20000));
    host.ok(&["rm", "fol"]);
}

#[test]
fn local_keeps_every_byte_and_long_lines() {
    let host = Host::new();
    let script = "head -c 40000 /dev/zero | tr '\\0' x; echo; printf '\\377\\001\\r\\n\\nno newline'";
    let run = ["run", "--name", "byt", "--network", "none", "--log-driver", "local", "busybox", "sh", "-c", script];
    host.ok(&run);
    let mut logs = host.command(&["logs", "byt"]);
    let bytes = logs.output().expect("logs").stdout;
    let expected = [&b"x".repeat(40000)[..], b"\n\xff\x01\r\n\nno newline"].concat();
    assert!(bytes == expected, "{} bytes", bytes.len());
    host.ok(&["rm", "byt"]);
}

#[test]
fn json_file_compresses_too_and_a_full_number_of_files_is_kept() {
    let host = Host::new();
    let options = ["--log-opt", "max-size=100k", "--log-opt", "max-file=3", "--log-opt", "compress=true"];
    let script = format!("{}; sleep 1000", printer(6000));
    host.ok(&[&["run", "-d", "--name", "jsn", "--network", "none"], &options[..], &["busybox", "sh", "-c", &script]]
        .concat());
    eventually("the last line", || host.rrun(&["logs", "-n", "1", "jsn"]).stdout.contains("line 6000 ").then_some(()));
    eventually("two compressed files", || {
        let names: Vec<String> = log_files(&host, "jsn").into_iter().map(|(name, _)| name).collect();
        (names == ["log", "log.1.gz", "log.2.gz"]).then_some(())
    });
    let all = host.rrun(&["logs", "jsn"]).expect(0).stdout;
    let first: u32 = all.split(' ').nth(1).and_then(|n| n.parse().ok()).expect("a number");
    assert!(first > 1000 && all == seq(first..=6000), "begins with {first}");
    host.ok(&["rm", "-f", "jsn"]);
}

#[test]
fn details_of_each_line() {
    let host = Host::new();
    for driver in ["json-file", "local"] {
        host.ok(&[
            "run",
            "--name",
            driver,
            "--network",
            "none",
            "--log-driver",
            driver,
            "--log-opt",
            "labels=tier,absent",
            "--log-opt",
            "labels-regex=^com\\.",
            "--log-opt",
            "env=HOME_TOWN",
            "--log-opt",
            "env-regex=^LC_",
            "--log-opt",
            "tag={{.Name}}/{{.ImageName}}/{{.ID}}",
            "-l",
            "tier=front end",
            "-l",
            "com.x=1,2",
            "-l",
            "other=no",
            "-e",
            "HOME_TOWN=Köln",
            "-e",
            "LC_ALL=C",
            "-e",
            "SECRET=x",
            "busybox",
            "sh",
            "-c",
            "echo out; echo err >&2",
        ]);
        let id = inspect(&host, driver, "{{.Id}}");
        let attributes =
            format!("HOME_TOWN=K%C3%B6ln,LC_ALL=C,com.x=1%2C2,tag={driver}%2Fbusybox%2F{},tier=front+end", &id[..12]);
        let Ran { stdout, stderr, .. } = host.rrun(&["logs", "--details", driver]).expect(0);
        assert_eq!((stdout, stderr), (format!("{attributes} out\n"), format!("{attributes} err\n")));
        let both = host.ok(&["logs", "--details", "-t", driver]);
        assert_eq!(both.split(' ').nth(1), Some(attributes.as_str()), "{both}");
        assert_eq!(host.ok(&["logs", driver]), "out");
        if driver == "json-file" {
            let text = std::fs::read_to_string(host.outside(inspect(&host, driver, "{{.LogPath}}"))).expect("the log");
            let line: Value = serde_json::from_str(text.lines().next().expect("a line")).expect("JSON");
            assert_eq!((&line["attrs"]["tier"], &line["attrs"]["com.x"]), (&"front end".into(), &"1,2".into()));
            let order: Vec<&str> = line.as_object().expect("an object").keys().map(String::as_str).collect();
            assert_eq!(order, ["log", "stream", "attrs", "time"]);
        }
        host.ok(&["rm", driver]);
    }
    host.ok(&["run", "--name", "bare", "--network", "none", "busybox", "echo", "x"]);
    assert_eq!(host.rrun(&["logs", "--details", "bare"]).expect(0).stdout, " x\n");
    let e = host.fails(125, &["run", "--rm", "--log-opt", "tag={{.Nope}}", "--network", "none", "busybox", "true"]);
    assert!(e.contains("log opt 'tag'") && e.contains("hint"), "{e}");
    host.ok(&["rm", "bare"]);
}

#[test]
fn the_configuration_names_the_driver() {
    let host = Host::new();
    let config = |text: &str| std::fs::write(host.outside(host.dir.join("config.toml")), text).expect("configuration");
    config("log-driver = \"local\"\n[log-opts]\nmax-size = \"1m\"\nmax-file = \"2\"\n");
    assert_eq!(
        host.ok(&["info", "-f", "{{.LoggingDriver}} {{json .Plugins.Log}}"]),
        "local [\"json-file\",\"local\",\"journald\",\"none\"]"
    );
    assert!(host.ok(&["info"]).contains("Logging Driver: local"));
    host.ok(&["create", "--name", "aa", "--network", "none", "--log-opt", "max-file=4", "busybox"]);
    assert_eq!(
        inspect(&host, "aa", "{{json .HostConfig.LogConfig}}"),
        r#"{"Config":{"max-file":"4","max-size":"1m"},"Type":"local"}"#
    );
    host.ok(&["create", "--name", "byt", "--network", "none", "--log-driver", "json-file", "busybox"]);
    assert_eq!(inspect(&host, "byt", "{{json .HostConfig.LogConfig}}"), r#"{"Config":{},"Type":"json-file"}"#);
    host.ok(&["rm", "aa", "byt"]);
    config("log-driver = \"syslog\"\n");
    let e = host.refuses(&["ps"]);
    assert!(e.contains("config.toml") && e.contains("no log driver named 'syslog' is registered"), "{e}");
    config("");
    let words = host.sh(&format!("COMPLETE=bash _CLAP_COMPLETE_INDEX=3 _CLAP_COMPLETE_COMP_TYPE=9 _CLAP_COMPLETE_SPACE=true {} -- rrun run --log-driver j", env("RRUN_BIN")));
    assert_eq!(words.split_whitespace().collect::<Vec<_>>(), ["json-file", "journald"]);
    assert!(host.ok(&["run", "--help"]).contains("journald"));
}

/// `rrun ARGS` where the journal's own program is the test's.
fn with_journal(host: &Host, args: &[&str]) -> Command {
    let mut command = host.command(args);
    command.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", Journal::bin(host)));
    command
}

fn read(mut command: Command) -> (String, String) {
    let out = command.output().expect("rrun");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    (String::from_utf8(out.stdout).expect("text"), String::from_utf8(out.stderr).expect("text"))
}

#[test]
fn journald_gets_dockers_fields() {
    let host = Host::new();
    let mut journal = Journal::bind(&host);
    journal.listen();
    let script = "echo out; echo err >&2; printf 'tab\\tand \\377\\n'; head -c 40000 /dev/zero | tr '\\0' y; printf '\\nno newline'";
    let run = [
        "run",
        "--name",
        "web",
        "--network",
        "none",
        "--log-driver",
        "journald",
        "--log-opt",
        "labels=com.tier,note",
        "-l",
        "com.tier=front",
        "-l",
        "note=two\nlines",
        "busybox",
        "sh",
        "-c",
        script,
    ];
    host.ok(&run);
    let id = inspect(&host, "web", "{{.Id}}");
    eventually("seven entries", || (journal.messages(&id).len() == 7).then_some(()));
    let entries = journal.entries.lock().expect("entries").clone();
    let field = |n: usize, name: &str| entries[n].get(name).map(|v| String::from_utf8_lossy(v).into_owned());
    let of = |message: &str| {
        (0..7).find(|n| field(*n, "MESSAGE").as_deref() == Some(message)).unwrap_or_else(|| panic!("no {message}"))
    };
    for (name, value) in [
        ("CONTAINER_ID", &id[..12]),
        ("CONTAINER_ID_FULL", &id),
        ("CONTAINER_NAME", "web"),
        ("CONTAINER_TAG", &id[..12]),
        ("IMAGE_NAME", "busybox"),
        ("SYSLOG_IDENTIFIER", &id[..12]),
        ("PRIORITY", "6"),
        ("COM_TIER", "front"),
        ("NOTE", "two\nlines"),
    ] {
        assert_eq!(field(of("out"), name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(field(of("err"), "PRIORITY").as_deref(), Some("3"));
    assert!(field(of("out"), "SYSLOG_TIMESTAMP").is_some_and(|t| t.ends_with('Z')));
    let ordinals: Vec<u64> =
        (0..7).map(|n| field(n, "CONTAINER_LOG_ORDINAL").and_then(|o| o.parse().ok()).expect("an ordinal")).collect();
    assert_eq!(ordinals, (1..=7).collect::<Vec<_>>());
    let pieces: Vec<usize> = (0..7).filter(|n| field(*n, "CONTAINER_PARTIAL_ID").is_some()).collect();
    assert_eq!(pieces.len(), 3, "40000 bytes in pieces of 16384");
    let all = |name: &str| pieces.iter().map(|n| field(*n, name).unwrap_or_default()).collect::<Vec<_>>();
    assert_eq!(all("CONTAINER_PARTIAL_ORDINAL"), ["1", "2", "3"]);
    assert_eq!(all("CONTAINER_PARTIAL_LAST"), ["false", "false", "true"]);
    assert_eq!(all("CONTAINER_PARTIAL_MESSAGE"), ["true", "true", ""]);
    assert_eq!(all("MESSAGE").concat(), "y".repeat(40000));
    assert!(all("CONTAINER_PARTIAL_ID").windows(2).all(|w| w[0] == w[1]));

    let out = with_journal(&host, &["logs", "web"]).output().expect("logs");
    let expected = [b"out\ntab\tand \xff\n", &b"y".repeat(40000)[..], b"\nno newline\n"].concat();
    assert!(out.stdout == expected && out.stderr == b"err\n", "{:?}", out.stderr);
    let (tail, _) = read(with_journal(&host, &["logs", "--tail", "1", "--details", "web"]));
    assert_eq!(tail, "COM_TIER=front,NOTE=two%0Alines no newline\n");
    let (stamped, _) = read(with_journal(&host, &["logs", "-t", "--tail", "1", "web"]));
    assert_eq!(stamped.split(' ').next(), field(of("no newline"), "SYSLOG_TIMESTAMP").map(|t| fixed(&t)).as_deref());
    let (none, _) = read(with_journal(&host, &["logs", "--until", "2001-01-01T00:00:00Z", "--tail", "3", "web"]));
    assert_eq!(none, "");
    let e = host.try_sh(&format!("PATH=/nowhere {} logs web", env("RRUN_BIN"))).stderr;
    assert!(e.contains("journalctl") && e.contains(&format!("CONTAINER_ID_FULL={id}")), "{e}");

    // More than a datagram takes goes as a sealed file.
    let big = "z".repeat(120_000);
    let note = format!("note={big}");
    let file = host.dir.join("labels");
    std::fs::write(host.outside(&file), &note).expect("labels");
    let run = [
        "run",
        "--name",
        "big",
        "--network",
        "none",
        "--log-driver",
        "journald",
        "--log-opt",
        "labels=note",
        "--log-opt",
        "tag=t-{{.Name}}",
        "--label-file",
        file.to_str().expect("UTF-8"),
        "busybox",
        "sh",
        "-c",
        "i=0; while [ $i -lt 5 ]; do i=$((i+1)); echo $i; done",
    ];
    host.ok(&run);
    let id = inspect(&host, "big", "{{.Id}}");
    eventually("five entries", || (journal.messages(&id) == ["1", "2", "3", "4", "5"]).then_some(()));
    let entries = journal.entries.lock().expect("entries").clone();
    assert!(entries[7..].iter().all(|e| e["NOTE"] == big.as_bytes() && e["CONTAINER_TAG"] == b"t-big"));
    host.ok(&["rm", "web", "big"]);
    journal.end(&host);
}

/// Nine digits of fraction, as `logs -t` prints them.
fn fixed(time: &str) -> String {
    let (seconds, fraction) = time.trim_end_matches('Z').split_once('.').unwrap_or((time.trim_end_matches('Z'), ""));
    format!("{seconds}.{fraction:0<9}Z")
}

#[test]
fn following_the_journal_ends_with_the_container() {
    let host = Host::new();
    let mut journal = Journal::bind(&host);
    journal.listen();
    let script = "echo first; read go; for i in 1 2 3 4 5; do echo line $i; done";
    host.ok(&[
        "run",
        "-di",
        "--name",
        "fol",
        "--network",
        "none",
        "--log-driver",
        "journald",
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    let id = inspect(&host, "fol", "{{.Id}}");
    eventually("the first line", || (journal.messages(&id) == ["first"]).then_some(()));
    let all = with_journal(&host, &["logs", "-f", "fol"]).stdout(Stdio::piped()).spawn().expect("logs -f");
    let new =
        with_journal(&host, &["logs", "-f", "--tail", "0", "fol"]).stdout(Stdio::piped()).spawn().expect("logs -f");
    let followers = format!("grep -c . {}/followers || true", Journal::bin(&host));
    eventually("both follow", || (host.sh(&followers) == "2").then_some(()));
    let mut starter =
        host.command(&["attach", "fol"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("attach");
    std::io::Write::write_all(&mut starter.stdin.take().expect("stdin"), b"go\n").expect("go");
    starter.wait().expect("attach");
    let lines = "line 1\nline 2\nline 3\nline 4\nline 5\n";
    assert_eq!(String::from_utf8_lossy(&all.wait_with_output().expect("all").stdout), format!("first\n{lines}"));
    assert_eq!(String::from_utf8_lossy(&new.wait_with_output().expect("new").stdout), lines);
    host.ok(&["rm", "fol"]);
    journal.end(&host);
}

#[test]
fn a_journal_that_does_not_keep_up_holds_up_only_those_who_want_it() {
    let host = Host::new();
    let mut journal = Journal::bind(&host);
    let script = printer(6000);
    let common = ["--network", "none", "--log-driver", "journald"];
    // Nobody reads from the socket yet.
    let free = ["--log-opt", "mode=non-blocking", "--log-opt", "max-buffer-size=64k", "busybox", "sh", "-c", &script];
    host.ok(&[&["run", "-d", "--name", "free"], &common[..], &free].concat());
    host.ok(&["wait", "free"]);
    let dropped: u64 = inspect(&host, "free", "{{.State.LogDropped}}").parse().expect("a number");
    assert!(dropped > 1000, "{dropped} of 6000 were dropped");
    host.ok(&[&["run", "-d", "--name", "patient"], &common[..], &["busybox", "sh", "-c", &script]].concat());
    let id = inspect(&host, "patient", "{{.Id}}");
    journal.listen();
    host.ok(&["wait", "patient"]);
    assert_eq!(inspect(&host, "patient", "{{.State.LogDropped}}"), "0");
    eventually("all of the patient one's lines", || (journal.messages(&id).len() == 6000).then_some(()));
    assert_eq!(journal.messages(&id).join("\n") + "\n", seq(1..=6000));
    host.ok(&["rm", "free", "patient"]);
    journal.end(&host);
}

#[test]
fn without_a_journal_the_start_is_refused() {
    let host = Host::new();
    host.sh("mount -t tmpfs run /run");
    let e = host.fails(125, &["run", "--rm", "--log-driver", "journald", "--network", "none", "busybox", "true"]);
    assert!(e.contains("failed to initialize logging driver: journald is not enabled on this host"), "{e}");
    assert!(e.contains("--log-driver local"), "{e}");
    assert_eq!(host.ok(&["ps", "-aq"]), "");
    host.sh("umount /run");
}

/// With systemd's own, where there is one (in the VM).
#[test]
fn the_real_journal_keeps_what_a_container_says() {
    let host = Host::new();
    let ready = PathBuf::from("/run/systemd/journal/socket").exists()
        && host.try_sh("journalctl --version && journalctl --sync && systemctl is-active systemd-journald").code == 0;
    if !ready {
        println!("skipped: no systemd-journald on this machine");
        return;
    }
    let script = "echo out; echo err >&2; printf 'b\\001\\377\\n'; head -c 20000 /dev/zero | tr '\\0' w; echo; read go; echo last";
    host.ok(&[
        "run",
        "-di",
        "--name",
        "real",
        "--network",
        "none",
        "--log-driver",
        "journald",
        "--log-opt",
        "labels=a",
        "-l",
        "a=b",
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    eventually("five lines", || {
        let ran = host.rrun(&["logs", "real"]);
        (ran.stdout.lines().count() + ran.stderr.lines().count() >= 4).then_some(())
    });
    let follower =
        host.command(&["logs", "-f", "--tail", "1", "real"]).stdout(Stdio::piped()).spawn().expect("logs -f");
    let mut starter =
        host.command(&["attach", "real"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("attach");
    std::io::Write::write_all(&mut starter.stdin.take().expect("stdin"), b"go\n").expect("go");
    starter.wait().expect("attach");
    let seen = follower.wait_with_output().expect("logs -f").stdout;
    assert!(String::from_utf8_lossy(&seen).ends_with("last\n"), "{}", String::from_utf8_lossy(&seen));
    let mut logs = host.command(&["logs", "real"]);
    let out = eventually("the journal has all of it", || {
        let out = logs.output().expect("logs");
        out.stdout.ends_with(b"last\n").then_some(out)
    });
    assert!(
        out.stdout == [b"out\nb\x01\xff\n", &b"w".repeat(20000)[..], b"\nlast\n"].concat(),
        "{}",
        String::from_utf8_lossy(&out.stdout)
    );
    assert_eq!(out.stderr, b"err\n");
    assert_eq!(host.rrun(&["logs", "--details", "--tail", "1", "real"]).stdout, "A=b last\n");
    host.ok(&["rm", "real"]);
}
