//! What of an image can travel: its layers as archives, and a manifest that names just those.

use super::record::{self, Record};
use super::{Image, Store};
use crate::digest::Digest;
use crate::ingest::Decoder;
use crate::manifest::{Descriptor, Manifest, OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, compose};
use plan::{Error, Result, ResultExt};
use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;

/// An image as it is saved and pushed.
pub(crate) struct Kept {
    pub manifest: Vec<u8>,
    /// Of the manifest.
    pub media_type: String,
    pub config: Descriptor,
    /// Lowest first; each is in the store.
    pub layers: Vec<Descriptor>,
}

impl Store {
    /// The image as it came, byte for byte, if each of its layers was kept as it came. Else with the
    /// archives that were kept of the same layers: an image whose layer was here already, differently
    /// compressed, was not fetched a second time.
    pub(crate) fn kept(&self, image: &Image) -> Result<Kept> {
        let id = Digest::parse(&image.id)?;
        let record = Record::load(self.root(), &id)?;
        let manifest = self.read_blob(&record.parts.manifest)?;
        let Manifest::Image { config, layers } = Manifest::parse(&manifest, "")? else {
            return Err(Error::system(format!("the manifest of image {} is an index", id.short())));
        };
        let as_came = layers.iter().map(|l| &l.digest).eq(record.parts.blobs.iter());
        if as_came && layers.iter().all(|l| self.blob_path(&l.digest).exists()) {
            let media_type = serde_json::from_slice::<serde_json::Value>(&manifest)
                .ok()
                .and_then(|m| m["mediaType"].as_str().map(str::to_owned))
                .unwrap_or_else(|| OCI_MANIFEST.to_owned());
            return Ok(Kept { manifest, media_type, config, layers });
        }
        let blobs = self.present_blobs(&record.parts.diff_ids, &record.parts.blobs)?;
        let layers: Vec<Descriptor> = blobs.iter().map(|b| self.describe_layer(b)).collect::<Result<_>>()?;
        let config = Descriptor { media_type: OCI_CONFIG.to_owned(), ..config };
        let manifest = compose(config.clone(), layers.clone());
        Ok(Kept { manifest, media_type: OCI_MANIFEST.to_owned(), config, layers })
    }

    /// For each diff ID an archive that is in the store: the wanted one, or another image's of the same
    /// layer.
    ///
    /// # Errors
    /// A layer of which no archive is left.
    pub(super) fn present_blobs(&self, diff_ids: &[Digest], wanted: &[Digest]) -> Result<Vec<Digest>> {
        let mut others: Option<HashMap<Digest, Digest>> = None;
        let pairs = std::iter::zip(diff_ids, wanted);
        pairs
            .map(|(diff_id, blob)| {
                if self.blob_path(blob).exists() {
                    return Ok(blob.clone());
                }
                if others.is_none() {
                    others = Some(self.blobs_by_diff_id()?);
                }
                others.as_ref().and_then(|o| o.get(diff_id)).cloned().ok_or_else(|| {
                    Error::system(format!("the archive of layer {} was not kept", diff_id.short()))
                        .with_hint("remove the image and pull it again")
                })
            })
            .collect()
    }

    fn blobs_by_diff_id(&self) -> Result<HashMap<Digest, Digest>> {
        let mut found = HashMap::new();
        for id in record::ids(self.root())? {
            let Ok(record) = Record::load(self.root(), &id) else { continue };
            for (diff_id, blob) in std::iter::zip(record.parts.diff_ids, record.parts.blobs) {
                if !found.contains_key(&diff_id) && self.blob_path(&blob).exists() {
                    found.insert(diff_id, blob);
                }
            }
        }
        Ok(found)
    }

    fn describe_layer(&self, blob: &Digest) -> Result<Descriptor> {
        let path = self.blob_path(blob);
        let doing = || format!("read {}", path.display());
        let file = File::open(&path).doing(doing)?;
        let size = file.metadata().doing(doing)?.len();
        let suffix = Decoder::new(BufReader::new(file))?.suffix();
        Ok(Descriptor::of(&format!("{OCI_LAYER}{suffix}"), blob.clone(), size))
    }
}
