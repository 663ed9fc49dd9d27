//! A policy as a table in the container's namespace: for the kernel, and as `nft` would be told it.

use super::{Destination, Policy, Service};
use crate::model::Proto;
use crate::nl::{self, AddressSet, Elem, Expr, Header, Meta};
use ipnetwork::IpNetwork;
use plan::Result;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The table's name inside the container: says whose it is.
pub(super) const TABLE: &str = "rrun-egress";
const CHAIN: &str = "output";
const PRIORITY_FILTER: i32 = 0;
/// On what the resolver itself sends from within the container's namespace (`--dns`). Only who
/// administers a network, or writes raw packets, can mark any.
pub(crate) const MARK: u32 = 53;

const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const ESTABLISHED_OR_RELATED: u32 = 2 | 4;
/// IPS_DST_NAT.
const TRANSLATED: u32 = 32;

/// Rules of one verdict for one service: their addresses are sets, so that a list of any length is
/// two rules a protocol.
#[derive(Debug)]
pub(super) struct Group<'a> {
    number: usize,
    allow: bool,
    service: Service,
    destinations: Vec<&'a Destination>,
}

/// Denials first.
pub(super) fn groups(policy: &Policy) -> Vec<Group<'_>> {
    let mut groups: Vec<Group> = Vec::new();
    for allow in [false, true] {
        for rule in policy.rules.iter().filter(|r| r.allow == allow) {
            match groups.iter_mut().find(|g| g.allow == allow && g.service == rule.service) {
                Some(group) => group.destinations.push(&rule.to),
                None => groups.push(Group {
                    number: groups.len() + 1,
                    allow,
                    service: rule.service,
                    destinations: vec![&rule.to],
                }),
            }
        }
    }
    groups
}

impl Group<'_> {
    /// Is the name allowed here?
    pub(super) fn covers(&self, name: &[u8]) -> bool {
        self.destinations.iter().any(|d| d.covers(name))
    }

    /// The set that the addresses of names go into.
    pub(super) fn names_set(&self, ipv6: bool) -> String {
        format!("names{}_{}", if ipv6 { 6 } else { 4 }, self.number)
    }

    fn has_names(&self) -> bool {
        self.destinations.iter().any(|d| !d.is_address())
    }

    /// Inclusive ranges, disjoint and in order: a set refuses elements that overlap.
    fn ranges(&self, ipv6: bool) -> Vec<(IpAddr, IpAddr)> {
        let bits = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => u128::from(u32::from(ip)),
            IpAddr::V6(ip) => u128::from(ip),
        };
        let mut all: Vec<(u128, u128)> = self
            .destinations
            .iter()
            .filter_map(|d| match d {
                Destination::Everywhere => Some((0, if ipv6 { u128::MAX } else { u128::from(u32::MAX) })),
                Destination::Net(net) if net.is_ipv6() == ipv6 => Some((bits(net.network()), bits(last(*net)))),
                _ => None,
            })
            .collect();
        all.sort_unstable();
        let mut merged: Vec<(u128, u128)> = Vec::new();
        for (from, to) in all {
            match merged.last_mut() {
                Some((_, end)) if from <= end.saturating_add(1) => *end = (*end).max(to),
                _ => merged.push((from, to)),
            }
        }
        let ip = |bits: u128| match ipv6 {
            true => IpAddr::V6(Ipv6Addr::from(bits)),
            false => IpAddr::V4(Ipv4Addr::from(bits as u32)),
        };
        merged.into_iter().map(|(from, to)| (ip(from), ip(to))).collect()
    }

    fn sets(&self, ipv6: bool) -> Vec<(AddressSet, Vec<(IpAddr, IpAddr)>)> {
        let verdict = if self.allow { "allow" } else { "deny" };
        let about = |names: bool| {
            let mine = self.destinations.iter().filter(|d| d.is_address() != names);
            mine.map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        let mut sets = Vec::new();
        let ranges = self.ranges(ipv6);
        if !ranges.is_empty() {
            let name = format!("{verdict}{}_{}", if ipv6 { 6 } else { 4 }, self.number);
            sets.push((AddressSet { name, ipv6, timeout: false, comment: about(false) }, ranges));
        }
        if self.has_names() {
            let comment = format!("what {} stand for", about(true));
            sets.push((AddressSet { name: self.names_set(ipv6), ipv6, timeout: true, comment }, Vec::new()));
        }
        sets
    }

    /// The service as text and expressions, one for each protocol concerned.
    fn services(&self, ipv6: bool) -> Vec<(String, Vec<Expr>)> {
        let protocol = |number: u8| vec![Expr::Meta(Meta::L4proto), Expr::Equals(vec![number])];
        match self.service {
            Service::Anything => vec![(String::new(), Vec::new())],
            Service::Icmp if ipv6 => vec![("meta l4proto ipv6-icmp ".into(), protocol(ICMPV6))],
            Service::Icmp => vec![("meta l4proto icmp ".into(), protocol(ICMP))],
            Service::Ports(proto, (from, to)) => {
                let protos = proto.map_or(vec![Proto::Tcp, Proto::Udp], |p| vec![p]);
                let ports = if from == to { from.to_string() } else { format!("{from}-{to}") };
                let one = |p: Proto| {
                    let mut expressions = protocol(number(p));
                    expressions.push(Expr::Load(Header::Transport, 2, 2));
                    let (from, to) = (from.to_be_bytes().to_vec(), to.to_be_bytes().to_vec());
                    expressions.push(if from == to { Expr::Equals(from) } else { Expr::Within(from, to) });
                    (format!("{} dport {ports} ", p.name()), expressions)
                };
                protos.into_iter().map(one).collect()
            }
        }
    }
}

