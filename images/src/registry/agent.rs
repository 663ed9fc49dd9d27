//! Connections: whom to believe, how long to wait.

use super::endpoint::Endpoint;
use super::http::Patience;
use super::resolve::SystemResolver;
use crate::manifest::printable;
use plan::{Error, Result, ResultExt};
use std::sync::Arc;
use ureq::Agent;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::transport::DefaultConnector;

/// One read of a blob; also what hides behind each connection, so three layers stay below 1 MiB.
const INPUT_BUFFER: usize = 256 << 10;

/// For the world: certificates verified, proxies of the environment used.
///
/// # Errors
/// The endpoint's own authority cannot be read.
pub(super) fn outside(endpoint: &Endpoint, patience: &Patience) -> Result<Agent> {
    let tls = TlsConfig::builder().root_certs(trusted_roots(endpoint)?);
    Ok(agent(patience, tls.build(), true))
}

/// For this machine, as Docker treats 127.0.0.0/8: no proxy and any certificate.
pub(super) fn inside(patience: &Patience) -> Agent {
    let tls = TlsConfig::builder().root_certs(RootCerts::WebPki).disable_verification(true);
    agent(patience, tls.build(), false)
}

/// For a registry that the machine's owner declared insecure: any certificate.
pub(super) fn unverified(patience: &Patience) -> Agent {
    let tls = TlsConfig::builder().root_certs(RootCerts::WebPki).disable_verification(true);
    agent(patience, tls.build(), true)
}

fn agent(p: &Patience, tls: TlsConfig, proxy: bool) -> Agent {
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("rrun/", env!("CARGO_PKG_VERSION")))
        .input_buffer_size(INPUT_BUFFER)
        .timeout_connect(Some(p.connect))
        .timeout_recv_response(Some(p.idle))
        .timeout_per_read(Some(p.idle))
        .timeout_per_write(Some(p.idle))
        .tls_config(tls);
    if !proxy {
        config = config.proxy(None);
    }
    Agent::with_parts(config.build(), DefaultConnector::new(), SystemResolver)
}

/// What the administrator of this machine trusts, and for this registry beside it; without such a
/// file, Mozilla's list as of the build.
fn trusted_roots(endpoint: &Endpoint) -> Result<RootCerts> {
    let files = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];
    let system = files.iter().find_map(|file| Some(certificates(&std::fs::read(file).ok()?)).filter(|c| !c.is_empty()));
    let own = own_authorities(endpoint)?;
    Ok(match system {
        None if own.is_empty() => RootCerts::WebPki,
        system => RootCerts::Specific(Arc::new(system.into_iter().flatten().chain(own).collect())),
    })
}

/// The `ca` of the configuration, and Docker's place for the same: `/etc/docker/certs.d/HOST:PORT/*.crt`.
fn own_authorities(endpoint: &Endpoint) -> Result<Vec<Certificate<'static>>> {
    let mut found = Vec::new();
    if let Some(path) = &endpoint.ca {
        let pem =
            std::fs::read(path).doing(|| format!("read the CA of registry {}: {}", endpoint.name, path.display()))?;
        found = certificates(&pem);
        if found.is_empty() {
            return Err(Error::invalid(format!(
                "the CA of registry {} has no certificate: {}",
                endpoint.name,
                path.display()
            ))
            .with_hint("it must be a PEM file: -----BEGIN CERTIFICATE-----"));
        }
    }
    let dir = std::path::Path::new("/etc/docker/certs.d").join(&endpoint.authority);
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path());
    for path in entries.filter(|p| p.extension().is_some_and(|e| e == "crt")) {
        found.extend(certificates(&std::fs::read(&path).doing(|| format!("read {}", path.display()))?));
    }
    Ok(found)
}

fn certificates(pem: &[u8]) -> Vec<Certificate<'static>> {
    let items = parse_pem(pem).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    });
    items.collect()
}

/// The innermost reason, in one line.
pub(super) fn plain_cause(e: &ureq::Error) -> String {
    match e {
        ureq::Error::Io(io) => match io.raw_os_error() {
            Some(n) => plan::errno_name(n),
            None => printable(&io.to_string()),
        },
        ureq::Error::HostNotFound => "no such host".to_owned(),
        ureq::Error::Timeout(_) => "it does not answer in time".to_owned(),
        ureq::Error::Rustls(e) => printable(&e.to_string()),
        other => printable(&other.to_string()),
    }
}
