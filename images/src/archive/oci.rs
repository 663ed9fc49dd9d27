//! The OCI image layout: index.json leads to manifests, everything lies under its digest.

use super::bundle::Bundle;
use super::{Found, blob_name, described, document};
use crate::config::ImageConfig;
use crate::digest::Digest;
use crate::ingest::Layer;
use crate::manifest::{Descriptor, Manifest};
use crate::platform::Platform;
use crate::reference::Reference;
use plan::{Error, Result};

/// containerd's and Docker's annotation: a name in full.
const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// The specification's: a tag alone, or what skopeo and buildah were given.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The images of the layout that this machine can run.
pub(super) fn images(bundle: &Bundle) -> Result<Vec<Found>> {
    let Manifest::Index(entries) =
        Manifest::parse(&document(bundle, "index.json")?, "").map_err(|e| e.context("index.json"))?
    else {
        return Err(Error::invalid("index.json in the archive is not an index"));
    };
    let host = Platform::host();
    let runs = |d: &&Descriptor| d.platform.as_ref().is_none_or(|p| host.runs(&p.normal()) > 0);
    let mut found = Vec::new();
    for entry in entries.iter().filter(runs) {
        found.push(image(bundle, entry, &host)?);
    }
    if found.is_empty() && !entries.is_empty() {
        host.choose(&entries)?;
    }
    Ok(found)
}

fn image(bundle: &Bundle, entry: &Descriptor, host: &Platform) -> Result<Found> {
    let names = name_of(entry).into_iter().collect();
    let mut manifest_bytes = described(bundle, "manifest", entry)?;
    let mut manifest = Manifest::parse(&manifest_bytes, &entry.media_type)?;
    if let Manifest::Index(inner) = &manifest {
        let chosen = host.choose(inner)?;
        manifest_bytes = described(bundle, "manifest", chosen)?;
        manifest = Manifest::parse(&manifest_bytes, &chosen.media_type)?;
    }
    let Manifest::Image { config, layers } = manifest else {
        return Err(Error::invalid("the archive has an index of indexes of indexes"));
    };
    let config_bytes = described(bundle, "configuration", &config)?;
    let doc = ImageConfig::parse(&config_bytes)?;
    let layers = Layer::pair(&layers, &doc)?;
    let mut pieces = Vec::new();
    for layer in &layers {
        let piece = bundle.need(&blob_name(&layer.blob))?;
        if piece.size != layer.size {
            return Err(Error::invalid(format!("layer {}: the size is wrong", layer.blob.short()))
                .with_cause(format!("{} bytes are here, {} were announced", piece.size, layer.size)));
        }
        pieces.push(piece);
    }
    Ok(Found { config_bytes, manifest_bytes, layers, pieces, names })
}

/// The manifest of just this configuration and these layers, if the layout has it and all is well with it.
pub(super) fn manifest_of(bundle: &Bundle, config: &Digest, layers: &[&Digest]) -> Option<Vec<u8>> {
    bundle.locate("index.json").ok()??;
    let Manifest::Index(entries) = Manifest::parse(&document(bundle, "index.json").ok()?, "").ok()? else {
        return None;
    };
    entries.iter().find_map(|entry| {
        let bytes = described(bundle, "manifest", entry).ok()?;
        match Manifest::parse(&bytes, &entry.media_type).ok()? {
            Manifest::Image { config: c, layers: l } => {
                (c.digest == *config && l.iter().map(|l| &l.digest).eq(layers.iter().copied())).then_some(bytes)
            }
            Manifest::Index(_) => None,
        }
    })
}

/// The image's name, if the archive gives a whole one: a mere `latest` names nothing.
fn name_of(entry: &Descriptor) -> Option<Reference> {
    let name =
        entry.annotation(CONTAINERD_NAME).or_else(|| entry.annotation(REF_NAME).filter(|n| n.contains([':', '/'])))?;
    Reference::parse(name).ok().filter(|r| r.digest().is_none())
}
