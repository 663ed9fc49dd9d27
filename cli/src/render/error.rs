//! The one place where an error is printed.

use plan::Error;

/// `rrun: message: cause`, the step it happened in, what the undo left, and one line of remedy.
pub fn print(error: &Error) {
    eprint!("{}", text(error));
}

fn text(error: &Error) -> String {
    let mut out = format!("rrun: {error}\n");
    if let Some(step) = &error.step {
        out.push_str(&format!("while: {step}\n"));
    }
    for note in &error.notes {
        out.push_str(&format!("note: {note}\n"));
    }
    if let Some(hint) = error.hint.as_deref().or_else(|| remedy(error.errno)) {
        out.push_str(&format!("hint: {hint}\n"));
    }
    out
}

/// What to do about the kernel's refusals that mean the same wherever they come from.
fn remedy(errno: Option<i32>) -> Option<&'static str> {
    Some(match errno? {
        libc::ENOENT | libc::ENOTDIR => "check the path: `ls -ld` on it and its parents shows where it ends",
        libc::EISDIR => "name a file: that is a directory",
        libc::EACCES | libc::EPERM => "run as root with full capabilities: `capsh --print` shows what this shell lacks",
        libc::ENOSPC | libc::EDQUOT => {
            "free some space: `df -h` and `df -i` show which disk is full; `rrun rm` and `rrun rmi` work on a full one"
        }
        libc::EROFS => "the file system is mounted read-only: choose other places with --root and --state",
        libc::EMFILE | libc::ENFILE => "too many open files: raise the limit with `ulimit -n`",
        libc::ENOMEM => "the machine or this cgroup is out of memory",
        libc::ENOSYS | libc::EOPNOTSUPP => "this kernel lacks the feature: rrun needs Linux 5.12 or newer",
        libc::EIO => "the disk reports errors: see `dmesg`",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thing_cause_step_and_remedy() {
        let e = Error::os("create veth", 1).with_step("plug a cable").with_hint("run as root");
        assert_eq!(
            text(&e),
            "rrun: create veth: operation not permitted (EPERM)\nwhile: plug a cable\nhint: run as root\n"
        );
    }
}
