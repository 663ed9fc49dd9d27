//! The monitor's loop: one thread, one poll, until the container has ended.

use super::clients::{Clients, Wish};
use crate::log;
use crate::relay::{BACKLOG, Ending, Ends, Program, Queue, Stream};
use crate::sys::poll::{Poll, READ, WRITE};
use crate::sys::signals::Signals;
use crate::sys::spawn;
use plan::{Error, Result};
use rustix::io::Errno;
use rustix::process::WaitOptions;
use serde_json::{Value, json};
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

/// After this long without an event, buffers are given back.
const IDLE: Duration = Duration::from_secs(1);

/// How much output waits for a slow client after the container has ended: more than its pipes held.
const LAST_WORDS: usize = 2 * 1024 * 1024;

/// What else a monitor does for its container: answering DNS, relaying ports. Driven by the monitor's
/// loop; must never block.
pub trait Service {
    /// Adds the descriptors to wait for, with the events of poll(2) (`libc::POLLIN`…).
    fn fds(&self, out: &mut Vec<(RawFd, i16)>);
    /// One of them is ready: `events` is what poll reported.
    fn ready(&mut self, fd: RawFd, events: i16);
    /// The longest it wants to wait; when the time is over, [`Service::tick`] is called.
    fn timeout(&self) -> Option<Duration>;
    /// Called at every turn of the loop, for timers.
    fn tick(&mut self);
    /// Answers a request on the monitor's socket; `None` if it knows no such request.
    fn request(&mut self, request: &Value) -> Option<Result<Value>>;
    /// A child of the monitor's other than the container has ended, with this wait status.
    fn ended(&mut self, pid: i32, status: i32);
    /// The container's terminal has so many rows and columns now.
    fn resized(&mut self, size: (u16, u16));
}

/// A monitor without further duties.
pub struct NoService;

impl Service for NoService {
    fn fds(&self, _: &mut Vec<(RawFd, i16)>) {}
    fn ready(&mut self, _: RawFd, _: i16) {}
    fn timeout(&self) -> Option<Duration> {
        None
    }
    fn tick(&mut self) {}
    fn request(&mut self, _: &Value) -> Option<Result<Value>> {
        None
    }
    fn ended(&mut self, _: i32, _: i32) {}
    fn resized(&mut self, _: (u16, u16)) {}
}

/// Everything a monitor holds for its container.
pub struct Setup<'a> {
    /// The container's first process, normally our child.
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub ends: Ends,
    /// `None` for a container without a log.
    pub log: Option<log::Writer>,
    pub listener: Option<UnixListener>,
    /// The connection of the command that waits in the foreground. Nothing of the container's output
    /// is read before it has said whether it attaches, or has hung up.
    pub attached: Option<UnixStream>,
    /// The container's stdin ends with its first attached client's (`run -i`); otherwise it stays open
    /// for the next one.
    pub stdin_once: bool,
    /// What SIGTERM to the monitor sends to the container…
    pub stop_signal: i32,
    /// …and how long after it SIGKILL follows; `None` means never.
    pub stop_timeout: Option<Duration>,
    pub service: &'a mut dyn Service,
}

/// How the container ended.
pub struct Exit {
    /// As the shell counts: 128 + signal if it was killed.
    pub code: i32,
    pub signal: Option<i32>,
    /// RFC 3339, when the process ended.
    pub finished_at: String,
    /// Lines of output that the log could not take.
    pub log_dropped: u64,
    /// The monitor was told to end it (SIGTERM): the machine goes down, or somebody wants it so.
    pub told: bool,
    /// To be sent when the end has been recorded.
    pub farewell: Farewell,
}

/// The clients that are still connected: they learn of the end only after the caller has put
/// everything in order, so that `rrun run --rm` returns when the name is free again.
pub struct Farewell {
    clients: Clients,
    code: i32,
    told: bool,
}

impl Farewell {
    /// Delivers the remaining output and the exit code to those who can take them at once, which is
    /// nearly always everyone. Call it as soon as the end is recorded: what is left to clean up need
    /// not keep anybody waiting.
    pub fn tell(&mut self) {
        self.clients.tell(self.code);
        self.told = true;
    }

    /// Delivers the rest. Returns when the last client has read it or hung up, however long that
    /// takes (`rrun run … | less`): clean up first.
    pub fn send(mut self) {
        if !self.told {
            self.tell();
        }
        self.clients.see_off();
    }
}

