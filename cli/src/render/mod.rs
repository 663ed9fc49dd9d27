//! Output: tables, JSON documents, Go templates, progress lines and errors, as Docker's users know them.

pub mod error;
pub mod inspect;
pub mod progress;
pub mod table;
pub mod template;
pub mod usage;
