//! AppArmor: which profile a program runs under, and rrun's own one.
//!
//! The kernel takes profiles in compiled form only, so loading one is a run of `apparmor_parser`: once
//! after a boot, before the first container. Putting a program under a profile is one write.

use plan::{Error, Result};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The profile of containers for which nobody chose another.
pub const DEFAULT: &str = "rrun-default";

const PROFILE: &str = include_str!("rrun-default");

/// Of [`PROFILE`]; the kernel has it as the name of an empty child profile, so that it can be asked which
/// rrun's text it holds.
const TEXT: u32 = plan::fingerprint(&[PROFILE.as_bytes()]);

/// What the names of such children begin with.
const TEXTS: &str = "rrun-default//text-";

/// The names of the loaded profiles, one a line with its mode. Not there: the kernel has no AppArmor,
/// it is off, or (in a container) its policy is out of reach.
const LOADED: &str = "/sys/kernel/security/apparmor/profiles";

/// Takes the name of a profile that is to go.
const REMOVE: &str = "/sys/kernel/security/apparmor/.remove";

/// AppArmor on a machine where it is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    pub default: Loaded,
    /// Where the compiler of profiles is; only looked for if it is needed.
    pub parser: Option<PathBuf>,
}

/// Whether the kernel has [`DEFAULT`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loaded {
    No,
    /// One with another text: of another rrun, or by hand. With the marks that are not this program's.
    Another {
        marks: Vec<String>,
    },
    Yes,
}

impl Facts {
    /// None: no AppArmor here. That costs one failed look-up.
    pub fn observe() -> Option<Facts> {
        let loaded = match std::fs::read_to_string(LOADED) {
            Ok(text) => text,
            // Only root may read it; a plan can be shown without.
            Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => String::new(),
            Err(_) => return None,
        };
        let default = Loaded::of(&loaded);
        let parser = if default == Loaded::Yes { None } else { find_parser() };
        Some(Facts { default, parser })
    }
}

impl Loaded {
    fn of(profiles: &str) -> Loaded {
        let names = || profiles.lines().filter_map(|l| l.split(" (").next());
        let (own, others): (Vec<&str>, Vec<&str>) =
            names().filter(|n| n.starts_with(TEXTS)).partition(|n| *n == mark());
        match names().any(|n| n == DEFAULT) {
            false => Loaded::No,
            true if !own.is_empty() && others.is_empty() => Loaded::Yes,
            true => Loaded::Another { marks: others.into_iter().map(str::to_string).collect() },
        }
    }
}

/// The child profile that says whose text is loaded.
fn mark() -> String {
    format!("{TEXTS}{TEXT:08x}")
}

/// What is compiled: the profile, and in it the mark.
fn marked() -> String {
    let body = PROFILE.trim_end().trim_end_matches('}');
    format!(
        "{body}\n  # Nothing runs under this one; its name says which text is loaded.\n  profile text-{TEXT:08x} {{\n  }}\n}}\n"
    )
}

/// Not by `PATH`: those of users and units often lack the directories of system programs.
fn find_parser() -> Option<PathBuf> {
    ["/usr/sbin", "/sbin", "/usr/bin", "/usr/local/sbin"]
        .iter()
        .map(|dir| Path::new(dir).join("apparmor_parser"))
        .find(|p| p.is_file())
}

/// Whether there is AppArmor, and containers therefore have a profile.
pub fn is_on() -> bool {
    Path::new(LOADED).exists()
}

/// What [`load_default`] does, for a shell.
pub(crate) fn load_commands(stale: &[String]) -> Vec<String> {
    let load = format!("apparmor_parser --replace --skip-cache <<'PROFILE'\n{}PROFILE", marked());
    [load].into_iter().chain(stale.iter().map(|mark| format!("printf %s {mark} > {REMOVE}"))).collect()
}

/// The file in `/proc/self/attr/apparmor` that is written to, and the word before the profile's name.
pub(crate) fn request(now: bool) -> (&'static str, &'static str) {
    if now { ("current", "changeprofile") } else { ("exec", "exec") }
}

