//! A simulated host: the network namespace of one thread, a neighbour on its LAN, and containers
//! that are nothing but a network namespace.

use ipnetwork::IpNetwork;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoData, InfoVeth};
use netstack::model::{DnsConfig, EndpointConfig, Network};
use netstack::networks::{Config, Netstack, NetworkRequest};
use netstack::nl::{self, Batch, Socket};
use netstack::publish;
use netstack::sandbox::{Mode, Sandbox, SandboxPlan, SandboxRequest};
use nix::sched::{CloneFlags, unshare};
use plan::{HostThing, Journal, Result};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

pub const LAN_HOST: &str = "192.0.2.1";
pub const LAN_NEIGHBOUR: &str = "192.0.2.2";
pub const LAN_HOST_6: &str = "2001:db8::1";
pub const LAN_NEIGHBOUR_6: &str = "2001:db8::2";

pub struct Host {
    pub net: Netstack,
    pub state: PathBuf,
    pub dir: PathBuf,
    pub ns: OwnedFd,
    pub lan: OwnedFd,
}

/// One running "container".
pub struct Container {
    pub id: String,
    pub ns: OwnedFd,
    pub sandbox: Sandbox,
    pub undo: Vec<HostThing>,
}

/// Runs the test on a simulated host, in a thread of its own; says why when it cannot.
pub fn on_a_host(name: &'static str, test: fn(&Host)) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: {name} makes network namespaces, which needs root");
        return;
    }
    let ran = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let host = Host::new(name);
        test(&host);
        std::fs::remove_dir_all(&host.dir).unwrap();
    })
    .join();
    if let Err(panic) = ran {
        std::panic::resume_unwind(panic);
    }
}

impl Host {
    fn new(name: &str) -> Host {
        let dir = std::env::temp_dir().join(format!("rrun-net-{}-{name}", std::process::id()));
        let state = dir.join("state");
        std::fs::create_dir_all(state.join("containers")).unwrap();
        let ns = nl::current().unwrap();
        let lan = new_namespace();
        let mut route = Socket::route().unwrap();
        // lan0 here, eth0 there: a cable to the neighbour.
        let peer = LinkMessageBuilder::<LinkUnspec>::new().name("eth0").setns_by_fd(lan.as_raw_fd());
        let cable = LinkVeth::new("lan0", "eth0").up().set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build())));
        let mut batch = Batch::new();
        batch.push(0, RouteNetlinkMessage::NewLink(cable.build()), 0x600);
        batch.link_up(1, 1);
        route.run(batch).unwrap().unwrap();
        addresses(&mut route, "lan0", &[LAN_HOST, LAN_HOST_6]);
        inside(&lan, || {
            let mut route = Socket::route().unwrap();
            addresses(&mut route, "eth0", &[LAN_NEIGHBOUR, LAN_NEIGHBOUR_6]);
            let mut batch = Batch::new();
            batch.link_up(0, 1);
            // The host as its router: what an attacker on the LAN would set up.
            let index = route.ifindex("eth0").unwrap().unwrap();
            batch.default_route(1, index, LAN_HOST.parse().unwrap(), None);
            batch.default_route(1, index, LAN_HOST_6.parse().unwrap(), None);
            route.run(batch).unwrap().unwrap();
        });
        let net = Netstack::new(&dir.join("root"), &state, Config::default());
        Host { net, state, dir, ns, lan }
    }

    pub fn request(&self, name: &str, networks: &[&str], ports: &[&str]) -> SandboxRequest {
        let id = format!("{name:0<64}").replace(|c: char| !c.is_ascii_hexdigit(), "0");
        std::fs::create_dir_all(self.state.join("containers").join(&id)).unwrap();
        SandboxRequest {
            container_id: id,
            container_name: name.into(),
            hostname: name.into(),
            domainname: String::new(),
            endpoints: networks
                .iter()
                .map(|n| EndpointConfig { network: n.to_string(), ..Default::default() })
                .collect(),
            host_network: false,
            ports: ports.iter().flat_map(|p| publish::parse(p).unwrap()).collect(),
            dns: DnsConfig::default(),
            keep_addresses: false,
            files: None,
            hosts_base: None,
            egress: None,
            host_loopback: Vec::new(),
            rate: Default::default(),
        }
    }

    /// A user-defined network.
    pub fn network(&self, name: &str, change: impl FnOnce(&mut NetworkRequest)) -> Network {
        let mut request = NetworkRequest { name: name.into(), ..Default::default() };
        change(&mut request);
        self.net.create(request).unwrap()
    }

    pub fn start(&self, name: &str, networks: &[&str], ports: &[&str]) -> Container {
        self.try_start(&self.request(name, networks, ports)).unwrap()
    }

    pub fn try_start(&self, request: &SandboxRequest) -> Result<Container> {
        let plan: SandboxPlan = self.net.plan_sandbox(request, Mode::Real)?;
        let undo = plan.undo();
        let ns = new_namespace();
        let mut sandbox = plan.apply(ns.as_fd(), &mut Journal::silent(), 0)?;
        sandbox.serve()?;
        Ok(Container { id: request.container_id.clone(), ns, sandbox, undo })
    }

    /// What the monitor does when the container is over.
    pub fn stop(&self, container: Container) {
        let closed = container.sandbox.close();
        assert!(closed.failures.is_empty(), "{:?}", closed.failures);
        std::fs::remove_dir_all(self.state.join("containers").join(&container.id)).unwrap();
        drop(container.ns);
        closed.linger();
    }
}

