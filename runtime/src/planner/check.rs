//! What a spec must not ask for, refused before anything happens.

use crate::cgroup;
use crate::spec::{Mount, Process, RunSpec, User};
use crate::sysctl;
use crate::user;
use plan::{Error, Result};
use std::ffi::OsStr;
use std::path::{Component, Path};

pub(super) fn run_spec(spec: &RunSpec) -> Result<()> {
    process(&spec.process)?;
    cgroup::check(&spec.cgroup)?;
    relative(&spec.cgroup.path)?;
    for m in &spec.mounts {
        mount(m)?;
    }
    sysctl::check(spec.sysctls.keys().map(String::as_str), &spec.namespaces)?;
    for d in &spec.devices {
        if !matches!(d.kind, 'c' | 'b' | 'p') || !d.access.bytes().all(|b| b"rwm".contains(&b)) {
            return Err(Error::invalid(format!("bad device {}: {} {}", d.path.display(), d.kind, d.access))
                .with_hint("a device is of type c, b or p, and its access some of rwm"));
        }
    }
    for (name, what) in [(&spec.hostname, "hostname"), (&spec.domainname, "domainname")] {
        if name.as_ref().is_some_and(|n| n.len() > 64 || n.contains('\0')) {
            return Err(Error::invalid(format!("invalid {what}")).with_hint("it is at most 64 bytes"));
        }
    }
    Ok(())
}

pub(super) fn process(p: &Process) -> Result<()> {
    if let User::Named { spec, .. } = &p.user {
        user::check(spec)?;
    }
    if p.args.first().is_none_or(String::is_empty) {
        return Err(Error::invalid("no command specified")
            .with_hint("the image has neither ENTRYPOINT nor CMD: name a program after the image"));
    }
    if p.args.iter().chain(&p.env).any(|s| s.contains('\0')) {
        return Err(
            Error::invalid("a zero byte in the command or environment").with_hint("the kernel ends strings there")
        );
    }
    if let Some(bad) = p.env.iter().find(|e| e.is_empty() || e.starts_with('=')) {
        return Err(Error::invalid(format!("invalid environment variable: {bad}")).with_hint("write NAME=value"));
    }
    if !p.cwd.is_absolute() {
        return Err(Error::invalid(format!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            p.cwd.display()
        ))
        .with_hint("start it with /"));
    }
    if let Some(value) = p.oom_score_adj.filter(|v| !(-1000..=1000).contains(v)) {
        return Err(Error::invalid(format!("Invalid value {value}, range for oom score adj is [-1000, 1000]"))
            .with_hint("pick one in that range"));
    }
    for limit in &p.rlimits {
        if limit.soft > limit.hard {
            return Err(Error::invalid(format!(
                "ulimit soft limit must be less than or equal to hard limit: {} > {}",
                limit.soft, limit.hard
            ))
            .with_hint("write name=soft:hard"));
        }
    }
    Ok(())
}

/// A cgroup path must stay below the hierarchy's root (CVE-2025-47291).
fn relative(path: &Path) -> Result<()> {
    let plain = path.components().all(|c| matches!(c, Component::Normal(_)));
    if plain && path.components().next().is_some() {
        return Ok(());
    }
    Err(Error::invalid(format!("invalid cgroup path {}", path.display())).with_hint("it is relative and without .."))
}

/// procfs is what masks, sysctls and security attributes are reached through: nothing may pose as it
/// (CVE-2019-19921, CVE-2023-27561 and kin).
fn mount(m: &Mount) -> Result<()> {
    /// Files there that lxcfs and the like replace, harmless since nothing trusts them.
    const REPLACEABLE: [&str; 8] =
        ["cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo"];
    if !m.target.is_absolute() {
        return Err(Error::invalid(format!(
            "invalid mount path: '{}' mount path must be absolute",
            m.target.display()
        ))
        .with_hint("start it with /"));
    }
    if m.target.as_os_str().as_encoded_bytes().contains(&0) || m.source.as_os_str().as_encoded_bytes().contains(&0) {
        return Err(Error::invalid("a zero byte in a mount path").with_hint("the kernel ends strings there"));
    }
    let mut names: Vec<&OsStr> = Vec::new();
    for c in m.target.components() {
        match c {
            Component::Normal(name) => names.push(name),
            Component::ParentDir => drop(names.pop()),
            _ => {}
        }
    }
    let Some((first, below)) = names.split_first() else { return Ok(()) };
    if *first != "proc" {
        return Ok(());
    }
    match below {
        [] if m.kind == "proc" => Ok(()),
        [] => Err(Error::invalid(format!("{:?} cannot be mounted because it is not of type proc", m.target))
            .with_hint("mount it elsewhere than on /proc")),
        [name] if REPLACEABLE.iter().any(|r| OsStr::new(r) == *name) => Ok(()),
        _ => Err(Error::invalid(format!("{:?} cannot be mounted because it is inside /proc", m.target))
            .with_hint("mount it elsewhere")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Namespace;

    fn refuses(change: impl FnOnce(&mut RunSpec)) -> String {
        let mut spec = RunSpec::new("x");
        spec.process.args = vec!["true".into()];
        change(&mut spec);
        match run_spec(&spec) {
            Err(e) => e.message,
            Ok(()) => "accepted".into(),
        }
    }

    fn bind(target: &str) -> Mount {
        Mount { kind: "bind".into(), source: "/x".into(), target: target.into(), options: vec![] }
    }

    #[test]
    fn the_default_is_fine() {
        assert_eq!(refuses(|_| {}), "accepted");
    }

    #[test]
    fn nothing_poses_as_procfs() {
        for (target, says) in [
            ("/proc", "not of type proc"),
            ("/./proc/", "not of type proc"),
            ("/proc/sys/kernel", "inside /proc"),
            ("/x/../proc", "not of type proc"),
            ("/proc/cpuinfo", "accepted"),
            ("/process", "accepted"),
        ] {
            let said = refuses(|s| s.mounts.push(bind(target)));
            assert!(said.ends_with(says), "{target}: {said}");
        }
        assert!(refuses(|s| s.mounts.push(bind("x"))).contains("must be absolute"));
    }

    #[test]
    fn sysctls_of_the_host_are_refused() {
        let set = |key: &'static str| refuses(move |s| drop(s.sysctls.insert(key.into(), "1".into())));
        assert_eq!(set("net.core.somaxconn"), "accepted");
        assert!(set("kernel.core_pattern").contains("not in a separate kernel namespace"));
        let host = refuses(|s| s.namespaces.net = Namespace::Host);
        assert!(host.ends_with("not allowed in host network namespace"), "{host}");
    }

    #[test]
    fn a_program_is_needed() {
        assert_eq!(refuses(|s| s.process.args.clear()), "no command specified");
        assert!(refuses(|s| s.process.env.push("=x".into())).starts_with("invalid environment"));
        assert!(refuses(|s| s.process.cwd = "a".into()).contains("absolute path"));
        assert!(refuses(|s| s.cgroup.path = "../x".into()).starts_with("invalid cgroup path"));
    }
}
