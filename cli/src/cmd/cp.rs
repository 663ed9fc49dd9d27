//! `rrun cp`: files between a container and the host, one as safe from the other as the archive between.

use crate::args::CpArgs;
use crate::container::tree::copy::{Arrival, End, Kind};
use crate::container::tree::{Held, Part};
use crate::container::{self, Record, events};
use crate::context::Context;
use crate::render::table::human_size;
use images::layer::extract;
use plan::{Error, Result, ResultExt};
use rustix::process::{getgid, getuid};
use std::io::{IsTerminal, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

/// One argument.
enum Side<'a> {
    Stdio,
    Host(&'a str),
    Container(&'a str, &'a str),
}

pub fn run(ctx: &Context, args: &CpArgs) -> Result<i32> {
    match (side(&args.source), side(&args.destination)) {
        (Side::Container(..), Side::Container(..)) => {
            Err(Error::invalid("copying between containers is not supported")
                .with_hint("copy to the host first: rrun cp A:PATH - | rrun cp - B:DIR"))
        }
        (Side::Container(name, path), to) => out_of(ctx, args, &container::find(ctx, name)?, path, &to),
        (from, Side::Container(name, path)) => into(ctx, args, &container::find(ctx, name)?, &from, path),
        _ => Err(Error::invalid("must specify at least one container source")
            .with_hint("rrun cp CONTAINER:PATH HOSTPATH, or the other way round")),
    }
}

/// `CONTAINER:PATH`; what begins with `/` or `.` is a path of the host even with a colon in it.
fn side(arg: &str) -> Side<'_> {
    match arg.split_once(':') {
        _ if arg == "-" => Side::Stdio,
        Some((name, path)) if !arg.starts_with(['/', '.']) && !name.is_empty() => Side::Container(name, path),
        _ => Side::Host(arg),
    }
}

fn out_of(ctx: &Context, args: &CpArgs, record: &Record, path: &str, to: &Side<'_>) -> Result<i32> {
    let held = Held::of(ctx, record)?;
    let name = record.name.as_str();
    let base = base_of(path);
    let (to, arrival) = match to {
        Side::Host(to) => {
            let kind =
                held.work(Part::Whole, |root| End::Container { root, name }.look(path, args.follow_link))?.join()?;
            (*to, Some(End::Host.arrival(to, Some((kind, &base)))?))
        }
        _ if std::io::stdout().is_terminal() => {
            return Err(Error::invalid("cowardly refusing to write an archive to a terminal")
                .with_hint("redirect it: rrun cp CONTAINER:PATH - > FILE.tar"));
        }
        _ => ("", None),
    };
    let entry = arrival.as_ref().map_or(base.as_bytes(), |a| &a.name).to_vec();
    let (mut ours, theirs) = UnixStream::pair().doing(|| "create a socket pair")?;
    let child = held.work(Part::Whole, move |root| {
        let end = End::Container { root, name };
        let packed = end.pack(path, args.follow_link, &entry, std::io::BufWriter::with_capacity(256 << 10, &theirs));
        let _ = theirs.shutdown(Shutdown::Write);
        packed
    })?;
    let unpacked = match &arrival {
        Some(arrival) => {
            let owner = (!args.archive).then(|| (getuid().as_raw(), getgid().as_raw()));
            End::Host.seat(arrival).and_then(|dir| extract(&mut ours, dir, owner)).map(|_| ())
        }
        None => std::io::copy(&mut ours, &mut std::io::stdout().lock()).map(|_| ()).doing(|| "write the archive"),
    };
    // Nobody reads any more: the child's next write ends it.
    drop(ours);
    let bytes = told(child.join(), unpacked)?;
    events::container(ctx, record, "archive-path", &[]);
    done(args, bytes, if arrival.is_some() { to } else { "-" });
    Ok(0)
}

fn into(ctx: &Context, args: &CpArgs, record: &Record, from: &Side<'_>, path: &str) -> Result<i32> {
    let held = Held::of(ctx, record)?;
    let name = record.name.as_str();
    let source: Option<(Kind, String)> = match from {
        Side::Host(from) => Some((End::Host.look(from, args.follow_link)?, base_of(from))),
        _ => None,
    };
    let wanted = source.as_ref().map(|(kind, base)| (*kind, base.as_str()));
    let arrival: Arrival =
        held.work(Part::Whole, |root| End::Container { root, name }.arrival(path, wanted))?.join()?;
    let (ours, mut theirs) = UnixStream::pair().doing(|| "create a socket pair")?;
    let owner = (!args.archive && source.is_some()).then_some((0, 0));
    let place = arrival.clone();
    let child = held.work(Part::Whole, move |root| {
        let dir = End::Container { root, name }.seat(&place)?;
        extract(&mut theirs, dir, owner).map(|_| ()).map_err(read_only)
    })?;
    let sent = match from {
        Side::Host(from) => {
            let out = std::io::BufWriter::with_capacity(256 << 10, &ours);
            End::Host.pack(from, args.follow_link, &arrival.name, out)
        }
        _ => unpacked_stdin(&ours),
    };
    let _ = ours.shutdown(Shutdown::Write);
    let bytes = told(sent, child.join())?;
    events::container(ctx, record, "extract-to-dir", &[]);
    done(args, bytes, &format!("{name}:{path}"));
    Ok(0)
}

/// The archive on standard input, whatever it is compressed with.
fn unpacked_stdin(mut to: &UnixStream) -> Result<u64> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        return Err(Error::invalid("no archive on standard input").with_hint("… | rrun cp - CONTAINER:DIR"));
    }
    let mut reader = images::archive::decompress(std::io::BufReader::with_capacity(256 << 10, stdin.lock()))?;
    let mut buffer = vec![0u8; 256 << 10];
    let mut bytes = 0;
    loop {
        match reader.read(&mut buffer).doing(|| "read standard input")? {
            0 => return Ok(bytes),
            n => {
                to.write_all(&buffer[..n]).doing(|| "hand the archive on")?;
                bytes += n as u64;
            }
        }
    }
}

/// Of two ends that fail, the one that fails because the other has gone is not worth telling.
fn told<T>(packed: Result<T>, unpacked: Result<()>) -> Result<T> {
    match (packed, unpacked) {
        (Err(e), Err(cause)) if e.errno == Some(libc::EPIPE) => Err(cause),
        (Err(e), _) | (Ok(_), Err(e)) => Err(e),
        (Ok(value), Ok(())) => Ok(value),
    }
}

fn read_only(e: Error) -> Error {
    match e.errno {
        Some(libc::EROFS) => {
            e.context("container rootfs or volume is marked read-only").with_hint("copy to a writable place")
        }
        _ => e,
    }
}

fn base_of(path: &str) -> String {
    let name = std::path::Path::new(path).file_name();
    name.map_or_else(String::new, |n| n.to_string_lossy().into_owned())
}

fn done(args: &CpArgs, bytes: u64, to: &str) {
    if !args.quiet && std::io::stderr().is_terminal() {
        super::tell(&format!("Successfully copied {} to {to}\n", human_size(bytes)));
    }
}
