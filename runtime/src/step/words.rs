//! What each step says of itself. The text of `--explain` and of the book of steps.

use super::{Change, Handle, Profile, Step};
use crate::apparmor;
use crate::planner::options;
use crate::spec::User;
use plan::{Action, HostThing, Ns, Site, Undo};
use std::path::Path;

impl Action for Step {
    fn line(&self) -> String {
        match self {
            Step::MountVolume(v) => {
                let kind = if v.kind.is_empty() { String::new() } else { format!(" ({})", v.kind) };
                let options = parenthesis(&v.shown_options());
                format!("mount {}{kind} on {}{options}", v.device, v.target.display())
            }
            Step::LoadAppArmor { .. } => format!("load AppArmor profile {}", apparmor::DEFAULT),
            Step::CreateCgroup { path, settings, dirs } => {
                let limits: Vec<String> = settings.iter().filter_map(limit_words).collect();
                let limits = if limits.is_empty() { "no limits".into() } else { limits.join(", ") };
                let hierarchies =
                    if dirs.len() > 1 { format!(" in {} hierarchies", dirs.len()) } else { String::new() };
                format!("create cgroup {}{hierarchies} ({limits})", path.display())
            }
            Step::FilterDevices { rules, .. } => {
                format!("let the cgroup use {} kinds of devices, no others", rules.len())
            }
            Step::JoinPidNamespace { handle } => format!("aim at the pid namespace of {}", handle.words()),
            Step::CloneNamespaces { kinds, .. } => {
                let names: Vec<&str> = kinds.iter().map(|k| ns_name(*k)).collect();
                match names.len() {
                    0 => "clone a process".into(),
                    1 => format!("clone a process into a new {} namespace", names[0]),
                    _ => format!("clone a process into new namespaces: {}", names.join(", ")),
                }
            }
            Step::ShedInheritance => "shed what a child inherits: session, signals, keys".into(),
            Step::AwaitCgroup => "wait until the host has made the cgroup".into(),
            Step::JoinCgroup { dirs } => format!("join the cgroup in {} hierarchies", dirs.len()),
            Step::JoinNamespaces { handles } => {
                let words: Vec<String> = match handles.split_first() {
                    Some(((_, first), rest)) if rest.iter().all(|(_, h)| h == first) => {
                        let names: Vec<&str> = handles.iter().map(|(ns, _)| ns_name(*ns)).collect();
                        vec![format!("{} of {}", names.join(", "), first.words())]
                    }
                    _ => handles.iter().map(|(ns, h)| format!("{} of {}", ns_name(*ns), h.words())).collect(),
                };
                format!("join namespaces: {}", words.join("; "))
            }
            Step::UnshareCgroup => "make the cgroup look like the root of its hierarchies".into(),
            Step::SetOomScore { value } => format!("set the out-of-memory score adjustment to {value}"),
            Step::HoldSources { sources } => {
                let paths: Vec<&Path> = sources.iter().map(|(path, _)| path.as_path()).collect();
                format!("take hold of {}", list(&paths))
            }
            Step::IsolateMounts => "cut mount propagation with the host".into(),
            Step::MountOverlay { lower, volatile, .. } => {
                let sync = if *volatile { ", never synced" } else { "" };
                format!("mount the root: overlay of {} and a writable one{sync}", count(lower.len(), "layer"))
            }
            Step::BindRoot { path } => format!("take {} as the root", path.display()),
            Step::Mount { kind, target, attributes, data, .. } => {
                let options = options::words(*attributes, data);
                format!("mount {kind} on {}{}", target.display(), parenthesis(&options))
            }
            Step::BindMount { source, target, change, .. } => {
                format!("bind {} to {}{}", source.display(), target.display(), parenthesis(&change_words(change)))
            }
            Step::MountCgroups { target, binds, .. } => {
                format!("show the container its own cgroup on {} ({} hierarchies)", target.display(), binds.len())
            }
            Step::MakeDevices { standard, extra } => {
                let extra: Vec<&Path> = extra.iter().map(|d| d.path.as_path()).collect();
                match (standard, extra.is_empty()) {
                    (true, true) => "make the standard device nodes in /dev".into(),
                    (true, false) => format!("make the standard device nodes in /dev, and {}", list(&extra)),
                    (false, _) => format!("make device nodes {}", list(&extra)),
                }
            }
            Step::Mask { paths } => format!("mask {}", list(paths)),
            Step::ReadOnlyPaths { paths } => format!("make read-only {}", list(paths)),
            Step::PivotRoot => "make it the root directory, and let go of the host's".into(),
            Step::ConnectStdio => "connect stdin, stdout and stderr to the monitor's pipes".into(),
            Step::OpenConsole { size, .. } => match size {
                Some((rows, columns)) => format!("open a terminal of {columns}x{rows} in the container's devpts"),
                None => "open a terminal in the container's devpts".into(),
            },
            Step::WorkDir { path, .. } => format!("change to {}", path.display()),
            Step::ReadOnlyRoot => "make the root read-only".into(),
            Step::SetHostname { hostname, domainname } => match (hostname, domainname) {
                (Some(h), Some(d)) => format!("set the host name to {h}, the domain name to {d}"),
                (Some(h), None) => format!("set the host name to {h}"),
                (None, Some(d)) => format!("set the domain name to {d}"),
                (None, None) => "leave the host name".into(),
            },
            Step::AwaitNetwork => "wait until the host's side is ready".into(),
            Step::SetSysctls { values } => {
                let words: Vec<String> = values.iter().map(|(k, v)| format!("{k}={v}")).collect();
                format!("set {}", words.join(", "))
            }
            Step::SetRlimits { limits } => {
                let words: Vec<String> = limits
                    .iter()
                    .map(|l| format!("{} {}:{}", l.name.to_lowercase(), limit_number(l.soft), limit_number(l.hard)))
                    .collect();
                format!("set resource limits {}", words.join(", "))
            }
            Step::LookUpUser { user } => match user {
                User::Named { spec, .. } if spec.is_empty() => "look up root in the image's files".into(),
                User::Named { spec, .. } => format!("look up user {spec} in the image's files"),
                User::Ids { uid, gid, .. } => format!("prepare for uid {uid}, gid {gid}"),
            },
            Step::NoNewPrivileges => "let no program gain privileges any more".into(),
            Step::FilterSystemCalls { profile: Profile::Default } => "filter system calls (default profile)".into(),
            Step::FilterSystemCalls { profile: Profile::Custom } => "filter system calls (given profile)".into(),
            Step::DropCapabilities { caps } => match caps.bounding.len() {
                0 => "become the user, without any capability".into(),
                n => format!("become the user, with no more than {}", count(n, "capability")),
            },
            Step::CloseDescriptors => "let no open file through to the program".into(),
            Step::EnterAppArmor { profile, now } => {
                let when = if *now { "" } else { " from exec on" };
                format!("run under AppArmor profile {profile}{when}")
            }
            Step::StartReaper => "fork: stay behind as init, the program becomes pid 2".into(),
            Step::Exec { argv, .. } => {
                let more = if argv.len() > 1 { format!(" ({} arguments)", argv.len() - 1) } else { String::new() };
                format!("execute {}{more}", argv.first().map_or("", String::as_str))
            }
        }
    }

