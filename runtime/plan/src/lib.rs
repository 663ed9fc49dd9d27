//! What every crate of rrun shares: a change to the kernel as a value that can speak.
//!
//! A command plans its work as a list of steps, shows that list if asked, applies it and can undo
//! it. This leaf crate holds the words for that — [`Action`], [`Undo`], [`Journal`], the text of
//! `--explain` — and the one [`Error`] type that reaches the user. It never touches the kernel and
//! does no I/O.

mod error;
mod explain;
mod journal;
pub mod time;

pub use error::{Error, Kind, Result, ResultExt, errno_name};
pub use explain::{Spoken, render, script};
pub use journal::{Journal, Mark};

use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

/// One change to the kernel, as a value: what a teacher would point at, and one unit of undo.
///
/// Implemented by the closed enums `runtime::Step` and `netstack::Step`; the exhaustive `match` in
/// each method means that a step without words does not compile.
pub trait Action {
    /// What happens, in one line, with the real names and addresses.
    fn line(&self) -> String;
    /// Why a container needs it: one to three sentences.
    fn why(&self) -> &'static str;
    /// The same with `ip`, `nft`, `mount`…; `None` where no command does exactly this.
    fn shell(&self) -> Option<String>;
    /// Which process executes it.
    fn site(&self) -> Site;
    /// What takes it back.
    fn undo(&self) -> Undo;
}

/// Of a text that rrun loads into the kernel: by this the next rrun knows whether it is its own text (FNV-1a).
pub const fn fingerprint(texts: &[&[u8]]) -> u32 {
    let (mut hash, mut i) = (0x811c_9dc5_u32, 0);
    while i < texts.len() {
        let mut j = 0;
        while j < texts[i].len() {
            hash = (hash ^ texts[i][j] as u32).wrapping_mul(0x0100_0193);
            j += 1;
        }
        i += 1;
    }
    hash
}

/// Who executes a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Site {
    /// The monitor, in the host's namespaces.
    Host,
    /// The container's first process, before it becomes the user's program.
    Child,
    /// The monitor, for a moment inside the container's network namespace.
    InNetns,
}

/// The namespace (or process) whose end takes a step's effect with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ns {
    Mount,
    Pid,
    Net,
    Uts,
    Ipc,
    Cgroup,
    User,
    Time,
    /// Not a namespace: an attribute of the process itself (capabilities, rlimits, seccomp…).
    Process,
}

/// How a step is taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Undo {
    /// The kernel does it when the namespace dies: most steps, and the lesson itself.
    DiesWith(Ns),
    /// One of the host-side things; recorded in `undo.json` before the first step.
    Remove(Vec<HostThing>),
    /// Belongs to something that outlives the container (a network's bridge, say), or changes nothing.
    Nothing,
}

/// The eight kinds of things on the host that outlive a container unless removed.
/// Every removal is idempotent: "not there" is success.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostThing {
    /// A cgroup directory, relative to each hierarchy's mount point (`rrun/<id>`).
    CgroupDir { path: PathBuf },
    /// A lease file (address or port) that is ours only while its content is `owner`.
    Lease { path: PathBuf, owner: String },
    /// An element of a map or set in table `inet rrun`, in `nft` syntax (`key` or `key : value`).
    NftElement { set: String, element: String },
    /// A DNS record file (one per endpoint).
    DnsRecord { path: PathBuf },
    /// A route of the host to one container's address, through a device of the host.
    Route { destination: IpAddr, device: String },
    /// The host's answer, on an interface of its own, to who asks for a container's IPv6 address.
    Neighbour { address: Ipv6Addr, device: String },
    /// The file system of a volume, mounted on its directory for as long as a lease beside `lease` has a
    /// living owner. Ours is `owner`'s.
    VolumeMount { target: PathBuf, lease: PathBuf, owner: String },
    /// A directory of volatile state.
    StateDir { path: PathBuf },
}
