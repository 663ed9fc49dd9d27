//! `undo.json`: what a container leaves on the host, written once before the first step.
//!
//! Normal end, failed start and the repair after a crash walk the same list, so every run tests the
//! path. Every removal is idempotent.

use super::file;
use super::volume::mount;
use crate::context::Context;
use plan::{Error, HostThing, Result};
use runtime::host::HostFacts;
use serde::{Deserialize, Serialize};
use std::path::Path;

const FILE: &str = "undo.json";
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Undo<T> {
    version: u32,
    things: T,
}

/// # Errors
/// Of writing; then no step may be taken.
pub fn save(state_dir: &Path, things: &[HostThing]) -> Result<()> {
    file::create(file::open_dir(state_dir)?, FILE, &Undo { version: VERSION, things })
}

/// The list has changed while the container runs: a reader sees the old one or the new.
///
/// # Errors
/// Of writing; the old list is then still there.
pub fn replace(state_dir: &Path, things: &[HostThing]) -> Result<()> {
    file::replace(state_dir, FILE, &Undo { version: VERSION, things })
}

/// The list of a start that got as far as writing it.
///
/// # Errors
/// A damaged file, or a newer version's.
pub fn load(state_dir: &Path) -> Result<Option<Vec<HostThing>>> {
    Ok(file::read::<Undo<Vec<HostThing>>>(state_dir, FILE, VERSION)?.map(|undo| undo.things))
}

/// What every container has, wherever its start was cut short.
pub fn least(ctx: &Context, id: &str) -> Vec<HostThing> {
    vec![HostThing::StateDir { path: ctx.state_dir(id) }, HostThing::CgroupDir { path: Path::new("rrun").join(id) }]
}

fn is_the_networks(thing: &HostThing) -> bool {
    !matches!(thing, HostThing::CgroupDir { .. } | HostThing::VolumeMount { .. } | HostThing::StateDir { .. })
}

/// Gives up the mounts of volumes, and returns what resisted.
pub fn volumes(things: &[HostThing]) -> Vec<Error> {
    let leave = |thing: &HostThing| match thing {
        HostThing::VolumeMount { target, lease, owner } => mount::leave(target, lease, owner).err(),
        _ => None,
    };
    things.iter().filter_map(leave).collect()
}

/// Takes everything back. Goes on after a failure; the first one is returned with the others as
/// notes. The state directory, which holds the list itself, is kept if anything failed, so that the
/// next command can try again.
///
/// # Errors
/// Something on the host resists.
pub fn walk(things: &[HostThing], facts: &HostFacts) -> Result<()> {
    let mut failures = Vec::new();
    // What still runs must end before its addresses and ports can be anybody else's.
    for thing in things {
        if let HostThing::CgroupDir { path } = thing {
            failures.extend(runtime::cgroup::remove(path, facts).err());
        }
    }
    failures.extend(volumes(things));
    if things.iter().any(is_the_networks) {
        failures.extend(netstack::repair::undo(things).err());
    }
    if failures.is_empty() {
        for thing in things {
            if let HostThing::StateDir { path } = thing {
                failures.extend(super::remove::tree(path).err());
            }
        }
    }
    let mut failures = failures.into_iter();
    match failures.next() {
        None => Ok(()),
        Some(first) => Err(failures.fold(first, |first, next| first.with_note(next.to_string()))),
    }
}
