//! Containers: from a validated [`spec::RunSpec`] to a running process, and the monitor beside it.
//!
//! The README beside this crate tells the story; `planner` decides, `exec` and `init` do.

pub mod apparmor;
pub mod attach;
pub mod caps;
pub mod cgroup;
pub mod exec;
pub mod host;
pub mod init;
pub mod join;
pub mod log;
pub mod monitor;
pub mod oci;
pub mod planner;
mod procfs;
pub mod relay;
pub mod rlimit;
pub mod rootfs;
pub mod seccomp;
pub mod spec;
pub mod state;
pub mod step;
pub mod sys;
pub mod sysctl;
#[cfg(test)]
mod test_dir;
pub mod tty;
pub mod user;
pub mod volume;
