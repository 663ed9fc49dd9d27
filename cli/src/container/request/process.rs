//! Environment, labels, command and host name: the image's config with the flags over it.

use crate::args::CreateFlags;
use crate::container::record::Config;
use images::config::Config as ImageConfig;
use plan::{Error, Result, ResultExt};
use std::collections::BTreeMap;
use std::path::Path;

/// Docker's own default, given whenever nobody names another.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// # Errors
/// A flag that cannot mean anything, an unreadable file, nothing to execute.
pub fn config(flags: &CreateFlags, image: &ImageConfig) -> Result<Config> {
    let process = &flags.process;
    let (entrypoint, cmd) = command(process.entrypoint.as_deref(), flags.command(), image);
    let config = Config {
        hostname: process.hostname.clone().unwrap_or_default(),
        domainname: process.domainname.clone().unwrap_or_default(),
        user: process.user.clone().unwrap_or_else(|| image.user.clone()),
        env: over(environment(&process.env, &process.env_file)?, &image.env),
        entrypoint,
        cmd,
        working_dir: process.workdir.clone().unwrap_or_else(|| image.working_dir.clone()),
        labels: labels(&flags.label, &flags.label_file, &image.labels)?,
        exposed_ports: Vec::new(),
        volumes: image.volumes.clone(),
        tty: process.tty,
        open_stdin: process.interactive,
        attached: false,
        stop_signal: process.stop_signal.clone().or_else(|| image.stop_signal.clone()),
        stop_timeout: process.stop_timeout,
        // The flags go over it in `request::health`.
        healthcheck: None,
        shell: image.shell.clone(),
    };
    check(&config)?;
    Ok(config)
}

fn check(config: &Config) -> Result<()> {
    runtime::user::check(&config.user)?;
    if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
        return Err(Error::invalid(format!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            config.working_dir.escape_debug()
        ))
        .with_hint("write it from the root: -w /dir"));
    }
    if let Some(signal) = &config.stop_signal {
        crate::container::signal::parse(signal)?;
    }
    for (flag, name) in [("hostname", &config.hostname), ("domainname", &config.domainname)] {
        // 64 is the kernel's __NEW_UTS_LEN; a newline would forge lines of /etc/hosts.
        if name.len() > 64 || name.bytes().any(|b| b.is_ascii_control() || b.is_ascii_whitespace()) {
            return Err(Error::invalid(format!("invalid {flag}: {}", name.escape_debug()))
                .with_hint("use at most 64 letters, digits, dots and hyphens"));
        }
    }
    let args = config.args();
    match args.first() {
        None => {
            return Err(Error::invalid("no command specified")
                .with_hint("the image names no command: write one after the image, as in `rrun run IMAGE sh`"));
        }
        Some(program) if program.is_empty() => {
            return Err(Error::invalid("the command is an empty string").with_hint("name the program to run"));
        }
        Some(_) => {}
    }
    // What cannot cross execve(2). The shell cannot pass it either; an image's config can hold it.
    let texts = args.iter().chain(&config.env).chain([&config.working_dir, &config.user]);
    if texts.clone().any(|t| t.contains('\0')) {
        return Err(Error::invalid("command, environment, user and working directory cannot contain NUL bytes"));
    }
    Ok(())
}

/// `--entrypoint` drops the image's command as well as its entrypoint; `""` drops both for good.
fn command(
    entrypoint: Option<&str>,
    command: &[String],
    image: &ImageConfig,
) -> (Option<Vec<String>>, Option<Vec<String>>) {
    let given = (!command.is_empty()).then(|| command.to_vec());
    match entrypoint {
        Some("") => (None, given),
        Some(program) => (Some(vec![program.to_string()]), given),
        None => (image.entrypoint.clone(), given.or_else(|| image.cmd.clone())),
    }
}

/// `-e` and `--env-file`: files first, so that flags win. An entry without `=` takes a variable away.
///
/// # Errors
/// An entry without a name, an unreadable file.
pub fn environment(flags: &[String], files: &[std::path::PathBuf]) -> Result<Vec<String>> {
    let mut env: Vec<String> = Vec::new();
    for file in files {
        for (number, line) in lines(file)? {
            let name = line.split('=').next().unwrap_or_default();
            if name.is_empty() {
                return Err(Error::invalid(format!(
                    "invalid env file ({}): no variable name on line {number}",
                    file.display()
                )));
            }
            if name.contains(char::is_whitespace) {
                return Err(Error::invalid(format!(
                    "invalid env file ({}): variable '{name}' contains whitespaces",
                    file.display()
                ))
                .with_hint("write NAME=value, one a line"));
            }
            set(&mut env, imported(line));
        }
    }
    for entry in flags {
        if entry.is_empty() || entry.starts_with('=') {
            return Err(Error::invalid(format!("invalid environment variable: {}", entry.escape_debug()))
                .with_hint("write -e NAME=value"));
        }
        set(&mut env, imported(entry.clone()));
    }
    Ok(env)
}

