//! `--mount` and `--volumes-from`.

use super::mounts::{anonymous, bare, clean, named, temporary};
use super::size;
use crate::container;
use crate::container::record::{Below, MountKind, MountPoint};
use crate::container::volume::{options, store};
use crate::context::Context;
use plan::{Error, Result};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// The fields of one `--mount`, as far as they need not be looked at together.
#[derive(Default)]
struct Fields {
    kind: String,
    source: String,
    target: String,
    readonly: bool,
    propagation: String,
    recursive: String,
    nocopy: bool,
    subpath: String,
    options: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    /// `size=…`, `mode=…`.
    tmpfs: Vec<String>,
    /// The prefixes (`bind`, `volume`, `tmpfs`) that options were given for.
    families: Vec<&'static str>,
}

/// `type=bind,source=/a,target=/b,readonly`.
///
/// # Errors
/// Docker's texts.
pub fn parse(ctx: &Context, text: &str) -> Result<MountPoint> {
    let fields = fields(text)?;
    let kind = fields.kind.as_str();
    if fields.target.is_empty() {
        return Err(invalid(text, "target is required"));
    }
    if let Some(family) = fields.families.iter().find(|f| **f != kind) {
        return Err(invalid(text, &format!("cannot mix '{family}-*' options with mount type '{kind}'")));
    }
    let target = clean(&fields.target).filter(|t| t != Path::new("/")).ok_or_else(|| {
        let why = if fields.target.starts_with('/') {
            "invalid specification: destination can't be '/'"
        } else {
            "invalid mount path: mount path must be absolute"
        };
        config(kind, why)
    })?;
    let mut mount = match kind {
        "bind" => bind(&fields, target)?,
        "volume" => volume(ctx, &fields, target)?,
        "tmpfs" => {
            if !fields.source.is_empty() {
                return Err(config(kind, "source must not be specified"));
            }
            temporary(&fields.target, &fields.tmpfs.join(","))?
        }
        "image" | "cluster" | "npipe" => {
            return Err(config(kind, "not supported by rrun").with_hint("rrun mounts bind, volume and tmpfs"));
        }
        other => {
            return Err(Error::invalid(format!("mount type unknown: \"{}\"", other.escape_debug()))
                .with_hint("type is bind, volume or tmpfs"));
        }
    };
    mount.rw &= !fields.readonly;
    if mount.kind == MountKind::Tmpfs && fields.readonly {
        mount.mode = [mount.mode.as_str(), "ro"].into_iter().filter(|w| !w.is_empty()).collect::<Vec<_>>().join(",");
    }
    Ok(mount)
}

fn bind(fields: &Fields, target: PathBuf) -> Result<MountPoint> {
    if fields.source.is_empty() {
        return Err(config("bind", "field Source must not be empty"));
    }
    if !fields.source.starts_with(['/', '.']) {
        let shown = fields.source.escape_debug();
        return Err(config("bind", &format!("invalid mount path: '{shown}' mount path must be absolute")));
    }
    let source = std::path::absolute(&fields.source).map_err(|e| Error::io("bind source", &e))?;
    let propagation = match fields.propagation.as_str() {
        "" => "rprivate",
        p @ ("private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave") => p,
        other => return Err(config("bind", &format!("invalid propagation mode: {}", other.escape_debug()))),
    };
    let below = match fields.recursive.as_str() {
        "" | "enabled" => Below::Enabled,
        "disabled" => Below::Disabled,
        "writable" => Below::Writable,
        "readonly" if !fields.readonly => {
            return Err(config(
                "bind",
                "option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction",
            ));
        }
        "readonly" if fields.propagation != "rprivate" => {
            return Err(config(
                "bind",
                "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction",
            ));
        }
        "readonly" => Below::Enabled,
        other => {
            let shown = other.escape_debug();
            return Err(config(
                "bind",
                &format!(
                    "invalid value for bind-recursive: {shown} (must be \"enabled\", \"disabled\", \"writable\", or \"readonly\")"
                ),
            ));
        }
    };
    if !source.exists() {
        let shown = source.display();
        return Err(config("bind", &format!("bind source path does not exist: {shown}"))
            .with_hint("make it first; -v would make a directory of it"));
    }
    let propagation = propagation.to_string();
    Ok(MountPoint { source, propagation, below, must_exist: true, ..bare(MountKind::Bind, target) })
}

