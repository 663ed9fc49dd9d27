//! Address management: which subnet a network gets ([`pools`]), which address an endpoint gets.
//!
//! A lease is a file `<state>/networks/<id>/leases/<ip>` created with `O_EXCL`, whose content is
//! the container's ID: the file system is the allocator, `cat` is the inspector, and whatever
//! crashes, a lease whose container is gone is free. The lock file beside it carries a hint of
//! where to look, so that finding the lowest free address costs the same in a /8 as in a /29.
//!
//! A container that stops leaves its leases behind: they are free, as those of all the dead, but
//! given to others only when nothing else is left, so that it finds its address again.

pub mod pools;
pub mod range;

use crate::model::{Network, Pool};
use ipnetwork::IpNetwork;
use plan::{Error, Result, ResultExt};
use rustix::fs::{FlockOperation, Mode, OFlags};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Freed addresses below the high-water mark that the hint remembers. What does not fit is found
/// again by the full scan when the pool runs dry.
const MAX_HOLES: usize = 256;

/// The first and last address of a subnet that an interface may have.
///
/// IPv4 gives away neither the network's own address nor the broadcast address, except in a /31
/// (RFC 3021); IPv6 not the subnet-router anycast address (RFC 4291), except in a /127 (RFC 6164).
/// `None` for a single address.
pub fn usable(subnet: IpNetwork) -> Option<(u128, u128)> {
    let (first, last) = bounds(subnet);
    let (bits, prefix) = if subnet.is_ipv4() { (32, subnet.prefix()) } else { (128, subnet.prefix()) };
    match bits - prefix {
        0 => None,
        1 => Some((first, last)),
        _ if subnet.is_ipv4() => Some((first + 1, last - 1)),
        _ => Some((first + 1, last)),
    }
}

/// First and last address of a subnet, as numbers.
pub fn bounds(subnet: IpNetwork) -> (u128, u128) {
    match subnet {
        IpNetwork::V4(n) => (u128::from(u32::from(n.network())), u128::from(u32::from(n.broadcast()))),
        IpNetwork::V6(n) => (u128::from(n.network()), u128::from(n.broadcast())),
    }
}

pub fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    }
}

/// The address of that number, in the family of `like`.
pub fn address(n: u128, like: IpNetwork) -> IpAddr {
    match like {
        IpNetwork::V4(_) => IpAddr::V4(Ipv4Addr::from(n as u32)),
        IpNetwork::V6(_) => IpAddr::V6(Ipv6Addr::from(n)),
    }
}

/// The address that the gateway gets when nobody says otherwise: the first.
pub fn default_gateway(subnet: IpNetwork) -> Option<IpAddr> {
    usable(subnet).map(|(first, _)| address(first, subnet))
}

/// Where the leases of one network live, and who may hold them.
pub struct Leases {
    /// `<state>/networks/<id>`.
    dir: PathBuf,
    /// `<state>/containers`: an owner without a directory here is dead.
    containers: PathBuf,
    /// `<root>/containers`: a dead owner with one here may come back, and would like its address.
    records: Option<PathBuf>,
}

/// The network's lock, held; dropping it lets go. Never held across a user's process.
pub struct Locked<'a> {
    leases: &'a Leases,
    lock: File,
    hints: Vec<Hint>,
    dirty: bool,
}

/// Where to look first in one subnet: every address from `next` on is probably free, and so are
/// the `holes` below it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hint {
    subnet: IpNetwork,
    next: u128,
    holes: BTreeSet<u128>,
}

impl Leases {
    pub fn new(root: &Path, state: &Path, network_id: &str) -> Leases {
        Leases {
            dir: state.join("networks").join(network_id),
            containers: state.join("containers"),
            records: Some(root.join("containers")),
        }
    }

