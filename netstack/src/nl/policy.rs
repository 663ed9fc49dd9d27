//! Rules that choose a routing table, and the tables' default routes.

use super::route::{NEW, NLM_F_CREATE, NLM_F_REPLACE};
use super::socket::Batch;
use crate::step::{PRIORITY, Reply};
use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteScope};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::RouteMessageBuilder;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

impl Batch {
    /// The table's route before the rule that leads to it. `index` is its interface's; the first rule has none.
    pub fn reply(&mut self, tag: usize, index: u32, reply: &Reply) {
        if let Reply::From { source, gateway, table, .. } = reply {
            let route = default_route(index, source.is_ipv6(), *gateway, *table);
            self.push(tag, RouteNetlinkMessage::NewRoute(route), NLM_F_CREATE | NLM_F_REPLACE);
        }
        self.push(tag, RouteNetlinkMessage::NewRule(rule(reply)), NEW);
    }

    /// Takes a rule away. Its table's route goes with the interface, or is replaced.
    pub fn delete_reply(&mut self, tag: usize, reply: &Reply) {
        self.push(tag, RouteNetlinkMessage::DelRule(rule(reply)), 0);
    }
}

fn rule(reply: &Reply) -> RuleMessage {
    let family = |ipv6: bool| if ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let mut m = RuleMessage::default();
    m.header.action = RuleAction::ToTable;
    match reply {
        Reply::Exact { ipv6 } => {
            m.header.family = family(*ipv6);
            m.header.table = RouteHeader::RT_TABLE_MAIN;
            m.attributes.push(RuleAttribute::SuppressPrefixLen(0));
            m.attributes.push(RuleAttribute::Priority(PRIORITY));
        }
        Reply::From { source, table, .. } => {
            m.header.family = family(source.is_ipv6());
            m.header.src_len = if source.is_ipv6() { 128 } else { 32 };
            m.attributes.push(RuleAttribute::Source(*source));
            m.attributes.push(RuleAttribute::Table(*table));
            m.attributes.push(RuleAttribute::Priority(PRIORITY + 1));
        }
    }
    m
}

fn default_route(index: u32, ipv6: bool, gateway: Option<IpAddr>, table: u32) -> RouteMessage {
    let mut m = match (ipv6, gateway) {
        (false, Some(IpAddr::V4(gw))) => {
            RouteMessageBuilder::<Ipv4Addr>::new().output_interface(index).gateway(gw).build()
        }
        (true, Some(IpAddr::V6(gw))) => {
            RouteMessageBuilder::<Ipv6Addr>::new().output_interface(index).gateway(gw).build()
        }
        (false, _) => RouteMessageBuilder::<Ipv4Addr>::new().output_interface(index).scope(RouteScope::Link).build(),
        (true, _) => RouteMessageBuilder::<Ipv6Addr>::new().output_interface(index).build(),
    };
    // The header's field has eight bits.
    m.header.table = RouteHeader::RT_TABLE_UNSPEC;
    m.attributes.push(RouteAttribute::Table(table));
    m
}
