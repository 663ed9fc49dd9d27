//! A container's limits as the files and values of the host's cgroup layout: pure.

use super::devices::DeviceRule;
use super::layout::Layout;
use crate::spec::Cgroup;
use plan::{Error, Result};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// One value written to one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    pub file: PathBuf,
    pub value: String,
    /// The v2 controller that must be on for the file to be there.
    pub controller: Option<String>,
    /// Another file, and its value, where the kernel lacks the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub otherwise: Option<(PathBuf, String)>,
    /// Left out with these words where the kernel has no such file (swap accounting switched off).
    pub lacking: Option<String>,
}

impl Setting {
    pub(super) fn error(&self, e: Errno) -> Error {
        let error = Error::os(format!("write {} to {}", self.value, self.file.display()), e.raw_os_error());
        let file = self.file.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        match (file, e) {
            ("cpuset.cpus" | "cpuset.mems", _) => {
                error.with_hint("see cpuset.cpus and cpuset.mems of the parent directory for what there is")
            }
            (_, Errno::NOENT) => error.with_hint("the kernel lacks this controller or it is not enabled"),
            ("memory.limit_in_bytes" | "memory.memsw.limit_in_bytes", Errno::BUSY) => {
                error.with_hint("more than that is in use already")
            }
            ("memory.limit_in_bytes", Errno::INVAL) => {
                error.with_hint("raise --memory-swap too: it is memory and swap together")
            }
            ("cpu.rt_runtime_us", Errno::INVAL) => {
                error.with_hint("the parent cgroup grants less: raise its cpu.rt_runtime_us first")
            }
            ("io.max" | "io.weight" | "io.bfq.weight", Errno::NODEV) => {
                error.with_hint("limits go for whole disks, not for partitions")
            }
            (f, Errno::NODEV | Errno::INVAL) if f.starts_with("blkio.") => {
                error.with_hint("limits go for whole disks, not for partitions; see `lsblk`")
            }
            ("cpu.cfs_quota_us" | "cpu.max", Errno::INVAL) => {
                error.with_hint("the period is 1 ms to 1 s, the quota at least 1 ms and within the parent's")
            }
            _ => error,
        }
    }
}

/// Smallest memory limit that Docker takes; below it nothing starts.
const MIN_MEMORY: i64 = 6 << 20;

/// Refuses limits that cannot mean anything, in Docker's words.
pub fn check(c: &Cgroup) -> Result<()> {
    if let Some(memory) = c.memory.filter(|m| *m > 0 && *m < MIN_MEMORY) {
        return Err(
            Error::invalid("Minimum memory limit allowed is 6MB").with_hint(format!("{memory} bytes were asked for"))
        );
    }
    if let Some(swap) = c.memory_swap.filter(|s| *s > 0) {
        let memory = c.memory.unwrap_or(0);
        if memory <= 0 {
            return Err(Error::invalid(
                "You should always set the Memory limit when using Memoryswap limit, see usage",
            )
            .with_hint("add -m"));
        }
        if swap < memory {
            return Err(Error::invalid("Minimum memoryswap limit should be larger than memory limit, see usage")
                .with_hint("--memory-swap is memory and swap together"));
        }
    }
    if let (Some(reservation), Some(memory)) = (c.memory_reservation, c.memory.filter(|m| *m > 0))
        && reservation > memory
    {
        return Err(Error::invalid("Minimum memory limit can not be less than memory reservation limit, see usage")
            .with_hint("lower --memory-reservation or raise -m"));
    }
    if c.cpu_period.is_some_and(|p| p != 0 && !(1000..=1_000_000).contains(&p)) {
        return Err(Error::invalid(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        )
        .with_hint("--cpu-period is in microseconds"));
    }
    if c.cpu_quota.is_some_and(|q| q > 0 && q < 1000) {
        return Err(Error::invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)")
            .with_hint("--cpu-quota is in microseconds"));
    }
    for (what, list) in [("cpus", &c.cpuset_cpus), ("mems", &c.cpuset_mems)] {
        if let Some(list) = list
            && !is_cpu_list(list)
        {
            return Err(Error::invalid(format!("Invalid value {list} for cpuset {what}"))
                .with_hint("write numbers and ranges: 0-2,4"));
        }
    }
    Ok(())
}

