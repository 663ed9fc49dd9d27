//! What every `prune` shares: the question, and the `until` filter.

use super::filter::has_label;
use crate::container::request::size::duration;
use plan::time::Timestamp;
use plan::{Error, Result};
use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

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
        "until" => Some(Until::parse(value)?.is_after(created)),
        "label" => Some(has_label(labels, value)),
        "label!" => Some(!has_label(labels, value)),
        _ => None,
    })
}

/// What `until=` says: a duration before now (`10m`, `1h30m`), a Unix time, or RFC 3339.
pub enum Until {
    Age(Duration),
    Moment(Timestamp),
}

impl Until {
    /// # Errors
    /// A moment that means nothing.
    pub fn parse(text: &str) -> Result<Until> {
        if let Some(age) = duration(text) {
            return Ok(Until::Age(age));
        }
        let moment = match text.parse::<i64>() {
            Ok(seconds) => Some(Timestamp { seconds, nanos: 0 }),
            Err(_) => plan::time::parse(text),
        };
        moment.map(Until::Moment).ok_or_else(|| {
            Error::invalid(format!("invalid value for \"until\": {text:?}"))
                .with_hint("a duration such as 24h or 1h30m, a Unix time, or RFC 3339")
        })
    }

    /// Whether something made at `created` was made before it.
    pub fn is_after(&self, created: &str) -> bool {
        match self {
            Until::Age(age) => {
                u64::try_from(plan::time::seconds_since(created)).is_ok_and(|seconds| seconds >= age.as_secs())
            }
            Until::Moment(moment) => plan::time::parse(created).is_some_and(|c| c <= *moment),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn until_takes_durations_and_moments() {
        let older = |created: &str, until: &str| Until::parse(until).unwrap().is_after(created);
        assert!(older("2020-01-01T00:00:00Z", "24h"));
        assert!(older("2020-01-01T00:00:00Z", "1577836800"));
        assert!(!older("2020-01-01T00:00:01Z", "2020-01-01T00:00:00Z"));
        assert!(Until::parse("soon").is_err());
    }
}
