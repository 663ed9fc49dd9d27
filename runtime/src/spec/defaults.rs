//! What a container gets when nobody asks for anything: Docker's current defaults, as data.
//!
//! The command line starts from [`RunSpec::new`] and changes what its flags say.

use super::{AppArmor, Caps, Cgroup, Device, Mount, Namespace, Namespaces, Process, Root, RunSpec, Seccomp, User};
use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// `/dev/shm` without `--shm-size`, in bytes.
pub const SHM_SIZE: u64 = 64 << 20;

/// A masked path that stands for one per CPU; the planner expands it where the host has it
/// (GHSA-6fw5-f8r9-fgfm: thermal throttling tells neighbours apart).
pub const THERMAL_THROTTLE: &str = "/sys/devices/system/cpu/cpu*/thermal_throttle";

/// Reads of these tell about the host, its keys or its neighbours.
const MASKED: [&str; 13] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
    THERMAL_THROTTLE,
];

/// Writes to these change the host's kernel, not the container's.
const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The device nodes every program may expect (name, major, minor), all mode 666.
pub const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Symbolic links in `/dev` (name, target).
pub const DEVICE_LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// What the device controller lets in beside a container's own devices (type, major, minor, access).
/// Making a node is harmless, since opening it is checked again. `/dev/net/tun` (10:200) is not
/// among them, unlike in older Docker: `--device /dev/net/tun` asks for it.
pub const DEVICE_RULES: [(char, Option<u32>, Option<u32>, &str); 11] = [
    ('c', None, None, "m"),
    ('b', None, None, "m"),
    ('c', Some(1), Some(3), "rwm"),
    ('c', Some(1), Some(5), "rwm"),
    ('c', Some(1), Some(7), "rwm"),
    ('c', Some(1), Some(8), "rwm"),
    ('c', Some(1), Some(9), "rwm"),
    ('c', Some(5), Some(0), "rwm"),
    ('c', Some(5), Some(1), "rwm"),
    ('c', Some(5), Some(2), "rwm"),
    ('c', Some(136), None, "rwm"),
];

