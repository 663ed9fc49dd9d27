//! What clap finds wrong with a command line, in the words and with the exit codes of Docker's client:
//! 1 for a wrong command or number of arguments, 125 for a wrong flag.

use crate::args::elsewhere;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command};
use plan::Error;

/// The error to print and the exit code, of a command line that `tree` did not take.
pub fn error(e: &clap::Error, tree: Command, args: &[String]) -> (Error, u8) {
    let (path, command) = command_of(tree, args);
    let given = text(e, ContextKind::InvalidArg);
    let found = match e.kind() {
        ErrorKind::InvalidSubcommand => {
            let name = text(e, ContextKind::InvalidSubcommand);
            Some((format!("unknown command: {path} {name}"), 1))
        }
        ErrorKind::UnknownArgument if given.starts_with("--") => Some((format!("unknown flag: {given}"), 125)),
        ErrorKind::UnknownArgument if given.starts_with('-') => {
            let letter = given.trim_start_matches('-').chars().next().unwrap_or('-');
            Some((format!("unknown shorthand flag: '{letter}' in {given}"), 125))
        }
        // One positional too many, or too few: a flag that is missing has dashes.
        ErrorKind::UnknownArgument | ErrorKind::TooFewValues if !given.starts_with('-') => {
            Some((format!("'{path}' {}", wanted(&command)), 1))
        }
        ErrorKind::MissingRequiredArgument if !given.contains("--") => {
            Some((format!("'{path}' {}", wanted(&command)), 1))
        }
        ErrorKind::InvalidValue if text(e, ContextKind::InvalidValue).is_empty() => {
            let flag = match args.last().map(String::as_str) {
                Some(last) if last.starts_with('-') && !last.starts_with("--") => {
                    let letter = last.chars().next_back().unwrap_or('-');
                    format!("'{letter}' in {last}")
                }
                _ => name(&given).to_string(),
            };
            Some((format!("flag needs an argument: {flag}"), 125))
        }
        // Only switches have no room for a value.
        ErrorKind::TooManyValues if given.starts_with('-') => {
            let value = text(e, ContextKind::InvalidValue);
            let (flag, value) = (name(&given), value.escape_debug());
            let why = format!("strconv.ParseBool: parsing \"{value}\": invalid syntax");
            Some((format!("invalid argument \"{value}\" for \"{flag}\" flag: {why}"), 125))
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation if given.starts_with('-') => {
            let value = text(e, ContextKind::InvalidValue);
            let reason = match e.get(ContextKind::ValidValue) {
                Some(ContextValue::Strings(all)) => format!("must be one of {}", all.join(", ")),
                _ => std::error::Error::source(e).map(ToString::to_string).unwrap_or_default(),
            };
            let reason = if reason.is_empty() { "it cannot mean anything".to_string() } else { reason };
            let flag = name(&given);
            Some((format!("invalid argument \"{}\" for \"{flag}\" flag: {reason}", value.escape_debug()), 125))
        }
        _ => None,
    };
    let (message, code) = found.unwrap_or_else(|| (first_paragraph(e), 125));
    let like =
        [ContextKind::SuggestedSubcommand, ContextKind::SuggestedArg].into_iter().find_map(|k| match e.get(k)? {
            ContextValue::String(one) => Some(one.clone()),
            ContextValue::Strings(some) => some.first().cloned(),
            _ => None,
        });
    let help = format!("`{path} --help` lists what it takes");
    let hint = match elsewhere(e, &path, args) {
        Some(reason) => reason.to_string(),
        None => like.map_or(help.clone(), |like| format!("did you mean {like}? {help}")),
    };
    (Error::invalid(message).with_hint(hint), code)
}

/// Why Docker has it and rrun has not.
fn elsewhere(e: &clap::Error, path: &str, args: &[String]) -> Option<&'static str> {
    let verb = path.split_once(' ').map_or("", |(_, verb)| verb);
    if e.kind() == ErrorKind::InvalidSubcommand {
        let name = text(e, ContextKind::InvalidSubcommand);
        return elsewhere::verb(format!("{verb} {name}").trim_start());
    }
    let given = text(e, ContextKind::InvalidArg);
    let long = match name(&given) {
        "-a" if verb.ends_with("pull") => "--all-tags",
        "-l" if verb.ends_with("rm") => "--link",
        "-D" => "--debug",
        "-H" => "--host",
        "-c" => "--context",
        "-l" => "--log-level",
        long => long.split('=').next().unwrap_or(long),
    };
    // Before the verb it is one of the client's own.
    let before = args.iter().take_while(|a| a.starts_with('-')).any(|a| a.starts_with(name(&given)));
    elsewhere::flag(if before { "" } else { verb }, long)
}

