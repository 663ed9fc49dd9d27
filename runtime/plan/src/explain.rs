//! The text of `--explain`, `rrun explain` and `--script`, from the words of the steps.

use crate::{Action, HostThing, Ns, Site, Undo};
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// A step turned into words: what crosses from the monitor to the terminal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spoken {
    pub line: String,
    pub why: String,
    pub shell: Option<String>,
    pub site: Site,
    pub undo: String,
    /// How long it took; `None` when the step was only planned. Steps that went out in one batch
    /// carry the time of the batch on the first of them.
    pub micros: Option<u32>,
}

impl Spoken {
    pub fn of(action: &dyn Action, micros: Option<u32>) -> Spoken {
        Spoken {
            line: action.line(),
            why: action.why().to_string(),
            shell: action.shell(),
            site: action.site(),
            undo: undo_words(&action.undo()),
            micros,
        }
    }
}

fn undo_words(undo: &Undo) -> String {
    match undo {
        Undo::DiesWith(Ns::Process) => "ends with the process".into(),
        Undo::DiesWith(ns) => {
            let name = match ns {
                Ns::Mount => "mount",
                Ns::Pid => "pid",
                Ns::Net => "network",
                Ns::Uts => "uts",
                Ns::Ipc => "ipc",
                Ns::Cgroup => "cgroup",
                Ns::User => "user",
                Ns::Time => "time",
                Ns::Process => unreachable!("handled above"),
            };
            format!("nothing to do: it dies with the {name} namespace")
        }
        Undo::Remove(things) => {
            let words: Vec<String> = things.iter().map(thing_words).collect();
            words.join("; ")
        }
        Undo::Nothing => "none: it outlives the container".into(),
    }
}

fn thing_words(thing: &HostThing) -> String {
    match thing {
        HostThing::CgroupDir { path } => format!("remove cgroup {}", path.display()),
        HostThing::Lease { path, .. } => format!("remove lease {}", path.display()),
        HostThing::NftElement { set, element } => format!("delete element {element} from {set}"),
        HostThing::DnsRecord { path } => format!("remove DNS record {}", path.display()),
        HostThing::Route { destination, device } => {
            format!("remove the host's route to {destination} through {device}")
        }
        HostThing::Neighbour { address, device } => format!("stop answering for {address} on {device}"),
        HostThing::VolumeMount { target, .. } => {
            format!("unmount {} if no other container uses it", target.display())
        }
        HostThing::StateDir { path } => format!("remove directory {}", path.display()),
    }
}

/// The explanation a person reads: numbered steps, reason, equivalent command, time.
pub fn render(steps: &[Spoken]) -> String {
    let mut out = String::new();
    for (i, s) in steps.iter().enumerate() {
        let who = match s.site {
            Site::Host => "host",
            Site::Child => "child",
            Site::InNetns => "in netns",
        };
        let time = s.micros.map(|us| format!("  {us} µs")).unwrap_or_default();
        let _ = writeln!(out, "{:>3}. {}  [{who}]{time}", i + 1, s.line);
        for l in wrap(&s.why, 88) {
            let _ = writeln!(out, "     {l}");
        }
        if let Some(sh) = &s.shell {
            for l in sh.lines() {
                // The shell's second prompt, for the lines of a loop.
                let prompt = if l.starts_with(' ') || l == "done" { '>' } else { '$' };
                let _ = writeln!(out, "     {prompt} {l}");
            }
        }
        let _ = writeln!(out, "     undo: {}", s.undo);
    }
    out
}

/// A shell script of the steps' equivalent commands; steps without one become comments.
pub fn script(steps: &[Spoken]) -> String {
    let mut out = String::from("#!/bin/sh\nset -eu\n");
    for (i, s) in steps.iter().enumerate() {
        let who = match s.site {
            Site::Host => "on the host",
            Site::Child => "in the container's first process",
            Site::InNetns => "in the container's network namespace",
        };
        let _ = writeln!(out, "\n# {}. {} ({who})", i + 1, s.line);
        match &s.shell {
            Some(sh) => {
                let _ = writeln!(out, "{sh}");
            }
            None => out.push_str("# (no shell command does exactly this)\n"),
        }
    }
    out
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last_mut().expect("starts with one line");
        if !last.is_empty() && last.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.to_string());
        } else {
            if !last.is_empty() {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Veth;
    impl Action for Veth {
        fn line(&self) -> String {
            "create veth".into()
        }
        fn why(&self) -> &'static str {
            "A network namespace starts empty."
        }
        fn shell(&self) -> Option<String> {
            Some("ip link add v type veth".into())
        }
        fn site(&self) -> Site {
            Site::Host
        }
        fn undo(&self) -> Undo {
            Undo::DiesWith(Ns::Net)
        }
    }

    #[test]
    fn a_step_speaks() {
        let s = Spoken::of(&Veth, Some(42));
        let text = render(std::slice::from_ref(&s));
        assert_eq!(
            text,
            "  1. create veth  [host]  42 µs\n     A network namespace starts empty.\n     \
             $ ip link add v type veth\n     undo: nothing to do: it dies with the network namespace\n"
        );
        assert!(script(&[s]).contains("# 1. create veth (on the host)\nip link add v type veth\n"));
    }
}
