//! The answers' own ways, while a container runs: its networks come, go, and change places.

use crate::driver::reply;
use crate::model::Endpoint;
use crate::nl::{Batch, Socket};
use crate::step::{Reply, Step};
use plan::{Action, Error, Result};

/// Takes rules away, in the namespace this thread is in. Those that somebody took already do not matter.
pub(crate) fn forget(route: &mut Socket, gone: &[Reply]) -> Result<()> {
    for reply in gone {
        let mut batch = Batch::new();
        batch.delete_reply(0, reply);
        match route.run(batch)? {
            Err(f) if f.errno != libc::ENOENT => return Err(f.error("take back the way of answers")),
            _ => {}
        }
    }
    Ok(())
}

/// From the rules of one state of the container to those of the next, in the namespace this thread is in.
pub(crate) fn change(route: &mut Socket, before: &[Endpoint], after: &[Endpoint]) -> Result<()> {
    forget(route, &reply::difference(before, after).0)?;
    add_new(route, before, after)
}

/// As [`change`], and the old rules stay.
pub(crate) fn add_new(route: &mut Socket, before: &[Endpoint], after: &[Endpoint]) -> Result<()> {
    for step in &reply::difference(before, after).1 {
        let mut batch = Batch::new();
        add(&mut batch, route, 0, step)?;
        match route.run(batch)? {
            // The rule is there; what went with its interface is the route.
            Err(f) if f.errno != libc::EEXIST => return Err(super::refused(std::slice::from_ref(step), &f)),
            _ => {}
        }
    }
    Ok(())
}

/// Appends a step's messages.
pub(super) fn add(batch: &mut Batch, route: &Socket, tag: usize, step: &Step) -> Result<()> {
    let Step::Reply(reply) = step else { return Ok(()) };
    let index = match reply {
        Reply::Exact { .. } => 0,
        Reply::From { ifname, .. } => route.ifindex(ifname)?.ok_or_else(|| {
            Error::system(format!("interface {ifname} is not in the container's namespace")).with_step(step.line())
        })?,
    };
    batch.reply(tag, index, reply);
    Ok(())
}
