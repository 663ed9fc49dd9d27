//! What can be seen and opened: mounts, devices, masked paths, kernel parameters.

use super::child::attempt;
use rustix::fs::{CWD, RenameFlags};
use serde_json::{Map, Value, json};
use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Exchanges two names for ever: whoever resolves one of them twice finds two things.
pub fn swap(one: &str, other: &str) -> ! {
    loop {
        // One of them may be somebody's mount point for a moment.
        let _ = rustix::fs::renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE);
    }
}

/// Each mount: target → (file system, its options, those of the file system, shared or master groups).
pub fn mounts() -> Value {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut out = Vec::new();
    for line in text.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let left: Vec<&str> = left.split(' ').collect();
        let right: Vec<&str> = right.split(' ').collect();
        if left.len() >= 6 && right.len() >= 3 {
            out.push(json!({
                "target": left[4], "root": left[3], "options": left[5], "propagation": left[6..],
                "kind": right[0], "source": right[1], "super": right[2],
            }));
        }
    }
    Value::Array(out)
}

/// Everything under /dev but the terminals: kind, number, mode, and whether it opens.
pub fn devices() -> Value {
    let mut out = Map::new();
    let mut dirs = vec![Path::new("/dev").to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let (path, Ok(meta)) = (entry.path(), entry.path().symlink_metadata()) else { continue };
            let kind = meta.file_type();
            let number = (libc::major(meta.rdev()), libc::minor(meta.rdev()));
            let mode = meta.permissions().mode() & 0o7777;
            let text = if kind.is_symlink() {
                format!("-> {}", fs::read_link(&path).map(|l| l.display().to_string()).unwrap_or_default())
            } else if kind.is_char_device() || kind.is_block_device() {
                let letter = if kind.is_char_device() { 'c' } else { 'b' };
                format!("{letter} {}:{} {mode:o} {}:{} {}", number.0, number.1, meta.uid(), meta.gid(), opens(&path))
            } else if kind.is_dir() {
                if !path.ends_with("pts") {
                    dirs.push(path.clone());
                }
                format!("d {mode:o}")
            } else {
                format!("{mode:o}")
            };
            out.insert(path.display().to_string(), json!(text));
        }
    }
    Value::Object(out)
}

fn opens(path: &Path) -> String {
    attempt(|| {
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
        fs::OpenOptions::new().read(true).custom_flags(flags).open(path).map(|_| ())
    })
}

/// What a path that a runtime should mask shows: `data`, `empty`, `directory`, `empty directory`, `null device` or an
/// errno.
pub fn paths() -> Value {
    const PATHS: [&str; 32] = [
        "/proc/acpi",
        "/proc/asound",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/key-users",
        "/proc/latency_stats",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/proc/kmsg",
        "/proc/kallsyms",
        "/proc/iomem",
        "/proc/slabinfo",
        "/proc/vmallocinfo",
        "/proc/kpagecount",
        "/proc/config.gz",
        "/proc/sysrq-trigger",
        "/sys/firmware",
        "/sys/fs/selinux",
        "/sys/devices/virtual/powercap",
        "/sys/kernel/debug",
        "/sys/kernel/tracing",
        "/sys/fs/bpf",
        "/sys/fs/cgroup",
        "/sys/devices/system/cpu/cpu0/thermal_throttle",
        "/dev/mem",
        "/dev/kmsg",
        "/dev/fuse",
        "/dev/kvm",
        "/.dockerenv",
    ];
    let mut out = Map::new();
    for path in PATHS {
        out.insert(path.to_string(), json!(look(Path::new(path))));
    }
    Value::Object(out)
}

fn look(path: &Path) -> String {
    let named = |e: std::io::Error| super::child::name(e.raw_os_error().unwrap_or(255));
    let meta = match fs::metadata(path) {
        Ok(m) => m,
        Err(e) => return named(e),
    };
    if meta.is_dir() {
        return match fs::read_dir(path) {
            Ok(mut entries) => if entries.next().is_none() { "empty directory" } else { "directory" }.to_string(),
            Err(e) => named(e),
        };
    }
    if meta.file_type().is_char_device() && meta.rdev() == libc::makedev(1, 3) {
        return "null device".to_string();
    }
    let open = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    match open.and_then(|mut f| f.read(&mut [0; 64])) {
        Ok(0) => "empty".to_string(),
        Ok(_) => "data".to_string(),
        Err(e) => named(e),
    }
}

pub fn sysctls() -> Value {
    const KEYS: [&str; 10] = [
        "kernel/hostname",
        "kernel/domainname",
        "kernel/shmmax",
        "kernel/msgmax",
        "kernel/sem",
        "fs/mqueue/msg_max",
        "net/ipv4/ip_unprivileged_port_start",
        "net/ipv4/ping_group_range",
        "net/ipv4/ip_forward",
        "net/ipv6/conf/all/disable_ipv6",
    ];
    let mut out = Map::new();
    for key in KEYS {
        let value = fs::read_to_string(format!("/proc/sys/{key}"));
        let value = value.map(|v| v.split_whitespace().collect::<Vec<_>>().join(" "));
        let value = value.unwrap_or_else(|e| super::child::name(e.raw_os_error().unwrap_or(255)));
        out.insert(key.replace('/', "."), json!(value));
    }
    Value::Object(out)
}

/// Opening for writing, without writing: what the read-only mounts are for.
pub fn writable() -> Value {
    const PATHS: [&str; 15] = [
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/hostname",
        "/proc/sys/vm/drop_caches",
        "/proc/sys/net/ipv4/ip_forward",
        "/proc/sys/fs/binfmt_misc/register",
        "/proc/irq/default_smp_affinity",
        "/proc/sysrq-trigger",
        "/proc/bus/pci/devices",
        "/proc/self/uid_map",
        "/proc/1/mem",
        "/proc/1/environ",
        "/sys/kernel/uevent_helper",
        "/sys/power/state",
        "/sys/fs/cgroup/release_agent",
        "/sys/fs/cgroup/memory/release_agent",
    ];
    let mut out = Map::new();
    for path in PATHS {
        let answer = attempt(|| fs::OpenOptions::new().write(true).open(path).map(|_| ()));
        out.insert(path.to_string(), json!(answer));
    }
    for dir in ["/", "/dev", "/dev/shm", "/proc", "/sys", "/sys/fs/cgroup", "/tmp"] {
        let file = Path::new(dir).join(".prober-was-here");
        let answer = attempt(|| fs::File::create(&file).map(|_| ()));
        // The attempt was made by a child; its file is removed here, if it came to be.
        let _ = fs::remove_file(&file);
        out.insert(format!("{}/*", dir.trim_end_matches('/')), json!(answer));
    }
    Value::Object(out)
}
