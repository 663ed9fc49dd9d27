//! Images in files: `load` reads what `docker save`, skopeo, buildah and others write, `save` writes what
//! they read, `import` makes an image of a root file system.
//!
//! A [`bundle`] is the file or directory, [`docker`] and [`oci`] the two ways to lay images out in
//! one, [`import`] and [`changes`] the making of a new image.

mod bundle;
mod changes;
mod commit;
mod docker;
mod import;
mod oci;
mod save;
#[cfg(test)]
mod tests;

pub use commit::{CommitOptions, commit};
pub use import::{ImportOptions, import};
pub use save::{Format, save};

use crate::config::ImageConfig;
use crate::digest::Digest;
use crate::ingest::{self, Layer, Source};
use crate::manifest::{Descriptor, MAX_DOCUMENT, OCI_CONFIG, compose};
use crate::progress::Progress;
use crate::reference::Reference;
use crate::store::{Image, Parts, Store};
use bundle::{Bundle, Piece};
use plan::{Error, Result};
use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

/// A stream without its compression (gzip, zstd or none), told by its first bytes.
///
/// # Errors
/// Of reading them; bzip2, xz and zip, which are not understood.
pub fn decompress<'r>(reader: impl std::io::BufRead + 'r) -> Result<Box<dyn Read + 'r>> {
    Ok(Box::new(ingest::Decoder::new(reader)?))
}

/// Keeps an image made here, of layers that are installed and whose archives are in the store.
fn keep(
    store: &Store,
    doc: ImageConfig,
    layers: Vec<Descriptor>,
    size: u64,
    name: Option<&Reference>,
) -> Result<Image> {
    let config_bytes = serde_json::to_vec(&doc).expect("plain data always serialises");
    // What we make must be something that we would take.
    ImageConfig::parse(&config_bytes)?;
    let id = Digest::of(&config_bytes);
    let blobs = layers.iter().map(|l| l.digest.clone()).collect();
    let manifest_bytes = compose(Descriptor::of(OCI_CONFIG, id.clone(), config_bytes.len() as u64), layers);
    let manifest = Digest::of(&manifest_bytes);
    store.write_blob(&id, &config_bytes)?;
    store.write_blob(&manifest, &manifest_bytes)?;
    let parts = Parts {
        manifest,
        blobs,
        diff_ids: doc.rootfs.diff_ids,
        size,
        created: doc.created,
        architecture: doc.architecture,
    };
    store.register(&id, parts, name.map_or(&[], std::slice::from_ref))
}

/// Where `load` reads from.
#[derive(Clone, Debug)]
pub enum Input {
    /// An archive (plain, gzip or zstd), a pipe, or a directory in OCI layout.
    Path(PathBuf),
    /// An archive on standard input.
    Stdin,
}

/// One thing that `load` did. Names are familiar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// The name belonged to another image, which lost it (follows as `Tagged`).
    Renamed {
        name: String,
        old_id: String,
    },
    Tagged(String),
    /// An image without a name, by ID.
    Untagged(String),
}

/// Loads every image in an archive that this machine can run. An error leaves the images before it
/// loaded and nothing of the one it concerns.
pub fn load(store: &Store, input: Input, progress: &dyn Progress) -> Result<Vec<Loaded>> {
    load_all(store, input, progress).inspect_err(|e| store.collect_after(e))
}

fn load_all(store: &Store, input: Input, progress: &dyn Progress) -> Result<Vec<Loaded>> {
    let _hold = store.hold_swept()?;
    let bundle = match input {
        Input::Path(path) => Bundle::open(store, &path),
        Input::Stdin => Bundle::stdin(store),
    }?;
    // A hybrid of `docker save` since v25 reads as both; only the older half spells names in full.
    let images = if bundle.locate("manifest.json")?.is_some() {
        docker::images(&bundle)?
    } else if bundle.locate("index.json")?.is_some() {
        oci::images(&bundle)?
    } else {
        return Err(Error::invalid("this is not an image archive")
            .with_cause("it has neither manifest.json nor index.json")
            .with_hint("a root file system becomes an image with rrun import"));
    };
    if images.is_empty() {
        return Err(Error::invalid("the archive has no images"));
    }
    let mut loaded = Vec::new();
    for image in images {
        loaded.extend(image.load(store, progress)?);
    }
    Ok(loaded)
}

/// An image in a bundle, ready to be installed.
struct Found {
    config_bytes: Vec<u8>,
    manifest_bytes: Vec<u8>,
    layers: Vec<Layer>,
    pieces: Vec<Piece>,
    names: Vec<Reference>,
}

impl Found {
    fn load(self, store: &Store, progress: &dyn Progress) -> Result<Vec<Loaded>> {
        let id = Digest::of(&self.config_bytes);
        let manifest = Digest::of(&self.manifest_bytes);
        let doc = ImageConfig::parse(&self.config_bytes)?;
        let size = ingest::install(store, &self.layers, &LocalLayers(&self.pieces), progress)?;
        store.write_blob(&id, &self.config_bytes)?;
        store.write_blob(&manifest, &self.manifest_bytes)?;
        let mut loaded = Vec::new();
        for name in &self.names {
            if let Ok(Some(old)) = store.find(&name.canonical())
                && old.id != id.as_str()
            {
                loaded.push(Loaded::Renamed { name: name.to_string(), old_id: old.id });
            }
            loaded.push(Loaded::Tagged(name.to_string()));
        }
        if self.names.is_empty() {
            loaded.push(Loaded::Untagged(id.to_string()));
        }
        let parts = Parts {
            manifest,
            blobs: self.layers.into_iter().map(|l| l.blob).collect(),
            diff_ids: doc.rootfs.diff_ids,
            size,
            created: doc.created,
            architecture: doc.architecture,
        };
        store.register(&id, parts, &self.names)?;
        Ok(loaded)
    }
}

struct LocalLayers<'a>(&'a [Piece]);

impl Source for LocalLayers<'_> {
    fn open<'s>(&'s self, index: usize, _stop: &'s AtomicBool) -> Result<Box<dyn Read + 's>> {
        Ok(Box::new(self.0[index].reader()))
    }

    fn is_remote(&self) -> bool {
        false
    }
}

/// Reads a JSON document out of a bundle.
fn document(bundle: &Bundle, name: &str) -> Result<Vec<u8>> {
    let piece = bundle.need(name)?;
    if piece.size > MAX_DOCUMENT {
        return Err(Error::invalid(format!("{name} in the archive is larger than 4 MiB")));
    }
    piece.bytes()
}

/// A document that a descriptor names, verified.
fn described(bundle: &Bundle, what: &str, descriptor: &Descriptor) -> Result<Vec<u8>> {
    let bytes = document(bundle, &blob_name(&descriptor.digest))?;
    descriptor.verify(what, &bytes)?;
    Ok(bytes)
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}
