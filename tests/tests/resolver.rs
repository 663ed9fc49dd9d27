//! The embedded resolver towards the outside: servers, cache, health, services, hostile clients; and
//! names of containers on the host.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rrun_tests::Host;
use rrun_tests::dns::{PROGRAM, Upstream, ask, mount};
use rrun_tests::host::{NEIGHBOUR, eventually};
use serde_json::Value;
use std::process::Stdio;

const SECOND: &str = "198.51.100.3";

/// A host whose resolv.conf names these servers, with network `n`.
fn host_with(servers: &[&str]) -> Host {
    let host = Host::new().with_lan();
    host.neighbour(&format!("ip addr add {SECOND}/24 dev eth0"));
    resolv_conf(&host, servers);
    host.ok(&["network", "create", "--subnet", "10.9.0.0/24", "n"]);
    host
}

fn resolv_conf(host: &Host, servers: &[&str]) {
    let lines: String = servers.iter().map(|s| format!("nameserver {s}\\n")).collect();
    host.sh(&format!("printf '{lines}' > /etc/resolv.conf"));
}

fn sleeper(host: &Host, name: &str, flags: &[&str]) {
    let mount = mount();
    let mut args = vec!["run", "-d", "--name", name, "-v", &mount];
    args.extend(flags);
    args.extend(["busybox", "sleep", "1000"]);
    host.ok(&args);
}

fn counters(host: &Host, container: &str) -> Value {
    let text = host.ok(&["inspect", "-f", "{{json .NetworkSettings.DNS}}", container]);
    serde_json::from_str(&text).expect("JSON")
}

fn monitor_of(host: &Host, container: &str) -> i32 {
    let pid = host.ok(&["inspect", "-f", "{{.State.Pid}}", container]);
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
    stat.rsplit(") ").next().and_then(|s| s.split(' ').nth(1)?.parse().ok()).expect("a parent")
}

#[test]
fn answers_are_remembered_as_long_as_they_say() {
    let host = host_with(&[NEIGHBOUR]);
    let upstream = Upstream::on_neighbour(&host, NEIGHBOUR, &["long.test=203.0.113.1/300", "short.test=203.0.113.2/1"]);
    sleeper(&host, "cc", &["--network", "n"]);
    assert_eq!(ask(&host, "cc", "long.test", "A", &[]), "NOERROR 203.0.113.1/300");
    let again = ask(&host, "cc", "LONG.test", "A", &["tcp"]);
    assert!(again.starts_with("NOERROR 203.0.113.1/") && again.as_str() <= "NOERROR 203.0.113.1/300", "{again}");
    for _ in 0..2 {
        assert_eq!(ask(&host, "cc", "none.test", "A", &[]), "NXDOMAIN");
        assert_eq!(ask(&host, "cc", "long.test", "AAAA", &[]), "NOERROR", "nothing says how long that holds");
    }
    ask(&host, "cc", "short.test", "A", &[]);
    eventually("a second is over", || {
        ask(&host, "cc", "short.test", "A", &[]);
        (upstream.asked().iter().filter(|q| *q == "udp short.test A").count() == 2).then_some(())
    });
    let asked = |what: &str| upstream.asked().iter().filter(|q| q.as_str() == what).count();
    assert_eq!((asked("udp long.test A"), asked("tcp LONG.test A")), (1, 0), "{:?}", upstream.asked());
    assert_eq!((asked("udp none.test A"), asked("udp long.test AAAA")), (1, 2), "{:?}", upstream.asked());
    let c = counters(&host, "cc");
    let number = |key: &str| c[key].as_u64().unwrap_or_else(|| panic!("{key} in {c}"));
    assert_eq!(
        number("Queries"),
        number("Local") + number("CacheHits") + number("Forwarded") + number("Refused"),
        "{c}"
    );
    assert!(number("CacheHits") >= 2 && number("Forwarded") >= 6 && number("Failures") == 0, "{c}");
    // Other servers say otherwise: from the next question on.
    let _second = Upstream::on_neighbour(&host, SECOND, &["long.test=203.0.113.99/300"]);
    resolv_conf(&host, &[SECOND]);
    eventually("the new server answers", || {
        ask(&host, "cc", "long.test", "A", &[]).starts_with("NOERROR 203.0.113.99/").then_some(())
    });
}

