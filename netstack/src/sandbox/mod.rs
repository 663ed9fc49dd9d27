//! One container's networking: planned as steps, applied, held while it runs, taken back.
//!
//! [`Netstack::plan_sandbox`] decides everything (names, addresses, ports) and owns what it decided
//! — leases and bound sockets — before anything is shown or done. [`SandboxPlan::apply`] does it.
//! The [`Sandbox`] that results lives in the monitor for as long as the container.

mod announce;
mod connect;
mod doors;
mod endpoint;
mod follow;
mod leases;
mod live;
pub mod options;
mod plan;
mod ports;
mod request;
mod vrf;

pub(crate) use request::link_local;

pub use follow::Moving;
pub use live::{Closed, Sandbox};
pub(crate) use plan::no_connectivity;
pub use ports::{Joining, Left};
pub use request::{Mode, SandboxRequest};

use crate::dns;
use crate::driver::{self, Facts, bridge, reply, vlan};
use crate::egress::Policy;
use crate::model::{Endpoint, Network, PortBinding};
use crate::networks::{Netstack, VERSION, read_json};
use crate::nl::Socket;
use crate::publish::{self, HostLoopback, LoopbackPort, Ports};
use crate::rate::Rate;
use crate::step::Step;
use ::plan::{Action, HostThing, Result, Undo};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// A decided plan and what it already owns. Dropping it without applying lets go of the bound
/// sockets; the leases are in [`SandboxPlan::undo`].
pub struct SandboxPlan {
    /// In execution order; what `--explain` shows.
    pub steps: Vec<Step>,
    /// In the order in which they were asked for: `eth0` first.
    pub endpoints: Vec<Endpoint>,
    /// The published ports, host ports chosen.
    pub bindings: Vec<PortBinding>,
    /// What could not be done but need not stop the container, one line each.
    pub warnings: Vec<String>,
    pub(crate) netstack: Netstack,
    pub(crate) request: SandboxRequest,
    /// Where it is already, when it joins one more network.
    pub(crate) others: Vec<Endpoint>,
    /// Of each endpoint.
    pub(crate) networks: Vec<Network>,
    pub(crate) files: Option<Files>,
    pub(crate) ports: Option<Ports>,
    /// Bound while applying.
    pub(crate) resolver: Option<dns::Sockets>,
    pub(crate) loopback: Option<HostLoopback>,
    pub(crate) route: Option<Socket>,
    pub(crate) nft: Option<Socket>,
}

/// `<state>/containers/<id>/published.json`: what to restore when somebody flushes the firewall.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Published {
    version: u32,
    bindings: Vec<PortBinding>,
}

impl Published {
    pub fn new(bindings: &[PortBinding]) -> Published {
        Published { version: VERSION, bindings: bindings.to_vec() }
    }

    pub fn path(state: &Path, container_id: &str) -> PathBuf {
        state.join("containers").join(container_id).join("published.json")
    }

    /// Empty when the container publishes nothing, or is not running.
    pub fn read(state: &Path, container_id: &str) -> Result<Vec<PortBinding>> {
        let path = Published::path(state, container_id);
        Ok(read_json::<Published>(&path, VERSION, |p| p.version)?.map_or(Vec::new(), |p| p.bindings))
    }
}

/// The texts of the container's three name files, and where they go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Files {
    pub dir: PathBuf,
    pub hosts: String,
    pub resolv_conf: String,
    pub hostname: String,
}

impl SandboxPlan {
    /// Steps that need nothing decided beside them.
    pub(crate) fn of_steps(netstack: &Netstack, request: &SandboxRequest, steps: Vec<Step>) -> SandboxPlan {
        SandboxPlan {
            steps,
            endpoints: Vec::new(),
            bindings: Vec::new(),
            warnings: Vec::new(),
            others: Vec::new(),
            netstack: netstack.clone(),
            request: request.clone(),
            networks: Vec::new(),
            files: None,
            ports: None,
            resolver: None,
            loopback: None,
            route: None,
            nft: None,
        }
    }

