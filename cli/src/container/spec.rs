//! From a record to a [`RunSpec`]: Docker's defaults with what the record says over them.

use super::links;
use super::record::{Below, HostConfig, MountKind, MountPoint, Record};
use super::request::{limits, security};
use crate::context::Context;
use plan::Result;
use runtime::caps;
use runtime::spec::{Caps, Mount, Namespace, Rlimit, Root, RunSpec, Seccomp, User};
use std::path::{Path, PathBuf};

/// The files of a container's own that lie over the image's.
pub const FILES: [(&str, &str); 3] =
    [("resolv.conf", "/etc/resolv.conf"), ("hostname", "/etc/hostname"), ("hosts", "/etc/hosts")];

/// The complete spec but for what only a start can know: the process whose network is shared, the
/// size of a terminal.
///
/// # Errors
/// A device that is not there, capabilities that do not exist.
pub fn run_spec(ctx: &Context, record: &Record) -> Result<RunSpec> {
    let (config, host) = (&record.config, &record.host);
    let mut spec = RunSpec::new(&record.id);
    let confinement = security::confinement(&host.security_opt);
    let granted = caps::granted(host.privileged, &host.cap_add, &host.cap_drop)?;
    if host.privileged {
        spec.make_privileged();
    }
    spec.process.caps = Caps::of(&granted, true);
    spec.process.no_new_privileges = confinement.no_new_privileges;
    if let Some(profile) = confinement.apparmor {
        spec.process.apparmor = profile;
    }
    match confinement.seccomp.as_deref() {
        Some("unconfined") => spec.seccomp = Seccomp::Unconfined,
        Some(profile) => spec.seccomp = Seccomp::Profile(profile.to_string()),
        None => {}
    }
    if confinement.system_paths_open {
        spec.masked_paths.clear();
        spec.readonly_paths.clear();
    }

    namespaces(host, &mut spec);
    let hostname = hostname(ctx, record)?;
    spec.process.args = config.args();
    let linked = links::environment(ctx, record)?;
    spec.process.env = super::request::process::process_environment(config, &hostname, linked);
    spec.process.cwd = PathBuf::from(if config.working_dir.is_empty() { "/" } else { &config.working_dir });
    spec.process.user = User::Named { spec: config.user.clone(), additional_groups: host.group_add.clone() };
    spec.process.tty = config.tty;
    spec.process.umask = Some(0o022);
    spec.process.init = host.init;
    spec.process.oom_score_adj = host.oom_score_adj;
    spec.process.rlimits =
        host.ulimits.iter().map(|u| Rlimit { name: u.name.to_ascii_uppercase(), soft: u.soft, hard: u.hard }).collect();
    // The host's name is not ours to set.
    spec.hostname = (host.uts_mode != "host").then_some(hostname);
    spec.domainname = (!config.domainname.is_empty()).then(|| config.domainname.clone());
    spec.namespaces.net = match record.host.network_mode.as_str() {
        "host" => Namespace::Host,
        mode if mode.starts_with("container:") => seat("net"),
        mode if mode.starts_with("ns:") => Namespace::Path(PathBuf::from(&mode[3..])),
        _ => Namespace::Private,
    };

    spec.root = root(ctx, record);
    mounts(ctx, record, &mut spec);
    for mapping in &host.devices {
        for node in security::nodes(mapping)? {
            // Named again, or one of --privileged's: the last that was said counts.
            spec.devices.retain(|d| d.path != node.path);
            spec.devices.push(node);
        }
    }
    limits::apply(host, &mut spec.cgroup)?;
    spec.cgroup.path = record.cgroup_path();
    spec.annotations.clone_from(&host.annotations);
    spec.settle_namespaces();
    spec.sysctls.extend(host.sysctls.clone());
    Ok(spec)
}

/// The layers of a container and its own on top.
pub fn root(ctx: &Context, record: &Record) -> Root {
    let dir = ctx.container_dir(&record.id);
    Root::Overlay {
        base: ctx.root.join("layers"),
        lower: record.layers.clone(),
        upper: dir.join("upper"),
        work: dir.join("work"),
        // Nobody will ever look at the upper layer of a container that is removed at its end.
        volatile: record.host.auto_remove,
        readonly: record.host.readonly_rootfs,
    }
}

/// A seat for the process to join; the monitor fills in which one (`start::join`).
fn seat(kind: &str) -> Namespace {
    Namespace::Path(PathBuf::from(format!("/proc/0/ns/{kind}")))
}

