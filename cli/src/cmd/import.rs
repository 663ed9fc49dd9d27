//! `rrun import`: an image from the tar archive of a root file system.

use crate::args::ImportArgs;
use crate::container::events::{self, Event};
use crate::context::Context;
use images::archive::{ImportOptions, import};
use images::reference::Reference;
use plan::{Result, ResultExt};
use std::fs::File;
use std::io::Read;

pub fn run(ctx: &Context, args: &ImportArgs) -> Result<i32> {
    let reference = args.name.as_deref().map(Reference::parse).transpose()?;
    let reader: Box<dyn Read> = match args.source.as_str() {
        "-" => Box::new(std::io::stdin().lock()),
        path => Box::new(File::open(path).doing(|| format!("open {path}"))?),
    };
    let options = ImportOptions {
        reference,
        message: args.message.clone(),
        changes: args.change.clone(),
        platform: args.platform.clone(),
    };
    let image = import(&ctx.images()?, reader, &options)?;
    let mut happened = vec![Event::image("import", &image.id, &image.id, &image.config.labels)];
    happened.extend(options.reference.map(|r| Event::image("tag", &image.id, &r.to_string(), &image.config.labels)));
    events::write(ctx, &happened);
    println!("{}", image.id);
    Ok(0)
}
