//! Docker's tables: columns at least ten wide, three spaces apart, the last one not padded.

/// Renders rows (the first is the header) with the columns aligned.
pub fn align(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| {
        let longest = rows.iter().filter_map(|r| r.get(c)).map(|s| s.chars().count()).max().unwrap_or(0);
        (longest + 3).max(10)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        for (c, cell) in row.iter().enumerate() {
            out.push_str(cell);
            if c + 1 < row.len() {
                let pad = widths[c].saturating_sub(cell.chars().count());
                out.extend(std::iter::repeat_n(' ', pad));
            }
        }
        out.push('\n');
    }
    out
}

/// A length that a terminal cell should not exceed, cut with an ellipsis as Docker does.
pub fn ellipsis(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_string();
    }
    let mut out: String = text.chars().take(max.saturating_sub(1)).collect();
    out.push('…');
    out
}

/// The first twelve digits of an ID, without the algorithm's name.
pub fn short_id(id: &str) -> &str {
    let hex = id.strip_prefix("sha256:").unwrap_or(id);
    hex.get(..12).unwrap_or(hex)
}

/// An RFC 3339 time as Go prints it, which is what Docker's `CreatedAt` is and scripts parse:
/// `2026-11-24 15:13:03 +0000 UTC`. `fraction`: with what the clock says below the second.
pub fn go_time(rfc3339: &str, fraction: bool) -> String {
    let Some((date, time)) = rfc3339.strip_suffix('Z').and_then(|t| t.split_once('T')) else {
        return rfc3339.to_string();
    };
    let time = if fraction { time } else { time.split('.').next().unwrap_or(time) };
    format!("{date} {time} +0000 UTC")
}

/// "2 hours ago" for a time `seconds` in the past, in Docker's words.
pub fn ago(seconds: i64) -> String {
    format!("{} ago", human_duration(seconds))
}

/// Docker's coarse durations: "Less than a second", "About a minute", "3 weeks"…
pub fn human_duration(seconds: i64) -> String {
    let s = seconds.max(0);
    match s {
        0 => "Less than a second".into(),
        1 => "1 second".into(),
        2..60 => format!("{s} seconds"),
        60..120 => "About a minute".into(),
        _ if s < 3600 => format!("{} minutes", s / 60),
        // Docker rounds hours half up.
        _ if (s + 1800) / 3600 == 1 => "About an hour".into(),
        _ if (s + 1800) / 3600 < 48 => format!("{} hours", (s + 1800) / 3600),
        _ if s < 14 * 86_400 => format!("{} days", s / 86_400),
        _ if s < 60 * 86_400 => format!("{} weeks", s / (7 * 86_400)),
        _ if s < 2 * 365 * 86_400 => format!("{} months", s / (30 * 86_400)),
        _ => format!("{} years", s / (365 * 86_400)),
    }
}

/// Sizes as Docker prints them: powers of 1000, three significant digits (`13.3MB`, `7.8kB`, `0B`).
pub fn human_size(bytes: u64) -> String {
    scaled(bytes, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB"])
}

/// Memory as Docker prints it: powers of 1024 (`7.656GiB`).
pub fn binary_size(bytes: u64) -> String {
    scaled(bytes, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB"])
}

fn scaled(bytes: u64, step: f64, units: &[&str]) -> String {
    // A size has 53 significant bits at most for display: the loss cannot show.
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= step && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    let digits = if value >= 100.0 {
        format!("{value:.0}")
    } else if value >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    };
    let trimmed = if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { &digits };
    format!("{trimmed}{}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_as_docker_aligns_them() {
        let rows = vec![
            vec!["NETWORK ID".into(), "NAME".into(), "DRIVER".into(), "SCOPE".into()],
            vec!["0123456789ab".into(), "bridge".into(), "bridge".into(), "local".into()],
        ];
        assert_eq!(
            align(&rows),
            "NETWORK ID     NAME      DRIVER    SCOPE\n0123456789ab   bridge    bridge    local\n"
        );
    }

    #[test]
    fn times_as_go_prints_them() {
        let time = "2026-11-24T15:13:03.41672569Z";
        assert_eq!(go_time(time, true), "2026-11-24 15:13:03.41672569 +0000 UTC");
        assert_eq!(go_time(time, false), "2026-11-24 15:13:03 +0000 UTC");
        assert_eq!(go_time("2026-11-24T15:13:03+01:00", false), "2026-11-24T15:13:03+01:00", "as it is");
    }

    #[test]
    fn durations_in_dockers_words() {
        let cases = [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (61, "About a minute"),
            (150, "2 minutes"),
            (3600, "About an hour"),
            (7200, "2 hours"),
            (3 * 86_400, "3 days"),
            (21 * 86_400, "3 weeks"),
            (90 * 86_400, "3 months"),
            (800 * 86_400, "2 years"),
        ];
        for (s, words) in cases {
            assert_eq!(human_duration(s), words, "{s}");
        }
    }

    #[test]
    fn sizes_in_powers_of_1000() {
        for (n, text) in
            [(0, "0B"), (999, "999B"), (7_800, "7.8kB"), (13_256_000, "13.3MB"), (1_000_000, "1MB"), (120_000, "120kB")]
        {
            assert_eq!(human_size(n), text);
        }
    }
}
