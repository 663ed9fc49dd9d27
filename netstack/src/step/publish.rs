//! The words of published ports.

use crate::model::PortBinding;
use std::net::IpAddr;

fn port_range(r: (u16, u16)) -> String {
    if r.0 == r.1 { r.0.to_string() } else { format!("{}-{}", r.0, r.1) }
}

/// `0.0.0.0:8080/tcp`, `[::]:8000-8499/tcp`.
pub(super) fn host_side(b: &PortBinding) -> String {
    let ip = match b.host_ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    format!("{ip}:{}/{}", port_range(b.host), b.proto.name())
}

pub(super) fn line(bindings: &[PortBinding]) -> String {
    let what: Vec<String> = bindings
        .iter()
        .map(|b| match b.routed {
            true => format!("container port {}/{} to whoever has a route", port_range(b.container), b.proto.name()),
            false => format!("{} → container port {}", host_side(b), port_range(b.container)),
        })
        .collect();
    format!("publish {}", what.join(", "))
}
