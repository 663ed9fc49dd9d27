//! The pipe itself: tee, decompression, and the hand-over to the thread that unpacks.

use super::BUFFER;
use crate::digest::{Digest, Hashing};
use crate::layer::{self, Applied, Limits};
use crate::manifest::printable;
use crate::store::BlobWriter;
use plan::{Error, Kind, Result, ResultExt};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};

/// How often progress is told.
const TELL: u64 = 512 << 10;
/// Chunks on their way from decompression to unpacking.
const CHUNKS: usize = 4;

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
///
/// Two threads: the caller's reads, hashes and decompresses, the other makes files, which is mostly
/// the kernel's work. An image of one large layer so uses two processors.
pub(crate) fn stream(
    source: impl Read,
    writer: Option<BlobWriter>,
    limit: Option<u64>,
    dir: &Path,
    tell: &dyn Fn(u64),
    stop: &AtomicBool,
) -> Result<Unpacked> {
    let source = source.take(limit.map_or(u64::MAX, |n| n.saturating_add(1)));
    let tee = Tee { source: Hashing::new(source), writer, tell, done: 0, told: 0, failed: false, stop };
    let decoder = Decoder::new(BufReader::with_capacity(BUFFER, tee))?;
    let compression = decoder.suffix();
    let mut tar = Hashing::new(decoder);
    let applied = std::thread::scope(|scope| {
        let (full, filled) = sync_channel(CHUNKS);
        let (emptied, empty) = channel();
        let unpacker = scope.spawn(move || {
            layer::apply(&mut Chunks { filled, emptied, chunk: Vec::new(), done: 0 }, dir, &Limits::default())
        });
        // Ends with the data, or when the unpacker has given up and nobody takes the next chunk.
        while let Some(chunk) = next_chunk(&mut tar, &empty)
            && full.send(chunk).is_ok()
        {}
        drop(full);
        unpacker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    let (decoder, diff_id) = tar.into_parts();
    let mut tee = decoder.into_inner();
    if let Err(e) = &applied
        && (e.kind != Kind::Invalid || tee.get_ref().failed)
    {
        return Err(e.clone());
    }
    // Also of broken data: the digest of the whole tells whether it broke on its way.
    io::copy(&mut tee, &mut io::sink()).map_err(unwrap)?;
    let tee = tee.into_inner();
    let (digest, size) = tee.source.finish();
    Ok(Unpacked { applied, blob: (digest, size), diff_id, compression, writer: tee.writer })
}

/// Fills a buffer, of those that came back if there is one. `None` at the end of the data; an error
/// is a chunk too, and the last.
fn next_chunk(tar: &mut impl Read, empty: &Receiver<Vec<u8>>) -> Option<io::Result<Vec<u8>>> {
    let mut chunk = empty.try_recv().unwrap_or_default();
    chunk.clear();
    match tar.take(BUFFER as u64).read_to_end(&mut chunk) {
        Ok(0) => None,
        Ok(_) => Some(Ok(chunk)),
        Err(e) => Some(Err(e)),
    }
}

/// The unpacker's end of the pipe.
struct Chunks {
    filled: Receiver<io::Result<Vec<u8>>>,
    emptied: Sender<Vec<u8>>,
    chunk: Vec<u8>,
    done: usize,
}

impl Read for Chunks {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.done == self.chunk.len() {
            // The other side is gone: all has been read.
            let Ok(next) = self.filled.recv() else { return Ok(0) };
            let used = std::mem::replace(&mut self.chunk, next?);
            self.done = 0;
            // Nobody needs it when the last chunk has been filled.
            let _ = self.emptied.send(used);
        }
        let n = buf.len().min(self.chunk.len() - self.done);
        buf[..n].copy_from_slice(&self.chunk[self.done..][..n]);
        self.done += n;
        Ok(n)
    }
}

/// An error of ours that travelled inside an [`io::Error`].
pub(crate) fn unwrap(e: io::Error) -> Error {
    match e.downcast::<Error>() {
        Ok(ours) => ours,
        Err(e) => Error::io("read the archive", &e),
    }
}

/// Hashes, counts and keeps what passes.
struct Tee<'a, R> {
    source: Hashing<R>,
    writer: Option<BlobWriter>,
    tell: &'a dyn Fn(u64),
    done: u64,
    told: u64,
    /// The source gave up: there is no rest to read.
    failed: bool,
    stop: &'a AtomicBool,
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other(Error::system("stopped because another layer failed")));
        }
        let n = self.source.read(buf).inspect_err(|e| self.failed = e.kind() != io::ErrorKind::Interrupted)?;
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
        let result = match self {
            Decoder::Plain(r) => return r.read(buf),
            Decoder::Gzip(d) => d.read(buf),
            Decoder::Zstd(d) => d.read(buf),
        };
        // Neither an error of ours from below nor the kernel's: the compressed data itself is bad.
        result.map_err(|e| match e.raw_os_error().is_some() || e.get_ref().is_some_and(|inner| inner.is::<Error>()) {
            true => e,
            false => {
                io::Error::other(Error::invalid("the compressed data is damaged").with_cause(printable(&e.to_string())))
            }
        })
    }
}
