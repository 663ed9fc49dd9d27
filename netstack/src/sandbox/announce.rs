//! Telling the neighbours where an address is, while they may still remember it under another MAC.
//!
//! The kernel says it once in IPv4 when the interface comes up; one packet may be lost, and a switch
//! may just be learning. The monitor repeats it (and says it in IPv6, where the kernel is silent),
//! after the container has started and without keeping anything waiting.

use crate::model::Endpoint;
use crate::nl::{self, Socket, Visit, packet};
use plan::Result;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// What is still to be said. Empty: nothing.
#[derive(Debug, Default)]
pub(crate) struct Announcer {
    speakers: Vec<Speaker>,
}

#[derive(Debug)]
struct Speaker {
    ifname: String,
    mac: [u8; 6],
    ipv4: Vec<Ipv4Addr>,
    ipv6: Vec<Ipv6Addr>,
    interval: Duration,
    due: Instant,
    /// How often yet. In IPv4 the kernel was the first.
    left4: u32,
    left6: u32,
}

impl Announcer {
    /// For interfaces that came up now.
    pub fn start<'a>(&mut self, endpoints: impl IntoIterator<Item = &'a Endpoint>) {
        let now = Instant::now();
        for e in endpoints {
            let Some(mac) = e.mac_bytes().filter(|_| e.announce.messages > 0) else { continue };
            let interval = Duration::from_millis(e.announce.interval_ms);
            let local = |v4: bool| e.link_local.iter().filter(move |ip| ip.is_ipv4() == v4).copied();
            let v4 = e.ipv4.map(IpAddr::V4).into_iter().chain(local(true));
            let v6 = e.ipv6.map(IpAddr::V6).into_iter().chain(local(false));
            let speaker = Speaker {
                ifname: e.ifname.clone(),
                mac,
                ipv4: v4.filter_map(|ip| if let IpAddr::V4(ip) = ip { Some(ip) } else { None }).collect(),
                ipv6: v6.filter_map(|ip| if let IpAddr::V6(ip) = ip { Some(ip) } else { None }).collect(),
                interval,
                due: if e.ipv6.is_some() { now } else { now + interval },
                // A first turn that IPv6 does not need is the kernel's own announcement.
                left4: match (e.ipv4.is_some(), e.ipv6.is_some()) {
                    (true, true) => e.announce.messages,
                    (true, false) => e.announce.messages - 1,
                    (false, _) => 0,
                },
                left6: if e.ipv6.is_some() { e.announce.messages } else { 0 },
            };
            self.speakers.push(speaker);
        }
        self.speakers.retain(|s| s.left4 > 0 || s.left6 > 0);
    }

    pub fn timeout(&self) -> Option<Duration> {
        let due = self.speakers.iter().map(|s| s.due).min()?;
        Some(due.saturating_duration_since(Instant::now()))
    }

    /// Says what is due, in the namespace of `netns`.
    pub fn ready(&mut self, netns: BorrowedFd<'_>) {
        let now = Instant::now();
        if !self.speakers.iter().any(|s| s.due <= now) {
            return;
        }
        // An interface that is gone, or a container that ends, has nothing to announce.
        let _ = self.speak(netns, now);
        for s in self.speakers.iter_mut().filter(|s| s.due <= now) {
            s.due = now + s.interval;
            (s.left4, s.left6) = (s.left4.saturating_sub(1), s.left6.saturating_sub(1));
        }
        self.speakers.retain(|s| s.left4 > 0 || s.left6 > 0);
    }

    fn speak(&self, netns: BorrowedFd<'_>, now: Instant) -> Result<()> {
        let home = nl::current()?;
        let _visit = Visit::enter(netns, home.as_fd())?;
        let route = Socket::route()?;
        for s in self.speakers.iter().filter(|s| s.due <= now) {
            let Some(index) = route.ifindex(&s.ifname)? else { continue };
            if s.left4 > 0 {
                let socket = packet::PacketSocket::open(index, packet::ARP)?;
                for ip in &s.ipv4 {
                    // Lost is lost: that is why there are three.
                    let _ = socket.send(packet::BROADCAST, &arp(s.mac, *ip));
                }
            }
            if s.left6 > 0 {
                let socket = packet::PacketSocket::open(index, packet::IPV6)?;
                for ip in &s.ipv6 {
                    let _ = socket.send(ALL_NODES_MAC, &advertisement(s.mac, *ip));
                }
            }
        }
        Ok(())
    }
}

/// An ARP announcement (RFC 5227): a request for the address by its owner.
fn arp(mac: [u8; 6], ip: Ipv4Addr) -> Vec<u8> {
    // Ethernet, IPv4, their lengths, request.
    let mut p = vec![0, 1, 8, 0, 6, 4, 0, 1];
    p.extend(mac);
    p.extend(ip.octets());
    p.extend([0; 6]);
    p.extend(ip.octets());
    p
}

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const ICMPV6: u8 = 58;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const OVERRIDE: u8 = 0x20;
const TARGET_LINK_LAYER_ADDRESS: u8 = 2;

/// An unsolicited neighbour advertisement (RFC 4861, 7.2.6), with the IPv6 header.
fn advertisement(mac: [u8; 6], ip: Ipv6Addr) -> Vec<u8> {
    let mut body = vec![NEIGHBOUR_ADVERTISEMENT, 0, 0, 0, OVERRIDE, 0, 0, 0];
    body.extend(ip.octets());
    body.extend([TARGET_LINK_LAYER_ADDRESS, 1]);
    body.extend(mac);
    let length = body.len() as u8;
    let (source, target) = (ip.octets(), ALL_NODES.octets());
    let sum = packet::checksum(&[&source, &target, &[0, 0, 0, length, 0, 0, 0, ICMPV6], &body]);
    body[2..4].copy_from_slice(&sum.to_be_bytes());
    // Hop limit 255 proves that it comes from the link itself.
    let mut p = vec![0x60, 0, 0, 0, 0, length, ICMPV6, 255];
    p.extend(source);
    p.extend(target);
    p.extend(body);
    p
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::tests::endpoint;

    #[test]
    fn three_times_in_all() {
        let mut quiet = endpoint("quiet", "10.0.0.4", None);
        quiet.announce.messages = 0;
        let mut a = Announcer::default();
        a.start([&endpoint("four", "10.0.0.2", None), &endpoint("both", "10.0.0.3", Some("fd00::3")), &quiet]);
        let left: Vec<_> = a.speakers.iter().map(|s| (s.left4, s.left6)).collect();
        assert_eq!(left, [(2, 0), (3, 3)], "the kernel speaks first where there is no IPv6");
        assert!(a.timeout().is_some_and(|t| t.is_zero()), "it says nothing in IPv6, so that is due");
    }

    #[test]
    fn packets_say_what_they_should() {
        let mac = [2, 0, 0, 0, 0, 1];
        assert_eq!(arp(mac, [10, 0, 0, 2].into()).len(), 28);
        let na = advertisement(mac, "fd00::2".parse().expect("an address"));
        assert_eq!((na.len(), na[6], na[7]), (72, ICMPV6, 255));
        // A sum over everything, the checksum included, is all ones.
        let (source, target) = (&na[8..24], &na[24..40]);
        assert_eq!(packet::checksum(&[source, target, &[0, 0, 0, 32, 0, 0, 0, ICMPV6], &na[40..]]), 0);
    }
}
