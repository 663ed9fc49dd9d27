//! Signals to the process that a state names, and waiting for its end.

use super::{Identity, State, boot_id};
use crate::sys::pidfd;
use plan::{Error, Result};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// How long the kernel may take to end a process after SIGKILL. It is instant unless the process
/// hangs in uninterruptible sleep (a dead NFS server, a failing disk).
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// Whether the container's first process lives.
pub fn is_alive(state: &State) -> bool {
    same_boot(state) && container(state).is_alive()
}

/// Whether its monitor lives.
pub fn monitor_alive(state: &State) -> bool {
    same_boot(state) && monitor(state).is_alive()
}

/// The container's first process, to be watched or signalled; `None` when it is gone.
pub fn open(state: &State) -> Result<Option<OwnedFd>> {
    if !same_boot(state) {
        return Ok(None);
    }
    open_process(container(state))
}

/// The monitor, likewise: a `poll` on it ends when the monitor does.
pub fn open_monitor(state: &State) -> Result<Option<OwnedFd>> {
    if !same_boot(state) {
        return Ok(None);
    }
    open_process(monitor(state))
}

/// Sends signal number `number` to the container's first process.
pub fn signal(state: &State, number: i32) -> Result<()> {
    let process = open(state)?.ok_or_else(|| not_running(state))?;
    send(state, &process, number)
}

/// Tells its monitor to end the container, or not to start it again. Nobody there is no error.
pub fn signal_monitor(state: &State, number: i32) -> Result<()> {
    let Some(process) = open_monitor(state)? else { return Ok(()) };
    match pidfd::send_signal(process, number) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(e) => Err(Error::os(format!("signal the monitor of container {}", state.id), e.raw_os_error())),
    }
}

/// Ends the container: `number` first, then, if it still lives after `patience`, SIGKILL. `None`
/// waits forever. Success if it was not running at all. Returns when the process has ended; its
/// monitor may still be cleaning up.
///
/// `sent` is called after each signal with its number: what stands still (paused) hears of none before it runs again.
pub fn stop(
    state: &State,
    number: i32,
    patience: Option<Duration>,
    sent: &mut dyn FnMut(i32) -> Result<()>,
) -> Result<()> {
    let Some(process) = open(state)? else { return Ok(()) };
    send(state, &process, number)?;
    sent(number)?;
    if until_dead(&process, patience)? {
        return Ok(());
    }
    send(state, &process, libc::SIGKILL)?;
    sent(libc::SIGKILL)?;
    if until_dead(&process, Some(KILL_PATIENCE))? {
        return Ok(());
    }
    Err(Error::system(format!("container {} does not end", state.id))
        .with_cause(format!("process {} survived SIGKILL for {} s", state.pid, KILL_PATIENCE.as_secs()))
        .with_hint(format!(
            "`cat /proc/{}/stack` shows what it waits for: mostly a disk or a network file system",
            state.pid
        )))
}

/// Waits until the container's first process has ended, at most `timeout`; says whether it has.
pub fn wait(state: &State, timeout: Option<Duration>) -> Result<bool> {
    match open(state)? {
        Some(process) => until_dead(&process, timeout),
        None => Ok(true),
    }
}

fn container(state: &State) -> Identity {
    Identity { pid: state.pid, start_time: state.start_time }
}

fn monitor(state: &State) -> Identity {
    Identity { pid: state.monitor_pid, start_time: state.monitor_start_time }
}

/// An unreadable boot id (no /proc?) counts as another boot: better no signal than one to a stranger.
fn same_boot(state: &State) -> bool {
    boot_id().is_ok_and(|now| now == state.boot_id)
}

