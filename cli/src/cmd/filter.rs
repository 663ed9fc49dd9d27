//! `ps --filter`: values of one key are alternatives, keys must all agree; labels must all be there.

use crate::container;
use crate::container::view::View;
use crate::context::Context;
use netstack::publish;
use plan::{Error, Result};
use regex_lite::Regex;
use std::collections::BTreeMap;

const KEYS: [&str; 15] = [
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];

pub struct Filters(Vec<(String, String)>);

/// `KEY`, or `KEY=VALUE`: what every filter by label means.
pub fn has_label(labels: &BTreeMap<String, String>, wanted: &str) -> bool {
    match wanted.split_once('=') {
        Some((key, value)) => labels.get(key).is_some_and(|have| have == value),
        None => labels.contains_key(wanted),
    }
}

/// `KEY=VALUE`; `flag` is what it was given with.
///
/// # Errors
/// Docker's text for anything else.
pub fn split(text: &str, flag: &str) -> Result<(String, String)> {
    let (key, value) = text.split_once('=').ok_or_else(|| {
        Error::invalid(format!("invalid argument \"{}\" for \"{flag}\" flag", text.escape_debug()))
            .with_cause("bad format of filter (expected name=value)")
            .with_hint("write --filter KEY=VALUE")
    })?;
    Ok((key.trim().to_ascii_lowercase(), value.trim().to_owned()))
}

/// # Errors
/// Docker's texts for a filter that cannot mean anything.
pub fn parse(args: &[String]) -> Result<Filters> {
    let mut found = Vec::new();
    for arg in args {
        let (key, value) = split(arg, "-f, --filter")?;
        if !KEYS.contains(&key.as_str()) {
            return Err(Error::invalid(format!("invalid filter '{}'", key.escape_debug()))
                .with_hint(format!("one of {}", KEYS.join(", "))));
        }
        let wrong = || Error::invalid(format!("invalid filter '{key}={}'", value.escape_debug()));
        match key.as_str() {
            "exited" if value.parse::<i32>().is_err() => return Err(wrong().with_hint("write an exit code")),
            "status"
                if !matches!(
                    value.as_str(),
                    "created" | "running" | "exited" | "paused" | "restarting" | "removing" | "dead"
                ) =>
            {
                return Err(wrong().with_hint("one of created, running, paused, restarting, exited"));
            }
            "health" if !matches!(value.as_str(), "starting" | "healthy" | "unhealthy" | "none") => {
                return Err(wrong().with_hint("one of starting, healthy, unhealthy, none"));
            }
            "is-task" if !matches!(value.as_str(), "true" | "false") => return Err(wrong().with_hint("true or false")),
            "publish" | "expose" => {
                publish::parse_expose(&value)?;
            }
            _ => {}
        }
        found.push((key, value));
    }
    Ok(Filters(found))
}

impl Filters {
    pub fn mention(&self, keys: &[&str]) -> bool {
        self.0.iter().any(|(k, _)| keys.contains(&k.as_str()))
    }

    /// For each container whether it passes.
    ///
    /// # Errors
    /// A container or image named in a filter that is not there.
    pub fn select(&self, ctx: &Context, views: &[View]) -> Result<Vec<bool>> {
        let mut keep = vec![true; views.len()];
        for key in KEYS {
            let values: Vec<&str> = self.0.iter().filter(|(k, _)| k == key).map(|(_, v)| v.as_str()).collect();
            if values.is_empty() {
                continue;
            }
            let mut hits = vec![key == "label"; views.len()];
            for value in values {
                let test = Test::new(ctx, views, key, value)?;
                for (hit, view) in hits.iter_mut().zip(views) {
                    let passes = test.passes(view);
                    *hit = if key == "label" { *hit && passes } else { *hit || passes };
                }
            }
            keep.iter_mut().zip(hits).for_each(|(k, h)| *k &= h);
        }
        Ok(keep)
    }
}

/// One filter with what it names looked up.
enum Test<'a> {
    Plain(&'a str, &'a str),
    Image(String),
    /// Docker's names are searched for a regular expression, with and without the slash they have there.
    Name(Regex),
    Created {
        before: bool,
        pivot: String,
    },
}

impl<'a> Test<'a> {
    fn new(ctx: &Context, views: &[View], key: &'a str, value: &'a str) -> Result<Test<'a>> {
        match key {
            // A name that leads to no image may still be what the user wrote at `run`.
            "ancestor" => Ok(match ctx.images()?.find(value)? {
                Some(image) => Test::Image(image.id),
                None => Test::Plain(key, value),
            }),
            "before" | "since" => {
                let id = container::find_id(ctx, value)?;
                let pivot =
                    views.iter().find(|v| v.id == id).and_then(|v| v.record.as_ref()).map(|r| r.created.clone());
                Ok(Test::Created { before: key == "before", pivot: pivot.unwrap_or_default() })
            }
            // One that does not compile finds nothing in Docker, and is looked for as it stands here.
            "name" => Ok(Regex::new(value).map_or(Test::Plain(key, value), Test::Name)),
            _ => Ok(Test::Plain(key, value)),
        }
    }

    fn passes(&self, v: &View) -> bool {
        let (key, value) = match self {
            Test::Plain("id", value) => return v.id.contains(value),
            Test::Plain("name", value) => return v.name.contains(value),
            Test::Name(pattern) => return pattern.is_match(&v.name) || pattern.is_match(&format!("/{}", v.name)),
            Test::Plain(key, value) => (*key, *value),
            Test::Image(id) => return v.record.as_ref().is_some_and(|r| r.image_id == *id),
            Test::Created { before, pivot } => {
                return v
                    .record
                    .as_ref()
                    .is_some_and(|r| if *before { r.created < *pivot } else { r.created > *pivot });
            }
        };
        let Some(record) = &v.record else { return false };
        match key {
            "label" => has_label(&record.config.labels, value),
            "status" => v.status() == value,
            "health" => v.state.health.map_or("none".into(), |h| h.to_string()) == value,
            "exited" => v.state.status == runtime::state::Status::Exited && value.parse() == Ok(v.state.exit_code),
            "ancestor" => record.image == value,
            // A task is a swarm's, and isolation is Windows's.
            "is-task" => value == "false",
            "isolation" => value.is_empty() || value == "default",
            "network" => {
                record.host.network_mode == value
                    || record.networks.iter().any(|n| n.network == value)
                    || v.endpoints.iter().any(|e| e.network_id.starts_with(value))
            }
            "volume" => record.mounts.iter().any(|m| {
                m.name.as_deref() == Some(value) || m.source.as_os_str() == value || m.destination.as_os_str() == value
            }),
            "publish" => publish::parse_expose(value).is_ok_and(|((from, to), proto)| {
                v.bindings.iter().any(|b| b.proto == proto && b.container.0 <= to && from <= b.container.1)
            }),
            "expose" => publish::parse_expose(value).is_ok_and(|((from, to), proto)| {
                record
                    .config
                    .exposed_ports
                    .iter()
                    .any(|e| publish::parse_expose(e).is_ok_and(|((a, b), p)| p == proto && a <= to && from <= b))
            }),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_refused() {
        for good in ["name=web", "status=exited", "exited=1", "publish=80/tcp", "label=a=b", "health=none"] {
            assert!(parse(&[good.into()]).is_ok(), "{good}");
        }
        for bad in ["name", "foo=1", "status=flying", "exited=x", "publish=x", "health=fine"] {
            assert!(parse(&[bad.into()]).is_err(), "{bad}");
        }
    }
}
