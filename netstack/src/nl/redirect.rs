//! One address and port of a namespace's loopback, moved to another port.
//!
//! Stateless, by rewriting the port in packets on their way out: going there, `53` becomes the real
//! port, and coming back the other way round. NAT would do the same with a connection-tracking
//! entry a query (and make the namespace track every connection of the container).

use super::nft::{attr, message, nest, string};
use super::socket::{Batch, NLM_F_ACK, Socket};
use plan::Result;
use std::net::Ipv4Addr;

/// The table's name inside the container: says whose it is.
const TABLE: &str = "rrun-dns";
const CHAIN: &str = "output";

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEWTABLE: u16 = SUBSYSTEM << 8;
const DELTABLE: u16 = SUBSYSTEM << 8 | 2;
const NEWCHAIN: u16 = SUBSYSTEM << 8 | 3;
const NEWRULE: u16 = SUBSYSTEM << 8 | 6;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_APPEND: u16 = 0x800;
const IPV4: u8 = 2;
const LOCAL_OUT: u32 = 3;
/// Before everything else, connection tracking included.
const PRIORITY_RAW: i32 = -300;

const REGISTER: u32 = 1;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
const META_L4PROTO: u32 = 16;
const INTERNET_CHECKSUM: u32 = 1;
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
    let mut socket = Socket::netfilter()?;
    let outcome = match socket.run(transaction(address, port, to, false))? {
        Err(failure) if failure.errno == libc::EEXIST => socket.run(transaction(address, port, to, true))?,
        outcome => outcome,
    };
    outcome.map_err(|failure| {
        failure
            .error(format!("redirect {address}:{port} to port {to} in the container"))
            .with_hint("embedded DNS needs CONFIG_NF_TABLES in the kernel")
    })
}

fn transaction(address: Ipv4Addr, port: u16, to: u16, replace: bool) -> Batch {
    let mut batch = Batch::new();
    push(&mut batch, BATCH_BEGIN, 0, None, |_| {});
    if replace {
        push(&mut batch, DELTABLE, 0, Some(0), |b| string(b, 1, TABLE));
    }
    push(&mut batch, NEWTABLE, NLM_F_CREATE | NLM_F_EXCL, Some(0), |b| string(b, 1, TABLE));
    push(&mut batch, NEWCHAIN, NLM_F_CREATE, Some(1), |b| {
        string(b, 1, TABLE);
        string(b, 3, CHAIN);
        nest(b, 4, |b| {
            attr(b, 1, &LOCAL_OUT.to_be_bytes());
            attr(b, 2, &PRIORITY_RAW.to_be_bytes());
        });
        string(b, 7, "filter");
    });
    for (protocol, checksum) in PROTOCOLS {
        rule(&mut batch, protocol, checksum, (DADDR, address), (DPORT, port, to));
        rule(&mut batch, protocol, checksum, (SADDR, address), (SPORT, to, port));
    }
    push(&mut batch, BATCH_END, 0, None, |_| {});
    batch
}

/// If protocol, address and port match, another port takes the port's place.
fn rule(batch: &mut Batch, protocol: u8, checksum: u32, address: (u32, Ipv4Addr), (at, from, to): (u32, u16, u16)) {
    push(batch, NEWRULE, NLM_F_CREATE | NLM_F_APPEND, Some(2), |b| {
        string(b, 1, TABLE);
        string(b, 2, CHAIN);
        nest(b, 4, |b| {
            expression(b, "meta", |b| {
                number(b, 1, REGISTER);
                number(b, 2, META_L4PROTO);
            });
            equals(b, &[protocol]);
            load(b, NETWORK_HEADER, address.0, 4);
            equals(b, &address.1.octets());
            load(b, TRANSPORT_HEADER, at, 2);
            equals(b, &from.to_be_bytes());
            expression(b, "immediate", |b| {
                number(b, 1, REGISTER);
                nest(b, 2, |b| attr(b, 1, &to.to_be_bytes()));
            });
            expression(b, "payload", |b| {
                for (kind, value) in
                    [(5, REGISTER), (2, TRANSPORT_HEADER), (3, at), (4, 2), (6, INTERNET_CHECKSUM), (7, checksum)]
                {
                    number(b, kind, value);
                }
            });
        });
    });
}

fn load(b: &mut Vec<u8>, header: u32, offset: u32, length: u32) {
    expression(b, "payload", |b| {
        for (kind, value) in [(1, REGISTER), (2, header), (3, offset), (4, length)] {
            number(b, kind, value);
        }
    });
}

fn equals(b: &mut Vec<u8>, value: &[u8]) {
    expression(b, "cmp", |b| {
        number(b, 1, REGISTER);
        number(b, 2, 0);
        nest(b, 3, |b| attr(b, 1, value));
    });
}

fn expression(b: &mut Vec<u8>, name: &str, body: impl FnOnce(&mut Vec<u8>)) {
    nest(b, 1, |b| {
        string(b, 1, name);
        nest(b, 2, body);
    });
}

fn number(b: &mut Vec<u8>, kind: u16, value: u32) {
    attr(b, kind, &value.to_be_bytes());
}

fn push(batch: &mut Batch, kind: u16, flags: u16, tag: Option<usize>, body: impl FnOnce(&mut Vec<u8>)) {
    let seq = batch.tags.len() as u32;
    let (flags, family, resource) = match tag {
        Some(_) => (flags | NLM_F_ACK, IPV4, 0),
        None => (flags, 0, SUBSYSTEM),
    };
    message(&mut batch.buf, kind, flags, seq, family, resource, body);
    batch.tags.push(tag);
}
