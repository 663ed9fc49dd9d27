//! Reading the kernel's small text files.

use rustix::fs::{CWD, Mode, OFlags};
use rustix::path::Arg;

/// More than all but the longest have; those take another turn.
const USUAL: usize = 4096;

/// The whole file. Such files claim to be empty, so `std` feels its way from 32 bytes on: a dozen system
/// calls where one is enough, and a part of the text is made anew for each.
pub(crate) fn read(path: impl Arg) -> rustix::io::Result<Vec<u8>> {
    let file = rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut text = Vec::new();
    loop {
        text.reserve(USUAL);
        let got = rustix::io::retry_on_intr(|| rustix::io::read(&file, rustix::buffer::spare_capacity(&mut text)))?;
        if got == 0 {
            return Ok(text);
        }
    }
}

/// As text; what is no UTF-8 (a mount point's name) is replaced.
pub(crate) fn text(path: impl Arg) -> rustix::io::Result<String> {
    let bytes = read(path)?;
    Ok(String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
}
