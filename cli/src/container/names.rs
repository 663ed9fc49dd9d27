//! Names and IDs: made, checked, and claimed by exactly one container.
//!
//! `containers/names/<name>` is a symbolic link to `../<id>`: symlink(2) fails if it is there, so
//! the file system decides between parallel runs, a look-up is one readlink(2), and a person can
//! `ls containers/names/web/`. The link is the last act of `create`: a directory without one was
//! never born, or is on its way out.

use crate::context::Context;
use plan::{Error, Result, ResultExt};
use rustix::fs::{AtFlags, FlockOperation, Mode};
use std::path::PathBuf;

const ADJECTIVES: &[&str] = &[
    "able", "brave", "bright", "brisk", "calm", "candid", "clever", "cosmic", "crisp", "curious", "daring", "deft",
    "eager", "earnest", "elegant", "fair", "fearless", "fond", "gentle", "glad", "golden", "graceful", "happy",
    "hardy", "honest", "humble", "jolly", "keen", "kind", "lively", "loyal", "lucid", "merry", "mellow", "modest",
    "nimble", "noble", "patient", "placid", "plucky", "polite", "proud", "quick", "quiet", "radiant", "ready",
    "serene", "sharp", "sincere", "sober", "spry", "steady", "sturdy", "sunny", "swift", "tidy", "tender", "trusty",
    "upbeat", "vivid", "warm", "wise", "witty", "zesty",
];

const SURNAMES: &[&str] = &[
    "abel",
    "ampere",
    "babbage",
    "bernoulli",
    "boole",
    "borg",
    "cantor",
    "cerf",
    "church",
    "codd",
    "conway",
    "curie",
    "darwin",
    "dijkstra",
    "diffie",
    "euclid",
    "euler",
    "faraday",
    "fermat",
    "feynman",
    "floyd",
    "franklin",
    "galois",
    "gauss",
    "germain",
    "godel",
    "hamilton",
    "hamming",
    "hilbert",
    "hoare",
    "hopper",
    "huygens",
    "jacobi",
    "johnson",
    "kepler",
    "kleene",
    "knuth",
    "lamarr",
    "lamport",
    "leibniz",
    "liskov",
    "lovelace",
    "maxwell",
    "mccarthy",
    "meitner",
    "mendel",
    "milner",
    "newton",
    "noether",
    "pascal",
    "perlman",
    "planck",
    "postel",
    "ramanujan",
    "ritchie",
    "shannon",
    "sinclair",
    "thompson",
    "torvalds",
    "turing",
    "volta",
    "wirth",
    "wiles",
    "yonath",
];

/// Random bytes for IDs and names.
///
/// # Errors
/// Of getrandom(2), which on a running system has none.
pub fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0u8; N];
    let got = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty()).doing(|| "getrandom")?;
    // Up to 256 bytes come whole or not at all (getrandom(2)).
    if got == N { Ok(bytes) } else { Err(Error::system("getrandom: short read")) }
}

/// 64 hex digits. Docker avoids IDs whose short form is all digits (they would be taken for a
/// number in many a tool); so do we.
///
/// # Errors
/// Of getrandom(2).
pub fn new_id() -> Result<String> {
    loop {
        let id: String = random::<32>()?.iter().map(|b| format!("{b:02x}")).collect();
        if id[..12].bytes().any(|b| !b.is_ascii_digit()) {
            return Ok(id);
        }
    }
}

/// `brave_hopper`; `brave_hopper7` from the fourth attempt on.
///
/// # Errors
/// Of getrandom(2).
pub fn random_name(attempt: u32) -> Result<String> {
    let [a, b, c, d] = random::<4>()?;
    let adjective = ADJECTIVES[usize::from(a) % ADJECTIVES.len()];
    let surname = SURNAMES[usize::from(b) % SURNAMES.len()];
    Ok(match attempt {
        0..3 => format!("{adjective}_{surname}"),
        3..8 => format!("{adjective}_{surname}{}", c % 100),
        _ => format!("{adjective}_{surname}{}", u16::from_be_bytes([c, d])),
    })
}

/// Whether `name` may be a container's (or a volume's) name: also what makes it safe as a file name.
pub fn is_valid(name: &str) -> bool {
    let bytes = name.as_bytes();
    (2..=255).contains(&bytes.len())
        && bytes[0].is_ascii_alphanumeric()
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(b))
}

/// # Errors
/// Docker's text for a name that may not be.
pub fn check(name: &str) -> Result<()> {
    if is_valid(name) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "Invalid container name ({}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed",
        name.escape_debug()
    ))
    .with_hint("use two to 255 letters, digits, `_`, `.` and `-`, the first a letter or digit"))
}

pub fn is_id(text: &str) -> bool {
    text.len() == 64 && is_hex(text)
}

pub fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn link(ctx: &Context, name: &str) -> PathBuf {
    ctx.containers().join("names").join(name)
}

/// The ID that holds `name`.
pub fn holder(ctx: &Context, name: &str) -> Option<String> {
    if !is_valid(name) {
        return None;
    }
    let target = std::fs::read_link(link(ctx, name)).ok()?;
    let id = target.file_name()?.to_str()?;
    is_id(id).then(|| id.to_string())
}

