//! `rrun run`: makes a container, starts it, and stays with it unless told otherwise.

use super::attach::{self, Wishes};
use crate::args::{RunArgs, Stream};
use crate::container::create::{self, Created};
use crate::container::lock::Lock;
use crate::container::start::{self, Start};
use crate::container::{Record, events, remove};
use crate::context::Context;
use netstack::publish::Reach;
use plan::{Error, Result};
use std::io::IsTerminal;

pub fn run(ctx: &Context, args: &RunArgs) -> Result<i32> {
    let process = &args.create.process;
    let all = args.attach.is_empty();
    let wishes = Wishes {
        stdin: process.interactive && (all || args.attach.contains(&Stream::Stdin)),
        tty: process.tty,
        sig_proxy: args.sig_proxy,
        keys: runtime::relay::detach::parse(&args.detach_keys)?,
        stdout: all || args.attach.contains(&Stream::Stdout),
        stderr: all || args.attach.contains(&Stream::Stderr),
    };
    if !args.detach {
        wishes.check_terminal()?;
    }
    let Created { record, lock, warnings } = create::create(ctx, &args.create, !args.detach)?;
    super::warn(&warnings);
    // From here on a Ctrl-C is the container's.
    let signals = if args.detach { None } else { Some(wishes.capture()?) };
    let start = Start { attach: !args.detach, explain: args.explain, console: wishes.console(), ..Start::default() };
    let started = start::launch(ctx, &record, lock, start).map_err(|e| unmake(ctx, &record, e))?;
    super::warn(&started.warnings);
    if !record.host.ports.is_empty() && std::io::stderr().is_terminal() {
        tell_reach(ctx, &record);
    }
    if args.explain {
        super::explain::print(&started.explain, args.script);
    }
    match (started.stream, signals) {
        (Some(stream), Some(signals)) => {
            // Nothing of the program's will be seen, so that its ID can be.
            if !wishes.stdout && !wishes.stderr {
                super::out(&format!("{}\n", record.id));
            }
            attach::follow(ctx, &record.id, stream, wishes, signals)
        }
        _ => {
            super::out(&format!("{}\n", record.id));
            Ok(0)
        }
    }
}

/// To a person, not to a script: from where the published ports can be reached. That it is from
/// everywhere surprises most.
fn tell_reach(ctx: &Context, record: &Record) {
    // It may be over already; and what cannot be told is no reason to fail.
    let (Ok(bindings), Ok(reach)) = (ctx.netstack().bindings_of(&record.id), Reach::observe()) else { return };
    for b in &bindings {
        let ports = if b.host.0 == b.host.1 { b.host.0.to_string() } else { format!("{}-{}", b.host.0, b.host.1) };
        super::tell(&format!("{}:{ports}/{} is reachable from {}\n", b.host_text(), b.proto.name(), reach.from(b)));
    }
    if bindings.iter().any(Reach::is_open) {
        super::tell("hint: -p 127.0.0.1:… keeps a port to this host, -p …,from=CIDR to some networks\n");
    }
}

/// A container that could not be started is of no use to whoever asked for `run`: nothing half-made
/// stays, and its name is free for the next attempt.
pub(super) fn unmake(ctx: &Context, record: &Record, error: Error) -> Error {
    let removed = Lock::take(ctx, &record.id).and_then(|_lock| {
        remove::anonymous_volumes(ctx, record)?;
        remove::discard(ctx, record)?;
        events::container(ctx, record, "destroy", &[]);
        Ok(())
    });
    match removed {
        Ok(()) => error,
        Err(e) => error.with_note(e.to_string()),
    }
}
