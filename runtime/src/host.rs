//! What the planner needs to know about this machine: read once per start, in well under 200 µs.

use crate::apparmor;
use crate::cgroup::Layout;
use crate::spec::defaults::THERMAL_THROTTLE;
use plan::{Error, Result, ResultExt};
use std::path::Path;

/// The oldest kernel with everything rrun builds on: mount_setattr(2) came last.
const OLDEST_KERNEL: (u32, u32) = (5, 12);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFacts {
    pub cgroup: Layout,
    /// What the caller can hand on to a container: its permitted and bounding capabilities, as a
    /// mask.
    pub caps: u64,
    /// How many CPUs show their thermal throttling in sysfs (0: none).
    pub thermal_throttle_cpus: u32,
    /// None: no AppArmor here.
    pub apparmor: Option<apparmor::Facts>,
}

impl HostFacts {
    /// Looks at the running kernel; changes nothing.
    pub fn observe() -> Result<HostFacts> {
        HostFacts::of(Layout::observe()?)
    }

    /// As [`HostFacts::observe`], for who knows the control groups already.
    pub fn of(cgroup: Layout) -> Result<HostFacts> {
        check_kernel(rustix::system::uname().release().to_str().unwrap_or_default())?;
        let caps = crate::sys::security::own_capabilities().doing(|| "read the caller's capabilities")?;
        Ok(HostFacts {
            cgroup,
            caps,
            thermal_throttle_cpus: thermal_throttle_cpus(),
            apparmor: apparmor::Facts::observe(),
        })
    }
}

fn check_kernel(release: &str) -> Result<()> {
    let mut numbers = release.split(['.', '-']).map_while(|n| n.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) < OLDEST_KERNEL => Err(Error::system(format!(
            "this kernel ({release}) is too old for rrun"
        ))
        .with_hint(format!("rrun needs Linux {}.{} or newer: mount_setattr(2)", OLDEST_KERNEL.0, OLDEST_KERNEL.1))),
        _ => Ok(()),
    }
}

/// Virtual machines have none; then there is one failed look-up and nothing to mask.
fn thermal_throttle_cpus() -> u32 {
    if !Path::new(&THERMAL_THROTTLE.replace('*', "0")).exists() {
        return 0;
    }
    let possible = std::fs::read_to_string("/sys/devices/system/cpu/possible").unwrap_or_default();
    let last = possible.trim().rsplit([',', '-']).next().and_then(|n| n.parse::<u32>().ok());
    last.map_or(1, |n| n + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_kernel_is_named() {
        assert!(check_kernel("5.12.0").is_ok());
        assert!(check_kernel("6.18.44-fc-v595").is_ok());
        assert!(check_kernel("weird").is_ok());
        let e = check_kernel("5.4.0-150-generic").unwrap_err();
        assert_eq!(e.message, "this kernel (5.4.0-150-generic) is too old for rrun");
    }
}