/// Watches over the container until it has ended and its output is read and logged.
///
/// SIGTERM and SIGINT stop the container, SIGHUP is ignored. Children that are not the container
/// (orphans that became ours) are reaped.
pub fn run(setup: Setup<'_>) -> Result<Exit> {
    let numbers =
        [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGCHLD, libc::SIGPIPE, libc::SIGXFSZ, libc::SIGQUIT];
    let signals = Signals::block(&numbers).map_err(|e| Error::os("block signals", e.raw_os_error()))?;
    spawn::become_subreaper().map_err(|e| Error::os("become a subreaper", e.raw_os_error()))?;
    let _shield = OomShield::raise();
    let mut clients = Clients::default();
    if let Some(stream) = setup.attached {
        clients.inherit(stream.into())?;
    }
    if let Some(listener) = &setup.listener {
        listener.set_nonblocking(true).map_err(|e| Error::io("prepare the monitor's socket", &e))?;
    }
    let mut watch = Watch {
        program: Program::new(setup.pid, setup.pidfd, setup.ends)?,
        log: setup.log,
        listener: setup.listener,
        clients,
        signals,
        service: setup.service,
        stdin_once: setup.stdin_once,
        stop_signal: setup.stop_signal,
        stop_timeout: setup.stop_timeout,
        kill_at: None,
        told: false,
        finished_at: None,
        ended_streams: [false; 2],
        chunk: Queue::default(),
    };
    // The first child may have ended before SIGCHLD was blocked.
    watch.reap();
    let ending = watch.until_finished()?;
    let log_dropped = watch.log.as_ref().map_or(0, log::Writer::dropped);
    let finished_at = watch.finished_at.unwrap_or_else(plan::time::now_rfc3339);
    let farewell = Farewell { clients: watch.clients, code: ending.code, told: false };
    Ok(Exit { code: ending.code, signal: ending.signal, finished_at, log_dropped, told: watch.told, farewell })
}

/// While it lives, the kernel looks for others first when memory runs out: a monitor is small, and
/// without it nobody cleans up after the container. Given back at the end, for what is started next.
struct OomShield {
    before: Option<String>,
}

impl OomShield {
    const PATH: &str = "/proc/self/oom_score_adj";

    fn raise() -> OomShield {
        let before = crate::procfs::text(Self::PATH).ok();
        // Takes CAP_SYS_RESOURCE; without it we are as any other process.
        let raised = std::fs::write(Self::PATH, "-999").is_ok();
        OomShield { before: before.filter(|_| raised) }
    }
}

impl Drop for OomShield {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = std::fs::write(Self::PATH, before);
        }
    }
}

struct Watch<'a> {
    program: Program,
    log: Option<log::Writer>,
    listener: Option<UnixListener>,
    clients: Clients,
    signals: Signals,
    service: &'a mut dyn Service,
    stdin_once: bool,
    stop_signal: i32,
    stop_timeout: Option<Duration>,
    /// When SIGKILL is due.
    kill_at: Option<Instant>,
    told: bool,
    finished_at: Option<String>,
    /// The log has been told of the end of stdout, stderr.
    ended_streams: [bool; 2],
    /// Output between being read and being passed on.
    chunk: Queue,
}

