//! `rrun inspect CONTAINER`.

use crate::container::record::{HostConfig, MountKind, Record};
use crate::container::request::security;
use crate::context::Context;
use ipnetwork::IpNetwork;
use netstack::model::{Endpoint, EndpointConfig, PortBinding, PortSpec, Proto};
use netstack::networks::is_predefined;
use netstack::rate;
use runtime::cgroup::IoRate;
use runtime::spec::AppArmor;
use runtime::state::{State, Status};
use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// What a container's record does not say: its process, and what its networks gave it.
pub struct Live<'a> {
    pub state: &'a State,
    pub paused: bool,
    pub endpoints: &'a [Endpoint],
    pub bindings: &'a [PortBinding],
    /// Lower directories of the root, topmost first.
    pub lower: &'a [PathBuf],
    /// What its resolver has done.
    pub dns: Option<Value>,
    /// Bytes in the writable layer, when asked for (`--size`).
    pub size: Option<u64>,
}

pub fn container(ctx: &Context, r: &Record, live: &Live) -> Value {
    let dir = ctx.container_dir(&r.id);
    let args = r.config.args();
    let (path, rest) = args.split_first().map_or(("", &[][..]), |(p, rest)| (p.as_str(), rest));
    let running = live.state.status == Status::Running;
    let mut doc = json!({
        "Id": r.id,
        "Created": r.created,
        "Path": path,
        "Args": rest,
        "State": state(live),
        "Image": r.image_id,
        "ResolvConfPath": dir.join("resolv.conf"),
        "HostnamePath": dir.join("hostname"),
        "HostsPath": dir.join("hosts"),
        // Only of the format that other programs may rely on.
        "LogPath": if r.host.log.driver == "json-file" { dir.join("log") } else { PathBuf::new() },
        "Name": format!("/{}", r.name),
        "RestartCount": live.state.restart_count,
        "Driver": "overlay2",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": apparmor_profile(r),
        "ExecIDs": null,
        "HostConfig": host_config(r),
        "GraphDriver": {
            "Data": {
                "LowerDir": live.lower.iter().map(|l| l.display().to_string()).collect::<Vec<_>>().join(":"),
                "UpperDir": dir.join("upper"),
                "WorkDir": dir.join("work"),
            },
            "Name": "overlay2",
        },
        "Mounts": mounts(r),
        "Config": config(r),
        "NetworkSettings": {
            "SandboxID": if running { r.id.as_str() } else { "" },
            "SandboxKey": if running { format!("/proc/{}/ns/net", live.state.pid) } else { String::new() },
            "Ports": if running { ports(r, live.bindings) } else { json!({}) },
            "Networks": networks(r, live.endpoints),
        },
    });
    if let Some(dns) = &live.dns {
        doc["NetworkSettings"]["DNS"] = dns.clone();
    }
    if let (Some(size), Some(o)) = (live.size, doc.as_object_mut()) {
        o.insert("SizeRw".into(), size.into());
    }
    doc
}

/// What it would run under if it were started now: nothing where there is no AppArmor.
fn apparmor_profile(r: &Record) -> String {
    if !runtime::apparmor::is_on() {
        return String::new();
    }
    match security::confinement(&r.host.security_opt).apparmor {
        Some(AppArmor::Profile(name)) => name,
        Some(AppArmor::Unconfined) => "unconfined".into(),
        None if r.host.privileged => "unconfined".into(),
        Some(AppArmor::Default) | None => runtime::apparmor::DEFAULT.into(),
    }
}

fn state(live: &Live) -> Value {
    let s = live.state;
    let restarting = s.status == Status::Restarting;
    let mut doc = json!({
        "Status": if live.paused { "paused".to_string() } else { s.status.to_string() },
        // Docker's reading: what waits for its next start is running.
        "Running": s.status == Status::Running || restarting,
        "Paused": live.paused,
        "Restarting": restarting,
        "OOMKilled": s.oom_killed,
        "Dead": false,
        "Pid": s.pid,
        "ExitCode": s.exit_code,
        "Error": s.error,
        "StartedAt": s.started_at,
        "FinishedAt": s.finished_at,
        "LogDropped": s.log_dropped,
    });
    if let (Some(health), Some(o)) = (s.health, doc.as_object_mut()) {
        let health = json!({"Status": health, "FailingStreak": s.failing_streak, "Log": s.probes});
        o.insert("Health".into(), health);
    }
    doc
}

