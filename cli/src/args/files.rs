//! The verbs that work on files: a container's, and volumes.

use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct CpArgs {
    /// Keep owners (default: root in the container, the caller on the host)
    #[arg(short, long)]
    pub archive: bool,
    /// Copy what a symbolic link SRC leads to
    #[arg(short = 'L', long)]
    pub follow_link: bool,
    /// Print nothing
    #[arg(short, long)]
    pub quiet: bool,
    /// CONTAINER:PATH, a path of the host, or - for a tar archive on standard input
    #[arg(value_name = "SRC", allow_hyphen_values = true)]
    pub source: String,
    /// CONTAINER:PATH, a path of the host, or - for a tar archive on standard output
    #[arg(value_name = "DEST", allow_hyphen_values = true)]
    pub destination: String,
}

#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Write to a file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    pub container: String,
}

#[derive(Debug, Args)]
pub struct DiffArgs {
    pub container: String,
}

#[derive(Debug, Args)]
pub struct CommitArgs {
    /// Who made it
    #[arg(short, long, value_name = "TEXT")]
    pub author: Option<String>,
    /// Dockerfile instruction to apply (repeatable)
    #[arg(short, long, value_name = "INSTRUCTION")]
    pub change: Vec<String>,
    /// Comment kept in the image's history
    #[arg(short, long, value_name = "TEXT")]
    pub message: Option<String>,
    /// Do not pause the container meanwhile
    #[arg(long)]
    pub no_pause: bool,
    /// --pause=false is --no-pause
    #[arg(short, long, hide = true, value_name = "BOOL", default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub pause: bool,
    pub container: String,
    /// Name of the image
    #[arg(value_name = "NAME[:TAG]")]
    pub name: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum VolumeCommand {
    /// Create a volume
    Create(VolumeCreateArgs),
    /// List volumes
    #[command(visible_alias = "list")]
    Ls(VolumeLsArgs),
    /// Show everything about volumes as JSON
    Inspect(VolumeInspectArgs),
    /// Remove volumes that no container uses
    #[command(visible_alias = "remove")]
    Rm(VolumeRmArgs),
    /// Remove the volumes that no container uses
    Prune(VolumePruneArgs),
}

#[derive(Debug, Args)]
pub struct VolumeCreateArgs {
    /// local is the only one
    #[arg(short, long, value_name = "DRIVER", default_value = "local")]
    pub driver: String,
    /// Label KEY[=VALUE] (repeatable)
    #[arg(long, value_name = "KEY[=VALUE]")]
    pub label: Vec<String>,
    /// type=, device=, o=: what to mount there while containers use it, as mount(8) has them (repeatable)
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub opt: Vec<String>,
    /// Docker's older way to say it
    #[arg(long = "name", hide = true, value_name = "VOLUME")]
    pub name_flag: Option<String>,
    /// Name (default: 64 random digits)
    #[arg(value_name = "VOLUME")]
    pub name: Option<String>,
}

#[derive(Debug, Args)]
pub struct VolumeLsArgs {
    /// Only names
    #[arg(short, long)]
    pub quiet: bool,
    /// dangling=BOOL, driver=, label=, name= (repeatable)
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub filter: Vec<String>,
    /// table, json, or a Go template
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
}

#[derive(Debug, Args)]
pub struct VolumeInspectArgs {
    /// json, or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<String>,
    #[arg(value_name = "VOLUME", required = true)]
    pub volumes: Vec<String>,
}

#[derive(Debug, Args)]
pub struct VolumeRmArgs {
    /// What is not there is no error
    #[arg(short, long)]
    pub force: bool,
    #[arg(value_name = "VOLUME", required = true)]
    pub volumes: Vec<String>,
}

#[derive(Debug, Args)]
pub struct VolumePruneArgs {
    /// Those with a name too
    #[arg(short, long)]
    pub all: bool,
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
    /// label=KEY[=VALUE], label!=KEY[=VALUE], all=BOOL (repeatable)
    #[arg(long, value_name = "KEY=VALUE")]
    pub filter: Vec<String>,
}
