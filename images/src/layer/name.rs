//! The names in a layer: cleaned, bounded, and told apart from whiteouts.

use plan::{Error, Result};

use super::{Limits, broken, shown};

/// The kernel's PATH_MAX less its NUL, and its NAME_MAX.
const MAX_PATH: usize = 4095;
const MAX_NAME: usize = 255;

/// What a member's name asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Name {
    /// The root directory itself.
    Root,
    Path(Place),
    /// `.wh.NAME`: NAME of the layers below is gone.
    Whiteout(Place),
    /// `.wh..wh..opq`: everything the layers below have in this directory (empty: the root) is gone.
    Opaque(Vec<u8>),
    /// Other `.wh..wh.` names are AUFS' own bookkeeping (hard link pool, orphans).
    Aufs,
}

/// A directory (empty: the root) and a name in it. The directory may still lead through symlinks.
#[derive(Debug, PartialEq, Eq)]
pub struct Place {
    pub parent: Vec<u8>,
    pub base: Vec<u8>,
}

impl Place {
    pub fn path(&self) -> Vec<u8> {
        join(&self.parent, &self.base)
    }
}

pub fn join(parent: &[u8], base: &[u8]) -> Vec<u8> {
    if parent.is_empty() { base.to_vec() } else { [parent, b"/", base].concat() }
}

/// The components of `name` read as an absolute path: `.` and empty ones dropped, `..` taken back,
/// held at the root. The flag tells whether a `..` was held.
fn clean<'n>(name: &'n [u8], limits: &Limits) -> Result<(Vec<&'n [u8]>, bool)> {
    let (mut parts, mut held) = (Vec::new(), false);
    if name.len() > MAX_PATH {
        return Err(too(name, "long", "more than 4095 bytes"));
    }
    if name.contains(&0) {
        return Err(broken(format!("{}: name with a NUL byte", shown(name))));
    }
    for part in name.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => held |= parts.pop().is_none(),
            part if part.len() > MAX_NAME => return Err(too(name, "long", "a component of more than 255 bytes")),
            part => parts.push(part),
        }
    }
    if parts.len() > limits.depth {
        return Err(too(name, "deep", &format!("more than {} directories", limits.depth)));
    }
    Ok((parts, held))
}

fn too(name: &[u8], what: &str, how: &str) -> Error {
    broken(format!("{}: name too {what} ({how})", shown(name)))
}

impl Name {
    /// Reads the name of a member. Absolute names and `..` stay within the root, as everywhere.
    pub fn parse(name: &[u8], limits: &Limits) -> Result<Name> {
        let (mut parts, _) = clean(name, limits)?;
        let Some(base) = parts.pop() else {
            return Ok(Name::Root);
        };
        if parts.iter().any(|part| part.starts_with(b".wh..wh.")) {
            return Ok(Name::Aufs);
        }
        if parts.iter().any(|part| part.starts_with(b".wh.")) {
            return Err(malformed(name));
        }
        let parent = parts.join(&b'/');
        let Some(hidden) = base.strip_prefix(b".wh.") else {
            return Ok(Name::Path(Place { parent, base: base.to_vec() }));
        };
        match hidden {
            b".wh..opq" => Ok(Name::Opaque(parent)),
            b"" | b"." | b".." => Err(malformed(name)),
            _ if hidden.starts_with(b".wh.") => Ok(Name::Aufs),
            _ => Ok(Name::Whiteout(Place { parent, base: hidden.to_vec() })),
        }
    }

    /// As [`Name::parse`], where `.wh.` means nothing.
    pub fn plain(name: &[u8], limits: &Limits) -> Result<Name> {
        let (mut parts, _) = clean(name, limits)?;
        Ok(match parts.pop() {
            Some(base) => Name::Path(Place { parent: parts.join(&b'/'), base: base.to_vec() }),
            None => Name::Root,
        })
    }

    /// Reads the target of a hard link: a path from the root, absolute or not. `None` when it is
    /// the root itself.
    pub fn hard_link_target(target: &[u8], limits: &Limits) -> Result<Option<Place>> {
        let (mut parts, held) = clean(target, limits)?;
        if held {
            return Err(broken(format!("hard link to {} leaves the image", shown(target))));
        }
        Ok(parts.pop().map(|base| Place { parent: parts.join(&b'/'), base: base.to_vec() }))
    }
}

fn malformed(name: &[u8]) -> Error {
    broken(format!("{}: malformed whiteout", shown(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str) -> Result<Name> {
        Name::parse(name.as_bytes(), &Limits::default())
    }

    fn place(parent: &str, base: &str) -> Place {
        Place { parent: parent.into(), base: base.into() }
    }

    #[test]
    fn names_stay_within_the_root() {
        for name in ["a/b", "/a/b", "./a//b/", "../../a/b", "a/../../../a/b", "x/../a/./b"] {
            assert_eq!(parse(name).unwrap(), Name::Path(place("a", "b")), "{name}");
        }
        for name in ["", ".", "/", "./", "..", "a/.."] {
            assert_eq!(parse(name).unwrap(), Name::Root, "{name}");
        }
    }

    #[test]
    fn whiteouts_are_told_apart() {
        assert_eq!(parse("a/.wh.b").unwrap(), Name::Whiteout(place("a", "b")));
        assert_eq!(parse(".wh.b").unwrap(), Name::Whiteout(place("", "b")));
        assert_eq!(parse(".wh.b/").unwrap(), Name::Whiteout(place("", "b")));
        assert_eq!(parse("a/.wh..wh..opq").unwrap(), Name::Opaque(b"a".to_vec()));
        assert_eq!(parse(".wh..wh..opq").unwrap(), Name::Opaque(Vec::new()));
        assert_eq!(parse(".wh..hidden").unwrap(), Name::Whiteout(place("", ".hidden")));
        for aufs in [".wh..wh.aufs", ".wh..wh.plnk/77.5", "a/.wh..wh.orph"] {
            assert_eq!(parse(aufs).unwrap(), Name::Aufs, "{aufs}");
        }
        for bad in [".wh.", "a/.wh.", ".wh..", ".wh...", "a/.wh...", ".wh.a/b"] {
            let error = parse(bad).unwrap_err().to_string();
            assert!(error.ends_with("malformed whiteout"), "{bad}: {error}");
        }
    }

    #[test]
    fn names_are_bounded() {
        assert!(parse(&"a".repeat(255)).is_ok());
        assert!(parse(&"a".repeat(256)).is_err());
        assert!(parse(&"d/".repeat(3000)).unwrap_err().to_string().contains("too long"));
        assert!(parse(&"d/".repeat(2000)).unwrap_err().to_string().contains("too deep"));
        assert!(parse("a\0b").is_err());
    }

    #[test]
    fn hard_links_may_not_leave() {
        let target = |t: &str| Name::hard_link_target(t.as_bytes(), &Limits::default());
        assert_eq!(target("/bin/x").unwrap(), Some(place("bin", "x")));
        assert_eq!(target("a/../x").unwrap(), Some(place("", "x")));
        assert!(target("../x").is_err());
        assert!(target("a/../../etc/passwd").is_err());
        assert_eq!(target("/").unwrap(), None);
    }
}
