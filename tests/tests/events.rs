//! What rrun tells of what happens: every kind of event, in Docker's words, filtered and formatted.

use rrun_tests::Host;
use rrun_tests::fixture::Registry;
use rrun_tests::host::{env, eventually};
use serde_json::Value;
use std::process::Stdio;

/// What happened so far, as `TYPE ACTION` and the attributes asked for.
fn happened(host: &Host, filters: &[&str], attributes: &[&str]) -> Vec<String> {
    let until = host.sh("date +%s.%N");
    let mut args = vec!["events", "--since", "5m", "--until", &until, "--format", "json"];
    filters.iter().for_each(|f| args.extend(["-f", f]));
    let all = host.ok(&args);
    let line = |l: &str| {
        let event: Value = serde_json::from_str(l).expect("JSON");
        let attribute = |a: &&str| event["Actor"]["Attributes"][*a].as_str().map(|v| format!(" {a}={v}"));
        let told: String = attributes.iter().filter_map(attribute).collect();
        format!("{} {}{told}", event["Type"].as_str().expect("Type"), event["Action"].as_str().expect("Action"))
    };
    all.lines().map(line).collect()
}

#[test]
fn the_life_of_a_container_with_network_and_volume() {
    let host = Host::new();
    host.ok(&["network", "create", "n1"]);
    let script = "trap 'exit 3' TERM; while :; do sleep 0.1; done";
    host.ok(&[
        "run",
        "-d",
        "--name",
        "web",
        "-l",
        "tier=front",
        "--network",
        "n1",
        "-v",
        "data:/data:ro",
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    let id = host.ok(&["inspect", "-f", "{{.Id}}", "web"]);
    host.rrun(&["exec", "web", "sh", "-c", "exit 7"]).expect(7);
    host.ok(&["pause", "web"]);
    host.ok(&["unpause", "web"]);
    host.ok(&["top", "web"]);
    host.sh(&format!(
        "cd {0}; echo x > x; {1} cp x web:/x; {1} cp web:/x y; {1} export web > tar",
        host.dir.display(),
        env("RRUN_BIN")
    ));
    host.ok(&["commit", "-m", "why", "web", "made:1"]);
    host.ok(&["rename", "web", "www"]);
    host.ok(&["update", "--memory", "64m", "--memory-swap", "64m", "www"]);
    host.ok(&["network", "connect", "bridge", "www"]);
    host.ok(&["network", "disconnect", "n1", "www"]);
    host.ok(&["kill", "-s", "USR2", "www"]);
    host.ok(&["restart", "www"]);
    host.ok(&["stop", "www"]);
    host.ok(&["rm", "www"]);
    host.ok(&["volume", "rm", "data"]);
    host.ok(&["network", "rm", "n1"]);
    let told = [
        "container",
        "destination",
        "read/write",
        "type",
        "signal",
        "exitCode",
        "oldName",
        "comment",
        "imageRef",
        "driver",
    ];
    let all = happened(&host, &["type=container", "type=network", "type=volume"], &told);
    let mine = |text: &str| text.replace("ID", &id);
    let end = [
        "container kill signal=15",
        "container die exitCode=3",
        "network disconnect container=ID type=bridge",
        "volume unmount container=ID driver=local",
        "container stop",
    ];
    let begin = [
        "network connect container=ID type=bridge",
        "volume mount container=ID destination=/data read/write=false driver=local",
        "container start",
    ];
    let expected = [
        &["network create type=bridge", "container create", "volume create driver=local"][..],
        &begin,
        &["container exec_create: sh -c exit 7", "container exec_start: sh -c exit 7", "container exec_die exitCode=7"],
        &[
            "container pause",
            "container unpause",
            "container top",
            "container extract-to-dir",
            "container archive-path",
            "container export",
        ],
        &["container commit comment=why imageRef=made:1", "container rename oldName=/web", "container update"],
        &[
            "network connect container=ID type=bridge",
            "network disconnect container=ID type=bridge",
            "container kill signal=12",
        ],
        &end,
        &begin,
        &["container restart"],
        &end,
        &["container destroy", "volume destroy driver=local", "network destroy type=bridge"],
    ]
    .concat();
    let expected: Vec<String> = expected.iter().map(|e| mine(e)).collect();
    assert_eq!(all, expected, "{}", all.join("\n"));
    let exec = happened(
        &host,
        &["event=exec_create", "event=exec_die", "container=www", "container=web"],
        &["execID", "name", "tier"],
    );
    let [created, died] = exec.as_slice() else { panic!("{exec:?}") };
    assert_eq!(created.split("execID=").nth(1), died.split("execID=").nth(1), "one exec, told twice");
    assert!(died.ends_with(" name=web tier=front"), "{died}");
}

#[test]
fn an_end_by_itself_and_networks_that_are_none() {
    let host = Host::new();
    host.rrun(&["run", "--rm", "--network", "none", "-v", "/anon", "busybox", "sh", "-c", "exit 4"]).expect(4);
    let all = happened(&host, &["type=container", "type=network", "type=volume"], &["name", "type", "exitCode"]);
    let name = all[0].split("name=").nth(1).expect("a name").to_owned();
    let told: Vec<String> = all.iter().map(|l| l.replace(&name, "NAME")).collect();
    let expected = [
        "container create name=NAME",
        "volume create",
        "container attach name=NAME",
        "network connect name=none type=null",
        "volume mount",
        "container start name=NAME",
        "container die name=NAME exitCode=4",
        "network disconnect name=none type=null",
        "volume unmount",
        "container destroy name=NAME",
        "volume destroy",
    ];
    assert_eq!(told, expected, "{}", told.join("\n"));
    host.ok(&["run", "--rm", "--network", "host", "busybox", "true"]);
    assert_eq!(
        happened(&host, &["network=host"], &["type"]),
        ["network connect type=host", "network disconnect type=host"]
    );
}

/// Whoever has waited for something finds it in the journal.
#[test]
fn what_a_command_returns_from_has_been_told() {
    let host = Host::new();
    let last = |action: &str, times: usize| {
        let told = happened(&host, &["type=container", &format!("event={action}")], &[]);
        assert_eq!(told.len(), times, "{action} is not told yet");
    };
    for n in 1..=10 {
        let name = format!("c{n}");
        host.ok(&["run", "-d", "--name", &name, "--network", "none", "busybox", "sleep", "1000"]);
        last("start", 3 * n - 2);
        host.ok(&["stop", "-t", "0", &name]);
        last("die", 3 * n - 2);
        last("stop", n);
        host.ok(&["start", &name]);
        last("start", 3 * n - 1);
        host.ok(&["rm", "-f", &name]);
        last("die", 3 * n - 1);
        host.ok(&["run", "--rm", "--network", "none", "busybox", "true"]);
        last("die", 3 * n);
        last("destroy", 2 * n);
    }
    host.ok(&["run", "-d", "--name", "short", "--network", "none", "busybox", "sleep", "0.2"]);
    host.ok(&["wait", "short"]);
    last("die", 31);
}

#[test]
fn what_a_failed_run_takes_back_is_told_too() {
    let host = Host::new();
    host.rrun(&["run", "--name", "gone", "--network", "none", "busybox", "no-such-program"]).expect(127);
    let told = happened(&host, &["type=container"], &["name"]);
    assert_eq!(told.first().map(String::as_str), Some("container create name=gone"), "{told:?}");
    assert_eq!(told.last().map(String::as_str), Some("container destroy name=gone"), "{told:?}");
}

#[test]
fn images_come_and_go() {
    let host = Host::bare();
    let registry = Registry::start(&host).expect("docker-registry is installed by vagrant/provision.sh tests");
    host.ok(&["import", "-c", "LABEL kind=test", &env("RRUN_ROOTFS"), "one"]);
    let id = host.ok(&["image", "inspect", "-f", "{{.Id}}", "one"]);
    let there = registry.reference("one");
    host.ok(&["tag", "one", &there]);
    host.ok(&["push", &there]);
    let file = format!("{}/one.tar", host.dir.display());
    host.ok(&["save", "-o", &file, "one"]);
    host.ok(&["rmi", "one"]);
    host.ok(&["rmi", &there]);
    host.ok(&["load", "-i", &file]);
    host.ok(&["pull", &there]);
    host.ok(&["image", "prune", "-af"]);
    let all = happened(&host, &["type=image"], &["name", "kind"]);
    let reference =
        there.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).map_or(there.as_str(), |(name, _)| name);
    let expected = [
        format!("image import name={id} kind=test"),
        "image tag name=one:latest kind=test".into(),
        format!("image tag name={reference}:latest kind=test"),
        format!("image push name={reference} kind=test"),
        format!("image save name={id} kind=test"),
        format!("image untag name={id} kind=test"),
        format!("image untag name={id} kind=test"),
        format!("image delete name={id} kind=test"),
        format!("image load name={id} kind=test"),
        format!("image pull name={reference} kind=test"),
        format!("image untag name={id} kind=test"),
        format!("image untag name={id} kind=test"),
        format!("image untag name={id} kind=test"),
        format!("image delete name={id} kind=test"),
        "image prune".into(),
    ];
    assert_eq!(all, expected, "{}", all.join("\n"));
    assert_eq!(
        happened(&host, &[&format!("image={reference}")], &[]).len(),
        3,
        "tag, push and pull by the name without its tag"
    );
    assert_eq!(happened(&host, &["label=kind=test", "event=delete"], &[]).len(), 2);
    for (verb, kind) in [("container", "container"), ("network", "network"), ("volume", "volume")] {
        host.ok(&[verb, "prune", "-f"]);
        assert_eq!(
            happened(&host, &["event=prune", &format!("type={kind}")], &["reclaimed"]),
            [format!("{kind} prune reclaimed=0")]
        );
    }
}

#[test]
fn forms_and_filters() {
    let host = Host::new();
    let live = host.command(&[
        "events",
        "-f",
        "network=n1",
        "--format",
        "{{.Type}} {{.Action}} {{.Actor.Attributes.name}} {{.Scope}}",
    ]);
    let mut live = { live }.stdout(Stdio::piped()).spawn().expect("events");
    eventually("somebody reads", || {
        host.try_sh(&format!("ls -l /proc/{}/fd | grep -q pipe", live.id())).code.eq(&0).then_some(())
    });
    host.ok(&["network", "create", "n1"]);
    host.ok(&["run", "--rm", "--network", "n1", "--name", "web1", "busybox", "true"]);
    host.ok(&["network", "rm", "n1"]);
    let until = host.sh("date +%s.%N");
    let events = |args: &[&str]| host.ok(&[&["events", "--since", "5m", "--until", &until][..], args].concat());
    let line = events(&["-f", "event=create", "-f", "type=network"]);
    let id = line.split(' ').nth(3).expect("an ID").to_owned();
    assert!(line.ends_with(&format!("Z network create {id} (name=n1, type=bridge)")) && id.len() == 64, "{line}");
    let document: Value = serde_json::from_str(&events(&["-f", "event=connect", "--format", "json"])).expect("JSON");
    let keys: Vec<&str> = document.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(keys, ["Type", "Action", "Actor", "scope", "time", "timeNano"], "{document}");
    let document: Value =
        serde_json::from_str(&events(&["-f", "event=start", "--format", "{{json .}}"])).expect("JSON");
    assert_eq!(
        (&document["status"], &document["from"], &document["scope"]),
        (&"start".into(), &"busybox".into(), &"local".into())
    );
    assert_eq!(document["time"], document["timeNano"].as_i64().expect("a number") / 1_000_000_000);
    // The beginning of a name or an ID is enough, as Docker has it.
    assert_eq!(events(&["-f", "container=we", "-f", "event=die"]).lines().count(), 1);
    assert_eq!(events(&["-f", &format!("network={}", &id[..6])]).lines().count(), 4);
    assert_eq!(events(&["-f", "scope=swarm"]), "");
    assert_eq!(events(&["-f", "scope=local", "-f", "image=busybox", "-f", "event=die"]).lines().count(), 1);
    eventually("the last one", || (host.try_sh("true").code == 0).then_some(()));
    std::thread::sleep(std::time::Duration::from_millis(300));
    live.kill().expect("kill");
    let seen = String::from_utf8(live.wait_with_output().expect("events").stdout).expect("text");
    assert_eq!(
        seen,
        "network create n1 local\nnetwork connect n1 local\nnetwork disconnect n1 local\nnetwork destroy n1 local\n"
    );
}

#[test]
fn the_end_of_a_container_without_a_monitor_is_told_by_the_next_command() {
    let host = Host::new();
    host.ok(&["run", "-d", "--name", "web", "busybox", "sleep", "1000"]);
    let pid = host.ok(&["inspect", "-f", "{{.State.Pid}}", "web"]);
    let state = host.sh(&format!("cat {}/containers/*/state.json", host.state().display()));
    let state: Value = serde_json::from_str(&state).expect("JSON");
    host.sh(&format!("kill -9 {}; kill -9 {pid}", state["monitor_pid"]));
    eventually("both are gone", || (!std::path::Path::new(&format!("/proc/{pid}/exe")).exists()).then_some(()));
    host.ok(&["ps"]);
    assert_eq!(
        happened(&host, &["event=die", "event=disconnect"], &["exitCode", "type"]),
        ["container die exitCode=255", "network disconnect type=bridge"]
    );
    host.ok(&["rm", "web"]);
}

#[test]
fn events_as_they_happen_and_as_they_were() {
    let host = Host::new();
    let mut live = host.command(&[
        "events",
        "--filter",
        "event=die",
        "--format",
        "{{.Action}} {{.Actor.Attributes.name}} {{.Actor.Attributes.exitCode}}",
    ]);
    let live = live.stdout(Stdio::piped()).spawn().expect("events");
    host.ok(&["run", "--rm", "--name", "one", "--label", "a=b", "--network", "none", "busybox", "true"]);
    host.rrun(&["run", "--name", "two", "--network", "none", "busybox", "sh", "-c", "exit 3"]).expect(3);
    host.ok(&["rename", "two", "three"]);
    host.ok(&["rm", "three"]);
    let until = host.sh("date +%s.%N");
    let all = host.ok(&["events", "--since", "5m", "--until", &until]);
    for (action, name) in
        [("create", "one"), ("start", "one"), ("die", "one"), ("destroy", "one"), ("start", "two"), ("rename", "three")]
    {
        let line =
            all.lines().find(|l| l.contains(&format!(" container {action} ")) && l.contains(&format!("name={name}")));
        assert!(line.is_some(), "no {action} of {name} in\n{all}");
    }
    let filtered = host.ok(&[
        "events",
        "--since",
        "5m",
        "--until",
        &until,
        "-f",
        "label=a=b",
        "-f",
        "event=start",
        "--format",
        "{{.Actor.Attributes.name}}",
    ]);
    assert_eq!(filtered, "one");
    let json = host.ok(&["events", "--since", "5m", "--until", &until, "-f", "container=two", "--format", "json"]);
    assert!(json.lines().all(|l| serde_json::from_str::<Value>(l).expect("JSON")["Type"] == "container"), "{json}");
    assert_eq!(host.ok(&["events", "--since", &until, "--until", &until]), "");
    assert!(host.refuses(&["events", "--until", "1m", "-f", "colour=red"]).contains("invalid filter 'colour'"));
    let mut live = live;
    std::thread::sleep(std::time::Duration::from_millis(300));
    live.kill().expect("kill");
    let seen = live.wait_with_output().expect("its output").stdout;
    assert_eq!(String::from_utf8_lossy(&seen), "die one 0\ndie two 3\n");
}
