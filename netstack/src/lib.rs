//! Container networking: networks, endpoints, address management, firewall, DNS.
//!
//! The README beside this crate tells the story; `plan` decides, `apply` does.

pub mod apply;
pub mod check;
pub mod dhcp;
pub mod dns;
pub mod driver;
pub mod egress;
pub mod files;
pub mod firewall;
pub mod hostnames;
pub mod ipam;
pub(crate) mod mdns;
pub mod model;
pub mod networks;
pub mod nl;
pub mod poll;
pub mod publish;
pub mod rate;
pub mod repair;
pub mod sandbox;
pub mod static_route;
pub mod step;
