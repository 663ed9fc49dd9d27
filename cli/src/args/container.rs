//! The verbs that work on containers which exist already.

use super::{
    CommitArgs, ContainerPruneArgs, CpArgs, CreateArgs, CreateFlags, DiffArgs, ExportArgs, ResourceFlags, RunArgs,
    StatsArgs, TopArgs,
};
use clap::{ArgAction, Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct StartArgs {
    /// Attach to the container's output and pass signals on
    #[arg(short, long)]
    pub attach: bool,
    /// Attach standard input too
    #[arg(short, long)]
    pub interactive: bool,
    /// Keys that detach from the container's terminal
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    pub detach_keys: String,
    /// Print every step with its reason, the equivalent command and its microseconds
    #[arg(long)]
    pub explain: bool,
    /// With --explain: print the steps as a shell script
    #[arg(long, requires = "explain")]
    pub script: bool,
    #[arg(value_name = "CONTAINER", required = true)]
    pub containers: Vec<String>,
}

#[derive(Debug, Args)]
pub struct StopArgs {
    /// Seconds to wait before SIGKILL; -1 waits for ever
    #[arg(short = 't', long, visible_alias = "time", value_name = "SECONDS", allow_negative_numbers = true)]
    pub timeout: Option<i64>,
    /// Signal to send first
    #[arg(short, long, value_name = "SIGNAL")]
    pub signal: Option<String>,
    #[arg(value_name = "CONTAINER", required = true)]
    pub containers: Vec<String>,
}

#[derive(Debug, Args)]
pub struct PauseArgs {
    #[arg(value_name = "CONTAINER", required = true)]
    pub containers: Vec<String>,
}

#[derive(Debug, Args)]
pub struct RenameArgs {
    pub container: String,
    #[arg(value_name = "NEW_NAME")]
    pub name: String,
}

#[derive(Debug, Args)]
pub struct UpdateArgs {
    #[command(flatten)]
    pub resources: ResourceFlags,
    /// When to start it again: no, always, unless-stopped, on-failure[:MAXIMUM]
    #[arg(long, value_name = "POLICY")]
    pub restart: Option<String>,
    #[arg(value_name = "CONTAINER", required = true)]
    pub containers: Vec<String>,
}

#[derive(Debug, Args)]
pub struct KillArgs {
    /// Signal to send
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL")]
    pub signal: String,
    #[arg(value_name = "CONTAINER", required = true)]
    pub containers: Vec<String>,
}

#[derive(Debug, Args)]
pub struct RmArgs {
    /// Remove running containers too (SIGKILL)
    #[arg(short, long)]
    pub force: bool,
    /// Remove their anonymous volumes
    #[arg(short, long)]
    pub volumes: bool,
    #[arg(value_name = "CONTAINER", required = true)]
    pub containers: Vec<String>,
}

#[derive(Debug, Args)]
pub struct WaitArgs {
    #[arg(value_name = "CONTAINER", required = true)]
    pub containers: Vec<String>,
}

#[derive(Debug, Args)]
pub struct AttachArgs {
    /// Do not attach standard input
    #[arg(long)]
    pub no_stdin: bool,
    /// Keys that detach from the container's terminal
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    pub detach_keys: String,
    /// Pass signals that rrun receives on to the container
    #[arg(long, value_name = "BOOL", default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = ArgAction::Set)]
    pub sig_proxy: bool,
    pub container: String,
}

#[derive(Debug, Args)]
#[command(override_usage = "rrun exec [OPTIONS] CONTAINER COMMAND [ARG...]")]
pub struct ExecArgs {
    /// Run in the background
    #[arg(short, long)]
    pub detach: bool,
    /// Keep standard input open
    #[arg(short, long)]
    pub interactive: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Environment variable (repeatable)
    #[arg(short, long, value_name = "KEY[=VALUE]", allow_hyphen_values = true)]
    pub env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,
    /// Run as this user, and group
    #[arg(short, long, value_name = "USER[:GROUP]", allow_hyphen_values = true)]
    pub user: Option<String>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// All capabilities, no seccomp filter
    #[arg(long)]
    pub privileged: bool,
    /// Keys that detach from the command's terminal
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    pub detach_keys: String,
    /// Container, then the command and its arguments
    #[arg(value_name = "CONTAINER COMMAND [ARG...]", required = true, num_args = 2.., trailing_var_arg = true)]
    pub container_and_command: Vec<String>,
}

#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Follow the log as it grows
    #[arg(short, long)]
    pub follow: bool,
    /// Only the last lines: a number, or "all"
    #[arg(short = 'n', long, value_name = "NUMBER", default_value = "all", allow_hyphen_values = true)]
    pub tail: String,
    /// Print each line's time
    #[arg(short, long)]
    pub timestamps: bool,
    /// Print what was recorded with each line: the log options tag, labels and env
    #[arg(long)]
    pub details: bool,
    /// Only since this time: RFC 3339, seconds since 1970, or ago (42m)
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Only until this time
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    pub container: String,
}

