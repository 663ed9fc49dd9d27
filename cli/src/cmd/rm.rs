//! `rrun rm`: takes containers away.

use crate::args::RmArgs;
use crate::container::ending::Will;
use crate::container::lock::Lock;
use crate::container::{self, Record, events, life, names, remove};
use crate::context::Context;
use crate::render;
use plan::{Error, Kind, Result};
use runtime::cgroup::Layout;
use runtime::state::{State, Status};

pub fn run(ctx: &Context, args: &RmArgs) -> Result<i32> {
    super::each(&args.containers, |name| {
        match one(ctx, name, args) {
            // Docker's rule: with -f, what is not there is as good as removed.
            Err(e) if args.force && e.kind == Kind::NotFound => {
                render::error::print(&e);
                Ok(())
            }
            Err(e) => Err(e),
            Ok(()) => {
                super::out(&format!("{name}\n"));
                Ok(())
            }
        }
    })
}

/// Removes a container that does not run; its volumes stay.
///
/// # Errors
/// It runs; a file that resists.
pub fn stopped(ctx: &Context, record: &Record) -> Result<()> {
    one(ctx, &record.id, &RmArgs { force: false, volumes: false, containers: Vec::new() })
}

fn one(ctx: &Context, name: &str, args: &RmArgs) -> Result<()> {
    let id = container::find_id(ctx, name)?;
    let record = match Record::load(&ctx.container_dir(&id)) {
        Ok(record) => record,
        Err(e) => return broken(ctx, name, &id, args.force, e),
    };
    // With -f a start that is under way is waited for and ended: after a few tries somebody is
    // starting it as fast as we stop it, and is told.
    for _ in 0..5 {
        match life::state(ctx, &id) {
            Ok(state) if !matches!(state.status, Status::Running | Status::Restarting) => {}
            Ok(_) if args.force => life::stop(ctx, &record, libc::SIGKILL, None, Will::Kill)?,
            Ok(state) => return Err(in_use(&record, &state, name)?),
            // A damaged state names no process: the cgroup does.
            Err(e) => return broken(ctx, name, &id, args.force, e),
        }
        let lock = match Lock::take(ctx, &id).and_then(|lock| life::repair_locked(ctx, &id, lock)) {
            Ok(Some(lock)) => lock,
            // One of `--rm`: its end has removed it.
            Ok(None) => return Ok(()),
            Err(e) if e.kind == Kind::NotFound => return names::release(ctx, &record.name, &id),
            Err(e) => return Err(e),
        };
        // Somebody may have started it between our look and our lock.
        if matches!(life::state(ctx, &id)?.status, Status::Running | Status::Restarting) {
            continue;
        }
        return discard(ctx, &record, args.volumes, lock);
    }
    Err(Error::conflict(format!("cannot remove container \"{name}\": it was just started"))
        .with_hint(format!("rrun rm -f {name}")))
}

/// Docker's texts.
fn in_use(record: &Record, state: &State, name: &str) -> Result<Error> {
    let why = match state.status {
        _ if life::is_paused(record, state, &Layout::observe()?) => "container is paused and must be unpaused first",
        Status::Restarting => "container is restarting: stop the container before removing or force remove",
        _ => "container is running: stop the container before removing or force remove",
    };
    Ok(Error::conflict(format!("cannot remove container \"{name}\": {why}")).with_hint(format!("rrun rm -f {name}")))
}

fn discard(ctx: &Context, record: &Record, volumes: bool, lock: Lock) -> Result<()> {
    if volumes {
        remove::anonymous_volumes(ctx, record)?;
    }
    remove::discard(ctx, record)?;
    drop(lock);
    events::container(ctx, record, "destroy", &[]);
    Ok(())
}

/// A record that cannot be read still has a directory, a name, and perhaps a process.
fn broken(ctx: &Context, name: &str, id: &str, force: bool, error: Error) -> Result<()> {
    let gone = error.kind == Kind::NotFound;
    if !gone && !force {
        return Err(error
            .context(format!("cannot remove container \"{name}\""))
            .with_hint(format!("rrun rm -f {name}")));
    }
    if !gone {
        life::take_down(ctx, id)?;
    }
    remove::files(ctx, id)?;
    for (claimed, holder) in names::all(ctx) {
        if holder == id {
            names::release(ctx, &claimed, id)?;
        }
    }
    Ok(())
}
