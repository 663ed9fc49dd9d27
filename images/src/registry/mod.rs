//! Pulling: a name becomes a manifest, the manifest a configuration and layers, the layers an image.
//! [`push`] is the way back.
//!
//! [`endpoint`] says whom to ask, [`credentials`] who asks, [`target`] knows URLs, [`resolve`] host
//! names, [`agent`] connections, [`http`] requests with retries and redirects, [`auth`] the token dance,
//! [`blob`] streams that survive a broken connection, [`errors`] Docker's words for a refusal. Nothing
//! a registry says is believed before its digest is verified.

mod agent;
mod auth;
mod blob;
mod credentials;
mod endpoint;
mod errors;
mod http;
mod login;
mod push;
mod resolve;
mod target;
#[cfg(test)]
mod tests;

pub use credentials::{Credential, Keyring};
pub use endpoint::{Registries, Registry};
pub use login::log_in;
pub use push::{Pushed, push};
pub use resolve::host_addresses;

use crate::config::ImageConfig;
use crate::digest::Digest;
use crate::ingest::{self, Layer, Source};
use crate::manifest::{DOCKER_LIST, DOCKER_MANIFEST, Descriptor, MAX_DOCUMENT, Manifest, OCI_INDEX, OCI_MANIFEST};
use crate::platform::Platform;
use crate::progress::{Progress, ProgressEvent};
use crate::reference::Reference;
use crate::store::{Image, Parts, Store};
use blob::BlobReader;
use errors::{explain, looks_like_html};
use http::{Client, Patience};
use plan::{Error, Result};
use std::io::Read;
use std::sync::atomic::AtomicBool;

/// What to pull, beyond the name.
#[derive(Clone, Debug, Default)]
pub struct PullOptions {
    /// `linux/arm64`; this machine's when absent.
    pub platform: Option<String>,
    pub registries: Registries,
}

/// An image that a pull made sure is here.
#[derive(Clone, Debug)]
pub struct Pulled {
    pub image: Image,
    /// Of the document the name leads to: an index where there is one. Docker's "Digest:".
    pub digest: String,
    /// Nothing had to be fetched.
    pub up_to_date: bool,
}

/// Fetches an image and names it. Safe beside other pulls, also of the same image, and beside
/// removals. After an error or a kill no part of the image is visible. Layers that were complete are
/// used by the next attempt, unless the image was broken or the disk full: then nothing stays.
pub fn pull(store: &Store, r: &Reference, options: &PullOptions, progress: &dyn Progress) -> Result<Pulled> {
    pull_patiently(store, r, options, progress, Patience::default())
}

fn pull_patiently(
    store: &Store,
    r: &Reference,
    options: &PullOptions,
    progress: &dyn Progress,
    patience: Patience,
) -> Result<Pulled> {
    let login = || login_of(&options.registries, r.domain());
    let mut endpoints = options.registries.endpoints(r)?.into_iter();
    let origin = endpoints.next_back().expect("the registry itself is always one");
    for mirror in endpoints {
        // A mirror is another's machine: what the registry knows us by is not told to it.
        let name = mirror.name.clone();
        let nobody = || login_of(&options.registries, &name);
        let client = Client::new(mirror, format!("repository:{}:pull", r.path()), &nobody, patience, progress);
        match pull_with(store, r, options, progress, &client) {
            Ok(pulled) => return Ok(pulled),
            // Whatever is wrong with it, the registry may do better; a full disk will not.
            Err(e) if matches!(e.errno, Some(libc::ENOSPC | libc::EDQUOT)) => {
                store.collect_after(&e);
                return Err(e);
            }
            Err(e) => progress.event("", ProgressEvent::Passed { mirror: &name, cause: &e.to_string() }),
        }
    }
    let client = Client::new(origin, format!("repository:{}:pull", r.path()), &login, patience, progress);
    pull_with(store, r, options, progress, &client).inspect_err(|e| store.collect_after(e))
}

/// What the user is known by at a registry.
fn login_of(registries: &Registries, domain: &str) -> Result<Option<Credential>> {
    registries.login.as_deref().map_or(Ok(None), |path| Keyring::at(path).find(domain))
}