fn last(net: IpNetwork) -> IpAddr {
    match net {
        IpNetwork::V4(n) => n.broadcast().into(),
        IpNetwork::V6(n) => n.broadcast().into(),
    }
}

fn number(proto: Proto) -> u8 {
    match proto {
        Proto::Tcp => 6,
        Proto::Udp => 17,
        Proto::Sctp => 132,
    }
}

/// A rule as it is read and as it is written.
struct Line {
    text: String,
    expressions: Vec<Expr>,
    about: String,
}

fn lines(policy: &Policy) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut line = |text: &str, about: &str, expressions: Vec<Expr>| {
        lines.push(Line { text: text.into(), expressions, about: about.into() });
    };
    let mut lo = b"lo".to_vec();
    lo.resize(libc::IFNAMSIZ, 0);
    line(
        "oifname \"lo\" accept",
        "the container itself, and its resolver on 127.0.0.11",
        vec![Expr::Meta(Meta::Oifname), Expr::Equals(lo), Expr::Accept],
    );
    line(
        "ct state established,related accept",
        "answers: to what was let out, and to clients of published ports",
        vec![Expr::CtState, Expr::Mask(ESTABLISHED_OR_RELATED), Expr::Differs(vec![0; 4]), Expr::Accept],
    );
    line(
        "ct status dnat accept",
        "what --host-loopback lets out: nothing else translates here",
        vec![Expr::CtStatus, Expr::Mask(TRANSLATED), Expr::Differs(vec![0; 4]), Expr::Accept],
    );
    line(
        &format!("meta mark {MARK} accept"),
        "questions of the resolver to the servers of --dns",
        vec![Expr::Meta(Meta::Mark), Expr::Equals(MARK.to_ne_bytes().to_vec()), Expr::Accept],
    );
    for (from, to, about) in [(130, 136, "who listens, and who is where: IPv6's own ARP"), (143, 143, "who listens")] {
        line(
            &if from == to { format!("icmpv6 type {from} accept") } else { format!("icmpv6 type {from}-{to} accept") },
            about,
            vec![
                Expr::Meta(Meta::L4proto),
                Expr::Equals(vec![ICMPV6]),
                Expr::Load(Header::Transport, 0, 1),
                Expr::Within(vec![from], vec![to]),
                Expr::Accept,
            ],
        );
    }
    for group in groups(policy) {
        for ipv6 in [false, true] {
            let (family, daddr, nfproto) = match ipv6 {
                true => ("ip6", Expr::Load(Header::Network, 24, 16), NFPROTO_IPV6),
                false => ("ip", Expr::Load(Header::Network, 16, 4), NFPROTO_IPV4),
            };
            for (set, _) in group.sets(ipv6) {
                for (service, matching) in group.services(ipv6) {
                    let verdict = if group.allow { "accept" } else { "counter reject with icmpx admin-prohibited" };
                    let mut expressions = vec![Expr::Meta(Meta::Nfproto), Expr::Equals(vec![nfproto])];
                    expressions.extend(matching);
                    expressions.extend([daddr.clone(), Expr::InSet(set.name.clone())]);
                    expressions.extend(if group.allow {
                        vec![Expr::Accept]
                    } else {
                        vec![Expr::Counter, Expr::Reject]
                    });
                    line(&format!("{service}{family} daddr @{} {verdict}", set.name), "", expressions);
                }
            }
        }
    }
    if policy.closed {
        line(
            "counter reject with icmpx admin-prohibited",
            "--egress does not allow it",
            vec![Expr::Counter, Expr::Reject],
        );
    }
    lines
}

fn all_sets(policy: &Policy) -> Vec<(AddressSet, Vec<(IpAddr, IpAddr)>)> {
    groups(policy).iter().flat_map(|g| [g.sets(false), g.sets(true)]).flatten().collect()
}

