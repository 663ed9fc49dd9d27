//! [`Record`]: a container as `container.json` keeps it, from `create` until `rm`.
//!
//! The record says what was asked for; every start makes its spec of it. What became of it is
//! elsewhere: `state.json` is the process, netstack's endpoint files are the addresses.

use super::file;
use super::lock::Lock;
use super::request::log::DEFAULT_DRIVER;
use super::restart::Policy;
use crate::context::Context;
use netstack::model::{DnsConfig, EndpointConfig, PortSpec};
use netstack::rate::Rate;
use plan::{Error, Result};
use runtime::cgroup::{DeviceRule, IoRate};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub const VERSION: u32 = 1;
pub const FILE: &str = "container.json";

/// Unknown fields survive a rewrite; a newer version's record is refused untouched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub version: u32,
    /// 64 hex digits.
    pub id: String,
    pub name: String,
    /// As the user wrote it.
    pub image: String,
    /// `sha256:…`
    pub image_id: String,
    /// Directories under `<root>/layers`, topmost first.
    pub layers: Vec<PathBuf>,
    /// RFC 3339 with nanoseconds, UTC.
    pub created: String,
    pub config: Config,
    pub host: HostConfig,
    /// In attach order: the first becomes `eth0`. Empty for `none`, `host` and `container:…`.
    pub networks: Vec<EndpointConfig>,
    pub dns: DnsConfig,
    pub mounts: Vec<MountPoint>,
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

/// What the program sees: the image's config with the user's flags over it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    pub hostname: String,
    pub domainname: String,
    pub user: String,
    pub env: Vec<String>,
    pub entrypoint: Option<Vec<String>>,
    pub cmd: Option<Vec<String>>,
    pub working_dir: String,
    pub labels: BTreeMap<String, String>,
    /// `80/tcp`, of the image and of `--expose`.
    pub exposed_ports: Vec<String>,
    /// The image's VOLUMEs.
    pub volumes: Vec<String>,
    pub tty: bool,
    pub open_stdin: bool,
    /// Not `run -d`: whoever starts it may be attached from the start, and its input ends with theirs.
    pub attached: bool,
    pub stop_signal: Option<String>,
    pub stop_timeout: Option<i64>,
    pub healthcheck: Option<Value>,
    /// The image's SHELL.
    pub shell: Option<Vec<String>>,
}

impl Config {
    /// Entrypoint and command in one: what is executed.
    pub fn args(&self) -> Vec<String> {
        [&self.entrypoint, &self.cmd].into_iter().flatten().flatten().cloned().collect()
    }
}

/// What the host grants.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostConfig {
    /// `-v` as written.
    pub binds: Vec<String>,
    /// Target → mount options.
    pub tmpfs: BTreeMap<String, String>,
    /// `bridge`, `host`, `none`, `container:<id>` or the first network's name.
    pub network_mode: String,
    pub ports: Vec<PortSpec>,
    pub publish_all: bool,
    pub auto_remove: bool,
    pub privileged: bool,
    pub readonly_rootfs: bool,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub security_opt: Vec<String>,
    pub group_add: Vec<String>,
    pub ulimits: Vec<Ulimit>,
    pub sysctls: BTreeMap<String, String>,
    pub devices: Vec<DeviceMapping>,
    pub init: bool,
    /// Bytes; 0 is no limit.
    pub memory: i64,
    pub memory_swap: i64,
    pub memory_reservation: i64,
    pub memory_swappiness: Option<u64>,
    pub oom_kill_disable: bool,
    /// Billionths of a processor.
    pub nano_cpus: i64,
    pub cpu_shares: u64,
    /// Microseconds; 0 is the kernel's own.
    pub cpu_period: u64,
    pub cpu_quota: i64,
    pub cpu_rt_period: u64,
    pub cpu_rt_runtime: i64,
    pub cpuset_cpus: String,
    pub cpuset_mems: String,
    /// `None`: rrun's default; -1: no limit.
    pub pids_limit: Option<i64>,
    pub oom_score_adj: Option<i32>,
    /// 0: the kernel's own.
    pub blkio_weight: u16,
    pub disks: Vec<DiskLimit>,
    pub cgroup_parent: String,
    pub device_cgroup_rules: Vec<DeviceRule>,
    pub restart: Policy,
    /// Empty (the default), `private`, `shareable`, `none`, `host` or `container:<id>`.
    pub ipc_mode: String,
    /// Empty, `host` or `container:<id>`.
    pub pid_mode: String,
    /// Empty or `host`; likewise below.
    pub uts_mode: String,
    pub cgroupns_mode: String,
    pub userns_mode: String,
    pub volumes_from: Vec<String>,
    pub annotations: BTreeMap<String, String>,
    /// Bytes.
    pub shm_size: i64,
    /// `--add-host` as written.
    pub extra_hosts: Vec<String>,
    /// `--hosts-file`, absolute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hosts_file: Option<PathBuf>,
    /// `--egress` as written.
    pub egress: Vec<String>,
    pub net_rate: Rate,
    /// `--host-loopback` as written.
    pub host_loopback: Vec<String>,
    /// Of the files of `spec::FILES`, those that are the image's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub image_files: Vec<String>,
    /// `--link` on the default bridge also sets its variables (`links::environment`).
    pub link_variables: bool,
    pub log: LogConfig,
    pub cidfile: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// `nofile`, as Docker writes it.
    pub name: String,
    pub soft: u64,
    pub hard: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceMapping {
    pub host: PathBuf,
    pub container: PathBuf,
    /// Some of `rwm`.
    pub access: String,
}

