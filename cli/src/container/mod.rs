//! Containers as records on disk, and their life: created, started, ended, removed.

pub mod create;
pub mod ending;
pub mod events;
pub mod explain;
pub mod file;
pub mod health;
mod hosts_file;
pub mod life;
pub mod links;
pub mod lock;
pub mod logging;
pub mod monitor;
pub mod names;
pub mod ports;
pub mod record;
pub mod remove;
pub mod request;
pub mod restart;
mod revival;
pub mod service;
pub mod signal;
pub mod spec;
pub mod start;
mod takeover;
pub mod tree;
pub mod undo;
pub mod view;
pub mod volume;
mod workers;

pub use record::{Entry, Record};

use crate::context::Context;
use netstack::networks::Wishes;
use plan::{Error, Result, ResultExt};
use std::path::Path;

/// A container's output, in its directory.
pub const LOG_FILE: &str = "log";

/// Seconds between the stop signal and SIGKILL where nobody says otherwise: Docker's.
pub const STOP_GRACE: i64 = 10;

/// Docker's text.
pub fn no_such(name: &str) -> Error {
    Error::not_found(format!("No such container: {}", name.escape_debug()))
        .with_hint("`rrun ps -a` lists the containers")
}

/// Creates a directory, and its parents, for root's eyes only.
///
/// # Errors
/// Of mkdir(2).
pub fn make_private_dir(dir: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).doing(|| format!("create {}", dir.display()))
}

/// Every container, in no particular order. A record that cannot be read is listed as broken.
///
/// # Errors
/// Only that the directory itself cannot be read.
pub fn list(ctx: &Context) -> Result<Vec<Entry>> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut names = None;
    for id in ids(ctx)? {
        match Record::load(&ctx.container_dir(&id)) {
            // Without its name a directory is one that `create` has not finished, or `rm` has begun.
            Ok(record) if names::holder(ctx, &record.name).as_deref() == Some(&id) => {
                entries.push(Entry::Container(Box::new(record)));
            }
            Ok(_) => remove::nameless(ctx, &id)?,
            Err(e) if e.kind == plan::Kind::NotFound => remove::nameless(ctx, &id)?,
            Err(error) => {
                let names = names.get_or_insert_with(|| names::all(ctx));
                match names.iter().find(|(_, holder)| *holder == id) {
                    Some((name, _)) => entries.push(Entry::Broken { name: name.clone(), id, error }),
                    None => remove::nameless(ctx, &id)?,
                }
            }
        }
    }
    Ok(entries)
}

/// The IDs that have a directory.
///
/// # Errors
/// The directory cannot be read; that it does not exist yet is an empty list.
pub fn ids(ctx: &Context) -> Result<Vec<String>> {
    let dir = ctx.containers();
    match std::fs::read_dir(&dir) {
        Ok(entries) => Ok(entries
            .flatten()
            .filter_map(|e| e.file_name().into_string().ok())
            .filter(|name| names::is_id(name))
            .collect()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(Error::io(format!("read {}", dir.display()), &e)),
    }
}

/// What every container asks of its networks, by ID; what cannot be read asks nothing.
pub fn endpoint_configs(root: &Path) -> Vec<Wishes> {
    let Ok(entries) = std::fs::read_dir(root.join("containers")) else { return Vec::new() };
    let dirs = entries.flatten().map(|e| e.path());
    dirs.filter_map(|dir| Record::load(&dir).ok()).map(|r| (r.id, r.networks)).collect()
}

/// Docker's order: full ID, name, unique prefix of an ID.
///
/// # Errors
/// None, or several, such containers.
pub fn find_id(ctx: &Context, wanted: &str) -> Result<String> {
    let wanted = wanted.strip_prefix('/').unwrap_or(wanted);
    if names::is_id(wanted) && ctx.container_dir(wanted).exists() {
        return Ok(wanted.to_string());
    }
    if let Some(id) = names::holder(ctx, wanted) {
        return Ok(id);
    }
    if names::is_hex(wanted) {
        let mut matches = ids(ctx)?.into_iter().filter(|id| id.starts_with(wanted));
        match (matches.next(), matches.next()) {
            (Some(id), None) => return Ok(id),
            (Some(_), Some(_)) => {
                return Err(Error::not_found(format!("Multiple IDs found with provided prefix: {wanted}"))
                    .with_hint("write more digits, or the container's name"));
            }
            (None, _) => {}
        }
    }
    Err(no_such(wanted))
}

/// The container of this name, ID or unique prefix of an ID.
///
/// # Errors
/// None, several, or a damaged record.
pub fn find(ctx: &Context, wanted: &str) -> Result<Record> {
    let id = find_id(ctx, wanted)?;
    Record::load(&ctx.container_dir(&id)).map_err(|e| if e.kind == plan::Kind::NotFound { no_such(wanted) } else { e })
}
