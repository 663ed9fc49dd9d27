//! `rrun stats`: what containers use, once or again and again.

use crate::args::StatsArgs;
use crate::container::view::{self, View};
use crate::container::{self, Record};
use crate::context::Context;
use crate::render::table::{binary_size, human_size};
use crate::render::template::{self, Column, Row};
use plan::Result;
use runtime::cgroup::{Layout, Usage, usage};
use serde_json::json;
use std::time::{Duration, Instant};

const COLUMNS: &[Column] = &[
    ("CONTAINER ID", "ID"),
    ("NAME", "Name"),
    ("CPU %", "CPUPerc"),
    ("MEM USAGE / LIMIT", "MemUsage"),
    ("MEM %", "MemPerc"),
    ("NET I/O", "NetIO"),
    ("BLOCK I/O", "BlockIO"),
    ("PIDS", "PIDs"),
];

/// Between two looks: what the share of the processors is an average over.
const INTERVAL: Duration = Duration::from_secs(1);

/// One container at one moment.
struct Sample {
    at: Instant,
    usage: Usage,
    /// Bytes received and sent on all interfaces but the loopback.
    net: (u64, u64),
}

pub fn run(ctx: &Context, args: &StatsArgs) -> Result<i32> {
    let layout = Layout::observe()?;
    let machine = memory_of_the_machine();
    for name in &args.containers {
        container::find(ctx, name)?;
    }
    let mut before: Vec<(String, Sample)> = samples(&views(ctx, args)?, &layout);
    loop {
        std::thread::sleep(if before.is_empty() { Duration::ZERO } else { INTERVAL });
        let views = views(ctx, args)?;
        let now = samples(&views, &layout);
        let rows: Vec<Row> = views
            .iter()
            .filter_map(|v| {
                let find = |all: &[(String, Sample)]| all.iter().position(|(id, _)| *id == v.id);
                let new = find(&now).map(|i| &now[i].1);
                let old = find(&before).map(|i| &before[i].1);
                row(v, old, new, machine, args.no_trunc)
            })
            .collect();
        let text = template::list(args.format.as_deref(), COLUMNS, &rows)?;
        if args.no_stream {
            super::out(&text);
            return Ok(0);
        }
        // Clear, go home, draw: in one write, so that nothing flickers.
        super::out(&format!("\x1b[2J\x1b[H{text}"));
        before = now;
    }
}

fn views(ctx: &Context, args: &StatsArgs) -> Result<Vec<View>> {
    if args.containers.is_empty() {
        let all = view::all(ctx)?;
        return Ok(all.into_iter().filter(|v| v.record.is_some() && (args.all || v.is_running())).collect());
    }
    // One that was removed meanwhile is no longer shown.
    let found = args.containers.iter().filter_map(|name| container::find(ctx, name).ok());
    found.map(|record| View::of(ctx, record)).collect()
}

fn samples(views: &[View], layout: &Layout) -> Vec<(String, Sample)> {
    let running = views.iter().filter(|v| v.is_running());
    let of = |v: &View, record: &Record| Sample {
        at: Instant::now(),
        usage: usage(&record.cgroup_path(), layout),
        net: network(v.state.pid),
    };
    running.filter_map(|v| Some((v.id.clone(), of(v, v.record.as_deref()?)))).collect()
}

fn row(v: &View, old: Option<&Sample>, new: Option<&Sample>, machine: u64, no_trunc: bool) -> Option<Row> {
    let (cpu, usage, net) = match new {
        None => (0.0, Usage::default(), (0, 0)),
        Some(new) => {
            let share = old.map_or(0.0, |old| {
                let elapsed = new.at.duration_since(old.at).as_nanos().max(1);
                new.usage.cpu.saturating_sub(old.usage.cpu) as f64 / elapsed as f64 * 100.0
            });
            (share, new.usage, new.net)
        }
    };
    let limit = match new {
        None => 0,
        Some(_) => usage.memory_limit.map_or(machine, |l| l.min(machine)),
    };
    let percent = if limit == 0 { 0.0 } else { usage.memory as f64 / limit as f64 * 100.0 };
    let id = if no_trunc { v.id.as_str() } else { v.short_id() };
    let row = json!({
        "BlockIO": format!("{} / {}", human_size(usage.read), human_size(usage.written)),
        "CPUPerc": format!("{cpu:.2}%"),
        "Container": id,
        "ID": id,
        "MemPerc": format!("{percent:.2}%"),
        "MemUsage": format!("{} / {}", binary_size(usage.memory), binary_size(limit)),
        "Name": v.name,
        "NetIO": format!("{} / {}", human_size(net.0), human_size(net.1)),
        "PIDs": usage.pids.to_string(),
    });
    row.as_object().cloned()
}

/// proc(5), `/proc/<pid>/net/dev`: eight columns of what came, eight of what went.
fn network(pid: i32) -> (u64, u64) {
    let text = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
    let lines = text.lines().filter_map(|l| l.split_once(':')).filter(|(name, _)| name.trim() != "lo");
    lines.fold((0, 0), |(r, t), (_, numbers)| {
        let n: Vec<u64> = numbers.split_whitespace().filter_map(|w| w.parse().ok()).collect();
        (r + n.first().unwrap_or(&0), t + n.get(8).unwrap_or(&0))
    })
}

/// Bytes.
pub fn memory_of_the_machine() -> u64 {
    let info = rustix::system::sysinfo();
    u64::from(info.mem_unit).saturating_mul(info.totalram)
}
