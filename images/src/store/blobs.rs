//! Files named by their own SHA-256.

use super::{Store, make_dir};
use crate::digest::Digest;
use crate::manifest::MAX_DOCUMENT;
use plan::{Error, Result, ResultExt};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

impl Store {
    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    /// A document's bytes, verified: a flipped bit shows here, not as a strange container.
    pub(crate) fn read_blob(&self, digest: &Digest) -> Result<Vec<u8>> {
        let path = self.blob_path(digest);
        let file = File::open(&path).doing(|| format!("open {}", path.display()))?;
        // One read for most: a start waits for this.
        let mut bytes = Vec::with_capacity(8 << 10);
        file.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes).doing(|| format!("read {}", path.display()))?;
        match Digest::of(&bytes) == *digest {
            true => Ok(bytes),
            false => Err(Error::system(format!("{} is damaged", path.display()))
                .with_cause("its content does not match its name")
                .with_hint("pull the image again")),
        }
    }

    /// Stores a verified document, unless it is here and sound.
    pub(crate) fn write_blob(&self, digest: &Digest, bytes: &[u8]) -> Result<()> {
        if self.read_blob(digest).is_ok() {
            return Ok(());
        }
        let mut writer = self.blob_writer()?;
        writer.write_all(bytes).doing(|| format!("write {}", writer.path.display()))?;
        writer.commit(self, digest)
    }

    pub(crate) fn blob_writer(&self) -> Result<BlobWriter> {
        // Process and counter make the name unique; O_EXCL proves it.
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let n = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path = self.tmp()?.join(format!("blob-{}-{n}", std::process::id()));
        // A leftover of a killed process that had our number.
        let _ = std::fs::remove_file(&path);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .doing(|| format!("create {}", path.display()))?;
        Ok(BlobWriter { file, path, committed: false })
    }
}

/// A blob in the making, removed when dropped before [`BlobWriter::commit`].
pub(crate) struct BlobWriter {
    file: File,
    path: PathBuf,
    committed: bool,
}

impl BlobWriter {
    /// Gives the file its name. The caller has verified that the content hashes to it.
    pub fn commit(mut self, store: &Store, digest: &Digest) -> Result<()> {
        make_dir(&store.root.join("blobs/sha256"))?;
        let to = store.blob_path(digest);
        std::fs::rename(&self.path, &to).doing(|| format!("rename {} to {}", self.path.display(), to.display()))?;
        self.committed = true;
        Ok(())
    }

    /// The bytes as a nameless file, which vanishes with its descriptor.
    pub fn into_anonymous(self) -> Result<File> {
        self.file.try_clone().doing(|| format!("duplicate the descriptor of {}", self.path.display()))
    }
}

impl Write for BlobWriter {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.file.write(buf)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        if !self.committed {
            // Should this fail, the next sweep of tmp/ removes it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
