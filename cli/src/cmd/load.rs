//! `rrun load`: images from archives and OCI directories.

use crate::args::LoadArgs;
use crate::container::events;
use crate::context::Context;
use crate::render::progress::Bars;
use images::archive::{Input, Loaded, load};
use images::progress::{Progress, Silent};
use plan::{Error, Result};
use std::io::IsTerminal;

pub fn run(ctx: &Context, args: &LoadArgs) -> Result<i32> {
    let input = match &args.input {
        Some(path) => Input::Path(path.clone()),
        None if std::io::stdin().is_terminal() => {
            return Err(Error::invalid("requested load from stdin, but stdin is empty")
                .with_hint("`rrun load -i FILE`, or `… | rrun load`"));
        }
        None => Input::Stdin,
    };
    let bars = Bars::new();
    let progress: &dyn Progress = if args.quiet { &Silent } else { &bars };
    let store = ctx.images()?;
    let loaded = load(&store, input, progress).map_err(|e| {
        let known = e.hint.is_some() || e.errno.is_some();
        if known { e } else { e.with_hint("the archive is damaged or was altered: copy or save it again") }
    })?;
    for loaded in loaded {
        if let Loaded::Tagged(name) | Loaded::Untagged(name) = &loaded
            && let Some(image) = store.find(name)?
        {
            events::image(ctx, "load", &image.id, &image.id, &image.config.labels);
        }
        match loaded {
            Loaded::Renamed { name, old_id } => {
                println!("The image {name} already exists, renaming the old one with ID {old_id} to empty string");
            }
            Loaded::Tagged(reference) => println!("Loaded image: {reference}"),
            Loaded::Untagged(id) => println!("Loaded image ID: {id}"),
        }
    }
    Ok(0)
}
