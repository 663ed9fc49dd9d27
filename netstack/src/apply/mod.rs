//! Doing what a plan says: steps into system calls, as few as there can be.
//!
//! Consecutive netlink steps of one place go out as one batch; the acknowledgement's sequence number
//! says which step the kernel refused. Nothing is decided here.

mod bridge_device;
pub(crate) mod neighbour;
pub(crate) mod reply;
pub(crate) mod vlan;

pub(crate) use bridge_device::{create_bridge, existing_bridge, join_vlan, mend_bridge, remove_bridge};

use crate::dhcp::{self, Dhcp, Lease};
use crate::dns;
use crate::driver::bridge;
use crate::egress;
use crate::firewall;
use crate::model::Endpoint;
use crate::networks::{BridgeOptions, write_json};
use crate::nl::{self, Batch, Failure, Socket, Visit};
use crate::publish::HostLoopback;
use crate::rate;
use crate::sandbox::{Published, Sandbox, SandboxPlan, no_connectivity};
use crate::step::{Step, Veth};
use ipnetwork::{IpNetwork, Ipv6Network};
use plan::{Action, Error, Journal, Mark, Result, ResultExt, Site};
use std::io::Write;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

/// In every network namespace, for as long as there have been namespaces.
const LOOPBACK_INDEX: u32 = 1;

impl SandboxPlan {
    /// Does it, in the namespace of `netns` where a step says so. Step `i` is marked in the journal
    /// as `step_offset + i`.
    ///
    /// On failure the error names the step, and the caller walks [`SandboxPlan::undo`] (taken
    /// before) with [`crate::repair::undo`]. The calling process must be single-threaded.
    pub fn apply(mut self, netns: BorrowedFd<'_>, journal: &mut Journal, step_offset: usize) -> Result<Sandbox> {
        self.execute(netns, journal, step_offset)?;
        Sandbox::started(self, netns)
    }

    pub(crate) fn execute(&mut self, netns: BorrowedFd<'_>, journal: &mut Journal, step_offset: usize) -> Result<()> {
        let steps = std::mem::take(&mut self.steps);
        let mut at = 0;
        while at < steps.len() {
            let end = at + run_length(&steps[at..]);
            let begin = journal.now();
            self.run(&steps, at..end, netns)?;
            journal.mark(step_offset + at, begin);
            let now = journal.now();
            for i in at + 1..end {
                let step = u16::try_from(step_offset + i).unwrap_or(u16::MAX);
                journal.push(Mark { step, begin_us: now, end_us: now });
            }
            at = end;
        }
        Ok(())
    }

    /// One run of steps that are done together.
    fn run(&mut self, steps: &[Step], range: Range<usize>, netns: BorrowedFd<'_>) -> Result<()> {
        let first = &steps[range.start];
        let told = |e: Error| if e.step.is_none() { e.with_step(first.line()) } else { e };
        if let Step::AskDhcp { ifname, mac, asked, network } = first {
            return self.ask_dhcp(ifname, *mac, asked, network, netns).map_err(told);
        }
        if first.site() == Site::InNetns {
            return self.inside(steps, range, netns).map_err(told);
        }
        match first {
            // Done while planning, or by the monitor in its own time.
            Step::LeaseAddress { .. } | Step::ReflectMdns { .. } => Ok(()),
            Step::ReservePort { .. } => self.hold_ports(),
            Step::CreateVeth(_) => self.plug(steps, range, netns),
            Step::LimitRate { ifname, bits, .. } => self.limit_rate(ifname, *bits, first),
            Step::WriteFiles { .. } => self.write_files(),
            Step::EnableForwarding { ipv6 } => enable_forwarding(*ipv6),
            Step::EnsureFirewall => self.ensure_firewall(),
            Step::AdmitNetwork { network, elements } => {
                let nft = self.nft.as_mut().expect("a plan with bridge networks has its sockets");
                firewall::add(nft, elements)?.map_err(|f| f.error(format!("tell the firewall about network {network}")))
            }
            Step::EnsureBridge { bridge, .. } => self.ensure_bridge(bridge),
            Step::EnsureParent { .. } | Step::EnsureShim(_) | Step::CreateUpper(_) | Step::HostRoute { .. } => {
                let route = self.route.as_mut().expect("a plan with networks has its socket");
                vlan::apply(route, first, netns)
            }
            Step::ProxyNeighbour { ip, uplink } => {
                let route = self.route.as_mut().expect("a plan with networks has its socket");
                neighbour::add_proxy(route, *ip, uplink)
            }
            Step::Publish { bindings, elements } => {
                let path = Published::path(&self.netstack.state, &self.request.container_id);
                write_json(&path, &Published::new(bindings))?;
                let nft = self.nft.as_mut().expect("a plan with bridge networks has its sockets");
                firewall::publish(nft, elements)
            }
            Step::DnsRecord { path, network, .. } => {
                let endpoint = self.endpoints.iter().find(|e| e.network == *network);
                endpoint.map_or(Ok(()), |e| write_json(path, e))
            }
            Step::ExportNames => self.netstack.export_names(),
            Step::HardenInterface { .. }
            | Step::TuneInterface { .. }
            | Step::LoopbackUp
            | Step::ConfigureInterface { .. }
            | Step::AskDhcp { .. }
            | Step::DefaultRoute { .. }
            | Step::HostLoopback { .. }
            | Step::RestrictEgress(_)
            | Step::DeviceRoute { .. }
            | Step::Reply(_)
            | Step::SetMac { .. }
            | Step::StaticRoute { .. }
            | Step::DnsServer => unreachable!("these happen inside the namespace"),
        }
        .map_err(told)
    }

