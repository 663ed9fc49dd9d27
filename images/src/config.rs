//! The image's configuration document: how to run it, and the digests of its layers.
//!
//! Docker's and OCI's documents are the same JSON, except that only Docker's keeps HEALTHCHECK,
//! SHELL and ONBUILD. Everything in it is the image maker's word: read as hostile input, and never as an
//! instruction to the runtime beyond the fields below.

use crate::digest::Digest;
use plan::{Error, Result};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;

/// How to run a container of the image. Serialises under Docker's names (`inspect`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Config {
    #[serde(deserialize_with = "or_default")]
    pub user: String,
    /// `80/tcp`, sorted.
    #[serde(serialize_with = "as_set", deserialize_with = "from_set", skip_serializing_if = "Vec::is_empty")]
    pub exposed_ports: Vec<String>,
    /// `NAME=value`, in the image's order.
    #[serde(deserialize_with = "or_default")]
    pub env: Vec<String>,
    pub entrypoint: Option<Vec<String>>,
    pub cmd: Option<Vec<String>>,
    /// Paths of anonymous volumes, sorted.
    #[serde(serialize_with = "as_set", deserialize_with = "from_set", skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub working_dir: String,
    #[serde(deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
    /// `SIGQUIT` or a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Docker's object: `Test`, `Interval` (nanoseconds)…
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_build: Option<Vec<String>>,
    /// Seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
}

/// The whole document. Its digest is the image's ID.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ImageConfig {
    #[serde(default, deserialize_with = "or_default")]
    pub created: String,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub author: String,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub comment: String,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub docker_version: String,
    #[serde(default, deserialize_with = "or_default")]
    pub architecture: String,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub variant: String,
    #[serde(default, deserialize_with = "or_default")]
    pub os: String,
    #[serde(default, deserialize_with = "or_default")]
    pub config: Config,
    pub rootfs: RootFs,
    #[serde(default, deserialize_with = "or_default")]
    pub history: Vec<History>,
}

/// The layers, lowest first, by the digest of their uncompressed tar.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RootFs {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default, deserialize_with = "or_default")]
    pub diff_ids: Vec<Digest>,
}

/// One instruction of the build.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub created: String,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub author: String,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub comment: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

impl ImageConfig {
    /// Errors say what is wrong with the document; the caller adds whose it is.
    pub fn parse(json: &[u8]) -> Result<ImageConfig> {
        let doc: ImageConfig = serde_json::from_slice(json)
            .map_err(|e| Error::invalid("invalid image configuration").with_cause(e.to_string()))?;
        if doc.rootfs.kind != "layers" {
            return Err(Error::invalid(format!("invalid image configuration: rootfs of type {:?}", doc.rootfs.kind)));
        }
        if !doc.os.is_empty() && doc.os != "linux" {
            return Err(Error::invalid(format!("image operating system {:?} cannot be used on this platform", doc.os))
                .with_hint("choose an image for linux, with --platform if the tag has several"));
        }
        doc.config.check()?;
        Ok(doc)
    }
}

impl Config {
    /// No string that becomes an argument of a system call may contain a NUL.
    fn check(&self) -> Result<()> {
        let lists = [Some(&self.env), self.entrypoint.as_ref(), self.cmd.as_ref(), Some(&self.volumes)];
        let mut all = lists.into_iter().flatten().flatten().chain([&self.user, &self.working_dir]);
        match all.any(|s| s.contains('\0')) {
            true => Err(Error::invalid("invalid image configuration: a value contains a NUL character")),
            false => Ok(()),
        }
    }
}

/// Go writes `null` for an empty slice, map or missing struct.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(d: D) -> std::result::Result<T, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

/// A set is written as an object with empty values: `{"80/tcp": {}}`.
fn from_set<'de, D: Deserializer<'de>>(d: D) -> std::result::Result<Vec<String>, D::Error> {
    let set: Option<BTreeMap<String, serde::de::IgnoredAny>> = Option::deserialize(d)?;
    Ok(set.unwrap_or_default().into_keys().collect())
}

fn as_set<S: Serializer>(names: &[String], s: S) -> std::result::Result<S::Ok, S::Error> {
    s.collect_map(names.iter().map(|name| (name, serde_json::Map::new())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doc(config: &str) -> Result<ImageConfig> {
        ImageConfig::parse(format!(r#"{{"rootfs":{{"type":"layers","diff_ids":null}},"config":{config}}}"#).as_bytes())
    }

    #[test]
    fn gos_nulls_and_dockers_extras() {
        let c = doc(r#"{"User":null,"Env":["A=","=","UTF=é","N=a\nb"],"Entrypoint":null,"Cmd":["sh"],
            "ExposedPorts":{"80/tcp":{},"53/udp":null},"Volumes":null,"Labels":null,"Healthcheck":{"Test":["NONE"]},
            "StopSignal":"SIGQUIT","ArgsEscaped":true,"Unknown":{"x":[1]}}"#)
        .unwrap()
        .config;
        assert_eq!(c.env, ["A=", "=", "UTF=é", "N=a\nb"]);
        assert_eq!(c.exposed_ports, ["53/udp", "80/tcp"]);
        assert_eq!((c.entrypoint, c.cmd), (None, Some(vec!["sh".to_owned()])));
        assert_eq!(c.healthcheck.unwrap()["Test"][0], "NONE");
        assert_eq!(c.stop_signal.as_deref(), Some("SIGQUIT"));
        assert_eq!(doc("null").unwrap().config, Config::default());
    }

    #[test]
    fn a_config_survives_the_round_trip() {
        let c =
            doc(r#"{"ExposedPorts":{"80/tcp":{}},"Volumes":{"/data":{}},"Labels":{"a":"b"},"Cmd":[]}"#).unwrap().config;
        let json = serde_json::to_value(&c).unwrap();
        assert_eq!(json["ExposedPorts"]["80/tcp"], serde_json::json!({}));
        assert_eq!(serde_json::from_value::<Config>(json).unwrap(), c);
    }

    #[test]
    fn hostile_documents_are_refused() {
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"rootfs":{"type":"layers","diff_ids":["sha256:../../x"]}}"#,
            r#"{"rootfs":{"type":"base","diff_ids":[]}}"#,
            r#"{"rootfs":{"type":"layers","diff_ids":[]},"rootfs":{"type":"layers","diff_ids":[]}}"#,
            r#"{"os":"windows","rootfs":{"type":"layers","diff_ids":[]}}"#,
            r#"{"config":{"User":"a\u0000b"},"rootfs":{"type":"layers","diff_ids":[]}}"#,
            r#"{"config":{"Env":[1]},"rootfs":{"type":"layers","diff_ids":[]}}"#,
        ] {
            assert!(ImageConfig::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
