//! From a [`RunSpec`] and what is known of the host to the list of steps. Pure and deterministic: the
//! golden texts beside it need no root.
//!
//! [`plan`] reads as the recipe, in the order of execution; whatever needs an `if` is decided here.

pub mod options;

mod check;
#[cfg(test)]
mod golden;

use crate::apparmor::{self, Facts, Loaded};
use crate::cgroup;
use crate::host::HostFacts;
use crate::join::JoinSpec;
use crate::spec::defaults::THERMAL_THROTTLE;
use crate::spec::{AppArmor, Caps, Mount, Namespace, Process, Root, RunSpec, Seccomp};
use crate::step::{Handle, Profile, Step};
use crate::volume::VolumeMount;
use plan::{Ns, Result};
use std::path::{Path, PathBuf};

/// Umask of a program whose spec names none.
const UMASK: u32 = 0o022;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// In order of execution: the host's steps first, then the child's.
    pub steps: Vec<Step>,
    /// What was asked for and will be missing, one sentence each.
    pub warnings: Vec<String>,
}

impl Plan {
    /// Volumes that have to be mounted first.
    pub fn mount_first(&mut self, volumes: &[VolumeMount]) {
        self.steps.splice(0..0, volumes.iter().cloned().map(Step::MountVolume));
    }

    /// Where the steps of the network belong when the plan is shown: they run on the host while the
    /// child is at the steps before this one.
    pub fn network_at(&self) -> usize {
        self.steps.iter().position(|s| *s == Step::AwaitNetwork).unwrap_or(self.steps.len())
    }
}

/// The steps that start a container.
pub fn plan(spec: &RunSpec, facts: &HostFacts) -> Result<Plan> {
    check::run_spec(spec)?;
    let mut warnings = Vec::new();
    let mut steps = Vec::with_capacity(48);
    load_apparmor(&spec.process, facts, &mut steps);
    let mut cgroup = create_cgroup(spec, facts, &mut warnings);
    steps.append(&mut cgroup.before);
    clone(spec, facts, &mut steps);
    steps.append(&mut cgroup.beside);
    steps.push(Step::ShedInheritance);
    join(spec, &mut steps);
    oom_score(&spec.process, facts, &mut steps, &mut warnings);
    isolate_mounts(spec, &mut steps)?;
    steps.push(match &spec.root {
        Root::Overlay { base, lower, upper, work, volatile, .. } => Step::MountOverlay {
            base: base.clone(),
            lower: lower.clone(),
            upper: upper.clone(),
            work: work.clone(),
            volatile: *volatile,
        },
        Root::Directory { path, .. } => Step::BindRoot { path: path.clone() },
    });
    for m in &spec.mounts {
        if m.kind == "cgroup" {
            steps.append(&mut cgroup.enter);
        }
        steps.push(mount(m, spec, facts)?);
        if m.target == Path::new("/dev") && m.kind == "tmpfs" {
            steps.push(Step::MakeDevices { standard: true, extra: spec.devices.clone() });
        }
    }
    steps.append(&mut cgroup.enter);
    devices_elsewhere(spec, &mut steps);
    protect_paths(spec, facts, &mut steps);
    steps.push(Step::PivotRoot);
    stdio(&spec.process, true, &mut steps);
    if spec.process.cwd != Path::new("/") {
        steps.push(Step::WorkDir { path: spec.process.cwd.clone(), create: true });
    }
    if let Root::Overlay { readonly: true, .. } | Root::Directory { readonly: true, .. } = &spec.root {
        steps.push(Step::ReadOnlyRoot);
    }
    if spec.hostname.is_some() || spec.domainname.is_some() {
        steps.push(Step::SetHostname { hostname: spec.hostname.clone(), domainname: spec.domainname.clone() });
    }
    steps.push(Step::AwaitNetwork);
    if !spec.sysctls.is_empty() {
        let values = spec.sysctls.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        steps.push(Step::SetSysctls { values });
    }
    confine(&spec.process, &spec.seccomp, facts, &mut steps, &mut warnings);
    if spec.process.init {
        steps.push(Step::StartReaper);
    }
    steps.push(execute(&spec.process));
    Ok(Plan { steps, warnings })
}

