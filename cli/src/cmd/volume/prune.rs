//! `rrun volume prune`.

use super::ls;
use crate::args::VolumePruneArgs;
use crate::cmd::prune::confirm;
use crate::container;
use crate::container::events::{self, Event};
use crate::container::volume::store;
use crate::context::Context;
use crate::render::table::human_size;
use plan::{Error, Kind, Result};

pub fn run(ctx: &Context, args: &VolumePruneArgs) -> Result<i32> {
    let filters = ls::parse(&args.filter, "--filter", &["all", "label", "label!"])?;
    if args.all && filters.iter().any(|(key, _)| key == "all") {
        return Err(Error::invalid("conflicting options: cannot specify both --all and --filter all=1")
            .with_hint("leave one of them out"));
    }
    let all = args.all || filters.iter().any(|(k, v)| k == "all" && matches!(v.as_str(), "true" | "1"));
    let warning = match all {
        true => "WARNING! This will remove all local volumes not used by at least one container.",
        false => "WARNING! This will remove anonymous local volumes not used by at least one container.",
    };
    if !args.force && !confirm(warning) {
        return Ok(0);
    }
    let (removed, reclaimed) = remove_unused(ctx, all, &filters)?;
    if !removed.is_empty() {
        crate::cmd::out(&format!("Deleted Volumes:\n{}\n\n", removed.join("\n")));
    }
    crate::cmd::out(&format!("Total reclaimed space: {}\n", human_size(reclaimed)));
    Ok(0)
}

/// Removes volumes that no container uses, unless `all` only those made without a name. Returns their
/// names and the bytes given back.
///
/// # Errors
/// A file that resists.
pub fn remove_unused(ctx: &Context, all: bool, filters: &[(String, String)]) -> Result<(Vec<String>, u64)> {
    let entries = container::list(ctx)?;
    let (mut removed, mut bytes) = (Vec::new(), 0);
    for volume in store::list(ctx)? {
        // What is elsewhere gives no room back, and may be dear to somebody: as with Docker it stays.
        if !volume.options.is_empty() || !(all || volume.is_anonymous()) || !ls::passes(&volume, filters, true) {
            continue;
        }
        let size = store::size(&volume);
        match store::delete(ctx, &entries, &volume.name) {
            Ok(()) => {
                bytes += size;
                removed.push(volume.name);
            }
            // In use, or removed since we looked.
            Err(e) if matches!(e.kind, Kind::Conflict | Kind::NotFound) => {}
            Err(e) => return Err(e),
        }
    }
    events::write(ctx, &[Event::prune("volume", bytes)]);
    Ok((removed, bytes))
}
