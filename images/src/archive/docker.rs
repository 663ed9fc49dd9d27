//! The layout of `docker save`: manifest.json lists images with the names of their pieces.

use super::bundle::{Bundle, Piece};
use super::{Found, document, oci};
use crate::config::ImageConfig;
use crate::digest::{Digest, Hashing};
use crate::ingest::{Decoder, Layer};
use crate::manifest::{Descriptor, OCI_CONFIG, OCI_LAYER, compose, printable};
use crate::reference::Reference;
use plan::{Error, Result, ResultExt};
use serde::Deserialize;
use std::io::Read;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// All images of the archive.
pub(super) fn images(bundle: &Bundle) -> Result<Vec<Found>> {
    let entries: Vec<Entry> = serde_json::from_slice(&document(bundle, "manifest.json")?)
        .map_err(|e| Error::invalid("manifest.json in the archive is invalid").with_cause(e.to_string()))?;
    entries.iter().map(|entry| image(bundle, entry)).collect()
}

fn image(bundle: &Bundle, entry: &Entry) -> Result<Found> {
    let config_bytes = document(bundle, &entry.config)?;
    let doc = ImageConfig::parse(&config_bytes).map_err(|e| e.context(printable(&entry.config)))?;
    let names = entry.repo_tags.iter().flatten().map(|name| tag(name)).collect::<Result<Vec<_>>>()?;
    let files: Vec<&String> = entry.layers.iter().flatten().collect();
    if files.len() != doc.rootfs.diff_ids.len() {
        return Err(Error::invalid(format!(
            "invalid manifest, layers length mismatch: expected {}, got {}",
            doc.rootfs.diff_ids.len(),
            files.len()
        )));
    }
    let mut layers = Vec::new();
    let mut pieces = Vec::new();
    let mut descriptors = Vec::new();
    for (file, diff_id) in std::iter::zip(files, doc.rootfs.diff_ids) {
        let piece = bundle.need(file)?;
        let (media_type, blob) = identify(&piece, file, &diff_id)?;
        descriptors.push(Descriptor::of(&media_type, blob.clone(), piece.size));
        layers.push(Layer { blob, size: piece.size, diff_id });
        pieces.push(piece);
    }
    let config = Descriptor::of(OCI_CONFIG, Digest::of(&config_bytes), config_bytes.len() as u64);
    // The OCI half of a hybrid has the manifest as the image's maker wrote it.
    let blobs: Vec<&Digest> = layers.iter().map(|l| &l.blob).collect();
    let manifest_bytes =
        oci::manifest_of(bundle, &config.digest, &blobs).unwrap_or_else(|| compose(config, descriptors));
    Ok(Found { manifest_bytes, config_bytes, layers, pieces, names })
}

/// Such archives name layers as they like; a plain tar is its own diff ID, anything else is hashed.
fn identify(piece: &Piece, file: &str, diff_id: &Digest) -> Result<(String, Digest)> {
    let mut head = Vec::new();
    piece.reader().take(8).read_to_end(&mut head).doing(|| "read the archive")?;
    let suffix = Decoder::new(head.as_slice())?.suffix();
    if suffix.is_empty() {
        return Ok((OCI_LAYER.to_owned(), diff_id.clone()));
    }
    let digest = match file.strip_prefix("blobs/sha256/").and_then(|hex| Digest::parse(&format!("sha256:{hex}")).ok()) {
        Some(named) => named,
        None => {
            let mut reader = Hashing::new(piece.reader());
            let mut buffer = vec![0u8; 256 << 10];
            while reader.read(&mut buffer).doing(|| "read the archive")? > 0 {}
            reader.finish().0
        }
    };
    Ok((format!("{OCI_LAYER}{suffix}"), digest))
}

/// A name that an archive may give: with a tag, and without a digest, which it could only claim.
fn tag(name: &str) -> Result<Reference> {
    let r = Reference::parse(name).map_err(|e| e.context("the archive names an image wrongly"))?;
    match r.digest() {
        None => Ok(r),
        Some(_) => Err(Error::invalid(format!("the archive names an image by digest: {r}"))),
    }
}
