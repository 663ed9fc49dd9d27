//! Control groups: where they are mounted, making one, ending what runs in it, removing it.
//!
//! Files are written directly. The rules that keep this fast: a process is *born* in its v2 group
//! (`CLONE_INTO_CGROUP`) or writes `0` into each v1 `tasks` file itself; nobody ever writes a pid
//! into `cgroup.procs`, which waits for an RCU grace period (6–10 ms).

mod devices;
mod freezer;
mod io;
mod layout;
mod limits;
pub mod monitors;
mod usage;

pub use devices::{DeviceRule, attach, rules};
pub use freezer::{freeze, is_frozen, thaw};
pub use io::{IoLimit, IoRate};
pub use layout::{Hierarchy, Layout, Unified};
pub use limits::{Setting, check, settings, update};
pub use usage::{Usage, usage};

use crate::host::HostFacts;
use plan::{Error, Result, ResultExt};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long [`remove`] waits for killed processes to be gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// The directories of the group at `path` (relative, `rrun/<id>`), one per hierarchy.
pub fn directories(path: &Path, layout: &Layout) -> Vec<PathBuf> {
    let v1 = layout.v1.iter().map(|h| h.root.join(path));
    v1.chain(layout.unified.iter().map(|u| u.root.join(path))).collect()
}

/// Makes the group's directories in the hierarchies of `layout`, and writes its limits. Parents that are
/// missing are made and prepared; they stay, like the controllers switched on for them, for the next
/// container. Returns what the kernel has no file for, in words.
pub fn create(path: &Path, layout: &Layout, settings: &[Setting]) -> Result<Vec<String>> {
    layout.v1.iter().try_for_each(|h| make_v1(h, path))?;
    if let Some(unified) = &layout.unified {
        make_dirs(&unified.root, path, |_| Ok(()))?;
        let needed = settings.iter().filter_map(|s| s.controller.as_deref());
        layout::enable_controllers(unified, path, needed)?;
    }
    write_settings(settings)
}

/// The group's directory in a v1 hierarchy.
fn make_v1(h: &Hierarchy, path: &Path) -> Result<()> {
    make_dirs(&h.root, path, |dir| {
        if h.controllers.iter().any(|c| c == "cpuset") { layout::open_cpuset(&h.root, dir) } else { Ok(()) }
    })
}

/// mkdir of the whole relative path under `root`; `prepare` sees each ancestor that was missing.
fn make_dirs(root: &Path, path: &Path, prepare: impl Fn(&Path) -> Result<()>) -> Result<()> {
    let dir = root.join(path);
    match rustix::fs::mkdir(&dir, Mode::from(0o755)) {
        Ok(()) => return Ok(()),
        Err(Errno::EXIST) => {
            return Err(Error::conflict(format!("cgroup {} exists already", dir.display()))
                .with_hint("a container that ended badly left it: `rrun rm -f` it, or rmdir the directory"));
        }
        Err(Errno::NOENT) => {}
        Err(e) => return Err(mkdir_error(&dir, e)),
    }
    let mut parent = root.to_path_buf();
    for name in path.parent().into_iter().flat_map(Path::components) {
        parent.push(name);
        match rustix::fs::mkdir(&parent, Mode::from(0o755)) {
            Ok(()) => prepare(&parent)?,
            Err(Errno::EXIST) => {}
            Err(e) => return Err(mkdir_error(&parent, e)),
        }
    }
    rustix::fs::mkdir(&dir, Mode::from(0o755)).map_err(|e| mkdir_error(&dir, e))
}

fn mkdir_error(dir: &Path, e: Errno) -> Error {
    let error = Error::os(format!("mkdir {}", dir.display()), e.raw_os_error());
    match e {
        Errno::ROFS => error.with_hint("the cgroup file system is mounted read-only: is this itself a container?"),
        Errno::ACCESS | Errno::PERM => error.with_hint("making cgroups takes root"),
        Errno::NOSPC => error.with_hint("a parent's cgroup.max.descendants or cpuset is exhausted"),
        _ => error,
    }
}

