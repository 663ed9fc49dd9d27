//! What is killed, deleted or raced, and that the next command puts it right.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rrun_tests::Host;
use rrun_tests::host::eventually;
use rrun_tests::peer::{call, serve};
use std::process::Stdio;
use std::time::Duration;

fn parent_of(pid: i32) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
    stat.rsplit(") ").next().and_then(|s| s.split(' ').nth(1)).and_then(|p| p.parse().ok()).expect("a parent")
}

fn init_of(host: &Host, c: &str) -> i32 {
    host.ok(&["inspect", "-f", "{{.State.Pid}}", c]).parse().expect("a pid")
}

#[test]
fn the_monitor_is_killed() {
    let host = Host::new();
    let c = serve(&host, &["--name", "web", "-p", "8080:80"], 80, "web");
    let init = init_of(&host, &c);
    kill(Pid::from_raw(parent_of(init)), Signal::SIGKILL).expect("kill the monitor");
    assert!(host.sh(&call("127.0.0.1", 8080)).starts_with("web "), "the container goes on, its ports too");
    assert!(host.ok(&["ps"]).contains("Up "));
    host.ok(&["stop", "-t", "1", "web"]);
    assert!(host.ok(&["ps", "-a"]).contains("Exited ("));
    host.ok(&["start", "web"]);
    eventually("it serves again on the same port", || {
        host.try_sh(&call("127.0.0.1", 8080)).stdout.starts_with("web ").then_some(())
    });
}

#[test]
fn a_monitor_killed_in_a_start_leaves_no_process_waiting_for_it() {
    let host = Host::new();
    // The first start calls nft. This one tells who called it and does not come back, which holds the
    // start where the container's first process is there and waits.
    let nft = host.sh("readlink -f $(command -v nft)");
    let (dir, script) = (host.dir.display(), host.dir.join("nft"));
    let text = format!("#!/bin/sh\necho $PPID $$ >{dir}/calling\nmv {dir}/calling {dir}/called\nexec sleep 1000\n");
    std::fs::write(host.outside(&script), text).expect("write");
    host.sh(&format!("chmod +x {0}; mount --bind {0} {nft}", script.display()));
    let mut run = host.command(&["run", "--rm", "busybox", "true"]).stderr(Stdio::null()).spawn().expect("spawn");
    let called = host.outside(host.dir.join("called"));
    let said = eventually("nft is called", || std::fs::read_to_string(&called).ok());
    let pids: Vec<i32> = said.split_whitespace().map(|p| p.parse().expect("a pid")).collect();
    let [monitor, waiting] = pids[..] else { panic!("{said}") };
    let children = std::fs::read_to_string(format!("/proc/{monitor}/task/{monitor}/children")).expect("children");
    let children: Vec<i32> = children.split_whitespace().filter_map(|p| p.parse().ok()).collect();
    let first: Vec<&i32> = children.iter().filter(|p| **p != waiting).collect();
    assert_eq!(first.len(), 1, "nft and the container's first process: {children:?}");
    kill(Pid::from_raw(monitor), Signal::SIGKILL).expect("kill the monitor");
    eventually("its child has ended", || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", first[0])).unwrap_or_default();
        (stat.is_empty() || stat.contains(") Z ")).then_some(())
    });
    kill(Pid::from_raw(waiting), Signal::SIGKILL).expect("kill the one in nft's place");
    run.wait().expect("wait");
    host.sh(&format!("umount {nft}"));
    assert_eq!(host.ok(&["run", "--rm", "busybox", "echo", "fine"]), "fine");
}

#[test]
fn the_next_command_brings_a_new_monitor() {
    let host = Host::new();
    host.ok(&["network", "create", "nn"]);
    let counting = "i=0; while [ $i -lt 40 ]; do i=$((i+1)); echo line $i; sleep 0.05; done; exit 7";
    let c =
        host.ok(&["run", "-d", "--name", "cc", "--network", "nn", "-p", "8080:80", "busybox", "sh", "-c", counting]);
    let monitor = parent_of(init_of(&host, &c));
    eventually("it counts", || host.ok(&["logs", "cc"]).contains("line 3\n").then_some(()));
    kill(Pid::from_raw(monitor), Signal::SIGKILL).expect("kill the monitor");
    host.ok(&["ps"]);
    // Its name server answers again, its port is held again, and no line is lost.
    let named = host.ok(&["run", "--rm", "--network", "nn", "busybox", "nslookup", "cc", "127.0.0.11"]);
    assert!(named.contains("172.18.0.2"), "{named}");
    let taken = host.fails(125, &["run", "--rm", "-p", "8080:80", "busybox", "true"]);
    assert!(taken.contains("port is already allocated"), "{taken}");
    assert!(host.sh("ss -Hltn sport = :8080").contains("8080"), "the socket is bound");
    host.ok(&["wait", "cc"]);
    let lines: Vec<String> = (1..=40).map(|i| format!("line {i}")).collect();
    assert_eq!(host.ok(&["logs", "cc"]), lines.join("\n"));
    // The new monitor has cleaned up.
    assert_eq!(host.ok(&["run", "--rm", "-p", "8080:80", "busybox", "echo", "free"]), "free");
}

#[test]
fn monitor_and_program_are_killed_together() {
    let host = Host::new();
    let c = serve(&host, &["--name", "web", "-p", "8080:80"], 80, "web");
    let init = init_of(&host, &c);
    let monitor = parent_of(init);
    kill(Pid::from_raw(monitor), Signal::SIGKILL).expect("kill");
    kill(Pid::from_raw(init), Signal::SIGKILL).expect("kill");
    eventually("both are gone", || (!std::path::Path::new(&format!("/proc/{init}")).exists()).then_some(()));
    assert!(host.ok(&["ps", "-a", "--format", "{{.Status}}"]).starts_with("Exited ("));
    // Port and address are free for the next.
    let next = host.ok(&["run", "-d", "-p", "8080:80", "busybox", "sleep", "1000"]);
    assert_eq!(host.ok(&["inspect", "-f", "{{.NetworkSettings.Networks.bridge.IPAddress}}", &next]), "172.17.0.2");
}

