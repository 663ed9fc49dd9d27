//! Port leases: which container holds which host ports, as files that outlive its monitor.
//!
//! `<state>/ports/<proto>/<hundred>xx/<address>[%<interface>]:<port or range>`, content: the container's ID. A
//! range is one lease however long it is, entered once under each hundred it touches, so that a
//! conflict check reads a handful of names and not every port published on the machine.

use super::holder;
use crate::model::Proto;
use plan::{Error, Result, ResultExt};
use rustix::fs::{FlockOperation, Mode, OFlags};
use std::collections::HashSet;
use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// One address and range of ports, as leased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub proto: Proto,
    pub ip: IpAddr,
    /// Of this interface only.
    pub iface: Option<String>,
    pub ports: (u16, u16),
}

impl Lease {
    /// The first port both claim, if they claim one: same protocol and family, equal or
    /// unspecified address, not two different interfaces. So the kernel decides about sockets, too.
    fn clash(&self, other: &Lease) -> Option<u16> {
        let addresses = self.ip == other.ip
            || (self.ip.is_ipv4() == other.ip.is_ipv4() && (self.ip.is_unspecified() || other.ip.is_unspecified()));
        let interfaces = self.iface.is_none() || other.iface.is_none() || self.iface == other.iface;
        let first = self.ports.0.max(other.ports.0);
        (self.proto == other.proto && addresses && interfaces && first <= self.ports.1.min(other.ports.1))
            .then_some(first)
    }

    fn file_name(&self) -> String {
        let ip = match self.ip {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        let ip = self.iface.iter().fold(ip, |ip, iface| format!("{ip}%{iface}"));
        match self.ports {
            (lo, hi) if lo == hi => format!("{ip}:{lo}"),
            (lo, hi) => format!("{ip}:{lo}-{hi}"),
        }
    }

    /// `None` for a file that is not a lease: somebody else's, left alone.
    fn from_file_name(proto: Proto, name: &str) -> Option<Lease> {
        let (ip, ports) = name.rsplit_once(':')?;
        let (ip, iface) = ip.split_once('%').map_or((ip, None), |(ip, iface)| (ip, Some(iface.to_owned())));
        let ip = ip.trim_start_matches('[').trim_end_matches(']').parse().ok()?;
        let (lo, hi) = ports.split_once('-').unwrap_or((ports, ports));
        Some(Lease { proto, ip, iface, ports: (lo.parse().ok()?, hi.parse().ok()?) })
    }
}

/// A port that a living container holds already.
#[derive(Debug)]
pub struct Held {
    pub ip: IpAddr,
    pub port: u16,
    /// Container ID.
    pub owner: String,
}

/// The lease directory, locked against other reservations for as long as this value lives.
pub struct Leases<'a> {
    state: &'a Path,
    owner: &'a str,
    /// Files that the owner holds, as opposed to stale ones of its earlier life.
    fresh: HashSet<PathBuf>,
    _lock: OwnedFd,
}

impl<'a> Leases<'a> {
    pub fn lock(state: &'a Path, owner: &'a str) -> Result<Leases<'a>> {
        let dir = state.join("ports");
        let open = || rustix::fs::open(&dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let lock = match open() {
            Err(rustix::io::Errno::NOENT) => {
                make_dir(&dir)?;
                open()
            }
            other => other,
        }
        .doing(|| format!("open {}", dir.display()))?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).doing(|| format!("lock {}", dir.display()))?;
        Ok(Leases { state, owner, fresh: HashSet::new(), _lock: lock })
    }

    /// These are the owner's own, from before and still held.
    pub fn keep<'f>(&mut self, files: impl Iterator<Item = &'f PathBuf>) {
        self.fresh.extend(files.cloned());
    }

    /// Takes the lease, or says who has it. Leases of containers that are gone, and stale ones of
    /// our own from before a crash, are cleared away. The files made are appended to `files`.
    pub fn take(&mut self, lease: &Lease, files: &mut Vec<PathBuf>) -> Result<Result<(), Held>> {
        let dirs = buckets(self.state, lease);
        for dir in &dirs {
            if let Some(held) = self.clash_in(dir, lease)? {
                return Ok(Err(held));
            }
        }
        for dir in dirs {
            let path = dir.join(lease.file_name());
            files.push(path.clone());
            self.write(&dir, &path)?;
            self.fresh.insert(path);
        }
        Ok(Ok(()))
    }

    /// Takes a file of [`Leases::take`] back.
    pub fn give_back(&mut self, file: &Path) -> Result<()> {
        self.fresh.remove(file);
        release(file, self.owner)
    }

    fn clash_in(&self, dir: &Path, lease: &Lease) -> Result<Option<Held>> {
        let entries = match fs::read_dir(dir) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            other => other.doing(|| format!("read {}", dir.display()))?,
        };
        for entry in entries {
            let name = entry.doing(|| format!("read {}", dir.display()))?.file_name();
            let other = name.to_str().and_then(|n| Lease::from_file_name(lease.proto, n));
            let Some((other, port)) = other.and_then(|o| o.clash(lease).map(|port| (o, port))) else { continue };
            let path = dir.join(&name);
            let owner = fs::read_to_string(&path).unwrap_or_default();
            let lives = !owner.is_empty() && self.state.join("containers").join(&owner).is_dir();
            if self.fresh.contains(&path) || owner != self.owner && lives {
                return Ok(Some(Held { ip: lease.ip, port, owner }));
            }
            for stale in buckets(self.state, &other) {
                release(&stale.join(&name), &owner)?;
            }
        }
        Ok(None)
    }

    fn write(&self, dir: &Path, path: &Path) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let open = || rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR);
        let file = match open() {
            Err(rustix::io::Errno::NOENT) => {
                make_dir(dir)?;
                open()
            }
            other => other,
        }
        .doing(|| format!("create {}", path.display()))?;
        let written = rustix::io::write(&file, self.owner.as_bytes()).doing(|| format!("write {}", path.display()))?;
        match written == self.owner.len() {
            true => Ok(()),
            false => Err(Error::os(format!("write {}", path.display()), rustix::io::Errno::NOSPC.raw_os_error())),
        }
    }
}

