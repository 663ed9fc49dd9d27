//! One address and port of a namespace's loopback, moved to another port.
//!
//! Stateless, by rewriting the port in packets on their way out: going there, `53` becomes the real
//! port, and coming back the other way round. NAT would do the same with a connection-tracking
//! entry a query (and make the namespace track every connection of the container).

use super::rules::{Expr, Family, Header, Meta, write_table};
use plan::Result;
use std::net::Ipv4Addr;

/// The table's name inside the container: says whose it is.
const TABLE: &str = "rrun-dns";
const CHAIN: &str = "output";
/// Before everything else, connection tracking included.
const PRIORITY_RAW: i32 = -300;
const SADDR: u32 = 12;
const DADDR: u32 = 16;
const SPORT: u32 = 0;
const DPORT: u32 = 2;
/// Protocol number and where its header keeps the checksum.
const PROTOCOLS: [(u8, u32); 2] = [(17, 6), (6, 16)];

/// In the current network namespace, what is sent to `address:port` by UDP or TCP arrives at
/// `address:to`, and the answers seem to come from `port`. Replaces a redirection made earlier, by a
/// monitor that has died.
pub fn redirect(address: Ipv4Addr, port: u16, to: u16) -> Result<()> {
    let outcome = write_table(Family::Ipv4, TABLE, |table| {
        table.output_chain(CHAIN, PRIORITY_RAW);
        for (protocol, checksum) in PROTOCOLS {
            // If protocol, address and port match, another port takes the port's place.
            let mut rule = |at: u32, side: u32, from: u16, to: u16| {
                let expressions = [
                    Expr::Meta(Meta::L4proto),
                    Expr::Equals(vec![protocol]),
                    Expr::Load(Header::Network, at, 4),
                    Expr::Equals(address.octets().to_vec()),
                    Expr::Load(Header::Transport, side, 2),
                    Expr::Equals(from.to_be_bytes().to_vec()),
                    Expr::Set(to.to_be_bytes().to_vec()),
                    Expr::StorePort(side, checksum),
                ];
                table.rule(CHAIN, "", &expressions);
            };
            rule(DADDR, DPORT, port, to);
            rule(SADDR, SPORT, to, port);
        }
    })?;
    outcome.map_err(|failure| {
        failure
            .error(format!("redirect {address}:{port} to port {to} in the container"))
            .with_hint("embedded DNS needs CONFIG_NF_TABLES in the kernel")
    })
}
