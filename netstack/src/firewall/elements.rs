//! Elements of the maps and sets in table `inet rrun`: as values, as `nft` text, as kernel bytes.
//!
//! The text form is what `undo.json` keeps and what a person can paste behind `nft`; it parses
//! back, because each set's key has a fixed shape.

use super::sets::{Field, Shape, shape};
use crate::model::{PortBinding, Proto};
use crate::nl;
use plan::{Error, Result};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One element: `key` or `key : value` of a named set or map.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Element {
    shape: &'static Shape,
    key: Vec<Value>,
    data: Option<Value>,
}

/// One field of a key or a value; inclusive where it is a range.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Value {
    V4(Ipv4Addr),
    V6(Ipv6Addr),
    Net(ipnetwork::IpNetwork),
    Proto(Proto),
    Port(u16),
    Ports(u16, u16),
    Name(String),
    Mark(u32),
}

impl Element {
    fn new(set: &'static str, key: Vec<Value>, data: Option<Value>) -> Element {
        let shape = shape(set).expect("every set named in this file is in the table of sets");
        Element { shape, key, data }
    }

    /// The set's name.
    pub fn set(&self) -> &'static str {
        self.shape.name
    }

    /// From the text form of set `set`: a key, or `key : value`.
    pub fn parse(set: &str, text: &str) -> Result<Element> {
        let bad = || {
            Error::invalid(format!("{text:?} is no element of set {set} in table inet rrun"))
                .with_hint("a file in the state directory was changed by hand; remove that line")
        };
        let shape = shape(set).ok_or_else(bad)?;
        let (key, data) = match text.split_once(" : ") {
            Some((k, d)) => (k, Some(d)),
            None => (text, None),
        };
        let fields = |text: &str, fields: &[Field]| -> Option<Vec<Value>> {
            let parts: Vec<&str> = text.trim().split(" . ").collect();
            if parts.len() != fields.len() {
                return None;
            }
            parts.iter().zip(fields).map(|(p, f)| Value::parse(p.trim(), *f)).collect()
        };
        let key = fields(key, shape.key).ok_or_else(bad)?;
        let data = match (data, shape.data) {
            (None, _) => None,
            (Some(d), Some(field)) => Some(Value::parse(d.trim(), field).ok_or_else(bad)?),
            (Some(_), None) => return Err(bad()),
        };
        Ok(Element { shape, key, data })
    }

    // ---- what there is to say about a network -----------------------------------------------

    /// These are our own rules.
    pub fn stamp() -> Element {
        Element::new("layout", vec![Value::Mark(super::LAYOUT)], None)
    }

    /// `bridge` is one of ours.
    pub fn bridge(bridge: &str) -> Element {
        Element::new("bridges", vec![Value::Name(bridge.into())], None)
    }

    /// `subnet` lives on `bridge`.
    pub fn home(subnet: ipnetwork::IpNetwork, bridge: &str) -> Element {
        let set = if subnet.is_ipv4() { "home4" } else { "home6" };
        Element::new(set, vec![Value::Net(subnet), Value::Name(bridge.into())], None)
    }

    /// Containers on `bridge` may talk to each other (`enable_icc`).
    pub fn talkative(bridge: &str) -> Element {
        Element::new("talkative", vec![Value::Name(bridge.into()), Value::Name(bridge.into())], None)
    }

    /// `bridge` is closed both ways.
    pub fn internal(bridge: &str) -> Element {
        Element::new("internal", vec![Value::Name(bridge.into())], None)
    }

    /// Packets from this subnet to the world carry the host's address.
    pub fn masqueraded(subnet: ipnetwork::IpNetwork) -> Element {
        let set = if subnet.is_ipv4() { "masquerade4" } else { "masquerade6" };
        Element::new(set, vec![Value::Net(subnet)], None)
    }

    /// Nobody outside may address this subnet directly.
    pub fn no_direct(subnet: ipnetwork::IpNetwork) -> Element {
        let set = if subnet.is_ipv4() { "no_direct4" } else { "no_direct6" };
        Element::new(set, vec![Value::Net(subnet)], None)
    }

    /// Packets from this subnet to the world carry this address of the host.
    pub fn outbound(subnet: ipnetwork::IpNetwork, source: IpAddr) -> Element {
        let map = if subnet.is_ipv4() { "outbound4" } else { "outbound6" };
        Element::new(map, vec![Value::Net(subnet)], Some(Value::ip(source)))
    }

    /// … but published ports may be addressed through `interface`.
    pub fn trusted(subnet: ipnetwork::IpNetwork, interface: &str) -> Element {
        let set = if subnet.is_ipv4() { "trusted4" } else { "trusted6" };
        Element::new(set, vec![Value::Net(subnet), Value::Name(interface.into())], None)
    }

    /// Whoever has a route to this subnet may address all of it.
    pub fn unprotected(subnet: ipnetwork::IpNetwork) -> Element {
        let set = if subnet.is_ipv4() { "unprotected4" } else { "unprotected6" };
        Element::new(set, vec![Value::Net(subnet)], None)
    }

    /// Whoever has a route to this subnet may address its published ports.
    pub fn routed(subnet: ipnetwork::IpNetwork) -> Element {
        let set = if subnet.is_ipv4() { "routed4" } else { "routed6" };
        Element::new(set, vec![Value::Net(subnet)], None)
    }

    // ---- what there is to say about a published port ----------------------------------------

    /// The elements that send `binding` to the container's `target`, of the same address family.
    ///
    /// A range whose ports keep their numbers is one interval element, however long; otherwise
    /// each port needs its own, because a map can only answer with constants.
    pub fn published(binding: &PortBinding, target: IpAddr) -> Vec<Element> {
        const NAMES: [[[&str; 3]; 2]; 2] = [
            [
                ["publish4_any", "publish4_any_port", "publish4_any_range"],
                ["publish4_addr", "publish4_addr_port", "publish4_addr_range"],
            ],
            [
                ["publish6_any", "publish6_any_port", "publish6_any_range"],
                ["publish6_addr", "publish6_addr_port", "publish6_addr_range"],
            ],
        ];
        if binding.iface.is_some() || !binding.from.is_empty() {
            return Element::narrowed(binding, target);
        }
        let any = binding.host_ip.is_unspecified();
        let [to_address, to_port, range] = NAMES[usize::from(target.is_ipv6())][usize::from(!any)];
        let key = |ports: Value| {
            let mut key = Vec::with_capacity(3);
            if !any {
                key.push(Value::ip(binding.host_ip));
            }
            key.extend([Value::Proto(binding.proto), ports]);
            key
        };
        let (host, container) = (binding.host, binding.container);
        if host == container && host.0 != host.1 {
            return vec![Element::new(range, key(Value::Ports(host.0, host.1)), Some(Value::ip(target)))];
        }
        let pairs = || (host.0..=host.1).zip(container.0..=container.1);
        // Set by set, not port by port: that is how they fit into few messages.
        let addresses = pairs().map(|(h, _)| Element::new(to_address, key(Value::Port(h)), Some(Value::ip(target))));
        let ports = pairs().map(|(h, c)| Element::new(to_port, key(Value::Port(h)), Some(Value::Port(c))));
        addresses.chain(ports).collect()
    }

    /// The elements that open the container's own ports of `binding`, at its address: one for each source.
    pub fn open(binding: &PortBinding, container: IpAddr) -> Vec<Element> {
        let set = if container.is_ipv4() { "open4" } else { "open6" };
        let ports = Value::Ports(binding.container.0, binding.container.1);
        let key = |source| vec![source, Value::ip(container), Value::Proto(binding.proto), ports.clone()];
        let sources = sources(binding, container.is_ipv6()).into_iter();
        sources.map(|source| Element::new(set, key(source), None)).collect()
    }

    /// As [`Element::published`], of a binding with sources or an interface: an element for each source.
    fn narrowed(binding: &PortBinding, target: IpAddr) -> Vec<Element> {
        let six = target.is_ipv6();
        let [to_address, to_port] = match (six, binding.iface.is_some()) {
            (false, false) => ["publish4_from", "publish4_from_port"],
            (true, false) => ["publish6_from", "publish6_from_port"],
            (false, true) => ["publish4_iface", "publish4_iface_port"],
            (true, true) => ["publish6_iface", "publish6_iface_port"],
        };
        let sources = sources(binding, six);
        let key = |source: &Value, ports: (u16, u16)| {
            let (source, proto, ports) = (source.clone(), Value::Proto(binding.proto), Value::Ports(ports.0, ports.1));
            match &binding.iface {
                Some(iface) => vec![Value::Name(iface.clone()), source, proto, ports],
                None if binding.host_ip.is_unspecified() => vec![source, everybody(six), proto, ports],
                None => vec![source, Value::Net(binding.host_ip.into()), proto, ports],
            }
        };
        let (host, container) = (binding.host, binding.container);
        let target = || Some(Value::ip(target));
        // The whole range leads to one container; only ports that change their numbers are told one by one.
        let mut all: Vec<Element> = sources.iter().map(|s| Element::new(to_address, key(s, host), target())).collect();
        if host != container {
            for (h, c) in (host.0..=host.1).zip(container.0..=container.1) {
                all.extend(sources.iter().map(|s| Element::new(to_port, key(s, (h, h)), Some(Value::Port(c)))));
            }
        }
        all
    }

    /// Does it change destinations (or only let through what is addressed right)?
    pub fn translates(&self) -> bool {
        self.data.is_some()
    }

    /// Of an element that leads published ports to a container: protocol, ports as addressed, container.
    pub fn translation(&self) -> Option<(Proto, (u16, u16), IpAddr)> {
        if !self.shape.counter {
            return None;
        }
        // An open port is the container's own: its address is part of the key.
        let to = match self.data.as_ref().or_else(|| self.key.get(1)) {
            Some(Value::V4(ip)) => IpAddr::from(*ip),
            Some(Value::V6(ip)) => IpAddr::from(*ip),
            _ => return None,
        };
        match self.key.as_slice() {
            [.., Value::Proto(proto), Value::Port(p)] => Some((*proto, (*p, *p), to)),
            [.., Value::Proto(proto), Value::Ports(a, b)] => Some((*proto, (*a, *b), to)),
            _ => None,
        }
    }

    /// The interface that its key names.
    pub fn interface(&self) -> Option<&str> {
        self.key.iter().find_map(|v| if let Value::Name(name) = v { Some(name.as_str()) } else { None })
    }

    /// The subnet that its key begins with.
    pub fn subnet(&self) -> Option<ipnetwork::IpNetwork> {
        if let Some(Value::Net(net)) = self.key.first() { Some(*net) } else { None }
    }

    /// The kernel's form.
    pub fn lower(&self) -> nl::Elem {
        let mut key = Vec::with_capacity(self.shape.key_len());
        let mut end = Vec::with_capacity(self.shape.key_len());
        for v in &self.key {
            v.bytes(false, &mut key);
            v.bytes(true, &mut end);
        }
        let data = self.data.as_ref().map(|v| {
            let mut bytes = Vec::new();
            match v {
                // Only the fields of a concatenation are padded.
                Value::Port(p) => bytes.extend_from_slice(&p.to_be_bytes()),
                other => other.bytes(false, &mut bytes),
            }
            bytes
        });
        nl::Elem {
            set: self.shape.name.into(),
            key,
            end: self.shape.interval.then_some(end),
            single_field: self.shape.key.len() == 1,
            data,
            counter: self.shape.counter,
            timeout: None,
        }
    }
}

