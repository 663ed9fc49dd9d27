//! [`Step`]: every change to the kernel on the way to a running container, as data.
//!
//! The planner lists them, `exec` (host side) and `init` (child side) carry them out in that order,
//! `words` makes them speak.

mod shell;
mod words;

use crate::cgroup::{DeviceRule, Setting};
use crate::spec::{Caps, Device, Rlimit, User};
use crate::volume::VolumeMount;
use plan::Ns;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Host: the file system of a volume, before anything else; the caller's, who holds the volume's lock.
    MountVolume(VolumeMount),
    /// Host: rrun's own AppArmor profile, into the kernel.
    LoadAppArmor {
        parser: PathBuf,
        /// What another rrun's leaves in the kernel.
        stale: Vec<String>,
    },
    /// Host: the group's directories in these hierarchies, then its limits.
    CreateCgroup {
        path: PathBuf,
        dirs: Vec<PathBuf>,
        settings: Vec<Setting>,
    },
    /// Host, v2: the device program.
    FilterDevices {
        path: PathBuf,
        dir: PathBuf,
        rules: Vec<DeviceRule>,
    },
    /// Host: the children of this process will be born in another's pid namespace.
    JoinPidNamespace {
        handle: Handle,
    },
    /// Host: the container's first process, born in the v2 group if there is one.
    CloneNamespaces {
        kinds: Vec<Ns>,
        cgroup: Option<PathBuf>,
    },
    /// Own session, default signals, empty keyring, not traceable.
    ShedInheritance,
    /// The host makes the v1 groups while the child is at its root.
    AwaitCgroup,
    /// v1 groups.
    JoinCgroup {
        dirs: Vec<PathBuf>,
    },
    JoinNamespaces {
        handles: Vec<(Ns, Handle)>,
    },
    UnshareCgroup,
    SetOomScore {
        value: i32,
    },
    /// Takes hold of bind sources before anything is mounted over them, and while they are still
    /// peers of the host's mounts. In the order of the bind mounts; `true`: with what is mounted
    /// below.
    HoldSources {
        sources: Vec<(PathBuf, bool)>,
    },
    /// Cuts mount propagation to and from the host.
    IsolateMounts,
    MountOverlay {
        base: PathBuf,
        lower: Vec<PathBuf>,
        upper: PathBuf,
        work: PathBuf,
        volatile: bool,
    },
    BindRoot {
        path: PathBuf,
    },
    Mount {
        kind: String,
        source: String,
        target: PathBuf,
        attributes: u64,
        data: Vec<String>,
    },
    BindMount {
        source: PathBuf,
        target: PathBuf,
        recursive: bool,
        change: Change,
    },
    /// v1: a tmpfs with the container's own directory of each hierarchy.
    MountCgroups {
        target: PathBuf,
        binds: Vec<(PathBuf, String)>,
        links: Vec<(String, String)>,
        readonly: bool,
    },
    /// `standard`: the six nodes and the links of every `/dev`; `extra`: the container's own.
    MakeDevices {
        standard: bool,
        extra: Vec<Device>,
    },
    Mask {
        paths: Vec<PathBuf>,
    },
    ReadOnlyPaths {
        paths: Vec<PathBuf>,
    },
    PivotRoot,
    ConnectStdio,
    /// `size`: (rows, columns). `console`: also bound on /dev/console.
    OpenConsole {
        size: Option<(u16, u16)>,
        console: bool,
    },
    WorkDir {
        path: PathBuf,
        create: bool,
    },
    ReadOnlyRoot,
    SetHostname {
        hostname: Option<String>,
        domainname: Option<String>,
    },
    AwaitNetwork,
    SetSysctls {
        values: Vec<(String, String)>,
    },
    SetRlimits {
        limits: Vec<Rlimit>,
    },
    LookUpUser {
        user: User,
    },
    NoNewPrivileges,
    FilterSystemCalls {
        profile: Profile,
    },
    DropCapabilities {
        caps: Caps,
    },
    CloseDescriptors,
    /// `now`: before the fork of `--init`, so that both are under it; else from the exec on.
    EnterAppArmor {
        profile: String,
        now: bool,
    },
    /// `--init`.
    StartReaper,
    Exec {
        argv: Vec<String>,
        umask: u32,
    },
}

/// Where a namespace to join is found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Handle {
    /// `/proc/<pid>/ns/net` or a bind mount of it.
    Path(PathBuf),
    /// That of the process whose pidfd the executor holds (`rrun exec`).
    Process(i32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    Default,
    Custom,
}

/// What becomes of a bind mount's attributes (`MOUNT_ATTR_*` bits) and propagation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub set: u64,
    pub clear: u64,
    /// The same for the whole tree below.
    pub set_recursive: u64,
    pub clear_recursive: u64,
    pub propagation: Propagation,
    /// Whether the propagation goes for the whole tree below.
    pub propagation_recursive: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Propagation {
    #[default]
    Private,
    Slave,
    Shared,
    Unbindable,
}

impl Propagation {
    pub(crate) fn bits(self) -> u64 {
        match self {
            Propagation::Private => libc::MS_PRIVATE,
            Propagation::Slave => libc::MS_SLAVE,
            Propagation::Shared => libc::MS_SHARED,
            Propagation::Unbindable => libc::MS_UNBINDABLE,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Propagation::Private => "private",
            Propagation::Slave => "slave",
            Propagation::Shared => "shared",
            Propagation::Unbindable => "unbindable",
        }
    }
}
