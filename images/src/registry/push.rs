//! Pushing: blobs first, each only if the registry lacks it; then the configuration; the manifest
//! last, so that whoever pulls meanwhile finds everything it names.

use super::endpoint::Registries;
use super::http::{Client, Patience, Reply, Sent};
use super::login_of;
use crate::digest::Digest;
use crate::manifest::{Descriptor, printable};
use crate::progress::{Progress, ProgressEvent};
use crate::reference::Reference;
use crate::store::Store;
use plan::{Error, Result, ResultExt};
use std::fs::File;
use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use ureq::http::{Method, header};

/// How many layers travel at a time; Docker sends five.
const WORKERS: usize = 5;

/// What the registry has now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    pub tag: String,
    /// Of the manifest.
    pub digest: String,
    /// Bytes of the manifest, as Docker prints them.
    pub size: usize,
}

/// Sends the image that a name means to the registry in that name.
///
/// # Errors
/// No such image; a name that is a digest; a registry that refuses or cannot be reached.
pub fn push(store: &Store, r: &Reference, registries: &Registries, progress: &dyn Progress) -> Result<Pushed> {
    push_patiently(store, r, registries, progress, Patience::default())
}

pub(super) fn push_patiently(
    store: &Store,
    r: &Reference,
    registries: &Registries,
    progress: &dyn Progress,
    patience: Patience,
) -> Result<Pushed> {
    let Some(tag) = r.tag().filter(|_| r.digest().is_none()) else {
        return Err(
            Error::invalid("cannot push a digest reference").with_hint("push a tag: the digest follows from it")
        );
    };
    let _hold = store.hold()?;
    let image = store.find(&r.canonical())?.ok_or_else(|| {
        Error::not_found(format!("An image does not exist locally with the tag: {}", r.familiar_repository()))
            .with_hint(format!("rrun tag IMAGE {r} gives an image that name"))
    })?;
    let kept = store.kept(&image)?;
    progress.event("", ProgressEvent::Pushing { repository: &r.repository() });
    let login = || login_of(registries, r.domain());
    let scope = format!("repository:{}:pull,push", r.path());
    let client = Client::new(registries.origin(r.domain()), scope, &login, patience, progress);
    let there = Repository { client: &client, reference: r };

    kept.layers.iter().for_each(|l| progress.event(l.digest.short(), ProgressEvent::Waiting));
    let next = AtomicUsize::new(0);
    let failed: Mutex<Option<Error>> = Mutex::new(None);
    let stop = AtomicBool::new(false);
    let work = || {
        while !stop.load(Ordering::Relaxed)
            && let Some(layer) = kept.layers.get(next.fetch_add(1, Ordering::Relaxed))
        {
            let path = store.blob_path(&layer.digest);
            let open = || File::open(&path).doing(|| format!("open {}", path.display()));
            if let Err(e) = there.blob(layer, &open, progress) {
                stop.store(true, Ordering::Relaxed);
                let e = e.context(format!("layer {}", layer.digest.short()));
                failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(e);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..WORKERS.min(kept.layers.len()) {
            scope.spawn(work);
        }
        work();
    });
    if let Some(e) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(e);
    }
    there.config(store, &kept.config)?;
    let digest = there.manifest(tag, &kept.media_type, &kept.manifest)?;
    Ok(Pushed { tag: tag.to_owned(), digest: digest.to_string(), size: kept.manifest.len() })
}

struct Repository<'a> {
    client: &'a Client<'a>,
    reference: &'a Reference,
}

