//! A container's files as it sees them itself, for `cp`, `export`, `diff` and `commit`.
//!
//! A running container's are reached through `/proc/<pid>/root`; one at rest is mounted for the occasion,
//! in the mount namespace of a [`child`]. Whoever wrote those files is not trusted (CVE-2018-15664,
//! CVE-2019-14271): every path is resolved by openat2(RESOLVE_IN_ROOT) inside the container's root, and
//! nothing of the container is ever executed or loaded.

pub mod child;
pub mod copy;

use super::record::{MountKind, MountPoint, Record};
use super::{life, lock::Lock, volume};
use crate::context::Context;
use child::Child;
use plan::{Error, Result, ResultExt};
use runtime::planner::options::overlay_data;
use runtime::state::{self, State, Status};
use runtime::volume::VolumeMount;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::MountFlags;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Which of a container's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All that it sees, mounts included.
    Whole,
    /// Image and changes, without what is mounted over them; to look at only.
    Root,
    /// The image alone.
    Image,
}

/// A container whose files are being worked with. At rest, nobody can start it meanwhile.
pub struct Held<'r> {
    record: &'r Record,
    dir: PathBuf,
    layers: PathBuf,
    /// Volumes that are file systems of their own.
    volumes: Vec<VolumeMount>,
    /// The root of a running container.
    live: Option<OwnedFd>,
    _lock: Option<Lock>,
}

impl Held<'_> {
    /// # Errors
    /// A damaged state; a container that is being started.
    pub fn of<'r>(ctx: &Context, record: &'r Record) -> Result<Held<'r>> {
        let volumes = volume::mount::of(ctx, record)?;
        let held = |live, lock| Held {
            record,
            volumes,
            dir: ctx.container_dir(&record.id),
            layers: ctx.root.join("layers"),
            live,
            _lock: lock,
        };
        let state = life::state(ctx, &record.id)?;
        if state.status == Status::Running
            && let Some(root) = live_root(&state)?
        {
            return Ok(held(Some(root), None));
        }
        let lock = Lock::take(ctx, &record.id)?;
        // Started between our look and our lock.
        let state = life::state(ctx, &record.id)?;
        match state.status {
            Status::Running => Ok(held(live_root(&state)?, Some(lock))),
            _ => Ok(held(None, Some(lock))),
        }
    }

    /// Whether it runs.
    pub fn is_live(&self) -> bool {
        self.live.is_some()
    }

    /// Where the changes are.
    pub fn upper(&self) -> PathBuf {
        self.dir.join("upper")
    }

    /// Runs `act` on the root of a part of the files, in a child.
    ///
    /// # Errors
    /// Of fork; the rest is told by [`Child::join`].
    pub fn work<T: Serialize + DeserializeOwned>(
        &self,
        part: Part,
        act: impl FnOnce(BorrowedFd<'_>) -> Result<T>,
    ) -> Result<Child<T>> {
        if part == Part::Whole
            && let Some(root) = &self.live
        {
            return child::spawn(false, || act(root.as_fd()));
        }
        child::spawn(true, || {
            let root = self.mount(part)?;
            act(root.as_fd())
        })
    }

    /// In the child: the layers joined, over their own directory, since the mount needs some place.
    fn mount(&self, part: Part) -> Result<OwnedFd> {
        let lower = &self.record.layers;
        match part {
            Part::Image => joined(&self.layers, lower, &self.layers),
            Part::Root => {
                // The upper directory of a running container is only looked at, as one more layer below.
                let mut all = lower.clone();
                all.insert(0, self.upper());
                joined(&self.layers, &all, &self.layers)
            }
            Part::Whole => {
                let data = overlay_data(lower, &self.upper(), &self.dir.join("work"), false);
                let root = overlay(&self.layers, &self.layers, MountFlags::empty(), data)?;
                self.bind(&root)?;
                Ok(root)
            }
        }
    }

    /// Binds and volumes, where the container has them.
    fn bind(&self, root: &OwnedFd) -> Result<()> {
        for mount in self.record.mounts.iter().filter(|m| m.kind != MountKind::Tmpfs && m.source.exists()) {
            let target = match resolve(root.as_fd(), &mount.destination, OFlags::PATH) {
                Ok(fd) => fd,
                Err(Errno::NOENT) => make_mountpoint(root, &mount.destination, mount.source.is_dir())
                    .doing(|| format!("make {}", mount.destination.display()))?,
                Err(e) => return Err(Error::os(format!("find {}", mount.destination.display()), e.raw_os_error())),
            };
            let target = format!("/proc/self/fd/{}", target.as_raw_fd());
            let doing = || format!("mount {} on {}", mount.source.display(), mount.destination.display());
            if let Some(volume) = self.volumes.iter().find(|v| v.target == mount.source) {
                volume::mount::show(volume)?;
            }
            let source = source(mount).doing(doing)?;
            rustix::mount::mount_bind(format!("/proc/self/fd/{}", source.as_raw_fd()), &target).doing(doing)?;
            if !mount.rw {
                let again = resolve(root.as_fd(), &mount.destination, OFlags::PATH).doing(doing)?;
                let again = format!("/proc/self/fd/{}", again.as_raw_fd());
                rustix::mount::mount_remount(again, MountFlags::BIND | MountFlags::RDONLY, "").doing(doing)?;
            }
        }
        Ok(())
    }
}

