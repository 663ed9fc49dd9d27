//! `rrun network connect` and `disconnect`: the record changes, and so does a running container.

use crate::args::{NetworkConnectArgs, NetworkDisconnectArgs};
use crate::container::request::network::{ipv4, ipv6};
use crate::container::{self, Record, life};
use crate::context::Context;
use netstack::model::{EndpointConfig, Network};
use netstack::networks::is_predefined;
use plan::{Error, Kind, Result};

pub fn connect(ctx: &Context, args: &NetworkConnectArgs) -> Result<i32> {
    let record = container::find(ctx, &args.container)?;
    let network = ctx.netstack().network(&args.network)?;
    let mut endpoint = EndpointConfig {
        network: network.name.clone(),
        aliases: args.alias.clone(),
        ip: args.ip.as_deref().map(ipv4).transpose()?,
        ip6: args.ip6.as_deref().map(ipv6).transpose()?,
        gw_priority: args.gw_priority,
        ..EndpointConfig::default()
    };
    for option in &args.driver_opt {
        let (key, value) = option.split_once('=').ok_or_else(|| {
            Error::invalid("invalid key value pair format in driver options").with_hint("write --driver-opt KEY=VALUE")
        })?;
        endpoint.driver_opts.insert(key.to_string(), value.to_string());
    }
    refuse_running(ctx, &record)?;
    Record::update(ctx, &record.id, |record| {
        check(record, &network, &endpoint)?;
        record.networks.push(endpoint);
        Ok(())
    })?;
    Ok(0)
}

/// Docker's rules for who may join what.
fn check(record: &Record, network: &Network, endpoint: &EndpointConfig) -> Result<()> {
    let refuse = |text: String, hint: String| Err(Error::new(Kind::Conflict, text).with_hint(hint));
    let mode = record.host.network_mode.as_str();
    if network.name == "host" {
        return refuse(
            "cannot connect container to host network - container must be created in host network mode".into(),
            "create it anew with --network host".into(),
        );
    }
    if mode == "host" || record.joined_container().is_some() {
        return refuse(
            "container sharing network namespace with another container or host cannot be connected to any other network"
                .into(),
            "create it anew with --network, once for each network".into(),
        );
    }
    if mode == "none" || network.name == "none" {
        return refuse(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode".into(),
            "create it anew without --network none".into(),
        );
    }
    if record.networks.iter().any(|e| e.network == network.name) {
        return refuse(
            format!("endpoint with name {} already exists in network {}", record.name, network.name),
            format!("`rrun network disconnect {} {}` first", network.name, record.name),
        );
    }
    if is_predefined(&network.name) && (endpoint.ip.is_some() || endpoint.ip6.is_some()) {
        return refuse(
            "user-specified IP address is supported on user-defined networks only".into(),
            "leave --ip out, or create a network with `rrun network create --subnet`".into(),
        );
    }
    Ok(())
}

pub fn disconnect(ctx: &Context, args: &NetworkDisconnectArgs) -> Result<i32> {
    let record = container::find(ctx, &args.container)?;
    // A network that is gone leaves its name in the records.
    let name = match ctx.netstack().network(&args.network) {
        Ok(network) => network.name,
        Err(e) if e.kind == Kind::NotFound && args.force => args.network.clone(),
        Err(e) => return Err(e),
    };
    refuse_running(ctx, &record)?;
    Record::update(ctx, &record.id, |record| {
        if record.host.network_mode == "host" && name == "host" {
            return Err(Error::conflict(
                "cannot disconnect container from host network - container was created in host network mode",
            )
            .with_hint("create it anew without --network host"));
        }
        let before = record.networks.len();
        record.networks.retain(|e| e.network != name);
        if record.networks.len() == before {
            return Err(Error::not_found(format!("container {} is not connected to network {name}", record.id))
                .with_hint(format!("`rrun inspect {}` shows its networks", record.name)));
        }
        Ok(())
    })?;
    Ok(0)
}

fn refuse_running(ctx: &Context, record: &Record) -> Result<()> {
    if life::is_running(ctx, &record.id)? {
        return Err(Error::conflict(format!("container {} is running", record.name))
            .with_hint(format!("rrun stop {}", record.name)));
    }
    Ok(())
}
