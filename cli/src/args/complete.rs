//! Shell completion that knows the containers, images, networks and volumes there are.
//!
//! `rrun completion bash` prints a few lines for the shell; they call rrun with `COMPLETE=bash`, and the
//! words come from the same definitions as `--help`. The names come straight from the files: no lock,
//! no repair, nothing that could keep a prompt waiting.

use super::Cli;
use crate::container::request::log::DRIVERS;
use clap::Command;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use std::ffi::OsStr;
use std::path::PathBuf;

/// The tree of verbs with completers for what arguments mean.
pub fn tree() -> Command {
    furnish(Cli::tree())
}

fn furnish(command: Command) -> Command {
    let mut command = command.mut_subcommands(furnish);
    let verb = command.get_name().to_owned();
    let wanted: Vec<(String, Kind)> = command
        .get_arguments()
        .filter_map(|a| Some((a.get_id().to_string(), Kind::of(a.get_id().as_str(), &verb)?)))
        .collect();
    for (id, kind) in wanted {
        command =
            command.mut_arg(id, |a| a.add(ArgValueCompleter::new(move |current: &OsStr| kind.candidates(current))));
    }
    command
}

/// What an argument names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Container,
    Image,
    Network,
    Volume,
    LogDriver,
    /// Of any sort.
    Object,
}

impl Kind {
    fn of(id: &str, verb: &str) -> Option<Kind> {
        match (id, verb) {
            ("container" | "containers" | "volumes_from", _) => Some(Kind::Container),
            ("image" | "images" | "image_and_command", _) | ("source", "tag") => Some(Kind::Image),
            ("network" | "networks", _) => Some(Kind::Network),
            ("volumes", "inspect" | "rm") => Some(Kind::Volume),
            ("log_driver", _) => Some(Kind::LogDriver),
            ("names", "inspect") => Some(Kind::Object),
            _ => None,
        }
    }

    fn candidates(self, current: &OsStr) -> Vec<CompletionCandidate> {
        let names = match self {
            Kind::Container => containers(),
            Kind::Image => images(),
            Kind::Network => networks(),
            Kind::Volume => listed("volumes", ""),
            Kind::LogDriver => DRIVERS.map(str::to_owned).to_vec(),
            Kind::Object => [containers(), images(), networks(), listed("volumes", "")].concat(),
        };
        let current = current.to_string_lossy();
        names.into_iter().filter(|n| n.starts_with(&*current)).map(CompletionCandidate::new).collect()
    }
}

fn root() -> PathBuf {
    std::env::var_os("RRUN_ROOT").map_or_else(|| PathBuf::from("/var/lib/rrun"), PathBuf::from)
}

/// The names in a directory that end in `suffix`, without it.
fn listed(dir: &str, suffix: &str) -> Vec<String> {
    let entries = std::fs::read_dir(root().join(dir)).into_iter().flatten().flatten();
    let names = entries.filter_map(|e| e.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter_map(|n| n.strip_suffix(suffix).map(str::to_owned)).collect();
    names.sort();
    names
}

fn containers() -> Vec<String> {
    listed("containers/names", "")
}

fn images() -> Vec<String> {
    let Ok(store) = images::store::Store::open(&root()) else { return Vec::new() };
    store.images().unwrap_or_default().into_iter().flat_map(|i| i.repo_tags).collect()
}

/// One file a network; the three that are always there may have none.
fn networks() -> Vec<String> {
    let files = listed("networks", ".json");
    let name = |id: &String| -> Option<String> {
        let text = std::fs::read(root().join("networks").join(format!("{id}.json"))).ok()?;
        serde_json::from_slice::<serde_json::Value>(&text).ok()?["name"].as_str().map(str::to_owned)
    };
    let mut names: Vec<String> = files.iter().filter_map(name).collect();
    names.extend(["bridge", "host", "none"].map(str::to_owned));
    names.sort();
    names.dedup();
    names
}
