//! A bridge that belongs to a VRF: its subnets are in that VRF's routing table, where what arrives elsewhere is
//! not looked up. So nobody finds a published port's container, until the administrator says which of the two
//! worlds may see what of the other.

use crate::model::Network;
use crate::networks::BridgeOptions;
use crate::nl::Socket;
use std::fmt::Write;

/// The kernel's number of the main table.
const MAIN: u32 = 254;

/// Why the ports published through this network reach nobody, and what to do about it; `None` where they do, and
/// where the kernel does not tell.
pub(super) fn hidden(network: &Network, route: &mut Socket) -> Option<String> {
    let options = BridgeOptions::of(network);
    let vrf = options.vrf.as_ref()?;
    let bridge = options.bridge_name(&network.id);
    let index = route.ifindex(&bridge).ok()?;
    let led: Vec<_> = route.routes().ok()?.into_iter().filter(|r| r.table == MAIN && r.interface == index).collect();
    let hidden: Vec<_> =
        network.pools.iter().map(|p| p.subnet).filter(|s| !led.iter().any(|r| r.destination == *s)).collect();
    if hidden.is_empty() {
        return None;
    }
    let mut text = format!("published ports of network {} are out of reach: VRF {vrf} hides", network.name);
    for subnet in &hidden {
        let _ = write!(text, " {subnet}");
    }
    text.push_str(" from the host's other interfaces. Show the way in:");
    for subnet in &hidden {
        let _ = write!(text, " `ip route add {subnet} dev {bridge}`;");
    }
    let _ =
        write!(text, " and the way back, to each network of callers: `ip route add SUBNET dev INTERFACE vrf {vrf}`");
    Some(text)
}
