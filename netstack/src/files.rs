//! The three files a container finds in /etc: `hosts`, `resolv.conf`, `hostname`.

use crate::model::{DnsConfig, Endpoint};
use plan::{Error, Result};
use std::fmt::Write;
use std::net::IpAddr;

/// Where the embedded DNS server listens inside a container.
pub const EMBEDDED_SERVER: &str = "127.0.0.11";

/// Used on the default bridge when the host has no server that a container could reach.
const FALLBACK_4: [&str; 2] = ["8.8.8.8", "8.8.4.4"];
const FALLBACK_6: [&str; 2] = ["2001:4860:4860::8888", "2001:4860:4860::8844"];

/// /etc/hostname.
pub fn hostname(name: &str) -> String {
    format!("{name}\n")
}

/// The host, under the names that programs for Docker Desktop and Podman call it by.
const HOST_NAMES: [&str; 2] = ["host.docker.internal", "host.containers.internal"];

/// /etc/hosts: loopback, `--add-host`, the host where a gateway is the host, then one line for each address of
/// the container's own.
/// `ipv6` is false where the container has IPv6 switched off altogether.
pub fn hosts(hostname: &str, domainname: &str, endpoints: &[Endpoint], dns: &DnsConfig, ipv6: bool) -> String {
    let mut lines = vec![("127.0.0.1".to_owned(), "localhost".to_owned())];
    if ipv6 {
        for (address, names) in [
            ("::1", "localhost ip6-localhost ip6-loopback"),
            ("fe00::", "ip6-localnet"),
            ("ff00::", "ip6-mcastprefix"),
            ("ff02::1", "ip6-allnodes"),
            ("ff02::2", "ip6-allrouters"),
        ] {
            lines.push((address.to_owned(), names.to_owned()));
        }
    }
    lines.extend(dns.extra_hosts.iter().map(|(name, ip)| (ip.to_string(), name.clone())));
    let named = |name: &&str| !dns.extra_hosts.iter().any(|(n, _)| n.split(' ').any(|n| n == *name));
    let host = HOST_NAMES.into_iter().filter(named).collect::<Vec<_>>().join(" ");
    if !host.is_empty() {
        let ours = || endpoints.iter().filter(|e| e.host_is_gateway);
        lines.extend(ours().find_map(|e| e.gateway4).map(|ip| (ip.to_string(), host.clone())));
        lines.extend(ours().find_map(|e| e.gateway6).map(|ip| (ip.to_string(), host.clone())));
    }
    // The full name first: what follows the address first is the canonical name (hosts(5)).
    let short = hostname.split('.').next().unwrap_or(hostname);
    let own = match domainname {
        "" if short == hostname => hostname.to_owned(),
        "" => format!("{hostname} {short}"),
        domain => format!("{hostname}.{domain} {hostname}"),
    };
    for e in endpoints {
        lines.extend(e.ipv4.map(|ip| (ip.to_string(), own.clone())));
        lines.extend(e.ipv6.map(|ip| (ip.to_string(), own.clone())));
    }
    lines.iter().map(|(address, names)| format!("{address}\t{names}\n")).collect()
}

/// Who answers the container's queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolver {
    /// The server of [`crate::dns`], on a user-defined network. `forwards_to_host`: it may ask the
    /// host's servers (not on internal networks).
    Embedded { forwards_to_host: bool },
    /// The servers themselves, on the default bridge. `ipv6`: the container could reach one by IPv6.
    Direct { ipv6: bool },
}

