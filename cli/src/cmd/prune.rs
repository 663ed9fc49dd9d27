//! What every `prune` shares: the question, and the `until` filter.

use super::filter::has_label;
use crate::container::request::size::duration;
use plan::{Error, Result};
use std::collections::BTreeMap;
use std::io::Write;

/// Asks whether to go on. A closed terminal is a no.
pub fn confirm(warning: &str) -> bool {
    super::out(&format!("{warning}\nAre you sure you want to continue? [y/N] "));
    let _ = std::io::stdout().flush();
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}

/// What `until`, `label` and `label!` say of a thing: whether it may go. `None` for any other key.
///
/// # Errors
/// A moment that means nothing.
pub fn selects(key: &str, value: &str, created: &str, labels: &BTreeMap<String, String>) -> Result<Option<bool>> {
    Ok(match key {
        "until" => Some(older(created, value)?),
        "label" => Some(has_label(labels, value)),
        "label!" => Some(!has_label(labels, value)),
        _ => None,
    })
}

/// Whether something made at `created` is older than `until`: a duration (`10m`, `1h30m`), a Unix time
/// or RFC 3339.
fn older(created: &str, until: &str) -> Result<bool> {
    if let Some(age) = duration(until) {
        return Ok(u64::try_from(plan::time::seconds_since(created)).is_ok_and(|seconds| seconds >= age.as_secs()));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn until_takes_durations_and_moments() {
        assert!(older("2020-01-01T00:00:00Z", "24h").unwrap());
        assert!(older("2020-01-01T00:00:00Z", "1577836800").unwrap());
        assert!(!older("2020-01-01T00:00:01Z", "2020-01-01T00:00:00Z").unwrap());
        assert!(older("2020-01-01T00:00:00Z", "soon").is_err());
    }
}
