//! From a stream of bytes to an installed layer, in one pass: what arrives is hashed, kept,
//! decompressed, hashed again and unpacked, a buffer at a time. Nothing becomes visible before every
//! digest and size has been verified.

use crate::config::ImageConfig;
use crate::digest::{Digest, Hashing, chain_ids};
use crate::layer::{self, Applied, Limits};
use crate::manifest::Descriptor;
use crate::progress::{Progress, ProgressEvent};
use crate::snapshot::{self, Slot, Wanted};
use crate::store::{BlobWriter, Store};
use plan::{Error, Kind, Result, ResultExt};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Large enough that neither SHA-256 nor write(2) notices the seams.
const BUFFER: usize = 256 << 10;
/// How many layers travel and unpack at a time, as in Docker.
const WORKERS: usize = 3;
/// How often progress is told.
const TELL: u64 = 512 << 10;

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

/// What [`stream`] did, not yet verified.
pub(crate) struct Unpacked {
    /// An error means that the archive inside is broken; the digests below say whose fault that is.
    pub applied: Result<Applied>,
    /// Digest and length of what arrived.
    pub blob: (Digest, u64),
    pub diff_id: Digest,
    /// As a media type says it: see [`Decoder::suffix`].
    pub compression: &'static str,
    /// The bytes that arrived, still without a name.
    pub writer: Option<BlobWriter>,
}

/// Unpacks `source` (tar, maybe compressed) into the empty directory `dir`, keeping what arrives in
/// `writer`. Reads at most `limit` bytes and one.
pub(crate) fn stream(
    source: impl Read,
    writer: Option<BlobWriter>,
    limit: Option<u64>,
    dir: &Path,
    tell: &dyn Fn(u64),
    stop: &AtomicBool,
) -> Result<Unpacked> {
    let source = source.take(limit.map_or(u64::MAX, |n| n.saturating_add(1)));
    let tee = Tee { source: Hashing::new(source), writer, tell, done: 0, told: 0, stop };
    let decoder = Decoder::new(BufReader::with_capacity(BUFFER, tee))?;
    let compression = decoder.suffix();
    let mut tar = BufReader::with_capacity(BUFFER, Hashing::new(decoder));
    let applied = layer::apply(&mut tar, dir, &Limits::default());
    let (decoder, diff_id) = tar.into_inner().into_parts();
    let mut tee = decoder.into_inner();
    if let Err(e) = &applied
        && e.kind != Kind::Invalid
    {
        return Err(e.clone());
    }
    // Also of broken data: the digest of the whole tells whether it broke on its way.
    io::copy(&mut tee, &mut io::sink()).map_err(unwrap)?;
    let tee = tee.into_inner();
    let (digest, size) = tee.source.finish();
    Ok(Unpacked { applied, blob: (digest, size), diff_id, compression, writer: tee.writer })
}

/// An error of ours that travelled inside an [`io::Error`].
fn unwrap(e: io::Error) -> Error {
    match e.downcast::<Error>() {
        Ok(ours) => ours,
        Err(e) => Error::io("read the layer", &e),
    }
}

/// Hashes, counts and keeps what passes.
struct Tee<'a, R> {
    source: Hashing<R>,
    writer: Option<BlobWriter>,
    tell: &'a dyn Fn(u64),
    done: u64,
    told: u64,
    stop: &'a AtomicBool,
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other(Error::system("stopped because another layer failed")));
        }
        let n = self.source.read(buf)?;
        if let Some(writer) = &mut self.writer {
            writer.write_all(&buf[..n]).doing(|| "keep the layer").map_err(io::Error::other)?;
        }
        self.done += n as u64;
        if self.done - self.told >= TELL || (n == 0 && self.done > self.told) {
            self.told = self.done;
            (self.tell)(self.done);
        }
        Ok(n)
    }
}

/// Decompression, chosen by the first bytes: media types lie.
pub(crate) enum Decoder<R: BufRead> {
    Plain(R),
    /// Of any number of members (pigz, eStargz).
    Gzip(Box<flate2::bufread::MultiGzDecoder<R>>),
    /// Of any number of frames.
    Zstd(Box<zstd::Decoder<'static, R>>),
}

impl<R: BufRead> Decoder<R> {
    pub fn new(mut source: R) -> Result<Decoder<R>> {
        let head = source.fill_buf().map_err(unwrap)?;
        if head.starts_with(&[0x1f, 0x8b]) {
            return Ok(Decoder::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(source))));
        }
        // A zstd frame, or a skippable one before it.
        let skippable = head.len() >= 4 && head[0] & 0xf0 == 0x50 && head[1..4] == [0x2a, 0x4d, 0x18];
        if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) || skippable {
            let decoder = zstd::Decoder::with_buffer(source).doing(|| "start zstd decompression")?;
            return Ok(Decoder::Zstd(Box::new(decoder)));
        }
        for (magic, program) in [(&b"BZh"[..], "bunzip2"), (b"\xfd7zXZ\0", "unxz"), (b"PK\x03\x04", "unzip")] {
            if head.starts_with(magic) {
                return Err(Error::invalid("the archive is neither tar nor compressed with gzip or zstd")
                    .with_hint(format!("unpack it first: {program}")));
            }
        }
        Ok(Decoder::Plain(source))
    }

    /// What a media type appends.
    pub fn suffix(&self) -> &'static str {
        match self {
            Decoder::Plain(_) => "",
            Decoder::Gzip(_) => "+gzip",
            Decoder::Zstd(_) => "+zstd",
        }
    }

    pub fn into_inner(self) -> R {
        match self {
            Decoder::Plain(r) => r,
            Decoder::Gzip(d) => d.into_inner(),
            Decoder::Zstd(d) => d.finish(),
        }
    }
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Decoder::Plain(r) => r.read(buf),
            Decoder::Gzip(d) => d.read(buf),
            Decoder::Zstd(d) => d.read(buf),
        }
    }
}
