//! One endpoint as flags describe it: `--network name=…,ip=…`, `--ip` and its kin, `network connect`.

use netstack::model::{EndpointConfig, Link};
use netstack::sandbox::options;
use plan::{Error, Result};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// One `--network`: a name, or Docker's `name=…,alias=…` form. Names keep their case.
///
/// # Errors
/// Docker's texts.
pub fn attachment(spec: &str) -> Result<EndpointConfig> {
    const HINT: &str = "write --network NAME, or name=NAME,alias=…,ip=…,ip6=…,mac-address=…,link-local-ip=…,ifname=…,host-ifname=…,driver-opt=K=V,gw-priority=N, or NAME:ip=…";
    let wrong = |text: String| Error::invalid(text).with_hint(HINT);
    let mut endpoint = EndpointConfig::default();
    let (named, spec) = podmans(spec);
    if !spec.contains('=') || spec.starts_with("container:") || spec.starts_with("ns:") {
        if spec.is_empty() {
            return Err(wrong("network name/id is not specified".into()));
        }
        endpoint.network = spec.to_string();
        return Ok(endpoint);
    }
    endpoint.network = named.to_string();
    for field in fields(spec) {
        let (key, value) =
            field.split_once('=').ok_or_else(|| wrong(format!("invalid field {}", field.escape_debug())))?;
        match key.trim().to_ascii_lowercase().as_str() {
            "name" if named.is_empty() => endpoint.network = value.trim().to_string(),
            "alias" => endpoint.aliases.push(value.to_string()),
            // Podman has one key for both families.
            "ip" if !named.is_empty() && value.contains(':') => endpoint.ip6 = Some(ipv6(value)?),
            "ip" => endpoint.ip = Some(ipv4(value)?),
            "ip6" => endpoint.ip6 = Some(ipv6(value)?),
            "mac-address" | "mac" => endpoint.mac = Some(mac(value)?),
            "link-local-ip" => endpoint.link_local.push(link_local(value)?),
            "ifname" | "interface-name" | "interface_name" => {
                endpoint.driver_opts.insert(options::IFNAME.into(), value.to_string());
            }
            "host-ifname" | "host-interface-name" | "host_interface_name" => {
                endpoint.driver_opts.insert(options::HOST_IFNAME.into(), value.to_string());
            }
            "driver-opt" => driver_option(&mut endpoint, value).map_err(|e| e.with_hint(HINT))?,
            "gw-priority" => {
                endpoint.gw_priority =
                    value.parse().map_err(|_| wrong(format!("invalid gw-priority ({value}): invalid syntax")))?;
            }
            other => return Err(wrong(format!("invalid field key {}", other.escape_debug()))),
        }
    }
    if endpoint.network.is_empty() {
        return Err(wrong("network name/id is not specified".into()));
    }
    Ok(endpoint)
}

/// Podman's `NAME:key=value,…`, parted at the colon; no network's name has one.
fn podmans(spec: &str) -> (&str, &str) {
    match spec.split_once(':') {
        Some((name, rest)) if !name.contains('=') && !matches!(name, "container" | "ns") && rest.contains('=') => {
            (name, rest)
        }
        _ => ("", spec),
    }
}

/// Comma-separated, as Go's CSV reader takes it: a field in double quotes may contain commas.
fn fields(line: &str) -> Vec<String> {
    let mut all = vec![String::new()];
    let mut quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        let at_start = all.last().is_some_and(String::is_empty);
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                all.last_mut().expect("never empty").push('"');
            }
            '"' if quoted || at_start => quoted = !quoted,
            ',' if !quoted => all.push(String::new()),
            c => all.last_mut().expect("never empty").push(c),
        }
    }
    all
}

/// `KEY=VALUE`.
///
/// # Errors
/// Docker's text.
pub fn driver_option(endpoint: &mut EndpointConfig, text: &str) -> Result<()> {
    let (key, value) = text.split_once('=').ok_or_else(|| {
        Error::invalid("invalid key value pair format in driver options").with_hint("write --driver-opt KEY=VALUE")
    })?;
    endpoint.driver_opts.insert(key.to_string(), value.to_string());
    Ok(())
}

/// `--sysctl net.ipv4.conf.eth0.x=1` speaks of an interface that is not there yet when the other
/// parameters are set: such entries become options of the endpoint that makes the interface.
///
/// # Errors
/// No network has an interface of this name.
pub fn adopt_sysctls(sysctls: &mut BTreeMap<String, String>, networks: &mut [EndpointConfig]) -> Result<()> {
    if networks.is_empty() {
        return Ok(());
    }
    let mut moved = Vec::new();
    for (key, value) in sysctls.iter() {
        let parts: Vec<&str> = key.split('.').collect();
        let ["net", "ipv4" | "ipv6" | "mpls", table @ ("conf" | "neigh"), interface, name] = parts[..] else {
            continue;
        };
        if matches!(interface, "all" | "default" | "lo") {
            continue;
        }
        let at = networks.iter().enumerate().position(|(i, n)| match n.driver_opts.get(options::IFNAME) {
            Some(ifname) => ifname == interface,
            None => interface.strip_prefix("eth").and_then(|n| n.parse().ok()) == Some(i),
        });
        let at = at.ok_or_else(|| {
            Error::invalid(format!("unable to determine network endpoint for sysctl {key}"))
                .with_hint("the first network's interface is eth0, the second's eth1, unless ifname= names it")
        })?;
        moved.push((key.clone(), at, format!("net.{}.{table}.IFNAME.{name}={value}", parts[1])));
    }
    for (key, at, setting) in moved {
        sysctls.remove(&key);
        let list = networks[at].driver_opts.entry(options::SYSCTLS.into()).or_default();
        if !list.is_empty() {
            list.push(',');
        }
        list.push_str(&setting);
    }
    Ok(())
}

