//! The container's root: mounts, devices, masks, and the change of root itself.
//!
//! Everything here runs in the child, in its own mount namespace. The image is hostile: any
//! component of any path may be a symbolic link, and with a volume that another container also
//! writes to, may become one at any moment. So a path is never given to the kernel twice. It is
//! resolved once, inside the root, by `openat2(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)`, and what
//! comes of it is used by descriptor ([`tree`]).

mod cover;
mod devices;
mod mounts;
mod pivot;
pub(crate) mod tree;

pub(crate) use pivot::{enter, isolate, readonly_root, working_directory};

use crate::step::Step;
use plan::{Error, Result};
use rustix::fs::OFlags;
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::path::Path;
use tree::Tree;

/// The root while it is being put together.
#[derive(Default)]
pub(crate) struct Rootfs {
    tree: Option<Tree>,
    /// `/proc/sys` of our own procfs, from before anything covers it.
    sysctls: Option<OwnedFd>,
    /// Our own `/dev/null`, verified.
    null: Option<OwnedFd>,
    /// Detached copies of the bind sources, in the order of the bind mounts.
    sources: VecDeque<OwnedFd>,
}

impl Rootfs {
    /// Carries out one of the steps that build the root; `false`: it is none of them.
    pub(crate) fn apply(&mut self, step: &Step) -> Result<bool> {
        match step {
            Step::HoldSources { sources } => {
                for (source, recursive) in sources {
                    self.sources.push_back(mounts::clone_tree(source, *recursive)?);
                }
            }
            Step::MountOverlay { base, lower, upper, work, volatile } => {
                self.tree = Some(mounts::overlay(base, lower, upper, work, *volatile)?);
            }
            Step::BindRoot { path } => self.tree = Some(mounts::bind_root(path)?),
            Step::Mount { kind, source, target, attributes, data } => {
                let mounted = mounts::new_filesystem(self.tree()?, kind, source, target, *attributes, data)?;
                if kind == "proc" {
                    self.sysctls = mounts::proc_sys(&mounted);
                }
            }
            Step::BindMount { source, target, change, .. } => {
                let from = self.sources.pop_front().ok_or_else(|| Error::system("a bind mount without its source"))?;
                mounts::bind(self.tree()?, from, source, target, change)?;
            }
            Step::MountCgroups { target, binds, links, readonly } => {
                mounts::cgroups(self.tree()?, target, binds, links, *readonly)?;
            }
            Step::MakeDevices { standard, extra } => {
                if *standard {
                    self.null = Some(devices::standard(self.tree()?)?);
                }
                for device in extra {
                    devices::one(self.tree()?, device)?;
                }
            }
            Step::Mask { paths } => cover::mask(self.tree()?, paths, self.null.as_ref())?,
            Step::ReadOnlyPaths { paths } => cover::readonly(self.tree()?, paths)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub(crate) fn tree(&self) -> Result<&Tree> {
        self.tree.as_ref().ok_or_else(|| Error::system("the root is not mounted yet"))
    }

    /// Is what we mounted on /proc still what is there? A volume whose target is a symbolic link of the image, or
    /// becomes one under way, may have come to lie over it, and pose as the kernel.
    pub(crate) fn is_proc_uncovered(&self) -> Result<()> {
        if self.sysctls.is_none() {
            return Ok(());
        }
        let there = self.tree()?.open_plain(Path::new("/proc"), OFlags::PATH | OFlags::DIRECTORY);
        let kind = there.and_then(rustix::fs::fstatfs).map_err(|e| Error::os("look at /proc", e.raw_os_error()))?;
        if kind.f_type as u32 == tree::PROC_MAGIC {
            return Ok(());
        }
        Err(Error::system("a mount covers /proc").with_hint(
            "the target of a volume or tmpfs is a symbolic link to /proc in this image: name another target",
        ))
    }

    /// The `/proc/sys` to write settings to: kept from when procfs was mounted, else opened and
    /// verified now.
    pub(crate) fn sysctls(&self) -> Result<OwnedFd> {
        match &self.sysctls {
            Some(fd) => {
                Ok(rustix::io::fcntl_dupfd_cloexec(fd, 3).map_err(|e| Error::os("open /proc/sys", e.raw_os_error()))?)
            }
            None => tree::open_proc_sys(),
        }
    }
}
