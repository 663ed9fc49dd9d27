//! One file per verb: compose, run, render.

mod attach;
mod boot;
mod commit;
mod completion;
mod cp;
mod create;
mod diff;
mod events;
mod exec;
mod explain;
mod export;
mod filter;
mod history;
mod image;
mod images;
mod import;
mod inspect;
mod kill;
mod load;
mod login;
mod logs;
mod moment;
mod network;
mod pause;
mod port;
mod prune;
mod ps;
pub mod pull;
mod push;
mod rename;
mod restart;
mod rm;
mod rmi;
mod run;
mod save;
mod start;
mod stats;
mod stop;
mod system;
mod tag;
mod top;
mod update;
mod version;
mod volume;
mod wait;

use crate::args::{Command, ContainerCommand, Global, NetworkCommand, Verb};
use crate::container::life;
use crate::context::{Context, require_root};
use crate::render;
use plan::Result;
use std::io::Write;

/// Runs one command; the exit code of a success may be the program's own.
///
/// # Errors
/// What the user has to hear; printed by `main`.
pub fn dispatch(global: &Global, command: Command) -> Result<i32> {
    match &command {
        Command::Version(args) => return version::run(args),
        Command::Completion(args) => return completion::run(args),
        Command::Man(args) => return completion::man(args),
        _ => {}
    }
    let ctx = Context::new(global)?;
    if let Command::Explain(args) = &command {
        return explain::run(&ctx, args);
    }
    require_root()?;
    life::sweep(&ctx);
    if changes_containers(&command) {
        restored(ctx.netstack().repair(|id| life::namespace(&ctx, id).ok().flatten()));
    } else if looks_at_containers(&command) {
        restored(ctx.netstack().heal());
    }
    match command {
        Command::Verb(verb) => container(&ctx, &verb),
        Command::Boot(args) => boot::run(&ctx, &args),
        Command::Ps(args) => ps::run(&ctx, &args),
        Command::Inspect(args) => inspect::run(&ctx, &args),
        Command::Events(args) => events::run(&ctx, &args),
        Command::System(command) => system::run(&ctx, &command),
        Command::Info(args) => system::info(&ctx, &args),
        Command::Volume(command) => volume::run(&ctx, &command),
        Command::Images(args) => images::run(&ctx, &args),
        Command::Login(args) => login::log_in(&ctx, &args),
        Command::Logout(args) => login::log_out(&ctx, &args),
        Command::Search(args) => login::search(&args),
        Command::Rmi(args) => rmi::run(&ctx, &args),
        Command::Container(ContainerCommand::Verb(verb)) => container(&ctx, &verb),
        Command::Container(ContainerCommand::Ls(args)) => ps::run(&ctx, &args),
        Command::Container(ContainerCommand::Inspect(args)) => inspect::containers(&ctx, args),
        Command::Container(ContainerCommand::Prune(args)) => system::prune_containers(&ctx, &args),
        Command::ImageVerb(verb) => image::verb(&ctx, &verb),
        Command::Image(command) => image::run(&ctx, &command),
        Command::Network(command) => network::run(&ctx, &command),
        Command::Explain(_) | Command::Version(_) | Command::Completion(_) | Command::Man(_) => {
            unreachable!("they need no root and were done above")
        }
    }
}

/// The verb on containers that a command is, under either of its names.
pub fn verb(command: &Command) -> Option<&Verb> {
    match command {
        Command::Verb(verb) | Command::Container(ContainerCommand::Verb(verb)) => Some(verb),
        _ => None,
    }
}

/// Commands that are no start (a start sees to its own networks) and not only a look.
fn changes_containers(command: &Command) -> bool {
    match command {
        // It says itself what it finds.
        Command::Network(NetworkCommand::Check(_)) => false,
        Command::Network(_) => true,
        _ => matches!(verb(command), Some(Verb::Stop(_) | Verb::Restart(_) | Verb::Kill(_) | Verb::Rm(_))),
    }
}

/// Commands for which a question to the firewall is cheap enough: a flushed one is repaired.
fn looks_at_containers(command: &Command) -> bool {
    use Verb as V;
    matches!(command, Command::Ps(_) | Command::Inspect(_))
        || matches!(command, Command::Container(ContainerCommand::Ls(_) | ContainerCommand::Inspect(_)))
        || matches!(verb(command), Some(V::Port(_) | V::Exec(_) | V::Attach(_) | V::Logs(_) | V::Wait(_)))
}

/// Bridges, firewall table, cables and parent interfaces that somebody took away from running
/// containers come back. A failure is no reason not to stop or remove one of them.
fn restored(outcome: Result<Vec<String>>) {
    match outcome {
        Ok(restored) => restored.iter().for_each(|what| tell(&format!("restored: {what}\n"))),
        Err(e) => tell(&format!("WARNING: the networks could not be restored: {e}\n")),
    }
}

fn container(ctx: &Context, verb: &Verb) -> Result<i32> {
    match verb {
        Verb::Run(args) => run::run(ctx, args),
        Verb::Create(args) => create::run(ctx, args),
        Verb::Start(args) => start::run(ctx, args),
        Verb::Stop(args) => stop::run(ctx, args),
        Verb::Restart(args) => restart::run(ctx, args),
        Verb::Pause(args) => pause::run(ctx, args),
        Verb::Unpause(args) => pause::undo(ctx, args),
        Verb::Rename(args) => rename::run(ctx, args),
        Verb::Update(args) => update::run(ctx, args),
        Verb::Kill(args) => kill::run(ctx, args),
        Verb::Rm(args) => rm::run(ctx, args),
        Verb::Wait(args) => wait::run(ctx, args),
        Verb::Attach(args) => attach::run(ctx, args),
        Verb::Exec(args) => exec::run(ctx, args),
        Verb::Logs(args) => logs::run(ctx, args),
        Verb::Port(args) => port::run(ctx, args),
        Verb::Stats(args) => stats::run(ctx, args),
        Verb::Top(args) => top::run(ctx, args),
        Verb::Cp(args) => cp::run(ctx, args),
        Verb::Export(args) => export::run(ctx, args),
        Verb::Diff(args) => diff::run(ctx, args),
        Verb::Commit(args) => commit::run(ctx, args),
    }
}

/// Does one thing for each name; errors are printed as they come and make the exit code 1.
///
/// # Errors
/// The error itself when there is only one name: `main` prints it and knows its exit code.
pub fn each(names: &[String], mut act: impl FnMut(&str) -> Result<()>) -> Result<i32> {
    if let [only] = names {
        return act(only).map(|()| 0);
    }
    let mut code = 0;
    for name in names {
        if let Err(e) = act(name) {
            render::error::print(&e);
            code = 1;
        }
    }
    Ok(code)
}

/// Prints to standard output. A reader that has gone (`rrun ps | head -1`) is no error of ours.
pub fn out(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// Prints to standard error; nobody listening is no error either.
pub fn tell(text: &str) {
    let mut stderr = std::io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes());
}

/// Docker's form.
pub fn warn(warnings: &[String]) {
    for warning in warnings {
        tell(&format!("WARNING: {warning}\n"));
    }
}
