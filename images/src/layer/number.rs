//! Numbers as tar archives write them: octal text, base-256, and the decimals of PAX records.

/// A moment as the kernel takes it: whole seconds (negative before 1970) and 0..10⁹ nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    pub seconds: i64,
    pub nanoseconds: u32,
}

/// A numeric header field. Octal text may be padded with spaces and NULs on either side and may be
/// empty (0). A first byte with the high bit set means base-256: two's complement, big endian, which
/// GNU tar uses for anything octal cannot hold, negative times included. `None`: not a number, or
/// beyond 64 bits.
pub fn field(bytes: &[u8]) -> Option<i64> {
    let &first = bytes.first()?;
    if first & 0x80 != 0 {
        return base256(bytes);
    }
    let padding = |b: &u8| *b == b' ' || *b == 0;
    let start = bytes.iter().position(|b| !padding(b)).unwrap_or(bytes.len());
    let text = &bytes[start..];
    let end = text.iter().position(padding).unwrap_or(text.len());
    text[..end].iter().try_fold(0i64, |sum, digit| match digit {
        b'0'..=b'7' => sum.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

fn base256(bytes: &[u8]) -> Option<i64> {
    // The mark is the high bit; the sign is the one below it, extended over the mark.
    let negative = bytes[0] & 0x40 != 0;
    let first = if negative { bytes[0] | 0x80 } else { bytes[0] & 0x7f };
    let mut value: i128 = if negative { -1 } else { 0 };
    for byte in std::iter::once(first).chain(bytes[1..].iter().copied()) {
        value = value.checked_mul(256)?.checked_add(i128::from(byte))?;
    }
    i64::try_from(value).ok()
}

/// An unsigned decimal of a PAX record: digits only.
pub fn decimal(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() {
        return None;
    }
    bytes.iter().try_fold(0u64, |sum, digit| match digit {
        b'0'..=b'9' => sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

/// A PAX time: `[-]seconds[.fraction]`. Digits beyond nanoseconds are cut, toward the past for
/// negative times too: "-1.5" is two seconds before 1970 plus half a second.
pub fn moment(bytes: &[u8]) -> Option<Moment> {
    let (negative, digits) = match bytes.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, bytes),
    };
    let mut parts = digits.splitn(2, |b| *b == b'.');
    let seconds = i64::try_from(decimal(parts.next()?)?).ok()?;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let nanoseconds = (0..9).fold(0u32, |n, i| n * 10 + u32::from(fraction.get(i).map_or(0, |d| d - b'0')));
    match (negative, nanoseconds) {
        (false, _) => Some(Moment { seconds, nanoseconds }),
        (true, 0) => Some(Moment { seconds: -seconds, nanoseconds }),
        (true, _) => Some(Moment { seconds: (-seconds).checked_sub(1)?, nanoseconds: 1_000_000_000 - nanoseconds }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_fields_tolerate_padding() {
        assert_eq!(field(b"0000644\0"), Some(0o644));
        assert_eq!(field(b"   644 \0"), Some(0o644));
        assert_eq!(field(b"\0\0\0\0"), Some(0));
        assert_eq!(field(b"77777777777\0"), Some(0o77777777777));
        assert_eq!(field(b"12a4\0"), None);
        assert_eq!(field(b"-1\0"), None);
        assert_eq!(field(b""), None);
    }

    #[test]
    fn base_256_is_signed_and_bounded() {
        assert_eq!(field(&[0x80, 0, 0, 0, 0, 0, 1, 0]), Some(256));
        assert_eq!(field(&[0xff; 12]), Some(-1));
        assert_eq!(field(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe]), Some(-2));
        assert_eq!(field(&[0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]), None, "2^64");
        assert_eq!(field(&[0x80, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0]), None, "2^63");
    }

    #[test]
    fn pax_times_keep_nanoseconds_on_both_sides_of_1970() {
        let m = |seconds, nanoseconds| Some(Moment { seconds, nanoseconds });
        assert_eq!(moment(b"12"), m(12, 0));
        assert_eq!(moment(b"12.5"), m(12, 500_000_000));
        assert_eq!(moment(b"12.0000000019"), m(12, 1));
        assert_eq!(moment(b"-1.5"), m(-2, 500_000_000));
        assert_eq!(moment(b"-3"), m(-3, 0));
        for bad in [&b""[..], b".5", b"1.x", b"1e9", b"99999999999999999999", b"--1"] {
            assert_eq!(moment(bad), None);
        }
    }
}
