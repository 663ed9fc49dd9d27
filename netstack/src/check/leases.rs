//! Leases and records in the volatile state whose owner is gone.

use super::{Damage, Finding, Wanted};
use crate::model::Endpoint;
use crate::networks::{Netstack, VERSION, read_json};
use crate::publish;
use plan::Result;
use std::path::{Path, PathBuf};

pub fn check(netstack: &Netstack, wanted: &Wanted, findings: &mut Vec<Finding>, damage: &mut Damage) -> Result<()> {
    let state = &netstack.state;
    let lives = |id: &str| !id.is_empty() && state.join("containers").join(id).is_dir();
    for dir in directories(&state.join("networks")) {
        let id = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let leases = netstack.leases(&id);
        for (ip, owner) in leases.all() {
            let path = dir.join("leases").join(ip.to_string());
            if leases.owner(ip).is_none() && !leases.is_remembered(&owner) && !wanted.leases.contains_key(&path) {
                findings.push(stale("lease-stale", &path, &owner));
            }
        }
        for entry in std::fs::read_dir(dir.join("endpoints")).into_iter().flatten().flatten() {
            match read_json::<Endpoint>(&entry.path(), VERSION, |e| e.version) {
                Ok(Some(e)) if !lives(&e.container_id) => {
                    findings.push(stale("endpoint-stale", &entry.path(), &e.container_id));
                }
                Err(e) => findings.push(Finding {
                    code: "record-damaged",
                    thing: entry.path().display().to_string(),
                    problem: e.to_string(),
                    fix: Some(format!("rm {}", entry.path().display())),
                    ours: false,
                    repaired: false,
                }),
                _ => {}
            }
        }
    }
    for (path, owner) in publish::all_leases(state) {
        if !lives(&owner) && !wanted.leases.contains_key(&path) {
            findings.push(stale("port-stale", &path, &owner));
        }
    }
    let lost = wanted.leases.iter().filter(|(path, owner)| lives(owner) && !path.exists());
    damage.lost = lost.map(|(path, owner)| (path.clone(), owner.clone())).collect();
    Ok(())
}

/// Without it the address or port could be given to somebody else.
pub fn loss((path, owner): &(PathBuf, String)) -> Finding {
    let problem = format!("container {} has it, but the file that says so is gone", short(owner));
    Finding::ours("lease-missing", path.display().to_string(), problem)
}

fn stale(code: &'static str, path: &Path, owner: &str) -> Finding {
    Finding::ours(code, path.display().to_string(), format!("its owner, container {}, is gone", short(owner)))
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

fn directories(of: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(of).into_iter().flatten().flatten().map(|e| e.path()).filter(|p| p.is_dir()).collect()
}

pub fn repair(netstack: &Netstack, wanted: &Wanted, damage: &Damage) -> Result<()> {
    netstack.sweep()?;
    for (path, owner) in publish::all_leases(&netstack.state) {
        if !netstack.state.join("containers").join(&owner).is_dir() && !wanted.leases.contains_key(&path) {
            publish::release(&path, &owner)?;
        }
    }
    for (path, owner) in &damage.lost {
        publish::restore_lease(path, owner)?;
    }
    Ok(())
}