#[derive(Debug, Args)]
pub struct PsArgs {
    /// Containers that are not running too
    #[arg(short, long)]
    pub all: bool,
    /// Only IDs
    #[arg(short, long)]
    pub quiet: bool,
    /// The last NUMBER created, running or not
    #[arg(short = 'n', long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub last: Option<i64>,
    /// The last one created
    #[arg(short, long)]
    pub latest: bool,
    /// The size of each writable layer
    #[arg(short, long)]
    pub size: bool,
    /// Print values in full
    #[arg(long)]
    pub no_trunc: bool,
    /// id, name, label, status, exited, ancestor, network, publish, expose, volume, before, since (repeatable)
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub filter: Vec<String>,
    /// table, json, or a Go template
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
}

#[derive(Debug, Args)]
pub struct InspectArgs {
    /// json, or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// container, image or network
    #[arg(long = "type", value_name = "TYPE")]
    pub kind: Option<String>,
    /// Show sizes
    #[arg(short, long)]
    pub size: bool,
    #[arg(value_name = "NAME|ID", required = true)]
    pub names: Vec<String>,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(
    override_usage = "rrun port [-r] CONTAINER [PORT[/PROTO]]\n       rrun port add CONTAINER PORT...\n       rrun port rm CONTAINER PORT..."
)]
pub struct PortArgs {
    #[command(subcommand)]
    pub change: Option<PortCommand>,
    /// Say from where each port can be reached
    #[arg(short, long)]
    pub reachable: bool,
    #[arg(required = true)]
    pub container: Option<String>,
    /// Only this container port: 80, 53/udp
    pub port: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum PortCommand {
    /// Publish more ports of a container, running or not
    Add(PortChangeArgs),
    /// Publish ports of a container no longer; established connections end
    #[command(visible_alias = "remove")]
    Rm(PortChangeArgs),
}

#[derive(Debug, Args)]
pub struct PortChangeArgs {
    pub container: String,
    /// As for `run -p`: 8080:80, 127.0.0.1:5353:53/udp, 8080:80,from=10.0.0.0/8
    #[arg(value_name = "PORT", required = true)]
    pub ports: Vec<String>,
}

#[derive(Debug, Args)]
pub struct ExplainArgs {
    #[command(subcommand)]
    pub verb: ExplainVerb,
}

#[derive(Debug, Subcommand)]
pub enum ExplainVerb {
    /// Explain `rrun run`
    Run(Box<ExplainRunArgs>),
}

#[derive(Debug, Args)]
#[command(disable_help_flag = true, override_usage = "rrun explain run [OPTIONS] IMAGE [COMMAND] [ARG...]")]
pub struct ExplainRunArgs {
    /// Print the steps as a shell script
    #[arg(long)]
    pub script: bool,
    /// Accepted as in `run`; changes nothing about the plan
    #[arg(short, long)]
    pub detach: bool,
    #[command(flatten)]
    pub create: CreateFlags,
}

/// What can be done with containers, as `rrun VERB` and as `rrun container VERB`.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Create a container from an image and start it
    Run(Box<RunArgs>),
    /// Create a container without starting it
    Create(Box<CreateArgs>),
    /// Start stopped or created containers
    Start(StartArgs),
    /// Stop running containers: the stop signal, then SIGKILL after a grace period
    Stop(StopArgs),
    /// Stop containers and start them again
    Restart(StopArgs),
    /// Let all processes of containers stand still
    Pause(PauseArgs),
    /// Let paused containers go on
    Unpause(PauseArgs),
    /// Give a container another name
    Rename(RenameArgs),
    /// Change limits and restart policy, also of running containers
    Update(Box<UpdateArgs>),
    /// Send a signal to running containers
    Kill(KillArgs),
    /// Remove containers
    #[command(alias = "remove")]
    Rm(RmArgs),
    /// Wait until containers have ended and print their exit codes
    Wait(WaitArgs),
    /// Attach to a running container's input and output
    Attach(AttachArgs),
    /// Run a command in a running container
    Exec(ExecArgs),
    /// Print a container's log
    Logs(LogsArgs),
    /// List a container's published ports
    Port(PortArgs),
    /// Show what containers use of the machine
    Stats(StatsArgs),
    /// Show the processes of a container
    Top(TopArgs),
    /// Copy files between a container and the host
    Cp(CpArgs),
    /// Write a container's root file system to a tar archive
    Export(ExportArgs),
    /// Show what a container changed of its image
    Diff(DiffArgs),
    /// Make an image of a container's changes
    Commit(CommitArgs),
}

/// `rrun container …`: Docker's newer names.
#[derive(Debug, Subcommand)]
pub enum ContainerCommand {
    /// List containers
    #[command(visible_aliases = ["list", "ps"])]
    Ls(PsArgs),
    #[command(flatten)]
    Verb(Verb),
    /// Remove all stopped containers
    Prune(ContainerPruneArgs),
    /// Show everything about containers as JSON
    Inspect(InspectArgs),
}
