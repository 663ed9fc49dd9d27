//! `rrun system df`: what takes room.

use crate::args::DfArgs;
use crate::container::view::{self, View};
use crate::container::volume::store::{self as volumes, Volume};
use crate::container::{self, Entry};
use crate::context::Context;
use crate::render::table::{ago, ellipsis, human_duration, human_size, short_id};
use crate::render::template::{self, Column, Row};
use images::store::Image;
use plan::Result;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const COLUMNS: &[Column] = &[
    ("TYPE", "Type"),
    ("TOTAL", "TotalCount"),
    ("ACTIVE", "Active"),
    ("SIZE", "Size"),
    ("RECLAIMABLE", "Reclaimable"),
];

/// Everything, once.
struct Found {
    images: Vec<Image>,
    /// Layers in use by how many images: bytes, and which images.
    layers: BTreeMap<String, (u64, Vec<String>)>,
    containers: Vec<(View, u64)>,
    volumes: Vec<(Volume, u64, usize)>,
}

pub fn run(ctx: &Context, args: &DfArgs) -> Result<i32> {
    let found = look(ctx)?;
    if args.verbose {
        super::super::out(&verbose(&found, args.format.as_deref())?);
        return Ok(0);
    }
    let used_images: Vec<&str> =
        found.containers.iter().filter_map(|(v, _)| Some(v.record.as_ref()?.image_id.as_str())).collect();
    let all_layers: u64 = found.layers.values().map(|(bytes, _)| bytes).sum();
    let kept = |(_, images): &&(u64, Vec<String>)| images.iter().any(|i| used_images.contains(&i.as_str()));
    let kept_layers: u64 = found.layers.values().filter(kept).map(|(bytes, _)| bytes).sum();
    let active_images = found.images.iter().filter(|i| used_images.contains(&i.id.as_str())).count();
    let running = found.containers.iter().filter(|(v, _)| v.is_running());
    let all: u64 = found.containers.iter().map(|(_, b)| b).sum();
    let busy: u64 = running.clone().map(|(_, b)| b).sum();
    let volumes: u64 = found.volumes.iter().map(|(_, b, _)| b).sum();
    let idle: u64 = found.volumes.iter().filter(|(.., links)| *links == 0).map(|(_, b, _)| b).sum();
    let rows = [
        row("Images", found.images.len(), active_images, all_layers, all_layers - kept_layers),
        row("Containers", found.containers.len(), running.count(), all, all - busy),
        row("Local Volumes", found.volumes.len(), found.volumes.iter().filter(|v| v.2 > 0).count(), volumes, idle),
        row("Build Cache", 0, 0, 0, 0),
    ];
    super::super::out(&template::list(args.format.as_deref(), COLUMNS, &rows)?);
    Ok(0)
}

fn row(kind: &str, total: usize, active: usize, size: u64, reclaimable: u64) -> Row {
    let share =
        if size == 0 || kind == "Build Cache" { String::new() } else { format!(" ({}%)", reclaimable * 100 / size) };
    let row = json!({
        "Active": active.to_string(),
        "Reclaimable": format!("{}{share}", human_size(reclaimable)),
        "Size": human_size(size),
        "TotalCount": total.to_string(),
        "Type": kind,
    });
    row.as_object().cloned().unwrap_or_default()
}

fn look(ctx: &Context) -> Result<Found> {
    let store = ctx.images()?;
    let images = store.images()?;
    let mut layers: BTreeMap<String, (u64, Vec<String>)> = BTreeMap::new();
    for image in &images {
        for (chain, bytes) in std::iter::zip(&image.chain_ids, store.layer_sizes(image)?) {
            let entry = layers.entry(chain.clone()).or_insert((bytes, Vec::new()));
            entry.1.push(image.id.clone());
        }
    }
    let containers = view::all(ctx)?.into_iter().map(|v| {
        let size = view::size(ctx, &v.id);
        (v, size)
    });
    let containers = containers.collect();
    let entries: Vec<Entry> = container::list(ctx)?;
    // Those with options have their files elsewhere, if anywhere: as with Docker they are not counted.
    let volumes = volumes::list(ctx)?.into_iter().filter(|v| v.options.is_empty()).map(|v| {
        let (size, links) = (volumes::size(&v), volumes::users(&entries, &v.name).len());
        (v, size, links)
    });
    Ok(Found { images, layers, containers, volumes: volumes.collect() })
}

