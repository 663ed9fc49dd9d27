//! Forgetting connections that point at a container which is no longer, or was not yet, there.
//!
//! The kernel keeps the translation it chose for a connection's first packet. UDP has no end of
//! connection: while a sender keeps sending, its packets go to a dead container, or to none at all. And
//! an established TCP connection would outlive the withdrawal of its port.

use super::nft::{attr, message, nest};
use super::socket::{Batch, Socket};
use crate::model::Proto;
use plan::Result;
use std::net::IpAddr;

const NFNL_SUBSYS_CTNETLINK: u16 = 1 << 8;
const IPCTNL_MSG_CT_DELETE: u16 = NFNL_SUBSYS_CTNETLINK | 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_TUPLE_IP: u16 = 1;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_DST_PORT: u16 = 3;
const CTA_FILTER: u16 = 25;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
/// Which parts of a direction are compared.
const FILTER_IP_SRC: u32 = 1 << 0;
const FILTER_PROTO_NUM: u32 = 1 << 3;
const FILTER_PROTO_DST_PORT: u32 = 1 << 5;

/// Whose flows: those to a container (it sends the answers), or all of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Towards {
    Container(IpAddr),
    Anything { ipv4: bool },
}

/// Forgets every flow of this protocol that was sent to one of the host's `ports`.
///
/// Kernels before 5.8 cannot filter and refuse with EINVAL or EOPNOTSUPP; then UDP flows time out by
/// themselves (30 s without traffic), so that is no error.
pub fn forget_flows(socket: &mut Socket, proto: Proto, ports: (u16, u16), towards: Towards) -> Result<()> {
    for port in ports.0..=ports.1 {
        if !forget(socket, proto, Some(port), towards)? {
            break;
        }
    }
    Ok(())
}

/// Forgets every flow of this protocol that a container answers: it is gone.
pub fn forget_container(socket: &mut Socket, proto: Proto, container: IpAddr) -> Result<()> {
    forget(socket, proto, None, Towards::Container(container)).map(drop)
}

/// `false`: this kernel cannot.
fn forget(socket: &mut Socket, proto: Proto, port: Option<u16>, towards: Towards) -> Result<bool> {
    let answers = match towards {
        Towards::Container(ip) => Some(ip),
        Towards::Anything { .. } => None,
    };
    let ipv4 = match towards {
        Towards::Container(ip) => ip.is_ipv4(),
        Towards::Anything { ipv4 } => ipv4,
    };
    let family = if ipv4 { libc::AF_INET } else { libc::AF_INET6 } as u8;
    let mut batch = Batch::new();
    let seq = batch.tags.len() as u32;
    message(&mut batch.buf, IPCTNL_MSG_CT_DELETE, 0, seq, family, 0, |buf| {
        nest(buf, CTA_TUPLE_ORIG, |buf| {
            nest(buf, CTA_TUPLE_PROTO, |buf| {
                attr(buf, CTA_PROTO_NUM, &[proto.number()]);
                if let Some(port) = port {
                    attr(buf, CTA_PROTO_DST_PORT, &port.to_be_bytes());
                }
            });
        });
        if let Some(ip) = answers {
            nest(buf, CTA_TUPLE_REPLY, |buf| {
                nest(buf, CTA_TUPLE_IP, |buf| match ip {
                    IpAddr::V4(ip) => attr(buf, CTA_IP_V4_SRC, &ip.octets()),
                    IpAddr::V6(ip) => attr(buf, CTA_IP_V6_SRC, &ip.octets()),
                });
            });
        }
        nest(buf, CTA_FILTER, |buf| {
            let port = if port.is_some() { FILTER_PROTO_DST_PORT } else { 0 };
            attr(buf, CTA_FILTER_ORIG_FLAGS, &(FILTER_PROTO_NUM | port).to_ne_bytes());
            let ip = if answers.is_some() { FILTER_IP_SRC } else { 0 };
            attr(buf, CTA_FILTER_REPLY_FLAGS, &ip.to_ne_bytes());
        });
    });
    batch.tags.push(Some(0));
    match socket.run(batch)? {
        Err(refused) if matches!(refused.errno, libc::EINVAL | libc::EOPNOTSUPP | libc::EPERM) => Ok(false),
        // ENOENT: there was none.
        _ => Ok(true),
    }
}