/// The steps of `rrun exec`: the same confinement as [`plan`], reached by joining.
pub fn plan_exec(join: &JoinSpec, facts: &HostFacts) -> Result<Plan> {
    check::process(&join.process)?;
    let handle = Handle::Process(join.pid);
    let mut warnings = Vec::new();
    let mut steps = vec![
        Step::JoinPidNamespace { handle: handle.clone() },
        Step::CloneNamespaces { kinds: Vec::new(), cgroup: unified(&join.cgroup, facts) },
        Step::ShedInheritance,
    ];
    join_cgroup(&join.cgroup, facts, &mut steps);
    oom_score(&join.process, facts, &mut steps, &mut warnings);
    let kinds = [Ns::Mount, Ns::Uts, Ns::Ipc, Ns::Net, Ns::Cgroup];
    steps.push(Step::JoinNamespaces { handles: kinds.map(|ns| (ns, handle.clone())).to_vec() });
    stdio(&join.process, false, &mut steps);
    steps.push(Step::WorkDir { path: join.process.cwd.clone(), create: false });
    confine(&join.process, &join.seccomp, facts, &mut steps, &mut warnings);
    steps.push(execute(&join.process));
    Ok(Plan { steps, warnings })
}

/// Lowering the score takes CAP_SYS_RESOURCE. It is a preference and protects nobody: who lacks the
/// capability is told, and the container runs with the caller's own score.
fn oom_score(process: &Process, facts: &HostFacts, steps: &mut Vec<Step>, warnings: &mut Vec<String>) {
    let Some(value) = process.oom_score_adj else { return };
    if value < 0 && !crate::caps::intersect(&["SYS_RESOURCE".into()], facts.caps).1.is_empty() {
        warnings.push(format!("the caller lacks CAP_SYS_RESOURCE: the OOM score adjustment {value} is left out"));
        return;
    }
    steps.push(Step::SetOomScore { value });
}

/// The steps about the container's cgroup, by where they belong.
#[derive(Default)]
struct CgroupSteps {
    /// The v2 group, for the process to be born in.
    before: Vec<Step>,
    /// What is only needed in time for the program, made while the child is at its root.
    beside: Vec<Step>,
    /// The child's: right before the first mount that shows the group, which is well on the way.
    enter: Vec<Step>,
}

fn create_cgroup(spec: &RunSpec, facts: &HostFacts, warnings: &mut Vec<String>) -> CgroupSteps {
    let path = &spec.cgroup.path;
    let rules = cgroup::rules(&spec.devices, &spec.cgroup.device_rules, spec.cgroup.all_devices);
    let (settings, discarded) = cgroup::settings(&spec.cgroup, &rules, &facts.cgroup);
    warnings.extend(discarded);
    let unified = unified(path, facts);
    let (of_v2, of_v1) = settings.into_iter().partition(|s| unified.as_ref().is_some_and(|u| s.file.starts_with(u)));
    let create = |dirs, settings| Step::CreateCgroup { path: path.clone(), dirs, settings };
    let mut steps = CgroupSteps::default();
    steps.before.extend(unified.clone().map(|dir| create(vec![dir], of_v2)));
    let v1: Vec<PathBuf> = facts.cgroup.v1.iter().map(|h| h.root.join(path)).collect();
    if !v1.is_empty() {
        steps.beside.push(create(v1.clone(), of_v1));
        steps.enter.extend([Step::AwaitCgroup, Step::JoinCgroup { dirs: v1 }]);
    } else if let (false, Some(dir)) = (spec.cgroup.all_devices, unified) {
        steps.beside.push(Step::FilterDevices { dir, path: path.clone(), rules });
    }
    match &spec.namespaces.cgroup {
        Namespace::Private => steps.enter.push(Step::UnshareCgroup),
        Namespace::Path(path) => {
            steps.enter.push(Step::JoinNamespaces { handles: vec![(Ns::Cgroup, Handle::Path(path.clone()))] });
        }
        Namespace::Host => {}
    }
    steps
}

fn unified(path: &Path, facts: &HostFacts) -> Option<PathBuf> {
    facts.cgroup.unified.as_ref().map(|u| u.root.join(path))
}

fn clone(spec: &RunSpec, facts: &HostFacts, steps: &mut Vec<Step>) {
    let n = &spec.namespaces;
    if let Namespace::Path(path) = &n.pid {
        steps.push(Step::JoinPidNamespace { handle: Handle::Path(path.clone()) });
    }
    let wanted = [(Ns::Pid, &n.pid), (Ns::Net, &n.net), (Ns::Ipc, &n.ipc), (Ns::Uts, &n.uts)];
    let private = wanted.iter().filter(|(_, how)| **how == Namespace::Private).map(|(ns, _)| *ns);
    let kinds = std::iter::once(Ns::Mount).chain(private).collect();
    steps.push(Step::CloneNamespaces { kinds, cgroup: unified(&spec.cgroup.path, facts) });
}

