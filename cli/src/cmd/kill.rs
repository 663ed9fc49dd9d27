//! `rrun kill`: one signal, no waiting.

use crate::args::KillArgs;
use crate::container::{self, life, signal};
use crate::context::Context;
use plan::{Error, Kind, Result};

pub fn run(ctx: &Context, args: &KillArgs) -> Result<i32> {
    let number = signal::parse(&args.signal)?;
    super::each(&args.containers, |name| {
        let record = container::find(ctx, name)?;
        let state = life::state(ctx, &record.id)?;
        runtime::state::signal(&state, number).map_err(|e| match e.kind {
            Kind::Conflict => {
                Error::conflict(format!("cannot kill container: {name}: container {} is not running", record.id))
                    .with_hint("`rrun ps` lists the running containers")
            }
            _ => e,
        })?;
        super::out(&format!("{name}\n"));
        Ok(())
    })
}
