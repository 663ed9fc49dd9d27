//! The parent's side of a start: cgroup, clone, hand-over, and undoing all of it if it fails.
//!
//! [`start`] returns as soon as the child exists; it builds the root while the caller builds the
//! network. [`Starting::go`] lets it finish and returns once the program runs.

pub mod netns;
pub(crate) mod report;

use crate::cgroup::{self, Layout};
use crate::host::HostFacts;
use crate::init::{self, Child, Stdio};
use crate::planner::Plan;
use crate::spec::{Process, RunSpec};
use crate::step::{Handle, Step};
use crate::sys::fdpass;
use crate::sys::process::clone3;
use plan::{Action, Error, Journal, Kind, Ns, Result, ResultExt, Site};
use report::{Outcome, Reporter};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus, waitid};
use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType, move_into_link_name_space, move_into_thread_name_spaces};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Where the container's standard streams go.
pub enum Io {
    /// The container's ends; the caller keeps the others. The child gets copies, these are closed.
    Pipes { stdin: OwnedFd, stdout: OwnedFd, stderr: OwnedFd },
    /// A terminal that the child opens; [`Running::tty`] is its other end.
    Tty,
}

/// A container whose first process exists but whose program does not run yet. Dropping it undoes
/// everything.
pub struct Starting {
    pub pid: i32,
    pub pidfd: OwnedFd,
    go: OwnedFd,
    report: OwnedFd,
    terminal: Option<OwnedFd>,
    /// Of v1 groups, which are closed again when nobody waits for it.
    doors: Vec<OwnedFd>,
    /// Limits that this kernel has no file for, in words.
    pub lacking: Vec<String>,
    /// The network namespace, if it has one of its own.
    netns: Option<OwnedFd>,
    /// What holds its mounts, which are its own unless it joined a container. As long as this is open, the end
    /// of the last process does not have to take them down, and whoever waits for that need not wait
    /// for them.
    pub mounts: Option<OwnedFd>,
    /// The index of the plan's last step, and its words.
    exec_step: (usize, String),
    undo: Undo,
}

/// A process that is on its way into a container while nobody waits for it.
pub struct Launched {
    pub pid: i32,
    pub pidfd: OwnedFd,
    report: OwnedFd,
}

impl Launched {
    /// Why it never became the program, asked after its end; `None`: it did.
    pub fn failure(self) -> Option<Error> {
        match report::receive(self.report, &mut Journal::silent()) {
            Ok(Outcome::Executed) => None,
            Ok(Outcome::Failed(e)) | Err(e) => Some(e),
            Ok(Outcome::Lost) => Some(Error::system("the process died while it was being set up")),
        }
    }
}

/// The user's program runs.
#[derive(Debug)]
pub struct Running {
    pub pid: i32,
    pub pidfd: OwnedFd,
    /// The monitor's end of the terminal.
    pub tty: Option<OwnedFd>,
}

/// What a start leaves on the host; dropping it takes that back, [`Undo::keep`] does not.
struct Undo {
    /// Our own child that nobody has waited for, so the pid cannot be somebody else's.
    child: Option<Pid>,
    /// None for a joined process (`rrun exec`): the group is the container's.
    cgroup: Option<(PathBuf, HostFacts)>,
}

impl Undo {
    fn run(&mut self) -> Result<()> {
        if let Some(pid) = self.child.take() {
            // Gone already is fine; waiting makes the cgroup empty.
            let _ = rustix::process::kill_process(pid, Signal::KILL);
            let _ = wait(pid);
        }
        match self.cgroup.take() {
            Some((path, facts)) => cgroup::remove(&path, &facts),
            None => Ok(()),
        }
    }

    /// Undoes, and attaches what went wrong in that to the error that caused it.
    fn after(mut self, error: Error) -> Error {
        match self.run() {
            Ok(()) => error,
            Err(e) => error.with_note(e.to_string()),
        }
    }

    fn keep(mut self) {
        self.child = None;
        self.cgroup = None;
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        // Whoever wants to hear of a failure calls `after` or `run`.
        let _ = self.run();
    }
}