fn join_cgroup(path: &Path, facts: &HostFacts, steps: &mut Vec<Step>) {
    let dirs: Vec<PathBuf> = facts.cgroup.v1.iter().map(|h| h.root.join(path)).collect();
    if !dirs.is_empty() {
        steps.push(Step::JoinCgroup { dirs });
    }
}

fn join(spec: &RunSpec, steps: &mut Vec<Step>) {
    let n = &spec.namespaces;
    let wanted = [(Ns::Net, &n.net), (Ns::Ipc, &n.ipc), (Ns::Uts, &n.uts)];
    let handles: Vec<(Ns, Handle)> = wanted
        .into_iter()
        .filter_map(|(ns, how)| match how {
            Namespace::Path(path) => Some((ns, Handle::Path(path.clone()))),
            Namespace::Private | Namespace::Host => None,
        })
        .collect();
    if !handles.is_empty() {
        steps.push(Step::JoinNamespaces { handles });
    }
}

/// Bind sources are picked up first: the root may come to lie over them (`-v /:/host`), and a copy
/// made after the cut could no longer share mounts with the host.
fn isolate_mounts(spec: &RunSpec, steps: &mut Vec<Step>) -> Result<()> {
    let mut sources = Vec::new();
    for m in &spec.mounts {
        if let Some(recursive) = bind_kind(m, &options::parse(&m.options)?) {
            sources.push((m.source.clone(), recursive));
        }
    }
    if !sources.is_empty() {
        steps.push(Step::HoldSources { sources });
    }
    steps.push(Step::IsolateMounts);
    Ok(())
}

/// Whether `m` is a bind mount, and if so, with everything below.
fn bind_kind(m: &Mount, options: &options::Options) -> Option<bool> {
    options.bind.or((m.kind == "bind").then_some(true))
}

fn mount(m: &Mount, spec: &RunSpec, facts: &HostFacts) -> Result<Step> {
    let o = options::parse(&m.options)?;
    if let Some(recursive) = bind_kind(m, &o) {
        return Ok(Step::BindMount { source: m.source.clone(), target: m.target.clone(), recursive, change: o.change });
    }
    let readonly = o.change.set & libc::MOUNT_ATTR_RDONLY != 0;
    if m.kind == "cgroup" && !facts.cgroup.is_v2() {
        return Ok(v1_cgroups(&m.target, readonly, spec, facts));
    }
    Ok(Step::Mount {
        kind: if m.kind == "cgroup" { "cgroup2".into() } else { m.kind.clone() },
        source: m.source.to_string_lossy().into_owned(),
        target: m.target.clone(),
        attributes: o.change.set | o.change.set_recursive,
        data: o.data,
    })
}

/// `/sys/fs/cgroup/cpu,cpuacct` with the container's own directory, and `cpu`, `cpuacct` linked to it.
fn v1_cgroups(target: &Path, readonly: bool, spec: &RunSpec, facts: &HostFacts) -> Step {
    let mut binds = Vec::new();
    let mut links = Vec::new();
    for h in &facts.cgroup.v1 {
        let Some(name) = h.root.file_name().map(|n| n.to_string_lossy().into_owned()) else { continue };
        for c in h.controllers.iter().filter(|c| **c != name) {
            links.push((c.clone(), name.clone()));
        }
        binds.push((h.root.join(&spec.cgroup.path), name));
    }
    Step::MountCgroups { target: target.to_path_buf(), binds, links, readonly }
}

/// Without a tmpfs of ours on /dev: a /dev of the image gets the standard nodes, one that the user
/// mounted is theirs, and only what was asked for is added.
fn devices_elsewhere(spec: &RunSpec, steps: &mut Vec<Step>) {
    let own = spec.mounts.iter().any(|m| m.target == Path::new("/dev") && m.kind == "tmpfs");
    let theirs = spec.mounts.iter().any(|m| m.target == Path::new("/dev"));
    if !own && (!theirs || !spec.devices.is_empty()) {
        steps.push(Step::MakeDevices { standard: !theirs, extra: spec.devices.clone() });
    }
}

fn protect_paths(spec: &RunSpec, facts: &HostFacts, steps: &mut Vec<Step>) {
    let mut masked = Vec::with_capacity(spec.masked_paths.len());
    for path in &spec.masked_paths {
        if path == Path::new(THERMAL_THROTTLE) {
            let cpus = 0..facts.thermal_throttle_cpus;
            masked.extend(cpus.map(|n| PathBuf::from(THERMAL_THROTTLE.replace('*', &n.to_string()))));
        } else {
            masked.push(path.clone());
        }
    }
    if !masked.is_empty() {
        steps.push(Step::Mask { paths: masked });
    }
    if !spec.readonly_paths.is_empty() {
        steps.push(Step::ReadOnlyPaths { paths: spec.readonly_paths.clone() });
    }
}