    fn why(&self) -> &'static str {
        match self {
            Step::MountVolume(_) => {
                "A volume with options is a file system of its own. The first container that uses the volume mounts it \
                 on the volume's directory, all share it, and the end of the last one unmounts it."
            }
            Step::LoadAppArmor { .. } => {
                "The kernel knows no profile after a boot, and takes only compiled ones. This happens once, before the \
                 first container of a boot or of a new rrun; the profile then stays, like a rule of the firewall."
            }
            Step::CreateCgroup { .. } => {
                "A cgroup counts and limits what a set of processes uses. Limits are files: they are written before \
                 the program runs, so that it is never unlimited."
            }
            Step::FilterDevices { .. } => {
                "In cgroup v2 device access has no files: the kernel asks a small BPF program, attached to the \
                 cgroup, about every open and mknod. Without it, root in the container could read the host's disks."
            }
            Step::JoinPidNamespace { .. } => {
                "A process never changes its own pid namespace; it can only choose the one its children are born in."
            }
            Step::CloneNamespaces { .. } => {
                "Namespaces give a process its own view: of mounts, process ids, host name, message queues and \
                 network. One clone3 call makes process and namespaces together, and where cgroup v2 is mounted the \
                 process is born in its group: moving it there later would wait milliseconds."
            }
            Step::ShedInheritance => {
                "A child inherits ignored signals, the caller's terminal session and the caller's keyring, none of \
                 which is namespaced. Until exec it must not be traceable either: it still holds the host's files."
            }
            Step::AwaitCgroup => {
                "In cgroup v1 a directory in every hierarchy is made while the child is at its root: that takes both as \
                 long, and they have two processors."
            }
            Step::JoinCgroup { .. } => {
                "In cgroup v1 every controller is a hierarchy of its own. The child writes 0, meaning itself, into \
                 each tasks file: for a process with one thread that needs no grace period, unlike cgroup.procs."
            }
            Step::JoinNamespaces { .. } => {
                "Sharing a namespace means entering the one that another process already has. A container that shares \
                 a network reaches the other on 127.0.0.1."
            }
            Step::UnshareCgroup => {
                "Inside, /proc/self/cgroup shows / instead of the host's path. It comes after joining, since the \
                 namespace's root is the group at that moment."
            }
            Step::SetOomScore { .. } => {
                "When memory runs out, the kernel kills the process with the highest score first."
            }
            Step::HoldSources { .. } => {
                "What will be bound into the container is picked up, as detached copies of the host's mounts, while \
                 the host's tree is still whole and the copies can stay its peers if sharing is asked for."
            }
            Step::IsolateMounts => {
                "Most systems share mounts between namespaces by default: a mount made here would appear on the host. \
                 This comes before the first mount."
            }
            Step::MountOverlay { .. } => {
                "The image's layers are stacked read-only, in place; what the container writes goes to a directory of \
                 its own on top. Nothing is copied, so the hundredth container of an image starts like the first."
            }
            Step::BindRoot { .. } => "pivot_root wants a mount point, and a bind mount makes one of any directory.",
            Step::Mount { kind, .. } => match kind.as_str() {
                "proc" => {
                    "procfs shows the pid namespace of whoever mounts it: the container sees only its own processes."
                }
                "sysfs" => {
                    "sysfs shows the network namespace of whoever mounts it. Read-only, since most of its knobs belong \
                     to the whole machine."
                }
                "devpts" => {
                    "A separate instance: the container's terminals are numbered from 0 and the host's are not in it."
                }
                "mqueue" => "POSIX message queues belong to the IPC namespace; this makes them visible as files.",
                "cgroup" | "cgroup2" => {
                    "Programs such as the JVM read their own limits here. Read-only: a container must not raise them."
                }
                _ => "A file system of the container's own, in memory and gone with it.",
            },
            Step::BindMount { .. } => {
                "A bind mount shows a file or directory in a second place. The target is resolved inside the new root \
                 by the kernel (openat2), so a symbolic link in the image cannot lead the mount outside."
            }
            Step::MountCgroups { .. } => {
                "The container sees only its own directory of each hierarchy, read-only: no other container's limits, \
                 and no release_agent, which runs programs on the host (CVE-2022-0492)."
            }
            Step::MakeDevices { .. } => {
                "/dev is an empty tmpfs so far. The nodes are made relative to its own descriptor, wherever the \
                 image's /dev may point (CVE-2026-47766)."
            }
            Step::Mask { .. } => {
                "These files tell about the host or other containers. /dev/null covers files, an empty tmpfs covers \
                 directories; the node is checked to be the real null device (CVE-2025-31133)."
            }
            Step::ReadOnlyPaths { .. } => {
                "Writing here would change the host's kernel. Each is bound onto itself read-only, keeping nosuid, \
                 nodev and noexec."
            }
            Step::PivotRoot => {
                "Unlike chroot, pivot_root swaps the root mount itself; then the old root is unmounted. From here on \
                 no path leads to the host."
            }
            Step::ConnectStdio => {
                "The monitor holds the other ends: it writes the log and feeds whoever is attached. The pipes are \
                 given to the user, so that /dev/stdout can be opened again."
            }
            Step::OpenConsole { .. } => {
                "The container gets a pseudo-terminal of its own, so that nothing it does reaches the caller's \
                 (TIOCSTI). The other end goes to the monitor, which copies."
            }
            Step::WorkDir { .. } => {
                "The program starts in the image's or the user's working directory, resolved inside the root without \
                 magic links: a leaked descriptor is no way out (CVE-2024-21626)."
            }
            Step::ReadOnlyRoot => "Asked for by --read-only. Volumes and tmpfs mounts stay writable.",
            Step::SetHostname { .. } => "The host name belongs to the UTS namespace; only this container sees it.",
            Step::AwaitNetwork => {
                "All this went on while the host was building the network. A program must not start before its \
                 interface is there."
            }
            Step::SetSysctls { .. } => {
                "Some kernel settings exist once per network or IPC namespace. They are written through a descriptor \
                 of the container's own procfs, so that nothing can redirect them."
            }
            Step::SetRlimits { .. } => "Limits per process, inherited by every program in the container.",
            Step::LookUpUser { .. } => {
                "User names mean what the image's /etc/passwd says, read only now, inside the container's root, and \
                 as untrusted input. Supplementary groups come from /etc/group."
            }
            Step::NoNewPrivileges => "From here on setuid bits and file capabilities have no effect.",
            Step::FilterSystemCalls { .. } => {
                "The kernel has some 370 system calls; programs need about 300. The rest (keyrings, bpf, kernel \
                 modules, io_uring…) is where most escapes began, so it answers with an error."
            }
            Step::DropCapabilities { .. } => {
                "Root's power is split into 41 capabilities. Those left out are removed from the bounding set, where \
                 no program can get them back, then groups, gid and uid are set."
            }
            Step::CloseDescriptors => {
                "An open descriptor of a host directory is a way out of the container; everything above stderr closes \
                 at exec."
            }
            Step::EnterAppArmor { .. } => {
                "A profile says which files, mounts, signals and sockets a program may use, whoever it runs as. It is \
                 a second wall: where a mask or a capability was forgotten, mounting and writing to the kernel's files \
                 still fail."
            }
            Step::StartReaper => {
                "Pid 1 has duties: it inherits orphans and must wait for them, and unlike others it ignores signals \
                 it has no handler for. The reaper does both, so the program need not."
            }
            Step::Exec { .. } => {
                "The child becomes the program. The pipe to the monitor closes by itself at this moment, which is how \
                 the monitor knows that it worked."
            }
        }
    }

    fn shell(&self) -> Option<String> {
        super::shell::shell(self)
    }

    fn site(&self) -> Site {
        match self {
            Step::MountVolume(_)
            | Step::LoadAppArmor { .. }
            | Step::CreateCgroup { .. }
            | Step::FilterDevices { .. }
            | Step::JoinPidNamespace { .. }
            | Step::CloneNamespaces { .. } => Site::Host,
            _ => Site::Child,
        }
    }

    fn undo(&self) -> Undo {
        match self {
            Step::MountVolume(volume) => Undo::Remove(vec![volume.thing()]),
            // Shared by all containers, and part of the machine's policy until the next boot.
            Step::LoadAppArmor { .. } => Undo::Nothing,
            // A BPF program goes with the cgroup it is attached to.
            Step::CreateCgroup { path, .. } | Step::FilterDevices { path, .. } => {
                Undo::Remove(vec![HostThing::CgroupDir { path: path.clone() }])
            }
            Step::HoldSources { .. }
            | Step::IsolateMounts
            | Step::MountOverlay { .. }
            | Step::BindRoot { .. }
            | Step::Mount { .. }
            | Step::BindMount { .. }
            | Step::MountCgroups { .. }
            | Step::MakeDevices { .. }
            | Step::Mask { .. }
            | Step::ReadOnlyPaths { .. }
            | Step::PivotRoot
            | Step::ReadOnlyRoot
            | Step::OpenConsole { .. } => Undo::DiesWith(Ns::Mount),
            Step::SetHostname { .. } => Undo::DiesWith(Ns::Uts),
            Step::SetSysctls { values } => match values.iter().any(|(key, _)| key.starts_with("net.")) {
                true => Undo::DiesWith(Ns::Net),
                false => Undo::DiesWith(Ns::Ipc),
            },
            Step::UnshareCgroup => Undo::DiesWith(Ns::Cgroup),
            Step::JoinPidNamespace { .. }
            | Step::CloneNamespaces { .. }
            | Step::ShedInheritance
            | Step::AwaitCgroup
            | Step::JoinCgroup { .. }
            | Step::JoinNamespaces { .. }
            | Step::SetOomScore { .. }
            | Step::ConnectStdio
            | Step::WorkDir { .. }
            | Step::AwaitNetwork
            | Step::SetRlimits { .. }
            | Step::LookUpUser { .. }
            | Step::NoNewPrivileges
            | Step::FilterSystemCalls { .. }
            | Step::DropCapabilities { .. }
            | Step::CloseDescriptors
            | Step::EnterAppArmor { .. }
            | Step::StartReaper
            | Step::Exec { .. } => Undo::DiesWith(Ns::Process),
        }
    }
}