/// Makes the cgroup and the first process. The caller must be single-threaded. A network namespace of its own is
/// `netns`, if that was made ahead.
///
/// On an error nothing is left behind, which is also what happens if the result is dropped.
pub fn start(
    spec: &RunSpec,
    facts: &HostFacts,
    plan: &Plan,
    io: Io,
    netns: Option<OwnedFd>,
    journal: &mut Journal,
) -> Result<Starting> {
    let filtered = plan.steps.iter().any(|s| matches!(s, Step::FilterSystemCalls { .. }));
    let bounding = plan.steps.iter().find_map(|s| match s {
        Step::DropCapabilities { caps } => Some(caps.bounding.as_slice()),
        _ => None,
    });
    let filter = match filtered {
        true => crate::seccomp::compile(&spec.seccomp, bounding.unwrap_or_default())?,
        false => Vec::new(),
    };
    let launch = Launch { plan, process: &spec.process, filter: &filter, target: None, netns, fallback: None };
    let clone = plan.steps.iter().position(|s| matches!(s, Step::CloneNamespaces { .. })).unwrap_or(0);
    let path = &spec.cgroup.path;
    let [v2, v1] = [facts.cgroup.v2_part(), facts.cgroup.v1_part()];
    let facts_of = |cgroup: &Layout| HostFacts { cgroup: cgroup.clone(), ..facts.clone() };
    let undo = Undo { child: None, cgroup: Some((path.clone(), facts_of(&v2))) };
    let mut lacking = match create(plan, 0..clone, &v2, journal) {
        Ok(lacking) => lacking,
        // A group that was there before is not ours to remove.
        Err(e) if e.kind == Kind::Conflict => {
            undo.keep();
            return Err(e);
        }
        Err(e) => return Err(undo.after(e)),
    };
    let mut starting = launch.run(io, undo, journal)?;
    // From here on the child works on its root, on the other CPU if there is one.
    let created = create(plan, clone + 1..plan.steps.len(), &v1, journal);
    if created.as_ref().map_or_else(|e| e.kind != Kind::Conflict, |_| true) {
        starting.undo.cgroup = Some((path.clone(), facts.clone()));
    }
    match created {
        Ok(more) => lacking.extend(more),
        Err(e) => return Err(starting.undo.after(e)),
    }
    if plan.steps.contains(&Step::AwaitCgroup) {
        let dirs = plan.steps.iter().find_map(|s| match s {
            Step::JoinCgroup { dirs } => Some(dirs.as_slice()),
            _ => None,
        });
        // It can open them itself, and has the words if it cannot.
        let doors = cgroup::open_doors(dirs.filter(|d| d.len() <= fdpass::MAX_FDS).unwrap_or_default());
        starting.doors = doors.unwrap_or_default();
        starting.say(init::CGROUP_READY, &starting.doors);
    }
    Ok(Starting { lacking, ..starting })
}

/// Carries out the host's steps that begin at `range`, with a part of its cgroup
/// hierarchies. Returns what the kernel has no file for, in words.
fn create(plan: &Plan, range: std::ops::Range<usize>, part: &Layout, journal: &mut Journal) -> Result<Vec<String>> {
    let mut lacking = Vec::new();
    for (index, step) in plan.steps.iter().enumerate().take(range.end).skip(range.start) {
        let begin = journal.now();
        match step {
            Step::MountVolume(_) => continue,
            Step::LoadAppArmor { parser, stale } => crate::apparmor::load_default(parser, stale),
            Step::CreateCgroup { path, settings, .. } => {
                cgroup::create(path, part, settings).map(|words| lacking.extend(words))
            }
            Step::FilterDevices { dir, rules, .. } => cgroup::filter_devices(dir, rules),
            _ => break,
        }
        .map_err(|e| e.with_step(step.line()))?;
        journal.mark(index, begin);
    }
    Ok(lacking)
}

/// Finds another cgroup in place of the one that is given.
pub(crate) type Seat<'a> = &'a dyn Fn(&Path) -> Option<PathBuf>;

/// The child's part of a plan, ready to go.
pub(crate) struct Launch<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) process: &'a Process,
    pub(crate) filter: &'a [libc::sock_filter],
    /// The process to join.
    pub(crate) target: Option<OwnedFd>,
    /// In place of a new network namespace.
    pub(crate) netns: Option<OwnedFd>,
    /// The cgroup to be born in if the plan's takes no processes.
    pub(crate) fallback: Option<Seat<'a>>,
}

