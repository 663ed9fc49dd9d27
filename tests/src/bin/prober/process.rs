//! What the process is: ids, sets, limits, namespaces, open descriptors.

#![expect(unsafe_code, reason = "the test makes system calls of its own")]

use serde_json::{Map, Value, json};
use std::fs;

/// The lines of /proc/self/status that tell of confinement, and a little more.
pub fn status() -> Value {
    const LINES: [&str; 12] = [
        "Uid",
        "Gid",
        "Groups",
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "NoNewPrivs",
        "Seccomp",
        "Seccomp_filters",
        "Umask",
    ];
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut out = Map::new();
    for line in text.lines() {
        if let Some((key, value)) = line.split_once(':')
            && LINES.contains(&key)
        {
            out.insert(key.to_string(), json!(value.split_whitespace().collect::<Vec<_>>().join(" ")));
        }
    }
    let read =
        |path: &str| fs::read_to_string(path).map(|s| s.trim_end().to_string()).unwrap_or_else(|e| e.to_string());
    out.insert("hostname".into(), json!(read("/proc/sys/kernel/hostname")));
    out.insert("oom_score_adj".into(), json!(read("/proc/self/oom_score_adj")));
    out.insert("uid_map".into(), json!(read("/proc/self/uid_map")));
    out.insert("args".into(), json!(std::env::args().collect::<Vec<_>>()));
    // SAFETY: prctl of this process, integers only.
    let (dumpable, keep) = unsafe { (libc::prctl(libc::PR_GET_DUMPABLE), libc::prctl(libc::PR_GET_KEEPCAPS)) };
    out.insert("dumpable".into(), json!(dumpable));
    out.insert("keepcaps".into(), json!(keep));
    Value::Object(out)
}

/// number → what it is, for every open descriptor; pipes and sockets without their inode numbers.
pub fn descriptors() -> Value {
    let Ok(dir) = fs::read_dir("/proc/self/fd") else { return Value::Null };
    let mut out = Map::new();
    for entry in dir.flatten() {
        if let Ok(target) = fs::read_link(entry.path()) {
            let target = target.display().to_string();
            // The directory being read.
            if !target.ends_with("/fd") || !target.starts_with("/proc/") {
                let target = target.split(":[").next().unwrap_or_default();
                out.insert(entry.file_name().to_string_lossy().into_owned(), json!(target));
            }
        }
    }
    Value::Object(out)
}

pub fn rlimits() -> Value {
    let text = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let mut out = Map::new();
    for line in text.lines().skip(1).filter(|l| l.len() > 26) {
        let (name, values) = line.split_at(26);
        let values: Vec<&str> = values.split_whitespace().take(2).collect();
        out.insert(name.trim().to_string(), json!(values));
    }
    Value::Object(out)
}

/// Where the process stands: what differs between any two containers, and between their processes.
pub fn place() -> Value {
    let link = |ns: &str| {
        let link = fs::read_link(format!("/proc/self/ns/{ns}"));
        json!(link.map(|l| l.display().to_string()).unwrap_or_else(|e| e.to_string()))
    };
    let namespaces: Map<String, Value> = ["mnt", "pid", "net", "ipc", "uts", "cgroup", "user", "time"]
        .map(|ns| (ns.to_string(), link(ns)))
        .into_iter()
        .collect();
    // SAFETY: getsid of this process.
    let session = unsafe { libc::getsid(0) };
    json!({
        "pid": std::process::id(),
        "ppid": std::os::unix::process::parent_id(),
        "session": session,
        "cgroup": fs::read_to_string("/proc/self/cgroup").unwrap_or_else(|e| e.to_string()),
        "namespaces": namespaces,
    })
}
