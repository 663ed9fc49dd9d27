//! `rrun explain run …`: the whole plan, without root and without touching anything.

use crate::args::{ExplainArgs, ExplainVerb};
use crate::container::request::Request;
use crate::container::spec::run_spec;
use crate::container::volume::mount;
use crate::container::{create, explain, monitor, start};
use crate::context::Context;
use images::config::Config;
use netstack::sandbox::Mode;
use plan::{Result, Spoken};
use runtime::host::HostFacts;
use runtime::planner;

pub fn run(ctx: &Context, args: &ExplainArgs) -> Result<i32> {
    let ExplainVerb::Run(args) = &args.verb;
    let mut flags = args.create.clone();
    let present =
        ctx.images().and_then(|store| Ok(store.find(flags.image())?.map(|image| (store.lower(&image).1, image))));
    let (layers, id, config) = match present {
        Ok(Some((layers, image))) => (layers, image.id, image.config),
        // Not pulled yet, or not for our eyes: the plan is the same but for these names.
        Ok(None) | Err(_) => {
            super::warn(&[format!(
                "image {} is not here (or only root may look): planned as one layer and an empty configuration",
                flags.image()
            )]);
            if flags.command().is_empty() && flags.process.entrypoint.is_none() {
                flags.image_and_command.push("the-image's-own-command".into());
            }
            (vec!["the-image's-layer".into()], String::new(), Config::default())
        }
    };
    let Request { record, mut warnings } = create::draft(ctx, &flags, &id, &config, layers)?;
    let mut spec = run_spec(ctx, &record)?;
    start::join(ctx, &record, &mut spec)?;
    let mut facts = HostFacts::observe()?;
    if !rustix::process::geteuid().is_root() {
        // The plan is root's, whoever reads it.
        facts.caps = runtime::caps::ALL;
    }
    let mut plan = planner::plan(&spec, &facts)?;
    match mount::of(ctx, &record) {
        Ok(volumes) => plan.mount_first(&volumes),
        Err(e) if e.errno == Some(libc::EACCES) => {
            warnings.push("only root may see whether a volume has options: planned as if none had".into());
        }
        Err(e) => return Err(e),
    }
    warnings.extend(plan.warnings.iter().cloned());
    let network = match monitor::network(ctx, &record, &spec, Mode::DryRun)? {
        Some(network) => {
            warnings.extend(network.warnings.iter().cloned());
            network.steps.iter().map(|s| Spoken::of(s, None)).collect()
        }
        None => Vec::new(),
    };
    super::warn(&warnings);
    let steps = explain::planned(&plan, network);
    super::out(&if args.script { plan::script(&steps) } else { plan::render(&steps) });
    Ok(0)
}

/// What `--explain` prints once the program runs; to standard error, which is not the program's.
pub fn print(steps: &[Spoken], script: bool) {
    let text = if script { plan::script(steps) } else { plan::render(steps) };
    super::tell(&text);
}
