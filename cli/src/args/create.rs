//! The flags of `run` and `create`, spelled as Docker's.

use super::{HealthFlags, LimitFlags, RefusedFlags};
use crate::cmd::pull::Policy;
use crate::container::request::size;
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{ArgAction, Args};
use std::path::PathBuf;

/// `rrun run [OPTIONS] IMAGE [COMMAND] [ARG...]`
#[derive(Clone, Debug, Args)]
#[command(disable_help_flag = true, override_usage = "rrun run [OPTIONS] IMAGE [COMMAND] [ARG...]")]
pub struct RunArgs {
    /// Run in the background and print the container's ID
    #[arg(short, long)]
    pub detach: bool,
    /// Attach only to this stream: stdin, stdout or stderr (repeatable)
    #[arg(short, long, value_name = "STREAM", conflicts_with = "detach", ignore_case = true)]
    pub attach: Vec<Stream>,
    /// Keys that detach from the container's terminal
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    pub detach_keys: String,
    /// Pass signals that rrun receives on to the container
    #[arg(long, value_name = "BOOL", default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = ArgAction::Set)]
    pub sig_proxy: bool,
    /// Print every step with its reason, the equivalent command and its microseconds
    #[arg(long)]
    pub explain: bool,
    /// With --explain: print the steps as a shell script
    #[arg(long, requires = "explain")]
    pub script: bool,
    #[command(flatten)]
    pub create: CreateFlags,
}

/// One of a program's standard streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Stream {
    Stdin,
    Stdout,
    Stderr,
}

/// `rrun create [OPTIONS] IMAGE [COMMAND] [ARG...]`
#[derive(Clone, Debug, Args)]
#[command(disable_help_flag = true, override_usage = "rrun create [OPTIONS] IMAGE [COMMAND] [ARG...]")]
pub struct CreateArgs {
    /// Streams that `start -a` would attach to; all of them, as Docker has it by now
    #[arg(short, long, value_name = "STREAM", hide = true, ignore_case = true)]
    pub attach: Vec<Stream>,
    #[command(flatten)]
    pub create: CreateFlags,
}

/// A number of seconds, or a duration with units.
fn seconds(text: &str) -> Result<i64, String> {
    let duration = || size::duration(text).map(|d| d.as_secs_f64().ceil() as i64);
    text.parse().ok().or_else(duration).ok_or_else(|| "it is neither a number of seconds nor a duration".to_owned())
}

/// What decides a container's record; everything that `run` and `create` share.
#[derive(Clone, Debug, Args)]
pub struct CreateFlags {
    /// Name of the container (default: a random one)
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Remove the container, and its anonymous volumes, when it ends
    #[arg(long)]
    pub rm: bool,
    /// When to start it again: no, always, unless-stopped, on-failure[:MAXIMUM]
    #[arg(long, value_name = "POLICY", default_value = "no", hide_default_value = true)]
    pub restart: String,
    /// When to pull the image
    #[arg(long, value_name = "POLICY", default_value = "missing")]
    pub pull: Policy,
    /// Platform of the image: os[/arch[/variant]]
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,
    /// Print no progress while pulling
    #[arg(short, long)]
    pub quiet: bool,
    /// Write the container's ID to this file
    #[arg(long, value_name = "FILE", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    pub cidfile: Option<PathBuf>,
    /// Label of the container (repeatable)
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    pub label: Vec<String>,
    /// Read labels from a file, one KEY=VALUE a line
    #[arg(long, value_name = "FILE")]
    pub label_file: Vec<PathBuf>,
    /// Annotation for whoever reads the container's OCI spec (repeatable)
    #[arg(long, value_name = "KEY=VALUE")]
    pub annotation: Vec<String>,
    /// Where the container's output is kept: json-file, local, journald or none (default: json-file, or the
    /// configuration's)
    #[arg(long, value_name = "DRIVER")]
    pub log_driver: Option<String>,
    /// Option of the log driver: max-size=10m, max-file=3, compress=true (files); tag=TEMPLATE, labels=, env=,
    /// labels-regex=, env-regex= (for logs --details); mode=non-blocking, max-buffer-size= (repeatable)
    #[arg(long, value_name = "KEY=VALUE")]
    pub log_opt: Vec<String>,
    #[command(flatten)]
    pub process: ProcessFlags,
    #[command(flatten)]
    pub storage: StorageFlags,
    #[command(flatten)]
    pub security: SecurityFlags,
    #[command(flatten)]
    pub limits: LimitFlags,
    #[command(flatten)]
    pub health: HealthFlags,
    #[command(flatten)]
    pub network: NetworkFlags,
    #[command(flatten)]
    pub refused: RefusedFlags,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    pub help: Option<bool>,
    /// Image, then the command and its arguments (default: the image's own)
    #[arg(value_name = "IMAGE [COMMAND] [ARG...]", required = true, trailing_var_arg = true)]
    pub image_and_command: Vec<String>,
}

