//! `rrun network update`: podman's verb, and more of what one wants to change.

use super::pairs;
use crate::args::NetworkUpdateArgs;
use crate::container::{Record, life};
use crate::context::Context;
use netstack::networks::{HOST_BINDING, ICC, MTU, NetworkUpdate};
use plan::{Error, Result};
use std::fs::File;
use std::net::IpAddr;

pub fn run(ctx: &Context, args: &NetworkUpdateArgs) -> Result<i32> {
    let mut change = NetworkUpdate {
        labels_add: pairs(&args.label_add),
        labels_rm: args.label_rm.clone(),
        dns_add: addresses(&args.dns_add)?,
        dns_drop: addresses(&args.dns_drop)?,
        options: pairs(&args.opt),
    };
    for (key, value) in
        [(MTU, args.mtu.clone()), (ICC, args.icc.map(|icc| icc.to_string())), (HOST_BINDING, args.bind.clone())]
    {
        if let Some(value) = value {
            change.options.insert(key.to_string(), value);
        }
    }
    let updated = ctx.netstack().update(&args.network, &change, |id| namespace(ctx, id))?;
    for note in &updated.notes {
        crate::cmd::tell(&format!("{note}\n"));
    }
    crate::cmd::out(&format!("{}\n", updated.network.name));
    Ok(0)
}

fn addresses(texts: &[String]) -> Result<Vec<IpAddr>> {
    let address = |text: &String| {
        text.parse().map_err(|_| {
            Error::invalid(format!("IP address is not correctly formatted: {}", text.escape_debug()))
                .with_hint("name the server by its address: --dns-add 192.0.2.53")
        })
    };
    texts.iter().map(address).collect()
}

/// `None`: it does not run (any more), so there is nothing to change in it.
fn namespace(ctx: &Context, id: &str) -> Option<File> {
    Record::load(&ctx.container_dir(id)).ok()?;
    let state = life::state(ctx, id).ok()?;
    let netns = File::open(format!("/proc/{}/ns/net", state.pid)).ok()?;
    // The pid is still the container's, so the handle cannot be a stranger's.
    runtime::state::is_alive(&state).then_some(netns)
}
