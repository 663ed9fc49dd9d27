//! Where the host has its control group hierarchies, and preparing the parents of ours.

use crate::procfs;
use plan::{Error, Result, ResultExt};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The hierarchies that are mounted. Only `unified`: v2, the norm today. Only `v1`: legacy. Both:
/// hybrid, with the controllers in v1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    pub v1: Vec<Hierarchy>,
    pub unified: Option<Unified>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// `cpu`, `cpuacct`…; empty for a named hierarchy such as systemd's.
    pub controllers: Vec<String>,
    pub root: PathBuf,
    /// v1 memory only: swap is accounted (`memory.memsw.*` is there).
    pub swap: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unified {
    pub root: PathBuf,
    /// What `cgroup.controllers` offers at the root.
    pub controllers: Vec<String>,
}

impl Layout {
    /// Looks where the hierarchies usually are, and else into the mount table: the kernel takes 80 µs to write that,
    /// even where little is mounted.
    pub fn observe() -> Result<Layout> {
        let own = procfs::text("/proc/self/cgroup").unwrap_or_default();
        let mut layout = match Layout::usual(&own, magic) {
            Some(layout) => layout,
            None => {
                let table = procfs::text("/proc/self/mountinfo").doing(|| "read /proc/self/mountinfo")?;
                Layout::parse(&table)
            }
        };
        for h in &mut layout.v1 {
            h.swap = h.controllers.iter().any(|c| c == "memory") && h.root.join("memory.memsw.limit_in_bytes").exists();
        }
        if let Some(unified) = &mut layout.unified {
            let offered = procfs::text(unified.root.join("cgroup.controllers")).unwrap_or_default();
            unified.controllers = offered.split_whitespace().map(str::to_string).collect();
        }
        if layout == Layout::default() {
            return Err(Error::system("no cgroup file system is mounted")
                .with_hint("mount one: mount -t cgroup2 cgroup2 /sys/fs/cgroup"));
        }
        Ok(layout)
    }

    /// Each hierarchy of a `/proc/self/cgroup` text in its usual place; `None` if one is not there. `magic` tells what is
    /// mounted in a place.
    fn usual(own: &str, magic: impl Fn(&Path) -> Option<u64>) -> Option<Layout> {
        const ROOT: &str = "/sys/fs/cgroup";
        let mut layout = Layout::default();
        if own.is_empty() {
            return None;
        }
        for line in own.lines() {
            // 4:cpu,cpuacct:/user.slice   1:name=systemd:/   0::/
            let names = line.split(':').nth(1)?;
            let (place, kind) = match names {
                "" if own.lines().count() == 1 => (PathBuf::from(ROOT), CGROUP2),
                "" => (Path::new(ROOT).join("unified"), CGROUP2),
                _ => (Path::new(ROOT).join(names.strip_prefix("name=").unwrap_or(names)), CGROUP),
            };
            if magic(&place)? != kind {
                return None;
            }
            match kind {
                CGROUP2 => layout.unified = Some(Unified { root: place, controllers: Vec::new() }),
                _ => {
                    let controllers = names.split(',').filter(|o| is_controller(o)).map(str::to_string).collect();
                    layout.v1.push(Hierarchy { controllers, root: place, swap: false });
                }
            }
        }
        // In the order in which they were made, as mount tables have them.
        layout.v1.reverse();
        Some(layout)
    }

