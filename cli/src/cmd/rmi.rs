//! `rrun rmi`: removes names, and images when their last name goes; `rrun image prune`: those nobody needs.

use super::prune::{confirm, selects};
use crate::args::{ImagePruneArgs, RmiArgs};
use crate::container;
use crate::container::events::{self, Event};
use crate::context::Context;
use crate::render;
use crate::render::table::human_size;
use images::store::{Image, Removed};
use plan::{Error, Kind, Result};
use std::collections::BTreeMap;

pub fn run(ctx: &Context, args: &RmiArgs) -> Result<i32> {
    let store = ctx.images()?;
    let entries = container::list(ctx)?;
    let user = |image: &str| user_of(&entries, image);
    let mut code = 0;
    for name in &args.images {
        let image = store.find(name).ok().flatten();
        if args.platform.is_some()
            && let Some(image) = image.clone()
        {
            super::pull::matching(image, name, args.platform.as_deref())?;
        }
        match store.remove(name, args.force, &user) {
            Ok(removed) => {
                tell(ctx, image.as_ref(), &removed);
                for r in removed {
                    match r {
                        Removed::Untagged(name) => println!("Untagged: {name}"),
                        Removed::Deleted(id) => println!("Deleted: {id}"),
                    }
                }
            }
            Err(e) => {
                render::error::print(&e);
                code = 1;
            }
        }
    }
    Ok(code)
}

/// The events of a removal.
fn tell(ctx: &Context, image: Option<&Image>, removed: &[Removed]) {
    let Some(image) = image else { return };
    let happened = removed.iter().filter_map(|r| match r {
        Removed::Untagged(_) => Some(Event::image("untag", &image.id, &image.id, &image.config.labels)),
        Removed::Deleted(id) if *id == image.id => Some(Event::image("delete", id, id, &image.config.labels)),
        // A layer.
        Removed::Deleted(_) => None,
    });
    events::write(ctx, &happened.collect::<Vec<_>>());
}

/// The container that keeps an image, running or not.
fn user_of(entries: &[container::Entry], image: &str) -> Option<String> {
    entries.iter().find_map(|e| match e {
        container::Entry::Container(r) if r.image_id == image => Some(r.id.clone()),
        _ => None,
    })
}

/// `rrun image prune`.
///
/// # Errors
/// A filter that means nothing, a damaged store.
pub fn prune(ctx: &Context, args: &ImagePruneArgs) -> Result<i32> {
    for filter in &args.filter {
        keeps(filter, "", &BTreeMap::new())?;
    }
    let warning = match args.all {
        true => "WARNING! This will remove all images without at least one container associated to them.",
        false => "WARNING! This will remove all dangling images.",
    };
    if !args.force && !confirm(warning) {
        return Ok(0);
    }
    let (lines, reclaimed) = remove_unused(ctx, args.all, &args.filter)?;
    if !lines.is_empty() {
        super::out(&format!("Deleted Images:\n{}\n\n", lines.join("\n")));
    }
    super::out(&format!("Total reclaimed space: {}\n", human_size(reclaimed)));
    Ok(0)
}

/// Removes the images that no container uses, and unless `all` only those without a name. Returns
/// Docker's lines and the bytes given back.
///
/// # Errors
/// As [`prune`].
pub fn remove_unused(ctx: &Context, all: bool, filters: &[String]) -> Result<(Vec<String>, u64)> {
    let store = ctx.images()?;
    let entries = container::list(ctx)?;
    let before = store.unpacked_bytes()?;
    let mut lines = Vec::new();
    // What `-a` says as a filter.
    let all =
        filters.iter().rev().find_map(|f| f.strip_prefix("dangling=")).map_or(all, |v| !matches!(v, "true" | "1"));
    'images: for image in store.images()? {
        if user_of(&entries, &image.id).is_some() || !(all || image.repo_tags.is_empty()) {
            continue;
        }
        for filter in filters {
            if keeps(filter, &image.created, &image.config.labels)? {
                continue 'images;
            }
        }
        match store.remove(&image.id, true, &|id| user_of(&entries, id)) {
            Ok(removed) => {
                tell(ctx, Some(&image), &removed);
                lines.extend(removed.iter().map(|r| match r {
                    Removed::Untagged(name) => format!("untagged: {name}"),
                    Removed::Deleted(id) => format!("deleted: {id}"),
                }));
            }
            // Taken into use, or removed, since we looked.
            Err(e) if matches!(e.kind, Kind::Conflict | Kind::NotFound) => {}
            Err(e) => return Err(e),
        }
    }
    let reclaimed = before.saturating_sub(store.unpacked_bytes()?);
    events::write(ctx, &[Event::prune("image", reclaimed)]);
    Ok((lines, reclaimed))
}

/// Whether a filter spares an image made at `created`.
fn keeps(filter: &str, created: &str, labels: &BTreeMap<String, String>) -> Result<bool> {
    let selected = match filter.split_once('=') {
        Some(("dangling", "true" | "1" | "false" | "0")) => Some(true),
        Some((key, value)) => selects(key, value, created, labels)?,
        None => None,
    };
    let bad = || Error::invalid(format!("invalid filter '{filter}'"));
    selected.map(|may_go| !may_go).ok_or_else(|| bad().with_hint("prune takes until=, label=, label!= and dangling="))
}
