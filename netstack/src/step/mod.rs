//! Every change on the way to a networked container, as a value that can speak.
//!
//! The planner decides names, addresses, ports and order; [`crate::apply`] only does. What lives
//! in the container's network namespace dies with it, so few steps need taking back.

mod bridge;
mod loopback;
mod mdns;
mod neighbour;
mod publish;
mod reply;
mod routes;
mod upper;
mod veth;

pub use reply::{PRIORITY, Reply};
pub use upper::{Shim, UpperDevice};
pub use veth::Veth;

use crate::dhcp::Dhcp;
use crate::egress::{self, Policy};
use crate::firewall::Element;
use crate::hostnames;
use crate::model::{PortBinding, Proto};
use crate::networks::vlan::Parent;
use crate::publish::LoopbackPort;
use crate::rate;
use crate::static_route::StaticRoute;
use ipnetwork::IpNetwork;
use plan::{Action, HostThing, Ns, Site, Undo};
use std::fmt::Write;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

/// One change, and one unit of undo. In the order in which a plan has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Taken while planning: the plan shows the address that it already owns.
    LeaseAddress {
        network: String,
        ip: IpAddr,
        path: PathBuf,
        owner: String,
    },
    /// Taken while planning too: the monitor holds a bound socket.
    ReservePort {
        binding: PortBinding,
    },
    /// `containers/<id>/{hosts,resolv.conf,hostname}`, written in place: the container's first
    /// process may have bind-mounted them already.
    WriteFiles {
        dir: PathBuf,
    },
    /// Let the host forward packets between interfaces.
    EnableForwarding {
        ipv6: bool,
    },
    /// The network's switch, with the gateway's addresses on it.
    EnsureBridge {
        network: String,
        bridge: String,
        addresses: Vec<IpNetwork>,
        mtu: Option<u32>,
        vlan: Option<u16>,
        vrf: Option<String>,
    },
    /// Table `inet rrun`, empty of containers and networks.
    EnsureFirewall,
    /// The network's elements in that table.
    AdmitNetwork {
        network: String,
        elements: Vec<Element>,
    },
    CreateVeth(Veth),
    /// What a macvlan or ipvlan network's devices sit on, where rrun makes it.
    EnsureParent {
        network: String,
        parent: Parent,
    },
    /// With `host_access`.
    EnsureShim(Shim),
    CreateUpper(UpperDevice),
    /// Of a passthru device, and with it of its parent.
    SetMac {
        ifname: String,
        mac: [u8; 6],
    },
    HardenInterface {
        ifname: String,
        ipv6: bool,
    },
    /// `com.docker.network.endpoint.sysctls`: names with slashes, as below /proc/sys, and values.
    TuneInterface {
        ifname: String,
        settings: Vec<(String, String)>,
    },
    LoopbackUp,
    ConfigureInterface {
        ifname: String,
        addresses: Vec<IpNetwork>,
        /// Tell the neighbours (gratuitous ARP) when it comes up.
        announce: bool,
    },
    /// A server on the network gives the address; the program starts when it has.
    AskDhcp {
        network: String,
        ifname: String,
        mac: [u8; 6],
        asked: Dhcp,
    },
    DefaultRoute {
        gateway: IpAddr,
        ifname: String,
        metric: Option<u32>,
    },
    /// Where there are several ways out, answers leave by the way the question came.
    Reply(Reply),
    /// One that somebody asked for.
    StaticRoute {
        route: StaticRoute,
        ifname: String,
    },
    /// `--net-rate`: what leaves this end of a cable, the host's (towards the container) or the
    /// container's own.
    LimitRate {
        ifname: String,
        bits: u64,
        inside: bool,
    },
    /// `--egress`.
    RestrictEgress(Policy),
    /// `--host-loopback`.
    HostLoopback {
        ports: Vec<LoopbackPort>,
        gateways: Vec<IpAddr>,
    },
    /// The default route of a device that finds everything by address (ipvlan l3, l3s).
    DeviceRoute {
        ifname: String,
        ipv6: bool,
    },
    /// The host reaches one container through its own device among the containers'.
    HostRoute {
        ip: IpAddr,
        shim: String,
        source: IpAddr,
    },
    /// `ndp_proxy`: who asks on the host's own wire for the container's address gets the host's answer.
    ProxyNeighbour {
        ip: Ipv6Addr,
        uplink: String,
    },
    /// `mdns`: its monitor, or a neighbour's, repeats on `uplink` what is said on the network, and back.
    ReflectMdns {
        network: String,
        uplink: String,
    },
    /// The resolver's sockets, bound inside; the monitor answers on them.
    DnsServer,
    Publish {
        bindings: Vec<PortBinding>,
        elements: Vec<Element>,
    },
    DnsRecord {
        path: PathBuf,
        network: String,
        names: Vec<String>,
    },
    /// `host-names`: the host's own /etc/hosts follows.
    ExportNames,
}

