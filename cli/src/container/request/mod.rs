//! From the flags of `run` and `create` to a [`Record`]: checked as a whole before anything is made.

pub mod endpoint;
pub mod health;
pub mod limits;
pub mod log;
pub mod mount;
pub mod mounts;
pub mod namespaces;
pub mod network;
pub mod process;
pub mod security;
pub mod size;
pub mod traffic;

use super::links;
use super::logging;
use super::record::{HostConfig, Record, VERSION};
use super::restart::Policy;
use crate::args::CreateFlags;
use crate::context::Context;
use images::config::Config as ImageConfig;
use plan::{Error, Result};
use std::collections::BTreeMap;

/// A record that fits the flags, and what the user should hear about them.
pub struct Request {
    pub record: Record,
    pub warnings: Vec<String>,
}

/// Decides everything that does not depend on what runs on the host.
///
/// # Errors
/// The first flag that cannot mean anything, in Docker's words.
pub fn decide(
    ctx: &Context,
    flags: &CreateFlags,
    id: String,
    name: String,
    image_id: &str,
    image: &ImageConfig,
) -> Result<Request> {
    namespaces::refuse(&flags.refused)?;
    let mut config = process::config(flags, image)?;
    config.healthcheck = health::config(&flags.health, image.healthcheck.as_ref())?;
    let mut host = HostConfig { restart: Policy::parse(&flags.restart)?, ..HostConfig::default() };
    if flags.rm && !host.restart.is_none() {
        return Err(Error::invalid("conflicting options: cannot specify both --restart and --rm")
            .with_hint("leave one of them out: what is removed cannot be started again"));
    }
    let mut warnings = Vec::new();
    limits::fill(&flags.limits, &mut host, &mut warnings)?;
    namespaces::fill(flags, &mut host)?;
    security::fill(&flags.security, &mut host, &mut warnings)?;
    let mut networking = network::decide(ctx, &flags.network, flags.process.hostname.is_some(), &image.exposed_ports)?;
    warnings.append(&mut networking.warnings);
    if networking.mode == "host"
        && let Some(name) = host.sysctls.keys().find(|k| k.starts_with("net."))
    {
        return Err(Error::invalid(format!("sysctl '{name}' not allowed in host network namespace"))
            .with_hint("set it on the host, or give the container a network of its own"));
    }
    config.exposed_ports = networking.exposed;
    endpoint::adopt_sysctls(&mut host.sysctls, &mut networking.networks)?;

    host.tmpfs = mounts::tmpfs_flags(&flags.storage.tmpfs)?;
    host.binds.clone_from(&flags.storage.volume);
    host.volumes_from.clone_from(&flags.storage.volumes_from);
    let inherited = mount::inherited(ctx, &host.volumes_from)?;
    let mounts = mounts::decide(ctx, &flags.storage, &host.tmpfs, inherited, &config.volumes)?;
    host.readonly_rootfs = flags.storage.read_only;
    host.devices = flags.storage.device.iter().map(|d| security::device(d)).collect::<Result<_>>()?;
    host.device_cgroup_rules =
        flags.storage.device_cgroup_rule.iter().map(|r| security::device_rule(r)).collect::<Result<_>>()?;
    host.annotations = annotations(&flags.annotation)?;
    host.shm_size = match &flags.storage.shm_size {
        Some(text) if size::bytes(text)? != 0 => size::bytes(text)?,
        _ => i64::try_from(runtime::spec::defaults::SHM_SIZE).unwrap_or(i64::MAX),
    };
    if host.shm_size < 0 {
        return Err(Error::invalid("SHM size can not be less than 0").with_hint("write --shm-size 64m"));
    }
    host.network_mode = networking.mode;
    traffic::fill(&flags.network, &mut host, &mut warnings)?;
    host.ports = networking.ports;
    host.publish_all = flags.network.publish_all;
    host.hosts_file = network::hosts_file(&flags.network, &host.network_mode)?;
    host.extra_hosts.clone_from(&flags.network.add_host);
    host.link_variables = links::wants_variables();
    host.image_files = network::image_files(&flags.network)?;
    host.group_add.clone_from(&flags.process.group_add);
    host.init = flags.process.init;
    host.auto_remove = flags.rm;
    host.log = log::decide(&ctx.config, flags.log_driver.as_deref(), &flags.log_opt)?;
    host.cidfile.clone_from(&flags.cidfile);

    let record = Record {
        version: VERSION,
        id,
        name,
        image: flags.image().to_string(),
        image_id: image_id.to_string(),
        layers: Vec::new(),
        created: plan::time::now_rfc3339(),
        config,
        host,
        networks: networking.networks,
        dns: networking.dns,
        mounts,
        extra: BTreeMap::new(),
    };
    logging::tag(&record)?;
    Ok(Request { record, warnings })
}