/// What a mount shows. A part of a volume is looked up inside it: a link there leads nowhere else.
fn source(mount: &MountPoint) -> rustix::io::Result<OwnedFd> {
    let whole = rustix::fs::open(&mount.source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    match mount.subpath.as_os_str().is_empty() {
        true => Ok(whole),
        false => resolve(whole.as_fd(), &mount.subpath, OFlags::PATH),
    }
}

/// What the first start would make: the directories of a path, and for a bound file an empty one.
fn make_mountpoint(root: &OwnedFd, path: &Path, directory: bool) -> rustix::io::Result<OwnedFd> {
    let mut here = resolve(root.as_fd(), Path::new("/"), OFlags::PATH)?;
    let mut at = PathBuf::from("/");
    let names: Vec<_> = path.components().filter(|c| matches!(c, std::path::Component::Normal(_))).collect();
    for (i, name) in names.iter().enumerate() {
        at.push(name);
        here = match resolve(root.as_fd(), &at, OFlags::PATH) {
            Err(Errno::NOENT) if directory || i + 1 < names.len() => {
                rustix::fs::mkdirat(&here, name.as_os_str(), Mode::from_raw_mode(0o755))?;
                resolve(root.as_fd(), &at, OFlags::PATH)?
            }
            Err(Errno::NOENT) => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                rustix::fs::openat(&here, name.as_os_str(), flags, Mode::from_raw_mode(0o644))?;
                resolve(root.as_fd(), &at, OFlags::PATH)?
            }
            other => other?,
        };
    }
    Ok(here)
}

/// Layers (relative to `base`, topmost first) as one tree to look at; mounted over `seat`, in a mount
/// namespace of the caller's own.
///
/// # Errors
/// Of mount(2).
pub fn joined(base: &Path, lower: &[PathBuf], seat: &Path) -> Result<OwnedFd> {
    // Overlayfs wants two layers for a mount without an upper one; one alone is its own tree.
    if let [only] = lower {
        return open_dir(&base.join(only));
    }
    // The option list of such a mount ends after the layers.
    let data = overlay_data(lower, Path::new(""), Path::new(""), false);
    let layers = data.split(",upperdir=").next().unwrap_or(&data).to_owned();
    overlay(base, seat, MountFlags::RDONLY, layers)
}

fn overlay(base: &Path, seat: &Path, flags: MountFlags, data: String) -> Result<OwnedFd> {
    let data = CString::new(data).map_err(|_| Error::system("a layer's name contains a NUL byte"))?;
    std::env::set_current_dir(base).doing(|| format!("enter {}", base.display()))?;
    rustix::mount::mount("overlay", seat, "overlay", flags, data.as_c_str()).doing(|| "mount the layers")?;
    open_dir(seat)
}

/// The root of a running container. `None`: it has ended.
fn live_root(state: &State) -> Result<Option<OwnedFd>> {
    let path = format!("/proc/{}/root", state.pid);
    match rustix::fs::open(&path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        // Still the same process, so the root was its own.
        Ok(root) => Ok(state::is_alive(state).then_some(root)),
        Err(Errno::NOENT | Errno::SRCH) => Ok(None),
        Err(e) => Err(Error::os(format!("open {path}"), e.raw_os_error())),
    }
}

/// A path inside a root, whatever symlinks it leads through.
///
/// # Errors
/// Of openat2(2).
pub fn resolve(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), how)
}

fn open_dir(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .doing(|| format!("open {}", path.display()))
}
