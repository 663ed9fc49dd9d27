//! `rrun push`: an image to the registry in its name.

use crate::args::PushArgs;
use crate::container::events;
use crate::container::request::namespaces::content_trust;
use crate::context::Context;
use crate::render::progress::Bars;
use images::progress::{Progress, Silent};
use images::reference::Reference;
use images::registry::push;
use plan::{Error, Result};

pub fn run(ctx: &Context, args: &PushArgs) -> Result<i32> {
    content_trust(args.disable_content_trust)?;
    let reference = Reference::parse(&args.image)?;
    let tagged = args.image.rsplit('/').next().is_some_and(|last| last.contains(':'));
    if args.all_tags && tagged {
        return Err(Error::invalid("tag can't be used with --all-tags/-a").with_hint("name the repository only"));
    }
    let store = ctx.images()?;
    let references = match args.all_tags {
        false => vec![reference],
        true => {
            let tags = store.images()?.into_iter().flat_map(|i| i.repo_tags);
            let all = tags.filter_map(|t| Reference::parse(&t).ok());
            let mut all: Vec<_> = all.filter(|r| r.repository() == reference.repository()).collect();
            all.sort_by_key(Reference::canonical);
            if all.is_empty() {
                let name = reference.familiar_repository();
                return Err(Error::not_found(format!("An image does not exist locally with the tag: {name}"))
                    .with_hint(format!("rrun tag IMAGE {name}:TAG gives an image that name")));
            }
            all
        }
    };
    let registries = ctx.registries();
    for r in references {
        if let Some(image) = store.find(&r.canonical())? {
            super::pull::matching(image, &args.image, args.platform.as_deref())?;
        }
        let bars = Bars::new();
        let progress: &dyn Progress = if args.quiet { &Silent } else { &bars };
        let pushed = push(&store, &r, &registries, progress)?;
        drop(bars);
        if let Some(image) = store.find(&r.to_string())? {
            events::image(ctx, "push", &r.to_string(), &r.familiar_repository(), &image.config.labels);
        }
        match args.quiet {
            true => super::out(&format!("{}\n", r.canonical())),
            false => super::out(&format!("{}: digest: {} size: {}\n", pushed.tag, pushed.digest, pushed.size)),
        }
    }
    Ok(0)
}
