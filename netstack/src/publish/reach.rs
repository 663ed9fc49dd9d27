//! From where a published port can be reached, in words.

use crate::model::PortBinding;
use crate::nl::Socket;
use ipnetwork::IpNetwork;
use plan::Result;
use std::net::IpAddr;

/// The host's interfaces and their addresses, as far as others can reach them.
#[derive(Debug)]
pub struct Reach {
    addresses: Vec<(String, IpAddr)>,
}

impl Reach {
    /// Looks at the host.
    ///
    /// # Errors
    /// The kernel's.
    pub fn observe() -> Result<Reach> {
        let mut route = Socket::route()?;
        let links = route.links()?;
        let name = |index: u32| links.iter().find(|l| l.index == index).map(|l| l.name.clone());
        let addresses = route.addresses()?;
        let addresses =
            addresses.into_iter().filter_map(|(i, net)| Some((name(i)?, net.ip()))).filter(|(_, ip)| !is_local(*ip));
        Ok(Reach { addresses: addresses.collect() })
    }

    /// `this host only`, `10.0.0.0/8 only, by every address of this host (eth0 192.0.2.1)`, …
    pub fn from(&self, b: &PortBinding) -> String {
        let by = match (&b.iface, b.host_ip) {
            _ if b.routed => "whoever has a route to the container's own address".to_string(),
            (Some(iface), _) => format!("what arrives by {}", self.interface(iface, b.host_ip.is_ipv4())),
            (None, ip) if ip.is_loopback() => "this host only".to_string(),
            (None, ip) if ip.is_unspecified() => self.everywhere(ip.is_ipv4()),
            (None, ip) => match self.addresses.iter().find(|(_, own)| *own == ip) {
                Some((name, _)) => format!("whatever reaches {ip} ({name})"),
                None => format!("nowhere: {ip} is no address of this host now"),
            },
        };
        match b.from.as_slice() {
            [] => by,
            from => format!("{} only: {by}", from.iter().map(IpNetwork::to_string).collect::<Vec<_>>().join(", ")),
        }
    }

    fn everywhere(&self, ipv4: bool) -> String {
        let own = |ip: &IpAddr| ip.is_ipv4() == ipv4;
        let list: Vec<String> =
            self.addresses.iter().filter(|(_, ip)| own(ip)).map(|(name, ip)| format!("{name} {ip}")).collect();
        match list.is_empty() {
            true => "this host only: it has no address that others could reach".to_string(),
            false => format!("every network this host is on ({})", list.join(", ")),
        }
    }

    fn interface(&self, iface: &str, ipv4: bool) -> String {
        let own = self.addresses.iter().filter(|(name, ip)| name == iface && ip.is_ipv4() == ipv4);
        let list: Vec<String> = own.map(|(_, ip)| ip.to_string()).collect();
        match list.is_empty() {
            true => format!("{iface} (no address now)"),
            false => format!("{iface} ({})", list.join(", ")),
        }
    }

    /// Whether anybody but this host can connect.
    pub fn is_open(b: &PortBinding) -> bool {
        b.from.is_empty() && b.iface.is_none() && b.host_ip.is_unspecified()
    }
}

/// Not for others: loopback, and IPv6's addresses of one link.
fn is_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Proto;

    #[test]
    fn in_words() {
        let addresses = [("lan0", "192.0.2.1"), ("rrun0", "172.17.0.1"), ("lan0", "2001:db8::1")];
        let addresses = addresses.iter().map(|(n, ip)| (n.to_string(), ip.parse().unwrap())).collect();
        let reach = Reach { addresses };
        let says = |ip: &str, iface: Option<&str>, from: &[&str]| {
            reach.from(&PortBinding {
                host_ip: ip.parse().unwrap(),
                host: (8080, 8080),
                container: (80, 80),
                proto: Proto::Tcp,
                iface: iface.map(str::to_string),
                from: from.iter().map(|f| f.parse().unwrap()).collect(),
                routed: false,
            })
        };
        assert_eq!(says("127.0.0.1", None, &[]), "this host only");
        assert_eq!(says("0.0.0.0", None, &[]), "every network this host is on (lan0 192.0.2.1, rrun0 172.17.0.1)");
        assert_eq!(says("::", None, &[]), "every network this host is on (lan0 2001:db8::1)");
        assert_eq!(says("192.0.2.1", None, &[]), "whatever reaches 192.0.2.1 (lan0)");
        assert_eq!(says("192.0.2.9", None, &[]), "nowhere: 192.0.2.9 is no address of this host now");
        assert_eq!(says("0.0.0.0", Some("lan0"), &[]), "what arrives by lan0 (192.0.2.1)");
        assert_eq!(
            says("192.0.2.1", None, &["10.0.0.0/8", "192.0.2.0/24"]),
            "10.0.0.0/8, 192.0.2.0/24 only: whatever reaches 192.0.2.1 (lan0)"
        );
    }
}
