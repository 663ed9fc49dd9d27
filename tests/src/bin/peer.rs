//! Both ends of a connection, as one static program that runs on hosts, neighbours and in containers.
//!
//!     peer tcp ADDR PORT TEXT     answers each connection with "TEXT <caller's address>"
//!     peer udp ADDR PORT TEXT     the same for datagrams
//!     peer sctp ADDR PORT TEXT    the same for SCTP, where the kernel has it
//!     peer echo ADDR PORT TEXT    greets each connection with TEXT and returns what it is sent
//!     peer call ADDR PORT         prints the answer; exit 1 and "refused", "timeout" or "closed" otherwise
//!     peer hold ADDR PORT         prints each line of the answer; sends each line of its own input
//!     peer call-udp ADDR PORT
//!     peer call-sctp ADDR PORT
//!     peer has-sctp               exit 0 where the kernel speaks it
//!     peer bulk ADDR PORT TEXT        takes whatever comes; sends as much as it is asked for
//!     peer download ADDR PORT N   N bytes from such a server: milliseconds
//!     peer upload ADDR PORT N     N bytes to it
//!     peer connects ADDR PORT N   N connections one after another: microseconds of the median

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketType, ipproto};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(2);

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let end = match words.as_slice() {
        ["tcp", addr, port, text] => TcpListener::bind(at(addr, port)).and_then(|l| serve_streams(l, text)),
        ["sctp", addr, port, text] => listen_sctp(at(addr, port)).and_then(|l| serve_streams(l, text)),
        ["echo", addr, port, text] => serve_echo(at(addr, port), text),
        ["udp", addr, port, text] => serve_udp(at(addr, port), text),
        ["call", addr, port] => TcpStream::connect_timeout(&at(addr, port), PATIENCE).and_then(hear),
        ["hold", addr, port] => TcpStream::connect_timeout(&at(addr, port), PATIENCE).and_then(hold),
        ["call-sctp", addr, port] => connect_sctp(at(addr, port)).and_then(hear),
        ["has-sctp"] => sctp(true).map(drop),
        ["call-udp", addr, port] => call_udp(at(addr, port)),
        ["bulk", addr, port, _] => serve_bulk(at(addr, port)),
        ["download", addr, port, n] => transfer(at(addr, port), n.parse().expect("a count"), 0),
        ["upload", addr, port, n] => transfer(at(addr, port), 0, n.parse().expect("a count")),
        ["connects", addr, port, n] => connects(at(addr, port), n.parse().expect("a count")),
        _ => panic!("usage: peer tcp|udp|call|call-udp|bulk|download|upload|connects ADDR PORT …"),
    };
    if let Err(e) = end {
        let word = match e.kind() {
            ErrorKind::TimedOut | ErrorKind::WouldBlock => "timeout".to_string(),
            ErrorKind::ConnectionRefused => "refused".to_string(),
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset => "closed".to_string(),
            _ => e.to_string(),
        };
        println!("{word}");
        std::process::exit(1);
    }
}

fn at(addr: &str, port: &str) -> SocketAddr {
    let ip: IpAddr = addr.parse().expect("an address");
    SocketAddr::new(ip, port.parse().expect("a port"))
}

/// SCTP as one stream a connection, which the rest of this program takes for TCP.
fn sctp(ipv4: bool) -> std::io::Result<OwnedFd> {
    let family = if ipv4 { AddressFamily::INET } else { AddressFamily::INET6 };
    Ok(rustix::net::socket(family, SocketType::STREAM, Some(ipproto::SCTP))?)
}

fn listen_sctp(at: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = sctp(at.is_ipv4())?;
    rustix::net::bind(&socket, &at)?;
    rustix::net::listen(&socket, 16)?;
    Ok(socket.into())
}

fn connect_sctp(at: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = sctp(at.is_ipv4())?;
    set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE))?;
    rustix::net::connect(&socket, &at)?;
    Ok(socket.into())
}

fn serve_streams(listener: TcpListener, text: &str) -> std::io::Result<()> {
    println!("ready");
    for stream in listener.incoming().flatten() {
        let mut stream = stream;
        let caller = stream.peer_addr().map(|a| a.ip().to_canonical().to_string()).unwrap_or_default();
        // A caller that is gone already is its own business.
        let _ = stream.write_all(format!("{text} {caller}\n").as_bytes());
    }
    Ok(())
}

fn serve_echo(at: SocketAddr, text: &str) -> std::io::Result<()> {
    let listener = TcpListener::bind(at)?;
    println!("ready");
    for mut stream in listener.incoming().flatten() {
        let greeting = format!("{text}\n");
        std::thread::spawn(move || {
            let mut back = stream.try_clone()?;
            back.write_all(greeting.as_bytes())?;
            std::io::copy(&mut stream, &mut back)
        });
    }
    Ok(())
}

fn serve_udp(at: SocketAddr, text: &str) -> std::io::Result<()> {
    let socket = UdpSocket::bind(at)?;
    println!("ready");
    let mut buf = [0u8; 2048];
    loop {
        let (_, caller) = socket.recv_from(&mut buf)?;
        let _ = socket.send_to(format!("{text} {}\n", caller.ip().to_canonical()).as_bytes(), caller);
    }
}

fn hear(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.is_empty() {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    print!("{answer}");
    Ok(())
}

fn hold(stream: TcpStream) -> std::io::Result<()> {
    let mut out = stream.try_clone()?;
    std::thread::spawn(move || std::io::copy(&mut std::io::stdin(), &mut out));
    for line in BufReader::new(stream).lines() {
        println!("{}", line?);
    }
    Err(ErrorKind::UnexpectedEof.into())
}

fn call_udp(at: SocketAddr) -> std::io::Result<()> {
    let any: IpAddr = if at.is_ipv4() { [0, 0, 0, 0].into() } else { [0u16; 8].into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(at)?;
    socket.send(b"hello")?;
    let mut buf = [0u8; 2048];
    let n = socket.recv(&mut buf)?;
    print!("{}", String::from_utf8_lossy(&buf[..n]));
    Ok(())
}

/// A request is the number of bytes to send; what follows is taken, and answered with one byte.
fn serve_bulk(at: SocketAddr) -> std::io::Result<()> {
    let listener = TcpListener::bind(at)?;
    println!("ready");
    for mut stream in listener.incoming().flatten() {
        let mut length = [0; 8];
        stream.read_exact(&mut length)?;
        stream.write_all(&vec![7; u64::from_be_bytes(length) as usize])?;
        std::io::copy(&mut stream, &mut std::io::sink())?;
        stream.write_all(&[1])?;
    }
    Ok(())
}

fn transfer(at: SocketAddr, down: u64, up: usize) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&at, PATIENCE)?;
    stream.set_read_timeout(Some(10 * PATIENCE))?;
    let begin = Instant::now();
    stream.write_all(&down.to_be_bytes())?;
    std::io::copy(&mut std::io::Read::by_ref(&mut stream).take(down), &mut std::io::sink())?;
    stream.write_all(&vec![7; up])?;
    stream.shutdown(std::net::Shutdown::Write)?;
    stream.read_exact(&mut [0])?;
    println!("{}", begin.elapsed().as_millis());
    Ok(())
}

fn connects(at: SocketAddr, n: usize) -> std::io::Result<()> {
    let mut times = Vec::with_capacity(n);
    for _ in 0..n {
        let begin = Instant::now();
        let stream = TcpStream::connect_timeout(&at, PATIENCE)?;
        times.push(begin.elapsed());
        drop(stream);
    }
    times.sort();
    println!("{}", times[n / 2].as_micros());
    Ok(())
}
