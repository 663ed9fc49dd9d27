//! `rrun exec`: another program in a running container.
//!
//! This process joins the container itself, so it works without the monitor. What joins is visible
//! in there as `/proc/<pid>/exe`: so rrun first protects its executable (CVE-2019-5736).

use super::attach::Wishes;
use crate::args::ExecArgs;
use crate::container::events::{self, Event};
use crate::container::request::process::{environment, forget_terminal};
use crate::container::{self, Record, life, spec::run_spec};
use crate::context::Context;
use plan::{Error, Result};
use runtime::exec::Io;
use runtime::host::HostFacts;
use runtime::join::{self, JoinSpec};
use runtime::relay::{self, AttachEnd, Ends};
use runtime::spec::{AppArmor, Process, RunSpec, Seccomp, User};
use runtime::sys::spawn;
use runtime::{caps, state};
use std::path::PathBuf;

pub fn run(ctx: &Context, args: &ExecArgs) -> Result<i32> {
    let [name, command @ ..] = args.container_and_command.as_slice() else {
        return Err(Error::invalid("exec needs a container and a command"));
    };
    let wishes = Wishes {
        stdin: args.interactive && !args.detach,
        tty: args.tty,
        sig_proxy: true,
        keys: relay::detach::parse(&args.detach_keys)?,
        stdout: true,
        stderr: true,
    };
    wishes.check_terminal()?;
    runtime::sys::seal::protect(None)?;
    let record = container::find(ctx, name)?;
    let now = life::state(ctx, &record.id)?;
    life::expect_awake(&record, &now, "exec")?;
    let target = state::open(&now)?.ok_or_else(|| {
        Error::conflict(format!("container {} is not running", record.id)).with_hint(format!("rrun start {name}"))
    })?;
    let spec = run_spec(ctx, &record)?;
    let join = JoinSpec {
        pid: now.pid,
        seccomp: if args.privileged { Seccomp::Unconfined } else { spec.seccomp.clone() },
        cgroup: spec.cgroup.path.clone(),
        process: process(args, command, &record, spec, &wishes)?,
    };
    let signals = if args.detach { None } else { Some(wishes.capture()?) };
    let (io, pipes) = match args.tty {
        true => (Io::Tty, None),
        false => {
            let pipes = runtime::monitor::pipes(wishes.stdin)?;
            (Io::Pipes { stdin: pipes.stdin, stdout: pipes.stdout, stderr: pipes.stderr }, Some(pipes.ends))
        }
    };
    let words = command.join(" ");
    let exec_id = container::names::new_id()?;
    let event = |action: &str, more: &[(&str, String)]| {
        Event::container(&record, action, &[&[("execID", exec_id.clone())], more].concat())
    };
    let begun = ["exec_create", "exec_start"].map(|action| event(&format!("{action}: {words}"), &[]));
    let mut running = join::exec(&join, target, &HostFacts::observe()?, io)?;
    events::write(ctx, &begun);
    let died = |code: i32| {
        events::write(ctx, &[event("exec_die", &[("exitCode", code.to_string())])]);
        Ok(code)
    };
    let ends = match (running.tty.take(), pipes) {
        (Some(master), _) => Ends::Tty(master),
        (None, Some(ends)) => ends,
        (None, None) => return Err(Error::system("the command's terminal is missing")),
    };
    // A command in the background still needs somebody to read what it writes.
    if args.detach && !spawn::fork_background()? {
        return Ok(0);
    }
    let options = relay::Options {
        stdin: wishes.stdin,
        tty: wishes.tty,
        sig_proxy: wishes.sig_proxy && !args.detach,
        detach_keys: wishes.keys,
        signals,
        ..relay::Options::default()
    };
    match relay::relay(running.pid, running.pidfd, ends, &relay::own_stdio(), options)? {
        AttachEnd::Exited(code) => died(code),
        AttachEnd::Detached => {
            events::write(ctx, &[event("exec_detach", &[])]);
            Ok(0)
        }
        AttachEnd::OutputClosed => Ok(128 + libc::SIGPIPE),
        AttachEnd::Signalled(number) => Ok(128 + number),
        AttachEnd::Lost => Err(Error::system("the command cannot be watched any more")),
    }
}

/// The container's own process with what the flags change.
fn process(args: &ExecArgs, command: &[String], record: &Record, spec: RunSpec, wishes: &Wishes) -> Result<Process> {
    let mut process = spec.process;
    process.args = command.to_vec();
    if command.first().is_none_or(String::is_empty) {
        return Err(Error::invalid("the command is an empty string").with_hint("name the program to run"));
    }
    process.tty = args.tty;
    process.init = false;
    process.console_size = wishes.console();
    forget_terminal(&mut process.env, &record.config);
    if args.tty && !process.env.iter().any(|e| e.starts_with("TERM=")) {
        process.env.push("TERM=xterm".into());
    }
    for entry in environment(&args.env, &args.env_file)? {
        let name = entry.split('=').next().unwrap_or_default().to_string();
        process.env.retain(|e| e.split('=').next() != Some(&name));
        if entry.contains('=') {
            process.env.push(entry);
        }
    }
    if let Some(user) = &args.user {
        runtime::user::check(user)?;
        process.user = User::Named { spec: user.clone(), additional_groups: record.host.group_add.clone() };
    }
    if let Some(dir) = &args.workdir {
        if !dir.starts_with('/') {
            return Err(Error::invalid(format!(
                "the working directory '{}' is invalid, it needs to be an absolute path",
                dir.escape_debug()
            ))
            .with_hint("write it from the root: -w /dir"));
        }
        process.cwd = PathBuf::from(dir);
    }
    if args.privileged {
        process.apparmor = AppArmor::Unconfined;
        process.caps = runtime::spec::Caps::of(&caps::names(caps::ALL), true);
    }
    Ok(process)
}
