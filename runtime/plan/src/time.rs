//! Moments as Docker writes them: RFC 3339, UTC, nanoseconds.
//!
//! State files, log lines and image records all carry such text; no date library is needed for a
//! calendar without time zones.

use std::time::{SystemTime, UNIX_EPOCH};

/// A moment in UTC. Ordered by time; leap seconds do not exist, as in Unix time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Seconds since 1970-01-01T00:00:00Z; may be negative.
    pub seconds: i64,
    /// 0 to 999,999,999, always forward from `seconds`.
    pub nanos: u32,
}

/// Docker's "never": what `inspect` shows as `FinishedAt` of a container that has not finished.
pub const ZERO: &str = "0001-01-01T00:00:00Z";

impl Timestamp {
    /// The wall clock (vDSO, no system call).
    pub fn now() -> Timestamp {
        Timestamp::from(SystemTime::now())
    }
}

impl From<SystemTime> for Timestamp {
    fn from(t: SystemTime) -> Timestamp {
        match t.duration_since(UNIX_EPOCH) {
            Ok(d) => Timestamp { seconds: d.as_secs().cast_signed(), nanos: d.subsec_nanos() },
            Err(before) => {
                let d = before.duration();
                let whole = -(d.as_secs().cast_signed());
                match d.subsec_nanos() {
                    0 => Timestamp { seconds: whole, nanos: 0 },
                    n => Timestamp { seconds: whole - 1, nanos: 1_000_000_000 - n },
                }
            }
        }
    }
}

/// [`format`] of the present moment.
pub fn now_rfc3339() -> String {
    format(Timestamp::now())
}

/// `2026-11-24T05:34:28.5Z`: as Go's `RFC3339Nano`, trailing zeros of the fraction left out.
pub fn format(t: Timestamp) -> String {
    let mut text = format_fixed(t);
    text.pop(); // the Z
    let kept = text.trim_end_matches('0').trim_end_matches('.').len();
    // The seconds themselves may end in zeros: never trim beyond the fraction.
    text.truncate(kept.max("2026-11-24T05:34:28".len()));
    text.push('Z');
    text
}

/// As [`format`] with always nine digits of fraction: the column of `logs --timestamps`.
pub fn format_fixed(t: Timestamp) -> String {
    let (year, month, day) = civil(t.seconds.div_euclid(86_400));
    let s = t.seconds.rem_euclid(86_400);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:09}Z", s / 3600, s / 60 % 60, s % 60, t.nanos)
}

/// Reads RFC 3339, with `Z` or an offset; digits of the fraction beyond the ninth are dropped.
/// `None` when the text is anything else, or names a day that the calendar lacks.
pub fn parse(text: &str) -> Option<Timestamp> {
    let b = text.as_bytes();
    if b.len() < 20 || b[4] != b'-' || b[7] != b'-' || b[13] != b':' || b[16] != b':' {
        return None;
    }
    if !matches!(b[10], b'T' | b't' | b' ') {
        return None;
    }
    let (year, month, day) = (number(&b[..4])?, number(&b[5..7])?, number(&b[8..10])?);
    let (hour, minute, second) = (number(&b[11..13])?, number(&b[14..16])?, number(&b[17..19])?);
    if !(1..=12).contains(&month) || day < 1 || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let days = days_since_epoch(year, month, day);
    if civil(days) != (year, month, day) {
        return None;
    }
    let mut rest = &b[19..];
    let mut nanos = 0;
    if rest[0] == b'.' {
        let digits = rest[1..].iter().take_while(|c| c.is_ascii_digit()).count();
        if digits == 0 {
            return None;
        }
        for i in 0..9 {
            let digit = if i < digits { u32::from(rest[1 + i] - b'0') } else { 0 };
            nanos = nanos * 10 + digit;
        }
        rest = &rest[1 + digits..];
    }
    let offset = match rest {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (h, m) = (number(&[*h1, *h2])?, number(&[*m1, *m2])?);
            if h > 23 || m > 59 {
                return None;
            }
            let seconds = h * 3600 + m * 60;
            if *sign == b'-' { -seconds } else { seconds }
        }
        _ => return None,
    };
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offset;
    Some(Timestamp { seconds, nanos })
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |n, c| c.is_ascii_digit().then(|| n * 10 + i64::from(c - b'0')))
}

