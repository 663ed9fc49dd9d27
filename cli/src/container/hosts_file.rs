//! `--hosts-file`, as Podman has it: what a container's /etc/hosts ends with.

use plan::{Error, Result, ResultExt};
use std::io::Read;
use std::path::{Path, PathBuf};

const MOST: u64 = 1 << 20;

/// The flag's value: a file of the host, or `none`.
///
/// # Errors
/// There is no such file; `image`.
pub fn parse(text: &str) -> Result<Option<PathBuf>> {
    match text {
        "none" => return Ok(None),
        "image" => {
            return Err(Error::invalid(
                "--hosts-file image is not supported: the image's lines and rrun's are not mixed",
            )
            .with_hint("--no-hosts leaves the image's file as it is, --hosts-file FILE takes one of the host"));
        }
        _ => {}
    }
    let path = std::path::absolute(text).doing(|| format!("find --hosts-file {}", text.escape_debug()))?;
    read(&path)?;
    Ok(Some(path))
}

/// The file as it is now, its last line with its end.
///
/// # Errors
/// The kernel's; what cannot be a hosts file.
pub fn read(path: &Path) -> Result<String> {
    let doing = || format!("read --hosts-file {}", path.display());
    let wrong = |what: &str| Error::invalid(format!("{}: {what}", doing())).with_hint("it must be a text file");
    // Who opens a FIFO waits for somebody to write.
    if !std::fs::metadata(path).doing(doing)?.is_file() {
        return Err(wrong("not a regular file"));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path).doing(doing)?.take(MOST + 1).read_to_end(&mut bytes).doing(doing)?;
    if bytes.len() as u64 > MOST {
        return Err(wrong("larger than 1 MiB"));
    }
    let mut text = String::from_utf8(bytes).map_err(|_| wrong("not UTF-8"))?;
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}
