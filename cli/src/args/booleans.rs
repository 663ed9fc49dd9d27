//! `--rm=true`, `-it=false`: Docker's command line takes a value behind every switch, clap behind none.
//!
//! Such switches are rewritten to what clap takes. Short ones that stand together are taken apart, so that a
//! later `=false` finds its earlier self.

use clap::{Arg, ArgAction, Command};
use std::any::TypeId;
use std::ffi::OsString;

/// The arguments (the program's name first) without values behind switches; `None`: there were none.
pub fn plain(root: &Command, args: &[OsString]) -> Option<Vec<OsString>> {
    let texts: Option<Vec<&str>> = args.iter().map(|a| a.to_str()).collect();
    let texts = texts.filter(|texts| texts.iter().any(|t| t.starts_with('-') && t.contains('=')))?;
    let mut walk = Walk { root, here: root, out: Vec::new(), found: false };
    let mut rest = texts.iter();
    walk.copy(rest.next());
    while let Some(text) = rest.next() {
        let go_on = match text.strip_prefix("--") {
            Some("") => false,
            Some(long) => walk.long(text, long, &mut rest),
            None => match text.strip_prefix('-').filter(|short| !short.is_empty()) {
                Some(short) => walk.short(short, &mut rest),
                None => walk.word(text),
            },
        };
        if !go_on {
            if text.starts_with("--") {
                walk.copy(Some(text));
            }
            break;
        }
    }
    rest.for_each(|text| walk.copy(Some(text)));
    walk.found.then(|| walk.out.into_iter().map(|(word, _)| OsString::from(word)).collect())
}

struct Walk<'c> {
    root: &'c Command,
    /// The verb, as far as it has been read.
    here: &'c Command,
    /// The words so far, and which of them are switches.
    out: Vec<(String, bool)>,
    found: bool,
}

type Rest<'r> = std::slice::Iter<'r, &'r str>;

impl<'c> Walk<'c> {
    fn copy(&mut self, text: Option<&&str>) {
        self.out.extend(text.map(|text| ((*text).to_owned(), false)));
    }

    fn find(&self, test: impl Fn(&Arg) -> bool) -> Option<&'c Arg> {
        self.here.get_arguments().chain(self.root.get_arguments()).find(|arg| test(arg))
    }

    /// Everything behind the first word of a program's command line is the program's.
    fn word(&mut self, text: &str) -> bool {
        self.copy(Some(&text));
        match self.here.find_subcommand(text) {
            Some(verb) => self.here = verb,
            None => return !self.here.get_positionals().any(Arg::is_trailing_var_arg_set),
        }
        true
    }

    fn long(&mut self, text: &str, long: &str, rest: &mut Rest<'_>) -> bool {
        let (name, value) = long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
        let is =
            |arg: &Arg| arg.get_long() == Some(name) || arg.get_all_aliases().is_some_and(|all| all.contains(&name));
        let Some(arg) = self.find(is) else {
            self.copy(Some(&text));
            return true;
        };
        match value.and_then(boolean).filter(|_| is_boolean(arg)) {
            Some(on) => self.switch(arg, &format!("--{name}"), on),
            None => {
                self.out.push((text.to_owned(), value.is_none() && is_boolean(arg)));
                if value.is_none() && takes_next(arg) {
                    self.copy(rest.next());
                }
            }
        }
        true
    }

    fn short(&mut self, cluster: &str, rest: &mut Rest<'_>) -> bool {
        let mut at = 0;
        for c in cluster.chars() {
            let behind = &cluster[at + c.len_utf8()..];
            let arg = self.find(|arg| {
                arg.get_short() == Some(c) || arg.get_all_short_aliases().is_some_and(|all| all.contains(&c))
            });
            match arg {
                Some(arg) if is_boolean(arg) => {
                    if let Some(on) = behind.strip_prefix('=').and_then(boolean) {
                        self.switch(arg, &format!("-{c}"), on);
                        return true;
                    }
                    self.out.push((format!("-{c}"), true));
                }
                Some(arg) if behind.is_empty() && takes_next(arg) => {
                    self.out.push((format!("-{c}"), false));
                    self.copy(rest.next());
                }
                // Its value follows in the same word; or clap has something to say.
                _ => {
                    self.out.push((format!("-{}", &cluster[at..]), false));
                    return true;
                }
            }
            at += c.len_utf8();
        }
        true
    }

    fn switch(&mut self, arg: &Arg, as_written: &str, on: bool) {
        self.found = true;
        if !matches!(arg.get_action(), ArgAction::SetTrue) {
            self.out.push((format!("{as_written}={on}"), false));
            return;
        }
        let (long, short) = (arg.get_long().map(|l| format!("--{l}")), arg.get_short().map(|s| format!("-{s}")));
        let earlier =
            |word: &str| word == as_written || long.as_deref() == Some(word) || short.as_deref() == Some(word);
        self.out.retain(|(word, is_switch)| !(*is_switch && earlier(word)));
        if on {
            self.out.push((as_written.to_owned(), true));
        }
    }
}

fn is_boolean(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::SetTrue) || arg.get_value_parser().type_id() == TypeId::of::<bool>()
}

fn takes_next(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Set | ArgAction::Append) && !arg.is_require_equals_set()
}

/// As Go reads it.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Cli;

    fn rewritten(line: &str) -> String {
        let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        let plain = plain(&Cli::tree(), &args).unwrap_or(args);
        plain.into_iter().map(|a| a.into_string().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn switches_take_values() {
        for (line, as_clap) in [
            ("rrun run --rm=true --init=1 -it=false x sh", "rrun run --rm --init -i x sh"),
            ("rrun run -dit=0 -d=false x", "rrun run -i x"),
            ("rrun run --rm --rm=false --name=a x", "rrun run --name=a x"),
            (
                "rrun --root /r run -e A=true --privileged=T x --rm=true",
                "rrun --root /r run -e A=true --privileged x --rm=true",
            ),
            ("rrun run -itv /a=true:/b --rm=true x", "rrun run -i -t -v /a=true:/b --rm x"),
            ("rrun run -m=32m --sig-proxy=F x", "rrun run -m=32m --sig-proxy=false x"),
            ("rrun container exec -t=true c sh -c=true", "rrun container exec -t c sh -c=true"),
            ("rrun explain run --rm=true x", "rrun explain run --rm x"),
            ("rrun rm c -f=true", "rrun rm c -f"),
            ("rrun run --rm=true -- x --rm=true", "rrun run --rm -- x --rm=true"),
            ("rrun run --rm=maybe x", "rrun run --rm=maybe x"),
            ("rrun run --name -f=true x", "rrun run --name -f=true x"),
            ("rrun run -l --rm --rm --rm=1 x", "rrun run -l --rm --rm x"),
            ("rrun run --tty -it=false x", "rrun run -i x"),
        ] {
            assert_eq!(rewritten(line), as_clap, "{line}");
        }
    }
}
