//! `rrun network …`.

mod check;
mod connect;
mod ls;
pub mod prune;
mod update;

use crate::args::{NetworkCommand, NetworkCreateArgs, NetworkExistsArgs, NetworkInspectArgs, NetworkRmArgs};
use crate::container::events::{self, Event, Joined};
use crate::context::Context;
use crate::render::{self, template};
use netstack::files;
use netstack::model::Ipam;
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
        NetworkCommand::Check(args) => check::run(ctx, args),
        NetworkCommand::Update(args) => update::run(ctx, args),
        NetworkCommand::Reload(args) => check::reload(ctx, args),
        NetworkCommand::Exists(args) => exists(ctx, args),
    }
}

fn create(ctx: &Context, args: &NetworkCreateArgs) -> Result<i32> {
    let mut aux = Vec::new();
    for a in &args.aux_address {
        let (name, ip) = a.split_once('=').ok_or_else(|| {
            Error::invalid(format!("invalid auxiliary address {a:?}")).with_hint("write it as NAME=ADDRESS")
        })?;
        aux.push((name.to_string(), ip.to_string()));
    }
    let mut options = pairs(&args.opt);
    if let Some(name) = &args.interface_name {
        options.insert("com.docker.network.bridge.name".into(), name.clone());
    }
    let netstack = ctx.netstack();
    if args.ignore
        && let Some(there) = netstack.networks()?.into_iter().find(|n| n.name == args.name)
    {
        println!("{}", there.id);
        return Ok(0);
    }
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
        routes: args.route.clone(),
        options,
        labels: pairs(&args.label),
        ipam: Ipam { driver: args.ipam_driver.clone(), options: pairs(&args.ipam_opt) },
        ingress: args.ingress,
        scope: args.scope.clone(),
        disable_dns: args.disable_dns,
        config_only: args.config_only,
        config_from: args.config_from.clone(),
        dns: args.dns.iter().map(|d| files::parse_dns(d)).collect::<Result<_>>()?,
    })?;
    if let Err(e) = netstack.set_up(&network) {
        // Nothing half-made: without its bridge the network is not there.
        return Err(match netstack.remove(&network.id) {
            Ok(_) => e,
            Err(left) => e.with_note(left.to_string()),
        });
    }
    events::write(ctx, &[Event::network("create", &Joined::from(&network), None)]);
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
            Ok(gone) => {
                events::write(ctx, &[Event::network("destroy", &Joined::from(&gone), None)]);
                println!("{name}");
            }
            Err(e) if args.force && e.kind == Kind::NotFound => {}
            Err(e) => {
                render::error::print(&e);
                code = 1;
            }
        }
    }
    Ok(code)
}

fn exists(ctx: &Context, args: &NetworkExistsArgs) -> Result<i32> {
    match ctx.netstack().network(&args.network) {
        Ok(_) => Ok(0),
        Err(e) if e.kind == Kind::NotFound => Ok(1),
        Err(e) => Err(e),
    }
}

fn inspect(ctx: &Context, args: &NetworkInspectArgs) -> Result<i32> {
    let netstack = ctx.netstack();
    let by_template = args.format.as_deref().is_some_and(|f| !f.is_empty() && f != "json");
    let mut documents = Vec::new();
    let mut code = 0;
    for name in &args.networks {
        match netstack.network(name).and_then(|n| netstack.inspect(&n, by_template)) {
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