/// /etc/resolv.conf, from the host's file and the `--dns*` flags. `--dns-search .` means no search
/// domain at all.
pub fn resolv_conf(host: &str, dns: &DnsConfig, resolver: Resolver) -> String {
    let host = ResolvConf::parse(host);
    let given = ResolvConf {
        servers: dns.servers.iter().map(IpAddr::to_string).collect(),
        search: dns.search.clone(),
        options: dns.options.clone(),
    };
    let mut search = if given.search.is_empty() { host.search } else { given.search.clone() };
    search.retain(|domain| domain != ".");
    let mut options = if given.options.is_empty() { host.options.clone() } else { given.options.clone() };

    let mut notes = Vec::new();
    let servers = match resolver {
        Resolver::Embedded { forwards_to_host } => {
            // Docker's default: names without dots are asked as they stand, and the server answers
            // for container names before a search domain gets to see them (CVE-2025-8283).
            if !options.iter().any(|o| o.starts_with("ndots:")) {
                options.push("ndots:0".to_owned());
                notes.push("# Option ndots from: internal".to_owned());
            }
            let external: Vec<String> = match given.servers.is_empty() {
                false => given.servers.clone(),
                true if forwards_to_host => host.servers.iter().map(|s| format!("host({s})")).collect(),
                true => Vec::new(),
            };
            notes.push(match external.is_empty() {
                true => "# NO EXTERNAL NAMESERVERS DEFINED".to_owned(),
                false => format!("# ExtServers: [{}]", external.join(" ")),
            });
            vec![EMBEDDED_SERVER.to_owned()]
        }
        Resolver::Direct { ipv6 } if given.servers.is_empty() => {
            let mut servers = host.servers;
            servers.retain(|s| reachable_from_outside(s, ipv6));
            if servers.is_empty() {
                servers.extend(FALLBACK_4.iter().chain(FALLBACK_6.iter().filter(|_| ipv6)).map(|s| s.to_string()));
                notes.push("# Used default nameservers.".to_owned());
            }
            servers
        }
        Resolver::Direct { .. } => given.servers.clone(),
    };
    let overrides: Vec<&str> =
        [("nameservers", &given.servers), ("search", &given.search), ("options", &given.options)]
            .into_iter()
            .filter(|(_, values)| !values.is_empty())
            .map(|(name, _)| name)
            .collect();
    notes.push(format!("# Overrides: [{}]", overrides.join(" ")));

    let mut text = "# Generated by rrun.\n\n".to_owned();
    for server in servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    if !search.is_empty() {
        let _ = writeln!(text, "search {}", search.join(" "));
    }
    if !options.is_empty() {
        let _ = writeln!(text, "options {}", options.join(" "));
    }
    text.push('\n');
    for note in notes {
        let _ = writeln!(text, "{note}");
    }
    text
}

/// What matters in a resolv.conf. The last `search` or `domain` line counts, as for the C library.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// As written; IPv6 ones may carry a zone (`fe80::1%eth0`).
    pub servers: Vec<String>,
    pub search: Vec<String>,
    pub options: Vec<String>,
}

impl ResolvConf {
    pub fn parse(text: &str) -> ResolvConf {
        let mut conf = ResolvConf::default();
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_whitespace();
            let keyword = words.next();
            let words = words.map(str::to_owned);
            match keyword {
                Some("nameserver") => conf.servers.extend(words.take(1)),
                Some("search") => conf.search = words.collect(),
                Some("domain") => conf.search = words.take(1).collect(),
                Some("options") => conf.options.extend(words),
                _ => {}
            }
        }
        conf
    }
}

fn reachable_from_outside(server: &str, ipv6: bool) -> bool {
    match server.split('%').next().unwrap_or_default().parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => !ip.is_loopback(),
        // A zone names an interface of the host, which the container does not have.
        Ok(IpAddr::V6(ip)) => ipv6 && !ip.is_loopback() && !server.contains('%'),
        Err(_) => false,
    }
}