/// `02:42:ac:11:00:02`.
pub fn mac_text(mac: &[u8; 6]) -> String {
    mac.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":")
}

impl Proto {
    /// IANA's, as in a packet's header.
    pub(crate) fn number(self) -> u8 {
        let number = match self {
            Proto::Tcp => libc::IPPROTO_TCP,
            Proto::Udp => libc::IPPROTO_UDP,
            Proto::Sctp => libc::IPPROTO_SCTP,
        };
        number as u8
    }

    /// As in `-p 53:53/udp` and in nft.
    pub fn name(self) -> &'static str {
        match self {
            Proto::Tcp => "tcp",
            Proto::Udp => "udp",
            Proto::Sctp => "sctp",
        }
    }
}

fn list<T: ToString>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

fn nft_lines(verb: &str, elements: &[Element]) -> String {
    let mut out = String::new();
    for e in elements {
        let _ = writeln!(out, "nft {verb} element inet rrun {} '{{ {} }}'", e.set(), e);
    }
    out.truncate(out.trim_end().len());
    out
}

impl Action for Step {
    fn line(&self) -> String {
        match self {
            Step::LeaseAddress { network, ip, .. } => format!("lease {ip} on network {network}"),
            Step::ReservePort { binding } => format!("reserve {} on the host", publish::host_side(binding)),
            Step::WriteFiles { dir } => {
                format!("write hosts, resolv.conf and hostname in {}", dir.display())
            }
            Step::EnableForwarding { ipv6: false } => "let the host forward IPv4 packets".into(),
            Step::EnableForwarding { ipv6: true } => "let the host forward IPv6 packets".into(),
            Step::EnsureBridge { network, bridge, addresses, .. } if addresses.is_empty() => {
                format!("create bridge {bridge}, the switch of network {network}")
            }
            Step::EnsureBridge { network, bridge, addresses, .. } => {
                format!("create bridge {bridge}, the switch of network {network}, with {}", list(addresses))
            }
            Step::EnsureFirewall => "load the firewall table inet rrun".into(),
            Step::AdmitNetwork { network, .. } => format!("tell the firewall about network {network}"),
            Step::CreateVeth(v) => v.line(),
            Step::EnsureParent { network, parent } => upper::parent_line(network, parent),
            Step::EnsureShim(shim) => shim.line(),
            Step::CreateUpper(device) => device.line(),
            Step::SetMac { ifname, mac } => format!("give {ifname} and its parent the MAC address {}", mac_text(mac)),
            Step::HardenInterface { ifname, ipv6: false } => format!("switch IPv6 off on {ifname}"),
            Step::HardenInterface { ifname, ipv6: true } => {
                format!("ignore router advertisements on {ifname}")
            }
            Step::LoopbackUp => "bring up the container's own loopback, lo".into(),
            Step::TuneInterface { ifname, settings } => {
                let words: Vec<String> = settings.iter().map(|(k, v)| format!("{k}={v}")).collect();
                format!("set {} for {ifname}", words.join(", "))
            }
            Step::ConfigureInterface { ifname, addresses, .. } if addresses.is_empty() => format!("bring {ifname} up"),
            Step::ConfigureInterface { ifname, addresses, .. } => {
                format!("give {ifname} {} and bring it up", list(addresses))
            }
            Step::AskDhcp { network, ifname, .. } => {
                format!("ask the DHCP server of network {network} for an address for {ifname}")
            }
            Step::DefaultRoute { gateway, ifname, .. } => {
                let v = if gateway.is_ipv4() { "IPv4" } else { "IPv6" };
                format!("send all other {v} traffic to {gateway} through {ifname}")
            }
            Step::Reply(reply) => reply.line(),
            Step::StaticRoute { route, ifname } => routes::line(route, ifname),
            Step::LimitRate { bits, inside: false, ifname } => {
                format!("let the container receive at most {} through {ifname}", rate::text(*bits))
            }
            Step::LimitRate { bits, inside: true, ifname } => {
                format!("let the container send at most {} through {ifname}", rate::text(*bits))
            }
            Step::RestrictEgress(policy) => {
                let some = |allow| {
                    let rules: Vec<_> = policy.rules.iter().filter(|r| r.allow == allow).collect();
                    if rules.is_empty() { "nothing".into() } else { list(&rules) }
                };
                match policy.closed {
                    true => format!("let the container connect to {} and refuse the rest", some(true)),
                    false => format!("refuse the container's connections to {}", some(false)),
                }
            }
            Step::HostLoopback { ports, gateways } => loopback::line(ports, gateways),
            Step::DeviceRoute { ifname, ipv6 } => {
                format!("send all other {} traffic straight into {ifname}", if *ipv6 { "IPv6" } else { "IPv4" })
            }
            Step::HostRoute { ip, shim, .. } => format!("let the host reach {ip} through {shim}"),
            Step::ProxyNeighbour { ip, uplink } => neighbour::line(*ip, uplink),
            Step::ReflectMdns { network, uplink } => mdns::line(network, uplink),
            Step::DnsServer => format!("answer DNS inside the container on {}", crate::files::EMBEDDED_SERVER),
            Step::Publish { bindings, .. } => publish::line(bindings),
            Step::ExportNames => format!("tell the host the container's name, in {}", hostnames::HOSTS),
            Step::DnsRecord { network, names, .. } if names.is_empty() => {
                format!("note its place on network {network}, where nobody has a name")
            }
            Step::DnsRecord { network, names, .. } => {
                format!("let others on network {network} find it as {}", list(names))
            }
        }
    }

