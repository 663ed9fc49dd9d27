//! The command line: one file per group of verbs. The doc comments are the help texts.

mod booleans;
pub mod complete;
mod container;
mod create;
pub mod elsewhere;
mod examples;
mod files;
mod image;
mod limits;
mod network;
mod system;

pub use container::*;
pub use create::*;
pub use files::*;
pub use image::*;
pub use limits::*;
pub use network::*;
pub use system::*;

use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;

/// Containers without a daemon: plan, show the plan, apply it, undo it.
#[derive(Debug, Parser)]
#[command(
    name = "rrun",
    version,
    propagate_version = false,
    disable_version_flag = true,
    after_help = "What differs from Docker: /usr/share/doc/rrun/COMPATIBILITY.md (in the sources: cli/COMPATIBILITY.md)",
    subcommand_required = true,
    arg_required_else_help = true,
    args_override_self = true,
    max_term_width = 110
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    /// Print the version
    #[arg(short = 'v', short_alias = 'V', long, action = ArgAction::Version)]
    pub version: Option<bool>,
    #[command(subcommand)]
    pub command: Command,
}

/// Where everything lives. Other values make a second, independent rrun on the same machine.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Images, networks, volumes and container records
    #[arg(
        long,
        global = true,
        env = "RRUN_ROOT",
        value_name = "DIR",
        default_value = "/var/lib/rrun",
        hide_env_values = true
    )]
    pub root: PathBuf,
    /// State that ends with a reboot: running containers, leases, sockets
    #[arg(
        long,
        global = true,
        env = "RRUN_STATE",
        value_name = "DIR",
        default_value = "/run/rrun",
        hide_env_values = true
    )]
    pub state: PathBuf,
    /// Configuration: registries, address pools, default bind address
    #[arg(
        long,
        global = true,
        env = "RRUN_CONFIG",
        value_name = "FILE",
        default_value = "/etc/rrun/config.toml",
        hide_env_values = true
    )]
    pub config: PathBuf,
}

impl Cli {
    /// Parses the process's own command line.
    ///
    /// Building the whole tree of verbs and flags takes a tenth of a whole `rrun run`: so the verb
    /// that has to be fast is tried on its own first. Whatever is wrong with it is said by the
    /// whole tree.
    ///
    /// # Errors
    /// clap's, help and version included.
    pub fn of_process() -> Result<Cli, clap::Error> {
        if std::env::args_os().nth(1).is_some_and(|verb| verb == "run")
            && let Ok(fast) = Fast::try_parse()
        {
            let FastVerb::Run(args) = fast.command;
            return Ok(Cli { global: fast.global, version: None, command: Command::Verb(Verb::Run(args)) }.settled());
        }
        let args: Vec<OsString> = std::env::args_os().collect();
        let tree = Cli::tree();
        let args = booleans::plain(&tree, &args).unwrap_or(args);
        Cli::from_arg_matches(&tree.try_get_matches_from(args)?).map(Cli::settled)
    }

    /// A script's `--name "$NAME"` without a name says nothing, as with Docker.
    fn settled(mut self) -> Cli {
        match &mut self.command {
            Command::Verb(verb) | Command::Container(ContainerCommand::Verb(verb)) => match verb {
                Verb::Run(args) => args.create.forget_empty(),
                Verb::Create(args) => args.create.forget_empty(),
                _ => {}
            },
            Command::Explain(ExplainArgs { verb: ExplainVerb::Run(args) }) => args.create.forget_empty(),
            _ => {}
        }
        self
    }

    /// All verbs, with examples in their help.
    pub fn tree() -> clap::Command {
        examples::furnish(Cli::command())
    }
}

#[derive(Parser)]
#[command(name = "rrun", disable_help_subcommand = true, args_override_self = true)]
struct Fast {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: FastVerb,
}

#[derive(Subcommand)]
enum FastVerb {
    Run(Box<RunArgs>),
}

#[derive(Debug, Args)]
pub struct BootArgs {
    /// Stop every container instead, because the machine goes down: what runs now and has a restart policy
    /// runs again after the next boot
    #[arg(long)]
    pub down: bool,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    #[command(flatten)]
    Verb(Verb),
    /// List containers
    Ps(PsArgs),
    /// Show everything about containers, images or networks as JSON
    Inspect(InspectArgs),
    /// Show what happens to containers, as it happens or as it was
    Events(EventsArgs),
    /// Show what a command would do, step by step, without doing it (needs no root)
    Explain(ExplainArgs),
    #[command(flatten)]
    ImageVerb(ImageVerb),
    /// List images
    Images(ImagesArgs),
    /// Log in to a registry
    Login(LoginArgs),
    /// Log out from a registry
    Logout(LogoutArgs),
    /// Not offered: see its message
    #[command(hide = true)]
    Search(SearchArgs),
    /// Remove images
    Rmi(RmiArgs),
    /// Manage containers
    #[command(subcommand)]
    Container(ContainerCommand),
    /// Manage images
    #[command(subcommand)]
    Image(ImageCommand),
    /// Manage volumes
    #[command(subcommand)]
    Volume(VolumeCommand),
    /// Manage networks
    #[command(subcommand)]
    Network(NetworkCommand),
    /// Start what has to run after a boot, by its restart policy
    Boot(BootArgs),
    /// Manage what rrun keeps: room, remains, soundness
    #[command(subcommand)]
    System(SystemCommand),
    /// Show the machine as rrun sees it
    Info(InfoArgs),
    /// Print what a shell needs to complete rrun's words, names included
    Completion(CompletionArgs),
    /// Write the manual's pages into a directory (for packages)
    #[command(hide = true)]
    Man(ManArgs),
    /// Print rrun's version and the kernel's
    Version(VersionArgs),
}
