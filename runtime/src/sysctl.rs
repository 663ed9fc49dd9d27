//! Kernel parameters of a container: only those that belong to one of its own namespaces.
//!
//! /proc/sys is the whole machine's, apart from the parts that the kernel keeps per namespace. A
//! parameter outside those, or one whose namespace is shared with the host, would change the host
//! (CVE-2022-0811 and kin), so it is refused before anything is made.

use std::path::PathBuf;

use plan::{Error, Result};

use crate::spec::{Namespace, Namespaces};

/// Which namespace a parameter lives in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Net,
    Ipc,
    Uts,
}

fn scope(key: &str) -> Option<Scope> {
    const IPC: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    match key {
        _ if key.starts_with("net.") => Some(Scope::Net),
        _ if IPC.contains(&key) || key.starts_with("fs.mqueue.") => Some(Scope::Ipc),
        "kernel.domainname" => Some(Scope::Uts),
        _ => None,
    }
}

/// `--sysctl KEY=VALUE`, with the key in its dotted form. Errors: Docker's text for what is not a
/// namespaced parameter.
pub fn parse(text: &str) -> Result<(String, String)> {
    let refuse = |cause: &str| {
        Error::invalid(format!("sysctl '{}' is not allowed", text.escape_debug()))
            .with_cause(cause.to_string())
            .with_hint("allowed are net.*, fs.mqueue.*, kernel.{msgmax,msgmnb,msgmni,sem,shmall,shmmax,shmmni,shm_rmid_forced}")
    };
    let (key, value) = text.split_once('=').ok_or_else(|| refuse("it is not KEY=VALUE"))?;
    let key = dotted(key);
    if scope(&key).is_none() {
        return Err(refuse("it would change the whole host"));
    }
    if path(&key).is_none() || value.contains('\0') {
        return Err(refuse("it is malformed"));
    }
    Ok((key, value.to_string()))
}

/// `net/ipv4/ip_forward` as `net.ipv4.ip_forward`. sysctl(8) knows both: whichever of the two comes
/// first separates, and the other stands for a dot within a name (`net.ipv4.conf.eth0/100.mtu`).
fn dotted(key: &str) -> String {
    match key.find(['.', '/']).map(|i| key.as_bytes()[i]) {
        Some(b'/') => swap(key),
        _ => key.to_string(),
    }
}

fn swap(key: &str) -> String {
    key.chars()
        .map(|c| match c {
            '.' => '/',
            '/' => '.',
            c => c,
        })
        .collect()
}

/// The file of a dotted key, relative to /proc/sys; `None` if the key does not name a file below it.
/// (`net.//.//.kernel.x` would be net/../../kernel/x.)
pub fn path(key: &str) -> Option<PathBuf> {
    let path = swap(key);
    let sound =
        |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains(|c: char| c.is_control());
    path.split('/').all(sound).then(|| PathBuf::from(path))
}

/// Checks a container's parameters against its namespaces. Errors: runc's texts for a parameter
/// whose namespace is the host's.
pub fn check<'a>(keys: impl IntoIterator<Item = &'a str>, namespaces: &Namespaces) -> Result<()> {
    for key in keys {
        let (namespace, message) = match scope(key) {
            Some(Scope::Net) => (&namespaces.net, format!("sysctl {key:?} not allowed in host network namespace")),
            Some(Scope::Ipc) => (&namespaces.ipc, format!("sysctl {key:?} is not allowed in the hosts ipc namespace")),
            Some(Scope::Uts) => (&namespaces.uts, format!("sysctl {key:?} is not allowed in the hosts uts namespace")),
            None => (&Namespace::Host, format!("sysctl {key:?} is not in a separate kernel namespace")),
        };
        if *namespace == Namespace::Host || path(key).is_none() {
            return Err(
                Error::invalid(message).with_hint("give the container a namespace of its own, or set it on the host")
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaced_parameters_are_taken() {
        for (text, key, file) in [
            ("net.ipv4.ip_forward=1", "net.ipv4.ip_forward", "net/ipv4/ip_forward"),
            ("net/ipv4/ip_forward=1", "net.ipv4.ip_forward", "net/ipv4/ip_forward"),
            (
                "net.ipv4.conf.eth0/100.rp_filter=1",
                "net.ipv4.conf.eth0/100.rp_filter",
                "net/ipv4/conf/eth0.100/rp_filter",
            ),
            (
                "net/ipv4/conf/eth0.100/rp_filter=1",
                "net.ipv4.conf.eth0/100.rp_filter",
                "net/ipv4/conf/eth0.100/rp_filter",
            ),
            ("kernel.shmmax=1", "kernel.shmmax", "kernel/shmmax"),
            ("fs.mqueue.msg_max=1", "fs.mqueue.msg_max", "fs/mqueue/msg_max"),
        ] {
            assert_eq!(parse(text).unwrap(), (key.to_string(), "1".to_string()), "{text}");
            assert_eq!(path(key), Some(PathBuf::from(file)), "{text}");
        }
        // The value is nobody's syntax.
        assert_eq!(parse("kernel.sem=250 32000+\n=2").unwrap().1, "250 32000+\n=2");
    }

    #[test]
    fn the_hosts_are_refused() {
        for text in [
            "kernel.core_pattern=|/x",
            "kernel.msgmaxx=1",
            "kernel/core_pattern=x",
            "vm.overcommit_memory=1",
            "fs.mqueue=1",
            "netx.y=1",
            "net.ipv4.ip_forward",
            "=1",
            "net.=1",
            "net.//.//.kernel.core_pattern=x",
            "net/../kernel/core_pattern=x",
            "net...kernel=x",
            "net.a\nb=1",
            "net.ipv4.ip_forward=\0",
        ] {
            let e = parse(text).unwrap_err();
            assert!(e.message.starts_with("sysctl '") && e.message.ends_with("' is not allowed"), "{e}");
            assert!(e.hint.is_some());
        }
    }

    #[test]
    fn a_parameter_needs_its_own_namespace() {
        let mut ns = Namespaces {
            net: Namespace::Private,
            pid: Namespace::Private,
            ipc: Namespace::Private,
            uts: Namespace::Private,
            cgroup: Namespace::Private,
        };
        let all = ["net.core.somaxconn", "kernel.sem", "fs.mqueue.msg_max", "kernel.domainname"];
        assert!(check(all, &ns).is_ok());
        ns.net = Namespace::Path("/proc/1/ns/net".into());
        assert!(check(all, &ns).is_ok());
        ns.net = Namespace::Host;
        assert_eq!(
            check(all, &ns).unwrap_err().message,
            "sysctl \"net.core.somaxconn\" not allowed in host network namespace"
        );
        ns.ipc = Namespace::Host;
        assert_eq!(
            check(["kernel.sem"], &ns).unwrap_err().message,
            "sysctl \"kernel.sem\" is not allowed in the hosts ipc namespace"
        );
        assert_eq!(
            check(["kernel.core_pattern"], &ns).unwrap_err().message,
            "sysctl \"kernel.core_pattern\" is not in a separate kernel namespace"
        );
        assert!(check(["net.//.//.kernel.core_pattern"], &ns).is_err());
    }
}