/// Consecutive values of one file go through one descriptor, each by a write of its own, as the v1
/// device controller wants them. Returns what could not be set because this kernel lacks the file.
fn write_settings(settings: &[Setting]) -> Result<Vec<String>> {
    let mut open: Option<(&Path, OwnedFd)> = None;
    let mut lacking = Vec::new();
    for s in settings {
        let mut value = s.value.as_str();
        let same = matches!(&open, Some((path, _)) if *path == s.file);
        if !same {
            let mut opened = open_file(&s.file);
            if let (Err(Errno::NOENT), Some((file, other))) = (&opened, &s.otherwise) {
                (opened, value) = (open_file(file), other.as_str());
            }
            match opened {
                Ok(fd) => open = Some((&s.file, fd)),
                Err(Errno::NOENT) if s.lacking.is_some() => {
                    lacking.extend(s.lacking.clone().filter(|words| !words.is_empty() && !lacking.contains(words)));
                    continue;
                }
                Err(e) => return Err(s.error(e)),
            }
        }
        if let Some((_, fd)) = &open {
            rustix::io::write(fd, value.as_bytes()).map_err(|e| s.error(e))?;
        }
    }
    Ok(lacking)
}

fn open_file(path: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
}

/// The v2 directory to be born in, if the host has a v2 hierarchy at all (hybrid ones count).
pub fn open_unified(dir: &Path) -> Result<OwnedFd> {
    rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .doing(|| format!("open cgroup {}", dir.display()))
}

/// Where in the v2 group `dir` the process `pid` sits. `path` is that group's own, `rrun/<id>`. `None` if
/// the process is gone or not in the group.
pub fn seat(pid: i32, dir: &Path, path: &Path) -> Option<PathBuf> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("0::"))?;
    Some(dir.join(below(Path::new(line), path)?))
}

/// What follows `group` in `seat`. Something may precede it: our mount may show a part of the hierarchy.
fn below(seat: &Path, group: &Path) -> Option<PathBuf> {
    let (seat, group): (Vec<_>, Vec<_>) = (seat.components().collect(), group.components().collect());
    let at = seat.windows(group.len().max(1)).position(|w| w == group)?;
    Some(seat[at + group.len()..].iter().collect())
}

/// Opens the doors of v1 groups for a process that will enter by them: half the work of it.
///
/// # Errors
/// Of open(2).
pub fn open_doors(dirs: &[PathBuf]) -> rustix::io::Result<Vec<OwnedFd>> {
    dirs.iter().map(|dir| open_file(&dir.join("tasks"))).collect()
}

/// Moves the calling process, which must be single-threaded and freshly cloned, into v1 groups, by their `doors` if
/// somebody has opened those.
pub fn enter(dirs: &[PathBuf], doors: &[OwnedFd]) -> Result<()> {
    for (i, dir) in dirs.iter().enumerate() {
        let entered = match doors.get(i) {
            Some(door) => rustix::io::write(door, b"0"),
            None => open_file(&dir.join("tasks")).and_then(|door| rustix::io::write(door, b"0")),
        };
        entered.map_err(|e| {
            let error = Error::os(format!("join cgroup {}", dir.display()), e.raw_os_error());
            match e {
                Errno::INVAL => error.with_hint(
                    "a realtime (SCHED_FIFO/RR) caller cannot enter a fresh cpu cgroup: start rrun with chrt -o 0",
                ),
                Errno::NOSPC => error.with_hint("its cpuset.cpus or cpuset.mems is empty"),
                _ => error,
            }
        })?;
    }
    Ok(())
}

/// Sends SIGKILL to everything in the group.
pub fn kill(path: &Path, facts: &HostFacts) -> Result<()> {
    if let Some(unified) = &facts.cgroup.unified {
        // Linux 5.14; atomic against forks.
        match std::fs::write(unified.root.join(path).join("cgroup.kill"), "1") {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io(format!("kill cgroup {}", path.display()), &e)),
        }
    }
    for dir in directories(path, &facts.cgroup) {
        for pid in processes(&dir) {
            kill_one(pid);
        }
    }
    Ok(())
}

/// The processes of a group, its sub-groups' included.
pub fn members(path: &Path, layout: &Layout) -> Vec<i32> {
    fn below(dir: &Path, found: &mut Vec<i32>) {
        found.extend(processes(dir));
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).for_each(|e| below(&e.path(), found));
    }
    let mut found = Vec::new();
    // A process is in one group of each hierarchy: one of them tells all.
    if let Some(dir) = directories(path, layout).first() {
        below(dir, &mut found);
    }
    found.retain(|pid| *pid > 0);
    found.sort_unstable();
    found
}

