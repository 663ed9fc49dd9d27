//! Each step as the commands that do the same: util-linux, coreutils, procfs.
//!
//! `$root` is the directory that becomes the root. Every name is quoted; a step that no command does
//! exactly has none.

use super::words::ns_name;
use super::{Change, Handle, Propagation, Step};
use crate::apparmor;
use crate::cgroup::Setting;
use crate::planner::options;
use crate::spec::defaults::{DEVICE_LINKS, DEVICES};
use crate::spec::{Caps, Device, User};
use plan::Ns;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

pub(super) fn shell(step: &Step) -> Option<String> {
    let lines = match step {
        Step::MountVolume(v) => {
            let kind = if v.kind.is_empty() { String::new() } else { format!("-t {} ", q(&v.kind)) };
            let options = v.shown_options();
            let options = if options.is_empty() { options } else { format!("-o {} ", q(&options)) };
            let target = q(&v.target);
            vec![format!("mountpoint -q {target} || mount {kind}{options}{} {target}", q(&v.device))]
        }
        Step::LoadAppArmor { stale, .. } => apparmor::load_commands(stale),
        Step::CreateCgroup { dirs, settings, .. } => {
            let mut lines = vec![make(dirs)];
            lines.extend(settings.chunk_by(|a, b| a.file == b.file).map(write));
            lines
        }
        Step::CloneNamespaces { kinds, cgroup } => {
            let mut lines = Vec::new();
            if let Some(dir) = cgroup {
                lines.push(format!("echo 0 > {}", q(dir.join("cgroup.procs"))));
            }
            let flags: Vec<String> = kinds.iter().map(|k| format!("--{}", unshare_flag(*k))).collect();
            lines.push(format!("exec unshare --fork {} sh", flags.join(" ")));
            lines
        }
        Step::ShedInheritance => vec!["keyctl session".into()],
        Step::JoinCgroup { dirs } => dirs.iter().map(|d| format!("echo 0 > {}", q(d.join("tasks")))).collect(),
        Step::JoinNamespaces { handles } => {
            let flags: Vec<String> = handles
                .iter()
                .map(|(ns, handle)| {
                    let file = match handle {
                        Handle::Path(path) => q(path),
                        Handle::Process(pid) => format!("/proc/{pid}/ns/{}", proc_name(*ns)),
                    };
                    format!("--{}={file}", unshare_flag(*ns))
                })
                .collect();
            vec![format!("exec nsenter {} sh", flags.join(" "))]
        }
        Step::UnshareCgroup => vec!["exec unshare --cgroup sh".into()],
        Step::SetOomScore { value } => vec![format!("echo {value} > /proc/self/oom_score_adj")],
        Step::IsolateMounts => vec!["mount --make-rprivate /".into()],
        Step::MountOverlay { base, lower, upper, work, volatile } => {
            let data = options::overlay_data(lower, upper, work, *volatile);
            vec![
                format!("root={}; cd \"$root\"", q(base)),
                format!("mount -t overlay -o {} overlay \"$root\"", q(OsStr::new(&data))),
            ]
        }
        Step::BindRoot { path } => vec![format!("root={}; mount --rbind \"$root\" \"$root\"", q(path))],
        Step::Mount { kind, source, target, attributes, data } => {
            let options = options::words(*attributes, data);
            let flag = if options.is_empty() { String::new() } else { format!(" -o {}", q(&options)) };
            vec![format!("mkdir -p {0}; mount -t {1}{flag} {2} {0}", rooted(target), q(kind), q(source))]
        }
        Step::BindMount { source, target, recursive, change } => bind(source, target, *recursive, change),
        Step::MountCgroups { target, binds, links, readonly } => {
            let dir = rooted(target);
            let mut lines = vec![format!("mount -t tmpfs -o nosuid,nodev,noexec,mode=755 tmpfs {dir}")];
            for (source, name) in binds {
                let at = rooted(&target.join(name));
                lines.push(format!("mkdir {at}; mount --bind {} {at}", q(source)));
                if *readonly {
                    lines.push(format!("mount -o remount,bind,ro,nosuid,nodev,noexec {at}"));
                }
            }
            lines.extend(links.iter().map(|(name, to)| format!("ln -s {} {}", q(to), rooted(&target.join(name)))));
            if *readonly {
                lines.push(format!("mount -o remount,ro {dir}"));
            }
            lines
        }
        Step::MakeDevices { standard, extra } => devices(*standard, extra),
        Step::Mask { paths } => vec![for_each(
            paths,
            "if [ -d \"$p\" ]; then mount -t tmpfs -o ro tmpfs \"$p\"; elif [ -e \"$p\" ]; then mount --bind \"$root/dev/null\" \"$p\"; fi",
        )],
        Step::ReadOnlyPaths { paths } => vec![for_each(
            paths,
            "[ ! -e \"$p\" ] || { mount --rbind \"$p\" \"$p\"; mount -o remount,bind,ro,nosuid,nodev,noexec \"$p\"; }",
        )],
        Step::PivotRoot => vec!["cd \"$root\"; pivot_root . .; umount -l .; cd /; root=".into()],
        Step::WorkDir { path, create } => {
            let make = if *create { format!("mkdir -p {}; ", q(path)) } else { String::new() };
            vec![format!("{make}cd {}", q(path))]
        }
        Step::ReadOnlyRoot => vec!["mount -o remount,bind,ro /".into()],
        Step::SetHostname { hostname, domainname } => {
            let mut lines = Vec::new();
            lines.extend(hostname.iter().map(|h| format!("hostname {}", q(h))));
            lines.extend(domainname.iter().map(|d| format!("echo {} > /proc/sys/kernel/domainname", q(d))));
            lines
        }
        Step::SetSysctls { values } => {
            values.iter().map(|(key, value)| format!("sysctl -w {}", q(format!("{key}={value}")))).collect()
        }
        Step::SetRlimits { limits } => {
            let number = |n: u64| if n == u64::MAX { "unlimited".into() } else { n.to_string() };
            let flags: Vec<String> = limits
                .iter()
                .map(|l| format!("--{}={}:{}", q(l.name.to_lowercase()), number(l.soft), number(l.hard)))
                .collect();
            vec![format!("prlimit --pid $$ {}", flags.join(" "))]
        }
        Step::LookUpUser { user: User::Named { spec, .. } } => {
            let name = spec.split(':').next().filter(|n| !n.is_empty()).unwrap_or("root");
            vec![format!("id {}", q(name))]
        }
        Step::NoNewPrivileges => vec!["exec setpriv --no-new-privs sh".into()],
        Step::DropCapabilities { caps } => vec![setpriv(caps)],
        Step::EnterAppArmor { profile, now } => {
            let (file, verb) = apparmor::request(*now);
            vec![format!("echo {} > /proc/self/attr/apparmor/{file}", q(format!("{verb} {profile}")))]
        }
        Step::Exec { argv, umask } => {
            let words: Vec<String> = argv.iter().map(q).collect();
            vec![format!("umask {umask:04o}; exec {}", words.join(" "))]
        }
        // A program of its own, a pidfd, a descriptor held: nothing a shell has.
        Step::FilterDevices { .. }
        | Step::JoinPidNamespace { .. }
        | Step::AwaitCgroup
        | Step::HoldSources { .. }
        | Step::ConnectStdio
        | Step::OpenConsole { .. }
        | Step::AwaitNetwork
        | Step::LookUpUser { user: User::Ids { .. } }
        | Step::FilterSystemCalls { .. }
        | Step::CloseDescriptors
        | Step::StartReaper => return None,
    };
    Some(lines.join("\n"))
}

