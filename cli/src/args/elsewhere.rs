//! Docker's verbs and flags that rrun does not have, each with the reason: for who types them, and for
//! COMPATIBILITY.md, which a test below compares with this list.

/// Verbs, with the words that lead to them.
pub const VERBS: &[(&str, &str)] = &[
    ("build", BUILD),
    ("builder", BUILD),
    ("buildx", BUILD),
    ("image build", BUILD),
    ("checkpoint", CHECKPOINT),
    ("compose", "a converter such as decomposerize makes `run` lines of a compose file, which rrun takes"),
    ("config", SWARM),
    (
        "context",
        "there is no daemon to choose: --root and --state make another rrun, `ssh HOST rrun …` uses another machine's",
    ),
    ("manifest", "skopeo and crane put lists of platforms together; `rrun pull --platform` takes from them"),
    ("node", SWARM),
    ("plugin", "rrun's drivers are built in: `rrun info` lists them"),
    ("secret", SWARM),
    ("service", SWARM),
    ("stack", SWARM),
    ("swarm", SWARM),
    ("system dial-stdio", "there is no daemon to talk to"),
    ("trust", "rrun verifies digests and no signatures: name the image as IMAGE@sha256:…"),
    ("volume update", SWARM),
];

/// Flags, by verb; "" stands before any verb.
pub const FLAGS: &[(&str, &str, &str)] = &[
    ("", "--context", "there is no daemon to choose: --root and --state make another rrun"),
    ("", "--debug", "`rrun run --explain` shows every step"),
    ("", "--host", "there is no daemon to call: `ssh HOST rrun …` uses another machine's"),
    ("", "--log-level", "rrun says what is wrong, and nothing else"),
    ("", "--tls", "there is no daemon to call"),
    ("", "--tlscacert", "there is no daemon to call"),
    ("", "--tlscert", "there is no daemon to call"),
    ("", "--tlskey", "there is no daemon to call"),
    ("", "--tlsverify", "there is no daemon to call"),
    ("images", "--tree", "an image here is of one platform: `rrun images --digests`, `rrun history`"),
    ("load", "--platform", "of an archive with several platforms the machine's own is loaded"),
    ("pull", "--all-tags", "pull the tags one by one: NAME:TAG"),
    ("rm", "--link", "a link ends with its container: run it anew without --link"),
    ("start", "--checkpoint", CHECKPOINT),
    ("start", "--checkpoint-dir", CHECKPOINT),
    ("volume create", "--availability", SWARM),
    ("volume create", "--group", SWARM),
    ("volume create", "--limit-bytes", SWARM),
    ("volume create", "--required-bytes", SWARM),
    ("volume create", "--scope", SWARM),
    ("volume create", "--secret", SWARM),
    ("volume create", "--sharing", SWARM),
    ("volume create", "--topology-preferred", SWARM),
    ("volume create", "--topology-required", SWARM),
    ("volume create", "--type", SWARM),
    ("volume ls", "--cluster", SWARM),
];

const BUILD: &str =
    "rrun builds no images: buildah, kaniko or BuildKit do, and `rrun load` or `rrun pull` takes theirs";
const CHECKPOINT: &str =
    "rrun makes no checkpoints: `rrun pause` stops a container for a while, `rrun commit` keeps its files";
const SWARM: &str = "rrun manages one machine and knows no swarm";

/// Why rrun does not have this verb.
pub fn verb(path: &str) -> Option<&'static str> {
    VERBS.iter().find(|(name, _)| *name == path).map(|(_, reason)| *reason)
}

/// Why the verb does not have this flag. `path` as in Docker, `image pull` and `pull` alike.
pub fn flag(path: &str, flag: &str) -> Option<&'static str> {
    let short = path.strip_prefix("image ").or_else(|| path.strip_prefix("container ")).unwrap_or(path);
    let short = if short == "ls" && path.starts_with("image") { "images" } else { short };
    let here = |of: &str| of == path || of == short;
    FLAGS.iter().find(|(of, name, _)| *name == flag && here(of)).map(|(.., reason)| *reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Cli;

    const NOTE: &str = include_str!("../../COMPATIBILITY.md");

    fn find(path: &str) -> Option<clap::Command> {
        path.split_whitespace().try_fold(Cli::tree(), |command, word| command.find_subcommand(word).cloned())
    }

    /// What is said to be missing is missing, and the note says so; what the note's tables say is in the lists.
    #[test]
    fn the_note_tells_what_is_missing() {
        for (path, _) in VERBS {
            assert!(find(path).is_none(), "{path} is there");
            assert!(NOTE.contains(&format!("`{path}`")), "COMPATIBILITY.md does not tell of {path}");
        }
        for (path, name, _) in FLAGS {
            let command = find(path).unwrap_or_else(|| panic!("no {path}"));
            let there = command.get_arguments().any(|a| a.get_long() == name.strip_prefix("--"));
            assert!(!there, "{path} {name} is there");
            let told = if path.is_empty() { format!("`{name}`") } else { format!("`{path} {name}`") };
            assert!(NOTE.contains(&told), "COMPATIBILITY.md does not tell of {told}");
        }
        // Hidden is what `run` knows only to refuse it.
        let run = find("run").expect("run");
        for name in run.get_arguments().filter(|a| a.is_hide_set()).filter_map(clap::Arg::get_long) {
            assert!(NOTE.contains(&format!("`--{name}")), "COMPATIBILITY.md does not tell of run --{name}");
        }
    }

    /// Verbs and flags that the note speaks of as rrun's are there.
    #[test]
    fn the_note_tells_of_what_is_there() {
        let mut told = 0;
        for words in NOTE.split('`').skip(1).step_by(2).filter_map(|code| code.strip_prefix("rrun ")) {
            let words: Vec<&str> = words.split_whitespace().collect();
            let mut command = Cli::tree();
            for word in words
                .iter()
                .take_while(|w| w.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !w.starts_with('-'))
            {
                match command.find_subcommand(word) {
                    Some(inner) => command = inner.clone(),
                    None if command.has_subcommands() => panic!("COMPATIBILITY.md tells of `rrun {}`", words.join(" ")),
                    None => break,
                }
            }
            for flag in words.iter().filter_map(|w| w.strip_prefix("--")) {
                let flag = flag.split('=').next().unwrap_or(flag);
                assert!(
                    command
                        .get_arguments()
                        .any(|a| a.get_long() == Some(flag)
                            || a.get_all_aliases().is_some_and(|all| all.contains(&flag))),
                    "COMPATIBILITY.md tells of --{flag} in `rrun {}`",
                    words.join(" ")
                );
            }
            told += 1;
        }
        assert!(told > 5, "the note names commands");
    }
}
