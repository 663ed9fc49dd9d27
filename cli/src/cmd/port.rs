//! `rrun port`: where a container's ports are on the host.

use crate::args::PortArgs;
use crate::container;
use crate::container::request::network::protocol;
use crate::container::view::View;
use crate::context::Context;
use netstack::publish;
use plan::{Error, Result};
use std::net::SocketAddr;

pub fn run(ctx: &Context, args: &PortArgs) -> Result<i32> {
    let view = View::of(ctx, container::find(ctx, &args.container)?)?;
    let wanted = args.port.as_deref().map(publish::parse_expose).transpose()?;
    let mut lines: Vec<(u16, &str, SocketAddr)> = Vec::new();
    for b in &view.bindings {
        for i in 0..=(b.container.1 - b.container.0) {
            lines.push((b.container.0 + i, protocol(b.proto), SocketAddr::new(b.host_ip, b.host.0 + i)));
        }
    }
    lines.sort();
    let text: String = match wanted {
        None => lines.iter().map(|(port, proto, host)| format!("{port}/{proto} -> {host}\n")).collect(),
        Some(((port, _), proto)) => {
            let proto = protocol(proto);
            let hits = lines.iter().filter(|(p, q, _)| *p == port && *q == proto);
            let text: String = hits.map(|(_, _, host)| format!("{host}\n")).collect();
            if text.is_empty() {
                return Err(Error::not_found(format!(
                    "no public port '{port}/{proto}' published for {}",
                    args.container
                ))
                .with_hint(format!("`rrun port {}` lists those that are", args.container)));
            }
            text
        }
    };
    super::out(&text);
    Ok(0)
}
