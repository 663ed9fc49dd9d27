//! The JSON documents of `inspect`, with Docker's field names.

mod container;
mod image;
mod network;

pub use container::{Live, container, ports};
pub use image::image;
pub use network::network;
