//! Putting back what was lost behind our back, and taking away what is no longer wanted.

use crate::firewall;
use crate::model::Network;
use crate::networks::{BridgeOptions, Netstack};
use crate::nl::{Batch, Socket};
use plan::Result;

impl Netstack {
    /// A removed network's bridge and elements.
    pub(crate) fn dismantle(&self, network: &Network) -> Result<()> {
        let mut nft = Socket::netfilter()?;
        let bridge = BridgeOptions::of(network).bridge_name(&network.id);
        let mut route = Socket::route()?;
        if route.ifindex(&bridge)?.is_some() {
            let mut batch = Batch::new();
            batch.delete_link(0, &bridge);
            if let Err(f) = route.run(batch)?
                && f.errno != libc::ENODEV
            {
                return Err(f.error(format!("delete bridge {bridge}")));
            }
        }
        // After the bridge, so that it is never there without its rules.
        firewall::delete(&mut nft, &firewall::network_elements(network))
    }
}
