//! The container's log: lines of its output, kept in files that rotate or handed to the journal.

mod encode;
mod files;
mod journal;
mod journalctl;
mod pack;
mod reader;
mod store;
mod writer;

pub use journal::Journal;
pub use journalctl::read as read_journal;
pub use reader::{Follow, ReadOptions, Record, Sink, read};
pub use store::Rotation;
pub use writer::Writer;

use std::path::{Path, PathBuf};

/// How a log file's lines are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Docker's json-file, which tools other than `rrun logs` read too; with a JSON object of further
    /// attributes for each line, or nothing.
    #[default]
    Json,
    /// The lines of Kubernetes' runtimes: `TIME stdout F text`, where `P` instead of `F` means that the
    /// line goes on in the next record (or ended without a newline).
    Plain,
}

/// The name of the `n`th older file of a rotated log.
fn rotated(path: &Path, n: u32) -> PathBuf {
    with_suffix(path, &format!(".{n}"))
}

/// The same, compressed.
fn packed(path: &Path, n: u32) -> PathBuf {
    with_suffix(path, &format!(".{n}.gz"))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests;
