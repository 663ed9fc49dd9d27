//! The benchmark table. Every row of rrun's runs on a simulated host, its peers' in namespaces of their
//! own: all share the conditions of one machine and one moment.
//!
//! `bench time N PAUSE PROGRAM ARG...` is what is measured with: it runs in the world concerned and says
//! the median of N runs. Entering that world for each run would cost more than most runs do: on cgroup
//! v1 a grace period for every hierarchy.

mod peers;

use rrun_tests::Host;
use rrun_tests::peer::{call, serve};
use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Programs in the order of the columns.
const PROGRAMS: [&str; 5] = ["rrun", "docker", "podman", "runc", "crun"];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, n, pause, program @ ..] = &args[..]
        && mode == "time"
    {
        return time(n.parse().expect("a count"), pause.parse().expect("milliseconds"), program);
    }
    let mut table = Table::default();
    let host = Host::new();
    eprintln!("measuring; a minute or two");
    starts(&host, &mut table);
    ports(&host, &mut table);
    many(&host, &mut table);
    idle(&host, &mut table);
    names(&host, &mut table);
    pull(&host, &mut table);
    peers::starts(&mut table);
    table.print();
}

#[derive(Default)]
struct Table {
    rows: Vec<String>,
    cells: BTreeMap<(String, &'static str), String>,
}

impl Table {
    fn put(&mut self, row: &str, program: &'static str, value: String) {
        if !self.rows.iter().any(|r| r == row) {
            self.rows.push(row.to_string());
        }
        self.cells.insert((row.to_string(), program), value);
    }

