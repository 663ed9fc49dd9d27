//! The cable between a container and its network's bridge.

use super::mac_text;
use std::fmt::Write;

/// A pair of interfaces: `host` on `bridge`, `peer` born in the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Veth {
    pub host: String,
    pub peer: String,
    pub bridge: String,
    pub mac: [u8; 6],
    pub mtu: Option<u32>,
    /// `enable_icc=false`: the bridge does not pass frames between isolated ports.
    pub isolated: bool,
    /// The port's VLAN, where the bridge does not give it by itself.
    pub vlan: Option<u16>,
    /// Only where br_netfilter makes a bridge rewrite addresses (see `driver::bridge`).
    pub hairpin: bool,
}

impl Veth {
    pub(super) fn line(&self) -> String {
        format!(
            "create a virtual cable: {} inside the container, {} plugged into {}",
            self.peer, self.host, self.bridge
        )
    }

    pub(super) fn shell(&self) -> String {
        let mtu = self.mtu.map(|m| format!(" mtu {m}")).unwrap_or_default();
        let mut out = format!(
            "ip link add {}{mtu} master {} up type veth peer name {} address {}{mtu} netns \"$NETNS\"",
            self.host,
            self.bridge,
            self.peer,
            mac_text(&self.mac)
        );
        if self.isolated {
            let _ = write!(out, "\nip link set {} type bridge_slave isolated on", self.host);
        }
        if let Some(vlan) = self.vlan {
            let _ = write!(out, "\nbridge vlan add dev {} vid {vlan} pvid untagged", self.host);
        }
        if self.hairpin {
            let _ = write!(out, "\nip link set {} type bridge_slave hairpin on", self.host);
        }
        out
    }
}