fn stdio(process: &Process, console: bool, steps: &mut Vec<Step>) {
    steps.push(if process.tty {
        Step::OpenConsole { size: process.console_size, console }
    } else {
        Step::ConnectStdio
    });
}

/// Limits, identity, capabilities, system calls: the same for run and exec.
///
/// Installing a filter takes CAP_SYS_ADMIN or no_new_privs. So with no_new_privs the filter comes
/// last, where it need not allow what sets up the rest; without, it comes before the capabilities go.
fn confine(process: &Process, seccomp: &Seccomp, facts: &HostFacts, steps: &mut Vec<Step>, warnings: &mut Vec<String>) {
    if !process.rlimits.is_empty() {
        steps.push(Step::SetRlimits { limits: process.rlimits.clone() });
    }
    steps.push(Step::LookUpUser { user: process.user.clone() });
    let filter = match seccomp {
        Seccomp::Default => Some(Step::FilterSystemCalls { profile: Profile::Default }),
        Seccomp::Profile(_) => Some(Step::FilterSystemCalls { profile: Profile::Custom }),
        Seccomp::Unconfined => None,
    };
    let drop = Step::DropCapabilities { caps: available(&process.caps, facts, warnings) };
    if process.no_new_privileges {
        steps.push(drop);
        steps.push(Step::NoNewPrivileges);
        steps.extend(filter);
    } else {
        steps.extend(filter);
        steps.push(drop);
    }
    steps.push(Step::CloseDescriptors);
    if let Some(profile) = apparmor_profile(process, facts, warnings) {
        steps.push(Step::EnterAppArmor { profile, now: process.init });
    }
}

/// The default profile, if the kernel does not have it yet and there is something to load it with.
fn load_apparmor(process: &Process, facts: &HostFacts, steps: &mut Vec<Step>) {
    if let (AppArmor::Default, Some(Facts { default, parser: Some(parser) })) = (&process.apparmor, &facts.apparmor) {
        let stale = match default {
            Loaded::Yes => return,
            Loaded::No => Vec::new(),
            Loaded::Another { marks } => marks.clone(),
        };
        steps.push(Step::LoadAppArmor { parser: parser.clone(), stale });
    }
}

/// The profile that the program will run under, once the steps before have been carried out.
fn apparmor_profile(process: &Process, facts: &HostFacts, warnings: &mut Vec<String>) -> Option<String> {
    let there = match (&process.apparmor, &facts.apparmor) {
        (AppArmor::Unconfined, _) | (AppArmor::Default, None) => return None,
        (AppArmor::Profile(name), Some(_)) => return Some(name.clone()),
        (AppArmor::Profile(name), None) => {
            warnings.push(format!("this machine has no AppArmor: the container goes without profile {name}"));
            return None;
        }
        (AppArmor::Default, Some(Facts { default, parser: None })) => default,
        (AppArmor::Default, Some(_)) => return Some(apparmor::DEFAULT.to_string()),
    };
    let consequence = match there {
        Loaded::Yes => return Some(apparmor::DEFAULT.to_string()),
        Loaded::No => "is not loaded and apparmor_parser (package apparmor) is missing: the container goes without",
        Loaded::Another { .. } => {
            "is another rrun's and apparmor_parser (package apparmor) is missing: the container runs under it as it is"
        }
    };
    warnings.push(format!("AppArmor is on, but profile {} {consequence}", apparmor::DEFAULT));
    (*there != Loaded::No).then(|| apparmor::DEFAULT.to_string())
}

/// The wish, cut down to what the caller can hand on.
fn available(wish: &Caps, facts: &HostFacts, warnings: &mut Vec<String>) -> Caps {
    let cut = |set: &[String]| crate::caps::intersect(set, facts.caps);
    let (bounding, missing) = cut(&wish.bounding);
    // Who asks for everything (--privileged) means everything there is.
    let everything = crate::caps::mask(&wish.bounding) == crate::caps::ALL;
    if !missing.is_empty() && !everything {
        warnings.push(format!("the caller lacks {}: the container goes without", missing.join(", ")));
    }
    Caps {
        bounding,
        effective: cut(&wish.effective).0,
        permitted: cut(&wish.permitted).0,
        inheritable: cut(&wish.inheritable).0,
        ambient: cut(&wish.ambient).0,
    }
}

fn execute(process: &Process) -> Step {
    Step::Exec { argv: process.args.clone(), umask: process.umask.unwrap_or(UMASK) }
}