impl Handle {
    fn words(&self) -> String {
        match self {
            Handle::Path(path) => path.display().to_string(),
            Handle::Process(pid) => format!("process {pid}"),
        }
    }
}

pub(super) fn ns_name(ns: Ns) -> &'static str {
    match ns {
        Ns::Mount => "mount",
        Ns::Pid => "pid",
        Ns::Net => "network",
        Ns::Uts => "uts",
        Ns::Ipc => "ipc",
        Ns::Cgroup => "cgroup",
        Ns::User => "user",
        Ns::Time => "time",
        Ns::Process => "process",
    }
}

/// `memory.max 67108864`; the device rules would drown the line.
fn limit_words(s: &crate::cgroup::Setting) -> Option<String> {
    let file = s.file.file_name()?.to_str()?;
    (!file.starts_with("devices.")).then(|| format!("{file} {}", s.value))
}

fn limit_number(n: u64) -> String {
    if n == u64::MAX { "unlimited".into() } else { n.to_string() }
}

fn count(n: usize, noun: &str) -> String {
    match (n, noun) {
        (1, _) => format!("1 {noun}"),
        (_, "capability") => format!("{n} capabilities"),
        _ => format!("{n} {noun}s"),
    }
}

fn list<P: AsRef<Path>>(paths: &[P]) -> String {
    let words: Vec<String> = paths.iter().map(|p| p.as_ref().display().to_string()).collect();
    words.join(" ")
}

fn parenthesis(words: &str) -> String {
    if words.is_empty() { String::new() } else { format!(" ({words})") }
}

pub(super) fn change_words(change: &Change) -> String {
    let mut words = Vec::new();
    let own = options::change_words(change.set, change.clear);
    if !own.is_empty() {
        words.push(own);
    }
    let below = options::change_words(change.set_recursive, change.clear_recursive);
    words.extend(below.split(',').filter(|w| !w.is_empty()).map(|w| format!("r{w}")));
    if change.propagation != super::Propagation::Private {
        let r = if change.propagation_recursive { "r" } else { "" };
        words.push(format!("{r}{}", change.propagation.word()));
    }
    words.join(",")
}
