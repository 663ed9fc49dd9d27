//! Pausing a container: everything in its group stands still, wherever it is in its code.
//!
//! v2's freezer is preferred where the group is in both versions (hybrid): what it stops can still be
//! killed, while v1's frozen processes do not even die before they are thawed.

use super::layout::Layout;
use plan::{Error, Result, ResultExt};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long processes may take to stand still: those in uninterruptible sleep finish that first.
const PATIENCE: Duration = Duration::from_secs(10);

/// The file that freezes, and where its success is seen.
enum Freezer {
    /// `cgroup.freeze`, `cgroup.events`.
    Unified(PathBuf),
    /// `freezer.state`.
    V1(PathBuf),
}

fn freezer(path: &Path, layout: &Layout) -> Option<Freezer> {
    let unified = layout.unified.as_ref().map(|u| u.root.join(path));
    if let Some(dir) = unified.filter(|dir| dir.join("cgroup.freeze").exists()) {
        return Some(Freezer::Unified(dir));
    }
    let dir = layout.v1_root("freezer")?.join(path);
    dir.exists().then_some(Freezer::V1(dir))
}

/// Whether the group stands still, or is about to.
pub fn is_frozen(path: &Path, layout: &Layout) -> bool {
    let (file, words) = match freezer(path, layout) {
        Some(Freezer::Unified(dir)) => (dir.join("cgroup.freeze"), ["1", "1"]),
        Some(Freezer::V1(dir)) => (dir.join("freezer.state"), ["FROZEN", "FREEZING"]),
        None => return false,
    };
    fs::read_to_string(file).is_ok_and(|text| words.contains(&text.trim()))
}

/// Stops everything in the group; returns when it stands still.
///
/// # Errors
/// There is no freezer; something in it does not stop. Then all of it runs on.
pub fn freeze(path: &Path, layout: &Layout) -> Result<()> {
    let freezer = freezer(path, layout).ok_or_else(|| {
        Error::system("the kernel cannot pause containers: the cgroup freezer is not there")
            .with_hint("mount cgroup v2, or the v1 hierarchy `freezer`")
    })?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        // v1 has to be told again while new processes appear in it.
        freezer.tell(true)?;
        if freezer.stands_still()? {
            return Ok(());
        }
        if Instant::now() > deadline {
            freezer.tell(false)?;
            return Err(Error::system(format!("cgroup {} does not freeze", path.display()))
                .with_hint("a process in uninterruptible sleep holds it up: mostly a disk or a network file system"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Lets everything in the group run again. A group that has just gone holds nobody up.
///
/// # Errors
/// Of writing the file.
pub fn thaw(path: &Path, layout: &Layout) -> Result<()> {
    match freezer(path, layout).map_or(Ok(()), |freezer| freezer.tell(false)) {
        Err(e) if matches!(e.errno, Some(libc::ENOENT | libc::ENODEV)) => Ok(()),
        done => done,
    }
}

impl Freezer {
    fn tell(&self, stop: bool) -> Result<()> {
        let (file, word) = match (self, stop) {
            (Freezer::Unified(dir), true) => (dir.join("cgroup.freeze"), "1"),
            (Freezer::Unified(dir), false) => (dir.join("cgroup.freeze"), "0"),
            (Freezer::V1(dir), true) => (dir.join("freezer.state"), "FROZEN"),
            (Freezer::V1(dir), false) => (dir.join("freezer.state"), "THAWED"),
        };
        fs::write(&file, word).doing(|| format!("write {word} to {}", file.display()))
    }

    fn stands_still(&self) -> Result<bool> {
        let (file, line) = match self {
            Freezer::Unified(dir) => (dir.join("cgroup.events"), "frozen 1"),
            Freezer::V1(dir) => (dir.join("freezer.state"), "FROZEN"),
        };
        let text = fs::read_to_string(&file).doing(|| format!("read {}", file.display()))?;
        Ok(text.lines().any(|l| l == line))
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::{Hierarchy, Unified};
    use super::*;
    use crate::test_dir::TestDir;

    #[test]
    fn whichever_freezer_is_there_is_told() {
        let dir = TestDir::new("freezer");
        let root = dir.path().to_path_buf();
        let path = Path::new("rrun/x");
        fs::create_dir_all(root.join("v1/rrun/x")).unwrap();
        fs::write(root.join("v1/rrun/x/freezer.state"), "THAWED\n").unwrap();
        let v1 = Hierarchy { controllers: vec!["freezer".into()], root: root.join("v1"), swap: false };
        let mut layout = Layout { v1: vec![v1], unified: None };
        assert!(!is_frozen(path, &layout));
        freeze(path, &layout).unwrap();
        assert!(is_frozen(path, &layout));
        thaw(path, &layout).unwrap();
        assert_eq!(fs::read_to_string(root.join("v1/rrun/x/freezer.state")).unwrap(), "THAWED");

        fs::create_dir_all(root.join("v2/rrun/x")).unwrap();
        fs::write(root.join("v2/rrun/x/cgroup.freeze"), "0\n").unwrap();
        fs::write(root.join("v2/rrun/x/cgroup.events"), "populated 1\nfrozen 1\n").unwrap();
        layout.unified = Some(Unified { root: root.join("v2"), controllers: Vec::new() });
        freeze(path, &layout).unwrap();
        assert_eq!(fs::read_to_string(root.join("v2/rrun/x/cgroup.freeze")).unwrap(), "1");
        assert_eq!(fs::read_to_string(root.join("v1/rrun/x/freezer.state")).unwrap(), "THAWED");
        assert!(freeze(path, &Layout::default()).is_err());
    }
}
