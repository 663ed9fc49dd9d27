//! `rrun logs`.

use crate::args::LogsArgs;
use crate::container::request::size::duration;
use crate::container::{self, LOG_FILE, life};
use crate::context::Context;
use plan::time::{self, Timestamp};
use plan::{Error, Result};
use runtime::log::{self, Follow, ReadOptions, Record, Sink};
use runtime::relay::Stream;
use runtime::state;
use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::time::SystemTime;

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
    let options = ReadOptions {
        tail,
        since: args.since.as_deref().map(moment).transpose()?,
        until: args.until.as_deref().map(moment).transpose()?,
        follow: args.follow.then(|| Follow { is_alive: &mut is_alive, wake: process.as_ref().map(AsFd::as_fd) }),
    };
    let mut printer = Printer {
        stdout: BufWriter::with_capacity(64 << 10, io::stdout()),
        stderr: BufWriter::with_capacity(64 << 10, io::stderr()),
        timestamps: args.timestamps,
    };
    log::read(&ctx.container_dir(&record.id).join(LOG_FILE), options, &mut printer)?;
    Ok(0)
}

/// Each stream goes where the container sent it.
struct Printer {
    stdout: BufWriter<io::Stdout>,
    stderr: BufWriter<io::Stderr>,
    timestamps: bool,
}

impl Sink for Printer {
    fn record(&mut self, record: &Record<'_>) -> Result<ControlFlow<()>> {
        let out: &mut dyn Write = match record.stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        let time = match self.timestamps {
            true => time::parse(record.time).map_or_else(|| record.time.to_string(), time::format_fixed) + " ",
            false => String::new(),
        };
        Ok(or_break(out.write_all(time.as_bytes()).and_then(|()| out.write_all(record.log.as_bytes()))))
    }

    fn caught_up(&mut self) -> Result<ControlFlow<()>> {
        Ok(or_break(self.stdout.flush().and_then(|()| self.stderr.flush())))
    }
}

/// A reader that has gone needs no more lines.
fn or_break(written: io::Result<()>) -> ControlFlow<()> {
    match written {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    }
}

/// RFC 3339, a date, seconds since 1970, or how long ago: `42m`, `1h30m`.
///
/// # Errors
/// Docker's text for anything else.
pub fn moment(text: &str) -> Result<Timestamp> {
    let wrong = || {
        Error::invalid(format!(
            "invalid value for \"since\": failed to parse value as time or duration: {}",
            text.escape_debug()
        ))
        .with_hint("write a time (2026-11-24T05:00:00Z), seconds since 1970, or how long ago (42m)")
    };
    if let Some(ago) = duration(text) {
        return Ok(SystemTime::now().checked_sub(ago).ok_or_else(wrong)?.into());
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if let Ok(seconds) = whole.parse::<i64>() {
        let nanos = format!("{fraction:0<9}").get(..9).and_then(|n| n.parse().ok()).ok_or_else(wrong)?;
        return Ok(Timestamp { seconds, nanos });
    }
    [text.to_string(), format!("{text}Z"), format!("{text}:00Z"), format!("{text}T00:00:00Z")]
        .iter()
        .find_map(|t| time::parse(t))
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        assert_eq!(moment("1136214245").unwrap(), Timestamp { seconds: 1_136_214_245, nanos: 0 });
        assert_eq!(moment("1136214245.5").unwrap().nanos, 500_000_000);
        assert_eq!(moment("1970-01-01T00:00:01Z").unwrap().seconds, 1);
        assert_eq!(moment("1970-01-02").unwrap().seconds, 86_400);
        let ago = Timestamp::now().seconds - moment("10m").unwrap().seconds;
        assert!((599..=601).contains(&ago), "{ago}");
        for text in ["", "x", "10x", "2026-13-01", "m"] {
            assert!(moment(text).is_err(), "{text}");
        }
    }
}
