//! `--host-loopback`: programs of the host that listen on its 127.0.0.1, for one container that asked.
//!
//! The container calls its gateway, which is the host. In its own namespace that address and port are
//! translated to a socket of the monitor's, on the namespace's loopback, and the relay carries on from there
//! to the host's. So the host's firewall hears nothing of it, no packet for 127.0.0.1 ever crosses a wire
//! (CVE-2020-8558 is about those that do), neighbours have no such socket, and all of it dies with the namespace.

use super::ports::HeldSocket;
use super::relay::Relay;
use super::socket::{self, Ipv6, Scope, local_port};
use super::{descriptors, parse};
use crate::model::{Endpoint, Proto};
use crate::nl::{self, Expr, Header, Meta};
use crate::poll::Interest;
use plan::{Error, Result};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// The table's name inside the container: says whose it is.
const TABLE: &str = "rrun-host-loopback";
const CHAIN: &str = "output";
const PRIORITY_DNAT: i32 = -100;
/// Each is a socket and a rule a family.
const MOST: usize = 128;

/// One port of the host's loopback.
pub type LoopbackPort = (Proto, u16);

/// `5432`, `8000-8010,53/udp`: the flag's values, together.
///
/// # Errors
/// What is no port, SCTP (which is not relayed), and too many of them.
pub fn parse_loopback(flags: &[String]) -> Result<Vec<LoopbackPort>> {
    const HINT: &str = "write ports or ranges, with or without a protocol: --host-loopback 5432,8000-8010,53/udp";
    let mut all = Vec::new();
    for text in flags.iter().flat_map(|f| f.split(',')) {
        let wrong = || Error::invalid(format!("invalid --host-loopback port: {:?}", text)).with_hint(HINT);
        let ((from, to), proto) = parse::parse_expose(text.trim()).map_err(|_| wrong())?;
        if proto == Proto::Sctp {
            return Err(Error::invalid(format!("--host-loopback {text}: SCTP cannot be relayed")).with_hint(HINT));
        }
        if all.len() + usize::from(to - from) >= MOST {
            return Err(Error::invalid(format!("--host-loopback: more than {MOST} ports"))
                .with_hint("a container that needs so much of the host is better off with --network host"));
        }
        all.extend((from..=to).map(|port| (proto, port)));
    }
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

/// The addresses under which a container with these endpoints finds the host.
pub fn gateways(endpoints: &[Endpoint]) -> Vec<IpAddr> {
    let hosts = endpoints.iter().filter(|e| e.host_is_gateway);
    hosts.flat_map(|e| e.gateway4.map(IpAddr::V4).into_iter().chain(e.gateway6.map(IpAddr::V6))).collect()
}

/// # Errors
/// None of the container's networks leads to the host.
pub fn check(endpoints: &[Endpoint]) -> Result<()> {
    if !gateways(endpoints).is_empty() {
        return Ok(());
    }
    let Some(e) = endpoints.first() else { return Ok(()) };
    let why = match e {
        e if e.internal => format!("network {} is internal: nothing leads out of it", e.network),
        e if !e.is_bridged() => format!("containers on {} network {} are cut off from their host", e.driver, e.network),
        e => format!("the host is not the gateway of network {}", e.network),
    };
    Err(Error::invalid(format!("--host-loopback is not possible: {why}"))
        .with_hint("join a bridge network as well: rrun network create NAME, then --network NAME"))
}

/// The sockets in the container's namespace, and what they relay; held by the monitor.
#[derive(Debug)]
pub struct HostLoopback {
    held: Vec<Option<HeldSocket>>,
    relay: Relay,
    gateways: Vec<IpAddr>,
}

impl HostLoopback {
    /// Opens the sockets in the namespace this thread is in, and leads `gateways` there.
    pub fn open_in_current_netns(ports: &[LoopbackPort], gateways: Vec<IpAddr>) -> Result<HostLoopback> {
        descriptors::raise();
        let ipv6 = Ipv6::look();
        let mut held = Vec::new();
        for (proto, port) in ports {
            for ip in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
                if ip.is_ipv6() && !ipv6.known {
                    continue;
                }
                let scope = Scope::One(ip);
                let socket = socket::hold(*proto, scope, None, ipv6, 0)
                    .map_err(|e| Error::os(format!("open a socket on the container's {ip}"), e.raw_os_error()))?;
                let socket = socket.map(|socket| HeldSocket {
                    socket,
                    proto: *proto,
                    scope,
                    container_port: *port,
                    from: [].into(),
                });
                held.push(socket);
            }
        }
        let mut relay = Relay::to_the_host(&held)?;
        relay.listen(&held, usize::MAX)?;
        let mut opened = HostLoopback { held, relay, gateways: Vec::new() };
        opened.lead(gateways)?;
        Ok(opened)
    }

    /// Does it lead there from these addresses?
    pub fn leads(&self, gateways: &[IpAddr]) -> bool {
        self.gateways == gateways
    }

    /// Leads other addresses to the sockets, in the namespace this thread is in.
    pub fn lead(&mut self, gateways: Vec<IpAddr>) -> Result<()> {
        let mut rules = Vec::new();
        for held in self.held.iter().flatten() {
            let Scope::One(own) = held.scope else { continue };
            let to = local_port(&held.socket)
                .map_err(|e| Error::os("ask for a socket's port in the container", e.raw_os_error()))?;
            for gateway in gateways.iter().filter(|gw| gw.is_ipv4() == own.is_ipv4()) {
                rules.push((*gateway, held.proto, held.container_port, own, to));
            }
        }
        let outcome = nl::write_table(nl::Family::Inet, TABLE, |table| {
            table.nat_output_chain(CHAIN, PRIORITY_DNAT);
            for (gateway, proto, port, own, to) in &rules {
                let about = format!("{}:{port}/{} of the host's own", Ipv4Addr::LOCALHOST, proto.name());
                table.rule(CHAIN, &about, &rule(*gateway, *proto, *port, *own, *to));
            }
        })?;
        outcome.map_err(|failure| {
            failure
                .error("lead the gateway's ports to the host's loopback")
                .with_hint("--host-loopback needs CONFIG_NF_TABLES and CONFIG_NFT_NAT in the kernel")
        })?;
        self.gateways = gateways;
        Ok(())
    }

    pub fn interest(&self) -> Interest {
        self.relay.interest()
    }

    pub fn timeout(&self) -> Option<Duration> {
        self.relay.timeout()
    }

    /// Relays without ever blocking.
    pub fn ready(&mut self) {
        self.relay.ready(&self.held);
    }
}

