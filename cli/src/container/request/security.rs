//! Capabilities, security options, kernel parameters and devices.

use crate::args::SecurityFlags;
use crate::container::record::{DeviceMapping, HostConfig};
use plan::{Error, Result, ResultExt};
use runtime::cgroup::DeviceRule;
use runtime::spec::{AppArmor, Device};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Checks `--cap-add`, `--cap-drop` and `--security-opt`, and fills them in. A seccomp profile is
/// read now: what the container runs under must not change with the file afterwards.
///
/// # Errors
/// Docker's texts.
pub fn fill(flags: &SecurityFlags, host: &mut HostConfig, warnings: &mut Vec<String>) -> Result<()> {
    for (flag, caps) in [("CapAdd", &flags.cap_add), ("CapDrop", &flags.cap_drop)] {
        for cap in caps.iter().filter(|c| !c.eq_ignore_ascii_case("all")) {
            runtime::caps::parse(cap).map_err(|e| e.context(format!("invalid {flag}")))?;
        }
    }
    host.cap_add.clone_from(&flags.cap_add);
    host.cap_drop.clone_from(&flags.cap_drop);
    host.privileged = flags.privileged;
    for option in &flags.security_opt {
        host.security_opt.push(security_option(option, warnings)?);
    }
    host.sysctls = flags.sysctl.iter().map(|entry| runtime::sysctl::parse(entry)).collect::<Result<_>>()?;
    Ok(())
}

fn security_option(option: &str, warnings: &mut Vec<String>) -> Result<String> {
    let wrong = || {
        Error::invalid(format!("invalid --security-opt: \"{}\"", option.escape_debug())).with_hint(
            "one of no-new-privileges, seccomp=FILE, seccomp=unconfined, systempaths=unconfined, apparmor=PROFILE",
        )
    };
    let (key, value) = match option.split_once(['=', ':']) {
        Some((key, value)) => (key, value),
        None => (option, ""),
    };
    match (key, value) {
        ("no-new-privileges", "" | "true" | "false") | ("systempaths", "unconfined") => Ok(option.to_string()),
        ("seccomp", "unconfined" | "builtin") => Ok(option.to_string()),
        ("seccomp", file) if !file.is_empty() => {
            let profile = std::fs::read_to_string(file).map_err(|e| {
                Error::io(format!("opening seccomp profile ({file}) failed"), &e).with_kind(plan::Kind::Invalid)
            })?;
            Ok(format!("seccomp={profile}"))
        }
        ("label", "disable") => Ok(option.to_string()),
        ("apparmor", profile) if is_profile_name(profile) => Ok(option.to_string()),
        ("label", profile) if !profile.is_empty() => {
            warnings.push(format!(
                "--security-opt {key}={profile} is not applied: rrun confines by namespaces, capabilities and seccomp"
            ));
            Ok(option.to_string())
        }
        _ => Err(wrong()),
    }
}

/// The name goes into one write to the kernel, which takes anything but control characters.
fn is_profile_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 512 && !name.chars().any(char::is_control)
}

/// What the security options of a record come to.
pub struct Confinement {
    pub no_new_privileges: bool,
    /// `unconfined`, a profile's text, or nothing for the default.
    pub seccomp: Option<String>,
    /// Nothing for the default.
    pub apparmor: Option<AppArmor>,
    pub system_paths_open: bool,
}

pub fn confinement(options: &[String]) -> Confinement {
    let mut found = Confinement { no_new_privileges: false, seccomp: None, apparmor: None, system_paths_open: false };
    for option in options {
        let (key, value) = option.split_once(['=', ':']).unwrap_or((option, ""));
        match key {
            "no-new-privileges" => found.no_new_privileges = value != "false",
            "seccomp" => found.seccomp = (value != "builtin").then(|| value.to_string()),
            "apparmor" => {
                found.apparmor = Some(match value {
                    "unconfined" => AppArmor::Unconfined,
                    runtime::apparmor::DEFAULT => AppArmor::Default,
                    name => AppArmor::Profile(name.to_string()),
                });
            }
            "systempaths" => found.system_paths_open = true,
            _ => {}
        }
    }
    found
}

/// `/dev/fuse`, `/dev/sda:/dev/xvda:r`.
///
/// # Errors
/// Docker's texts; that the device is there is checked when the container is made.
pub fn device(text: &str) -> Result<DeviceMapping> {
    let wrong = |what: String| Error::invalid(what).with_hint("write --device /dev/HOST[:/dev/CONTAINER[:rwm]]");
    let parts: Vec<&str> = text.split(':').collect();
    let (host, container, access) = match parts[..] {
        [host] => (host, host, "rwm"),
        [host, access] if is_access(access) => (host, host, access),
        [host, container] => (host, container, "rwm"),
        [host, container, access] if is_access(access) => (host, container, access),
        _ => return Err(wrong(format!("invalid device specification: {}", text.escape_debug()))),
    };
    for path in [host, container] {
        if !path.starts_with('/') {
            return Err(wrong(format!("{} is not an absolute path", path.escape_debug())));
        }
    }
    Ok(DeviceMapping { host: host.into(), container: container.into(), access: access.into() })
}

