//! The only `unsafe` of this crate: one file per family of system calls.

pub mod fdpass;
pub mod process;
pub mod seal;
pub mod security;
