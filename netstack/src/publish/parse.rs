//! The grammar of `-p`: `[IP:|iface=NAME:][hostPort[-hi]:]containerPort[-hi][/proto][,from=CIDR]…`,
//! and the long form `published=…,target=…,protocol=…,mode=…,from=…,iface=…`. Pure; the texts of the
//! errors are Docker's.

use crate::model::{PortSpec, Proto};
use ipnetwork::IpNetwork;
use plan::{Error, Result};
use std::net::IpAddr;

const FORMS: &str =
    "write [IP:][hostPort:]containerPort[/tcp|udp|sctp], for example 127.0.0.1:8080:80 or 9000-9005:9000-9005/udp";

/// Parses one `-p` / `--publish` value.
///
/// Host port 0 and an absent host port both mean "any free port". A host range before a single
/// container port means "the first free port of the range".
pub fn parse(spec: &str) -> Result<Vec<PortSpec>> {
    let Fields { short, iface, from } = fields(spec)?;
    let (ip, host, container) = split(&short);
    let (container, proto) = split_proto(container);

    let host_ip = if ip.is_empty() { None } else { Some(address(ip)?) };
    if container.is_empty() {
        return Err(Error::invalid(format!("no port specified: {spec}<empty>")).with_hint(FORMS));
    }
    let Some(container_range) = range(container).filter(|r| r.0 != 0) else {
        return Err(bad_port("containerPort", container));
    };
    let host_range = match range(host) {
        _ if host.is_empty() => None,
        Some((0, 0)) => None,
        Some(r) if r.0 != 0 => Some(r),
        _ => return Err(bad_port("hostPort", host)),
    };
    if let Some(h) = host_range
        && h.1 - h.0 != container_range.1 - container_range.0
        && container_range.0 != container_range.1
    {
        return Err(Error::invalid(format!(
            "invalid ranges specified for container and host Ports: {container} and {host}"
        ))
        .with_hint("give both ranges the same length, or one container port and a host range to choose from"));
    }
    if let (Some(ip), Some(iface)) = (host_ip, &iface) {
        return Err(Error::invalid(format!("conflicting options: host address {ip} and interface {iface}"))
            .with_hint("publish on an address of the host, or on an interface, whatever its addresses are"));
    }
    if let Some(ip) = host_ip
        && !from.is_empty()
        && from.iter().all(|net| net.is_ipv4() != ip.is_ipv4())
    {
        return Err(Error::invalid(format!("invalid from address: {}: nobody could reach {ip} from there", from[0]))
            .with_hint("name sources of the same family as the host address"));
    }
    Ok(vec![PortSpec { host_ip, host: host_range, container: container_range, proto: protocol(proto)?, iface, from }])
}

/// A value of `-p`, taken apart at its commas.
struct Fields {
    /// `[IP:][hostPort:]containerPort[/proto]`.
    short: String,
    iface: Option<String>,
    from: Vec<IpNetwork>,
}

fn fields(spec: &str) -> Result<Fields> {
    let mut fields = Fields { short: spec.to_owned(), iface: None, from: Vec::new() };
    if !spec.contains('=') {
        return Ok(fields);
    }
    let (first, rest) = spec.split_once(',').map_or((spec, None), |(first, rest)| (first, Some(rest)));
    let (short, rest) = match first.strip_prefix("iface=").and_then(|f| f.split_once(':')) {
        Some((iface, ports)) => {
            fields.iface = Some(interface(iface)?);
            (ports.to_owned(), rest)
        }
        None if !first.contains('=') => (first.to_owned(), rest),
        None => (String::new(), Some(spec)),
    };
    let long = short.is_empty() && fields.iface.is_none();
    let (mut published, mut target, mut protocol) = ("", "", "tcp");
    for field in rest.into_iter().flat_map(|r| r.split(',')) {
        let (key, value) = match field.split_once('=') {
            Some((k, v)) if !k.is_empty() => (k, v),
            _ => {
                return Err(Error::invalid(format!(
                    "invalid publish opts format (should be name=value but got '{field}')"
                ))
                .with_hint("write for example published=8080,target=80,protocol=tcp or 8080:80,from=10.0.0.0/8"));
            }
        };
        match key.to_ascii_lowercase().as_str() {
            "published" if long => published = value,
            "target" if long => target = value,
            "protocol" if long => protocol = value,
            // How a cluster would publish: on one host both mean the same.
            "mode" if long && matches!(value, "host" | "ingress") => {}
            "mode" if long => {
                return Err(Error::invalid(format!(
                    "invalid publish mode value ({value}): must be either 'ingress' or 'host'"
                ))
                .with_hint("leave mode out: on one host both mean the same"));
            }
            "from" => fields.from.push(source(value)?),
            "iface" if fields.iface.is_none() => fields.iface = Some(interface(value)?),
            _ => {
                return Err(Error::invalid(format!("invalid field key {key}")).with_hint(
                    "the fields of --publish are published, target, protocol, mode, from and iface; of its short form from and iface",
                ));
            }
        }
    }
    fields.short = if long { format!("{published}:{target}/{protocol}") } else { short };
    fields.from = without_nested(fields.from);
    Ok(fields)
}

