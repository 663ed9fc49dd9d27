//! Where a container's output goes, and what is said of it there.

use super::LOG_FILE;
use super::record::{LogConfig, Record};
use super::request::log::{Files, buffer};
use crate::context::Context;
use crate::render::template;
use plan::Result;
use regex_lite::Regex;
use runtime::log::{Format, Journal, Rotation, Writer};
use serde_json::json;
use std::collections::BTreeMap;

/// How the lines of a driver that writes files look.
pub fn format(log: &LogConfig) -> Format {
    if log.driver == "local" { Format::Plain } else { Format::Json }
}

/// `None`: nothing is kept. Costs no system call where files are kept, before there is output.
///
/// # Errors
/// A tag that cannot be made; a journal that is not there.
pub fn writer(ctx: &Context, record: &Record) -> Result<Option<Writer>> {
    let log = &record.host.log;
    let path = || ctx.container_dir(&record.id).join(LOG_FILE);
    Ok(match log.driver.as_str() {
        "none" => None,
        "journald" => Some(Writer::to_journal(Journal::open(&fields(record)?, buffer(log))?)),
        _ => {
            let Files { max_size, max_files, compress } = Files::of(log);
            // What the plain lines leave out, `logs --details` finds in the record.
            let attributes = match format(log) {
                Format::Plain => BTreeMap::new(),
                Format::Json => attributes(record)?,
            };
            let attributes = if attributes.is_empty() { String::new() } else { json!(attributes).to_string() };
            let rotation = Rotation { max_size, max_files, compress };
            Some(Writer::to_files(path(), format(log), rotation, attributes))
        }
    })
}

/// What each line carries besides: the tag, if one was asked for, labels and environment variables.
///
/// # Errors
/// Of the tag's template.
pub fn attributes(record: &Record) -> Result<BTreeMap<String, String>> {
    let mut found = chosen(record);
    if let Some(tag) = tag(record)? {
        found.insert("tag".into(), tag);
    }
    Ok(found)
}

/// Labels and environment variables named by `labels`, `env` and their regular expressions.
fn chosen(record: &Record) -> BTreeMap<String, String> {
    let options = &record.host.log.options;
    let mut found = BTreeMap::new();
    let labels = record.config.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect::<Vec<_>>();
    let env = record.config.env.iter().filter_map(|e| e.split_once('=')).collect::<Vec<_>>();
    for (names, pattern, values) in [("labels", "labels-regex", labels), ("env", "env-regex", env)] {
        let names: Vec<&str> = options.get(names).map(|n| n.split(',').collect()).unwrap_or_default();
        // It was compiled when the container was made.
        let pattern = options.get(pattern).filter(|p| !p.is_empty()).and_then(|p| Regex::new(p).ok());
        for (name, value) in values {
            if names.contains(&name) || pattern.as_ref().is_some_and(|p| p.is_match(name)) {
                found.insert(name.to_owned(), value.to_owned());
            }
        }
    }
    found
}

/// `tag`, a Go template with Docker's fields.
///
/// # Errors
/// Of the template.
pub fn tag(record: &Record) -> Result<Option<String>> {
    let Some(source) = record.host.log.options.get("tag").filter(|t| !t.is_empty()) else { return Ok(None) };
    if !source.contains("{{") {
        return Ok(Some(source.clone()));
    }
    let image = record.image_id.strip_prefix("sha256:").unwrap_or(&record.image_id);
    let fields = json!({
        "ID": record.short_id(),
        "FullID": record.id,
        "Name": record.name,
        "ImageID": image.get(..12).unwrap_or(image),
        "ImageFullID": record.image_id,
        "ImageName": record.image,
        "DaemonName": "rrun",
        "Command": record.config.args().join(" "),
        "Hostname": rustix::system::uname().nodename().to_string_lossy(),
        "ContainerID": record.id,
        "ContainerName": format!("/{}", record.name),
        "ContainerImageID": record.image_id,
        "ContainerImageName": record.image,
        "ContainerCreated": record.created,
        "ContainerEnv": record.config.env,
        "ContainerLabels": record.config.labels,
        "ExtraAttributes": chosen(record),
        "Config": record.host.log.options,
    });
    let made = template::inspect_one(Some(source), &fields).map_err(|e| e.context("log opt 'tag'"))?;
    Ok(Some(made.trim_end_matches('\n').to_owned()))
}

/// The fields of each entry in the journal.
fn fields(record: &Record) -> Result<Vec<(String, String)>> {
    let tag = tag(record)?.unwrap_or_else(|| record.short_id().to_owned());
    let own = [
        ("CONTAINER_ID", record.short_id()),
        ("CONTAINER_ID_FULL", &record.id),
        ("CONTAINER_NAME", &record.name),
        ("CONTAINER_TAG", &tag),
        ("IMAGE_NAME", &record.image),
        ("SYSLOG_IDENTIFIER", &tag),
    ];
    let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let chosen = chosen(record).into_iter().map(|(name, value)| (journal_name(&name), value));
    Ok(own.into_iter().chain(chosen.filter(|(name, _)| !name.is_empty())).collect())
}

/// The journal takes capitals, digits and underscores, and none of those at the beginning.
fn journal_name(name: &str) -> String {
    let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    let name: String = name.chars().map(letter).collect();
    name.trim_start_matches('_').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_the_journal_takes() {
        assert_eq!(journal_name("com.example.my-tier"), "COM_EXAMPLE_MY_TIER");
        assert_eq!((journal_name("_x"), journal_name("..")), ("X".to_owned(), String::new()));
    }
}
