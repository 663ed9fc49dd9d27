//! The networks of one root: listed, looked up, created, removed.
//!
//! A network is a file, `<root>/networks/<id>.json`; `<root>/networks/by-name/<name>` points at it,
//! so that starting a container reads one file however many networks there are. Creating one
//! touches no kernel: bridge and firewall elements appear with its first container.

pub mod automatic;
mod config;
mod create;
mod follow;
mod inspect;
mod options;
mod predefined;
mod request;
mod store;
mod taken;
mod update;
pub(crate) mod uplink;
pub mod vlan;

pub use config::{Config, DefaultBridge};
pub use options::{BridgeOptions, GatewayMode, HOST_BINDING, ICC, MTU};
pub use predefined::{is_predefined, predefined_id};
pub use request::NetworkRequest;
pub(crate) use store::{random_hex, read_json, write_json};
pub use update::{NetworkUpdate, Updated};
pub use vlan::VlanOptions;

use crate::ipam::{self, Leases, Locked};
use crate::model::{Endpoint, EndpointConfig, Network};
use ipnetwork::IpNetwork;
use plan::{Error, Kind, Result, ResultExt};
use predefined::PREDEFINED;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Version of the records this program writes; it refuses newer ones untouched.
pub const VERSION: u32 = 1;

/// A container's ID, and what it asks of its networks.
pub type Wishes = (String, Vec<EndpointConfig>);

/// The networks of one `--root` and `--state`.
#[derive(Clone, Debug)]
pub struct Netstack {
    pub(crate) root: PathBuf,
    pub(crate) state: PathBuf,
    pub(crate) config: Config,
}

/// In a record: the bridge was there before the network, with these addresses, and stays when it goes.
const ADOPTED: &str = "adopted_bridge";

impl Network {
    /// Of a bridge that was there before, the addresses it had then; `None` for one of our own.
    pub(crate) fn adopted_bridge(&self) -> Option<Vec<IpNetwork>> {
        let kept = self.extra.get(ADOPTED)?.as_array().cloned().unwrap_or_default();
        Some(kept.iter().filter_map(|a| a.as_str()?.parse().ok()).collect())
    }
}

impl Netstack {
    /// Reads and writes nothing.
    pub fn new(root: &Path, state: &Path, config: Config) -> Netstack {
        Netstack { root: root.to_path_buf(), state: state.to_path_buf(), config }
    }

    fn dir(&self) -> PathBuf {
        self.root.join("networks")
    }

    fn record(&self, id: &str) -> PathBuf {
        self.dir().join(format!("{id}.json"))
    }

    pub(crate) fn leases(&self, network_id: &str) -> Leases {
        Leases::new(&self.root, &self.state, network_id)
    }

    /// Every network, by name; the predefined ones even before anything used them. Records that
    /// cannot be read are left out, so that one broken file does not hide the others.
    pub fn networks(&self) -> Result<Vec<Network>> {
        let mut all = self.stored()?;
        all.retain(|n| self.is_current(n));
        for (name, driver) in PREDEFINED {
            if !all.iter().any(|n| n.name == name) {
                all.push(self.predefined(name, driver, &all)?);
            }
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    fn stored(&self) -> Result<Vec<Network>> {
        let mut all = Vec::new();
        let entries = match std::fs::read_dir(self.dir()) {
            // `explain` runs without privilege, and then sees a host without networks.
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => return Ok(all),
            other => other.doing(|| format!("list {}", self.dir().display()))?,
        };
        for entry in entries.flatten() {
            if entry.file_name().to_str().is_some_and(|n| n.ends_with(".json") && !n.starts_with('.'))
                && let Ok(Some(network)) = read_json::<Network>(&entry.path(), VERSION, |n| n.version)
            {
                all.push(network);
            }
        }
        Ok(all)
    }

    /// One network: full ID, else full name, else the only ID with this prefix.
    ///
    /// Errors: `network X not found`; `network X is ambiguous (N matches found based on ID prefix)`.
    pub fn network(&self, wanted: &str) -> Result<Network> {
        if let Some((name, driver)) = PREDEFINED.into_iter().find(|(n, _)| *n == wanted || predefined_id(n) == wanted) {
            return match self.load(&self.record(&predefined_id(name))) {
                Ok(Some(network)) if self.is_current(&network) => Ok(network),
                Err(e) if e.errno != Some(libc::EACCES) => Err(e),
                _ => self.predefined(name, driver, &self.stored()?),
            };
        }
        let not_found = || {
            let hint = match wanted.strip_prefix("service:") {
                Some(_) => "service:… is of compose files: --network container:NAME joins that service's container",
                None => "`rrun network ls` shows the networks there are",
            };
            Error::not_found(format!("network {wanted} not found")).with_hint(hint)
        };
        if wanted.is_empty() || wanted.contains('/') || wanted.starts_with('.') {
            return Err(not_found());
        }
        if wanted.len() == 64
            && let Some(network) = self.load(&self.record(wanted))?
        {
            return Ok(network);
        }
        if let Some(network) = self.load(&self.dir().join("by-name").join(wanted))? {
            return Ok(network);
        }
        if !wanted.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(not_found());
        }
        let mut matches = self.networks()?;
        matches.retain(|n| n.id.starts_with(wanted));
        match matches.len() {
            0 => Err(not_found()),
            1 => Ok(matches.remove(0)),
            n => Err(Error::new(
                Kind::Conflict,
                format!("network {wanted} is ambiguous ({n} matches found based on ID prefix)"),
            )
            .with_hint("give more digits of the ID, or the name")),
        }
    }

    fn load(&self, path: &Path) -> Result<Option<Network>> {
        read_json::<Network>(path, VERSION, |n| n.version)
    }

    fn save(&self, network: &Network) -> Result<()> {
        ipam::make_dir(&self.dir().join("by-name"))?;
        write_json(&self.record(&network.id), network)?;
        let link = self.dir().join("by-name").join(&network.name);
        match std::os::unix::fs::symlink(format!("../{}.json", network.id), &link) {
            Ok(()) => Ok(()),
            // The name of a network that was removed halfway; the lock says that nobody has it.
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                std::fs::remove_file(&link).doing(|| format!("remove {}", link.display()))?;
                std::os::unix::fs::symlink(format!("../{}.json", network.id), &link)
                    .doing(|| format!("create {}", link.display()))
            }
            Err(e) => Err(Error::io(format!("create {}", link.display()), &e)),
        }
    }

