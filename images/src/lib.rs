//! OCI images: references, registries, the content-addressed store, layers and their snapshots.
//!
//! The README beside this crate tells the story.

pub mod archive;
pub mod config;
pub mod digest;
mod ingest;
pub mod layer;
pub mod manifest;
pub mod platform;
pub mod progress;
pub mod reference;
pub mod registry;
pub mod snapshot;
pub mod store;
#[cfg(test)]
mod testing;
