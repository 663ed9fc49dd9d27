//! Capabilities: names, Docker's add/drop arithmetic, and what is left of a wish on this kernel
//! under this caller.
//!
//! Names are kept without `CAP_`, upper case; masks are the kernel's 64-bit sets (bit n is
//! capability number n).

use plan::{Error, Result};
use rustix::thread::CapabilitySet;

use crate::spec::Caps;

/// Every capability that Linux has a name for; CHECKPOINT_RESTORE (5.9) is the last.
pub const ALL: u64 = CapabilitySet::CHECKPOINT_RESTORE.bits() * 2 - 1;

/// Docker's default set, a80425fb as a mask.
pub const DEFAULT: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// The capability's number, if Linux has one of that (canonical) name.
pub fn number(name: &str) -> Option<u32> {
    CapabilitySet::from_name(name).map(|set| set.bits().trailing_zeros())
}

/// A name as users write it (`CAP_` optional, any case) in canonical form.
pub fn parse(name: &str) -> Result<String> {
    let upper = name.trim().to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    match number(bare) {
        Some(_) => Ok(bare.to_string()),
        None => Err(Error::invalid(format!("unknown capability: \"CAP_{bare}\"")).with_hint(suggestion(bare))),
    }
}

/// The nearest names for a mistyped one, or all of them.
fn suggestion(wrong: &str) -> String {
    let all = names(ALL);
    let mut near: Vec<&str> = all.iter().map(String::as_str).filter(|n| distance(n, wrong) <= 2).collect();
    if near.is_empty() && wrong.len() > 2 {
        near = all.iter().map(String::as_str).filter(|n| n.contains(wrong)).collect();
    }
    if near.is_empty() {
        return format!("known capabilities: ALL, {}", all.join(", "));
    }
    format!("did you mean {}?", near.join(" or "))
}

/// Levenshtein distance, one row at a time.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.bytes().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, cb) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(ca != cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

/// `--privileged`, `--cap-add` and `--cap-drop` on top of [`DEFAULT`], as Docker combines them:
/// the order of the flags does not matter, a name both added and dropped is added, `ALL` added wins
/// over `ALL` dropped, and privileged ignores both lists. Sorted.
pub fn granted(privileged: bool, add: &[String], drop: &[String]) -> Result<Vec<String>> {
    let (add_all, add) = list(add).map_err(|e| e.context("invalid CapAdd"))?;
    let (drop_all, drop) = list(drop).map_err(|e| e.context("invalid CapDrop"))?;
    let mask = if privileged {
        ALL
    } else if add_all {
        ALL & !drop
    } else if drop_all {
        add
    } else {
        (mask(&DEFAULT) & !drop) | add
    };
    Ok(names(mask))
}

fn list(items: &[String]) -> Result<(bool, u64)> {
    let mut all = false;
    let mut bits = 0;
    for item in items {
        if item.trim().eq_ignore_ascii_case("ALL") {
            all = true;
        } else {
            bits |= mask(&[parse(item)?]);
        }
    }
    Ok((all, bits))
}

/// The set of these canonical names; unknown names (a newer config.json) are no bit.
pub fn mask<S: AsRef<str>>(names: &[S]) -> u64 {
    names.iter().filter_map(|n| number(n.as_ref())).fold(0, |m, n| m | 1 << n)
}

/// The names in a set, sorted.
pub fn names(mask: u64) -> Vec<String> {
    let mut v: Vec<String> =
        CapabilitySet::from_bits_retain(mask & ALL).iter_names().map(|(name, _)| name.to_string()).collect();
    v.sort_unstable();
    v
}

/// What of `wanted` the caller can hand on (`have`: its bounding ∩ permitted set), and what it
/// cannot: a container manager that itself runs confined must not fail on that, only say so.
pub fn intersect(wanted: &[String], have: u64) -> (Vec<String>, Vec<String>) {
    wanted.iter().cloned().partition(|n| mask(&[n]) & have != 0)
}

impl Caps {
    /// The sets of a process that was granted these capabilities, as Docker fills them: bounding
    /// for everyone, permitted and effective for root only (what execve would do for another user),
    /// inheritable and ambient always empty (CVE-2022-24769: a non-empty inheritable set lets a
    /// binary with file capabilities raise what its user was never given).
    pub fn of(granted: &[String], root: bool) -> Caps {
        let held = if root { granted.to_vec() } else { Vec::new() };
        Caps { bounding: granted.to_vec(), effective: held.clone(), permitted: held, ..Caps::default() }
    }
}

/// [`Caps`] as the kernel takes them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Masks {
    pub bounding: u64,
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
    pub ambient: u64,
}

impl Masks {
    pub fn of(caps: &Caps) -> Masks {
        Masks {
            bounding: mask(&caps.bounding),
            effective: mask(&caps.effective),
            permitted: mask(&caps.permitted),
            inheritable: mask(&caps.inheritable),
            ambient: mask(&caps.ambient),
        }
    }