    /// One process at a time creates or removes networks.
    fn lock(&self) -> Result<File> {
        ipam::make_dir(&self.dir())?;
        let path = self.dir().join(".lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .doing(|| format!("open {}", path.display()))?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)
            .doing(|| format!("lock {}", path.display()))?;
        Ok(file)
    }

    /// Removes a network nobody uses: its record, its bridge, its elements.
    ///
    /// Errors: `X is a pre-defined network and cannot be removed`; `error while removing network:
    /// network X has active endpoints (name:"c" id:"…")`.
    pub fn remove(&self, wanted: &str) -> Result<Network> {
        let _lock = self.lock()?;
        let network = self.network(wanted)?;
        if is_predefined(&network.name) {
            return Err(Error::conflict(format!("{} is a pre-defined network and cannot be removed", network.name))
                .with_hint("it holds nothing while no container uses it"));
        }
        if network.config_only
            && let Some(user) = self.stored()?.into_iter().find(|n| n.config_from == network.name)
        {
            return Err(Error::conflict(format!("configuration network {:?} is in use", network.name))
                .with_hint(format!("network {} has its settings: `rrun network rm {}` first", user.name, user.name)));
        }
        let leases = self.leases(&network.id);
        {
            let _held = leases.lock()?;
            let users = self.endpoints(&network)?;
            if !users.is_empty() {
                let list: Vec<String> = users
                    .iter()
                    .map(|e| {
                        format!("name:{:?} id:{:?}", e.container_name, e.container_id.get(..12).unwrap_or_default())
                    })
                    .collect();
                let names: Vec<&str> = users.iter().map(|e| e.container_name.as_str()).collect();
                return Err(Error::conflict(format!(
                    "error while removing network: network {} has active endpoints ({})",
                    network.name,
                    list.join(" ")
                ))
                .with_hint(format!(
                    "`rrun stop {}`, or `rrun network disconnect {} {}`",
                    names.join(" "),
                    network.name,
                    names[0]
                )));
            }
            if let Some((ip, owner)) = leases.all().into_iter().find(|(ip, _)| leases.owner(*ip).is_some()) {
                return Err(Error::conflict(format!(
                    "error while removing network: network {} has active endpoints (id:{:?})",
                    network.name,
                    owner.get(..12).unwrap_or(&owner)
                ))
                .with_hint(format!("a container with {ip} is starting right now; try again")));
            }
            // From here on a start that waits for the lock finds no network any more.
            let by_name = self.dir().join("by-name").join(&network.name);
            std::fs::remove_file(self.record(&network.id))
                .doing(|| format!("remove {}", self.record(&network.id).display()))?;
            let _ = std::fs::remove_file(by_name);
            let _ = std::fs::remove_dir_all(leases.dir());
        }
        if !network.config_only {
            self.dismantle(&network)?;
        }
        Ok(network)
    }

    /// The endpoints of living containers on this network, by container name.
    pub fn endpoints(&self, network: &Network) -> Result<Vec<Endpoint>> {
        let mut all = Vec::new();
        let Ok(entries) = std::fs::read_dir(self.leases(&network.id).dir().join("endpoints")) else { return Ok(all) };
        for entry in entries.flatten() {
            if let Ok(Some(e)) = read_json::<Endpoint>(&entry.path(), VERSION, |e| e.version)
                && self.state.join("containers").join(&e.container_id).is_dir()
            {
                all.push(e);
            }
        }
        all.sort_by(|a, b| a.container_name.cmp(&b.container_name));
        Ok(all)
    }

    /// After a reboot the leases are gone, and the records of stopped containers still say what they
    /// had: whoever starts first must not take it from them.
    pub(crate) fn recall(&self, network: &Network, locked: &Locked<'_>) -> Result<()> {
        for (id, configs) in (self.config.containers)(&self.root) {
            for config in configs.iter().filter(|c| c.network == network.name || c.network == network.id) {
                for ip in config.addresses().filter(|ip| network.pools.iter().any(|p| p.subnet.contains(*ip))) {
                    locked.remember(ip, &id)?;
                }
            }
        }
        Ok(())
    }

    /// A container is removed: what it remembered of its networks is anybody's.
    ///
    /// # Errors
    /// A lease that cannot be removed.
    pub fn forget(&self, container_id: &str, configs: &[EndpointConfig]) -> Result<()> {
        for config in configs {
            let Ok(network) = self.network(&config.network) else { continue };
            let leases = self.leases(&network.id);
            for ip in config.addresses() {
                if leases.path(ip).exists() {
                    leases.lock()?.release(ip, container_id)?;
                }
            }
        }
        Ok(())
    }

    /// Still on record? To be asked under the network's lock: `rm` may have been faster.
    pub(crate) fn still_there(&self, network: &Network) -> Result<()> {
        if self.record(&network.id).exists() {
            return Ok(());
        }
        Err(Error::not_found(format!("network {} not found", network.name))
            .with_hint("it was removed while the container was starting"))
    }
}

#[cfg(test)]
mod tests;
