//! Both ends of DNS, as one static program that runs on hosts, neighbours and in containers.
//!
//!     dnspeer serve ADDR RECORD…        a server on port 53; says "ready", then each question on a line
//!     dnspeer ask SERVER NAME TYPE [tcp|edns]   prints "NOERROR [TC] VALUE/TTL …"
//!     dnspeer hostile SERVER            idle connections, broken frames, loops, 65,000 random packets
//!     dnspeer flood SERVER NAME SECONDS answers per second
//!
//! A RECORD is `NAME=ADDRESS[,ADDRESS…]/TTL`, `NAME=many/TTL` (200 addresses: too many for a
//! datagram), or one of `silent`, `refuse`, `slow` (a fifth of a
//! second late). Other names do not exist, for 30 s.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(10);
const CODES: [&str; 6] = ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"];
const KINDS: [(&str, u16); 7] = [("A", 1), ("PTR", 12), ("MX", 15), ("TXT", 16), ("AAAA", 28), ("SRV", 33), ("SOA", 6)];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["serve", addr, records @ ..] => serve(addr.parse().expect("an address"), records),
        ["ask", server, name, kind, how @ ..] => ask(at(server), name, kind, how),
        ["hostile", server] => hostile(at(server)),
        ["flood", server, name, seconds] => flood(at(server), name, seconds.parse().expect("seconds")),
        _ => panic!("usage: dnspeer serve|ask|hostile|flood …"),
    }
}

fn at(server: &str) -> SocketAddr {
    SocketAddr::new(server.parse().expect("an address"), 53)
}

// ---- messages ---------------------------------------------------------------------------------

fn question(id: u16, name: &str, kind: u16, edns: bool) -> Vec<u8> {
    let mut q = vec![(id >> 8) as u8, id as u8, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(edns)];
    for label in name.split('.').filter(|l| !l.is_empty()) {
        q.push(label.len() as u8);
        q.extend_from_slice(label.as_bytes());
    }
    q.push(0);
    q.extend_from_slice(&kind.to_be_bytes());
    q.extend_from_slice(&[0, 1]);
    if edns {
        // A payload of 4096 bytes.
        q.extend_from_slice(&[0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0]);
    }
    q
}

fn u16_at(m: &[u8], at: usize) -> usize {
    usize::from(u16::from_be_bytes([m[at], m[at + 1]]))
}

/// A name, and where it ends.
fn name_at(m: &[u8], mut at: usize) -> (String, usize) {
    let mut labels = Vec::new();
    let mut end = None;
    loop {
        match usize::from(m[at]) {
            0 => return (labels.join("."), end.unwrap_or(at + 1)),
            l if l >= 0xc0 => {
                end.get_or_insert(at + 2);
                at = u16_at(m, at) & 0x3fff;
            }
            l => {
                labels.push(String::from_utf8_lossy(&m[at + 1..at + 1 + l]).into_owned());
                at += 1 + l;
            }
        }
    }
}

fn show(m: &[u8]) -> String {
    let mut out = CODES.get(usize::from(m[3] & 15)).map_or("OTHER", |c| c).to_string();
    if m[2] & 2 != 0 {
        out.push_str(" TC");
    }
    let (_, mut at) = name_at(m, 12);
    at += 4;
    for _ in 0..u16_at(m, 6) {
        at = name_at(m, at).1;
        let (kind, length) = (u16_at(m, at), u16_at(m, at + 8));
        let ttl = u16_at(m, at + 4) << 16 | u16_at(m, at + 6);
        let data = &m[at + 10..at + 10 + length];
        let value = match kind {
            1 => Ipv4Addr::from(<[u8; 4]>::try_from(data).expect("an address")).to_string(),
            28 => IpAddr::from(<[u8; 16]>::try_from(data).expect("an address")).to_string(),
            12 => name_at(m, at + 10).0,
            33 => format!("{} {}", u16_at(data, 4), name_at(m, at + 16).0),
            other => format!("type{other}"),
        };
        out.push_str(&format!(" {value}/{ttl}"));
        at += 10 + length;
    }
    out
}

fn framed(m: &[u8]) -> Vec<u8> {
    [&(m.len() as u16).to_be_bytes(), m].concat()
}

fn read_framed(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut m = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut m)?;
    Ok(m)
}

// ---- serving ----------------------------------------------------------------------------------

fn serve(addr: IpAddr, records: &[&str]) {
    let udp = UdpSocket::bind((addr, 53)).expect("UDP port 53");
    let tcp = TcpListener::bind((addr, 53)).expect("TCP port 53");
    println!("ready");
    let records: Vec<String> = records.iter().map(|r| r.to_string()).collect();
    let by_tcp = records.clone();
    std::thread::spawn(move || {
        for mut stream in tcp.incoming().flatten() {
            while let Ok(q) = read_framed(&mut stream) {
                if let Some(reply) = reply(&q, &by_tcp, "tcp") {
                    let _ = stream.write_all(&framed(&reply));
                }
            }
        }
    });
    let mut buffer = [0; 4096];
    while let Ok((n, from)) = udp.recv_from(&mut buffer) {
        if let Some(mut reply) = reply(&buffer[..n], &records, "udp") {
            if reply.len() > 512 {
                let end = name_at(&reply, 12).1 + 4;
                reply.truncate(end);
                reply[2] |= 2;
                reply[6..12].fill(0);
            }
            let _ = udp.send_to(&reply, from);
        }
    }
}

