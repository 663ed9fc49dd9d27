//! Publishing container ports on the host: the `-p` grammar, the choice and reservation of host
//! ports, and the relay for what DNAT cannot do.
//!
//! The packets themselves are the firewall's business: it turns each [`PortBinding`] into map
//! elements. Here a host port is *held*: a lease file tells other containers, a bound socket tells
//! the programs of the host.
//!
//! [`PortBinding`]: crate::model::PortBinding

mod descriptors;
mod holder;
mod lease;
mod loopback;
mod parse;
mod ports;
mod reach;
mod relay;
mod reserve;
mod socket;

pub use lease::{all_leases, release, restore_lease};
pub use loopback::{HostLoopback, LoopbackPort, check as check_loopback, gateways, parse_loopback};
pub use parse::{parse, parse_expose};
pub use ports::{Leaving, Ports, is_meant, not_published};
pub use reach::Reach;
pub use relay::Target;
pub use reserve::{begin, preview, reserve};
