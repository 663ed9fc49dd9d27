//! A blob as one unbroken stream over connections that may break.

use super::errors::explain;
use super::http::{Ask, Client, Failure, MAX_REPLY, SLOWEST};
use crate::reference::Reference;
use plan::{Error, Result};
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use ureq::BodyReader;
use ureq::http::header;

/// Bytes after which a connection counts as good again.
const PROGRESS: u64 = 1 << 20;

/// Reads `size` bytes; a broken connection is taken up where it broke. The caller verifies the
/// digest, which covers the seams.
pub(super) struct BlobReader<'a> {
    client: &'a Client<'a>,
    reference: &'a Reference,
    path: String,
    /// The layer's short ID, for progress.
    short: String,
    size: u64,
    offset: u64,
    body: Option<BodyReader<'static>>,
    failures: u32,
    /// Where the last failure was.
    failed_at: u64,
    /// Time spent waiting, and bytes that came, in the present period of
    /// [`super::http::Patience::crawl`]. Time in which we did not read is not the registry's.
    period: (Duration, u64),
    stop: &'a AtomicBool,
}

impl<'a> BlobReader<'a> {
    pub fn new(
        client: &'a Client<'a>,
        reference: &'a Reference,
        path: String,
        short: &str,
        size: u64,
        stop: &'a AtomicBool,
    ) -> BlobReader<'a> {
        BlobReader {
            client,
            reference,
            path,
            short: short.to_owned(),
            size,
            offset: 0,
            body: None,
            failures: 0,
            failed_at: 0,
            period: (Duration::ZERO, 0),
            stop,
        }
    }

    fn connect(&mut self) -> Result<BodyReader<'static>, Failure> {
        let response = self.client.ask(&Ask::get(&self.path, "*/*", self.offset))?;
        let skip = match response.status().as_u16() {
            // The server does not know ranges: pass over what we have.
            200 => self.offset,
            206 if self.offset > 0 => {
                let range = response.headers().get(header::CONTENT_RANGE).and_then(|v| v.to_str().ok()).unwrap_or("");
                if !range.starts_with(&format!("bytes {}-", self.offset)) {
                    return Err(Error::system("the registry sent another part of the layer than asked for").into());
                }
                0
            }
            _ => return Err(explain(self.reference, None, &self.client.read_whole(response, MAX_REPLY)?).into()),
        };
        let body = response.into_body();
        let wanted = self.size - self.offset + skip;
        if let Some(length) = body.content_length()
            && length != wanted
        {
            return Err(Error::invalid("the size is wrong")
                .with_cause(format!("the registry offers {length} bytes, the manifest announces {wanted}"))
                .into());
        }
        let mut reader = body.into_reader();
        match io::copy(&mut (&mut reader).take(skip), &mut io::sink()) {
            Ok(n) if n == skip => Ok(reader),
            Ok(_) => Err(self.client.broken(io::ErrorKind::UnexpectedEof.into())),
            Err(e) => Err(self.client.broken(e)),
        }
    }

    fn attempt(&mut self, buf: &mut [u8]) -> Result<usize, Failure> {
        if self.body.is_none() {
            self.body = Some(self.connect()?);
            self.period = (Duration::ZERO, 0);
        }
        let body = self.body.as_mut().expect("connected above");
        let left = self.size - self.offset;
        if left == 0 {
            // One byte more would be one too many: hand it on, the size check names it.
            return body.read(&mut buf[..1]).map_err(|e| self.client.broken(e));
        }
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        let before = Instant::now();
        let n = match body.read(&mut buf[..most]) {
            Ok(0) => return Err(self.client.broken(io::ErrorKind::UnexpectedEof.into())),
            Ok(n) => n,
            Err(e) => return Err(self.client.broken(e)),
        };
        self.period.0 += before.elapsed();
        self.period.1 += n as u64;
        if self.period.0 > self.client.patience.crawl {
            if self.period.1 < SLOWEST {
                return Err(self.client.too_slow());
            }
            self.period = (Duration::ZERO, 0);
        }
        self.offset += n as u64;
        Ok(n)
    }
}

impl Read for BlobReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        loop {
            let failure = match self.attempt(buf) {
                Ok(n) => return Ok(n),
                Err(failure) => failure,
            };
            self.body = None;
            if self.offset == self.size {
                // All is here; only the farewell went wrong.
                return Ok(0);
            }
            if self.offset - self.failed_at >= PROGRESS {
                self.failures = 0;
            }
            self.failed_at = self.offset;
            self.failures += 1;
            self.client.pause(&self.short, self.failures, failure, Some(self.stop)).map_err(io::Error::other)?;
            if self.stop.load(Ordering::Relaxed) {
                return Err(io::Error::other(Error::system("stopped because another layer failed")));
            }
        }
    }
}
