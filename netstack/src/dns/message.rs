//! DNS messages, as far as a stub's server needs them: one question in, address and name records
//! out (RFC 1035, EDNS per RFC 6891).
//!
//! Our own few lines and not the `simple-dns` crate (which checks them in the tests), because a
//! server must forward what it does not know: that parser refuses a query of an unknown type, and
//! reserves memory for as many records as a header claims, and misreads the version in OPT. A
//! question is at offset 12 and uncompressed, so compression loops cannot even be written down.

use std::net::IpAddr;

pub const A: u16 = 1;
pub const PTR: u16 = 12;
pub const AAAA: u16 = 28;
pub const ANY: u16 = 255;
pub const SRV: u16 = 33;
pub const OPT: u16 = 41;
pub const CLASS_IN: u16 = 1;

/// Response codes.
pub const NOERROR: u8 = 0;
pub const FORMERR: u8 = 1;
pub const SERVFAIL: u8 = 2;
pub const NXDOMAIN: u8 = 3;
pub const NOTIMP: u8 = 4;
pub const REFUSED: u8 = 5;
/// Extended (EDNS): its upper bits travel in the OPT record.
const BADVERS: u16 = 16;

pub const HEADER: usize = 12;
const MAX_NAME: usize = 255;
/// What a client without EDNS can take by UDP.
const PLAIN_UDP: usize = 512;
/// What we announce and never exceed by UDP ourselves.
const OUR_UDP: u16 = 4096;
/// Seconds. Addresses are reused lowest first, so nobody may keep one for long; one second spares
/// a busy client some questions.
const TTL: u32 = 1;

const FLAG_RESPONSE: u8 = 0x80;
const FLAG_TRUNCATED: u8 = 0x02;
const FLAG_RECURSION_DESIRED: u8 = 0x01;
const FLAG_RECURSION_AVAILABLE: u8 = 0x80;
/// Authentic data, checking disabled: what a validating client adds.
const FLAGS_DNSSEC: u8 = 0x30;

/// One well-formed question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query<'a> {
    pub raw: &'a [u8],
    /// Lower case, labels joined by dots, without the final one. `None` when a label holds bytes
    /// that cannot be part of any name of ours.
    pub name: Option<Vec<u8>>,
    pub kind: u16,
    pub class: u16,
    /// Just behind the question.
    end: usize,
    edns: Option<Edns>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Edns {
    size: u16,
    version: u8,
    dnssec_ok: bool,
    /// No options in it, and no other record beside it.
    bare: bool,
}

/// What arrived.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    Query(Query<'a>),
    /// To be answered with this error.
    Broken(Vec<u8>),
    /// Not a question at all: never answered, lest two servers talk to each other for ever.
    Noise,
}

pub fn parse(raw: &[u8]) -> Incoming<'_> {
    if raw.len() < HEADER || raw[2] & FLAG_RESPONSE != 0 {
        return Incoming::Noise;
    }
    if raw[2] & 0x78 != 0 {
        return Incoming::Broken(header(raw, NOTIMP));
    }
    match question(raw) {
        Some(query) => Incoming::Query(query),
        None => Incoming::Broken(header(raw, FORMERR)),
    }
}

fn question(raw: &[u8]) -> Option<Query<'_>> {
    if u16_at(raw, 4)? != 1 {
        return None;
    }
    let mut name = Some(Vec::with_capacity(64));
    let mut at = HEADER;
    loop {
        let length = usize::from(*raw.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        // 64 and above: a compression pointer (or worse), which a question has no use for.
        if length > 63 || at + length - HEADER >= MAX_NAME {
            return None;
        }
        let label = raw.get(at..at + length)?;
        at += length;
        match &mut name {
            Some(name) if label.iter().all(|b| b.is_ascii_graphic() && *b != b'.') => {
                if !name.is_empty() {
                    name.push(b'.');
                }
                name.extend(label.iter().map(u8::to_ascii_lowercase));
            }
            _ => name = None,
        }
    }
    let (kind, class) = (u16_at(raw, at)?, u16_at(raw, at + 2)?);
    let end = at + 4;
    Some(Query { raw, name, kind, class, end, edns: edns(raw, end)? })
}

