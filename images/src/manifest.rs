//! The documents between a name and its layers: manifests and indexes, Docker's and OCI's.

use crate::digest::Digest;
use crate::platform::Platform;
use plan::{Error, Result};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// No honest manifest or configuration is larger; registries themselves refuse more.
pub const MAX_DOCUMENT: u64 = 4 << 20;

/// Names a blob, its size and its type.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

impl Descriptor {
    /// Of content that is here, for any platform.
    pub fn of(media_type: &str, digest: Digest, size: u64) -> Descriptor {
        Descriptor { media_type: media_type.to_owned(), digest, size, platform: None, annotations: None }
    }

    /// What the named document must hash to and weigh.
    pub fn verify(&self, what: &str, bytes: &[u8]) -> Result<()> {
        if bytes.len() as u64 != self.size {
            return Err(Error::invalid(format!("{what} {} has the wrong size", self.digest)).with_cause(format!(
                "{} bytes, but {} were announced",
                bytes.len(),
                self.size
            )));
        }
        let actual = Digest::of(bytes);
        if actual != self.digest {
            return Err(Error::invalid(format!("{what} {} does not match its digest", self.digest))
                .with_cause(format!("the content is {actual}")));
        }
        Ok(())
    }

    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str)
    }
}

/// What a name leads to.
#[derive(Debug)]
pub enum Manifest {
    Image {
        config: Descriptor,
        layers: Vec<Descriptor>,
    },
    /// One image per platform.
    Index(Vec<Descriptor>),
}

/// Both kinds at once, as they arrive. serde refuses a field that appears twice.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    schema_version: Option<u64>,
    media_type: Option<String>,
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    fs_layers: Option<IgnoredAny>,
}

impl Manifest {
    /// Reads a document whose digest the caller has verified. `served_as` is the Content-Type of the
    /// registry, or empty. Errors for what is ambiguous, obsolete or no manifest at all.
    pub fn parse(bytes: &[u8], served_as: &str) -> Result<Manifest> {
        let wire: Wire = serde_json::from_slice(bytes).map_err(|e| invalid().with_cause(e.to_string()))?;
        if wire.schema_version == Some(1) || wire.fs_layers.is_some() {
            return Err(Error::invalid("the image has a schema 1 manifest, which registries abandoned in 2017")
                .with_hint("pull it with an old tool and push it again, or ask its maker for a current image"));
        }
        if wire.schema_version != Some(2) {
            return Err(invalid().with_cause("schemaVersion is not 2"));
        }
        let media_type = wire.media_type.as_deref().unwrap_or("");
        // A document that reads as both hashes to one digest and means two images (CVE-2021-41190).
        match (wire.manifests, wire.config, wire.layers) {
            (Some(_), config, layers) if config.is_some() || layers.is_some() => {
                Err(invalid().with_cause("it claims to be a manifest and an index at once"))
            }
            (Some(entries), ..) => {
                if [media_type, served_as].iter().any(|t| matches!(*t, OCI_MANIFEST | DOCKER_MANIFEST)) {
                    return Err(invalid().with_cause("an index that calls itself a manifest"));
                }
                Ok(Manifest::Index(entries))
            }
            (None, Some(config), Some(layers)) => {
                if [media_type, served_as].iter().any(|t| matches!(*t, OCI_INDEX | DOCKER_LIST)) {
                    return Err(invalid().with_cause("a manifest that calls itself an index"));
                }
                let known = ["", OCI_CONFIG, DOCKER_CONFIG, "application/octet-stream"];
                if !known.contains(&config.media_type.as_str()) {
                    return Err(Error::invalid("this is not a container image")
                        .with_cause(format!("its configuration has the type {}", printable(&config.media_type)))
                        .with_hint("charts, signatures and other artifacts cannot be run"));
                }
                if config.size > MAX_DOCUMENT {
                    return Err(invalid().with_cause("the configuration is larger than 4 MiB"));
                }
                if let Some(foreign) = layers.iter().find(|l| is_foreign(&l.media_type)) {
                    return Err(Error::invalid(format!("layer {} is stored outside the registry", foreign.digest))
                        .with_hint("such layers belong to Windows images, which do not run on Linux"));
                }
                Ok(Manifest::Image { config, layers })
            }
            _ => Err(invalid().with_cause("it has neither layers nor manifests")),
        }
    }
}