impl CreateFlags {
    /// An empty value is none, where it could not be one.
    pub(super) fn forget_empty(&mut self) {
        self.cidfile.take_if(|file| file.as_os_str().is_empty());
        let network = &mut self.network;
        let texts = [&mut self.name, &mut self.platform, &mut self.process.stop_signal];
        for text in texts.into_iter().chain([&mut network.ip, &mut network.ip6, &mut network.mac_address]) {
            text.take_if(|text| text.is_empty());
        }
    }

    /// The image as the user wrote it.
    pub fn image(&self) -> &str {
        self.image_and_command.first().map(String::as_str).unwrap_or_default()
    }

    /// What follows the image.
    pub fn command(&self) -> &[String] {
        self.image_and_command.get(1..).unwrap_or_default()
    }
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Process")]
pub struct ProcessFlags {
    /// Keep standard input open
    #[arg(short, long)]
    pub interactive: bool,
    /// Give the container a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Environment variable; KEY alone copies rrun's own (repeatable)
    #[arg(short, long, value_name = "KEY[=VALUE]", allow_hyphen_values = true)]
    pub env: Vec<String>,
    /// Read environment variables from a file, one a line
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// Run as this user, and group
    #[arg(short, long, value_name = "USER[:GROUP]", allow_hyphen_values = true)]
    pub user: Option<String>,
    /// Additional group (repeatable)
    #[arg(long, value_name = "GROUP")]
    pub group_add: Vec<String>,
    /// Program to run instead of the image's entrypoint; "" removes it
    #[arg(long, value_name = "PROGRAM")]
    pub entrypoint: Option<String>,
    /// Host name of the container
    #[arg(short = 'h', long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// NIS domain name of the container
    #[arg(long, value_name = "NAME")]
    pub domainname: Option<String>,
    /// Let a small init be PID 1: it passes signals on and reaps processes
    #[arg(long)]
    pub init: bool,
    /// Signal that asks the container to stop
    #[arg(long, value_name = "SIGNAL")]
    pub stop_signal: Option<String>,
    /// Seconds between the stop signal and SIGKILL; 1m30s, as compose files have it, will do
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = seconds)]
    pub stop_timeout: Option<i64>,
    /// Process namespace: host, or container:NAME
    #[arg(long, value_name = "MODE")]
    pub pid: Option<String>,
    /// Shared memory and queues: private, shareable, none, host, or container:NAME
    #[arg(long, value_name = "MODE")]
    pub ipc: Option<String>,
    /// Host name's namespace: host
    #[arg(long, value_name = "MODE")]
    pub uts: Option<String>,
    /// Cgroup namespace: private (default) or host
    #[arg(long, value_name = "MODE")]
    pub cgroupns: Option<String>,
    /// User namespace: host, which is rrun's only one
    #[arg(long, value_name = "MODE")]
    pub userns: Option<String>,
}

