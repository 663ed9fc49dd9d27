//! `/etc/rrun/config.toml`: what the machine's owner decides for every container.

use crate::container::request::log;
use ipnetwork::IpNetwork;
use plan::{Error, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// The whole file; every part may be left out. A key that does not exist is an error, so that a
/// typing mistake does not silently mean the default.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub network: NetworkConfig,
    /// By host and port as in the names of images: `[registries."docker.io"]`.
    pub registries: BTreeMap<String, RegistryConfig>,
    /// Where the output of containers goes that are made without `--log-driver`: as in Docker's `daemon.json`.
    #[serde(rename = "log-driver", alias = "log_driver")]
    pub log_driver: Option<String>,
    /// Options of that driver.
    #[serde(rename = "log-opts", alias = "log_opts")]
    pub log_opts: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistryConfig {
    /// URLs that are asked before the registry itself.
    pub mirrors: Vec<String>,
    /// No certificate is verified, and plain HTTP will do.
    pub insecure: bool,
    /// PEM file with the authority of the registry's certificate.
    pub ca: Option<PathBuf>,
}

/// Docker's daemon flags about networks, under their names; underscores do as well.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct NetworkConfig {
    /// Where networks without `--subnet` take theirs from. Empty: Docker's ranges, in /24s.
    #[serde(alias = "default_address_pools")]
    pub default_address_pools: Vec<AddressPool>,
    /// Host address of `-p` without one. Unset: all addresses.
    #[serde(alias = "default_bind", alias = "ip")]
    pub default_bind: Option<IpAddr>,
    /// Keep the names of running containers in the host's /etc/hosts.
    #[serde(alias = "host_names")]
    pub host_names: bool,
    /// By driver: options for networks made without them.
    #[serde(alias = "default_network_opts")]
    pub default_network_opts: BTreeMap<String, BTreeMap<String, String>>,
    /// Resolvers of containers without `--dns`.
    pub dns: Vec<String>,
    #[serde(alias = "dns_search")]
    pub dns_search: Vec<String>,
    #[serde(alias = "dns_opts")]
    pub dns_opts: Vec<String>,
    /// What `--add-host NAME:host-gateway` means. Unset: the default bridge's addresses.
    #[serde(alias = "host_gateway_ip")]
    pub host_gateway_ip: Option<IpAddr>,
    #[serde(alias = "host_gateway_ips")]
    pub host_gateway_ips: Vec<IpAddr>,
    // Of the default bridge, network `bridge`:
    pub mtu: Option<u32>,
    pub icc: Option<bool>,
    #[serde(alias = "ip_masq")]
    pub ip_masq: Option<bool>,
    pub ipv6: bool,
    pub bip: Option<IpNetwork>,
    pub bip6: Option<IpNetwork>,
    #[serde(alias = "fixed_cidr")]
    pub fixed_cidr: Option<IpNetwork>,
    #[serde(alias = "fixed_cidr_v6")]
    pub fixed_cidr_v6: Option<IpNetwork>,
    #[serde(alias = "default_gateway")]
    pub default_gateway: Option<IpAddr>,
    #[serde(alias = "default_gateway_v6")]
    pub default_gateway_v6: Option<IpAddr>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressPool {
    pub base: IpNetwork,
    /// Prefix length of each network cut from `base`.
    pub size: u8,
}

impl NetworkConfig {
    /// As `netstack` wants it.
    pub fn for_netstack(&self) -> netstack::networks::Config {
        netstack::networks::Config {
            default_pools: self.default_address_pools.iter().map(|p| (p.base, p.size)).collect(),
            default_bind: self.default_bind,
            host_names: self.host_names,
            default_opts: self.default_network_opts.clone(),
            containers: crate::container::endpoint_configs,
            bridge: netstack::networks::DefaultBridge {
                mtu: self.mtu,
                icc: self.icc,
                ip_masq: self.ip_masq,
                ipv6: self.ipv6,
                bip: self.bip,
                bip6: self.bip6,
                fixed_cidr: self.fixed_cidr,
                fixed_cidr_v6: self.fixed_cidr_v6,
                default_gateway: self.default_gateway,
                default_gateway_v6: self.default_gateway_v6,
            },
        }
    }

    /// The configured meaning of `host-gateway`; empty: the default bridge's addresses.
    pub fn host_gateways(&self) -> Vec<IpAddr> {
        self.host_gateway_ip.iter().chain(&self.host_gateway_ips).copied().collect()
    }
}

impl Config {
    /// No file is an empty configuration.
    ///
    /// # Errors
    /// A file that cannot be read or understood, naming the line.
    pub fn load(path: &Path) -> Result<Config> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Config::default()),
            Err(e) => return Err(Error::io(format!("read configuration {}", path.display()), &e)),
        };
        let config: Config = toml::from_str(&text).map_err(|e| {
            let line = e.span().map_or(1, |s| text[..s.start.min(text.len())].matches('\n').count() + 1);
            Error::invalid(format!("configuration {}, line {line}", path.display()))
                .with_cause(e.message().lines().collect::<Vec<_>>().join(" "))
                .with_hint("correct that line, or name another file with --config")
        })?;
        let named = |e: Error| e.context(format!("configuration {}", path.display()));
        config.network.for_netstack().check().map_err(named)?;
        log::decide(&config, None, &[]).map_err(named)?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config> {
        let path = std::env::temp_dir().join(format!("rrun-config-{}-{}", std::process::id(), text.len()));
        std::fs::write(&path, text).expect("write");
        let config = Config::load(&path);
        std::fs::remove_file(&path).expect("remove");
        config
    }

    #[test]
    fn every_part_is_optional() {
        let config = load(
            "[network]\ndefault_bind = \"127.0.0.1\"\ndefault_address_pools = [{ base = \"10.5.0.0/16\", size = 24 }]\n",
        )
        .unwrap();
        assert_eq!(config.network.default_bind, Some([127, 0, 0, 1].into()));
        assert_eq!(config.network.default_address_pools[0].size, 24);
        assert!(Config::load(Path::new("/nonexistent/config.toml")).unwrap().network.default_bind.is_none());
    }

    #[test]
    fn keys_are_dockers() {
        let config = load("[network]\nip = \"127.0.0.1\"\nbip = \"192.168.90.1/24\"\nfixed-cidr = \"192.168.90.128/25\"\nip-masq = false\n\
            [network.default-network-opts.bridge]\n\"com.docker.network.driver.mtu\" = \"1400\"\n").unwrap();
        let config = config.network.for_netstack();
        assert_eq!(config.bridge.bip.map(|b| b.ip()), Some([192, 168, 90, 1].into()));
        assert_eq!((config.bridge.ip_masq, config.default_opts["bridge"].len()), (Some(false), 1));
        for (text, about) in [
            ("default-address-pools = [{ base = \"10.5.0.0/16\", size = 200 }]", "base 10.5.0.0/16, size 200"),
            ("bip = \"192.168.90.0/24\"", "192.168.90.0/24 is no address"),
            ("bip = \"fd00::1/64\"", "fd00::1/64 is no address"),
            ("bip = \"10.0.0.1/24\"\ndefault-gateway = \"10.0.1.9\"", "default-gateway 10.0.1.9 is not inside"),
        ] {
            let e = load(&format!("[network]\n{text}\n")).unwrap_err();
            assert!(e.to_string().contains(about), "{e}");
        }
    }

    #[test]
    fn a_typing_mistake_names_its_line() {
        let e = load("[network]\ndefault_bnd = \"127.0.0.1\"\n").unwrap_err();
        assert!(e.message.ends_with("line 2"), "{e}");
        assert!(e.to_string().contains("default_bnd"), "{e}");
    }
}
