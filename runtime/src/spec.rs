//! [`RunSpec`]: everything needed to start one container, as plain validated fields.
//!
//! The command line builds it from flags and image config; `oci` turns it into an OCI `config.json`
//! (which is what a container's directory holds) and back, so that the planner never meets an
//! `Option` forest. Paths named `source` are on the host, paths named `target` in the container.

pub mod defaults;

use crate::cgroup::{DeviceRule, IoLimit};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

#[derive(Clone, Debug, PartialEq)]
pub struct RunSpec {
    /// 64 hex digits.
    pub id: String,
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    pub process: Process,
    pub root: Root,
    pub namespaces: Namespaces,
    /// In order: a later mount may lie inside an earlier one.
    pub mounts: Vec<Mount>,
    pub masked_paths: Vec<PathBuf>,
    pub readonly_paths: Vec<PathBuf>,
    /// Device nodes beside the default ones.
    pub devices: Vec<Device>,
    pub sysctls: BTreeMap<String, String>,
    pub seccomp: Seccomp,
    pub cgroup: Cgroup,
    pub annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Process {
    pub args: Vec<String>,
    /// `KEY=value`, in order.
    pub env: Vec<String>,
    pub cwd: PathBuf,
    pub user: User,
    pub tty: bool,
    /// (rows, columns) of the terminal at start.
    pub console_size: Option<(u16, u16)>,
    pub caps: Caps,
    pub no_new_privileges: bool,
    pub apparmor: AppArmor,
    pub rlimits: Vec<Rlimit>,
    pub oom_score_adj: Option<i32>,
    pub umask: Option<u32>,
    /// `--init`: PID 1 is rrun's own reaper, the program is its child.
    pub init: bool,
}

/// Who the program runs as. `Named` is looked up by the child in the image's own files, after
/// pivot_root (the image is hostile input: CVE-2026-47262 and kin).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum User {
    /// `user[:group]`, names or numbers, as in `--user` and the image config. Empty means root.
    Named { spec: String, additional_groups: Vec<String> },
    /// Exactly these, nothing looked up (an OCI spec's `process.user`).
    Ids { uid: u32, gid: u32, additional_gids: Vec<u32> },
}

/// Capability names without `CAP_`, upper case, sorted. What the caller lacks or the kernel does not
/// know is left out by the planner, with a warning for what was asked for by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caps {
    pub bounding: Vec<String>,
    pub effective: Vec<String>,
    pub permitted: Vec<String>,
    pub inheritable: Vec<String>,
    pub ambient: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// `NOFILE`, `NPROC`… without `RLIMIT_`.
    pub name: String,
    pub soft: u64,
    pub hard: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Root {
    /// Lower directories topmost first; relative names are relative to `base`, which keeps 127
    /// layers within the one page that mount(2) takes.
    Overlay {
        base: PathBuf,
        lower: Vec<PathBuf>,
        upper: PathBuf,
        work: PathBuf,
        /// `volatile`: no sync at unmount, for `--rm` containers.
        volatile: bool,
        readonly: bool,
    },
    /// A plain directory (an OCI bundle's rootfs).
    Directory { path: PathBuf, readonly: bool },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Namespace {
    Private,
    /// Share the caller's.
    Host,
    /// Join this one (`/proc/<pid>/ns/net`, a bind-mounted handle).
    Path(PathBuf),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespaces {
    pub net: Namespace,
    pub pid: Namespace,
    pub ipc: Namespace,
    pub uts: Namespace,
    pub cgroup: Namespace,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// `bind`, `tmpfs`, `proc`, `sysfs`, `devpts`, `mqueue`, `cgroup`…
    pub kind: String,
    pub source: PathBuf,
    pub target: PathBuf,
    /// As in fstab and OCI: `ro`, `nosuid`, `rbind`, `rprivate`, `size=64m`, `mode=1777`…
    pub options: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    pub path: PathBuf,
    /// 'c', 'b' or 'p'.
    pub kind: char,
    pub major: u32,
    pub minor: u32,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// cgroup access: some of `rwm`.
    pub access: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seccomp {
    /// Docker-current semantics, compiled in; rules that depend on capabilities follow `bounding`.
    Default,
    Unconfined,
    /// The text of an OCI/Docker seccomp profile (JSON).
    Profile(String),
}

/// The AppArmor profile of a program, on machines that have AppArmor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AppArmor {
    /// rrun's own, loaded if it is not yet.
    #[default]
    Default,
    /// Whatever the caller runs under, which for root is nothing.
    Unconfined,
    /// One that the administrator has loaded.
    Profile(String),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cgroup {
    /// Relative to each hierarchy: `rrun/<id>`.
    pub path: PathBuf,
    /// Bytes.
    pub memory: Option<i64>,
    /// Bytes of memory + swap; -1 is unlimited.
    pub memory_swap: Option<i64>,
    pub memory_reservation: Option<i64>,
    /// 0 to 100; v1 only.
    pub memory_swappiness: Option<u64>,
    /// Processes wait instead of being killed when memory runs out; v1 only.
    pub oom_kill_disable: bool,
    /// CFS quota and period in microseconds (`--cpus 1.5` = 150000/100000).
    pub cpu_quota: Option<i64>,
    pub cpu_period: Option<u64>,
    pub cpu_shares: Option<u64>,
    /// Microseconds of realtime scheduling in each period; v1 only.
    pub cpu_rt_runtime: Option<i64>,
    pub cpu_rt_period: Option<u64>,
    pub cpuset_cpus: Option<String>,
    pub cpuset_mems: Option<String>,
    /// -1 is unlimited.
    pub pids: Option<i64>,
    /// Relative weight of disk access, 10 to 1000.
    pub blkio_weight: Option<u16>,
    /// Limits of single disks.
    pub io: Vec<IoLimit>,
    /// Access to devices beside the default ones and the container's own.
    pub device_rules: Vec<DeviceRule>,
    /// `--privileged`: every device.
    pub all_devices: bool,
}
