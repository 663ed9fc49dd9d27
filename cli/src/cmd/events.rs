//! `rrun events`: what happens to containers, images, networks and volumes, as it happens or as it was.

use crate::args::EventsArgs;
use crate::cmd::moment::moment;
use crate::container::events;
use crate::context::Context;
use crate::render::template;
use plan::time::{self, Timestamp};
use plan::{Error, Result};
use serde_json::{Map, Value};
use std::time::Duration;

/// How soon an event is shown; nobody sees the difference to a notification.
const PAUSE: Duration = Duration::from_millis(50);

const KEYS: [&str; 15] = [
    "config",
    "container",
    "daemon",
    "event",
    "health_status",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
];

pub fn run(ctx: &Context, args: &EventsArgs) -> Result<i32> {
    let filters = parse(&args.filter)?;
    let since = args.since.as_deref().map(moment).transpose()?;
    let until = args.until.as_deref().map(moment).transpose()?;
    let from = match (since, until) {
        (Some(since), _) => since,
        // With an end alone, all that is still known up to it.
        (None, Some(_)) => Timestamp { seconds: 0, nanos: 0 },
        (None, None) => Timestamp::now(),
    };
    let mut journal = events::Reader::open(ctx);
    loop {
        for event in journal.next_batch()? {
            let at = moment_of(&event);
            if at < from || until.is_some_and(|u| at > u) || !passes(&event, &filters) {
                continue;
            }
            super::out(&shown(&event, args.format.as_deref())?);
        }
        if until.is_some_and(|u| u <= Timestamp::now()) {
            return Ok(0);
        }
        std::thread::sleep(PAUSE);
    }
}

fn moment_of(event: &Value) -> Timestamp {
    let nanos = event["timeNano"].as_i64().unwrap_or(0);
    Timestamp { seconds: nanos / 1_000_000_000, nanos: u32::try_from(nanos % 1_000_000_000).unwrap_or(0) }
}

fn parse(filters: &[String]) -> Result<Vec<(String, String)>> {
    let split = |filter: &String| {
        let (key, value) = super::filter::split(filter, "-f, --filter")?;
        match KEYS.contains(&key.as_str()) {
            true => Ok((key, value)),
            false => Err(Error::invalid(format!("invalid filter '{}'", key.escape_debug()))
                .with_hint(format!("one of {}", KEYS.join(", ")))),
        }
    };
    filters.iter().map(split).collect()
}

/// Values of one key are alternatives, keys must all agree; labels must all be there.
fn passes(event: &Value, filters: &[(String, String)]) -> bool {
    let (kind, id, action) = (text(&event["Type"]), text(&event["Actor"]["ID"]), text(&event["Action"]));
    let attributes = &event["Actor"]["Attributes"];
    // Docker's rule: the beginning of an ID or of a name will do.
    let object = |wanted: &str, of: &str| {
        kind == of && (id.starts_with(wanted) || text(&attributes["name"]).starts_with(wanted))
    };
    let test = |key: &str, v: &str| match key {
        "container" | "network" | "volume" => object(v, key),
        // Of a daemon or a swarm: none happen here.
        "config" | "daemon" | "node" | "plugin" | "secret" | "service" => false,
        "event" => action == v || action.split(':').next() == Some(v),
        "health_status" => action == format!("health_status: {v}"),
        "image" => {
            let name = text(&attributes[if kind == "image" { "name" } else { "image" }]);
            [id, without_tag(id), name, without_tag(name)].contains(&v)
        }
        "label" => match v.split_once('=') {
            Some((k, value)) => attributes[k].as_str() == Some(value),
            None => attributes.get(v).is_some(),
        },
        "scope" => event["scope"] == v,
        _ => kind == v,
    };
    KEYS.iter().all(|key| {
        let mut values = filters.iter().filter(|(k, _)| k == key).map(|(_, v)| v.as_str()).peekable();
        match *key {
            "label" => values.all(|v| test(key, v)),
            _ => values.peek().is_none() || values.any(|v| test(key, v)),
        }
    })
}

fn text(v: &Value) -> &str {
    v.as_str().unwrap_or_default()
}

/// `host:5000/name:1` as `host:5000/name`.
fn without_tag(name: &str) -> &str {
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    name[last..].find(':').map_or(name, |colon| &name[..last + colon])
}

/// Docker's line, JSON, or a Go template.
fn shown(event: &Value, format: Option<&str>) -> Result<String> {
    match format {
        Some("json" | "{{json .}}") => Ok(format!("{event}\n")),
        Some(format) if !format.is_empty() => {
            let mut row = event.as_object().cloned().unwrap_or_default();
            // In templates Docker's fields have Go's names.
            for (name, key) in [
                ("Status", "status"),
                ("ID", "id"),
                ("From", "from"),
                ("Scope", "scope"),
                ("Time", "time"),
                ("TimeNano", "timeNano"),
            ] {
                // Only those that are asked for, so that `{{json .}}` stays what it is.
                if !format.contains(&format!(".{name}")) {
                    continue;
                }
                row.insert(name.into(), event.get(key).cloned().unwrap_or_else(|| "".into()));
            }
            template::list(Some(format), &[], &[row])
        }
        _ => {
            let nothing = Map::new();
            let attributes = event["Actor"]["Attributes"].as_object().unwrap_or(&nothing);
            let mut pairs: Vec<String> = attributes.iter().map(|(k, v)| format!("{k}={}", text(v))).collect();
            pairs.sort();
            let when = time::format_fixed(moment_of(event));
            let (kind, action) = (text(&event["Type"]), text(&event["Action"]));
            Ok(format!("{when} {kind} {action} {} ({})\n", text(&event["Actor"]["ID"]), pairs.join(", ")))
        }
    }
}