/// The pidfd is opened first and the start time read after that: if it agrees, the pidfd cannot
/// mean anything else, whatever happens to the pid from now on.
fn open_process(identity: Identity) -> Result<Option<OwnedFd>> {
    if identity.pid <= 1 {
        return Ok(None);
    }
    let Some(pid) = Pid::from_raw(identity.pid) else { return Ok(None) };
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(fd) => Ok(identity.is_alive().then_some(fd)),
        // EINVAL: the pid now belongs to a thread, which is not a process of ours either.
        Err(Errno::SRCH | Errno::INVAL) => Ok(None),
        Err(e) => Err(Error::os(format!("open process {}", identity.pid), e.raw_os_error())),
    }
}

fn send(state: &State, process: impl AsFd, number: i32) -> Result<()> {
    match pidfd::send_signal(process, number) {
        Ok(()) => Ok(()),
        Err(Errno::SRCH) => Err(not_running(state)),
        Err(Errno::INVAL) => Err(Error::invalid(format!("invalid signal: {number}"))),
        Err(e) => Err(Error::os(format!("signal container {}", state.id), e.raw_os_error())),
    }
}

fn not_running(state: &State) -> Error {
    Error::conflict(format!("container {} is not running", state.id))
}

fn until_dead(process: impl AsFd, timeout: Option<Duration>) -> Result<bool> {
    pidfd::wait(process, timeout).map_err(|e| Error::os("wait for the container's end", e.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Child, Command, Stdio};
    use std::time::Instant;

    fn running(child: &Child) -> State {
        let mut state = State::created("c");
        state.set_running(child.id().cast_signed()).unwrap();
        state
    }

    /// Nothing here is ever paused.
    fn awake(_: i32) -> Result<()> {
        Ok(())
    }

    fn shell(script: &str) -> Child {
        Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap()
    }

    fn ready(child: &mut Child) {
        let mut byte = [0];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut byte).unwrap();
    }

    #[test]
    fn a_willing_process_is_stopped_by_the_signal_alone() {
        let mut child = shell("trap 'exit 7' USR1; echo; while :; do sleep 0.01; done");
        ready(&mut child);
        let state = running(&child);
        assert!(is_alive(&state) && monitor_alive(&state));
        stop(&state, libc::SIGUSR1, Some(Duration::from_secs(30)), &mut awake).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(7));
        assert!(!is_alive(&state));
        assert!(wait(&state, None).unwrap());
        stop(&state, libc::SIGTERM, None, &mut awake).unwrap();
        let e = signal(&state, libc::SIGTERM).unwrap_err();
        assert_eq!(e.to_string(), "container c is not running");
    }

    #[test]
    fn an_unwilling_process_is_killed_after_the_timeout() {
        let mut child = shell("trap '' TERM; echo; while :; do sleep 0.01; done");
        ready(&mut child);
        let state = running(&child);
        let begin = Instant::now();
        stop(&state, libc::SIGTERM, Some(Duration::from_millis(150)), &mut awake).unwrap();
        assert!(begin.elapsed() >= Duration::from_millis(150));
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    }

    #[test]
    fn a_stranger_with_our_pid_is_never_signalled() {
        let mut stranger = Command::new("sleep").arg("60").spawn().unwrap();
        let truth = running(&stranger);
        let mut reused = truth.clone();
        reused.start_time -= 1;
        let mut other_boot = truth.clone();
        other_boot.boot_id = "00000000-0000-0000-0000-000000000000".into();
        for wrong in [reused, other_boot] {
            assert!(!is_alive(&wrong));
            assert!(signal(&wrong, libc::SIGKILL).is_err());
            stop(&wrong, libc::SIGKILL, None, &mut awake).unwrap();
        }
        for pid in [i32::MIN, -1, 0, 1] {
            let wrong = State { pid, ..truth.clone() };
            assert!(signal(&wrong, libc::SIGKILL).is_err());
        }
        assert!(stranger.try_wait().unwrap().is_none());
        assert!(!wait(&truth, Some(Duration::from_millis(5))).unwrap());
        assert!(signal(&truth, 0x4000).unwrap_err().to_string().contains("invalid signal"));
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    }
}
