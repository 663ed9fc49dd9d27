//! Forgetting connections that point at a container which is no longer, or was not yet, there.
//!
//! UDP has no end of connection: while a sender keeps sending, the kernel keeps the translation it
//! chose for the first packet, to a dead container or to none at all. So the flows of a published
//! UDP port are forgotten when it is published and when it is withdrawn.

use super::nft::{attr, message, nest};
use super::socket::{Batch, Socket};
use plan::Result;

const NFNL_SUBSYS_CTNETLINK: u16 = 1 << 8;
const IPCTNL_MSG_CT_DELETE: u16 = NFNL_SUBSYS_CTNETLINK | 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_DST_PORT: u16 = 3;
const CTA_FILTER: u16 = 25;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
/// Compare protocol number and destination port of the original direction only.
const FILTER_PROTO_NUM: u32 = 1 << 3;
const FILTER_PROTO_DST_PORT: u32 = 1 << 5;

/// Forgets every UDP flow of this family that was sent to one of the host's `ports`.
///
/// Kernels before 5.8 cannot filter and refuse with EINVAL or EOPNOTSUPP; then the flows time out
/// by themselves (30 s without traffic), so that is no error.
pub fn forget_udp_flows(socket: &mut Socket, ipv4: bool, ports: (u16, u16)) -> Result<()> {
    let family = if ipv4 { libc::AF_INET } else { libc::AF_INET6 } as u8;
    for port in ports.0..=ports.1 {
        let mut batch = Batch::new();
        let seq = batch.tags.len() as u32;
        message(&mut batch.buf, IPCTNL_MSG_CT_DELETE, 0, seq, family, 0, |buf| {
            nest(buf, CTA_TUPLE_ORIG, |buf| {
                nest(buf, CTA_TUPLE_PROTO, |buf| {
                    attr(buf, CTA_PROTO_NUM, &[libc::IPPROTO_UDP as u8]);
                    attr(buf, CTA_PROTO_DST_PORT, &port.to_be_bytes());
                });
            });
            nest(buf, CTA_FILTER, |buf| {
                attr(buf, CTA_FILTER_ORIG_FLAGS, &(FILTER_PROTO_NUM | FILTER_PROTO_DST_PORT).to_ne_bytes());
                attr(buf, CTA_FILTER_REPLY_FLAGS, &0u32.to_ne_bytes());
            });
        });
        batch.tags.push(Some(0));
        if let Err(refused) = socket.run(batch)?
            && matches!(refused.errno, libc::EINVAL | libc::EOPNOTSUPP | libc::EPERM)
        {
            return Ok(());
        }
    }
    Ok(())
}