fn pull_with(
    store: &Store,
    r: &Reference,
    options: &PullOptions,
    progress: &dyn Progress,
    client: &Client<'_>,
) -> Result<Pulled> {
    let platform = options.platform.as_deref().map(Platform::parse).transpose()?;
    let _hold = store.hold_swept()?;
    let repository = Repository { client, reference: r };

    let (digest, bytes, manifest) = repository.named()?;
    let by_digest = r.with_digest(&digest);
    progress.event("", ProgressEvent::Resolved { tag: wanted_of(r), repository: r.path() });
    if let Some(image) = present(store, r, &by_digest, platform.as_ref())? {
        return Ok(Pulled { image, digest: digest.to_string(), up_to_date: true });
    }

    let (manifest_digest, manifest_bytes, config, layers) = match manifest {
        Manifest::Image { config, layers } => (digest.clone(), bytes, config, layers),
        Manifest::Index(entries) => {
            let chosen = platform.clone().unwrap_or_else(Platform::host).choose(&entries)?.clone();
            let (bytes, manifest) = repository.described(&chosen)?;
            let Manifest::Image { config, layers } = manifest else {
                return Err(Error::invalid(format!("the manifest list of {r} leads to another manifest list")));
            };
            (chosen.digest, bytes, config, layers)
        }
    };
    let config_bytes = repository.document_blob(&config)?;
    let doc = ImageConfig::parse(&config_bytes).map_err(|e| e.context(r))?;
    if let Some(wanted) = &platform {
        check_platform(r, wanted, &doc)?;
    }
    let layers = Layer::pair(&layers, &doc).map_err(|e| e.context(r))?;
    // The ID that tells whether all is here is written last, as the record.
    store.write_blob(&config.digest, &config_bytes)?;
    store.write_blob(&manifest_digest, &manifest_bytes)?;
    let size = ingest::install(store, &layers, &repository.layers(&layers), progress).map_err(|e| e.context(r))?;
    let parts = Parts {
        manifest: manifest_digest,
        blobs: layers.into_iter().map(|l| l.blob).collect(),
        diff_ids: doc.rootfs.diff_ids,
        size,
        created: doc.created,
        architecture: doc.architecture,
    };
    let names: Vec<Reference> = match r.digest() {
        Some(_) => vec![by_digest],
        None => vec![r.clone(), by_digest],
    };
    let image = store.register(&config.digest, parts, &names)?;
    Ok(Pulled { image, digest: digest.to_string(), up_to_date: false })
}

/// The tag or digest part of a name: the last element of a manifest's path.
fn wanted_of(r: &Reference) -> &str {
    match r.digest() {
        Some(digest) => digest.as_str(),
        None => r.tag().unwrap_or("latest"),
    }
}

/// The image, if the name leads to this digest already and nothing of it is missing.
fn present(store: &Store, r: &Reference, by_digest: &Reference, platform: Option<&Platform>) -> Result<Option<Image>> {
    // Damaged files are as good as none: they are fetched again.
    let Ok(Some(image)) = store.find(&by_digest.canonical()) else { return Ok(None) };
    let fits = platform.is_none_or(|p| p.runs(&platform_of(&image)) > 0);
    if !fits || !store.is_complete(&Digest::parse(&image.id)?)? {
        return Ok(None);
    }
    if r.digest().is_none() && store.find(&r.canonical()).ok().flatten().is_none_or(|named| named.id != image.id) {
        return Ok(None);
    }
    Ok(Some(image))
}

fn platform_of(image: &Image) -> Platform {
    Platform { os: image.os.clone(), architecture: image.architecture.clone(), variant: image.variant.clone() }
}

fn check_platform(r: &Reference, wanted: &Platform, doc: &ImageConfig) -> Result<()> {
    let is = Platform { os: doc.os.clone(), architecture: doc.architecture.clone(), variant: doc.variant.clone() };
    match doc.architecture.is_empty() || wanted.runs(&is.normal()) > 0 {
        true => Ok(()),
        false => Err(Error::not_found(format!(
            "image with reference {r} was found but its platform ({is}) does not match the specified platform ({wanted})"
        ))
        .with_hint("leave --platform away, or choose another tag")),
    }
}

