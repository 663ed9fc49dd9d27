//! The grammar of `--egress`.

use super::{Destination, Policy, Rule, Service};
use crate::model::Proto;
use ipnetwork::IpNetwork;
use plan::{Error, Result};
use std::net::IpAddr;

const HINT: &str =
    "for example --egress deny,allow=example.com:443,allow=10.0.0.0/8:5432/tcp, or --egress deny=169.254.169.254";

impl Policy {
    /// From the values of `--egress`, each with one or more items between commas. `None` without any.
    ///
    /// # Errors
    /// The item that means nothing.
    pub fn parse(values: &[String]) -> Result<Option<Policy>> {
        if values.is_empty() {
            return Ok(None);
        }
        let mut policy = Policy { closed: false, rules: Vec::new() };
        for item in values.iter().flat_map(|v| v.split(',')).map(str::trim) {
            match item.split_once('=') {
                None if item == "deny" => policy.closed = true,
                Some(("allow", to)) => policy.rules.push(rule(true, to)?),
                Some(("deny", to)) => policy.rules.push(rule(false, to)?),
                _ => {
                    return Err(Error::invalid(format!("invalid egress rule \"{}\"", item.escape_debug()))
                        .with_hint(format!("deny, allow=DESTINATION or deny=DESTINATION; {HINT}")));
                }
            }
        }
        if !policy.closed && policy.rules.iter().any(|r| r.allow) {
            return Err(Error::invalid("invalid egress policy: allow without deny allows what is allowed anyway")
                .with_hint("begin with deny: --egress deny,allow=…"));
        }
        Ok(Some(policy))
    }
}

fn rule(allow: bool, text: &str) -> Result<Rule> {
    let bad = |why: &str| {
        Error::invalid(format!("invalid egress destination \"{}\": {why}", text.escape_debug())).with_hint(HINT)
    };
    // `/tcp` is told apart from a prefix length by its letters.
    let (rest, proto) = match text.rsplit_once('/') {
        Some((rest, word)) if word.starts_with(|c: char| c.is_ascii_alphabetic()) => (rest, Some(word)),
        _ => (text, None),
    };
    let (host, ports) = if let Some(inner) = rest.strip_prefix('[') {
        let (host, after) = inner.split_once(']').ok_or_else(|| bad("a bracket is missing"))?;
        match after.strip_prefix(':') {
            Some(ports) => (host, Some(ports)),
            None if after.is_empty() => (host, None),
            None => return Err(bad("a bracket is followed by a colon and a port, or nothing")),
        }
    } else if rest.parse::<IpNetwork>().is_ok() {
        (rest, None)
    } else {
        match rest.rsplit_once(':') {
            Some((host, ports)) => (host, Some(ports)),
            None => (rest, None),
        }
    };
    let ports = ports
        .map(|p| range(p).ok_or_else(|| bad("a port is a number from 1 to 65535, or two with a dash")))
        .transpose()?;
    let service = match (proto, ports) {
        (None, None) => Service::Anything,
        (Some("icmp"), None) => Service::Icmp,
        (Some("icmp"), Some(_)) => return Err(bad("icmp has no ports")),
        (None, Some(ports)) => Service::Ports(None, ports),
        (Some(word), ports) => {
            let proto = match word {
                "tcp" => Proto::Tcp,
                "udp" => Proto::Udp,
                "sctp" => Proto::Sctp,
                _ => return Err(bad("the protocol is tcp, udp, sctp or icmp")),
            };
            Service::Ports(Some(proto), ports.unwrap_or((1, u16::MAX)))
        }
    };
    let to = destination(host).ok_or_else(|| bad("neither an address, a subnet nor a name"))?;
    if !allow && !to.is_address() {
        return Err(bad("names can only be allowed: what is behind a denied one is reached by its address")
            .with_hint("deny its addresses, or everything: --egress deny,allow=…"));
    }
    Ok(Rule { allow, to, service })
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let number = |t: &str| t.bytes().all(|b| b.is_ascii_digit()).then(|| t.parse::<u16>().ok()).flatten();
    let (from, to) = (number(from)?, number(to)?);
    (1 <= from && from <= to).then_some((from, to))
}

