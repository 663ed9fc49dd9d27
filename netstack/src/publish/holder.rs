//! Who holds a port? Asked only when a reservation has failed: the remedy is worth a slow search.

use crate::model::{Endpoint, Proto};
use std::fs;
use std::path::Path;

/// The host program bound to a port: `"nginx" (pid 1234)`. `None` when no process shows it: it may
/// live in another namespace or belong to another user.
pub fn host_program(proto: Proto, port: u16) -> Option<String> {
    let (tables, listening): (&[&str], &str) = match proto {
        Proto::Tcp => (&["/proc/net/tcp", "/proc/net/tcp6"], "0A"),
        Proto::Udp => (&["/proc/net/udp", "/proc/net/udp6"], "07"),
        Proto::Sctp => return None,
    };
    let mut inodes = Vec::new();
    for table in tables {
        for line in fs::read_to_string(table).unwrap_or_default().lines().skip(1) {
            // sl, local address:port, remote, state, queues, timers, retransmits, uid, timeout, inode
            let f: Vec<&str> = line.split_whitespace().collect();
            let (Some(local), Some(state), Some(inode)) = (f.get(1), f.get(3), f.get(9)) else { continue };
            let bound = local.rsplit_once(':').and_then(|(_, p)| u16::from_str_radix(p, 16).ok());
            // Inode 0: a connection in TIME_WAIT, which has no owner any more.
            if bound == Some(port) && *inode != "0" {
                inodes.push((*state != listening, format!("socket:[{inode}]")));
            }
        }
    }
    inodes.sort();
    inodes.iter().find_map(|(_, socket)| process_with(socket))
}

fn process_with(socket: &str) -> Option<String> {
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().filter(|n| n.bytes().all(|b| b.is_ascii_digit())) else { continue };
        let Ok(fds) = fs::read_dir(process.path().join("fd")) else { continue };
        let holds = fds.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|target| target.as_os_str() == socket));
        if holds {
            let comm = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("\"{}\" (pid {pid})", comm.trim_end()));
        }
    }
    None
}

/// A container in words: its name from any of its endpoint records, or else its short ID.
pub fn container(state: &Path, id: &str) -> String {
    let short = id.get(..12).unwrap_or(id);
    let networks = fs::read_dir(state.join("networks")).into_iter().flatten().flatten();
    for network in networks {
        let record = network.path().join("endpoints").join(format!("{id}.json"));
        if let Ok(text) = fs::read(&record)
            && let Ok(endpoint) = serde_json::from_slice::<Endpoint>(&text)
        {
            return format!("container \"{}\" ({short})", endpoint.container_name);
        }
    }
    format!("container {short}")
}
