//! `rrun image …`.

use crate::args::{ImageCommand, ImageInspectArgs, ImageVerb};
use crate::context::Context;
use crate::render::{self, template};
use plan::Result;
use serde_json::Value;

pub fn run(ctx: &Context, command: &ImageCommand) -> Result<i32> {
    match command {
        ImageCommand::Ls(args) => super::images::run(ctx, args),
        ImageCommand::Rm(args) => super::rmi::run(ctx, args),
        ImageCommand::Inspect(args) => inspect(ctx, args),
        ImageCommand::Verb(args) => verb(ctx, args),
        ImageCommand::Prune(args) => super::rmi::prune(ctx, args),
    }
}

/// The verbs that are `rrun VERB` as well.
pub fn verb(ctx: &Context, verb: &ImageVerb) -> Result<i32> {
    match verb {
        ImageVerb::Pull(args) => super::pull::run(ctx, args),
        ImageVerb::Push(args) => super::push::run(ctx, args),
        ImageVerb::Save(args) => super::save::run(ctx, args),
        ImageVerb::History(args) => super::history::run(ctx, args),
        ImageVerb::Load(args) => super::load::run(ctx, args),
        ImageVerb::Import(args) => super::import::run(ctx, args),
        ImageVerb::Tag(args) => super::tag::run(ctx, args),
    }
}

fn inspect(ctx: &Context, args: &ImageInspectArgs) -> Result<i32> {
    let mut documents = Vec::new();
    let mut code = 0;
    for name in &args.images {
        let of_platform = || {
            let image = ctx.images()?.find(name)?.ok_or_else(|| super::tag::no_such_image(name))?;
            super::pull::matching(image, name, args.platform.as_deref())
        };
        match of_platform().and_then(|_| document(ctx, name)) {
            Ok(d) => documents.extend(d),
            Err(e) => {
                render::error::print(&e);
                code = 1;
            }
        }
    }
    print!("{}", template::inspect(args.format.as_deref(), &documents)?);
    Ok(code)
}

/// An image's document; `None` when there is no such image.
///
/// # Errors
/// A damaged store.
pub fn document(ctx: &Context, name: &str) -> Result<Option<Value>> {
    let store = ctx.images()?;
    let Some(image) = store.find(name)? else { return Ok(None) };
    let config = store.config_json(&image)?;
    let (base, lower) = store.lower(&image);
    let lower: Vec<_> = lower.iter().map(|l| base.join(l)).collect();
    Ok(Some(render::inspect::image(&image, &config, &lower)))
}
