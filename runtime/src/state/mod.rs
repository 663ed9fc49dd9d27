//! `state.json`: what is known of a container's process, and whether it is still true.
//!
//! The file lives in volatile storage and is a hint; the kernel is the truth. A process is the one
//! we mean only if its pid, its start time and the boot all agree (podman once signalled strangers
//! for lack of that), and signals go through a pidfd, which cannot come to mean another process.

mod identity;
mod lifecycle;

pub use identity::{Identity, boot_id};
pub use lifecycle::{is_alive, monitor_alive, open, open_monitor, signal, signal_monitor, stop, wait};

use crate::monitor::Marks;
use plan::{Error, Kind, Result, ResultExt};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The version written by this rrun; files of a newer one are refused and left alone.
pub const VERSION: u32 = 1;

/// The name of the file in a container's volatile directory.
pub const FILE: &str = "state.json";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Created,
    Running,
    /// Ended, and about to be started again by its monitor.
    Restarting,
    Exited,
}

/// What the health check says. Those who look for somebody that does its work leave out `Unhealthy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    Starting,
    Healthy,
    Unhealthy,
}

impl std::fmt::Display for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Health::Starting => "starting",
            Health::Healthy => "healthy",
            Health::Unhealthy => "unhealthy",
        })
    }
}

/// One run of the health check, under Docker's names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Probe {
    /// RFC 3339.
    pub start: String,
    pub end: String,
    /// -1: it did not run, or not to its end.
    pub exit_code: i32,
    pub output: String,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Status::Created => "created",
            Status::Running => "running",
            Status::Restarting => "restarting",
            Status::Exited => "exited",
        })
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    pub version: u32,
    /// 64 hex digits.
    pub id: String,
    pub status: Status,
    /// The container's first process as the host sees it; 0 when there is none.
    #[serde(default)]
    pub pid: i32,
    /// Clock ticks since boot (field 22 of `/proc/<pid>/stat`).
    #[serde(default)]
    pub start_time: u64,
    /// The boot that both processes belong to.
    #[serde(default)]
    pub boot_id: String,
    /// 0 when there is none.
    #[serde(default)]
    pub monitor_pid: i32,
    #[serde(default)]
    pub monitor_start_time: u64,
    /// As the shell counts: the program's own, or 128 + signal.
    #[serde(default)]
    pub exit_code: i32,
    /// Why it could not start, or empty.
    #[serde(default)]
    pub error: String,
    #[serde(default)]
    pub oom_killed: bool,
    /// RFC 3339, or [`plan::time::ZERO`].
    #[serde(default = "never")]
    pub started_at: String,
    #[serde(default = "never")]
    pub finished_at: String,
    /// Lines of output that the log could not take (its disk was full).
    #[serde(default)]
    pub log_dropped: u64,
    /// How often its monitor has started it again.
    #[serde(default)]
    pub restart_count: u32,
    /// The user ended it: `unless-stopped` leaves it down.
    #[serde(default)]
    pub stopped: bool,
    /// `None`: it has no health check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// Failed checks in a row, and the last few.
    #[serde(default)]
    pub failing_streak: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub probes: Vec<Probe>,
    /// Its output pipes, for a monitor that takes over (see `monitor::reclaim`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub streams: Option<Marks>,
    /// What a later rrun of the same version added: kept through a rewrite.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

fn never() -> String {
    plan::time::ZERO.into()
}

impl State {
    /// A container that has not been started.
    pub fn created(id: impl Into<String>) -> State {
        State {
            version: VERSION,
            id: id.into(),
            status: Status::Created,
            pid: 0,
            start_time: 0,
            boot_id: String::new(),
            monitor_pid: 0,
            monitor_start_time: 0,
            exit_code: 0,
            error: String::new(),
            oom_killed: false,
            started_at: never(),
            finished_at: never(),
            log_dropped: 0,
            restart_count: 0,
            stopped: false,
            health: None,
            failing_streak: 0,
            probes: Vec::new(),
            streams: None,
            extra: Map::new(),
        }
    }

    /// Records that `pid` runs now, watched by the calling process. `ESRCH` if it is gone already
    /// and reaped.
    pub fn set_running(&mut self, pid: i32) -> Result<()> {
        let container =
            Identity::of(pid).ok_or_else(|| Error::os(format!("read the start time of process {pid}"), libc::ESRCH))?;
        let monitor = Identity::of(std::process::id().cast_signed())
            .ok_or_else(|| Error::os("read the monitor's own start time", libc::ESRCH))?;
        self.status = Status::Running;
        self.boot_id = boot_id()?;
        (self.pid, self.start_time) = (container.pid, container.start_time);
        (self.monitor_pid, self.monitor_start_time) = (monitor.pid, monitor.start_time);
        self.started_at = plan::time::now_rfc3339();
        self.finished_at = never();
        self.exit_code = 0;
        self.oom_killed = false;
        self.stopped = false;
        self.error.clear();
        Ok(())
    }

