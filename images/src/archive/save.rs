//! `save`: images as one archive that docker, podman, skopeo and `rrun load` read.
//!
//! One layout for both formats: blobs under `blobs/sha256/` with an OCI index. The docker-archive adds
//! `manifest.json`, by which older readers find the same blobs (Docker writes it so since v25).

use crate::digest::Digest;
use crate::manifest::Descriptor;
use crate::reference::Reference;
use crate::store::{Image, Kept, Store, no_such_image};
use plan::{Error, Result, ResultExt};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{Read, Write};
use std::str::FromStr;

/// Who the archive is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Docker,
    Oci,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(s: &str) -> std::result::Result<Format, String> {
        match s {
            "docker-archive" => Ok(Format::Docker),
            "oci-archive" => Ok(Format::Oci),
            _ => Err(format!("unknown format '{s}': must be docker-archive or oci-archive")),
        }
    }
}

/// An image and the names that go with it into the archive.
struct Chosen {
    image: Image,
    tags: Vec<String>,
    kept: Kept,
}

/// Writes the images that the names mean. A name with a tag takes that name along, one without a tag
/// all tags of its repository, an ID none, as in Docker. The same images give the same bytes.
///
/// # Errors
/// A name that means no image; a layer whose archive is gone; a reader that has gone (EPIPE).
pub fn save(store: &Store, names: &[String], format: Format, out: &mut dyn Write) -> Result<()> {
    // What is being read must not be collected meanwhile.
    let _hold = store.hold()?;
    let chosen = choose(store, names)?;
    let mut archive = Archive { tar: tar::Builder::new(out), written: HashSet::new() };
    archive.directory("blobs/")?;
    archive.directory("blobs/sha256/")?;
    for c in &chosen {
        for layer in &c.kept.layers {
            let path = store.blob_path(&layer.digest);
            let file = File::open(&path).doing(|| format!("open {}", path.display()))?;
            archive.blob(&layer.digest, layer.size, file)?;
        }
        let config = store.read_blob(&c.kept.config.digest)?;
        archive.blob(&c.kept.config.digest, config.len() as u64, &config[..])?;
        archive.blob(&Digest::of(&c.kept.manifest), c.kept.manifest.len() as u64, &c.kept.manifest[..])?;
    }
    archive.document("index.json", &index(&chosen))?;
    if format == Format::Docker {
        archive.document("manifest.json", &docker_manifest(&chosen))?;
    }
    archive.document("oci-layout", &json!({"imageLayoutVersion": "1.0.0"}))?;
    archive.tar.finish().doing(|| "write the archive")
}

fn choose(store: &Store, names: &[String]) -> Result<Vec<Chosen>> {
    let mut chosen: Vec<Chosen> = Vec::new();
    for name in names {
        for (image, tag) in meant(store, name)? {
            match chosen.iter_mut().find(|c| c.image.id == image.id) {
                Some(known) => known.tags.extend(tag.filter(|t| !known.tags.contains(t))),
                None => {
                    let kept = store.kept(&image)?;
                    chosen.push(Chosen { image, tags: tag.into_iter().collect(), kept });
                }
            }
        }
    }
    Ok(chosen)
}

/// The images of one name, each with the tag by which it was meant.
fn meant(store: &Store, name: &str) -> Result<Vec<(Image, Option<String>)>> {
    let reference = Reference::parse(name).ok();
    let by_name = reference.as_ref().filter(|r| r.digest().is_none());
    if let Some(r) = by_name
        && !name.rsplit('/').next().is_some_and(|last| last.contains(':'))
    {
        let mut all = Vec::new();
        for image in store.images()? {
            let same = |t: &&String| Reference::parse(t).is_ok_and(|t| t.repository() == r.repository());
            all.extend(image.repo_tags.iter().filter(same).map(|t| (image.clone(), Some(t.clone()))));
        }
        if !all.is_empty() {
            return Ok(all);
        }
    }
    let image = store.find(name)?.ok_or_else(|| no_such_image(name))?;
    let tag = by_name.map(|r| r.to_string()).filter(|t| image.repo_tags.contains(t));
    Ok(vec![(image, tag)])
}

fn index(chosen: &[Chosen]) -> Value {
    let mut entries = Vec::new();
    for c in chosen {
        let manifest = &c.kept.manifest;
        let plain = Descriptor::of(&c.kept.media_type, Digest::of(manifest), manifest.len() as u64);
        if c.tags.is_empty() {
            entries.push(plain.clone());
        }
        for tag in &c.tags {
            let full = Reference::parse(tag).map_or_else(|_| tag.clone(), |r| r.canonical());
            let short = tag.rsplit(':').next().unwrap_or("latest").to_owned();
            let annotations = BTreeMap::from([
                ("io.containerd.image.name".to_owned(), full),
                ("org.opencontainers.image.ref.name".to_owned(), short),
            ]);
            entries.push(Descriptor { annotations: Some(annotations), ..plain.clone() });
        }
    }
    json!({
        "schemaVersion": 2,
        "mediaType": crate::manifest::OCI_INDEX,
        "manifests": entries,
    })
}

fn docker_manifest(chosen: &[Chosen]) -> Value {
    let entries = chosen.iter().map(|c| {
        let layers: Vec<String> = c.kept.layers.iter().map(|l| super::blob_name(&l.digest)).collect();
        json!({
            "Config": super::blob_name(&c.kept.config.digest),
            "RepoTags": if c.tags.is_empty() { Value::Null } else { json!(c.tags) },
            "Layers": layers,
        })
    });
    Value::Array(entries.collect())
}

struct Archive<W: Write> {
    tar: tar::Builder<W>,
    /// A layer that two images share is written once.
    written: HashSet<Digest>,
}

impl<W: Write> Archive<W> {
    fn directory(&mut self, name: &str) -> Result<()> {
        self.append(name, tar::EntryType::Directory, 0, std::io::empty())
    }

    fn document(&mut self, name: &str, json: &Value) -> Result<()> {
        let bytes = json.to_string().into_bytes();
        self.append(name, tar::EntryType::Regular, bytes.len() as u64, &bytes[..])
    }

    fn blob(&mut self, digest: &Digest, size: u64, content: impl Read) -> Result<()> {
        if !self.written.insert(digest.clone()) {
            return Ok(());
        }
        self.append(&super::blob_name(digest), tar::EntryType::Regular, size, content)
    }

    fn append(&mut self, name: &str, kind: tar::EntryType, size: u64, content: impl Read) -> Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(if kind.is_dir() { 0o755 } else { 0o644 });
        header.set_size(size);
        // The same images give the same archive.
        header.set_mtime(0);
        let doing = || format!("write {name} to the archive");
        let mut counted = content.take(size);
        self.tar.append_data(&mut header, name, &mut counted).doing(doing)?;
        match counted.limit() {
            0 => Ok(()),
            left => Err(Error::system(format!("{name} is {left} bytes too short")).with_hint("pull the image again")),
        }
    }
}
