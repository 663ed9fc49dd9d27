//! `rrun attach`, and the foreground half of `run` and `start -a`.

use crate::args::AttachArgs;
use crate::container::{self, Record, events, life};
use crate::context::Context;
use plan::{Error, Kind, Result};
use runtime::attach::{self, AttachEnd, AttachOptions};
use runtime::state::Status;
use runtime::sys::signals::Signals;
use runtime::tty;
use std::os::unix::net::UnixStream;

/// How somebody wants to be attached.
pub struct Wishes {
    /// Standard input goes to the container.
    pub stdin: bool,
    /// The container has a terminal.
    pub tty: bool,
    pub sig_proxy: bool,
    /// The detach keys.
    pub keys: Vec<u8>,
    /// Which of its outputs are for us.
    pub stdout: bool,
    pub stderr: bool,
}

impl Wishes {
    /// # Errors
    /// Docker's text: a terminal's program with something else for input.
    pub fn check_terminal(&self) -> Result<()> {
        if self.tty && self.stdin && !tty::is_tty(std::io::stdin()) {
            return Err(
                Error::invalid("the input device is not a TTY").with_hint("leave -t out, or run it from a terminal")
            );
        }
        Ok(())
    }

    /// Takes the signals that are to be passed on, so that none is lost while the container starts.
    ///
    /// # Errors
    /// Of the system call.
    pub fn capture(&self) -> Result<Signals> {
        attach::capture(self.tty, self.sig_proxy)
    }

    /// The size of our terminal, for a container that gets one.
    pub fn console(&self) -> Option<(u16, u16)> {
        self.tty.then(|| tty::size(std::io::stdout()).or_else(|| tty::size(std::io::stdin())))?
    }
}

pub fn run(ctx: &Context, args: &AttachArgs) -> Result<i32> {
    let record = container::find(ctx, &args.container)?;
    let state = life::state(ctx, &record.id)?;
    life::expect_awake(&record, &state, "attach")?;
    if state.status != Status::Running {
        return Err(Error::conflict("You cannot attach to a stopped container, start it first")
            .with_hint(format!("rrun start -a {}", args.container)));
    }
    let wishes = Wishes {
        stdin: !args.no_stdin && record.config.open_stdin,
        tty: record.config.tty,
        sig_proxy: args.sig_proxy,
        keys: runtime::relay::detach::parse(&args.detach_keys)?,
        stdout: true,
        stderr: true,
    };
    wishes.check_terminal()?;
    let signals = wishes.capture()?;
    let stream = attach::connect(&ctx.state_dir(&record.id)).map_err(|e| match e.kind {
        Kind::NotFound => Error::system(format!("the monitor of container {} is gone", args.container))
            .with_hint("`rrun exec` works without it; `rrun restart` gives the container a new one"),
        _ => e,
    })?;
    events::container(ctx, &record, "attach", &[]);
    follow(ctx, &record.id, stream, wishes, signals)
}

/// Stays attached until the container ends or we leave; gives the exit code.
///
/// # Errors
/// The monitor vanished, or refused.
pub fn follow(ctx: &Context, id: &str, stream: UnixStream, wishes: Wishes, signals: Signals) -> Result<i32> {
    let options = AttachOptions {
        stdin: wishes.stdin,
        tty: wishes.tty,
        sig_proxy: wishes.sig_proxy,
        detach_keys: wishes.keys,
        signals: Some(signals),
        without_stdout: !wishes.stdout,
        without_stderr: !wishes.stderr,
    };
    match attach::client(stream, options)? {
        AttachEnd::Exited(code) => Ok(code),
        AttachEnd::Detached => {
            if let Ok(record) = Record::load(&ctx.container_dir(id)) {
                events::container(ctx, &record, "detach", &[]);
            }
            Ok(0)
        }
        // As the shell counts programs that die of a signal.
        AttachEnd::OutputClosed => Ok(128 + libc::SIGPIPE),
        AttachEnd::Signalled(number) => Ok(128 + number),
        AttachEnd::Lost => {
            let running = life::is_running(ctx, id).unwrap_or(false);
            let error = Error::system("the container's monitor has gone: was it killed?");
            Err(match running {
                true => error.with_hint(format!("the container runs on: `rrun stop {}` ends it", &id[..12])),
                false => error,
            })
        }
    }
}