#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Storage")]
pub struct StorageFlags {
    /// Mount a host directory or a named volume (repeatable)
    #[arg(short, long, value_name = "[SOURCE:]TARGET[:OPTIONS]")]
    pub volume: Vec<String>,
    /// Mount: type=bind|volume|tmpfs,source=…,target=…[,readonly][,OPTION=…] (repeatable)
    #[arg(long, value_name = "FIELD=VALUE,…")]
    pub mount: Vec<String>,
    /// Mount what another container has mounted (repeatable)
    #[arg(long, value_name = "CONTAINER[:ro|rw]")]
    pub volumes_from: Vec<String>,
    /// Mount an empty file system in memory (repeatable)
    #[arg(long, value_name = "TARGET[:OPTIONS]")]
    pub tmpfs: Vec<String>,
    /// Mount the root file system read-only
    #[arg(long)]
    pub read_only: bool,
    /// Size of /dev/shm
    #[arg(long, value_name = "BYTES")]
    pub shm_size: Option<String>,
    /// Give the container a device of the host (repeatable)
    #[arg(long, value_name = "HOST[:CONTAINER[:rwm]]")]
    pub device: Vec<String>,
    /// Allow access to devices: TYPE MAJOR:MINOR ACCESS, as in "c 42:* rmw" (repeatable)
    #[arg(long, value_name = "RULE")]
    pub device_cgroup_rule: Vec<String>,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Security")]
pub struct SecurityFlags {
    /// Add a capability, or ALL (repeatable)
    #[arg(long, value_name = "CAP")]
    pub cap_add: Vec<String>,
    /// Drop a capability, or ALL (repeatable)
    #[arg(long, value_name = "CAP")]
    pub cap_drop: Vec<String>,
    /// All capabilities, all devices, no seccomp filter, nothing masked
    #[arg(long)]
    pub privileged: bool,
    /// no-new-privileges, seccomp=FILE|unconfined, apparmor=…, label=… (repeatable)
    #[arg(long, value_name = "OPTION")]
    pub security_opt: Vec<String>,
    /// Kernel parameter of the container (repeatable)
    #[arg(long, value_name = "NAME=VALUE")]
    pub sysctl: Vec<String>,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Network")]
pub struct NetworkFlags {
    /// Network to join: a name, bridge, host, none, container:NAME, ns:PATH, or name=…,ip=…,alias=… (repeatable)
    #[arg(long, alias = "net", value_name = "NETWORK")]
    pub network: Vec<String>,
    /// IPv4 address on the first network
    #[arg(long, value_name = "ADDRESS")]
    pub ip: Option<String>,
    /// IPv6 address on the first network
    #[arg(long, value_name = "ADDRESS")]
    pub ip6: Option<String>,
    /// MAC address on the first network
    #[arg(long, value_name = "MAC")]
    pub mac_address: Option<String>,
    /// Additional name on the first network (repeatable)
    #[arg(long, alias = "net-alias", value_name = "NAME")]
    pub network_alias: Vec<String>,
    /// Another container under a name of one's own (repeatable)
    #[arg(long, value_name = "CONTAINER[:ALIAS]")]
    pub link: Vec<String>,
    /// Link-local address on the first network (repeatable)
    #[arg(long, value_name = "ADDRESS")]
    pub link_local_ip: Vec<String>,
    /// Route: DESTINATION,GATEWAY[,METRIC]; blackhole, unreachable or prohibit for a gateway (repeatable)
    #[arg(long, value_name = "ROUTE")]
    pub route: Vec<String>,
    /// Publish a port on the host: [[IP:|iface=NAME:]HOST:]CONTAINER[/tcp|udp|sctp][,from=CIDR], ranges too
    /// (repeatable)
    #[arg(short, long, value_name = "PORT")]
    pub publish: Vec<String>,
    /// Publish all exposed ports on free host ports
    #[arg(short = 'P', long)]
    pub publish_all: bool,
    /// Declare a port as exposed (repeatable)
    #[arg(long, value_name = "PORT")]
    pub expose: Vec<String>,
    /// DNS server; none leaves the image's /etc/resolv.conf as it is (repeatable)
    #[arg(long, value_name = "ADDRESS")]
    pub dns: Vec<String>,
    /// DNS search domain; "." for none (repeatable)
    #[arg(long, value_name = "DOMAIN")]
    pub dns_search: Vec<String>,
    /// Option for resolv.conf (repeatable)
    #[arg(long, alias = "dns-opt", value_name = "OPTION")]
    pub dns_option: Vec<String>,
    /// Where the container may connect to: deny (nothing but what is allowed), allow=DESTINATION,
    /// deny=DESTINATION; a destination is an address, a subnet, a NAME, *.NAME or *, then optionally
    /// :PORT or :FROM-TO (TCP and UDP), /tcp, /udp, /sctp or /icmp (repeatable)
    #[arg(long, value_name = "RULE[,RULE...]")]
    pub egress: Vec<String>,
    /// Ports of the host's 127.0.0.1 that the container reaches as host.docker.internal: 5432,8000-8010,53/udp
    /// (repeatable)
    #[arg(long, value_name = "PORT[,PORT...]")]
    pub host_loopback: Vec<String>,
    /// How fast the container may receive and send, on each network: in=10mbit,out=512kbit
    #[arg(long, value_name = "in=RATE,out=RATE")]
    pub net_rate: Vec<String>,
    /// Line for /etc/hosts; host-gateway is the host's address (repeatable)
    #[arg(long, value_name = "NAME:ADDRESS")]
    pub add_host: Vec<String>,
    /// File of the host that the container's /etc/hosts ends with; none: no such file
    #[arg(long, value_name = "FILE", conflicts_with = "no_hosts")]
    pub hosts_file: Option<String>,
    /// Leave the image's /etc/hosts as it is
    #[arg(long, conflicts_with = "add_host")]
    pub no_hosts: bool,
    /// Leave the image's /etc/hostname as it is
    #[arg(long)]
    pub no_hostname: bool,
}
