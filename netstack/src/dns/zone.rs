//! The names a container may ask for: those of the endpoints on the networks it shares.
//!
//! The endpoint records under `<state>/networks/<id>/endpoints` are the zone. They are read when
//! somebody asks and the directory has changed since: a watch would wake every monitor of a
//! network whenever one container starts.

use super::message;
use crate::model::Link;
use serde::Deserialize;
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// A network the asker is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedNetwork {
    pub id: String,
    pub name: String,
    /// What the asker calls others on it.
    pub links: Vec<Link>,
}

/// Between two looks at the directories. A start takes longer than this, so nobody sees old news.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// The kernel stamps directories with the time of its last tick: two changes within one look the
/// same. A directory read so soon after its stamp is read again.
const STAMP_GRAIN: Duration = Duration::from_millis(20);

type Stamp = (u64, i64, i64);

/// What a name stands for on all shared networks together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    pub ipv4: Vec<Ipv4Addr>,
    pub ipv6: Vec<Ipv6Addr>,
    /// Those of containers that are unhealthy: given out only where there are no others.
    unhealthy: (Vec<Ipv4Addr>, Vec<Ipv6Addr>),
}

impl Addresses {
    fn add(&mut self, endpoint: &Record) {
        let (ipv4, ipv6) = match endpoint.is_unhealthy() {
            true => (&mut self.unhealthy.0, &mut self.unhealthy.1),
            false => (&mut self.ipv4, &mut self.ipv6),
        };
        push(ipv4, endpoint.ipv4);
        push(ipv6, endpoint.ipv6);
    }

    /// When all are unhealthy, any of them is better than none.
    fn settle(&mut self) {
        let (ipv4, ipv6) = std::mem::take(&mut self.unhealthy);
        if self.ipv4.is_empty() && self.ipv6.is_empty() {
            (self.ipv4, self.ipv6) = (ipv4, ipv6);
        }
    }
}

/// The answer of the zone.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'a> {
    Addresses(&'a Addresses),
    /// `name.network` of an address.
    Name(&'a str),
}

/// What matters here of a `model::Endpoint`; a monitor keeps those of the whole network in memory.
#[derive(Debug, Deserialize)]
struct Record {
    dns_names: Vec<String>,
    ipv4: Option<Ipv4Addr>,
    ipv6: Option<Ipv6Addr>,
    /// As its health check has it.
    #[serde(default)]
    health: Option<String>,
}

impl Record {
    fn is_unhealthy(&self) -> bool {
        self.health.as_deref() == Some(crate::model::UNHEALTHY)
    }
}

#[derive(Debug)]
struct Directory {
    network: String,
    links: Vec<Link>,
    path: PathBuf,
    seen: Option<Stamp>,
    /// Records by file name; a replaced file is another inode.
    records: HashMap<OsString, (Stamp, Record)>,
}

#[derive(Debug)]
pub struct Zone {
    state: PathBuf,
    directories: Vec<Directory>,
    names: HashMap<Vec<u8>, Addresses>,
    pointers: HashMap<IpAddr, String>,
    looked: Option<Instant>,
}

impl Zone {
    pub fn new(state: &Path) -> Zone {
        Zone {
            state: state.to_owned(),
            directories: Vec::new(),
            names: HashMap::new(),
            pointers: HashMap::new(),
            looked: None,
        }
    }

    pub fn set_networks(&mut self, networks: &[SharedNetwork]) {
        let directory = |n: &SharedNetwork| Directory {
            network: n.name.clone(),
            links: n.links.clone(),
            path: self.state.join("networks").join(&n.id).join("endpoints"),
            seen: None,
            records: HashMap::new(),
        };
        self.directories = networks.iter().map(directory).collect();
        (self.names, self.pointers, self.looked) = (HashMap::new(), HashMap::new(), None);
    }

    pub fn find(&self, name: &[u8]) -> Option<Found<'_>> {
        if let Some(addresses) = self.names.get(name) {
            return Some(Found::Addresses(addresses));
        }
        let address = message::reverse_name(name)?;
        self.pointers.get(&address).map(|name| Found::Name(name))
    }

    /// Takes notice of containers that came and went.
    pub fn refresh(&mut self) {
        let now = Instant::now();
        if self.looked.is_some_and(|at| now < at + LOOK_EVERY) {
            return;
        }
        self.looked = Some(now);
        let mut changed = false;
        for directory in &mut self.directories {
            changed |= directory.refresh();
        }
        if changed {
            self.index();
        }
    }

    fn index(&mut self) {
        (self.names, self.pointers) = (HashMap::new(), HashMap::new());
        for directory in &self.directories {
            let network = directory.network.to_ascii_lowercase();
            for (_, endpoint) in directory.records.values() {
                for name in endpoint.dns_names.iter().map(|n| n.to_ascii_lowercase()).filter(|n| is_askable(n)) {
                    for name in [format!("{name}.{network}"), name] {
                        let addresses = self.names.entry(name.into_bytes()).or_default();
                        addresses.add(endpoint);
                    }
                }
                if let Some(name) = endpoint.dns_names.iter().find(|n| is_askable(n)) {
                    let pointer = format!("{name}.{}", directory.network);
                    let addresses = endpoint.ipv4.map(IpAddr::from).into_iter().chain(endpoint.ipv6.map(IpAddr::from));
                    for address in addresses.filter(|_| is_askable(&pointer)) {
                        self.pointers.entry(address).or_insert_with(|| pointer.clone());
                    }
                }
            }
        }
        self.index_links();
        // The order of a directory is no order: without this, equal questions would get answers
        // in an order that changes with every container that starts.
        for addresses in self.names.values_mut() {
            addresses.settle();
            addresses.ipv4.sort_unstable();
            addresses.ipv6.sort_unstable();
        }
    }
}

