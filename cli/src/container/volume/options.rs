//! The options of a volume: Docker's `type`, `device`, `o` and `size` of the driver local.

use crate::container::request::size;
use plan::{Error, Result};
use runtime::volume::VolumeMount;
use std::collections::BTreeMap;

type Options = BTreeMap<String, String>;

const HINT: &str = "write -o type=nfs -o device=:/PATH -o o=addr=ADDRESS,rw, or type=none, device=/DIR, o=bind";

/// # Errors
/// Docker's texts.
pub fn check(options: &Options) -> Result<()> {
    let invalid = |text: String| Err(Error::invalid(text).with_hint(HINT));
    if let Some(other) = options.keys().find(|key| !matches!(key.as_str(), "type" | "o" | "device" | "size")) {
        return invalid(format!("invalid option: {other:?}"));
    }
    if let Some(size) = options.get("size")
        && size::bytes(size)? > 0
    {
        return Err(Error::invalid("quota size requested but no quota support")
            .with_hint("a volume in memory has a size: -o type=tmpfs -o device=tmpfs -o o=size=100m"));
    }
    let there = |option: &str| options.contains_key(option);
    for (option, needed) in [("device", "type"), ("type", "device"), ("o", "device"), ("o", "type")] {
        if there(option) && !there(needed) {
            return invalid(format!("missing required option: {needed:?}"));
        }
    }
    if options.get("type").is_some_and(|t| t == "cifs")
        && options.get("device").and_then(|d| share(d)).is_some_and(|(host, _)| port(host))
    {
        return Err(Error::invalid("port not allowed in CIFS device URL, include 'port' in 'o='")
            .with_hint("-o device=//HOST/SHARE -o o=port=445,…"));
    }
    Ok(())
}

/// Kind, device and mount options, if there is anything to mount.
pub fn file_system(options: &Options) -> Option<(&str, &str, &str)> {
    let of = |key: &str| options.get(key).map_or("", String::as_str);
    let (kind, device) = (of("type"), of("device"));
    (!kind.is_empty() || !device.is_empty()).then(|| (kind, device, of("o")))
}

/// Device and options for the kernel, which takes addresses for names.
///
/// # Errors
/// Docker's texts: no device, a name without an address.
pub fn for_kernel(volume: &VolumeMount) -> Result<(String, String)> {
    let (mut device, mut options) = (volume.device.clone(), volume.options.clone());
    if device.is_empty() {
        return Err(volume
            .failed("missing device in volume options")
            .with_hint("remove the volume, and name its device"));
    }
    if !matches!(volume.kind.as_str(), "nfs" | "cifs") {
        return Ok((device, options));
    }
    let address = |name: &str| {
        images::registry::host_addresses(name).map(|all| all[0].to_string()).map_err(|e| {
            let why = "error resolving passed in network volume address";
            Error { message: volume.failed(&format!("{why}: {}", e.message)).message, ..e }
        })
    };
    if let Some(name) = options.split(',').find_map(|o| o.strip_prefix("addr=")) {
        options = options.replacen(&format!("addr={name}"), &format!("addr={}", address(name)?), 1);
    } else if volume.kind == "cifs"
        && let Some((host, path)) = share(&device)
    {
        device = format!("//{}{path}", address(host)?);
    }
    Ok((device, options))
}

/// `//host/share` as `host` and `/share`.
fn share(device: &str) -> Option<(&str, &str)> {
    let rest = device.strip_prefix("//")?;
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    (!host.is_empty()).then_some((host, path))
}

/// `host:445`, `[::1]:445`.
fn port(host: &str) -> bool {
    let name = host.rfind(']').map_or(host, |end| &host[end..]);
    name.rsplit_once(':').is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(words: &[&str]) -> Options {
        words.iter().filter_map(|w| w.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect()
    }

    #[test]
    fn nonsense_in_dockers_words() {
        for (words, says) in [
            (&["foo=x"][..], "invalid option: \"foo\""),
            (&["type=tmpfs"], "missing required option: \"device\""),
            (&["device=/x"], "missing required option: \"type\""),
            (&["o=bind"], "missing required option: \"device\""),
            (&["o=bind", "device=/x"], "missing required option: \"type\""),
            (&["size=10g"], "quota size requested but no quota support"),
            (&["type=cifs", "device=//nas:445/share"], "port not allowed in CIFS device URL"),
        ] {
            let e = check(&options(words)).unwrap_err();
            assert!(e.message.starts_with(says) && e.hint.is_some(), "{words:?}: {e}");
        }
        for good in
            [&["size=0"][..], &["type=none", "device=/x", "o=bind"], &["type=cifs", "device=//[2001:db8::1]/share"]]
        {
            check(&options(good)).unwrap();
        }
    }

    #[test]
    fn the_kernel_gets_addresses() {
        let of = |kind: &str, device: &str, options: &str| {
            let text = |s: &str| s.to_owned();
            let volume = VolumeMount {
                kind: text(kind),
                device: text(device),
                options: text(options),
                target: "/v/_data".into(),
                lease: "/s/id".into(),
                owner: text("id"),
            };
            for_kernel(&volume)
        };
        let same = |kind: &str, device: &str, options: &str| {
            assert_eq!(of(kind, device, options).unwrap(), (device.to_owned(), options.to_owned()));
        };
        same("nfs", ":/x", "addr=192.0.2.1,rw");
        same("nfs", ":/x", "rw");
        same("tmpfs", "tmpfs", "addr=localhost");
        assert_eq!(of("nfs", ":/x", "soft,addr=localhost").unwrap().1, "soft,addr=127.0.0.1");
        assert_eq!(of("cifs", "//localhost/share/x", "user=u").unwrap().0, "//127.0.0.1/share/x");
        let e = of("nfs", "", "").unwrap_err();
        assert_eq!(e.message, "error while mounting volume '/v/_data': missing device in volume options");
    }
}
