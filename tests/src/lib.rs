//! Black-box tests of the rrun binary on simulated hosts.
//!
//! A [`Host`] is a private mount and network namespace with its own `--root` and `--state`, its own
//! corner of the cgroup tree and, if asked for, a neighbour on its LAN. Tests drive the release
//! binary in it and read the kernel's state, never rrun's own claims. When a host is dropped, a
//! [`census`] proves that nothing is left of what its containers were.

pub mod canary;
pub mod census;
pub mod dns;
pub mod fixture;
pub mod host;
pub mod journal;
pub mod kernel;
pub mod lan;
pub mod peer;

pub use host::{Host, Ran};
