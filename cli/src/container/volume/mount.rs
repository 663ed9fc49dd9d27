//! Who uses the file system of a volume: mounted with the first container, unmounted with the last.
//!
//! `<state>/volumes/<name>/<id>` says that a container does; its content is the owner, and one whose owner has no
//! directory in `<state>/containers` is nobody's. Whoever looks or changes holds the volume's lock.

use super::options::{file_system, for_kernel};
use super::store;
use crate::container::record::{MountKind, Record};
use crate::context::Context;
use plan::{Result, ResultExt};
use runtime::volume::{VolumeMount, is_mounted, unmount};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Where the leases of a volume are.
pub fn leases(ctx: &Context, name: &str) -> PathBuf {
    ctx.state.join("volumes").join(name)
}

/// The volumes of a container that have to be mounted for it.
///
/// # Errors
/// A volume whose options cannot be read.
pub fn of(ctx: &Context, record: &Record) -> Result<Vec<VolumeMount>> {
    let mut found: Vec<VolumeMount> = Vec::new();
    for mount in record.mounts.iter().filter(|m| m.kind == MountKind::Volume) {
        let Some(name) = mount.name.as_deref().filter(|_| !found.iter().any(|v| v.target == mount.source)) else {
            continue;
        };
        let options = store::options(ctx, name, &mount.options)?;
        let Some((kind, device, options)) = file_system(&options) else { continue };
        found.push(VolumeMount {
            kind: kind.into(),
            device: device.into(),
            options: options.into(),
            target: mount.source.clone(),
            lease: leases(ctx, name).join(&record.id),
            owner: record.id.clone(),
        });
    }
    Ok(found)
}

/// Makes its owner a user of a volume, which is mounted if it is not yet. The undo list has it.
///
/// # Errors
/// Docker's text for what cannot be mounted.
pub fn join(volume: &VolumeMount) -> Result<()> {
    let lease = &volume.lease;
    let doing = || format!("write {}", lease.display());
    if let Some(dir) = lease.parent() {
        crate::container::make_private_dir(dir)?;
    }
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(lease).doing(doing)?;
    std::io::Write::write_all(&mut file, volume.owner.as_bytes()).doing(doing)?;
    show(volume)
}

/// Mounts it where it is not.
///
/// # Errors
/// As [`join`].
pub fn show(volume: &VolumeMount) -> Result<()> {
    if is_mounted(&volume.target)? {
        return Ok(());
    }
    let (device, options) = for_kernel(volume)?;
    volume.mount(&device, &options)
}

/// Gives up what [`join`] took. Idempotent.
///
/// # Errors
/// Of unmounting.
pub fn leave(target: &Path, lease: &Path, owner: &str) -> Result<()> {
    let lock = target.parent().map(store::lock_existing).transpose()?.flatten();
    if std::fs::read_to_string(lease).is_ok_and(|of| of == owner) {
        std::fs::remove_file(lease).doing(|| format!("remove {}", lease.display()))?;
    }
    let Some(leases) = lease.parent() else { return Ok(()) };
    if lock.is_none() || user(leases).is_some() {
        return Ok(());
    }
    unmount(target)?;
    match std::fs::remove_dir_all(leases) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(plan::Error::io(format!("remove {}", leases.display()), &e)),
        _ => Ok(()),
    }
}

/// A container that has the volume of these leases mounted.
pub fn user(leases: &Path) -> Option<String> {
    let containers = leases.parent()?.parent()?.join("containers");
    let owners = std::fs::read_dir(leases).ok()?.flatten().filter_map(|e| std::fs::read_to_string(e.path()).ok());
    owners.into_iter().find(|id| crate::container::names::is_id(id) && containers.join(id).is_dir())
}
