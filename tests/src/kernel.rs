//! What this machine's kernel can do, found out by doing it: in a scratch network namespace that
//! dies with the probe, so that nothing is left on the machine.

use std::process::{Command, Stdio};

/// Mostly the `ip link` commands that make one of a kind; those that sit on another link get a veth.
const PROBES: &[(&str, &str)] = &[
    ("dummy", "ip link add probe type dummy"),
    ("macvlan", "ip link add p0 type veth peer name p1; ip link add probe link p0 type macvlan mode bridge"),
    ("ipvlan", "ip link add p0 type veth peer name p1; ip link add probe link p0 type ipvlan mode l2"),
    ("8021q", "ip link add p0 type veth peer name p1; ip link add probe link p0 type vlan id 2"),
    ("vxlan", "ip link add probe type vxlan id 2 dstport 4789"),
    ("tbf", "ip link set lo up; tc qdisc add dev lo root tbf rate 1mbit burst 16kb limit 32kb"),
    ("wireguard", "ip link add probe type wireguard"),
    ("tun", "ip tuntap add dev probe mode tun"),
    ("bridge-vlan", "ip link add probe type bridge vlan_filtering 1"),
    ("vrf", "ip link add probe type vrf table 100"),
    ("SCTP", "\"$RRUN_PEER\" has-sctp"),
    ("AppArmor", "test -e /sys/kernel/security/apparmor/profiles"),
];

/// Does this kernel have it? Panics for a name that has no probe.
pub fn has(feature: &str) -> bool {
    let (_, script) = PROBES
        .iter()
        .find(|(name, _)| *name == feature)
        .unwrap_or_else(|| panic!("no probe for {feature}: add one to tests/src/kernel.rs"));
    let mut probe = Command::new("unshare");
    probe.args(["-n", "sh", "-ec", script]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    probe.status().expect("unshare (util-linux)").success()
}

/// `true`, and says so, where the kernel lacks one of these: the test then returns at once.
pub fn lacks(features: &[&str]) -> bool {
    match features.iter().find(|f| !has(f)) {
        Some(missing) => {
            println!("skipped: kernel has no {missing}");
            true
        }
        None => false,
    }
}
