//! The child's side: from the first instruction after clone3 to the user's program.
//!
//! One thread, no logging, no way back: it walks its part of the plan, tells the parent through a
//! close-on-exec pipe how long each step took or which one failed and why, and ends by exec or
//! `_exit`. It holds the host's files until the very end, so it sheds what could be traced first.

mod limits;
mod program;
mod reaper;
mod stdio;

use crate::apparmor;
use crate::cgroup;
use crate::exec::report::Reporter;
use crate::rootfs::{self, Rootfs};
use crate::spec::{Process, User};
use crate::step::{Handle, Step};
use crate::sys::fdpass;
use crate::sys::spawn::exit_now;
use crate::sys::{process as sys_process, security};
use crate::sysctl;
use crate::user::Ids;
use plan::{Action, Error, Ns, Result};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{ThreadNameSpaceType, UnshareFlags, move_into_link_name_space, move_into_thread_name_spaces};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// How the child's standard streams reach the monitor.
pub(crate) enum Stdio {
    /// stdin, stdout, stderr.
    Pipes([OwnedFd; 3]),
    /// The socket that the terminal's other end is sent over.
    Terminal(OwnedFd),
}

/// Everything the child works with, copied by the clone.
pub(crate) struct Child<'a> {
    pub(crate) steps: &'a [Step],
    /// The index of its first step.
    pub(crate) first: usize,
    pub(crate) process: &'a Process,
    /// The compiled system call filter, if the plan has one.
    pub(crate) filter: &'a [libc::sock_filter],
    pub(crate) stdio: Stdio,
    /// Here the host says when it is ready: one byte each for the cgroup, if that is awaited, with the doors of its
    /// v1 groups, and the network.
    pub(crate) go: OwnedFd,
    /// The process whose namespaces to join.
    pub(crate) target: Option<OwnedFd>,
}

pub(crate) const CGROUP_READY: u8 = b'c';
pub(crate) const NETWORK_READY: u8 = b'n';

/// Walks the steps; reports; never returns.
pub(crate) fn run(child: Child<'_>, mut reporter: Reporter) -> ! {
    let mut state =
        State { child, rootfs: Rootfs::default(), ids: Ids::default(), console: None, proc: None, doors: Vec::new() };
    let steps = state.child.steps;
    for (index, step) in steps.iter().enumerate().skip(state.child.first) {
        let begin = reporter.now();
        let done = match step {
            Step::Exec { argv, umask } => {
                reporter.send_marks();
                Err(state.execute(argv, *umask))
            }
            Step::StartReaper => reaper::stay_behind(),
            step => state.apply(step),
        };
        match done {
            Ok(()) => reporter.mark(index, begin),
            Err(e) => {
                reporter.send_error(e.with_step(step.line()));
                exit_now(1);
            }
        }
    }
    // A plan ends with Exec, which does not come back successful.
    exit_now(1)
}

struct State<'a> {
    child: Child<'a>,
    rootfs: Rootfs,
    ids: Ids,
    /// The host's procfs, held while AppArmor needs it.
    proc: Option<OwnedFd>,
    /// The container's side of its terminal.
    console: Option<OwnedFd>,
    /// Of the v1 groups to enter. They close themselves at exec.
    doors: Vec<OwnedFd>,
}