impl Launch<'_> {
    /// For `rrun exec`: nothing on the host to undo but the process.
    pub(crate) fn joined(self, io: Io, journal: &mut Journal) -> Result<Starting> {
        self.run(io, Undo { child: None, cgroup: None }, journal)
    }

    fn run(self, io: Io, mut undo: Undo, journal: &mut Journal) -> Result<Starting> {
        match self.clone(io, journal) {
            Ok(mut starting) => {
                undo.child = Pid::from_raw(starting.pid);
                starting.undo = undo;
                Ok(starting)
            }
            Err(e) => Err(undo.after(e)),
        }
    }

    fn clone(self, io: Io, journal: &mut Journal) -> Result<Starting> {
        let steps = &self.plan.steps;
        let index = steps.iter().position(|s| matches!(s, Step::CloneNamespaces { .. }));
        let (Some(index), Some(last)) = (index, steps.last()) else {
            return Err(Error::system("a plan without a process"));
        };
        let Step::CloneNamespaces { kinds, cgroup } = &steps[index] else {
            return Err(Error::system("a plan without a process"));
        };
        let begin = journal.now();
        let pids = match index.checked_sub(1).map(|i| &steps[i]) {
            Some(step @ Step::JoinPidNamespace { handle }) => {
                let borrowed = Away::in_pids(handle, self.target.as_ref()).map_err(|e| e.with_step(step.line()))?;
                journal.mark(index - 1, begin);
                Some(borrowed)
            }
            _ => None,
        };
        let first = index + steps[index..].iter().take_while(|s| s.site() == Site::Host).count();
        let begin = journal.now();
        let group = cgroup.as_deref().map(cgroup::open_unified).transpose()?;
        let (go_child, go) = fdpass::socketpair().map_err(|e| Error::os("make a socket pair", e.raw_os_error()))?;
        let (report, report_write) = pipe()?;
        let (stdio, terminal) = match io {
            Io::Pipes { stdin, stdout, stderr } => (Stdio::Pipes([stdin, stdout, stderr]), None),
            Io::Tty => {
                let (ours, theirs) =
                    fdpass::socketpair().map_err(|e| Error::os("make a socket pair", e.raw_os_error()))?;
                (Stdio::Terminal(theirs), Some(ours))
            }
        };
        let reporter = Reporter::new(report_write, journal);
        let child = Child {
            steps,
            first,
            process: self.process,
            filter: self.filter,
            stdio,
            go: go_child,
            target: self.target,
        };
        let ahead = self.netns.filter(|_| kinds.contains(&Ns::Net));
        let made = kinds.iter().filter(|ns| ahead.is_none() || **ns != Ns::Net);
        let flags = made.fold(0, |bits, ns| bits | clone_flag(*ns));
        let net = ahead.as_ref().map(Away::in_net).transpose().map_err(|e| e.with_step(steps[index].line()))?;
        let (mut parts, mut go) = (Some((child, reporter)), Some(go));
        let mut born_in = |group: &Option<OwnedFd>| {
            clone3(flags, group.as_ref().map(AsFd::as_fd), || {
                // While the child holds our end, it does not hear that we have been killed.
                drop(go.take());
                match parts.take() {
                    Some((child, reporter)) => init::run(child, reporter),
                    None => crate::sys::spawn::exit_now(1),
                }
            })
        };
        let mut cloned = born_in(&group);
        if let (Err(Errno::BUSY), Some(dir), Some(fallback)) = (&cloned, cgroup, self.fallback)
            && let Some(other) = fallback(dir)
        {
            cloned = born_in(&Some(cgroup::open_unified(&other)?));
        }
        let (pid, pidfd) = cloned.map_err(|e| clone_error(e, cgroup.as_deref()).with_step(steps[index].line()))?;
        drop((pids, net));
        let go = go.ok_or_else(|| Error::system("a start without a way to say go"))?;
        // The child's ends of the pipes: while we hold one, its report never ends.
        drop(parts);
        journal.mark(index, begin);
        let own = |ns, name| kinds.contains(&ns).then(|| namespace(pid, name)).transpose();
        let (netns, mounts) = match own(Ns::Net, "net").and_then(|net| Ok((net, own(Ns::Mount, "mnt")?))) {
            Ok(handles) => handles,
            Err(e) => {
                let child = Undo { child: Pid::from_raw(pid), cgroup: None };
                // Dead already? Then why is worth more than what we could not open.
                let why = match report::receive(report, journal) {
                    Ok(Outcome::Failed(why)) => why,
                    _ => e,
                };
                return Err(child.after(why));
            }
        };
        Ok(Starting {
            pid,
            pidfd,
            go,
            report,
            terminal,
            doors: Vec::new(),
            lacking: Vec::new(),
            netns,
            mounts,
            exec_step: (steps.len() - 1, last.line()),
            undo: Undo { child: None, cgroup: None },
        })
    }
}

