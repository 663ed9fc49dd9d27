//! `rrun login` and `rrun logout`.

use crate::args::{LoginArgs, LogoutArgs, SearchArgs};
use crate::context::Context;
use images::registry::{Credential, Keyring};
use plan::{Error, Result, ResultExt};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use std::io::{BufRead, IsTerminal, Read};

const HUB: &str = "docker.io";

pub fn log_in(ctx: &Context, args: &LoginArgs) -> Result<i32> {
    let registry = registry_of(args.registry.as_deref());
    let keyring = keyring(ctx)?;
    let credential = asked(args, &registry)?;
    if args.password.is_some() {
        super::warn(&["Using --password via the CLI is insecure. Use --password-stdin.".to_owned()]);
    }
    images::registry::log_in(&ctx.registries(), &registry, &credential)?;
    if keyring.store(&registry, &credential)? {
        super::tell(&format!(
            "WARNING: the password is kept unencrypted in {}\nhint: a credential helper (credsStore in that file) avoids it\n",
            keyring.path().display()
        ));
    }
    super::out("Login Succeeded\n");
    Ok(0)
}

pub fn log_out(ctx: &Context, args: &LogoutArgs) -> Result<i32> {
    let registry = registry_of(args.registry.as_deref());
    match keyring(ctx)?.erase(&registry)? {
        true => super::out(&format!("Removing login credentials for {}\n", shown(&registry))),
        false => super::out(&format!("Not logged in to {}\n", shown(&registry))),
    }
    Ok(0)
}

/// Searching is a service of Docker Hub's web site, not of registries.
pub fn search(args: &SearchArgs) -> Result<i32> {
    Err(Error::invalid("rrun does not search: registries have no search, only Docker Hub's web site has")
        .with_hint(format!("look for {:?} at hub.docker.com, then `rrun pull NAME`", args.term.join(" "))))
}

fn keyring(ctx: &Context) -> Result<Keyring> {
    let path = ctx.registries().login;
    path.map(|p| Keyring::at(&p)).ok_or_else(|| {
        Error::invalid("nowhere to keep a login: neither DOCKER_CONFIG nor HOME is set")
            .with_hint("set one of them to a directory of yours")
    })
}

/// The registry as images name it; people also paste URLs.
fn registry_of(given: Option<&str>) -> String {
    let Some(given) = given else { return HUB.to_owned() };
    let bare = given.trim_start_matches("https://").trim_start_matches("http://");
    let host = bare.split('/').next().unwrap_or(bare).to_ascii_lowercase();
    match host.as_str() {
        "index.docker.io" | "registry-1.docker.io" | "hub.docker.com" => HUB.to_owned(),
        _ => host,
    }
}

fn shown(registry: &str) -> &str {
    if registry == HUB { "https://index.docker.io/v1/" } else { registry }
}

fn asked(args: &LoginArgs, registry: &str) -> Result<Credential> {
    if args.password_stdin && args.username.is_none() {
        return Err(Error::invalid("Must provide --username with --password-stdin").with_hint("add -u NAME"));
    }
    let terminal = std::io::stdin().is_terminal();
    let missing = args.username.is_none() || (args.password.is_none() && !args.password_stdin);
    if missing && !terminal {
        return Err(Error::invalid("Cannot perform an interactive login from a non TTY device")
            .with_hint(format!("rrun login -u NAME --password-stdin {registry} < FILE")));
    }
    let user = match &args.username {
        Some(user) => user.clone(),
        None => line("Username: ", true)?,
    };
    let secret = match &args.password {
        Some(secret) => secret.clone(),
        None if args.password_stdin => {
            let mut secret = String::new();
            std::io::stdin().take(1 << 20).read_to_string(&mut secret).doing(|| "read the password")?;
            secret.trim_end_matches(['\r', '\n']).to_owned()
        }
        None => line("Password: ", false)?,
    };
    for (name, value) in [("username", &user), ("password", &secret)] {
        if value.is_empty() {
            return Err(Error::invalid(format!("{name} is required")).with_hint("`rrun login --help` shows the ways"));
        }
    }
    Ok(Credential::Password { user, secret })
}

/// One line from the terminal; unseen if it is a secret.
fn line(prompt: &str, seen: bool) -> Result<String> {
    super::out(prompt);
    let stdin = std::io::stdin();
    let before = tcgetattr(&stdin).ok();
    if !seen && let Some(before) = &before {
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Flush, &silent).doing(|| "turn the terminal's echo off")?;
    }
    let mut text = String::new();
    let read = stdin.lock().read_line(&mut text).doing(|| "read from the terminal");
    if !seen && let Some(before) = &before {
        tcsetattr(&stdin, OptionalActions::Flush, before).doing(|| "turn the terminal's echo on")?;
        super::out("\n");
    }
    read?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}
