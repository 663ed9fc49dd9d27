//! Both ends of multicast DNS, as one static program that runs on hosts, neighbours and in containers.
//!
//!     mdnspeer serve 4|6 IFACE NAME ADDRESS PORT   answers for NAME.local (A or AAAA) and NAME._http._tcp.local
//!                                                  (SRV); says "ready", then each question on a line
//!     mdnspeer ask 4|6 IFACE NAME TYPE [qu|legacy] prints the answer's records; exit 1 and "nothing" after 2 s
//!
//! `qu` wants its answer by unicast, `legacy` asks from a port that is not mDNS's.

use rustix::net::sockopt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::time::{Duration, Instant};

const PORT: u16 = 5353;
const GROUP4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const GROUP6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
const PATIENCE: Duration = Duration::from_secs(2);
const KINDS: [(&str, u16); 3] = [("A", 1), ("AAAA", 28), ("SRV", 33)];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["serve", family, iface, name, address, port] => serve(
            &Link::open(*family == "6", iface, PORT),
            name,
            address.parse().expect("an address"),
            port.parse().expect("a port"),
        ),
        ["ask", family, iface, name, kind, how @ ..] => ask(*family == "6", iface, name, kind, how),
        _ => panic!("usage: mdnspeer serve|ask …"),
    }
}

struct Link {
    socket: UdpSocket,
    group: SocketAddr,
}

impl Link {
    /// A socket that hears the group on this interface, and speaks to it there.
    fn open(ipv6: bool, iface: &str, port: u16) -> Link {
        let family = if ipv6 { rustix::net::AddressFamily::INET6 } else { rustix::net::AddressFamily::INET };
        let socket = rustix::net::socket(family, rustix::net::SocketType::DGRAM, None).expect("a socket");
        let index = rustix::net::netdevice::name_to_index(&socket, iface).expect("the interface");
        sockopt::set_socket_reuseaddr(&socket, true).expect("SO_REUSEADDR");
        let group = if ipv6 {
            sockopt::set_ipv6_v6only(&socket, true).expect("IPv6 alone");
            rustix::net::bind(&socket, &SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)).expect("the port");
            sockopt::set_ipv6_add_membership(&socket, &GROUP6, index).expect("the group");
            sockopt::set_ipv6_multicast_if(&socket, index).expect("the interface");
            SocketAddr::V6(SocketAddrV6::new(GROUP6, PORT, 0, index))
        } else {
            let any = Ipv4Addr::UNSPECIFIED;
            rustix::net::bind(&socket, &SocketAddr::new(any.into(), port)).expect("the port");
            sockopt::set_ip_add_membership_with_ifindex(&socket, &GROUP4, &any, index).expect("the group");
            sockopt::set_ip_multicast_if_with_ifindex(&socket, &any, &any, index).expect("the interface");
            SocketAddr::new(GROUP4.into(), PORT)
        };
        Link { socket: socket.into(), group }
    }
}

fn put_name(m: &mut Vec<u8>, name: &str) {
    for label in name.split('.') {
        m.push(label.len() as u8);
        m.extend(label.as_bytes());
    }
    m.push(0);
}

fn put_record(m: &mut Vec<u8>, name: &str, kind: u16, data: &[u8]) {
    put_name(m, name);
    m.extend(kind.to_be_bytes());
    // This is all there is of the name; for two minutes.
    m.extend([0x80, 1, 0, 0, 0, 120]);
    m.extend((data.len() as u16).to_be_bytes());
    m.extend(data);
}

/// Names in these messages are not compressed by us; others' are not looked at.
fn name_at(m: &[u8], mut at: usize) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*m.get(at)?);
        if length == 0 {
            return Some((labels.join("."), at + 1));
        }
        labels.push(String::from_utf8_lossy(m.get(at + 1..at + 1 + length)?).into_owned());
        at += 1 + length;
    }
}

fn u16_at(m: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*m.get(at)?, *m.get(at + 1)?]))
}