    /// Of `<state>/networks/<id>`, given whole.
    pub fn of_directory(dir: &Path) -> Leases {
        let containers = dir.join("../../containers");
        Leases { dir: dir.to_path_buf(), containers, records: None }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn path(&self, ip: IpAddr) -> PathBuf {
        self.dir.join("leases").join(ip.to_string())
    }

    /// Takes the network's lock, creating its state directory when it is not there.
    pub fn lock(&self) -> Result<Locked<'_>> {
        let path = self.dir.join("lock");
        let open = || {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
            rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)
        };
        let fd = match open() {
            Err(rustix::io::Errno::NOENT) => {
                make_dir(&self.dir)?;
                open()
            }
            other => other,
        };
        let lock = File::from(fd.doing(|| format!("open {}", path.display()))?);
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).doing(|| format!("lock {}", path.display()))?;
        let hints = Hint::read_all(&lock);
        if hints.is_empty() {
            // The first to come, or one who came just after the directory: nothing leased so far.
            make_dir(&self.dir.join("leases"))?;
            make_dir(&self.dir.join("endpoints"))?;
        }
        Ok(Locked { leases: self, lock, hints, dirty: false })
    }

    /// Who holds the address: `None` when it is free, which it also is when its owner is dead.
    pub fn owner(&self, ip: IpAddr) -> Option<String> {
        let owner = std::fs::read_to_string(self.path(ip)).ok()?;
        self.alive(&owner).then_some(owner)
    }

    /// An empty lease was being written when its writer died: nobody writes while we hold the lock.
    fn alive(&self, owner: &str) -> bool {
        !owner.is_empty() && !owner.contains('/') && self.containers.join(owner).is_dir()
    }

    /// Is it the lease of a container that does not run, but may again?
    pub fn is_remembered(&self, owner: &str) -> bool {
        let named = !owner.is_empty() && !owner.contains('/');
        named && !self.alive(owner) && self.records.as_ref().is_some_and(|r| r.join(owner).is_dir())
    }

    /// The address that [`Locked::lease`] would give, without taking it.
    pub fn preview(&self, network: &Network, pool: &Pool) -> Result<IpAddr> {
        let (first, last) = dynamic_range(pool).ok_or_else(|| exhausted(network, pool))?;
        let reserved = reserved(pool);
        let free = |n: &u128| !reserved.contains(n) && self.owner(address(*n, pool.subnet)).is_none();
        let nobodys = |n: &u128| {
            let holder = std::fs::read_to_string(self.path(address(*n, pool.subnet)));
            holder.is_err() || holder.is_ok_and(|h| !self.is_remembered(&h))
        };
        (first..=last)
            .find(|n| free(n) && nobodys(n))
            .or_else(|| (first..=last).find(free))
            .map(|n| address(n, pool.subnet))
            .ok_or_else(|| exhausted(network, pool))
    }

    /// Every lease and its owner, dead or alive. Reads the whole directory: not for starting.
    pub fn all(&self) -> Vec<(IpAddr, String)> {
        let Ok(entries) = std::fs::read_dir(self.dir.join("leases")) else { return Vec::new() };
        let mut all: Vec<(IpAddr, String)> = entries
            .flatten()
            .filter_map(|e| {
                let ip = e.file_name().to_str()?.parse().ok()?;
                Some((ip, std::fs::read_to_string(e.path()).ok()?))
            })
            .collect();
        all.sort();
        all
    }
}

