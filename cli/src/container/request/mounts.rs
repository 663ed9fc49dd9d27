//! `-v`, `--tmpfs` and the image's VOLUMEs.

use crate::args::StorageFlags;
use crate::container::names;
use crate::container::record::{Below, MountKind, MountPoint};
use crate::container::volume::store;
use crate::context::Context;
use plan::{Error, Result};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// Every mount the user or the image asks for; where both name a target, the user wins. `inherited` is
/// what other containers have (`--volumes-from`): it gives way to the user's and comes before the image's.
///
/// # Errors
/// Docker's texts.
pub fn decide(
    ctx: &Context,
    flags: &StorageFlags,
    tmpfs: &BTreeMap<String, String>,
    inherited: Vec<MountPoint>,
    image_volumes: &[String],
) -> Result<Vec<MountPoint>> {
    let mut mounts: Vec<MountPoint> = Vec::new();
    for spec in &flags.volume {
        add(&mut mounts, volume(ctx, spec)?)?;
    }
    for spec in &flags.mount {
        add(&mut mounts, super::mount::parse(ctx, spec)?)?;
    }
    for (target, options) in tmpfs {
        add(&mut mounts, temporary(target, options)?)?;
    }
    for mount in inherited {
        // The last container named wins among them.
        if !mounts.iter().any(|m| m.destination == mount.destination) {
            mounts.push(mount);
        }
    }
    for target in image_volumes {
        let Some(target) = clean(target).filter(|t| t != Path::new("/")) else {
            return Err(Error::invalid(format!(
                "the image declares the volume {:?}, which is no directory of it",
                target
            ))
            .with_hint("use another image, or repair its VOLUME instruction"));
        };
        if !mounts.iter().any(|m| m.destination == target) {
            mounts.push(anonymous(ctx, target, "")?);
        }
    }
    Ok(mounts)
}

fn add(mounts: &mut Vec<MountPoint>, mount: MountPoint) -> Result<()> {
    if mounts.iter().any(|m| m.destination == mount.destination) {
        return Err(Error::invalid(format!("Duplicate mount point: {}", mount.destination.display()))
            .with_hint("name each target once"));
    }
    mounts.push(mount);
    Ok(())
}

fn wrong(spec: &str, why: &str) -> Error {
    let colon = if why.is_empty() { "" } else { ": " };
    Error::invalid(format!("invalid volume specification: '{}'{colon}{why}", spec.escape_debug()))
        .with_hint("write -v /HOST/DIR:/TARGET[:ro] or -v NAME:/TARGET[:ro]")
}

/// One `-v`.
fn volume(ctx: &Context, spec: &str) -> Result<MountPoint> {
    let parts: Vec<&str> = spec.split(':').collect();
    let (source, target, mode) = match parts[..] {
        [target] => ("", target, ""),
        [target, mode] if mode_of(mode).is_some() => ("", target, mode),
        [source, target] => (source, target, ""),
        [source, target, mode] => (source, target, mode),
        _ => return Err(wrong(spec, "")),
    };
    if parts.len() > 1 && parts[0].is_empty() {
        return Err(wrong(spec, ""));
    }
    let target = target_dir(spec, target)?;
    let Mode { rw, propagation, copy } = mode_of(mode).ok_or_else(|| wrong(spec, &format!("invalid mode: {mode}")))?;
    let mut mount = match source {
        "" => anonymous(ctx, target, mode)?,
        path if path.starts_with(['/', '.', '~']) => {
            let source = std::path::absolute(path).map_err(|e| Error::io(format!("bind source {path}"), &e))?;
            MountPoint { source, mode: mode.into(), ..bare(MountKind::Bind, target) }
        }
        name => {
            store::check_name(name)?;
            named(ctx, name, target, mode)
        }
    };
    mount.rw = rw;
    mount.propagation = propagation.unwrap_or("rprivate").to_string();
    mount.copy_up = mount.kind == MountKind::Volume && copy;
    Ok(mount)
}