impl Watch<'_> {
    fn until_finished(&mut self) -> Result<Ending> {
        let mut poll = Poll::default();
        let mut fds = Vec::new();
        let mut idle = false;
        let mut last_event = Instant::now();
        loop {
            // While somebody is awaited, the end must wait too: the output is theirs.
            if let Some(ending) = self.program.finished()
                && !self.clients.awaited()
            {
                self.close_log();
                return Ok(ending);
            }
            let take = self.take_output();
            poll.clear();
            poll.watch(&self.signals, READ);
            self.program.watch(&mut poll, take, take);
            if let Some(listener) = &self.listener
                && self.clients.accepts()
            {
                poll.watch(listener, READ);
            }
            self.clients.watch(&mut poll);
            if let Some(busy) = self.log.as_ref().and_then(log::Writer::waits_for) {
                poll.watch(busy, WRITE);
            }
            fds.clear();
            self.service.fds(&mut fds);
            for (fd, events) in &fds {
                poll.watch_raw(*fd, *events);
            }

            let becomes_idle = !idle && last_event.elapsed() >= IDLE;
            idle |= becomes_idle;
            let timeout = self.timeout(idle);
            let waited = if becomes_idle {
                self.release();
                poll.wait_idle(timeout)
            } else {
                poll.wait(timeout)
            };
            waited.map_err(|e| Error::os("wait for events", e.raw_os_error()))?;
            if poll.any() {
                last_event = Instant::now();
                idle = false;
            }

            self.obey_signals();
            self.program.turn(&poll)?;
            self.note_end();
            if take {
                self.pass_output(&poll);
            }
            if let Some(log) = &mut self.log {
                log.flush();
            }
            if let Some(listener) = &self.listener
                && poll.events(listener) != 0
            {
                self.clients.accept(listener);
            }
            self.hear_clients(&poll);
            for (fd, _) in &fds {
                let events = poll.events_raw(*fd);
                if events != 0 {
                    self.service.ready(*fd, events);
                }
            }
            self.service.tick();
            self.clients.settle(&mut self.program, self.stdin_once);
            self.kill_if_due()?;
        }
    }

    /// Whether the container's output may be read: the one who started it has said what it wants, and
    /// no client lags too far behind. After the end, what is left in the pipes is taken in whether
    /// clients and a journal that is busy lag or not: cleaning up must not wait for them.
    fn take_output(&self) -> bool {
        let ended = self.program.ending().is_some();
        let limit = if ended { LAST_WORDS } else { BACKLOG };
        let log_lags = !ended && self.log.as_ref().is_some_and(log::Writer::is_full);
        !self.clients.awaited() && self.clients.backlog() < limit && !log_lags
    }

    fn timeout(&self, idle: bool) -> Option<Duration> {
        let kill = self.kill_at.map(|at| at.saturating_duration_since(Instant::now()));
        let idle = if idle { None } else { Some(IDLE) };
        [self.program.timeout(), self.service.timeout(), kill, idle].into_iter().flatten().min()
    }

    fn pass_output(&mut self, poll: &Poll) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.program.read(poll, stream, &mut self.chunk);
            if !self.chunk.is_empty() {
                if let Some(log) = &mut self.log {
                    log.write(stream, self.chunk.as_slice());
                }
                self.clients.output(stream, self.chunk.as_slice());
                self.chunk.clear();
            }
            if self.program.is_closed(stream)
                && !std::mem::replace(&mut self.ended_streams[stream as usize], true)
                && let Some(log) = &mut self.log
            {
                log.end(stream);
            }
        }
    }

    fn close_log(&mut self) {
        if let Some(log) = &mut self.log {
            log.close();
        }
    }

    fn hear_clients(&mut self, poll: &Poll) {
        let (service, log) = (&mut *self.service, &self.log);
        self.clients.hear(poll, &mut self.program, self.stdin_once, &mut |program, wish, attached| match wish {
            Wish::Signal(number) => program.signal(number).map(|()| json!({})),
            Wish::Resize(size) => program.resize(size).map(|()| {
                service.resized(size);
                json!({})
            }),
            Wish::Request(request) if request.get("stats").is_some() => Ok(json!({
                "pid": program.pid(),
                "clients": attached,
                "log_dropped": log.as_ref().map_or(0, log::Writer::dropped),
            })),
            Wish::Request(request) => service
                .request(&request)
                .unwrap_or_else(|| Err(Error::invalid(format!("the monitor knows no request {request}")))),
        });
    }

    fn obey_signals(&mut self) {
        while let Some(number) = self.signals.next() {
            match number {
                libc::SIGCHLD => self.reap(),
                libc::SIGTERM | libc::SIGINT | libc::SIGQUIT => self.stop(),
                // SIGHUP, and what writing to closed or overgrown files brings as an error as well.
                _ => {}
            }
        }
    }

    /// Asks the container to end. The first time counts: its time to do so is not prolonged by more.
    fn stop(&mut self) {
        self.told = true;
        if self.kill_at.is_none() && self.program.signal(self.stop_signal).is_ok() {
            self.kill_at = self.stop_timeout.map(|t| Instant::now() + t);
        }
    }

    /// Collects every child that has ended.
    fn reap(&mut self) {
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    let pid = pid.as_raw_nonzero().get();
                    if pid == self.program.pid() {
                        self.program.has_ended(Ending::of(status.as_raw()));
                    } else if !self.log.as_mut().is_some_and(|log| log.child_ended(pid, status.as_raw())) {
                        self.service.ended(pid, status.as_raw());
                    }
                }
                Err(Errno::INTR) => {}
                Ok(None) | Err(_) => break,
            }
        }
        self.note_end();
    }

    fn note_end(&mut self) {
        if self.finished_at.is_none() && self.program.ending().is_some() {
            self.finished_at = Some(plan::time::now_rfc3339());
            self.kill_at = None;
        }
    }

    fn kill_if_due(&mut self) -> Result<()> {
        if self.kill_at.is_some_and(|at| at <= Instant::now()) {
            self.kill_at = None;
            // It may have ended this very moment.
            if let Err(e) = self.program.signal(libc::SIGKILL)
                && e.errno != Some(libc::ESRCH)
            {
                return Err(e);
            }
        }
        Ok(())
    }

    fn release(&mut self) {
        self.chunk.release();
        self.program.release();
        self.clients.release();
        if let Some(log) = &mut self.log {
            log.release();
        }
    }
}
