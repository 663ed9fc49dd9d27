//! `rrun boot`: what a service manager calls once the machine is up.

use crate::container::lock::Lock;
use crate::container::start::{self, Start};
use crate::container::{self, Entry, Record, life};
use crate::context::Context;
use crate::render;
use plan::Result;
use runtime::state::Status;

/// Containers that join another's namespaces come after it: so many rounds are tried.
const ROUNDS: usize = 8;

pub fn run(ctx: &Context) -> Result<i32> {
    let mut waiting: Vec<Record> = Vec::new();
    for entry in container::list(ctx)? {
        match entry {
            Entry::Container(record) if must_run(ctx, &record) => waiting.push(*record),
            Entry::Container(_) | Entry::Broken { .. } => {}
        }
    }
    // In the order in which they were made, as far as it matters.
    waiting.sort_by(|a, b| a.created.cmp(&b.created));
    let mut failures = Vec::new();
    for _ in 0..ROUNDS {
        failures.clear();
        let before = waiting.len();
        waiting.retain(|record| match begin(ctx, record) {
            Ok(()) => {
                super::out(&format!("{}\n", record.name));
                false
            }
            Err(e) => {
                failures.push(e.context(format!("start {}", record.name)));
                true
            }
        });
        if waiting.is_empty() || waiting.len() == before {
            break;
        }
    }
    failures.iter().for_each(render::error::print);
    Ok(i32::from(!failures.is_empty()))
}

/// One whose state is damaged is left to whoever looks at it.
fn must_run(ctx: &Context, record: &Record) -> bool {
    let policy = record.host.restart;
    !policy.is_none()
        && life::state(ctx, &record.id).is_ok_and(|state| {
            state.status == Status::Exited && policy.after_boot(state.stopped, state.exit_code, state.restart_count)
        })
}

fn begin(ctx: &Context, record: &Record) -> Result<()> {
    let lock = Lock::take(ctx, &record.id)?;
    if let Some(started) = start::start(ctx, record, lock, Start::default())? {
        super::warn(&started.warnings);
    }
    Ok(())
}