pub(super) fn named(ctx: &Context, name: &str, destination: PathBuf, mode: &str) -> MountPoint {
    MountPoint {
        name: Some(name.to_string()),
        source: ctx.volume_dir(name).join("_data"),
        mode: mode.into(),
        propagation: "rprivate".into(),
        copy_up: true,
        ..bare(MountKind::Volume, destination)
    }
}

pub(super) fn anonymous(ctx: &Context, destination: PathBuf, mode: &str) -> Result<MountPoint> {
    let name = names::new_id()?;
    Ok(MountPoint { anonymous: true, ..named(ctx, &name, destination, mode) })
}

pub(super) fn temporary(target: &str, options: &str) -> Result<MountPoint> {
    let destination = clean(target).filter(|t| t != Path::new("/")).ok_or_else(|| {
        Error::invalid(format!("invalid tmpfs target: '{}'", target.escape_debug()))
            .with_hint("write --tmpfs /TARGET[:size=64m,mode=1777]")
    })?;
    for option in options.split(',').filter(|o| !o.is_empty()) {
        const FLAGS: [&str; 14] = [
            "ro",
            "rw",
            "exec",
            "noexec",
            "suid",
            "nosuid",
            "dev",
            "nodev",
            "sync",
            "async",
            "atime",
            "noatime",
            "relatime",
            "strictatime",
        ];
        const VALUES: [&str; 7] = ["size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"];
        let known = match option.split_once('=') {
            Some((key, value)) => VALUES.contains(&key) && !value.is_empty(),
            None => FLAGS.contains(&option),
        };
        if !known {
            let hint = match option.starts_with('/') {
                true => "another target is another --tmpfs".to_owned(),
                false => format!("one of {}, {}=…", FLAGS.join(", "), VALUES.join("=…, ")),
            };
            return Err(Error::invalid(format!("invalid tmpfs option \"{}\"", option.escape_debug())).with_hint(hint));
        }
    }
    Ok(MountPoint {
        mode: options.to_string(),
        rw: !options.split(',').any(|o| o == "ro"),
        ..bare(MountKind::Tmpfs, destination)
    })
}

/// A writable mount of nothing yet.
pub(super) fn bare(kind: MountKind, destination: PathBuf) -> MountPoint {
    MountPoint {
        kind,
        name: None,
        source: PathBuf::new(),
        destination,
        mode: String::new(),
        rw: true,
        propagation: String::new(),
        anonymous: false,
        copy_up: false,
        below: Below::default(),
        must_exist: false,
        subpath: PathBuf::new(),
        options: BTreeMap::new(),
        labels: BTreeMap::new(),
    }
}

/// `--tmpfs /run:size=64m` as target and options.
///
/// # Errors
/// Docker's text for a target named twice.
pub fn tmpfs_flags(flags: &[String]) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for flag in flags {
        let (target, options) = flag.split_once(':').unwrap_or((flag, ""));
        if found.insert(target.to_string(), options.to_string()).is_some() {
            return Err(Error::invalid(format!("Duplicate mount point: {}", target.escape_debug()))
                .with_hint("name each target once"));
        }
    }
    Ok(found)
}

struct Mode<'a> {
    rw: bool,
    propagation: Option<&'a str>,
    copy: bool,
}

/// `None`: not a mode at all.
fn mode_of(text: &str) -> Option<Mode<'_>> {
    let mut mode = Mode { rw: true, propagation: None, copy: true };
    let (mut access, mut label) = (false, false);
    for word in text.split(',') {
        match word {
            "" if text.is_empty() => {}
            "rw" | "ro" if !access => (access, mode.rw) = (true, word == "rw"),
            // SELinux relabelling: nothing to do without SELinux, and no reason to refuse.
            "z" | "Z" if !label => label = true,
            "nocopy" => mode.copy = false,
            "shared" | "slave" | "private" | "rshared" | "rslave" | "rprivate" if mode.propagation.is_none() => {
                mode.propagation = Some(word);
            }
            // Docker Desktop's consistency hints.
            "consistent" | "cached" | "delegated" => {}
            _ => return None,
        }
    }
    Some(mode)
}