/// `0-2,4`; bounded, so that nobody expands it to exhaustion (CVE-2018-20699).
fn is_cpu_list(list: &str) -> bool {
    const MOST: u32 = 8192;
    let digits = |n: &str| (1..=4).contains(&n.len()) && n.bytes().all(|b| b.is_ascii_digit());
    let number = |n: &str| n.parse::<u32>().ok().filter(|v| digits(n) && *v < MOST);
    list.split(',').all(|part| match part.split_once('-') {
        Some((a, b)) => matches!((number(a), number(b)), (Some(a), Some(b)) if a <= b),
        None => number(part).is_some(),
    })
}

/// The limits as file writes, in an order that the kernel accepts, and warnings (Docker's) for what
/// this host cannot limit.
pub fn settings(c: &Cgroup, devices: &[DeviceRule], layout: &Layout) -> (Vec<Setting>, Vec<String>) {
    let mut out = Writer { path: &c.path, layout, settings: Vec::new(), warnings: Vec::new() };
    memory(c, &mut out);
    cpu(c, &mut out);
    if let Some(cpus) = &c.cpuset_cpus {
        out.both("cpuset", "cpuset.cpus", cpus, "CPUSET");
    }
    if let Some(mems) = &c.cpuset_mems {
        out.both("cpuset", "cpuset.mems", mems, "CPUSET");
    }
    if let Some(pids) = c.pids.filter(|p| *p != 0) {
        out.both("pids", "pids.max", &limit_word(pids), "PIDs");
    }
    super::io::settings(c, &mut out);
    if !c.all_devices && layout.v1_root("devices").is_some() {
        out.v1("devices", "devices.deny", "a");
        for rule in devices {
            out.v1("devices", "devices.allow", &rule.to_string());
        }
    }
    (out.settings, out.warnings)
}

fn limit_word(n: i64) -> String {
    if n < 0 { "max".into() } else { n.to_string() }
}

const NO_SWAP: &str =
    "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap.";

/// Without `memory_swap`, a memory limit allows as much swap again, as Docker has it.
fn memory(c: &Cgroup, out: &mut Writer) {
    let swap_total = match (c.memory_swap, c.memory) {
        (Some(s), _) if s != 0 => Some(s),
        (_, Some(m)) if m > 0 => Some(m.saturating_mul(2)),
        _ => None,
    };
    if out.v1_has("memory") {
        let swap_counted = out.layout.v1.iter().any(|h| h.swap);
        if let Some(m) = c.memory {
            out.v1("memory", "memory.limit_in_bytes", &m.to_string());
        }
        match swap_total {
            Some(s) if swap_counted => out.v1("memory", "memory.memsw.limit_in_bytes", &s.to_string()),
            Some(_) if c.memory_swap.is_some() => out.warnings.push(NO_SWAP.into()),
            _ => {}
        }
        if let Some(r) = c.memory_reservation {
            out.v1("memory", "memory.soft_limit_in_bytes", &r.to_string());
        }
        if let Some(swappiness) = c.memory_swappiness {
            out.v1("memory", "memory.swappiness", &swappiness.to_string());
        }
        if c.oom_kill_disable {
            out.v1("memory", "memory.oom_control", "1");
        }
    } else if out.v2_has("memory") {
        if let Some(m) = c.memory {
            out.v2("memory", "memory.max", &limit_word(m));
        }
        if let Some(s) = swap_total {
            let swap_alone = if s < 0 { -1 } else { s - c.memory.unwrap_or(0) };
            out.v2("memory", "memory.swap.max", &limit_word(swap_alone));
            // Asked for by name it is worth a word; Docker's default is not.
            out.may_lack(if c.memory_swap.is_some() { NO_SWAP } else { "" });
        }
        if let Some(r) = c.memory_reservation {
            out.v2("memory", "memory.low", &limit_word(r));
        }
    } else if c.memory.is_some() || c.memory_reservation.is_some() {
        out.discard("memory", "Limitation");
    }
    if !out.v1_has("memory") {
        // v2 has neither; Docker's texts.
        if c.memory_swappiness.is_some() {
            out.warnings.push("Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.".into());
        }
        if c.oom_kill_disable {
            out.warnings.push("Your kernel does not support OomKillDisable. OomKillDisable discarded.".into());
        }
    }
}

