//! `rrun create`.

use crate::args::CreateArgs;
use crate::container::create::{self, Created};
use crate::container::volume;
use crate::context::Context;
use plan::Result;

pub fn run(ctx: &Context, args: &CreateArgs) -> Result<i32> {
    let Created { record, lock, warnings } = create::create(ctx, &args.create, true)?;
    if let Err(e) = volume::make(ctx, &record) {
        drop(lock);
        return Err(super::run::unmake(ctx, &record, e));
    }
    super::warn(&warnings);
    super::out(&format!("{}\n", record.id));
    Ok(0)
}
