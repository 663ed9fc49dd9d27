//! Images made by the tests themselves: OCI directories from layers of chosen bytes, and a real registry.

use crate::Host;
use crate::host::{env, eventually};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// `sha256:<hex>` of these bytes.
pub fn digest(bytes: &[u8]) -> String {
    let mut out = String::from("sha256:");
    for b in Sha256::digest(bytes) {
        out.push_str(&format!("{b:02x}"));
    }
    out
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

/// A layer's tar stream under construction.
pub struct LayerTar(tar::Builder<Vec<u8>>);

impl Default for LayerTar {
    fn default() -> LayerTar {
        LayerTar::new()
    }
}

impl LayerTar {
    pub fn new() -> LayerTar {
        LayerTar(tar::Builder::new(Vec::new()))
    }

    pub fn dir(self, name: &str, mode: u32) -> LayerTar {
        self.entry(name, tar::EntryType::Directory, mode, "", b"")
    }

    pub fn file(self, name: &str, mode: u32, content: &[u8]) -> LayerTar {
        self.entry(name, tar::EntryType::Regular, mode, "", content)
    }

    pub fn symlink(self, name: &str, target: &str) -> LayerTar {
        self.entry(name, tar::EntryType::Symlink, 0o777, target, b"")
    }

    pub fn hard_link(self, name: &str, target: &str) -> LayerTar {
        self.entry(name, tar::EntryType::Link, 0o644, target, b"")
    }

    /// Any header at all: names are written as they are, `..` included.
    pub fn entry(mut self, name: &str, kind: tar::EntryType, mode: u32, link: &str, content: &[u8]) -> LayerTar {
        let mut h = tar::Header::new_gnu();
        h.set_entry_type(kind);
        h.set_mode(mode);
        h.set_uid(0);
        h.set_gid(0);
        h.set_mtime(1_700_000_000);
        h.set_size(content.len() as u64);
        if kind == tar::EntryType::Char || kind == tar::EntryType::Block {
            h.set_device_major(1).expect("a major number");
            h.set_device_minor(3).expect("a minor number");
        }
        let raw = h.as_old_mut();
        raw.name[..name.len()].copy_from_slice(name.as_bytes());
        raw.linkname[..link.len()].copy_from_slice(link.as_bytes());
        h.set_cksum();
        self.0.append(&h, content).expect("append to memory");
        self
    }

    pub fn finish(self) -> Vec<u8> {
        self.0.into_inner().expect("a tar in memory")
    }
}

/// The root file system that tests/run.sh made, as one layer.
pub fn busybox_layer() -> Vec<u8> {
    fs::read(env("RRUN_ROOTFS")).expect("the root file system's tar")
}

/// A host whose one image, `programs`, is the Debian with nginx, redis, postgres and python that
/// tests/run.sh made beside the busybox root file system.
pub fn programs() -> Host {
    let rootfs = PathBuf::from(env("RRUN_ROOTFS")).with_file_name("programs-rootfs.tar");
    assert!(
        rootfs.exists(),
        "no {0}: `vagrant/programs-rootfs.sh {0}` makes it of Debian's packages, and says what it lacks if it cannot",
        rootfs.display()
    );
    let host = Host::bare();
    host.ok(&["import", rootfs.to_str().expect("UTF-8"), "programs"]);
    host
}

pub fn compress(bytes: &[u8], how: Compression) -> Vec<u8> {
    match how {
        Compression::None => bytes.to_vec(),
        Compression::Gzip => {
            let mut z = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            z.write_all(bytes).expect("memory");
            z.finish().expect("memory")
        }
        Compression::Zstd => zstd::encode_all(bytes, 1).expect("memory"),
    }
}

/// Writes an OCI directory with one image named `reference`; `config` is merged into the image's
/// `config` object. Returns the manifest's digest.
pub fn oci_dir(dir: &Path, reference: &str, layers: &[(Vec<u8>, Compression)], config: Value) -> String {
    fs::create_dir_all(dir.join("blobs/sha256")).expect("blobs");
    let put = |bytes: &[u8]| {
        let d = digest(bytes);
        fs::write(dir.join("blobs/sha256").join(&d[7..]), bytes).expect("a blob");
        d
    };
    let mut diff_ids = Vec::new();
    let mut descriptors = Vec::new();
    for (tar, how) in layers {
        diff_ids.push(digest(tar));
        let blob = compress(tar, *how);
        let kind = match how {
            Compression::None => "",
            Compression::Gzip => "+gzip",
            Compression::Zstd => "+zstd",
        };
        descriptors.push(json!({
            "mediaType": format!("application/vnd.oci.image.layer.v1.tar{kind}"), "digest": put(&blob), "size": blob.len(),
        }));
    }
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let document = json!({
        "architecture": architecture, "os": "linux", "created": "2026-01-02T03:04:05Z", "config": config,
        "rootfs": {"type": "layers", "diff_ids": diff_ids}, "history": [],
    });
    let document = serde_json::to_vec(&document).expect("JSON");
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": put(&document), "size": document.len()},
        "layers": descriptors,
    });
    let manifest = serde_json::to_vec(&manifest).expect("JSON");
    let manifest_digest = put(&manifest);
    let index = json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": manifest_digest, "size": manifest.len(),
            "annotations": {"org.opencontainers.image.ref.name": reference},
        }],
    });
    fs::write(dir.join("index.json"), index.to_string()).expect("index.json");
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("oci-layout");
    manifest_digest
}