fn volume(ctx: &Context, fields: &Fields, target: PathBuf) -> Result<MountPoint> {
    let mut mount = match fields.source.as_str() {
        "" if !fields.subpath.is_empty() => {
            return Err(config("volume", "must not set Subpath when using anonymous volumes"));
        }
        "" => anonymous(ctx, target, "")?,
        name => {
            store::check_name(name)?;
            named(ctx, name, target, "")
        }
    };
    let subpath = Path::new(&fields.subpath);
    if !subpath.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir)) {
        return Err(config("volume", "subpath must be a relative path within the volume"));
    }
    let name = mount.name.as_deref().unwrap_or_default();
    options::check(&fields.options).map_err(|e| e.context(format!("create {name}")))?;
    (mount.options, mount.labels) = (fields.options.clone(), fields.labels.clone());
    mount.subpath = subpath.components().filter(|c| matches!(c, Component::Normal(_))).collect();
    // A part of a volume is what somebody has put there: it is not made from the image.
    mount.copy_up = !fields.nocopy && fields.subpath.is_empty();
    Ok(mount)
}

fn invalid(text: &str, why: &str) -> Error {
    Error::invalid(format!("invalid argument \"{}\" for \"--mount\" flag: {why}", text.escape_debug()))
        .with_hint("write --mount type=bind,source=/HOST/DIR,target=/TARGET[,readonly]")
}

fn config(kind: &str, why: &str) -> Error {
    Error::invalid(format!("invalid mount config for type \"{}\": {why}", kind.escape_debug()))
        .with_hint("write --mount type=bind,source=/HOST/DIR,target=/TARGET[,readonly]")
}

fn fields(text: &str) -> Result<Fields> {
    let mut found = Fields { kind: "volume".into(), ..Fields::default() };
    for field in csv(text).ok_or_else(|| invalid(text, "a quote is not closed"))? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_ascii_lowercase(), value),
            None => match field.as_str() {
                "readonly" | "ro" | "volume-nocopy" | "bind-nonrecursive" => (field.clone(), "true"),
                _ => return Err(invalid(text, &format!("invalid field '{field}' must be a key=value pair"))),
            },
        };
        let flag = || match value {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            _ => Err(invalid(text, &format!("invalid value for {key}: {value}"))),
        };
        for family in ["bind", "volume", "tmpfs"] {
            if key.strip_prefix(family).is_some_and(|rest| rest.starts_with('-')) {
                found.families.push(family);
            }
        }
        match key.as_str() {
            "type" => found.kind = value.to_ascii_lowercase(),
            "source" | "src" => found.source = value.into(),
            "target" | "dst" | "destination" => found.target = value.into(),
            // The last is what compose files call it.
            "readonly" | "ro" | "read_only" => found.readonly = flag()?,
            // Docker Desktop's hints.
            "consistency" => {}
            "bind-propagation" => found.propagation = value.to_ascii_lowercase(),
            "bind-recursive" => found.recursive = value.to_ascii_lowercase(),
            "bind-nonrecursive" if flag()? => found.recursive = "disabled".into(),
            "bind-nonrecursive" => {}
            "volume-nocopy" => found.nocopy = flag()?,
            "volume-subpath" => found.subpath = value.into(),
            "volume-driver" if value == "local" => {}
            "volume-driver" => {
                return Err(invalid(text, &format!("{key} is not supported here")).with_hint(
                    "rrun has the driver local only, which mounts what volume-opt=type=, device= and o= say",
                ));
            }
            "volume-opt" | "volume-label" => {
                let (name, value) = value.split_once('=').unwrap_or((value, ""));
                let map = if key == "volume-opt" { &mut found.options } else { &mut found.labels };
                if !name.is_empty() {
                    map.insert(name.into(), value.into());
                }
            }
            "tmpfs-size" => {
                size::bytes(value).map_err(|_| invalid(text, &format!("invalid value for {key}: {value}")))?;
                found.tmpfs.push(format!("size={}", size::bytes(value)?));
            }
            "tmpfs-mode" => {
                let mode = u32::from_str_radix(value, 8).ok().filter(|m| *m <= 0o7777);
                let mode = mode.ok_or_else(|| invalid(text, &format!("invalid value for {key}: {value}")))?;
                found.tmpfs.push(format!("mode={mode:o}"));
            }
            _ => return Err(invalid(text, &format!("unexpected key '{key}' in '{field}'"))),
        }
    }
    Ok(found)
}

/// Fields between commas; one in double quotes may contain them, and a doubled quote is one.
fn csv(text: &str) -> Option<Vec<String>> {
    let mut fields = Vec::new();
    let mut field = String::new();
    let mut quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => field.extend(chars.next()),
            '"' if quoted => quoted = false,
            '"' if field.is_empty() => quoted = true,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    fields.push(field);
    (!quoted).then_some(fields)
}

