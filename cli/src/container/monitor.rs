//! The monitor's half: what runs in the process that `start` splits off.
//!
//! It plans, writes down what will have to be undone, applies, reports, and then stays with the
//! container until the end, which it records and cleans up.

use super::ending::{self, Held};
use super::events::{self, Joined};
use super::health::{self, Checker};
use super::lock::Lock;
use super::record::{FILE, Record};
use super::restart::Backoff;
use super::service::{Duties, Network};
use super::spec::run_spec;
use super::{explain, file, hosts_file, links, logging, revival, start, takeover, undo, volume, workers};
use crate::context::Context;
use netstack::egress::Policy;
use netstack::model::LastAddresses;
use netstack::publish;
use netstack::sandbox::{Mode, Sandbox, SandboxPlan, SandboxRequest};
use plan::{Error, HostThing, Journal, Result, ResultExt, Spoken};
use runtime::cgroup::Layout;
use runtime::exec::{self, Io};
use runtime::host::HostFacts;
use runtime::log::Writer;
use runtime::monitor::{Marks, Report, Setup};
use runtime::planner;
use runtime::relay::Ends;
use runtime::spec::{Namespace, RunSpec};
use runtime::state::{self, State};
use runtime::sys::seal;
use runtime::volume::VolumeMount;
use runtime::{attach, oci};
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

/// The OCI spec of the last start.
const SPEC_FILE: &str = "config.json";

/// What `start` hands over to the monitor.
pub struct Order {
    pub report: OwnedFd,
    pub lock: Lock,
    pub attached: Option<UnixStream>,
    pub asked: Asked,
    /// The container runs already: its monitor was killed.
    pub take_over: bool,
    pub cgroups: Layout,
}

/// What only the command knows that starts the container.
#[derive(Default)]
pub struct Asked {
    pub explain: bool,
    /// It attaches.
    pub stays: bool,
    /// Rows and columns of its terminal.
    pub console: Option<(u16, u16)>,
    /// Where it sends the container's network namespace.
    pub netns: Option<OwnedFd>,
    /// How often the container has been started again by its policy.
    pub restarts: u32,
}

/// The whole life of a monitor. Its stdio is /dev/null: what there is to say goes into the report.
pub fn main(ctx: &Context, record: &Record, order: Order) -> i32 {
    match live(ctx, record, order) {
        Ok(()) => 0,
        Err(_) => 125,
    }
}

fn live(ctx: &Context, record: &Record, order: Order) -> Result<()> {
    let Order { report, lock, attached, asked, take_over, cgroups } = order;
    if let Some(command) = &asked.netns {
        exec::netns::ask(command);
    }
    let title = CString::new(format!("rrun monitor {}", record.id)).ok();
    let begun = seal::protect(title).and_then(|()| match take_over {
        true => takeover::begin(ctx, record.clone(), cgroups),
        false => begin(ctx, record.clone(), &asked, cgroups),
    });
    let begun = match begun {
        Err(e) => return Report::failed(e).send(report),
        Ok(begun) => begun,
    };
    if !take_over {
        tell(ctx, &begun, attached.is_some());
    }
    begun.report.send(report)?;
    let mut backoff = Backoff::default();
    let mut life = watch(ctx, begun, attached, lock)?;
    while let Some(lived) = life {
        life = match revival::revive(ctx, &record.id, backoff.next(lived))? {
            Some((again, lock)) => {
                tell(ctx, &again, false);
                watch(ctx, again, None, lock)?
            }
            None => None,
        };
    }
    Ok(())
}

/// A container whose program runs.
pub struct Begun {
    pub record: Record,
    /// What it was started with, if it was just started.
    pub spec: Option<RunSpec>,
    pub held: Held,
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub ends: Ends,
    pub listener: UnixListener,
    pub report: Report,
    pub log: Option<Writer>,
    /// Of the terminal that it was started from.
    pub console: Option<(u16, u16)>,
}

/// Everything up to exec. On an error nothing is left.
fn begin(ctx: &Context, record: Record, asked: &Asked, cgroups: Layout) -> Result<Begun> {
    workers::enter(ctx, &record.id)?;
    let mut things = undo::least(ctx, &record.id);
    attempt(ctx, record, asked, cgroups, &mut things).map_err(|mut e| {
        let undone = HostFacts::observe().and_then(|facts| undo::walk(&things, &facts));
        match undone {
            Ok(()) => workers::leave(ctx),
            Err(left) => e = e.with_note(left.to_string()),
        }
        e
    })
}

