//! From a stream of bytes to an installed layer, in one pass: what arrives is hashed, kept,
//! decompressed, hashed again and unpacked, a buffer at a time. Nothing becomes visible before every
//! digest and size has been verified.

mod stream;

pub(crate) use stream::{Decoder, stream, unwrap};

use crate::config::ImageConfig;
use crate::digest::{Digest, chain_ids};
use crate::layer::Applied;
use crate::manifest::Descriptor;
use crate::progress::{Progress, ProgressEvent};
use crate::snapshot::{self, Slot, Wanted};
use crate::store::Store;
use plan::{Error, Result};
use std::fs::File;
use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use stream::Unpacked;

/// Large enough that neither SHA-256 nor write(2) notices the seams.
const BUFFER: usize = 256 << 10;
/// How many layers travel and unpack at a time, as in Docker.
const WORKERS: usize = 3;

/// A layer as its manifest and configuration describe it.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    /// As it travels, usually compressed.
    pub blob: Digest,
    pub size: u64,
    /// Uncompressed.
    pub diff_id: Digest,
}

impl Layer {
    /// The layers of a manifest with their diff IDs, which only the configuration knows.
    pub fn pair(layers: &[Descriptor], doc: &ImageConfig) -> Result<Vec<Layer>> {
        let diff_ids = &doc.rootfs.diff_ids;
        if layers.len() != diff_ids.len() {
            return Err(Error::invalid("the manifest and the configuration disagree").with_cause(format!(
                "{} layers in the manifest, {} in the configuration",
                layers.len(),
                diff_ids.len()
            )));
        }
        let pairs = std::iter::zip(layers, diff_ids);
        Ok(pairs.map(|(l, d)| Layer { blob: l.digest.clone(), size: l.size, diff_id: d.clone() }).collect())
    }
}

/// Where the bytes of layers come from.
pub(crate) trait Source: Sync {
    /// The bytes of layer number `index`. `stop` is set when another layer has failed.
    fn open<'s>(&'s self, index: usize, stop: &'s AtomicBool) -> Result<Box<dyn Read + 's>>;

    /// Whether the bytes cross a network.
    fn is_remote(&self) -> bool;
}

/// Installs those of the layers (lowest first) that are missing. Returns the unpacked size of all.
pub(crate) fn install(store: &Store, layers: &[Layer], source: &dyn Source, progress: &dyn Progress) -> Result<u64> {
    let diff_ids: Vec<Digest> = layers.iter().map(|l| l.diff_id.clone()).collect();
    let chains = chain_ids(&diff_ids);
    let wanted: Vec<Wanted> = std::iter::zip(&chains, &diff_ids)
        .map(|(chain, diff)| Wanted { chain_id: chain.to_string(), diff_id: diff.to_string() })
        .collect();
    let name_of = |chain: &str| chains.iter().position(|c| c.as_str() == chain).map_or("", |i| layers[i].blob.short());
    let slots =
        snapshot::reserve(store.root(), &wanted, &mut |chain| progress.event(name_of(chain), ProgressEvent::Waiting))?;

    let mut missing = Vec::new();
    for (index, slot) in slots.into_iter().enumerate() {
        let short = layers[index].blob.short();
        match slot {
            Some(slot) => {
                progress.event(short, ProgressEvent::Waiting);
                missing.push((index, slot));
            }
            None => progress.event(short, ProgressEvent::Exists),
        }
    }
    Job { store, layers, source, progress, stop: AtomicBool::new(false), error: Mutex::new(None) }.run(missing)?;

    let mut size = 0;
    for chain in &chains {
        let record = snapshot::record(store.root(), chain.as_str())?;
        size += record.map_or(0, |r| r.size);
    }
    Ok(size)
}

/// The layers of one image on their way.
struct Job<'a> {
    store: &'a Store,
    layers: &'a [Layer],
    source: &'a dyn Source,
    progress: &'a dyn Progress,
    stop: AtomicBool,
    /// The first; what follows is only its echo.
    error: Mutex<Option<Error>>,
}

/// Layers unpacked in any order, to be installed from the lowest up.
struct Finished {
    ready: Vec<Option<(Slot, Applied)>>,
    next: usize,
}