fn cpu(c: &Cgroup, out: &mut Writer) {
    let quota = c.cpu_quota.filter(|q| *q != 0);
    let period = c.cpu_period.filter(|p| *p != 0);
    let shares = c.cpu_shares.filter(|s| *s != 0);
    if out.v1_has("cpu") {
        // The period first: a quota is checked against it.
        if let Some(p) = period {
            out.v1("cpu", "cpu.cfs_period_us", &p.to_string());
        }
        if let Some(q) = quota {
            out.v1("cpu", "cpu.cfs_quota_us", &q.to_string());
        }
        if let Some(s) = shares {
            out.v1("cpu", "cpu.shares", &s.to_string());
        }
    } else if out.v2_has("cpu") {
        if quota.is_some() || period.is_some() {
            let value = format!("{} {}", limit_word(quota.unwrap_or(-1)), period.unwrap_or(100_000));
            out.v2("cpu", "cpu.max", &value);
        }
        if let Some(s) = shares {
            out.v2("cpu", "cpu.weight", &weight(s).to_string());
        }
    } else if quota.is_some() || period.is_some() || shares.is_some() {
        out.discard("CPU", "Limitation");
    }
    realtime(c, out);
}

/// The period first: a runtime must lie within it.
fn realtime(c: &Cgroup, out: &mut Writer) {
    const NONE: &str = "Your kernel does not support CPU real-time scheduler or the cgroup is not mounted. CPU real-time limits discarded.";
    let period = c.cpu_rt_period.filter(|p| *p != 0).map(|p| ("cpu.rt_period_us", p.to_string()));
    let runtime = c.cpu_rt_runtime.filter(|r| *r != 0).map(|r| ("cpu.rt_runtime_us", r.to_string()));
    for (file, value) in period.into_iter().chain(runtime) {
        if out.v1_has("cpu") {
            out.v1("cpu", file, &value);
            out.may_lack(NONE);
        } else if !out.warnings.iter().any(|w| w == NONE) {
            out.warnings.push(NONE.into());
        }
    }
}

/// v1 shares (2 to 262144, normally 1024) as v2 weight (1 to 10000, normally 100), on OCI's line.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

/// Collects settings for whichever version has the controller.
pub(super) struct Writer<'a> {
    path: &'a Path,
    layout: &'a Layout,
    settings: Vec<Setting>,
    pub(super) warnings: Vec<String>,
}

impl Writer<'_> {
    pub(super) fn v1_has(&self, controller: &str) -> bool {
        self.layout.v1_root(controller).is_some()
    }

    pub(super) fn v2_has(&self, controller: &str) -> bool {
        self.layout.v2_root(controller).is_some()
    }

    pub(super) fn v1(&mut self, controller: &str, file: &str, value: &str) {
        if let Some(root) = self.layout.v1_root(controller) {
            self.push(root.join(self.path).join(file), value, None);
        }
    }

    pub(super) fn v2(&mut self, controller: &str, file: &str, value: &str) {
        if let Some(root) = self.layout.v2_root(controller) {
            self.push(root.join(self.path).join(file), value, Some(controller.into()));
        }
    }

    fn push(&mut self, file: PathBuf, value: &str, controller: Option<String>) {
        self.settings.push(Setting { file, value: value.into(), controller, otherwise: None, lacking: None });
    }

    /// The last setting may be missing from this kernel: then `words` are said (none if empty).
    pub(super) fn may_lack(&mut self, words: &str) {
        if let Some(last) = self.settings.last_mut() {
            last.lacking = Some(words.into());
        }
    }

    /// Where the kernel lacks the last setting's file, this one beside it is written.
    pub(super) fn or_else(&mut self, file: &str, value: &str) {
        if let Some(last) = self.settings.last_mut() {
            last.otherwise = Some((last.file.with_file_name(file), value.into()));
        }
    }

    /// The controllers whose files are called the same in both versions.
    fn both(&mut self, controller: &str, file: &str, value: &str, name: &str) {
        if self.v1_has(controller) {
            self.v1(controller, file, value);
        } else if self.v2_has(controller) {
            self.v2(controller, file, value);
        } else {
            self.discard(name, "Limit");
        }
    }

    fn discard(&mut self, what: &str, noun: &str) {
        self.warnings.push(format!(
            "Your kernel does not support {what} limit capabilities or the cgroup is not mounted. {noun} discarded."
        ));
    }
}