/// `things` becomes what must be undone.
///
/// # Errors
/// The step that failed; `things` must be walked then.
pub fn attempt(
    ctx: &Context,
    record: Record,
    asked: &Asked,
    cgroups: Layout,
    things: &mut Vec<HostThing>,
) -> Result<Begun> {
    let state_dir = ctx.state_dir(&record.id);
    let mut spec = run_spec(ctx, &record)?;
    let log = logging::writer(ctx, &record)?;
    start::join(ctx, &record, &mut spec)?;
    links::check_running(ctx, &record)?;
    spec.process.console_size = asked.console;
    super::make_private_dir(&state_dir)?;
    let facts = HostFacts::of(cgroups)?;
    let mut plan = planner::plan(&spec, &facts)?;
    let volumes = volume::mount::of(ctx, &record)?;
    plan.mount_first(&volumes);
    let network = network(ctx, &record, &spec, Mode::Real)?;
    for thing in things.iter_mut() {
        if let HostThing::CgroupDir { path } = thing {
            path.clone_from(&spec.cgroup.path);
        }
    }
    things.extend(volumes.iter().map(VolumeMount::thing));
    things.extend(network.iter().flat_map(SandboxPlan::undo));
    undo::save(&state_dir, things)?;

    let mut journal = if asked.explain { Journal::new() } else { Journal::silent() };
    volume::prepare(ctx, &record, &spec.root, &volumes, &mut journal)?;
    let (io, pipes) = streams(&record)?;
    let netns = asked.netns.as_ref().and_then(exec::netns::borrow);
    let mut starting = exec::start(&spec, &facts, &plan, io, netns, &mut journal)?;
    // From here on the child builds its root, on the other CPU if there is one.
    let mut state = State { restart_count: asked.restarts, ..State::created(&record.id) };
    state.health = health::begins(&record.config);
    let mut report = Report::started(starting.pid);
    report.warnings.extend(plan.warnings.iter().chain(&starting.lacking).cloned());
    let mut network_steps = Vec::new();
    let mut sandbox = match network {
        Some(network) => {
            report.warnings.extend(network.warnings.iter().cloned());
            if asked.explain {
                network_steps = network.steps.iter().map(|s| Spoken::of(s, None)).collect();
            }
            let other = match &spec.namespaces.net {
                Namespace::Host => Some(open_netns(Path::new("/proc/self/ns/net"))?),
                Namespace::Path(path) => Some(open_netns(path)?),
                Namespace::Private => None,
            };
            let netns = other.as_ref().map_or_else(|| starting.netns(), |other| Ok(other.as_fd()))?;
            Some(network.apply(netns, &mut journal, plan.steps.len())?)
        }
        None => None,
    };
    let mounts = starting.mounts.take();
    let listener = attach::listen(&state_dir)?;
    state.streams = pipes.as_ref().map(Marks::of).transpose()?.flatten();
    // Before the program runs: once it does, it may be gone before we look.
    if let Err(gone) = state.set_running(starting.pid) {
        // The child failed on its way up, and its own report says why.
        return Err(starting.go(&mut journal, || Ok(())).err().unwrap_or(gone));
    }
    state::save(&state_dir, &state)?;
    // Whoever stays with the container learns of its end first; whoever leaves it finds all of it there.
    let serve = match asked.stays {
        true => Sandbox::begin_to_serve,
        false => Sandbox::serve,
    };
    let serve = || sandbox.as_mut().map_or(Ok(()), serve);
    let mut running = starting.go(&mut journal, serve)?;
    let ends = match (running.tty.take(), pipes) {
        (Some(master), _) => Ends::Tty(master),
        (None, Some(ends)) => ends,
        (None, None) => return Err(Error::system("the container's terminal is missing")),
    };
    if asked.explain {
        report.explain = Some(explain::timed(&plan, network_steps, &journal));
    }
    let held = Held { facts, things: std::mem::take(things), sandbox, mounts, state };
    let exec::Running { pid, pidfd, .. } = running;
    Ok(Begun { record, spec: Some(spec), held, pid, pidfd, ends, listener, report, log, console: asked.console })
}

/// The events of a start.
fn tell(ctx: &Context, begun: &Begun, attached: bool) {
    let networks = Joined::of(&begun.record, begun.held.sandbox.as_ref().map_or(&[], Sandbox::endpoints));
    events::start(ctx, &begun.record, &networks, attached, begun.console);
}

