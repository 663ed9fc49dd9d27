//! What servers outside have answered lately, for as long as they said it would hold.

use super::message::{self, NOERROR, NXDOMAIN, Query};
use super::records::{Section, records};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Answers kept at once: the names of a busy program, not of a network.
const MOST: usize = 512;
/// Larger answers are not worth the memory of a monitor.
const LARGEST: usize = 2048;
/// However long the answer says.
const LONGEST: u32 = 24 * 3600;
/// "There is no such name" is believed for no longer than this (RFC 2308 §5: one to three hours).
const LONGEST_NEGATIVE: u32 = 3600;

#[derive(Debug)]
struct Entry {
    reply: Box<[u8]>,
    /// Where its times to live are.
    ttls: Box<[u16]>,
    stored: Instant,
    until: Instant,
}

#[derive(Debug, Default)]
pub struct Cache {
    entries: HashMap<Vec<u8>, Entry>,
}

impl Cache {
    /// The answer as it would come now: for this client, and as much closer to its end.
    pub fn get(&self, query: &Query, now: Instant) -> Option<Vec<u8>> {
        if self.entries.is_empty() {
            return None;
        }
        let entry = self.entries.get(&query.cache_key()?).filter(|e| e.until > now)?;
        let mut reply = entry.reply.to_vec();
        query.readdress(&mut reply);
        let age = u32::try_from((now - entry.stored).as_secs()).unwrap_or(u32::MAX);
        for at in entry.ttls.iter().map(|at| usize::from(*at)) {
            if let Some(ttl) = reply.get_mut(at..at + 4) {
                let left = u32::from_be_bytes([ttl[0], ttl[1], ttl[2], ttl[3]]).saturating_sub(age);
                ttl.copy_from_slice(&left.to_be_bytes());
            }
        }
        Some(reply)
    }

    /// Keeps an answer, if it says how long it holds.
    pub fn put(&mut self, query: &Query, reply: &[u8], now: Instant) {
        let Some(key) = query.cache_key() else { return };
        let Some((ttl, ttls)) = holds(reply).filter(|_| reply.len() <= LARGEST) else { return };
        if self.entries.len() >= MOST && !self.entries.contains_key(&key) {
            self.entries.retain(|_, e| e.until > now);
            // Still full: the one that would leave first does.
            if self.entries.len() >= MOST
                && let Some(first) = self.entries.iter().min_by_key(|(_, e)| e.until).map(|(key, _)| key.clone())
            {
                self.entries.remove(&first);
            }
        }
        let until = now + Duration::from_secs(ttl.into());
        self.entries.insert(key, Entry { reply: reply.into(), ttls, stored: now, until });
    }

    /// Other servers may say otherwise.
    pub fn clear(&mut self) {
        self.entries = HashMap::new();
    }
}

/// For how many seconds an answer may be repeated, and where the numbers are that count down.
fn holds(reply: &[u8]) -> Option<(u32, Box<[u16]>)> {
    let code = message::response_code(reply);
    if !matches!(code, NOERROR | NXDOMAIN) || message::is_truncated(reply) {
        return None;
    }
    let records = records(reply)?;
    let answers = || records.iter().filter(|r| r.section == Section::Answer);
    let negative = records.iter().find_map(|r| r.negative_ttl()).map(|ttl| ttl.min(LONGEST_NEGATIVE));
    let ttl = match answers().map(|r| r.ttl).min() {
        Some(ttl) if code == NOERROR => negative.map_or(ttl, |n| n.min(ttl)),
        Some(ttl) => negative?.min(ttl),
        None => negative?,
    };
    let real = records.iter().filter(|r| r.is_real());
    let ttls = real.map(|r| u16::try_from(r.ttl_at).ok()).collect::<Option<Vec<u16>>>()?;
    (ttl > 0).then(|| (ttl.min(LONGEST), ttls.into()))
}

#[cfg(test)]
mod tests {
    use super::super::message::{Incoming, parse};
    use super::*;
    use simple_dns::rdata::{A, RData, SOA};
    use simple_dns::{CLASS, Name, Packet, QTYPE, Question, RCODE, ResourceRecord, TYPE};

    fn question(id: u16, name: &str, edns: bool) -> Vec<u8> {
        let mut packet = Packet::new_query(id);
        packet.questions.push(Question::new(Name::new(name).unwrap(), QTYPE::TYPE(TYPE::A), CLASS::IN.into(), false));
        if edns {
            *packet.opt_mut() = Some(simple_dns::rdata::OPT { opt_codes: vec![], udp_packet_size: 1232, version: 0 });
        }
        packet.build_bytes_vec().unwrap()
    }

