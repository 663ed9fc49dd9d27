//! Elements of nftables maps and sets, written and asked for without the `nft` program.
//!
//! Starting `nft` costs 2.5 to 7 ms; an element costs some ten microseconds. The messages are those
//! of `linux/netfilter/nf_tables.h`: attributes in network byte order, one transaction between a
//! begin and an end message.

use super::socket::{Batch, Failure, Socket};
use plan::Result;
use std::borrow::Cow;
use std::time::Duration;

const NFNL_SUBSYS_NFTABLES: u16 = 10 << 8;
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NFT_MSG_NEWSETELEM: u16 = NFNL_SUBSYS_NFTABLES | 12;
const NFT_MSG_GETSETELEM: u16 = NFNL_SUBSYS_NFTABLES | 13;
const NFT_MSG_DELSETELEM: u16 = NFNL_SUBSYS_NFTABLES | 14;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_CREATE: u16 = 0x400;
const NLA_F_NESTED: u16 = 0x8000;
const NFPROTO_INET: u8 = 1;
const NFT_SET_ELEM_INTERVAL_END: u32 = 1;
/// The attribute holding the elements has a 16-bit length: at most about 64 KiB a message.
const MAX_MESSAGE: usize = 48 * 1024;

/// An element in the kernel's form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elem {
    pub set: Cow<'static, str>,
    /// Every field padded to four bytes.
    pub key: Vec<u8>,
    /// The inclusive upper bound, in interval sets.
    pub end: Option<Vec<u8>>,
    /// The key is one field, not a concatenation: the kernel keeps intervals of those as two
    /// elements, the second of which says "no longer from here".
    pub single_field: bool,
    /// What a map answers.
    pub data: Option<Vec<u8>>,
    pub counter: bool,
    /// When it leaves by itself, in sets whose elements do.
    pub timeout: Option<Duration>,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Verb {
    Add,
    Delete,
    Get,
}

/// A transaction on elements of table `inet <table>`: all of it happens, or none.
pub struct NftBatch {
    batch: Batch,
    table: &'static str,
}

impl NftBatch {
    pub fn new(table: &'static str) -> NftBatch {
        let mut batch = Batch::new();
        message(&mut batch.buf, NFNL_MSG_BATCH_BEGIN, 0, 0, 0, NFNL_SUBSYS_NFTABLES >> 8, |_| {});
        batch.tags.push(None);
        NftBatch { batch, table }
    }

    /// Adds elements; one that is already there with the same value is fine, with another value
    /// the transaction fails with EEXIST.
    pub fn add(&mut self, tag: usize, elems: &[Elem]) {
        self.push(Verb::Add, tag, elems);
    }

    /// Deletes elements; the transaction fails with ENOENT when one is not there.
    pub fn delete(&mut self, tag: usize, elems: &[Elem]) {
        self.push(Verb::Delete, tag, elems);
    }

    fn push(&mut self, verb: Verb, tag: usize, elems: &[Elem]) {
        let mut rest = elems;
        while let Some(first) = rest.first() {
            // As many of the same set as fit in one message.
            let mut size = 0;
            let n = rest
                .iter()
                .take_while(|e| {
                    size += 160 + 4 * e.key.len();
                    e.set == first.set && size <= MAX_MESSAGE
                })
                .count()
                .max(1);
            elements_message(&mut self.batch.buf, verb, self.batch.tags.len() as u32, self.table, &rest[..n]);
            self.batch.tags.push(Some(tag));
            rest = &rest[n..];
        }
    }

    /// Sends it. The inner error is the first refused message's.
    pub fn commit(mut self, socket: &mut Socket) -> Result<std::result::Result<(), Failure>> {
        if self.batch.tags.len() == 1 {
            return Ok(Ok(()));
        }
        let seq = self.batch.tags.len() as u32;
        message(&mut self.batch.buf, NFNL_MSG_BATCH_END, 0, seq, 0, NFNL_SUBSYS_NFTABLES >> 8, |_| {});
        self.batch.tags.push(None);
        socket.run(self.batch)
    }
}

impl Socket {
    /// Is this element in the kernel? The errno otherwise: ENOENT when the element, its set or the
    /// whole table is missing, EPERM without the privilege to ask.
    pub fn has_element(&mut self, table: &'static str, elem: &Elem) -> Result<std::result::Result<(), i32>> {
        let [answer] = self.have_elements(table, [elem])?;
        Ok(answer)
    }

    /// As [`Socket::has_element`], of several, in one question.
    pub fn have_elements<const N: usize>(
        &mut self,
        table: &'static str,
        elems: [&Elem; N],
    ) -> Result<[std::result::Result<(), i32>; N]> {
        let mut buf = Vec::with_capacity(128 * N);
        for elem in elems {
            elements_message(&mut buf, Verb::Get, 0, table, std::slice::from_ref(elem));
        }
        let mut answers = self.ask_all(buf, N)?.into_iter();
        Ok(std::array::from_fn(|_| answers.next().unwrap_or(Err(libc::ENODATA)).map(drop)))
    }
}

