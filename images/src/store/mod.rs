//! The content-addressed store: what images are here, under which names, made of what.
//!
//! ```text
//! <root>/refs/names.json          name in full -> image ID
//! <root>/refs/images/<hex>.json   what an image consists of (never changes)
//! <root>/blobs/sha256/<hex>       manifests, configurations, layers as they travelled
//! <root>/layers/<16 hex>/         layers unpacked (module snapshot)
//! <root>/tmp/                     work in progress; swept by the next pull
//! ```
//!
//! Readers take no lock: every file appears whole, by rename. Writers of `refs/` hold `refs/lock`.
//! A pull holds `tmp/content.lock` shared from its first blob to its record, and whoever deletes
//! content holds it exclusively, so that nothing is collected that is about to be named.

mod blobs;
mod check;
mod gc;
mod kept;
mod lock;
mod record;
mod remove;
#[cfg(test)]
mod tests;

pub(crate) use blobs::BlobWriter;
pub use check::Damage;
pub(crate) use kept::Kept;
pub use lock::Lock;
pub(crate) use lock::lock_file;
pub(crate) use record::Parts;
pub use remove::Removed;

use crate::config::{Config, ImageConfig};
use crate::digest::{Digest, chain_ids};
use crate::reference::Reference;
use crate::snapshot::{self, Wanted};
use plan::{Error, Result, ResultExt};
use record::{Names, Record};
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The images under one root directory.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

/// An image that is here. Strings are in Docker's forms, ready to show.
#[derive(Clone, Debug)]
pub struct Image {
    /// `sha256:…`: the digest of the configuration.
    pub id: String,
    pub config: Config,
    /// Lowest first; a layer with all below it.
    pub chain_ids: Vec<String>,
    /// Lowest first; the digests of the uncompressed tars.
    pub diff_ids: Vec<String>,
    /// `alpine:latest`, sorted.
    pub repo_tags: Vec<String>,
    /// `alpine@sha256:…`, sorted.
    pub repo_digests: Vec<String>,
    /// RFC 3339.
    pub created: String,
    /// Bytes of all layers, unpacked.
    pub size: u64,
    pub architecture: String,
    pub variant: String,
    pub os: String,
    pub author: String,
    pub comment: String,
    pub docker_version: String,
    /// The digest of the manifest.
    pub manifest: String,
}