/// Compiles and loads [`DEFAULT`], in place of the one there may be, also for what runs under it already. Two at
/// once are no harm: the second replaces the first.
///
/// A profile that is replaced hands its children on, so the marks of other texts are taken away.
pub(crate) fn load_default(parser: &Path, stale: &[String]) -> Result<()> {
    let failed = |cause: String| {
        Error::system(format!("load AppArmor profile {DEFAULT}"))
            .with_cause(cause)
            .with_hint("--security-opt apparmor=unconfined goes without")
    };
    // Not from the cache, where an older rrun's would be found under the same name.
    let mut child = Command::new(parser)
        .args(["--replace", "--skip-cache"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| failed(format!("{}: {e}", parser.display())))?;
    // A parser that reads nothing has something to say.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(marked().as_bytes()));
    let out = child.wait_with_output().map_err(|e| failed(e.to_string()))?;
    if !out.status.success() {
        return Err(failed(String::from_utf8_lossy(&out.stderr).trim().to_string()));
    }
    for mark in stale {
        match std::fs::write(REMOVE, mark) {
            // Another start was quicker.
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed(format!("remove {mark}: {e}"))),
            _ => {}
        }
    }
    Ok(())
}

/// The procfs through which [`confine`] writes. Opened before the root changes: a write to a `/proc` of
/// the image's making would confine nothing (CVE-2019-16884, CVE-2025-52881).
pub(crate) fn open_proc() -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, c"/proc", flags, Mode::empty()).map_err(|e| Error::os("open /proc", e.raw_os_error()))
}

/// Puts the calling process under `profile`: at its next exec, or `now`.
pub(crate) fn confine(proc: &OwnedFd, profile: &str, now: bool) -> Result<()> {
    let failed = |e: Errno| {
        let error = Error::os(format!("run under AppArmor profile {profile}"), e.raw_os_error());
        match e {
            Errno::NOENT => error.with_hint("no such profile is loaded: apparmor_parser -r FILE loads one"),
            Errno::ACCESS | Errno::PERM => {
                error.with_hint("rrun itself is confined by a profile that does not allow it: see aa-status")
            }
            _ => error,
        }
    };
    let (file, verb) = request(now);
    // Since Linux 5.1 each security module has a directory of its own; the plain files belong to
    // whichever is displayed. Opened apart from the write: both may answer ENOENT.
    let open = |path: String| rustix::fs::openat(proc, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
    let fd = open(format!("self/attr/apparmor/{file}")).map_err(failed)?;
    rustix::io::write(&fd, format!("{verb} {profile}").as_bytes()).map(drop).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_asked_whose_text_it_holds() {
        let of = |names: &[&str]| {
            let lines: Vec<String> = names.iter().map(|n| format!("{n} (enforce)\n")).collect();
            Loaded::of(&lines.concat())
        };
        let own = mark();
        let another = |marks: &[&str]| Loaded::Another { marks: marks.iter().map(ToString::to_string).collect() };
        assert_eq!(of(&["docker-default", "rrun-default-of-mine"]), Loaded::No);
        assert_eq!(of(&["docker-default", "rrun-default", &own]), Loaded::Yes);
        assert_eq!(of(&["rrun-default"]), another(&[]), "before there were marks");
        let old = "rrun-default//text-0badcafe";
        assert_eq!(of(&["rrun-default", old]), another(&[old]));
        assert_eq!(of(&["rrun-default", &own, old]), another(&[old]), "which of them came last?");
    }

    #[test]
    fn the_mark_is_inside_the_profile() {
        let text = marked();
        assert!(
            text.starts_with("# rrun-default") && text.ends_with(&format!("profile text-{TEXT:08x} {{\n  }}\n}}\n"))
        );
        assert_eq!(text.matches('{').count(), text.matches('}').count());
        let commands = load_commands(&["rrun-default//text-0badcafe".into()]);
        assert_eq!(commands[1], "printf %s rrun-default//text-0badcafe > /sys/kernel/security/apparmor/.remove");
    }
}