impl Container {
    pub fn ip(&self) -> IpAddr {
        self.sandbox.endpoints()[0].ipv4.unwrap().into()
    }

    pub fn ip6(&self) -> IpAddr {
        self.sandbox.endpoints()[0].ipv6.unwrap().into()
    }

    /// Answers every datagram with `word`.
    pub fn echo_udp(&self, port: u16, word: &'static str) {
        let socket = inside(&self.ns, || std::net::UdpSocket::bind(("0.0.0.0", port)).unwrap());
        thread::spawn(move || {
            let mut buf = [0; 64];
            while let Ok((_, from)) = socket.recv_from(&mut buf) {
                let _ = socket.send_to(word.as_bytes(), from);
            }
        });
    }

    fn listen(&self, port: u16) -> TcpListener {
        inside(&self.ns, || TcpListener::bind(("::", port)).or_else(|_| TcpListener::bind(("0.0.0.0", port))).unwrap())
    }

    /// A server on `[::]:port` (and 0.0.0.0) that tells each client the address it sees.
    pub fn serve(&self, port: u16) {
        let listener = self.listen(port);
        answer_clients(listener);
    }
}

/// As [`ask`], while the container's monitor does its work.
pub fn ask_while_served(
    sandbox: &mut Sandbox,
    from: &OwnedFd,
    to: &str,
    port: u16,
) -> std::result::Result<String, String> {
    thread::scope(|scope| {
        let client = scope.spawn(|| ask(from, to, port));
        while !client.is_finished() {
            sandbox.ready();
            thread::sleep(Duration::from_micros(200));
        }
        client.join().unwrap()
    })
}

/// IPv4 addresses of a name, asked inside the container.
pub fn resolve_while_served(container: &mut Container, name: &str) -> Vec<String> {
    use simple_dns::{CLASS, Name, Packet, QCLASS, QTYPE, Question, TYPE, rdata::RData};
    let mut query = Packet::new_query(7);
    query.questions.push(Question::new(
        Name::new_unchecked(name),
        QTYPE::TYPE(TYPE::A),
        QCLASS::CLASS(CLASS::IN),
        false,
    ));
    let bytes = query.build_bytes_vec().unwrap();
    let ns = &container.ns;
    let sandbox = &mut container.sandbox;
    let reply = thread::scope(|scope| {
        let client = scope.spawn(move || {
            inside(ns, || {
                let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
                socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
                socket.send_to(&bytes, "127.0.0.11:53").unwrap();
                let mut buf = [0; 1500];
                let n = socket.recv(&mut buf).unwrap();
                buf[..n].to_vec()
            })
        });
        while !client.is_finished() {
            sandbox.ready();
            thread::sleep(Duration::from_micros(200));
        }
        client.join().unwrap()
    });
    let reply = Packet::parse(&reply).unwrap();
    reply
        .answers
        .iter()
        .filter_map(|r| match &r.rdata {
            RData::A(a) => Some(std::net::Ipv4Addr::from(a.address).to_string()),
            _ => None,
        })
        .collect()
}

/// Packets dropped (or otherwise counted) by the rule with this comment.
pub fn counted(comment: &str) -> u64 {
    let out = std::process::Command::new("nft").args(["list", "table", "inet", "rrun"]).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let rules = text.lines().filter(|l| l.contains(comment));
    rules.filter_map(|l| l.split("counter packets ").nth(1)?.split(' ').next()?.parse::<u64>().ok()).sum()
}

/// Runs `what` in a namespace, in a thread that goes there for it.
pub fn inside<T: Send>(ns: &OwnedFd, what: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        scope
            .spawn(|| {
                move_into_link_name_space(ns.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                what()
            })
            .join()
            .unwrap()
    })
}

/// Connects from a namespace; the server's answer, or why there was none.
pub fn ask(from: &OwnedFd, to: &str, port: u16) -> std::result::Result<String, String> {
    connect(from, to, port, Duration::from_secs(5))
}

/// As [`ask`], where no answer is what is expected: waits less long for it.
pub fn ask_in_vain(from: &OwnedFd, to: &str, port: u16) -> std::result::Result<String, String> {
    connect(from, to, port, Duration::from_millis(300))
}

fn connect(from: &OwnedFd, to: &str, port: u16, patience: Duration) -> std::result::Result<String, String> {
    let to = SocketAddr::new(to.parse().unwrap(), port);
    inside(from, || {
        let mut stream = TcpStream::connect_timeout(&to, patience).map_err(|e| e.kind().to_string())?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).map_err(|e| e.kind().to_string())?;
        Ok(text)
    })
}

