//! What the tests of macvlan and ipvlan networks have in common: a host whose `lan0` is the parent.

use crate::Host;
use crate::host::NEIGHBOUR6;
use serde_json::Value;

/// The LAN of [`Host::with_lan`], and the part of it that containers get.
pub const SUBNET: &str = "198.51.100.0/24";
pub const RANGE: &str = "198.51.100.64/26";
pub const LAN6: [&str; 7] =
    ["--ipv6", "--subnet", "2001:db8:51::/64", "--ip-range", "2001:db8:51::100/120", "--gateway", NEIGHBOUR6];

#[track_caller]
pub fn create(host: &Host, driver: &str, name: &str, options: &[&str]) -> String {
    host.ok(&[&["network", "create", "-d", driver], options, &[name]].concat())
}

#[track_caller]
pub fn inspect(host: &Host, network: &str) -> Value {
    serde_json::from_str::<Value>(&host.ok(&["network", "inspect", network])).expect("JSON")[0].clone()
}

/// One field of what a container has on a network.
#[track_caller]
pub fn endpoint(host: &Host, container: &str, network: &str, field: &str) -> String {
    host.ok(&["inspect", "-f", &format!("{{{{.NetworkSettings.Networks.{network}.{field}}}}}"), container])
}

/// `ip -j -d link show` of an interface inside a running container.
#[track_caller]
pub fn link_of(host: &Host, container: &str, ifname: &str) -> Value {
    let pid = host.ok(&["inspect", "-f", "{{.State.Pid}}", container]);
    let text = host.sh(&format!("nsenter -t {pid} -n ip -j -d link show {ifname}"));
    serde_json::from_str::<Value>(&text).expect("ip prints JSON")[0].clone()
}

#[track_caller]
pub fn is_gone(host: &Host, link: &str) {
    assert_ne!(host.try_sh(&format!("ip link show {link}")).code, 0, "{link} is still there");
}
