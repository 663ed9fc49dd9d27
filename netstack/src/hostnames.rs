//! Names of containers for the host itself: a marked block in its /etc/hosts, if the configuration
//! asks for it (`host-names = true`).
//!
//! A file that every program reads already needs no daemon, no port and no changed resolver. The
//! block is written anew from the endpoint records whenever a container comes or goes; what stands
//! outside of it is the administrator's, is kept as it is, and goes first: a container cannot take a
//! name that the host already has, nor one with a dot, which might be somebody's domain.

use crate::model::Endpoint;
use crate::networks::Netstack;
use plan::{Error, Result, ResultExt};
use rustix::fs::FlockOperation;
use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::net::IpAddr;
use std::path::Path;

/// The host's.
pub(crate) const HOSTS: &str = "/etc/hosts";
const BEGIN: &str = "# names of containers, kept by rrun (host-names in its config.toml)";
const END: &str = "# end of rrun's names";

impl Netstack {
    /// Makes the host's file say what the endpoint records say. Does nothing unless configured.
    ///
    /// # Errors
    /// The file cannot be read or written; it is then as before.
    pub fn export_names(&self) -> Result<()> {
        if !self.config.host_names {
            return Ok(());
        }
        // One at a time, from reading the records to writing the file: the last one tells the truth.
        let lock = self.state.join("hosts.lock");
        let doing = || format!("lock {}", lock.display());
        let held = OpenOptions::new().create(true).truncate(false).write(true).open(&lock).doing(doing)?;
        rustix::fs::flock(&held, FlockOperation::LockExclusive).doing(doing)?;
        let mut endpoints = Vec::new();
        for network in self.networks()? {
            endpoints.extend(self.endpoints(&network)?);
        }
        // It may be a link; what it leads to is replaced.
        let path = fs::canonicalize(HOSTS).doing(|| format!("find {HOSTS}"))?;
        let before = fs::read_to_string(&path).doing(|| format!("read {HOSTS}"))?;
        let after = with_block(&before, &endpoints, rustix::system::uname().nodename().to_string_lossy().as_ref());
        if after == before { Ok(()) } else { replace(&path, &after) }
    }
}

/// The text with the block of these containers in the place of an earlier one.
fn with_block(text: &str, endpoints: &[Endpoint], own_name: &str) -> String {
    let mut inside = false;
    let mut kept = String::new();
    for line in text.lines() {
        match line {
            BEGIN => inside = true,
            END if inside => inside = false,
            _ if inside => {}
            _ => {
                kept.push_str(line);
                kept.push('\n');
            }
        }
    }
    let mut taken: HashSet<String> = kept
        .lines()
        .filter_map(|l| l.split('#').next())
        .flat_map(|l| l.split_whitespace().skip(1))
        .map(str::to_ascii_lowercase)
        .collect();
    taken.extend(["localhost".to_string(), own_name.to_ascii_lowercase()]);
    let mut sorted: Vec<&Endpoint> = endpoints.iter().collect();
    sorted.sort_by(|a, b| (&a.container_name, &a.ifname).cmp(&(&b.container_name, &b.ifname)));
    let mut block = String::new();
    let mut named: HashSet<&str> = HashSet::new();
    for e in sorted {
        let name = e.container_name.as_str();
        let full = format!("{name}.{}", e.network);
        // The name alone is the container's first interface.
        let short = !name.contains('.') && !taken.contains(&name.to_ascii_lowercase()) && named.insert(name);
        let names: Vec<&str> =
            [(!taken.contains(&full.to_ascii_lowercase())).then_some(full.as_str()), short.then_some(name)]
                .into_iter()
                .flatten()
                .collect();
        for ip in e.ipv4.map(IpAddr::from).into_iter().chain(e.ipv6.map(IpAddr::from)).filter(|_| !names.is_empty()) {
            let _ = writeln!(block, "{ip}\t{}", names.join(" "));
        }
    }
    if block.is_empty() { kept } else { format!("{kept}{BEGIN}\n{block}{END}\n") }
}

/// All or nothing, but where the file itself is a mount point and cannot be replaced.
fn replace(path: &Path, text: &str) -> Result<()> {
    let doing = || format!("write {}", path.display());
    let temporary = path.with_extension("rrun");
    let renamed = File::create(&temporary).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.set_permissions(fs::metadata(path)?.permissions())?;
        fs::rename(&temporary, path)
    });
    match renamed {
        Ok(()) => Ok(()),
        Err(e) => {
            // It may never have come to be.
            let _ = fs::remove_file(&temporary);
            match e.kind() {
                ErrorKind::ResourceBusy | ErrorKind::CrossesDevices => fs::write(path, text).doing(doing),
                _ => Err(Error::io(doing(), &e).with_hint("or set host-names = false in rrun's configuration")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(name: &str, network: &str, ifname: &str, ip: &str) -> Endpoint {
        Endpoint {
            container_name: name.into(),
            network: network.into(),
            ifname: ifname.into(),
            ipv4: Some(ip.parse().unwrap()),
            ..Endpoint::default()
        }
    }

    #[test]
    fn the_block_follows_the_containers_and_the_rest_stays() {
        let own = "127.0.0.1 localhost db # mine\n\n::1 localhost\n";
        let all = [
            endpoint("web", "n", "eth1", "10.0.0.2"),
            endpoint("web", "a", "eth0", "10.1.0.2"),
            endpoint("db", "n", "eth0", "10.0.0.3"),
            endpoint("github.com", "n", "eth0", "10.0.0.4"),
            endpoint("thishost", "n", "eth0", "10.0.0.5"),
        ];
        let text = with_block(own, &all, "thishost");
        let want =
            "10.0.0.3\tdb.n\n10.0.0.4\tgithub.com.n\n10.0.0.5\tthishost.n\n10.1.0.2\tweb.a web\n10.0.0.2\tweb.n\n";
        assert_eq!(text, format!("{own}{BEGIN}\n{want}{END}\n"));
        let edited = format!("{text}192.0.2.1 added-below\n");
        let less = with_block(&edited, &all[..1], "thishost");
        assert_eq!(less, format!("{own}192.0.2.1 added-below\n{BEGIN}\n10.0.0.2\tweb.n web\n{END}\n"));
        assert_eq!(with_block(&text, &[], "thishost"), own, "as if nothing had been");
    }
}
