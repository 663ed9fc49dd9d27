//! `rrun stop`: asks, waits, kills.

use crate::args::StopArgs;
use crate::container::ending::Will;
use crate::container::{self, Record, life, signal};
use crate::context::Context;
use plan::Result;
use std::time::Duration;

pub fn run(ctx: &Context, args: &StopArgs) -> Result<i32> {
    let first = args.signal.as_deref().map(signal::parse).transpose()?;
    super::each(&args.containers, |name| {
        let record = container::find(ctx, name)?;
        stop(ctx, &record, first, args.timeout)?;
        super::out(&format!("{name}\n"));
        Ok(())
    })
}

/// Stops a container, running or not, and returns when it is cleaned up.
///
/// # Errors
/// It does not end; its cleanup fails.
pub fn stop(ctx: &Context, record: &Record, first: Option<i32>, timeout: Option<i64>) -> Result<()> {
    let number = match first {
        Some(number) => number,
        None => signal::parse(record.stop_signal())?,
    };
    let grace = match timeout.or(record.config.stop_timeout).unwrap_or(container::STOP_GRACE) {
        // Docker's "for ever".
        seconds if seconds < 0 => None,
        seconds => Some(Duration::from_secs(seconds.unsigned_abs())),
    };
    life::stop(ctx, record, number, grace, Will::Stop)
}