impl Store {
    /// Touches nothing: directories appear when something is stored.
    pub fn open(root: &Path) -> Result<Store> {
        Ok(Store { root: root.to_owned() })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Looks an image up by name, or by its ID or the unique beginning of one (four digits or more).
    /// Three small reads. `Ok(None)` when there is none; an error when the text can be neither, when
    /// a beginning is ambiguous, or when the image's files are damaged.
    pub fn find(&self, name: &str) -> Result<Option<Image>> {
        let names = Names::load(&self.root)?;
        match self.resolve(&names, name)? {
            Some(id) => self.image(&names, &id).map(Some),
            None => Ok(None),
        }
    }

    /// All images, newest first. One whose files are damaged is listed with what its record says.
    pub fn images(&self) -> Result<Vec<Image>> {
        let names = Names::load(&self.root)?;
        let mut images = Vec::new();
        for id in record::ids(&self.root)? {
            let Ok(record) = Record::load(&self.root, &id) else { continue };
            let doc = self.image_config(&id).unwrap_or_else(|_| record.outline());
            images.push(assemble(&names, &id, record, doc));
        }
        images.sort_by(|a, b| plan::time::parse(&b.created).cmp(&plan::time::parse(&a.created)).then(a.id.cmp(&b.id)));
        Ok(images)
    }

    /// Gives an image one more name; the name leaves the image that had it.
    pub fn tag(&self, image: &Image, r: &Reference) -> Result<()> {
        if r.digest().is_some() {
            return Err(Error::invalid("refusing to create a tag with a digest reference")
                .with_hint("a digest follows from the content; give a tag"));
        }
        let id = Digest::parse(&image.id)?;
        let _lock = self.lock_refs()?;
        Record::load(&self.root, &id).map_err(|e| match e.errno {
            Some(libc::ENOENT) => no_such_image(&image.id),
            _ => e,
        })?;
        let mut names = Names::load(&self.root)?;
        names.insert(r.canonical(), id);
        names.save(&self.root)
    }

    /// The overlay's lower directories: the directory of layers, and the image's layers relative to
    /// it, topmost first.
    pub fn lower(&self, image: &Image) -> (PathBuf, Vec<PathBuf>) {
        snapshot::lower(&self.root, &image.chain_ids)
    }

    /// Bytes of each layer, unpacked, lowest first.
    pub fn layer_sizes(&self, image: &Image) -> Result<Vec<u64>> {
        let sizes = image.chain_ids.iter().map(|chain| Ok(snapshot::record(&self.root, chain)?.map_or(0, |r| r.size)));
        sizes.collect()
    }

    /// Bytes of all layers, unpacked; each counts once.
    pub fn unpacked_bytes(&self) -> Result<u64> {
        Ok(snapshot::list(&self.root)?.iter().map(|r| r.size).sum())
    }

    /// The configuration document as stored.
    pub fn config_json(&self, image: &Image) -> Result<serde_json::Value> {
        self.document(&Digest::parse(&image.id)?)
    }

    /// The manifest as stored.
    pub fn manifest_json(&self, image: &Image) -> Result<serde_json::Value> {
        self.document(&Digest::parse(&image.manifest)?)
    }

    fn document(&self, digest: &Digest) -> Result<serde_json::Value> {
        let bytes = self.read_blob(digest)?;
        serde_json::from_slice(&bytes)
            .map_err(|e| Error::system(format!("blob {digest} is not JSON")).with_cause(e.to_string()))
    }

    /// Which image a name or ID means.
    fn resolve(&self, names: &Names, text: &str) -> Result<Option<Digest>> {
        let reference = Reference::parse(text);
        if let Ok(r) = &reference
            && let Some(id) = names.get(&r.canonical())
        {
            return Ok(Some(id.clone()));
        }
        let prefix = text.strip_prefix("sha256:").unwrap_or(text);
        let is_id = (4..=64).contains(&prefix.len()) && prefix.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
        if !is_id {
            return reference.map(|_| None);
        }
        let mut matching = record::ids(&self.root)?.into_iter().filter(|id| id.hex().starts_with(prefix));
        match (matching.next(), matching.next()) {
            (Some(_), Some(_)) => Err(Error::invalid(format!("multiple IDs found with provided prefix: {prefix}"))
                .with_hint("give more digits of the ID")),
            (found, _) => Ok(found),
        }
    }

    fn image(&self, names: &Names, id: &Digest) -> Result<Image> {
        let record = Record::load(&self.root, id)?;
        let doc = self.image_config(id).map_err(|e| {
            e.context(format!("image {}", id.short())).with_hint("its files are damaged: pull the image again")
        })?;
        Ok(assemble(names, id, record, doc))
    }

    /// The verified configuration of an image ID.
    pub(crate) fn image_config(&self, id: &Digest) -> Result<ImageConfig> {
        ImageConfig::parse(&self.read_blob(id)?)
    }

    fn lock_refs(&self) -> Result<Lock> {
        lock_file(&make_dir(&self.root.join("refs"))?.join("lock"))
    }

    /// Work in progress lives here, on the file system it will be renamed into.
    pub(crate) fn tmp(&self) -> Result<PathBuf> {
        make_dir(&self.root.join("tmp"))
    }

    /// Records an image whose content is complete, and its names. Returns it as found afterwards.
    pub(crate) fn register(&self, id: &Digest, parts: Parts, new_names: &[Reference]) -> Result<Image> {
        let _lock = self.lock_refs()?;
        // A layer that was here before was not fetched as this image has it: name the archive that
        // there is, so that it stays as long as this image.
        let blobs = self.present_blobs(&parts.diff_ids, &parts.blobs).unwrap_or(parts.blobs);
        Record::from(Parts { blobs, ..parts }).save(&self.root, id)?;
        let mut names = Names::load(&self.root)?;
        if !new_names.is_empty() {
            for name in new_names {
                names.insert(name.canonical(), id.clone());
            }
            names.save(&self.root)?;
        }
        self.image(&names, id)
    }

    /// Whether everything an image needs to run is here and sound. Layers from before the last boot
    /// are counted through (see [`snapshot::reserve`]).
    pub(crate) fn is_complete(&self, id: &Digest) -> Result<bool> {
        let Ok(doc) = self.image_config(id) else { return Ok(false) };
        let diff_ids = &doc.rootfs.diff_ids;
        let wanted: Vec<Wanted> = std::iter::zip(chain_ids(diff_ids), diff_ids)
            .map(|(chain, diff)| Wanted { chain_id: chain.to_string(), diff_id: diff.to_string() })
            .collect();
        let missing = snapshot::reserve(&self.root, &wanted, &mut |_| {})?;
        Ok(Record::load(&self.root, id).is_ok() && missing.iter().all(Option::is_none))
    }
}

fn assemble(names: &Names, id: &Digest, record: Record, doc: ImageConfig) -> Image {
    let (repo_tags, repo_digests) = names.of(id);
    let text = |digests: &[Digest]| digests.iter().map(|d| d.to_string()).collect::<Vec<_>>();
    Image {
        id: id.to_string(),
        config: doc.config,
        chain_ids: text(&chain_ids(&doc.rootfs.diff_ids)),
        diff_ids: text(&doc.rootfs.diff_ids),
        repo_tags,
        repo_digests,
        created: doc.created,
        size: record.parts.size,
        architecture: doc.architecture,
        variant: doc.variant,
        os: doc.os,
        author: doc.author,
        comment: doc.comment,
        docker_version: doc.docker_version,
        manifest: record.parts.manifest.to_string(),
    }
}

/// Docker's sentence for a name that is not here.
pub(crate) fn no_such_image(name: &str) -> Error {
    let shown = match Reference::parse(name) {
        Ok(r) => r.to_string(),
        Err(_) => name.to_owned(),
    };
    Error::not_found(format!("No such image: {shown}")).with_hint("rrun images lists what is here; rrun pull fetches")
}

/// Makes a directory of the store, for root alone: a layer holds setuid programs (CVE-2021-41091).
pub(crate) fn make_dir(path: &Path) -> Result<PathBuf> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).doing(|| format!("create {}", path.display()))?;
    Ok(path.to_owned())
}