/// One repository of a registry, through the distribution API.
struct Repository<'a> {
    client: &'a Client<'a>,
    reference: &'a Reference,
}

impl<'a> Repository<'a> {
    /// What the name leads to, with its digest verified.
    fn named(&self) -> Result<(Digest, Vec<u8>, Manifest)> {
        let wanted = wanted_of(self.reference);
        let reply = self.manifest(wanted)?;
        let digest = Digest::of(&reply.body);
        // By tag too: a registry that announces one thing and sends another is not to be trusted.
        let announced = reply.headers.get("docker-content-digest").and_then(|v| v.to_str().ok());
        let expected = self.reference.digest().map(|d| d.as_str()).or(announced);
        if let Some(expected) = expected.filter(|e| *e != digest.as_str()) {
            return Err(Error::invalid(format!("the manifest of {} does not match its digest", self.reference))
                .with_cause(format!("expected {}, the content is {digest}", crate::manifest::printable(expected)))
                .with_hint("the registry or something before it alters content: do not use this image"));
        }
        let manifest = self.parse(&reply)?;
        Ok((digest, reply.body, manifest))
    }

    /// The manifest that an index names.
    fn described(&self, descriptor: &Descriptor) -> Result<(Vec<u8>, Manifest)> {
        if descriptor.size > MAX_DOCUMENT {
            return Err(Error::invalid(format!("the manifest {} is larger than 4 MiB", descriptor.digest)));
        }
        let reply = self.manifest(descriptor.digest.as_str())?;
        descriptor.verify("manifest", &reply.body)?;
        let manifest = self.parse(&reply)?;
        Ok((reply.body, manifest))
    }

    fn manifest(&self, wanted: &str) -> Result<http::Reply> {
        let accept = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST].join(", ");
        let path = format!("/v2/{}/manifests/{wanted}", self.reference.path());
        let reply = self.client.document(&path, &accept, MAX_DOCUMENT)?;
        match reply.status {
            200 if looks_like_html(&reply) => {
                Err(Error::system(format!("registry {} answered with a web page", self.reference.domain()))
                    .with_hint("this is not a registry, or a captive portal or proxy is in between"))
            }
            200 => Ok(reply),
            _ => Err(explain(self.reference, Some(wanted), &reply)),
        }
    }

    fn parse(&self, reply: &http::Reply) -> Result<Manifest> {
        let content_type = reply.headers.get("content-type").and_then(|v| v.to_str().ok()).unwrap_or("");
        let served_as = content_type.split(';').next().unwrap_or("").trim();
        Manifest::parse(&reply.body, served_as).map_err(|e| e.context(self.reference))
    }

    /// A blob small enough to be held: the configuration.
    fn document_blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let reply = self.client.document(&self.blob_path(&descriptor.digest), "*/*", MAX_DOCUMENT)?;
        if reply.status != 200 {
            return Err(explain(self.reference, None, &reply).context(format!("configuration {}", descriptor.digest)));
        }
        descriptor.verify("configuration", &reply.body)?;
        Ok(reply.body)
    }

    fn blob_path(&self, digest: &Digest) -> String {
        format!("/v2/{}/blobs/{digest}", self.reference.path())
    }

    fn layers(&'a self, layers: &'a [Layer]) -> RemoteLayers<'a> {
        RemoteLayers { repository: self, layers }
    }
}

struct RemoteLayers<'a> {
    repository: &'a Repository<'a>,
    layers: &'a [Layer],
}

impl Source for RemoteLayers<'_> {
    fn open<'s>(&'s self, index: usize, stop: &'s AtomicBool) -> Result<Box<dyn Read + 's>> {
        let Repository { client, reference } = self.repository;
        let layer = &self.layers[index];
        let path = self.repository.blob_path(&layer.blob);
        Ok(Box::new(BlobReader::new(client, reference, path, layer.blob.short(), layer.size, stop)))
    }

    fn is_remote(&self) -> bool {
        true
    }
}