/// `--link CONTAINER[:ALIAS]`.
///
/// # Errors
/// Docker's texts.
pub fn link(text: &str) -> Result<Link> {
    let wrong = |what: String| Error::invalid(what).with_hint("write --link CONTAINER or --link CONTAINER:ALIAS");
    if text.is_empty() {
        return Err(wrong("empty string specified for links".into()));
    }
    let (container, alias) = text.split_once(':').unwrap_or((text, text));
    let container = container.trim_start_matches('/');
    let alias = if alias == text { container } else { alias };
    let one_name = |s: &str| !s.is_empty() && !s.contains(|c: char| c == ':' || c.is_whitespace() || c.is_control());
    if !one_name(container) || !one_name(alias) {
        return Err(wrong(format!("bad format for links: {}", text.escape_debug())));
    }
    Ok(Link { container: container.to_string(), alias: alias.to_string() })
}

/// `--link-local-ip`.
///
/// # Errors
/// Docker's text. Whether it is one of the link's is checked with the network.
pub fn link_local(text: &str) -> Result<IpAddr> {
    text.parse().map_err(|_| {
        Error::invalid(format!("invalid link-local IP address: {}", text.escape_debug()))
            .with_hint("as in 169.254.7.7 or fe80::7")
    })
}

/// `--ip`.
///
/// # Errors
/// Docker's text.
pub fn ipv4(text: &str) -> Result<std::net::Ipv4Addr> {
    text.parse().map_err(|_| {
        Error::invalid(format!("invalid IPv4 address: {}", text.escape_debug())).with_hint("as in 10.9.0.5")
    })
}

/// `--ip6`.
///
/// # Errors
/// Docker's text.
pub fn ipv6(text: &str) -> Result<std::net::Ipv6Addr> {
    text.parse().map_err(|_| {
        Error::invalid(format!("invalid IPv6 address: {}", text.escape_debug())).with_hint("as in fd00::5")
    })
}

/// `02:42:ac:11:00:02`, lower case.
///
/// # Errors
/// Docker's text.
pub fn mac(text: &str) -> Result<String> {
    let parts: Vec<&str> = text.split([':', '-']).collect();
    let bytes: Vec<u8> = parts.iter().filter(|p| p.len() == 2).filter_map(|p| u8::from_str_radix(p, 16).ok()).collect();
    // The lowest bit of the first byte marks a group address, which no interface may have.
    if parts.len() != 6 || bytes.len() != 6 || bytes[0] & 1 == 1 || bytes.iter().all(|b| *b == 0) {
        return Err(Error::invalid(format!("{} is not a valid mac address", text.escape_debug()))
            .with_hint("as in 02:42:ac:11:00:05"));
    }
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_may_be_quoted() {
        assert_eq!(fields(r#"name=n,"driver-opt=a=1,b=2",alias=x"y"#), ["name=n", "driver-opt=a=1,b=2", "alias=x\"y"]);
        assert_eq!(fields(r#""a""b",c"#), ["a\"b", "c"]);
        let e = attachment(
            "name=Net,\"driver-opt=com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.a=1,net.ipv4.conf.IFNAME.b=2\",interface_name=Wan0",
        )
        .unwrap();
        assert_eq!(e.driver_opts[options::SYSCTLS], "net.ipv4.conf.IFNAME.a=1,net.ipv4.conf.IFNAME.b=2");
        assert_eq!(e.driver_opts[options::IFNAME], "Wan0", "nothing is lower-cased");
    }

    #[test]
    fn parameters_of_interfaces_move_to_their_endpoints() {
        let set = |keys: &[&str]| keys.iter().map(|k| (k.to_string(), "1".to_string())).collect::<BTreeMap<_, _>>();
        let mut networks = [attachment("a").unwrap(), attachment("name=b,ifname=wan").unwrap()];
        let mut sysctls = set(&[
            "net.ipv4.conf.eth0.log_martians",
            "net.ipv6.conf.wan.hop_limit",
            "net.core.somaxconn",
            "net.ipv4.conf.all.arp_ignore",
        ]);
        adopt_sysctls(&mut sysctls, &mut networks).unwrap();
        assert_eq!(sysctls.keys().collect::<Vec<_>>(), ["net.core.somaxconn", "net.ipv4.conf.all.arp_ignore"]);
        assert_eq!(networks[0].driver_opts[options::SYSCTLS], "net.ipv4.conf.IFNAME.log_martians=1");
        assert_eq!(networks[1].driver_opts[options::SYSCTLS], "net.ipv6.conf.IFNAME.hop_limit=1");
        let e = adopt_sysctls(&mut set(&["net.ipv4.conf.eth1.x"]), &mut networks).unwrap_err();
        assert_eq!(e.message, "unable to determine network endpoint for sysctl net.ipv4.conf.eth1.x");
    }

    #[test]
    fn links_have_an_alias() {
        let show = |t: &str| link(t).map(|l| format!("{} {}", l.container, l.alias)).unwrap_or_else(|e| e.message);
        assert_eq!(show("db"), "db db");
        assert_eq!(show("/db"), "db db");
        assert_eq!(show("db:sql"), "db sql");
        assert_eq!(show(""), "empty string specified for links");
        for bad in ["a:b:c", "a:", ":b", "a b"] {
            assert_eq!(show(bad), format!("bad format for links: {bad}"));
        }
    }
}
