//! The OCI face: a [`RunSpec`] as a `config.json` that any OCI runtime understands, and back.
//!
//! What OCI has no words for travels in annotations named `dev.rrun.*`: an overlay that is not
//! mounted yet, a user that is still a name, `--init`, and which seccomp profile was meant. Without
//! them, as in another tool's bundle, the plain OCI fields are all there is.

mod read;
mod write;

pub use read::from_spec;
pub use write::to_spec;

use crate::cgroup::DeviceRule;
use crate::spec::{Root, Seccomp, User};
use serde::{Deserialize, Serialize};

/// The one annotation that holds all of it, as JSON.
const ANNOTATION: &str = "dev.rrun.spec";

/// What OCI has no field for.
#[derive(Serialize, Deserialize)]
struct Beyond {
    root: Root,
    user: User,
    init: bool,
    seccomp: Seccomp,
    /// Access without a node; in OCI's list they cannot be told from the default ones.
    #[serde(default)]
    device_rules: Vec<DeviceRule>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::{IoLimit, IoRate};
    use crate::spec::*;

    fn full() -> RunSpec {
        let mut spec = RunSpec::new(&"ab".repeat(32));
        spec.hostname = Some("web".into());
        spec.domainname = Some("example.org".into());
        spec.process.args = vec!["nginx".into(), "-g".into(), "daemon off;".into()];
        spec.process.env = vec!["PATH=/bin".into(), "A=\"=\n".into()];
        spec.process.user = User::Named { spec: "www:www".into(), additional_groups: vec!["audio".into()] };
        spec.process.tty = true;
        spec.process.console_size = Some((24, 80));
        spec.process.no_new_privileges = true;
        spec.process.apparmor = AppArmor::Profile("mine".into());
        spec.process.rlimits = vec![Rlimit { name: "NOFILE".into(), soft: 1024, hard: u64::MAX }];
        spec.process.oom_score_adj = Some(-5);
        spec.process.umask = Some(0o27);
        spec.process.init = true;
        spec.root = Root::Overlay {
            base: "/var/lib/rrun/layers".into(),
            lower: vec!["b".into(), "a".into()],
            upper: "/u".into(),
            work: "/w".into(),
            volatile: true,
            readonly: true,
        };
        spec.namespaces.pid = Namespace::Host;
        spec.namespaces.net = Namespace::Path("/proc/7/ns/net".into());
        spec.devices = vec![Device {
            path: "/dev/net/tun".into(),
            kind: 'c',
            major: 10,
            minor: 200,
            mode: 0o666,
            uid: 1,
            gid: 2,
            access: "rw".into(),
        }];
        spec.seccomp = Seccomp::Profile("{}".into());
        spec.cgroup.memory = Some(64 << 20);
        spec.cgroup.memory_swap = Some(-1);
        spec.cgroup.cpu_quota = Some(150_000);
        spec.cgroup.cpu_period = Some(100_000);
        spec.cgroup.cpuset_cpus = Some("0-1".into());
        spec.cgroup.pids = Some(100);
        spec.cgroup.memory_swappiness = Some(10);
        spec.cgroup.oom_kill_disable = true;
        spec.cgroup.cpu_rt_runtime = Some(950);
        spec.cgroup.blkio_weight = Some(300);
        let limit = |rate, value| IoLimit { major: 8, minor: 0, rate, value };
        spec.cgroup.io = vec![limit(IoRate::ReadBps, 1 << 20), limit(IoRate::WriteIops, 9), limit(IoRate::Weight, 500)];
        spec.cgroup.device_rules = vec![DeviceRule { kind: 'c', major: Some(42), minor: None, access: "rmw".into() }];
        spec.annotations.insert("org.example".into(), "kept".into());
        spec
    }

    #[test]
    fn a_spec_survives_the_trip() {
        let spec = full();
        let text = serde_json::to_string(&to_spec(&spec).unwrap()).unwrap();
        let read: oci_spec::runtime::Spec = serde_json::from_str(&text).unwrap();
        assert_eq!(from_spec(&read, &spec.id).unwrap(), spec);
    }

    #[test]
    fn privileged_survives_too() {
        let mut spec = full();
        spec.cgroup.all_devices = true;
        spec.devices.clear();
        spec.seccomp = Seccomp::Unconfined;
        assert_eq!(from_spec(&to_spec(&spec).unwrap(), &spec.id).unwrap(), spec);
    }

    #[test]
    fn a_foreign_bundle_is_understood() {
        let text = r#"{
            "ociVersion": "1.0.2",
            "root": { "path": "/bundle/rootfs", "readonly": true },
            "process": {
                "args": ["sh"], "cwd": "/", "user": { "uid": 1000, "gid": 1000, "additionalGids": [5] },
                "capabilities": { "bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"] }
            },
            "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }],
            "linux": {
                "namespaces": [{ "type": "mount" }, { "type": "pid" }, { "type": "network", "path": "/n" }],
                "resources": { "devices": [{ "allow": false, "access": "rwm" }], "pids": { "limit": 7 } },
                "maskedPaths": ["/proc/kcore"]
            }
        }"#;
        let spec = from_spec(&serde_json::from_str(text).unwrap(), "x").unwrap();
        assert_eq!(spec.root, Root::Directory { path: "/bundle/rootfs".into(), readonly: true });
        assert_eq!(spec.process.user, User::Ids { uid: 1000, gid: 1000, additional_gids: vec![5] });
        assert_eq!(spec.process.caps.bounding, ["KILL"]);
        assert_eq!((spec.namespaces.pid, spec.namespaces.ipc), (Namespace::Private, Namespace::Host));
        assert_eq!(spec.namespaces.net, Namespace::Path("/n".into()));
        assert_eq!((spec.cgroup.pids, spec.cgroup.all_devices), (Some(7), false));
        assert_eq!(spec.seccomp, Seccomp::Unconfined);
        assert_eq!(spec.cgroup.path, std::path::Path::new("rrun/x"));
    }

    #[test]
    fn what_rrun_cannot_honour_is_refused() {
        let with = |linux: &str| {
            let text = format!(
                r#"{{ "ociVersion": "1.0.2", "root": {{ "path": "/r" }}, "linux": {linux},
                     "process": {{ "args": ["sh"], "cwd": "/", "user": {{ "uid": 0, "gid": 0 }} }} }}"#
            );
            from_spec(&serde_json::from_str(&text).unwrap(), "x").unwrap_err().message
        };
        assert!(with(r#"{ "namespaces": [{ "type": "user" }, { "type": "mount" }] }"#).contains("user namespace"));
        assert!(with(r#"{ "namespaces": [] }"#).contains("mount namespace"));
        assert!(with(r#"{ "namespaces": [{ "type": "mount" }], "cgroupsPath": "a:b:c" }"#).contains("systemd"));
    }
}
