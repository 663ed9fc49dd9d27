//! Disk limits: one line per disk and kind of limit, v1 in a file each, v2 all in one.

use super::limits::Writer;
use crate::spec::Cgroup;
use serde::{Deserialize, Serialize};

/// What a limit of a disk is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IoRate {
    ReadBps,
    WriteBps,
    ReadIops,
    WriteIops,
    /// Relative to others on that disk, 10 to 1000.
    Weight,
}

/// A limit of one disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoLimit {
    pub major: u32,
    pub minor: u32,
    pub rate: IoRate,
    pub value: u64,
}

impl IoRate {
    fn v1_file(self) -> &'static str {
        match self {
            IoRate::ReadBps => "blkio.throttle.read_bps_device",
            IoRate::WriteBps => "blkio.throttle.write_bps_device",
            IoRate::ReadIops => "blkio.throttle.read_iops_device",
            IoRate::WriteIops => "blkio.throttle.write_iops_device",
            // CFQ and its blkio.weight_device went with Linux 5.0.
            IoRate::Weight => "blkio.bfq.weight_device",
        }
    }

    fn v2_key(self) -> Option<&'static str> {
        match self {
            IoRate::ReadBps => Some("rbps"),
            IoRate::WriteBps => Some("wbps"),
            IoRate::ReadIops => Some("riops"),
            IoRate::WriteIops => Some("wiops"),
            IoRate::Weight => None,
        }
    }

    /// Docker's text for a kernel without it.
    fn lacking(self) -> &'static str {
        match self {
            IoRate::ReadBps => {
                "Your kernel does not support BPS Block I/O read limit or the cgroup is not mounted. Block I/O BPS read limit discarded."
            }
            IoRate::WriteBps => {
                "Your kernel does not support BPS Block I/O write limit or the cgroup is not mounted. Block I/O BPS write limit discarded."
            }
            IoRate::ReadIops => {
                "Your kernel does not support IOPS Block read limit or the cgroup is not mounted. Block I/O IOPS read limit discarded."
            }
            IoRate::WriteIops => {
                "Your kernel does not support IOPS Block write limit or the cgroup is not mounted. Block I/O IOPS write limit discarded."
            }
            IoRate::Weight => {
                "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device discarded."
            }
        }
    }
}

const NO_WEIGHT: &str = "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.";

/// Weights are the BFQ scheduler's; v2 has iocost's beside them.
pub(super) fn settings(c: &Cgroup, out: &mut Writer) {
    if let Some(weight) = c.blkio_weight.filter(|w| *w != 0) {
        if out.v1_has("blkio") {
            out.v1("blkio", "blkio.bfq.weight", &weight.to_string());
            out.may_lack(NO_WEIGHT);
        } else if out.v2_has("io") {
            out.v2("io", "io.bfq.weight", &weight.to_string());
            out.or_else("io.weight", &iocost(u64::from(weight)).to_string());
            out.may_lack(NO_WEIGHT);
        } else {
            out.warnings.push(NO_WEIGHT.into());
        }
    }
    for limit in &c.io {
        let IoLimit { major, minor, rate, value } = limit;
        if out.v1_has("blkio") {
            out.v1("blkio", rate.v1_file(), &format!("{major}:{minor} {value}"));
            out.may_lack(rate.lacking());
        } else if !out.v2_has("io") {
            out.warnings.push(rate.lacking().into());
        } else if let Some(key) = rate.v2_key() {
            let value = if *value == 0 { "max".to_string() } else { value.to_string() };
            out.v2("io", "io.max", &format!("{major}:{minor} {key}={value}"));
            out.may_lack(rate.lacking());
        } else {
            out.v2("io", "io.bfq.weight", &format!("{major}:{minor} {value}"));
            out.or_else("io.weight", &format!("{major}:{minor} {}", iocost(*value)));
            out.may_lack(rate.lacking());
        }
    }
}

/// 10 to 1000 as 1 to 10000, on OCI's line.
fn iocost(weight: u64) -> u64 {
    1 + (weight.clamp(10, 1000) - 10) * 9999 / 990
}

#[cfg(test)]
mod tests {
    use super::super::{Hierarchy, Layout, Unified};
    use super::*;

    fn disk(rate: IoRate, value: u64) -> IoLimit {
        IoLimit { major: 8, minor: 0, rate, value }
    }

    fn lines(layout: &Layout) -> Vec<String> {
        let io = [disk(IoRate::ReadBps, 1 << 20), disk(IoRate::WriteIops, 100), disk(IoRate::Weight, 500)];
        let c = Cgroup {
            path: "rrun/x".into(),
            all_devices: true,
            blkio_weight: Some(1000),
            io: io.to_vec(),
            ..Cgroup::default()
        };
        let (settings, warnings) = super::super::settings(&c, &[], layout);
        let line = |s: &super::super::Setting| {
            let other = s.otherwise.as_ref().map(|(f, v)| format!(" or {} {v}", f.display())).unwrap_or_default();
            format!("{} {}{other}", s.file.display(), s.value)
        };
        settings.iter().map(line).chain(warnings).collect()
    }

    #[test]
    fn one_file_a_rate_on_v1() {
        let blkio = Hierarchy { controllers: vec!["blkio".into()], root: "/cg".into(), swap: false };
        assert_eq!(
            lines(&Layout { v1: vec![blkio], unified: None }),
            [
                "/cg/rrun/x/blkio.bfq.weight 1000",
                "/cg/rrun/x/blkio.throttle.read_bps_device 8:0 1048576",
                "/cg/rrun/x/blkio.throttle.write_iops_device 8:0 100",
                "/cg/rrun/x/blkio.bfq.weight_device 8:0 500",
            ]
        );
    }

    #[test]
    fn one_file_for_all_on_v2() {
        let unified = |controllers: &[&str]| {
            let controllers = controllers.iter().map(ToString::to_string).collect();
            Layout { v1: vec![], unified: Some(Unified { root: "/cg".into(), controllers }) }
        };
        assert_eq!(
            lines(&unified(&["io"])),
            [
                "/cg/rrun/x/io.bfq.weight 1000 or /cg/rrun/x/io.weight 10000",
                "/cg/rrun/x/io.max 8:0 rbps=1048576",
                "/cg/rrun/x/io.max 8:0 wiops=100",
                "/cg/rrun/x/io.bfq.weight 8:0 500 or /cg/rrun/x/io.weight 8:0 4950",
            ]
        );
        let without = lines(&unified(&[]));
        assert_eq!(without.len(), 4);
        assert!(without.iter().all(|w| w.starts_with("Your kernel does not support")), "{without:?}");
    }
}
