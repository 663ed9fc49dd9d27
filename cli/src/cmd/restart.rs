//! `rrun restart`: `stop`, then `start`.

use crate::args::StopArgs;
use crate::container::start::{self, Start};
use crate::container::{self, events, lock::Lock, signal};
use crate::context::Context;
use plan::Result;

pub fn run(ctx: &Context, args: &StopArgs) -> Result<i32> {
    let first = args.signal.as_deref().map(signal::parse).transpose()?;
    super::each(&args.containers, |name| {
        let record = container::find(ctx, name)?;
        super::stop::stop(ctx, &record, first, args.timeout)?;
        let lock = Lock::take(ctx, &record.id)?;
        if let Some(started) = start::start(ctx, &record, lock, Start::default())? {
            super::warn(&started.warnings);
        }
        events::container(ctx, &record, "restart", &[]);
        super::out(&format!("{name}\n"));
        Ok(())
    })
}