/// A namespace of our child that nobody has waited for: the pid cannot be somebody else's.
fn namespace(pid: i32, name: &str) -> Result<OwnedFd> {
    let path = format!("/proc/{pid}/ns/{name}");
    rustix::fs::open(&*path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).doing(|| format!("open {path}"))
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|e| Error::os("make a pipe", e.raw_os_error()))
}

fn clone_flag(ns: Ns) -> u64 {
    let flag = match ns {
        Ns::Mount => libc::CLONE_NEWNS,
        Ns::Pid => libc::CLONE_NEWPID,
        Ns::Net => libc::CLONE_NEWNET,
        Ns::Uts => libc::CLONE_NEWUTS,
        Ns::Ipc => libc::CLONE_NEWIPC,
        Ns::Cgroup => libc::CLONE_NEWCGROUP,
        Ns::User => libc::CLONE_NEWUSER,
        Ns::Time | Ns::Process => 0,
    };
    flag as u64
}

fn clone_error(e: Errno, cgroup: Option<&Path>) -> Error {
    let error = Error::os("clone the container's first process", e.raw_os_error());
    match e {
        Errno::PERM => {
            error.with_hint("making namespaces takes root (CAP_SYS_ADMIN), and a caller that is not confined itself")
        }
        Errno::NOSPC => error.with_hint("a limit in /proc/sys/user/max_*_namespaces is reached"),
        Errno::AGAIN => {
            error.with_hint("a limit on processes is reached: pids.max of a cgroup above, ulimit -u, kernel.pid_max")
        }
        Errno::NOSYS => error.with_hint("clone3(2) is missing: Linux 5.3, or a filter around this shell refuses it"),
        Errno::INVAL => error.with_hint("the kernel lacks a kind of namespace: see /proc/self/ns"),
        Errno::BUSY | Errno::OPNOTSUPP => match cgroup {
            Some(dir) => error.with_hint(format!("cgroup {} takes no processes: see its cgroup.type", dir.display())),
            None => error,
        },
        _ => error,
    }
}

/// While it lives, children are born in another pid or network namespace.
struct Away {
    own: OwnedFd,
    kind: LinkNameSpaceType,
}

