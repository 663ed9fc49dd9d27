//! An image of one layer from the archive of a root file system.

use super::{changes, keep};
use crate::config::{Config, History, ImageConfig, RootFs};
use crate::ingest;
use crate::manifest::{Descriptor, OCI_LAYER};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::snapshot;
use crate::store::{Image, Store};
use plan::{Error, Result};
use std::io::Read;
use std::sync::atomic::AtomicBool;

/// What the new image says of itself.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    pub reference: Option<Reference>,
    /// The comment in its history.
    pub message: Option<String>,
    /// Dockerfile instructions: `CMD ["sh"]`.
    pub changes: Vec<String>,
    /// Of the programs inside; this machine's when absent.
    pub platform: Option<String>,
}

/// Makes an image of a tar archive (plain, gzip or zstd).
pub fn import(store: &Store, reader: impl Read, options: &ImportOptions) -> Result<Image> {
    if options.reference.as_ref().is_some_and(|r| r.digest().is_some()) {
        return Err(
            Error::invalid("cannot import digest reference").with_hint("a digest follows from the content; give a tag")
        );
    }
    let config = changes::apply(Config::default(), &options.changes)?;
    let platform = options.platform.as_deref().map_or(Ok(Platform::host()), Platform::parse)?;
    let _hold = store.hold_swept()?;
    let staged = snapshot::stage(store.root())?;
    let never = AtomicBool::new(false);
    let unpacked = ingest::stream(reader, Some(store.blob_writer()?), None, staged.dir(), &|_| {}, &never)?;
    let applied = unpacked.applied?;
    let (blob, blob_size) = unpacked.blob;
    if blob_size == 0 {
        return Err(Error::invalid("the archive is empty"));
    }
    let diff_id = unpacked.diff_id;
    staged.commit(diff_id.as_str(), &applied)?;
    if let Some(writer) = unpacked.writer {
        writer.commit(store, &blob)?;
    }

    let created = plan::time::now_rfc3339();
    let comment = options.message.clone().unwrap_or_else(|| "Imported from -".to_owned());
    let doc = ImageConfig {
        created: created.clone(),
        author: String::new(),
        comment: comment.clone(),
        docker_version: String::new(),
        architecture: platform.architecture,
        variant: platform.variant,
        os: platform.os,
        config,
        rootfs: RootFs { kind: "layers".to_owned(), diff_ids: vec![diff_id.clone()] },
        history: vec![History { created, comment, ..History::default() }],
    };
    let size = snapshot::record(store.root(), diff_id.as_str())?.map_or(applied.bytes, |r| r.size);
    let layer = Descriptor::of(&format!("{OCI_LAYER}{}", unpacked.compression), blob, blob_size);
    keep(store, doc, vec![layer], size, options.reference.as_ref())
}