impl Zone {
    /// The asker's own names for others come before what everybody calls them.
    fn index_links(&mut self) {
        for directory in &self.directories {
            let network = directory.network.to_ascii_lowercase();
            for link in directory.links.iter().filter(|l| is_askable(&l.alias)) {
                let mut addresses = Addresses::default();
                for (_, endpoint) in directory.records.values() {
                    if endpoint.dns_names.iter().any(|n| n.eq_ignore_ascii_case(&link.container)) {
                        push(&mut addresses.ipv4, endpoint.ipv4);
                        push(&mut addresses.ipv6, endpoint.ipv6);
                    }
                }
                if addresses != Addresses::default() {
                    let alias = link.alias.to_ascii_lowercase();
                    self.names.insert(format!("{alias}.{network}").into_bytes(), addresses.clone());
                    self.names.insert(alias.into_bytes(), addresses);
                }
            }
        }
    }
}

impl Directory {
    fn refresh(&mut self) -> bool {
        // A network without endpoints has no directory; it is empty then.
        let stamp = fs::metadata(&self.path).ok().map(|m| ((m.ino(), m.mtime(), m.mtime_nsec()), m.modified()));
        if stamp.is_some() && stamp.as_ref().map(|(s, _)| *s) == self.seen {
            return false;
        }
        let settled = stamp.as_ref().is_some_and(|(_, modified)| {
            modified.as_ref().is_ok_and(|m| SystemTime::now().duration_since(*m).is_ok_and(|age| age > STAMP_GRAIN))
        });
        self.seen = stamp.map(|(s, _)| s).filter(|_| settled);
        let mut records = HashMap::new();
        let mut changed = false;
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let file = entry.file_name();
            if !file.as_encoded_bytes().ends_with(b".json") {
                continue;
            }
            let Ok(m) = entry.metadata() else { continue };
            let stamp = (m.ino(), m.mtime(), m.mtime_nsec());
            match self.records.remove(&file) {
                Some(known) if known.0 == stamp => drop(records.insert(file, known)),
                _ => {
                    changed = true;
                    // A broken record makes its own container unknown, nobody else's.
                    let read = fs::read(entry.path()).ok();
                    if let Some(endpoint) = read.and_then(|text| serde_json::from_slice(&text).ok()) {
                        records.insert(file, (stamp, endpoint));
                    }
                }
            }
        }
        // What is left of the old records is no longer there.
        changed |= !self.records.is_empty();
        self.records = records;
        changed
    }
}

fn push<T: PartialEq>(list: &mut Vec<T>, value: Option<T>) {
    if let Some(value) = value
        && !list.contains(&value)
    {
        list.push(value);
    }
}

/// Can the name be put into a question at all?
fn is_askable(name: &str) -> bool {
    name.len() <= 250 && name.split('.').all(|label| (1..=63).contains(&label.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_records() {
        let state = std::env::temp_dir().join(format!("rrun-zone-{}", std::process::id()));
        let endpoints = state.join("networks/n1/endpoints");
        fs::create_dir_all(&endpoints).expect("a temporary directory");
        let write = |container: &str, ip: &str, names: &[&str]| {
            let record = super::super::tests::endpoint("My-Net", ip, None, names);
            let temporary = endpoints.join(".new");
            fs::write(&temporary, serde_json::to_vec(&record).expect("JSON")).expect("written");
            fs::rename(temporary, endpoints.join(format!("{container}.json"))).expect("renamed");
        };
        let mut zone = Zone::new(&state);
        let link = Link { container: "web".into(), alias: "DB".into() };
        zone.set_networks(&[SharedNetwork { id: "n1".into(), name: "My-Net".into(), links: vec![link] }]);
        let ask = |zone: &mut Zone, name: &str| {
            std::thread::sleep(LOOK_EVERY * 2);
            zone.refresh();
            match zone.find(name.as_bytes()) {
                Some(Found::Addresses(a)) => format!("{:?}", a.ipv4),
                Some(Found::Name(name)) => name.to_owned(),
                None => String::new(),
            }
        };
        write("c1", "10.0.0.3", &["Web", "c1c1c1c1c1c1", "app"]);
        assert_eq!(ask(&mut zone, "web"), "[10.0.0.3]");
        assert_eq!(ask(&mut zone, "web.my-net"), "[10.0.0.3]");
        assert_eq!(ask(&mut zone, "3.0.0.10.in-addr.arpa"), "Web.My-Net");
        write("c2", "10.0.0.2", &["db", "app", &"x".repeat(64), "a b"]);
        assert_eq!(ask(&mut zone, "app"), "[10.0.0.2, 10.0.0.3]");
        assert_eq!(ask(&mut zone, "db"), "[10.0.0.3]", "the asker's own name for web, though another is called so");
        assert_eq!(ask(&mut zone, &"x".repeat(64)), "");
        write("c1", "10.0.0.9", &["web", "app"]);
        assert_eq!(ask(&mut zone, "web"), "[10.0.0.9]");
        assert_eq!(ask(&mut zone, "c1c1c1c1c1c1"), "");
        fs::write(endpoints.join("c1.json"), "{").expect("written");
        fs::remove_file(endpoints.join("c2.json")).expect("removed");
        assert_eq!((ask(&mut zone, "web"), ask(&mut zone, "db.my-net")), (String::new(), String::new()));
        fs::remove_dir_all(&state).expect("removed");
    }
}