impl Locked<'_> {
    /// Leases `wanted`, or else the address that `owner` had `last` if nobody has it now, or else the
    /// lowest free address of the pool, to `owner`.
    ///
    /// Errors: `Address already in use`; `no available IPv4 addresses on this network's address
    /// pools: NAME (ID)`.
    pub fn lease(
        &mut self,
        network: &Network,
        pool: &Pool,
        wanted: Option<IpAddr>,
        last: Option<IpAddr>,
        owner: &str,
    ) -> Result<IpAddr> {
        if let Some(ip) = wanted {
            return self.lease_exactly(network, pool, ip, owner);
        }
        if let Some(ip) = last
            && self.lease_again(pool, ip, owner)?
        {
            return Ok(ip);
        }
        let (first, last) = dynamic_range(pool).ok_or_else(|| exhausted(network, pool))?;
        let reserved = reserved(pool);
        let at = self.hint(pool.subnet, first);
        let hint = self.hints[at].clone();
        let holes = hint.holes.iter().copied().filter(|n| (first..=last).contains(n));
        let fresh = hint.next.max(first)..=last;
        for n in holes.chain(fresh) {
            if reserved.contains(&n) {
                continue;
            }
            if self.take(address(n, pool.subnet), owner, Taking::Nobodys)? {
                let hint = &mut self.hints[at];
                hint.holes.remove(&n);
                hint.next = hint.next.max(n + 1);
                self.dirty = true;
                return Ok(address(n, pool.subnet));
            }
            self.hints[at].holes.remove(&n);
        }
        // The hint knows of nothing. Holes it forgot, and leases of the dead, are still there; last
        // of all what stopped containers would like to have again.
        for n in self.free_below(pool, first, last) {
            if !reserved.contains(&n) && self.take(address(n, pool.subnet), owner, Taking::Remembered)? {
                return Ok(address(n, pool.subnet));
            }
        }
        Err(exhausted(network, pool))
    }

    /// The address of the last run, if it is still one to give and nobody living has it.
    fn lease_again(&mut self, pool: &Pool, ip: IpAddr, owner: &str) -> Result<bool> {
        let n = number(ip);
        let ours = pool.subnet.contains(ip) && dynamic_range(pool).is_some_and(|(a, b)| (a..=b).contains(&n));
        if !ours || reserved(pool).contains(&n) {
            return Ok(false);
        }
        // Another stopped container may remember it as well; it did not come first.
        self.take(ip, owner, Taking::Remembered)
    }

    fn lease_exactly(&mut self, network: &Network, pool: &Pool, ip: IpAddr, owner: &str) -> Result<IpAddr> {
        let taken = |who: String| {
            Error::conflict("Address already in use").with_hint(format!(
                "{ip} on network {} is {who}; see `rrun network inspect {}`",
                network.name, network.name
            ))
        };
        let n = number(ip);
        if pool.gateway == Some(ip) {
            return Err(taken("the gateway".into()));
        }
        if let Some((name, _)) = pool.aux.iter().find(|(_, a)| **a == ip) {
            return Err(taken(format!("reserved as auxiliary address {name}")));
        }
        if !usable(pool.subnet).is_some_and(|(first, last)| (first..=last).contains(&n)) {
            return Err(taken("the network's own or its broadcast address".into()));
        }
        if !self.take(ip, owner, Taking::Remembered)? {
            let who = self.leases.owner(ip).unwrap_or_default();
            let short: String = who.chars().take(12).collect();
            return Err(taken(format!("held by container {short}")));
        }
        Ok(ip)
    }

    /// Creates the lease file; `false` when somebody living holds it.
    fn take(&self, ip: IpAddr, owner: &str, taking: Taking) -> Result<bool> {
        let path = self.leases.path(ip);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let fd = match rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR) {
            Ok(fd) => fd,
            Err(rustix::io::Errno::EXIST) => {
                let holder = std::fs::read_to_string(&path).unwrap_or_default();
                let other = holder != owner;
                if other && (self.leases.alive(&holder) || taking.spares() && self.leases.is_remembered(&holder)) {
                    return Ok(false);
                }
                let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::CLOEXEC;
                rustix::fs::open(&path, flags, Mode::empty()).doing(|| format!("take over lease {}", path.display()))?
            }
            Err(e) => return Err(Error::os(format!("create lease {}", path.display()), e.raw_os_error())),
        };
        File::from(fd).write_all(owner.as_bytes()).map(|()| true).map_err(|e| {
            // An empty lease is free; the file system may have been full.
            let _ = std::fs::remove_file(&path);
            Error::io(format!("write lease {}", path.display()), &e)
        })
    }

    /// Has nothing been leased here since the machine booted?
    pub fn is_new(&self) -> bool {
        self.hints.is_empty()
    }

    /// Notes that `owner`, which does not run, had this address; what somebody has stays theirs.
    pub fn remember(&self, ip: IpAddr, owner: &str) -> Result<()> {
        let path = self.leases.path(ip);
        match File::options().write(true).create_new(true).open(&path) {
            Ok(mut file) => file.write_all(owner.as_bytes()).doing(|| format!("write lease {}", path.display())),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            Err(e) => Err(Error::io(format!("create lease {}", path.display()), &e)),
        }
    }

    /// Frees the address if `owner` has it.
    pub fn release(&mut self, ip: IpAddr, owner: &str) -> Result<()> {
        let path = self.leases.path(ip);
        match std::fs::read_to_string(&path) {
            Ok(holder) if holder == owner => {}
            _ => return Ok(()),
        }
        std::fs::remove_file(&path).doing(|| format!("remove lease {}", path.display()))?;
        let n = number(ip);
        if let Some(hint) = self.hints.iter_mut().find(|h| h.subnet.contains(ip))
            && n < hint.next
        {
            hint.holes.insert(n);
            if hint.holes.len() > MAX_HOLES {
                hint.holes.pop_last();
            }
            self.dirty = true;
        }
        Ok(())
    }

    /// Addresses in `first..=last` without a living owner, lowest first, from one listing; those of
    /// stopped containers after all others.
    fn free_below(&self, pool: &Pool, first: u128, last: u128) -> Vec<u128> {
        let (mut taken, mut remembered) = (BTreeSet::new(), BTreeSet::new());
        for (ip, owner) in self.leases.all().into_iter().filter(|(ip, _)| ip.is_ipv4() == pool.subnet.is_ipv4()) {
            if self.leases.alive(&owner) {
                taken.insert(number(ip));
            } else if self.leases.is_remembered(&owner) {
                remembered.insert(number(ip));
            }
        }
        let mut free: Vec<u128> =
            (first..=last).filter(|n| !taken.contains(n) && !remembered.contains(n)).take(64).collect();
        free.extend(remembered.into_iter().filter(|n| (first..=last).contains(n)).take(64));
        free
    }

    fn hint(&mut self, subnet: IpNetwork, first: u128) -> usize {
        match self.hints.iter().position(|h| h.subnet == subnet) {
            Some(at) => at,
            None => {
                self.hints.push(Hint { subnet, next: first, holes: BTreeSet::new() });
                self.hints.len() - 1
            }
        }
    }
}

