//! What each kind of network means in steps: one flat recipe a file.

pub mod bridge;
pub mod none;
pub mod reply;
pub mod vlan;

use crate::model::{Endpoint, Network};
use crate::step::Step;

/// What the host looks like, as far as a network's recipe depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Facts {
    Bridge(bridge::Facts),
    Vlan(vlan::Facts),
}

/// What the network itself lacks on this host.
pub fn prepare(network: &Network, facts: Facts) -> Vec<Step> {
    match facts {
        Facts::Bridge(facts) => bridge::prepare(network, facts),
        Facts::Vlan(facts) => vlan::prepare(network, facts),
    }
}

/// How a container gets onto it.
pub fn plug(network: &Network, endpoint: &Endpoint, mac: [u8; 6], facts: Facts) -> Step {
    match facts {
        Facts::Bridge(facts) => bridge::plug(network, endpoint, mac, facts),
        Facts::Vlan(_) => vlan::plug(network, endpoint, mac),
    }
}
