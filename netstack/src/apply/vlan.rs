//! Doing the steps of macvlan and ipvlan networks.

use super::{sysctl, sysctl_if_there};
use crate::driver::vlan;
use crate::model::{Endpoint, Network};
use crate::networks::VlanOptions;
use crate::networks::vlan::Parent;
use crate::nl::{self, Batch, Failure, NewUpper, Socket, Visit};
use crate::step::{Shim, Step, UpperDevice};
use ipnetwork::IpNetwork;
use plan::{Action, Error, Result};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

pub(crate) fn apply(route: &mut Socket, step: &Step, netns: BorrowedFd<'_>) -> Result<()> {
    match step {
        Step::EnsureParent { parent, .. } => ensure_parent(route, parent).map(drop),
        Step::EnsureShim(shim) => ensure_shim(route, shim).map(drop),
        Step::CreateUpper(device) => create(route, step, device, netns),
        Step::HostRoute { ip, shim, source } => add_host_route(route, *ip, shim, *source),
        _ => unreachable!("no step of a macvlan or ipvlan network"),
    }
}

/// A container that ended a moment ago holds its MAC and IP address, and a passthru parent, until
/// the kernel has destroyed its namespace: some ten milliseconds, when nobody waits for it. A restart
/// may be faster than that.
pub(crate) struct Patience {
    until: Instant,
}

impl Patience {
    pub fn new() -> Patience {
        Patience { until: Instant::now() + Duration::from_secs(3) }
    }

    /// `false` when there is no point in trying again.
    pub fn wait(&self) -> bool {
        std::thread::sleep(Duration::from_millis(5));
        Instant::now() < self.until
    }
}

/// Is this refusal one that passes when a dying namespace is gone?
pub(crate) fn was_in_use(step: &Step, errno: i32) -> bool {
    match step {
        // macvlan: its MAC address; ipvlan: its IP address.
        Step::ConfigureInterface { .. } => matches!(errno, libc::EBUSY | libc::EADDRINUSE),
        Step::CreateUpper(device) => device.kind.is_exclusive() && matches!(errno, libc::EBUSY | libc::EINVAL),
        _ => false,
    }
}

fn create(route: &mut Socket, step: &Step, device: &UpperDevice, netns: BorrowedFd<'_>) -> Result<()> {
    let parent = index(route, &device.parent)?;
    let patience = Patience::new();
    let mut name = device.ifname.as_str();
    let refusal = loop {
        let mut batch = Batch::new();
        batch.add_upper(
            0,
            NewUpper {
                name,
                kind: device.kind,
                parent,
                mac: device.mac,
                mtu: device.mtu,
                broadcast_limit: device.broadcast_limit,
                netns: Some(netns),
            },
        );
        match route.run(batch)? {
            Err(f) if was_in_use(step, f.errno) && patience.wait() => {}
            Err(f) if f.errno == libc::EEXIST && name != NEWBORN => name = NEWBORN,
            done => break done,
        }
    };
    refusal.map_err(|f| refused(&f, step.line(), &device.parent, device.kind.driver()))?;
    if name == NEWBORN { christen(&device.ifname, step, netns) } else { Ok(()) }
}

/// Before Linux 6.14 the name of a device born in another namespace must be free in this one, too; `eth0`
/// seldom is. It is born under this name then, and gets its own where it lives.
const NEWBORN: &str = "rrun-newborn";

fn christen(name: &str, step: &Step, netns: BorrowedFd<'_>) -> Result<()> {
    let home = nl::current()?;
    let _visit = Visit::enter(netns, home.as_fd())?;
    let mut inside = Socket::route()?;
    let mut batch = Batch::new();
    batch.rename(0, index(&inside, NEWBORN)?, name);
    let done = inside.run(batch)?;
    done.map_err(|f| {
        let error = f.error(step.line());
        match delete_device(&mut inside, NEWBORN) {
            Ok(()) => error,
            Err(e) => error.with_hint(format!("{NEWBORN} is left in the container: {e}")),
        }
    })
}

