//! `/etc/rrun/config.toml`: what the machine's owner decides for every container.

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

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkConfig {
    /// Where networks without `--subnet` take theirs from. Empty: Docker's pools.
    pub default_address_pools: Vec<AddressPool>,
    /// Host address of `-p` without one. Unset: all addresses.
    pub default_bind: Option<IpAddr>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressPool {
    pub base: IpNetwork,
    /// Prefix length of each network cut from `base`.
    pub size: u8,
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
        toml::from_str(&text).map_err(|e| {
            let line = e.span().map_or(1, |s| text[..s.start.min(text.len())].matches('\n').count() + 1);
            Error::invalid(format!("configuration {}, line {line}", path.display()))
                .with_cause(e.message().lines().collect::<Vec<_>>().join(" "))
                .with_hint("correct that line, or name another file with --config")
        })
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
    fn a_typing_mistake_names_its_line() {
        let e = load("[network]\ndefault_bnd = \"127.0.0.1\"\n").unwrap_err();
        assert!(e.message.ends_with("line 2"), "{e}");
        assert!(e.to_string().contains("default_bnd"), "{e}");
    }
}