/// `c 42:* rmw`.
///
/// # Errors
/// Docker's text.
pub fn device_rule(text: &str) -> Result<DeviceRule> {
    let wrong = || {
        Error::invalid(format!("invalid device cgroup format '{}'", text.escape_debug()))
            .with_hint("write TYPE MAJOR:MINOR ACCESS: --device-cgroup-rule 'c 42:* rmw'")
    };
    let [kind, numbers, access] = text.split(' ').collect::<Vec<_>>()[..] else { return Err(wrong()) };
    let (major, minor) = numbers.split_once(':').ok_or_else(wrong)?;
    let number = |n: &str| if n == "*" { Ok(None) } else { n.parse::<u32>().map(Some).map_err(|_| wrong()) };
    if !matches!(kind, "a" | "b" | "c") || !is_access(access) {
        return Err(wrong());
    }
    let kind = kind.chars().next().unwrap_or('a');
    Ok(DeviceRule { kind, major: number(major)?, minor: number(minor)?, access: access.into() })
}

fn is_access(text: &str) -> bool {
    !text.is_empty() && text.len() <= 3 && text.chars().all(|c| "rwm".contains(c))
}

/// The nodes behind a mapping: one, or all below a directory.
///
/// # Errors
/// Docker's texts.
pub fn nodes(mapping: &DeviceMapping) -> Result<Vec<Device>> {
    let shown = mapping.host.display();
    let meta = std::fs::metadata(&mapping.host).map_err(|e| {
        Error::io(format!("error gathering device information while adding custom device \"{shown}\""), &e)
            .with_kind(plan::Kind::Invalid)
            .with_hint("name a device node of the host")
    })?;
    if meta.is_dir() {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&mapping.host).doing(|| format!("read {shown}"))?.flatten() {
            let file_type = entry.file_type().doing(|| format!("stat {}", entry.path().display()))?;
            if file_type.is_char_device() || file_type.is_block_device() {
                let target = mapping.container.join(entry.file_name());
                found.extend(node(&entry.path(), target, &mapping.access)?);
            }
        }
        return Ok(found);
    }
    match node(&mapping.host, mapping.container.clone(), &mapping.access)? {
        Some(node) => Ok(vec![node]),
        None => Err(Error::invalid(format!(
            "error gathering device information while adding custom device \"{shown}\": not a device node"
        ))
        .with_hint("use -v for files and directories")),
    }
}

fn node(source: &Path, path: PathBuf, access: &str) -> Result<Option<Device>> {
    let meta = std::fs::metadata(source).doing(|| format!("stat {}", source.display()))?;
    let kind = match meta.file_type() {
        t if t.is_char_device() => 'c',
        t if t.is_block_device() => 'b',
        _ => return Ok(None),
    };
    Ok(Some(Device {
        path,
        kind,
        major: libc::major(meta.rdev()),
        minor: libc::minor(meta.rdev()),
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        access: access.to_string(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options() {
        let mut warnings = Vec::new();
        for good in ["no-new-privileges", "no-new-privileges:true", "seccomp=unconfined", "apparmor=mine"] {
            assert_eq!(security_option(good, &mut warnings).unwrap(), good);
        }
        assert!(warnings.is_empty());
        security_option("label=type:mine", &mut warnings).unwrap();
        assert_eq!(warnings.len(), 1);
        for bad in [
            "",
            "x",
            "seccomp",
            "seccomp=",
            "no-new-privileges=maybe",
            "seccomp=/nonexistent",
            "apparmor=",
            "apparmor=a\nb",
        ] {
            assert!(security_option(bad, &mut warnings).is_err(), "{bad}");
        }
        assert!(confinement(&["no-new-privileges".into()]).no_new_privileges);
        assert!(!confinement(&["no-new-privileges=false".into()]).no_new_privileges);
        let apparmor = |o: &str| confinement(&[o.into()]).apparmor;
        assert_eq!(apparmor("apparmor:unconfined"), Some(AppArmor::Unconfined));
        assert_eq!(apparmor("apparmor=mine"), Some(AppArmor::Profile("mine".into())));
        assert_eq!(apparmor("apparmor=rrun-default"), Some(AppArmor::Default));
        assert_eq!(apparmor("no-new-privileges"), None);
        assert_eq!(confinement(&["seccomp=unconfined".into()]).seccomp.as_deref(), Some("unconfined"));
    }

    #[test]
    fn devices() {
        let d = device("/dev/null:/dev/x:r").unwrap();
        assert_eq!((d.container.to_str(), d.access.as_str()), (Some("/dev/x"), "r"));
        assert_eq!(device("/dev/null:rw").unwrap().container, Path::new("/dev/null"));
        assert_eq!(nodes(&d).unwrap()[0].kind, 'c');
        for bad in ["", "null", "/dev/a:/dev/b:x", "/dev/a:/dev/b:r:w", "/dev/a:b"] {
            assert!(device(bad).is_err(), "{bad}");
        }
        assert_eq!(device_rule("c 42:* rmw").unwrap().to_string(), "c 42:* rmw");
        for bad in ["", "c 42:* x", "d 1:1 r", "c 1 r", "c a:1 r", "c 1:1  r"] {
            assert!(device_rule(bad).is_err(), "{bad}");
        }
        assert!(nodes(&device("/etc/passwd").unwrap()).is_err());
    }
}