/// A network, or one address, that may connect.
fn source(text: &str) -> Result<IpNetwork> {
    let net = text.parse::<IpNetwork>().ok().and_then(|net| IpNetwork::new(net.network(), net.prefix()).ok());
    net.ok_or_else(|| {
        Error::invalid(format!("invalid from address: {}", text.escape_debug()))
            .with_hint("name a network or an address (names are not looked up): from=10.0.0.0/8, from=2001:db8::/32")
    })
}

/// Overlapping intervals have no place in one set, and mean nothing more than the wider one.
fn without_nested(mut nets: Vec<IpNetwork>) -> Vec<IpNetwork> {
    nets.sort_by_key(|net| net.prefix());
    let mut kept: Vec<IpNetwork> = Vec::new();
    for net in nets {
        if !kept.iter().any(|wide| wide.contains(net.ip())) {
            kept.push(net);
        }
    }
    kept.sort();
    kept
}

fn interface(name: &str) -> Result<String> {
    let valid = !name.is_empty()
        && name.len() < libc::IFNAMSIZ
        && name.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b':' | b'"' | b'%' | b','));
    if valid {
        return Ok(name.to_owned());
    }
    Err(Error::invalid(format!("invalid interface name {name:?}"))
        .with_hint("`ip link` lists the host's interfaces; write iface=eth1:8080:80"))
}

/// Parses one `--expose` value (or an image's `ExposedPorts` key): `80`, `80-90/udp`.
pub fn parse_expose(spec: &str) -> Result<((u16, u16), Proto)> {
    let (port, proto) = split_proto(spec);
    match range(port).filter(|r| r.0 != 0) {
        Some(r) => Ok((r, protocol(proto)?)),
        None => Err(Error::invalid(format!("invalid range format for --expose: {spec}"))
            .with_hint("write a port or a range, with or without a protocol: 80, 53/udp, 8000-8010")),
    }
}

/// The container port is what follows the last colon, the host port what precedes it, and all the
/// rest is the address, so that an IPv6 address needs no brackets.
fn split(spec: &str) -> (&str, &str, &str) {
    let Some((rest, container)) = spec.rsplit_once(':') else { return ("", "", spec) };
    match rest.rsplit_once(':') {
        Some((ip, host)) => (ip, host, container),
        None => ("", rest, container),
    }
}

fn split_proto(port: &str) -> (&str, &str) {
    match port.split_once('/') {
        Some((port, "")) => (port, "tcp"),
        Some((port, proto)) => (port, proto),
        None => (port, "tcp"),
    }
}

fn protocol(proto: &str) -> Result<Proto> {
    match proto.to_ascii_lowercase().as_str() {
        "tcp" => Ok(Proto::Tcp),
        "udp" => Ok(Proto::Udp),
        "sctp" => Ok(Proto::Sctp),
        _ => Err(Error::invalid(format!("invalid proto: {proto}")).with_hint("the protocol is tcp, udp or sctp")),
    }
}

fn address(ip: &str) -> Result<IpAddr> {
    let bare = ip.strip_prefix('[').and_then(|i| i.strip_suffix(']')).unwrap_or(ip);
    match bare.parse::<IpAddr>() {
        Ok(ip) => Ok(ip.to_canonical()),
        Err(_) => Err(Error::invalid(format!("invalid IP address: {ip}"))
            .with_hint("publish on an address of the host (names are not looked up), IPv6 in brackets: [::1]:8080:80")),
    }
}