/// One `--add-host`: `name:IP`, `name=IP`, IPv6 bare or in brackets, or `host-gateway`, which
/// becomes every address in `gateway`.
pub fn parse_add_host(spec: &str, gateway: &[IpAddr]) -> Result<Vec<(String, IpAddr)>> {
    let bad = || {
        Error::invalid(format!("bad format for add-host: \"{spec}\""))
            .with_hint("write NAME:ADDRESS or NAME=ADDRESS, for example db:10.0.0.5 or host:host-gateway")
    };
    let (name, address) = spec.split_once('=').or_else(|| spec.split_once(':')).ok_or_else(bad)?;
    if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c == '#' || c.is_control()) {
        return Err(bad());
    }
    if address == "host-gateway" {
        return match gateway.is_empty() {
            true => Err(Error::invalid("unable to derive the IP value for host-gateway")
                .with_hint("the container's networks have no gateway: name an address of the host instead")),
            false => Ok(gateway.iter().map(|ip| (name.to_owned(), *ip)).collect()),
        };
    }
    let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
    match bare.parse() {
        Ok(ip) => Ok(vec![(name.to_owned(), ip)]),
        Err(_) => Err(Error::invalid(format!("invalid IP address in add-host: \"{address}\""))
            .with_hint("names are not looked up: give an IPv4 or IPv6 address, or host-gateway")),
    }
}

/// One `--dns`.
pub fn parse_dns(spec: &str) -> Result<IpAddr> {
    spec.trim().parse().map_err(|_| {
        Error::invalid(format!("IP address is not correctly formatted: {spec}"))
            .with_hint("--dns takes the address of a server, for example 192.0.2.53")
    })
}

