//! `rrun network check`: what is wrong with the host's network, and whose business it is.

use crate::args::{NetworkCheckArgs, NetworkReloadArgs};
use crate::container::{find_id, undo};
use crate::context::Context;
use netstack::check::Finding;
use plan::{Error, HostThing, Result};
use serde::Serialize;

/// 0: all is well, or has been put right; 1: something is left.
pub fn run(ctx: &Context, args: &NetworkCheckArgs) -> Result<i32> {
    let json = match args.format.as_deref() {
        None | Some("table") => false,
        Some("json") => true,
        Some(other) => {
            return Err(Error::invalid(format!("unknown format {}", other.escape_debug()))
                .with_hint("leave --format out, or write --format json"));
        }
    };
    if args.drops {
        return drops(json);
    }
    let (netstack, written) = (ctx.netstack(), || written(ctx));
    let findings = match args.repair {
        true => netstack.check_and_repair(&written)?,
        false => netstack.check(&written)?,
    };
    tell(&findings, json, lines)?;
    Ok(i32::from(findings.iter().any(|f| !f.repaired)))
}

fn tell<T: Serialize>(all: &[T], json: bool, lines: impl Fn(&T) -> String) -> Result<()> {
    let text = match json {
        true => serde_json::to_string_pretty(all)
            .map(|text| text + "\n")
            .map_err(|e| Error::system("write JSON").with_cause(e.to_string()))?,
        false => all.iter().map(lines).collect(),
    };
    crate::cmd::out(&text);
    Ok(())
}

/// What the rules have counted. Drops are their work, no fault: the code is 0.
fn drops(json: bool) -> Result<i32> {
    tell(&netstack::check::drops()?, json, |d| {
        format!("{} packets ({} bytes), chain {}: {}\n", d.packets, d.bytes, d.chain, d.reason)
    })?;
    Ok(0)
}

/// Podman's verb, for the hook that runs after a firewall manager has flushed everything. One table serves
/// all containers, so what is repaired for one is repaired for all. What others' rules do is told, but it is
/// no failure of the reload.
pub fn reload(ctx: &Context, args: &NetworkReloadArgs) -> Result<i32> {
    args.containers.iter().try_for_each(|c| find_id(ctx, c).map(drop))?;
    let findings = ctx.netstack().check_and_repair(&|| written(ctx))?;
    crate::cmd::out(&findings.iter().map(lines).collect::<String>());
    Ok(i32::from(findings.iter().any(|f| f.ours && !f.repaired)))
}

fn lines(f: &Finding) -> String {
    let head = format!("{} {}: {}\n", if f.repaired { "repaired" } else { "problem " }, f.thing, f.problem);
    let remedy = match (&f.fix, f.ours) {
        _ if f.repaired => String::new(),
        (Some(fix), true) => format!("         rrun network check --repair   (or: {fix})\n"),
        (None, true) => "         rrun network check --repair\n".to_string(),
        (Some(fix), false) => format!("         {fix}\n"),
        (None, false) => String::new(),
    };
    head + &remedy
}

/// What the undo lists of all containers say is theirs.
fn written(ctx: &Context) -> Vec<HostThing> {
    let containers = std::fs::read_dir(ctx.state.join("containers")).into_iter().flatten().flatten();
    containers.filter_map(|dir| undo::load(&dir.path()).ok().flatten()).flatten().collect()
}