#[test]
fn several_servers_race_and_a_dead_one_costs_nobody_seconds() {
    let host = host_with(&[NEIGHBOUR, SECOND]);
    let silent = Upstream::on_neighbour(&host, NEIGHBOUR, &["silent"]);
    let good = Upstream::on_neighbour(&host, SECOND, &["web.test=203.0.113.1/300", "two.test=203.0.113.2/300"]);
    sleeper(&host, "cc", &["--network", "n"]);
    assert_eq!(ask(&host, "cc", "web.test", "A", &[]), "NOERROR 203.0.113.1/300");
    assert_eq!(ask(&host, "cc", "none.test", "A", &[]), "NXDOMAIN");
    assert!(!silent.asked().is_empty() && good.asked().len() == 2, "both were asked");
    // From now on the silent one comes last, and is spared where the other answers at once.
    for n in 0..10 {
        assert_eq!(ask(&host, "cc", &format!("other{n}.test"), "A", &[]), "NXDOMAIN");
    }
    let spared = (0..10).any(|n| !silent.asked().iter().any(|q| q.contains(&format!("other{n}.test"))));
    assert!(spared, "{:?}", silent.asked());
    drop(silent);
    // One that refuses is no answer either.
    let _refuses = Upstream::on_neighbour(&host, NEIGHBOUR, &["refuse"]);
    assert_eq!(ask(&host, "cc", "two.test", "A", &["tcp"]), "NOERROR 203.0.113.2/300");
    assert_eq!(counters(&host, "cc")["Failures"], 0);
}

#[test]
fn what_the_first_server_knows_is_not_denied_by_the_second() {
    let host = host_with(&[NEIGHBOUR, SECOND]);
    // The first takes longer than its head start, and the other denies what it does not know at once.
    let names: Vec<String> = (0..10).map(|i| format!("intern{i}.test=10.1.1.1/60")).collect();
    let records: Vec<&str> = ["slow"].into_iter().chain(names.iter().map(String::as_str)).collect();
    let _first = Upstream::on_neighbour(&host, NEIGHBOUR, &records);
    let other = Upstream::on_neighbour(&host, SECOND, &[]);
    sleeper(&host, "cc", &["--network", "n"]);
    // On a busy machine it may once take too long, and count as dead for that question.
    let known = (0..10).any(|i| ask(&host, "cc", &format!("intern{i}.test"), "A", &[]) == "NOERROR 10.1.1.1/60");
    assert!(known && !other.asked().is_empty(), "{:?}", other.asked());
}

#[test]
fn large_answers_come_by_tcp() {
    let host = host_with(&[NEIGHBOUR]);
    let upstream = Upstream::on_neighbour(&host, NEIGHBOUR, &["big.test=many/300"]);
    sleeper(&host, "cc", &["--network", "n"]);
    assert_eq!(ask(&host, "cc", "big.test", "A", &[]), "NOERROR TC");
    let all = ask(&host, "cc", "big.test", "A", &["tcp"]);
    assert_eq!(all.split(' ').count(), 201, "{all}");
    assert_eq!(upstream.asked(), ["udp big.test A", "tcp big.test A"]);
    // Local names too: as much as the client can take, and all of it by TCP.
    let ids: Vec<String> = (0..40)
        .map(|_| host.ok(&["run", "-d", "--network", "n", "--network-alias", "pool", "busybox", "sleep", "1000"]))
        .collect();
    assert_eq!(ids.len(), 40);
    let short = ask(&host, "cc", "pool", "A", &[]);
    assert!(short.starts_with("NOERROR TC 10.9.0.") && short.split(' ').count() < 40, "{short}");
    for how in ["tcp", "edns"] {
        assert_eq!(ask(&host, "cc", "pool", "A", &[how]).split(' ').count(), 41, "{how}");
    }
}

#[test]
fn services_mail_and_other_types() {
    let host = host_with(&[NEIGHBOUR]);
    let upstream = Upstream::on_neighbour(&host, NEIGHBOUR, &[]);
    sleeper(&host, "cc", &["--network", "n"]);
    host.ok(&["run", "-d", "--network", "n", "--name", "db", "busybox", "sleep", "1000"]);
    assert_eq!(ask(&host, "cc", "_5432._tcp.db", "SRV", &[]), "NOERROR 5432 db/1");
    assert_eq!(ask(&host, "cc", "_5432._tcp.db.n", "SRV", &["tcp"]), "NOERROR 5432 db.n/1");
    for (name, kind) in [("db", "MX"), ("db", "TXT"), ("db", "AAAA"), ("_postgres._tcp.db", "SRV"), ("db", "65280")] {
        assert_eq!(ask(&host, "cc", name, kind, &[]), "NOERROR", "{name} {kind}: known, but nothing of that kind");
    }
    assert_eq!(upstream.asked(), [] as [&str; 0], "what containers are called is nobody's business");
    for (name, kind) in [("elsewhere.test", "TXT"), ("_5432._tcp.elsewhere.test", "SRV"), ("elsewhere.test", "65280")] {
        assert_eq!(ask(&host, "cc", name, kind, &[]), "NXDOMAIN", "{name} {kind}");
    }
    let asked = ["udp elsewhere.test TXT", "udp _5432._tcp.elsewhere.test SRV", "udp elsewhere.test TYPE65280"];
    assert_eq!(upstream.asked(), asked);
}

