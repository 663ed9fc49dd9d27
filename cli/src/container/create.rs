//! Making a container: everything is checked, then written, then published by its name.

use super::lock::Lock;
use super::record::{self, Record};
use super::request::{self, Request, security};
use super::{events, file, links, names, spec, workers};
use crate::args::CreateFlags;
use crate::cmd::pull;
use crate::context::Context;
use images::config::Config as ImageConfig;
use plan::{Error, Result, ResultExt};
use rustix::fs::{Mode, OFlags};
use std::os::fd::AsFd;
use std::path::PathBuf;

/// A container that is made and still locked, so that nobody starts or removes it in between.
pub struct Created {
    pub record: Record,
    pub lock: Lock,
    pub warnings: Vec<String>,
}

/// `rrun create`, and the first half of `rrun run`.
///
/// # Errors
/// Of the flags, the image, the network; nothing is left behind.
pub fn create(ctx: &Context, flags: &CreateFlags, attached: bool) -> Result<Created> {
    if let Some(name) = &flags.name {
        names::check(name.strip_prefix('/').unwrap_or(name))?;
    }
    if let Some(file) = &flags.cidfile
        && file.exists()
    {
        return Err(Error::conflict(format!(
            "container ID file found, make sure the other container isn't running or delete {}",
            file.display()
        ))
        .with_hint(format!("rm {}", file.display())));
    }
    // A pull may take minutes: flags that cannot mean anything are refused ahead of it, beside an image
    // that asks for nothing.
    let image = pull::ensure(ctx, flags, || {
        let nothing = ImageConfig { cmd: Some(vec!["true".into()]), ..ImageConfig::default() };
        draft(ctx, flags, "", &nothing, Vec::new()).map(drop)
    })?;
    let (_, layers) = ctx.images()?.lower(&image);
    let Request { mut record, warnings } = draft(ctx, flags, &image.id, &image.config, layers)?;
    record.config.attached = attached;
    let lock = write(ctx, &mut record, flags.name.is_some())?;
    if let Some(file) = &flags.cidfile {
        std::fs::write(file, &record.id).doing(|| format!("write {}", file.display())).inspect_err(|_| {
            // The container is ours alone so far; the error at hand is the one that matters.
            let _ = super::remove::discard(ctx, &record);
        })?;
    }
    events::container(ctx, &record, "create", &[]);
    Ok(Created { record, lock, warnings })
}

/// Decides the record; writes nothing.
///
/// # Errors
/// Of the flags, and of networks, containers and devices they name.
pub fn draft(
    ctx: &Context,
    flags: &CreateFlags,
    image_id: &str,
    image: &ImageConfig,
    layers: Vec<PathBuf>,
) -> Result<Request> {
    let name = match &flags.name {
        Some(name) => name.strip_prefix('/').unwrap_or(name).to_string(),
        None => names::random_name(0)?,
    };
    let mut request = request::decide(ctx, flags, names::new_id()?, name, image_id, image)?;
    request.record.layers = layers;
    resolve(ctx, &mut request.record)?;
    for device in &request.record.host.devices {
        security::nodes(device)?;
    }
    Ok(request)
}

/// Replaces what the user wrote about networks and containers by names and IDs that last.
fn resolve(ctx: &Context, record: &mut Record) -> Result<()> {
    for mode in [&mut record.host.ipc_mode, &mut record.host.pid_mode] {
        if let Some(target) = mode.strip_prefix("container:") {
            *mode = format!("container:{}", super::find_id(ctx, target)?);
        }
    }
    if let Some(target) = record.joined_container() {
        record.host.network_mode = format!("container:{}", super::find_id(ctx, target)?);
        return Ok(());
    }
    let netstack = ctx.netstack();
    for endpoint in &mut record.networks {
        if endpoint.network != "bridge" {
            endpoint.network = netstack.joinable(&endpoint.network)?.name;
        }
    }
    links::check_there(ctx, record)?;
    if let Some(first) = record.networks.first() {
        record.host.network_mode.clone_from(&first.network);
    }
    Ok(())
}

/// Writes the container's directory and claims its name, which is what makes it exist.
fn write(ctx: &Context, record: &mut Record, named: bool) -> Result<Lock> {
    workers::enter(ctx, &record.id)?;
    let made = mkdir(ctx, record).and_then(|lock| {
        claim(ctx, record, &lock, named)?;
        Ok(lock)
    });
    if made.is_err() {
        // A directory without a name is invisible, and swept up later should this fail too.
        let _ = std::fs::remove_dir_all(ctx.container_dir(&record.id));
    }
    workers::leave(ctx);
    made
}

fn mkdir(ctx: &Context, record: &Record) -> Result<Lock> {
    let containers = ctx.containers();
    let parent = match file::open_dir(&containers) {
        Err(e) if e.errno == Some(libc::ENOENT) => {
            super::make_private_dir(&containers)?;
            file::open_dir(&containers)?
        }
        opened => opened?,
    };
    rustix::fs::mkdirat(&parent, record.id.as_str(), names::PRIVATE)
        .doing(|| format!("create {}", containers.join(&record.id).display()))?;
    fill(parent, record)
}

fn fill(parent: impl AsFd, record: &Record) -> Result<Lock> {
    let id = record.id.as_str();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let dir = rustix::fs::openat(parent, id, flags, Mode::empty()).doing(|| format!("open container {id}"))?;
    let lock = Lock::of_new(dir)?;
    for name in ["upper", "work"] {
        rustix::fs::mkdirat(&lock, name, names::PRIVATE).doing(|| format!("create {name}"))?;
    }
    // The merged root shows the upper directory's own mode: the program need not be root.
    rustix::fs::chmodat(&lock, "upper", Mode::from_raw_mode(0o755), rustix::fs::AtFlags::empty())
        .doing(|| "chmod upper")?;
    // The bind mounts' sources must be there; what is in them is decided at each start.
    for (name, _) in spec::FILES {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        rustix::fs::openat(&lock, name, flags, Mode::from_raw_mode(0o644)).doing(|| format!("create {name}"))?;
    }
    file::create(&lock, record::FILE, record)?;
    Ok(lock)
}

/// A given name is taken or refused; a random one is drawn until it is free.
fn claim(ctx: &Context, record: &mut Record, lock: &Lock, named: bool) -> Result<()> {
    for attempt in 1.. {
        match names::claim(ctx, &record.name, &record.id) {
            Err(e) if e.kind == plan::Kind::Conflict && !named && attempt < 64 => {
                record.name = names::random_name(attempt)?;
                file::create(lock, record::FILE, record)?;
            }
            done => return done,
        }
    }
    unreachable!("the loop ends by its own count")
}