/// The names of the groups right below one.
pub fn children(path: &Path, layout: &Layout) -> Vec<String> {
    let dirs = directories(path, layout);
    let entries = dirs.iter().flat_map(|dir| std::fs::read_dir(dir).into_iter().flatten().flatten());
    let names =
        entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).filter_map(|e| e.file_name().into_string().ok());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names.dedup();
    names
}

fn processes(dir: &Path) -> Vec<i32> {
    let text = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|l| l.parse().ok()).collect()
}

/// Never pid 0 or 1 (0 is how a process outside our pid namespace reads, and to kill(2) it means our
/// own group), and never ourselves.
fn kill_one(pid: i32) {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    if pid <= 1 || pid == own {
        return;
    }
    let Some(pid) = Pid::from_raw(pid) else { return };
    // A process that is gone already is what we want.
    if let Ok(fd) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        let _ = rustix::process::pidfd_send_signal(fd, Signal::KILL);
    }
}

/// Removes the group from every hierarchy; what is not there is removed. Processes that are left are
/// killed first. Groups made inside it by the container go too.
pub fn remove(path: &Path, facts: &HostFacts) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut killed = false;
    for dir in directories(path, &facts.cgroup) {
        loop {
            match remove_tree(&dir) {
                Ok(()) | Err(Errno::NOENT) => break,
                // A process is in it, or one that is dying is not reaped yet.
                Err(Errno::BUSY) => {
                    if !killed {
                        kill(path, facts)?;
                        killed = true;
                    }
                    if Instant::now() > deadline {
                        return Err(Error::os(format!("rmdir {}", dir.display()), libc::EBUSY)
                            .with_hint("a process in uninterruptible sleep keeps it; see cgroup.procs in there"));
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(e) => return Err(Error::os(format!("rmdir {}", dir.display()), e.raw_os_error())),
            }
        }
    }
    Ok(())
}

/// rmdir, and only if that finds children or processes, children first.
fn remove_tree(dir: &Path) -> rustix::io::Result<()> {
    match rustix::fs::rmdir(dir) {
        Err(Errno::BUSY) => {}
        other => return other,
    }
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            match remove_tree(&entry.path()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(e) => return Err(e),
            }
        }
    }
    rustix::fs::rmdir(dir)
}

/// How many processes of the group the kernel killed for want of memory.
pub fn oom_kills(path: &Path, facts: &HostFacts) -> u64 {
    let layout = &facts.cgroup;
    let file = match layout.v1_root("memory") {
        Some(root) => root.join(path).join("memory.oom_control"),
        None => match &layout.unified {
            Some(u) => u.root.join(path).join("memory.events"),
            None => return 0,
        },
    };
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let count = text.lines().find_map(|l| l.strip_prefix("oom_kill "));
    count.and_then(|n| n.trim().parse().ok()).unwrap_or(0)
}

/// Whether the group has a directory anywhere: a container that was never cleaned up has.
pub fn exists(path: &Path, facts: &HostFacts) -> bool {
    directories(path, &facts.cgroup).iter().any(|d| rustix::fs::statat(CWD, d, rustix::fs::AtFlags::empty()).is_ok())
}

/// Loads and attaches the v2 device program for `rules` to the group at `dir`.
pub fn filter_devices(dir: &Path, rules: &[DeviceRule]) -> Result<()> {
    attach(rules, open_unified(dir)?.as_fd()).map_err(|e| {
        Error::os(format!("restrict devices of cgroup {}", dir.display()), e.raw_os_error()).with_hint(
            "device control on cgroup v2 takes CONFIG_CGROUP_BPF and CAP_SYS_ADMIN (or CAP_BPF + CAP_NET_ADMIN)",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_is_found_below_its_group_only() {
        let find = |seat: &str| below(Path::new(seat), Path::new("rrun/c0ffee"));
        assert_eq!(find("/rrun/c0ffee/init.scope").unwrap(), Path::new("init.scope"));
        assert_eq!(find("/outer/rrun/c0ffee/a/b").unwrap(), Path::new("a/b"));
        assert_eq!(find("/rrun/c0ffee").unwrap(), Path::new(""));
        assert_eq!(find("/rrun/c0ffee2/a"), None);
        assert_eq!(find("/../.."), None);
        assert_eq!(below(Path::new("/a"), Path::new("")), None);
    }
}
