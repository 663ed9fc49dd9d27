//! Netlink, asked the way the kernel likes it: blocking, several messages in one system call,
//! and with the kernel's own sentence when something is refused.
//!
//! All `unsafe` of this crate lives here.

#![expect(unsafe_code, reason = "netlink messages and namespaces: system calls that no safe crate makes")]

mod address;
mod conntrack;
mod neighbour;
mod netns;
mod nft;
pub mod packet;
mod policy;
mod redirect;
mod route;
mod rules;
mod socket;
mod tc;
mod vlan;
mod watch;

pub use address::Address6;
pub use conntrack::{Towards, forget_container, forget_flows};
pub use netns::{Visit, current, in_empty_netns};
pub use nft::{Elem, NftBatch};
pub use redirect::redirect;
pub use route::{Link, Route};
pub use rules::{AddressSet, Expr, Family, Header, Meta, Table, write_table};
pub use socket::{Batch, Failure, Socket};
pub use vlan::NewUpper;
pub use watch::AddressWatch;