impl Job<'_> {
    fn run(self, missing: Vec<(usize, Slot)>) -> Result<()> {
        let order: Vec<usize> = missing.iter().map(|(index, _)| *index).collect();
        let slots: Vec<Mutex<Option<Slot>>> = missing.into_iter().map(|(_, slot)| Mutex::new(Some(slot))).collect();
        let finished = Mutex::new(Finished { ready: order.iter().map(|_| None).collect(), next: 0 });
        let next = AtomicUsize::new(0);
        let work = || {
            while !self.stop.load(Ordering::Relaxed) {
                let turn = next.fetch_add(1, Ordering::Relaxed);
                let Some(slot) = slots.get(turn) else { break };
                let slot = slot.lock().unwrap_or_else(PoisonError::into_inner).take().expect("each turn comes once");
                let result = self.unpack(order[turn], &slot).and_then(|applied| {
                    let mut finished = finished.lock().unwrap_or_else(PoisonError::into_inner);
                    finished.ready[turn] = Some((slot, applied));
                    self.commit(&mut finished, &order)
                });
                if let Err(e) = result {
                    self.stop.store(true, Ordering::Relaxed);
                    self.error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(e);
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..WORKERS.min(order.len()) {
                scope.spawn(work);
            }
            work();
        });
        match self.error.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(e) => Err(e),
            None => Ok(()),
        }
    }

    fn commit(&self, finished: &mut Finished, order: &[usize]) -> Result<()> {
        while let Some((slot, applied)) = finished.ready.get_mut(finished.next).and_then(Option::take) {
            slot.commit(&applied)?;
            self.progress.event(self.layers[order[finished.next]].blob.short(), ProgressEvent::Done);
            finished.next += 1;
        }
        Ok(())
    }

    fn unpack(&self, index: usize, slot: &Slot) -> Result<Applied> {
        let layer = &self.layers[index];
        let short = layer.blob.short();
        let kept = File::open(self.store.blob_path(&layer.blob)).ok();
        let local = kept.is_some() || !self.source.is_remote();
        let tell = |done: u64| {
            let total = layer.size;
            let event = match local {
                true => ProgressEvent::Extracting { done, total },
                false => ProgressEvent::Downloading { done, total },
            };
            self.progress.event(short, event);
        };
        let (source, writer): (Box<dyn Read>, _) = match kept {
            Some(file) => (Box::new(file), None),
            None => (self.source.open(index, &self.stop)?, Some(self.store.blob_writer()?)),
        };
        let from_store = writer.is_none();
        let unpacked = stream(source, writer, Some(layer.size), slot.dir(), &tell, &self.stop)
            .and_then(|u| self.verify(layer, u))
            .map_err(|e| e.context(format!("layer {short}")));
        if unpacked.is_err() && from_store && !self.stop.load(Ordering::Relaxed) {
            // A kept blob that does not verify is damaged: the next attempt must not meet it again.
            let _ = std::fs::remove_file(self.store.blob_path(&layer.blob));
        }
        unpacked
    }

    fn verify(&self, layer: &Layer, unpacked: Unpacked) -> Result<Applied> {
        let (blob, size) = &unpacked.blob;
        if *size != layer.size {
            return Err(Error::invalid("the size is wrong")
                .with_cause(format!("{size} bytes came, {} were announced", layer.size))
                .with_hint(ALTERED));
        }
        if *blob != layer.blob {
            return Err(Error::invalid(format!("the content does not match the digest {}", layer.blob))
                .with_cause(format!("it is {blob}"))
                .with_hint(ALTERED));
        }
        let applied = unpacked.applied?;
        if unpacked.diff_id != layer.diff_id {
            return Err(Error::invalid(format!("the unpacked content does not match the diff ID {}", layer.diff_id))
                .with_cause(format!("it is {}", unpacked.diff_id))
                .with_hint("the image's configuration belongs to other layers: its maker has to fix it"));
        }
        if let Some(writer) = unpacked.writer {
            writer.commit(self.store, &layer.blob)?;
        }
        Ok(applied)
    }
}

const ALTERED: &str = "it was altered or cut on its way: try again";
