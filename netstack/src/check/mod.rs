//! Is the host's network as rrun left it, and will others let our packets through?
//!
//! Every check compares the kernel, or the volatile state, with what the records say. What is ours can be
//! put right from them, as often as one likes; what is another program's is only explained.

mod foreign;
mod leases;
mod links;
mod neighbours;
mod prefixes;
mod table;

pub use table::{Dropped, drops};

use crate::driver::bridge;
use crate::firewall::Element;
use crate::model::{Endpoint, Network};
use crate::networks::{BridgeOptions, Netstack};
use plan::{HostThing, Result};
use serde::Serialize;
use std::collections::{HashMap, HashSet};
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::time::Duration;

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Finding {
    /// What sort of thing it is, for scripts.
    pub code: &'static str,
    /// Where.
    pub thing: String,
    pub problem: String,
    /// The line that puts it right; none where only `--repair` can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
    /// `--repair` puts it right.
    pub ours: bool,
    pub repaired: bool,
}

impl Finding {
    fn ours(code: &'static str, thing: impl Into<String>, problem: impl Into<String>) -> Finding {
        Finding { code, thing: thing.into(), problem: problem.into(), fix: None, ours: true, repaired: false }
    }

    fn with_fix(mut self, fix: impl Into<String>) -> Finding {
        self.fix = Some(fix.into());
        self
    }
}

/// What the records say there should be.
struct Wanted {
    /// Bridge networks, with the endpoints of living containers on each.
    networks: Vec<(Network, Vec<Endpoint>)>,
    /// Elements without which something does not work.
    elements: HashSet<Element>,
    /// Elements that may be there, too: of networks nobody uses just now, of containers that are being
    /// started.
    known: HashSet<Element>,
    /// Leases of living containers, or of such as are being started, and their owners.
    leases: HashMap<PathBuf, String>,
    /// Addresses that the host answers for, or is about to, and on which interface.
    answered: HashSet<(Ipv6Addr, String)>,
}

impl Wanted {
    fn bridges(&self) -> Vec<String> {
        self.in_use().map(|(n, _)| BridgeOptions::of(n).bridge_name(&n.id)).collect()
    }

    fn in_use(&self) -> impl Iterator<Item = &(Network, Vec<Endpoint>)> {
        self.networks.iter().filter(|(_, endpoints)| !endpoints.is_empty())
    }
}

/// What is too much or too little, thing by thing.
#[derive(Default)]
struct Damage {
    /// Elements.
    missing: HashSet<Element>,
    stale: HashSet<Element>,
    /// Interfaces.
    leaked: HashSet<String>,
    /// Leases of the living without a file.
    lost: HashSet<(PathBuf, String)>,
    /// Addresses that the host answers for in nobody's place.
    strangers: HashSet<(Ipv6Addr, String)>,
}

impl Damage {
    fn is_empty(&self) -> bool {
        self.missing.is_empty()
            && self.stale.is_empty()
            && self.leaked.is_empty()
            && self.lost.is_empty()
            && self.strangers.is_empty()
    }

    fn agree(&mut self, later: &Wanted) {
        let cables: HashSet<&str> =
            later.networks.iter().flat_map(|(_, endpoints)| endpoints).map(|e| e.host_ifname.as_str()).collect();
        self.missing.retain(|e| later.elements.contains(e));
        self.stale.retain(|e| !later.known.contains(e));
        self.leaked.retain(|l| !cables.contains(l.as_str()));
        self.lost.retain(|(path, _)| later.leases.contains_key(path));
        self.strangers.retain(|s| !later.answered.contains(s));
    }

    fn and(mut self, other: &Damage) -> Damage {
        self.missing.retain(|e| other.missing.contains(e));
        self.stale.retain(|e| other.stale.contains(e));
        self.leaked.retain(|l| other.leaked.contains(l));
        self.lost.retain(|l| other.lost.contains(l));
        self.strangers.retain(|s| other.strangers.contains(s));
        self
    }

    fn findings(&self) -> Vec<Finding> {
        let mut findings = table::element_findings(self);
        findings.extend(self.leaked.iter().map(links::leak));
        findings.extend(self.lost.iter().map(leases::loss));
        findings.extend(self.strangers.iter().map(neighbours::stranger));
        findings
    }
}

/// Longer than a start, or an end, needs from the first change of the host to the record of it.
const A_START: Duration = Duration::from_millis(150);

impl Netstack {
    /// Looks, and changes nothing. `written` reads the undo lists of all containers.
    ///
    /// # Errors
    /// The kernel or `nft` does not answer.
    pub fn check(&self, written: &dyn Fn() -> Vec<HostThing>) -> Result<Vec<Finding>> {
        Ok(self.confirmed(written)?.0)
    }

