//! `rrun volume …`.

mod ls;
mod prune;

use crate::args::{VolumeCommand, VolumeCreateArgs, VolumeInspectArgs, VolumeRmArgs};
use crate::container::volume::store::{self, Volume};
use crate::container::{self, names};
use crate::context::Context;
use crate::render::{self, template};
use plan::{Error, Kind, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub use prune::remove_unused;

pub fn run(ctx: &Context, command: &VolumeCommand) -> Result<i32> {
    match command {
        VolumeCommand::Create(args) => create(ctx, args),
        VolumeCommand::Ls(args) => ls::run(ctx, args),
        VolumeCommand::Inspect(args) => inspect(ctx, args),
        VolumeCommand::Rm(args) => rm(ctx, args),
        VolumeCommand::Prune(args) => prune::run(ctx, args),
    }
}

fn create(ctx: &Context, args: &VolumeCreateArgs) -> Result<i32> {
    let given = match (&args.name, &args.name_flag) {
        (Some(_), Some(_)) => {
            return Err(Error::invalid(
                "conflicting options: cannot specify a volume-name through both --name and as a positional arg",
            )
            .with_hint("leave --name out"));
        }
        (name, flag) => name.as_ref().or(flag.as_ref()),
    };
    if args.driver != "local" {
        let named = given.map_or(String::new(), |name| format!("create {}: ", name.escape_debug()));
        return Err(Error::invalid(format!(
            "{named}error looking up volume plugin {0}: plugin \"{0}\" not found",
            args.driver
        ))
        .with_hint(
            "rrun has the driver local only: a directory under its root, or what -o type=, device= and o= say",
        ));
    }
    let map = |words: &[String]| -> BTreeMap<String, String> {
        words.iter().map(|w| w.split_once('=').unwrap_or((w, ""))).map(|(k, v)| (k.into(), v.into())).collect()
    };
    let mut labels = map(&args.label);
    let name = match given {
        Some(name) => name.clone(),
        None => {
            labels.insert(store::ANONYMOUS.into(), String::new());
            names::new_id()?
        }
    };
    store::create(ctx, &name, &labels, &map(&args.opt))?;
    super::out(&format!("{name}\n"));
    Ok(0)
}

fn inspect(ctx: &Context, args: &VolumeInspectArgs) -> Result<i32> {
    let mut documents = Vec::new();
    let mut code = 0;
    for name in &args.volumes {
        match store::find(ctx, name) {
            Ok(volume) => documents.push(document(&volume)),
            Err(e) => {
                render::error::print(&e);
                code = 1;
            }
        }
    }
    super::out(&template::inspect(args.format.as_deref(), &documents)?);
    Ok(code)
}

/// Docker's fields.
pub fn document(volume: &Volume) -> Value {
    let map = |map: &BTreeMap<String, String>| if map.is_empty() { Value::Null } else { json!(map) };
    json!({
        "CreatedAt": volume.created,
        "Driver": "local",
        "Labels": map(&volume.labels),
        "Mountpoint": volume.mountpoint,
        "Name": volume.name,
        "Options": map(&volume.options),
        "Scope": "local",
    })
}

fn rm(ctx: &Context, args: &VolumeRmArgs) -> Result<i32> {
    let entries = container::list(ctx)?;
    super::each(&args.volumes, |name| {
        match store::delete(ctx, &entries, name) {
            Err(e) if args.force && e.kind == Kind::NotFound => {}
            other => other?,
        }
        super::out(&format!("{name}\n"));
        Ok(())
    })
}