    fn plug(&mut self, steps: &[Step], range: Range<usize>, netns: BorrowedFd<'_>) -> Result<()> {
        let route = self.route.as_mut().expect("a plan with bridge networks has its sockets");
        let mut batch = Batch::new();
        for i in range.clone() {
            let Step::CreateVeth(veth) = &steps[i] else { continue };
            let index = route.ifindex(&veth.bridge)?.ok_or_else(|| {
                Error::system(format!("bridge {} disappeared", veth.bridge))
                    .with_hint("something removed it a moment ago; try again")
                    .with_step(steps[i].line())
            })?;
            batch.add_veth(i, veth, index, netns);
        }
        route.run(batch)?.map_err(|f| refused(steps, &f))?;
        for i in range {
            if let Step::CreateVeth(Veth { host, vlan: Some(vlan), .. }) = &steps[i] {
                join_vlan(route, host, *vlan).map_err(|e| e.with_step(steps[i].line()))?;
            }
        }
        Ok(())
    }

    /// At the host's end of a cable.
    fn limit_rate(&mut self, ifname: &str, bits: u64, step: &Step) -> Result<()> {
        let route = self.route.as_mut().expect("a plan with bridge networks has its sockets");
        let index = route.ifindex(ifname)?.ok_or_else(|| Error::system(format!("interface {ifname} disappeared")))?;
        let mut batch = Batch::new();
        batch.limit_rate(0, index, bits, rate::bucket(bits));
        route.run(batch)?.map_err(|f| refused(std::slice::from_ref(step), &f))
    }

    /// Everything inside the container's namespace: one visit, one batch.
    fn inside(&mut self, steps: &[Step], range: Range<usize>, netns: BorrowedFd<'_>) -> Result<()> {
        let home = nl::current()?;
        let visit = Visit::enter(netns, home.as_fd())?;
        let mut route = Socket::route()?;
        for step in &steps[range.clone()] {
            match step {
                Step::HardenInterface { ifname, ipv6 } => {
                    harden(ifname, *ipv6).map_err(|e| e.with_step(step.line()))?;
                }
                Step::TuneInterface { settings, .. } => tune(settings).map_err(|e| e.with_step(step.line()))?,
                _ => {}
            }
        }
        let patience = vlan::Patience::new();
        let refusal = loop {
            match route.run(inner(&route, steps, range.clone())?)? {
                Err(f) if vlan::was_in_use(&steps[f.tag], f.errno) && patience.wait() => {}
                done => break done,
            }
        };
        refusal.map_err(|f| refused(steps, &f))?;
        let policy = range.clone().find_map(|i| match &steps[i] {
            Step::RestrictEgress(rules) => Some((i, rules)),
            _ => None,
        });
        if let Some((i, rules)) = policy {
            egress::load(rules).map_err(|e| e.with_step(steps[i].line()))?;
        }
        let loopback = range.clone().find_map(|i| match &steps[i] {
            Step::HostLoopback { ports, gateways } => Some((i, ports, gateways.clone())),
            _ => None,
        });
        if let Some((i, ports, gateways)) = loopback {
            let opened = HostLoopback::open_in_current_netns(ports, gateways);
            self.loopback = Some(opened.map_err(|e| e.with_step(steps[i].line()))?);
        }
        let resolver = range.clone().find(|i| steps[*i] == Step::DnsServer);
        if let Some(i) = resolver {
            // Loopback must be up for it.
            let sockets = dns::bind_in_current_netns().map_err(|e| e.with_step(steps[i].line()))?;
            self.resolver = Some(sockets);
        }
        drop(visit);
        Ok(())
    }

