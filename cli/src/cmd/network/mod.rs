//! `rrun network …`.

mod connect;
mod ls;
mod prune;

use crate::args::{NetworkCommand, NetworkCreateArgs, NetworkInspectArgs, NetworkRmArgs};
use crate::context::Context;
use crate::render::{self, template};
use netstack::networks::NetworkRequest;
use plan::{Error, Kind, Result};
use std::collections::BTreeMap;

pub fn run(ctx: &Context, command: &NetworkCommand) -> Result<i32> {
    match command {
        NetworkCommand::Ls(args) => ls::run(ctx, args),
        NetworkCommand::Create(args) => create(ctx, args),
        NetworkCommand::Rm(args) => rm(ctx, args),
        NetworkCommand::Inspect(args) => inspect(ctx, args),
        NetworkCommand::Connect(args) => connect::connect(ctx, args),
        NetworkCommand::Disconnect(args) => connect::disconnect(ctx, args),
        NetworkCommand::Prune(args) => prune::run(ctx, args),
    }
}

fn create(ctx: &Context, args: &NetworkCreateArgs) -> Result<i32> {
    if let Some(scope) = args.scope.as_deref().filter(|s| *s != "local") {
        return Err(Error::invalid(format!("cannot create a {scope} scoped network when swarm is not active"))
            .with_hint("rrun's networks have scope local: leave --scope out"));
    }
    if args.ipam_driver != "default" || !args.ipam_opt.is_empty() {
        return Err(Error::invalid(format!("no address manager {:?}", args.ipam_driver))
            .with_hint("rrun has its own, `default`, and it takes no options"));
    }
    let mut aux = Vec::new();
    for a in &args.aux_address {
        let (name, ip) = a.split_once('=').ok_or_else(|| {
            Error::invalid(format!("invalid auxiliary address {a:?}")).with_hint("write it as NAME=ADDRESS")
        })?;
        aux.push((name.to_string(), ip.to_string()));
    }
    let netstack = ctx.netstack();
    let network = netstack.create(NetworkRequest {
        name: args.name.clone(),
        driver: args.driver.clone(),
        subnets: args.subnet.clone(),
        gateways: args.gateway.clone(),
        ip_ranges: args.ip_range.clone(),
        aux,
        internal: args.internal,
        enable_ipv4: args.ipv4,
        enable_ipv6: args.ipv6,
        attachable: args.attachable,
        options: pairs(&args.opt),
        labels: pairs(&args.label),
    })?;
    if let Err(e) = netstack.set_up(&network) {
        // Nothing half-made: without its bridge the network is not there.
        return Err(match netstack.remove(&network.id) {
            Ok(_) => e,
            Err(left) => e.with_note(left.to_string()),
        });
    }
    println!("{}", network.id);
    Ok(0)
}

/// `KEY=VALUE`s; a key alone has an empty value, as with Docker's labels.
fn pairs(items: &[String]) -> BTreeMap<String, String> {
    items
        .iter()
        .map(|i| match i.split_once('=') {
            Some((k, v)) => (k.to_string(), v.to_string()),
            None => (i.clone(), String::new()),
        })
        .collect()
}

fn rm(ctx: &Context, args: &NetworkRmArgs) -> Result<i32> {
    let netstack = ctx.netstack();
    let mut code = 0;
    for name in &args.networks {
        match netstack.remove(name) {
            Ok(_) => println!("{name}"),
            Err(e) if args.force && e.kind == Kind::NotFound => {}
            Err(e) => {
                render::error::print(&e);
                code = 1;
            }
        }
    }
    Ok(code)
}

fn inspect(ctx: &Context, args: &NetworkInspectArgs) -> Result<i32> {
    let netstack = ctx.netstack();
    let mut documents = Vec::new();
    let mut code = 0;
    for name in &args.networks {
        match netstack.network(name).and_then(|n| netstack.inspect(&n)) {
            Ok(d) => documents.push(d),
            Err(e) => {
                render::error::print(&e);
                code = 1;
            }
        }
    }
    print!("{}", template::inspect(args.format.as_deref(), &documents)?);
    Ok(code)
}