fn bind(source: &Path, target: &Path, recursive: bool, change: &Change) -> Vec<String> {
    let (from, to) = (q(source), rooted(target));
    let r = if recursive { "--rbind" } else { "--bind" };
    let mut lines = vec![format!(
        "if [ -d {from} ]; then mkdir -p {to}; else mkdir -p {}; touch {to}; fi; mount {r} {from} {to}",
        rooted(target.parent().unwrap_or(Path::new("/")))
    )];
    let own = options::change_words(change.set | change.set_recursive, change.clear | change.clear_recursive);
    if !own.is_empty() {
        lines.push(format!("mount -o remount,bind,{own} {to}"));
    }
    let r = if change.propagation_recursive { "r" } else { "" };
    if change.propagation != Propagation::Private {
        lines.push(format!("mount --make-{r}{} {to}", change.propagation.word()));
    }
    lines
}

fn devices(standard: bool, extra: &[Device]) -> Vec<String> {
    let mut lines = Vec::new();
    if standard {
        for (name, major, minor) in DEVICES {
            lines.push(format!("mknod -m 666 \"$root/dev/{name}\" c {major} {minor}"));
        }
        for (name, to) in DEVICE_LINKS {
            lines.push(format!("ln -s {to} \"$root/dev/{name}\""));
        }
    }
    for d in extra {
        let path = rooted(&d.path);
        let kind = if d.kind == 'p' { "p".to_string() } else { format!("{} {} {}", d.kind, d.major, d.minor) };
        lines.push(format!("mknod -m {:o} {path} {kind}; chown {}:{} {path}", d.mode, d.uid, d.gid));
    }
    lines
}