/// Stays until the end. How long the container lived, if it is to be started again.
fn watch(ctx: &Context, begun: Begun, attached: Option<UnixStream>, lock: Lock) -> Result<Option<Duration>> {
    let Begun { mut record, spec, mut held, pid, pidfd, ends, listener, log, .. } = begun;
    let born = Instant::now();
    // For the time after a reboot, when the volatile state is gone. A full disk is no reason to end
    // what runs.
    let _ = state::save(&ctx.container_dir(&record.id), &held.state);
    // For people and for tools that read OCI; rrun itself makes its spec of the record.
    if let Some(spec) = spec {
        let _ = oci::to_spec(&spec).and_then(|spec| file::create(&lock, SPEC_FILE, &spec));
    }
    remember_addresses(ctx, &mut record, &held);
    drop(lock);
    let network =
        held.sandbox.as_mut().map(|sandbox| Network::new(sandbox, &mut held.things, ctx.state_dir(&record.id)));
    let mut resized = |size| events::write(ctx, &[events::resize(&record, size)]);
    let checker = Checker::new(ctx, &record, &mut held.state);
    let mut duties = Duties::new(network, checker, &held.facts.cgroup, &mut resized);
    let exit = runtime::monitor::run(Setup {
        pid,
        pidfd,
        ends,
        log,
        listener: Some(listener),
        attached,
        stdin_once: record.config.attached && record.config.open_stdin,
        stop_signal: super::signal::parse(record.stop_signal()).unwrap_or(libc::SIGTERM),
        stop_timeout: stop_timeout(&record),
        service: &mut duties,
    })?;
    drop(duties);
    let again = ending::end(ctx, record, held, exit)?;
    Ok(again.then(|| born.elapsed()))
}

/// The next start shall have the same addresses.
fn remember_addresses(ctx: &Context, record: &mut Record, held: &Held) {
    let Some(sandbox) = held.sandbox.as_ref().filter(|_| !record.host.auto_remove) else { return };
    let mut news = false;
    for asked in &mut record.networks {
        let got = sandbox.endpoints().iter().find(|e| e.network == asked.network);
        let last = got.map_or_else(LastAddresses::default, |e| LastAddresses { ip: e.ipv4, ip6: e.ipv6 });
        news |= std::mem::replace(&mut asked.last, last.clone()) != last;
    }
    if news {
        // Not worth ending what runs: it gets other addresses next time, if it must be.
        let _ = file::replace(&ctx.container_dir(&record.id), FILE, record);
    }
}

/// What the container asks of its networks.
///
/// # Errors
/// A record made by hand.
pub fn sandbox_request(ctx: &Context, record: &Record, spec: &RunSpec) -> Result<SandboxRequest> {
    let mut dns = record.dns.clone();
    dns.extra_hosts.extend(links::hosts(ctx, record));
    Ok(SandboxRequest {
        container_id: record.id.clone(),
        container_name: record.name.clone(),
        hostname: spec.hostname.clone().unwrap_or_default(),
        domainname: spec.domainname.clone().unwrap_or_default(),
        endpoints: record.networks.clone(),
        host_network: record.host.network_mode == "host" || record.foreign_namespace().is_some(),
        ports: record.published()?,
        dns,
        keep_addresses: !record.host.auto_remove,
        files: Some(ctx.container_dir(&record.id)),
        hosts_base: record.host.hosts_file.as_deref().map(|file| hosts_file::read(file).unwrap_or_default()),
        egress: Policy::parse(&record.host.egress)?,
        host_loopback: publish::parse_loopback(&record.host.host_loopback)?,
        rate: record.host.net_rate,
    })
}

/// `None`: the network is another container's.
///
/// # Errors
/// Docker's texts: no such network, no address, no port.
pub fn network(ctx: &Context, record: &Record, spec: &RunSpec, mode: Mode) -> Result<Option<SandboxPlan>> {
    if record.joined_container().is_some() {
        return Ok(None);
    }
    if let Some(file) = &record.host.hosts_file {
        // Who takes over or connects a network does without it, but nobody starts without.
        hosts_file::read(file)?;
    }
    ctx.netstack().plan_sandbox(&sandbox_request(ctx, record, spec)?, mode).map(Some)
}

/// For `--network host` and `ns:…`.
fn open_netns(path: &Path) -> Result<OwnedFd> {
    std::fs::File::open(path).map(OwnedFd::from).doing(|| format!("open {}", path.display()))
}

fn streams(record: &Record) -> Result<(Io, Option<Ends>)> {
    if record.config.tty {
        return Ok((Io::Tty, None));
    }
    let pipes = runtime::monitor::pipes(record.config.open_stdin)?;
    let io = Io::Pipes { stdin: pipes.stdin, stdout: pipes.stdout, stderr: pipes.stderr };
    Ok((io, Some(pipes.ends)))
}

/// What SIGTERM to the monitor grants the container, as `rrun stop` would.
fn stop_timeout(record: &Record) -> Option<Duration> {
    match record.config.stop_timeout.unwrap_or(super::STOP_GRACE) {
        seconds if seconds < 0 => None,
        seconds => Some(Duration::from_secs(seconds.unsigned_abs())),
    }
}