#[test]
fn the_program_is_killed() {
    let host = Host::new();
    let c = host.ok(&["run", "-d", "--name", "cc", "-p", "8080:80", "busybox", "sleep", "1000"]);
    kill(Pid::from_raw(init_of(&host, &c)), Signal::SIGKILL).expect("kill");
    // The monitor cleans up by itself: no command is run in between.
    eventually("the port is taken back", || host.nft_elements("publish4_any").is_empty().then_some(()));
    // Its address waits for it, as long as there is a container to wait for.
    let leases = || host.sh(&format!("find {}/networks -path '*leases/1*' | wc -l", host.state().display()));
    assert_eq!(leases(), "1");
    assert_eq!(host.ok(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "cc"]), "exited 137");
    host.ok(&["rm", "cc"]);
    assert_eq!(leases(), "0");
}

#[test]
fn the_command_is_killed_at_any_moment() {
    let host = Host::new();
    for step in 0..40u64 {
        let mut child = host
            .command(&["run", "-d", "--name", "victim", "-p", "8080:80", "busybox", "sleep", "1000"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("spawn");
        std::thread::sleep(Duration::from_micros(step * 250));
        let _ = child.kill();
        child.wait().expect("wait");
        // Whatever was reached, the next commands see a whole world: the name can be freed and used.
        host.rrun(&["rm", "-f", "victim"]).expect(0);
        eventually("the port and name are free again", || {
            (host.rrun(&["run", "--rm", "--name", "victim", "-p", "8080:80", "busybox", "true"]).code == 0)
                .then_some(())
        });
    }
}

#[test]
fn a_hundred_in_parallel() {
    let host = Host::new();
    let children: Vec<_> = (0..100)
        .map(|_| {
            host.command(&["run", "-d", "-p", "80", "busybox", "sleep", "1000"])
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("spawn")
        })
        .collect();
    let outs: Vec<_> = children.into_iter().map(|c| c.wait_with_output().expect("wait")).collect();
    for o in &outs {
        assert!(o.status.success(), "{}", String::from_utf8_lossy(&o.stderr));
    }
    let ids: Vec<String> = outs.iter().map(|o| String::from_utf8_lossy(&o.stdout).trim().to_string()).collect();
    let refs: Vec<&str> = ids.iter().map(String::as_str).collect();
    let unique = |format: &str| {
        let out = host.ok(&[&["inspect", "-f", format], refs.as_slice()].concat());
        let mut v: Vec<&str> = out.lines().collect();
        v.sort_unstable();
        v.dedup();
        v.len()
    };
    assert_eq!(unique("{{.NetworkSettings.Networks.bridge.IPAddress}}"), 100);
    assert_eq!(unique("{{.NetworkSettings.Networks.bridge.MacAddress}}"), 100);
    assert_eq!(unique("{{.Name}}"), 100);
    assert_eq!(unique(r#"{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}"#), 100);
}

#[test]
fn one_name_one_winner() {
    let host = Host::new();
    for verb in
        [&["create", "--name", "same", "--network", "none", "busybox", "true"][..], &["network", "create", "same"]]
    {
        let children: Vec<_> = (0..20)
            .map(|_| {
                host.command(verb)
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()
                    .expect("spawn")
            })
            .collect();
        let won =
            children.into_iter().filter_map(|mut c| c.wait().ok()).filter(std::process::ExitStatus::success).count();
        assert_eq!(won, 1, "{verb:?}");
    }
}

#[test]
fn a_pull_is_killed_at_any_moment() {
    let host = Host::bare();
    let registry = rrun_tests::fixture::Registry::start(&host).expect("docker-registry");
    registry.push_synthetic("victim:1", 3, 30_000_000);
    let name = registry.reference("victim:1");
    for step in 1..15u64 {
        let mut child =
            host.command(&["pull", &name]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("spawn");
        std::thread::sleep(Duration::from_millis(step * 8));
        let _ = child.kill();
        child.wait().expect("wait");
    }
    host.ok(&["pull", &name]);
    let count = host.ok(&["image", "inspect", "-f", "{{len .RootFS.Layers}}", &name]);
    assert_eq!(count, "3");
    host.ok(&["rmi", &name]);
    // Nothing of the killed ones is left once the next has cleaned up.
    let left =
        host.sh(&format!("find {0}/layers {0}/blobs -type f -size +0 ! -name '*lock*' | wc -l", host.root().display()));
    assert_eq!(left, "0");
}

#[test]
fn a_veth_or_the_network_state_is_deleted_by_hand() {
    let host = Host::new();
    let c = host.ok(&["run", "-d", "--name", "cc", "busybox", "sleep", "1000"]);
    let veth = host.ip("link show type veth")[0]["ifname"].as_str().expect("a veth").to_string();
    host.sh(&format!("ip link del {veth}"));
    assert!(host.ok(&["ps"]).contains("Up "));
    host.ok(&["stop", "-t", "0", &c]);
    host.ok(&["start", "cc"]);
    assert!(host.ok(&["exec", "cc", "ip", "addr", "show", "eth0"]).contains("172.17.0.2"));
    host.sh(&format!("rm -rf {}/networks", host.state().display()));
    host.ok(&["rm", "-f", "cc"]);
}
