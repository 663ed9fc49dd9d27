//! PAX extended headers: `<length> <key>=<value>\n` records ahead of the member they describe.
//!
//! Records are cut by their length, not at newlines: the value of an xattr is binary, and a parser
//! that loses its place there also loses a `size` that follows (the desync of CVE-2025-62518).

use super::number::{self, Moment};
use super::sparse::Extent;

/// Far beyond what a file system stores for one file; bounds the work on a hostile header.
const MAX_XATTRS: usize = 256;

/// What the records of one extended header say about the next member. `None`: the plain header's
/// field holds.
#[derive(Debug, Default)]
pub struct Pax {
    pub path: Option<Vec<u8>>,
    pub linkpath: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    pub mtime: Option<Moment>,
    /// Name and value, in order, a repeated name only once (the last value).
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub sparse: SparseKeys,
}

/// The `GNU.sparse.*` records of the formats 0.0, 0.1 and 1.0.
#[derive(Debug, Default)]
pub struct SparseKeys {
    pub version: (Option<u64>, Option<u64>),
    pub name: Option<Vec<u8>>,
    /// The size of the file with its holes.
    pub real_size: Option<u64>,
    /// From `map` (0.1) or the repeated `offset`/`numbytes` pairs (0.0).
    pub map: Vec<Extent>,
    offset: Option<u64>,
}

/// A malformed header, in words.
type Result<T> = std::result::Result<T, String>;

/// Cuts `data` into records and calls `each(key, value)`.
fn records(data: &[u8], mut each: impl FnMut(&[u8], &[u8]) -> Result<()>) -> Result<()> {
    let mut rest = data;
    while !rest.is_empty() {
        let malformed = || "malformed PAX record".to_string();
        let space = rest.iter().position(|b| *b == b' ').ok_or_else(malformed)?;
        let length = number::decimal(&rest[..space]).and_then(|n| usize::try_from(n).ok()).ok_or_else(malformed)?;
        let record = rest.get(space + 1..length).ok_or_else(malformed)?;
        let body = record.strip_suffix(b"\n").ok_or_else(malformed)?;
        let equals = body.iter().position(|b| *b == b'=').ok_or_else(malformed)?;
        each(&body[..equals], &body[equals + 1..])?;
        rest = &rest[length..];
    }
    Ok(())
}

impl Pax {
    pub fn parse(data: &[u8]) -> Result<Pax> {
        let mut pax = Pax::default();
        records(data, |key, value| pax.set(key, value))?;
        if pax.sparse.offset.is_some() {
            return Err("PAX sparse map ends with an offset without a length".into());
        }
        Ok(pax)
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            self.xattrs.retain(|(known, _)| known != name);
            if self.xattrs.len() == MAX_XATTRS {
                return Err(format!("more than {MAX_XATTRS} extended attributes"));
            }
            self.xattrs.push((name.to_vec(), value.to_vec()));
            return Ok(());
        }
        // POSIX: an empty value takes the override back.
        let set = !value.is_empty();
        let wrong = || format!("PAX record {} has the value {}", super::shown(key), super::shown(value));
        let decimal = || number::decimal(value).map(Some).ok_or_else(wrong);
        let name = || if value.contains(&0) { Err(wrong()) } else { Ok(Some(value.to_vec())) };
        match key {
            b"path" => self.path = if set { name()? } else { None },
            b"linkpath" => self.linkpath = if set { name()? } else { None },
            b"size" => self.size = if set { decimal()? } else { None },
            b"uid" => self.uid = if set { decimal()? } else { None },
            b"gid" => self.gid = if set { decimal()? } else { None },
            b"mtime" => self.mtime = if set { Some(number::moment(value).ok_or_else(wrong)?) } else { None },
            b"GNU.sparse.major" => self.sparse.version.0 = decimal()?,
            b"GNU.sparse.minor" => self.sparse.version.1 = decimal()?,
            b"GNU.sparse.name" => self.sparse.name = name()?,
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.real_size = decimal()?,
            b"GNU.sparse.map" => self.sparse.map = map_0_1(value).ok_or_else(wrong)?,
            b"GNU.sparse.offset" if self.sparse.offset.is_some() => return Err(wrong()),
            b"GNU.sparse.offset" => self.sparse.offset = decimal()?,
            b"GNU.sparse.numbytes" => {
                let offset = self.sparse.offset.take().ok_or_else(wrong)?;
                let length = number::decimal(value).ok_or_else(wrong)?;
                self.sparse.map.push(Extent { offset, length });
            }
            // times of access and change, user and group names, charset, comment, vendors' keys:
            // nothing an image layer keeps.
            _ => {}
        }
        Ok(())
    }
}