/// The innermost command that `args` name, and the words that lead to it.
fn command_of(tree: Command, args: &[String]) -> (String, Command) {
    let mut path = tree.get_name().to_string();
    let takes_value: Vec<String> = tree
        .get_arguments()
        .filter(|a| a.get_action().takes_values())
        .filter_map(|a| a.get_long().map(|l| format!("--{l}")))
        .collect();
    let mut command = tree;
    let mut words = args.iter();
    while let Some(word) = words.next() {
        if word.starts_with('-') {
            if takes_value.contains(word) {
                words.next();
            }
            continue;
        }
        let Some(inner) = command.find_subcommand(word).cloned() else { break };
        path = format!("{path} {word}");
        command = inner;
    }
    (path, command)
}

/// How many arguments a command takes, as Docker says it.
fn wanted(command: &Command) -> String {
    let positionals: Vec<&Arg> = command.get_positionals().collect();
    let values = |a: &&Arg| a.get_num_args().map_or(1, |n| n.min_values().max(1));
    let least: usize = positionals.iter().filter(|a| a.is_required_set()).map(values).sum();
    let many = positionals.iter().any(|a| a.get_num_args().is_some_and(|n| n.max_values() > 1) || collects(a));
    let plural = |n: usize| if n == 1 { "argument" } else { "arguments" };
    match (positionals.len(), least) {
        (0, _) => "accepts no arguments".into(),
        (_, least) if many => format!("requires at least {least} {}", plural(least)),
        (most, least) if most == least => format!("requires {least} {}", plural(least)),
        (most, 0) => format!("requires at most {most} {}", plural(most)),
        (most, least) => {
            format!("requires at least {least} and at most {most} {}", plural(most))
        }
    }
}

fn collects(arg: &Arg) -> bool {
    matches!(arg.get_action(), clap::ArgAction::Append)
}

/// "--memory" of clap's "--memory <BYTES>".
fn name(arg: &str) -> &str {
    arg.split_whitespace().next().unwrap_or(arg)
}

fn text(e: &clap::Error, kind: ContextKind) -> String {
    match e.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(" "),
        _ => String::new(),
    }
}

/// clap's own words.
fn first_paragraph(e: &clap::Error) -> String {
    let text = e.render().to_string();
    let message = text.split("\n\n").next().unwrap_or_default();
    let message = message.strip_prefix("error: ").unwrap_or(message);
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use crate::args::Cli;
    use clap::Parser;

    fn said(line: &str) -> (String, u8) {
        let args: Vec<String> = line.split_whitespace().map(String::from).collect();
        let e = Cli::try_parse_from(std::iter::once("rrun".to_string()).chain(args.clone())).expect_err(line);
        let (error, code) = super::error(&e, Cli::tree(), &args);
        (error.message, code)
    }

    #[test]
    fn it_speaks_as_dockers_client() {
        for (line, message, code) in [
            ("foo", "unknown command: rrun foo", 1),
            ("network foo", "unknown command: rrun network foo", 1),
            ("rm", "'rrun rm' requires at least 1 argument", 1),
            ("container rm", "'rrun container rm' requires at least 1 argument", 1),
            ("run", "'rrun run' requires at least 1 argument", 1),
            ("--root /x run -d", "'rrun run' requires at least 1 argument", 1),
            ("logs a b", "'rrun logs' requires 1 argument", 1),
            ("logs", "'rrun logs' requires 1 argument", 1),
            ("tag a", "'rrun tag' requires 2 arguments", 1),
            ("network create a b", "'rrun network create' requires 1 argument", 1),
            ("network connect a", "'rrun network connect' requires 2 arguments", 1),
            ("ps x", "'rrun ps' accepts no arguments", 1),
            ("port", "'rrun port' requires at least 1 and at most 2 arguments", 1),
            ("exec cc", "'rrun exec' requires at least 2 arguments", 1),
            ("rm --foo", "unknown flag: --foo", 125),
            ("rm -Z x", "unknown shorthand flag: 'Z' in -Z", 125),
            ("run --memory", "flag needs an argument: --memory", 125),
            ("run -p", "flag needs an argument: 'p' in -p", 125),
            ("run -itp", "flag needs an argument: 'p' in -itp", 125),
            ("stop -t abc x", "invalid argument \"abc\" for \"--timeout\" flag: invalid digit found in string", 125),
        ] {
            assert_eq!(said(line), (message.to_string(), code), "{line}");
        }
    }

    #[test]
    fn it_knows_what_was_meant() {
        let e = Cli::try_parse_from(["rrun", "run", "--memry", "1g", "x"]).expect_err("a typo");
        let args = ["run", "--memry", "1g", "x"].map(String::from);
        let (error, _) = super::error(&e, Cli::tree(), &args);
        assert!(error.hint.is_some_and(|h| h.contains("--memory") && h.contains("`rrun run --help`")));
    }
}