    /// Everything on the host that has to go when the container does: for `undo.json`, before the
    /// first step.
    pub fn undo(&self) -> Vec<HostThing> {
        let mut things: Vec<HostThing> = self
            .steps
            .iter()
            .filter_map(|s| match s.undo() {
                Undo::Remove(things) => Some(things),
                Undo::DiesWith(_) | Undo::Nothing => None,
            })
            .flatten()
            .collect();
        things.extend(self.ports.iter().flat_map(Ports::undo));
        things
    }
}

/// The steps, in order, of everything that was decided. Pure: what plan snapshots test.
pub(crate) fn compose(
    networks: &[(Network, Facts)],
    endpoints: &[Endpoint],
    macs: &[[u8; 6]],
    bindings: &[PortBinding],
    own: Own,
) -> Vec<Step> {
    let mut steps = Vec::new();
    for ((network, _), e) in networks.iter().zip(endpoints) {
        for ip in e.addresses() {
            steps.push(Step::LeaseAddress {
                network: network.name.clone(),
                ip,
                path: own.state.join("networks").join(&network.id).join("leases").join(ip.to_string()),
                owner: e.container_id.clone(),
            });
        }
    }
    steps.extend(bindings.iter().map(|b| Step::ReservePort { binding: b.clone() }));
    if let Some(files) = own.files {
        steps.push(Step::WriteFiles { dir: files.dir.clone() });
    }
    for (network, facts) in networks {
        steps.extend(driver::prepare(network, *facts));
    }
    for (((network, facts), e), mac) in networks.iter().zip(endpoints).zip(macs) {
        steps.push(driver::plug(network, e, *mac, *facts));
    }
    let limit = |ifname: &str, bits: Option<u64>, inside| {
        bits.map(|bits| Step::LimitRate { ifname: ifname.to_string(), bits, inside })
    };
    steps.extend(
        endpoints.iter().filter(|e| e.is_bridged()).filter_map(|e| limit(&e.host_ifname, own.rate.inbound, false)),
    );
    if own.namespace {
        let all = networks.iter().zip(endpoints).zip(macs);
        steps.extend(all.filter_map(|(((network, _), e), mac)| vlan::rename(network, e, *mac)));
        steps.extend(endpoints.iter().map(bridge::harden));
        steps.extend(endpoints.iter().filter_map(bridge::tune));
        steps.extend(crate::driver::none::steps());
        steps.extend(endpoints.iter().map(bridge::configure));
        steps.extend(endpoints.iter().filter_map(|e| limit(&e.ifname, own.rate.outbound, true)));
        steps.extend(bridge::routes(endpoints));
        steps.extend(reply::replies(endpoints));
        // A router that comes with a lease may change them.
        steps.extend(endpoints.iter().filter_map(bridge::ask));
        steps.extend(bridge::static_routes(endpoints));
        steps.extend(own.egress.map(|policy| Step::RestrictEgress(policy.clone())));
        if !own.loopback.is_empty() {
            let (ports, gateways) = (own.loopback.to_vec(), publish::gateways(endpoints));
            steps.push(Step::HostLoopback { ports, gateways });
        }
    }
    if own.dns {
        steps.push(Step::DnsServer);
    }
    steps.extend(networks.iter().zip(endpoints).flat_map(|((network, _), e)| vlan::host_routes(network, e)));
    steps.extend(endpoints.iter().flat_map(bridge::proxies));
    steps.extend(endpoints.iter().filter_map(bridge::reflect));
    let elements = bridge::published(endpoints, bindings);
    if !bindings.is_empty() {
        steps.push(Step::Publish { bindings: bindings.to_vec(), elements });
    }
    for ((network, _), e) in networks.iter().zip(endpoints) {
        steps.push(Step::DnsRecord {
            path: endpoint::record(own.state, &network.id, &e.container_id),
            network: network.name.clone(),
            names: e.dns_names.clone(),
        });
    }
    steps
}

/// What else [`compose`] needs to know about the container.
pub(crate) struct Own<'a> {
    pub state: &'a Path,
    pub files: Option<&'a Files>,
    /// It has a network namespace of its own.
    pub namespace: bool,
    /// The embedded DNS server answers in it.
    pub dns: bool,
    pub egress: Option<&'a Policy>,
    pub loopback: &'a [LoopbackPort],
    pub rate: Rate,
}

#[cfg(test)]
pub(crate) mod tests;
