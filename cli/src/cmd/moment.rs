//! Moments as people write them: `--since`, `--until` and their filters.

use crate::container::request::size::duration;
use plan::time::{self, Timestamp};
use plan::{Error, Result};
use std::time::SystemTime;

/// RFC 3339, a date, seconds since 1970, or how long ago: `42m`, `1h30m`.
///
/// # Errors
/// Docker's text for anything else.
pub fn moment(text: &str) -> Result<Timestamp> {
    let wrong = || {
        Error::invalid(format!(
            "invalid value for \"since\": failed to parse value as time or duration: {}",
            text.escape_debug()
        ))
        .with_hint("write a time (2026-11-24T05:00:00Z), seconds since 1970, or how long ago (42m)")
    };
    if let Some(ago) = duration(text) {
        return Ok(SystemTime::now().checked_sub(ago).ok_or_else(wrong)?.into());
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if let Ok(seconds) = whole.parse::<i64>() {
        let nanos = format!("{fraction:0<9}").get(..9).and_then(|n| n.parse().ok()).ok_or_else(wrong)?;
        return Ok(Timestamp { seconds, nanos });
    }
    [text.to_string(), format!("{text}Z"), format!("{text}:00Z"), format!("{text}T00:00:00Z")]
        .iter()
        .find_map(|t| time::parse(t))
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        assert_eq!(moment("1136214245").unwrap(), Timestamp { seconds: 1_136_214_245, nanos: 0 });
        assert_eq!(moment("1136214245.5").unwrap().nanos, 500_000_000);
        assert_eq!(moment("1970-01-01T00:00:01Z").unwrap().seconds, 1);
        assert_eq!(moment("1970-01-02").unwrap().seconds, 86_400);
        let ago = Timestamp::now().seconds - moment("10m").unwrap().seconds;
        assert!((599..=601).contains(&ago), "{ago}");
        for text in ["", "x", "10x", "2026-13-01", "m"] {
            assert!(moment(text).is_err(), "{text}");
        }
    }
}
