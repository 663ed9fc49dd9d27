//! DHCP messages (RFC 2131, RFC 2132), as bytes and as what a client needs of them.

use std::net::Ipv4Addr;

pub const SERVER_PORT: u16 = 67;
pub const CLIENT_PORT: u16 = 68;

const FIXED: usize = 236;
const MAGIC: [u8; 4] = [99, 130, 83, 99];
/// What a server must be able to take; some drop anything shorter (RFC 1542, 2.1).
const SHORTEST: usize = 300;
const REQUEST: u8 = 1;
const REPLY: u8 = 2;
const ETHERNET: u8 = 1;
/// The client cannot take unicast before it has its address.
const BROADCAST_FLAG: u16 = 0x8000;

/// Option numbers.
mod option {
    pub const PAD: u8 = 0;
    pub const SUBNET_MASK: u8 = 1;
    pub const ROUTER: u8 = 3;
    pub const HOST_NAME: u8 = 12;
    pub const REQUESTED_ADDRESS: u8 = 50;
    pub const LEASE_TIME: u8 = 51;
    pub const MESSAGE_TYPE: u8 = 53;
    pub const SERVER: u8 = 54;
    pub const PARAMETERS: u8 = 55;
    pub const MAXIMUM_SIZE: u8 = 57;
    pub const RENEWAL: u8 = 58;
    pub const REBINDING: u8 = 59;
    pub const CLIENT_ID: u8 = 61;
    pub const END: u8 = 255;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Discover = 1,
    Offer = 2,
    Request = 3,
    Ack = 5,
    Nak = 6,
    Release = 7,
}

impl Kind {
    fn of(n: u8) -> Option<Kind> {
        [Kind::Discover, Kind::Offer, Kind::Request, Kind::Ack, Kind::Nak, Kind::Release]
            .into_iter()
            .find(|k| *k as u8 == n)
    }
}

/// Who asks: the same at every start, so that a server knows its client again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub mac: [u8; 6],
    /// Told to the server, which may enter it in its DNS. May be empty.
    pub hostname: String,
}

/// What a client says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    pub kind: Kind,
    pub xid: u32,
    /// Seconds since it began to ask.
    pub seconds: u16,
    /// Its own address, once it has one.
    pub own: Option<Ipv4Addr>,
    /// The address it would like.
    pub wanted: Option<Ipv4Addr>,
    /// The server it speaks to.
    pub server: Option<Ipv4Addr>,
}

impl Question {
    pub fn encode(&self, who: &Identity) -> Vec<u8> {
        let mut m = vec![0; FIXED];
        (m[0], m[1], m[2]) = (REQUEST, ETHERNET, 6);
        m[4..8].copy_from_slice(&self.xid.to_be_bytes());
        m[8..10].copy_from_slice(&self.seconds.to_be_bytes());
        if self.own.is_none() {
            m[10..12].copy_from_slice(&BROADCAST_FLAG.to_be_bytes());
        }
        m[12..16].copy_from_slice(&self.own.unwrap_or(Ipv4Addr::UNSPECIFIED).octets());
        m[28..34].copy_from_slice(&who.mac);
        m.extend(MAGIC);
        let mut add = |number: u8, value: &[u8]| {
            m.extend([number, value.len() as u8]);
            m.extend(value);
        };
        add(option::MESSAGE_TYPE, &[self.kind as u8]);
        let mut id = vec![ETHERNET];
        id.extend(who.mac);
        add(option::CLIENT_ID, &id);
        if let Some(ip) = self.wanted {
            add(option::REQUESTED_ADDRESS, &ip.octets());
        }
        if let Some(ip) = self.server {
            add(option::SERVER, &ip.octets());
        }
        if self.kind != Kind::Release {
            // A name longer than an option is no host name.
            if !who.hostname.is_empty() && who.hostname.len() <= 255 {
                add(option::HOST_NAME, who.hostname.as_bytes());
            }
            add(option::MAXIMUM_SIZE, &1472u16.to_be_bytes());
            let wishes = [option::SUBNET_MASK, option::ROUTER, option::LEASE_TIME, option::RENEWAL, option::REBINDING];
            add(option::PARAMETERS, &wishes);
        }
        m.push(option::END);
        m.resize(m.len().max(SHORTEST), option::PAD);
        m
    }
}

/// What a server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub kind: Kind,
    pub xid: u32,
    pub mac: [u8; 6],
    /// "Your address".
    pub ip: Ipv4Addr,
    pub server: Option<Ipv4Addr>,
    pub prefix: Option<u8>,
    pub router: Option<Ipv4Addr>,
    pub seconds: Option<u32>,
    pub renewal: Option<u32>,
    pub rebinding: Option<u32>,
}