/// Every address of a family.
fn everybody(six: bool) -> Value {
    let any: IpAddr = if six { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    Value::Net(ipnetwork::IpNetwork::new(any, 0).expect("every address has a /0"))
}

/// From where a binding may be used.
fn sources(binding: &PortBinding, six: bool) -> Vec<Value> {
    match binding.from.as_slice() {
        [] => vec![everybody(six)],
        from => from.iter().map(|net| Value::Net(*net)).collect(),
    }
}

impl Value {
    fn ip(ip: IpAddr) -> Value {
        match ip {
            IpAddr::V4(ip) => Value::V4(ip),
            IpAddr::V6(ip) => Value::V6(ip),
        }
    }

    fn parse(text: &str, field: Field) -> Option<Value> {
        Some(match field {
            Field::Addr4 => Value::V4(text.parse().ok()?),
            Field::Addr6 => Value::V6(text.parse().ok()?),
            Field::Net => Value::Net(text.parse().ok()?),
            // nft lists numbers where the host has no /etc/protocols.
            Field::Proto => Value::Proto(match text {
                "tcp" | "6" => Proto::Tcp,
                "udp" | "17" => Proto::Udp,
                "sctp" | "132" => Proto::Sctp,
                _ => return None,
            }),
            Field::Port => Value::Port(text.parse().ok()?),
            Field::Ports => {
                let (a, b) = text.split_once('-').unwrap_or((text, text));
                Value::Ports(a.parse().ok()?, b.parse().ok()?)
            }
            Field::Mark => Value::Mark(u32::from_str_radix(text.strip_prefix("0x")?, 16).ok()?),
            Field::Ifname => {
                let name = text.trim_matches('"');
                if name.is_empty() || name.len() >= libc::IFNAMSIZ {
                    return None;
                }
                Value::Name(name.to_string())
            }
        })
    }

    /// Appends the field's bytes, padded to the four-byte registers that a concatenation is made
    /// of. `end`: the upper bound of a range.
    fn bytes(&self, end: bool, out: &mut Vec<u8>) {
        match self {
            Value::V4(ip) => out.extend_from_slice(&ip.octets()),
            Value::V6(ip) => out.extend_from_slice(&ip.octets()),
            Value::Net(net) => match (net, end) {
                (ipnetwork::IpNetwork::V4(n), false) => out.extend_from_slice(&n.network().octets()),
                (ipnetwork::IpNetwork::V4(n), true) => out.extend_from_slice(&n.broadcast().octets()),
                (ipnetwork::IpNetwork::V6(n), false) => out.extend_from_slice(&n.network().octets()),
                (ipnetwork::IpNetwork::V6(n), true) => out.extend_from_slice(&n.broadcast().octets()),
            },
            Value::Proto(p) => out.extend_from_slice(&[p.number(), 0, 0, 0]),
            Value::Port(p) => {
                out.extend_from_slice(&p.to_be_bytes());
                out.extend_from_slice(&[0, 0]);
            }
            Value::Ports(a, b) => {
                let p = if end { b } else { a };
                out.extend_from_slice(&p.to_be_bytes());
                out.extend_from_slice(&[0, 0]);
            }
            // Of the host's byte order, unlike all that comes from packets.
            Value::Mark(mark) => out.extend_from_slice(&mark.to_ne_bytes()),
            Value::Name(name) => {
                let mut field = [0u8; libc::IFNAMSIZ];
                field[..name.len()].copy_from_slice(name.as_bytes());
                out.extend_from_slice(&field);
            }
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::V4(ip) => ip.fmt(f),
            Value::V6(ip) => ip.fmt(f),
            Value::Net(net) => net.fmt(f),
            Value::Proto(p) => f.write_str(p.name()),
            Value::Port(p) => p.fmt(f),
            Value::Ports(a, b) if a == b => a.fmt(f),
            Value::Ports(a, b) => write!(f, "{a}-{b}"),
            Value::Name(n) => write!(f, "\"{n}\""),
            Value::Mark(mark) => write!(f, "{mark:#010x}"),
        }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = |f: &mut fmt::Formatter<'_>, values: &[Value]| {
            for (i, v) in values.iter().enumerate() {
                if i > 0 {
                    f.write_str(" . ")?;
                }
                v.fmt(f)?;
            }
            Ok(())
        };
        fields(f, &self.key)?;
        if let Some(data) = &self.data {
            write!(f, " : {data}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(host_ip: &str, host: (u16, u16), container: (u16, u16)) -> PortBinding {
        let host_ip = host_ip.parse().unwrap();
        PortBinding { host_ip, host, container, proto: Proto::Tcp, iface: None, from: Vec::new(), routed: false }
    }

    fn texts(elements: &[Element]) -> Vec<String> {
        elements.iter().map(|e| format!("{} {{ {e} }}", e.set())).collect()
    }

    #[test]
    fn an_equal_range_is_one_element() {
        let e = Element::published(&binding("0.0.0.0", (8000, 8499), (8000, 8499)), "172.17.0.2".parse().unwrap());
        assert_eq!(texts(&e), ["publish4_any_range { tcp . 8000-8499 : 172.17.0.2 }"]);
        let e = Element::published(&binding("::", (8000, 8499), (8000, 8499)), "fd00::2".parse().unwrap());
        assert_eq!(texts(&e), ["publish6_any_range { tcp . 8000-8499 : fd00::2 }"]);
    }

    #[test]
    fn an_unequal_range_is_elements_port_by_port() {
        let e = Element::published(&binding("127.0.0.1", (9800, 9801), (80, 81)), "172.17.0.2".parse().unwrap());
        assert_eq!(
            texts(&e),
            [
                "publish4_addr { 127.0.0.1 . tcp . 9800 : 172.17.0.2 }",
                "publish4_addr { 127.0.0.1 . tcp . 9801 : 172.17.0.2 }",
                "publish4_addr_port { 127.0.0.1 . tcp . 9800 : 80 }",
                "publish4_addr_port { 127.0.0.1 . tcp . 9801 : 81 }"
            ]
        );
    }

    #[test]
    fn a_single_port_uses_the_hash() {
        let e = Element::published(&binding("0.0.0.0", (80, 80), (80, 80)), "172.17.0.2".parse().unwrap());
        assert_eq!(texts(&e), ["publish4_any { tcp . 80 : 172.17.0.2 }", "publish4_any_port { tcp . 80 : 80 }"]);
    }

    #[test]
    fn sources_and_interfaces_are_part_of_the_key() {
        let to = "172.17.0.2".parse().unwrap();
        let from = vec!["10.0.0.0/8".parse().unwrap(), "192.0.2.1/32".parse().unwrap()];
        let e =
            Element::published(&PortBinding { from: from.clone(), ..binding("0.0.0.0", (8080, 8080), (80, 80)) }, to);
        assert_eq!(
            texts(&e),
            [
                "publish4_from { 10.0.0.0/8 . 0.0.0.0/0 . tcp . 8080 : 172.17.0.2 }",
                "publish4_from { 192.0.2.1/32 . 0.0.0.0/0 . tcp . 8080 : 172.17.0.2 }",
                "publish4_from_port { 10.0.0.0/8 . 0.0.0.0/0 . tcp . 8080 : 80 }",
                "publish4_from_port { 192.0.2.1/32 . 0.0.0.0/0 . tcp . 8080 : 80 }",
            ]
        );
        let iface = Some("eth1".to_string());
        let e = Element::published(&PortBinding { iface, ..binding("0.0.0.0", (8000, 8499), (8000, 8499)) }, to);
        assert_eq!(texts(&e), ["publish4_iface { \"eth1\" . 0.0.0.0/0 . tcp . 8000-8499 : 172.17.0.2 }"]);
        assert_eq!(e[0].translation(), Some((Proto::Tcp, (8000, 8499), to)));
        for e in
            e.into_iter().chain(Element::published(&PortBinding { from, ..binding("127.0.0.1", (1, 2), (3, 4)) }, to))
        {
            assert_eq!(Element::parse(e.set(), &e.to_string()).unwrap(), e);
        }
    }

    #[test]
    fn text_parses_back_and_junk_does_not() {
        let all = [
            Element::bridge("rrun0"),
            Element::talkative("br-0123456789ab"),
            Element::internal("rrun0"),
            Element::masqueraded("172.17.0.0/16".parse().unwrap()),
            Element::no_direct("fd00::/64".parse().unwrap()),
        ];
        for e in all
            .into_iter()
            .chain(Element::published(&binding("::", (1, 9), (1, 9)), "fd00::2".parse().unwrap()))
            .chain(Element::published(&binding("10.0.0.1", (1, 2), (3, 4)), "172.17.0.2".parse().unwrap()))
        {
            assert_eq!(Element::parse(e.set(), &e.to_string()).unwrap(), e);
        }
        let parse = |proto: &str| Element::parse("publish4_any", &format!("{proto} . 80 : 10.0.0.2")).unwrap();
        for (number, name) in [("6", "tcp"), ("17", "udp"), ("132", "sctp")] {
            assert_eq!(parse(number), parse(name));
        }
        for (set, text) in [
            ("nosuch", "1"),
            ("publish4_any", "tcp . 99999 : 1.2.3.4"),
            ("publish4_any", "tcp . 9 : 1.2.3.4 . 1"),
            ("publish4_any", "tcp"),
            ("internal", "\"x\" . \"y\""),
            ("bridges", "\"name_longer_than_fifteen\""),
        ] {
            assert!(Element::parse(set, text).is_err(), "{set} {text}");
        }
    }

    #[test]
    fn fields_of_a_key_fill_whole_registers() {
        let e = &Element::published(&binding("127.0.0.1", (8080, 8080), (80, 80)), "172.17.0.2".parse().unwrap())[0];
        let low = e.lower();
        assert_eq!(low.key, [127, 0, 0, 1, 6, 0, 0, 0, 0x1f, 0x90, 0, 0]);
        assert_eq!(low.data, Some(vec![172, 17, 0, 2]));
        assert_eq!(low.end, None);
        let net = Element::masqueraded("10.1.0.0/16".parse().unwrap()).lower();
        assert_eq!((net.key, net.end), (vec![10, 1, 0, 0], Some(vec![10, 1, 255, 255])));
    }
}