impl Repository<'_> {
    fn blob(
        &self,
        layer: &Descriptor,
        open: &(dyn Fn() -> Result<File> + Sync),
        progress: &dyn Progress,
    ) -> Result<()> {
        let short = layer.digest.short();
        if self.has(&layer.digest)? {
            progress.event(short, ProgressEvent::UploadedBefore);
            return Ok(());
        }
        let sent = AtomicU64::new(0);
        let counted = || -> Result<Box<dyn Read + '_>> {
            sent.store(0, Ordering::Relaxed);
            Ok(Box::new(Counted { file: open()?, sent: &sent, short, total: layer.size, progress }))
        };
        self.upload(&layer.digest, Sent::Blob { size: layer.size, open: &counted })?;
        progress.event(short, ProgressEvent::Uploaded);
        Ok(())
    }

    fn config(&self, store: &Store, config: &Descriptor) -> Result<()> {
        if self.has(&config.digest)? {
            return Ok(());
        }
        let bytes = store.read_blob(&config.digest)?;
        self.upload(&config.digest, Sent::Document { media_type: "application/octet-stream", bytes: &bytes })
            .map_err(|e| e.context(format!("configuration {}", config.digest)))
    }

    /// Whether the repository has a blob. A registry that does not say has not.
    fn has(&self, digest: &Digest) -> Result<bool> {
        let path = format!("/v2/{}/blobs/{digest}", self.reference.path());
        let reply = self.client.order(Method::HEAD, &path, Sent::Nothing)?;
        match reply.status {
            401 | 403 => Err(self.refused(&reply)),
            status => Ok(status == 200),
        }
    }

    /// In one piece: POST opens the upload, PUT sends and closes it.
    fn upload(&self, digest: &Digest, sent: Sent<'_>) -> Result<()> {
        let opened =
            self.client.order(Method::POST, &format!("/v2/{}/blobs/uploads/", self.reference.path()), Sent::Nothing)?;
        if opened.status != 202 {
            return Err(self.refused(&opened));
        }
        let location = opened.headers.get(header::LOCATION).and_then(|l| l.to_str().ok()).unwrap_or("");
        let mut target = self.client.upload_target(location)?;
        target.path += if target.path.contains('?') { "&" } else { "?" };
        target.path += &format!("digest={}", digest.as_str().replace(':', "%3A"));
        let closed = self.client.order_at(Method::PUT, &target, sent)?;
        match closed.status {
            201 | 204 => Ok(()),
            _ => Err(self.refused(&closed)),
        }
    }

    fn manifest(&self, tag: &str, media_type: &str, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        let path = format!("/v2/{}/manifests/{tag}", self.reference.path());
        let reply = self.client.order(Method::PUT, &path, Sent::Document { media_type, bytes })?;
        if !matches!(reply.status, 200..=202) {
            return Err(self.refused(&reply).context(format!("manifest {digest}")));
        }
        match reply.headers.get("docker-content-digest").and_then(|v| v.to_str().ok()) {
            Some(said) if said != digest.as_str() => Err(Error::system("the registry altered the manifest")
                .with_cause(format!("it calls {} what is {digest}", printable(said)))),
            _ => Ok(digest),
        }
    }

    fn refused(&self, reply: &Reply) -> Error {
        let domain = self.reference.domain();
        let words = super::errors::words(reply);
        match reply.status {
            401 | 403 => Error::not_found(format!("push access denied to {}", self.reference.familiar_repository()))
                .with_cause(words)
                .with_hint(format!("rrun login {domain}, as someone who may write there")),
            413 => Error::system(format!("registry {domain} refuses it as too large")).with_cause(words),
            status => Error::system(format!("registry {domain} refuses it (status {status})"))
                .with_cause(words)
                .with_hint("the registry may be read-only, a mirror, or out of space"),
        }
    }
}

/// Tells the progress what the network takes.
struct Counted<'a> {
    file: File,
    sent: &'a AtomicU64,
    short: &'a str,
    total: u64,
    progress: &'a dyn Progress,
}

impl Read for Counted<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.file.read(buf)?;
        let done = self.sent.fetch_add(n as u64, Ordering::Relaxed) + n as u64;
        self.progress.event(self.short, ProgressEvent::Uploading { done, total: self.total });
        Ok(n)
    }
}