impl State<'_> {
    fn apply(&mut self, step: &Step) -> Result<()> {
        if self.rootfs.apply(step)? {
            return Ok(());
        }
        match step {
            Step::ShedInheritance => {
                if self.child.steps.iter().any(|s| matches!(s, Step::EnterAppArmor { .. })) {
                    self.proc = Some(apparmor::open_proc()?);
                }
                shed_inheritance()
            }
            Step::JoinCgroup { dirs } => cgroup::enter(dirs, &self.doors),
            Step::JoinNamespaces { handles } => self.join(handles),
            Step::UnshareCgroup => sys_process::unshare(UnshareFlags::NEWCGROUP)
                .map_err(|e| Error::os("make a cgroup namespace", e.raw_os_error())),
            Step::SetOomScore { value } => set_oom_score(*value),
            Step::IsolateMounts => rootfs::isolate(),
            Step::PivotRoot => {
                self.rootfs.is_proc_uncovered()?;
                rootfs::enter(self.rootfs.tree()?)
            }
            Step::ConnectStdio => stdio::connect(&self.child.stdio),
            Step::OpenConsole { size, console } => {
                self.console = Some(stdio::open_console(&self.child.stdio, *size, *console)?);
                Ok(())
            }
            Step::WorkDir { path, create } => rootfs::working_directory(path, *create),
            Step::ReadOnlyRoot => rootfs::readonly_root(),
            Step::SetHostname { hostname, domainname } => set_hostname(hostname.as_deref(), domainname.as_deref()),
            Step::AwaitCgroup => self.await_host(CGROUP_READY),
            Step::AwaitNetwork => self.await_host(NETWORK_READY),
            Step::SetSysctls { values } => set_sysctls(&self.rootfs.sysctls()?, values),
            Step::SetRlimits { limits } => limits::set(limits),
            Step::LookUpUser { user } => {
                self.ids = crate::user::resolve(user)?;
                stdio::give_to(self.ids.uid)
            }
            Step::NoNewPrivileges => security::no_new_privileges().map_err(|e| Error::io("set no_new_privs", &e)),
            Step::FilterSystemCalls { .. } => security::install_seccomp(self.child.filter).map_err(|e| {
                Error::io("install the system call filter", &e)
                    .with_hint("the kernel needs CONFIG_SECCOMP_FILTER; --security-opt seccomp=unconfined goes without")
            }),
            Step::DropCapabilities { caps } => {
                let masks = crate::caps::Masks::of(caps);
                // Docker's users other than root hold nothing; an OCI spec says itself what its user holds.
                let masks = match self.child.process.user {
                    User::Named { .. } => masks.for_uid(self.ids.uid),
                    User::Ids { .. } => masks,
                };
                security::assume(&self.ids, &masks).map_err(|e| {
                    Error::io(format!("become uid {}, gid {}", self.ids.uid, self.ids.gid), &e)
                        .with_hint("rrun must run as root, not confined itself")
                })
            }
            Step::CloseDescriptors => {
                security::cloexec_from(3).map_err(|e| Error::io("close open descriptors at exec", &e))
            }
            Step::EnterAppArmor { profile, now } => match &self.proc {
                Some(proc) => apparmor::confine(proc, profile, *now),
                None => Err(Error::system("no procfs to ask for a profile")),
            },
            other => Err(Error::system(format!("step out of place: {}", other.line()))),
        }
    }

    fn join(&self, handles: &[(Ns, Handle)]) -> Result<()> {
        let mut of_process = ThreadNameSpaceType::empty();
        for (ns, handle) in handles {
            match handle {
                Handle::Path(path) => join_path(path)?,
                Handle::Process(_) => of_process |= thread_namespace(*ns),
            }
        }
        match &self.child.target {
            Some(pidfd) if !of_process.is_empty() => move_into_thread_name_spaces(pidfd.as_fd(), of_process)
                .map_err(|e| Error::os("join the container's namespaces", e.raw_os_error())),
            _ => Ok(()),
        }
    }

    fn await_host(&mut self, what: u8) -> Result<()> {
        let mut byte = [0u8; 1];
        let (n, fds) =
            fdpass::recv(&self.child.go, &mut byte).map_err(|e| Error::os("wait for the monitor", e.raw_os_error()))?;
        self.doors.extend(fds);
        match n {
            1 if byte[0] == what => Ok(()),
            _ => Err(Error::system("the monitor ended before the container was ready")),
        }
    }

    fn execute(&self, argv: &[String], umask: u32) -> Error {
        rustix::process::umask(Mode::from(umask));
        program::execute(argv, &self.child.process.env, self.ids.home.as_deref())
    }
}