/// What the containers of `--volumes-from` have mounted, the last one's first: it wins.
///
/// # Errors
/// No such container; a mode that is none.
pub fn inherited(ctx: &Context, specs: &[String]) -> Result<Vec<MountPoint>> {
    let mut mounts: Vec<MountPoint> = Vec::new();
    for spec in specs.iter().rev() {
        let (name, mode) = spec.split_once(':').unwrap_or((spec, ""));
        let readonly = match mode {
            "" | "rw" | "z" | "Z" | "rw,z" | "rw,Z" => false,
            "ro" | "ro,z" | "ro,Z" => true,
            _ => {
                return Err(Error::invalid(format!("invalid mode: {}", mode.escape_debug()))
                    .with_hint("write --volumes-from CONTAINER[:ro|rw]"));
            }
        };
        if name.is_empty() {
            return Err(Error::invalid("volumes-from specification cannot be an empty string")
                .with_hint("write --volumes-from CONTAINER[:ro|rw]"));
        }
        let from = container::find(ctx, name)?;
        for mount in from.mounts.iter().filter(|m| m.kind != MountKind::Tmpfs) {
            mounts.push(MountPoint { rw: mount.rw && !readonly, ..mount.clone() });
        }
    }
    Ok(mounts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> Context {
        Context {
            root: "/r".into(),
            state: "/s".into(),
            config_path: "/c".into(),
            config: crate::config::Config::default(),
        }
    }

    fn one(text: &str) -> Result<MountPoint> {
        parse(&context(), text)
    }

    #[test]
    fn every_kind() {
        let bind = one("type=bind,src=/etc,dst=/a/,ro,bind-propagation=rslave,bind-recursive=writable").unwrap();
        assert_eq!((bind.kind, bind.rw, bind.propagation.as_str()), (MountKind::Bind, false, "rslave"));
        assert_eq!((bind.below, bind.must_exist, bind.destination.to_str()), (Below::Writable, true, Some("/a")));
        let volume = one("source=data,target=/d,volume-subpath=a/./b,volume-driver=local").unwrap();
        assert_eq!((volume.name.as_deref(), volume.subpath.to_str()), (Some("data"), Some("a/b")));
        assert!(!volume.copy_up && one("target=/d").unwrap().anonymous);
        assert!(!one("src=x1,dst=/d,volume-nocopy").unwrap().copy_up);
        let tmpfs = one("type=tmpfs,destination=/t,tmpfs-size=1m,tmpfs-mode=0700,readonly=true").unwrap();
        assert_eq!((tmpfs.mode.as_str(), tmpfs.rw), ("size=1048576,mode=700,ro", false));
        assert_eq!(one("type=bind,\"src=/etc\",dst=/x").unwrap().source, Path::new("/etc"));
        assert_eq!(csv("a,\"b,\"\"c\",").unwrap(), ["a", "b,\"c", ""]);
    }

    #[test]
    fn nonsense_in_dockers_words() {
        for (text, says) in [
            ("type=bind,source=/etc", "target is required"),
            ("type=bind,target=/a", "field Source must not be empty"),
            ("type=bind,source=etc,target=/a", "mount path must be absolute"),
            ("type=bind,source=/nonexistent,target=/a", "bind source path does not exist: /nonexistent"),
            ("type=bind,source=/etc,target=/", "destination can't be '/'"),
            ("type=bind,source=/etc,target=a", "mount path must be absolute"),
            ("type=bind,source=/etc,target=/a,volume-nocopy", "cannot mix 'volume-*' options with mount type 'bind'"),
            ("type=bind,source=/etc,target=/a,bind-propagation=x", "invalid propagation mode: x"),
            ("type=bind,source=/etc,target=/a,bind-recursive=readonly", "requires 'readonly'"),
            ("type=bind,source=/etc,target=/a,ro,bind-recursive=readonly", "requires 'bind-propagation=rprivate'"),
            ("type=tmpfs,source=x,target=/a", "source must not be specified"),
            ("type=tmpfs,target=/a,tmpfs-mode=9", "invalid value for tmpfs-mode: 9"),
            ("type=volume,source=a/b,target=/a", "includes invalid characters"),
            ("type=volume,source=data,target=/a,volume-subpath=../x", "relative path within the volume"),
            ("type=volume,target=/a,volume-subpath=x", "anonymous volumes"),
            ("type=image,source=x,target=/a", "not supported"),
            ("type=foo,target=/a", "mount type unknown"),
            ("foo", "must be a key=value pair"),
            ("foo=bar,target=/a", "unexpected key 'foo'"),
            ("readonly=maybe,target=/a", "invalid value for readonly: maybe"),
            ("\"a", "a quote is not closed"),
        ] {
            let e = one(text).unwrap_err();
            assert!(e.message.contains(says) && e.hint.is_some(), "{text}: {e}");
        }
    }
}
