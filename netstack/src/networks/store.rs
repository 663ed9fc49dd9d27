//! Records on disk: JSON, written to a temporary name and renamed.

use plan::{Error, Result, ResultExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Replaces a record at once: a reader sees the old one or the new one. Mode 0600.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let doing = || format!("write {}", path.display());
    let mut bytes = serde_json::to_vec_pretty(value).map_err(|e| Error::system(doing()).with_cause(e.to_string()))?;
    bytes.push(b'\n');
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temp = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let write = || -> std::io::Result<()> {
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&temp)?;
        file.write_all(&bytes)?;
        std::fs::rename(&temp, path)
    };
    write().inspect_err(|_| drop(std::fs::remove_file(&temp))).doing(doing)
}

/// Reads a record; `None` when there is none. One of a newer version is refused untouched.
pub(crate) fn read_json<T: DeserializeOwned>(
    path: &Path,
    newest: u32,
    version: impl Fn(&T) -> u32,
) -> Result<Option<T>> {
    let bytes = match std::fs::read(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.doing(|| format!("read {}", path.display()))?,
    };
    let value: T = serde_json::from_slice(&bytes).map_err(|e| {
        Error::system(format!("record {} is damaged", path.display()))
            .with_cause(e.to_string())
            .with_hint("restore the file, or remove it if the network is not needed")
    })?;
    if version(&value) > newest {
        return Err(Error::system(format!("record {} is of version {}", path.display(), version(&value)))
            .with_cause(format!("this rrun knows versions up to {newest}"))
            .with_hint("use the newer rrun that wrote it"));
    }
    Ok(Some(value))
}

/// 64 random hex digits.
pub(crate) fn random_hex() -> Result<String> {
    let mut bytes = [0u8; 32];
    File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut bytes)).doing(|| "read /dev/urandom")?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_and_a_newer_one_is_refused() {
        #[derive(serde::Serialize, serde::Deserialize, PartialEq, Debug)]
        struct R {
            version: u32,
        }
        let dir = std::env::temp_dir().join(format!("rrun-store-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("r.json");
        assert_eq!(read_json::<R>(&path, 1, |r| r.version).unwrap(), None);
        write_json(&path, &R { version: 1 }).unwrap();
        assert_eq!(read_json::<R>(&path, 1, |r| r.version).unwrap(), Some(R { version: 1 }));
        write_json(&path, &R { version: 2 }).unwrap();
        let before = std::fs::read(&path).unwrap();
        assert!(read_json::<R>(&path, 1, |r| r.version).unwrap_err().to_string().contains("of version 2"));
        assert_eq!(std::fs::read(&path).unwrap(), before);
        std::fs::write(&path, "{").unwrap();
        assert!(read_json::<R>(&path, 1, |r| r.version).unwrap_err().to_string().contains("is damaged"));
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1, "no temporary file stays");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
