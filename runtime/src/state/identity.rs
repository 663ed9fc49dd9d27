//! Which process a pid meant: pids come round again, start times do not.

use crate::procfs;
use plan::{Result, ResultExt};

/// A process, told apart from every later one with the same pid (within one boot).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub pid: i32,
    /// Clock ticks since boot.
    pub start_time: u64,
}

impl Identity {
    /// The living process `pid`; `None` when there is none, or only a zombie waiting for its parent.
    pub fn of(pid: i32) -> Option<Identity> {
        // 0 and negative numbers are process groups to kill(2), and 1 is never a container of ours.
        if pid <= 1 {
            return None;
        }
        let stat = procfs::read(format!("/proc/{pid}/stat")).ok()?;
        parse(&stat).map(|start_time| Identity { pid, start_time })
    }

    /// Whether exactly this process still lives.
    pub fn is_alive(&self) -> bool {
        Identity::of(self.pid) == Some(*self)
    }
}

/// The start time in the text of `/proc/<pid>/stat`, unless the process is dead. The second field is
/// the program's name in parentheses, which may itself hold spaces and parentheses.
fn parse(stat: &[u8]) -> Option<u64> {
    let after_name = stat.iter().rposition(|&b| b == b')')? + 1;
    let rest = std::str::from_utf8(&stat[after_name..]).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    // Fields 3 (state) and 22 (start time).
    if matches!(fields.next()?, "Z" | "X" | "x") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// The kernel's name for this boot.
pub fn boot_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = procfs::text(path).doing(|| format!("read {path}"))?;
    Ok(text.trim_end().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_hostile_name_does_not_shift_the_fields() {
        let tail = "S 1 2 3 0 -1 4194560 5 0 0 0 1 2 0 0 20 0 1 0 777 8 9";
        assert_eq!(parse(format!("42 (sh) {tail}").as_bytes()), Some(777));
        assert_eq!(parse(format!("42 (a) Z 1 (b) {tail}").as_bytes()), Some(777));
        assert_eq!(parse(&[b"42 (\xff\xfe) ", tail.as_bytes()].concat()), Some(777));
        assert_eq!(parse(b"42 (sh) Z 1 2 3 0 -1 4194560 5 0 0 0 1 2 0 0 20 0 1 0 777 8 9"), None);
        assert_eq!(parse(b"42 (sh) S 1"), None);
        assert_eq!(parse(b""), None);
    }

    #[test]
    fn we_live_and_a_zombie_does_not() {
        let me = Identity::of(std::process::id().cast_signed()).unwrap();
        assert!(me.is_alive());
        assert!(!Identity { start_time: me.start_time + 1, ..me }.is_alive());
        for pid in [i32::MIN, -1, 0, 1] {
            assert_eq!(Identity::of(pid), None, "{pid}");
        }
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id().cast_signed();
        // It becomes a zombie as soon as it ends, and stays one: nobody has waited for it.
        while Identity::of(pid).is_some() {
            std::thread::yield_now();
        }
        assert!(fs::exists(format!("/proc/{pid}")).unwrap());
        child.wait().unwrap();
    }
}
