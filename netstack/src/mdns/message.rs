//! What a reflector changes in a message (RFC 6762) on its way: as little as can be, and never its length.
//!
//! Whatever cannot be read is passed on as it is: both sides are used to strange messages.

use crate::model::Proto;
use std::net::IpAddr;

const HEADER: usize = 12;
const FLAG_RESPONSE: u8 = 0x80;
/// In the class of a question: the asker wants the answer for itself (5.4).
const UNICAST_RESPONSE: u8 = 0x80;
const A: u16 = 1;
const AAAA: u16 = 28;
const SRV: u16 = 33;
/// A name is at most 255 bytes: more pointers than labels are a loop.
const MOST_JUMPS: usize = 128;

/// How the other side knows what this side has.
pub(super) trait Translation {
    fn address(&self, ip: IpAddr) -> Option<IpAddr>;
    fn port(&self, proto: Proto, port: u16) -> Option<u16>;
}

pub(super) fn is_query(message: &[u8]) -> bool {
    message.len() >= HEADER && message[2] & FLAG_RESPONSE == 0
}

/// Who reflects asks in somebody else's name, and would get what is meant for them: all are to hear it.
pub(super) fn ask_for_multicast(message: &mut [u8]) {
    let mut at = HEADER;
    for _ in 0..count(message, 4) {
        let Some(class) = past_name(message, at).map(|end| end + 2) else { return };
        let Some(high) = message.get_mut(class) else { return };
        *high &= !UNICAST_RESPONSE;
        at = class + 2;
    }
}

/// Addresses and ports in the records of all sections.
pub(super) fn translate(message: &mut [u8], to: &impl Translation) {
    let mut at = HEADER;
    for _ in 0..count(message, 4) {
        let Some(end) = past_name(message, at) else { return };
        at = end + 4;
    }
    for _ in 0..count(message, 6) + count(message, 8) + count(message, 10) {
        let owner = at;
        let Some(end) = past_name(message, at) else { return };
        let (Some(kind), Some(length)) = (u16_at(message, end), u16_at(message, end + 8)) else { return };
        let data = end + 10;
        at = data + usize::from(length);
        let Some(value) = message.get(data..at) else { return };
        match kind {
            A if length == 4 => {
                let old: [u8; 4] = value.try_into().unwrap_or_default();
                if let Some(IpAddr::V4(new)) = to.address(old.into()) {
                    message[data..at].copy_from_slice(&new.octets());
                }
            }
            AAAA if length == 16 => {
                let old: [u8; 16] = value.try_into().unwrap_or_default();
                if let Some(IpAddr::V6(new)) = to.address(old.into()) {
                    message[data..at].copy_from_slice(&new.octets());
                }
            }
            // Priority, weight, port, target.
            SRV if length > 6 => {
                let port = u16::from_be_bytes([value[4], value[5]]);
                let proto = if has_label(message, owner, b"_udp") { Proto::Udp } else { Proto::Tcp };
                if let Some(new) = to.port(proto, port) {
                    message[data + 4..data + 6].copy_from_slice(&new.to_be_bytes());
                }
            }
            _ => {}
        }
    }
}

fn u16_at(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]))
}

fn count(message: &[u8], at: usize) -> u32 {
    u16_at(message, at).unwrap_or(0).into()
}

/// Where the name that begins here ends.
fn past_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            // A pointer to the rest of it, which is not here.
            n if n & 0xc0 == 0xc0 => return Some(at + 2),
            n if n > 63 => return None,
            n => at += 1 + usize::from(n),
        }
    }
}

fn has_label(message: &[u8], mut at: usize, wanted: &[u8]) -> bool {
    for _ in 0..MOST_JUMPS {
        let Some(length) = message.get(at).map(|n| usize::from(*n)) else { return false };
        if length >= 0xc0 {
            let Some(to) = u16_at(message, at) else { return false };
            at = usize::from(to & 0x3fff);
            continue;
        }
        let Some(label) = message.get(at + 1..at + 1 + length).filter(|l| !l.is_empty()) else { return false };
        if label.eq_ignore_ascii_case(wanted) {
            return true;
        }
        at += 1 + length;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    struct Home;

    impl Translation for Home {
        fn address(&self, ip: IpAddr) -> Option<IpAddr> {
            match ip {
                IpAddr::V4(ip) if ip.octets()[0] == 172 => Some(Ipv4Addr::new(192, 0, 2, 1).into()),
                _ => None,
            }
        }

        fn port(&self, proto: Proto, port: u16) -> Option<u16> {
            (proto == Proto::Tcp && port == 80).then_some(8080)
        }
    }

    /// An SRV of `web._http._PROTO.local`, whose name an A shares, and an A of somebody else.
    fn announcement(proto: &[u8; 4]) -> Vec<u8> {
        let mut m = vec![0, 0, 0x84, 0, 0, 0, 0, 2, 0, 0, 0, 1];
        m.extend(b"\x03web\x05_http\x04");
        m.extend(proto);
        m.extend(b"\x05local\x00");
        m.extend([0, 33, 0x80, 1, 0, 0, 0, 120, 0, 8, 0, 0, 0, 0, 0, 80, 0xc0, 12]);
        m.extend([0xc0, 12, 0, 1, 0x80, 1, 0, 0, 0, 120, 0, 4, 172, 18, 0, 2]);
        m.extend([0xc0, 12, 0, 1, 0x80, 1, 0, 0, 0, 120, 0, 4, 198, 51, 100, 9]);
        m
    }

    #[test]
    fn what_the_other_side_cannot_reach_is_translated() {
        let mut m = announcement(b"_TCP");
        let before = m.clone();
        translate(&mut m, &Home);
        let changed: Vec<usize> = (0..m.len()).filter(|i| m[*i] != before[*i]).collect();
        assert_eq!((&m[m.len() - 20..m.len() - 16], &m[m.len() - 4..]), (&[192, 0, 2, 1][..], &[198, 51, 100, 9][..]));
        let port = before.windows(2).position(|w| w == [0, 80]).unwrap();
        assert_eq!((m[port], m[port + 1]), (31, 144), "8080");
        assert_eq!(changed.len(), 6, "an address and a port, nothing else");
        let mut udp = announcement(b"_udp");
        translate(&mut udp, &Home);
        assert!(udp.windows(2).any(|w| w == [0, 80]), "another protocol's port");
        assert!(!is_query(&m));
    }

    #[test]
    fn questions_are_for_everybody() {
        let mut q = vec![0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0];
        q.extend(b"\x03web\x05local\x00\x00\x01\x80\x01");
        q.extend(b"\xc0\x0c\x00\x1c\x80\x01");
        ask_for_multicast(&mut q);
        assert!(is_query(&q));
        assert!(q.ends_with(b"\x00\x01\x00\x01\xc0\x0c\x00\x1c\x00\x01"), "{q:?}");
    }

    #[test]
    fn nonsense_passes_unharmed() {
        let whole = announcement(b"_tcp");
        for end in 0..whole.len() {
            let mut cut = whole[..end].to_vec();
            ask_for_multicast(&mut cut);
            translate(&mut cut, &Home);
            assert_eq!(cut.len(), end);
        }
        // A name that points at itself.
        let mut m = vec![0, 0, 0x84, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 1, 0, 8];
        m.extend([0, 0, 0, 0, 0, 80, 0xc0, 12]);
        translate(&mut m, &Home);
    }
}