impl Away {
    fn open(kind: &str) -> Result<OwnedFd> {
        // Not /proc/self, which would be the main thread.
        rustix::fs::open(format!("/proc/thread-self/ns/{kind}"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .doing(|| format!("open our own {kind} namespace"))
    }

    fn in_pids(handle: &Handle, target: Option<&OwnedFd>) -> Result<Away> {
        let own = Away::open("pid")?;
        match (handle, target) {
            (Handle::Path(path), _) => init::join_path(path)?,
            (Handle::Process(_), Some(pidfd)) => {
                move_into_thread_name_spaces(pidfd.as_fd(), ThreadNameSpaceType::PROCESS_ID).map_err(|e| {
                    let error = Error::os("join the container's pid namespace", e.raw_os_error());
                    match e {
                        Errno::SRCH => error.with_hint("the container has ended"),
                        _ => error,
                    }
                })?;
            }
            (Handle::Process(_), None) => return Err(Error::system("no process to join")),
        }
        Ok(Away { own, kind: LinkNameSpaceType::ProcessID })
    }

    fn in_net(netns: &OwnedFd) -> Result<Away> {
        let (own, kind) = (Away::open("net")?, LinkNameSpaceType::Network);
        move_into_link_name_space(netns.as_fd(), Some(kind)).doing(|| "enter the container's network namespace")?;
        Ok(Away { own, kind })
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        // Of pid namespaces our own is an ancestor of the other; to a network namespace whose descriptor it holds, a
        // process may always return. Staying would make all that follows happen in the wrong one.
        move_into_link_name_space(self.own.as_fd(), Some(self.kind)).expect("there is always a way back");
    }
}

impl Starting {
    /// A handle of the container's network namespace. Only if it has one of its own.
    pub fn netns(&self) -> Result<BorrowedFd<'_>> {
        let shared = || Error::system("the container shares its network namespace");
        self.netns.as_ref().map(AsFd::as_fd).ok_or_else(shared)
    }

    /// A child that failed has closed its end already; why, its report says.
    fn say(&self, what: u8, doors: &[OwnedFd]) {
        let doors: Vec<BorrowedFd<'_>> = doors.iter().map(AsFd::as_fd).collect();
        let _ = fdpass::send(&self.go, &[what], &doors);
    }

    /// The host's side is ready: waits until the program runs, doing `meanwhile` what it need not wait for. On an
    /// error everything is undone.
    pub fn go(self, journal: &mut Journal, meanwhile: impl FnOnce() -> Result<()>) -> Result<Running> {
        self.say(init::NETWORK_READY, &[]);
        if let Err(e) = meanwhile() {
            return Err(self.undo.after(e));
        }
        let Starting { pid, pidfd, go: _go, report, terminal, exec_step, undo, .. } = self;
        let done = match report::receive(report, journal) {
            Ok(Outcome::Executed) => receive_terminal(terminal),
            Ok(Outcome::Failed(e)) | Err(e) => Err(e),
            Ok(Outcome::Lost) => Err(death(&undo).with_step(exec_step.1)),
        };
        match done {
            Ok(tty) => {
                undo.keep();
                let begin = journal.marks().last().map_or(0, |m| m.end_us);
                journal.mark(exec_step.0, begin);
                Ok(Running { pid, pidfd, tty })
            }
            Err(e) => Err(undo.after(e)),
        }
    }

    /// Leaves the process to itself: from here on it is the caller's to watch.
    pub(crate) fn launched(self) -> Launched {
        let Starting { pid, pidfd, report, undo, .. } = self;
        undo.keep();
        Launched { pid, pidfd, report }
    }

    /// Ends the child and removes what was made.
    pub fn abort(mut self) -> Result<()> {
        self.undo.run()
    }
}

fn receive_terminal(socket: Option<OwnedFd>) -> Result<Option<OwnedFd>> {
    let Some(socket) = socket else { return Ok(None) };
    let mut byte = [0u8; 1];
    let (_, mut fds) = fdpass::recv(&socket, &mut byte)
        .map_err(|e| Error::os("receive the container's terminal", e.raw_os_error()))?;
    match fds.pop() {
        Some(fd) => Ok(Some(fd)),
        None => Err(Error::system("the container sent no terminal")),
    }
}

/// Why a child ended that did not say.
fn death(undo: &Undo) -> Error {
    let error = Error::system("the container's first process died while it was being set up");
    let oom = undo.cgroup.as_ref().map_or(0, |(path, facts)| cgroup::oom_kills(path, facts));
    if oom > 0 {
        return error.with_cause("killed by the kernel for want of memory").with_hint("raise the memory limit (-m)");
    }
    match undo.child.and_then(look_at).and_then(|s| s.terminating_signal()) {
        Some(signal) => error.with_cause(format!("killed by signal {signal}")),
        None => error,
    }
}

fn wait(child: Pid) -> Option<WaitIdStatus> {
    rustix::io::retry_on_intr(|| waitid(WaitId::Pid(child), WaitIdOptions::EXITED)).ok().flatten()
}

/// As [`wait`], leaving the child to be waited for again.
fn look_at(child: Pid) -> Option<WaitIdStatus> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    rustix::io::retry_on_intr(|| waitid(WaitId::Pid(child), options)).ok().flatten()
}