fn serve(link: &Link, name: &str, address: IpAddr, port: u16) {
    println!("ready");
    let (host, service) = (format!("{name}.local"), format!("{name}._http._tcp.local"));
    let (kind, data) = match address {
        IpAddr::V4(ip) => (1, ip.octets().to_vec()),
        IpAddr::V6(ip) => (28, ip.octets().to_vec()),
    };
    let mut buffer = [0; 9000];
    while let Ok((n, from)) = link.socket.recv_from(&mut buffer) {
        let m = &buffer[..n];
        // Questions only.
        if m.len() < 12 || m[2] & 0x80 != 0 {
            continue;
        }
        let Some((asked, end)) = name_at(m, 12) else { continue };
        let (Some(wanted), Some(class)) = (u16_at(m, end), u16_at(m, end + 2)) else { continue };
        let unicast = class & 0x8000 != 0;
        println!("{asked} {wanted}{}", if unicast { " QU" } else { "" });
        let mut records = Vec::new();
        let mut count = 1;
        if asked == host && wanted == kind {
            put_record(&mut records, &host, kind, &data);
        } else if asked == service && wanted == 33 {
            let mut srv = [&[0, 0, 0, 0][..], &port.to_be_bytes()].concat();
            put_name(&mut srv, &host);
            put_record(&mut records, &service, 33, &srv);
            put_record(&mut records, &host, kind, &data);
            count = 2;
        } else {
            continue;
        }
        let legacy = from.port() != PORT;
        let mut reply = if legacy { m[..2].to_vec() } else { vec![0, 0] };
        reply.extend([0x84, 0, 0, u8::from(legacy), 0, count, 0, 0, 0, 0]);
        if legacy {
            reply.extend(&m[12..end + 4]);
        }
        reply.extend(records);
        let to = if legacy || unicast { from } else { link.group };
        let _ = link.socket.send_to(&reply, to);
    }
}

fn ask(ipv6: bool, iface: &str, name: &str, kind: &str, how: &[&str]) {
    let legacy = how.contains(&"legacy");
    let link = Link::open(ipv6, iface, if legacy { 0 } else { PORT });
    let wanted = KINDS.iter().find(|(k, _)| *k == kind).expect("A, AAAA or SRV").1;
    let id = if legacy { [0x12, 0x34] } else { [0, 0] };
    let mut question = [&id[..], &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
    put_name(&mut question, name);
    question.extend(wanted.to_be_bytes());
    question.extend([if how.contains(&"qu") { 0x80 } else { 0 }, 1]);
    link.socket.send_to(&question, link.group).expect("send");
    let end = Instant::now() + PATIENCE;
    let mut buffer = [0; 9000];
    while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        link.socket.set_read_timeout(Some(left)).expect("a time");
        let Ok(n) = link.socket.recv(&mut buffer) else { continue };
        let m = &buffer[..n];
        if m.len() < 12 || m[2] & 0x80 == 0 || m[..2] != id {
            continue;
        }
        if let Some(text) = records(m).filter(|text| text.contains(&format!("{name} "))) {
            println!("{text}");
            return;
        }
    }
    println!("nothing");
    std::process::exit(1);
}

/// `web.local A 10.0.0.2`, several with commas.
fn records(m: &[u8]) -> Option<String> {
    let mut at = 12;
    for _ in 0..u16_at(m, 4)? {
        at = name_at(m, at)?.1 + 4;
    }
    let mut all = Vec::new();
    for _ in 0..u16_at(m, 6)? {
        let (name, end) = name_at(m, at)?;
        let (kind, length) = (u16_at(m, end)?, usize::from(u16_at(m, end + 8)?));
        let data = m.get(end + 10..end + 10 + length)?;
        at = end + 10 + length;
        all.push(match kind {
            1 => format!("{name} A {}", Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?)),
            28 => format!("{name} AAAA {}", Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?)),
            33 => format!("{name} SRV {} {}", u16_at(data, 4)?, name_at(data, 6)?.0),
            other => format!("{name} type{other}"),
        });
    }
    Some(all.join(", "))
}
