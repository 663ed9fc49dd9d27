//! The records of somebody's reply, as far as a cache and an egress policy must understand them.
//!
//! Names are skipped, never followed: a pointer ends a name, so loops of them cost nothing.

use super::message::{A, AAAA, CLASS_IN, HEADER, OPT, u16_at};
use std::net::IpAddr;
use std::time::Duration;

const SOA: u16 = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    Answer,
    Authority,
    Additional,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Record<'a> {
    pub section: Section,
    pub kind: u16,
    pub class: u16,
    pub ttl: u32,
    /// Where in the message its time to live is.
    pub ttl_at: usize,
    pub data: &'a [u8],
}

impl Record<'_> {
    /// OPT is no record of anybody's: what would be its time to live are flags.
    pub fn is_real(&self) -> bool {
        self.kind != OPT
    }

    pub fn address(&self) -> Option<IpAddr> {
        match (self.class, self.kind) {
            (CLASS_IN, A) => <[u8; 4]>::try_from(self.data).ok().map(IpAddr::from),
            (CLASS_IN, AAAA) => <[u8; 16]>::try_from(self.data).ok().map(IpAddr::from),
            _ => None,
        }
    }

    /// How long "there is nothing" may be believed (RFC 2308 §5).
    pub fn negative_ttl(&self) -> Option<u32> {
        let minimum = self.data.len().checked_sub(4).and_then(|at| self.data.get(at..))?;
        let minimum = u32::from_be_bytes(minimum.try_into().ok()?);
        (self.kind == SOA && self.section == Section::Authority).then(|| self.ttl.min(minimum))
    }
}

/// All of them, in order; `None` when the message is cut or malformed.
pub fn records(reply: &[u8]) -> Option<Vec<Record<'_>>> {
    let mut at = HEADER;
    for _ in 0..u16_at(reply, 4)? {
        at = after_name(reply, at)? + 4;
    }
    let mut all = Vec::new();
    for (section, count) in [(Section::Answer, 6), (Section::Authority, 8), (Section::Additional, 10)] {
        for _ in 0..u16_at(reply, count)? {
            at = after_name(reply, at)?;
            let (kind, class, length) = (u16_at(reply, at)?, u16_at(reply, at + 2)?, u16_at(reply, at + 8)?);
            let ttl = u32::from_be_bytes(reply.get(at + 4..at + 8)?.try_into().ok()?);
            let data = reply.get(at + 10..at + 10 + usize::from(length))?;
            // A value with the highest bit set means zero (RFC 2181 §8).
            let ttl = if ttl > i32::MAX as u32 { 0 } else { ttl };
            all.push(Record { section, kind, class, ttl, ttl_at: at + 4, data });
            at += 10 + usize::from(length);
        }
    }
    Some(all)
}

/// The addresses in the answer, with how long they are good.
pub fn addresses(reply: &[u8]) -> Vec<(IpAddr, Duration)> {
    let all = records(reply).unwrap_or_default();
    let answers = all.iter().filter(|r| r.section == Section::Answer);
    answers.filter_map(|r| Some((r.address()?, Duration::from_secs(r.ttl.into())))).collect()
}

fn after_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match usize::from(*message.get(at)?) {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + length,
            0xc0.. => return Some(at + 2),
            _ => return None,
        }
    }
}
