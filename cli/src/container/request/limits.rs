//! Memory, processors, disks, processes: checked in Docker's words, for `run`, `create` and `update`.

use super::size;
use crate::args::{LimitFlags, ResourceFlags};
use crate::container::record::{DiskLimit, HostConfig, Ulimit};
use plan::{Error, Result};
use runtime::cgroup::{IoLimit, IoRate};
use runtime::spec::Cgroup;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path};

/// Processes per container unless `--pids-limit` says otherwise: a fork bomb must not take the host
/// along, and no reasonable service notices.
const DEFAULT_PIDS: i64 = 4096;

const MIN_MEMORY: i64 = 6 << 20;

/// What `run` and `create` say about limits.
///
/// # Errors
/// Docker's texts.
pub fn fill(flags: &LimitFlags, host: &mut HostConfig, warnings: &mut Vec<String>) -> Result<()> {
    change(&flags.resources, host, warnings)?;
    if host.memory_swap > 0 && host.memory == 0 {
        return Err(Error::invalid("You should always set the Memory limit when using Memoryswap limit, see usage")
            .with_hint("add -m, the limit of memory alone"));
    }
    host.memory_swappiness = match flags.memory_swappiness {
        None | Some(-1) => None,
        Some(value) => Some(u64::try_from(value).ok().filter(|v| *v <= 100).ok_or_else(|| {
            Error::invalid(format!("invalid value: {value}. Valid memory swappiness range is 0-100"))
                .with_hint("write --memory-swappiness 60")
        })?),
    };
    host.oom_kill_disable = flags.oom_kill_disable;
    if host.oom_kill_disable && host.memory == 0 {
        warnings.push("OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.".into());
    }
    if let Some(adjust) = flags.oom_score_adj
        && !(-1000..=1000).contains(&adjust)
    {
        return Err(Error::invalid(format!("Invalid value {adjust}, range for oom score adj is [-1000, 1000]"))
            .with_hint("write --oom-score-adj 500"));
    }
    host.oom_score_adj = flags.oom_score_adj;
    host.ulimits = flags.ulimit.iter().map(|u| ulimit(u)).collect::<Result<_>>()?;
    host.cgroup_parent = flags.cgroup_parent.clone().unwrap_or_default();
    let parent = Path::new(host.cgroup_parent.trim_matches('/'));
    if !parent.components().all(|c| matches!(c, Component::Normal(_))) {
        return Err(Error::invalid(format!("invalid cgroup-parent: {}", host.cgroup_parent.escape_debug()))
            .with_hint("write a path below the root of the hierarchies, without `..`: --cgroup-parent /mine"));
    }
    Ok(())
}

/// What the flags name replaces what was there; the whole must make sense afterwards.
///
/// # Errors
/// Docker's texts.
pub fn change(flags: &ResourceFlags, host: &mut HostConfig, warnings: &mut Vec<String>) -> Result<()> {
    let bytes = |text: &Option<String>| text.as_deref().map(size::bytes).transpose();
    let before = host.clone();
    set(&mut host.memory, bytes(&flags.memory)?);
    set(&mut host.memory_reservation, bytes(&flags.memory_reservation)?);
    match flags.memory_swap.as_deref() {
        Some("-1") => host.memory_swap = -1,
        Some(text) => host.memory_swap = size::bytes(text)?,
        None => {}
    }
    if flags.kernel_memory.is_some() {
        warnings.push("Specifying a kernel memory limit is deprecated and has no effect: Linux has none since 5.16. It is included in -m.".into());
    }
    if let Some(text) = &flags.cpus {
        host.nano_cpus = size::cpus(text, std::thread::available_parallelism().map_or(1, usize::from))?;
    }
    set(&mut host.cpu_shares, flags.cpu_shares);
    set(&mut host.cpu_period, flags.cpu_period);
    set(&mut host.cpu_quota, flags.cpu_quota);
    set(&mut host.cpu_rt_period, flags.cpu_rt_period);
    set(&mut host.cpu_rt_runtime, flags.cpu_rt_runtime);
    set(&mut host.cpuset_cpus, flags.cpuset_cpus.clone());
    set(&mut host.cpuset_mems, flags.cpuset_mems.clone());
    // 0 is "as it is", in `run` that is the default.
    host.pids_limit = flags.pids_limit.filter(|n| *n != 0).or(host.pids_limit);
    set(&mut host.blkio_weight, flags.blkio_weight);
    disks(flags, &mut host.disks)?;
    memory(flags, &before, host)?;
    processors(host)?;
    if host.pids_limit.is_some_and(|p| p < -1) {
        return refuse("invalid --pids-limit", "write a number of processes, or -1 for no limit");
    }
    if host.blkio_weight != 0 && !(10..=1000).contains(&host.blkio_weight) {
        return refuse("Range of blkio weight is from 10 to 1000", "write --blkio-weight 300");
    }
    Ok(())
}

fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

fn refuse<T>(text: &str, hint: &str) -> Result<T> {
    Err(Error::invalid(text).with_hint(hint))
}

fn memory(flags: &ResourceFlags, before: &HostConfig, host: &HostConfig) -> Result<()> {
    if host.memory != 0 && host.memory < MIN_MEMORY {
        return refuse("Minimum memory limit allowed is 6MB", "write -m 6m or more");
    }
    if host.memory_swap > 0 && host.memory_swap < host.memory {
        // Docker's two texts: both were given, or one was there before.
        return match before.memory_swap > 0 && flags.memory_swap.is_none() {
            true => refuse(
                "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
                "add --memory-swap, memory and swap together",
            ),
            false => refuse(
                "Minimum memoryswap limit should be larger than memory limit, see usage",
                "--memory-swap is memory and swap together",
            ),
        };
    }
    if host.memory_reservation != 0 && host.memory_reservation < MIN_MEMORY {
        return refuse("Minimum memory reservation allowed is 6MB", "write --memory-reservation 6m or more");
    }
    if host.memory != 0 && host.memory_reservation > host.memory {
        return refuse(
            "Minimum memory limit can not be less than memory reservation limit, see usage",
            "make -m the larger of the two",
        );
    }
    Ok(())
}

fn processors(host: &HostConfig) -> Result<()> {
    if host.nano_cpus > 0 && host.cpu_period > 0 {
        return refuse(
            "Conflicting options: Nano CPUs and CPU Period cannot both be set",
            "--cpus 1.5 means --cpu-period 100000 --cpu-quota 150000: write the one or the other",
        );
    }
    if host.nano_cpus > 0 && host.cpu_quota > 0 {
        return refuse(
            "Conflicting options: Nano CPUs and CPU Quota cannot both be set",
            "--cpus 1.5 means --cpu-period 100000 --cpu-quota 150000: write the one or the other",
        );
    }
    if host.cpu_rt_period != 0 && host.cpu_rt_runtime > i64::try_from(host.cpu_rt_period).unwrap_or(i64::MAX) {
        return refuse("cpu real-time runtime cannot be higher than cpu real-time period", "raise --cpu-rt-period");
    }
    for (name, list) in [("cpus", &host.cpuset_cpus), ("mems", &host.cpuset_mems)] {
        if !list.is_empty() && !is_number_list(list) {
            return Err(Error::invalid(format!("Invalid value {} for cpuset {name}", list.escape_debug()))
                .with_hint("write a list of numbers and ranges: 0-3, 0,2"));
        }
    }
    // What remains is about periods and quotas, and the same for every way to them.
    let mut cgroup = Cgroup::default();
    apply(host, &mut cgroup)?;
    runtime::cgroup::check(&cgroup)
}

/// `0-3,7`, as the kernel's cpuset files take it.
fn is_number_list(text: &str) -> bool {
    text.split(',').all(|part| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        matches!((from.parse::<u16>(), to.parse::<u16>()), (Ok(from), Ok(to)) if from <= to)
    })
}