pub(super) fn elements_message(buf: &mut Vec<u8>, verb: Verb, seq: u32, table: &str, elems: &[Elem]) {
    let (kind, flags) = match verb {
        Verb::Add => (NFT_MSG_NEWSETELEM, NLM_F_CREATE),
        Verb::Delete => (NFT_MSG_DELSETELEM, 0),
        Verb::Get => (NFT_MSG_GETSETELEM, 0),
    };
    message(buf, kind, flags, seq, NFPROTO_INET, 0, |buf| {
        string(buf, 1, table);
        string(buf, 2, &elems[0].set);
        nest(buf, 3, |buf| {
            for e in elems {
                element(buf, verb, e);
            }
        });
    });
}

/// One element, or the two that make an interval of a single field.
fn element(buf: &mut Vec<u8>, verb: Verb, e: &Elem) {
    nest(buf, 1, |buf| {
        nest(buf, 1, |buf| attr(buf, 1, &e.key));
        if let (Some(end), false) = (&e.end, e.single_field) {
            nest(buf, 10, |buf| attr(buf, 1, end));
        }
        if verb != Verb::Add {
            return;
        }
        if let Some(bytes) = &e.data {
            nest(buf, 2, |buf| attr(buf, 1, bytes));
        }
        if let Some(timeout) = e.timeout {
            let milliseconds = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
            attr(buf, 4, &milliseconds.to_be_bytes());
        }
        if e.counter {
            nest(buf, 7, |buf| {
                string(buf, 1, "counter");
                nest(buf, 2, |_| {});
            });
        }
    });
    if let (Some(end), true) = (&e.end, e.single_field)
        && verb != Verb::Get
        && let Some(after) = successor(end)
    {
        nest(buf, 1, |buf| {
            attr(buf, 3, &NFT_SET_ELEM_INTERVAL_END.to_be_bytes());
            nest(buf, 1, |buf| attr(buf, 1, &after));
        });
    }
}

/// The next key; none after the last.
fn successor(key: &[u8]) -> Option<Vec<u8>> {
    let mut next = key.to_vec();
    for b in next.iter_mut().rev() {
        let (sum, carry) = b.overflowing_add(1);
        *b = sum;
        if !carry {
            return Some(next);
        }
    }
    None
}

/// A netlink header, an nfnetlink header (`family`, version 0, `resource`) and what `body` adds.
pub(super) fn message(
    buf: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    seq: u32,
    family: u8,
    resource: u16,
    body: impl FnOnce(&mut Vec<u8>),
) {
    let start = buf.len();
    buf.extend_from_slice(&0u32.to_ne_bytes());
    buf.extend_from_slice(&kind.to_ne_bytes());
    buf.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
    buf.extend_from_slice(&seq.to_ne_bytes());
    buf.extend_from_slice(&0u32.to_ne_bytes());
    buf.extend_from_slice(&[family, 0]);
    buf.extend_from_slice(&resource.to_be_bytes());
    body(buf);
    let len = (buf.len() - start) as u32;
    buf[start..start + 4].copy_from_slice(&len.to_ne_bytes());
}

pub(super) fn attr(buf: &mut Vec<u8>, kind: u16, value: &[u8]) {
    buf.extend_from_slice(&((value.len() + 4) as u16).to_ne_bytes());
    buf.extend_from_slice(&kind.to_ne_bytes());
    buf.extend_from_slice(value);
    while !buf.len().is_multiple_of(4) {
        buf.push(0);
    }
}

pub(super) fn string(buf: &mut Vec<u8>, kind: u16, value: &str) {
    let mut bytes = value.as_bytes().to_vec();
    bytes.push(0);
    attr(buf, kind, &bytes);
}

pub(super) fn nest(buf: &mut Vec<u8>, kind: u16, body: impl FnOnce(&mut Vec<u8>)) {
    let start = buf.len();
    buf.extend_from_slice(&[0, 0]);
    buf.extend_from_slice(&(kind | NLA_F_NESTED).to_ne_bytes());
    body(buf);
    let len = (buf.len() - start) as u16;
    buf[start..start + 2].copy_from_slice(&len.to_ne_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn successors_carry_and_end() {
        assert_eq!(successor(&[10, 1, 255, 255]), Some(vec![10, 2, 0, 0]));
        assert_eq!(successor(&[255, 255]), None);
    }

    #[test]
    fn many_elements_are_split_into_messages_that_fit() {
        let elem = |i: u16| Elem {
            set: "s".into(),
            key: i.to_be_bytes().to_vec(),
            end: None,
            single_field: true,
            data: Some(vec![1, 2, 3, 4]),
            counter: true,
            timeout: None,
        };
        let elems: Vec<Elem> = (0..5000).map(elem).collect();
        let mut batch = NftBatch::new("t");
        batch.add(7, &elems);
        let mut at = 0;
        let mut messages = 0;
        while at < batch.batch.buf.len() {
            let len = super::super::socket::read_u32(&batch.batch.buf, at) as usize;
            assert!(len < 65536);
            at += len;
            messages += 1;
        }
        assert_eq!(at, batch.batch.buf.len());
        assert_eq!(messages, batch.batch.tags.len());
        assert!(messages > 10);
    }
}