fn config(r: &Record) -> Value {
    let c = &r.config;
    let set = |items: &[String]| -> Value {
        if items.is_empty() {
            return Value::Null;
        }
        Value::Object(items.iter().map(|i| (i.clone(), json!({}))).collect())
    };
    let mut doc = json!({
        "Hostname": c.hostname,
        "Domainname": c.domainname,
        "User": c.user,
        "AttachStdin": c.attached && c.open_stdin,
        "AttachStdout": c.attached,
        "AttachStderr": c.attached,
        "Tty": c.tty,
        "OpenStdin": c.open_stdin,
        "StdinOnce": c.attached && c.open_stdin,
        "Env": c.env,
        "Cmd": c.cmd,
        "Image": r.image,
        "Volumes": set(&c.volumes),
        "WorkingDir": c.working_dir,
        "Entrypoint": c.entrypoint,
        "Labels": c.labels,
    });
    if let Some(o) = doc.as_object_mut() {
        if !c.exposed_ports.is_empty() {
            o.insert("ExposedPorts".into(), set(&c.exposed_ports));
        }
        if let Some(s) = &c.stop_signal {
            o.insert("StopSignal".into(), s.as_str().into());
        }
        if let Some(t) = c.stop_timeout {
            o.insert("StopTimeout".into(), t.into());
        }
        if let Some(h) = &c.healthcheck {
            o.insert("Healthcheck".into(), h.clone());
        }
    }
    doc
}

fn host_config(r: &Record) -> Value {
    let h = &r.host;
    let ulimits: Vec<Value> =
        h.ulimits.iter().map(|u| json!({"Name": u.name, "Hard": u.hard, "Soft": u.soft})).collect();
    // On networks with DNS they belong to the endpoint.
    let links: Vec<String> = r
        .networks
        .iter()
        .filter(|n| is_predefined(&n.network))
        .flat_map(|n| &n.links)
        .map(|l| format!("/{}:/{}/{}", l.container, r.name, l.alias))
        .collect();
    let devices: Vec<Value> = h
        .devices
        .iter()
        .map(|d| json!({"PathOnHost": d.host, "PathInContainer": d.container, "CgroupPermissions": d.access}))
        .collect();
    let mut doc = json!({
        "Binds": if h.binds.is_empty() { Value::Null } else { json!(h.binds) },
        "ContainerIDFile": h.cidfile.clone().unwrap_or_default(),
        "Links": if links.is_empty() { Value::Null } else { json!(links) },
        "LogConfig": {"Type": h.log.driver, "Config": h.log.options},
        "NetworkMode": h.network_mode,
        "PortBindings": port_bindings(&h.ports),
        "RestartPolicy": {"Name": h.restart.name.as_str(), "MaximumRetryCount": h.restart.maximum},
        "AutoRemove": h.auto_remove,
        "CapAdd": if h.cap_add.is_empty() { Value::Null } else { json!(h.cap_add) },
        "CapDrop": if h.cap_drop.is_empty() { Value::Null } else { json!(h.cap_drop) },
        "Dns": r.dns.servers,
        "DnsOptions": r.dns.options,
        "DnsSearch": r.dns.search,
        "ExtraHosts": if h.extra_hosts.is_empty() { Value::Null } else { json!(h.extra_hosts) },
        "GroupAdd": if h.group_add.is_empty() { Value::Null } else { json!(h.group_add) },
        "OomScoreAdj": h.oom_score_adj.unwrap_or(0),
        "Privileged": h.privileged,
        "PublishAllPorts": h.publish_all,
        "ReadonlyRootfs": h.readonly_rootfs,
        "SecurityOpt": if h.security_opt.is_empty() { Value::Null } else { json!(h.security_opt) },
        "Tmpfs": h.tmpfs,
        "Sysctls": h.sysctls,
        "ShmSize": h.shm_size,
        "Memory": h.memory,
        "MemoryReservation": h.memory_reservation,
        "MemorySwap": h.memory_swap,
        "NanoCpus": h.nano_cpus,
        "CpuShares": h.cpu_shares,
        "CpusetCpus": h.cpuset_cpus,
        "CpusetMems": h.cpuset_mems,
        "PidsLimit": h.pids_limit,
        "Ulimits": ulimits,
        "Devices": devices,
        "Egress": if h.egress.is_empty() { Value::Null } else { json!(h.egress) },
        "HostLoopback": if h.host_loopback.is_empty() { Value::Null } else { json!(h.host_loopback) },
        "NetRate": {
            "In": h.net_rate.inbound.map(rate::text),
            "Out": h.net_rate.outbound.map(rate::text),
        },
        "Init": h.init,
    });
    if let (Value::Object(doc), Value::Object(more)) = (&mut doc, host_config_more(h)) {
        doc.extend(more);
    }
    doc
}

