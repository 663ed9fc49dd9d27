//! `rrun info`: the machine as rrun sees it.

use crate::args::InfoArgs;
use crate::cmd::stats::memory_of_the_machine;
use crate::container::request::log::{DEFAULT_DRIVER, DRIVERS};
use crate::container::view;
use crate::context::Context;
use crate::render::table::binary_size;
use crate::render::template;
use plan::Result;
use runtime::cgroup::Layout;
use runtime::state::Status;
use serde_json::{Value, json};

pub fn run(ctx: &Context, args: &InfoArgs) -> Result<i32> {
    let facts = facts(ctx)?;
    let text = match args.format.as_deref() {
        None | Some("") => shown(&facts),
        format => template::inspect_one(format, &facts)?,
    };
    crate::cmd::out(&text);
    Ok(0)
}

/// Docker's fields, as far as they mean something here.
fn facts(ctx: &Context) -> Result<Value> {
    let views = view::all(ctx)?;
    let layout = Layout::observe()?;
    let count = |test: &dyn Fn(&view::View) -> bool| views.iter().filter(|v| test(v)).count();
    let kernel = rustix::system::uname();
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let system = release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME=")).unwrap_or("Linux").trim_matches('"');
    let mut security = vec!["name=seccomp,profile=builtin".to_owned()];
    if runtime::apparmor::Facts::observe().is_some() {
        security.insert(0, "name=apparmor".to_owned());
    }
    if layout.is_v2() {
        security.push("name=cgroupns".to_owned());
    }
    let text = |c: &std::ffi::CStr| c.to_string_lossy().into_owned();
    Ok(json!({
        "ID": std::fs::read_to_string("/etc/machine-id").unwrap_or_default().trim(),
        "Name": text(kernel.nodename()),
        "ServerVersion": env!("CARGO_PKG_VERSION"),
        "Containers": views.len(),
        "ContainersRunning": count(&|v| v.is_running() && !v.paused),
        "ContainersPaused": count(&|v| v.is_running() && v.paused),
        "ContainersStopped": count(&|v| v.state.status != Status::Running),
        "Images": ctx.images()?.images()?.len(),
        "Driver": "overlay",
        "Plugins": {
            "Volume": ["local"],
            "Network": ["bridge", "host", "ipvlan", "macvlan", "null"],
            "Log": DRIVERS,
        },
        "LoggingDriver": ctx.config.log_driver.as_deref().unwrap_or(DEFAULT_DRIVER),
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": layout.version(),
        "NetworksFirewall": "nftables, table inet rrun",
        "KernelVersion": text(kernel.release()),
        "OperatingSystem": system,
        "OSType": "linux",
        "Architecture": text(kernel.machine()),
        "NCPU": std::thread::available_parallelism().map_or(1, usize::from),
        "MemTotal": memory_of_the_machine(),
        "SecurityOptions": security,
        "DefaultRuntime": "rrun",
        "Runtimes": { "rrun": {} },
        "Swarm": { "LocalNodeState": "inactive" },
        // Containers go on whatever becomes of rrun.
        "LiveRestoreEnabled": true,
        "Labels": [],
        "SystemTime": plan::time::now_rfc3339(),
        "IPv4Forwarding": !off("/proc/sys/net/ipv4/ip_forward"),
        "DockerRootDir": ctx.root,
        "StateDir": ctx.state,
        "ConfigFile": ctx.config_path,
        "HttpProxy": std::env::var("HTTP_PROXY").unwrap_or_default(),
        "HttpsProxy": std::env::var("HTTPS_PROXY").unwrap_or_default(),
        "NoProxy": std::env::var("NO_PROXY").unwrap_or_default(),
        "RegistryConfig": {
            "InsecureRegistryCIDRs": ["127.0.0.0/8", "::1/128"],
            "Mirrors": ctx.config.registries.get("docker.io").map(|r| r.mirrors.clone()).unwrap_or_default(),
        },
        "Warnings": warnings(),
    }))
}

fn off(path: &str) -> bool {
    std::fs::read_to_string(path).is_ok_and(|t| t.trim() == "0")
}

/// What makes containers work worse than they could.
fn warnings() -> Vec<String> {
    let mut warnings = Vec::new();
    if off("/proc/sys/net/ipv4/ip_forward") {
        warnings.push("WARNING: IPv4 forwarding is off: rrun switches it on with the first bridge network".to_owned());
    }
    if !["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft"].iter().any(|p| std::path::Path::new(p).exists()) {
        warnings.push("WARNING: nft is missing: networks cannot be made (apt-get install nftables)".to_owned());
    }
    warnings
}

fn shown(f: &Value) -> String {
    let text = |key: &str| match &f[key] {
        Value::String(s) => s.clone(),
        other => other.to_string(),
    };
    let list = |v: &Value| {
        let items = v.as_array().into_iter().flatten().filter_map(Value::as_str);
        items.collect::<Vec<_>>().join(" ")
    };
    let memory = binary_size(f["MemTotal"].as_u64().unwrap_or(0));
    let mut out = format!(
        "Client:\n Version:    {version}\n\nServer: (none: rrun has no daemon)\n Containers: {containers}\n  Running: {running}\n  Paused: {paused}\n  Stopped: {stopped}\n \
         Images: {images}\n Server Version: {version}\n Storage Driver: overlay\n Logging Driver: {logging}\n Cgroup Driver: cgroupfs\n \
         Cgroup Version: {cgroup}\n Firewall: {firewall}\n Plugins:\n  Volume: {volume}\n  Network: {network}\n  Log: {log}\n Security Options:\n",
        version = text("ServerVersion"),
        containers = text("Containers"),
        running = text("ContainersRunning"),
        paused = text("ContainersPaused"),
        stopped = text("ContainersStopped"),
        images = text("Images"),
        logging = text("LoggingDriver"),
        cgroup = text("CgroupVersion"),
        firewall = text("NetworksFirewall"),
        volume = list(&f["Plugins"]["Volume"]),
        network = list(&f["Plugins"]["Network"]),
        log = list(&f["Plugins"]["Log"]),
    );
    for option in f["SecurityOptions"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        out +=
            &format!("  {}\n", option.strip_prefix("name=").unwrap_or(option).replace(",profile=", "\n   Profile: "));
    }
    out += &format!(
        " Kernel Version: {}\n Operating System: {}\n OSType: linux\n Architecture: {}\n CPUs: {}\n Total Memory: {memory}\n \
         Name: {}\n ID: {}\n Root Dir: {}\n State Dir: {}\n Configuration: {}\n",
        text("KernelVersion"),
        text("OperatingSystem"),
        text("Architecture"),
        text("NCPU"),
        text("Name"),
        text("ID"),
        text("DockerRootDir"),
        text("StateDir"),
        text("ConfigFile"),
    );
    for warning in f["Warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        out += &format!("{warning}\n");
    }
    out
}
