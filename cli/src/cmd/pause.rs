//! `rrun pause` and `rrun unpause`.

use crate::args::PauseArgs;
use crate::container::{self, Record, events, life};
use crate::context::Context;
use plan::{Error, Result};
use runtime::cgroup::{self, Layout};
use runtime::state::Status;

pub fn run(ctx: &Context, args: &PauseArgs) -> Result<i32> {
    super::each(&args.containers, |name| {
        let record = container::find(ctx, name)?;
        let layout = Layout::observe()?;
        if is_paused(ctx, &record, &layout)? {
            return Err(Error::conflict(format!("Container {} is already paused", record.id))
                .with_hint(format!("rrun unpause {name}")));
        }
        cgroup::freeze(&record.cgroup_path(), &layout)?;
        events::container(ctx, &record, "pause", &[]);
        super::out(&format!("{name}\n"));
        Ok(())
    })
}

/// `rrun unpause`.
///
/// # Errors
/// Docker's texts.
pub fn undo(ctx: &Context, args: &PauseArgs) -> Result<i32> {
    super::each(&args.containers, |name| {
        let record = container::find(ctx, name)?;
        let layout = Layout::observe()?;
        if !is_paused(ctx, &record, &layout)? {
            return Err(Error::conflict(format!("Container {} is not paused", record.id))
                .with_hint("`rrun ps --filter status=paused` lists those that are"));
        }
        cgroup::thaw(&record.cgroup_path(), &layout)?;
        events::container(ctx, &record, "unpause", &[]);
        super::out(&format!("{name}\n"));
        Ok(())
    })
}

/// # Errors
/// Docker's texts for a container that does not run.
fn is_paused(ctx: &Context, record: &Record, layout: &Layout) -> Result<bool> {
    let state = life::state(ctx, &record.id)?;
    match state.status {
        Status::Running => Ok(life::is_paused(record, &state, layout)),
        Status::Restarting => {
            Err(Error::conflict(format!("Container {} is restarting, wait until the container is running", record.id))
                .with_hint(format!("`rrun logs {}` tells why it keeps ending", record.name)))
        }
        Status::Created | Status::Exited => Err(Error::conflict(format!("Container {} is not running", record.id))
            .with_hint(format!("rrun start {}", record.name))),
    }
}