/// The file systems every container gets, parents before children.
pub fn mounts(shm_size: u64) -> Vec<Mount> {
    let mount = |kind: &str, source: &str, target: &str, options: &[&str]| Mount {
        kind: kind.into(),
        source: source.into(),
        target: target.into(),
        options: options.iter().map(|o| (*o).to_string()).collect(),
    };
    let shm = format!("size={shm_size}");
    vec![
        mount("proc", "proc", "/proc", &["nosuid", "noexec", "nodev"]),
        mount("tmpfs", "tmpfs", "/dev", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "devpts",
            "devpts",
            "/dev/pts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("sysfs", "sysfs", "/sys", &["nosuid", "noexec", "nodev", "ro"]),
        mount("cgroup", "cgroup", "/sys/fs/cgroup", &["nosuid", "noexec", "nodev", "ro"]),
        mount("mqueue", "mqueue", "/dev/mqueue", &["nosuid", "noexec", "nodev"]),
        mount("tmpfs", "shm", "/dev/shm", &["nosuid", "noexec", "nodev", "mode=1777", &shm]),
    ]
}

pub fn masked_paths() -> Vec<PathBuf> {
    MASKED.iter().map(PathBuf::from).collect()
}

pub fn readonly_paths() -> Vec<PathBuf> {
    READONLY.iter().map(PathBuf::from).collect()
}

/// With a network namespace of its own a container need not be root to bind port 80 or to ping.
pub fn network_sysctls() -> BTreeMap<String, String> {
    [("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 2147483647")]
        .iter()
        .map(|(k, v)| ((*k).to_string(), (*v).to_string()))
        .collect()
}

impl RunSpec {
    /// A container of Docker's defaults, without a program and with an empty root directory path:
    /// the caller fills in `process.args`, `process.env`, `root`, and whatever its flags change.
    pub fn new(id: &str) -> RunSpec {
        RunSpec {
            id: id.to_string(),
            hostname: None,
            domainname: None,
            process: Process {
                args: Vec::new(),
                env: Vec::new(),
                cwd: PathBuf::from("/"),
                user: User::Named { spec: String::new(), additional_groups: Vec::new() },
                tty: false,
                console_size: None,
                caps: Caps::of(&crate::caps::DEFAULT.map(str::to_string), true),
                no_new_privileges: false,
                apparmor: AppArmor::Default,
                rlimits: Vec::new(),
                oom_score_adj: None,
                umask: None,
                init: false,
            },
            root: Root::Directory { path: PathBuf::new(), readonly: false },
            namespaces: Namespaces {
                net: Namespace::Private,
                pid: Namespace::Private,
                ipc: Namespace::Private,
                uts: Namespace::Private,
                cgroup: Namespace::Private,
            },
            mounts: mounts(SHM_SIZE),
            masked_paths: masked_paths(),
            readonly_paths: readonly_paths(),
            devices: Vec::new(),
            sysctls: network_sysctls(),
            seccomp: Seccomp::Default,
            cgroup: Cgroup { path: Path::new("rrun").join(id), ..Cgroup::default() },
            annotations: BTreeMap::new(),
        }
    }

    /// `--privileged`: every capability, nothing masked or read-only, no system call filter, every
    /// device of the host. What the caller itself lacks is still left out by the planner.
    pub fn make_privileged(&mut self) {
        let all = crate::caps::names(crate::caps::ALL);
        self.process.caps = Caps::of(&all, true);
        self.seccomp = Seccomp::Unconfined;
        self.process.apparmor = AppArmor::Unconfined;
        self.masked_paths.clear();
        self.readonly_paths.clear();
        for m in &mut self.mounts {
            if m.kind == "sysfs" || m.kind == "cgroup" {
                m.options.retain(|o| o != "ro");
            }
        }
        self.cgroup.all_devices = true;
        self.devices.extend(host_devices(Path::new("/dev")));
    }

    /// Takes the namespaces' consequences into the rest: call it once, after `namespaces` is final.
    /// A shared network namespace is not ours to tune; without one, sysfs shows the host's devices
    /// anyway; an IPC namespace of the host comes with the host's queues and shared memory.
    pub fn settle_namespaces(&mut self) {
        if self.namespaces.net != Namespace::Private {
            for key in network_sysctls().keys() {
                self.sysctls.remove(key);
            }
        }
        if self.namespaces.ipc == Namespace::Host {
            for m in &mut self.mounts {
                let target = m.target.clone();
                if m.source == Path::new("shm") || m.kind == "mqueue" {
                    *m = Mount {
                        kind: "bind".into(),
                        source: target.clone(),
                        target,
                        options: ["rbind", "nosuid", "noexec", "nodev"].map(String::from).to_vec(),
                    };
                }
            }
            self.mounts.retain(|m| m.kind != "bind" || m.source != m.target || m.source.exists());
        }
    }
}

/// The host's device nodes, for `--privileged`. What cannot be read is left out; terminals and the
/// like are the container's own.
fn host_devices(dir: &Path) -> Vec<Device> {
    const OWN: [&str; 11] =
        ["pts", "shm", "fd", "mqueue", "console", "ptmx", "null", "zero", "full", "random", "urandom"];
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if OWN.iter().any(|own| name == *own) || name == "tty" {
            continue;
        }
        let Ok(meta) = entry.path().symlink_metadata() else { continue };
        let kind = meta.file_type();
        if kind.is_dir() {
            found.extend(host_devices(&entry.path()));
        } else if kind.is_char_device() || kind.is_block_device() {
            found.push(Device {
                path: entry.path(),
                kind: if kind.is_char_device() { 'c' } else { 'b' },
                major: libc::major(meta.rdev()),
                minor: libc::minor(meta.rdev()),
                mode: meta.mode() & 0o7777,
                uid: meta.uid(),
                gid: meta.gid(),
                access: "rwm".into(),
            });
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn privileged_opens_what_default_closes() {
        let mut spec = RunSpec::new("0");
        assert!(spec.masked_paths.iter().any(|p| p == Path::new("/proc/kcore")));
        assert!(!spec.process.caps.bounding.iter().any(|c| c == "SYS_ADMIN"));
        spec.make_privileged();
        assert!(spec.masked_paths.is_empty() && spec.cgroup.all_devices);
        assert!(spec.process.caps.bounding.iter().any(|c| c == "SYS_ADMIN"));
        assert!(spec.mounts.iter().all(|m| !m.options.iter().any(|o| o == "ro")));
        assert!(spec.devices.iter().all(|d| d.path != Path::new("/dev/null")), "the container makes its own");
    }

    #[test]
    fn a_shared_network_keeps_its_sysctls() {
        let mut spec = RunSpec::new("0");
        spec.sysctls.insert("kernel.shmmax".into(), "1".into());
        spec.namespaces.net = Namespace::Host;
        spec.settle_namespaces();
        assert_eq!(spec.sysctls.keys().collect::<Vec<_>>(), ["kernel.shmmax"]);
    }
}
