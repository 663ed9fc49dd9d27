//! `rrun port`: where a container's ports are on the host, and changing that while it runs.

use crate::args::{PortArgs, PortChangeArgs, PortCommand};
use crate::container;
use crate::container::ports::{self, Answer};
use crate::container::request::network::protocol;
use crate::container::view::View;
use crate::context::Context;
use netstack::model::{PortBinding, PortSpec};
use netstack::publish;
use plan::{Error, Kind, Result};

pub fn run(ctx: &Context, args: &PortArgs) -> Result<i32> {
    match (&args.change, &args.container) {
        (Some(PortCommand::Add(change)), _) => add(ctx, change),
        (Some(PortCommand::Rm(change)), _) => rm(ctx, change),
        (None, Some(name)) => list(ctx, args, name),
        (None, None) => Err(Error::invalid("no container named").with_hint("rrun port CONTAINER")),
    }
}

fn list(ctx: &Context, args: &PortArgs, name: &str) -> Result<i32> {
    let view = View::of(ctx, container::find(ctx, name)?)?;
    let wanted = args.port.as_deref().map(publish::parse_expose).transpose()?;
    let reach = if args.reachable { Some(publish::Reach::observe()?) } else { None };
    let mut lines: Vec<(u16, &str, &PortBinding, u16)> = Vec::new();
    for b in &view.bindings {
        for i in 0..=(b.container.1 - b.container.0) {
            lines.push((b.container.0 + i, protocol(b.proto), b, b.host.0 + i));
        }
    }
    lines.sort_by_key(|(port, proto, b, host)| (*port, *proto, b.host_ip, *host));
    let line = |b: &PortBinding, host: u16| {
        let from = reach.as_ref().map_or(String::new(), |reach| format!("  reachable from {}", reach.from(b)));
        // As Docker shows a routed network's: an address without a port, because none of the host's leads there.
        let host = if b.routed { String::new() } else { host.to_string() };
        format!("{}:{host}{from}\n", b.host_text())
    };
    let text: String = match wanted {
        None => lines.iter().map(|(port, proto, b, host)| format!("{port}/{proto} -> {}", line(b, *host))).collect(),
        Some(((port, _), proto)) => {
            let proto = protocol(proto);
            let hits = lines.iter().filter(|(p, q, ..)| *p == port && *q == proto);
            let text: String = hits.map(|(_, _, b, host)| line(b, *host)).collect();
            if text.is_empty() {
                return Err(Error::not_found(format!("no public port '{port}/{proto}' published for {name}"))
                    .with_hint(format!("`rrun port {name}` lists those that are")));
            }
            text
        }
    };
    super::out(&text);
    Ok(0)
}

/// Prints what was chosen, in the form of the list.
fn add(ctx: &Context, args: &PortChangeArgs) -> Result<i32> {
    let record = container::find(ctx, &args.container)?;
    let answer = ports::add(ctx, &record.id, &specs(args)?)?;
    super::warn(&answer.warnings);
    told(&answer);
    Ok(0)
}

fn rm(ctx: &Context, args: &PortChangeArgs) -> Result<i32> {
    let record = container::find(ctx, &args.container)?;
    let answer = ports::remove(ctx, &record.id, &specs(args)?).map_err(|mut e| {
        if e.kind == Kind::NotFound && e.message.ends_with("published") {
            e.message = format!("{} for {}", e.message, args.container);
        }
        e
    })?;
    told(&answer);
    Ok(0)
}

fn specs(args: &PortChangeArgs) -> Result<Vec<PortSpec>> {
    let mut specs = Vec::new();
    for text in &args.ports {
        specs.extend(publish::parse(text)?);
    }
    Ok(specs)
}

fn told(answer: &Answer) {
    let range = |(from, to): (u16, u16)| if from == to { from.to_string() } else { format!("{from}-{to}") };
    let line = |b: &PortBinding| {
        let host = if b.routed { String::new() } else { range(b.host) };
        format!("{}/{} -> {}:{host}\n", range(b.container), protocol(b.proto), b.host_text())
    };
    super::out(&answer.bindings.iter().map(line).collect::<String>());
}