#[test]
fn a_network_has_servers_of_its_own() {
    let host = host_with(&[NEIGHBOUR]);
    let of_host = Upstream::on_neighbour(&host, NEIGHBOUR, &["web.test=203.0.113.1/300"]);
    let of_network = Upstream::on_neighbour(&host, SECOND, &["web.test=203.0.113.2/300"]);
    host.ok(&["network", "create", "--dns", SECOND, "corp"]);
    assert_eq!(host.ok(&["network", "inspect", "-f", "{{json .DNS}}", "corp"]), format!("[\"{SECOND}\"]"));
    sleeper(&host, "cc", &["--network", "corp"]);
    sleeper(&host, "own", &["--network", "corp", "--dns", NEIGHBOUR]);
    assert_eq!(ask(&host, "cc", "web.test", "A", &[]), "NOERROR 203.0.113.2/300");
    assert_eq!(of_host.asked().len(), 0);
    assert_eq!(ask(&host, "own", "web.test", "A", &[]), "NOERROR 203.0.113.1/300", "--dns comes first");
    // While it runs.
    host.ok(&["network", "update", "--dns-add", NEIGHBOUR, "--dns-drop", SECOND, "corp"]);
    eventually("the other server is asked", || {
        (ask(&host, "cc", "web.test", "A", &[]).starts_with("NOERROR 203.0.113.1/")).then_some(())
    });
    assert_eq!(of_network.asked().len(), 1);
    let e = host.fails(125, &["network", "create", "--dns", "nonsense", "m"]);
    assert!(e.contains("IP address is not correctly formatted: nonsense"), "{e}");
}

/// CVE-2024-29018, and aardvark's: whatever is asked, by whichever protocol, stays inside.
#[test]
fn internal_networks_leak_no_question() {
    let host = host_with(&["127.0.0.53"]);
    let local = Upstream::on_host(&host, "127.0.0.53", &["web.test=203.0.113.1/300"]);
    host.ok(&["network", "create", "--internal", "closed"]);
    sleeper(&host, "shut", &["--network", "closed"]);
    sleeper(&host, "both", &["--network", "closed", "--network", "n"]);
    for how in [&[][..], &["tcp"], &["edns"]] {
        assert_eq!(ask(&host, "shut", "web.test", "A", how), "REFUSED");
        assert_eq!(ask(&host, "shut", "secret.evil.test", "TXT", how), "REFUSED");
    }
    assert_eq!(local.asked(), [] as [&str; 0]);
    assert!(ask(&host, "shut", "both", "A", &[]).starts_with("NOERROR 172."), "its own names are answered");
    assert_eq!(ask(&host, "both", "web.test", "A", &[]), "NOERROR 203.0.113.1/300", "another network leads out");
    assert_eq!(local.asked(), ["udp web.test A"]);
    host.ok(&["network", "disconnect", "n", "both"]);
    assert_eq!(ask(&host, "both", "other.test", "A", &[]), "REFUSED");
    assert_eq!(local.asked().len(), 1);
    assert_eq!(counters(&host, "shut")["Refused"], 6);
}

