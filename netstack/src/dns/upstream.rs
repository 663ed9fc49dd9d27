//! The servers that know what we do not: `--dns`, else those of the container's networks
//! (`network create --dns`), else the host's.
//!
//! Changes are noticed when somebody asks: by the stamp of the file, which a look costs a
//! microsecond or two. A watch would have to follow whatever /etc/resolv.conf points to today, and
//! would wake every monitor of the host for a change that most of them need not hear of.

use crate::files::ResolvConf;
use crate::nl;
use nix::sys::socket::{setsockopt, sockopt};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use serde::Deserialize;
use std::fs;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// As in the C library: servers beyond the third are never asked.
const MOST: usize = 3;
/// How long a server that let somebody wait is asked last.
const SLOW: Duration = Duration::from_secs(30);

/// Between two looks at the files.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Where sockets towards a server are made, and so whose routes and firewall they see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    /// The container's namespace: servers that its owner, or its network's, has named.
    Container,
    /// The host: then its loopback resolver can be asked as well (127.0.0.53, say).
    Host,
}

#[derive(Clone, Debug)]
struct Server {
    address: SocketAddr,
    slow_until: Option<Instant>,
}

/// A file that was read, and what it looked like then.
#[derive(Debug)]
struct Watched {
    path: PathBuf,
    seen: Option<(u64, i64, i64)>,
}

/// The servers in a network's record.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NetworkRecord {
    dns: Vec<IpAddr>,
}

#[derive(Debug)]
pub struct Upstreams {
    /// `--dns`; when there are any, nothing else counts.
    given: Vec<IpAddr>,
    networks: Vec<Watched>,
    /// `None`: on internal networks, which ask nobody outside, not even through us (CVE-2024-29018).
    host: Option<Watched>,
    /// The container's namespace.
    container: Option<OwnedFd>,
    /// On packets from the container's namespace.
    mark: Option<u32>,
    port: u16,
    from: From,
    servers: Vec<Server>,
    looked: Option<Instant>,
    changed: bool,
}

impl Upstreams {
    /// Those of `--dns`, or else what files will say.
    pub fn new(given: &[IpAddr], port: u16) -> Upstreams {
        Upstreams {
            given: given.to_vec(),
            networks: Vec::new(),
            host: None,
            container: None,
            mark: None,
            port,
            from: From::Host,
            servers: Vec::new(),
            looked: None,
            changed: false,
        }
    }

    /// From where to ask servers that were named for this container; with `mark` on the packets.
    pub fn inside(self, netns: OwnedFd, mark: Option<u32>) -> Upstreams {
        Upstreams { container: Some(netns), mark, ..self }
    }

    /// The records of the networks the container is on, and the host's file, if it may be asked.
    pub fn watch(&mut self, networks: Vec<PathBuf>, host: Option<&Path>) {
        let watched = |path: PathBuf| Watched { path, seen: None };
        self.networks = networks.into_iter().map(watched).collect();
        self.host = host.map(|path| watched(path.to_owned()));
        (self.looked, self.changed) = (None, true);
    }

    /// Looks whether the files have changed (VPN, Wi-Fi, DHCP, `network update`). `true` when other
    /// servers than before are asked from now on.
    pub fn refresh(&mut self, now: Instant) -> bool {
        if self.looked.is_some_and(|at| now < at + LOOK_EVERY) {
            return false;
        }
        self.looked = Some(now);
        for file in self.networks.iter_mut().chain(&mut self.host) {
            let stamp = fs::metadata(&file.path).ok().map(|m| (m.ino(), m.mtime(), m.mtime_nsec()));
            self.changed |= stamp.is_none() || stamp != file.seen;
            file.seen = stamp;
        }
        if !std::mem::take(&mut self.changed) {
            return false;
        }
        let (from, addresses) = self.read();
        let before: Vec<SocketAddr> = self.servers.iter().map(|s| s.address).collect();
        if before == addresses && self.from == from {
            return false;
        }
        self.from = from;
        self.servers = addresses.into_iter().map(server).collect();
        true
    }

    fn read(&self) -> (From, Vec<SocketAddr>) {
        let named = |servers: &[IpAddr]| -> Vec<SocketAddr> {
            servers.iter().take(MOST).map(|ip| SocketAddr::new(*ip, self.port)).collect()
        };
        if !self.given.is_empty() {
            return (From::Container, named(&self.given));
        }
        let mut of_networks: Vec<IpAddr> = Vec::new();
        for file in &self.networks {
            // A damaged record is the concern of those who change networks.
            let record = fs::read(&file.path).ok().and_then(|text| serde_json::from_slice(&text).ok());
            for ip in record.map_or(Vec::new(), |r: NetworkRecord| r.dns) {
                if !of_networks.contains(&ip) {
                    of_networks.push(ip);
                }
            }
        }
        if !of_networks.is_empty() {
            return (From::Container, named(&of_networks));
        }
        let Some(host) = &self.host else { return (From::Host, Vec::new()) };
        let text = fs::read_to_string(&host.path).unwrap_or_default();
        let servers = ResolvConf::parse(&text).servers;
        let addresses: Vec<SocketAddr> = servers.iter().filter_map(|s| with_zone(s, self.port)).take(MOST).collect();
        // Without any server line the C library asks the local host; so do we.
        let local = SocketAddr::from(([127, 0, 0, 1], self.port));
        (From::Host, if addresses.is_empty() { vec![local] } else { addresses })
    }

    /// The servers in the order to ask them now: as configured, but those last that have lately let
    /// somebody wait.
    pub fn order(&self, now: Instant) -> Vec<SocketAddr> {
        let mut order: Vec<&Server> = self.servers.iter().collect();
        order.sort_by_key(|s| s.slow_until.is_some_and(|until| now < until));
        order.iter().map(|s| s.address).collect()
    }

