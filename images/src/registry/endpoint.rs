//! Where a registry's API answers, and what the machine's owner said of it.

use super::target::Target;
use crate::reference::Reference;
use plan::{Error, Result};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What the owner of the machine decided for registries, by their name in references
/// (`docker.io`, `reg.example:5000`).
#[derive(Clone, Debug, Default)]
pub struct Registries {
    pub hosts: BTreeMap<String, Registry>,
    /// Where `login` keeps who the user is: `~/.docker/config.json`.
    pub login: Option<PathBuf>,
}

/// One registry.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    /// URLs that are asked first, in order; the registry itself is the last.
    pub mirrors: Vec<String>,
    /// Certificates are not verified, and plain HTTP is tried after HTTPS.
    pub insecure: bool,
    /// PEM file of authorities that this registry's certificate may come from, beside the system's.
    pub ca: Option<PathBuf>,
}

/// One address to ask.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    /// As named by the user, for messages.
    pub name: String,
    /// Host and port.
    pub authority: String,
    /// Comes before `/v2/`; for mirrors below a path.
    pub prefix: String,
    /// Known beforehand for a mirror, which is a URL.
    pub https: Option<bool>,
    pub insecure: bool,
    pub ca: Option<PathBuf>,
}

impl Registries {
    /// The registry itself.
    pub(super) fn origin(&self, domain: &str) -> Endpoint {
        let given = self.hosts.get(domain).cloned().unwrap_or_default();
        // Docker Hub's API lives under another name than its images.
        let authority = if domain == "docker.io" { "registry-1.docker.io" } else { domain };
        Endpoint {
            name: domain.to_owned(),
            authority: authority.to_ascii_lowercase(),
            prefix: String::new(),
            https: None,
            insecure: given.insecure,
            ca: given.ca,
        }
    }

    /// All addresses that may have an image, in the order in which they are asked.
    ///
    /// # Errors
    /// A mirror that is no URL, or an unencrypted one that is neither on this machine nor declared insecure.
    pub(super) fn endpoints(&self, r: &Reference) -> Result<Vec<Endpoint>> {
        let mut endpoints = Vec::new();
        let mirrors = self.hosts.get(r.domain()).map_or(&[][..], |h| &h.mirrors);
        for url in mirrors {
            let target = Target::parse(url)
                .map_err(|e| e.context(format!("mirror of {}", r.domain())).with_hint("a mirror is an http(s) URL"))?;
            let given = self.hosts.get(&target.authority).cloned().unwrap_or_default();
            if !target.https && !target.is_loopback() && !given.insecure {
                return Err(Error::invalid(format!("the mirror {url} of {} would be asked unencrypted", r.domain()))
                    .with_hint(format!("[registries.\"{}\"] insecure = true allows it", target.authority)));
            }
            endpoints.push(Endpoint {
                name: target.authority.clone(),
                authority: target.authority,
                prefix: target.path.trim_end_matches('/').to_owned(),
                https: Some(target.https),
                insecure: given.insecure,
                ca: given.ca,
            });
        }
        endpoints.push(self.origin(r.domain()));
        Ok(endpoints)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_come_before_the_registry() {
        let mirror = Registry { mirrors: vec!["https://m.example/cache/".into()], ..Registry::default() };
        let hosts = BTreeMap::from([("docker.io".to_owned(), mirror)]);
        let all = Registries { hosts, login: None }.endpoints(&Reference::parse("alpine").unwrap()).unwrap();
        assert_eq!(
            (all[0].authority.as_str(), all[0].prefix.as_str(), all[0].https),
            ("m.example", "/cache", Some(true))
        );
        assert_eq!((all[1].authority.as_str(), all[1].https), ("registry-1.docker.io", None));
    }

    #[test]
    fn an_unencrypted_mirror_must_be_wanted() {
        let with = |insecure| {
            let mirror = Registry { mirrors: vec!["http://m.example".into()], ..Registry::default() };
            let hosts = BTreeMap::from([
                ("r.example".to_owned(), mirror),
                ("m.example".to_owned(), Registry { insecure, ..Registry::default() }),
            ]);
            Registries { hosts, login: None }.endpoints(&Reference::parse("r.example/x").unwrap())
        };
        assert!(with(false).unwrap_err().message.contains("unencrypted"));
        assert!(with(true).is_ok());
    }
}
