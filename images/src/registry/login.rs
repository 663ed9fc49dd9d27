//! `login`: whether a registry believes who we say we are.

use super::credentials::Credential;
use super::endpoint::Registries;
use super::http::{Client, Patience};
use crate::manifest::printable;
use crate::progress::Silent;
use plan::{Error, Result};

/// Shows a credential to a registry (`docker.io`, `reg.example:5000`). Nothing is kept.
///
/// # Errors
/// The registry cannot be reached, does not believe it, or asks nobody who they are in a way we know.
pub fn log_in(registries: &Registries, registry: &str, credential: &Credential) -> Result<()> {
    let given = credential.clone();
    let login = move || Ok(Some(given.clone()));
    let client = Client::new(registries.origin(registry), String::new(), &login, Patience::default(), &Silent);
    let reply = client.document("/v2/", "*/*", 64 << 10)?;
    match reply.status {
        200 => Ok(()),
        401 | 403 => Err(Error::not_found("unauthorized: incorrect username or password")
            .with_hint("many registries want an access token in place of the password")),
        404 => Err(Error::not_found(format!("{} is not a registry", printable(registry)))
            .with_cause("it does not answer at /v2/")
            .with_hint("give host and port as in the names of its images")),
        status => Err(Error::system(format!("registry {} answered with status {status}", printable(registry)))
            .with_hint("the registry is out of order; try again later")),
    }
}
