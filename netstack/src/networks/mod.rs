//! The networks of one root: listed, looked up, created, removed.
//!
//! A network is a file, `<root>/networks/<id>.json`; `<root>/networks/by-name/<name>` points at it,
//! so that starting a container reads one file however many networks there are. Creating one
//! touches no kernel: bridge and firewall elements appear with its first container.

pub mod automatic;
mod inspect;
mod options;
mod request;
mod store;
mod update;
pub mod vlan;

pub use options::{BridgeOptions, HOST_BINDING, ICC, MTU};
pub use request::NetworkRequest;
pub(crate) use store::{random_hex, read_json, write_json};
pub use update::{NetworkUpdate, Updated};
pub use vlan::VlanOptions;

use crate::ipam::pools::{self, Taken};
use crate::ipam::{self, Leases, Locked};
use crate::model::{Endpoint, EndpointConfig, Network, Pool};
use crate::nl::Socket;
use ipnetwork::IpNetwork;
use plan::{Error, Kind, Result, ResultExt};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Version of the records this program writes; it refuses newer ones untouched.
pub const VERSION: u32 = 1;

/// A container's ID, and what it asks of its networks.
pub type Wishes = (String, Vec<EndpointConfig>);

/// What the configuration file says about networks.
#[derive(Clone, Debug)]
pub struct Config {
    /// Base and prefix length of the networks cut from it, both families.
    pub default_pools: Vec<(IpNetwork, u8)>,
    /// The host address that `-p` without one binds; `None`: all of them.
    pub default_bind: Option<IpAddr>,
    /// Every container of a root: who they are is not known here.
    pub containers: fn(&Path) -> Vec<Wishes>,
}

impl Default for Config {
    fn default() -> Config {
        Config { default_pools: pools::default_pools(), default_bind: None, containers: |_| Vec::new() }
    }
}

/// The networks of one `--root` and `--state`.
#[derive(Clone, Debug)]
pub struct Netstack {
    pub(crate) root: PathBuf,
    pub(crate) state: PathBuf,
    pub(crate) config: Config,
}

/// In a record: the bridge was there before the network, and stays when it goes.
const ADOPTED: &str = "adopted_bridge";

impl Network {
    pub(crate) fn adopted_bridge(&self) -> bool {
        self.extra.contains_key(ADOPTED)
    }
}

/// The three networks that are always there, and their drivers.
const PREDEFINED: [(&str, &str); 3] = [("bridge", "bridge"), ("host", "host"), ("none", "null")];

