//! Forgetting connections that point at a container which is no longer, or was not yet, there.
//!
//! The kernel keeps the translation it chose for a connection's first packet. UDP has no end of
//! connection: while a sender keeps sending, its packets go to a dead container, or to none at all. And
//! an established TCP connection would outlive the withdrawal of its port.

use super::nft::{attr, message, nest};
use super::socket::{Batch, Socket};
use crate::model::Proto;
use netlink_packet_core::NLM_F_DUMP;
use plan::Result;
use std::net::IpAddr;

const NFNL_SUBSYS_CTNETLINK: u16 = 1 << 8;
const IPCTNL_MSG_CT_GET: u16 = NFNL_SUBSYS_CTNETLINK | 1;
const IPCTNL_MSG_CT_DELETE: u16 = NFNL_SUBSYS_CTNETLINK | 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_TUPLE_IP: u16 = 1;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_DST_PORT: u16 = 3;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
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
/// Kernels before 5.8 cannot filter at all; then UDP flows time out by
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
    let ipv4 = match towards {
        Towards::Container(ip) => ip.is_ipv4(),
        Towards::Anything { ipv4 } => ipv4,
    };
    let family = if ipv4 { libc::AF_INET } else { libc::AF_INET6 } as u8;
    let deleted = order(socket, family, |buf| selection(buf, proto, port, towards))?;
    match deleted {
        Err(libc::EINVAL) => forget_listed(socket, family, |buf| selection(buf, proto, port, towards)),
        Err(libc::EOPNOTSUPP | libc::EPERM) => Ok(false),
        // ENOENT: there was none.
        _ => Ok(true),
    }
}

/// Before Linux 6.8 a deletion takes no filter (EINVAL: it wants a whole tuple), but a listing does: what it
/// finds is deleted one by one.
fn forget_listed(socket: &mut Socket, family: u8, selection: impl FnOnce(&mut Vec<u8>)) -> Result<bool> {
    let mut request = Vec::new();
    message(&mut request, IPCTNL_MSG_CT_GET, NLM_F_DUMP, 0, family, 0, selection);
    let mut flows: Vec<Vec<u8>> = Vec::new();
    if socket.list(&request, |found| flows.push(identity(found)))?.is_err() {
        return Ok(false);
    }
    for flow in flows {
        // One that ended meanwhile is as good as deleted.
        let _gone = order(socket, family, |buf| buf.extend_from_slice(&flow))?;
    }
    Ok(true)
}

/// A deletion; the errno of a refusal.
fn order(socket: &mut Socket, family: u8, which: impl FnOnce(&mut Vec<u8>)) -> Result<std::result::Result<(), i32>> {
    let mut batch = Batch::new();
    let seq = batch.tags.len() as u32;
    message(&mut batch.buf, IPCTNL_MSG_CT_DELETE, 0, seq, family, 0, which);
    batch.tags.push(Some(0));
    Ok(socket.run(batch)?.map_err(|refused| refused.errno))
}

/// The attributes by which a listed flow is known: its tuple, its ID and its zone.
fn identity(listed: &[u8]) -> Vec<u8> {
    /// Of netlink and of nfnetlink.
    const HEADERS: usize = 16 + 4;
    let mut flow = Vec::new();
    let mut attrs = listed.get(HEADERS..).unwrap_or_default();
    while let &[a, b, c, d, ..] = attrs {
        let (len, kind) = (u16::from_ne_bytes([a, b]) as usize, u16::from_ne_bytes([c, d]));
        let whole = len.next_multiple_of(4).max(4).min(attrs.len());
        // The kind's two highest bits are flags.
        if matches!(kind & 0x3fff, CTA_TUPLE_ORIG | CTA_ID | CTA_ZONE) {
            flow.extend_from_slice(&attrs[..whole]);
        }
        attrs = &attrs[whole..];
    }
    flow
}

/// Which flows are meant.
fn selection(buf: &mut Vec<u8>, proto: Proto, port: Option<u16>, towards: Towards) {
    let answers = match towards {
        Towards::Container(ip) => Some(ip),
        Towards::Anything { .. } => None,
    };
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
}
