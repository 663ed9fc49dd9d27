//! `rrun inspect`: everything about containers, images, networks and volumes.

use crate::args::InspectArgs;
use crate::container;
use crate::container::view::{self, View};
use crate::context::Context;
use crate::render::{self, template};
use plan::{Error, Kind, Result};
use serde_json::Value;

pub fn run(ctx: &Context, args: &InspectArgs) -> Result<i32> {
    let kind = args.kind.as_deref().unwrap_or_default();
    if !matches!(kind, "" | "container" | "image" | "network" | "volume") {
        return Err(Error::invalid(format!("\"{}\" is not a valid value for --type", kind.escape_debug()))
            .with_hint("one of container, image, network, volume"));
    }
    let mut documents = Vec::new();
    let mut code = 0;
    for name in &args.names {
        match document(ctx, name, kind, args.size) {
            Ok(document) => documents.push(document),
            Err(e) => {
                render::error::print(&e);
                code = 1;
            }
        }
    }
    super::out(&template::inspect(args.format.as_deref(), &documents)?);
    Ok(code)
}

/// Containers come first, as in Docker, then images, networks, volumes.
fn document(ctx: &Context, name: &str, kind: &str, size: bool) -> Result<Value> {
    let wanted = |k: &str| kind.is_empty() || kind == k;
    if wanted("container") {
        match container::find(ctx, name) {
            Err(e) if e.kind == Kind::NotFound && kind.is_empty() => {}
            found => return of_container(ctx, found?, size),
        }
    }
    if wanted("image")
        && let Some(document) = super::image::document(ctx, name)?
    {
        return Ok(document);
    }
    if wanted("network") {
        match ctx.netstack().network(name) {
            Ok(network) => return ctx.netstack().inspect(&network, false),
            Err(e) if e.kind == Kind::NotFound && kind.is_empty() => {}
            Err(e) => return Err(e),
        }
    }
    if wanted("volume") {
        match container::volume::store::find(ctx, name) {
            Ok(volume) => return Ok(super::volume::document(&volume)),
            Err(e) if e.kind == Kind::NotFound && kind.is_empty() => {}
            Err(e) => return Err(e),
        }
    }
    match kind {
        "image" => Err(super::tag::no_such_image(name)),
        _ => Err(Error::not_found(format!("No such object: {}", name.escape_debug()))
            .with_hint("`rrun ps -a`, `rrun images`, `rrun network ls` and `rrun volume ls` list what there is")),
    }
}

fn of_container(ctx: &Context, record: container::Record, size: bool) -> Result<Value> {
    let view = View::of(ctx, record)?;
    let Some(record) = &view.record else { return Err(container::no_such(&view.name)) };
    // The image may have been removed by force under its container.
    let store = ctx.images()?;
    let lower = match store.find(&record.image_id) {
        Ok(Some(image)) => {
            let (base, names) = store.lower(&image);
            names.iter().map(|n| base.join(n)).collect()
        }
        _ => Vec::new(),
    };
    let live = render::inspect::Live {
        state: &view.state,
        paused: view.paused,
        endpoints: &view.endpoints,
        bindings: &view.bindings,
        lower: &lower,
        dns: view.dns_counters(ctx),
        size: size.then(|| view::size(ctx, &view.id)),
    };
    Ok(render::inspect::container(ctx, record, &live))
}

/// `rrun container inspect`.
///
/// # Errors
/// Of the template; what is not there is printed and makes the exit code 1.
pub fn containers(ctx: &Context, args: InspectArgs) -> Result<i32> {
    run(ctx, &InspectArgs { kind: Some("container".into()), ..args })
}