/// Docker's four tables, or a template for all of them at once.
fn verbose(found: &Found, format: Option<&str>) -> Result<String> {
    let table = |columns: &[Column], rows: &[Value]| -> Result<String> {
        let rows: Vec<Row> = rows.iter().filter_map(|r| r.as_object().cloned()).collect();
        template::list(None, columns, &rows)
    };
    let images = found.images.iter().flat_map(|i| {
        let shared: u64 =
            i.chain_ids.iter().filter_map(|c| found.layers.get(c)).filter(|l| l.1.len() > 1).map(|l| l.0).sum();
        let users =
            found.containers.iter().filter(|(v, _)| v.record.as_ref().is_some_and(|r| r.image_id == i.id)).count();
        let tags = if i.repo_tags.is_empty() { vec!["<none>:<none>".to_owned()] } else { i.repo_tags.clone() };
        tags.into_iter().map(move |tag| {
            let (repository, tag) =
                tag.rsplit_once(':').map_or((tag.clone(), String::new()), |(r, t)| (r.into(), t.into()));
            json!({
                "Repository": repository, "Tag": tag, "ID": short_id(&i.id),
                "CreatedSince": ago(plan::time::seconds_since(&i.created)), "Size": human_size(i.size),
                "SharedSize": human_size(shared), "UniqueSize": human_size(i.size.saturating_sub(shared)),
                "Containers": users.to_string(),
            })
        })
    });
    let images: Vec<Value> = images.collect();
    let containers = found.containers.iter().filter_map(|(v, size)| {
        let record = v.record.as_ref()?;
        let command = ellipsis(&record.config.args().join(" "), 20);
        let volumes = record.mounts.iter().filter(|m| m.name.is_some()).count();
        Some(json!({
            "ID": v.short_id(), "Image": record.image, "Command": format!("\"{command}\""),
            "LocalVolumes": volumes.to_string(), "Size": human_size(*size),
            "RunningFor": ago(plan::time::seconds_since(&record.created)),
            "Status": if v.is_running() {
                format!("Up {}", human_duration(plan::time::seconds_since(&v.state.started_at)))
            } else {
                v.state.status.to_string()
            },
            "Names": v.name,
        }))
    });
    let containers: Vec<Value> = containers.collect();
    let volumes = found
        .volumes
        .iter()
        .map(|(v, size, links)| json!({"Name": v.name, "Links": links.to_string(), "Size": human_size(*size)}));
    let volumes: Vec<Value> = volumes.collect();
    if let Some(format) = format.filter(|f| !matches!(*f, "" | "table")) {
        let all = json!({"Images": images, "Containers": containers, "Volumes": volumes, "BuildCache": []});
        return template::inspect_one(Some(format), &all);
    }
    let images = table(
        &[
            ("REPOSITORY", "Repository"),
            ("TAG", "Tag"),
            ("IMAGE ID", "ID"),
            ("CREATED", "CreatedSince"),
            ("SIZE", "Size"),
            ("SHARED SIZE", "SharedSize"),
            ("UNIQUE SIZE", "UniqueSize"),
            ("CONTAINERS", "Containers"),
        ],
        &images,
    )?;
    let containers = table(
        &[
            ("CONTAINER ID", "ID"),
            ("IMAGE", "Image"),
            ("COMMAND", "Command"),
            ("LOCAL VOLUMES", "LocalVolumes"),
            ("SIZE", "Size"),
            ("CREATED", "RunningFor"),
            ("STATUS", "Status"),
            ("NAMES", "Names"),
        ],
        &containers,
    )?;
    let volumes = table(&[("VOLUME NAME", "Name"), ("LINKS", "Links"), ("SIZE", "Size")], &volumes)?;
    Ok(format!(
        "Images space usage:\n\n{images}\nContainers space usage:\n\n{containers}\nLocal Volumes space usage:\n\n{volumes}\n\
         Build cache usage: 0B\n"
    ))
}
