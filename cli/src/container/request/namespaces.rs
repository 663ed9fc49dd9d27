//! `--ipc`, `--pid`, `--uts`, `--cgroupns`, `--userns`.

use crate::args::{CreateFlags, RefusedFlags};
use crate::container::record::HostConfig;
use plan::{Error, Result};

/// # Errors
/// Docker's texts.
pub fn fill(flags: &CreateFlags, host: &mut HostConfig) -> Result<()> {
    let process = &flags.process;
    let text = |flag: &Option<String>| flag.clone().unwrap_or_default();
    (host.ipc_mode, host.pid_mode, host.uts_mode) = (text(&process.ipc), text(&process.pid), text(&process.uts));
    (host.cgroupns_mode, host.userns_mode) = (text(&process.cgroupns), text(&process.userns));
    let named = |mode: &str| mode.strip_prefix("container:").is_some_and(|name| !name.is_empty());
    let refuse = |message: String, hint: &str| Err(Error::invalid(message).with_hint(hint.to_string()));
    let ipc = host.ipc_mode.as_str();
    if !matches!(ipc, "" | "none" | "private" | "shareable" | "host") && !named(ipc) {
        return refuse(
            format!("invalid IPC mode: {}", ipc.escape_debug()),
            "one of private, shareable, none, host, container:NAME",
        );
    }
    if !matches!(host.pid_mode.as_str(), "" | "host") && !named(&host.pid_mode) {
        return refuse("--pid: invalid PID mode".into(), "one of host, container:NAME");
    }
    if !matches!(host.uts_mode.as_str(), "" | "host") {
        return refuse("--uts: invalid UTS mode".into(), "write --uts host, or nothing");
    }
    if !matches!(host.cgroupns_mode.as_str(), "" | "host" | "private") {
        return refuse("--cgroupns: invalid CGROUP mode".into(), "one of private, host");
    }
    if !matches!(host.userns_mode.as_str(), "" | "host") {
        return refuse("--userns: invalid USER mode".into(), "rrun's containers are in the host's user namespace");
    }
    if host.uts_mode == "host" && (process.hostname.is_some() || process.domainname.is_some()) {
        return refuse(
            "conflicting options: hostname and the UTS mode".into(),
            "with --uts host the container has the host's name",
        );
    }
    Ok(())
}

/// # Errors
/// `--disable-content-trust=false`.
pub fn content_trust(disabled: bool) -> Result<()> {
    match disabled {
        true => Ok(()),
        false => Err(Error::invalid("--disable-content-trust=false: rrun does not verify signatures")
            .with_hint("name the image by its digest: IMAGE@sha256:…")),
    }
}

/// What Docker knows and rrun does not do, each with its reason.
///
/// # Errors
/// A flag whose wish would not come true.
pub fn refuse(flags: &RefusedFlags) -> Result<()> {
    let refuse = |message: String, hint: &str| Err(Error::invalid(message).with_hint(hint.to_string()));
    if flags.gpus.is_some() {
        return refuse(
            "could not select device driver \"\" with capabilities: [[gpu]]".into(),
            "rrun runs no vendor's hooks: give the nodes with --device /dev/nvidia0 … (or /dev/dri), and the driver's libraries with -v",
        );
    }
    if let Some(name) =
        flags.runtime.as_deref().filter(|n| !matches!(*n, "" | "rrun" | "runc" | "io.containerd.runc.v2"))
    {
        return refuse(
            format!("unknown or invalid runtime name: {}", name.escape_debug()),
            "rrun is the runtime itself and starts no other: leave --runtime out",
        );
    }
    if let Some(kind) = flags.isolation.as_deref().filter(|k| !k.is_empty() && !k.eq_ignore_ascii_case("default")) {
        return refuse(
            format!("invalid isolation \"{}\" on linux", kind.escape_debug()),
            "isolation technologies are Windows's: leave --isolation out",
        );
    }
    if !flags.storage_opt.is_empty() {
        return refuse(
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option".into(),
            "rrun sets no disk quotas: put --root on a file system of the wanted size",
        );
    }
    if let Some(name) = flags.volume_driver.as_deref().filter(|n| !matches!(*n, "" | "local")) {
        let name = name.escape_debug();
        return refuse(
            format!("error looking up volume plugin {name}: plugin \"{name}\" not found"),
            "rrun has the driver local alone: mount the file system on the host and use -v",
        );
    }
    content_trust(flags.disable_content_trust)?;
    if flags.use_api_socket {
        return refuse("--use-api-socket: rrun has no daemon and no API socket".into(), "leave it out");
    }
    let windows = [
        ("cpu-count", flags.cpu_count.is_some_and(|n| n != 0)),
        ("cpu-percent", flags.cpu_percent.is_some_and(|n| n != 0)),
        ("io-maxbandwidth", flags.io_maxbandwidth.is_some()),
        ("io-maxiops", flags.io_maxiops.is_some()),
    ];
    if let Some((name, _)) = windows.iter().find(|(_, given)| *given) {
        return refuse(
            format!(
                "\"--{name}\" requires the Docker daemon to run on windows, but the Docker daemon is running on linux"
            ),
            "the flags for Linux are --cpus, --device-read-bps, --device-write-bps and --device-*-iops",
        );
    }
    Ok(())
}
