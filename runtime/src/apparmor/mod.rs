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

/// The names of the loaded profiles, one a line with its mode. Not there: the kernel has no AppArmor,
/// it is off, or (in a container) its policy is out of reach.
const LOADED: &str = "/sys/kernel/security/apparmor/profiles";

/// AppArmor on a machine where it is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Whether [`DEFAULT`] is loaded.
    pub default_loaded: bool,
    /// Where the compiler of profiles is; only looked for if it is needed.
    pub parser: Option<PathBuf>,
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
        let default_loaded = loaded.lines().any(|l| l.split(" (").next() == Some(DEFAULT));
        let parser = if default_loaded { None } else { find_parser() };
        Some(Facts { default_loaded, parser })
    }
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
pub(crate) fn load_command() -> String {
    format!("apparmor_parser --replace --skip-cache <<'PROFILE'\n{PROFILE}PROFILE")
}

/// The file in `/proc/self/attr/apparmor` that is written to, and the word before the profile's name.
pub(crate) fn request(now: bool) -> (&'static str, &'static str) {
    if now { ("current", "changeprofile") } else { ("exec", "exec") }
}

/// Compiles and loads [`DEFAULT`]. Two at once are no harm: the second replaces the first.
pub(crate) fn load_default(parser: &Path) -> Result<()> {
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
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(PROFILE.as_bytes()));
    let out = child.wait_with_output().map_err(|e| failed(e.to_string()))?;
    match out.status.success() {
        true => Ok(()),
        false => Err(failed(String::from_utf8_lossy(&out.stderr).trim().to_string())),
    }
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
