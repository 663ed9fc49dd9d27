//! Small JSON files: whole or not at all, readable by nobody else, never a newer version's.

use plan::{Error, Result, ResultExt};
use rustix::fs::{Mode, OFlags};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::Path;

/// Records are a few kilobytes; what is bigger than this is not ours.
const MAX_SIZE: u64 = 16 << 20;

/// Reads `name` under `dir`. `None`: there is no such file.
///
/// # Errors
/// Unreadable, not JSON, or written by a newer rrun (`version` above `known`).
pub fn read<T: DeserializeOwned>(dir: &Path, name: &str, known: u32) -> Result<Option<T>> {
    match load(&dir.join(name))? {
        Some(bytes) => parse(&bytes, known).map(Some).map_err(|e| e.context(dir.join(name).display())),
        None => Ok(None),
    }
}

fn load(path: &Path) -> Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => return Ok(None),
        Err(e) => return Err(Error::io(format!("open {}", path.display()), &e)),
    };
    let mut bytes = Vec::with_capacity(8 << 10);
    file.take(MAX_SIZE).read_to_end(&mut bytes).doing(|| format!("read {}", path.display()))?;
    Ok(Some(bytes))
}

fn parse<T: DeserializeOwned>(bytes: &[u8], known: u32) -> Result<T> {
    #[derive(serde::Deserialize)]
    struct Version {
        version: u32,
    }
    let version = serde_json::from_slice::<Version>(bytes);
    if let Ok(Version { version }) = version
        && version > known
    {
        return Err(Error::invalid(format!("written by a newer rrun (version {version}; this one knows {known})"))
            .with_hint("use the newer rrun for this container"));
    }
    serde_json::from_slice(bytes).map_err(|e| damaged(&e))
}

fn damaged(e: &serde_json::Error) -> Error {
    Error::system("damaged state file")
        .with_cause(e.to_string())
        .with_hint("`rrun rm -f` removes a container whose record is damaged")
}

/// Writes a file that nobody can be reading yet (its directory is not published).
///
/// # Errors
/// Of the system calls.
pub fn create(dir: impl AsFd, name: &str, value: &impl Serialize) -> Result<()> {
    let bytes = to_bytes(value)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fd = rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR).doing(|| format!("create {name}"))?;
    File::from(fd).write_all(&bytes).doing(|| format!("write {name}"))
}

/// Replaces a file: a reader sees the old content or the new.
///
/// # Errors
/// Of the system calls; the old content is then still there.
pub fn replace(dir: &Path, name: &str, value: &impl Serialize) -> Result<()> {
    let handle = open_dir(dir)?;
    let temporary = format!(".{name}.new");
    create(&handle, &temporary, value)
        .and_then(|()| {
            rustix::fs::renameat(&handle, &temporary, &handle, name).doing(|| format!("rename {temporary} to {name}"))
        })
        .map_err(|e| {
            // A torn temporary file helps nobody, least of all on a full disk.
            let _ = rustix::fs::unlinkat(&handle, &temporary, rustix::fs::AtFlags::empty());
            e.context(format!("save {}", dir.join(name).display()))
        })
}

/// # Errors
/// Of open(2).
pub fn open_dir(dir: &Path) -> Result<rustix::fd::OwnedFd> {
    rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
        .doing(|| format!("open {}", dir.display()))
}

fn to_bytes(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(value).map_err(|e| Error::system("write JSON").with_cause(e.to_string()))?;
    bytes.push(b'\n');
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn replaced_whole_and_private() {
        let dir = std::env::temp_dir().join(format!("rrun-file-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        replace(&dir, "a.json", &json!({"version": 1, "x": 1})).unwrap();
        replace(&dir, "a.json", &json!({"version": 1, "x": 2})).unwrap();
        let value: Value = read(&dir, "a.json", 1).unwrap().unwrap();
        assert_eq!(value["x"], 2);
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(dir.join("a.json")).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
        assert!(read::<Value>(&dir, "b.json", 1).unwrap().is_none());

        std::fs::write(dir.join("new.json"), r#"{"version": 9, "shape": "unknown"}"#).unwrap();
        assert!(read::<Value>(&dir, "new.json", 1).unwrap_err().to_string().contains("newer rrun"));
        std::fs::write(dir.join("torn.json"), r#"{"version": 1, "#).unwrap();
        assert!(read::<Value>(&dir, "torn.json", 1).unwrap_err().to_string().contains("damaged"));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
