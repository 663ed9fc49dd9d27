//! `--network` and the flags beside it: which networks, as whom, with which ports and names.

use super::endpoint::{attachment, ipv4, ipv6, link, link_local, mac};
use crate::args::NetworkFlags;
use crate::container::hosts_file;
use crate::context::Context;
use netstack::model::{DnsConfig, EndpointConfig, PortSpec};
use netstack::static_route::StaticRoute;
use netstack::{files, publish};
use plan::{Error, Result};
use std::path::PathBuf;

/// `--dns none`.
const NO_DNS: &str = "none";

/// The decided part of the record that concerns networks.
#[derive(Debug, Default, PartialEq)]
pub struct Networking {
    pub mode: String,
    pub networks: Vec<EndpointConfig>,
    pub ports: Vec<PortSpec>,
    /// `80/tcp`, published ones included.
    pub exposed: Vec<String>,
    pub dns: DnsConfig,
    pub warnings: Vec<String>,
}

/// # Errors
/// Docker's texts for flags that contradict each other or mean nothing.
pub fn decide(ctx: &Context, flags: &NetworkFlags, hostname: bool, image_exposed: &[String]) -> Result<Networking> {
    let mut attachments = flags.network.iter().map(|spec| attachment(spec)).collect::<Result<Vec<EndpointConfig>>>()?;
    if attachments.is_empty() {
        attachments.push(EndpointConfig { network: "bridge".into(), ..EndpointConfig::default() });
    }
    for a in &mut attachments {
        if a.network == "default" {
            a.network = "bridge".into();
        }
    }
    apply_to_first(&mut attachments[0], flags)?;
    check_set(&attachments)?;

    let mut ports = Vec::new();
    for spec in &flags.publish {
        ports.extend(publish::parse(spec)?);
    }
    let exposed = exposed(&ports, &flags.expose, image_exposed)?;
    let dns = dns(ctx, flags)?;
    let mode = attachments[0].network.clone();
    let mut decided = Networking { mode, networks: attachments, ports, exposed, dns, warnings: Vec::new() };
    settle_mode(&mut decided, flags, hostname)?;
    Ok(decided)
}

/// Whether this is a network that users create, as opposed to a mode.
fn is_user_defined(network: &str) -> bool {
    !matches!(network, "bridge" | "host" | "none") && !is_shared(network)
}

/// Somebody else's namespace: another container's, or one that was made by hand.
fn is_shared(network: &str) -> bool {
    network.starts_with("container:") || network.starts_with("ns:")
}

/// `--ip` and its kin speak of the first network.
fn apply_to_first(first: &mut EndpointConfig, flags: &NetworkFlags) -> Result<()> {
    let conflict = |flag: &str, what: &str| {
        Error::invalid(format!("conflicting options: cannot specify both {flag} and per-network {what}"))
            .with_hint("say it once: in --network, or beside it")
    };
    if let Some(ip) = &flags.ip {
        if first.ip.is_some() {
            return Err(conflict("--ip", "IPv4 address"));
        }
        first.ip = Some(ipv4(ip)?);
    }
    if let Some(ip6) = &flags.ip6 {
        if first.ip6.is_some() {
            return Err(conflict("--ip6", "IPv6 address"));
        }
        first.ip6 = Some(ipv6(ip6)?);
    }
    if let Some(address) = &flags.mac_address {
        if first.mac.is_some() {
            return Err(conflict("--mac-address", "MAC address"));
        }
        first.mac = Some(mac(address)?);
    }
    if !flags.network_alias.is_empty() {
        if !first.aliases.is_empty() {
            return Err(conflict("--network-alias", "alias"));
        }
        first.aliases.clone_from(&flags.network_alias);
    }
    if !flags.link_local_ip.is_empty() {
        if !first.link_local.is_empty() {
            return Err(conflict("--link-local-ip", "link-local IP addresses"));
        }
        first.link_local = flags.link_local_ip.iter().map(|ip| link_local(ip)).collect::<Result<_>>()?;
    }
    first.links = flags.link.iter().map(|l| link(l)).collect::<Result<_>>()?;
    // The planner finds the interface by the gateway.
    for route in &flags.route {
        first.routes.push(StaticRoute::parse(route)?);
    }
    Ok(())
}