/// One `--dns-search`; `.` alone stands for "no search domain".
pub fn parse_dns_search(spec: &str) -> Result<String> {
    let domain = spec.trim();
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    let valid = domain.len() <= 253 && domain.strip_suffix('.').unwrap_or(domain).split('.').all(label);
    match valid || domain == "." {
        true => Ok(domain.to_owned()),
        false => Err(Error::invalid(format!("{spec} is not a valid domain"))
            .with_hint("a search domain is letters, digits, '-' and '_' between dots; '.' means none")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(v4: &str, v6: Option<&str>) -> Endpoint {
        Endpoint {
            network: "net".into(),
            container_name: "web".into(),
            ifname: "eth0".into(),
            ipv4: Some(v4.parse().expect("an address")),
            prefix4: 16,
            ipv6: v6.map(|ip| ip.parse().expect("an address")),
            prefix6: 64,
            ..Endpoint::default()
        }
    }

    #[test]
    fn hosts_is_dockers_tab_for_tab() {
        let dns = DnsConfig { extra_hosts: parse_add_host("db:10.0.0.5", &[]).expect("valid"), ..DnsConfig::default() };
        let endpoints = [endpoint("172.18.0.2", Some("fd00::2")), endpoint("172.19.0.2", None)];
        assert_eq!(
            hosts("web", "example.org", &endpoints, &dns, true),
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\n\
             ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n10.0.0.5\tdb\n172.18.0.2\tweb.example.org web\n\
             fd00::2\tweb.example.org web\n172.19.0.2\tweb.example.org web\n"
        );
        let plain = hosts("a1b2", "", &endpoints[1..], &DnsConfig::default(), false);
        assert_eq!(plain, "127.0.0.1\tlocalhost\n172.19.0.2\ta1b2\n");
        let dotted = hosts("web.example.org", "", &endpoints[1..], &DnsConfig::default(), false);
        assert_eq!(dotted, "127.0.0.1\tlocalhost\n172.19.0.2\tweb.example.org web\n");
    }

    const HOST: &str = "# a comment\nnameserver 127.0.0.53 # stub\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\n\
        nameserver 2001:db8::1\nsearch old.example\nsearch corp.example lab.example\noptions edns0 trust-ad\n";

    #[test]
    fn the_default_bridge_gets_servers_it_can_reach() {
        let none = DnsConfig::default();
        assert_eq!(
            resolv_conf(HOST, &none, Resolver::Direct { ipv6: false }),
            "# Generated by rrun.\n\nnameserver 192.0.2.1\nsearch corp.example lab.example\noptions edns0 trust-ad\n\n# Overrides: []\n"
        );
        let six = resolv_conf(HOST, &none, Resolver::Direct { ipv6: true });
        assert!(six.contains("nameserver 192.0.2.1\nnameserver 2001:db8::1\nsearch"), "{six}");
        assert_eq!(
            resolv_conf("nameserver 127.0.0.53\n", &none, Resolver::Direct { ipv6: false }),
            "# Generated by rrun.\n\nnameserver 8.8.8.8\nnameserver 8.8.4.4\n\n# Used default nameservers.\n# Overrides: []\n"
        );
    }

    #[test]
    fn a_user_network_gets_the_embedded_server() {
        let none = DnsConfig::default();
        let embedded = Resolver::Embedded { forwards_to_host: true };
        assert_eq!(
            resolv_conf(HOST, &none, embedded),
            "# Generated by rrun.\n\nnameserver 127.0.0.11\nsearch corp.example lab.example\noptions edns0 trust-ad ndots:0\n\n\
             # Option ndots from: internal\n# ExtServers: [host(127.0.0.53) host(192.0.2.1) host(fe80::1%eth0) host(2001:db8::1)]\n# Overrides: []\n"
        );
        let internal = resolv_conf(HOST, &none, Resolver::Embedded { forwards_to_host: false });
        assert!(internal.contains("# NO EXTERNAL NAMESERVERS DEFINED\n"), "{internal}");
        let flags = DnsConfig {
            servers: vec![parse_dns("192.0.2.9").expect("valid")],
            search: vec![".".into()],
            options: vec!["ndots:2".into()],
            ..none
        };
        assert_eq!(
            resolv_conf(HOST, &flags, embedded),
            "# Generated by rrun.\n\nnameserver 127.0.0.11\noptions ndots:2\n\n# ExtServers: [192.0.2.9]\n# Overrides: [nameservers search options]\n"
        );
        let direct = resolv_conf(HOST, &flags, Resolver::Direct { ipv6: false });
        assert!(direct.starts_with("# Generated by rrun.\n\nnameserver 192.0.2.9\noptions ndots:2\n"), "{direct}");
    }

    #[test]
    fn flags_are_checked_in_dockers_words() {
        let gateway = ["172.17.0.1".parse().expect("an address"), "fd00::1".parse().expect("an address")];
        let show = |spec: &str, gateway: &[IpAddr]| match parse_add_host(spec, gateway) {
            Ok(lines) => lines.iter().map(|(n, ip)| format!("{n}>{ip}")).collect::<Vec<_>>().join(" "),
            Err(e) => e.to_string(),
        };
        for (spec, want) in [
            ("db:10.0.0.5", "db>10.0.0.5"),
            ("db=10.0.0.5", "db>10.0.0.5"),
            ("db:::1", "db>::1"),
            ("db:[::1]", "db>::1"),
            ("db=[2001:db8::1]", "db>2001:db8::1"),
            ("host:host-gateway", "host>172.17.0.1 host>fd00::1"),
            ("db", "bad format for add-host: \"db\""),
            (":10.0.0.5", "bad format for add-host: \":10.0.0.5\""),
            ("a b:10.0.0.5", "bad format for add-host: \"a b:10.0.0.5\""),
            ("db:", "invalid IP address in add-host: \"\""),
            ("db:other", "invalid IP address in add-host: \"other\""),
        ] {
            assert_eq!(show(spec, &gateway), want);
        }
        assert_eq!(show("host:host-gateway", &[]), "unable to derive the IP value for host-gateway");
        assert_eq!(
            parse_dns("dns.example").expect_err("a name").to_string(),
            "IP address is not correctly formatted: dns.example"
        );
        assert_eq!(parse_dns_search(".").expect("none"), ".");
        assert_eq!(parse_dns_search("corp.example").expect("valid"), "corp.example");
        for bad in ["", "a b", "-x", "x..y", "$x"] {
            assert_eq!(parse_dns_search(bad).expect_err(bad).to_string(), format!("{bad} is not a valid domain"));
        }
    }
}
