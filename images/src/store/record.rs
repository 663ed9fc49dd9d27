//! The two kinds of files under `refs/`: the names, and what each image consists of.

use super::make_dir;
use crate::config::{Config, ImageConfig, RootFs};
use crate::digest::Digest;
use crate::reference::Reference;
use plan::{Error, Result, ResultExt};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Of the JSON files under `refs/`. A file of a newer version is refused untouched.
const VERSION: u32 = 1;

type Extra = serde_json::Map<String, serde_json::Value>;

/// `names.json`. Names are in full, with a tag or a digest.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Names {
    version: u32,
    #[serde(default)]
    names: BTreeMap<String, Digest>,
    #[serde(flatten)]
    extra: Extra,
}

impl Names {
    pub fn load(root: &Path) -> Result<Names> {
        let path = names_path(root);
        match read_json(&path, |n: &Names| n.version) {
            Err(e) if e.errno == Some(libc::ENOENT) => {
                Ok(Names { version: VERSION, names: BTreeMap::new(), extra: Extra::new() })
            }
            other => other,
        }
    }

    /// The caller holds the lock of `refs/`.
    pub fn save(&self, root: &Path) -> Result<()> {
        make_dir(&root.join("refs"))?;
        write_json(&names_path(root), self)
    }

    pub fn get(&self, canonical: &str) -> Option<&Digest> {
        self.names.get(canonical)
    }

    pub fn insert(&mut self, canonical: String, id: Digest) {
        self.names.insert(canonical, id);
    }

    pub fn remove(&mut self, canonical: &str) {
        self.names.remove(canonical);
    }

    /// The names in full that mean an image.
    pub fn keys_of(&self, id: &Digest) -> Vec<String> {
        self.names.iter().filter(|(_, i)| *i == id).map(|(name, _)| name.clone()).collect()
    }

    /// Familiar tags and digests of an image.
    pub fn of(&self, id: &Digest) -> (Vec<String>, Vec<String>) {
        let familiar = |name: &str| Reference::parse(name).map_or_else(|_| name.to_owned(), |r| r.to_string());
        let (digests, tags): (Vec<_>, Vec<_>) =
            self.keys_of(id).iter().map(|name| familiar(name)).partition(|name| name.contains('@'));
        (tags, digests)
    }
}

/// What an image consists of, beside its configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Parts {
    /// The digest of the manifest, whose blob is kept.
    pub manifest: Digest,
    /// The layers as they travelled; some may not be kept (the unpacked layer was here before).
    pub blobs: Vec<Digest>,
    /// Lowest first.
    pub diff_ids: Vec<Digest>,
    /// Bytes of all layers, unpacked.
    pub size: u64,
    pub created: String,
    pub architecture: String,
}

/// `images/<hex>.json`. With it, garbage collection and removal need no other file to be sound.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    version: u32,
    #[serde(flatten)]
    pub parts: Parts,
    #[serde(flatten)]
    extra: Extra,
}

impl From<Parts> for Record {
    fn from(parts: Parts) -> Record {
        Record { version: VERSION, parts, extra: Extra::new() }
    }
}

impl Record {
    pub fn load(root: &Path, id: &Digest) -> Result<Record> {
        read_json(&record_path(root, id), |r: &Record| r.version)
    }

    /// The caller holds the lock of `refs/`.
    pub fn save(&self, root: &Path, id: &Digest) -> Result<()> {
        make_dir(&root.join("refs/images"))?;
        write_json(&record_path(root, id), self)
    }

    pub fn delete(root: &Path, id: &Digest) -> Result<()> {
        let path = record_path(root, id);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other.doing(|| format!("remove {}", path.display())),
        }
    }

    /// Stands in for a configuration that cannot be read.
    pub fn outline(&self) -> ImageConfig {
        ImageConfig {
            created: self.parts.created.clone(),
            author: String::new(),
            comment: String::new(),
            docker_version: String::new(),
            architecture: self.parts.architecture.clone(),
            variant: String::new(),
            os: "linux".to_owned(),
            config: Config::default(),
            rootfs: RootFs { kind: "layers".to_owned(), diff_ids: self.parts.diff_ids.clone() },
            history: Vec::new(),
        }
    }
}

/// The IDs of all images, in no order.
pub(super) fn ids(root: &Path) -> Result<Vec<Digest>> {
    let dir = root.join("refs/images");
    let entries = match std::fs::read_dir(&dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.doing(|| format!("read {}", dir.display()))?,
    };
    let mut ids = Vec::new();
    for entry in entries {
        let entry = entry.doing(|| format!("read {}", dir.display()))?;
        if let Some(hex) = entry.file_name().to_str().and_then(|n| n.strip_suffix(".json"))
            && let Ok(id) = Digest::parse(&format!("sha256:{hex}"))
        {
            ids.push(id);
        }
    }
    Ok(ids)
}

fn names_path(root: &Path) -> PathBuf {
    root.join("refs/names.json")
}

fn record_path(root: &Path, id: &Digest) -> PathBuf {
    root.join("refs/images").join(format!("{}.json", id.hex()))
}

/// `version_of` looks at what was read; a newer one is an error before anything is rewritten.
fn read_json<T: DeserializeOwned>(path: &Path, version_of: impl Fn(&T) -> u32) -> Result<T> {
    #[derive(Deserialize)]
    struct Header {
        version: u32,
    }
    let bytes = std::fs::read(path).doing(|| format!("read {}", path.display()))?;
    let damaged = |e: serde_json::Error| {
        // A newer format may differ in any field but this one.
        match serde_json::from_slice::<Header>(&bytes) {
            Ok(header) if header.version > VERSION => newer(path, header.version),
            _ => Error::system(format!("{} is damaged", path.display()))
                .with_cause(e.to_string())
                .with_hint("move the file away and pull the images again"),
        }
    };
    let value: T = serde_json::from_slice(&bytes).map_err(damaged)?;
    match version_of(&value) {
        v if v > VERSION => Err(newer(path, v)),
        _ => Ok(value),
    }
}

fn newer(path: &Path, version: u32) -> Error {
    Error::system(format!("{} was written by a newer rrun", path.display()))
        .with_cause(format!("format {version}, this rrun knows {VERSION}"))
        .with_hint("use the newer rrun, or another --root")
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut bytes = serde_json::to_vec_pretty(value).expect("plain data always serialises");
    bytes.push(b'\n');
    // One writer at a time (the lock of refs/), hence one temporary name.
    let tmp = path.with_extension("json.tmp");
    let write = || {
        let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&tmp)?;
        file.write_all(&bytes)?;
        std::fs::rename(&tmp, path)
    };
    write().map_err(|e| {
        // Best effort: the next writer truncates it anyway.
        let _ = std::fs::remove_file(&tmp);
        Error::io(format!("write {}", path.display()), &e)
    })
}
