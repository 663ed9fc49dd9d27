//! The acts of the reboot tests, for `vagrant/vm.sh reboot`: what rrun has on a machine before and after a
//! real reboot and a power cut. It works on the machine it runs on, and therefore only in the VM.
//!
//! `before` → reboot → `after-reboot` → `churn` in the background → power cut → `after-power-cut`

use rrun_tests::host::{Ran, eventually, run};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, ExitCode};

const BIN: &str = "/opt/rrun/bin/rrun";
const ROOTFS: &str = "/opt/rrun/busybox-rootfs.tar";
/// What is remembered between the acts.
const NOTES: &str = "/var/lib/rrun-reboot.json";

type Scene = (&'static str, fn());

const BEFORE: &[Scene] = &[
    ("a_first_run_loads_what_a_boot_forgets", a_first_run_loads_what_a_boot_forgets),
    ("a_newer_rrun_replaces_the_profile", a_newer_rrun_replaces_the_profile),
    ("containers_on_the_lan", containers_on_the_lan),
    ("a_machine_with_containers", a_machine_with_containers),
];

const AFTER_REBOOT: &[Scene] = &[
    ("containers_have_ended_and_rm_ones_are_gone", containers_have_ended_and_rm_ones_are_gone),
    ("the_kernel_and_the_volatile_state_agree", the_kernel_and_the_volatile_state_agree),
    ("names_volumes_and_networks_are_still_there", names_volumes_and_networks_are_still_there),
    ("restart_always_comes_back_at_boot", restart_always_comes_back_at_boot),
    ("the_lan_is_as_before", the_lan_is_as_before),
    ("start_works_as_before", start_works_as_before),
    ("the_unit_stops_and_starts_what_it_started", the_unit_stops_and_starts_what_it_started),
];

const AFTER_POWER_CUT: &[Scene] = &[
    ("every_command_still_works", every_command_still_works),
    ("the_lan_is_as_before", the_lan_is_as_before),
    ("what_ran_is_told_and_starts_again", what_ran_is_told_and_starts_again),
    ("what_was_half_made_can_be_removed", what_was_half_made_can_be_removed),
    ("nothing_is_left_of_it", nothing_is_left_of_it),
];

fn main() -> ExitCode {
    let act = std::env::args().nth(1).unwrap_or_default();
    let scenes = match act.as_str() {
        "before" => BEFORE,
        "after-reboot" => AFTER_REBOOT,
        "after-power-cut" => AFTER_POWER_CUT,
        "churn" => churn(),
        "churning" => &[("churning", churning as fn())],
        _ => {
            eprintln!(
                "usage: reboot before|after-reboot|churn|churning|after-power-cut, in the VM (vagrant/vm.sh reboot)"
            );
            return ExitCode::from(2);
        }
    };
    // Each scene in a process of its own: this binary aborts on a panic, as rrun does.
    if let Some(wanted) = std::env::args().nth(2) {
        scenes.iter().filter(|(name, _)| *name == wanted).for_each(|(_, scene)| scene());
        return ExitCode::SUCCESS;
    }
    let mut failed = 0;
    for (name, _) in scenes {
        let this = std::env::current_exe().expect("/proc");
        let ok = Command::new(this).args([&act, *name]).status().expect("started").success();
        println!("{} reboot::{name}", if ok { "ok      " } else { "FAILED  " });
        failed += u8::from(!ok);
    }
    println!("{} passed, {failed} failed", scenes.len() - usize::from(failed));
    ExitCode::from(u8::from(failed > 0))
}

fn rrun(args: &[&str]) -> Ran {
    let mut c = Command::new(BIN);
    c.args(args);
    run(c)
}

#[track_caller]
fn ok(args: &[&str]) -> String {
    let ran = rrun(args);
    assert_eq!(ran.code, 0, "rrun {args:?}\nstdout: {}\nstderr: {}", ran.stdout, ran.stderr);
    ran.stdout.trim_end().to_string()
}

#[track_caller]
fn sh(script: &str) -> String {
    let mut c = Command::new("sh");
    c.args(["-ec", script]);
    let ran = run(c);
    assert_eq!(ran.code, 0, "{script}\nstdout: {}\nstderr: {}", ran.stdout, ran.stderr);
    ran.stdout.trim_end().to_string()
}

#[track_caller]
fn inspect(name: &str) -> Value {
    let text = ok(&["inspect", name]);
    let doc: Value = serde_json::from_str(&text).expect("inspect prints JSON");
    doc[0].clone()
}

fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("a boot").trim().to_string()
}