fn thread_namespace(ns: Ns) -> ThreadNameSpaceType {
    match ns {
        Ns::Mount => ThreadNameSpaceType::MOUNT,
        Ns::Pid => ThreadNameSpaceType::PROCESS_ID,
        Ns::Net => ThreadNameSpaceType::NETWORK,
        Ns::Uts => ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME,
        Ns::Ipc => ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION,
        Ns::Cgroup => ThreadNameSpaceType::CONTROL_GROUP,
        Ns::User => ThreadNameSpaceType::USER,
        Ns::Time => ThreadNameSpaceType::TIME,
        Ns::Process => ThreadNameSpaceType::empty(),
    }
}

/// Joins the one namespace that `path` names.
pub(crate) fn join_path(path: &Path) -> Result<()> {
    let failed = |e: Errno| {
        let error = Error::os(format!("join namespace {}", path.display()), e.raw_os_error());
        match e {
            Errno::NOENT => error.with_hint("the container that it belongs to is not running"),
            Errno::INVAL => error.with_hint("that file is no namespace handle (/proc/<pid>/ns/*)"),
            _ => error,
        }
    };
    let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    move_into_link_name_space(fd.as_fd(), None).map_err(failed)
}

fn shed_inheritance() -> Result<()> {
    security::set_dumpable(false).map_err(|e| Error::io("forbid tracing", &e))?;
    sys_process::reset_signals().map_err(|e| Error::os("reset signals", e.raw_os_error()))?;
    rustix::process::setsid().map_err(|e| Error::os("start a session", e.raw_os_error()))?;
    security::new_session_keyring().map_err(|e| {
        Error::io("join a new session keyring", &e).with_hint("the key quota may be used up: see /proc/key-users")
    })?;
    // Modes of nodes and directories made from here on are meant exactly.
    rustix::process::umask(Mode::empty());
    Ok(())
}

/// Lowering the score takes CAP_SYS_RESOURCE; raising it does not.
fn set_oom_score(value: i32) -> Result<()> {
    std::fs::write("/proc/self/oom_score_adj", value.to_string()).map_err(|e| {
        let error = Error::io(format!("set oom_score_adj to {value}"), &e);
        match e.raw_os_error() {
            Some(libc::EACCES | libc::EPERM) => {
                error.with_hint("lowering it takes CAP_SYS_RESOURCE, which the caller lacks: use a higher value")
            }
            _ => error,
        }
    })
}

fn set_hostname(hostname: Option<&str>, domainname: Option<&str>) -> Result<()> {
    if let Some(name) = hostname {
        rustix::system::sethostname(name.as_bytes())
            .map_err(|e| Error::os(format!("set the host name to {name}"), e.raw_os_error()))?;
    }
    if let Some(name) = domainname {
        rustix::system::setdomainname(name.as_bytes())
            .map_err(|e| Error::os(format!("set the domain name to {name}"), e.raw_os_error()))?;
    }
    Ok(())
}

fn set_sysctls(proc_sys: &OwnedFd, values: &[(String, String)]) -> Result<()> {
    let tree = rootfs::tree::Tree::new(
        rustix::io::fcntl_dupfd_cloexec(proc_sys, 3).map_err(|e| Error::os("open /proc/sys", e.raw_os_error()))?,
    );
    for (key, value) in values {
        let failed = |e: Errno| {
            let error = Error::os(format!("set sysctl {key}={value}"), e.raw_os_error());
            match e {
                Errno::NOENT => error.with_hint("this kernel has no such setting, or not per namespace"),
                Errno::INVAL => error.with_hint("the kernel refuses the value"),
                _ => error,
            }
        };
        let file = sysctl::path(key)
            .ok_or(Errno::NOENT)
            .and_then(|path| tree.open_plain(&path, OFlags::WRONLY))
            .map_err(failed)?;
        rustix::io::write(&file, value.as_bytes()).map_err(failed)?;
    }
    Ok(())
}

/// A directory opened by path in the current root.
pub(crate) fn open_here(path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat2(CWD, path, flags | OFlags::CLOEXEC, Mode::empty(), rustix::fs::ResolveFlags::NO_MAGICLINKS)
}