/// A second part, since one literal of this size is beyond the compiler's patience.
fn host_config_more(h: &HostConfig) -> Value {
    let disks = |rate: IoRate| -> Value {
        let key = if rate == IoRate::Weight { "Weight" } else { "Rate" };
        let of = h.disks.iter().filter(|d| d.rate == rate);
        of.map(|d| json!({"Path": d.path, key: d.value})).collect()
    };
    json!({
        "Annotations": h.annotations,
        "BlkioWeight": h.blkio_weight,
        "BlkioWeightDevice": disks(IoRate::Weight),
        "BlkioDeviceReadBps": disks(IoRate::ReadBps),
        "BlkioDeviceWriteBps": disks(IoRate::WriteBps),
        "BlkioDeviceReadIOps": disks(IoRate::ReadIops),
        "BlkioDeviceWriteIOps": disks(IoRate::WriteIops),
        "CgroupParent": h.cgroup_parent,
        "Cgroup": "",
        "CgroupnsMode": if h.cgroupns_mode.is_empty() { "private" } else { &h.cgroupns_mode },
        "CpuPeriod": h.cpu_period,
        "CpuQuota": h.cpu_quota,
        "CpuRealtimePeriod": h.cpu_rt_period,
        "CpuRealtimeRuntime": h.cpu_rt_runtime,
        "DeviceCgroupRules": h.device_cgroup_rules.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "IpcMode": if h.ipc_mode.is_empty() { "private" } else { &h.ipc_mode },
        "Isolation": "",
        "MemorySwappiness": h.memory_swappiness,
        "OomKillDisable": h.oom_kill_disable,
        "PidMode": h.pid_mode,
        "Runtime": "rrun",
        "UTSMode": h.uts_mode,
        "UsernsMode": h.userns_mode,
        "VolumeDriver": "",
        "VolumesFrom": if h.volumes_from.is_empty() { Value::Null } else { json!(h.volumes_from) },
    })
}

fn mounts(r: &Record) -> Value {
    let rows = r.mounts.iter().map(|m| {
        let kind = match m.kind {
            MountKind::Bind => "bind",
            MountKind::Volume => "volume",
            MountKind::Tmpfs => "tmpfs",
        };
        let mut doc = json!({
            "Type": kind,
            "Source": m.source,
            "Destination": m.destination,
            "Mode": m.mode,
            "RW": m.rw,
            "Propagation": m.propagation,
        });
        if let (Some(name), Some(o)) = (&m.name, doc.as_object_mut()) {
            o.insert("Name".into(), name.as_str().into());
            o.insert("Driver".into(), "local".into());
        }
        doc
    });
    Value::Array(rows.collect())
}

/// What `-p` asked for: `{"80/tcp":[{"HostIp":"","HostPort":"8080"}]}`.
fn port_bindings(specs: &[PortSpec]) -> Value {
    let mut out: Map<String, Value> = Map::new();
    for s in specs {
        let span = s.container.1 - s.container.0;
        for i in 0..=span {
            let host = match s.host {
                None => String::new(),
                // As many host ports as container ports: one each; else the range to choose from.
                Some((a, b)) if b - a == span => (a + i).to_string(),
                Some((a, b)) => format!("{a}-{b}"),
            };
            push(
                &mut out,
                s.container.0 + i,
                s.proto,
                place(s.host_ip.map(|ip| ip.to_string()).unwrap_or_default(), host, s.iface.as_deref(), &s.from),
            );
        }
    }
    Value::Object(out)
}

