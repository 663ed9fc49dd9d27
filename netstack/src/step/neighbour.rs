//! The words of the host's answers in a container's place (NDP proxy).

use std::net::Ipv6Addr;

pub(super) fn line(ip: Ipv6Addr, uplink: &str) -> String {
    format!("answer on {uplink} for {ip}, and pass on what comes for it")
}

pub(super) const WHY: &str = "The router upstream takes the whole prefix to be on its own wire: for each \
     address it asks there which station has it (neighbour solicitation, RFC 4861). The container is behind \
     the host and does not hear that, so the host answers with its own station address. The kernel does it \
     for exactly the addresses it was told; at once, because nobody else can have this one.";

pub(super) fn shell(ip: Ipv6Addr, uplink: &str) -> String {
    let slashed = crate::apply::neighbour::sysctl_name(uplink);
    format!(
        "sysctl -w net.ipv6.conf.{slashed}.proxy_ndp=1 net.ipv6.neigh.{slashed}.proxy_delay=0\nip -6 neigh add proxy {ip} dev {uplink}"
    )
}