/// Changes limits of a group that exists. On v1 memory must stay below memory and swap together at
/// every moment: whichever order the kernel takes is the right one. On v2 the group has the files of those
/// controllers only that somebody needed before.
pub fn update(path: &Path, layout: &Layout, settings: &[Setting]) -> Result<Vec<String>> {
    if let Some(unified) = &layout.unified {
        let needed = settings.iter().filter_map(|s| s.controller.as_deref());
        super::layout::enable_controllers(unified, path, needed)?;
    }
    let name = |s: &Setting| s.file.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_string();
    let position = |wanted: &str| settings.iter().position(|s| name(s) == wanted);
    match (super::write_settings(settings), position("memory.limit_in_bytes"), position("memory.memsw.limit_in_bytes"))
    {
        (Err(e), Some(memory), Some(swap)) if e.errno == Some(libc::EINVAL) => {
            let mut swapped = settings.to_vec();
            swapped.swap(memory, swap);
            super::write_settings(&swapped).map_err(|_| e)
        }
        (done, _, _) => done,
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::{Hierarchy, Unified};
    use super::*;

    fn v1() -> Layout {
        let h =
            |c: &str| Hierarchy { controllers: vec![c.into()], root: format!("/cg/{c}").into(), swap: c == "memory" };
        Layout { v1: vec![h("memory"), h("cpu"), h("cpuset"), h("pids"), h("devices")], unified: None }
    }

    fn v2() -> Layout {
        let controllers = ["cpuset", "cpu", "memory", "pids"].map(String::from).to_vec();
        Layout { v1: vec![], unified: Some(Unified { root: "/cg".into(), controllers }) }
    }

    fn limited() -> Cgroup {
        Cgroup {
            path: "rrun/x".into(),
            memory: Some(64 << 20),
            cpu_quota: Some(150_000),
            cpu_period: Some(100_000),
            cpu_shares: Some(1024),
            cpuset_cpus: Some("0-1".into()),
            pids: Some(100),
            ..Cgroup::default()
        }
    }

    fn lines(settings: &[Setting]) -> Vec<String> {
        settings.iter().map(|s| format!("{} {}", s.file.display(), s.value)).collect()
    }

    #[test]
    fn limits_on_v1() {
        let mut c = limited();
        c.all_devices = true;
        let (s, warnings) = settings(&c, &[], &v1());
        assert_eq!(
            lines(&s),
            [
                "/cg/memory/rrun/x/memory.limit_in_bytes 67108864",
                "/cg/memory/rrun/x/memory.memsw.limit_in_bytes 134217728",
                "/cg/cpu/rrun/x/cpu.cfs_period_us 100000",
                "/cg/cpu/rrun/x/cpu.cfs_quota_us 150000",
                "/cg/cpu/rrun/x/cpu.shares 1024",
                "/cg/cpuset/rrun/x/cpuset.cpus 0-1",
                "/cg/pids/rrun/x/pids.max 100",
            ]
        );
        assert!(warnings.is_empty());
    }

    #[test]
    fn limits_on_v2() {
        let (s, warnings) = settings(&limited(), &[], &v2());
        assert_eq!(
            lines(&s),
            [
                "/cg/rrun/x/memory.max 67108864",
                "/cg/rrun/x/memory.swap.max 67108864",
                "/cg/rrun/x/cpu.max 150000 100000",
                "/cg/rrun/x/cpu.weight 39",
                "/cg/rrun/x/cpuset.cpus 0-1",
                "/cg/rrun/x/pids.max 100",
            ]
        );
        assert!(warnings.is_empty());
        assert_eq!(s[1].lacking.as_deref(), Some(""));
    }

    #[test]
    fn what_the_host_cannot_limit_is_said() {
        let bare = Layout { v1: vec![], unified: Some(Unified { root: "/cg".into(), controllers: vec![] }) };
        let (s, warnings) = settings(&limited(), &[], &bare);
        assert!(s.is_empty());
        assert_eq!(warnings.len(), 4);
        assert!(warnings[0].starts_with("Your kernel does not support memory limit"));
    }

    #[test]
    fn v1_devices_are_denied_first() {
        let rules = super::super::devices::rules(&[], &[], false);
        let (s, _) = settings(&Cgroup { path: "x".into(), ..Cgroup::default() }, &rules, &v1());
        assert_eq!(lines(&s)[..2], ["/cg/devices/x/devices.deny a", "/cg/devices/x/devices.allow c *:* m"]);
    }

    #[test]
    fn nonsense_is_refused_in_dockers_words() {
        let refuse = |c: Cgroup| check(&c).unwrap_err().message;
        assert_eq!(refuse(Cgroup { memory: Some(4096), ..Cgroup::default() }), "Minimum memory limit allowed is 6MB");
        assert_eq!(
            refuse(Cgroup { memory: Some(8 << 20), memory_swap: Some(7 << 20), ..Cgroup::default() }),
            "Minimum memoryswap limit should be larger than memory limit, see usage"
        );
        for list in ["0-18446744073709551615", "1-", "", "2-1", "a", "0,,1", "+1"] {
            let c = Cgroup { cpuset_cpus: Some(list.into()), ..Cgroup::default() };
            assert_eq!(refuse(c), format!("Invalid value {list} for cpuset cpus"));
        }
        assert!(check(&limited()).is_ok());
    }
}
