//! `rrun network prune`.

use super::ls;
use crate::args::NetworkPruneArgs;
use crate::cmd::prune::{confirm, selects};
use crate::container::events::{self, Event, Joined};
use crate::container::{self, Entry};
use crate::context::Context;
use netstack::networks::is_predefined;
use plan::{Error, Kind, Result};

const WARNING: &str = "WARNING! This will remove all custom networks not used by at least one container.";

pub fn run(ctx: &Context, args: &NetworkPruneArgs) -> Result<i32> {
    checked(&args.filter)?;
    if !args.force && !confirm(WARNING) {
        return Ok(0);
    }
    let removed = remove_unused(ctx, &args.filter)?;
    if !removed.is_empty() {
        crate::cmd::out(&format!("Deleted Networks:\n{}\n\n", removed.join("\n")));
    }
    Ok(0)
}

/// `until`, `label` and `label!`.
fn checked(filter: &[String]) -> Result<()> {
    let keys = filter.iter().filter_map(|f| f.split_once('=')).map(|(key, _)| key);
    if let Some(key) = keys.into_iter().find(|k| !matches!(*k, "label" | "label!" | "until")) {
        return Err(Error::invalid(format!("invalid filter '{}'", key.escape_debug()))
            .with_hint("prune takes until=, label= and label!="));
    }
    ls::parse(filter).map(drop)
}

/// Removes the networks that no container uses or wants back; their names.
///
/// # Errors
/// A filter that means nothing; something on the host that resists.
pub fn remove_unused(ctx: &Context, filter: &[String]) -> Result<Vec<String>> {
    let filters = ls::parse(filter)?;
    let netstack = ctx.netstack();
    // A stopped container that will want its network back counts as a user.
    let wanted: Vec<String> = container::list(ctx)?
        .into_iter()
        .filter_map(|e| match e {
            Entry::Container(r) => Some(r.networks.into_iter().map(|n| n.network)),
            Entry::Broken { .. } => None,
        })
        .flatten()
        .collect();
    let mut removed = Vec::new();
    for n in netstack.networks()? {
        if is_predefined(&n.name) || n.config_only || wanted.contains(&n.name) || wanted.contains(&n.id) {
            continue;
        }
        let mut keep = false;
        for (key, values) in &filters {
            for v in values {
                keep |= selects(key, v, &n.created, &n.labels)? == Some(false);
            }
        }
        if keep {
            continue;
        }
        match netstack.remove(&n.name) {
            Ok(gone) => {
                events::write(ctx, &[Event::network("destroy", &Joined::from(&gone), None)]);
                removed.push(n.name);
            }
            // Taken into use, or removed, since we looked.
            Err(e) if matches!(e.kind, Kind::Conflict | Kind::NotFound) => {}
            Err(e) => return Err(e),
        }
    }
    events::write(ctx, &[Event::prune("network", 0)]);
    Ok(removed)
}