/// What became of it, one entry a port; exposed but unpublished ports are `null`.
pub fn ports(r: &Record, bindings: &[PortBinding]) -> Value {
    let mut out: Map<String, Value> = Map::new();
    for port in &r.config.exposed_ports {
        out.entry(port.clone()).or_insert(Value::Null);
    }
    for b in bindings {
        for i in 0..=(b.container.1 - b.container.0) {
            // No host port leads to a routed network: its own port is open.
            let host = if b.routed { String::new() } else { (b.host.0 + i).to_string() };
            let row = place(b.host_ip.to_string(), host, b.iface.as_deref(), &b.from);
            push(&mut out, b.container.0 + i, b.proto, row);
        }
    }
    Value::Object(out)
}

/// Docker's two fields, and ours where `iface=` and `from=` were used.
fn place(ip: String, port: String, iface: Option<&str>, from: &[IpNetwork]) -> Value {
    let mut place = json!({ "HostIp": ip, "HostPort": port });
    if let Some(iface) = iface {
        place["HostInterface"] = iface.into();
    }
    if !from.is_empty() {
        place["From"] = json!(from);
    }
    place
}

fn push(out: &mut Map<String, Value>, port: u16, proto: Proto, row: Value) {
    let proto = match proto {
        Proto::Tcp => "tcp",
        Proto::Udp => "udp",
        Proto::Sctp => "sctp",
    };
    let slot = out.entry(format!("{port}/{proto}")).or_insert(Value::Null);
    match slot {
        Value::Array(rows) => rows.push(row),
        _ => *slot = Value::Array(vec![row]),
    }
}

fn networks(r: &Record, endpoints: &[Endpoint]) -> Value {
    let mut out = Map::new();
    if r.networks.is_empty() && r.joined_container().is_none() && r.foreign_namespace().is_none() {
        let name = r.host.network_mode.clone();
        out.insert(name.clone(), network(&EndpointConfig { network: name, ..EndpointConfig::default() }, None));
    }
    for asked in &r.networks {
        let got = endpoints.iter().find(|e| e.network == asked.network || e.network_id == asked.network);
        out.insert(asked.network.clone(), network(asked, got));
    }
    Value::Object(out)
}

fn network(asked: &EndpointConfig, got: Option<&Endpoint>) -> Value {
    let mut ipam = Map::new();
    ipam.extend(asked.ip.map(|ip| ("IPv4Address".to_string(), json!(ip))));
    ipam.extend(asked.ip6.map(|ip| ("IPv6Address".to_string(), json!(ip))));
    if !asked.link_local.is_empty() {
        ipam.insert("LinkLocalIPs".into(), json!(asked.link_local));
    }
    let links: Vec<String> = asked.links.iter().map(|l| format!("{}:{}", l.container, l.alias)).collect();
    let text = |v: Option<String>| v.unwrap_or_default();
    json!({
        "IPAMConfig": if ipam.is_empty() { Value::Null } else { Value::Object(ipam) },
        "Links": if links.is_empty() || is_predefined(&asked.network) { Value::Null } else { json!(links) },
        "Aliases": if asked.aliases.is_empty() { Value::Null } else { json!(asked.aliases) },
        "DriverOpts": if asked.driver_opts.is_empty() { Value::Null } else { json!(asked.driver_opts) },
        "GwPriority": asked.gw_priority,
        "NetworkID": text(got.map(|e| e.network_id.clone())),
        "EndpointID": text(got.map(|e| e.id.clone())),
        "Gateway": text(got.and_then(|e| e.gateway4).map(|g| g.to_string())),
        "IPAddress": text(got.and_then(|e| e.ipv4).map(|a| a.to_string())),
        "MacAddress": text(got.map(|e| e.mac.clone())),
        "IPPrefixLen": got.filter(|e| e.ipv4.is_some()).map_or(0, |e| e.prefix4),
        "IPv6Gateway": text(got.and_then(|e| e.gateway6).map(|g| g.to_string())),
        "GlobalIPv6Address": text(got.and_then(|e| e.ipv6).map(|a| a.to_string())),
        "GlobalIPv6PrefixLen": got.filter(|e| e.ipv6.is_some()).map_or(0, |e| e.prefix6),
        "DNSNames": got.filter(|e| !e.dns_names.is_empty()).map(|e| e.dns_names.clone()),
    })
}
