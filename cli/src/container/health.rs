//! The health check: a program in the container, run by its monitor's loop between everything else.
//!
//! Nothing here waits: the program is launched as `rrun exec` would, its output is read as it comes,
//! and its end is one of the children that the monitor reaps.

use super::events;
use super::record::{Config, Record};
use super::request::health::HealthConfig;
use super::request::process::forget_terminal;
use super::spec::run_spec;
use crate::context::Context;
use plan::{Error, Result};
use runtime::exec::{Io, Launched};
use runtime::host::HostFacts;
use runtime::join::{self, JoinSpec};
use runtime::relay::Ends;
use runtime::state::{self, Health, Probe, State};
use rustix::fs::OFlags;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, RawFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Docker's defaults.
const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_secs(5);
const RETRIES: i64 = 3;
/// How much of a check's output is kept, and how many checks.
const MOST_OUTPUT: usize = 4096;
const MOST_PROBES: usize = 5;

/// The check of a container, if it has one.
fn config(config: &Config) -> Option<HealthConfig> {
    let health: HealthConfig = serde_json::from_value(config.healthcheck.clone()?).ok()?;
    match health.test.first().map(String::as_str) {
        None | Some("" | "NONE") => None,
        Some(_) => Some(health),
    }
}

/// The health of a container that is about to run.
pub fn begins(of: &Config) -> Option<Health> {
    config(of).map(|_| Health::Starting)
}

/// What is executed: `CMD` and words, `CMD-SHELL` and a line for the image's shell, or (as old images have it)
/// just words.
fn command(test: &[String], shell: Option<&Vec<String>>) -> Vec<String> {
    match test.split_first() {
        Some((kind, words)) if kind == "CMD" => words.to_vec(),
        Some((kind, words)) if kind == "CMD-SHELL" => {
            let shell = shell.filter(|s| !s.is_empty()).cloned();
            let mut command = shell.unwrap_or_else(|| vec!["/bin/sh".into(), "-c".into()]);
            command.push(words.join(" "));
            command
        }
        _ => test.to_vec(),
    }
}

fn or_default(nanoseconds: i64, default: Duration) -> Duration {
    match u64::try_from(nanoseconds) {
        Ok(n) if n > 0 => Duration::from_nanos(n),
        _ => default,
    }
}

/// Runs the checks and keeps the state.
pub struct Checker<'a> {
    ctx: &'a Context,
    record: &'a Record,
    state: &'a mut State,
    config: HealthConfig,
    born: Instant,
    next: Instant,
    running: Option<Running>,
    /// What the neighbours have not been told yet.
    news: Option<Health>,
}

/// A check under way.
struct Running {
    program: Launched,
    output: Option<File>,
    text: Vec<u8>,
    start: String,
    deadline: Instant,
    timed_out: bool,
}