impl Answer {
    /// `None`: no answer of a DHCP server to an Ethernet client. From the network, so nothing in it is
    /// to be trusted.
    pub fn decode(bytes: &[u8]) -> Option<Answer> {
        let options = bytes.get(FIXED..)?.strip_prefix(&MAGIC)?;
        if bytes[0] != REPLY || bytes[1] != ETHERNET || bytes[2] != 6 {
            return None;
        }
        let four = |at: usize| -> Option<[u8; 4]> { bytes.get(at..at + 4)?.try_into().ok() };
        let mut answer = Answer {
            kind: Kind::Offer,
            xid: u32::from_be_bytes(four(4)?),
            mac: bytes.get(28..34)?.try_into().ok()?,
            ip: four(16)?.into(),
            server: None,
            prefix: None,
            router: None,
            seconds: None,
            renewal: None,
            rebinding: None,
        };
        let mut kind = None;
        let mut rest = options;
        while let Some((&number, after)) = rest.split_first() {
            match number {
                option::PAD => {
                    rest = after;
                    continue;
                }
                option::END => break,
                _ => {}
            }
            let (&length, after) = after.split_first()?;
            let value = after.get(..usize::from(length))?;
            rest = &after[usize::from(length)..];
            let ip = || <[u8; 4]>::try_from(value.get(..4)?).ok().map(Ipv4Addr::from);
            let number_of = || <[u8; 4]>::try_from(value).ok().map(u32::from_be_bytes);
            match number {
                option::MESSAGE_TYPE => kind = Kind::of(*value.first()?),
                option::SERVER => answer.server = ip(),
                option::SUBNET_MASK => answer.prefix = ip().and_then(prefix),
                // Several are in order of preference.
                option::ROUTER => answer.router = ip(),
                option::LEASE_TIME => answer.seconds = number_of(),
                option::RENEWAL => answer.renewal = number_of(),
                option::REBINDING => answer.rebinding = number_of(),
                _ => {}
            }
        }
        answer.kind = kind.filter(|k| matches!(k, Kind::Offer | Kind::Ack | Kind::Nak))?;
        Some(answer)
    }
}

/// The length of a netmask; `None` if its ones are not all at the front.
fn prefix(mask: Ipv4Addr) -> Option<u8> {
    let bits = u32::from(mask);
    (bits.leading_ones() + bits.trailing_zeros() >= 32).then_some(bits.leading_ones() as u8)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn identity() -> Identity {
        Identity { mac: [2, 0, 0, 0, 0, 7], hostname: "web".into() }
    }

    /// As a server would say it.
    pub fn answer(kind: Kind, xid: u32, options: &[(u8, &[u8])]) -> Vec<u8> {
        let mut m = vec![0; FIXED];
        (m[0], m[1], m[2]) = (REPLY, ETHERNET, 6);
        m[4..8].copy_from_slice(&xid.to_be_bytes());
        m[16..20].copy_from_slice(&[192, 0, 2, 77]);
        m[28..34].copy_from_slice(&identity().mac);
        m.extend(MAGIC);
        m.extend([option::MESSAGE_TYPE, 1, kind as u8, option::SERVER, 4, 192, 0, 2, 1]);
        for (number, value) in options {
            m.extend([*number, value.len() as u8]);
            m.extend(*value);
        }
        m.push(option::END);
        m
    }

    #[test]
    fn questions_are_laid_out_as_the_rfc_says() {
        let q = Question {
            kind: Kind::Discover,
            xid: 0x0102_0304,
            seconds: 3,
            own: None,
            wanted: Some([192, 0, 2, 9].into()),
            server: None,
        };
        let m = q.encode(&identity());
        assert_eq!(m.len(), SHORTEST);
        assert_eq!(m[..12], [1, 1, 6, 0, 1, 2, 3, 4, 0, 3, 0x80, 0]);
        assert_eq!(m[28..34], identity().mac);
        let options = &m[FIXED + 4..];
        assert_eq!(options[..3], [53, 1, 1]);
        assert_eq!(options[3..12], [61, 7, 1, 2, 0, 0, 0, 0, 7]);
        assert_eq!(options[12..18], [50, 4, 192, 0, 2, 9]);
        assert_eq!(options[18..23], [12, 3, b'w', b'e', b'b']);
        let renew = Question { own: q.wanted, wanted: None, ..q }.encode(&identity());
        assert_eq!((&renew[10..12], &renew[12..16]), (&[0, 0][..], &[192, 0, 2, 9][..]), "unicast to its address");
    }

    #[test]
    fn answers_are_read() {
        let m = answer(
            Kind::Ack,
            7,
            &[(1, &[255, 255, 255, 0]), (3, &[192, 0, 2, 1, 192, 0, 2, 2]), (51, &[0, 0, 14, 16]), (0, &[])],
        );
        let a = Answer::decode(&m).expect("an answer");
        assert_eq!((a.kind, a.xid, a.mac), (Kind::Ack, 7, identity().mac));
        assert_eq!((a.ip, a.server), ([192, 0, 2, 77].into(), Some([192, 0, 2, 1].into())));
        assert_eq!((a.prefix, a.router, a.seconds), (Some(24), Some([192, 0, 2, 1].into()), Some(3600)));
        assert_eq!(Answer::decode(&answer(Kind::Ack, 7, &[(1, &[255, 0, 255, 0])])).expect("an answer").prefix, None);
        assert_eq!(Answer::decode(&answer(Kind::Discover, 7, &[])), None, "no server says that");
    }

    /// Cut off at every length and with every byte changed: never a panic, never an answer to another.
    #[test]
    fn hostile_bytes_are_harmless() {
        let good = answer(Kind::Ack, 7, &[(1, &[255, 255, 255, 0]), (3, &[192, 0, 2, 1]), (51, &[0, 0, 14, 16])]);
        for n in 0..good.len() {
            let _ = Answer::decode(&good[..n]);
            for value in [0, 1, 3, 4, 54, 127, 128, 254, 255] {
                let mut m = good.clone();
                m[n] = value;
                let _ = Answer::decode(&m);
            }
        }
        // A cheap generator is enough: the same bytes at every run.
        let mut seed = 0x2545_f491_4f6c_dd1du64;
        for _ in 0..20_000 {
            let mut m = good.clone();
            for _ in 0..8 {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                let at = FIXED + (seed as usize >> 8) % (m.len() - FIXED);
                m[at] = seed as u8;
            }
            m.truncate(FIXED + (seed >> 32) as usize % (good.len() - FIXED + 1));
            if let Some(a) = Answer::decode(&m) {
                assert_eq!(a.xid, 7);
                assert!(a.prefix.is_none_or(|p| p <= 32));
            }
        }
    }
}
