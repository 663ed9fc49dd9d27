//! `rrun network prune`.

use super::ls;
use crate::args::NetworkPruneArgs;
use crate::container::{self, Entry};
use crate::context::Context;
use netstack::networks::is_predefined;
use plan::{Error, Kind, Result};
use std::io::Write;

pub fn run(ctx: &Context, args: &NetworkPruneArgs) -> Result<i32> {
    let filters = ls::parse(&args.filter)?;
    if let Some((key, _)) = filters.iter().find(|(k, _)| !matches!(k.as_str(), "label" | "label!" | "until")) {
        return Err(Error::invalid(format!("invalid filter '{key}'")).with_hint("prune takes until, label and label!"));
    }
    if !args.force {
        print!(
            "WARNING! This will remove all custom networks not used by at least one container.\nAre you sure you want to continue? [y/N] "
        );
        // A closed terminal is a no.
        let _ = std::io::stdout().flush();
        let mut answer = String::new();
        if std::io::stdin().read_line(&mut answer).is_err() || !matches!(answer.trim(), "y" | "Y" | "yes") {
            return Ok(0);
        }
    }
    let netstack = ctx.netstack();
    // A stopped container that will want its network back counts as a user.
    let wanted: Vec<String> = container::list(ctx)?
        .into_iter()
        .filter_map(|e| match e {
            Entry::Container(r) => Some(r.networks.into_iter().map(|n| n.network)),
            Entry::Broken { .. } => None,
        })
        .flatten()
        .collect();
    let mut removed = Vec::new();
    for n in netstack.networks()? {
        if is_predefined(&n.name) || wanted.contains(&n.name) || wanted.contains(&n.id) {
            continue;
        }
        let mut keep = false;
        for (key, values) in &filters {
            for v in values {
                keep |= match key.as_str() {
                    "until" => !older(&n.created, v)?,
                    _ => !ls::matches(&n, key, v, || Ok(true))?,
                };
            }
        }
        if keep {
            continue;
        }
        match netstack.remove(&n.name) {
            Ok(_) => removed.push(n.name),
            // Taken into use, or removed, since we looked.
            Err(e) if matches!(e.kind, Kind::Conflict | Kind::NotFound) => {}
            Err(e) => return Err(e),
        }
    }
    if !removed.is_empty() {
        println!("Deleted Networks:");
        for name in removed {
            println!("{name}");
        }
        println!();
    }
    Ok(0)
}

/// Whether something made at `created` is older than `until`: a duration (`10m`, `1h30m`), a Unix time
/// or RFC 3339.
fn older(created: &str, until: &str) -> Result<bool> {
    if let Some(seconds) = duration(until) {
        return Ok(plan::time::seconds_since(created) >= seconds);
    }
    let moment = match until.parse::<i64>() {
        Ok(unix) => Some(plan::time::Timestamp { seconds: unix, nanos: 0 }),
        Err(_) => plan::time::parse(until),
    };
    let moment = moment.ok_or_else(|| {
        Error::invalid(format!("invalid value for \"until\": {until:?}"))
            .with_hint("a duration such as 24h or 1h30m, a Unix time, or RFC 3339")
    })?;
    Ok(plan::time::parse(created).is_some_and(|c| c <= moment))
}

/// Go's durations down to seconds.
fn duration(text: &str) -> Option<i64> {
    let mut total = 0;
    let mut number = String::new();
    for c in text.chars() {
        match c {
            '0'..='9' => number.push(c),
            'h' | 'm' | 's' => {
                let n: i64 = number.parse().ok()?;
                total += n.checked_mul(match c {
                    'h' => 3600,
                    'm' => 60,
                    _ => 1,
                })?;
                number.clear();
            }
            _ => return None,
        }
    }
    (number.is_empty() && !text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn until_takes_durations_and_moments() {
        assert_eq!(duration("1h30m"), Some(5400));
        assert_eq!(duration("10"), None);
        assert!(older("2020-01-01T00:00:00Z", "24h").unwrap());
        assert!(older("2020-01-01T00:00:00Z", "1577836800").unwrap());
        assert!(!older("2020-01-01T00:00:01Z", "2020-01-01T00:00:00Z").unwrap());
        assert!(older("2020-01-01T00:00:00Z", "soon").is_err());
    }
}