impl<'a> Checker<'a> {
    /// `None`: there is nothing to check.
    pub fn new(ctx: &'a Context, record: &'a Record, state: &'a mut State) -> Option<Checker<'a>> {
        let config = config(&record.config)?;
        let born = Instant::now();
        let news = state.health;
        let mut checker = Checker { ctx, record, state, config, born, next: born, running: None, news };
        checker.next = born + checker.interval();
        Some(checker)
    }

    /// More often until it is healthy for the first time, within the start period.
    fn interval(&self) -> Duration {
        let period = or_default(self.config.start_period, Duration::ZERO);
        let starting = self.state.health == Some(Health::Starting) && self.born.elapsed() < period;
        match starting {
            true => or_default(self.config.start_interval, START_INTERVAL),
            false => or_default(self.config.interval, INTERVAL),
        }
    }

    /// The health, once after each change.
    pub fn news(&mut self) -> Option<Health> {
        self.news.take()
    }

    /// The descriptor that the running check's output comes from.
    pub fn output(&self) -> Option<RawFd> {
        self.running.as_ref()?.output.as_ref().map(AsRawFd::as_raw_fd)
    }

    pub fn timeout(&self) -> Option<Duration> {
        let due = match &self.running {
            Some(running) if running.timed_out => return None,
            Some(running) => running.deadline,
            None => self.next,
        };
        Some(due.saturating_duration_since(Instant::now()))
    }

    pub fn tick(&mut self) {
        let now = Instant::now();
        match &mut self.running {
            Some(running) if !running.timed_out && running.deadline <= now => {
                running.timed_out = true;
                // Its end is seen like any other's.
                let _ = runtime::sys::pidfd::send_signal(&running.program.pidfd, libc::SIGKILL);
            }
            None if self.next <= now => self.begin(),
            _ => {}
        }
    }

    /// Takes in what the check says, up to what is kept of it.
    pub fn listen(&mut self) {
        let Some(running) = &mut self.running else { return };
        let Some(pipe) = &mut running.output else { return };
        let mut chunk = [0u8; 4096];
        match pipe.read(&mut chunk) {
            Ok(0) => running.output = None,
            Ok(n) => {
                let room = MOST_OUTPUT.saturating_sub(running.text.len());
                running.text.extend_from_slice(&chunk[..n.min(room)]);
            }
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => running.output = None,
        }
    }

    fn begin(&mut self) {
        let start = plan::time::now_rfc3339();
        match self.launch() {
            Ok(None) => self.next = Instant::now() + self.interval(),
            Ok(Some((program, output))) => {
                let deadline = Instant::now() + or_default(self.config.timeout, TIMEOUT);
                let (output, text) = (Some(output), Vec::new());
                self.running = Some(Running { program, output, text, start, deadline, timed_out: false });
            }
            Err(e) => self.note(start, -1, e.to_string()),
        }
    }

    /// `None`: it is paused, and is not asked.
    fn launch(&self) -> Result<Option<(Launched, File)>> {
        let facts = HostFacts::observe()?;
        let spec = run_spec(self.ctx, self.record)?;
        if runtime::cgroup::is_frozen(&spec.cgroup.path, &facts.cgroup) {
            return Ok(None);
        }
        let target = state::open(self.state)?.ok_or_else(|| Error::conflict("the container has ended"))?;
        let mut process = spec.process;
        process.args = command(&self.config.test, self.record.config.shell.as_ref());
        forget_terminal(&mut process.env, &self.record.config);
        (process.tty, process.init, process.console_size) = (false, false, None);
        let join = JoinSpec { pid: self.state.pid, seccomp: spec.seccomp, cgroup: spec.cgroup.path, process };
        let pipes = runtime::monitor::pipes(false)?;
        let Ends::Pipes { stdout, .. } = pipes.ends else { return Err(Error::system("pipes were asked for")) };
        let stderr = pipes.stdout.try_clone().map_err(|e| Error::io("duplicate a pipe", &e))?;
        rustix::fs::fcntl_setfl(&stdout, OFlags::NONBLOCK)
            .map_err(|e| Error::os("prepare a pipe", e.raw_os_error()))?;
        let io = Io::Pipes { stdin: pipes.stdin, stdout: pipes.stdout, stderr };
        join::launch(&join, target, &facts, io).map(|program| Some((program, File::from(stdout))))
    }

    /// A child of the monitor's has ended: perhaps it was the check.
    pub fn ended(&mut self, pid: i32, status: i32) {
        if self.running.as_ref().is_none_or(|r| r.program.pid != pid) {
            return;
        }
        // What it said last is in the pipe; what it left behind may keep that open, and is not waited for.
        for _ in 0..=MOST_OUTPUT / 512 {
            self.listen();
        }
        let Some(running) = self.running.take() else { return };
        let Running { program, text, start, timed_out, .. } = running;
        if timed_out {
            let limit = or_default(self.config.timeout, TIMEOUT);
            return self.note(start, -1, format!("Health check exceeded timeout ({})", seconds(limit)));
        }
        match program.failure() {
            Some(e) => self.note(start, -1, e.to_string()),
            None => {
                let code = runtime::relay::Ending::of(status).code;
                self.note(start, code, String::from_utf8_lossy(&text).into_owned());
            }
        }
    }

    /// Docker's arithmetic of failures.
    fn note(&mut self, start: String, exit_code: i32, output: String) {
        let before = self.state.health;
        let excess = (self.state.probes.len() + 1).saturating_sub(MOST_PROBES);
        self.state.probes.drain(..excess);
        self.state.probes.push(Probe { start, end: plan::time::now_rfc3339(), exit_code, output });
        if exit_code == 0 {
            self.state.failing_streak = 0;
            self.state.health = Some(Health::Healthy);
        } else {
            let period = or_default(self.config.start_period, Duration::ZERO);
            // A container that has never been healthy has that long to become so.
            if before != Some(Health::Starting) || self.born.elapsed() >= period {
                self.state.failing_streak = self.state.failing_streak.saturating_add(1);
                let retries = if self.config.retries > 0 { self.config.retries } else { RETRIES };
                if i64::from(self.state.failing_streak) >= retries {
                    self.state.health = Some(Health::Unhealthy);
                }
            }
        }
        self.next = Instant::now() + self.interval();
        // Where there is no room the next check tries again.
        let _ = state::save(&self.state_dir(), self.state);
        if let Some(health) = self.state.health.filter(|_| before != self.state.health) {
            self.news = Some(health);
            events::health(self.ctx, self.record, health);
        }
    }

    fn state_dir(&self) -> PathBuf {
        self.ctx.state_dir(&self.record.id)
    }
}

/// As Go prints durations of this size.
fn seconds(limit: Duration) -> String {
    match limit.subsec_nanos() {
        0 => format!("{}s", limit.as_secs()),
        _ if limit.as_secs() == 0 => format!("{}ms", limit.as_millis()),
        _ => format!("{}s", limit.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_executed() {
        let words = |w: &[&str]| w.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(command(&words(&["CMD", "a", "b"]), None), ["a", "b"]);
        assert_eq!(command(&words(&["CMD-SHELL", "a | b"]), None), ["/bin/sh", "-c", "a | b"]);
        assert_eq!(
            command(&words(&["CMD-SHELL", "x"]), Some(&words(&["/bin/bash", "-ec"]))),
            ["/bin/bash", "-ec", "x"]
        );
        let with =
            |test: &[&str]| Config { healthcheck: Some(serde_json::json!({ "Test": test })), ..Config::default() };
        assert_eq!(begins(&with(&["CMD", "x"])), Some(Health::Starting));
        assert_eq!((begins(&with(&["NONE"])), begins(&with(&[])), begins(&Config::default())), (None, None, None));
    }
}