/// The page of the web server there.
fn page(address: &str, port: u16) -> Option<String> {
    let mut c = Command::new("python3");
    let script = "import socket, sys; s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)\n\
         s.sendall(b'GET /page HTTP/1.0\\r\\n\\r\\n')\n\
         d = b''\n\
         while (b := s.recv(4096)): d += b\n\
         print(d.decode().split('\\r\\n\\r\\n')[1], end='')";
    c.args(["-c", script, address, &port.to_string()]);
    let ran = run(c);
    (ran.code == 0).then(|| ran.stdout.trim().to_string())
}

/// That of container `web`, through the port it publishes.
fn published() -> Option<String> {
    page("127.0.0.1", 8080)
}

fn is_running(name: &str) -> Option<()> {
    (inspect(name)["State"]["Status"] == "running").then_some(())
}

// ---- before

/// Without apparmor_parser a container starts all the same, and says what it goes without.
fn a_first_run_loads_what_a_boot_forgets() {
    ok(&["import", "--change", r#"CMD ["sh"]"#, ROOTFS, "busybox"]);
    let loaded = || sh("cat /sys/kernel/security/apparmor/profiles").contains("rrun-default");
    assert!(!loaded(), "a fresh boot");
    let ran = without_the_parser(&LABEL);
    assert_eq!((ran.code, ran.stdout.trim()), (0, "unconfined"), "{}", ran.stderr);
    assert!(ran.stderr.contains("package apparmor"), "{}", ran.stderr);
    assert!(!loaded());

    assert_eq!(ok(&LABEL), "rrun-default (enforce)");
    assert!(loaded());
}

/// A container that says which profile it runs under.
const LABEL: [&str; 7] = ["run", "--rm", "--network", "none", "busybox", "cat", "/proc/self/attr/current"];

fn without_the_parser(args: &[&str]) -> Ran {
    // Covered by a device node, which is no program.
    let mut c = Command::new("unshare");
    c.args(["-m", "sh", "-ec", "mount --bind /dev/null /usr/sbin/apparmor_parser; exec \"$@\"", "sh", BIN]).args(args);
    run(c)
}

/// An update changes what containers may do from the next start on, not from the next boot on.
fn a_newer_rrun_replaces_the_profile() {
    let children = || sh("grep '^rrun-default//' /sys/kernel/security/apparmor/profiles || true");
    let ours = children();
    assert_eq!(ours.lines().count(), 1, "{ours}");
    let mounts = ["run", "--rm", "--cap-add", "SYS_ADMIN", "busybox", "mount", "-t", "tmpfs", "none", "/tmp"];
    // What other rruns may have left: one of before there were marks, and one with its own.
    for child in ["", "profile text-0badcafe { }"] {
        let older = format!(
            "profile rrun-default flags=(attach_disconnected,mediate_deleted) {{\n file,\n capability,\n network,\n \
             signal,\n mount,\n umount,\n {child}\n}}"
        );
        // Otherwise its mark would be handed on.
        sh(&format!(
            "printf %s '{}' > /sys/kernel/security/apparmor/.remove",
            ours.split(' ').next().unwrap_or_default()
        ));
        sh(&format!("apparmor_parser --replace --skip-cache <<'E'\n{older}\nE"));
        // As it is, where it cannot be replaced: better than none.
        let ran = without_the_parser(&LABEL);
        assert_eq!((ran.code, ran.stdout.trim()), (0, "rrun-default (enforce)"), "{}", ran.stderr);
        assert!(ran.stderr.contains("another rrun's") && ran.stderr.contains("package apparmor"), "{}", ran.stderr);
        assert_eq!(without_the_parser(&mounts).code, 0, "the older one lets containers mount");

        let ran = rrun(&mounts);
        assert!(ran.code != 0 && ran.stderr.contains("Permission denied"), "ours does not: {ran:?}");
        assert_eq!(children(), ours, "and only its mark is there");
    }
    // Once replaced, it stays: the parser is not called again.
    assert_eq!(without_the_parser(&LABEL).stderr, "");
}

fn a_machine_with_containers() {
    ok(&["network", "create", "--subnet", "172.30.7.0/24", "--label", "kept=yes", "front"]);
    ok(&["network", "create", "back"]);
    let publish = [
        "run",
        "-d",
        "--name",
        "web",
        "--network",
        "front",
        "--ip",
        "172.30.7.77",
        "-p",
        "8080:80",
        "-v",
        "data:/data",
    ];
    let serve = ["busybox", "sh", "-c", "echo written >>/data/log; echo page >/tmp/page; exec httpd -f -p 80 -h /tmp"];
    ok(&[&publish[..], &serve].concat());
    ok(&["run", "-d", "--name", "plain", "busybox", "sleep", "1000"]);
    ok(&["run", "-d", "--name", "named", "--network", "back", "--network-alias", "alias", "busybox", "sleep", "1000"]);
    ok(&["run", "-d", "--rm", "--name", "passing", "busybox", "sleep", "1000"]);
    assert_eq!(rrun(&["run", "--name", "done", "busybox", "sh", "-c", "echo last words; exit 3"]).code, 3);
    ok(&["create", "--name", "waiting", "busybox", "true"]);
    // The unit is the package's, with another place for the binary.
    let unit = include_str!("../../../cli/dist/rrun.service").replace("/usr/bin/rrun", BIN);
    std::fs::write("/etc/systemd/system/rrun.service", unit).expect("written");
    sh("systemctl --quiet enable rrun.service");
    ok(&["run", "-d", "--restart", "always", "--name", "always", "busybox", "sleep", "1000"]);
    ok(&["run", "-d", "--restart", "unless-stopped", "--name", "halted", "busybox", "sleep", "1000"]);
    ok(&["stop", "-t", "1", "halted"]);
    assert_eq!(eventually("the page", published), "page");
    let notes = serde_json::json!({
        "boot": boot_id(),
        "networks": ok(&["network", "ls", "-q", "--no-trunc"]),
        "plain": inspect("plain")["NetworkSettings"]["Networks"]["bridge"]["IPAddress"],
        "web": inspect("web")["Id"],
    });
    std::fs::write(NOTES, notes.to_string()).expect("written");
    sh("sync");
}

/// A tagged interface, the host's own device beside the containers', and a dummy: the reboot takes them all.
fn containers_on_the_lan() {
    let tagged = ["-o", "parent=eth0.50", "-o", "host_access=true", "--aux-address", "host=10.50.0.250"];
    ok(&[&["network", "create", "-d", "macvlan", "--subnet", "10.50.0.0/24"], &tagged[..], &["lan"]].concat());
    ok(&["network", "create", "-d", "ipvlan", "--subnet", "10.51.0.0/24", "inner"]);
    let run = |name, network, ip, policy, rest: &[&str]| {
        let flags = ["--network", network, "--ip", ip, "--restart", policy, "--stop-signal", "KILL"];
        ok(&[&["run", "-d", "--name", name], &flags[..], rest].concat())
    };
    let serve = ["busybox", "sh", "-c", "echo lan >/tmp/page; exec httpd -f -p 80 -h /tmp"];
    run("lan", "lan", "10.50.0.20", "always", &[&["--mac-address", "02:42:0a:32:00:14"], &serve[..]].concat());
    run("inner", "inner", "10.51.0.20", "unless-stopped", &["busybox", "sleep", "1000"]);
    the_lan_is_as_before();
    sh("sync");
}

fn the_lan_is_as_before() {
    for name in ["lan", "inner"] {
        eventually("a restart policy has started it", || is_running(name));
    }
    assert_eq!(eventually("the host reaches the LAN's container", || page("10.50.0.20", 80)), "lan");
    assert_eq!(inspect("lan")["NetworkSettings"]["Networks"]["lan"]["MacAddress"], "02:42:0a:32:00:14");
    assert!(ok(&["exec", "lan", "ip", "link", "show", "eth0"]).contains("02:42:0a:32:00:14"));
    assert!(sh("ip -d link show eth0.50").contains("vlan protocol 802.1Q id 50"));
    let id = |network| ok(&["network", "inspect", "--format", "{{.Id}}", network])[..12].to_string();
    assert!(sh(&format!("ip -o addr show hs-{}", id("lan"))).contains("10.50.0.250/32"));
    assert!(sh(&format!("ip -d link show di-{}", id("inner"))).contains("dummy"));
    let found =
        ok(&["run", "--rm", "--network", "inner", "busybox", "sh", "-ec", "nslookup inner; ping -c 1 -W 9 inner"]);
    assert!(found.contains("10.51.0.20"), "{found}");
}

fn notes() -> Value {
    serde_json::from_str(&std::fs::read_to_string(NOTES).expect("the act before")).expect("JSON")
}

// ---- after the reboot

fn containers_have_ended_and_rm_ones_are_gone() {
    assert_ne!(notes()["boot"], boot_id(), "this is no other boot");
    for name in ["web", "plain", "named"] {
        let state = &inspect(name)["State"];
        // An orderly shutdown ends the monitors, and they their containers, as Docker's daemon does.
        let code = state["ExitCode"].as_i64();
        assert!(state["Status"] == "exited" && [Some(137), Some(143), Some(255)].contains(&code), "{name}: {state}");
        assert_eq!(state["Pid"], 0);
    }
    let line = ok(&["ps", "-a", "--filter", "name=^web$", "--format", "{{.Status}}"]);
    assert!(line.starts_with("Exited (") && line.ends_with(" ago"), "{line}");
    assert_eq!(inspect("done")["State"]["ExitCode"], 3);
    assert_eq!(inspect("waiting")["State"]["Status"], "created");
    assert_eq!(ok(&["logs", "done"]), "last words");
    assert_ne!(rrun(&["inspect", "passing"]).code, 0, "--rm holds across a reboot");
}

/// Nothing of the last boot is taken for something of this one.
fn the_kernel_and_the_volatile_state_agree() {
    let up = ok(&["ps", "-q", "--filter", "network=bridge"]);
    for dir in ["networks", "ports", "containers"] {
        let left = sh(&format!(
            "find /run/rrun/{dir} -type f -path '*lease*' -o -type f -path '*/ports/*' 2>/dev/null || true"
        ));
        let owned = left.lines().filter(|f| !f.ends_with("lock")).count();
        assert!(!up.is_empty() || owned == 0, "no container runs, and yet: {left}");
    }
    let veths = sh("ip -br link | grep -c '^veth' || true");
    assert_eq!(veths, up.lines().count().to_string());
}

fn names_volumes_and_networks_are_still_there() {
    let taken = rrun(&["create", "--name", "web", "busybox", "true"]);
    assert_ne!(taken.code, 0);
    assert!(taken.stderr.contains("already in use"), "{}", taken.stderr);
    assert_eq!(notes()["networks"], ok(&["network", "ls", "-q", "--no-trunc"]));
    let front: Value = serde_json::from_str(&ok(&["network", "inspect", "front"])).expect("JSON");
    assert_eq!(front[0]["Labels"]["kept"], "yes");
    assert_eq!(front[0]["IPAM"]["Config"][0]["Subnet"], "172.30.7.0/24");
    let seen = ok(&["run", "--rm", "-v", "data:/data", "busybox", "cat", "/data/log"]);
    assert_eq!(seen, "written");
    // Addresses of what does not run are not in use, but a container that asked for one keeps the claim
    // to start with it: a neighbour without wishes does not get in its way.
    let ip = ok(&["run", "--rm", "--network", "front", "busybox", "sh", "-c", "ip -4 -o addr show eth0"]);
    assert!(ip.contains("172.30.7.") && !ip.contains("172.30.7.77/"), "{ip}");
}

fn restart_always_comes_back_at_boot() {
    eventually("the container with --restart always", || is_running("always"));
    assert_eq!(inspect("halted")["State"]["Status"], "exited", "it was stopped before the reboot");
    assert_eq!(inspect("plain")["State"]["Status"], "exited", "it has no policy");
    assert_eq!(ok(&["boot"]), "", "the unit has done it");
    ok(&["rm", "-f", "always", "halted"]);
}

fn start_works_as_before() {
    ok(&["start", "web", "plain", "named"]);
    assert_eq!(eventually("the page", published), "page");
    let web = inspect("web");
    assert_eq!(web["Id"], notes()["web"]);
    assert_eq!(web["NetworkSettings"]["Networks"]["front"]["IPAddress"], "172.30.7.77");
    assert_eq!(ok(&["exec", "web", "sh", "-c", "wc -l </data/log"]).trim(), "2");
    // The bridge is back with its gateway, the port with its reservation, the name with its answer.
    let front = ok(&["network", "inspect", "--format", "{{.Id}}", "front"]);
    assert!(sh(&format!("ip -4 -o addr show dev br-{}", &front[..12])).contains("172.30.7.1/24"));
    let clash = rrun(&["run", "--rm", "-p", "8080:80", "busybox", "true"]);
    assert!(clash.code != 0 && clash.stderr.contains("8080"), "{clash:?}");
    ok(&["run", "--rm", "--network", "back", "busybox", "nslookup", "alias"]);
    assert_eq!(inspect("plain")["NetworkSettings"]["Networks"]["bridge"]["IPAddress"], notes()["plain"]);
    ok(&["exec", "plain", "ping", "-c", "1", "-W", "5", "172.17.0.1"]);
    sh("sync");
}

/// As an update of the package does, and an orderly shutdown.
fn the_unit_stops_and_starts_what_it_started() {
    sh("systemctl stop rrun.service");
    for name in ["lan", "inner", "web"] {
        assert_eq!(inspect(name)["State"]["Status"], "exited", "{name}");
    }
    sh("systemctl start rrun.service");
    the_lan_is_as_before();
    assert_eq!(inspect("web")["State"]["Status"], "exited", "it has no policy");
    ok(&["start", "web", "plain", "named"]);
    sh("sync");
}

// ---- the power cut

/// Containers and networks come and go until the power does.
fn churn() -> ! {
    for n in 0u64.. {
        let (name, network) = (format!("churn{n}"), format!("net{n}"));
        rrun(&["network", "create", &network]);
        rrun(&["run", "-d", "--name", &name, "--network", &network, "-p", "0:80", "busybox", "sleep", "1000"]);
        rrun(&["create", "--name", &format!("made{n}"), "busybox", "true"]);
        rrun(&["run", "--rm", "busybox", "true"]);
        if n >= 2 {
            rrun(&["rm", "-f", &format!("churn{}", n - 2), &format!("made{}", n - 2)]);
            rrun(&["network", "rm", &format!("net{}", n - 2)]);
        }
    }
    unreachable!("the power goes first")
}

/// The fourth round has begun, and nothing says where in it the power will go.
fn churning() {
    let begun = || {
        let names = ok(&["ps", "-a", "--format", "{{.Names}}"]);
        names.lines().any(|n| n == "churn3").then_some(())
    };
    for _ in 0..30 {
        if begun().is_some() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
    eventually("the fourth round", begun);
}

fn every_command_still_works() {
    for args in [
        &["ps", "-a"][..],
        &["images"],
        &["network", "ls"],
        &["run", "--rm", "busybox", "true"],
        &["run", "--rm", "--network", "front", "busybox", "true"],
        &["run", "--rm", "-p", "8081:80", "busybox", "true"],
    ] {
        ok(args);
    }
    for id in ok(&["ps", "-aq"]).lines() {
        let container = inspect(id);
        let status = container["State"]["Status"].as_str().unwrap_or_default();
        let policy = container["HostConfig"]["RestartPolicy"]["Name"].as_str().unwrap_or("no");
        let expected = if policy == "no" { &["created", "exited"][..] } else { &["running"] };
        assert!(expected.contains(&status), "{id}, policy {policy}: {status}");
    }
}

/// These were started before the last sync: nothing of them may be missing.
fn what_ran_is_told_and_starts_again() {
    for name in ["web", "plain", "named"] {
        assert_eq!(inspect(name)["State"]["ExitCode"], 255, "{name}");
    }
    ok(&["start", "web", "plain", "named"]);
    assert_eq!(eventually("the page", published), "page");
    assert_eq!(inspect("web")["NetworkSettings"]["Networks"]["front"]["IPAddress"], "172.30.7.77");
    assert_eq!(ok(&["logs", "done"]), "last words");
}

/// What was in the making when the power went is there, or gone; in either case its name can be had.
fn what_was_half_made_can_be_removed() {
    let names = ok(&["ps", "-a", "--format", "{{.Names}}"]);
    let churned: Vec<&str> = names.lines().filter(|n| n.starts_with("churn") || n.starts_with("made")).collect();
    for name in churned {
        ok(&["rm", "-f", name]);
    }
    let networks = ok(&["network", "ls", "--format", "{{.Name}}"]);
    let nets: Vec<&str> = networks.lines().filter(|n| n.starts_with("net")).collect();
    for network in nets {
        ok(&["network", "rm", network]);
    }
    for n in 0..8 {
        let (name, network) = (format!("churn{n}"), format!("net{n}"));
        ok(&["network", "create", &network]);
        ok(&["run", "-d", "--name", &name, "--network", &network, "busybox", "sleep", "1000"]);
        ok(&["rm", "-f", &name]);
        ok(&["network", "rm", &network]);
    }
}

fn nothing_is_left_of_it() {
    let all = ok(&["ps", "-aq"]);
    ok(&[&["rm", "-f", "-v"][..], &all.lines().collect::<Vec<_>>()].concat());
    ok(&["network", "prune", "-f"]);
    for (what, find) in [
        (
            "containers",
            "find /var/lib/rrun/containers /run/rrun/containers -mindepth 1 ! -name names ! -name '*lock' 2>/dev/null || true",
        ),
        ("links", "ip -br link | grep -E '^(veth|br-|hs-|d[im]-|eth0.50)' || true"),
        ("cgroups", "find /sys/fs/cgroup/rrun -mindepth 1 -type d ! -name monitors 2>/dev/null || true"),
        (
            "networks",
            "cd /var/lib/rrun/networks; grep -LiE '\"name\": ?\"(bridge|host|none)\"' *.json 2>/dev/null || true; \
             ls by-name | grep -vxE '(bridge|host|none)(.json)?' || true",
        ),
        ("ports", "find /run/rrun/ports -type f ! -name '*lock' 2>/dev/null || true"),
    ] {
        // Namespaces and their links die a moment later.
        let left = || sh(find).lines().filter(|l| !stays(l)).collect::<Vec<_>>().join("\n");
        for _ in 0..100 {
            if left().is_empty() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        assert_eq!(left(), "", "{what} left");
    }
    assert!(Path::new("/var/lib/rrun").exists());
}

/// The predefined networks have files, too.
fn stays(line: &str) -> bool {
    ["bridge", "host", "none"].iter().any(|n| line.contains(n))
}
