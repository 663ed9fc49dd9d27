//! `rrun rename`.

use crate::args::RenameArgs;
use crate::container::service::REFRESH;
use crate::container::{self, Record, events, life, names};
use crate::context::Context;
use plan::{Error, Result};
use serde_json::json;

pub fn run(ctx: &Context, args: &RenameArgs) -> Result<i32> {
    let (old, new) = (args.container.trim(), args.name.trim());
    if old.is_empty() || new.is_empty() {
        return Err(Error::invalid("Neither old nor new names may be empty").with_hint("rrun rename OLD NEW"));
    }
    let new = new.strip_prefix('/').unwrap_or(new);
    names::check(new)?;
    let before = container::find(ctx, old)?;
    if before.name == new {
        return Err(
            Error::conflict("Renaming a container with the same name as its current name").with_hint("name another")
        );
    }
    // The new name is claimed first and the old one freed last: whoever looks finds it by one of them.
    names::claim(ctx, new, &before.id).map_err(|e| e.context("Error when allocating new name"))?;
    let renamed = Record::update(ctx, &before.id, |record| {
        record.name = new.to_string();
        Ok(())
    });
    let (record, ()) = renamed.inspect_err(|_| {
        // The error at hand is the one that matters; the name is free again as soon as this works.
        let _ = names::release(ctx, new, &before.id);
    })?;
    names::release(ctx, &before.name, &before.id)?;
    if life::is_running(ctx, &record.id)? {
        tell_the_network(ctx, &before, &record)?;
    }
    events::container(ctx, &record, "rename", &[("oldName", format!("/{}", before.name))]);
    Ok(0)
}

/// Its neighbours find it under the new name from now on.
fn tell_the_network(ctx: &Context, before: &Record, record: &Record) -> Result<()> {
    ctx.netstack().rename(&record.id, &before.name, &record.name)?;
    match runtime::attach::connect(&ctx.state_dir(&record.id)) {
        Ok(stream) => runtime::attach::request(&stream, &json!({ REFRESH: {} })).map(|_| ()),
        // Without a monitor there is no DNS server to tell.
        Err(e) if e.kind == plan::Kind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}