/// A name alone copies the variable of rrun's own environment, if there is one.
fn imported(entry: String) -> String {
    match entry.contains('=') {
        true => entry,
        false => match std::env::var(&entry) {
            Ok(value) => format!("{entry}={value}"),
            Err(_) => entry,
        },
    }
}

fn set(env: &mut Vec<String>, entry: String) {
    let name = |e: &str| e.split('=').next().unwrap_or_default().to_string();
    match env.iter_mut().find(|e| name(e) == name(&entry)) {
        Some(old) => *old = entry,
        None => env.push(entry),
    }
}

/// The user's entries, then those of the image that the user does not name.
fn over(mut user: Vec<String>, image: &[String]) -> Vec<String> {
    let named: Vec<String> = user.iter().map(|e| e.split('=').next().unwrap_or_default().to_string()).collect();
    let inherited = image.iter().filter(|e| !named.iter().any(|n| n == e.split('=').next().unwrap_or_default()));
    user.extend(inherited.cloned());
    user
}

/// What the program really gets: PATH, HOSTNAME, (with a terminal) TERM and what `linked` says of its
/// links, unless named otherwise. HOME is added by the container's own process, which reads the image's passwd file.
pub fn process_environment(config: &Config, hostname: &str, linked: Vec<String>) -> Vec<String> {
    let mut env = vec![PATH.to_string(), format!("HOSTNAME={hostname}")];
    if config.tty {
        env.push("TERM=xterm".into());
    }
    env.extend(linked);
    for entry in &config.env {
        match entry.contains('=') {
            true => set(&mut env, entry.clone()),
            false => env.retain(|e| e.split('=').next() != Some(entry)),
        }
    }
    env
}

/// For a program without a terminal of its own in a container that has one.
pub fn forget_terminal(env: &mut Vec<String>, config: &Config) {
    env.retain(|e| !e.starts_with("TERM=") || config.env.contains(e));
}

fn labels(
    flags: &[String],
    files: &[std::path::PathBuf],
    image: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>> {
    let mut labels = image.clone();
    let mut entries = Vec::new();
    for file in files {
        entries.extend(lines(file)?.into_iter().map(|(_, line)| line));
    }
    entries.extend(flags.iter().cloned());
    for entry in entries {
        let (key, value) = entry.split_once('=').unwrap_or((&entry, ""));
        if key.is_empty() {
            return Err(Error::invalid(format!("invalid label '{}': empty name", entry.escape_debug()))
                .with_hint("write --label KEY=VALUE"));
        }
        labels.insert(key.to_string(), value.to_string());
    }
    Ok(labels)
}

/// The lines that say something, with their numbers.
fn lines(file: &Path) -> Result<Vec<(usize, String)>> {
    let text = std::fs::read_to_string(file).doing(|| format!("read {}", file.display()))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let lines = text.lines().enumerate().map(|(i, l)| (i + 1, l.trim_start()));
    Ok(lines.filter(|(_, l)| !l.is_empty() && !l.starts_with('#')).map(|(i, l)| (i, l.to_string())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> ImageConfig {
        ImageConfig {
            env: vec!["PATH=/image".into(), "LANG=C".into()],
            entrypoint: Some(vec!["/entry".into()]),
            cmd: Some(vec!["a".into(), "b".into()]),
            ..ImageConfig::default()
        }
    }

    #[test]
    fn entrypoint_and_command() {
        let words = |w: &[&str]| Some(w.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(command(None, &[], &image()), (words(&["/entry"]), words(&["a", "b"])));
        assert_eq!(command(None, &["c".into()], &image()), (words(&["/entry"]), words(&["c"])));
        assert_eq!(command(Some("sh"), &[], &image()), (words(&["sh"]), None));
        assert_eq!(command(Some(""), &["c".into()], &image()), (None, words(&["c"])));
    }

    #[test]
    fn environment_of_the_process() {
        let user = environment(&["A=1".into(), "LANG".into(), "A=2".into()], &[]).unwrap();
        let config = Config { env: over(user, &image().env), tty: true, ..Config::default() };
        let env = process_environment(&config, "h", Vec::new());
        assert_eq!(env[..3], ["PATH=/image", "HOSTNAME=h", "TERM=xterm"]);
        assert!(env.contains(&"A=2".to_string()));
        assert!(environment(&["=x".into()], &[]).is_err());
    }

    #[test]
    fn an_entry_without_value_takes_the_variable_away() {
        let config = Config { env: vec!["RRUN_TEST_NOT_SET".into(), "HOSTNAME".into()], ..Config::default() };
        assert_eq!(process_environment(&config, "h", Vec::new()), [PATH]);
    }

    #[test]
    fn labels_need_names() {
        let all = labels(&["a=1".into(), "b".into()], &[], &BTreeMap::from([("a".into(), "0".into())])).unwrap();
        assert_eq!(all, BTreeMap::from([("a".into(), "1".into()), ("b".into(), String::new())]));
        assert!(labels(&["=x".into()], &[], &BTreeMap::new()).is_err());
    }
}
