//! A [`RunSpec`] written as OCI.

use super::{ANNOTATION, Beyond};
use crate::apparmor;
use crate::cgroup::{self, IoRate};
use crate::spec::{AppArmor, Caps, Cgroup, Device, Mount, Namespace, Process, Root, RunSpec, User};
use oci_spec::runtime::Spec;
use plan::{Error, Result};
use serde_json::{Value, json};
use std::path::Path;

/// The container as an OCI `Spec`, complete enough to come back by [`super::from_spec`] unchanged.
pub fn to_spec(spec: &RunSpec) -> Result<Spec> {
    let failed = |e: serde_json::Error| Error::system("write the container as OCI").with_cause(e.to_string());
    let beyond = Beyond {
        root: spec.root.clone(),
        user: spec.process.user.clone(),
        init: spec.process.init,
        seccomp: spec.seccomp.clone(),
        device_rules: spec.cgroup.device_rules.clone(),
    };
    let mut annotations = spec.annotations.clone();
    annotations.insert(ANNOTATION.into(), serde_json::to_string(&beyond).map_err(failed)?);
    let mut document = json!({
        "ociVersion": "1.0.2",
        "root": root(&spec.root),
        "hostname": spec.hostname,
        "domainname": spec.domainname,
        "process": process(&spec.process),
        "mounts": spec.mounts.iter().map(mount).collect::<Vec<_>>(),
        "annotations": annotations,
        "linux": linux(spec),
    });
    drop_nulls(&mut document);
    serde_json::from_value(document).map_err(failed)
}

/// OCI leaves out what is not set.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// An overlay has no OCI form; another tool would see where it gets mounted.
fn root(root: &Root) -> Value {
    let (path, readonly) = match root {
        Root::Overlay { base, readonly, .. } => (base, readonly),
        Root::Directory { path, readonly } => (path, readonly),
    };
    json!({ "path": path, "readonly": readonly })
}

fn process(p: &Process) -> Value {
    let rlimits: Vec<Value> = p
        .rlimits
        .iter()
        .map(|l| json!({ "type": format!("RLIMIT_{}", l.name), "soft": l.soft, "hard": l.hard }))
        .collect();
    json!({
        "terminal": p.tty,
        "consoleSize": p.console_size.map(|(rows, columns)| json!({ "height": rows, "width": columns })),
        "user": user(&p.user, p.umask),
        "args": p.args,
        "env": p.env,
        "cwd": p.cwd,
        "capabilities": capabilities(&p.caps),
        "rlimits": rlimits,
        "noNewPrivileges": p.no_new_privileges,
        "apparmorProfile": match &p.apparmor {
            AppArmor::Default => apparmor::DEFAULT,
            AppArmor::Unconfined => "unconfined",
            AppArmor::Profile(name) => name,
        },
        "oomScoreAdj": p.oom_score_adj,
    })
}

fn user(user: &User, umask: Option<u32>) -> Value {
    match user {
        // A name is looked up at start; until then it is in the annotation.
        User::Named { spec, .. } => json!({ "uid": 0, "gid": 0, "umask": umask, "username": spec }),
        User::Ids { uid, gid, additional_gids } => {
            json!({ "uid": uid, "gid": gid, "umask": umask, "additionalGids": additional_gids })
        }
    }
}

fn capabilities(caps: &Caps) -> Value {
    let set = |names: &[String]| names.iter().map(|n| format!("CAP_{n}")).collect::<Vec<_>>();
    json!({
        "bounding": set(&caps.bounding),
        "effective": set(&caps.effective),
        "permitted": set(&caps.permitted),
        "inheritable": set(&caps.inheritable),
        "ambient": set(&caps.ambient),
    })
}

fn mount(m: &Mount) -> Value {
    json!({ "destination": m.target, "type": m.kind, "source": m.source, "options": m.options })
}

/// Without `seccomp`: Docker's profiles have conditions that OCI lacks, so it is in the annotation.
fn linux(spec: &RunSpec) -> Value {
    let c = &spec.cgroup;
    json!({
        "namespaces": namespaces(spec),
        "sysctl": spec.sysctls,
        "cgroupsPath": Path::new("/").join(&c.path),
        "devices": spec.devices.iter().map(device).collect::<Vec<_>>(),
        "maskedPaths": spec.masked_paths,
        "readonlyPaths": spec.readonly_paths,
        "resources": {
            "devices": device_rules(spec),
            "memory": {
                "limit": c.memory,
                "swap": c.memory_swap,
                "reservation": c.memory_reservation,
                "swappiness": c.memory_swappiness,
                "disableOOMKiller": c.oom_kill_disable.then_some(true),
            },
            "cpu": {
                "quota": c.cpu_quota,
                "period": c.cpu_period,
                "shares": c.cpu_shares,
                "realtimeRuntime": c.cpu_rt_runtime,
                "realtimePeriod": c.cpu_rt_period,
                "cpus": c.cpuset_cpus,
                "mems": c.cpuset_mems,
            },
            "pids": c.pids.map(|limit| json!({ "limit": limit })),
            "blockIO": block_io(c),
        },
    })
}

fn block_io(c: &Cgroup) -> Value {
    if c.blkio_weight.is_none() && c.io.is_empty() {
        return Value::Null;
    }
    let limits = |rate: IoRate| -> Vec<Value> {
        let key = if rate == IoRate::Weight { "weight" } else { "rate" };
        let of = c.io.iter().filter(|l| l.rate == rate);
        of.map(|l| json!({ "major": l.major, "minor": l.minor, key: l.value })).collect()
    };
    json!({
        "weight": c.blkio_weight,
        "weightDevice": limits(IoRate::Weight),
        "throttleReadBpsDevice": limits(IoRate::ReadBps),
        "throttleWriteBpsDevice": limits(IoRate::WriteBps),
        "throttleReadIOPSDevice": limits(IoRate::ReadIops),
        "throttleWriteIOPSDevice": limits(IoRate::WriteIops),
    })
}

fn namespaces(spec: &RunSpec) -> Vec<Value> {
    let n = &spec.namespaces;
    let mut list = vec![json!({ "type": "mount" })];
    let kinds = [("pid", &n.pid), ("network", &n.net), ("ipc", &n.ipc), ("uts", &n.uts), ("cgroup", &n.cgroup)];
    for (kind, how) in kinds {
        match how {
            Namespace::Private => list.push(json!({ "type": kind })),
            Namespace::Path(path) => list.push(json!({ "type": kind, "path": path })),
            Namespace::Host => {}
        }
    }
    list
}

fn device(d: &Device) -> Value {
    json!({
        "path": d.path,
        "type": d.kind.to_string(),
        "major": d.major,
        "minor": d.minor,
        "fileMode": d.mode,
        "uid": d.uid,
        "gid": d.gid,
    })
}

fn device_rules(spec: &RunSpec) -> Vec<Value> {
    if spec.cgroup.all_devices {
        return vec![json!({ "allow": true, "type": "a", "access": "rwm" })];
    }
    let deny = json!({ "allow": false, "type": "a", "access": "rwm" });
    let allowed = cgroup::rules(&spec.devices, &spec.cgroup.device_rules, false).into_iter().map(|r| {
        json!({
            "allow": true,
            "type": r.kind.to_string(),
            "major": r.major,
            "minor": r.minor,
            "access": r.access,
        })
    });
    std::iter::once(deny).chain(allowed).collect()
}