/// Removes a lease file if `owner` is still what it says; a lease that is gone is success.
pub fn release(path: &Path, owner: &str) -> Result<()> {
    match fs::read_to_string(path) {
        Ok(content) if content == owner => match fs::remove_file(path) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::io(format!("remove {}", path.display()), &e)),
            _ => Ok(()),
        },
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::io(format!("read {}", path.display()), &e)),
        _ => Ok(()),
    }
}

/// Every lease file with its owner.
pub fn all_leases(state: &Path) -> Vec<(PathBuf, String)> {
    let below = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path());
    let mut all = Vec::new();
    for proto in [Proto::Tcp, Proto::Udp, Proto::Sctp] {
        for bucket in below(&state.join("ports").join(proto.name())) {
            let named = |p: &PathBuf| p.file_name().and_then(|n| Lease::from_file_name(proto, n.to_str()?)).is_some();
            let files = below(&bucket).filter(named);
            all.extend(files.filter_map(|p| fs::read_to_string(&p).ok().map(|owner| (p, owner))));
        }
    }
    all
}

/// Writes a lost lease anew, of an address or a port, if nobody has taken it meanwhile.
pub fn restore_lease(path: &Path, owner: &str) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    if let Some(dir) = path.parent() {
        make_dir(dir)?;
    }
    match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
        other => other.and_then(|mut f| f.write_all(owner.as_bytes())).doing(|| format!("write {}", path.display())),
    }
}

/// The refusal in Docker's words; the hint names the container that has the port.
pub fn refusal(state: &Path, us: &str, proto: Proto, held: &Held) -> Error {
    let at = std::net::SocketAddr::new(held.ip, held.port);
    let proto = format!("{proto:?}").to_lowercase();
    let hint = match held.owner == us {
        true => format!("this container publishes {}/{proto} twice: drop one of the two", held.port),
        false => format!(
            "{} publishes {}/{proto}: stop it, or choose another host port",
            holder::container(state, &held.owner),
            held.port
        ),
    };
    Error::conflict(format!("Bind for {at} failed: port is already allocated")).with_hint(hint)
}

fn buckets(state: &Path, lease: &Lease) -> Vec<PathBuf> {
    let proto = state.join("ports").join(format!("{:?}", lease.proto).to_lowercase());
    (lease.ports.0 / 100..=lease.ports.1 / 100).map(|hundred| proto.join(format!("{hundred}xx"))).collect()
}

fn make_dir(dir: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).doing(|| format!("create {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(name: &str) -> Lease {
        Lease::from_file_name(Proto::Tcp, name).expect("a lease name")
    }

    #[test]
    fn names_round_trip_and_strangers_are_ignored() {
        for name in ["0.0.0.0:80", "[::]:80", "[2001:db8::5]:8000-8100", "127.0.0.1:1-65535", "[::]%eth0.7:80"] {
            assert_eq!(lease(name).file_name(), name);
        }
        for stranger in ["README", "0.0.0.0", "x:80", "0.0.0.0:http", "0.0.0.0:80-"] {
            assert!(Lease::from_file_name(Proto::Tcp, stranger).is_none(), "{stranger}");
        }
    }

    #[test]
    fn what_clashes() {
        for (a, b, first) in [
            ("0.0.0.0:80", "0.0.0.0:80", Some(80)),
            ("0.0.0.0:80", "127.0.0.1:80", Some(80)),
            ("127.0.0.1:80", "127.0.0.2:80", None),
            ("0.0.0.0:80", "[::]:80", None),
            ("[::]:80", "[::1]:80", Some(80)),
            ("0.0.0.0:80-90", "192.0.2.1:90-99", Some(90)),
            ("0.0.0.0:80-90", "0.0.0.0:91-99", None),
            ("0.0.0.0%eth0:80", "0.0.0.0%eth1:80", None),
            ("0.0.0.0%eth0:80", "0.0.0.0%eth0:80", Some(80)),
            ("0.0.0.0%eth0:80", "127.0.0.1:80", Some(80)),
        ] {
            assert_eq!(lease(a).clash(&lease(b)), first, "{a} {b}");
            assert_eq!(lease(b).clash(&lease(a)), first, "{b} {a}");
        }
        let udp = Lease { proto: Proto::Udp, ..lease("0.0.0.0:80") };
        assert_eq!(udp.clash(&lease("0.0.0.0:80")), None);
    }
}
