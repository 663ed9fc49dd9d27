//! The leak census: what a host has of links, rules, mounts, cgroups, processes and state.

use crate::Host;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// One picture of a host, as lines; the difference of two is what was left behind.
pub struct Census {
    lines: BTreeSet<String>,
}

impl Census {
    pub fn take(host: &Host) -> Census {
        let mut lines = BTreeSet::new();
        for link in host.ip("link").as_array().into_iter().flatten() {
            lines.insert(format!("link {}", link["ifname"].as_str().unwrap_or("?")));
        }
        for line in host.try_sh("ip -6 neigh show proxy").stdout.lines() {
            lines.insert(format!("answers for {line}"));
        }
        // Rules, sets and maps by name, and every element; the per-network ones go with the network.
        let rules = host.try_sh("nft list ruleset").stdout;
        let mut place = String::new();
        for line in rules.lines().map(str::trim).filter(|l| !l.is_empty() && *l != "}") {
            if line.starts_with("table")
                || line.starts_with("map")
                || line.starts_with("set")
                || line.starts_with("chain")
            {
                place = line.to_string();
            }
            // Counters move on their own.
            let line = line.split(" counter packets").next().unwrap_or(line);
            lines.insert(format!("nft {place} {line}"));
        }
        let pid = host.holder_pid();
        for line in fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default().lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            lines.insert(format!("mount {} {}", fields.get(3).unwrap_or(&""), fields.get(4).unwrap_or(&"")));
        }
        for c in host.cgroups() {
            walk(c, &mut |dir| {
                lines.insert(format!("cgroup {}", dir.display()));
            });
        }
        for pid in pids_below(host.cgroups()) {
            let cmd = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().replace('\0', " ");
            // The holders stay; the census's own helpers come and go.
            if !cmd.starts_with("sleep infinity") && !cmd.is_empty() {
                lines.insert(format!("process {pid} {cmd}"));
            }
        }
        for sub in ["containers", "networks", "ports"] {
            for (base, what) in [(host.state(), "state"), (host.root(), "root")] {
                files(&host.outside(base.join(sub)), &mut |p| {
                    let rel: PathBuf = p.components().skip(3).collect();
                    lines.insert(format!("{what} file {}", rel.display()));
                });
            }
        }
        Census { lines }
    }

    /// What is here and was not in `before`, apart from what belongs to networks and not to containers:
    /// the default bridge and the skeleton of the firewall table.
    pub fn left_over(&self, before: &Census) -> Vec<String> {
        self.lines.difference(&before.lines).filter(|l| !stays(l)).cloned().collect()
    }
}

/// Things that outlive containers by design: the bridge `rrun0`, the table's rules (but no element of
/// a published port), the `rrun` parent cgroup and that of the monitors, the predefined networks' own files and locks.
fn stays(line: &str) -> bool {
    if let Some(rest) = line.strip_prefix("nft ") {
        let per_container = ["publish"].iter().any(|m| {
            let name = rest.split_whitespace().nth(1).unwrap_or_default();
            (rest.starts_with("map ") || rest.starts_with("set ")) && name.starts_with(m)
        });
        return !(per_container && rest.contains("elements ="));
    }
    line == "link rrun0"
        || (line.starts_with("cgroup ") && (line.ends_with("/rrun") || line.ends_with("/rrun/monitors")))
        || (line.contains(" file ")
            && (line.ends_with("lock")
                || line.contains("networks/") && !line.contains("/leases/") && !line.contains("/endpoints/")))
}

fn walk(dir: &Path, f: &mut dyn FnMut(&Path)) {
    f(dir);
    for e in fs::read_dir(dir).into_iter().flatten().flatten() {
        if e.file_type().is_ok_and(|t| t.is_dir()) {
            walk(&e.path(), f);
        }
    }
}

fn files(dir: &Path, f: &mut dyn FnMut(&Path)) {
    for e in fs::read_dir(dir).into_iter().flatten().flatten() {
        if e.file_type().is_ok_and(|t| t.is_dir()) {
            files(&e.path(), f);
        } else {
            f(&e.path());
        }
    }
}

/// Every process in these cgroups or below.
pub fn pids_below(cgroups: &[PathBuf]) -> BTreeSet<i32> {
    let mut pids = BTreeSet::new();
    for c in cgroups {
        walk(c, &mut |dir| {
            let procs = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
            pids.extend(procs.lines().filter_map(|l| l.parse::<i32>().ok()).filter(|p| *p > 1));
        });
    }
    pids
}

/// Removes a cgroup and those below it, deepest first.
pub fn remove_cgroup(dir: &Path) {
    for e in fs::read_dir(dir).into_iter().flatten().flatten() {
        if e.file_type().is_ok_and(|t| t.is_dir()) {
            remove_cgroup(&e.path());
        }
    }
    let _ = fs::remove_dir(dir);
}
