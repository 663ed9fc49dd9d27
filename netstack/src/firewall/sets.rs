//! The names and shapes of every set and map in table `inet rrun`.

/// A field of a key or a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    Addr4,
    Addr6,
    /// A subnet, in an interval set; /0 is any address.
    Net,
    Proto,
    Port,
    /// An inclusive range, in an interval set.
    Ports,
    Ifname,
    /// A plain number.
    Mark,
}

/// A set (no data) or a map.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    pub name: &'static str,
    pub family: Family,
    pub key: &'static [Field],
    /// What a map answers.
    pub data: Option<Field>,
    pub interval: bool,
    /// Each element counts what it matched: for a published port, its connections.
    pub counter: bool,
    /// For the reader of `nft list table inet rrun`.
    pub about: &'static str,
}

/// Which of the two address types a key field [`Field::Net`] has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    V4,
    V6,
    Both,
}

impl Shape {
    pub(super) fn key_len(&self) -> usize {
        self.key
            .iter()
            .map(|f| match (f, self.family) {
                (Field::Addr6, _) | (Field::Net, Family::V6) | (Field::Ifname, _) => 16,
                _ => 4,
            })
            .sum()
    }
}

/// By name.
pub fn shape(name: &str) -> Option<&'static Shape> {
    SETS.iter().find(|s| s.name == name)
}

const fn set(name: &'static str, family: Family, key: &'static [Field], about: &'static str) -> Shape {
    Shape { name, family, key, data: None, interval: false, counter: false, about }
}

const fn publish(
    name: &'static str,
    family: Family,
    key: &'static [Field],
    data: Field,
    interval: bool,
    about: &'static str,
) -> Shape {
    Shape { name, family, key, data: Some(data), interval, counter: true, about }
}

const fn portmap(name: &'static str, family: Family, key: &'static [Field], about: &'static str) -> Shape {
    Shape { name, family, key, data: Some(Port), interval: false, counter: false, about }
}

use Field::{Addr4, Addr6, Ifname, Mark, Net, Port, Ports, Proto};

