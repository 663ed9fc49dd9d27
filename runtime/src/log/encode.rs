//! Lines as they stand in the file: Docker's json-file, `{"log":"text\n","stream":"stdout","time":"2026-11-24T05:34:28.5Z"}`,
//! and the plain `2026-11-24T05:34:28.5Z stdout F text`.

use super::Format;
use super::writer::Piece;
use crate::relay::Stream;
use plan::time::{self, Timestamp};

pub(super) struct Encoder {
    format: Format,
    /// A JSON object, or nothing.
    attributes: String,
    /// What of a record is the same for every line of one read.
    envelope: String,
}

impl Encoder {
    pub fn new(format: Format, attributes: String) -> Encoder {
        Encoder { format, attributes, envelope: String::new() }
    }

    /// What is recorded from now on came at this moment, on this stream.
    pub fn begin(&mut self, stream: Stream, now: Timestamp) {
        let name = match stream {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        };
        let time = time::format(now);
        self.envelope = match (&self.format, self.attributes.as_str()) {
            (Format::Json, "") => format!("\",\"stream\":\"{name}\",\"time\":\"{time}\"}}\n"),
            (Format::Json, attrs) => format!("\",\"stream\":\"{name}\",\"attrs\":{attrs},\"time\":\"{time}\"}}\n"),
            (Format::Plain, _) => format!("{time} {name} "),
        };
    }

    /// Appends one record.
    pub fn record(&self, out: &mut Vec<u8>, piece: &Piece<'_>) {
        match self.format {
            Format::Json => {
                out.extend_from_slice(b"{\"log\":\"");
                piece.parts.iter().for_each(|part| escape(out, part));
                out.extend_from_slice(self.envelope.as_bytes());
            }
            Format::Plain => {
                let whole = piece.parts.last().is_some_and(|part| part.ends_with(b"\n"));
                out.extend_from_slice(self.envelope.as_bytes());
                out.extend_from_slice(if whole { b"F " } else { b"P " });
                piece.parts.iter().for_each(|part| out.extend_from_slice(part));
                if !whole {
                    out.push(b'\n');
                }
            }
        }
    }
}

/// Bytes that stand for themselves. As Docker (and Go) do, `<`, `>` and `&` are escaped too.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut b = 0x20;
    while b < 0x7f {
        plain[b] = !matches!(b as u8, b'"' | b'\\' | b'<' | b'>' | b'&');
        b += 1;
    }
    plain[0x7f] = true;
    plain
};

/// JSON escaping of what need not be UTF-8: each byte that is not becomes U+FFFD.
fn escape(out: &mut Vec<u8>, text: &[u8]) {
    let mut rest = text;
    loop {
        let plain = rest.iter().position(|b| !PLAIN[usize::from(*b)]).unwrap_or(rest.len());
        out.extend_from_slice(&rest[..plain]);
        rest = &rest[plain..];
        let Some(&b) = rest.first() else { return };
        let length = match b {
            b'\n' => push(out, b"\\n"),
            b'\r' => push(out, b"\\r"),
            b'\t' => push(out, b"\\t"),
            b'"' => push(out, b"\\\""),
            b'\\' => push(out, b"\\\\"),
            0..0x80 => push(out, &unicode(u16::from(b))),
            _ => match character(rest) {
                // JSON allows these two, JavaScript once did not.
                Some([0xe2, 0x80, last @ (0xa8 | 0xa9)]) => {
                    push(out, &unicode(0x2000 | u16::from(last & 0x3f)));
                    3
                }
                Some(bytes) => {
                    out.extend_from_slice(bytes);
                    bytes.len()
                }
                None => push(out, b"\\ufffd"),
            },
        };
        rest = &rest[length..];
    }
}

/// Appends and says that one byte of text has been dealt with.
fn push(out: &mut Vec<u8>, escaped: &[u8]) -> usize {
    out.extend_from_slice(escaped);
    1
}

fn unicode(code: u16) -> [u8; 6] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let digit = |shift: u16| HEX[usize::from(code >> shift & 0xf)];
    [b'\\', b'u', digit(12), digit(8), digit(4), digit(0)]
}

/// The character of more than one byte that `text` begins with, if it is one.
fn character(text: &[u8]) -> Option<&[u8]> {
    let length = match text.first()? {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => return None,
    };
    let bytes = text.get(..length)?;
    std::str::from_utf8(bytes).is_ok().then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(text: &[u8]) -> String {
        let mut out = Vec::new();
        escape(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn as_docker_writes_it() {
        assert_eq!(escaped(b"plain text~\x7f"), "plain text~\u{7f}");
        assert_eq!(escaped(b"\"q\" \\ \r\n\t\x00\x1b["), r#"\"q\" \\ \r\n\t\u0000\u001b["#);
        assert_eq!(escaped(b"<a&b>"), r"\u003ca\u0026b\u003e");
        assert_eq!(escaped("grüße 日本 🦀 \u{2028}\u{2029}".as_bytes()), r"grüße 日本 🦀 \u2028\u2029");
        // One replacement per byte, as Go decodes.
        assert_eq!(escaped(b"a\xffb\xe2\x82c\xf0\x9f\xa6"), r"a\ufffdb\ufffd\ufffdc\ufffd\ufffd\ufffd");
        assert_eq!(escaped(b"\xc0\x80\xed\xa0\x80\xf5"), r"\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd");
    }

    #[test]
    fn every_byte_and_every_pair_makes_valid_json() {
        let mut encoder = Encoder::new(Format::Json, "{\"a\":\"b\"}".into());
        encoder.begin(Stream::Stderr, Timestamp { seconds: 0, nanos: 0 });
        for a in 0..=255u8 {
            for b in 0..=255u8 {
                let mut line = Vec::new();
                let parts: [&[u8]; 2] = [&[a], &[b]];
                let piece = Piece { stream: Stream::Stderr, parts: &parts, continues: false, last: true };
                encoder.record(&mut line, &piece);
                let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
                assert_eq!((&value["stream"], &value["attrs"]["a"]), (&"stderr".into(), &"b".into()));
                if a < 0x80 && b < 0x80 {
                    assert_eq!(value["log"].as_str().unwrap().as_bytes(), [a, b]);
                }
            }
        }
    }
}
