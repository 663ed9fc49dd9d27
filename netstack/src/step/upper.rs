//! The words of macvlan and ipvlan: devices on top of a parent interface of the host.

use super::mac_text;
use crate::networks::vlan::{Parent, Upper};
use std::fmt::Write;
use std::net::IpAddr;

/// A device inside the container, on top of `parent` on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpperDevice {
    pub ifname: String,
    pub parent: String,
    pub kind: Upper,
    /// `None`: the parent's.
    pub mac: Option<[u8; 6]>,
    pub mtu: Option<u32>,
    /// `bclim`, of macvlan.
    pub broadcast_limit: Option<i32>,
}

/// The host's own device among the containers'.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shim {
    pub network: String,
    pub name: String,
    pub parent: String,
    pub kind: Upper,
    /// `None`: the parent's.
    pub mac: Option<[u8; 6]>,
    pub mtu: Option<u32>,
    pub addresses: Vec<IpAddr>,
}

/// `ip link add link PARENT …` up to the kind, without the namespace.
fn add(name: &str, parent: &str, mac: Option<[u8; 6]>, mtu: Option<u32>) -> String {
    let mut out = format!("ip link add link {parent} name {name}");
    if let Some(mac) = mac {
        let _ = write!(out, " address {}", mac_text(&mac));
    }
    if let Some(mtu) = mtu {
        let _ = write!(out, " mtu {mtu}");
    }
    out
}

fn kind(kind: Upper) -> String {
    format!(" type {} {}", kind.driver(), kind.words())
}

impl UpperDevice {
    pub(super) fn line(&self) -> String {
        format!(
            "create {} inside the container, on top of {} of the host ({}, {})",
            self.ifname,
            self.parent,
            self.kind.driver(),
            self.kind.words()
        )
    }

    pub(super) fn why(&self) -> &'static str {
        match self.kind {
            Upper::Macvlan(_) => {
                "The container becomes a machine of its own on the LAN, with its own MAC address: the \
                 parent interface hands up whatever is addressed to it. No bridge, no NAT, no host \
                 firewall, so no ports to publish. The host itself cannot be reached through its own \
                 parent interface."
            }
            Upper::Ipvlan(..) => {
                "Many containers share the parent's one MAC address and are told apart by IP \
                 address: for switches and wireless networks that allow one MAC a port. No bridge, \
                 no NAT, no ports to publish. The host itself cannot be reached through its own \
                 parent interface."
            }
        }
    }

    pub(super) fn shell(&self) -> String {
        let mut out = add(&self.ifname, &self.parent, self.mac, self.mtu);
        let _ = write!(out, " netns \"$NETNS\"{}", kind(self.kind));
        if let Some(limit) = self.broadcast_limit {
            let _ = write!(out, " bclim {limit}");
        }
        out
    }
}

impl Shim {
    pub(super) fn line(&self) -> String {
        let addresses: Vec<String> = self.addresses.iter().map(IpAddr::to_string).collect();
        format!(
            "create {} on top of {}, the host's own place on network {}, with {}",
            self.name,
            self.parent,
            self.network,
            addresses.join(", ")
        )
    }

    pub(super) fn shell(&self) -> String {
        let mut out = add(&self.name, &self.parent, self.mac, self.mtu);
        out.push_str(&kind(self.kind));
        let _ = write!(out, "\nsysctl -w net.ipv4.conf.{}.arp_filter=1", self.name);
        let settings = if self.addresses.iter().any(IpAddr::is_ipv6) {
            ["disable_ipv6=0", "accept_ra=0", "accept_dad=0"].as_slice()
        } else {
            ["disable_ipv6=1"].as_slice()
        };
        for setting in settings {
            let _ = write!(out, " net.ipv6.conf.{}.{setting}", self.name);
        }
        for a in &self.addresses {
            let _ = match a {
                IpAddr::V4(a) => write!(out, "\nip addr add {a}/32 dev {}", self.name),
                IpAddr::V6(a) => write!(out, "\nip addr add {a}/128 dev {} nodad", self.name),
            };
        }
        let _ = write!(out, "\nip link set {} up", self.name);
        out
    }
}

pub(super) fn parent_line(network: &str, parent: &Parent) -> String {
    match parent {
        Parent::Tagged { name, base, tag } => {
            format!("create {name}, {base} with VLAN tag {tag}, the parent of network {network}")
        }
        Parent::Dummy { name } => format!("create {name}, a wire that ends nowhere, the parent of network {network}"),
    }
}

pub(super) fn parent_shell(parent: &Parent) -> String {
    let name = parent.name();
    let make = match parent {
        Parent::Tagged { base, tag, .. } => format!("ip link add link {base} name {name} type vlan id {tag}"),
        Parent::Dummy { .. } => format!("ip link add {name} type dummy"),
    };
    // In sysctl's own notation a dot in a name is written as a slash.
    let key = name.replace('.', "/");
    format!(
        "{make}\nsysctl -w net.ipv6.conf.{key}.addr_gen_mode=1 net.ipv6.conf.{key}.accept_ra=0\nip link set {name} up"
    )
}

/// `198.51.100.7/32`, `2001:db8::7/128`.
pub fn host_route(ip: IpAddr) -> String {
    format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 })
}
