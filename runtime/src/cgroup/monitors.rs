//! Where monitors sit: `rrun/monitors`, one group for all of them.
//!
//! In its caller's group a monitor would die with that: `systemctl stop` of a unit kills whatever the unit's
//! processes have started, and a log-out what belongs to the session. Its container would go on without a log,
//! ports that are relayed, and somebody who notes how it ended. The group has no limits, and nobody's counts here.
//!
//! Best effort: where a hierarchy cannot be written, the monitor stays with its caller in that one.

use super::{Layout, enter, make_dirs, make_v1, open_unified};
use std::os::fd::OwnedFd;
use std::path::Path;

const PATH: &str = "rrun/monitors";

/// The v2 group, for the monitor to be born in: to move there would wait for a grace period.
pub fn birthplace(layout: &Layout) -> Option<OwnedFd> {
    let root = &layout.unified.as_ref()?.root;
    let dir = root.join(PATH);
    open_unified(&dir).ok().or_else(|| {
        // The first one here, or beside another first one: who made it does not matter.
        let _ = make_dirs(root, Path::new(PATH), |_| Ok(()));
        open_unified(&dir).ok()
    })
}

/// Moves the calling monitor out of its caller's v1 groups. Three system calls a hierarchy, so not while
/// somebody waits for a container to start, or for a short one to end.
pub fn settle(layout: &Layout) {
    for hierarchy in &layout.v1 {
        let dir = [hierarchy.root.join(PATH)];
        if enter(&dir, &[]).is_err() && make_v1(hierarchy, Path::new(PATH)).is_ok() {
            let _ = enter(&dir, &[]);
        }
    }
}