pub fn new_namespace() -> OwnedFd {
    thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        nl::current().unwrap()
    })
    .join()
    .unwrap()
}

fn addresses(route: &mut Socket, link: &str, ips: &[&str]) {
    let index = route.ifindex(link).unwrap().unwrap();
    let mut batch = Batch::new();
    for ip in ips {
        let ip: IpAddr = ip.parse().unwrap();
        let prefix = if ip.is_ipv4() { 24 } else { 64 };
        batch.add_address(0, index, IpNetwork::new(ip, prefix).unwrap());
    }
    batch.link_up(0, index);
    route.run(batch).unwrap().unwrap();
}

/// Links, addresses and the elements and rules of our table, to be compared before and after.
pub fn fingerprint() -> String {
    let mut route = Socket::route().unwrap();
    let mut links: Vec<String> = route.links().unwrap().into_iter().map(|l| l.name).collect();
    links.sort();
    let nft = std::process::Command::new("nft").args(["-s", "list", "ruleset"]).output().unwrap();
    format!("{links:?}\n{}", String::from_utf8_lossy(&nft.stdout))
}

/// As [`fingerprint`], when the kernel has taken away the cables of dead namespaces: no more than
/// `live` are left.
pub fn settled_fingerprint(live: usize) -> String {
    for _ in 0..300 {
        let text = fingerprint();
        if text.lines().next().unwrap_or_default().matches("veth").count() <= live {
            return text;
        }
        thread::sleep(Duration::from_millis(10));
    }
    fingerprint()
}

/// Every file below a directory, but for locks (which keep hints).
pub fn files(dir: &std::path::Path) -> Vec<String> {
    let mut all = Vec::new();
    let mut dirs = vec![dir.to_path_buf()];
    while let Some(d) = dirs.pop() {
        for entry in std::fs::read_dir(&d).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                dirs.push(path);
            } else if !entry.file_name().to_string_lossy().contains("lock") {
                all.push(path.display().to_string());
            }
        }
    }
    all.sort();
    all
}

pub fn command(program: &str, args: &[&str]) {
    let status = std::process::Command::new(program).args(args).status().unwrap();
    assert!(status.success(), "{program} {args:?}");
}

/// As [`Container::serve`], in any namespace.
pub fn serve_in(ns: &OwnedFd, port: u16) {
    let listener = inside(ns, || TcpListener::bind(("::", port)).unwrap());
    answer_clients(listener);
}

fn answer_clients(listener: TcpListener) {
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { break };
            let peer = stream.peer_addr().unwrap().ip().to_canonical();
            let _ = stream.write_all(peer.to_string().as_bytes());
        }
    });
}

/// In the current namespace.
pub fn default_routes(link: &str, gateways: &[IpAddr]) {
    let mut route = Socket::route().unwrap();
    let index = route.ifindex(link).unwrap().unwrap();
    let mut batch = Batch::new();
    for gateway in gateways {
        batch.default_route(0, index, *gateway, None);
    }
    route.run(batch).unwrap().unwrap();
}

/// In the current namespace, one address by way of another.
pub fn host_route(link: &str, to: IpAddr, via: IpAddr) {
    let (IpAddr::V4(to), IpAddr::V4(via)) = (to, via) else { panic!("IPv4 only") };
    let mut route = Socket::route().unwrap();
    let index = route.ifindex(link).unwrap().unwrap();
    let message = rtnetlink::RouteMessageBuilder::<std::net::Ipv4Addr>::new()
        .destination_prefix(to, 32)
        .output_interface(index)
        .gateway(via)
        .build();
    let mut batch = Batch::new();
    batch.push(0, RouteNetlinkMessage::NewRoute(message), 0x400);
    route.run(batch).unwrap().unwrap();
}

/// Sends a TCP SYN for `to:port` to the machine that has address `via`: a raw socket routes by the
/// one and writes the other into the packet.
pub fn forge_syn(to: &str, port: u16, via: &str) {
    use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};
    let source: std::net::Ipv4Addr = "198.51.100.9".parse().unwrap();
    let target: std::net::Ipv4Addr = to.parse().unwrap();
    let mut packet = vec![0u8; 40];
    packet[0] = 0x45;
    packet[3] = 40;
    packet[8] = 64;
    packet[9] = 6;
    packet[12..16].copy_from_slice(&source.octets());
    packet[16..20].copy_from_slice(&target.octets());
    packet[20..22].copy_from_slice(&4444u16.to_be_bytes());
    packet[22..24].copy_from_slice(&port.to_be_bytes());
    packet[32] = 0x50;
    packet[33] = 0x02;
    let s = socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::RAW)).unwrap();
    let via = SocketAddr::new(via.parse().unwrap(), 0);
    sendto(&s, &packet, SendFlags::empty(), &via).unwrap();
    thread::sleep(Duration::from_millis(20));
}