fn setpriv(caps: &Caps) -> String {
    let list = |names: &[String]| {
        let mut words = vec!["-all".to_string()];
        words.extend(names.iter().map(|n| format!("+{}", n.to_lowercase())));
        words.join(",")
    };
    format!(
        "exec setpriv --reuid=\"$uid\" --regid=\"$gid\" --init-groups --bounding-set={} --inh-caps={} --ambient-caps={} sh",
        list(&caps.bounding),
        list(&caps.inheritable),
        list(&caps.ambient)
    )
}

/// The same for each path inside the root, as `$p`.
fn for_each(paths: &[PathBuf], body: &str) -> String {
    let words: Vec<String> = paths.iter().map(|p| rooted(p)).collect();
    format!("for p in {}; do\n  {body}\ndone", words.join(" "))
}

/// Directories that differ in one component, as a container's groups do in the hierarchies of v1, are made
/// in a loop over it: a hash in a path is read once.
fn make(dirs: &[PathBuf]) -> String {
    let all = || format!("mkdir -p {}", dirs.iter().map(q).collect::<Vec<_>>().join(" "));
    let [first, second, ..] = dirs else { return all() };
    let parts = |dir: &PathBuf| dir.iter().map(OsStr::to_os_string).collect::<Vec<_>>();
    let (first, second) = (parts(first), parts(second));
    let Some(at) = first.iter().zip(&second).position(|(a, b)| a != b) else { return all() };
    let (before, after): (PathBuf, PathBuf) = (first[..at].iter().collect(), first[at + 1..].iter().collect());
    let mut words = Vec::new();
    for dir in dirs {
        let parts = parts(dir);
        match parts.get(at) {
            Some(word) if before.join(word).join(&after) == *dir => words.push(q(word)),
            _ => return all(),
        }
    }
    format!("for h in {}; do\n  mkdir -p {}/$h/{}\ndone", words.join(" "), q(&before), q(&after))
}

/// The values of one file, in their order.
fn write(settings: &[Setting]) -> String {
    let file = q(&settings[0].file);
    match settings {
        [one] => format!("echo {} > {file}", q(&one.value)),
        _ => {
            let values: Vec<String> = settings.iter().map(|s| q(&s.value)).collect();
            format!("for v in {}; do\n  echo \"$v\" > {file}\ndone", values.join(" "))
        }
    }
}

/// `"$root"/proc`: inside the new root until pivot_root.
fn rooted(path: &Path) -> String {
    match path.strip_prefix("/") {
        Ok(below) if below.as_os_str().is_empty() => "\"$root\"".into(),
        Ok(below) => format!("\"$root\"/{}", q(below)),
        Err(_) => format!("\"$root\"/{}", q(path)),
    }
}

/// unshare's and nsenter's long option.
fn unshare_flag(ns: Ns) -> &'static str {
    match ns {
        Ns::Net => "net",
        other => ns_name(other),
    }
}

fn proc_name(ns: Ns) -> &'static str {
    match ns {
        Ns::Mount => "mnt",
        Ns::Net => "net",
        other => ns_name(other),
    }
}

/// One word for the shell, quoted if it must be. Bytes that are no UTF-8 are shown replaced.
fn q(word: impl AsRef<OsStr>) -> String {
    let word = word.as_ref().to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:=,@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.into_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted() {
        assert_eq!(q("/bin/true"), "/bin/true");
        assert_eq!(q(""), "''");
        assert_eq!(q("it's $HOME"), r"'it'\''s $HOME'");
        let exec = Step::Exec { argv: vec!["sh".into(), "-c".into(), "echo $(id); :".into()], umask: 0o22 };
        assert_eq!(shell(&exec).unwrap(), "umask 0022; exec sh -c 'echo $(id); :'");
        let bind = Step::BindMount {
            source: "/a b".into(),
            target: "/c\nd".into(),
            recursive: true,
            change: Change::default(),
        };
        assert!(shell(&bind).unwrap().contains("mount --rbind '/a b' \"$root\"/'c\nd'"));
    }
}