/// An element for the kernel: one address (`names…`), or a range.
pub(super) fn element(set: &str, from: IpAddr, to: Option<IpAddr>, timeout: Option<std::time::Duration>) -> Elem {
    let bytes = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    Elem {
        set: set.to_string().into(),
        key: bytes(from),
        end: to.map(bytes),
        single_field: true,
        data: None,
        counter: false,
        timeout,
    }
}

/// Puts the policy into force in the namespace this thread is in.
pub(crate) fn load(policy: &Policy) -> Result<()> {
    let outcome = nl::write_table(nl::Family::Inet, TABLE, |table| {
        for (set, ranges) in all_sets(policy) {
            table.set(&set);
            let elements: Vec<Elem> =
                ranges.iter().map(|(from, to)| element(&set.name, *from, Some(*to), None)).collect();
            table.elements(&elements);
        }
        table.output_chain(CHAIN, PRIORITY_FILTER);
        for line in lines(policy) {
            table.rule(CHAIN, &line.about, &line.expressions);
        }
    })?;
    outcome.map_err(|failure| {
        failure
            .error("load the egress policy into the container's namespace")
            .with_hint("--egress needs nf_tables with conntrack and reject (CONFIG_NFT_CT, CONFIG_NFT_REJECT_INET)")
    })
}

/// The same for a shell.
pub(crate) fn script(policy: &Policy) -> String {
    let mut out = format!("table inet {TABLE} {{\n");
    for (set, ranges) in all_sets(policy) {
        let kind = if set.ipv6 { "ipv6_addr" } else { "ipv4_addr" };
        let flags = if set.timeout { "timeout" } else { "interval" };
        let _ = write!(out, "  set {} {{ type {kind}; flags {flags};", set.name);
        if !ranges.is_empty() {
            let texts: Vec<String> = ranges
                .iter()
                .map(|(from, to)| if from == to { from.to_string() } else { format!("{from}-{to}") })
                .collect();
            let _ = write!(out, " elements = {{ {} }};", texts.join(", "));
        }
        out.push_str(" }\n");
    }
    let _ = writeln!(out, "  chain {CHAIN} {{\n    type filter hook output priority {PRIORITY_FILTER};");
    for line in lines(policy) {
        let _ = writeln!(out, "    {}", line.text);
    }
    out.push_str("  }\n}");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> Policy {
        Policy::parse(&[text.to_string()]).unwrap().unwrap()
    }

    #[test]
    fn one_set_and_rule_for_a_service_however_many_destinations() {
        let many: Vec<String> = (0..100).map(|i| format!("allow=10.0.{}.0/24:443/tcp", i * 2)).collect();
        let p = policy(&format!("deny,{}", many.join(",")));
        assert_eq!(groups(&p).len(), 1);
        assert_eq!(lines(&p).len(), lines(&policy("deny,allow=10.0.0.1:443/tcp")).len());
        assert_eq!(all_sets(&p)[0].1.len(), 100);
    }

    #[test]
    fn overlapping_and_adjacent_subnets_are_one_range() {
        let p = policy("deny,allow=10.0.0.0/8,allow=10.1.0.0/16,allow=11.0.0.0/8,allow=fd00::/8,allow=*:53");
        let sets: Vec<String> = all_sets(&p)
            .iter()
            .map(|(s, r)| format!("{} {}", s.name, r.iter().map(|(a, b)| format!("{a}-{b}")).collect::<String>()))
            .collect();
        assert_eq!(
            sets,
            [
                "allow4_1 10.0.0.0-11.255.255.255",
                "allow6_1 fd00::-fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                "allow4_2 0.0.0.0-255.255.255.255",
                "allow6_2 ::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
            ]
        );
    }

    #[test]
    fn the_script_reads_as_the_policy() {
        let text = script(&policy("deny,allow=db:5432/tcp,deny=10.0.0.1,allow=10.0.0.0/24/icmp"));
        let body: Vec<&str> = text.lines().map(str::trim).collect();
        for line in [
            "set deny4_1 { type ipv4_addr; flags interval; elements = { 10.0.0.1 }; }",
            "set names4_2 { type ipv4_addr; flags timeout; }",
            "set names6_2 { type ipv6_addr; flags timeout; }",
            "ct state established,related accept",
            "ip daddr @deny4_1 counter reject with icmpx admin-prohibited",
            "tcp dport 5432 ip daddr @names4_2 accept",
            "tcp dport 5432 ip6 daddr @names6_2 accept",
            "meta l4proto icmp ip daddr @allow4_3 accept",
            "counter reject with icmpx admin-prohibited",
        ] {
            assert!(body.contains(&line), "{line}\n{text}");
        }
        let at = |line: &str| body.iter().position(|l| l.starts_with(line)).unwrap();
        assert!(at("ip daddr @deny4_1") < at("tcp dport"), "denials come first");
        assert!(!script(&policy("deny=10.0.0.1")).contains("\n    counter reject"), "open to the rest");
    }
}