fn map_0_1(value: &[u8]) -> Option<Vec<Extent>> {
    let mut numbers = value.split(|b| *b == b',').map(number::decimal);
    let mut map = Vec::new();
    while let Some(offset) = numbers.next() {
        map.push(Extent { offset: offset?, length: numbers.next()?? });
    }
    Some(map)
}

/// A global header (`g`) is ignored, as docker, containerd and podman do (git writes one for its
/// commit). Only one that would move names or data is refused: GNU tar obeys it, those do not, and
/// an archive that reads as two different trees is an attack.
pub fn check_global(data: &[u8]) -> Result<()> {
    records(data, |key, _| match key {
        b"path" | b"linkpath" | b"size" => Err(format!("global PAX header sets {}", super::shown(key))),
        _ if key.starts_with(b"GNU.sparse.") => Err("global PAX header describes a sparse file".into()),
        _ => Ok(()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, value: &[u8]) -> Vec<u8> {
        let body = key.len() + value.len() + 3;
        let mut length = body + 1;
        while body + length.to_string().len() != length {
            length += 1;
        }
        [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
    }

    #[test]
    fn binary_values_do_not_hide_the_size() {
        let data = [record("SCHILY.xattr.user.x", b"a\n9 size=1\n"), record("size", b"512")].concat();
        let pax = Pax::parse(&data).unwrap();
        assert_eq!(pax.size, Some(512));
        assert_eq!(pax.xattrs, [(b"user.x".to_vec(), b"a\n9 size=1\n".to_vec())]);
    }

    #[test]
    fn the_last_record_wins_and_an_empty_one_takes_back() {
        let data = [record("path", b"a"), record("path", b"b"), record("uid", b"7"), record("uid", b"")].concat();
        let pax = Pax::parse(&data).unwrap();
        assert_eq!(pax.path.as_deref(), Some(&b"b"[..]));
        assert_eq!(pax.uid, None);
    }

    #[test]
    fn malformed_records_are_refused() {
        for bad in [
            &b"x"[..],
            b"99 path=a\n",
            b"3 =\n",
            b"0 path=a\n",
            b"8 path=a\n",
            b"9 path=ab",
            b"18446744073709551615 a=b\n",
        ] {
            assert!(Pax::parse(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
        for (key, value) in [("uid", "-1"), ("size", "-5"), ("size", "0x10"), ("mtime", "soon"), ("path", "a\0b")] {
            assert!(Pax::parse(&record(key, value.as_bytes())).is_err(), "{key}={value}");
        }
    }

    #[test]
    fn sparse_maps_in_records() {
        let pairs = [record("GNU.sparse.offset", b"0"), record("GNU.sparse.numbytes", b"5")].concat();
        assert_eq!(Pax::parse(&pairs).unwrap().sparse.map, [Extent { offset: 0, length: 5 }]);
        let map = record("GNU.sparse.map", b"0,5,10,1");
        assert_eq!(Pax::parse(&map).unwrap().sparse.map.len(), 2);
        assert!(Pax::parse(&record("GNU.sparse.map", b"0,5,10")).is_err());
        assert!(Pax::parse(&record("GNU.sparse.offset", b"1")).is_err());
    }

    #[test]
    fn global_headers_may_not_move_data() {
        assert!(check_global(&record("comment", b"a commit")).is_ok());
        assert!(check_global(&record("size", b"0")).is_err());
        assert!(check_global(&record("GNU.sparse.major", b"1")).is_err());
    }
}