    /// The endpoint gets what the server gives, and everything that depends on it follows.
    fn ask_dhcp(
        &mut self,
        ifname: &str,
        mac: [u8; 6],
        asked: &Dhcp,
        network: &str,
        netns: BorrowedFd<'_>,
    ) -> Result<()> {
        let home = nl::current()?;
        let visit = Visit::enter(netns, home.as_fd())?;
        let route = Socket::route()?;
        let index = route
            .ifindex(ifname)?
            .ok_or_else(|| Error::system(format!("interface {ifname} is not in the container's namespace")))?;
        let lease = dhcp::obtain(index, mac, asked, network)?;
        let whole = |own: &[Endpoint]| -> Vec<Endpoint> { self.others.iter().chain(own).cloned().collect() };
        let before = whole(&self.endpoints);
        if let Some(e) = self.endpoints.iter_mut().find(|e| e.ifname == ifname) {
            e.set_lease(Some(lease.clone()));
        }
        let after = self.others.iter().chain(&self.endpoints).cloned().collect::<Vec<_>>();
        address_and_routes(route, index, None, Some(&lease), [&before, &after])?;
        drop(visit);
        if self.files.is_some() {
            let named = self.endpoints.iter().any(Endpoint::has_names);
            self.files = self.netstack.files(&self.request, &self.endpoints, named);
            self.write_files()?;
        }
        Ok(())
    }

    /// What planning has left of it.
    fn hold_ports(&mut self) -> Result<()> {
        let Some(ports) = &mut self.ports else { return Ok(()) };
        ports.hold_rest(&self.netstack.state).map_err(|e| match bridge::any_publishing_endpoint(&self.endpoints) {
            Some(through) => no_connectivity(e, &self.request, through),
            None => e,
        })
    }

    fn write_files(&self) -> Result<()> {
        let Some(files) = &self.files else { return Ok(()) };
        for (name, text) in
            [("hosts", &files.hosts), ("resolv.conf", &files.resolv_conf), ("hostname", &files.hostname)]
        {
            write_in_place(&files.dir.join(name), text)?;
        }
        Ok(())
    }

    fn ensure_firewall(&mut self) -> Result<()> {
        let nft = self.nft.as_mut().expect("a plan with bridge networks has its sockets");
        let loaded = firewall::load(nft)?;
        // Somebody flushed it: the other networks and containers need theirs back as well.
        if loaded { self.netstack.restore_elements(nft, true).map(drop) } else { Ok(()) }
    }

    fn ensure_bridge(&mut self, bridge: &str) -> Result<()> {
        let network = self
            .networks
            .iter()
            .find(|n| BridgeOptions::of(n).bridge_name(&n.id) == bridge)
            .expect("the planner only names bridges of its networks");
        let route = self.route.as_mut().expect("a plan with bridge networks has its sockets");
        if create_bridge(route, network)? {
            self.netstack.replug(route, network)?;
        }
        Ok(())
    }
}

/// Puts the address of one DHCP lease in the place of another's, in the namespace this thread is in;
/// the default routes of all endpoints are set anew, and the ways of answers follow.
pub(crate) fn address_and_routes(
    mut route: Socket,
    index: u32,
    old: Option<&Lease>,
    new: Option<&Lease>,
    [before, after]: [&[Endpoint]; 2],
) -> Result<()> {
    if let Some(old) = old
        && let Ok(address) = IpNetwork::new(old.ip.into(), old.prefix)
    {
        let mut batch = Batch::new();
        batch.delete_address(0, index, address);
        match route.run(batch)? {
            Err(f) if f.errno != libc::EADDRNOTAVAIL => return Err(f.error(format!("take back {}", old.ip))),
            _ => {}
        }
    }
    let mut batch = Batch::new();
    if let Some(new) = new
        && let Ok(address) = IpNetwork::new(new.ip.into(), new.prefix)
    {
        batch.add_address(0, index, address);
    }
    default_routes(&route, &mut batch, after)?;
    if !batch.is_empty() {
        route.run(batch)?.map_err(|f| f.error("give the interface the address of its DHCP lease"))?;
    }
    reply::change(&mut route, before, after)
}

