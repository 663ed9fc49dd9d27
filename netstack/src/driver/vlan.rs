//! macvlan and ipvlan networks: containers as machines of their own on the host's LAN.
//!
//! A network has a parent interface; each container gets a device on top of it. There is no bridge,
//! no NAT and no firewall of the host in between, so there is nothing to publish either.

use crate::driver::bridge;
use crate::model::{Endpoint, Network};
use crate::networks::VlanOptions;
use crate::networks::vlan::{HOST, Upper};
use crate::step::{Shim, Step, UpperDevice};

/// What the host looks like, as far as the recipe depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The parent interface is there.
    pub parent: bool,
    /// So is the host's own device beside the containers'.
    pub shim: bool,
}

/// What the network itself lacks on this host.
pub fn prepare(network: &Network, facts: Facts) -> Vec<Step> {
    let options = VlanOptions::of(network);
    let mut steps = Vec::new();
    if !facts.parent
        && let Some(parent) = options.makes(network)
    {
        steps.push(Step::EnsureParent { network: network.name.clone(), parent });
    }
    if !facts.shim
        && let Some(shim) = shim(network)
    {
        steps.push(Step::EnsureShim(shim));
    }
    steps
}

/// The host's own device on the network, with `host_access`.
pub fn shim(network: &Network) -> Option<Shim> {
    let options = VlanOptions::of(network);
    Some(Shim {
        network: network.name.clone(),
        name: options.shim_name(&network.id)?,
        parent: options.parent_name(&network.id),
        kind: options.upper,
        mac: own_mac(options.upper).then(|| bridge::mac(&network.id, HOST)),
        mtu: options.mtu,
        addresses: network.pools.iter().filter_map(|p| p.aux.get(HOST).copied()).collect(),
    })
}

/// The container's device.
pub fn plug(network: &Network, endpoint: &Endpoint, mac: [u8; 6]) -> Step {
    let options = VlanOptions::of(network);
    Step::CreateUpper(UpperDevice {
        ifname: endpoint.ifname.clone(),
        parent: options.parent_name(&network.id),
        kind: options.upper,
        mac: (!endpoint.mac.is_empty()).then_some(mac),
        mtu: options.mtu,
    })
}

/// A passthru device takes its parent's MAC address when it is made; another one is set afterwards.
pub fn rename(network: &Network, endpoint: &Endpoint, mac: [u8; 6]) -> Option<Step> {
    let given = VlanOptions::of(network).upper.is_exclusive() && !endpoint.mac.is_empty();
    given.then(|| Step::SetMac { ifname: endpoint.ifname.clone(), mac })
}

/// The host's routes to the container.
pub fn host_routes(network: &Network, endpoint: &Endpoint) -> Vec<Step> {
    let Some(shim) = &endpoint.shim else { return Vec::new() };
    endpoint
        .addresses()
        .filter_map(|ip| {
            let pool = network.pools.iter().find(|p| p.subnet.contains(ip))?;
            Some(Step::HostRoute { ip, shim: shim.clone(), source: *pool.aux.get(HOST)? })
        })
        .collect()
}

/// All ipvlan devices have their parent's MAC address, and so has the one of a passthru network
/// unless the user gives both another.
pub fn own_mac(kind: Upper) -> bool {
    matches!(kind, Upper::Macvlan(_)) && !kind.is_exclusive()
}
