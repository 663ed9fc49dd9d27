//! `rrun wait`: blocks until containers have ended, and prints their exit codes.

use crate::args::WaitArgs;
use crate::container::{self, life};
use crate::context::Context;
use plan::Result;

pub fn run(ctx: &Context, args: &WaitArgs) -> Result<i32> {
    super::each(&args.containers, |name| {
        let record = container::find(ctx, name)?;
        let code = life::wait(ctx, &record.id)?;
        super::out(&format!("{code}\n"));
        Ok(())
    })
}