/// A disk named again gets the new limit.
fn disks(flags: &ResourceFlags, disks: &mut Vec<DiskLimit>) -> Result<()> {
    let lists = [
        (IoRate::Weight, &flags.blkio_weight_device),
        (IoRate::ReadBps, &flags.device_read_bps),
        (IoRate::WriteBps, &flags.device_write_bps),
        (IoRate::ReadIops, &flags.device_read_iops),
        (IoRate::WriteIops, &flags.device_write_iops),
    ];
    for (rate, texts) in lists {
        for text in texts {
            let limit = disk(rate, text)?;
            disks.retain(|d| d.path != limit.path || d.rate != rate);
            disks.push(limit);
        }
    }
    Ok(())
}

/// `/dev/sda:1mb`.
fn disk(rate: IoRate, text: &str) -> Result<DiskLimit> {
    let shown = text.escape_debug();
    let wrong = |message: String, hint: &str| Error::invalid(message).with_hint(hint.to_string());
    let (path, value) = text
        .split_once(':')
        .filter(|(path, value)| !path.is_empty() && !value.is_empty())
        .ok_or_else(|| wrong(format!("bad format: {shown}"), "write DEVICE:VALUE, as in /dev/sda:1mb"))?;
    if !path.starts_with("/dev/") {
        return Err(wrong(format!("bad format for device path: {shown}"), "name a disk below /dev"));
    }
    let value = match rate {
        IoRate::Weight => {
            let weight = value.parse::<u64>().ok().filter(|w| *w == 0 || (10..=1000).contains(w));
            weight.ok_or_else(|| wrong(format!("invalid weight for device: {shown}"), "a weight is 10 to 1000"))?
        }
        IoRate::ReadBps | IoRate::WriteBps => size::bytes(value).ok().and_then(|n| u64::try_from(n).ok()).ok_or_else(
            || {
                wrong(
                    format!("invalid rate for device: {shown}. The correct format is <device-path>:<number>[<unit>]. Number must be a positive integer. Unit is optional and can be kb, mb, or gb"),
                    "write /dev/sda:1mb",
                )
            },
        )?,
        IoRate::ReadIops | IoRate::WriteIops => value.parse().map_err(|_| {
            wrong(
                format!("invalid rate for device: {shown}. The correct format is <device-path>:<number>. Number must be a positive integer"),
                "write /dev/sda:1000",
            )
        })?,
    };
    let limit = DiskLimit { path: path.into(), rate, value };
    node(&limit)?;
    Ok(limit)
}

/// The limit by the disk's numbers, which may be others after a reboot.
fn node(limit: &DiskLimit) -> Result<IoLimit> {
    let shown = limit.path.display();
    let meta = std::fs::metadata(&limit.path).map_err(|e| {
        Error::io(format!("no such device: {shown}"), &e)
            .with_kind(plan::Kind::Invalid)
            .with_hint("`lsblk` lists the disks")
    })?;
    if !meta.file_type().is_block_device() {
        return Err(Error::invalid(format!("not a block device: {shown}")).with_hint("`lsblk` lists the disks"));
    }
    let (major, minor) = (libc::major(meta.rdev()), libc::minor(meta.rdev()));
    Ok(IoLimit { major, minor, rate: limit.rate, value: limit.value })
}

/// `nofile=1024:2048`, kept under Docker's spelling.
fn ulimit(text: &str) -> Result<Ulimit> {
    let limit = runtime::rlimit::parse(text)?;
    Ok(Ulimit { name: limit.name.to_ascii_lowercase(), soft: limit.soft, hard: limit.hard })
}

