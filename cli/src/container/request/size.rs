//! Numbers as people write them: sizes and processors.

use plan::{Error, Result};
use std::time::Duration;

/// `512m`, `1.5g`, `64KiB`, `1024` (bytes): powers of 1024, as Docker takes them.
///
/// # Errors
/// Docker's text.
pub fn bytes(text: &str) -> Result<i64> {
    let wrong = || {
        Error::invalid(format!("invalid size: '{}'", text.escape_debug()))
            .with_hint("write bytes, or k, m, g: 512m, 1.5g")
    };
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, suffix) = lower.split_at(digits);
    let power = match suffix
        .trim_start()
        .strip_suffix("ib")
        .or(suffix.trim_start().strip_suffix('b'))
        .unwrap_or(suffix.trim_start())
    {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(wrong()),
    };
    if !number.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(wrong());
    }
    let value: f64 = number.parse().map_err(|_| wrong())?;
    let bytes = value * 1024f64.powi(power);
    // 2^63 is exactly representable; below it the conversion cannot overflow.
    if bytes >= 9_223_372_036_854_775_808.0 { Err(wrong()) } else { Ok(bytes as i64) }
}

/// `1.5` processors in billionths, without the rounding of a float.
///
/// # Errors
/// Docker's text, or more than there are.
pub fn cpus(text: &str, available: usize) -> Result<i64> {
    let wrong = || {
        Error::invalid(format!("failed to parse {} as a rational number", text.escape_debug()))
            .with_hint("write a number of processors: 0.5, 2")
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.len() + fraction.len() == 0 || !all_digits(whole) || !all_digits(fraction) {
        return Err(wrong());
    }
    if fraction.len() > 9 {
        return Err(Error::invalid("value is too precise").with_hint("write at most nine digits after the point"));
    }
    let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| wrong())? };
    let fraction: i64 = format!("{fraction:0<9}").parse().map_err(|_| wrong())?;
    let nano = whole.checked_mul(1_000_000_000).and_then(|n| n.checked_add(fraction)).ok_or_else(wrong)?;
    let most = i64::try_from(available).unwrap_or(i64::MAX).saturating_mul(1_000_000_000);
    // 0 is "no limit", as in Docker.
    if nano != 0 && !(10_000_000..=most).contains(&nano) {
        return Err(Error::invalid(format!(
            "range of CPUs is from 0.01 to {available}.00, as there are only {available} CPUs available"
        ))
        .with_hint("ask for fewer processors"));
    }
    Ok(nano)
}

/// Go's durations: `1h30m`, `1.5s`, `100ms`. `None`: it is none, or negative.
pub fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let (number, tail) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.')?);
        let (unit, tail) = tail.split_at(tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len()));
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        let part = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
        total = total.checked_add(part)?;
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, milliseconds) in [("1h30m", 5_400_000), ("1.5s", 1500), ("100ms", 100), ("0s", 0), ("2m1s", 121_000)]
        {
            assert_eq!(duration(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "10", "m", "x", "1x", "-1s", "1..2s", "s1"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, value) in [
            ("0", 0),
            ("512", 512),
            ("1k", 1024),
            ("1.5m", 1_572_864),
            ("2GiB", 2 << 30),
            ("10 mb", 10 << 20),
            ("4B", 4),
        ] {
            assert_eq!(bytes(text).unwrap(), value, "{text}");
        }
        for text in ["", "m", "-1", "1x", "1e3", ".5m", "nan", "1..2", "99999p"] {
            assert!(bytes(text).unwrap_err().message.starts_with("invalid size: "), "{text}");
        }
    }

    #[test]
    fn processors() {
        assert_eq!(cpus("1.5", 2).unwrap(), 1_500_000_000);
        assert_eq!(cpus(".5", 2).unwrap(), 500_000_000);
        assert_eq!(cpus("0", 2).unwrap(), 0);
        assert!(cpus("3", 2).unwrap_err().message.contains("only 2 CPUs available"));
        assert!(cpus("0.001", 2).is_err());
        for text in ["", ".", "x", "1/2", "-1", "1e1"] {
            assert!(cpus(text, 2).is_err(), "{text}");
        }
    }
}
