//! One simulated or real host: the three places that all of rrun's state hangs on.

use crate::args::Global;
use crate::config::{Config, RegistryConfig};
use images::registry::{Registries, Registry};
use netstack::networks::Netstack;
use plan::{Error, Result};
use std::path::PathBuf;

/// What every command is given.
#[derive(Clone, Debug)]
pub struct Context {
    /// `--root`: persistent.
    pub root: PathBuf,
    /// `--state`: gone after a reboot.
    pub state: PathBuf,
    /// `--config`.
    pub config_path: PathBuf,
    pub config: Config,
}

impl Context {
    /// Reads the configuration; creates nothing.
    ///
    /// # Errors
    /// A relative or odd path, an unreadable configuration.
    pub fn new(global: &Global) -> Result<Context> {
        let absolute = |flag: &str, path: &PathBuf| {
            std::path::absolute(path).map_err(|e| Error::io(format!("{flag} {}", path.display()), &e))
        };
        Ok(Context {
            root: absolute("--root", &global.root)?,
            state: absolute("--state", &global.state)?,
            config_path: absolute("--config", &global.config)?,
            config: Config::load(&global.config)?,
        })
    }

    /// Where containers are recorded.
    pub fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    /// A container's persistent directory: record, writable layer, log.
    pub fn container_dir(&self, id: &str) -> PathBuf {
        self.containers().join(id)
    }

    /// A container's volatile directory: state, undo list, socket. There only while it runs.
    pub fn state_dir(&self, id: &str) -> PathBuf {
        self.state.join("containers").join(id)
    }

    pub fn volume_dir(&self, name: &str) -> PathBuf {
        self.root.join("volumes").join(name)
    }

    /// # Errors
    /// As [`images::store::Store::open`].
    pub fn images(&self) -> Result<images::store::Store> {
        images::store::Store::open(&self.root)
    }

    /// What the configuration says of registries, and where logins are kept: Docker's own place, so that
    /// one login serves docker, podman and rrun.
    pub fn registries(&self) -> Registries {
        let host = |r: &RegistryConfig| Registry { mirrors: r.mirrors.clone(), insecure: r.insecure, ca: r.ca.clone() };
        let hosts = self.config.registries.iter().map(|(name, r)| (name.to_ascii_lowercase(), host(r))).collect();
        let dir = std::env::var_os("DOCKER_CONFIG").filter(|d| !d.is_empty()).map(PathBuf::from);
        let dir = dir.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".docker")));
        Registries { hosts, login: dir.map(|d| d.join("config.json")) }
    }

    pub fn netstack(&self) -> Netstack {
        Netstack::new(&self.root, &self.state, self.config.network.for_netstack())
    }
}

/// Most verbs change namespaces, mounts and files of root. Saying so at once beats the tenth
/// system call's EPERM.
///
/// # Errors
/// Not being root.
pub fn require_root() -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let line = std::env::args().skip(1).take(2).collect::<Vec<_>>().join(" ");
    Err(Error::invalid("rrun needs root: it creates namespaces, mounts and network devices")
        .with_hint(format!("sudo rrun {line}…   (`rrun explain run …` shows the plan without root)")))
}