fn namespaces(host: &HostConfig, spec: &mut RunSpec) {
    let how = |mode: &str, kind: &str| match mode {
        "host" => Namespace::Host,
        mode if mode.starts_with("container:") => seat(kind),
        _ => Namespace::Private,
    };
    let own = &mut spec.namespaces;
    own.pid = how(&host.pid_mode, "pid");
    own.ipc = how(&host.ipc_mode, "ipc");
    own.uts = how(&host.uts_mode, "uts");
    own.cgroup = how(&host.cgroupns_mode, "cgroup");
}

/// Docker's rule: the short ID unless given; where the network is shared, its owner's.
fn hostname(ctx: &Context, record: &Record) -> Result<String> {
    if !record.config.hostname.is_empty() {
        return Ok(record.config.hostname.clone());
    }
    if let Some(owner) = record.joined_container() {
        return hostname(ctx, &super::find(ctx, owner)?);
    }
    Ok(match record.host.network_mode.as_str() {
        "host" => rustix::system::uname().nodename().to_string_lossy().into_owned(),
        _ => record.short_id().to_string(),
    })
}

fn mounts(ctx: &Context, record: &Record, spec: &mut RunSpec) {
    for mount in &mut spec.mounts {
        if mount.target == Path::new("/dev/shm") {
            mount.options.retain(|o| !o.starts_with("size="));
            mount.options.push(format!("size={}", record.host.shm_size));
        }
    }
    if record.host.ipc_mode == "none" {
        spec.mounts.retain(|m| m.target != Path::new("/dev/shm"));
    }
    // Whoever shares another container's network shares its names as well.
    let owner = record.joined_container().unwrap_or(&record.id);
    let dir = ctx.container_dir(owner);
    let mut wanted: Vec<Mount> = FILES
        .iter()
        .filter(|(name, _)| !record.host.image_files.iter().any(|own| own == name))
        .map(|(name, target)| Mount {
            kind: "bind".into(),
            source: dir.join(name),
            target: target.into(),
            options: vec!["rbind".into(), "rprivate".into()],
        })
        .collect();
    for point in &record.mounts {
        // A user's own /etc/hosts, or /dev/shm, takes the place of ours.
        wanted.retain(|m| m.target != point.destination);
        spec.mounts.retain(|m| m.target != point.destination);
        wanted.push(mount(point));
    }
    // Parents before children: a mount must not hide one that was made inside it.
    wanted.sort_by_key(|m| m.target.components().count());
    spec.mounts.append(&mut wanted);
}

fn mount(point: &MountPoint) -> Mount {
    let words = |s: &str| s.split(',').filter(|o| !o.is_empty()).map(str::to_string).collect::<Vec<_>>();
    match point.kind {
        MountKind::Tmpfs => {
            let given = words(&point.mode);
            let mut options: Vec<String> = Vec::new();
            for (default, opposite) in [("nosuid", "suid"), ("nodev", "dev"), ("noexec", "exec")] {
                if !given.iter().any(|o| o == opposite) {
                    options.push(default.into());
                }
            }
            options.extend(given);
            Mount { kind: "tmpfs".into(), source: "tmpfs".into(), target: point.destination.clone(), options }
        }
        MountKind::Bind | MountKind::Volume => {
            let bind = if point.below == Below::Disabled { "bind" } else { "rbind" };
            let mut options = vec![bind.to_string(), point.propagation.clone()];
            match (point.rw, point.below) {
                (true, _) => {}
                // Docker's default since 25: no way to write below a read-only mount.
                (false, Below::Enabled) => options.push("rro".into()),
                (false, _) => options.push("ro".into()),
            }
            // A part of a volume is looked up inside it by whoever mounts it (see `rootfs::mounts`).
            let source = match point.subpath.as_os_str().is_empty() {
                true => point.source.clone(),
                false => PathBuf::from(format!("{}/./{}", point.source.display(), point.subpath.display())),
            };
            Mount { kind: "bind".into(), source, target: point.destination.clone(), options }
        }
    }
}

/// The volumes of `record` that are its own, for whoever removes it.
pub fn anonymous_volumes(record: &Record) -> impl Iterator<Item = &str> {
    record.mounts.iter().filter(|m| m.anonymous).filter_map(|m| m.name.as_deref())
}