/// `--device-read-bps` and its kin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskLimit {
    pub path: PathBuf,
    pub rate: IoRate,
    pub value: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogConfig {
    /// One of [`super::request::log::DRIVERS`].
    pub driver: String,
    pub options: BTreeMap<String, String>,
}

impl Default for LogConfig {
    fn default() -> LogConfig {
        LogConfig { driver: DEFAULT_DRIVER.into(), options: BTreeMap::new() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountKind {
    Bind,
    Volume,
    Tmpfs,
}

/// One `-v`, `--tmpfs` or VOLUME, decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MountPoint {
    pub kind: MountKind,
    /// Of a volume.
    pub name: Option<String>,
    /// On the host; empty for tmpfs.
    pub source: PathBuf,
    pub destination: PathBuf,
    /// The options as written.
    pub mode: String,
    pub rw: bool,
    /// `rprivate` unless said otherwise.
    pub propagation: String,
    /// A volume made for this container alone, removed by `--rm` and `rm -v`.
    pub anonymous: bool,
    /// Whether an empty volume is first filled with what the image has there.
    pub copy_up: bool,
    /// Of a bind mount: what becomes of the mounts below its source.
    #[serde(default)]
    pub below: Below,
    /// Of a bind mount: a source that is not there is an error, and not made.
    #[serde(default)]
    pub must_exist: bool,
    /// Of a volume: the directory inside it that is mounted.
    #[serde(default)]
    pub subpath: PathBuf,
    /// Of a volume that is not there yet: what it is made with.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// `bind-recursive`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Below {
    /// They come along, read-only if the mount is.
    #[default]
    Enabled,
    /// They come along, writable even if the mount is not.
    Writable,
    /// They stay away.
    Disabled,
}

impl Record {
    /// # Errors
    /// No such container, or a record that cannot be understood.
    pub fn load(dir: &Path) -> Result<Record> {
        match file::read::<Record>(dir, FILE, VERSION)? {
            Some(record) => Ok(record),
            None => {
                let id = dir.file_name().unwrap_or_default().to_string_lossy();
                Err(super::no_such(&id))
            }
        }
    }

    /// Changes a record under the container's lock, as `network connect` does.
    ///
    /// # Errors
    /// Of `change`, and of reading and writing; the record is then as before.
    pub fn update<T>(ctx: &Context, id: &str, change: impl FnOnce(&mut Record) -> Result<T>) -> Result<(Record, T)> {
        let _lock = Lock::take(ctx, id)?;
        let dir = ctx.container_dir(id);
        let mut record = Record::load(&dir)?;
        let made = change(&mut record)?;
        file::replace(&dir, FILE, &record)?;
        Ok((record, made))
    }

    /// The twelve digits that people read.
    pub fn short_id(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }

    /// The signal that asks this container to stop, e.g. `SIGTERM`.
    pub fn stop_signal(&self) -> &str {
        self.config.stop_signal.as_deref().unwrap_or("SIGTERM")
    }

    /// What is published: `-p`, and with `-P` every exposed port on a free host port.
    ///
    /// # Errors
    /// A record made by hand.
    pub fn published(&self) -> Result<Vec<PortSpec>> {
        let mut ports = self.host.ports.clone();
        if self.host.publish_all {
            for exposed in &self.config.exposed_ports {
                let (container, proto) = netstack::publish::parse_expose(exposed)?;
                let done = ports
                    .iter()
                    .any(|p| p.proto == proto && p.container.0 <= container.0 && container.1 <= p.container.1);
                if !done {
                    let (host_ip, host, iface, from) = Default::default();
                    ports.push(PortSpec { host_ip, host, container, proto, iface, from });
                }
            }
        }
        Ok(ports)
    }

    /// Its network namespace is made for it.
    pub fn has_own_netns(&self) -> bool {
        self.host.network_mode != "host" && self.foreign_namespace().is_none() && self.joined_container().is_none()
    }

    /// The path in `ns:<path>`.
    pub fn foreign_namespace(&self) -> Option<&str> {
        self.host.network_mode.strip_prefix("ns:")
    }

    /// The ID in `container:<id>`.
    pub fn joined_container(&self) -> Option<&str> {
        self.host.network_mode.strip_prefix("container:")
    }

    /// Where its control group is in each hierarchy.
    pub fn cgroup_path(&self) -> PathBuf {
        match self.host.cgroup_parent.trim_matches('/') {
            "" => Path::new("rrun").join(&self.id),
            parent => Path::new(parent).join(&self.id),
        }
    }
}

/// What [`super::list`] finds in a container's directory.
#[derive(Clone, Debug)]
pub enum Entry {
    Container(Box<Record>),
    /// The record cannot be read: shown as such, never in the way of the others.
    Broken {
        id: String,
        name: String,
        error: Error,
    },
}