    fn why(&self) -> &'static str {
        match self {
            Step::LeaseAddress { .. } => {
                "An address must belong to one container only. The lease is a file named after the \
                 address, created with O_EXCL: the file system decides who was first, and a lease \
                 whose container is gone is free."
            }
            Step::ReservePort { .. } => {
                "Packets are redirected before any socket sees them, so nothing would stop another \
                 program from binding the same port in vain. Holding a bound socket makes the \
                 conflict show at once, to both sides."
            }
            Step::WriteFiles { .. } => {
                "Programs look names up in these three files. They belong to the container, not to \
                 the image, and are mounted over the image's own."
            }
            Step::EnableForwarding { .. } => {
                "A host drops packets that are not for itself unless it is told to be a router. \
                 Containers reach the world, and the world reaches them, through that router."
            }
            Step::EnsureBridge { .. } => {
                "A bridge is a switch made of software: containers plugged into the same one see \
                 each other directly. The address it carries is their gateway. It belongs to the \
                 network and stays when containers go."
            }
            Step::EnsureFirewall => {
                "One table holds all of rrun's rules: few, fixed, and looking everything up in \
                 maps and sets. Starting a container adds elements, never rules, so the ten \
                 thousandth port costs what the first did."
            }
            Step::AdmitNetwork { .. } => {
                "The fixed rules ask these sets which bridges and subnets are ours: whose packets \
                 are masqueraded on the way out, and which may only be entered through a \
                 published port."
            }
            Step::CreateVeth(_) => {
                "A new network namespace has no way out. A veth pair is a cable: what goes in at \
                 one end comes out at the other. The inner end is born inside the namespace under \
                 its final name, because moving it there later costs a kernel grace period of 13 to 40 ms."
            }
            Step::EnsureParent { parent: Parent::Tagged { .. }, .. } => {
                "One cable carries many LANs when each frame has a number (802.1Q). Frames with this \
                 number come out of this interface, and what goes in leaves with it. The host gives \
                 itself no address there: the LAN is the containers'."
            }
            Step::EnsureParent { parent: Parent::Dummy { .. }, .. } => {
                "Nobody named an interface of the host as the parent, so the containers get a wire \
                 of their own: they reach each other and nothing else."
            }
            Step::EnsureShim(_) => {
                "Devices on one parent talk to each other but never to the parent itself, so the host \
                 takes part with a device like theirs. It answers ARP only where its routes lead \
                 (arp_filter): to the containers, and not in the host's place to the LAN. It belongs \
                 to the network and stays when containers go, as a bridge does."
            }
            Step::CreateUpper(device) => device.why(),
            Step::SetMac { .. } => {
                "A passthru device is its parent's other self: both have one MAC address. The kernel \
                 gives the parent its own back when the device goes."
            }
            Step::DeviceRoute { .. } => {
                "In the l3 modes there is no neighbour to ask for an address and no gateway to name: \
                 the parent's own routes decide where packets go from there."
            }
            Step::HostRoute { .. } => {
                "The host's route to the LAN leads through the parent, where the container cannot be \
                 heard. One exact route to its address goes through the host's own device instead."
            }
            Step::ProxyNeighbour { .. } => neighbour::WHY,
            Step::ReflectMdns { .. } => mdns::WHY,
            Step::HardenInterface { ipv6: false, .. } => {
                "The network has no IPv6, but the kernel would still give the interface a \
                 link-local address that neighbours can reach past IPv4 rules (CVE-2024-32473)."
            }
            Step::HardenInterface { ipv6: true, .. } => {
                "A neighbour that may send raw packets could announce itself as the router and \
                 read everybody's traffic (CVE-2020-13401). The addresses here come from rrun."
            }
            Step::TuneInterface { .. } => {
                "These settings are the interface's own, so they can only be made once it exists; \
                 and before it comes up, because some of them only count then."
            }
            Step::LoopbackUp => {
                "Every network namespace is born with its own loopback, and it is down: without \
                 this, the container could not even talk to itself on 127.0.0.1."
            }
            Step::ConfigureInterface { .. } => {
                "The prefix tells the kernel which addresses are on this cable; everything else \
                 needs a route. IPv6 skips duplicate detection, which would hold the address \
                 back for a second: the lease already says that nobody else has it."
            }
            Step::AskDhcp { .. } => {
                "The addresses of this network are given out by a server on it, for a time. The \
                 question goes out as a raw packet, because without an address there is no other \
                 way; the monitor renews the lease, and gives it back at the end."
            }
            Step::DefaultRoute { .. } => {
                "What is not on a directly connected subnet goes to the gateway: the bridge on \
                 the host, which forwards it to the world."
            }
            Step::LimitRate { .. } => {
                "A queue can only shape what leaves an interface, so each end of the cable limits one \
                 direction. The token bucket delays packets instead of dropping them: senders find \
                 the pace by themselves."
            }
            Step::RestrictEgress(_) => {
                "The table stands in the container's own namespace: there it sees everything the \
                 container sends, to neighbours on the same bridge too, and it dies with the \
                 namespace. What a name stands for is added by the resolver, just before the \
                 container gets the answer, and leaves again when the answer is too old."
            }
            Step::Reply(reply) => reply.why(),
            Step::HostLoopback { .. } => loopback::WHY,
            Step::StaticRoute { .. } => {
                "More specific than the default route, so it wins. A destination that leads nowhere \
                 on purpose is the cheapest firewall there is."
            }
            Step::DnsServer => {
                "Containers find each other by name. The resolver is the container's own monitor, \
                 listening inside its namespace: nothing to configure, no port taken on the host, \
                 and it knows only the networks that this container is on."
            }
            Step::Publish { .. } => {
                "A map element says where packets for this host port go: the kernel rewrites the \
                 destination once per connection and remembers it. No proxy copies bytes, so the \
                 server sees the client's own address."
            }
            Step::ExportNames => {
                "Every program on the host reads this file. A marked block in it is written from the \
                 records of all running containers, whenever one comes or goes; the rest is not touched."
            }
            Step::DnsRecord { .. } => {
                "The record of the endpoint is a file. The resolvers of the other containers on \
                 the network read it, and so does network inspect."
            }
        }
    }

    fn shell(&self) -> Option<String> {
        match self {
            Step::LeaseAddress { path, owner, .. } => Some(format!("(set -C; echo {owner} > {})", path.display())),
            Step::ReservePort { .. } | Step::DnsServer | Step::HostLoopback { .. } | Step::WriteFiles { .. } => None,
            Step::EnableForwarding { ipv6: false } => Some("sysctl -w net.ipv4.ip_forward=1".into()),
            Step::EnableForwarding { ipv6: true } => Some("sysctl -w net.ipv6.conf.all.forwarding=1".into()),
            Step::EnsureBridge { bridge, addresses, mtu, vlan, vrf, .. } => {
                Some(bridge::shell(bridge, addresses, *mtu, *vlan, vrf.as_deref()))
            }
            Step::EnsureFirewall => None,
            Step::AdmitNetwork { elements, .. } | Step::Publish { elements, .. } => {
                Some(nft_lines("add", elements)).filter(|s| !s.is_empty())
            }
            Step::CreateVeth(v) => Some(v.shell()),
            Step::EnsureParent { parent, .. } => Some(upper::parent_shell(parent)),
            Step::EnsureShim(shim) => Some(shim.shell()),
            Step::CreateUpper(device) => Some(device.shell()),
            Step::SetMac { ifname, mac } => {
                Some(format!("ip -n \"$NETNS\" link set {ifname} address {}", mac_text(mac)))
            }
            Step::DeviceRoute { ifname, ipv6 } => {
                Some(format!("ip{} -n \"$NETNS\" route add default dev {ifname}", if *ipv6 { " -6" } else { "" }))
            }
            Step::HostRoute { ip, shim, source } => {
                Some(format!("ip route add {} dev {shim} src {source}", upper::host_route(*ip)))
            }
            Step::ProxyNeighbour { ip, uplink } => Some(neighbour::shell(*ip, uplink)),
            Step::HardenInterface { ifname, ipv6: false } => {
                Some(format!("ip netns exec \"$NETNS\" sysctl -w net.ipv6.conf.{ifname}.disable_ipv6=1"))
            }
            Step::HardenInterface { ifname, ipv6: true } => Some(format!(
                "ip netns exec \"$NETNS\" sysctl -w net.ipv6.conf.{ifname}.disable_ipv6=0 net.ipv6.conf.{ifname}.accept_ra=0"
            )),
            Step::LoopbackUp => Some("ip -n \"$NETNS\" link set lo up".into()),
            Step::TuneInterface { settings, .. } => {
                let words: Vec<String> = settings.iter().map(|(k, v)| format!("{k}={v}")).collect();
                Some(format!("ip netns exec \"$NETNS\" sysctl -w {}", words.join(" ")))
            }
            Step::ConfigureInterface { ifname, addresses, announce } => {
                let mut out = String::new();
                if *announce {
                    let _ = writeln!(out, "ip netns exec \"$NETNS\" sysctl -w net.ipv4.conf.{ifname}.arp_notify=1");
                }
                for a in addresses {
                    let nodad = if a.is_ipv6() { " nodad" } else { "" };
                    let _ = writeln!(out, "ip -n \"$NETNS\" addr add {a} dev {ifname}{nodad}");
                }
                let _ = write!(out, "ip -n \"$NETNS\" link set {ifname} up");
                Some(out)
            }
            Step::AskDhcp { ifname, asked, .. } => {
                Some(format!("ip netns exec \"$NETNS\" udhcpc -n -q -i {ifname} -x hostname:{}", asked.hostname))
            }
            Step::DefaultRoute { gateway, ifname, metric } => Some(routes::default_shell(*gateway, ifname, *metric)),
            Step::Reply(reply) => Some(reply.shell()),
            Step::StaticRoute { route, ifname } => Some(routes::shell(route, ifname)),
            Step::LimitRate { ifname, bits, inside } => {
                let (burst, queue) = rate::bucket(*bits);
                let netns = if *inside { "ip netns exec \"$NETNS\" " } else { "" };
                Some(format!(
                    "{netns}tc qdisc replace dev {ifname} root handle 1: tbf rate {} burst {burst} limit {queue}",
                    rate::text(*bits)
                ))
            }
            Step::RestrictEgress(policy) => Some(format!("ip netns exec \"$NETNS\" nft '{}'", egress::script(policy))),
            Step::DnsRecord { .. } | Step::ExportNames | Step::ReflectMdns { .. } => None,
        }
    }

    fn site(&self) -> Site {
        match self {
            Step::LeaseAddress { .. }
            | Step::ReservePort { .. }
            | Step::WriteFiles { .. }
            | Step::EnableForwarding { .. }
            | Step::EnsureBridge { .. }
            | Step::EnsureFirewall
            | Step::AdmitNetwork { .. }
            | Step::CreateVeth(_)
            | Step::EnsureParent { .. }
            | Step::EnsureShim(_)
            | Step::CreateUpper(_)
            | Step::HostRoute { .. }
            | Step::ProxyNeighbour { .. }
            | Step::ReflectMdns { .. }
            | Step::Publish { .. }
            | Step::LimitRate { inside: false, .. }
            | Step::ExportNames
            | Step::DnsRecord { .. } => Site::Host,
            Step::HardenInterface { .. }
            | Step::TuneInterface { .. }
            | Step::LoopbackUp
            | Step::ConfigureInterface { .. }
            | Step::AskDhcp { .. }
            | Step::DefaultRoute { .. }
            | Step::LimitRate { inside: true, .. }
            | Step::RestrictEgress(_)
            | Step::HostLoopback { .. }
            | Step::DeviceRoute { .. }
            | Step::Reply(_)
            | Step::StaticRoute { .. }
            | Step::SetMac { .. }
            | Step::DnsServer => Site::InNetns,
        }
    }

    fn undo(&self) -> Undo {
        match self {
            Step::LeaseAddress { path, owner, .. } => {
                Undo::Remove(vec![HostThing::Lease { path: path.clone(), owner: owner.clone() }])
            }
            Step::ReservePort { .. } | Step::DnsServer | Step::ReflectMdns { .. } => Undo::DiesWith(Ns::Process),
            Step::WriteFiles { .. } => Undo::Nothing,
            Step::EnableForwarding { .. }
            | Step::EnsureBridge { .. }
            | Step::EnsureFirewall
            | Step::EnsureParent { .. }
            | Step::EnsureShim(_)
            // Whoever takes the record away writes the names anew.
            | Step::ExportNames
            | Step::AdmitNetwork { .. } => Undo::Nothing,
            Step::HostRoute { ip, shim, .. } => {
                Undo::Remove(vec![HostThing::Route { destination: *ip, device: shim.clone() }])
            }
            Step::ProxyNeighbour { ip, uplink } => {
                Undo::Remove(vec![HostThing::Neighbour { address: *ip, device: uplink.clone() }])
            }
            Step::CreateVeth(_)
            | Step::CreateUpper(_)
            | Step::HardenInterface { .. }
            | Step::TuneInterface { .. }
            | Step::LoopbackUp
            | Step::ConfigureInterface { .. }
            | Step::LimitRate { .. }
            | Step::RestrictEgress(_)
            | Step::HostLoopback { .. }
            | Step::AskDhcp { .. }
            | Step::DefaultRoute { .. }
            | Step::DeviceRoute { .. }
            | Step::Reply(_)
            | Step::StaticRoute { .. }
            | Step::SetMac { .. } => Undo::DiesWith(Ns::Net),
            Step::Publish { elements, .. } => Undo::Remove(
                elements
                    .iter()
                    .map(|e| HostThing::NftElement { set: e.set().to_string(), element: e.to_string() })
                    .collect(),
            ),
            Step::DnsRecord { path, .. } => Undo::Remove(vec![HostThing::DnsRecord { path: path.clone() }]),
        }
    }
}
