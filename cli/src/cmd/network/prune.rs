//! `rrun network prune`.

use super::ls;
use crate::args::NetworkPruneArgs;
use crate::cmd::prune::{confirm, older};
use crate::container::{self, Entry};
use crate::context::Context;
use netstack::networks::is_predefined;
use plan::{Error, Kind, Result};

pub fn run(ctx: &Context, args: &NetworkPruneArgs) -> Result<i32> {
    let filters = ls::parse(&args.filter)?;
    if let Some((key, _)) = filters.iter().find(|(k, _)| !matches!(k.as_str(), "label" | "label!" | "until")) {
        return Err(Error::invalid(format!("invalid filter '{key}'")).with_hint("prune takes until, label and label!"));
    }
    if !args.force && !confirm("WARNING! This will remove all custom networks not used by at least one container.") {
        return Ok(0);
    }
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
                keep |= match key.as_str() {
                    "until" => !older(&n.created, v)?,
                    _ => !ls::matches(&n, key, v, || Ok(true))?,
                };
            }
        }
        if keep {
            continue;
        }
        match netstack.remove(&n.name) {
            Ok(_) => removed.push(n.name),
            // Taken into use, or removed, since we looked.
            Err(e) if matches!(e.kind, Kind::Conflict | Kind::NotFound) => {}
            Err(e) => return Err(e),
        }
    }
    if !removed.is_empty() {
        println!("Deleted Networks:");
        for name in removed {
            println!("{name}");
        }
        println!();
    }
    Ok(0)
}
