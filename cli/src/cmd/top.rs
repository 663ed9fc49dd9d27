//! `rrun top`: the processes of a container, as the host sees them.
//!
//! Nothing of the container is executed or believed (CVE-2022-1227): its processes are those in its
//! cgroup, and what is shown of them is in the host's /proc.

use crate::args::TopArgs;
use crate::container::{self, events, life};
use crate::context::Context;
use crate::render::table;
use plan::{Error, Result, ResultExt};
use runtime::cgroup::{self, Layout};
use runtime::state::Status;
use std::collections::BTreeMap;
use std::process::Command;

pub fn run(ctx: &Context, args: &TopArgs) -> Result<i32> {
    let record = container::find(ctx, &args.container)?;
    if life::state(ctx, &record.id)?.status != Status::Running {
        return Err(Error::conflict(format!("Container {} is not running", record.id))
            .with_hint(format!("rrun start {}", record.name)));
    }
    let pids = cgroup::members(&record.cgroup_path(), &Layout::observe()?);
    let rows = match args.options.is_empty() {
        true => own(&pids),
        false => through_ps(&args.options, &pids)?,
    };
    events::container(ctx, &record, "top", &[]);
    super::out(&table::align(&rows));
    Ok(0)
}

/// Of the times in /proc, which no kernel that runs Linux programs has otherwise (USER_HZ).
const HERTZ: u64 = 100;

/// `ps -ef`'s columns, without ps.
fn own(pids: &[i32]) -> Vec<Vec<String>> {
    let head = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let users = users();
    let hertz = HERTZ;
    let up = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let up: f64 = up.split(' ').next().and_then(|t| t.parse().ok()).unwrap_or(0.0);
    rows.extend(pids.iter().filter_map(|pid| process(*pid, &users, hertz, up)));
    rows
}

/// `None`: it has ended meanwhile.
fn process(pid: i32, users: &BTreeMap<u32, String>, hertz: u64, up: f64) -> Option<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, parentheses too: what follows the last one counts.
    let (head, fields) = stat.rsplit_once(')')?;
    let name = head.split_once('(')?.1;
    let f: Vec<&str> = fields.split_whitespace().collect();
    let number = |i: usize| f.get(i).and_then(|t| t.parse::<u64>().ok()).unwrap_or(0);
    let (ticks, started) = (number(11) + number(12), number(19) as f64 / hertz as f64);
    let lived = (up - started).max(0.01);
    let used = ticks as f64 / hertz as f64;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let uid = status.lines().find_map(|l| l.strip_prefix("Uid:")?.split_whitespace().nth(1)?.parse::<u32>().ok())?;
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let command = String::from_utf8_lossy(&command).trim_end_matches('\0').replace('\0', " ");
    let command = if command.is_empty() { format!("[{name}]") } else { command };
    let seconds = used as u64;
    let since = plan::time::format(plan::time::Timestamp {
        seconds: plan::time::Timestamp::now().seconds - lived as i64,
        nanos: 0,
    });
    Some(vec![
        users.get(&uid).cloned().unwrap_or_else(|| uid.to_string()),
        pid.to_string(),
        f.get(1).copied().unwrap_or("0").to_owned(),
        format!("{:.0}", (used / lived * 100.0).min(99.0)),
        since.get(11..16).unwrap_or("").to_owned(),
        terminal(number(4)),
        format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60),
        // What a program calls itself must not move the cursor of whoever looks.
        command.chars().map(|c| if c.is_control() { '?' } else { c }).collect(),
    ])
}

/// proc(5): major and minor of the controlling terminal.
fn terminal(tty: u64) -> String {
    let (major, minor) = (tty >> 8 & 0xfff, (tty & 0xff) | (tty >> 12 & 0xfff00));
    match major {
        136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
        4 => format!("tty{minor}"),
        _ => "?".to_owned(),
    }
}

/// The host's /etc/passwd, read as a file: no name service in a static binary.
fn users() -> BTreeMap<u32, String> {
    let text = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let lines = text.lines().map(|l| l.split(':').collect::<Vec<_>>());
    lines.filter_map(|f| Some((f.get(2)?.parse().ok()?, f.first()?.to_string()))).collect()
}

/// The host's `ps` with the caller's options, of which only the container's processes are shown.
fn through_ps(options: &[String], pids: &[i32]) -> Result<Vec<Vec<String>>> {
    let ps = |more: &[String]| {
        let run = Command::new("ps").args(options).args(more).output().doing(|| "run ps");
        run.map_err(|e| e.with_hint("options for top need the host's ps: apt-get install procps"))
    };
    let list: Vec<String> = pids.iter().map(ToString::to_string).collect();
    let mut output = ps(&[format!("-q{}", list.join(","))])?;
    if !output.status.success() {
        // Some options (`f`, `-e`) do not go together with a list.
        output = ps(&[])?;
    }
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Error::invalid("ps")
            .with_cause(said.lines().next().unwrap_or("it failed").to_owned())
            .with_hint("the options are those of the host's ps"));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let head: Vec<&str> = lines.next().unwrap_or("").split_whitespace().collect();
    let at = head.iter().position(|h| *h == "PID").ok_or_else(|| {
        Error::invalid("Couldn't find PID field in ps output")
            .with_hint("choose options that show the PID: -ef, aux, -o pid,args")
    })?;
    let mut rows = vec![head.iter().map(|h| (*h).to_owned()).collect::<Vec<_>>()];
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        if !words.get(at).and_then(|w| w.parse::<i32>().ok()).is_some_and(|pid| pids.contains(&pid)) {
            continue;
        }
        // The last column is the command with its arguments.
        let last = head.len() - 1;
        let mut row: Vec<String> = words.iter().take(last).map(|w| (*w).to_owned()).collect();
        row.push(words.get(last..).unwrap_or(&[]).join(" "));
        rows.push(row);
    }
    Ok(rows)
}
