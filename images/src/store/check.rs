//! Whether the store holds what its names promise.

use super::Store;
use super::record::{self, Record};
use crate::digest::{Digest, Hashing, chain_ids};
use crate::{layer, snapshot};
use plan::{Result, ResultExt};
use std::collections::HashSet;
use std::fs::File;
use std::io::Read;

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Short ID of an image that has it.
    pub image: String,
    pub what: String,
    /// It was thrown away, so that the next pull fetches it.
    pub repaired: bool,
}

impl Store {
    /// Hashes every blob and counts through every layer that images refer to. With `repair`, damaged
    /// blobs are thrown away; layers stay, since containers may be running on them.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn check(&self, repair: bool) -> Result<Vec<Damage>> {
        let _hold = self.hold()?;
        let mut damages = Vec::new();
        let mut seen: HashSet<Digest> = HashSet::new();
        for id in record::ids(self.root())? {
            let image = id.short().to_owned();
            let mut found = |what: String, repaired| {
                damages.push(Damage { what: format!("image {image}: {what}"), image: image.clone(), repaired });
            };
            let parts = match Record::load(self.root(), &id) {
                Ok(record) => record.parts,
                Err(e) => {
                    found(e.to_string(), false);
                    continue;
                }
            };
            let documents = [(&id, true), (&parts.manifest, true)];
            let layers = parts.blobs.iter().map(|b| (b, false));
            for (blob, needed) in documents.into_iter().chain(layers) {
                if !seen.insert(blob.clone()) {
                    continue;
                }
                match self.verify(blob) {
                    Ok(Some(true)) => {}
                    Ok(None) if !needed => {}
                    Ok(None) => found(format!("{blob} is missing"), false),
                    Ok(Some(false)) => {
                        let repaired = repair && std::fs::remove_file(self.blob_path(blob)).is_ok();
                        found(format!("the content of {blob} does not match its name"), repaired);
                    }
                    Err(e) => found(e.to_string(), false),
                }
            }
            for chain in chain_ids(&parts.diff_ids) {
                // A first layer's chain ID is its diff ID, which may be its blob's name too.
                if let Some(what) = self.damage_of_layer(&chain)? {
                    found(what, false);
                }
            }
        }
        Ok(damages)
    }

    /// `None`: it is not there.
    fn verify(&self, blob: &Digest) -> Result<Option<bool>> {
        let path = self.blob_path(blob);
        let file = match File::open(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.doing(|| format!("open {}", path.display()))?,
        };
        let mut reader = Hashing::new(file);
        let mut buffer = vec![0u8; 256 << 10];
        while reader.read(&mut buffer).doing(|| format!("read {}", path.display()))? > 0 {}
        Ok(Some(reader.finish().0 == *blob))
    }

    fn damage_of_layer(&self, chain: &Digest) -> Result<Option<String>> {
        let Some(record) = snapshot::record(self.root(), chain.as_str())? else {
            return Ok(Some(format!("layer {} is not there", chain.short())));
        };
        let dir = snapshot::layers_dir(self.root()).join(snapshot::dir_name(chain.as_str()));
        let (files, bytes) = layer::measure(&dir)?;
        let sound = record.holds(files, bytes);
        Ok((!sound).then(|| format!("layer {} has lost or gained files: {}", chain.short(), dir.display())))
    }
}
