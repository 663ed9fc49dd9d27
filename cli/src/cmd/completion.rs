//! `rrun completion`: what a shell needs to complete rrun's words. `rrun man`: the manual's pages.

use crate::args::{Cli, CompletionArgs, ManArgs};
use plan::{Error, Result, ResultExt};

/// # Errors
/// A shell that is not known.
pub fn run(args: &CompletionArgs) -> Result<i32> {
    let shells = clap_complete::env::Shells::builtins();
    let Some(shell) = shells.completer(&args.shell) else {
        return Err(Error::invalid(format!("unknown shell '{}'", args.shell.escape_debug()))
            .with_hint("one of bash, elvish, fish, zsh"));
    };
    let mut text = Vec::new();
    shell.write_registration("COMPLETE", "rrun", "rrun", "rrun", &mut text).doing(|| "write the completion")?;
    super::out(&String::from_utf8_lossy(&text));
    Ok(0)
}

/// # Errors
/// A directory that cannot be written.
pub fn man(args: &ManArgs) -> Result<i32> {
    clap_mangen::generate_to(Cli::tree().disable_help_subcommand(true), &args.dir)
        .doing(|| format!("write the manual to {}", args.dir.display()))?;
    Ok(0)
}