/// What goes to the gateway's port goes to the socket.
fn rule(gateway: IpAddr, proto: Proto, port: u16, own: IpAddr, to: u16) -> Vec<Expr> {
    // NFPROTO_IPV4 and _IPV6; where the header keeps the destination.
    let (family, daddr, address) = match gateway {
        IpAddr::V4(ip) => (2, (16, 4), ip.octets().to_vec()),
        IpAddr::V6(ip) => (10, (24, 16), ip.octets().to_vec()),
    };
    vec![
        Expr::Meta(Meta::Nfproto),
        Expr::Equals(vec![family]),
        Expr::Load(Header::Network, daddr.0, daddr.1),
        Expr::Equals(address),
        Expr::Meta(Meta::L4proto),
        Expr::Equals(vec![proto.number()]),
        Expr::Load(Header::Transport, 2, 2),
        Expr::Equals(port.to_be_bytes().to_vec()),
        Expr::Dnat(own, to),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(text: &str) -> Result<Vec<LoopbackPort>> {
        parse_loopback(&[text.to_string()])
    }

    #[test]
    fn ports_and_ranges() {
        let tcp = |p| (Proto::Tcp, p);
        assert_eq!(ports("5432").unwrap(), [tcp(5432)]);
        assert_eq!(ports("8001-8002,53/udp, 8001").unwrap(), [tcp(8001), tcp(8002), (Proto::Udp, 53)]);
        assert_eq!(parse_loopback(&["1".into(), "2".into()]).unwrap(), [tcp(1), tcp(2)]);
        assert_eq!(ports("1-128").unwrap().len(), 128);
        for (text, said) in [
            ("", "invalid --host-loopback port: \"\""),
            ("0", "invalid --host-loopback port: \"0\""),
            ("80:90", "invalid --host-loopback port"),
            ("9/sctp", "SCTP cannot be relayed"),
            ("1-129", "more than 128 ports"),
            ("1-65535", "more than 128 ports"),
        ] {
            let e = ports(text).unwrap_err();
            assert!(e.to_string().contains(said) && e.hint.is_some(), "{text}: {e}");
        }
    }
}