    /// A server has answered, or has let somebody wait.
    pub fn note(&mut self, address: SocketAddr, answered: bool, now: Instant) {
        if let Some(server) = self.servers.iter_mut().find(|s| s.address == address) {
            server.slow_until = if answered { None } else { Some(now + SLOW) };
        }
    }

    /// A connected socket (TCP: connecting). A fresh one for every question: its random port and
    /// the question's ID together are what a forger would have to guess.
    pub fn connect(&self, to: SocketAddr, kind: SocketType) -> Result<OwnedFd, Errno> {
        let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let open = || rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None);
        let socket = match (&self.from, &self.container) {
            (From::Container, Some(netns)) => {
                let home = nl::current().map_err(|_| Errno::NETUNREACH)?;
                let _visit = nl::Visit::enter(netns.as_fd(), home.as_fd()).map_err(|_| Errno::NETUNREACH)?;
                let socket = open()?;
                if let Some(mark) = self.mark {
                    setsockopt(&socket, sockopt::Mark, &mark).map_err(|e| Errno::from_raw_os_error(e as i32))?;
                }
                socket
            }
            _ => open()?,
        };
        match rustix::net::connect(&socket, &to) {
            Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
            Err(e) => Err(e),
        }
    }
}

fn server(address: SocketAddr) -> Server {
    Server { address, slow_until: None }
}

/// `192.0.2.1`, `2001:db8::1`, `fe80::1%eth0`, `fe80::1%2`.
fn with_zone(text: &str, port: u16) -> Option<SocketAddr> {
    let (address, zone) = match text.split_once('%') {
        Some((address, zone)) => (address, Some(zone)),
        None => (text, None),
    };
    match (address.parse().ok()?, zone) {
        (IpAddr::V6(ip), Some(zone)) => {
            let index = || fs::read_to_string(Path::new("/sys/class/net").join(zone).join("ifindex")).ok();
            let scope = zone.parse().ok().or_else(|| index()?.trim().parse().ok())?;
            Some(SocketAddrV6::new(ip, port, 0, scope).into())
        }
        (ip, None) => Some(SocketAddr::new(ip, port)),
        (IpAddr::V4(_), Some(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_file_is_read_again_when_it_changes() {
        let file = std::env::temp_dir().join(format!("rrun-resolv-{}", std::process::id()));
        let now = Instant::now();
        fs::write(
            &file,
            "nameserver 192.0.2.1\nnameserver x\nnameserver fe80::1%1\nnameserver 192.0.2.3\nnameserver 192.0.2.4\n",
        )
        .expect("written");
        let mut upstreams = Upstreams::new(&[], 53);
        upstreams.watch(vec![], Some(&file));
        let mut at = now;
        let mut show = |u: &mut Upstreams, after: Duration| {
            at += after;
            let changed = u.refresh(at);
            (changed, u.order(at).iter().map(SocketAddr::to_string).collect::<Vec<_>>())
        };
        let soon = Duration::from_millis(10);
        let (changed, servers) = show(&mut upstreams, soon);
        assert_eq!(servers, ["192.0.2.1:53", "[fe80::1%1]:53", "192.0.2.3:53"]);
        assert!(changed && !show(&mut upstreams, soon).0);
        let temporary = file.with_extension("new");
        fs::write(&temporary, "nameserver 192.0.2.9\nnameserver 192.0.2.10\n").expect("written");
        fs::rename(&temporary, &file).expect("renamed");
        assert_eq!(show(&mut upstreams, soon), (true, vec!["192.0.2.9:53".into(), "192.0.2.10:53".into()]));
        upstreams.note("192.0.2.9:53".parse().expect("an address"), false, now);
        let slow_last = vec!["192.0.2.10:53".to_string(), "192.0.2.9:53".to_string()];
        assert_eq!(show(&mut upstreams, soon), (false, slow_last));
        assert_eq!(show(&mut upstreams, SLOW).1, ["192.0.2.9:53", "192.0.2.10:53"], "forgiven");
        fs::remove_file(&file).expect("removed");
        assert_eq!(show(&mut upstreams, soon), (true, vec!["127.0.0.1:53".into()]));
        upstreams.watch(vec![], None);
        assert_eq!(show(&mut upstreams, soon), (true, vec![]), "an internal network asks nobody");
        assert_eq!(Upstreams::new(&["192.0.2.7".parse().expect("an address")], 53).read().0, From::Container);
    }

    #[test]
    fn servers_of_the_networks_come_before_the_hosts() {
        let dir = std::env::temp_dir().join(format!("rrun-netdns-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory");
        let (host, network) = (dir.join("resolv.conf"), dir.join("n.json"));
        fs::write(&host, "nameserver 192.0.2.1\n").expect("written");
        fs::write(&network, r#"{"name":"n"}"#).expect("written");
        let mut upstreams = Upstreams::new(&[], 53);
        upstreams.watch(vec![network.clone()], Some(&host));
        let now = Instant::now();
        assert!(upstreams.refresh(now));
        assert_eq!((upstreams.from, upstreams.order(now).len()), (From::Host, 1));
        let new = dir.join("new");
        fs::write(&new, r#"{"name":"n","dns":["10.0.0.53","10.0.0.53","fd00::53"]}"#).expect("written");
        fs::rename(&new, &network).expect("renamed");
        assert!(upstreams.refresh(now + LOOK_EVERY));
        let order: Vec<String> = upstreams.order(now).iter().map(SocketAddr::to_string).collect();
        assert_eq!((upstreams.from, order), (From::Container, vec!["10.0.0.53:53".into(), "[fd00::53]:53".into()]));
        fs::remove_dir_all(&dir).expect("removed");
    }
}
