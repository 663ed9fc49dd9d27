//! A small table of rules in the namespace this thread is in, written without the `nft` program.
//!
//! For what has to be in every container's own namespace: one transaction of some hundred
//! microseconds, where starting `nft` would cost milliseconds. The numbers are those of
//! `linux/netfilter/nf_tables.h`.

use super::nft::{Elem, Verb, attr, elements_message, message, nest, string};
use super::socket::{Batch, Failure, NLM_F_ACK, Socket};
use plan::Result;
use std::net::IpAddr;

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEWTABLE: u16 = SUBSYSTEM << 8;
const DELTABLE: u16 = SUBSYSTEM << 8 | 2;
const NEWCHAIN: u16 = SUBSYSTEM << 8 | 3;
const NEWRULE: u16 = SUBSYSTEM << 8 | 6;
const NEWSET: u16 = SUBSYSTEM << 8 | 9;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_APPEND: u16 = 0x800;
const LOCAL_OUT: u32 = 3;
/// All expressions of a rule work on one register, the first of 16 bytes; translation needs the next one too.
const REGISTER: u32 = 1;
const SECOND_REGISTER: u32 = 2;
const VERDICT: u32 = 0;
const ACCEPT: u32 = 1;
const SET_INTERVAL: u32 = 4;
const SET_TIMEOUT: u32 = 16;
/// The types that `nft` shows the elements as.
const TYPE_IPV4: u32 = 7;
const TYPE_IPV6: u32 = 8;
/// "ICMP unreachable of the packet's family": communication administratively prohibited.
const REJECT_ICMPX: u32 = 2;
const ICMPX_ADMIN_PROHIBITED: u8 = 3;
/// nft keeps comments as a tag, a length and a string.
const RULE_COMMENT: u8 = 0;
const SET_COMMENT: u8 = 7;
const COMMENT_MAX: usize = 120;

/// The protocols whose hook a table's chains are called from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Inet = 1,
    Ipv4 = 2,
}

/// What a packet is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meta {
    Mark = 3,
    Oifname = 7,
    Nfproto = 15,
    L4proto = 16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    Network = 1,
    Transport = 2,
}

/// One expression. Those that load fill the register, those that compare end the rule on a mismatch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    Meta(Meta),
    /// The connection's state, as a bit set in host byte order.
    CtState,
    /// What has become of the connection so far, likewise.
    CtStatus,
    Load(Header, u32, u32),
    Mask(u32),
    Equals(Vec<u8>),
    Differs(Vec<u8>),
    Within(Vec<u8>, Vec<u8>),
    InSet(String),
    Set(Vec<u8>),
    /// Writes the register over two bytes of the transport header, whose checksum is at the second offset.
    StorePort(u32, u32),
    /// The packet's destination, from now on and for the whole connection.
    Dnat(IpAddr, u16),
    Counter,
    Accept,
    Reject,
}

/// A set of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressSet {
    pub name: String,
    pub ipv6: bool,
    /// Elements that leave by themselves; else they are ranges that stay.
    pub timeout: bool,
    pub comment: String,
}

/// Writes table `name` anew, with what `build` puts in, as one transaction in this namespace.
/// Replaces one that is there, of a monitor that has died.
pub fn write_table(
    family: Family,
    name: &'static str,
    build: impl Fn(&mut Table),
) -> Result<std::result::Result<(), Failure>> {
    let mut socket = Socket::netfilter()?;
    let mut attempt = |replace| {
        let mut table = Table::new(family, name, replace);
        build(&mut table);
        table.push(BATCH_END, 0, None, |_| {});
        socket.run(table.batch)
    };
    // Not replaced blindly: a deletion in the transaction would make closing the socket wait.
    match attempt(false)? {
        Err(failure) if failure.errno == libc::EEXIST => attempt(true),
        outcome => Ok(outcome),
    }
}

/// A table that is being written.
pub struct Table {
    batch: Batch,
    family: Family,
    name: &'static str,
    sets: u32,
}

impl Table {
    fn new(family: Family, name: &'static str, replace: bool) -> Table {
        let mut table = Table { batch: Batch::new(), family, name, sets: 0 };
        table.push(BATCH_BEGIN, 0, None, |_| {});
        if replace {
            table.push(DELTABLE, 0, Some(0), |b| string(b, 1, name));
        }
        table.push(NEWTABLE, NLM_F_CREATE | NLM_F_EXCL, Some(0), |b| string(b, 1, name));
        table
    }

    pub fn set(&mut self, set: &AddressSet) {
        self.sets += 1;
        let (id, name) = (self.sets, self.name);
        let (kind, length) = if set.ipv6 { (TYPE_IPV6, 16) } else { (TYPE_IPV4, 4) };
        self.push(NEWSET, NLM_F_CREATE, Some(1), |b| {
            string(b, 1, name);
            string(b, 2, &set.name);
            number(b, 3, if set.timeout { SET_TIMEOUT } else { SET_INTERVAL });
            number(b, 4, kind);
            number(b, 5, length);
            number(b, 10, id);
            attr(b, 13, &comment(SET_COMMENT, &set.comment));
        });
    }

    /// Elements of one set.
    pub fn elements(&mut self, elements: &[Elem]) {
        if elements.is_empty() {
            return;
        }
        let seq = self.batch.tags.len() as u32;
        elements_message(&mut self.batch.buf, Verb::Add, seq, self.name, elements);
        self.batch.tags.push(Some(1));
    }

    /// A chain that everything sent from this namespace passes.
    pub fn output_chain(&mut self, chain: &str, priority: i32) {
        self.chain(chain, priority, "filter");
    }

