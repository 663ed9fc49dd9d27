//! The rules: fixed, the same on every host, and few enough to read.
//!
//! Nothing here mentions a container, a port or a network: rules look things up in the sets and
//! maps of [`super::sets`], so a packet pays the same with one published port as with ten thousand.
//! Only chains of our own table are touched, and no chain has a drop policy: an `accept` here
//! cannot overrule another program's drop, and what is none of our business passes.

use super::sets::{Family, Field, SETS, Shape};
use super::{LAYOUT, TABLE};
use nftables::batch::Batch;
use nftables::expr::{
    CT, Expression, Fib, FibFlag, FibResult, Map, Meta, MetaKey, NamedExpression, Payload, PayloadField, Prefix, RT,
    RTKey, TcpOption,
};
use nftables::schema::{
    self, Chain, FlushObject, NfCmd, NfListObject, Nftables, Rule, SetFlag, SetType, SetTypeValue, Table,
};
use nftables::stmt::{AnonymousCounter, Counter, JumpTarget, Mangle, Match, NAT, NATFamily, Operator, Statement};
use nftables::types::{NfChainPolicy, NfChainType, NfFamily, NfHook};
use std::collections::HashSet;

type Expr = Expression<'static>;
type Stmt = Statement<'static>;

/// What becomes of a table that is there already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begin {
    /// It is an error: somebody else has just loaded it.
    Create,
    /// Its rules are written anew, its elements stay. Chains of these names are nobody's, and go.
    Rewrite { strays: Vec<String> },
}

/// The whole table, to be loaded in one transaction.
pub fn ruleset(begin: &Begin) -> Nftables<'static> {
    let mut b = Builder(Batch::new());
    let table = || Table { family: NfFamily::INet, name: TABLE.into(), handle: None };
    match begin {
        Begin::Create => b.0.add_cmd(NfCmd::Create(NfListObject::Table(table()))),
        Begin::Rewrite { strays } => {
            b.0.add_cmd(NfCmd::Flush(FlushObject::Table(table())));
            for stray in strays {
                let (family, name) = (NfFamily::INet, stray.clone().into());
                let chain = Chain { family, table: TABLE.into(), name, ..Default::default() };
                b.0.add_cmd(NfCmd::Delete(NfListObject::Chain(chain)));
            }
        }
    }
    for shape in SETS {
        b.set(shape);
    }
    b.stamp();
    addressed_past_the_rules(&mut b);
    forwarded(&mut b);
    clamped(&mut b);
    to_the_host(&mut b);
    published(&mut b);
    leaving(&mut b);
    b.0.to_nftables()
}

/// Before anything else happens to a packet: what must not even reach the translation of addresses.
fn addressed_past_the_rules(b: &mut Builder) {
    b.base("raw_prerouting", NfChainType::Filter, NfHook::Prerouting, -300);
    let rule = |b: &mut Builder, what: Vec<Stmt>, about| b.rule("raw_prerouting", what, about);
    rule(
        b,
        vec![is_not(meta(MetaKey::Iifname), text("lo")), is(ip("daddr"), loopback4()), counter(), drop()],
        "127.0.0.1 never comes in by a wire: a forged frame must not reach ports published there",
    );
    rule(
        b,
        vec![is(meta(MetaKey::Iifname), set("bridges")), accept()],
        "from our own networks: chain forward keeps those apart",
    );
    for (daddr, [subnets, trusted]) in
        [(ip("daddr"), ["no_direct4", "trusted4"]), (ip6("daddr"), ["no_direct6", "trusted6"])]
    {
        let through = concat(vec![daddr.clone(), meta(MetaKey::Iifname)]);
        rule(
            b,
            vec![
                is(daddr, set(subnets)),
                is_not(fib(&[FibFlag::Daddr]), text("local")),
                is_not(through, set(trusted)),
                counter(),
                drop(),
            ],
            "containers are reached through published ports only, not by a route to their subnet",
        );
    }
}

