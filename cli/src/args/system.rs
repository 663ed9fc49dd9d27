//! The verbs that look at the machine and at everything rrun keeps.

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub struct StatsArgs {
    /// Stopped containers too
    #[arg(short, long)]
    pub all: bool,
    /// One look instead of a table that goes on
    #[arg(long)]
    pub no_stream: bool,
    /// Print values in full
    #[arg(long)]
    pub no_trunc: bool,
    /// table, json, or a Go template
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    #[arg(value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

#[derive(Debug, Args)]
pub struct TopArgs {
    pub container: String,
    /// Options for the host's ps, such as `aux` or `-o pid,comm` (default: as `ps -ef`)
    #[arg(value_name = "PS OPTIONS", trailing_var_arg = true, allow_hyphen_values = true)]
    pub options: Vec<String>,
}

#[derive(Debug, Args)]
pub struct EventsArgs {
    /// From this time on: RFC 3339, Unix seconds, or how long ago (10m)
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Until this time, then end
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// container, event, health_status, image, label, network, scope, type, volume (repeatable)
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub filter: Vec<String>,
    /// json, or a Go template
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
}

#[derive(Debug, Args)]
pub struct InfoArgs {
    /// json, or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<String>,
}

#[derive(Debug, Args)]
pub struct CompletionArgs {
    /// bash, elvish, fish or zsh
    #[arg(value_name = "SHELL")]
    pub shell: String,
}

#[derive(Debug, Args)]
pub struct ManArgs {
    #[arg(value_name = "DIR")]
    pub dir: std::path::PathBuf,
}

#[derive(Debug, Args)]
pub struct VersionArgs {
    /// json, or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum SystemCommand {
    /// Show what takes room
    Df(DfArgs),
    /// Show the machine as rrun sees it
    Info(InfoArgs),
    /// Show what happens to containers
    Events(EventsArgs),
    /// Remove what nothing uses
    Prune(SystemPruneArgs),
    /// Verify images, containers and networks against digests and the kernel
    Check(CheckArgs),
}

#[derive(Debug, Args)]
pub struct DfArgs {
    /// Every image, container and volume
    #[arg(short, long)]
    pub verbose: bool,
    /// table, json, or a Go template
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
}

#[derive(Debug, Args)]
pub struct SystemPruneArgs {
    /// All images that no container uses, not only those without a name
    #[arg(short, long)]
    pub all: bool,
    /// Anonymous volumes too
    #[arg(long)]
    pub volumes: bool,
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
    /// until=24h, label=KEY[=VALUE], label!=KEY[=VALUE] (repeatable)
    #[arg(long, value_name = "KEY=VALUE")]
    pub filter: Vec<String>,
}

#[derive(Debug, Args)]
pub struct ContainerPruneArgs {
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
    /// until=24h, label=KEY[=VALUE], label!=KEY[=VALUE] (repeatable)
    #[arg(long, value_name = "KEY=VALUE")]
    pub filter: Vec<String>,
}

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Repair what can be repaired
    #[arg(long)]
    pub repair: bool,
}
