//! IP and UDP around a message, for as long as the kernel has no address to put there itself.

use super::message::{CLIENT_PORT, SERVER_PORT};
use crate::nl::packet::checksum;
use std::net::Ipv4Addr;

const UDP: u8 = 17;
const IP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;

/// From the client's port to the server's.
pub fn wrap(from: Ipv4Addr, to: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let (from, to) = (from.octets(), to.octets());
    let udp_length = ((UDP_HEADER + payload.len()) as u16).to_be_bytes();
    let total = ((IP_HEADER + UDP_HEADER + payload.len()) as u16).to_be_bytes();
    let mut ip = vec![0x45, 0, total[0], total[1], 0, 0, 0, 0, 64, UDP, 0, 0];
    ip.extend(from);
    ip.extend(to);
    let sum = checksum(&[&ip]);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let ([s1, s2], [d1, d2]) = (CLIENT_PORT.to_be_bytes(), SERVER_PORT.to_be_bytes());
    let mut udp = vec![s1, s2, d1, d2, udp_length[0], udp_length[1], 0, 0];
    let sum = checksum(&[&from, &to, &[0, UDP], &udp_length, &udp, payload]);
    // 0 would say "not computed".
    udp[6..8].copy_from_slice(&if sum == 0 { 0xffff } else { sum }.to_be_bytes());
    ip.extend(udp);
    ip.extend(payload);
    ip
}

/// The message in a packet for the client's port. The checksum is not looked at: between interfaces
/// of one machine nobody computes it.
pub fn unwrap(packet: &[u8]) -> Option<&[u8]> {
    let first = *packet.first()?;
    let header = usize::from(first & 0xf) * 4;
    let total = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
    let packet = packet.get(..total)?;
    let whole = packet.get(6..8)? == [0, 0] || packet.get(6..8)? == [0x40, 0];
    if first >> 4 != 4 || header < IP_HEADER || *packet.get(9)? != UDP || !whole {
        return None;
    }
    let udp = packet.get(header..)?;
    let port = u16::from_be_bytes([*udp.get(2)?, *udp.get(3)?]);
    let length = usize::from(u16::from_be_bytes([*udp.get(4)?, *udp.get(5)?]));
    (port == CLIENT_PORT).then(|| udp.get(UDP_HEADER..length))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrapped_sums_up() {
        let p = wrap(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, b"odd");
        assert_eq!(checksum(&[&p[..20]]), 0);
        assert_eq!(checksum(&[&p[12..20], &[0, UDP, 0, 11], &p[20..]]), 0);
        assert_eq!(unwrap(&p), None, "it is for the server");
        let mut back = p.clone();
        back[22..24].copy_from_slice(&CLIENT_PORT.to_be_bytes());
        back.extend([0; 9]);
        assert_eq!(unwrap(&back), Some(&b"odd"[..]), "padding of the frame is left out");
        for n in 0..back.len() {
            let _ = unwrap(&back[..n]);
            for value in [0, 0x40, 0x4f, 255] {
                let mut bad = back.clone();
                bad[n] = value;
                let _ = unwrap(&bad);
            }
        }
    }
}
