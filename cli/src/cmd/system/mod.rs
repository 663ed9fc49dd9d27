//! `rrun system …`: the machine, what rrun keeps on it, and whether all of it is sound.

mod check;
mod df;
mod info;
mod prune;

use crate::args::SystemCommand;
use crate::context::Context;
use plan::Result;

pub use info::run as info;
pub use prune::containers as prune_containers;

pub fn run(ctx: &Context, command: &SystemCommand) -> Result<i32> {
    match command {
        SystemCommand::Df(args) => df::run(ctx, args),
        SystemCommand::Info(args) => info::run(ctx, args),
        SystemCommand::Prune(args) => prune::run(ctx, args),
        SystemCommand::Check(args) => check::run(ctx, args),
        SystemCommand::Events(args) => super::events::run(ctx, args),
    }
}
