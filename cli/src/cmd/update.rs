//! `rrun update`: other limits and another restart policy, at once.

use crate::args::UpdateArgs;
use crate::container::record::HostConfig;
use crate::container::request::limits;
use crate::container::restart::Policy;
use crate::container::{self, Record, events, life};
use crate::context::Context;
use plan::{Error, Result};
use runtime::cgroup::{self, Layout};
use runtime::spec::Cgroup;

pub fn run(ctx: &Context, args: &UpdateArgs) -> Result<i32> {
    let policy = args.restart.as_deref().map(Policy::parse).transpose()?;
    let mut probe = HostConfig::default();
    limits::change(&args.resources, &mut probe, &mut Vec::new()).or_else(|e| match e.kind {
        // Whether limits fit those that are there is seen with each container.
        plan::Kind::Invalid if e.message.starts_with("Minimum memory") => Ok(()),
        _ => Err(e),
    })?;
    if policy.is_none() && probe == HostConfig::default() && args.resources.kernel_memory.is_none() {
        return Err(Error::invalid("you must provide one or more flags when using this command")
            .with_hint("`rrun update --help` lists them"));
    }
    let mut warnings = Vec::new();
    let code = super::each(&args.containers, |name| {
        let id = container::find_id(ctx, name)?;
        let (record, ()) = Record::update(ctx, &id, |record| {
            if record.host.auto_remove && policy.is_some_and(|p| !p.is_none()) {
                return Err(Error::conflict(
                    "Restart policy cannot be updated because AutoRemove is enabled for the container",
                )
                .with_hint("make it again without --rm"));
            }
            let before = record.host.clone();
            limits::change(&args.resources, &mut record.host, &mut warnings)?;
            record.host.restart = policy.unwrap_or(record.host.restart);
            // The kernel has the last word: what it refuses is not recorded either.
            if life::is_running(ctx, &id)? {
                warnings.extend(apply(record, &before)?);
            }
            Ok(())
        })?;
        events::container(ctx, &record, "update", &[]);
        super::out(&format!("{name}\n"));
        Ok(())
    });
    super::warn(&warnings);
    code
}

/// Writes the limits that differ. Returns what this host cannot limit.
fn apply(record: &Record, before: &HostConfig) -> Result<Vec<String>> {
    let path = record.cgroup_path();
    // No device rule is touched: `all_devices` leaves them alone.
    let mut old = Cgroup { path, all_devices: true, ..Cgroup::default() };
    let mut new = old.clone();
    limits::apply(before, &mut old)?;
    limits::apply(&record.host, &mut new)?;
    let layout = Layout::observe()?;
    let (was, _) = cgroup::settings(&old, &[], &layout);
    let (mut now, mut words) = cgroup::settings(&new, &[], &layout);
    now.retain(|setting| !was.contains(setting));
    words.extend(cgroup::update(&new.path, &layout, &now)?);
    Ok(words)
}