    /// A chain that the first packet of each connection from this namespace passes.
    pub fn nat_output_chain(&mut self, chain: &str, priority: i32) {
        self.chain(chain, priority, "nat");
    }

    fn chain(&mut self, chain: &str, priority: i32, kind: &str) {
        let name = self.name;
        self.push(NEWCHAIN, NLM_F_CREATE, Some(2), |b| {
            string(b, 1, name);
            string(b, 3, chain);
            nest(b, 4, |b| {
                attr(b, 1, &LOCAL_OUT.to_be_bytes());
                attr(b, 2, &priority.to_be_bytes());
            });
            string(b, 7, kind);
        });
    }

    pub fn rule(&mut self, chain: &str, about: &str, expressions: &[Expr]) {
        let name = self.name;
        self.push(NEWRULE, NLM_F_CREATE | NLM_F_APPEND, Some(3), |b| {
            string(b, 1, name);
            string(b, 2, chain);
            nest(b, 4, |b| expressions.iter().for_each(|e| e.write(b)));
            if !about.is_empty() {
                attr(b, 7, &comment(RULE_COMMENT, about));
            }
        });
    }

    fn push(&mut self, kind: u16, flags: u16, tag: Option<usize>, body: impl FnOnce(&mut Vec<u8>)) {
        let seq = self.batch.tags.len() as u32;
        let (flags, family, resource) = match tag {
            Some(_) => (flags | NLM_F_ACK, self.family as u8, 0),
            None => (flags, 0, SUBSYSTEM),
        };
        message(&mut self.batch.buf, kind, flags, seq, family, resource, body);
        self.batch.tags.push(tag);
    }
}

impl Expr {
    fn write(&self, b: &mut Vec<u8>) {
        match self {
            Expr::Meta(key) => expression(b, "meta", &[(1, REGISTER), (2, *key as u32)], |_| {}),
            Expr::CtState => expression(b, "ct", &[(1, REGISTER), (2, 0)], |_| {}),
            Expr::CtStatus => expression(b, "ct", &[(1, REGISTER), (2, 2)], |_| {}),
            Expr::Load(header, offset, length) => {
                expression(b, "payload", &[(1, REGISTER), (2, *header as u32), (3, *offset), (4, *length)], |_| {});
            }
            Expr::Mask(mask) => expression(b, "bitwise", &[(1, REGISTER), (2, REGISTER), (3, 4)], |b| {
                data(b, 4, &mask.to_ne_bytes());
                data(b, 5, &[0; 4]);
            }),
            Expr::Equals(value) => expression(b, "cmp", &[(1, REGISTER), (2, 0)], |b| data(b, 3, value)),
            Expr::Differs(value) => expression(b, "cmp", &[(1, REGISTER), (2, 1)], |b| data(b, 3, value)),
            Expr::Within(from, to) => expression(b, "range", &[(1, REGISTER), (2, 0)], |b| {
                data(b, 3, from);
                data(b, 4, to);
            }),
            Expr::InSet(name) => expression(b, "lookup", &[(2, REGISTER)], |b| string(b, 1, name)),
            Expr::Set(value) => expression(b, "immediate", &[(1, REGISTER)], |b| data(b, 2, value)),
            Expr::StorePort(offset, checksum) => {
                const INTERNET_CHECKSUM: u32 = 1;
                let fields = [
                    (5, REGISTER),
                    (2, Header::Transport as u32),
                    (3, *offset),
                    (4, 2),
                    (6, INTERNET_CHECKSUM),
                    (7, *checksum),
                ];
                expression(b, "payload", &fields, |_| {});
            }
            Expr::Dnat(ip, port) => {
                const DESTINATION: u32 = 1;
                let (family, address) = match ip {
                    IpAddr::V4(ip) => (libc::AF_INET, ip.octets().to_vec()),
                    IpAddr::V6(ip) => (libc::AF_INET6, ip.octets().to_vec()),
                };
                Expr::Set(address).write(b);
                expression(b, "immediate", &[(1, SECOND_REGISTER)], |b| data(b, 2, &port.to_be_bytes()));
                let fields = [(1, DESTINATION), (2, family as u32), (3, REGISTER), (5, SECOND_REGISTER)];
                expression(b, "nat", &fields, |_| {});
            }
            Expr::Counter => expression(b, "counter", &[], |_| {}),
            Expr::Accept => expression(b, "immediate", &[(1, VERDICT)], |b| {
                nest(b, 2, |b| nest(b, 2, |b| number(b, 1, ACCEPT)));
            }),
            Expr::Reject => expression(b, "reject", &[(1, REJECT_ICMPX)], |b| attr(b, 2, &[ICMPX_ADMIN_PROHIBITED])),
        }
    }
}

fn expression(b: &mut Vec<u8>, name: &str, numbers: &[(u16, u32)], rest: impl FnOnce(&mut Vec<u8>)) {
    nest(b, 1, |b| {
        string(b, 1, name);
        nest(b, 2, |b| {
            numbers.iter().for_each(|(kind, value)| number(b, *kind, *value));
            rest(b);
        });
    });
}

fn data(b: &mut Vec<u8>, kind: u16, value: &[u8]) {
    nest(b, kind, |b| attr(b, 1, value));
}

fn number(b: &mut Vec<u8>, kind: u16, value: u32) {
    attr(b, kind, &value.to_be_bytes());
}

fn comment(tag: u8, text: &str) -> Vec<u8> {
    let mut end = text.len().min(COMMENT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    [&[tag, end as u8 + 1], &text.as_bytes()[..end], &[0]].concat()
}