    fn print(&self) {
        let used: Vec<&str> =
            PROGRAMS.into_iter().filter(|p| self.cells.keys().any(|(_, program)| program == p)).collect();
        print!("{:<44}", "");
        for p in &used {
            print!("{p:>16}");
        }
        println!();
        for row in &self.rows {
            print!("{row:<44}");
            for p in &used {
                print!("{:>16}", self.cells.get(&(row.clone(), *p)).map_or("-", String::as_str));
            }
            println!();
        }
    }
}

const NONE: &str = "run --rm --network none, median of 50";
const BRIDGE: &str = "run --rm (bridge), median of 50";
const PORT: &str = "run --rm -p 8080:80, median of 50";
const RANGE: &str = "run --rm, 500 ports as a range, median of 20";

fn ms(d: Duration) -> String {
    format!("{:.1} ms", d.as_secs_f64() * 1000.0)
}

/// The median of `n` runs of `program`, in microseconds, to standard output.
fn time(n: usize, pause: u64, program: &[String]) {
    let mut times: Vec<u128> = (0..n)
        .map(|_| {
            let mut command = Command::new(&program[0]);
            command.args(&program[1..]).stdin(Stdio::null()).stdout(Stdio::null());
            let begin = Instant::now();
            let status = command.status().expect("spawn");
            let taken = begin.elapsed().as_micros();
            assert!(status.success(), "{program:?}: {status}");
            std::thread::sleep(Duration::from_millis(pause));
            taken
        })
        .collect();
    times.sort_unstable();
    println!("{}", times[n / 2]);
}

/// A program to be run `n` times where `enter` puts it; its median.
fn median(n: usize, program: &[&str], enter: impl FnOnce(&mut Command)) -> Option<Duration> {
    // The pause of a person: the run before has let go of its firewall socket.
    let pause = "80";
    let mut command = Command::new(std::env::current_exe().expect("our own path"));
    command.args(["time", &n.to_string(), pause]).args(program).stdin(Stdio::null());
    enter(&mut command);
    let out = command.output().expect("spawn");
    let micros = String::from_utf8_lossy(&out.stdout).trim().parse().ok();
    if micros.is_none() {
        eprintln!("not measured: {}: {}", program.join(" "), String::from_utf8_lossy(&out.stderr).trim());
    }
    micros.map(Duration::from_micros)
}

/// `rrun ARGS` on the host.
fn rrun(host: &Host, n: usize, args: &[&str]) -> String {
    let program = rrun_tests::host::env("RRUN_BIN");
    median(n, &[&[program.as_str()], args].concat(), |c| host.enter(c)).map_or("failed".into(), ms)
}

fn starts(host: &Host, table: &mut Table) {
    for (row, n, flags) in [
        (NONE, 50, &["--network", "none"][..]),
        (BRIDGE, 50, &[]),
        (PORT, 50, &["-p", "8080:80"]),
        (RANGE, 20, &["-p", "9000-9499:9000-9499"]),
    ] {
        let args = [&["run", "--rm"], flags, &["busybox", "true"]].concat();
        host.ok(&args);
        table.put(row, "rrun", rrun(host, n, &args));
    }
}

fn ports(host: &Host, table: &mut Table) {
    let id = serve(host, &["-p", "7000:80"], 80, "x");
    let connects = |port: u16| {
        host.sh(&call("127.0.0.1", port).replace(" call ", " connects ").replacen(
            &port.to_string(),
            &format!("{port} 500"),
            1,
        ))
    };
    let one = connects(7000);
    table.put("port add with 1 published port", "rrun", port_added(host, &id));
    let mut ids = Vec::new();
    for k in 0..10 {
        let lo = 20_000 + k * 500;
        // Ports that differ inside and outside need an element each: 5,000 of them.
        let range = format!("{lo}-{}:{}-{}", lo + 499, 1000, 1499);
        ids.push(host.ok(&["run", "-d", "-p", &range, "busybox", "sleep", "1000"]));
    }
    let many = connects(7000);
    table.put("TCP connect p50 with 1 published port", "rrun", format!("{one} µs"));
    table.put("TCP connect p50 with 5,001 published ports", "rrun", format!("{many} µs"));
    let run = rrun(host, 20, &["run", "--rm", "-p", "8080:80", "busybox", "true"]);
    table.put("run --rm -p with 5,001 published ports", "rrun", run);
    table.put("port add with 5,001 published ports", "rrun", port_added(host, &id));
    ids.push(id);
    let refs: Vec<&str> = ids.iter().map(String::as_str).collect();
    host.ok(&[&["rm", "-f"], refs.as_slice()].concat());
}

/// `port add` of 20 ports, one after the other, on a running container: the median.
fn port_added(host: &Host, id: &str) -> String {
    let bin = rrun_tests::host::env("RRUN_BIN");
    // A port each, counted in a file: removing it in between would be measured with it.
    let count = host.dir.join("port");
    let count = count.display();
    let script = format!("n=$(cat {count}); echo $((n + 1)) >{count}; exec {bin} port add {id} $n:80");
    host.sh(&format!("echo 8100 >{count}"));
    let added = median(20, &["sh", "-ec", &script], |c| host.enter(c)).map_or("failed".into(), ms);
    host.sh(&format!("n=8100; while [ $n -lt 8120 ]; do {bin} port rm {id} $n:80; n=$((n + 1)); done"));
    added
}

fn many(host: &Host, table: &mut Table) {
    let begin = Instant::now();
    let children: Vec<_> = (0..100)
        .map(|_| {
            let mut c = host.command(&["run", "--rm", "busybox", "true"]);
            c.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("spawn")
        })
        .collect();
    let failed =
        children.into_iter().map(|c| c.wait_with_output().expect("wait")).filter(|o| !o.status.success()).count();
    table.put("100 × run --rm in parallel", "rrun", format!("{:.2} s, {failed} failed", begin.elapsed().as_secs_f64()));
    let begin = Instant::now();
    let ids: Vec<String> = (0..200).map(|_| host.ok(&["run", "-d", "busybox", "sleep", "1000"])).collect();
    table.put("200 detached on one bridge, one by one", "rrun", format!("{:.2} s", begin.elapsed().as_secs_f64()));
    let begin = Instant::now();
    host.ok(&["ps"]);
    table.put("ps with 200 running", "rrun", ms(begin.elapsed()));
    let begin = Instant::now();
    let refs: Vec<&str> = ids.iter().map(String::as_str).collect();
    host.ok(&[&["rm", "-f"], refs.as_slice()].concat());
    table.put("rm -f of the 200", "rrun", format!("{:.2} s", begin.elapsed().as_secs_f64()));
}

/// PSS of the monitor of an idle container, from smaps_rollup.
fn idle(host: &Host, table: &mut Table) {
    let id = host.ok(&["run", "-d", "--name", "idle", "busybox", "sleep", "1000"]);
    let init: i32 = host.ok(&["inspect", "-f", "{{.State.Pid}}", &id]).parse().expect("a pid");
    let stat = std::fs::read_to_string(format!("/proc/{init}/stat")).expect("stat");
    let monitor = stat.rsplit(") ").next().and_then(|s| s.split(' ').nth(1)).expect("a parent").to_string();
    // A monitor lets go of its code after a second without work, and its work ends with the last
    // announcement of its address: idle is what is measured.
    std::thread::sleep(Duration::from_secs(5));
    let smaps = std::fs::read_to_string(format!("/proc/{monitor}/smaps_rollup")).expect("smaps_rollup");
    let pss = smaps.lines().find_map(|l| l.strip_prefix("Pss:")).map(str::trim).unwrap_or("?").to_string();
    table.put("idle container: PSS of its monitor", "rrun", pss);
    host.ok(&["rm", "-f", &id]);
}

/// One container that asks its resolver for a neighbour's name as fast as it can.
fn names(host: &Host, table: &mut Table) {
    let mount = rrun_tests::dns::mount();
    host.ok(&["network", "create", "names"]);
    host.ok(&["run", "-d", "--network", "names", "--name", "neighbour", "busybox", "sleep", "1000"]);
    let flood = [rrun_tests::dns::PROGRAM, "flood", "127.0.0.11", "neighbour", "3"];
    let run = ["run", "--rm", "--network", "names", "-v", &mount, "busybox"];
    let mut rates: Vec<u64> = (0..5).filter_map(|_| host.ok(&[&run[..], &flood].concat()).parse().ok()).collect();
    rates.sort_unstable();
    let median = rates.get(rates.len() / 2).copied().unwrap_or_default();
    table.put("DNS answers to one container, a second", "rrun", format!("{} k", median / 1000));
    host.ok(&["rm", "-f", "neighbour"]);
    host.ok(&["network", "rm", "names"]);
}

/// A 500 MB image from a registry on loopback.
fn pull(host: &Host, table: &mut Table) {
    let Some(registry) = rrun_tests::fixture::Registry::start(host) else {
        table.put("pull and unpack 500 MB", "rrun", "no registry".into());
        return;
    };
    registry.push_synthetic("bench/big:latest", 7, 500_000_000);
    let name = registry.reference("bench/big:latest");
    let begin = Instant::now();
    let out = host.sh(&format!(
        "python3 -c 'import resource,subprocess,sys; subprocess.check_call(sys.argv[1:]); u=resource.getrusage(resource.RUSAGE_CHILDREN); print(\"CPU %.1f s, peak %d MB\"%(u.ru_utime+u.ru_stime,u.ru_maxrss//1024))' {} pull -q {name} | tail -n1",
        rrun_tests::host::env("RRUN_BIN")
    ));
    let (wall, processor) = ("pull and unpack 500 MB: wall", "pull and unpack 500 MB: CPU and memory");
    table.put(wall, "rrun", format!("{:.2} s", begin.elapsed().as_secs_f64()));
    table.put(processor, "rrun", out);
    if let Some((taken, cpu)) = peers::pull(host, &name) {
        table.put(wall, "docker", format!("{:.2} s", taken.as_secs_f64()));
        table.put(processor, "docker", format!("CPU {:.1} s", cpu.as_secs_f64()));
    }
}