fn check_set(attachments: &[EndpointConfig]) -> Result<()> {
    for (i, a) in attachments.iter().enumerate() {
        if attachments[..i].iter().any(|b| b.network == a.network) {
            return Err(Error::invalid(format!("network \"{}\" is specified multiple times", a.network))
                .with_hint("name each network once"));
        }
        if is_user_defined(&a.network) {
            continue;
        }
        if a.ip.is_some() || a.ip6.is_some() {
            return Err(Error::invalid("user-specified IP address is supported on user-defined networks only")
                .with_hint("rrun network create --subnet 10.9.0.0/24 NAME, then --network NAME --ip 10.9.0.5"));
        }
        if !a.aliases.is_empty() {
            return Err(Error::invalid("network-scoped aliases are only supported for user-defined networks")
                .with_hint("rrun network create NAME, then --network NAME"));
        }
    }
    let user_defined = attachments.iter().filter(|a| is_user_defined(&a.network)).count();
    if attachments.len() > 1 && user_defined < attachments.len() {
        return Err(Error::invalid(
            "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
        )
        .with_hint("name user-defined networks only, or one of bridge, host, none"));
    }
    Ok(())
}

/// What the first network means for the rest: a shared namespace has its owner's names and ports.
fn settle_mode(decided: &mut Networking, flags: &NetworkFlags, hostname: bool) -> Result<()> {
    let first = &decided.networks[0];
    if let Some(target) = decided.mode.strip_prefix("container:") {
        if target.is_empty() {
            return Err(Error::invalid("invalid container format container:<name|id>")
                .with_hint("write --network container:NAME"));
        }
        let clashes = [
            (hostname, "hostname and the network mode"),
            (first.mac.is_some(), "mac-address and the network mode"),
            (
                !flags.dns.is_empty() || !flags.dns_search.is_empty() || !flags.dns_option.is_empty(),
                "dns and the network mode",
            ),
            (!flags.add_host.is_empty(), "custom host-to-IP mapping and the network mode"),
            (!flags.publish.is_empty() || flags.publish_all, "port publishing and the container type network mode"),
            (!flags.expose.is_empty(), "port exposing and the container type network mode"),
        ];
        if let Some((_, what)) = clashes.iter().find(|(clash, _)| *clash) {
            return Err(Error::invalid(format!("conflicting options: {what}"))
                .with_hint("set it on the container whose network is shared"));
        }
    }
    if !first.links.is_empty() && (decided.mode == "host" || decided.mode.starts_with("container:")) {
        let kind = if decided.mode == "host" { "host type networking" } else { "container type network" };
        return Err(Error::invalid(format!(
            "conflicting options: {kind} can't be used with links. This would result in undefined behavior"
        ))
        .with_hint("leave --link out, or join a network of one's own"));
    }
    if let Some(path) = decided.mode.strip_prefix("ns:") {
        check_namespace(path)?;
    }
    let portless = matches!(decided.mode.as_str(), "host" | "none") || decided.mode.starts_with("ns:");
    if portless && !decided.ports.is_empty() {
        decided.warnings.push(format!("Published ports are discarded when using {} network mode", decided.mode));
        decided.ports.clear();
    }
    if matches!(decided.mode.as_str(), "host" | "none") || is_shared(&decided.mode) {
        decided.networks.clear();
    }
    Ok(())
}

/// `ns:PATH` must name a namespace: the kernel's refusal would come late and say little.
fn check_namespace(path: &str) -> Result<()> {
    /// Of linux/magic.h: where namespaces are files.
    const NSFS_MAGIC: u64 = 0x6e73_6673;
    let is_one = std::path::Path::new(path).is_absolute()
        && rustix::fs::statfs(path).is_ok_and(|s| s.f_type as u64 == NSFS_MAGIC);
    if is_one {
        return Ok(());
    }
    Err(Error::invalid(format!("{} is not a network namespace", path.escape_debug()))
        .with_hint("`ip netns add NAME` makes one: --network ns:/run/netns/NAME"))
}

fn exposed(ports: &[PortSpec], flags: &[String], image: &[String]) -> Result<Vec<String>> {
    let mut found: Vec<((u16, u16), &'static str)> = Vec::new();
    for text in image {
        let (range, proto) = publish::parse_expose(text).map_err(|e| e.context("the image's EXPOSE"))?;
        found.push((range, protocol(proto)));
    }
    for text in flags {
        let (range, proto) = publish::parse_expose(text)?;
        found.push((range, protocol(proto)));
    }
    found.extend(ports.iter().map(|p| (p.container, protocol(p.proto))));
    let mut names = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for ((from, to), proto) in found {
        for port in from..=to {
            if seen.insert((port, proto)) {
                names.push(format!("{port}/{proto}"));
            }
        }
    }
    Ok(names)
}

/// As in `80/tcp`.
pub fn protocol(proto: netstack::model::Proto) -> &'static str {
    match proto {
        netstack::model::Proto::Tcp => "tcp",
        netstack::model::Proto::Udp => "udp",
        netstack::model::Proto::Sctp => "sctp",
    }
}