/// The OPT record of a query that has nothing else behind its question. `None`: malformed.
fn edns(raw: &[u8], mut at: usize) -> Option<Option<Edns>> {
    // With answers or authority records (a dynamic update, a notify…) it is not for us to read.
    if u16_at(raw, 6)? != 0 || u16_at(raw, 8)? != 0 {
        return Some(None);
    }
    for _ in 0..u16_at(raw, 10)? {
        // Only records of the root name can be OPT; another one (TSIG, say) ends the search.
        if *raw.get(at)? != 0 {
            return Some(None);
        }
        let (kind, size) = (u16_at(raw, at + 1)?, u16_at(raw, at + 3)?);
        let (version, length) = (*raw.get(at + 6)?, usize::from(u16_at(raw, at + 9)?));
        raw.get(at + 11..at + 11 + length)?;
        if kind == OPT {
            let (dnssec_ok, bare) = (raw.get(at + 7)? & 0x80 != 0, length == 0 && raw.len() == at + 11);
            return Some(Some(Edns { size, version, dnssec_ok, bare }));
        }
        at += 11 + length;
    }
    Some(None)
}

impl<'a> Query<'a> {
    /// What the client can take by UDP.
    fn udp_size(&self) -> usize {
        self.edns.map_or(PLAIN_UDP, |e| usize::from(e.size.min(OUR_UDP)).max(PLAIN_UDP))
    }

    /// What answers to this and like questions have in common; `None` for a question whose answer
    /// is for this client only (cookies, client subnets, signatures).
    pub fn cache_key(&self) -> Option<Vec<u8>> {
        let bare = match self.edns {
            Some(edns) => edns.bare,
            None => self.raw.len() == self.end,
        };
        let flags = self.raw[2] & FLAG_RECURSION_DESIRED
            | self.raw[3] & FLAGS_DNSSEC
            | self.edns.map_or(0, |e| 0x40 | u8::from(e.dnssec_ok) << 7);
        bare.then(|| {
            let (name, kind_and_class) = self.raw[HEADER..self.end].split_at(self.end - 4 - HEADER);
            [&[flags], &name.to_ascii_lowercase()[..], kind_and_class].concat()
        })
    }

    /// Makes an earlier answer to a like question the answer to this one.
    pub fn readdress(&self, reply: &mut [u8]) {
        reply[..2].copy_from_slice(&self.raw[..2]);
        // A client may spell the name its own way, and look whether the answer does too.
        if u16_at(reply, 4) == Some(1)
            && let Some(question) = reply.get_mut(HEADER..self.end)
        {
            question.copy_from_slice(&self.raw[HEADER..self.end]);
        }
    }

    /// "Ask by TCP", if that is what it takes to bring `reply` to the client.
    pub fn fitted(&self, reply: Vec<u8>, udp: bool) -> Vec<u8> {
        if !udp || reply.len() <= self.udp_size() {
            return reply;
        }
        let mut short = self.start(response_code(&reply));
        short[2] |= FLAG_TRUNCATED;
        self.finish(&mut short, 0);
        short
    }

    /// Is `reply` a response to this very question? Servers that refuse may leave the question out.
    pub fn is_answered_by(&self, reply: &[u8]) -> bool {
        let name = self.end - 4 - HEADER;
        let own = &self.raw[HEADER..self.end];
        let same = |q: &[u8]| q[..name].eq_ignore_ascii_case(&own[..name]) && q[name..] == own[name..];
        reply.len() >= HEADER
            && reply[..2] == self.raw[..2]
            && reply[2] & FLAG_RESPONSE != 0
            && match u16_at(reply, 4) {
                Some(0) => response_code(reply) != NOERROR,
                Some(1) => reply.get(HEADER..self.end).is_some_and(same),
                _ => false,
            }
    }

    /// A client that speaks a later EDNS than version 0 is told so before anything else.
    pub fn bad_version(&self) -> Option<Vec<u8>> {
        self.edns.filter(|e| e.version != 0).map(|_| {
            let mut reply = self.start(BADVERS as u8 & 0x0f);
            self.finish(&mut reply, BADVERS >> 4);
            reply
        })
    }

