//! What a group has used: read from the files of whichever version has its controllers.
//!
//! cgroup-v1/memory.rst, cgroup-v2.rst in the kernel's documentation. A file that is not there (no such
//! controller, an older kernel) reads as nothing used.

use super::layout::Layout;
use std::fs;
use std::path::{Path, PathBuf};

/// A v1 "no limit" is the largest multiple of the page size below 2^63.
const NO_LIMIT: u64 = 0x7fff_ffff_ffff_0000;

/// One look at a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes in use, without what the kernel could drop at once (inactive page cache), as Docker counts.
    pub memory: u64,
    /// Bytes; `None` without a limit.
    pub memory_limit: Option<u64>,
    /// Nanoseconds of all processors since the group was made.
    pub cpu: u64,
    pub pids: u64,
    pub pids_limit: Option<u64>,
    /// Bytes read from and written to block devices.
    pub read: u64,
    pub written: u64,
}

/// Reads a group's counters.
pub fn usage(path: &Path, layout: &Layout) -> Usage {
    let v1 = |controller: &str| layout.v1_root(controller).map(|root| root.join(path));
    let v2 = |controller: &str| layout.v2_root(controller).map(|root| root.join(path));
    let mut usage = Usage::default();
    if let Some(dir) = v1("memory") {
        let cache = keyed(&dir.join("memory.stat"), "total_inactive_file");
        usage.memory = number(&dir.join("memory.usage_in_bytes")).saturating_sub(cache);
        usage.memory_limit = Some(number(&dir.join("memory.limit_in_bytes"))).filter(|l| (1..NO_LIMIT).contains(l));
    } else if let Some(dir) = v2("memory") {
        let cache = keyed(&dir.join("memory.stat"), "inactive_file");
        usage.memory = number(&dir.join("memory.current")).saturating_sub(cache);
        usage.memory_limit = limit(&dir.join("memory.max"));
    }
    if let Some(dir) = v1("cpuacct") {
        usage.cpu = number(&dir.join("cpuacct.usage"));
    } else if let Some(unified) = &layout.unified {
        // cpu.stat is there without the controller.
        usage.cpu = keyed(&unified.root.join(path).join("cpu.stat"), "usage_usec") * 1000;
    }
    if let Some(dir) = v1("pids").or_else(|| v2("pids")) {
        usage.pids = number(&dir.join("pids.current"));
        usage.pids_limit = limit(&dir.join("pids.max"));
    }
    if let Some(dir) = v1("blkio") {
        (usage.read, usage.written) = blkio(&dir);
    } else if let Some(dir) = v2("io") {
        let text = fs::read_to_string(dir.join("io.stat")).unwrap_or_default();
        usage.read = sum(&text, "rbytes=");
        usage.written = sum(&text, "wbytes=");
    }
    usage
}

/// Lines of `8:0 Read 4096`.
fn blkio(dir: &Path) -> (u64, u64) {
    let file = |name: &str| fs::read_to_string(dir.join(name)).ok();
    let text = file("blkio.throttle.io_service_bytes_recursive").or_else(|| file("blkio.throttle.io_service_bytes"));
    let text = text.unwrap_or_default();
    let of = |operation: &str| {
        let lines = text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>());
        lines.filter(|w| w.len() == 3 && w[1] == operation).filter_map(|w| w[2].parse::<u64>().ok()).sum()
    };
    (of("Read"), of("Write"))
}

fn sum(text: &str, key: &str) -> u64 {
    text.split_whitespace().filter_map(|w| w.strip_prefix(key)?.parse::<u64>().ok()).sum()
}

fn number(file: &PathBuf) -> u64 {
    fs::read_to_string(file).ok().and_then(|t| t.trim().parse().ok()).unwrap_or(0)
}

/// A number, or `max`.
fn limit(file: &PathBuf) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// Of a file of `key value` lines.
fn keyed(file: &PathBuf, key: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok());
    line.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;

    #[test]
    fn both_versions_are_read() {
        let dir = TestDir::new("usage");
        let put = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("memory/x/memory.stat", "cache 9\ntotal_inactive_file 100\n");
        put("memory/x/memory.usage_in_bytes", "1100\n");
        put("memory/x/memory.limit_in_bytes", "9223372036854771712\n");
        put("cpu/x/cpuacct.usage", "5000\n");
        put("pids/x/pids.current", "3\n");
        put("pids/x/pids.max", "max\n");
        put("blkio/x/blkio.throttle.io_service_bytes", "8:0 Read 10\n8:0 Write 20\n8:16 Read 1\nTotal 31\n");
        let root = dir.path().display();
        let v1 = Layout::parse(&format!(
            "1 0 0:1 / {root}/memory rw - cgroup cgroup rw,memory\n2 0 0:2 / {root}/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
             3 0 0:3 / {root}/pids rw - cgroup cgroup rw,pids\n4 0 0:4 / {root}/blkio rw - cgroup cgroup rw,blkio\n"
        ));
        let seen = usage(Path::new("x"), &v1);
        let want = Usage { memory: 1000, cpu: 5000, pids: 3, read: 11, written: 20, ..Usage::default() };
        assert_eq!(seen, want);
        assert_eq!(usage(Path::new("gone"), &v1), Usage::default());
    }
}