/// `--no-hosts`, `--no-hostname` and `--dns none`, as Podman has them: files that stay the image's.
///
/// # Errors
/// `none` beside another server.
pub fn image_files(flags: &NetworkFlags) -> Result<Vec<String>> {
    let no_resolver = flags.dns.iter().any(|s| s == NO_DNS);
    if no_resolver && (flags.dns.len() > 1 || !flags.dns_search.is_empty() || !flags.dns_option.is_empty()) {
        return Err(Error::invalid("conflicting options: --dns none and other DNS settings")
            .with_hint("none leaves the image's resolv.conf alone: name servers and settings, or none"));
    }
    let files = [(flags.no_hosts, "hosts"), (flags.no_hostname, "hostname"), (no_resolver, "resolv.conf")];
    Ok(files.into_iter().filter(|(left, _)| *left).map(|(_, name)| name.to_string()).collect())
}

/// `--hosts-file`.
///
/// # Errors
/// No such file, or the hosts file is another container's.
pub fn hosts_file(flags: &NetworkFlags, mode: &str) -> Result<Option<PathBuf>> {
    let Some(text) = &flags.hosts_file else { return Ok(None) };
    if mode.starts_with("container:") {
        return Err(Error::invalid("conflicting options: hosts-file and the network mode")
            .with_hint("set it on the container whose network is shared"));
    }
    hosts_file::parse(text)
}

fn dns(ctx: &Context, flags: &NetworkFlags) -> Result<DnsConfig> {
    let mut dns = DnsConfig::default();
    let configured = &ctx.config.network;
    for server in given(&flags.dns, &configured.dns).iter().filter(|s| *s != NO_DNS) {
        dns.servers.push(files::parse_dns(server)?);
    }
    for domain in given(&flags.dns_search, &configured.dns_search) {
        dns.search.push(files::parse_dns_search(domain)?);
    }
    for option in given(&flags.dns_option, &configured.dns_opts) {
        // A blank or newline would forge another option or line of resolv.conf.
        if option.is_empty() || !option.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Error::invalid(format!("invalid DNS option: \"{}\"", option.escape_debug()))
                .with_hint("see resolv.conf(5): ndots:2, timeout:1"));
        }
        dns.options.push(option.clone());
    }
    let mut gateways = None;
    for entry in &flags.add_host {
        if entry.ends_with("host-gateway") && gateways.is_none() {
            let configured = configured.host_gateways();
            if !configured.is_empty() {
                gateways = Some(configured);
            }
        }
        if entry.ends_with("host-gateway") && gateways.is_none() {
            let bridge = ctx.netstack().network("bridge")?;
            gateways = Some(bridge.pools.iter().filter_map(|pool| pool.gateway).collect::<Vec<_>>());
        }
        dns.extra_hosts.extend(files::parse_add_host(entry, gateways.as_deref().unwrap_or_default())?);
    }
    Ok(dns)
}

