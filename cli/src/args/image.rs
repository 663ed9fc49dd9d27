//! The verbs that work on images.

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub struct PullArgs {
    /// Print only the image's name
    #[arg(short, long)]
    pub quiet: bool,
    /// Platform of the image: os[/arch[/variant]]
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,
    /// Signatures are not verified: known for Docker's sake
    #[arg(long, value_name = "BOOL", default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set, hide = true)]
    pub disable_content_trust: bool,
    /// NAME[:TAG] or NAME@DIGEST
    pub image: String,
}

#[derive(Debug, Args)]
pub struct ImagesArgs {
    /// Images without a name too
    #[arg(short, long)]
    pub all: bool,
    /// Only IDs
    #[arg(short, long)]
    pub quiet: bool,
    /// Print values in full
    #[arg(long)]
    pub no_trunc: bool,
    /// Show digests
    #[arg(long)]
    pub digests: bool,
    /// dangling, reference, label, before, since (repeatable)
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub filter: Vec<String>,
    /// table, json, or a Go template
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Only images of this name
    #[arg(value_name = "NAME[:TAG]")]
    pub name: Option<String>,
}

#[derive(Debug, Args)]
pub struct LoadArgs {
    /// Archive file or OCI directory (default: standard input)
    #[arg(short, long, value_name = "FILE")]
    pub input: Option<std::path::PathBuf>,
    /// Print no progress
    #[arg(short, long)]
    pub quiet: bool,
}

#[derive(Debug, Args)]
pub struct SaveArgs {
    /// Write to a file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<std::path::PathBuf>,
    /// docker-archive or oci-archive
    #[arg(long, value_name = "FORMAT", default_value = "docker-archive")]
    pub format: images::archive::Format,
    /// Only if it is of this platform: os[/arch[/variant]]
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,
    /// NAME[:TAG] or ID; a name without a tag means all its tags
    #[arg(value_name = "IMAGE", required = true)]
    pub images: Vec<String>,
}

#[derive(Debug, Args)]
pub struct PushArgs {
    /// All tags of the repository
    #[arg(short, long)]
    pub all_tags: bool,
    /// Print only the image's name
    #[arg(short, long)]
    pub quiet: bool,
    /// Only if it is of this platform: os[/arch[/variant]]
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,
    /// Signatures are not made: known for Docker's sake
    #[arg(long, value_name = "BOOL", default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set, hide = true)]
    pub disable_content_trust: bool,
    /// NAME[:TAG]
    #[arg(value_name = "NAME[:TAG]")]
    pub image: String,
}

#[derive(Debug, Args)]
pub struct LoginArgs {
    /// User name
    #[arg(short, long, value_name = "NAME")]
    pub username: Option<String>,
    /// Password or access token (other users see it in the list of processes)
    #[arg(short, long, value_name = "TEXT", conflicts_with = "password_stdin")]
    pub password: Option<String>,
    /// Take the password from standard input
    #[arg(long)]
    pub password_stdin: bool,
    /// Host and port as in the names of its images (default: Docker Hub)
    #[arg(value_name = "REGISTRY")]
    pub registry: Option<String>,
}

#[derive(Debug, Args)]
pub struct LogoutArgs {
    /// Host and port as in the names of its images (default: Docker Hub)
    #[arg(value_name = "REGISTRY")]
    pub registry: Option<String>,
}

#[derive(Debug, Args)]
pub struct SearchArgs {
    #[arg(value_name = "TERM", trailing_var_arg = true, allow_hyphen_values = true)]
    pub term: Vec<String>,
}

#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// Sizes and dates for people; --human=false for programs
    #[arg(short = 'H', long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub human: bool,
    /// Print values in full
    #[arg(long)]
    pub no_trunc: bool,
    /// Only IDs
    #[arg(short, long)]
    pub quiet: bool,
    /// table, json, or a Go template
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Only if it is of this platform: os[/arch[/variant]]
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,
    #[arg(value_name = "IMAGE")]
    pub image: String,
}

#[derive(Debug, Args)]
pub struct ImagePruneArgs {
    /// All images that no container uses, not only those without a name
    #[arg(short, long)]
    pub all: bool,
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
    /// until=24h, label=KEY[=VALUE], label!=KEY[=VALUE] (repeatable)
    #[arg(long, value_name = "KEY=VALUE")]
    pub filter: Vec<String>,
}

#[derive(Debug, Args)]
pub struct ImportArgs {
    /// Dockerfile instruction to apply: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, VOLUME, WORKDIR, STOPSIGNAL (repeatable)
    #[arg(short, long, value_name = "INSTRUCTION")]
    pub change: Vec<String>,
    /// Comment kept in the image's history
    #[arg(short, long, value_name = "TEXT")]
    pub message: Option<String>,
    /// Platform of the programs inside: os[/arch[/variant]]
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,
    /// Archive file, or - for standard input
    #[arg(value_name = "FILE|-")]
    pub source: String,
    /// Name of the image
    #[arg(value_name = "NAME[:TAG]")]
    pub name: Option<String>,
}

#[derive(Debug, Args)]
pub struct TagArgs {
    /// The image
    #[arg(value_name = "SOURCE")]
    pub source: String,
    /// Its new name
    #[arg(value_name = "TARGET")]
    pub target: String,
}

#[derive(Debug, Args)]
pub struct RmiArgs {
    /// Known for Docker's sake: there are no parents without a name that would go too
    #[arg(long, hide = true)]
    pub no_prune: bool,
    /// Only if it is of this platform: os[/arch[/variant]]
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,

    /// Remove images that stopped containers use
    #[arg(short, long)]
    pub force: bool,
    #[arg(value_name = "IMAGE", required = true)]
    pub images: Vec<String>,
}

#[derive(Debug, Args)]
pub struct ImageInspectArgs {
    /// Only if it is of this platform: os[/arch[/variant]]
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,

    /// json, or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<String>,
    #[arg(value_name = "IMAGE", required = true)]
    pub images: Vec<String>,
}

/// What can be done with images, as `rrun VERB` and as `rrun image VERB`.
#[derive(Debug, Subcommand)]
pub enum ImageVerb {
    /// Download an image from a registry
    Pull(PullArgs),
    /// Upload an image to a registry
    Push(PushArgs),
    /// Write images to an archive (docker-archive or oci-archive)
    Save(SaveArgs),
    /// Show how an image was made
    History(HistoryArgs),
    /// Load images from an archive (docker-archive, oci-archive) or an OCI directory
    Load(LoadArgs),
    /// Make an image from the tar archive of a root file system
    Import(ImportArgs),
    /// Give an image another name
    Tag(TagArgs),
}

/// `rrun image …`: Docker's newer names.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// List images
    #[command(visible_alias = "list")]
    Ls(ImagesArgs),
    /// Remove images
    #[command(visible_alias = "remove")]
    Rm(RmiArgs),
    /// Show everything about images as JSON
    Inspect(ImageInspectArgs),
    #[command(flatten)]
    Verb(ImageVerb),
    /// Remove images that nothing uses
    Prune(ImagePruneArgs),
}
