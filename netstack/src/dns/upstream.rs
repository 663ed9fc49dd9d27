//! The servers that know what we do not: `--dns`, or those of the host.

use crate::files::ResolvConf;
use crate::nl;
use plan::Result;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
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

/// Where the sockets towards the servers are made, and so whose routes and firewall they see.
#[derive(Debug)]
enum From {
    /// The network namespace of the container, and ours to come back to: `--dns`.
    Container { netns: OwnedFd, home: OwnedFd },
    /// The host: then its loopback resolver can be asked as well (127.0.0.53, say).
    Host { resolv_conf: PathBuf, seen: Option<(u64, i64, i64)> },
    /// Internal networks ask nobody outside, not even through us (CVE-2024-29018).
    Nowhere,
}

#[derive(Clone, Debug)]
struct Server {
    address: SocketAddr,
    slow_until: Option<Instant>,
}

#[derive(Debug)]
pub struct Upstreams {
    from: From,
    port: u16,
    servers: Vec<Server>,
}

impl Upstreams {
    pub fn given(servers: &[IpAddr], port: u16, netns: OwnedFd) -> Result<Upstreams> {
        let servers = servers.iter().take(MOST).map(|ip| server(SocketAddr::new(*ip, port))).collect();
        Ok(Upstreams { from: From::Container { netns, home: nl::current()? }, port, servers })
    }

    pub fn of_host(resolv_conf: &Path, port: u16) -> Upstreams {
        let from = From::Host { resolv_conf: resolv_conf.to_owned(), seen: None };
        Upstreams { from, port, servers: Vec::new() }
    }

    pub fn none() -> Upstreams {
        Upstreams { from: From::Nowhere, port: 0, servers: Vec::new() }
    }

    pub fn are_given(&self) -> bool {
        matches!(self.from, From::Container { .. })
    }

    /// The servers in the order to ask them now: as configured, but those last that have lately let
    /// somebody wait. The host's file is read again when it has changed (VPN, Wi-Fi, DHCP).
    pub fn order(&mut self, now: Instant) -> Vec<SocketAddr> {
        self.reread();
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
        let socket = match &self.from {
            From::Container { netns, home } => {
                let _visit = nl::Visit::enter(netns.as_fd(), home.as_fd()).map_err(|_| Errno::NETUNREACH)?;
                open()?
            }
            _ => open()?,
        };
        match rustix::net::connect(&socket, &to) {
            Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
            Err(e) => Err(e),
        }
    }

    fn reread(&mut self) {
        let From::Host { resolv_conf, seen } = &mut self.from else { return };
        let stamp = fs::metadata(&*resolv_conf).ok().map(|m| (m.ino(), m.mtime(), m.mtime_nsec()));
        if stamp.is_some() && stamp == *seen {
            return;
        }
        *seen = stamp;
        let text = fs::read_to_string(resolv_conf).unwrap_or_default();
        let servers = ResolvConf::parse(&text).servers;
        let addresses = servers.iter().filter_map(|s| with_zone(s, self.port));
        // Without any server line the C library asks the local host; so do we.
        let local = SocketAddr::from(([127, 0, 0, 1], self.port));
        let addresses: Vec<SocketAddr> = addresses.take(MOST).collect();
        let addresses = if addresses.is_empty() { vec![local] } else { addresses };
        self.servers = addresses.into_iter().map(server).collect();
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
        let mut upstreams = Upstreams::of_host(&file, 53);
        let show = |u: &mut Upstreams, now| u.order(now).iter().map(SocketAddr::to_string).collect::<Vec<_>>();
        assert_eq!(show(&mut upstreams, now), ["192.0.2.1:53", "[fe80::1%1]:53", "192.0.2.3:53"]);
        let temporary = file.with_extension("new");
        fs::write(&temporary, "nameserver 192.0.2.9\nnameserver 192.0.2.10\n").expect("written");
        fs::rename(&temporary, &file).expect("renamed");
        assert_eq!(show(&mut upstreams, now), ["192.0.2.9:53", "192.0.2.10:53"]);
        upstreams.note("192.0.2.9:53".parse().expect("an address"), false, now);
        assert_eq!(show(&mut upstreams, now), ["192.0.2.10:53", "192.0.2.9:53"], "the slow one last");
        assert_eq!(show(&mut upstreams, now + SLOW), ["192.0.2.9:53", "192.0.2.10:53"], "forgiven");
        fs::remove_file(&file).expect("removed");
        assert_eq!(show(&mut upstreams, now), ["127.0.0.1:53"]);
        assert!(Upstreams::none().order(now).is_empty());
    }
}