/// Is this the name of a network that is always there?
pub fn is_predefined(name: &str) -> bool {
    PREDEFINED.iter().any(|(n, _)| *n == name)
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
                Ok(Some(network)) => Ok(network),
                Err(e) if e.errno != Some(libc::EACCES) => Err(e),
                _ => self.predefined(name, driver, &self.stored()?),
            };
        }
        let not_found = || {
            Error::not_found(format!("network {wanted} not found"))
                .with_hint("`rrun network ls` shows the networks there are")
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

    /// A predefined network as it is, or would be, at its first use. Writes nothing.
    fn predefined(&self, name: &str, driver: &str, others: &[Network]) -> Result<Network> {
        let mut network = Network {
            version: VERSION,
            id: predefined_id(name),
            name: name.to_string(),
            driver: driver.to_string(),
            // Docker's "never": nothing is on record yet.
            created: plan::time::ZERO.to_string(),
            enable_ipv4: true,
            ..Network::default()
        };
        if driver == "bridge" {
            network.options.insert(options::NAME.into(), "rrun0".into());
            let subnet = pools::pick(&self.config.default_pools, false, &taken(others)?)?;
            network.pools.push(Pool {
                subnet,
                ip_range: None,
                gateway: ipam::default_gateway(subnet),
                aux: BTreeMap::new(),
            });
        }
        Ok(network)
    }

    /// Makes the choice of [`Netstack::predefined`] last, when the default bridge is used first, and
    /// that of an automatic network.
    /// Returns what is on record, which another process may have decided a moment before.
    pub(crate) fn settle(&self, network: Network) -> Result<Network> {
        if network.created != plan::time::ZERO {
            return Ok(network);
        }
        let _lock = self.lock()?;
        match self.load(&self.record(&network.id))? {
            Some(settled) => Ok(settled),
            None => {
                // Choose again: another network may have been created since.
                let mut network = match vlan::is_vlan(&network.driver) {
                    true => self.joinable(&network.name)?,
                    false => self.predefined(&network.name, &network.driver, &self.stored()?)?,
                };
                if network.created != plan::time::ZERO {
                    return Ok(network);
                }
                network.created = plan::time::now_rfc3339();
                self.save(&network)?;
                Ok(network)
            }
        }
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

    /// Checks everything, chooses what was left open, and records the network.
    ///
    /// Errors carry Docker's texts, e.g. `network with name X already exists`, `invalid pool
    /// request: Pool overlaps with other one on this address space`.
    pub fn create(&self, mut request: NetworkRequest) -> Result<Network> {
        request.check()?;
        let _lock = self.lock()?;
        let others = self.networks()?;
        if let Some(from) = request.config_from.clone() {
            let config =
                others.iter().find(|n| n.config_only && (n.name == from || n.id == from)).ok_or_else(|| {
                    Error::not_found(format!("configuration network {from:?} does not exist"))
                        .with_hint(format!("make it: `rrun network create --config-only {from}`"))
                })?;
            request.adopt(config);
        }
        if others.iter().any(|n| n.name == request.name) {
            return Err(Error::conflict(format!("network with name {} already exists", request.name))
                .with_hint(format!("choose another name, or `rrun network rm {}` first", request.name)));
        }
        let id = random_hex()?;
        if request.config_only {
            return self.create_config(id, request);
        }
        let extra = match request.driver.as_str() {
            "bridge" => own_bridge(&request, &id, &others)?,
            _ => own_parent(&request, &id, &others)?,
        };
        let mut pools = request.pools()?;
        let mut used = taken(&others)?;
        for pool in &pools {
            if let Some(other) = used.iter().find(|t| !t.route && pools::overlap(t.net, pool.subnet)) {
                return Err(Error::conflict(
                    "invalid pool request: Pool overlaps with other one on this address space",
                )
                .with_hint(format!(
                    "{} overlaps {} of {}; choose another --subnet",
                    pool.subnet, other.net, other.by
                )));
            }
        }
        let enable_ipv6 = request.enable_ipv6 || pools.iter().any(|p| p.subnet.is_ipv6());
        used.extend(pools.iter().map(|p| Taken { net: p.subnet, by: "this network".into(), route: false }));
        let automatic = request.ipam.driver == "default";
        if automatic && request.enable_ipv4 && !pools.iter().any(|p| p.subnet.is_ipv4()) {
            pools.push(request.automatic(pools::pick(&self.config.default_pools, false, &used)?)?);
        }
        if automatic && enable_ipv6 && !pools.iter().any(|p| p.subnet.is_ipv6()) {
            let mut v6 = self.config.default_pools.clone();
            if !v6.iter().any(|(base, _)| base.is_ipv6()) {
                v6.push((self.unique_local_prefix()?, 64));
            }
            pools.push(request.automatic(pools::pick(&v6, true, &used)?)?);
        }
        let internal = request.is_internal();
        let network = Network {
            version: VERSION,
            id,
            name: request.name,
            driver: request.driver,
            created: plan::time::now_rfc3339(),
            enable_ipv4: request.enable_ipv4,
            enable_ipv6,
            internal,
            attachable: request.attachable,
            pools,
            options: request.options,
            labels: request.labels,
            ipam: request.ipam,
            config_only: false,
            config_from: request.config_from.unwrap_or_default(),
            dns: Vec::new(),
            extra,
        };
        self.save(&network)?;
        Ok(network)
    }

    /// Settings for other networks: nothing is allocated, nothing can clash.
    fn create_config(&self, id: String, request: NetworkRequest) -> Result<Network> {
        let pools = request.pools()?;
        let network = Network {
            version: VERSION,
            id,
            name: request.name,
            driver: "null".into(),
            created: plan::time::now_rfc3339(),
            enable_ipv4: request.enable_ipv4,
            enable_ipv6: request.enable_ipv6 || pools.iter().any(|p| p.subnet.is_ipv6()),
            pools,
            options: request.options,
            labels: request.labels,
            ipam: request.ipam,
            config_only: true,
            ..Network::default()
        };
        self.save(&network)?;
        Ok(network)
    }

    /// This root's own ULA prefix (RFC 4193): chosen at random once, then kept, so that networks
    /// of different machines do not clash when they are joined one day.
    fn unique_local_prefix(&self) -> Result<IpNetwork> {
        let path = self.dir().join("ula-prefix");
        if let Some(kept) = std::fs::read_to_string(&path).ok().and_then(|t| t.trim().parse().ok()) {
            return Ok(kept);
        }
        let digits = random_hex()?;
        let text = format!("fd{}:{}:{}::/48", &digits[0..2], &digits[2..6], &digits[6..10]);
        let prefix: IpNetwork = text.parse().expect("twelve hex digits make a /48");
        std::fs::write(&path, format!("{prefix}\n")).doing(|| format!("write {}", path.display()))?;
        Ok(prefix)
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

/// The bridge's name is free, and what is to be remembered about it.
fn own_bridge(request: &NetworkRequest, id: &str, others: &[Network]) -> Result<Extra> {
    let options = BridgeOptions::parse(&request.options)?;
    let bridge = options.bridge_name(id);
    let mut bridges = others.iter().filter(|n| n.driver == "bridge");
    if let Some(other) = bridges.find(|n| BridgeOptions::of(n).bridge_name(&n.id) == bridge) {
        return Err(Error::conflict(format!(
            "cannot create network {id} ({bridge}): conflicts with network {} ({bridge}): networks have same bridge name",
            other.id
        ))
        .with_hint(format!("choose another -o {}=NAME; network {} has this one", options::NAME, other.name)));
    }
    let adopted = options.name.is_some() && Socket::route()?.ifindex(&bridge)?.is_some();
    Ok(if adopted { mark(ADOPTED) } else { Extra::new() })
}

/// The parent may be used by this network too, and is there or can be made.
fn own_parent(request: &NetworkRequest, id: &str, others: &[Network]) -> Result<Extra> {
    let options = VlanOptions::parse(&request.driver, &request.options)?;
    let parent = options.parent_name(id);
    vlan::share(&options, &parent, others)?;
    if options.parent.is_none() {
        return Ok(Extra::new());
    }
    let route = Socket::route()?;
    if route.ifindex(&parent)?.is_some() {
        // Made for another network: whichever of them goes last takes it along.
        let made = others.iter().any(|n| n.sits_on(&parent) && n.made_parent());
        return Ok(if made { mark(vlan::MADE_PARENT) } else { Extra::new() });
    }
    let (base, _) = vlan::tagged(&parent)?;
    if route.ifindex(&base)?.is_none() {
        return Err(Error::invalid(format!("-o parent interface was not found on the host: {base}"))
            .with_hint("`ip link` shows the interfaces there are"));
    }
    Ok(mark(vlan::MADE_PARENT))
}

type Extra = BTreeMap<String, serde_json::Value>;

fn mark(key: &str) -> Extra {
    Extra::from([(key.to_string(), serde_json::Value::Bool(true))])
}

/// The same on every machine: they are names, not things.
fn predefined_id(name: &str) -> String {
    Sha256::digest(format!("rrun predefined network {name}")).iter().map(|b| format!("{b:02x}")).collect()
}

/// What a new subnet must not overlap.
fn taken(networks: &[Network]) -> Result<Vec<Taken>> {
    let mut all: Vec<Taken> = networks
        .iter()
        .filter(|n| !n.config_only)
        .flat_map(|n| n.pools.iter().map(|p| Taken { net: p.subnet, by: format!("network {}", n.name), route: false }))
        .collect();
    for net in Socket::route()?.routes()? {
        all.push(Taken { net, by: format!("the host's route to {net}"), route: true });
    }
    Ok(all)
}

#[cfg(test)]
mod tests;