fn invalid() -> Error {
    Error::invalid("invalid manifest")
}

/// Foreign layers carry URLs of the maker's choice; asking those would hand a stranger our address
/// and, in a careless client, our credentials (CVE-2020-15157). They are never followed.
fn is_foreign(media_type: &str) -> bool {
    media_type.contains("foreign") || media_type.contains("nondistributable")
}

/// A registry's words in an error of ours: one short line.
pub fn printable(text: &str) -> String {
    let line: String = text.chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect();
    line.trim().to_owned()
}

/// A manifest for layers that came without one (docker-archive, import).
pub fn compose(config: Descriptor, layers: Vec<Descriptor>) -> Vec<u8> {
    let json = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": config,
        "layers": layers,
    });
    serde_json::to_vec_pretty(&json).expect("a JSON value always serialises")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn d(n: u8) -> String {
        format!(r#"{{"mediaType":"","digest":"sha256:{}","size":{n}}}"#, format!("{n:02x}").repeat(32))
    }

    #[test]
    fn manifests_and_indexes_are_told_apart() {
        let m = format!(r#"{{"schemaVersion":2,"config":{},"layers":[{},{}]}}"#, d(1), d(2), d(3));
        let Manifest::Image { config, layers } = Manifest::parse(m.as_bytes(), OCI_MANIFEST).unwrap() else { panic!() };
        assert_eq!((config.size, layers.len(), layers[1].size), (1, 2, 3));
        let i = format!(
            r#"{{"schemaVersion":2,"mediaType":"{DOCKER_LIST}","manifests":[{}]}}"#,
            d(1).replace('}', r#","platform":{"os":"linux","architecture":"arm64","variant":"v8"}}"#)
        );
        let Manifest::Index(entries) = Manifest::parse(i.as_bytes(), "text/plain").unwrap() else { panic!() };
        assert_eq!(entries[0].platform.as_ref().unwrap().to_string(), "linux/arm64");
    }

    #[test]
    fn hostile_documents_are_refused() {
        let (one, two) = (d(1), d(2));
        let manifest = format!(r#"{{"schemaVersion":2,"config":{one},"layers":[]}}"#);
        for (bad, served_as, why) in [
            ("<html>", "text/html", "expected value"),
            ("{}", "", "schemaVersion"),
            (r#"{"schemaVersion":2}"#, "", "neither"),
            (r#"{"schemaVersion":1,"fsLayers":[]}"#, "", "schema 1"),
            (&format!(r#"{{"schemaVersion":2,"config":{one},"layers":[],"manifests":[]}}"#), "", "at once"),
            (&format!(r#"{{"schemaVersion":2,"layers":[],"manifests":[{two}]}}"#), "", "at once"),
            (&format!(r#"{{"schemaVersion":2,"config":{one},"layers":[],"layers":[{two}]}}"#), "", "duplicate"),
            (&manifest, OCI_INDEX, "calls itself an index"),
            (
                &format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","manifests":[]}}"#),
                "",
                "calls itself a manifest",
            ),
            (
                &manifest.replace(r#""mediaType":"""#, r#""mediaType":"application/vnd.cncf.helm.config.v1+json""#),
                "",
                "not a container image",
            ),
            (
                &manifest.replace(
                    "[]",
                    &format!(
                        "[{}]",
                        two.replace(r#":"""#, r#":"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip""#)
                    ),
                ),
                "",
                "outside the registry",
            ),
            (&manifest.replace("sha256", "sha512"), "", "sha512"),
            (&manifest.replace(r#""size":1"#, r#""size":-1"#), "", "-1"),
            (&manifest.replace(r#""size":1"#, r#""size":99999999"#), "", "4 MiB"),
        ] {
            let e = Manifest::parse(bad.as_bytes(), served_as).expect_err(bad).to_string();
            assert!(e.contains(why), "{bad}: {e}");
        }
    }

    #[test]
    fn a_composed_manifest_reads_back() {
        let config: Descriptor = serde_json::from_str(&d(7)).unwrap();
        let bytes = compose(config.clone(), vec![config]);
        assert!(
            matches!(Manifest::parse(&bytes, OCI_MANIFEST), Ok(Manifest::Image { layers, .. }) if layers.len() == 1)
        );
    }
}
