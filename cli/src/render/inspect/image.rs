//! `rrun image inspect`.

use images::store::Image;
use serde_json::{Map, Value, json};

/// `config` is the image's own config document, of which Docker shows most as it is.
pub fn image(i: &Image, config: &Value, lower: &[std::path::PathBuf]) -> Value {
    let empty = Value::Object(Map::new());
    let mut doc = json!({
        "Id": i.id,
        "RepoTags": i.repo_tags,
        "RepoDigests": i.repo_digests,
        "Comment": last_comment(config),
        "Created": i.created,
        "Author": config["author"].as_str().unwrap_or_default(),
        "Architecture": i.architecture,
        "Os": i.os,
        "Size": i.size,
        "GraphDriver": {
            "Data": {"LowerDir": lower.iter().map(|l| l.display().to_string()).collect::<Vec<_>>().join(":")},
            "Name": "overlay2",
        },
        "RootFS": {"Type": "layers", "Layers": i.diff_ids},
        "Config": config.get("config").unwrap_or(&empty),
    });
    if let (Some(v), Some(o)) = (config["variant"].as_str(), doc.as_object_mut()) {
        o.insert("Variant".into(), v.into());
    }
    doc
}

fn last_comment(config: &Value) -> &str {
    let history = config["history"].as_array();
    history.and_then(|h| h.last()).and_then(|h| h["comment"].as_str()).unwrap_or_default()
}
