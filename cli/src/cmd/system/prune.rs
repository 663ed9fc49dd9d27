//! `rrun system prune` and `rrun container prune`.

use crate::args::{ContainerPruneArgs, SystemPruneArgs};
use crate::cmd::filter::split;
use crate::cmd::prune::{confirm, selects};
use crate::cmd::{network, rmi, volume};
use crate::container::events::{self, Event};
use crate::container::{self, Entry, Record, life, view};
use crate::context::Context;
use crate::render::table::human_size;
use plan::{Error, Kind, Result};
use runtime::state::Status;
use std::collections::BTreeMap;

pub fn run(ctx: &Context, args: &SystemPruneArgs) -> Result<i32> {
    check(&args.filter)?;
    let until = args.filter.iter().any(|f| f.starts_with("until="));
    if args.volumes && until {
        return Err(Error::invalid("The \"until\" filter is not supported with \"--volumes\"")
            .with_hint("prune the volumes on their own: rrun volume prune"));
    }
    let mut what = vec!["all stopped containers", "all networks not used by at least one container"];
    if args.volumes {
        what.push("all anonymous volumes not used by at least one container");
    }
    what.push(if args.all {
        "all images without at least one container associated to them"
    } else {
        "all dangling images"
    });
    let list: String = what.iter().map(|w| format!("\n  - {w}")).collect();
    if !args.force && !confirm(&format!("WARNING! This will remove:{list}\n")) {
        return Ok(0);
    }
    let (containers, mut bytes) = remove_stopped(ctx, &args.filter)?;
    let mut text = section("Deleted Containers", &containers);
    text += &section("Deleted Networks", &network::prune::remove_unused(ctx, &args.filter)?);
    if args.volumes {
        let filters = args.filter.iter().filter_map(|f| f.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned()));
        let (volumes, freed) = volume::remove_unused(ctx, false, &filters.collect::<Vec<_>>())?;
        text += &section("Deleted Volumes", &volumes);
        bytes += freed;
    }
    let (images, freed) = rmi::remove_unused(ctx, args.all, &args.filter)?;
    text += &section("Deleted Images", &images);
    bytes += freed;
    crate::cmd::out(&format!("{text}Total reclaimed space: {}\n", human_size(bytes)));
    Ok(0)
}

/// `rrun container prune`.
///
/// # Errors
/// A filter that means nothing; a file that resists.
pub fn containers(ctx: &Context, args: &ContainerPruneArgs) -> Result<i32> {
    check(&args.filter)?;
    if !args.force && !confirm("WARNING! This will remove all stopped containers.") {
        return Ok(0);
    }
    let (removed, bytes) = remove_stopped(ctx, &args.filter)?;
    let text = section("Deleted Containers", &removed);
    crate::cmd::out(&format!("{text}Total reclaimed space: {}\n", human_size(bytes)));
    Ok(0)
}

fn section(title: &str, lines: &[String]) -> String {
    if lines.is_empty() { String::new() } else { format!("{title}:\n{}\n\n", lines.join("\n")) }
}

fn check(filters: &[String]) -> Result<()> {
    for filter in filters {
        let (key, value) = split(filter, "--filter")?;
        if selects(&key, &value, "", &BTreeMap::new())?.is_none() {
            return Err(Error::invalid(format!("invalid filter '{}'", key.escape_debug()))
                .with_hint("prune takes until, label and label!"));
        }
    }
    Ok(())
}

/// Removes the containers that do not run; their IDs and the bytes given back.
fn remove_stopped(ctx: &Context, filters: &[String]) -> Result<(Vec<String>, u64)> {
    let (mut removed, mut bytes) = (Vec::new(), 0);
    for entry in container::list(ctx)? {
        let Entry::Container(record) = entry else { continue };
        // A damaged one stays for whoever wants to mend it.
        let Ok(state) = life::state(ctx, &record.id) else { continue };
        if !matches!(state.status, Status::Created | Status::Exited) || !passes(&record, filters)? {
            continue;
        }
        let size = view::size(ctx, &record.id);
        match crate::cmd::rm::stopped(ctx, &record) {
            Ok(()) => {
                bytes += size;
                removed.push(record.id.clone());
            }
            // Started, or removed, since we looked.
            Err(e) if matches!(e.kind, Kind::Conflict | Kind::NotFound) => {}
            Err(e) => return Err(e),
        }
    }
    events::write(ctx, &[Event::prune("container", bytes)]);
    Ok((removed, bytes))
}

fn passes(record: &Record, filters: &[String]) -> Result<bool> {
    for (key, value) in filters.iter().filter_map(|f| f.split_once('=')) {
        if selects(key, value, &record.created, &record.config.labels)? == Some(false) {
            return Ok(false);
        }
    }
    Ok(true)
}
