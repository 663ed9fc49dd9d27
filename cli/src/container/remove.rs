//! Taking a container away: its files, its anonymous volumes, its name.

use super::events::{self, Event};
use super::lock::Lock;
use super::record::Record;
use super::volume::store;
use super::{life, names, spec};
use crate::context::Context;
use plan::{Error, Kind, Result};
use std::path::Path;
use std::time::Duration;

/// Removes everything that a stopped container consists of. The name goes last: if we are killed
/// before, the same `rm` finds the container again and goes on.
///
/// # Errors
/// A file that cannot be removed.
pub fn discard(ctx: &Context, record: &Record) -> Result<()> {
    // An end that the disk had no room for.
    if ctx.state_dir(&record.id).exists() {
        life::take_down(ctx, &record.id)?;
    }
    give_up_addresses(ctx, &record.id)?;
    files(ctx, &record.id)?;
    // Empty but for an exit code that a full disk had no room for.
    tree(&ctx.state_dir(&record.id))?;
    names::release(ctx, &record.name, &record.id)
}

/// The addresses that its record remembers: as it is now, not as it was before its end wrote them down.
///
/// # Errors
/// A lease that cannot be removed.
pub fn give_up_addresses(ctx: &Context, id: &str) -> Result<()> {
    match Record::load(&ctx.container_dir(id)) {
        Ok(record) => ctx.netstack().forget(id, &record.networks),
        // Nobody knows any more; a lease whose owner is gone is free.
        Err(_) => Ok(()),
    }
}

/// Removes the container from sight: what `--rm` does before it reports the exit code. The rest
/// follows by [`files`]; a directory without a name is nobody's and is swept up by the next `ps`.
///
/// # Errors
/// Of the name's link.
pub fn hide(ctx: &Context, record: &Record) -> Result<()> {
    names::release(ctx, &record.name, &record.id)
}

/// Whether a container's directory belongs to nobody: a `create` was killed before it claimed the
/// name, or an end of `--rm` after it had freed it.
pub fn is_nameless(ctx: &Context, id: &str) -> bool {
    match Record::load(&ctx.container_dir(id)) {
        Ok(record) => names::holder(ctx, &record.name).as_deref() != Some(id),
        Err(e) if e.kind == Kind::NotFound => true,
        // Damaged since, or only half written.
        Err(_) => !names::all(ctx).iter().any(|(_, holder)| holder == id),
    }
}

/// Removes a nameless directory that nobody is busy with any more.
///
/// # Errors
/// A file that cannot be removed.
pub fn nameless(ctx: &Context, id: &str) -> Result<()> {
    /// Longer than any `create` takes between its directory and its name.
    const AGE: Duration = Duration::from_secs(60);
    let dir = ctx.container_dir(id);
    let age = std::fs::metadata(&dir).and_then(|m| m.modified()).ok().and_then(|at| at.elapsed().ok());
    match Lock::try_take(ctx, id) {
        Ok(Some(_lock)) if age.is_some_and(|age| age > AGE) => tree(&dir),
        _ => Ok(()),
    }
}

/// # Errors
/// A file that cannot be removed.
pub fn files(ctx: &Context, id: &str) -> Result<()> {
    tree(&ctx.container_dir(id))
}

/// The volumes that were made for this container alone and that no other has mounted (`--volumes-from`).
///
/// # Errors
/// The containers cannot be listed.
pub fn own_volumes<'r>(ctx: &Context, record: &'r Record) -> Result<Vec<&'r str>> {
    let mut own = Vec::new();
    for name in spec::anonymous_volumes(record).filter(|name| names::is_valid(name)) {
        if !is_mounted_elsewhere(ctx, record, name)? {
            own.push(name);
        }
    }
    Ok(own)
}

/// Removes the volumes that are a container's own.
///
/// # Errors
/// A file that cannot be removed.
pub fn anonymous_volumes(ctx: &Context, record: &Record) -> Result<()> {
    for name in own_volumes(ctx, record)? {
        store::discard(ctx, name)?;
        events::write(ctx, &[Event::volume("destroy", name, &[])]);
    }
    Ok(())
}

/// A record that cannot be read may mean any volume.
fn is_mounted_elsewhere(ctx: &Context, record: &Record, volume: &str) -> Result<bool> {
    let others = super::ids(ctx)?.into_iter().filter(|id| *id != record.id);
    let has = |other: Record| other.mounts.iter().any(|m| m.name.as_deref() == Some(volume));
    Ok(others.map(|id| Record::load(&ctx.container_dir(&id))).any(|other| match other {
        Ok(other) => has(other),
        Err(e) => e.kind != Kind::NotFound,
    }))
}

/// Removes a directory and all in it, never following a symbolic link; that it is not there is
/// success.
///
/// # Errors
/// Of the first file that resists.
pub fn tree(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            let error = Error::io(format!("remove {}", path.display()), &e);
            Err(match e.raw_os_error() {
                Some(libc::EPERM) => {
                    error.with_hint("an immutable file inside? `lsattr -R` shows it, `chattr -i` frees it")
                }
                Some(libc::EBUSY) => error.with_hint("something is mounted inside: `findmnt -R` shows it"),
                _ => error,
            })
        }
        _ => Ok(()),
    }
}
