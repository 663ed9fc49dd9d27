//! Addresses that the host answers for on its own wire, in its containers' place.

use super::{sysctl, sysctl_if_there};
use crate::model::Endpoint;
use crate::nl::{Batch, Socket};
use plan::{Error, Result};
use std::net::Ipv6Addr;

/// An interface's name as part of a setting's name, where a dot would end it.
pub(crate) fn sysctl_name(interface: &str) -> String {
    interface.replace('.', "/")
}

/// Answers for the address from now on. The settings stay, as that of forwarding does: without entries
/// they do nothing.
pub(crate) fn add_proxy(route: &mut Socket, ip: Ipv6Addr, uplink: &str) -> Result<()> {
    let doing = || format!("answer for {ip} on {uplink}");
    let index = route.ifindex(uplink)?.ok_or_else(|| {
        Error::not_found(doing()).with_cause("there is no such interface").with_hint("`ip link` shows those there are")
    })?;
    sysctl(&format!("ipv6/conf/{uplink}/proxy_ndp"), "1")
        .map_err(|e| e.with_hint(format!("is IPv6 switched off on {uplink}?")))?;
    // A proxy waits for up to 0.8 s, lest it answer before the station itself (RFC 4861, 7.2.8). There is
    // no station but behind this host.
    sysctl_if_there(&format!("ipv6/neigh/{uplink}/proxy_delay"), "0")?;
    let mut batch = Batch::new();
    batch.proxy_neighbour(0, index, ip);
    route.run(batch)?.map_err(|f| f.error(doing()))
}

/// Do entries of this interface count?
pub(crate) fn is_on(uplink: &str) -> bool {
    let on = |name: &str| std::fs::read(format!("/proc/sys/net/ipv6/conf/{name}/proxy_ndp"));
    ["all", uplink].into_iter().any(|name| on(name).is_ok_and(|t| t.first() == Some(&b'1')))
}

/// All addresses that the host answers for, by interface.
pub(crate) fn proxies(route: &mut Socket) -> Result<Vec<(Ipv6Addr, String)>> {
    let links = route.links()?;
    let name = |index: u32| links.iter().find(|l| l.index == index).map(|l| l.name.clone());
    Ok(route.proxies()?.into_iter().filter_map(|(index, ip)| Some((ip, name(index)?))).collect())
}

/// What of these is not answered for any more, and now is again.
pub(crate) fn restore_proxies(route: &mut Socket, endpoints: &[Endpoint]) -> Result<Vec<(Ipv6Addr, String)>> {
    let mut lost: Vec<_> = endpoints.iter().flat_map(Endpoint::answered).collect();
    if lost.is_empty() {
        return Ok(lost);
    }
    let there = proxies(route)?;
    lost.retain(|p| !(there.contains(p) && is_on(&p.1)));
    // Without its interface nothing can be done, and the others need not wait for it.
    lost.retain(|(_, uplink)| matches!(route.ifindex(uplink), Ok(Some(_))));
    lost.iter().try_for_each(|(ip, uplink)| add_proxy(route, *ip, uplink))?;
    Ok(lost)
}

/// One that is not there is no error, nor is an interface that is gone: its entries went along.
pub(crate) fn delete_proxy(route: &mut Socket, ip: Ipv6Addr, uplink: &str) -> Result<()> {
    let Some(index) = route.ifindex(uplink)? else { return Ok(()) };
    let mut batch = Batch::new();
    batch.delete_proxy_neighbour(0, index, ip);
    match route.run(batch)? {
        Err(f) if !matches!(f.errno, libc::ENOENT | libc::ESRCH | libc::ENODEV) => {
            Err(f.error(format!("stop answering for {ip} on {uplink}")))
        }
        _ => Ok(()),
    }
}
