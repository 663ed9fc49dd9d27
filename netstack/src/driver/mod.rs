//! What each kind of network means in steps: one flat recipe a file.

pub mod bridge;
pub mod none;
