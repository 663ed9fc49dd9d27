//! `rrun boot`: what a service manager calls once the machine is up, and `--down` before it goes down.

use crate::args::BootArgs;
use crate::container::lock::Lock;
use crate::container::start::{self, Start};
use crate::container::{self, Entry, Record, life};
use crate::context::Context;
use crate::render;
use plan::Result;
use runtime::state::{self, State, Status};
use std::time::Duration;

/// Containers that join another's namespaces come after it: so many rounds are tried.
const ROUNDS: usize = 8;

/// How often `down` looks whether they have ended.
const LOOK: Duration = Duration::from_millis(20);

pub fn run(ctx: &Context, args: &BootArgs) -> Result<i32> {
    if args.down { down(ctx) } else { up(ctx) }
}

/// Monitors are in a control group of their own, so a service manager that ends its units ends none of them. Each
/// is told here, all at once, and takes the time that its container is granted.
fn down(ctx: &Context) -> Result<i32> {
    let mut told = Vec::new();
    for entry in container::list(ctx)? {
        let Entry::Container(record) = entry else { continue };
        let Ok(state) = life::state(ctx, &record.id) else { continue };
        if matches!(state.status, Status::Running | Status::Restarting) && state::monitor_alive(&state) {
            tell(&record, &state)?;
            told.push((record, state));
        }
    }
    for (record, mut state) in told {
        while state::monitor_alive(&state) {
            std::thread::sleep(LOOK);
            // Between two lives a monitor may miss it: then it hears of it in the next.
            if let Ok(now) = life::state(ctx, &record.id)
                && (now.status == Status::Restarting || now.pid != state.pid)
                && state::monitor_alive(&now)
            {
                tell(&record, &now)?;
                state = now;
            }
        }
        super::out(&format!("{}\n", record.name));
    }
    Ok(0)
}

/// What stands still hears of no signal.
fn tell(record: &Record, state: &State) -> Result<()> {
    state::signal_monitor(state, libc::SIGTERM)?;
    if state.status == Status::Running { life::thaw(&record.cgroup_path()) } else { Ok(()) }
}

fn up(ctx: &Context) -> Result<i32> {
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