/// CVE-2024-8418, CVE-2026-35406, RUSTSEC-2026-0118: one client cannot keep the others from their answers.
#[test]
fn hostile_clients_keep_nobody_from_an_answer() {
    let host = host_with(&[NEIGHBOUR]);
    let _upstream = Upstream::on_neighbour(&host, NEIGHBOUR, &["web.test=203.0.113.1/300"]);
    sleeper(&host, "cc", &["--network", "n"]);
    let monitor = monitor_of(&host, "cc");
    let mut bad =
        host.command(&["exec", "cc", PROGRAM, "hostile", "127.0.0.11"]).stdout(Stdio::piped()).spawn().expect("spawn");
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(bad.stdout.as_mut().expect("piped")), &mut line)
        .expect("its line");
    assert!(line.starts_with("done, "), "{line}");
    // Its idle connections are still open.
    for how in [&[][..], &["tcp"]] {
        assert!(ask(&host, "cc", "cc", "A", how).starts_with("NOERROR 10.9.0."));
        assert!(ask(&host, "cc", "web.test", "A", how).starts_with("NOERROR 203.0.113.1/"));
    }
    assert_eq!(monitor_of(&host, "cc"), monitor, "the same monitor");
    // And it does not burn the processor: its time stands still while nobody asks.
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{monitor}/stat")).expect("stat");
        let fields: Vec<u64> =
            stat.rsplit(") ").next().expect("fields").split(' ').filter_map(|f| f.parse().ok()).collect();
        // utime and stime, of the fields that are numbers, behind the state.
        fields[10] + fields[11]
    };
    eventually("it is idle", || {
        let before = ticks();
        std::thread::sleep(std::time::Duration::from_millis(200));
        (ticks() <= before + 1).then_some(())
    });
    bad.kill().expect("killed");
    bad.wait().expect("waited");
}

/// CVE-2025-8283 and name squatting: short names are ours, first and only.
#[test]
fn names_of_containers_reach_no_search_domain() {
    let host = host_with(&[NEIGHBOUR]);
    host.sh("echo search corp.test >> /etc/resolv.conf");
    let records = ["web.corp.test=203.0.113.66/300", "web=203.0.113.67/300"];
    let upstream = Upstream::on_neighbour(&host, NEIGHBOUR, &records);
    sleeper(&host, "cc", &["--network", "n"]);
    host.ok(&["run", "-d", "--network", "n", "--name", "web", "--ip", "10.9.0.77", "busybox", "sleep", "1000"]);
    // The C library's way: as it stands first (ndots:0), and our answer is the last word.
    let found = host.ok(&["exec", "cc", "ping", "-c", "1", "web"]);
    assert!(found.contains("10.9.0.77"), "{found}");
    assert_eq!(upstream.asked(), [] as [&str; 0]);
    assert_eq!(ask(&host, "cc", "web.corp.test", "A", &[]), "NOERROR 203.0.113.66/300", "a name that was spelt out");
    // An alias counts on its own network only.
    host.ok(&["network", "create", "other"]);
    host.ok(&["run", "-d", "--network", "other", "--network-alias", "cc", "--name", "xx", "busybox", "sleep", "1000"]);
    assert!(ask(&host, "cc", "cc", "A", &[]).starts_with("NOERROR 10.9.0.2/"));
    for name in ["a b", "*", "a\nb", "-x", &"x".repeat(300)] {
        host.refuses(&["create", "--network", "n", "--name", name, "busybox"]);
    }
}

#[test]
fn names_are_answered_again_after_the_monitor_was_killed() {
    let host = host_with(&[NEIGHBOUR]);
    let _upstream = Upstream::on_neighbour(&host, NEIGHBOUR, &["web.test=203.0.113.1/300"]);
    sleeper(&host, "cc", &["--network", "n"]);
    let monitor = monitor_of(&host, "cc");
    assert!(ask(&host, "cc", "web.test", "A", &[]).starts_with("NOERROR"));
    kill(Pid::from_raw(monitor), Signal::SIGKILL).expect("killed");
    // A process that is killed is not gone at once, and nobody takes over from the living.
    eventually("it is gone", || std::fs::read_link(format!("/proc/{monitor}/exe")).is_err().then_some(()));
    host.ok(&["ps"]);
    for how in [&[][..], &["tcp"]] {
        assert!(ask(&host, "cc", "cc", "A", how).starts_with("NOERROR 10.9.0.2/"));
        assert!(ask(&host, "cc", "web.test", "A", how).starts_with("NOERROR 203.0.113.1/"));
    }
}

