//! `<state>/workers/<pid>`: a symbolic link to the container that the process makes or watches.
//!
//! One readdir and a readlink(2) each tell whether a creator or a monitor has died without cleaning
//! up: so cheap that every command can do it. A pid that has come round again only delays the repair
//! until somebody asks for that container; what is repaired is decided by start time and boot.

use crate::context::Context;
use plan::{Result, ResultExt};
use rustix::process::Pid;
use std::path::PathBuf;

fn dir(ctx: &Context) -> PathBuf {
    ctx.state.join("workers")
}

fn own_link(ctx: &Context) -> PathBuf {
    dir(ctx).join(std::process::id().to_string())
}

/// Called before anything is made.
///
/// # Errors
/// Of symlink(2): without the link nobody would clean up after us.
pub fn enter(ctx: &Context, id: &str) -> Result<()> {
    let link = own_link(ctx);
    let doing = || format!("create {}", link.display());
    for _ in 0..2 {
        match std::os::unix::fs::symlink(id, &link) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => super::make_private_dir(&dir(ctx))?,
            // Of a killed process that had our pid, and whose container nobody asked for since.
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                let old = std::fs::read_link(&link).ok().and_then(|t| t.into_os_string().into_string().ok());
                if let Some(old) = old.filter(|old| super::names::is_id(old)) {
                    super::life::repair(ctx, &old)?;
                }
                let _ = std::fs::remove_file(&link);
            }
            done => return done.doing(doing),
        }
    }
    std::os::unix::fs::symlink(id, &link).doing(doing)
}

/// Called when nothing is left to be done by somebody else.
pub fn leave(ctx: &Context) {
    // A link that stays costs the next command a look, no more.
    let _ = std::fs::remove_file(own_link(ctx));
}

/// Containers whose creator or monitor is gone.
pub fn orphans(ctx: &Context) -> Vec<String> {
    dead(ctx).map(|(_, id)| id).collect()
}

/// Drops the links of dead processes to `id`.
///
/// # Errors
/// Of unlink(2).
pub fn forget(ctx: &Context, id: &str) -> Result<()> {
    for (pid, holder) in dead(ctx) {
        if holder == id {
            let link = dir(ctx).join(pid.as_raw_nonzero().to_string());
            match std::fs::remove_file(&link) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(plan::Error::io(format!("remove {}", link.display()), &e));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

fn dead(ctx: &Context) -> impl Iterator<Item = (Pid, String)> {
    let dir = dir(ctx);
    let entries = std::fs::read_dir(&dir).into_iter().flatten().flatten();
    entries.filter_map(move |e| {
        let pid = Pid::from_raw(e.file_name().to_str()?.parse::<i32>().ok().filter(|pid| *pid > 1)?)?;
        if exists(pid) {
            return None;
        }
        let target = std::fs::read_link(e.path()).ok()?;
        let id = target.to_str().filter(|id| super::names::is_id(id))?;
        Some((pid, id.to_string()))
    })
}

/// A zombie that its parent is slow to reap has no executable any more, and counts as dead.
fn exists(pid: Pid) -> bool {
    std::fs::read_link(format!("/proc/{}/exe", pid.as_raw_nonzero())).is_ok()
}