    /// The mounts in a `mountinfo` text; the first mount of a hierarchy counts.
    pub(super) fn parse(mountinfo: &str) -> Layout {
        let mut layout = Layout::default();
        for line in mountinfo.lines() {
            // 36 35 98:0 /root /mount/point rw,noatime shared:1 - ext3 /dev/root rw,errors=continue
            let Some((mount, filesystem)) = line.split_once(" - ") else { continue };
            let Some(target) = mount.split(' ').nth(4) else { continue };
            let mut filesystem = filesystem.split(' ');
            let kind = filesystem.next().unwrap_or_default();
            let options = filesystem.nth(1).unwrap_or_default();
            match kind {
                "cgroup2" if layout.unified.is_none() => {
                    layout.unified = Some(Unified { root: unescape(target), controllers: Vec::new() });
                }
                "cgroup" => {
                    let controllers: Vec<String> =
                        options.split(',').filter(|o| is_controller(o)).map(str::to_string).collect();
                    let named = options.split(',').any(|o| o.starts_with("name="));
                    let known = layout.v1.iter().any(|h| h.controllers == controllers);
                    if !known && (named || !controllers.is_empty()) {
                        layout.v1.push(Hierarchy { controllers, root: unescape(target), swap: false });
                    }
                }
                _ => {}
            }
        }
        layout
    }

    /// Only the v2 hierarchy.
    pub fn v2_part(&self) -> Layout {
        Layout { v1: Vec::new(), unified: self.unified.clone() }
    }

    /// Only the v1 hierarchies.
    pub fn v1_part(&self) -> Layout {
        Layout { v1: self.v1.clone(), unified: None }
    }

    /// The root of the v1 hierarchy that has this controller.
    pub fn v1_root(&self, controller: &str) -> Option<&Path> {
        let h = self.v1.iter().find(|h| h.controllers.iter().any(|c| c == controller))?;
        Some(&h.root)
    }

    /// The v2 hierarchy, if this controller is in it.
    pub fn v2_root(&self, controller: &str) -> Option<&Path> {
        let u = self.unified.as_ref()?;
        u.controllers.iter().any(|c| c == controller).then_some(&*u.root)
    }

    /// Whether the controllers are in the v2 hierarchy.
    pub fn is_v2(&self) -> bool {
        self.v1.is_empty()
    }

    /// How `docker info` calls it.
    pub fn version(&self) -> &'static str {
        if self.is_v2() { "2" } else { "1" }
    }
}

/// What statfs(2) calls the file systems of v1 and v2 (linux/magic.h).
const CGROUP: u64 = 0x27_e0eb;
const CGROUP2: u64 = 0x6367_7270;

fn magic(place: &Path) -> Option<u64> {
    rustix::fs::statfs(place).ok().map(|found| found.f_type as u64)
}

/// Mount options of a v1 hierarchy that are no controllers.
fn is_controller(option: &str) -> bool {
    const OTHER: [&str; 8] = ["rw", "ro", "xattr", "clone_children", "noprefix", "all", "none", "cpuset_v2_mode"];
    !OTHER.contains(&option) && !option.contains('=') && !option.is_empty()
}

/// mountinfo writes blanks and backslashes in paths as octal.
fn unescape(path: &str) -> PathBuf {
    let plain = path.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\");
    PathBuf::from(plain)
}

/// A new v1 cpuset is empty and lets nobody in: gives `dir` its parent's CPUs and nodes, and makes
/// the kernel do the same for every child to come, so that no container pays for it.
pub(super) fn open_cpuset(root: &Path, dir: &Path) -> Result<()> {
    let parent = dir.parent().unwrap_or(root);
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let value = fs::read(parent.join(file)).doing(|| format!("read {}", parent.join(file).display()))?;
        fs::write(dir.join(file), value).doing(|| format!("write {}", dir.join(file).display()))?;
    }
    let file = dir.join("cgroup.clone_children");
    fs::write(&file, "1").doing(|| format!("write {}", file.display()))
}

