//! The keys that leave a container running and end the attachment.

use plan::{Error, Result};

/// `ctrl-p,ctrl-q`: what Docker takes where nothing else is configured.
pub const DEFAULT: &[u8] = &[0x10, 0x11];

/// Reads Docker's notation: comma-separated, each a single character or `ctrl-` with one of a–z, `@`,
/// `[`, `\`, `]`, `^`, `_`. Empty text gives no keys: detaching is off.
pub fn parse(text: &str) -> Result<Vec<u8>> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let bad = |key: &str| {
        Error::invalid(format!("invalid detach keys ({text}) provided"))
            .with_cause(format!("unknown character: '{key}'"))
            .with_hint("keys are characters or ctrl-<letter>, separated by commas: --detach-keys ctrl-p,ctrl-q")
    };
    text.split(',')
        .map(|key| match key.as_bytes() {
            [one] => Ok(*one),
            [b'c', b't', b'r', b'l', b'-', c @ (b'a'..=b'z')] => Ok(c - b'a' + 1),
            // The control characters are what the characters from @ on lose with bit 6.
            [b'c', b't', b'r', b'l', b'-', c @ (b'@' | b'['..=b'_')] => Ok(c & 0x1f),
            _ => Err(bad(key)),
        })
        .collect()
}

/// Looks for the keys in what is typed. The beginning of a possible match is held back until it is
/// clear whether it becomes one.
pub struct Scanner {
    keys: Vec<u8>,
    matched: usize,
}

impl Scanner {
    pub fn new(keys: Vec<u8>) -> Scanner {
        Scanner { keys, matched: 0 }
    }

    /// Appends to `out` what may go to the container; `true` once the keys are complete (what was
    /// typed after them is dropped).
    pub fn feed(&mut self, typed: &[u8], out: &mut Vec<u8>) -> bool {
        if self.keys.is_empty() {
            out.extend_from_slice(typed);
            return false;
        }
        for &b in typed {
            // On a mismatch the held-back keys are let go, save for a shorter beginning at their
            // end, as in `ctrl-p ctrl-p ctrl-q`.
            while self.matched > 0 && self.keys[self.matched] != b {
                let held = self.matched;
                self.matched = (0..held).rev().find(|&n| self.keys[..n] == self.keys[held - n..held]).unwrap_or(0);
                out.extend_from_slice(&self.keys[..held - self.matched]);
            }
            if self.keys[self.matched] == b {
                self.matched += 1;
            } else {
                out.push(b);
            }
            if self.matched == self.keys.len() {
                return true;
            }
        }
        false
    }

    /// At the end of input, the keys still held back.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.keys[..std::mem::take(&mut self.matched)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_notation() {
        assert_eq!(parse("ctrl-p,ctrl-q").unwrap(), DEFAULT);
        assert_eq!(parse("a,ctrl-@,ctrl-[,ctrl-_,ctrl-z,Q").unwrap(), [b'a', 0, 27, 31, 26, b'Q']);
        assert_eq!(parse("").unwrap(), Vec::<u8>::new());
        for wrong in ["ctrl-", "ctrl-A", "ctrl-pp", "ab", "a,,b", ",", "ctrl-1", "é"] {
            assert!(parse(wrong).unwrap_err().to_string().starts_with("invalid detach keys"), "{wrong}");
        }
    }

    /// What passes, and whether the keys were found, however the typing is cut into reads.
    fn typed(keys: &[u8], text: &[u8]) -> (Vec<u8>, bool) {
        let mut results = Vec::new();
        for size in 1..=text.len() {
            let mut s = Scanner::new(keys.to_vec());
            let mut out = Vec::new();
            let found = text.chunks(size).any(|c| s.feed(c, &mut out));
            if !found {
                s.finish(&mut out);
            }
            results.push((out, found));
        }
        assert!(results.windows(2).all(|w| w[0] == w[1]));
        results.swap_remove(0)
    }

    #[test]
    fn only_the_whole_sequence_detaches_and_nothing_else_is_lost() {
        assert_eq!(typed(DEFAULT, b"ls\x10\x11rest"), (b"ls".to_vec(), true));
        assert_eq!(typed(DEFAULT, b"\x10ls\x11"), (b"\x10ls\x11".to_vec(), false));
        assert_eq!(typed(DEFAULT, b"\x10\x10\x11"), (b"\x10".to_vec(), true));
        assert_eq!(typed(DEFAULT, b"x\x10"), (b"x\x10".to_vec(), false));
        assert_eq!(typed(b"aab", b"aaab"), (b"a".to_vec(), true));
        assert_eq!(typed(b"", b"\x10\x11"), (b"\x10\x11".to_vec(), false));
    }
}
