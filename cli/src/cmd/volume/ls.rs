//! `rrun volume ls`.

use crate::args::VolumeLsArgs;
use crate::cmd::filter::has_label;
use crate::container;
use crate::container::volume::store::{self, Volume};
use crate::context::Context;
use crate::render::template::{self, Column, Row};
use plan::{Error, Result};
use regex_lite::Regex;
use serde_json::json;

const COLUMNS: &[Column] = &[("DRIVER", "Driver"), ("VOLUME NAME", "Name")];

pub fn run(ctx: &Context, args: &VolumeLsArgs) -> Result<i32> {
    let filters = parse(&args.filter, "-f, --filter", &["dangling", "driver", "label", "name"])?;
    let entries = container::list(ctx)?;
    let mut rows: Vec<Row> = Vec::new();
    for volume in store::list(ctx)? {
        let dangling = store::users(&entries, &volume.name).is_empty();
        if !passes(&volume, &filters, dangling) {
            continue;
        }
        let labels: Vec<String> = volume.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let row = json!({
            "Availability": "N/A",
            "Driver": "local",
            "Group": "N/A",
            "Labels": labels.join(","),
            "Links": "N/A",
            "Mountpoint": volume.mountpoint,
            "Name": volume.name,
            "Scope": "local",
            "Size": "N/A",
            "Status": "N/A",
        });
        rows.extend(row.as_object().cloned());
    }
    if args.quiet {
        let names: String = rows.iter().filter_map(|r| r["Name"].as_str()).map(|n| format!("{n}\n")).collect();
        super::super::out(&names);
        return Ok(0);
    }
    super::super::out(&template::list(args.format.as_deref(), COLUMNS, &rows)?);
    Ok(0)
}

/// `KEY=VALUE`, of the known keys; `flag` is what they were given with.
///
/// # Errors
/// Docker's text for any other.
pub fn parse(filters: &[String], flag: &str, keys: &[&str]) -> Result<Vec<(String, String)>> {
    let split = |filter: &String| {
        let (key, value) = super::super::filter::split(filter, flag)?;
        let bad = |text: &str| Error::invalid(format!("invalid filter '{}'", text.escape_debug()));
        match keys.contains(&key.as_str()) {
            true if key == "dangling" && !matches!(value.as_str(), "true" | "false" | "1" | "0") => {
                Err(bad(&format!("dangling=[{value}]")).with_hint("dangling=true or dangling=false"))
            }
            true if key == "name" && Regex::new(&value).is_err() => {
                Err(bad(&format!("name={value}")).with_hint("it is no regular expression"))
            }
            true => Ok((key, value)),
            false => Err(bad(&key).with_hint(format!("one of {}", keys.join(", ")))),
        }
    };
    filters.iter().map(split).collect()
}

/// Labels must all be there; of the other keys one value each.
pub fn passes(volume: &Volume, filters: &[(String, String)], dangling: bool) -> bool {
    let labelled = |value: &str| has_label(&volume.labels, value);
    let any = |key: &str, test: &dyn Fn(&str) -> bool| {
        let mut values = filters.iter().filter(|(k, _)| k == key).map(|(_, v)| v.as_str()).peekable();
        values.peek().is_none() || values.any(test)
    };
    let all = |key: &str, test: &dyn Fn(&str) -> bool| filters.iter().filter(|(k, _)| k == key).all(|(_, v)| test(v));
    any("dangling", &|v| matches!(v, "true" | "1") == dangling)
        && any("driver", &|v| v == "local")
        && any("name", &|v| Regex::new(v).is_ok_and(|e| e.is_match(&volume.name)))
        && all("label", &labelled)
        && all("label!", &|v| !labelled(v))
}