fn forwarded(b: &mut Builder) {
    b.chain("published_only");
    b.rule(
        "published_only",
        vec![is(ct("state"), list(&["established", "related"])), accept()],
        "answers to what a container asked, and connections already let in",
    );
    b.rule(
        "published_only",
        vec![is(ct("status"), text("dnat")), accept()],
        "its destination was translated: it came through a published port",
    );
    // By number: a host without /etc/protocols has no names for them.
    for (saddr, daddr, icmp, v) in
        [(ip("saddr"), ip("daddr"), libc::IPPROTO_ICMP, 0), (ip6("saddr"), ip6("daddr"), libc::IPPROTO_ICMPV6, 1)]
    {
        let of = |names: [&'static str; 2]| set(names[v]);
        b.rule(
            "published_only",
            vec![is(daddr.clone(), of(["unprotected4", "unprotected6"])), accept()],
            "gateway mode nat-unprotected: whoever has a route may come in",
        );
        b.rule(
            "published_only",
            vec![is(daddr.clone(), of(["routed4", "routed6"])), is(meta(MetaKey::L4proto), number(icmp)), accept()],
            "gateway mode routed: containers answer to ping",
        );
        let through = concat(vec![daddr.clone(), meta(MetaKey::Iifname)]);
        b.rule(
            "published_only",
            vec![
                is(daddr.clone(), of(["no_direct4", "no_direct6"])),
                is_not(through, of(["trusted4", "trusted6"])),
                counter(),
                drop(),
            ],
            "this port is not published, or was addressed past its publication",
        );
        let port = concat(vec![saddr, daddr, meta(MetaKey::L4proto), payload("th", "dport")]);
        b.rule(
            "published_only",
            vec![is(port, of(["open4", "open6"])), accept()],
            "a published container port, of a routed network or through a trusted interface",
        );
    }
    b.rule("published_only", vec![counter(), drop()], "this port is not published");
    b.chain("closed");
    b.rule("closed", vec![counter(), drop()], "internal network");

    b.base("forward", NfChainType::Filter, NfHook::Forward, 0);
    let both = || concat(vec![meta(MetaKey::Iifname), meta(MetaKey::Oifname)]);
    b.rule("forward", vec![is(both(), set("talkative")), accept()], "between containers of one network");
    b.rule(
        "forward",
        vec![is(meta(MetaKey::Iifname), set("internal")), goto("closed")],
        "nothing leaves an internal network",
    );
    b.rule("forward", vec![is(meta(MetaKey::Oifname), set("internal")), goto("closed")], "nothing enters one");
    b.rule(
        "forward",
        vec![is(meta(MetaKey::Oifname), set("bridges")), goto("published_only")],
        "into a network of ours, from outside or from another network",
    );
}

/// Paths whose narrow links drop what is too big without saying so.
fn clamped(b: &mut Builder) {
    b.base("mangle_forward", NfChainType::Filter, NfHook::Forward, -150);
    for interface in [MetaKey::Iifname, MetaKey::Oifname] {
        let size = named(NamedExpression::TcpOption(TcpOption { name: "maxseg".into(), field: Some("size".into()) }));
        let mtu = named(NamedExpression::RT(RT { key: RTKey::MTU, family: None }));
        let flags = Match { left: payload("tcp", "flags"), right: text("syn"), op: Operator::IN };
        b.rule(
            "mangle_forward",
            vec![
                is(meta(interface), set("bridges")),
                Statement::Match(flags),
                Statement::Mangle(Mangle { key: size, value: mtu }),
            ],
            "TCP segments fit the narrower of the two ways, whatever the ends believe",
        );
    }
}

fn to_the_host(b: &mut Builder) {
    b.chain("gateway_only");
    b.rule(
        "gateway_only",
        vec![is(fib(&[FibFlag::Daddr, FibFlag::Iif]), anonymous(&["local", "broadcast", "multicast"])), accept()],
        "the gateway's own addresses on that bridge",
    );
    b.rule("gateway_only", vec![counter(), drop()], "the rest of the host is outside an internal network");
    b.base("input", NfChainType::Filter, NfHook::Input, 0);
    b.rule(
        "input",
        vec![is(meta(MetaKey::Iifname), set("internal")), goto("gateway_only")],
        "from an internal network",
    );
}

/// Published ports: of every new connection to one of the host's addresses, from outside
/// (prerouting) and from the host itself (output), the destination is looked up.
fn published(b: &mut Builder) {
    b.chain("published4");
    b.chain("published6");
    b.rule(
        "published6",
        vec![is(ip6("daddr"), text("::1")), return_()],
        "[::1] cannot leave the loopback: the monitor relays it",
    );
    for (chain, family, prefix) in
        [("published4", NATFamily::IP, "publish4"), ("published6", NATFamily::IP6, "publish6")]
    {
        let daddr = || if prefix == "publish4" { ip("daddr") } else { ip6("daddr") };
        let proto = || meta(MetaKey::L4proto);
        let port = || payload("th", "dport");
        let on_address = || concat(vec![daddr(), proto(), port()]);
        let on_any = || concat(vec![proto(), port()]);
        let mut dnat = |to: Expr, port: Option<Expr>, about| {
            let dnat = Statement::DNAT(Some(NAT { addr: Some(to), family: Some(family), port, flags: None }));
            b.rule(chain, vec![is(proto(), anonymous(&["tcp", "udp", "sctp"])), dnat], about);
        };
        let in_map = |key: Expr, map: &str| lookup(key, format!("{prefix}_{map}"));
        // Narrower publishes first. Where numbers differ inside, the port map has the port too; where
        // they do not, the port stays as it is.
        let saddr = || if prefix == "publish4" { ip("saddr") } else { ip6("saddr") };
        let by_iface = || concat(vec![meta(MetaKey::Iifname), saddr(), proto(), port()]);
        let by_source = || concat(vec![saddr(), daddr(), proto(), port()]);
        dnat(
            in_map(by_iface(), "iface"),
            Some(in_map(by_iface(), "iface_port")),
            "published on an interface of the host, whatever its addresses",
        );
        dnat(in_map(by_iface(), "iface"), None, "the same, where ports keep their numbers");
        dnat(
            in_map(by_source(), "from"),
            Some(in_map(by_source(), "from_port")),
            "published for some only: for others the port is as closed as any",
        );
        dnat(in_map(by_source(), "from"), None, "the same, where ports keep their numbers");
        // The address as given beats any address. Two maps, one for the container's address and one
        // for its port, because nft before 1.0.8 crashes on a map to both when it is told in JSON.
        dnat(
            in_map(on_address(), "addr"),
            Some(in_map(on_address(), "addr_port")),
            "published on one address of the host",
        );
        dnat(in_map(on_address(), "addr_range"), None, "a range of ports that keep their numbers");
        dnat(in_map(on_any(), "any"), Some(in_map(on_any(), "any_port")), "published on every address of the host");
        dnat(in_map(on_any(), "any_range"), None, "a range of ports that keep their numbers");
    }
    for (chain, hook) in [("nat_prerouting", NfHook::Prerouting), ("nat_output", NfHook::Output)] {
        b.base(chain, NfChainType::NAT, hook, -100);
        for (family, target) in [("ipv4", "published4"), ("ipv6", "published6")] {
            b.rule(
                chain,
                vec![is(meta(MetaKey::Nfproto), text(family)), is(fib(&[FibFlag::Daddr]), text("local")), jump(target)],
                "only what is addressed to this host: forwarded traffic to a like-numbered port is not ours",
            );
        }
    }
}

fn leaving(b: &mut Builder) {
    b.base("nat_postrouting", NfChainType::NAT, NfHook::Postrouting, 100);
    let masquerade = || Statement::Masquerade(None);
    b.rule(
        "nat_postrouting",
        vec![is(meta(MetaKey::Oifname), set("bridges")), is(ip("saddr"), loopback4()), masquerade()],
        "the host asked for 127.0.0.1: a container cannot answer to that address",
    );
    for (saddr, home) in [(ip("saddr"), "home4"), (ip6("saddr"), "home6")] {
        // Not by iifname: where br_netfilter is on, this hook does not know where a packet came from.
        b.rule(
            "nat_postrouting",
            vec![
                is(ct("status"), text("dnat")),
                is(concat(vec![saddr, meta(MetaKey::Oifname)]), set(home)),
                masquerade(),
            ],
            "a hairpin: out to the host's port and back into the same network; without this the answer would take the short way and not be recognised",
        );
    }
    for (saddr, family, map) in [(ip("saddr"), NATFamily::IP, "outbound4"), (ip6("saddr"), NATFamily::IP6, "outbound6")]
    {
        let source = Some(lookup(saddr, map.into()));
        let snat = Statement::SNAT(Some(NAT { addr: source, family: Some(family), port: None, flags: None }));
        b.rule(
            "nat_postrouting",
            vec![is_not(meta(MetaKey::Oifname), set("bridges")), snat],
            "out into the world under the address that the network chose",
        );
    }
    for (saddr, subnets) in [(ip("saddr"), "masquerade4"), (ip6("saddr"), "masquerade6")] {
        b.rule(
            "nat_postrouting",
            vec![is_not(meta(MetaKey::Oifname), set("bridges")), is(saddr, set(subnets)), masquerade()],
            "out into the world under the host's address; servers in our networks see the true source",
        );
    }
}

struct Builder(Batch<'static>);

impl Builder {
    fn set(&mut self, shape: &'static Shape) {
        let flags = shape.interval.then(|| HashSet::from([SetFlag::Interval]));
        let key = types(shape.key, shape.family);
        let comment = Some(shape.about.into());
        let (family, table, name) = (NfFamily::INet, TABLE.into(), shape.name.into());
        self.0.add(match shape.data {
            None => NfListObject::Set(Box::new(schema::Set {
                family,
                table,
                name,
                set_type: key,
                flags,
                comment,
                ..Default::default()
            })),
            Some(data) => NfListObject::Map(Box::new(schema::Map {
                family,
                table,
                name,
                set_type: key,
                map: SetTypeValue::Single(set_type(data, shape.family)),
                flags,
                comment,
                ..Default::default()
            })),
        });
    }

    /// So that every start can ask, with one question, whether these are the rules it knows.
    fn stamp(&mut self) {
        let (family, table, name) = (NfFamily::INet, TABLE, "layout");
        let set = schema::Set { family, table: table.into(), name: name.into(), ..Default::default() };
        self.0.add_cmd(NfCmd::Flush(FlushObject::Set(Box::new(set))));
        let elem = vec![Expression::Number(LAYOUT)].into();
        self.0.add(NfListObject::Element(schema::Element { family, table: table.into(), name: name.into(), elem }));
    }

    fn chain(&mut self, name: &'static str) {
        self.0.add(NfListObject::Chain(Chain {
            family: NfFamily::INet,
            table: TABLE.into(),
            name: name.into(),
            ..Default::default()
        }));
    }

    fn base(&mut self, name: &'static str, kind: NfChainType, hook: NfHook, priority: i32) {
        self.0.add(NfListObject::Chain(Chain {
            family: NfFamily::INet,
            table: TABLE.into(),
            name: name.into(),
            _type: Some(kind),
            hook: Some(hook),
            prio: Some(priority),
            policy: Some(NfChainPolicy::Accept),
            ..Default::default()
        }));
    }

    fn rule(&mut self, chain: &'static str, what: Vec<Stmt>, about: &'static str) {
        self.0.add(NfListObject::Rule(Rule {
            family: NfFamily::INet,
            table: TABLE.into(),
            chain: chain.into(),
            expr: what.into(),
            comment: Some(about.into()),
            ..Default::default()
        }));
    }
}

fn types(fields: &'static [Field], family: Family) -> SetTypeValue<'static> {
    match fields {
        [single] => SetTypeValue::Single(set_type(*single, family)),
        several => SetTypeValue::Concatenated(several.iter().map(|f| set_type(*f, family)).collect::<Vec<_>>().into()),
    }
}

fn set_type(field: Field, family: Family) -> SetType {
    match (field, family) {
        (Field::Addr6, _) | (Field::Net, Family::V6) => SetType::Ipv6Addr,
        (Field::Addr4 | Field::Net, _) => SetType::Ipv4Addr,
        (Field::Proto, _) => SetType::InetProto,
        (Field::Port | Field::Ports, _) => SetType::InetService,
        (Field::Ifname, _) => SetType::Ifname,
        (Field::Mark, _) => SetType::Mark,
    }
}

// ---- a vocabulary close to nft's own ---------------------------------------------------------

fn named(e: NamedExpression<'static>) -> Expr {
    Expression::Named(e)
}

fn text(s: &'static str) -> Expr {
    Expression::String(s.into())
}

fn number(n: i32) -> Expr {
    Expression::Number(n as u32)
}

fn set(name: &'static str) -> Expr {
    Expression::String(format!("@{name}").into())
}

/// Several values of a bit field, any of which matches.
fn list(values: &[&'static str]) -> Expr {
    Expression::List(values.iter().map(|v| text(v)).collect())
}

fn anonymous(values: &[&'static str]) -> Expr {
    named(NamedExpression::Set(values.iter().map(|v| nftables::expr::SetItem::Element(text(v))).collect()))
}

fn concat(parts: Vec<Expr>) -> Expr {
    named(NamedExpression::Concat(parts))
}

fn meta(key: MetaKey) -> Expr {
    named(NamedExpression::Meta(Meta { key }))
}

fn ct(key: &'static str) -> Expr {
    named(NamedExpression::CT(CT { key: key.into(), family: None, dir: None }))
}

fn payload(protocol: &'static str, field: &'static str) -> Expr {
    named(NamedExpression::Payload(Payload::PayloadField(PayloadField {
        protocol: protocol.into(),
        field: field.into(),
    })))
}

fn ip(field: &'static str) -> Expr {
    payload("ip", field)
}

fn ip6(field: &'static str) -> Expr {
    payload("ip6", field)
}

fn loopback4() -> Expr {
    named(NamedExpression::Prefix(Prefix { addr: Box::new(text("127.0.0.0")), len: 8 }))
}

fn fib(flags: &[FibFlag]) -> Expr {
    named(NamedExpression::Fib(Fib { result: FibResult::Type, flags: flags.iter().copied().collect() }))
}

fn lookup(key: Expr, map: String) -> Expr {
    let data = Expression::String(format!("@{map}").into());
    named(NamedExpression::Map(Box::new(Map { key, data })))
}

fn is(left: Expr, right: Expr) -> Stmt {
    let op = match left {
        Expression::Named(NamedExpression::CT(_)) => Operator::IN,
        _ => Operator::EQ,
    };
    Statement::Match(Match { left, right, op })
}

fn is_not(left: Expr, right: Expr) -> Stmt {
    Statement::Match(Match { left, right, op: Operator::NEQ })
}

fn counter() -> Stmt {
    Statement::Counter(Counter::Anonymous(Some(AnonymousCounter::default())))
}

fn accept() -> Stmt {
    Statement::Accept(None)
}

fn drop() -> Stmt {
    Statement::Drop(None)
}

fn return_() -> Stmt {
    Statement::Return(None)
}

fn goto(chain: &'static str) -> Stmt {
    Statement::Goto(JumpTarget { target: chain.into() })
}

fn jump(chain: &'static str) -> Stmt {
    Statement::Jump(JumpTarget { target: chain.into() })
}