fn destination(host: &str) -> Option<Destination> {
    if host == "*" {
        return Some(Destination::Everywhere);
    }
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Some(Destination::Net(IpNetwork::from(ip)));
    }
    if let Ok(net) = host.parse::<IpNetwork>() {
        // 10.1.2.3/8 means its subnet.
        return IpNetwork::new(net.network(), net.prefix()).ok().map(Destination::Net);
    }
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let (name, below) = match name.strip_prefix("*.") {
        Some(parent) => (parent.to_string(), true),
        None => (name, false),
    };
    let label =
        |l: &str| (1..=63).contains(&l.len()) && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    // Names that end in a number are misspelt addresses (RFC 3696 §2).
    let numeric = name.rsplit('.').next().is_some_and(|l| l.bytes().all(|b| b.is_ascii_digit()));
    if name.len() > 250 || numeric || !name.split('.').all(label) {
        return None;
    }
    Some(if below { Destination::Below(name) } else { Destination::Name(name) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Policy> {
        Policy::parse(&[text.to_string()]).map(|p| p.unwrap())
    }

    fn shown(text: &str) -> String {
        let p = parse(text).unwrap();
        p.rules.iter().map(|r| format!("{}{r}", if r.allow { '+' } else { '-' })).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn every_form() {
        assert_eq!(Policy::parse(&[]).unwrap(), None);
        assert_eq!(parse("deny").unwrap(), Policy { closed: true, rules: vec![] });
        for (text, want) in [
            ("deny,allow=10.1.2.3/8", "+10.0.0.0/8"),
            ("deny,allow=10.0.0.5:443", "+10.0.0.5 (tcp and udp 443)"),
            ("deny,allow=10.0.0.0/8:80-90/tcp", "+10.0.0.0/8 (tcp 80-90)"),
            ("deny,allow=10.0.0.0/8/icmp", "+10.0.0.0/8 (icmp)"),
            ("deny,allow=10.0.0.1/udp", "+10.0.0.1 (udp 1-65535)"),
            ("deny,allow=fd00::/8,allow=[fd00::1]:53/udp,allow=[fd01::/16]", "+fd00::/8 +fd00::1 (udp 53) +fd01::/16"),
            ("deny,allow=Example.COM.:443", "+example.com (tcp and udp 443)"),
            ("deny,allow=*.example.com,allow=*:53", "+*.example.com +* (tcp and udp 53)"),
            ("deny=169.254.169.254,deny=*:25/tcp", "-169.254.169.254 -* (tcp 25)"),
        ] {
            assert_eq!(shown(text), want, "{text}");
        }
        let two = Policy::parse(&["deny".into(), "allow=db:5432/tcp".into()]).unwrap().unwrap();
        assert!(two.closed && two.names() && !two.asks_freely());
        assert!(parse("deny,allow=db,allow=10.0.0.0/8").unwrap().asks_freely());
    }

    #[test]
    fn what_means_nothing_says_why() {
        for (text, want) in [
            ("allow", "invalid egress rule \"allow\""),
            ("permit=x", "invalid egress rule \"permit=x\""),
            ("deny,", "invalid egress rule \"\""),
            ("allow=10.0.0.0/8", "allow without deny"),
            ("deny,allow=10.0.0", "neither an address"),
            ("deny,allow=", "neither an address"),
            ("deny,allow=a b", "neither an address"),
            ("deny,allow=10.0.0.1:0", "a port is a number"),
            ("deny,allow=x:99999", "a port is a number"),
            ("deny,allow=x:9-3", "a port is a number"),
            ("deny,allow=x:80/quic", "the protocol is"),
            ("deny,allow=x:80/icmp", "icmp has no ports"),
            ("deny,allow=[fd00::1", "a bracket is missing"),
            ("deny,allow=[fd00::1]53", "a bracket is followed"),
            ("deny=example.com", "names can only be allowed"),
        ] {
            let e = parse(text).unwrap_err();
            assert!(e.to_string().contains(want), "{text}: {e}");
            assert!(e.hint.is_some(), "{text}");
        }
    }

    #[test]
    fn names_and_what_is_below_them() {
        let below = Destination::Below("example.com".into());
        assert!(below.covers(b"www.example.com") && below.covers(b"a.b.example.com"));
        assert!(!below.covers(b"example.com") && !below.covers(b"evilexample.com") && !below.covers(b".example.com"));
        assert!(Destination::Name("db".into()).covers(b"db"));
    }
}
