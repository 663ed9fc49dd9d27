//! `rrun`: the command line. It composes what `runtime`, `netstack` and `images` do; nothing else
//! of rrun knows more than one of them.

#![cfg_attr(not(test), no_main)]

mod args;
mod cmd;
mod config;
mod container;
mod context;
mod render;

use clap::error::ErrorKind;
use plan::{Error, Kind};

#[cfg(not(test))]
runtime::entry!(run);

#[cfg_attr(test, expect(dead_code, reason = "tests have an entry of their own"))]
fn run() -> u8 {
    // What is made for a container's eyes is made readable, what is ours is made 0600: the caller's
    // umask has no say in either.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    if std::env::var_os("COMPLETE").is_some() {
        // A shell asks for words; answers and ends the process.
        clap_complete::CompleteEnv::with_factory(args::complete::tree).complete();
    }
    let cli = match args::Cli::of_process() {
        Ok(cli) => cli,
        Err(e) => return usage(&e),
    };
    let codes = Codes::of(&cli.command);
    match cmd::dispatch(&cli.global, cli.command) {
        // A signal's 128+n and a program's own code both fit: wait(2) gives eight bits.
        Ok(code) => u8::try_from(code).unwrap_or(u8::MAX),
        Err(e) => {
            render::error::print(&e);
            codes.of_error(&e)
        }
    }
}

/// Exit codes for failures of rrun's own, as Docker's users script against them.
#[derive(Clone, Copy)]
enum Codes {
    /// `run`, `create`, `exec`: their exit code may be the program's, so rrun's own failures are
    /// 125, and the program's absence 126 or 127.
    Running,
    /// All others: 1 for a thing that is not there or in the way, 125 for input that cannot mean
    /// anything and for a system that refuses.
    Managing,
}

impl Codes {
    fn of(command: &args::Command) -> Codes {
        use args::{Command, Verb};
        match (command, cmd::verb(command)) {
            (Command::Explain(_), _) | (_, Some(Verb::Run(_) | Verb::Create(_))) => Codes::Running,
            _ => Codes::Managing,
        }
    }

    fn of_error(self, e: &Error) -> u8 {
        match (e.kind, self) {
            (Kind::NotExecutable, _) => 126,
            (Kind::NoSuchProgram, _) => 127,
            (_, Codes::Running) | (Kind::Invalid | Kind::System, _) => 125,
            (Kind::NotFound | Kind::Conflict, Codes::Managing) => 1,
        }
    }
}

/// Help that was asked for, or what is wrong with the command line.
fn usage(e: &clap::Error) -> u8 {
    if matches!(
        e.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    ) {
        cmd::out(&e.render().to_string());
        return 0;
    }
    let args: Vec<String> = std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    let (error, code) = render::usage::error(e, args::Cli::tree(), &args);
    render::error::print(&error);
    code
}