#[test]
fn shared_names_lead_past_the_unhealthy() {
    let host = host_with(&[]);
    sleeper(&host, "cc", &["--network", "n"]);
    let check = ["--health-cmd", "test ! -e /sick", "--health-interval", "50ms", "--health-retries", "1"];
    for name in ["one", "two"] {
        let flags = ["run", "-d", "--network", "n", "--network-alias", "pool", "--name", name];
        host.ok(&[&flags[..], &check, &["busybox", "sleep", "1000"]].concat());
    }
    let count = |name: &str| ask(&host, "cc", name, "A", &[]).split(' ').count() - 1;
    let becomes = |name: &str, health: &str| {
        eventually(health, || (host.ok(&["inspect", "-f", "{{.State.Health.Status}}", name]) == health).then_some(()));
    };
    assert_eq!(count("pool"), 2, "one that is starting counts");
    becomes("one", "healthy");
    host.ok(&["exec", "one", "touch", "/sick"]);
    becomes("one", "unhealthy");
    eventually("the sick one is left out", || (count("pool") == 1).then_some(()));
    let two = host.ok(&["inspect", "-f", "{{.NetworkSettings.Networks.n.IPAddress}}", "two"]);
    assert_eq!(ask(&host, "cc", "pool", "A", &[]), format!("NOERROR {two}/1"));
    assert_eq!(count("one"), 1, "its own name is still its own");
    host.ok(&["exec", "two", "touch", "/sick"]);
    eventually("all are sick: any is better than none", || (count("pool") == 2).then_some(()));
    host.ok(&["exec", "one", "rm", "/sick"]);
    eventually("the first has recovered", || (count("pool") == 1).then_some(()));
}

/// An /etc of the host's own, so that the machine's is not touched.
fn own_etc(host: &Host, config: &str) -> impl Fn() -> String {
    let dir = host.dir.display();
    host.sh(&format!(
        "mkdir {dir}/etc-upper {dir}/etc-work; \
         mount -t overlay -o lowerdir=/etc,upperdir={dir}/etc-upper,workdir={dir}/etc-work overlay /etc; \
         printf '127.0.0.1\\tlocalhost taken\\n' > /etc/hosts; printf '{config}' > {dir}/config.toml"
    ));
    || host.sh("cat /etc/hosts")
}

#[test]
fn the_host_knows_its_containers_by_name() {
    let host = Host::new();
    let hosts = own_etc(&host, "[network]\\nhost-names = true\\n");
    let own = hosts();
    host.ok(&["network", "create", "--ipv6", "--subnet", "10.9.0.0/24", "--subnet", "fd09::/64", "n"]);
    host.ok(&["run", "-d", "--network", "n", "--name", "web", "busybox", "sleep", "1000"]);
    host.ok(&["run", "-d", "--name", "plain", "busybox", "sleep", "1000"]);
    host.ok(&["run", "-d", "--network", "n", "--name", "taken", "busybox", "sleep", "1000"]);
    let resolved = |name: &str| host.try_sh(&format!("getent ahosts {name}")).stdout;
    assert!(resolved("web").contains("10.9.0.2") && resolved("web.n").contains("fd09::2"), "{}", hosts());
    assert!(resolved("plain").contains("172.17.0.2"), "{}", hosts());
    assert!(resolved("taken").contains("127.0.0.1") && !resolved("taken").contains("10.9.0.3"), "{}", hosts());
    assert!(resolved("taken.n").contains("10.9.0.3"), "{}", hosts());
    host.ok(&["network", "create", "m"]);
    host.ok(&["network", "connect", "m", "web"]);
    assert!(hosts().contains("web.m"), "{}", hosts());
    host.ok(&["network", "disconnect", "m", "web"]);
    assert!(!hosts().contains("web.m"), "{}", hosts());
    host.sh("echo 192.0.2.1 mine >> /etc/hosts");
    // Killed together with its monitor, it leaves too: with the next command that looks.
    let monitor = monitor_of(&host, "web");
    let pid: i32 = host.ok(&["inspect", "-f", "{{.State.Pid}}", "web"]).parse().expect("a pid");
    kill(Pid::from_raw(monitor), Signal::SIGKILL).expect("killed");
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("killed");
    eventually("its names are gone", || {
        host.ok(&["ps"]);
        (!hosts().contains("web")).then_some(())
    });
    host.ok(&["rm", "-f", "plain", "taken", "web"]);
    assert_eq!(hosts(), format!("{own}\n192.0.2.1 mine"), "as if nothing had been");
    // A start says so.
    let plan = host.ok(&["explain", "run", "busybox", "true"]);
    assert!(plan.contains("tell the host the container's name, in /etc/hosts"), "{plan}");
    host.sh("umount /etc");
}

#[test]
fn the_hosts_file_is_left_alone_unless_asked() {
    let host = Host::new();
    let hosts = own_etc(&host, "");
    let own = hosts();
    host.ok(&["run", "-d", "--name", "web", "busybox", "sleep", "1000"]);
    assert_eq!(hosts(), own);
    host.sh("umount /etc");
}
