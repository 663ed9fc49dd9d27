//! `rrun create`.

use crate::args::CreateArgs;
use crate::container::create;
use crate::context::Context;
use plan::Result;

pub fn run(ctx: &Context, args: &CreateArgs) -> Result<i32> {
    let created = create::create(ctx, &args.create, true)?;
    super::warn(&created.warnings);
    super::out(&format!("{}\n", created.record.id));
    Ok(0)
}