/// Debian's docker-registry on a simulated host.
pub struct Registry<'h> {
    host: &'h Host,
    child: Child,
    dir: PathBuf,
    address: String,
}

impl<'h> Registry<'h> {
    /// On the loopback interface, open to all. `None` where no registry is installed (tests/run.sh
    /// installs one).
    pub fn start(host: &'h Host) -> Option<Registry<'h>> {
        Registry::start_at(host, "127.0.0.1:5000", "")
    }

    /// At an address of the host; `more` is YAML appended to its configuration (`auth:`, `proxy:`), or to
    /// `http:` where it is indented.
    pub fn start_at(host: &'h Host, address: &str, more: &str) -> Option<Registry<'h>> {
        if host.try_sh("command -v docker-registry").code != 0 {
            return None;
        }
        let (_, port) = address.rsplit_once(':').expect("an address with a port");
        let dir = host.dir.join(format!("registry-{port}"));
        let config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\nhttp:\n  addr: {address}\n{more}",
            dir.join("data").display()
        );
        fs::create_dir_all(host.outside(&dir)).expect("the registry's directory");
        fs::write(host.outside(dir.join("config.yml")), config).expect("its configuration");
        let mut c = Command::new("docker-registry");
        c.arg("serve").arg(dir.join("config.yml")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        host.enter(&mut c);
        let child = c.spawn().expect("docker-registry");
        eventually("the registry listens", || {
            (host.try_sh(&format!("ss -ltn 'sport = :{port}' | grep -q LISTEN")).code == 0).then_some(())
        });
        Some(Registry { host, child, dir, address: address.to_owned() })
    }

    /// The name by which rrun pulls `repository`.
    pub fn reference(&self, repository: &str) -> String {
        format!("{}/{repository}", self.address)
    }

    /// Pushes what is in an OCI directory of the host, with skopeo.
    pub fn push(&self, oci_dir: &Path, repository: &str) {
        self.host.sh(&format!(
            "skopeo copy --quiet --insecure-policy --dest-tls-verify=false oci:{} docker://{}",
            oci_dir.display(),
            self.reference(repository)
        ));
    }

    /// Makes and pushes an image of `layers` gzip layers with `bytes` of half-compressible files in all.
    pub fn push_synthetic(&self, repository: &str, layers: usize, bytes: usize) {
        let per_layer = bytes / layers;
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let tars: Vec<(Vec<u8>, Compression)> = (0..layers)
            .map(|l| {
                let mut tar = LayerTar::new().dir(&format!("layer{l}/"), 0o755);
                let mut left = per_layer;
                let mut n = 0;
                while left > 0 {
                    // Files of 1 to 64 kB, each half noise and half repetition, as programs are.
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let size = (1024 + (state >> 32) as usize % 64_000).min(left);
                    let mut content = vec![b'x'; size];
                    for chunk in content[..size / 2].chunks_mut(8) {
                        state ^= state << 13;
                        state ^= state >> 7;
                        state ^= state << 17;
                        chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
                    }
                    tar = tar.file(&format!("layer{l}/file{n}"), 0o644, &content);
                    left -= size;
                    n += 1;
                }
                (tar.finish(), Compression::Gzip)
            })
            .collect();
        let dir = self.dir.join("push");
        oci_dir(&self.host.outside(&dir), "latest", &tars, json!({"Cmd": ["true"]}));
        self.push(&dir, repository);
        fs::remove_dir_all(self.host.outside(&dir)).expect("remove what was pushed");
    }
}

impl Drop for Registry<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