    fn query(raw: &[u8]) -> Query<'_> {
        match parse(raw) {
            Incoming::Query(q) => q,
            other => panic!("{other:?}"),
        }
    }

    fn answer(question: &[u8], rcode: RCODE, ttls: &[u32], soa: Option<(u32, u32)>) -> Vec<u8> {
        let asked = Packet::parse(question).unwrap();
        let mut reply = Packet::new_reply(asked.id());
        let name = asked.questions[0].qname.clone();
        reply.questions = asked.questions.clone();
        *reply.rcode_mut() = rcode;
        for ttl in ttls {
            let data = RData::A(A { address: 0x0a00_0001 });
            reply.answers.push(ResourceRecord::new(name.clone(), CLASS::IN, *ttl, data));
        }
        if let Some((ttl, minimum)) = soa {
            let name = || Name::new("ns.test").unwrap();
            let data = SOA { mname: name(), rname: name(), serial: 1, refresh: 9, retry: 9, expire: 9, minimum };
            reply.name_servers.push(ResourceRecord::new(name(), CLASS::IN, ttl, RData::SOA(data)));
        }
        reply.build_bytes_vec_compressed().unwrap()
    }

    fn first_ttl(reply: &[u8]) -> u32 {
        records(reply).unwrap()[0].ttl
    }

    #[test]
    fn an_answer_counts_down_and_ends() {
        let (mut cache, begin) = (Cache::default(), Instant::now());
        let asked = question(1, "Example.org", false);
        cache.put(&query(&asked), &answer(&asked, RCODE::NoError, &[30, 90], None), begin);
        let again = question(2, "exAMPLE.org", false);
        let later = begin + Duration::from_secs(10);
        let reply = cache.get(&query(&again), later).unwrap();
        assert!(query(&again).is_answered_by(&reply), "another number, another spelling");
        assert_eq!(&reply[12..again.len()], &again[12..], "spelt as asked");
        assert_eq!(records(&reply).unwrap().iter().map(|r| r.ttl).collect::<Vec<_>>(), [20, 80]);
        assert_eq!(cache.get(&query(&again), begin + Duration::from_secs(30)), None, "the shortest counts");
        let edns = question(3, "example.org", true);
        assert_eq!(cache.get(&query(&edns), later), None, "another kind of answer is wanted");
    }

    #[test]
    fn what_is_not_there_is_remembered_as_its_zone_says() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        let at = |seconds| now + Duration::from_secs(seconds);
        for (name, rcode) in [("none.test", RCODE::NameError), ("empty.test", RCODE::NoError)] {
            let asked = question(1, name, false);
            cache.put(&query(&asked), &answer(&asked, rcode, &[], None), now);
            assert_eq!(cache.get(&query(&asked), now), None, "nothing says how long: not at all");
            cache.put(&query(&asked), &answer(&asked, rcode, &[], Some((900, 40))), now);
            assert!(cache.get(&query(&asked), at(39)).is_some());
            assert_eq!(cache.get(&query(&asked), at(40)), None);
        }
    }

    #[test]
    fn what_may_not_be_kept_is_not() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        let asked = question(1, "example.org", false);
        let good = answer(&asked, RCODE::NoError, &[30], None);
        let mut truncated = good.clone();
        truncated[2] |= 2;
        let cut = good[..good.len() - 1].to_vec();
        for reply in [
            answer(&asked, RCODE::NoError, &[0], None),
            answer(&asked, RCODE::NoError, &[u32::MAX], None),
            answer(&asked, RCODE::ServerFailure, &[30], None),
            truncated,
            cut,
        ] {
            cache.put(&query(&asked), &reply, now);
            assert_eq!(cache.get(&query(&asked), now), None);
        }
        cache.put(&query(&asked), &good, now);
        assert_eq!(first_ttl(&cache.get(&query(&asked), now).unwrap()), 30);
    }

    #[test]
    fn it_does_not_grow() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        for i in 0..2 * MOST as u32 {
            let asked = question(1, &format!("n{i}.test"), false);
            cache.put(&query(&asked), &answer(&asked, RCODE::NoError, &[100 + i], None), now);
        }
        assert_eq!(cache.entries.len(), MOST);
        let newest = question(1, &format!("n{}.test", 2 * MOST - 1), false);
        assert!(cache.get(&query(&newest), now).is_some());
        cache.clear();
        assert_eq!(cache.get(&query(&newest), now), None);
    }
}