/// What one may help oneself to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Taking {
    /// What nobody has or would like to have again.
    Nobodys,
    /// What a stopped container had, as well.
    Remembered,
}

impl Taking {
    fn spares(self) -> bool {
        self == Taking::Nobodys
    }
}

impl Drop for Locked<'_> {
    /// Writes the hint back. Losing it costs a scan, never an address: the leases are the truth.
    fn drop(&mut self) {
        if self.dirty {
            let text = Hint::write_all(&self.hints);
            if self.lock.write_all_at(text.as_bytes(), 0).is_ok() {
                let _ = self.lock.set_len(text.len() as u64);
            }
        }
    }
}

impl Hint {
    /// `172.17.0.0/16 5 3` a line: next is 5, 3 is free. Counted from the start of the subnet.
    fn read_all(file: &File) -> Vec<Hint> {
        let mut buf = [0u8; 4096];
        let Ok(n) = file.read_at(&mut buf, 0) else { return Vec::new() };
        let text = std::str::from_utf8(&buf[..n]).unwrap_or_default();
        text.lines().filter_map(Hint::parse).collect()
    }

    fn parse(line: &str) -> Option<Hint> {
        let mut words = line.split(' ');
        let subnet: IpNetwork = words.next()?.parse().ok()?;
        let (base, last) = bounds(subnet);
        let mut offset = |w: &str| w.parse::<u128>().ok().and_then(|n| base.checked_add(n));
        let next = offset(words.next()?).filter(|n| *n <= last.saturating_add(1))?;
        let holes = words.filter_map(&mut offset).filter(|n| *n < next).collect();
        Some(Hint { subnet, next, holes })
    }

    fn write_all(hints: &[Hint]) -> String {
        let mut text = String::new();
        for h in hints {
            let base = bounds(h.subnet).0;
            text.push_str(&format!("{} {}", h.subnet, h.next - base));
            for n in &h.holes {
                text.push_str(&format!(" {}", n - base));
            }
            text.push('\n');
        }
        text
    }
}

/// What `--ip-range` leaves of the usable addresses.
fn dynamic_range(pool: &Pool) -> Option<(u128, u128)> {
    let (mut first, mut last) = usable(pool.subnet)?;
    if let Some(range) = pool.ip_range {
        let (a, b) = range.bounds();
        first = first.max(a);
        last = last.min(b);
    }
    (first <= last).then_some((first, last))
}

fn reserved(pool: &Pool) -> BTreeSet<u128> {
    pool.gateway.iter().chain(pool.aux.values()).map(|ip| number(*ip)).collect()
}

fn exhausted(network: &Network, pool: &Pool) -> Error {
    let family = if pool.subnet.is_ipv4() { "IPv4" } else { "IPv6" };
    Error::conflict(format!(
        "no available {family} addresses on this network's address pools: {} ({})",
        network.name, network.id
    ))
    .with_hint(format!(
        "every address of {} is in use: stop a container, or create a network with a larger --subnet",
        pool.ip_range.unwrap_or(pool.subnet.into())
    ))
}

/// The highest address that would be given out and is not reserved.
pub fn last_free(pool: &Pool) -> Option<IpAddr> {
    let (first, last) = dynamic_range(pool)?;
    let reserved = reserved(pool);
    (first..=last).rev().find(|n| !reserved.contains(n)).map(|n| address(n, pool.subnet))
}

/// Is there an address for a container at all?
pub fn has_room(pool: &Pool) -> bool {
    last_free(pool).is_some()
}

/// `mkdir -p`, 0700.
pub fn make_dir(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .doing(|| format!("create directory {}", path.display()))
}

/// How many addresses of a pool can still be given out automatically, saturating: what
/// `network inspect` shows as `DynamicIPsAvailable`.
pub fn available(pool: &Pool, leased: usize) -> u64 {
    let Some((first, last)) = dynamic_range(pool) else { return 0 };
    let inside = reserved(pool).iter().filter(|n| (first..=last).contains(n)).count();
    let total = (last - first).saturating_add(1).saturating_sub(inside as u128).saturating_sub(leased as u128);
    u64::try_from(total).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
