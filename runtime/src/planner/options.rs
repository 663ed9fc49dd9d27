//! Mount options as fstab and OCI spell them, sorted into what the kernel's mount API wants: bits of
//! the mount, propagation, and parameters of the file system. Pure.

use crate::step::{Change, Propagation};
use plan::{Error, Result};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Bits of `struct mount_attr` by option name: (name, what it sets, what it clears).
const ATTRIBUTES: [(&str, u64, u64); 16] = [
    ("ro", libc::MOUNT_ATTR_RDONLY, 0),
    ("rw", 0, libc::MOUNT_ATTR_RDONLY),
    ("nosuid", libc::MOUNT_ATTR_NOSUID, 0),
    ("suid", 0, libc::MOUNT_ATTR_NOSUID),
    ("nodev", libc::MOUNT_ATTR_NODEV, 0),
    ("dev", 0, libc::MOUNT_ATTR_NODEV),
    ("noexec", libc::MOUNT_ATTR_NOEXEC, 0),
    ("exec", 0, libc::MOUNT_ATTR_NOEXEC),
    ("noatime", libc::MOUNT_ATTR_NOATIME, libc::MOUNT_ATTR__ATIME),
    ("strictatime", libc::MOUNT_ATTR_STRICTATIME, libc::MOUNT_ATTR__ATIME),
    ("relatime", 0, libc::MOUNT_ATTR__ATIME),
    ("atime", 0, libc::MOUNT_ATTR__ATIME),
    ("nodiratime", libc::MOUNT_ATTR_NODIRATIME, 0),
    ("diratime", 0, libc::MOUNT_ATTR_NODIRATIME),
    ("nosymfollow", libc::MOUNT_ATTR_NOSYMFOLLOW, 0),
    ("symfollow", 0, libc::MOUNT_ATTR_NOSYMFOLLOW),
];

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub change: Change,
    /// `bind` (false) or `rbind` (true).
    pub bind: Option<bool>,
    /// What is left for the file system: `size=64m`, `mode=1777`…
    pub data: Vec<String>,
}

/// Sorts `options`; later ones win.
pub fn parse(options: &[String]) -> Result<Options> {
    let mut out = Options::default();
    for option in options {
        if let Some((set, clear)) = attribute(option) {
            out.change.set = out.change.set & !clear | set;
            out.change.clear = out.change.clear & !set | clear;
        } else if let Some((set, clear)) = option.strip_prefix('r').and_then(attribute) {
            out.change.set_recursive = out.change.set_recursive & !clear | set;
            out.change.clear_recursive = out.change.clear_recursive & !set | clear;
        } else if let Some((propagation, recursive)) = propagation(option) {
            out.change.propagation = propagation;
            out.change.propagation_recursive = recursive;
        } else {
            match option.as_str() {
                "defaults" | "async" | "" => {}
                "bind" => out.bind = Some(false),
                "rbind" => out.bind = Some(true),
                "remount" | "move" => {
                    return Err(Error::invalid(format!("invalid mount option {option:?}"))
                        .with_hint("a container's mounts are made once; give all options there"));
                }
                data => out.data.push(data.to_string()),
            }
        }
    }
    Ok(out)
}

fn attribute(name: &str) -> Option<(u64, u64)> {
    ATTRIBUTES.iter().find(|(n, _, _)| *n == name).map(|(_, set, clear)| (*set, *clear))
}

fn propagation(option: &str) -> Option<(Propagation, bool)> {
    Some(match option {
        "private" => (Propagation::Private, false),
        "rprivate" => (Propagation::Private, true),
        "slave" => (Propagation::Slave, false),
        "rslave" => (Propagation::Slave, true),
        "shared" => (Propagation::Shared, false),
        "rshared" => (Propagation::Shared, true),
        "unbindable" => (Propagation::Unbindable, false),
        "runbindable" => (Propagation::Unbindable, true),
        _ => return None,
    })
}

/// `ro,nosuid,size=64m`: attributes of a new mount and its parameters.
pub fn words(attributes: u64, data: &[String]) -> String {
    let mut words = change_words(attributes, 0);
    for d in data {
        if !words.is_empty() {
            words.push(',');
        }
        words.push_str(d);
    }
    words
}

/// The options that set and clear these bits.
pub fn change_words(set: u64, clear: u64) -> String {
    let atime = libc::MOUNT_ATTR__ATIME;
    let mut names: Vec<&str> =
        ATTRIBUTES.iter().filter(|(_, s, _)| *s != 0 && set & s != 0).map(|(n, _, _)| *n).collect();
    let cleared = ATTRIBUTES.iter().filter(|(_, s, c)| *s == 0 && *c != atime && clear & c != 0);
    names.extend(cleared.map(|(n, _, _)| *n));
    if clear & atime != 0 && set & atime == 0 {
        names.push("relatime");
    }
    names.join(",")
}

/// The option string of an overlay mount. Commas and backslashes in names are escaped for the
/// option parser, colons too where they would separate layers.
pub fn overlay_data(lower: &[PathBuf], upper: &Path, work: &Path, volatile: bool) -> String {
    let layers: Vec<String> = lower.iter().map(|l| escape(l, true)).collect();
    let mut data = format!("lowerdir={}", layers.join(":"));
    let _ = write!(data, ",upperdir={},workdir={}", escape(upper, false), escape(work, false));
    if volatile {
        data.push_str(",volatile");
    }
    data
}

fn escape(path: &Path, colon: bool) -> String {
    let mut out = String::new();
    for c in path.to_string_lossy().chars() {
        if c == '\\' || c == ',' || colon && c == ':' {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(options: &[&str]) -> Options {
        parse(&options.iter().map(|o| (*o).to_string()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn options_are_sorted() {
        let o = of(&["nosuid", "strictatime", "mode=755", "size=65536k"]);
        assert_eq!(o.change.set, libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_STRICTATIME);
        assert_eq!(o.data, ["mode=755", "size=65536k"]);
        assert_eq!(words(o.change.set, &o.data), "nosuid,strictatime,mode=755,size=65536k");
        let o = of(&["rbind", "ro", "rw", "rslave"]);
        assert_eq!((o.bind, o.change.set, o.change.clear), (Some(true), 0, libc::MOUNT_ATTR_RDONLY));
        assert_eq!((o.change.propagation, o.change.propagation_recursive), (Propagation::Slave, true));
        let o = of(&["rbind", "rro"]);
        assert_eq!((o.change.set, o.change.set_recursive), (0, libc::MOUNT_ATTR_RDONLY));
        let o = of(&["noatime", "relatime"]);
        assert_eq!(change_words(o.change.set, o.change.clear), "relatime");
        assert!(parse(&["remount".to_string()]).is_err());
    }

    #[test]
    fn overlay_names_are_escaped() {
        let data = overlay_data(&["a:b".into(), "c".into()], Path::new("/u,p"), Path::new("/w:k"), true);
        assert_eq!(data, "lowerdir=a\\:b:c,upperdir=/u\\,p,workdir=/w:k,volatile");
    }
}
