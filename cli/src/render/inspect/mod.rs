//! The JSON documents of `inspect`, with Docker's field names.

mod container;
mod image;

pub use container::{Live, container};
pub use image::image;