    /// As [`Netstack::check`], and puts right what is ours. Findings that are gone afterwards are
    /// marked as repaired.
    ///
    /// # Errors
    /// As [`Netstack::check`]; something resists.
    pub fn check_and_repair(&self, written: &dyn Fn() -> Vec<HostThing>) -> Result<Vec<Finding>> {
        let (mut findings, damage) = self.confirmed(written)?;
        if findings.iter().any(|f| f.ours) {
            let wanted = self.wanted(&written())?;
            links::repair_sysctls(&wanted)?;
            table::repair(self, &wanted, &damage)?;
            links::repair(self, &damage)?;
            neighbours::repair(&damage)?;
            leases::repair(self, &wanted, &damage)?;
            let left = self.check(written)?;
            for f in &mut findings {
                f.repaired = f.ours && !left.contains(f);
            }
            findings.extend(left.into_iter().filter(|l| !findings.contains(l)).collect::<Vec<_>>());
        }
        Ok(findings)
    }

    /// What is not right now and was not a moment ago: a container that is just being started, or has
    /// just ended, is no finding.
    fn confirmed(&self, written: &dyn Fn() -> Vec<HostThing>) -> Result<(Vec<Finding>, Damage)> {
        let (first, before) = self.look(written)?;
        if first.is_empty() && before.is_empty() {
            return Ok((first, before));
        }
        std::thread::sleep(A_START);
        let (mut findings, now) = self.look(written)?;
        findings.retain(|f| first.contains(f));
        let damage = now.and(&before);
        findings.extend(damage.findings());
        Ok((findings, damage))
    }

    fn look(&self, written: &dyn Fn() -> Vec<HostThing>) -> Result<(Vec<Finding>, Damage)> {
        let wanted = self.wanted(&written())?;
        let (mut findings, mut damage) = (Vec::new(), Damage::default());
        links::sysctls(&wanted, &mut findings)?;
        links::bridges(&wanted, &mut findings, &mut damage)?;
        prefixes::check(self, &wanted, &mut findings)?;
        neighbours::check(&wanted, &mut findings, &mut damage)?;
        if !wanted.bridges().is_empty() {
            findings.extend(foreign::find(&table::ruleset()?, &wanted.bridges()));
            findings.extend(foreign_legacy(&wanted.bridges()));
        }
        table::check(&wanted, &mut findings, &mut damage)?;
        leases::check(self, &wanted, &mut findings, &mut damage)?;
        // The kernel was looked at in between: what is too much or too little must be so by both records.
        damage.agree(&self.wanted(&written())?);
        Ok((findings, damage))
    }

    fn wanted(&self, written: &[HostThing]) -> Result<Wanted> {
        let mut wanted = Wanted {
            networks: Vec::new(),
            elements: HashSet::new(),
            known: HashSet::new(),
            leases: HashMap::new(),
            answered: HashSet::new(),
        };
        for network in self.networks()?.into_iter().filter(|n| n.driver == "bridge" && !n.config_only) {
            let endpoints = self.endpoints(&network)?;
            let elements = crate::firewall::network_elements(&network);
            if !endpoints.is_empty() {
                wanted.elements.extend(elements.iter().cloned());
            }
            wanted.known.extend(elements);
            wanted.answered.extend(endpoints.iter().flat_map(Endpoint::answered));
            wanted.networks.push((network, endpoints));
        }
        for id in self.living() {
            // What cannot be read is its own finding, of `ps`.
            if let (Ok(bindings), Ok(endpoints)) = (self.bindings_of(&id), self.endpoints_of(&id)) {
                wanted.elements.extend(bridge::published(&endpoints, &bindings));
            }
        }
        wanted.known.extend(wanted.elements.iter().cloned());
        for thing in written {
            match thing {
                HostThing::NftElement { set, element } => wanted.known.extend(Element::parse(set, element).ok()),
                HostThing::Lease { path, owner } => {
                    wanted.leases.insert(path.clone(), owner.clone());
                }
                HostThing::Neighbour { address, device } => {
                    wanted.answered.insert((*address, device.clone()));
                }
                _ => {}
            }
        }
        Ok(wanted)
    }
}

/// Tables of the old iptables are not nftables', and nft does not show them.
fn foreign_legacy(bridges: &[String]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (names, program, family) in [
        ("/proc/net/ip_tables_names", "iptables-legacy", "ip"),
        ("/proc/net/ip6_tables_names", "ip6tables-legacy", "ip6"),
    ] {
        if !std::fs::read_to_string(names).is_ok_and(|t| t.lines().any(|l| l == "filter")) {
            continue;
        }
        let Ok(output) = std::process::Command::new(program).args(["-S", "FORWARD"]).output() else { continue };
        let rules = String::from_utf8_lossy(&output.stdout).into_owned();
        if !rules.lines().any(|l| l == "-P FORWARD DROP") {
            continue;
        }
        let mut fix = Vec::new();
        for bridge in bridges {
            for direction in ["-i", "-o"] {
                let accepts = format!("-A FORWARD {direction} {bridge} -j ACCEPT");
                if !rules.lines().any(|l| l == accepts) {
                    fix.push(format!("{program} -I FORWARD {direction} {bridge} -j ACCEPT"));
                }
            }
        }
        if !fix.is_empty() {
            findings.push(Finding {
                code: "foreign-drop",
                thing: format!("legacy {family} table filter, chain FORWARD"),
                problem: "packets from and to rrun's bridges end here: its policy is DROP".into(),
                fix: Some(fix.join(" && ")),
                ours: false,
                repaired: false,
            });
        }
    }
    findings
}