/// Switches controllers on for the children of each directory above `path`. What every container
/// should have, for statistics and OOM reports, is switched on where offered; only failing to get a
/// `needed` one is an error.
pub(super) fn enable_controllers<'a>(
    unified: &Unified,
    path: &Path,
    needed: impl Iterator<Item = &'a str>,
) -> Result<()> {
    const ALWAYS: [&str; 3] = ["cpu", "memory", "pids"];
    let needed: BTreeSet<&str> = needed.collect();
    let wanted: Vec<&str> = ALWAYS
        .into_iter()
        .filter(|c| !needed.contains(c))
        .chain(needed.iter().copied())
        .filter(|c| unified.controllers.iter().any(|o| o == c))
        .collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let mut dir = unified.root.clone();
    let mut parents = vec![dir.clone()];
    for name in path.parent().into_iter().flat_map(Path::components) {
        dir.push(name);
        parents.push(dir.clone());
    }
    for parent in parents {
        let file = parent.join("cgroup.subtree_control");
        let on = fs::read_to_string(&file).unwrap_or_default();
        for controller in wanted.iter().filter(|c| !on.split_whitespace().any(|o| o == **c)) {
            match fs::write(&file, format!("+{controller}")) {
                Err(e) if needed.contains(controller) => return Err(enable_error(&file, controller, &e)),
                _ => {}
            }
        }
    }
    Ok(())
}

fn enable_error(file: &Path, controller: &str, e: &std::io::Error) -> Error {
    let error = Error::io(format!("enable controller {controller} in {}", file.display()), e);
    match Errno::from_io_error(e) {
        Some(Errno::BUSY) => error
            .with_hint("processes live in that cgroup itself (inside a container?): move them to a child of it first"),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
24 1 0:22 / /sys rw,relatime shared:2 - sysfs sysfs rw
30 24 0:26 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
33 30 0:29 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
34 30 0:30 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
35 30 0:28 / /srv/again rw,relatime - cgroup cgroup rw,memory
";

    #[test]
    fn hybrid_hosts_have_both() {
        let l = Layout::parse(HYBRID);
        assert_eq!(l.v1.len(), 3);
        assert_eq!(l.v1_root("cpuacct"), Some(Path::new("/sys/fs/cgroup/cpu,cpuacct")));
        assert_eq!(l.v1_root("memory"), Some(Path::new("/sys/fs/cgroup/memory")));
        assert_eq!(l.v1_root("xattr"), None);
        assert_eq!(l.unified.as_ref().unwrap().root, Path::new("/sys/fs/cgroup/unified"));
        assert!(!l.is_v2());
    }

    #[test]
    fn v2_hosts_have_one() {
        let line = "30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n";
        let l = Layout::parse(line);
        assert!(l.is_v2());
        assert_eq!(l.version(), "2");
    }

    #[test]
    fn usual_places_say_what_the_mount_table_says() {
        let own = "12:memory:/a\n3:cpu,cpuacct:/\n1:name=systemd:/user.slice\n0::/user.slice\n";
        let places = |place: &Path| match place.to_str()? {
            "/sys/fs/cgroup/unified" => Some(CGROUP2),
            "/sys/fs/cgroup/memory" | "/sys/fs/cgroup/cpu,cpuacct" | "/sys/fs/cgroup/systemd" => Some(CGROUP),
            "/sys/fs/cgroup" => Some(0x0102_1994),
            _ => None,
        };
        let (mut found, mut table) = (Layout::usual(own, places).unwrap(), Layout::parse(HYBRID));
        for layout in [&mut found, &mut table] {
            layout.v1.sort_by(|a, b| a.root.cmp(&b.root));
        }
        assert_eq!(found, table);
        // A hierarchy that is not mounted, or elsewhere.
        assert_eq!(Layout::usual(&format!("13:net_cls:/\n{own}"), places), None);
        assert_eq!(Layout::usual(own, |_| Some(CGROUP)), None);
        let v2 = Layout::usual("0::/\n", |place| (place == Path::new("/sys/fs/cgroup")).then_some(CGROUP2));
        assert_eq!(v2, Some(Layout::parse("30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")));
        assert_eq!(Layout::usual("", places), None);
    }

    #[test]
    fn a_path_with_a_blank() {
        let l = Layout::parse("1 1 0:1 / /a\\040b rw - cgroup2 none rw\n");
        assert_eq!(l.unified.unwrap().root, Path::new("/a b"));
    }
}
