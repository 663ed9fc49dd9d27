//! `rrun kill`: one signal, no waiting.

use crate::args::KillArgs;
use crate::container::{self, events, life, signal};
use crate::context::Context;
use plan::{Error, Kind, Result};

pub fn run(ctx: &Context, args: &KillArgs) -> Result<i32> {
    let number = signal::parse(&args.signal)?;
    super::each(&args.containers, |name| {
        let record = container::find(ctx, name)?;
        life::kill(ctx, &record, number).map_err(|e| match e.kind {
            Kind::Conflict => {
                Error::conflict(format!("cannot kill container: {name}: container {} is not running", record.id))
                    .with_hint("`rrun ps` lists the running containers")
            }
            _ => e,
        })?;
        events::container(ctx, &record, "kill", &[("signal", number.to_string())]);
        super::out(&format!("{name}\n"));
        Ok(())
    })
}
