//! `rrun images`: the images that are here.

use super::filter::has_label;
use super::prune::Until;
use crate::args::ImagesArgs;
use crate::context::Context;
use crate::render::table::{ago, go_time, human_size, short_id};
use crate::render::template::{self, Column, Row};
use images::reference::Reference;
use images::store::{Image, Store};
use plan::{Error, Result};
use serde_json::{Value, json};

const COLUMNS: &[Column] =
    &[("REPOSITORY", "Repository"), ("TAG", "Tag"), ("IMAGE ID", "ID"), ("CREATED", "CreatedSince"), ("SIZE", "Size")];
const WITH_DIGESTS: &[Column] = &[
    ("REPOSITORY", "Repository"),
    ("TAG", "Tag"),
    ("DIGEST", "Digest"),
    ("IMAGE ID", "ID"),
    ("CREATED", "CreatedSince"),
    ("SIZE", "Size"),
];

pub fn run(ctx: &Context, args: &ImagesArgs) -> Result<i32> {
    let store = ctx.images()?;
    let all = store.images()?;
    let mut rows = Vec::new();
    let filters = args.filter.iter().map(|f| filter(&store, f)).collect::<Result<Vec<_>>>()?;
    for image in &all {
        if !filters.iter().all(|f| f(image)) {
            continue;
        }
        rows.extend(rows_of(image, args));
    }
    if args.quiet {
        let mut seen = Vec::new();
        for id in rows.iter().filter_map(|r| r["ID"].as_str()) {
            if !seen.contains(&id) {
                println!("{id}");
                seen.push(id);
            }
        }
        return Ok(0);
    }
    let columns = if args.digests { WITH_DIGESTS } else { COLUMNS };
    print!("{}", template::list(args.format.as_deref(), columns, &rows)?);
    Ok(0)
}

/// One row per name; `<none>` for an image without one.
fn rows_of(image: &Image, args: &ImagesArgs) -> Vec<Row> {
    let mut names: Vec<(String, String)> = image
        .repo_tags
        .iter()
        .filter_map(|t| t.rsplit_once(':').map(|(r, t)| (r.to_string(), t.to_string())))
        .collect();
    if names.is_empty() {
        let repository = image.repo_digests.first().and_then(|d| d.split('@').next()).unwrap_or("<none>");
        names.push((repository.to_string(), "<none>".into()));
    }
    let id = if args.no_trunc { image.id.as_str() } else { short_id(&image.id) };
    let rows = names.into_iter().filter(|(r, t)| named(args.name.as_deref(), r, t)).map(|(repository, tag)| {
        let digest = image.repo_digests.iter().find_map(|d| d.strip_prefix(&format!("{repository}@")));
        let row = json!({
            "Containers": "N/A",
            "CreatedAt": go_time(&image.created, false),
            "CreatedSince": ago(plan::time::seconds_since(&image.created)),
            "Digest": digest.unwrap_or("<none>"),
            "ID": id,
            "Repository": repository,
            "SharedSize": "N/A",
            "Size": human_size(image.size),
            "Tag": tag,
            "UniqueSize": "N/A",
            "VirtualSize": human_size(image.size),
        });
        match row {
            Value::Object(o) => o,
            _ => Row::new(),
        }
    });
    rows.collect()
}

/// `rrun images alpine` and `rrun images alpine:3`.
fn named(wanted: Option<&str>, repository: &str, tag: &str) -> bool {
    let Some(wanted) = wanted else { return true };
    let Ok(reference) = Reference::parse(wanted) else { return false };
    let full = reference.to_string();
    let (r, t) = full.rsplit_once(':').unwrap_or((&full, ""));
    let tag_given = wanted.rsplit('/').next().is_some_and(|last| last.contains(':'));
    r == repository && (!tag_given || t == tag)
}

/// What a filter says of an image.
type Test<'f> = Box<dyn Fn(&Image) -> bool + 'f>;

fn filter<'f>(store: &Store, filter: &'f str) -> Result<Test<'f>> {
    super::filter::split(filter, "-f, --filter")?;
    let (key, value) = filter.split_once('=').unwrap_or((filter, ""));
    let pivot = || store.find(value)?.ok_or_else(|| super::tag::no_such_image(value));
    Ok(match key {
        "dangling" => Box::new(move |i| i.repo_tags.is_empty() == matches!(value, "true" | "1")),
        "reference" => Box::new(move |image| {
            image.repo_tags.iter().any(|t| {
                let (r, tag) = t.rsplit_once(':').unwrap_or((t, ""));
                named(Some(value), r, tag)
            })
        }),
        "label" => Box::new(move |i| has_label(&i.config.labels, value)),
        "before" => {
            let pivot = pivot()?;
            Box::new(move |i| i.created < pivot.created)
        }
        "since" => {
            let pivot = pivot()?;
            Box::new(move |i| i.created > pivot.created)
        }
        "until" => {
            let moment = Until::parse(value)?;
            Box::new(move |i| moment.is_after(&i.created))
        }
        _ => {
            return Err(Error::invalid(format!("invalid filter '{key}'"))
                .with_hint("images can be filtered by dangling, reference, label, before, since and until"));
        }
    })
}
