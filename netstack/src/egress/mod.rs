//! Where a container may connect to: `--egress deny,allow=example.com:443,allow=10.0.0.0/8`.
//!
//! Enforced inside the container's own network namespace, by a table there ([`table`]), for four
//! reasons: it sees everything the container sends, also to neighbours on the same bridge, which
//! the host's routing never meets; it knows nothing of addresses, networks and cables, so that
//! connecting another network changes nothing; it dies with the namespace; and whoever flushes the
//! host's firewall does not open it. What it costs: a container that may administer its network
//! (NET_ADMIN) could remove it, and one that may write frames (NET_RAW) could go past it. So the
//! second is taken away from a container with a policy, and rrun warns of the first.

mod gate;
mod parse;
mod table;

pub use gate::Gate;
pub(crate) use table::{MARK, load, script};

use crate::model::Proto;
use ipnetwork::IpNetwork;
use std::fmt;

/// What a container may connect to. Denials come before allowances; the rest follows the default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// `deny`: what no rule names is refused.
    pub closed: bool,
    pub rules: Vec<Rule>,
}

/// One `allow=` or `deny=`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub allow: bool,
    pub to: Destination,
    pub service: Service,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    Everywhere,
    Net(IpNetwork),
    /// In lower case, without a final dot.
    Name(String),
    /// `*.example.com`: every name below, not the name itself.
    Below(String),
}

/// Which of what the destination offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Whatever the protocol.
    Anything,
    Icmp,
    /// Inclusive ports; without a protocol both TCP and UDP.
    Ports(Option<Proto>, (u16, u16)),
}

impl Policy {
    /// Does a rule speak of this name?
    pub fn names(&self) -> bool {
        self.rules.iter().any(|r| matches!(r.to, Destination::Name(_) | Destination::Below(_)))
    }

    /// Whether names without a rule may be asked for outside. With a closed policy that allows
    /// nothing but names they may not: a question is a message too, and would be a way out.
    pub(crate) fn asks_freely(&self) -> bool {
        !self.closed || self.rules.iter().any(|r| r.allow && r.to.is_address())
    }
}

impl Destination {
    fn is_address(&self) -> bool {
        matches!(self, Destination::Everywhere | Destination::Net(_))
    }

    /// Is this (lower-case) name meant?
    fn covers(&self, name: &[u8]) -> bool {
        match self {
            Destination::Name(own) => own.as_bytes() == name,
            Destination::Below(parent) => {
                name.strip_suffix(parent.as_bytes()).is_some_and(|rest| rest.len() > 1 && rest.ends_with(b"."))
            }
            Destination::Everywhere | Destination::Net(_) => false,
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Destination::Everywhere => f.write_str("*"),
            Destination::Net(net) if net.prefix() == if net.is_ipv4() { 32 } else { 128 } => net.ip().fmt(f),
            Destination::Net(net) => net.fmt(f),
            Destination::Name(name) => f.write_str(name),
            Destination::Below(parent) => write!(f, "*.{parent}"),
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Service::Anything => f.write_str("any port"),
            Service::Icmp => f.write_str("icmp"),
            Service::Ports(proto, (from, to)) => {
                let proto = proto.map_or("tcp and udp", Proto::name);
                if from == to { write!(f, "{proto} {from}") } else { write!(f, "{proto} {from}-{to}") }
            }
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.service {
            Service::Anything => self.to.fmt(f),
            service => write!(f, "{} ({service})", self.to),
        }
    }
}
