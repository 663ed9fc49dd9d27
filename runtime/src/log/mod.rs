//! The container's log, in Docker's json-file format, which tools other than `rrun logs` read too.

mod encode;
mod files;
mod reader;
mod writer;

pub use reader::{Follow, ReadOptions, Record, Sink, read};
pub use writer::{Rotation, Writer};

use std::path::{Path, PathBuf};

/// The name of the `n`th older file of a rotated log.
fn rotated(path: &Path, n: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{n}"));
    name.into()
}

#[cfg(test)]
mod tests;