fn index(route: &Socket, name: &str) -> Result<u32> {
    route.ifindex(name)?.ok_or_else(|| {
        Error::not_found(format!("-o parent interface was not found on the host: {name}"))
            .with_hint("`ip link` shows the interfaces there are")
    })
}

/// What the kernel has against a device of this kind on this parent.
fn refused(f: &Failure, doing: String, parent: &str, driver: &str) -> Error {
    let e = f.error(doing);
    match f.errno {
        libc::EOPNOTSUPP => e.with_hint(format!(
            "this kernel has no {driver}: modprobe {driver}, or enable CONFIG_{}",
            driver.to_uppercase()
        )),
        libc::EBUSY => e.with_hint(format!(
            "{parent} is a port of a bridge or bond, or has devices of the other kind (macvlan or ipvlan): use another parent"
        )),
        libc::EINVAL if driver == "macvlan" => {
            e.with_hint(format!("a device in passthru mode has {parent} to itself: `ip -d link` shows which"))
        }
        libc::ENETDOWN => e.with_hint(format!("ip link set {parent} up")),
        libc::ERANGE | libc::E2BIG => e.with_hint(format!("the MTU must not exceed that of {parent}")),
        _ => e,
    }
}

/// `true` when it was not there before. It has no addresses of its own and hears no router: the host
/// stays off the containers' LAN.
pub(crate) fn ensure_parent(route: &mut Socket, parent: &Parent) -> Result<bool> {
    let name = parent.name();
    let doing = || format!("create interface {name}");
    let (base, kind) = match parent {
        Parent::Tagged { base, .. } => (index(route, base)?, "8021q"),
        Parent::Dummy { .. } => (0, "dummy"),
    };
    let mut batch = Batch::new();
    batch.add_parent(0, parent, base);
    let created = match route.run(batch)? {
        Ok(()) => true,
        Err(f) if f.errno == libc::EEXIST && route.ifindex(name)?.is_some() => false,
        Err(f) if f.errno == libc::EOPNOTSUPP => {
            let config = if kind == "dummy" { "CONFIG_DUMMY" } else { "CONFIG_VLAN_8021Q" };
            return Err(f
                .error(doing())
                .with_hint(format!("this kernel lacks it: modprobe {kind}, or enable {config}")));
        }
        Err(f) if f.errno == libc::EEXIST => {
            return Err(f
                .error(doing())
                .with_hint("another interface has this tag already: `ip -d link` shows which; use it as the parent"));
        }
        Err(f) => return Err(f.error(doing())),
    };
    if created {
        // 1: no link-local address.
        sysctl_if_there(&format!("ipv6/conf/{name}/addr_gen_mode"), "1")?;
        sysctl_if_there(&format!("ipv6/conf/{name}/accept_ra"), "0")?;
    }
    let mut batch = Batch::new();
    batch.link_up(0, index(route, name)?);
    route.run(batch)?.map_err(|f| {
        let base = if let Parent::Tagged { base, .. } = parent { base } else { name };
        refused(&f, format!("bring interface {name} up"), base, kind)
    })?;
    Ok(created)
}