/// The flags, else the configuration file.
fn given<'a>(flags: &'a [String], configured: &'a [String]) -> &'a [String] {
    if flags.is_empty() { configured } else { flags }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Cli;
    use crate::config::Config;
    use clap::Parser;

    fn try_decide(args: &[&str]) -> Result<Networking> {
        let line = [&["rrun", "run"], args, &["image"]].concat();
        let cli = Cli::try_parse_from(line).unwrap();
        let crate::args::Command::Verb(crate::args::Verb::Run(run)) = cli.command else { panic!("not run") };
        let ctx =
            Context { root: "/r".into(), state: "/s".into(), config_path: "/c".into(), config: Config::default() };
        decide(&ctx, &run.create.network, run.create.process.hostname.is_some(), &["443/tcp".into()])
    }

    #[test]
    fn the_default_is_the_bridge() {
        let n = try_decide(&["-p", "8080:80", "--expose", "7-8/udp"]).unwrap();
        assert_eq!((n.mode.as_str(), n.networks.len()), ("bridge", 1));
        assert_eq!(n.exposed, ["443/tcp", "7/udp", "8/udp", "80/tcp"]);
        assert_eq!(n.ports.len(), 1);
    }

    #[test]
    fn fields_of_a_network() {
        let n = try_decide(&[
            "--network",
            "name=Net,alias=A,alias=b,ip=10.0.0.5,mac-address=02-42-AC-00-00-05,driver-opt=k=v,gw-priority=-3",
            "--network",
            "two",
        ])
        .unwrap();
        let first = &n.networks[0];
        assert_eq!((first.network.as_str(), first.aliases.join("+").as_str()), ("Net", "A+b"));
        assert_eq!(first.mac.as_deref(), Some("02:42:ac:00:00:05"));
        assert_eq!((first.gw_priority, first.driver_opts["k"].as_str()), (-3, "v"));
        assert_eq!(n.networks[1].network, "two");
    }

    #[test]
    fn contradictions_in_dockers_words() {
        let cases: &[(&[&str], &str)] = &[
            (
                &["--network", "name=n,ip=10.0.0.1", "--ip", "10.0.0.2"],
                "conflicting options: cannot specify both --ip and per-network IPv4 address",
            ),
            (&["--net", "a", "--net", "a"], "network \"a\" is specified multiple times"),
            (
                &["--net", "a", "--net", "host"],
                "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
            ),
            (&["--ip", "10.0.0.1"], "user-specified IP address is supported on user-defined networks only"),
            (&["--network-alias", "x"], "network-scoped aliases are only supported for user-defined networks"),
            (&["--net", "container:"], "invalid container format container:<name|id>"),
            (&["--net", "container:x", "-h", "h"], "conflicting options: hostname and the network mode"),
            (&["--net", "container:x", "--dns", "1.1.1.1"], "conflicting options: dns and the network mode"),
            (
                &["--net", "container:x", "-p", "80"],
                "conflicting options: port publishing and the container type network mode",
            ),
            (
                &["--net", "container:x", "--expose", "80"],
                "conflicting options: port exposing and the container type network mode",
            ),
            (
                &["--net", "container:x", "--add-host", "a:1.1.1.1"],
                "conflicting options: custom host-to-IP mapping and the network mode",
            ),
            (&["--net", "alias=x"], "network name/id is not specified"),
            (&["--net", "name=x,foo"], "invalid field foo"),
            (&["--net", "name=x,foo=1"], "invalid field key foo"),
            (&["--net", "name=x,gw-priority=q"], "invalid gw-priority (q): invalid syntax"),
            (&["--net", "name=x,driver-opt=q"], "invalid key value pair format in driver options"),
            (&["--add-host", "nope"], "bad format for add-host: \"nope\""),
            (&["--add-host", "a:nope"], "invalid IP address in add-host: \"nope\""),
            (&["--dns", "nope"], "IP address is not correctly formatted: nope"),
            (&["--dns-search", "a b"], "a b is not a valid domain"),
            (
                &["--net", "name=n,link-local-ip=169.254.1.1", "--link-local-ip", "169.254.1.2"],
                "conflicting options: cannot specify both --link-local-ip and per-network link-local IP addresses",
            ),
            (
                &["--net", "name=n,ip6=fd00::1", "--ip6", "fd00::2"],
                "conflicting options: cannot specify both --ip6 and per-network IPv6 address",
            ),
            (
                &["--net", "name=n,alias=a", "--network-alias", "b"],
                "conflicting options: cannot specify both --network-alias and per-network alias",
            ),
            (
                &["--net", "name=n,mac-address=02:00:00:00:00:01", "--mac-address", "02:00:00:00:00:02"],
                "conflicting options: cannot specify both --mac-address and per-network MAC address",
            ),
            (
                &["--net", "container:x", "--mac-address", "02:00:00:00:00:02"],
                "conflicting options: mac-address and the network mode",
            ),
            (
                &["--net", "host", "--link", "a"],
                "conflicting options: host type networking can't be used with links. This would result in undefined behavior",
            ),
            (
                &["--net", "container:x", "--link", "a"],
                "conflicting options: container type network can't be used with links. This would result in undefined behavior",
            ),
            (&["--net", "ns:/etc/passwd"], "/etc/passwd is not a network namespace"),
            (&["--net", "name=n,link-local-ip=x"], "invalid link-local IP address: x"),
            (&["--mac-address", "03:00:00:00:00:01"], "03:00:00:00:00:01 is not a valid mac address"),
        ];
        for (args, text) in cases {
            assert_eq!(try_decide(args).unwrap_err().message, *text, "{args:?}");
        }
    }

    #[test]
    fn no_ports_without_a_network_of_ones_own() {
        let n = try_decide(&["--net", "host", "-p", "80:80"]).unwrap();
        assert!(n.ports.is_empty() && n.networks.is_empty());
        assert_eq!(n.warnings, ["Published ports are discarded when using host network mode"]);
    }

    #[test]
    fn hosts_with_v6_addresses() {
        let n = try_decide(&["--add-host", "a:[::1]", "--add-host", "b=::2", "--add-host", "c:10.0.0.1"]).unwrap();
        let text: Vec<String> = n.dns.extra_hosts.iter().map(|(n, a)| format!("{n} {a}")).collect();
        assert_eq!(text, ["a ::1", "b ::2", "c 10.0.0.1"]);
    }
}
