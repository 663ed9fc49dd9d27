//! What the tests of this crate share: a store of their own, and images made by hand.

use crate::digest::Digest;
use crate::manifest::{Descriptor, OCI_CONFIG, OCI_LAYER, compose};
use crate::store::Store;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

/// A store in a directory that goes with it.
pub struct Scratch {
    pub dir: PathBuf,
    pub store: Store,
}

impl Scratch {
    pub fn new() -> Scratch {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let n = COUNTER.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("rrun-images-{}-{n}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        let store = Store::open(&dir.join("root")).unwrap();
        Scratch { dir, store }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A tar of regular files that belong to whoever runs the test: no root is needed to unpack it.
pub fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, data) in files {
        let mut header = header(data.len() as u64);
        builder.append_data(&mut header, name, *data).unwrap();
    }
    builder.into_inner().unwrap()
}

pub fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(1_700_000_000);
    header.set_uid(rustix::process::getuid().as_raw().into());
    header.set_gid(rustix::process::getgid().as_raw().into());
    header
}

pub fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// Configuration and manifest of an image whose layers travel as `blobs` and unpack to `tars`.
pub fn image(blobs: &[Vec<u8>], tars: &[Vec<u8>]) -> (Vec<u8>, Vec<u8>) {
    let diff_ids: Vec<Digest> = tars.iter().map(|t| Digest::of(t)).collect();
    let config = serde_json::json!({
        "created": "2026-01-02T03:04:05Z", "architecture": "amd64", "os": "linux",
        "config": {"Env": ["A=b"], "Cmd": ["/a"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = config.to_string().into_bytes();
    let describe = |kind: &str, bytes: &[u8]| Descriptor::of(kind, Digest::of(bytes), bytes.len() as u64);
    let layers = blobs.iter().map(|b| describe(OCI_LAYER, b)).collect();
    let manifest = compose(describe(OCI_CONFIG, &config), layers);
    (config, manifest)
}