    /// For a user that was only resolved in the child: unless it is root, nothing but the bounding
    /// set is left, as after an execve by that user.
    pub fn for_uid(self, uid: u32) -> Masks {
        if uid == 0 { self } else { Masks { bounding: self.bounding, ..Masks::default() } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(v: &[&str]) -> Vec<String> {
        v.iter().map(|x| x.to_string()).collect()
    }

    #[test]
    fn numbers_are_the_kernels() {
        for (name, n) in [("CHOWN", 0), ("SYS_ADMIN", 21), ("AUDIT_READ", 37), ("CHECKPOINT_RESTORE", 40)] {
            assert_eq!(number(name), Some(n), "{name}");
        }
        assert_eq!(ALL, 0x1ff_ffff_ffff);
        assert_eq!(names(ALL).len(), 41);
        assert_eq!(number(""), None);
    }

    #[test]
    fn the_default_set_is_dockers() {
        assert_eq!(mask(&DEFAULT), 0xa804_25fb);
        assert_eq!(names(0xa804_25fb), s(&DEFAULT));
    }

    #[test]
    fn any_spelling_is_understood() {
        for spelling in ["NET_ADMIN", "net_admin", "CAP_NET_ADMIN", "cap_Net_Admin", " NET_ADMIN "] {
            assert_eq!(parse(spelling).unwrap(), "NET_ADMIN", "{spelling}");
        }
    }

    #[test]
    fn an_unknown_name_gets_the_nearest() {
        let e = parse("net_admn").unwrap_err();
        assert_eq!(e.to_string(), "unknown capability: \"CAP_NET_ADMN\"");
        assert_eq!(e.hint.as_deref(), Some("did you mean NET_ADMIN?"));
        assert!(parse("CHWON").unwrap_err().hint.unwrap().contains("CHOWN"));
        assert!(parse("nonsense").unwrap_err().hint.unwrap().starts_with("known capabilities: ALL, AUDIT_CONTROL"));
        assert!(parse("").is_err());
        assert!(parse("CAP_CAP_CHOWN").is_err());
    }

    #[test]
    fn add_and_drop_combine_as_in_docker() {
        let m = |add: &[&str], drop: &[&str]| mask(&granted(false, &s(add), &s(drop)).unwrap());
        let d = 0xa804_25fb;
        let net_admin = 1 << 12;
        let chown = 1;
        assert_eq!(m(&[], &[]), d);
        assert_eq!(m(&["net_admin"], &[]), d | net_admin);
        assert_eq!(m(&[], &["CAP_CHOWN"]), d & !chown);
        assert_eq!(m(&["CHOWN"], &["CHOWN"]), d, "added wins");
        assert_eq!(m(&["ALL"], &[]), ALL);
        assert_eq!(m(&["all"], &["NET_ADMIN"]), ALL & !net_admin);
        assert_eq!(m(&[], &["ALL"]), 0);
        assert_eq!(m(&["NET_ADMIN"], &["ALL"]), net_admin);
        assert_eq!(m(&["ALL"], &["ALL"]), ALL);
        assert_eq!(m(&["NET_ADMIN"], &["ALL", "NET_ADMIN"]), net_admin);
        assert_eq!(mask(&granted(true, &[], &s(&["ALL"])).unwrap()), ALL);
        let e = granted(false, &s(&["NOPE"]), &[]).unwrap_err();
        assert_eq!(e.to_string(), "invalid CapAdd: unknown capability: \"CAP_NOPE\"");
        assert!(granted(false, &[], &s(&["NOPE"])).unwrap_err().to_string().starts_with("invalid CapDrop"));
        assert!(granted(true, &s(&["NOPE"]), &[]).is_err(), "checked even where it does not matter");
    }

    #[test]
    fn the_callers_own_limits_cut_the_wish() {
        let have = ALL & !(1 << 24);
        let (kept, lost) = intersect(&s(&["CHOWN", "SYS_RESOURCE"]), have);
        assert_eq!((kept, lost), (s(&["CHOWN"]), s(&["SYS_RESOURCE"])));
    }

    #[test]
    fn only_root_holds_what_is_granted() {
        let g = s(&DEFAULT);
        let root = Masks::of(&Caps::of(&g, true));
        let user = Masks::of(&Caps::of(&g, false));
        assert_eq!((root.bounding, root.effective, root.permitted), (0xa804_25fb, 0xa804_25fb, 0xa804_25fb));
        assert_eq!(user, Masks { bounding: 0xa804_25fb, ..Masks::default() });
        assert_eq!(root.for_uid(1000), user);
        assert_eq!(root.for_uid(0), root);
        assert_eq!((root.inheritable, root.ambient), (0, 0));
    }
}
