//! The words of a network's bridge.

use ipnetwork::IpNetwork;
use std::fmt::Write;

/// The commands that make it.
pub(super) fn shell(
    bridge: &str,
    addresses: &[IpNetwork],
    mtu: Option<u32>,
    vlan: Option<u16>,
    vrf: Option<&str>,
) -> String {
    let mut out = format!("ip link add {bridge}");
    if let Some(mtu) = mtu {
        let _ = write!(out, " mtu {mtu}");
    }
    out.push_str(" type bridge stp_state 0 forward_delay 0");
    if let Some(vlan) = vlan {
        let _ = write!(out, " vlan_filtering 1 vlan_default_pvid {vlan}");
    }
    if let Some(vrf) = vrf {
        let _ = write!(out, "\nip link set {bridge} master {vrf}");
    }
    for a in addresses {
        let nodad = if a.is_ipv6() { " nodad" } else { "" };
        let _ = write!(out, "\nip addr add {a} dev {bridge}{nodad}");
    }
    let _ = write!(
        out,
        "\nsysctl -w net.ipv4.conf.{bridge}.route_localnet=1 net.ipv6.conf.{bridge}.accept_ra=0 net.ipv6.conf.{bridge}.accept_dad=0\
         \nip link set {bridge} up"
    );
    out
}