/// In the order in which a listing should be read.
pub const SETS: &[Shape] = &[
    set("layout", Family::Both, &[Mark], "which rrun wrote these rules: one with others writes its own"),
    set("bridges", Family::Both, &[Ifname], "the bridges of rrun's networks"),
    set("internal", Family::Both, &[Ifname], "those of internal networks: nothing comes in, nothing goes out"),
    set(
        "talkative",
        Family::Both,
        &[Ifname, Ifname],
        "in and out by the same bridge, whose containers may talk to each other",
    ),
    Shape {
        interval: true,
        ..set("masquerade4", Family::V4, &[Net], "subnets that leave under the address of the host")
    },
    Shape {
        interval: true,
        ..set("masquerade6", Family::V6, &[Net], "subnets that leave under the address of the host")
    },
    Shape {
        interval: true,
        data: Some(Addr4),
        ..set("outbound4", Family::V4, &[Net], "subnets that leave under an address of their own")
    },
    Shape {
        interval: true,
        data: Some(Addr6),
        ..set("outbound6", Family::V6, &[Net], "subnets that leave under an address of their own")
    },
    Shape { interval: true, ..set("home4", Family::V4, &[Net, Ifname], "which subnet lives on which bridge") },
    Shape { interval: true, ..set("home6", Family::V6, &[Net, Ifname], "which subnet lives on which bridge") },
    Shape { interval: true, ..set("no_direct4", Family::V4, &[Net], "subnets nobody outside may address") },
    Shape { interval: true, ..set("no_direct6", Family::V6, &[Net], "subnets nobody outside may address") },
    Shape {
        interval: true,
        ..set("trusted4", Family::V4, &[Net, Ifname], "except through these interfaces, and published ports only")
    },
    Shape {
        interval: true,
        ..set("trusted6", Family::V6, &[Net, Ifname], "except through these interfaces, and published ports only")
    },
    Shape { interval: true, ..set("unprotected4", Family::V4, &[Net], "subnets whose every port may be addressed") },
    Shape { interval: true, ..set("unprotected6", Family::V6, &[Net], "subnets whose every port may be addressed") },
    Shape { interval: true, ..set("routed4", Family::V4, &[Net], "subnets without NAT: ping, and published ports") },
    Shape { interval: true, ..set("routed6", Family::V6, &[Net], "subnets without NAT: ping, and published ports") },
    Shape {
        interval: true,
        counter: true,
        ..set(
            "open4",
            Family::V4,
            &[Net, Addr4, Proto, Ports],
            "published container ports that may be addressed directly",
        )
    },
    Shape {
        interval: true,
        counter: true,
        ..set(
            "open6",
            Family::V6,
            &[Net, Addr6, Proto, Ports],
            "published container ports that may be addressed directly",
        )
    },
    publish(
        "publish4_addr",
        Family::V4,
        &[Addr4, Proto, Port],
        Addr4,
        false,
        "-p 192.0.2.1:8080:80: to which container",
    ),
    portmap("publish4_addr_port", Family::V4, &[Addr4, Proto, Port], "… and which of its ports"),
    publish("publish4_addr_range", Family::V4, &[Addr4, Proto, Ports], Addr4, true, "-p 192.0.2.1:8000-8499:8000-8499"),
    publish("publish4_any", Family::V4, &[Proto, Port], Addr4, false, "-p 8080:80: to which container"),
    portmap("publish4_any_port", Family::V4, &[Proto, Port], "… and which of its ports"),
    publish("publish4_any_range", Family::V4, &[Proto, Ports], Addr4, true, "-p 8000-8499:8000-8499"),
    publish(
        "publish6_addr",
        Family::V6,
        &[Addr6, Proto, Port],
        Addr6,
        false,
        "-p [2001:db8::1]:8080:80: to which container",
    ),
    portmap("publish6_addr_port", Family::V6, &[Addr6, Proto, Port], "… and which of its ports"),
    publish(
        "publish6_addr_range",
        Family::V6,
        &[Addr6, Proto, Ports],
        Addr6,
        true,
        "-p [2001:db8::1]:8000-8499:8000-8499",
    ),
    publish("publish6_any", Family::V6, &[Proto, Port], Addr6, false, "-p 8080:80: to which container"),
    portmap("publish6_any_port", Family::V6, &[Proto, Port], "… and which of its ports"),
    publish("publish6_any_range", Family::V6, &[Proto, Ports], Addr6, true, "-p 8000-8499:8000-8499"),
    publish(
        "publish4_from",
        Family::V4,
        &[Net, Net, Proto, Ports],
        Addr4,
        true,
        "-p 8080:80,from=10.0.0.0/8: who may come, to which address of the host, to which container",
    ),
    Shape {
        interval: true,
        ..portmap("publish4_from_port", Family::V4, &[Net, Net, Proto, Ports], "… and which of its ports, if another")
    },
    publish(
        "publish4_iface",
        Family::V4,
        &[Ifname, Net, Proto, Ports],
        Addr4,
        true,
        "-p iface=eth1:8080:80: by which interface, who may come, to which container",
    ),
    Shape {
        interval: true,
        ..portmap(
            "publish4_iface_port",
            Family::V4,
            &[Ifname, Net, Proto, Ports],
            "… and which of its ports, if another",
        )
    },
    publish(
        "publish6_from",
        Family::V6,
        &[Net, Net, Proto, Ports],
        Addr6,
        true,
        "-p 8080:80,from=2001:db8::/32: who may come, to which address of the host, to which container",
    ),
    Shape {
        interval: true,
        ..portmap("publish6_from_port", Family::V6, &[Net, Net, Proto, Ports], "… and which of its ports, if another")
    },
    publish(
        "publish6_iface",
        Family::V6,
        &[Ifname, Net, Proto, Ports],
        Addr6,
        true,
        "-p iface=eth1:8080:80: by which interface, who may come, to which container",
    ),
    Shape {
        interval: true,
        ..portmap(
            "publish6_iface_port",
            Family::V6,
            &[Ifname, Net, Proto, Ports],
            "… and which of its ports, if another",
        )
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_and_say_what_they_are() {
        for (i, s) in SETS.iter().enumerate() {
            assert!(SETS[i + 1..].iter().all(|t| t.name != s.name));
            assert!(!s.about.is_empty());
        }
    }
}
