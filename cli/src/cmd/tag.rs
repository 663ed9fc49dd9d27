//! `rrun tag`: another name for an image.

use crate::args::TagArgs;
use crate::container::events;
use crate::context::Context;
use images::reference::Reference;
use plan::{Error, Result};

pub fn run(ctx: &Context, args: &TagArgs) -> Result<i32> {
    let store = ctx.images()?;
    let target = Reference::parse(&args.target)?;
    let image = store.find(&args.source)?.ok_or_else(|| no_such_image(&args.source))?;
    store.tag(&image, &target)?;
    events::image(ctx, "tag", &image.id, &target.to_string(), &image.config.labels);
    Ok(0)
}

/// Docker's text for an image that is not here.
pub fn no_such_image(name: &str) -> Error {
    let shown = match Reference::parse(name) {
        Ok(r) => r.to_string(),
        Err(_) => name.to_string(),
    };
    Error::not_found(format!("No such image: {shown}")).with_hint("`rrun images` lists those there are")
}
