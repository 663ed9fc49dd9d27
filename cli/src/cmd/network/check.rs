//! `rrun network check`: what is wrong with the host's network, and whose business it is.

use crate::args::NetworkCheckArgs;
use crate::container::undo;
use crate::context::Context;
use netstack::check::Finding;
use plan::{Error, HostThing, Result};

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
    let (netstack, written) = (ctx.netstack(), || written(ctx));
    let findings = match args.repair {
        true => netstack.check_and_repair(&written)?,
        false => netstack.check(&written)?,
    };
    if json {
        let text = serde_json::to_string_pretty(&findings)
            .map_err(|e| Error::system("write JSON").with_cause(e.to_string()))?;
        crate::cmd::out(&format!("{text}\n"));
    } else {
        crate::cmd::out(&findings.iter().map(lines).collect::<String>());
    }
    Ok(i32::from(findings.iter().any(|f| !f.repaired)))
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
