//! `rrun start`.

use super::attach::{self, Wishes};
use crate::args::StartArgs;
use crate::container::lock::Lock;
use crate::container::start::{self, Start, Started};
use crate::container::{self, Record, events};
use crate::context::Context;
use plan::{Error, Result};

pub fn run(ctx: &Context, args: &StartArgs) -> Result<i32> {
    if args.attach || args.interactive {
        let [name] = args.containers.as_slice() else {
            return Err(Error::invalid("you cannot start and attach multiple containers at once")
                .with_hint("start them without -a, then `rrun attach` to one"));
        };
        return attached(ctx, args, name);
    }
    super::each(&args.containers, |name| {
        let record = container::find(ctx, name)?;
        if let Some(started) = begin(ctx, &record, args, Start::default())? {
            tell(&started, args);
        }
        super::out(&format!("{name}\n"));
        Ok(())
    })
}

fn begin(ctx: &Context, record: &Record, args: &StartArgs, start: Start) -> Result<Option<Started>> {
    let lock = Lock::take(ctx, &record.id)?;
    start::start(ctx, record, lock, Start { explain: args.explain, ..start })
}

fn tell(started: &Started, args: &StartArgs) {
    super::warn(&started.warnings);
    if args.explain {
        super::explain::print(&started.explain, args.script);
    }
}

fn attached(ctx: &Context, args: &StartArgs, name: &str) -> Result<i32> {
    let record = container::find(ctx, name)?;
    let wishes = Wishes {
        stdin: args.interactive && record.config.open_stdin,
        tty: record.config.tty,
        sig_proxy: true,
        keys: runtime::relay::detach::parse(&args.detach_keys)?,
        stdout: true,
        stderr: true,
    };
    wishes.check_terminal()?;
    let signals = wishes.capture()?;
    let start = Start { attach: true, console: wishes.console(), ..Start::default() };
    let stream = match begin(ctx, &record, args, start)? {
        Some(mut started) => {
            tell(&started, args);
            started.stream.take()
        }
        // It runs already: attaching is all that is left to do.
        None => None,
    };
    let stream = match stream {
        Some(stream) => stream,
        None => {
            events::container(ctx, &record, "attach", &[]);
            runtime::attach::connect(&ctx.state_dir(&record.id))?
        }
    };
    attach::follow(ctx, &record.id, stream, wishes, signals)
}