fn target_dir(spec: &str, target: &str) -> Result<PathBuf> {
    match clean(target) {
        None => {
            Err(wrong(spec, &format!("invalid mount path: '{}' mount path must be absolute", target.escape_debug())))
        }
        Some(path) if path == Path::new("/") => Err(wrong(spec, "destination can't be '/'")),
        Some(path) => Ok(path),
    }
}

/// An absolute path without `.`, `..` and double slashes, decided on the text alone.
pub(super) fn clean(path: &str) -> Option<PathBuf> {
    if !path.starts_with('/') || path.contains('\0') {
        return None;
    }
    let mut out = PathBuf::from("/");
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            _ => {}
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn context() -> Context {
        Context { root: "/r".into(), state: "/s".into(), config_path: "/c".into(), config: Config::default() }
    }

    fn all(volumes: &[&str], tmpfs: &[&str], image: &[&str]) -> Result<Vec<MountPoint>> {
        let words = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        let flags = StorageFlags { volume: words(volumes), ..StorageFlags::default() };
        decide(&context(), &flags, &tmpfs_flags(&words(tmpfs))?, Vec::new(), &words(image))
    }

    fn one(spec: &str) -> Result<MountPoint> {
        volume(&context(), spec)
    }

    #[test]
    fn forms_of_volume() {
        let bind = one("/a:/b:ro,rslave").unwrap();
        assert_eq!((bind.kind, bind.rw, bind.propagation.as_str()), (MountKind::Bind, false, "rslave"));
        let named = one("data:/b//c/../d").unwrap();
        assert_eq!(named.source, Path::new("/r/volumes/data/_data"));
        assert_eq!(named.destination, Path::new("/b/d"));
        assert!(named.copy_up && !named.anonymous);
        assert!(!one("data:/b:nocopy").unwrap().copy_up);
        let anonymous = one("/b:ro").unwrap();
        assert!(anonymous.anonymous && !anonymous.rw);
        assert!(one("./x:/b").unwrap().source.is_absolute());
    }

    #[test]
    fn wrong_volumes() {
        for (spec, text) in [
            ("", "mount path must be absolute"),
            (":/b", "invalid volume specification: ':/b'"),
            ("/a:b", "mount path must be absolute"),
            ("/a:/b:xx", "invalid mode: xx"),
            ("/a:/b:ro,rw", "invalid mode: ro,rw"),
            ("/a:/b:ro:rw", "invalid volume specification"),
            ("/a:/", "destination can't be '/'"),
            ("a/b:/c", "includes invalid characters for a local volume name"),
            ("-rf:/c", "includes invalid characters for a local volume name"),
        ] {
            let e = one(spec).unwrap_err();
            assert!(e.message.contains(text), "{spec}: {e}");
        }
        let twice = all(&["/a:/b", "/c:/b/"], &[], &[]);
        assert_eq!(twice.unwrap_err().message, "Duplicate mount point: /b");
    }

    #[test]
    fn the_user_wins_over_the_image() {
        let mounts = all(&["/a:/data"], &[], &["/data", "/more/"]).unwrap();
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].kind, MountKind::Bind);
        assert!(mounts[1].anonymous && mounts[1].destination == Path::new("/more"));
        assert!(all(&[], &[], &["relative"]).is_err());
    }

    #[test]
    fn tmpfs_options_are_known_ones() {
        assert_eq!(all(&[], &["/run:size=64m,exec", "/tmp"], &[]).unwrap().len(), 2);
        for bad in ["/run:foo", "run", "/", "/run:size"] {
            assert!(all(&[], &[bad], &[]).is_err(), "{bad}");
        }
        assert!(all(&[], &["/run", "/run"], &[]).is_err());
    }
}