/// `80` or `80-90`, rising; digits only (`+80` is not a port).
fn range(text: &str) -> Option<(u16, u16)> {
    let port = |t: &str| t.bytes().all(|b| b.is_ascii_digit()).then(|| t.parse::<u16>().ok()).flatten();
    let (lo, hi) = match text.split_once('-') {
        Some((lo, hi)) => (port(lo)?, port(hi)?),
        None => (port(text)?, port(text)?),
    };
    (lo <= hi).then_some((lo, hi))
}

fn bad_port(which: &str, text: &str) -> Error {
    Error::invalid(format!("invalid {which}: {text}"))
        .with_hint("a port is a number from 1 to 65535, a range is low-high")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `address|host|container|proto`, or the error and its hint.
    fn show(spec: &str) -> String {
        match parse(spec) {
            Ok(specs) => specs
                .iter()
                .map(|s| {
                    let r = |(lo, hi): (u16, u16)| if lo == hi { lo.to_string() } else { format!("{lo}-{hi}") };
                    let ip = s.host_ip.map_or("*".to_owned(), |ip| ip.to_string());
                    let iface = s.iface.as_ref().map_or(String::new(), |i| format!("|{i}"));
                    let from: String = s.from.iter().map(|net| format!("|{net}")).collect();
                    let host = s.host.map_or("any".to_owned(), r);
                    format!("{ip}|{host}|{}|{:?}{iface}{from}", r(s.container), s.proto)
                })
                .collect::<Vec<_>>()
                .join(" "),
            Err(e) => {
                assert!(e.hint.as_ref().is_some_and(|h| !h.contains('\n')), "{spec}: one line of remedy");
                e.to_string()
            }
        }
    }

    #[test]
    fn every_form() {
        for (spec, want) in [
            ("80", "*|any|80|Tcp"),
            ("8080:80", "*|8080|80|Tcp"),
            ("8080:80/", "*|8080|80|Tcp"),
            (":80", "*|any|80|Tcp"),
            ("::80", "*|any|80|Tcp"),
            ("0:80", "*|any|80|Tcp"),
            ("8080:80/udp", "*|8080|80|Udp"),
            ("132:132/SCTP", "*|132|132|Sctp"),
            ("127.0.0.1:8080:80", "127.0.0.1|8080|80|Tcp"),
            ("127.0.0.1::80", "127.0.0.1|any|80|Tcp"),
            ("127.0.0.1::53/udp", "127.0.0.1|any|53|Udp"),
            ("0.0.0.0:8080:80", "0.0.0.0|8080|80|Tcp"),
            ("[::1]:8080:80", "::1|8080|80|Tcp"),
            ("[::]:8080:80", "::|8080|80|Tcp"),
            ("[2001:db8::5]::80", "2001:db8::5|any|80|Tcp"),
            ("2001:db8::5:8080:80", "2001:db8::5|8080|80|Tcp"),
            (":::8080:80", "::|8080|80|Tcp"),
            ("[::ffff:192.0.2.7]:8080:80", "192.0.2.7|8080|80|Tcp"),
            ("80-85", "*|any|80-85|Tcp"),
            ("9090-9092:80", "*|9090-9092|80|Tcp"),
            ("9800-9803:80-83", "*|9800-9803|80-83|Tcp"),
            ("9800-9800:80-80", "*|9800|80|Tcp"),
            ("127.0.0.1:8080-8090:8080-8090/udp", "127.0.0.1|8080-8090|8080-8090|Udp"),
            ("1-65535:1-65535", "*|1-65535|1-65535|Tcp"),
            ("published=8080,target=80", "*|8080|80|Tcp"),
            ("target=80", "*|any|80|Tcp"),
            ("target=53,published=5353,protocol=udp,mode=host", "*|5353|53|Udp"),
            ("published=127.0.0.1:8080,target=80,mode=ingress", "127.0.0.1|8080|80|Tcp"),
            ("published=8000-8002,target=80-82", "*|8000-8002|80-82|Tcp"),
            ("8080:80,from=10.0.0.0/8", "*|8080|80|Tcp|10.0.0.0/8"),
            ("[::]:53:53/udp,from=2001:db8::1,from=fd00::/8", "::|53|53|Udp|2001:db8::1/128|fd00::/8"),
            ("8080:80,from=10.1.2.3/16,from=10.0.0.0/8,from=10.0.0.0/8,from=::1", "*|8080|80|Tcp|10.0.0.0/8|::1/128"),
            ("published=8080,target=80,protocol=tcp,from=10.0.0.0/8", "*|8080|80|Tcp|10.0.0.0/8"),
            ("iface=eth1:8080:80", "*|8080|80|Tcp|eth1"),
            ("iface=eth0.7:80/udp,from=192.0.2.0/24", "*|any|80|Udp|eth0.7|192.0.2.0/24"),
            ("8080:80,iface=eth1", "*|8080|80|Tcp|eth1"),
            ("iface=eth1,published=8080,target=80", "*|8080|80|Tcp|eth1"),
        ] {
            assert_eq!(show(spec), want, "{spec}");
        }
    }

    #[test]
    fn errors_are_dockers() {
        for (spec, want) in [
            ("", "no port specified: <empty>"),
            ("8080:", "no port specified: 8080:<empty>"),
            ("127.0.0.1:8080:", "no port specified: 127.0.0.1:8080:<empty>"),
            ("/udp", "no port specified: /udp<empty>"),
            ("80/icmp", "invalid proto: icmp"),
            ("80/tcp/udp", "invalid proto: tcp/udp"),
            ("localhost:8080:80", "invalid IP address: localhost"),
            ("256.0.0.1:8080:80", "invalid IP address: 256.0.0.1"),
            ("[::1:8080:80", "invalid IP address: [::1"),
            ("[fe80::1%eth0]:8080:80", "invalid IP address: [fe80::1%eth0]"),
            ("web", "invalid containerPort: web"),
            ("0", "invalid containerPort: 0"),
            ("8080:65536", "invalid containerPort: 65536"),
            ("8080:+80", "invalid containerPort: +80"),
            ("90-80", "invalid containerPort: 90-80"),
            ("80-", "invalid containerPort: 80-"),
            (" 80", "invalid containerPort:  80"),
            ("http:80", "invalid hostPort: http"),
            ("99999:80", "invalid hostPort: 99999"),
            ("-1:80", "invalid hostPort: -1"),
            ("0-5:80", "invalid hostPort: 0-5"),
            ("9001-9000:80", "invalid hostPort: 9001-9000"),
            ("9000-9001:80-85", "invalid ranges specified for container and host Ports: 80-85 and 9000-9001"),
            ("9000:80-85", "invalid ranges specified for container and host Ports: 80-85 and 9000"),
            ("published=8080,target", "invalid publish opts format (should be name=value but got 'target')"),
            ("=8080", "invalid publish opts format (should be name=value but got '=8080')"),
            ("published=8080", "no port specified: published=8080<empty>"),
            ("published=8080,target=80,protocol=icmp", "invalid proto: icmp"),
            (
                "published=8080,target=80,mode=swarm",
                "invalid publish mode value (swarm): must be either 'ingress' or 'host'",
            ),
            ("published=8080,target=80,colour=red", "invalid field key colour"),
            ("8080:80,published=1", "invalid field key published"),
            ("8080:80,from=10.0.0.0/33", "invalid from address: 10.0.0.0/33"),
            ("8080:80,from=localhost", "invalid from address: localhost"),
            ("8080:80,from", "invalid containerPort: 80,from"),
            (
                "8080:80,from=10.0.0.0/8,10.0.0.0/8",
                "invalid publish opts format (should be name=value but got '10.0.0.0/8')",
            ),
            ("127.0.0.1:8080:80,from=::1", "invalid from address: ::1/128: nobody could reach 127.0.0.1 from there"),
            ("iface=eth1:127.0.0.1:8080:80", "conflicting options: host address 127.0.0.1 and interface eth1"),
            ("iface=a_name_too_long_for_linux:80", "invalid interface name \"a_name_too_long_for_linux\""),
        ] {
            assert_eq!(show(spec), want, "{spec:?}");
        }
    }

    #[test]
    fn expose() {
        assert_eq!(parse_expose("80").expect("a port"), ((80, 80), Proto::Tcp));
        assert_eq!(parse_expose("80-90/udp").expect("a range"), ((80, 90), Proto::Udp));
        for bad in ["", "0", "90-80", "8080:80", "web"] {
            let e = parse_expose(bad).expect_err(bad);
            assert_eq!(e.to_string(), format!("invalid range format for --expose: {bad}"));
        }
        assert_eq!(parse_expose("80/icmp").expect_err("proto").to_string(), "invalid proto: icmp");
    }
}
