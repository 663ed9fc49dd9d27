//! Answers that leave by the way their question came: where a container has several ways out.

use std::net::IpAddr;

/// Before the kernel's own rule for table main (32766), behind those of the container's administrator
/// (whose numbers the kernel gives from 32765 downwards, unless they choose).
pub const PRIORITY: u32 = 30000;

/// One rule of the container's namespace, with what it leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Table main first, but for its default route: neighbours and static routes stay where they are.
    Exact { ipv6: bool },
    /// What leaves from `source` has a default route of its own; without a gateway, straight into the device.
    From { source: IpAddr, gateway: Option<IpAddr>, ifname: String, table: u32 },
}

impl Reply {
    pub(super) fn line(&self) -> String {
        match self {
            Reply::Exact { ipv6 } => {
                format!("let IPv{} routes that are no default route come first", if *ipv6 { 6 } else { 4 })
            }
            Reply::From { source, gateway: Some(gateway), ifname, .. } => {
                format!("send what {source} answers to {gateway} through {ifname}")
            }
            Reply::From { source, gateway: None, ifname, .. } => {
                format!("send what {source} answers straight into {ifname}")
            }
        }
    }

    pub(super) fn why(&self) -> &'static str {
        match self {
            Reply::Exact { .. } => {
                "The rules that follow look at nothing but an answer's source. What is on one of the \
                 container's own networks, or has a route of its own, must not go to a gateway first."
            }
            Reply::From { .. } => {
                "There is one default route, but a question may come in through another network: the \
                 answer would leave by the wrong way, where nobody knows the connection, and be dropped. \
                 It carries the address that was asked, and that decides its way."
            }
        }
    }

    pub(super) fn shell(&self) -> String {
        let ip = |ipv6: bool| if ipv6 { "ip -6 -n \"$NETNS\"" } else { "ip -n \"$NETNS\"" };
        match self {
            Reply::Exact { ipv6 } => {
                format!("{} rule add lookup main suppress_prefixlength 0 priority {PRIORITY}", ip(*ipv6))
            }
            Reply::From { source, gateway, ifname, table } => {
                let ip = ip(source.is_ipv6());
                let via = gateway.map(|gw| format!("via {gw} ")).unwrap_or_default();
                format!(
                    "{ip} route add default {via}dev {ifname} table {table}\n\
                     {ip} rule add from {source} lookup {table} priority {}",
                    PRIORITY + 1
                )
            }
        }
    }
}