    /// Records an end that its monitor is going to follow by another start.
    pub fn set_restarting(&mut self, exit_code: i32, oom_killed: bool) {
        let monitor = (self.monitor_pid, self.monitor_start_time);
        self.set_exited(exit_code, oom_killed);
        (self.monitor_pid, self.monitor_start_time) = monitor;
        self.status = Status::Restarting;
        self.restart_count = self.restart_count.saturating_add(1);
    }

    /// Records the end. The pid is forgotten, so that nothing can mistake its successor for it.
    pub fn set_exited(&mut self, exit_code: i32, oom_killed: bool) {
        self.status = Status::Exited;
        self.exit_code = exit_code;
        self.oom_killed = oom_killed;
        self.finished_at = plan::time::now_rfc3339();
        (self.pid, self.start_time) = (0, 0);
        (self.monitor_pid, self.monitor_start_time) = (0, 0);
        self.streams = None;
        // Docker's word for one that is not checked any more.
        self.health = self.health.map(|_| Health::Unhealthy);
    }
}

/// Reads the state in `dir` (a container's volatile directory); `None` when there is none.
pub fn load(dir: &Path) -> Result<Option<State>> {
    let path = dir.join(FILE);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(format!("read {}", path.display()), &e)),
    };
    let broken = |cause: String| {
        Error::new(Kind::Invalid, format!("{} is damaged", path.display()))
            .with_cause(cause)
            .with_hint("remove the container with `rrun rm -f`; its process, if any, is found by its cgroup")
    };
    // The version is looked at first: a newer layout need not parse as ours.
    let value: Value = serde_json::from_slice(&text).map_err(|e| broken(e.to_string()))?;
    match value.get("version").and_then(Value::as_u64) {
        Some(v) if v > u64::from(VERSION) => {
            return Err(Error::new(Kind::Invalid, format!("{} was written by a newer rrun", path.display()))
                .with_cause(format!("version {v}, this rrun knows up to {VERSION}"))
                .with_hint("use the newer rrun for this container"));
        }
        Some(_) => {}
        None => return Err(broken("no version".into())),
    }
    serde_json::from_value(value).map(Some).map_err(|e| broken(e.to_string()))
}

/// Writes the state into `dir`: to a temporary name, then renamed, so that no reader ever sees half
/// of it. Never synced: after a power cut the volatile directory is gone anyway.
pub fn save(dir: &Path, state: &State) -> Result<()> {
    let path = dir.join(FILE);
    // One writer per container (the lock's holder), so the name needs the pid only against the
    // remains of a killed one.
    let temporary = dir.join(format!(".{FILE}.{}", std::process::id()));
    let text = serde_json::to_vec(state).map_err(|e| Error::io(format!("encode {}", path.display()), &e.into()))?;
    let written = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&temporary)
        .and_then(|mut f| f.write_all(&text))
        .and_then(|()| fs::rename(&temporary, &path));
    if written.is_err() {
        // Best effort: what matters is the error of the write itself.
        let _ = fs::remove_file(&temporary);
    }
    written.doing(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_is_saved_is_loaded_and_private() {
        let dir = TestDir::new("state");
        assert_eq!(load(dir.path()).unwrap(), None);
        let mut state = State::created("ab".repeat(32));
        state.set_running(std::process::id().cast_signed()).unwrap();
        save(dir.path(), &state).unwrap();
        assert_eq!(load(dir.path()).unwrap(), Some(state));
        let file = dir.path().join(FILE);
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn unknown_fields_survive_a_rewrite() {
        let dir = TestDir::new("state-extra");
        let text = r#"{"version":1,"id":"x","status":"exited","exit_code":3,"checkpoint":{"a":[1]}}"#;
        fs::write(dir.path().join(FILE), text).unwrap();
        let state = load(dir.path()).unwrap().unwrap();
        assert_eq!((state.status, state.exit_code, state.pid), (Status::Exited, 3, 0));
        assert_eq!(state.started_at, plan::time::ZERO);
        save(dir.path(), &state).unwrap();
        let again: Value = serde_json::from_slice(&fs::read(dir.path().join(FILE)).unwrap()).unwrap();
        assert_eq!(again["checkpoint"]["a"][0], 1);
    }

    #[test]
    fn a_newer_version_and_rubbish_are_refused_untouched() {
        let dir = TestDir::new("state-newer");
        let file = dir.path().join(FILE);
        for (text, words) in [
            (r#"{"version":2,"everything":"different"}"#, "newer rrun"),
            (r#"{"id":"x"}"#, "no version"),
            ("{\"version\":1,", "damaged"),
            ("", "damaged"),
            (r#"{"version":1,"id":"x","status":"flying"}"#, "damaged"),
        ] {
            fs::write(&file, text).unwrap();
            let e = load(dir.path()).unwrap_err();
            assert!(e.to_string().contains(words), "{e}");
            assert!(e.hint.is_some());
            assert_eq!(fs::read_to_string(&file).unwrap(), text);
        }
    }

    #[test]
    fn a_directory_that_is_gone_is_an_error_that_names_it() {
        let e = save(Path::new("/nonexistent/c"), &State::created("x")).unwrap_err();
        assert_eq!(e.to_string(), "write /nonexistent/c/state.json: no such file or directory (ENOENT)");
    }
}
