//! An image of another one and a layer on top: what `commit` makes of a container.

use super::{changes, keep};
use crate::config::{Config, History};
use crate::digest::{Digest, Hashing};
use crate::ingest::{self, Layer, Source};
use crate::manifest::{Descriptor, OCI_LAYER};
use crate::progress::Silent;
use crate::reference::Reference;
use crate::store::{Image, Store};
use flate2::Compression;
use flate2::write::GzEncoder;
use plan::{Error, Result, ResultExt};
use std::io::{Read, Write};
use std::sync::atomic::AtomicBool;

/// What the new image says of itself.
#[derive(Clone, Debug, Default)]
pub struct CommitOptions {
    pub reference: Option<Reference>,
    pub author: String,
    /// The comment in its history.
    pub message: String,
    /// Dockerfile instructions over `config`: `CMD ["sh"]`.
    pub changes: Vec<String>,
    /// What the container ran with.
    pub config: Config,
    /// The command that made the layer, for its history.
    pub created_by: String,
}

/// Makes an image of `parent` and the uncompressed tar stream of a layer.
///
/// # Errors
/// A parent whose files are damaged, a stream that is no layer, a reference with a digest.
pub fn commit(store: &Store, parent: &Image, mut layer: impl Read, options: &CommitOptions) -> Result<Image> {
    if options.reference.as_ref().is_some_and(|r| r.digest().is_some()) {
        return Err(Error::invalid("refusing to create a tag with a digest reference")
            .with_hint("a digest follows from the content; give a tag"));
    }
    let _hold = store.hold_swept()?;
    let parent_id = Digest::parse(&parent.id)?;
    let mut doc = store.image_config(&parent_id)?;
    doc.config = changes::apply(options.config.clone(), &options.changes)?;

    // The archive comes to rest in the store before it is unpacked: its diff ID is known only at its end.
    let writer = store.blob_writer()?;
    let mut blob = Hashed { inner: writer, hash: sha2::Digest::new(), bytes: 0 };
    let mut source = Hashing::new(&mut layer);
    let mut encoder = GzEncoder::new(&mut blob, Compression::fast());
    let doing = || "keep the layer";
    std::io::copy(&mut source, &mut encoder).map_err(ingest::unwrap).map_err(|e| e.context(doing()))?;
    encoder.finish().doing(doing)?;
    let (diff_id, _) = source.finish();
    let (writer, digest, size) = blob.finish();
    writer.commit(store, &digest)?;

    let mut kept = store.kept(parent)?;
    let mut layers: Vec<Layer> = std::iter::zip(&kept.layers, &doc.rootfs.diff_ids)
        .map(|(l, diff_id)| Layer { blob: l.digest.clone(), size: l.size, diff_id: diff_id.clone() })
        .collect();
    layers.push(Layer { blob: digest.clone(), size, diff_id: diff_id.clone() });
    let unpacked = ingest::install(store, &layers, &Here, &Silent)?;

    let created = plan::time::now_rfc3339();
    doc.rootfs.diff_ids.push(diff_id);
    doc.history.push(History {
        created: created.clone(),
        created_by: options.created_by.clone(),
        author: options.author.clone(),
        comment: options.message.clone(),
        empty_layer: false,
    });
    (doc.created, doc.author, doc.comment) = (created, options.author.clone(), options.message.clone());
    kept.layers.push(Descriptor::of(&format!("{OCI_LAYER}+gzip"), digest, size));
    keep(store, doc, kept.layers, unpacked, options.reference.as_ref())
}

/// All archives are in the store already.
struct Here;

impl Source for Here {
    fn open<'s>(&'s self, _index: usize, _stop: &'s AtomicBool) -> Result<Box<dyn Read + 's>> {
        Err(Error::system("a layer of the image is neither unpacked nor kept as an archive")
            .with_hint("remove the image and pull it again"))
    }

    fn is_remote(&self) -> bool {
        false
    }
}

/// Hashes and counts what is written.
struct Hashed<W> {
    inner: W,
    hash: sha2::Sha256,
    bytes: u64,
}

impl<W> Hashed<W> {
    fn finish(self) -> (W, Digest, u64) {
        (self.inner, Digest::from_hash(self.hash), self.bytes)
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        let n = self.inner.write(buf)?;
        sha2::Digest::update(&mut self.hash, &buf[..n]);
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}