fn reply(q: &[u8], records: &[String], how: &str) -> Option<Vec<u8>> {
    let (name, end) = name_at(q, 12);
    let kind = u16_at(q, end);
    let shown =
        KINDS.iter().find(|(_, k)| usize::from(*k) == kind).map_or(format!("TYPE{kind}"), |(n, _)| n.to_string());
    println!("{how} {name} {shown}");
    let mut r = q[..end + 4].to_vec();
    (r[2], r[3]) = (0x81, 0x80);
    r[6..12].fill(0);
    if records.iter().any(|r| r == "silent") {
        return None;
    }
    if records.iter().any(|r| r == "slow") {
        std::thread::sleep(Duration::from_millis(200));
    }
    if records.iter().any(|r| r == "refuse") {
        r[3] |= 5;
        return Some(r);
    }
    let found = records.iter().find_map(|r| r.split_once('=').filter(|(n, _)| n.eq_ignore_ascii_case(&name)));
    let Some((_, value)) = found else {
        r[3] |= 3;
        // An SOA whose last number says how long that holds.
        r[9] = 1;
        r.extend_from_slice(&[0, 0, 6, 0, 1, 0, 0, 0, 60, 0, 22, 0, 0]);
        for n in [1u32, 2, 3, 4, 30] {
            r.extend_from_slice(&n.to_be_bytes());
        }
        return Some(r);
    };
    let (addresses, ttl) = value.split_once('/').expect("ADDRESS/TTL");
    let ttl: u32 = ttl.parse().expect("a TTL");
    let addresses: Vec<IpAddr> = match addresses {
        "many" => (0..200u8).map(|i| IpAddr::from([203, 0, 113, i])).collect(),
        list => list.split(',').map(|a| a.parse().expect("an address")).collect(),
    };
    let mut count = 0u16;
    for ip in addresses {
        let data = match (ip, kind) {
            (IpAddr::V4(ip), 1) => ip.octets().to_vec(),
            (IpAddr::V6(ip), 28) => ip.octets().to_vec(),
            _ => continue,
        };
        r.extend_from_slice(&[0xc0, 12, 0, kind as u8, 0, 1]);
        r.extend_from_slice(&ttl.to_be_bytes());
        r.extend_from_slice(&(data.len() as u16).to_be_bytes());
        r.extend_from_slice(&data);
        count += 1;
    }
    r[6..8].copy_from_slice(&count.to_be_bytes());
    Some(r)
}

// ---- asking -----------------------------------------------------------------------------------

fn client(server: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket");
    socket.connect(server).expect("connected");
    socket.set_read_timeout(Some(PATIENCE)).expect("set");
    socket
}

fn ask(server: SocketAddr, name: &str, kind: &str, how: &[&str]) {
    let kind = KINDS.iter().find(|(n, _)| *n == kind).map_or_else(|| kind.parse().expect("a type"), |(_, k)| *k);
    let q = question(0x1234, name, kind, how.contains(&"edns"));
    let answer = if how.contains(&"tcp") {
        let mut stream = TcpStream::connect(server).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        stream.write_all(&framed(&q)).expect("sent");
        read_framed(&mut stream).expect("an answer")
    } else {
        let socket = client(server);
        socket.send(&q).expect("sent");
        let mut buffer = vec![0; 65535];
        let n = socket.recv(&mut buffer).expect("an answer");
        buffer.truncate(n);
        buffer
    };
    assert_eq!(answer[..2], q[..2], "the answer to another question");
    println!("{}", show(&answer));
}

fn hostile(server: SocketAddr) {
    let idle: Vec<TcpStream> = (0..100).filter_map(|_| TcpStream::connect(server).ok()).collect();
    let looped = [&question(7, "", 1, false)[..12], &[0xc0, 12, 0, 1, 0, 1]].concat();
    for bytes in [&[0u8][..], &[0xff; 600], &[0, 3, 1, 2, 3], &framed(&looped), &framed(&[]), &[0, 40, 1, 2]] {
        if let Ok(mut stream) = TcpStream::connect(server) {
            // It may be closed in our face: that is an answer.
            let _ = stream.write_all(bytes);
        }
    }
    let socket = client(server);
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed as usize
    };
    for i in 0..65_000 {
        let mut packet = match i % 3 {
            0 => looped.clone(),
            1 => question(i as u16, "some.name.test", 1, true),
            _ => (0..random() % 90 + 1).map(|_| random() as u8).collect(),
        };
        for _ in 0..random() % 4 {
            let at = random() % packet.len();
            packet[at] = random() as u8;
        }
        let _ = socket.send(&packet);
    }
    println!("done, {} idle", idle.len());
    std::thread::sleep(Duration::from_secs(600));
}

fn flood(server: SocketAddr, name: &str, seconds: u64) {
    let socket = client(server);
    let mut answers = 0u64;
    let mut buffer = [0; 512];
    let q = question(1, name, 1, false);
    // A window of questions on their way keeps both sides busy.
    const WINDOW: usize = 64;
    for _ in 0..WINDOW {
        socket.send(&q).expect("sent");
    }
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(seconds) {
        socket.recv(&mut buffer).expect("an answer");
        answers += 1;
        socket.send(&q).expect("sent");
    }
    println!("{}", answers / seconds.max(1));
}