    /// A response without records.
    pub fn empty(&self, rcode: u8) -> Vec<u8> {
        let mut reply = self.start(rcode);
        self.finish(&mut reply, 0);
        reply
    }

    /// Address records. By UDP, those that the client can take, marked as truncated when there are
    /// more.
    pub fn addresses(&self, addresses: impl Iterator<Item = IpAddr>, udp: bool) -> Vec<u8> {
        let limit = if udp { self.udp_size() } else { usize::from(u16::MAX) };
        let limit = limit - if self.edns.is_some() { 11 } else { 0 };
        let mut reply = self.start(NOERROR);
        let mut count: u16 = 0;
        for address in addresses {
            let before = reply.len();
            match address {
                IpAddr::V4(ip) => record(&mut reply, A, &ip.octets()),
                IpAddr::V6(ip) => record(&mut reply, AAAA, &ip.octets()),
            }
            if reply.len() > limit {
                reply.truncate(before);
                reply[2] |= FLAG_TRUNCATED;
                break;
            }
            count += 1;
        }
        reply[6..8].copy_from_slice(&count.to_be_bytes());
        self.finish(&mut reply, 0);
        reply
    }

    /// One PTR record.
    pub fn pointer(&self, name: &str) -> Vec<u8> {
        self.single(PTR, &wire(name))
    }

    /// One SRV record: `port` at `name`, first choice (RFC 2782; its name is never compressed).
    pub fn service(&self, name: &str, port: u16) -> Vec<u8> {
        let mut data = vec![0, 0, 0, 0];
        data.extend_from_slice(&port.to_be_bytes());
        data.extend_from_slice(&wire(name));
        self.single(SRV, &data)
    }

    fn single(&self, kind: u16, data: &[u8]) -> Vec<u8> {
        let mut reply = self.start(NOERROR);
        record(&mut reply, kind, data);
        reply[7] = 1;
        self.finish(&mut reply, 0);
        reply
    }

    fn start(&self, rcode: u8) -> Vec<u8> {
        let mut reply = Vec::with_capacity(self.end + 64);
        reply.extend_from_slice(&header(self.raw, rcode));
        reply[5] = 1;
        reply.extend_from_slice(&self.raw[HEADER..self.end]);
        reply
    }

    /// A client that used EDNS gets an OPT record back (RFC 6891 §6.1.1).
    fn finish(&self, reply: &mut Vec<u8>, extended_rcode: u16) {
        if self.edns.is_some() {
            let [size_high, size_low] = OUR_UDP.to_be_bytes();
            reply.extend_from_slice(&[0, 0, OPT as u8, size_high, size_low, extended_rcode as u8, 0, 0, 0, 0, 0]);
            reply[11] = 1;
        }
    }
}

/// A name as labels; each is shorter than 64 bytes.
fn wire(name: &str) -> Vec<u8> {
    let mut labels = Vec::with_capacity(name.len() + 2);
    for label in name.split('.') {
        labels.push(label.len() as u8);
        labels.extend_from_slice(label.as_bytes());
    }
    labels.push(0);
    labels
}

pub fn is_truncated(reply: &[u8]) -> bool {
    reply.get(2).is_some_and(|b| b & FLAG_TRUNCATED != 0)
}

/// The response code of somebody's reply.
pub fn response_code(reply: &[u8]) -> u8 {
    reply.get(3).map_or(SERVFAIL, |b| b & 0x0f)
}

/// A response header with no sections.
fn header(query: &[u8], rcode: u8) -> Vec<u8> {
    let flags = FLAG_RESPONSE | query[2] & FLAG_RECURSION_DESIRED;
    vec![query[0], query[1], flags, FLAG_RECURSION_AVAILABLE | rcode, 0, 0, 0, 0, 0, 0, 0, 0]
}

/// A record of the name in question: a pointer to offset 12.
fn record(reply: &mut Vec<u8>, kind: u16, data: &[u8]) {
    reply.extend_from_slice(&[0xc0, HEADER as u8]);
    reply.extend_from_slice(&kind.to_be_bytes());
    reply.extend_from_slice(&CLASS_IN.to_be_bytes());
    reply.extend_from_slice(&TTL.to_be_bytes());
    reply.extend_from_slice(&(data.len() as u16).to_be_bytes());
    reply.extend_from_slice(data);
}

pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// The address in `4.3.2.1.in-addr.arpa` or the 32 nibbles of `….ip6.arpa`.
pub fn reverse_name(name: &[u8]) -> Option<IpAddr> {
    let name = std::str::from_utf8(name).ok()?;
    if let Some(labels) = name.strip_suffix(".in-addr.arpa") {
        let mut octets = [0u8; 4];
        let mut count = 0;
        for label in labels.split('.') {
            *octets.get_mut(3usize.checked_sub(count)?)? = label.parse().ok()?;
            count += 1;
        }
        return (count == 4).then(|| IpAddr::from(octets));
    }
    let labels = name.strip_suffix(".ip6.arpa")?;
    let mut address: u128 = 0;
    let mut count = 0;
    for label in labels.split('.') {
        let nibble = u128::from_str_radix(label, 16).ok().filter(|_| label.len() == 1)?;
        address = address >> 4 | nibble << 124;
        count += 1;
    }
    (count == 32).then(|| IpAddr::from(address.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use simple_dns::rdata::RData;
    use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, Question, RCODE, TYPE};

    fn query(name: &str, kind: TYPE, edns: Option<u16>) -> Vec<u8> {
        let mut packet = Packet::new_query(0x1234);
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
        let name = Name::new(name).expect("a name");
        packet.questions.push(Question::new(name, QTYPE::TYPE(kind), CLASS::IN.into(), false));
        *packet.opt_mut() =
            edns.map(|size| simple_dns::rdata::OPT { opt_codes: vec![], udp_packet_size: size, version: 0 });
        packet.build_bytes_vec().expect("a packet")
    }

    fn parsed(raw: &[u8]) -> Query<'_> {
        match parse(raw) {
            Incoming::Query(q) => q,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_question_as_another_implementation_writes_it() {
        let raw = query("Web.My-Net", TYPE::AAAA, Some(1232));
        let q = parsed(&raw);
        assert_eq!(q.name.as_deref(), Some(&b"web.my-net"[..]));
        assert_eq!((q.kind, q.class, q.udp_size()), (AAAA, 1, 1232));
        let root = query(".", TYPE::NS, None);
        assert_eq!(parsed(&root).name.as_deref(), Some(&b""[..]));
        assert_eq!(parsed(&root).udp_size(), 512);
        let escaped = query(r"a\.b.net", TYPE::A, None);
        assert_eq!(parsed(&escaped).name, None, "a dot inside a label is no dot between labels");
        let mut unknown = query("web", TYPE::A, None);
        let at = unknown.len() - 4;
        unknown[at..at + 2].copy_from_slice(&65280u16.to_be_bytes());
        assert_eq!(parsed(&unknown).kind, 65280, "a type that nobody has defined yet");
    }

    #[test]
    fn answers_as_another_implementation_reads_them() {
        let raw = query("Web", TYPE::A, Some(4096));
        let addresses: Vec<IpAddr> = vec!["10.0.0.2".parse().expect("v4"), "10.0.0.3".parse().expect("v4")];
        let reply = parsed(&raw).addresses(addresses.iter().copied(), true);
        let packet = Packet::parse(&reply).expect("well-formed");
        assert_eq!((packet.id(), packet.rcode(), packet.answers.len()), (0x1234, RCODE::NoError, 2));
        let flags = PacketFlag::RESPONSE | PacketFlag::RECURSION_AVAILABLE | PacketFlag::RECURSION_DESIRED;
        assert!(packet.has_flags(flags) && !packet.has_flags(PacketFlag::TRUNCATION));
        assert_eq!(packet.opt().map(|o| o.udp_packet_size), Some(4096));
        for (record, address) in packet.answers.iter().zip(&addresses) {
            assert_eq!((record.name.to_string().as_str(), record.ttl), ("Web", 1));
            let RData::A(a) = &record.rdata else { panic!("{record:?}") };
            assert_eq!(IpAddr::from(a.address.to_be_bytes()), *address);
        }
        let raw = query("2.0.18.172.in-addr.arpa", TYPE::PTR, None);
        let reply = parsed(&raw).pointer("web.my-net");
        let packet = Packet::parse(&reply).expect("well-formed");
        let RData::PTR(ptr) = &packet.answers[0].rdata else { panic!("{packet:?}") };
        assert_eq!((ptr.to_string().as_str(), packet.opt()), ("web.my-net", None));
    }

    #[test]
    fn what_does_not_fit_is_truncated_to_whole_records() {
        let many = || (0..100u32).map(|i| IpAddr::from((0x0a00_0000 + i).to_be_bytes()));
        for (edns, tcp, count) in
            [(None, false, 30), (Some(1232), false, 75), (Some(100), false, 30), (None, true, 100)]
        {
            let raw = query("web", TYPE::A, edns);
            let reply = parsed(&raw).addresses(many(), !tcp);
            let packet = Packet::parse(&reply).expect("well-formed");
            assert_eq!(packet.answers.len(), count, "{edns:?}");
            assert_eq!(packet.has_flags(PacketFlag::TRUNCATION), count < 100);
            assert!(tcp || reply.len() <= edns.map_or(512, |e| usize::from(e).max(512)));
        }
    }

    #[test]
    fn malformed_queries_are_told_apart() {
        let good = query("web", TYPE::A, Some(1232));
        assert_eq!(parse(&good[..11]), Incoming::Noise);
        let mut response = good.clone();
        response[2] |= 0x80;
        assert_eq!(parse(&response), Incoming::Noise, "a response is never answered");
        let code = |raw: &[u8]| match parse(raw) {
            Incoming::Broken(reply) => Some(response_code(&reply)),
            _ => None,
        };
        for cut in 12..good.len() {
            assert_eq!(code(&good[..cut]), Some(FORMERR), "cut at {cut}");
        }
        let mut notify = good.clone();
        notify[2] |= 4 << 3;
        assert_eq!(code(&notify), Some(NOTIMP));
        for (at, value) in [(5, 0), (5, 2), (12, 0xc0), (12, 64)] {
            let mut broken = good.clone();
            broken[at] = value;
            assert_eq!(code(&broken), Some(FORMERR), "byte {at} = {value}");
        }
        let mut endless = good[..12].to_vec();
        endless.extend([1, b'a'].repeat(200));
        assert_eq!(code(&endless), Some(FORMERR));
        let mut later = good.clone();
        let version = later.len() - 5;
        later[version] = 1;
        let reply = parsed(&later).bad_version().expect("refused");
        // simple-dns 0.13 looks for the extended code in the wrong byte of the OPT record.
        assert_eq!((reply[3] & 0x0f, reply[reply.len() - 6], reply[reply.len() - 5]), (0, 1, 0), "BADVERS is 16");
        assert_eq!(parsed(&good).bad_version(), None);
    }

    #[test]
    fn only_the_answer_to_the_question_counts() {
        let raw = query("web.example", TYPE::A, None);
        let q = parsed(&raw);
        let reply = q.empty(NOERROR);
        assert!(q.is_answered_by(&reply));
        let refusal = [&reply[..3], &[0x85, 0, 0, 0, 0, 0, 0, 0, 0]].concat();
        assert!(q.is_answered_by(&refusal), "without the question");
        for at in [0, 1, 5, 13, reply.len() - 3] {
            let mut forged = reply.clone();
            forged[at] ^= 1;
            assert!(!q.is_answered_by(&forged), "byte {at}");
        }
        assert!(!q.is_answered_by(&raw) && !q.is_answered_by(&reply[..20]));
    }

    #[test]
    fn reverse_names() {
        for (name, address) in [
            ("2.0.18.172.in-addr.arpa", Some("172.18.0.2")),
            ("0.18.172.in-addr.arpa", None),
            ("1.2.0.18.172.in-addr.arpa", None),
            ("256.0.18.172.in-addr.arpa", None),
            ("2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa", Some("fd00::2")),
            ("0.d.f.ip6.arpa", None),
            ("web", None),
        ] {
            assert_eq!(reverse_name(name.as_bytes()), address.map(|a| a.parse().expect("an address")), "{name}");
        }
    }
}