/// Gives `name` to `id`, whose directory is complete.
///
/// # Errors
/// Docker's text for a name in use.
pub fn claim(ctx: &Context, name: &str, id: &str) -> Result<()> {
    let target = format!("../{id}");
    let link = link(ctx, name);
    for _ in 0..8 {
        match std::os::unix::fs::symlink(&target, &link) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                super::make_private_dir(link.parent().expect("names/<name> has a parent"))?;
            }
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                if let Some(other) = holder(ctx, name)
                    && ctx.container_dir(&other).exists()
                {
                    return Err(Error::conflict(format!(
                        "Conflict. The container name \"/{name}\" is already in use by container \"{other}\". \
                         You have to remove (or rename) that container to be able to reuse that name."
                    ))
                    .with_hint(format!("rrun rm -f {name}")));
                }
                // The holder's directory is gone: its `rm` was killed before the link.
                remove_if(ctx, name, |holder| holder.is_none_or(|id| !ctx.container_dir(id).exists()))?;
            }
            Err(e) => return Err(Error::io(format!("claim the name {name}"), &e)),
        }
    }
    Err(Error::system(format!("claim the name {name}")).with_cause("it keeps changing hands"))
}

/// Frees `name` if `id` holds it.
///
/// # Errors
/// Of the system calls.
pub fn release(ctx: &Context, name: &str, id: &str) -> Result<()> {
    remove_if(ctx, name, |holder| holder == Some(id))
}

/// Checking and unlinking are two calls: the lock keeps a second remover from unlinking the link
/// that a third process has made in between. Claimers need no lock, symlink(2) is atomic.
fn remove_if(ctx: &Context, name: &str, doomed: impl FnOnce(Option<&str>) -> bool) -> Result<()> {
    if !is_valid(name) {
        return Ok(());
    }
    let names = match super::file::open_dir(&ctx.containers().join("names")) {
        Ok(names) => names,
        Err(e) if e.errno == Some(libc::ENOENT) => return Ok(()),
        Err(e) => return Err(e),
    };
    rustix::io::retry_on_intr(|| rustix::fs::flock(&names, FlockOperation::LockExclusive))
        .doing(|| "lock the names")?;
    let target = rustix::fs::readlinkat(&names, name, Vec::new());
    let holder = match &target {
        Ok(target) => target.to_str().ok().and_then(|t| t.strip_prefix("../")),
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        Err(_) => None,
    };
    if doomed(holder) {
        rustix::fs::unlinkat(&names, name, AtFlags::empty()).doing(|| format!("free the name {name}"))?;
    }
    Ok(())
}

/// Every claimed name with its holder; for lists and for names of broken records.
pub fn all(ctx: &Context) -> Vec<(String, String)> {
    let Ok(entries) = std::fs::read_dir(ctx.containers().join("names")) else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|e| {
            let name = e.file_name().into_string().ok()?;
            let id = holder(ctx, &name)?;
            Some((name, id))
        })
        .collect()
}

/// The mode of rrun's own directories, whatever the umask.
pub const PRIVATE: Mode = Mode::RWXU;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dockers() {
        for good in ["web", "a1", "A_b.c-d", "0x"] {
            assert!(is_valid(good), "{good}");
        }
        for bad in ["", "a", "-rf", ".x", "../x", "a/b", ".", "a\0b", "a\nb", "é1", &"x".repeat(256)] {
            assert!(!is_valid(bad), "{bad}");
        }
        assert!(check("a/b").unwrap_err().message.contains("only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"));
    }

    #[test]
    fn random_names_are_valid_and_ids_are_ids() {
        for attempt in 0..10 {
            assert!(is_valid(&random_name(attempt).unwrap()));
        }
        assert!(is_id(&new_id().unwrap()));
        assert_ne!(new_id().unwrap(), new_id().unwrap());
    }

    fn context(tag: &str) -> Context {
        let base = std::env::temp_dir().join(format!("rrun-names-{tag}-{}", std::process::id()));
        std::fs::create_dir_all(base.join("root/containers")).unwrap();
        Context {
            root: base.join("root"),
            state: base.join("state"),
            config_path: base.join("none"),
            config: crate::config::Config::default(),
        }
    }

    #[test]
    fn one_name_one_container() {
        let ctx = context("one");
        let (a, b) = (new_id().unwrap(), new_id().unwrap());
        std::fs::create_dir(ctx.container_dir(&a)).unwrap();
        std::fs::create_dir(ctx.container_dir(&b)).unwrap();
        claim(&ctx, "web", &a).unwrap();
        assert_eq!(holder(&ctx, "web").as_deref(), Some(a.as_str()));
        let e = claim(&ctx, "web", &b).unwrap_err();
        assert!(e.message.starts_with("Conflict. The container name \"/web\" is already in use"), "{e}");
        release(&ctx, "web", &b).unwrap();
        assert_eq!(holder(&ctx, "web").as_deref(), Some(a.as_str()), "not b's to free");
        release(&ctx, "web", &a).unwrap();
        claim(&ctx, "web", &b).unwrap();

        // A holder that is gone holds nothing.
        std::fs::remove_dir(ctx.container_dir(&b)).unwrap();
        claim(&ctx, "web", &a).unwrap();
        assert_eq!(all(&ctx), [("web".to_string(), a)]);
        std::fs::remove_dir_all(ctx.root.parent().unwrap()).unwrap();
    }
}