/// Days from 1970-01-01 to a day of the proleptic Gregorian calendar. Years are counted from March,
/// so that the leap day is the last of its year and months have the lengths of a fixed pattern.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let before_year = y * 365 + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400);
    let before_month = (153 * m + 2) / 5;
    before_year + before_month + day - 1 - EPOCH
}

/// Days from 0000-03-01 to 1970-01-01.
const EPOCH: i64 = 719_468;

/// The inverse of [`days_since_epoch`].
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + EPOCH;
    let era = days.div_euclid(146_097);
    let in_era = days.rem_euclid(146_097);
    let year_of_era = (in_era - in_era / 1460 + in_era / 36_524 - in_era / 146_096) / 365;
    let in_year = in_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let m = (5 * in_year + 2) / 153;
    let day = in_year - (153 * m + 2) / 5 + 1;
    let month = if m < 10 { m + 3 } else { m - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

/// Whole seconds from `text` (RFC 3339) until now; 0 for a time that cannot be read or is yet to come,
/// so that no clock jump shows a negative age.
pub fn seconds_since(text: &str) -> i64 {
    parse(text).map_or(0, |t| (Timestamp::now().seconds - t.seconds).max(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64, nanos: u32) -> Timestamp {
        Timestamp { seconds, nanos }
    }

    #[test]
    fn moments_known_from_elsewhere() {
        for (seconds, nanos, text) in [
            (0, 0, "1970-01-01T00:00:00Z"),
            (951_782_400, 0, "2000-02-29T00:00:00Z"),
            (1_234_567_890, 120_000_000, "2009-02-13T23:31:30.12Z"),
            (4_107_542_399, 999_999_999, "2100-02-28T23:59:59.999999999Z"),
            (-1, 500_000_000, "1969-12-31T23:59:59.5Z"),
            (-62_135_596_800, 0, ZERO),
            (1_600_000_000, 1, "2020-09-13T12:26:40.000000001Z"),
            (1_600_000_000, 0, "2020-09-13T12:26:40Z"),
        ] {
            assert_eq!(format(at(seconds, nanos)), text);
            assert_eq!(parse(text), Some(at(seconds, nanos)), "{text}");
        }
        assert_eq!(format_fixed(at(0, 10)), "1970-01-01T00:00:00.000000010Z");
    }

    #[test]
    fn every_day_of_four_centuries_survives_the_round_trip() {
        let mut last = civil(-1);
        for days in 0..146_097 {
            let (y, m, d) = civil(days);
            assert_eq!(days_since_epoch(y, m, d), days);
            assert!((y, m, d) > last);
            last = (y, m, d);
        }
        assert_eq!(last, (2369, 12, 31));
    }

    #[test]
    fn offsets_and_long_fractions() {
        let utc = parse("2026-11-24T05:34:28.123456789Z");
        assert!(utc.is_some());
        assert_eq!(parse("2026-11-24T07:04:28.1234567891111+01:30"), utc);
        assert_eq!(parse("2026-11-23t21:34:28.123456789-08:00"), utc);
    }

    #[test]
    fn what_is_not_a_moment_is_refused() {
        for text in [
            "",
            "2026",
            "2026-11-24T05:34:28",
            "2026-13-24T05:34:28Z",
            "2026-02-29T05:34:28Z",
            "2026-11-24T24:34:28Z",
            "2026-11-24T05:34:28.Z",
            "2026-11-24T05:34:28+1:00",
            "2026-11-24T05:34:28Zx",
            "2026-11-2\u{e9}T05:34:28Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
