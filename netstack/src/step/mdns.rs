//! The words of multicast DNS.

pub(super) fn line(network: &str, uplink: &str) -> String {
    let uplink = if uplink == "auto" { "the interface of the default route" } else { uplink };
    format!("carry multicast DNS between network {network} and {uplink}")
}

pub(super) const WHY: &str = "Printers, speakers and other machines announce themselves to a multicast address \
     whose packets no router forwards, so a container on a bridge neither hears them nor is heard. One monitor \
     of the network repeats them on the other side; behind NAT it puts the host's address and published port \
     in the place of the container's.";
