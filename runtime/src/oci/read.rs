//! OCI read as a [`RunSpec`]: once, here, so that nothing else meets its forest of options.

use super::{ANNOTATION, Beyond};
use crate::apparmor;
use crate::cgroup::{IoLimit, IoRate};
use crate::rlimit;
use crate::spec::{
    AppArmor, Caps, Cgroup, Device, Mount, Namespace, Namespaces, Process, Rlimit, Root, RunSpec, Seccomp, User,
};
use oci_spec::runtime as oci;
use plan::{Error, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The container `id` as a [`RunSpec`]. Refuses what rrun would otherwise silently leave out: user
/// namespaces, a shared mount namespace, systemd cgroup paths, hooks.
pub fn from_spec(spec: &oci::Spec, id: &str) -> Result<RunSpec> {
    let mut annotations: BTreeMap<String, String> =
        spec.annotations().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
    let beyond = annotations
        .remove(ANNOTATION)
        .map(|text| {
            serde_json::from_str::<Beyond>(&text).map_err(|e| {
                Error::invalid(format!("bad annotation {ANNOTATION}"))
                    .with_cause(e.to_string())
                    .with_hint("remove the container and create it again")
            })
        })
        .transpose()?;
    if spec.hooks().is_some() {
        return Err(refused("hooks", "rrun runs no programs of a bundle on the host"));
    }
    let process = spec.process().as_ref().ok_or_else(|| missing("process"))?;
    let root = spec.root().as_ref().ok_or_else(|| missing("root"))?;
    let linux = spec.linux().as_ref().ok_or_else(|| missing("linux"))?;
    let mut run = RunSpec {
        id: id.to_string(),
        hostname: spec.hostname().clone(),
        domainname: spec.domainname().clone(),
        process: read_process(process)?,
        root: Root::Directory { path: root.path().clone(), readonly: root.readonly().unwrap_or(false) },
        namespaces: namespaces(linux)?,
        mounts: spec.mounts().iter().flatten().map(mount).collect(),
        masked_paths: paths(linux.masked_paths().as_ref()),
        readonly_paths: paths(linux.readonly_paths().as_ref()),
        devices: devices(linux),
        sysctls: linux.sysctl().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect(),
        seccomp: seccomp(linux)?,
        cgroup: cgroup(linux, id)?,
        annotations,
    };
    if let Some(Beyond { root, user, init, seccomp, device_rules }) = beyond {
        (run.root, run.process.user, run.process.init, run.seccomp) = (root, user, init, seccomp);
        run.cgroup.device_rules = device_rules;
    }
    Ok(run)
}

fn missing(field: &str) -> Error {
    Error::invalid(format!("config.json has no {field}")).with_hint("it must be an OCI runtime spec for Linux")
}

fn refused(what: &str, hint: &str) -> Error {
    Error::invalid(format!("config.json asks for {what}, which rrun does not do")).with_hint(hint)
}

fn read_process(p: &oci::Process) -> Result<Process> {
    let user = p.user();
    let additional_gids = user.additional_gids().clone().unwrap_or_default();
    Ok(Process {
        args: p.args().clone().unwrap_or_default(),
        env: p.env().clone().unwrap_or_default(),
        cwd: p.cwd().clone(),
        user: User::Ids { uid: user.uid(), gid: user.gid(), additional_gids },
        tty: p.terminal().unwrap_or(false),
        console_size: p.console_size().map(|b| (short(b.height()), short(b.width()))),
        caps: p.capabilities().as_ref().map(caps).unwrap_or_default(),
        no_new_privileges: p.no_new_privileges().unwrap_or(false),
        apparmor: apparmor(p.apparmor_profile().as_deref()),
        rlimits: p.rlimits().iter().flatten().map(limit).collect::<Result<_>>()?,
        oom_score_adj: p.oom_score_adj(),
        umask: user.umask(),
        init: false,
    })
}

/// A bundle says itself what its program is under; without a word it is under nothing.
fn apparmor(profile: Option<&str>) -> AppArmor {
    match profile {
        None | Some("" | "unconfined") => AppArmor::Unconfined,
        Some(apparmor::DEFAULT) => AppArmor::Default,
        Some(name) => AppArmor::Profile(name.to_string()),
    }
}

fn short(n: u64) -> u16 {
    u16::try_from(n).unwrap_or(u16::MAX)
}

fn caps(c: &oci::LinuxCapabilities) -> Caps {
    let set = |names: &Option<oci::Capabilities>| {
        let mut names: Vec<String> = names.iter().flatten().map(ToString::to_string).collect();
        names.sort_unstable();
        names
    };
    Caps {
        bounding: set(c.bounding()),
        effective: set(c.effective()),
        permitted: set(c.permitted()),
        inheritable: set(c.inheritable()),
        ambient: set(c.ambient()),
    }
}

fn limit(l: &oci::PosixRlimit) -> Result<Rlimit> {
    let name = l.typ().to_string();
    let name = rlimit::canonical(&name).ok_or_else(|| refused(&name, "getrlimit(2) names the limits"))?;
    Ok(Rlimit { name: name.to_string(), soft: l.soft(), hard: l.hard() })
}

fn namespaces(linux: &oci::Linux) -> Result<Namespaces> {
    let listed: Vec<&oci::LinuxNamespace> = linux.namespaces().iter().flatten().collect();
    let find = |kind: oci::LinuxNamespaceType| listed.iter().find(|n| n.typ() == kind);
    if find(oci::LinuxNamespaceType::User).is_some() {
        return Err(refused("a user namespace", "leave it out: rrun's containers share the host's"));
    }
    match find(oci::LinuxNamespaceType::Mount) {
        Some(n) if n.path().is_none() => {}
        _ => return Err(refused("no mount namespace of its own", "a root file system needs one: add it")),
    }
    let how = |kind| match find(kind) {
        None => Namespace::Host,
        Some(n) => n.path().clone().map_or(Namespace::Private, Namespace::Path),
    };
    Ok(Namespaces {
        net: how(oci::LinuxNamespaceType::Network),
        pid: how(oci::LinuxNamespaceType::Pid),
        ipc: how(oci::LinuxNamespaceType::Ipc),
        uts: how(oci::LinuxNamespaceType::Uts),
        cgroup: how(oci::LinuxNamespaceType::Cgroup),
    })
}

fn mount(m: &oci::Mount) -> Mount {
    Mount {
        kind: m.typ().clone().unwrap_or_default(),
        source: m.source().clone().unwrap_or_default(),
        target: m.destination().clone(),
        options: m.options().clone().unwrap_or_default(),
    }
}

fn paths(list: Option<&Vec<String>>) -> Vec<PathBuf> {
    list.into_iter().flatten().map(PathBuf::from).collect()
}

/// Nodes, with the access that the first matching rule of the device controller gives.
fn devices(linux: &oci::Linux) -> Vec<Device> {
    let rules = linux.resources().as_ref().and_then(|r| r.devices().as_ref());
    let number = |n: i64| u32::try_from(n).unwrap_or(0);
    let read = |d: &oci::LinuxDevice| {
        let matches = |r: &&oci::LinuxDeviceCgroup| {
            r.allow() && r.typ() == Some(d.typ()) && r.major() == Some(d.major()) && r.minor() == Some(d.minor())
        };
        let rule = rules.into_iter().flatten().find(matches);
        Device {
            path: d.path().clone(),
            kind: kind(d.typ()),
            major: number(d.major()),
            minor: number(d.minor()),
            mode: d.file_mode().unwrap_or(0o666) & 0o7777,
            uid: d.uid().unwrap_or(0),
            gid: d.gid().unwrap_or(0),
            access: rule.and_then(|r| r.access().clone()).unwrap_or_else(|| "rwm".into()),
        }
    };
    linux.devices().iter().flatten().map(read).collect()
}

fn kind(kind: oci::LinuxDeviceType) -> char {
    match kind {
        oci::LinuxDeviceType::B => 'b',
        oci::LinuxDeviceType::P => 'p',
        oci::LinuxDeviceType::A | oci::LinuxDeviceType::C | oci::LinuxDeviceType::U => 'c',
    }
}

/// A foreign bundle's filter is plain OCI, which our profile reader takes as it is.
fn seccomp(linux: &oci::Linux) -> Result<Seccomp> {
    let Some(profile) = linux.seccomp() else { return Ok(Seccomp::Unconfined) };
    serde_json::to_string(profile)
        .map(Seccomp::Profile)
        .map_err(|e| Error::invalid("bad seccomp profile in config.json").with_cause(e.to_string()))
}

fn cgroup(linux: &oci::Linux, id: &str) -> Result<Cgroup> {
    let path = match linux.cgroups_path() {
        None => Path::new("rrun").join(id),
        Some(path) if path.to_string_lossy().contains(':') => {
            return Err(refused("a systemd cgroup (slice:prefix:name)", "give a path"));
        }
        Some(path) => path.strip_prefix("/").unwrap_or(path).to_path_buf(),
    };
    let mut cgroup = Cgroup { path, ..Cgroup::default() };
    let Some(resources) = linux.resources() else { return Ok(cgroup) };
    if let Some(memory) = resources.memory() {
        cgroup.memory = memory.limit();
        cgroup.memory_swap = memory.swap();
        cgroup.memory_reservation = memory.reservation();
        cgroup.memory_swappiness = memory.swappiness();
        cgroup.oom_kill_disable = memory.disable_oom_killer().unwrap_or(false);
    }
    if let Some(cpu) = resources.cpu() {
        cgroup.cpu_quota = cpu.quota();
        cgroup.cpu_period = cpu.period();
        cgroup.cpu_shares = cpu.shares();
        cgroup.cpu_rt_runtime = cpu.realtime_runtime();
        cgroup.cpu_rt_period = cpu.realtime_period();
        cgroup.cpuset_cpus.clone_from(cpu.cpus());
        cgroup.cpuset_mems.clone_from(cpu.mems());
    }
    if let Some(io) = resources.block_io() {
        cgroup.blkio_weight = io.weight();
        cgroup.io = disks(io);
    }
    cgroup.pids = resources.pids().as_ref().map(oci::LinuxPids::limit);
    // The last rule for all devices decides; without any, everything is denied (GHSA-g54h).
    let all = |r: &&oci::LinuxDeviceCgroup| {
        r.typ().is_none_or(|t| t == oci::LinuxDeviceType::A) && r.major().is_none() && r.minor().is_none()
    };
    cgroup.all_devices = resources.devices().iter().flatten().rfind(all).is_some_and(oci::LinuxDeviceCgroup::allow);
    Ok(cgroup)
}

fn disks(io: &oci::LinuxBlockIo) -> Vec<IoLimit> {
    let number = |n: i64| u32::try_from(n).unwrap_or(0);
    let limit =
        |major: i64, minor: i64, rate, value| IoLimit { major: number(major), minor: number(minor), rate, value };
    let rates = [
        (IoRate::ReadBps, io.throttle_read_bps_device()),
        (IoRate::WriteBps, io.throttle_write_bps_device()),
        (IoRate::ReadIops, io.throttle_read_iops_device()),
        (IoRate::WriteIops, io.throttle_write_iops_device()),
    ];
    let throttles = rates
        .into_iter()
        .flat_map(|(rate, list)| list.iter().flatten().map(move |d| limit(d.major(), d.minor(), rate, d.rate())));
    let weights = io.weight_device().iter().flatten();
    let weights = weights.map(|d| limit(d.major(), d.minor(), IoRate::Weight, u64::from(d.weight().unwrap_or(0))));
    throttles.chain(weights).collect()
}