/// `true` when it was not there before.
pub(crate) fn ensure_shim(route: &mut Socket, shim: &Shim) -> Result<bool> {
    let name = &shim.name;
    let parent = index(route, &shim.parent)?;
    let mut batch = Batch::new();
    batch.add_upper(
        0,
        NewUpper { name, kind: shim.kind, parent, mac: shim.mac, mtu: shim.mtu, broadcast_limit: None, netns: None },
    );
    let created = match route.run(batch)? {
        Ok(()) => true,
        Err(f) if f.errno == libc::EEXIST => false,
        Err(f) => return Err(refused(&f, format!("create {name}"), &shim.parent, shim.kind.driver())),
    };
    sysctl(&format!("ipv4/conf/{name}/arp_filter"), "1")?;
    if shim.addresses.iter().any(IpAddr::is_ipv6) {
        for (key, value) in [("disable_ipv6", "0"), ("accept_ra", "0"), ("accept_dad", "0")] {
            sysctl(&format!("ipv6/conf/{name}/{key}"), value)?;
        }
    } else {
        sysctl_if_there(&format!("ipv6/conf/{name}/disable_ipv6"), "1")?;
    }
    let at = index(route, name)?;
    let mut batch = Batch::new();
    for ip in &shim.addresses {
        batch.add_address(0, at, IpNetwork::from(*ip));
    }
    batch.link_up(0, at);
    route.run(batch)?.map_err(|f| match f.errno {
        libc::EADDRINUSE => f.error(format!("give {name} its addresses")).with_hint(
            "another device on the parent has the host's address on this network: choose one with --aux-address host=ADDRESS",
        ),
        _ => f.error(format!("bring {name} up")),
    })?;
    Ok(created)
}

pub(crate) fn add_host_route(route: &mut Socket, ip: IpAddr, shim: &str, source: IpAddr) -> Result<()> {
    let doing = || format!("add the host's route to {ip} through {shim}");
    let at = route.ifindex(shim)?.ok_or_else(|| {
        Error::system(doing()).with_cause("it disappeared").with_hint("something removed it; try again")
    })?;
    let mut batch = Batch::new();
    batch.host_route(0, at, ip, source);
    route.run(batch)?.map_err(|f| f.error(doing()))
}

/// A route or device that is not there is no error.
pub(crate) fn delete_host_route(route: &mut Socket, ip: IpAddr, shim: &str) -> Result<()> {
    let Some(at) = route.ifindex(shim)? else { return Ok(()) };
    let mut batch = Batch::new();
    batch.delete_host_route(0, at, ip);
    match route.run(batch)? {
        Err(f) if !matches!(f.errno, libc::ESRCH | libc::ENODEV | libc::ENOENT) => {
            Err(f.error(format!("delete the host's route to {ip}")))
        }
        _ => Ok(()),
    }
}

/// The device of an endpoint, from inside its namespace.
pub(crate) fn delete_device(route: &mut Socket, name: &str) -> Result<()> {
    let mut batch = Batch::new();
    batch.delete_link(0, name);
    match route.run(batch)? {
        Err(f) if f.errno != libc::ENODEV => Err(f.error(format!("delete {name}"))),
        _ => Ok(()),
    }
}

/// A removed network's shim, and its parent if rrun made it and `last` says that no other network
/// needs it.
pub(crate) fn dismantle(route: &mut Socket, network: &Network, last: bool) -> Result<()> {
    if let Some(shim) = vlan::shim(network) {
        delete_device(route, &shim.name)?;
    }
    match VlanOptions::of(network).makes(network).filter(|_| last) {
        Some(Parent::Dummy { name }) => delete_device(route, &name),
        // Only what is part of another interface: somebody may have given the name to a real one.
        Some(Parent::Tagged { name, .. }) => {
            let ours = route.links()?.into_iter().any(|l| l.name == name && l.lower.is_some());
            if ours { delete_device(route, &name) } else { Ok(()) }
        }
        None => Ok(()),
    }
}

/// The host's routes to endpoints that are no more. `undo.json` of a container does not list the
/// networks that it was connected to while it ran.
pub(crate) fn stale_routes(route: &mut Socket, shim: &str, endpoints: &[Endpoint]) -> Result<Vec<IpAddr>> {
    let Some(at) = route.ifindex(shim)? else { return Ok(Vec::new()) };
    let live: Vec<IpAddr> = endpoints.iter().flat_map(Endpoint::addresses).collect();
    Ok(route.host_routes(at)?.into_iter().filter(|ip| !live.contains(ip)).collect())
}
