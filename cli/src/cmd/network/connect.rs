//! `rrun network connect` and `disconnect`: the record changes, and so does a running container.

use crate::args::{NetworkConnectArgs, NetworkDisconnectArgs};
use crate::container::events::{self, Event, Joined};
use crate::container::monitor::sandbox_request;
use crate::container::request::endpoint::{driver_option, ipv4, ipv6, link, link_local, mac};
use crate::container::spec::run_spec;
use crate::container::{self, Record, life, service};
use crate::context::Context;
use netstack::model::{EndpointConfig, LastAddresses};
use netstack::networks::{automatic, is_predefined};
use netstack::sandbox::options::IFNAME;
use netstack::static_route::StaticRoute;
use plan::{Error, Kind, Result};
use serde_json::json;
use std::os::fd::AsFd;

pub fn connect(ctx: &Context, args: &NetworkConnectArgs) -> Result<i32> {
    let record = container::find(ctx, &args.container)?;
    let netstack = ctx.netstack();
    let network = netstack.joinable(&args.network)?;
    let made = automatic::announcement(&network);
    let mut endpoint = EndpointConfig {
        network: network.name,
        aliases: args.alias.clone(),
        ip: args.ip.as_deref().map(ipv4).transpose()?,
        ip6: args.ip6.as_deref().map(ipv6).transpose()?,
        mac: args.mac_address.as_deref().map(mac).transpose()?,
        links: args.link.iter().map(|l| link(l)).collect::<Result<_>>()?,
        link_local: args.link_local_ip.iter().map(|ip| link_local(ip)).collect::<Result<_>>()?,
        gw_priority: args.gw_priority,
        routes: args.route.iter().map(|r| StaticRoute::parse(r)).collect::<Result<_>>()?,
        ..EndpointConfig::default()
    };
    for option in &args.driver_opt {
        driver_option(&mut endpoint, option)?;
    }
    if let Some(name) = &args.interface_name {
        endpoint.driver_opts.insert(IFNAME.into(), name.clone());
    }
    let (_, joined) = Record::update(ctx, &record.id, |record| {
        check(record, &endpoint)?;
        let joined = match life::namespace(ctx, &record.id)? {
            Some(netns) => {
                let request = sandbox_request(ctx, record, &run_spec(ctx, record)?)?;
                let new = netstack.connect(&request, &endpoint, netns.as_fd())?;
                endpoint.last = LastAddresses { ip: new.ipv4, ip6: new.ipv6 };
                super::super::warn(made.as_slice());
                Some(Joined::from(&new))
            }
            None => {
                netstack.check_endpoint(&endpoint)?;
                None
            }
        };
        record.networks.push(endpoint);
        Ok(joined)
    })?;
    let happened = joined.iter().map(|n| Event::network("connect", n, Some(&record.id)));
    events::write(ctx, &happened.collect::<Vec<_>>());
    tell_monitor(ctx, &record.id)
}

pub fn disconnect(ctx: &Context, args: &NetworkDisconnectArgs) -> Result<i32> {
    let record = match container::find(ctx, &args.container) {
        Err(e) if e.kind == Kind::NotFound && args.force => return forget(ctx, args),
        found => found?,
    };
    let netstack = ctx.netstack();
    // A network that is gone leaves its name in the records.
    let (name, network) = match netstack.network(&args.network) {
        Ok(network) => (network.name.clone(), Some(Joined::from(&network))),
        Err(e) if e.kind == Kind::NotFound && args.force => (args.network.clone(), None),
        Err(e) => return Err(e),
    };
    Record::update(ctx, &record.id, |record| {
        if record.host.network_mode == "host" && name == "host" {
            return Err(Error::conflict(
                "cannot disconnect container from host network - container was created in host network mode",
            )
            .with_hint("create it anew without --network host"));
        }
        let left: Vec<EndpointConfig> = record.networks.extract_if(.., |e| e.network == name).collect();
        if left.is_empty() {
            return Err(Error::not_found(format!("container {} is not connected to network {name}", record.id))
                .with_hint(format!("`rrun inspect {}` shows its networks", record.name)));
        }
        if let Some(netns) = life::namespace(ctx, &record.id)? {
            let request = sandbox_request(ctx, record, &run_spec(ctx, record)?)?;
            netstack.disconnect(&request, &name, Some(netns.as_fd()))?;
        }
        // What it had there it will not want again.
        netstack.forget(&record.id, &left)
    })?;
    let happened = network.iter().map(|n| Event::network("disconnect", n, Some(&record.id)));
    events::write(ctx, &happened.collect::<Vec<_>>());
    tell_monitor(ctx, &record.id)
}

/// Docker's rules for who may join what.
fn check(record: &Record, endpoint: &EndpointConfig) -> Result<()> {
    let refuse = |text: String, hint: String| Err(Error::new(Kind::Conflict, text).with_hint(hint));
    let (mode, network) = (record.host.network_mode.as_str(), endpoint.network.as_str());
    if network == "host" {
        return refuse(
            "cannot connect container to host network - container must be created in host network mode".into(),
            "create it anew with --network host".into(),
        );
    }
    if mode == "host" || mode.starts_with("ns:") || record.joined_container().is_some() {
        return refuse(
            "container sharing network namespace with another container or host cannot be connected to any other network"
                .into(),
            "create it anew with --network, once for each network".into(),
        );
    }
    if mode == "none" || network == "none" {
        return refuse(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode".into(),
            "create it anew without --network none".into(),
        );
    }
    if record.networks.iter().any(|e| e.network == network) {
        return refuse(
            format!("endpoint with name {} already exists in network {network}", record.name),
            format!("`rrun network disconnect {network} {}` first", record.name),
        );
    }
    if is_predefined(network) && !endpoint.aliases.is_empty() {
        return refuse(
            "network-scoped aliases are only supported for user-defined networks".into(),
            "leave --alias out, or create a network with `rrun network create`".into(),
        );
    }
    Ok(())
}

/// Its published ports and its DNS server follow. Without a monitor there is nobody to tell.
fn tell_monitor(ctx: &Context, id: &str) -> Result<i32> {
    match runtime::attach::connect(&ctx.state_dir(id)) {
        Ok(stream) => runtime::attach::request(&stream, &json!({ service::REFRESH: {} })).map(|_| 0),
        Err(e) if e.kind == Kind::NotFound => Ok(0),
        Err(e) => Err(e),
    }
}

/// `-f` for an endpoint whose container is gone: what the container left is swept up.
fn forget(ctx: &Context, args: &NetworkDisconnectArgs) -> Result<i32> {
    let netstack = ctx.netstack();
    netstack.network(&args.network)?;
    netstack.sweep().map(|()| 0)
}