/// Puts the endpoint's address beside the one it had before, which ends after so many seconds, in the
/// namespace this thread is in. What answers from the old one keeps its way.
pub(crate) fn change_prefix(
    mut route: Socket,
    old: Ipv6Network,
    left: u32,
    e: &Endpoint,
    [before, after]: [&[Endpoint]; 2],
) -> Result<()> {
    let Some(index) = route.ifindex(&e.ifname)? else { return Ok(()) };
    let mut batch = Batch::new();
    if let Some(new) = e.ipv6.and_then(|ip| IpNetwork::new(ip.into(), e.prefix6).ok()) {
        batch.add_address(0, index, new);
    }
    batch.deprecate_address(0, index, old, left);
    default_routes(&route, &mut batch, after)?;
    match route.run(batch)? {
        // Somebody took the old address away; the rest of the batch is done all the same.
        Err(f) if f.errno != libc::EADDRNOTAVAIL => {
            return Err(f.error(format!("move {} to its network's new prefix", e.ifname)));
        }
        _ => {}
    }
    reply::add_new(&mut route, before, after)
}

fn default_routes(route: &Socket, batch: &mut Batch, endpoints: &[Endpoint]) -> Result<()> {
    for step in bridge::routes(endpoints) {
        match step {
            Step::DefaultRoute { gateway, ifname, metric } => {
                route.ifindex(&ifname)?.into_iter().for_each(|at| batch.default_route(0, at, gateway, metric));
            }
            Step::DeviceRoute { ifname, ipv6 } => {
                route.ifindex(&ifname)?.into_iter().for_each(|at| batch.device_route(0, at, ipv6));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The messages of the steps inside the namespace. They may be sent twice.
fn inner(route: &Socket, steps: &[Step], range: Range<usize>) -> Result<Batch> {
    let index = |name: &str| {
        route
            .ifindex(name)?
            .ok_or_else(|| Error::system(format!("interface {name} is not in the container's namespace")))
    };
    let mut batch = Batch::new();
    for i in range {
        match &steps[i] {
            Step::LoopbackUp => batch.link_up(i, LOOPBACK_INDEX),
            Step::SetMac { ifname, mac } => batch.set_mac(i, index(ifname)?, *mac),
            Step::ConfigureInterface { ifname, addresses, announce } => {
                let at = index(ifname)?;
                if *announce {
                    batch.announce(i, at);
                }
                for a in addresses {
                    batch.add_address(i, at, *a);
                }
                batch.link_up(i, at);
            }
            Step::DefaultRoute { gateway, ifname, metric } => {
                batch.default_route(i, index(ifname)?, *gateway, *metric);
            }
            Step::StaticRoute { route, ifname } => batch.static_route(i, index(ifname)?, route),
            Step::LimitRate { ifname, bits, .. } => batch.limit_rate(i, index(ifname)?, *bits, rate::bucket(*bits)),
            Step::DeviceRoute { ifname, ipv6 } => batch.device_route(i, index(ifname)?, *ipv6),
            Step::Reply(_) => reply::add(&mut batch, route, i, &steps[i])?,
            // Settings and sockets are not netlink's; the rest happens outside.
            _ => {}
        }
    }
    Ok(batch)
}

/// How many steps from the first on go together.
fn run_length(steps: &[Step]) -> usize {
    let same = |s: &&Step| match &steps[0] {
        Step::CreateVeth(_) => matches!(s, Step::CreateVeth(_)),
        // What is asked for must be up, and nothing else can be done before the answer.
        Step::AskDhcp { .. } => false,
        first if first.site() == Site::InNetns => s.site() == Site::InNetns && !matches!(s, Step::AskDhcp { .. }),
        _ => false,
    };
    1 + steps[1..].iter().take_while(same).count()
}

/// The kernel's refusal, with the step it was about.
pub(crate) fn refused(steps: &[Step], failure: &Failure) -> Error {
    let step = &steps[failure.tag];
    let e = failure.error(step.line()).with_step(step.line());
    match (step, failure.errno) {
        (Step::CreateVeth(_), libc::EOPNOTSUPP) => {
            e.with_hint("this kernel has no veth: modprobe veth, or enable CONFIG_VETH")
        }
        // BR_PORT_BITS is 10. The kernel counts them anyway, so nobody else does on the way to a
        // start; but its words ("exchange full") help nobody.
        (Step::CreateVeth(v), libc::EXFULL) => {
            Error::conflict(format!("bridge {} is full: a Linux bridge has at most 1023 ports", v.bridge))
                .with_step(step.line())
                .with_hint(
                    "give further containers another network (rrun network create NAME); \
                     with -o gateway_mode_ipv4=routed both networks reach each other's published ports without NAT",
                )
        }
        (Step::LimitRate { .. }, libc::ENOENT | libc::EOPNOTSUPP) => {
            e.with_hint("this kernel has no token bucket: modprobe sch_tbf, or enable CONFIG_NET_SCH_TBF")
        }
        (Step::ConfigureInterface { .. }, libc::EBUSY) => {
            e.with_hint("another device on the same parent has this MAC address: give each its own")
        }
        (Step::ConfigureInterface { .. }, libc::EADDRINUSE) => e.with_hint(
            "another ipvlan device on the same parent has this address: give the network an --ip-range of its own",
        ),
        (Step::Reply(_), libc::EOPNOTSUPP | libc::EAFNOSUPPORT) => e.with_hint(
            "this kernel has no policy routing (CONFIG_IP_MULTIPLE_TABLES): -o no_default_route leaves a network out of it",
        ),
        (Step::StaticRoute { .. }, libc::EEXIST) => e.with_hint("two routes to the same place: give one a metric"),
        (Step::ConfigureInterface { .. }, libc::EACCES | libc::EOPNOTSUPP) => {
            e.with_hint("IPv6 is switched off in this kernel: use a network without --ipv6")
        }
        _ => e,
    }
}

/// Makes the host a router.
pub(crate) fn enable_forwarding(ipv6: bool) -> Result<()> {
    if !ipv6 {
        return sysctl("ipv4/ip_forward", "1");
    }
    // A router does not listen to other routers: a host that got its own default route from an
    // advertisement would lose it. accept_ra=2 means: even so.
    let conf = Path::new("/proc/sys/net/ipv6/conf");
    let entries = std::fs::read_dir(conf).doing(|| "list the host's IPv6 interfaces")?;
    for entry in entries.flatten() {
        let reads = |key: &str, value: &[u8]| std::fs::read(entry.path().join(key)).is_ok_and(|t| t.starts_with(value));
        if reads("accept_ra", b"1") && reads("forwarding", b"0") {
            sysctl_if_there(&format!("ipv6/conf/{}/accept_ra", entry.file_name().to_string_lossy()), "2")?;
        }
    }
    sysctl("ipv6/conf/all/forwarding", "1")
}

/// Inside the container's namespace.
pub(crate) fn harden(ifname: &str, ipv6: bool) -> Result<()> {
    let conf = format!("ipv6/conf/{ifname}");
    if !ipv6 {
        return sysctl_if_there(&format!("{conf}/disable_ipv6"), "1");
    }
    sysctl(&format!("{conf}/disable_ipv6"), "0").map_err(|e| match e.errno {
        Some(libc::ENOENT) => e.with_hint("IPv6 is switched off in this kernel: use a network without --ipv6"),
        _ => e,
    })?;
    sysctl(&format!("{conf}/accept_ra"), "0")
}

fn tune(settings: &[(String, String)]) -> Result<()> {
    settings.iter().try_for_each(|(key, value)| {
        sysctl(key.strip_prefix("net/").unwrap_or(key), value)
            .map_err(|e| e.with_hint("is it the name of a setting that this kernel has?"))
    })
}

/// One setting of the network namespace this thread is in.
pub(crate) fn sysctl(key: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/net/{key}");
    std::fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .and_then(|mut f| f.write_all(value.as_bytes()))
        .doing(|| format!("set {path} to {value}"))
}

/// As [`sysctl`]; a kernel without IPv6 has nothing to switch off.
pub(crate) fn sysctl_if_there(key: &str, value: &str) -> Result<()> {
    match sysctl(key, value) {
        Err(e) if e.errno == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}

/// Same inode: it may be mounted in the container already, or have been since its creation.
pub(crate) fn write_in_place(path: &Path, text: &str) -> Result<()> {
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .and_then(|mut f| f.write_all(text.as_bytes()))
        .doing(|| format!("write {}", path.display()))
}
