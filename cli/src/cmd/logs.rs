//! `rrun logs`.

use super::moment::moment;
use crate::args::LogsArgs;
use crate::container::{self, LOG_FILE, life, logging};
use crate::context::Context;
use plan::time;
use plan::{Error, Result};
use runtime::log::{self, Follow, ReadOptions, Record, Sink};
use runtime::relay::Stream;
use runtime::state;
use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::os::fd::AsFd;

pub fn run(ctx: &Context, args: &LogsArgs) -> Result<i32> {
    let record = container::find(ctx, &args.container)?;
    if record.host.log.driver == "none" {
        return Err(Error::invalid("configured logging driver does not support reading")
            .with_hint("the container was made with --log-driver none"));
    }
    let tail = match args.tail.as_str() {
        "all" => None,
        // Docker's rule: a negative number is all of it too.
        text => match text.parse::<i64>() {
            Ok(n) => u64::try_from(n).ok(),
            Err(_) => {
                return Err(Error::invalid(format!("invalid value for \"tail\": {}", text.escape_debug()))
                    .with_hint("write --tail NUMBER, or --tail all"));
            }
        },
    };
    let now = life::state(ctx, &record.id)?;
    let process = if args.follow { state::open(&now)? } else { None };
    let mut is_alive = || state::is_alive(&now) || state::monitor_alive(&now);
    // Where each line does not carry them itself.
    let attributes = match record.host.log.driver.as_str() {
        "local" if args.details => logging::attributes(&record)?,
        _ => BTreeMap::new(),
    };
    let options = ReadOptions {
        format: logging::format(&record.host.log),
        tail,
        since: args.since.as_deref().map(moment).transpose()?,
        until: args.until.as_deref().map(moment).transpose()?,
        follow: args.follow.then(|| Follow { is_alive: &mut is_alive, wake: process.as_ref().map(AsFd::as_fd) }),
    };
    let mut printer = Printer {
        stdout: BufWriter::with_capacity(64 << 10, io::stdout()),
        stderr: BufWriter::with_capacity(64 << 10, io::stderr()),
        timestamps: args.timestamps,
        details: args.details.then_some(attributes),
    };
    match record.host.log.driver.as_str() {
        "journald" => log::read_journal(&record.id, options, &mut printer)?,
        _ => log::read(&ctx.container_dir(&record.id).join(LOG_FILE), options, &mut printer)?,
    }
    Ok(0)
}

/// Each stream goes where the container sent it.
struct Printer {
    stdout: BufWriter<io::Stdout>,
    stderr: BufWriter<io::Stderr>,
    timestamps: bool,
    /// What each line's own attributes are added to, if they are to be seen.
    details: Option<BTreeMap<String, String>>,
}

impl Sink for Printer {
    fn record(&mut self, record: &Record<'_>) -> Result<ControlFlow<()>> {
        let out: &mut dyn Write = match record.stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        let mut before = match self.timestamps {
            true => time::parse(record.time).map_or_else(|| record.time.to_string(), time::format_fixed) + " ",
            false => String::new(),
        };
        if let Some(common) = &self.details {
            let all: BTreeMap<_, _> = common.iter().chain(&record.attributes).collect();
            let pairs: Vec<String> = all.into_iter().map(|(k, v)| format!("{}={}", escaped(k), escaped(v))).collect();
            before += &(pairs.join(",") + " ");
        }
        Ok(or_break(out.write_all(before.as_bytes()).and_then(|()| out.write_all(&record.log))))
    }

    fn caught_up(&mut self) -> Result<ControlFlow<()>> {
        Ok(or_break(self.stdout.flush().and_then(|()| self.stderr.flush())))
    }
}

/// As in the query of a URL, which is how Docker keeps commas and blanks apart.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for b in text.bytes() {
        match b {
            b'-' | b'_' | b'.' | b'~' => out.push(b.into()),
            _ if b.is_ascii_alphanumeric() => out.push(b.into()),
            b' ' => out.push('+'),
            _ => out += &format!("%{b:02X}"),
        }
    }
    out
}

/// A reader that has gone needs no more lines.
fn or_break(written: io::Result<()>) -> ControlFlow<()> {
    match written {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    }
}
