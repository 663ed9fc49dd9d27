//! The words of routes.

use crate::static_route::{StaticRoute, Via};
use std::net::IpAddr;

/// What a static route does.
pub(super) fn line(route: &StaticRoute, ifname: &str) -> String {
    let to = route.destination;
    match route.via {
        Via::Gateway(gateway) => format!("send traffic for {to} to {gateway} through {ifname}"),
        Via::Blackhole => format!("drop traffic for {to} in silence"),
        Via::Unreachable => format!("tell who sends to {to} that it is unreachable"),
        Via::Prohibit => format!("tell who sends to {to} that it is prohibited"),
    }
}

/// The command that adds it.
pub(super) fn shell(route: &StaticRoute, ifname: &str) -> String {
    let to = route.destination;
    let what = match route.via {
        Via::Gateway(gateway) => format!("{to} via {gateway} dev {ifname}"),
        nowhere => format!("{} {to}", nowhere.keyword().unwrap_or_default()),
    };
    format!("ip -n \"$NETNS\" route add {what}{}", metric(route.metric))
}

/// The command that adds a default route.
pub(super) fn default_shell(gateway: IpAddr, ifname: &str, priority: Option<u32>) -> String {
    format!("ip -n \"$NETNS\" route add default via {gateway} dev {ifname}{}", metric(priority))
}

fn metric(metric: Option<u32>) -> String {
    metric.map(|m| format!(" metric {m}")).unwrap_or_default()
}
