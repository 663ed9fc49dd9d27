//! What lies behind `-v`: host directories, and volumes, which start as what the image has there.

mod copy;
pub mod store;

use super::events::{self, Event};
use super::record::{MountKind, MountPoint, Record};
use super::{file, remove};
use crate::context::Context;
use plan::{Error, Result, ResultExt};
use runtime::spec::Root;
use rustix::fs::FlockOperation;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// Beside `_data` while it is being filled: a copy that was cut short is begun anew.
const FILLING: &str = "filling";

/// Makes sure that every mount of the container has something behind it.
///
/// # Errors
/// Of making directories, and of copying the image's files into an empty volume.
pub fn prepare(ctx: &Context, record: &Record, root: &Root) -> Result<()> {
    for mount in &record.mounts {
        match mount.kind {
            MountKind::Tmpfs => {}
            MountKind::Bind if mount.must_exist => {}
            MountKind::Bind => host_directory(&mount.source)?,
            MountKind::Volume => volume(ctx, record, mount, root)
                .map_err(|e| e.context(format!("prepare the volume for {}", mount.destination.display())))?,
        }
    }
    Ok(())
}

/// `-v` makes a directory of a source that is not there, as Docker does.
fn host_directory(path: &Path) -> Result<()> {
    match std::fs::metadata(path) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => public_dir(path)
            .map_err(|e| Error::io(format!("error while creating mount source path '{}'", path.display()), &e)),
        Err(e) => Err(Error::io(format!("bind source {}", path.display()), &e)),
    }
}

/// 0755 whatever the umask.
fn public_dir(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o755).create(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
}

fn volume(ctx: &Context, record: &Record, mount: &MountPoint, root: &Root) -> Result<()> {
    let Some(name) = &mount.name else { return Ok(()) };
    let dir = ctx.volume_dir(name);
    super::make_private_dir(&dir)?;
    // Two containers may meet at a fresh volume: one fills it, the other waits.
    let handle = file::open_dir(&dir)?;
    rustix::io::retry_on_intr(|| rustix::fs::flock(&handle, FlockOperation::LockExclusive))
        .doing(|| format!("lock volume {name}"))?;
    let (data, filling) = (dir.join("_data"), dir.join(FILLING));
    if filling.exists() {
        remove::tree(&data)?;
    }
    if data.exists() && (!mount.copy_up || !is_empty(&data)?) {
        return Ok(());
    }
    std::fs::write(&filling, "").doing(|| format!("create {}", filling.display()))?;
    if !data.exists() {
        public_dir(&data).doing(|| format!("create {}", data.display()))?;
        events::write(ctx, &[Event::volume("create", name, &[])]);
    }
    if mount.copy_up {
        copy::from_image(root, &mount.destination, &data, &ctx.container_dir(&record.id).join("work"))?;
    }
    std::fs::remove_file(&filling).doing(|| format!("remove {}", filling.display()))
}

fn is_empty(dir: &Path) -> Result<bool> {
    Ok(std::fs::read_dir(dir).doing(|| format!("read {}", dir.display()))?.next().is_none())
}