/// The record's limits as the container's control group has them.
///
/// # Errors
/// A disk that is not there any more.
pub fn apply(host: &HostConfig, cgroup: &mut Cgroup) -> Result<()> {
    let positive = |n: i64| (n > 0).then_some(n);
    cgroup.memory = positive(host.memory);
    cgroup.memory_reservation = positive(host.memory_reservation);
    cgroup.memory_swap = match host.memory_swap {
        // As much swap as memory, Docker's rule.
        0 => positive(host.memory).map(|m| m.saturating_mul(2)),
        n => Some(n),
    };
    cgroup.memory_swappiness = host.memory_swappiness;
    cgroup.oom_kill_disable = host.oom_kill_disable;
    if host.nano_cpus > 0 {
        cgroup.cpu_period = Some(100_000);
        cgroup.cpu_quota = Some(host.nano_cpus / 10_000);
    } else {
        cgroup.cpu_period = (host.cpu_period > 0).then_some(host.cpu_period);
        cgroup.cpu_quota = (host.cpu_quota != 0).then_some(host.cpu_quota);
    }
    cgroup.cpu_rt_period = (host.cpu_rt_period > 0).then_some(host.cpu_rt_period);
    cgroup.cpu_rt_runtime = positive(host.cpu_rt_runtime);
    cgroup.cpu_shares = (host.cpu_shares > 0).then_some(host.cpu_shares);
    cgroup.cpuset_cpus = (!host.cpuset_cpus.is_empty()).then(|| host.cpuset_cpus.clone());
    cgroup.cpuset_mems = (!host.cpuset_mems.is_empty()).then(|| host.cpuset_mems.clone());
    cgroup.pids = Some(host.pids_limit.unwrap_or(DEFAULT_PIDS));
    cgroup.blkio_weight = (host.blkio_weight > 0).then_some(host.blkio_weight);
    cgroup.io = host.disks.iter().map(node).collect::<Result<_>>()?;
    cgroup.device_rules.clone_from(&host.device_cgroup_rules);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources(change: impl FnOnce(&mut ResourceFlags)) -> Result<HostConfig> {
        let mut flags = LimitFlags::default();
        change(&mut flags.resources);
        let mut host = HostConfig::default();
        fill(&flags, &mut host, &mut Vec::new()).map(|()| host)
    }

    #[test]
    fn what_conflicts_is_refused_in_dockers_words() {
        let says = |change: fn(&mut ResourceFlags)| resources(change).unwrap_err().message;
        assert!(
            says(|f| (f.cpus, f.cpu_quota) = (Some("1".into()), Some(5000)))
                .starts_with("Conflicting options: Nano CPUs and CPU Quota")
        );
        assert!(says(|f| f.cpu_period = Some(5)).starts_with("CPU cfs period can not be less than 1ms"));
        assert_eq!(says(|f| f.blkio_weight = Some(5)), "Range of blkio weight is from 10 to 1000");
        assert_eq!(says(|f| f.memory_reservation = Some("1m".into())), "Minimum memory reservation allowed is 6MB");
        assert_eq!(says(|f| f.device_read_bps = vec!["sda:1m".into()]), "bad format for device path: sda:1m");
        assert_eq!(says(|f| f.device_read_iops = vec!["/dev/null:5".into()]), "not a block device: /dev/null");
        assert!(says(|f| f.device_write_bps = vec!["/dev/null:x".into()]).starts_with("invalid rate for device"));
    }

    #[test]
    fn a_change_keeps_what_it_does_not_name() {
        let mut host = resources(|f| (f.memory, f.cpu_shares) = (Some("64m".into()), Some(512))).unwrap();
        let flags = ResourceFlags { pids_limit: Some(7), ..ResourceFlags::default() };
        change(&flags, &mut host, &mut Vec::new()).unwrap();
        assert_eq!((host.memory, host.cpu_shares, host.pids_limit), (64 << 20, 512, Some(7)));
        host.memory_swap = 128 << 20;
        let flags = ResourceFlags { memory: Some("256m".into()), ..ResourceFlags::default() };
        let e = change(&flags, &mut host, &mut Vec::new()).unwrap_err();
        assert!(e.message.contains("update the memoryswap at the same time"), "{e}");
    }
}
