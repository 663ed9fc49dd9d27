//! The words of `--host-loopback`.

use crate::publish::LoopbackPort;
use std::net::IpAddr;

pub(super) const WHY: &str = "A program that listens on 127.0.0.1 means the host and nobody else. This container was named by \
     the host's own administrator: in its namespace, and nowhere else, the gateway's port leads to a socket of the \
     monitor's, which carries the bytes to the host's loopback. No packet for 127.0.0.1 crosses a wire.";

pub(super) fn line(ports: &[LoopbackPort], gateways: &[IpAddr]) -> String {
    let ports: Vec<String> = ports.iter().map(|(proto, port)| format!("{port}/{}", proto.name())).collect();
    format!("let the container reach 127.0.0.1 of the host, port {}, as {}", ports.join(", "), super::list(gateways))
}
