//! What lies behind `-v`: host directories, and volumes, which start as what the image has there.

mod copy;
pub mod mount;
pub mod options;
pub mod store;

use super::record::{MountKind, MountPoint, Record};
use super::{remove, spec};
use crate::context::Context;
use plan::{Error, Journal, Result, ResultExt};
use runtime::spec::Root;
use runtime::volume::VolumeMount;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// Beside `_data` while it is being filled: a copy that was cut short is begun anew.
const FILLING: &str = "filling";

/// Makes sure that every mount of the container has something behind it. `file_systems` are the first steps of
/// the plan; the undo list has them.
///
/// # Errors
/// Of making directories, of mounting, and of copying the image's files into an empty volume.
pub fn prepare(
    ctx: &Context,
    record: &Record,
    root: &Root,
    file_systems: &[VolumeMount],
    journal: &mut Journal,
) -> Result<()> {
    for mount in &record.mounts {
        match mount.kind {
            MountKind::Tmpfs => {}
            MountKind::Bind if mount.must_exist => {}
            MountKind::Bind => host_directory(&mount.source)?,
            MountKind::Volume => {
                let at = file_systems.iter().position(|v| v.target == mount.source);
                let begin = journal.now();
                let volume = Volume { ctx, record, mount, root };
                match at.map(|at| (at, &file_systems[at])) {
                    None => volume
                        .directory()
                        .map_err(|e| e.context(format!("prepare the volume for {}", mount.destination.display())))?,
                    Some((at, file_system)) => {
                        volume.mounted(file_system)?;
                        journal.mark(at, begin);
                    }
                }
            }
        }
    }
    Ok(())
}

/// The volumes of a container that is made and not started: as with Docker they are there from then on, and filled.
/// One with options is filled by the first start.
///
/// # Errors
/// As [`prepare`].
pub fn make(ctx: &Context, record: &Record) -> Result<()> {
    let root = &spec::root(ctx, record);
    let file_systems = mount::of(ctx, record)?;
    for mount in record.mounts.iter().filter(|m| m.kind == MountKind::Volume) {
        let volume = Volume { ctx, record, mount, root };
        match (&mount.name, file_systems.iter().any(|v| v.target == mount.source)) {
            (Some(name), true) => {
                let _lock = store::lock(ctx, name)?;
                store::begin(ctx, name, &mount.labels, &mount.options)?;
            }
            _ => volume.directory()?,
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

/// A volume where a container has it.
struct Volume<'a> {
    ctx: &'a Context,
    record: &'a Record,
    mount: &'a MountPoint,
    root: &'a Root,
}

impl Volume<'_> {
    /// The plain kind. Two containers may meet at a fresh volume: one fills it, the other waits.
    fn directory(&self) -> Result<()> {
        let (ctx, mount) = (self.ctx, self.mount);
        let Some(name) = &mount.name else { return Ok(()) };
        let _lock = store::lock(ctx, name)?;
        let dir = ctx.volume_dir(name);
        let (data, filling) = (dir.join("_data"), dir.join(FILLING));
        if filling.exists() {
            store::expect_unmounted(&dir)?;
            remove::tree(&data)?;
        }
        if data.exists() && (!mount.copy_up || !is_empty(&data)?) {
            return Ok(());
        }
        std::fs::write(&filling, "").doing(|| format!("create {}", filling.display()))?;
        store::begin(ctx, name, &mount.labels, &mount.options)?;
        if mount.copy_up {
            self.copy_up()?;
        }
        std::fs::remove_file(&filling).doing(|| format!("remove {}", filling.display()))
    }

    /// A file system of its own. What is in it may be somebody else's, so that nothing is ever removed from it,
    /// not even half a copy.
    fn mounted(&self, file_system: &VolumeMount) -> Result<()> {
        let Some(name) = &self.mount.name else { return Ok(()) };
        let _lock = store::lock(self.ctx, name)?;
        store::begin(self.ctx, name, &self.mount.labels, &self.mount.options)?;
        mount::join(file_system)?;
        if self.mount.copy_up && is_empty(&file_system.target)? {
            self.copy_up()?;
        }
        Ok(())
    }

    fn copy_up(&self) -> Result<()> {
        let seat = self.ctx.container_dir(&self.record.id).join("work");
        copy::from_image(self.root, &self.mount.destination, &self.mount.source, &seat)
    }
}

fn is_empty(dir: &Path) -> Result<bool> {
    Ok(std::fs::read_dir(dir).doing(|| format!("read {}", dir.display()))?.next().is_none())
}