fn annotations(texts: &[String]) -> Result<BTreeMap<String, String>> {
    let pair = |text: &String| match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_string(), value.to_string())),
        _ => Err(Error::invalid(format!("invalid annotation '{}'", text.escape_debug()))
            .with_hint("write --annotation KEY=VALUE")),
    };
    texts.iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command, Verb};
    use clap::Parser;

    fn record(args: &[&str]) -> Result<Record> {
        let cli = Cli::try_parse_from([&["rrun", "run"], args, &["image", "sh", "--rm"]].concat()).unwrap();
        let Command::Verb(Verb::Run(run)) = cli.command else { panic!("not run") };
        let ctx = Context {
            root: "/r".into(),
            state: "/s".into(),
            config_path: "/c".into(),
            config: crate::config::Config::default(),
        };
        decide(&ctx, &run.create, "0".repeat(64), "n1".into(), "sha256:0", &ImageConfig::default()).map(|r| r.record)
    }

    #[test]
    fn options_after_the_image_are_the_programs() {
        let r = record(&["-it", "--read-only"]).unwrap();
        assert_eq!(r.config.args(), ["sh", "--rm"]);
        assert!(r.config.tty && r.config.open_stdin && r.host.readonly_rootfs && !r.host.auto_remove);
    }

    #[test]
    fn limits_in_dockers_words() {
        let r = record(&["-m", "64m", "--memory-swap", "-1", "--pids-limit", "-1", "--cpu-shares", "2"]).unwrap();
        assert_eq!((r.host.memory, r.host.memory_swap, r.host.pids_limit), (64 << 20, -1, Some(-1)));
        for (args, text) in [
            (&["-m", "1m"][..], "Minimum memory limit allowed is 6MB"),
            (&["--memory-swap", "1g"], "You should always set the Memory limit when using Memoryswap limit, see usage"),
            (
                &["-m", "1g", "--memory-swap", "9m"],
                "Minimum memoryswap limit should be larger than memory limit, see usage",
            ),
            (&["--oom-score-adj", "5000"], "Invalid value 5000, range for oom score adj is [-1000, 1000]"),
            (&["--cpuset-cpus", "a"], "Invalid value a for cpuset cpus"),
            (&["--log-driver", "syslog"], "logger: no log driver named 'syslog' is registered"),
            (&["--log-opt", "x=1"], "unknown log opt 'x' for json-file log driver"),
            (&["--stop-signal", "X"], "invalid signal: X"),
            (&["-w", "x"], "the working directory 'x' is invalid, it needs to be an absolute path"),
            (&["--cap-add", "FOO"], "invalid CapAdd: unknown capability: \"CAP_FOO\""),
        ] {
            assert_eq!(record(args).unwrap_err().message, text, "{args:?}");
        }
    }

    #[test]
    fn a_record_survives_its_file() {
        let mut r = record(&["-v", "data:/data", "--network", "n", "-p", "127.0.0.1:80-82:80-82"]).unwrap();
        r.extra.insert("from_the_future".into(), 1.into());
        let text = serde_json::to_string(&r).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), r);
    }
}
