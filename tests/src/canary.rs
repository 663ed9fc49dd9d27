//! A directory of the host's that no container may touch, and what holds in every container.

use crate::Host;
use std::collections::BTreeSet;

/// A directory of the host's that nobody may touch.
pub struct Canary<'h> {
    host: &'h Host,
    pub dir: String,
    before: String,
    mounts: BTreeSet<String>,
}

impl<'h> Canary<'h> {
    pub fn new(host: &'h Host) -> Canary<'h> {
        let dir = format!("{}/canary", host.dir.display());
        host.sh(&format!(
            "mkdir -p {dir}/x {dir}/pts {dir}/shm {dir}/sub; echo secret > {dir}/key; cp {dir}/key {dir}/sub/key; \
             printf 'spy:x:0:0::/:\\n' > {dir}/passwd; chmod 700 {dir}/x"
        ));
        let mut canary = Canary { host, dir, before: String::new(), mounts: BTreeSet::new() };
        canary.before = canary.look();
        canary.mounts = canary.mounts();
        canary
    }

    fn look(&self) -> String {
        let dir = &self.dir;
        self.host.sh(&format!(
            "find {dir} -printf '%p %y %m %U:%G %s %n %T@\\n' | sort; cat {dir}/key {dir}/sub/key {dir}/passwd; \
             stat -c '%a %u:%g %t:%T' /dev/null"
        ))
    }

    fn mounts(&self) -> BTreeSet<String> {
        self.host.sh("cut -d' ' -f4,5 /proc/self/mountinfo").lines().map(str::to_string).collect()
    }

    #[track_caller]
    pub fn is_untouched(&self) {
        assert_eq!(self.look(), self.before);
        // What the machine unmounts goes here, too; nothing may come, from a container least of all.
        let come: Vec<String> = self.mounts().difference(&self.mounts).cloned().collect();
        assert!(come.is_empty(), "{come:?}");
    }
}

/// What holds in every container that starts: procfs and sysfs are the kernel's, masks are the container's null
/// device, and the parameters of the host cannot be written.
pub const CONFINED: &str = "grep -c ' /proc rw\\| /proc ro' /proc/self/mountinfo; \
    for f in /proc/keys /proc/timer_list /proc/kcore; do [ ! -e $f ] || stat -c %t:%T $f; done; \
    (echo x > /proc/sys/kernel/core_pattern) 2>/dev/null && echo written; true";

#[track_caller]
pub fn are_confined(printed: &[String]) {
    assert!(!printed.is_empty(), "not one has started");
    for text in printed {
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("1"), "one file system at /proc: {text}");
        assert!(lines.all(|l| l == "1:3"), "{text}");
    }
}
