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

use crate::args::{Command, ContainerCommand, Global, NetworkCommand};
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
        Command::Run(args) => run::run(&ctx, &args),
        Command::Create(args) => create::run(&ctx, &args),
        Command::Start(args) => start::run(&ctx, &args),
        Command::Stop(args) => stop::run(&ctx, &args),
        Command::Restart(args) => restart::run(&ctx, &args),
        Command::Pause(args) => pause::run(&ctx, &args),
        Command::Unpause(args) => pause::undo(&ctx, &args),
        Command::Rename(args) => rename::run(&ctx, &args),
        Command::Update(args) => update::run(&ctx, &args),
        Command::Boot => boot::run(&ctx),
        Command::Kill(args) => kill::run(&ctx, &args),
        Command::Rm(args) => rm::run(&ctx, &args),
        Command::Wait(args) => wait::run(&ctx, &args),
        Command::Attach(args) => attach::run(&ctx, &args),
        Command::Exec(args) => exec::run(&ctx, &args),
        Command::Logs(args) => logs::run(&ctx, &args),
        Command::Ps(args) => ps::run(&ctx, &args),
        Command::Inspect(args) => inspect::run(&ctx, &args),
        Command::Port(args) => port::run(&ctx, &args),
        Command::Stats(args) => stats::run(&ctx, &args),
        Command::Top(args) => top::run(&ctx, &args),
        Command::Events(args) => events::run(&ctx, &args),
        Command::System(command) => system::run(&ctx, &command),
        Command::Info(args) => system::info(&ctx, &args),
        Command::Cp(args) => cp::run(&ctx, &args),
        Command::Export(args) => export::run(&ctx, &args),
        Command::Diff(args) => diff::run(&ctx, &args),
        Command::Commit(args) => commit::run(&ctx, &args),
        Command::Volume(command) => volume::run(&ctx, &command),
        Command::Pull(args) => pull::run(&ctx, &args),
        Command::Push(args) => push::run(&ctx, &args),
        Command::Images(args) => images::run(&ctx, &args),
        Command::Save(args) => save::run(&ctx, &args),
        Command::History(args) => history::run(&ctx, &args),
        Command::Login(args) => login::log_in(&ctx, &args),
        Command::Logout(args) => login::log_out(&ctx, &args),
        Command::Search(args) => login::search(&args),
        Command::Load(args) => load::run(&ctx, &args),
        Command::Import(args) => import::run(&ctx, &args),
        Command::Tag(args) => tag::run(&ctx, &args),
        Command::Rmi(args) => rmi::run(&ctx, &args),
        Command::Container(command) => container(&ctx, command),
        Command::Image(command) => image::run(&ctx, &command),
        Command::Network(command) => network::run(&ctx, &command),
        Command::Explain(_) | Command::Version(_) | Command::Completion(_) | Command::Man(_) => {
            unreachable!("they need no root and were done above")
        }
    }
}

/// Commands that are no start (a start sees to its own networks) and not only a look.
fn changes_containers(command: &Command) -> bool {
    use ContainerCommand as C;
    match command {
        // It says itself what it finds.
        Command::Network(NetworkCommand::Check(_)) => false,
        Command::Network(_) | Command::Stop(_) | Command::Restart(_) | Command::Kill(_) | Command::Rm(_) => true,
        Command::Container(command) => {
            matches!(command, C::Stop(_) | C::Restart(_) | C::Kill(_) | C::Rm(_))
        }
        _ => false,
    }
}

/// Commands for which a question to the firewall is cheap enough: a flushed one is repaired.
fn looks_at_containers(command: &Command) -> bool {
    use Command as C;
    match command {
        C::Ps(_) | C::Inspect(_) | C::Port(_) | C::Exec(_) | C::Attach(_) | C::Logs(_) | C::Wait(_) => true,
        C::Container(command) => {
            !matches!(command, ContainerCommand::Run(_) | ContainerCommand::Create(_) | ContainerCommand::Start(_))
        }
        _ => false,
    }
}

/// Bridges, firewall table, cables and parent interfaces that somebody took away from running
/// containers come back. A failure is no reason not to stop or remove one of them.
fn restored(outcome: Result<Vec<String>>) {
    match outcome {
        Ok(restored) => restored.iter().for_each(|what| tell(&format!("restored: {what}\n"))),
        Err(e) => tell(&format!("WARNING: the networks could not be restored: {e}\n")),
    }
}

/// `rrun container …`: the same verbs.
fn container(ctx: &Context, command: ContainerCommand) -> Result<i32> {
    match command {
        ContainerCommand::Ls(args) => ps::run(ctx, &args),
        ContainerCommand::Run(args) => run::run(ctx, &args),
        ContainerCommand::Create(args) => create::run(ctx, &args),
        ContainerCommand::Start(args) => start::run(ctx, &args),
        ContainerCommand::Stop(args) => stop::run(ctx, &args),
        ContainerCommand::Restart(args) => restart::run(ctx, &args),
        ContainerCommand::Pause(args) => pause::run(ctx, &args),
        ContainerCommand::Unpause(args) => pause::undo(ctx, &args),
        ContainerCommand::Rename(args) => rename::run(ctx, &args),
        ContainerCommand::Update(args) => update::run(ctx, &args),
        ContainerCommand::Kill(args) => kill::run(ctx, &args),
        ContainerCommand::Rm(args) => rm::run(ctx, &args),
        ContainerCommand::Wait(args) => wait::run(ctx, &args),
        ContainerCommand::Attach(args) => attach::run(ctx, &args),
        ContainerCommand::Exec(args) => exec::run(ctx, &args),
        ContainerCommand::Logs(args) => logs::run(ctx, &args),
        ContainerCommand::Stats(args) => stats::run(ctx, &args),
        ContainerCommand::Top(args) => top::run(ctx, &args),
        ContainerCommand::Prune(args) => system::prune_containers(ctx, &args),
        ContainerCommand::Cp(args) => cp::run(ctx, &args),
        ContainerCommand::Export(args) => export::run(ctx, &args),
        ContainerCommand::Diff(args) => diff::run(ctx, &args),
        ContainerCommand::Commit(args) => commit::run(ctx, &args),
        ContainerCommand::Inspect(args) => inspect::containers(ctx, args),
        ContainerCommand::Port(args) => port::run(ctx, &args),
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
