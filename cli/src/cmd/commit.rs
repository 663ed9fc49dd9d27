//! `rrun commit`: an image of a container's changes.

use crate::args::CommitArgs;
use crate::container::events::{self, Event};
use crate::container::tree::{Held, child};
use crate::container::{self, Record};
use crate::context::Context;
use images::archive::{CommitOptions, commit};
use images::config::Config;
use images::layer::Packer;
use images::reference::Reference;
use plan::{Error, Result, ResultExt};
use runtime::cgroup::{self, Layout};
use rustix::fs::{CWD, Mode, OFlags};
use std::io::{BufWriter, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

pub fn run(ctx: &Context, args: &CommitArgs) -> Result<i32> {
    let record = container::find(ctx, &args.container)?;
    let reference = args.name.as_deref().map(Reference::parse).transpose()?;
    let store = ctx.images()?;
    let parent = store.find(&record.image_id)?.ok_or_else(|| {
        Error::not_found(format!("the image {} of the container is not here any more", record.image))
            .with_hint(format!("rrun export {} | rrun import - keeps its files without the image", record.name))
    })?;
    let held = Held::of(ctx, &record)?;
    // Standing still while it is read, so that the layer is of one moment.
    let still = if args.no_pause || !args.pause || !held.is_live() { None } else { Still::begin(&record)? };
    let upper = held.upper();
    let (ours, theirs) = UnixStream::pair().doing(|| "create a socket pair")?;
    let packing = child::spawn(false, move || {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir =
            rustix::fs::openat(CWD, &upper, flags, Mode::empty()).doing(|| format!("open {}", upper.display()))?;
        let mut packer = Packer::of_layer(BufWriter::with_capacity(256 << 10, &theirs));
        packer.directory(dir.as_fd(), b"", false)?;
        packer.finish()?.flush().doing(|| "hand the layer on")
    })?;
    let options = CommitOptions {
        reference,
        author: args.author.clone().unwrap_or_default(),
        message: args.message.clone().unwrap_or_default(),
        changes: args.change.clone(),
        config: config_of(&record, parent.config.clone()),
        created_by: record.config.args().join(" "),
    };
    let image = commit(&store, &parent, &ours, &options);
    drop(ours);
    let packed = packing.join();
    drop(still);
    let image = match (packed, image) {
        (Err(e), Err(cause)) if e.errno == Some(libc::EPIPE) => Err(cause),
        (Err(e), _) => Err(e),
        (Ok(()), image) => image,
    }?;
    let told = [
        ("comment", options.message.clone()),
        ("imageID", image.id.clone()),
        ("imageRef", options.reference.as_ref().map_or_else(String::new, Reference::to_string)),
    ];
    let mut happened = vec![Event::container(&record, "commit", &told)];
    happened.extend(options.reference.map(|r| Event::image("tag", &image.id, &r.to_string(), &image.config.labels)));
    events::write(ctx, &happened);
    super::out(&format!("{}\n", image.id));
    Ok(0)
}

/// A container that goes on when this is dropped.
struct Still<'r>(&'r Record, Layout);

impl Still<'_> {
    /// `None`: it stands still already.
    fn begin(record: &Record) -> Result<Option<Still<'_>>> {
        let layout = Layout::observe()?;
        if cgroup::is_frozen(&record.cgroup_path(), &layout) {
            return Ok(None);
        }
        cgroup::freeze(&record.cgroup_path(), &layout)?;
        Ok(Some(Still(record, layout)))
    }
}

impl Drop for Still<'_> {
    fn drop(&mut self) {
        // `rrun unpause` is there should it fail.
        let _ = cgroup::thaw(&self.0.cgroup_path(), &self.1);
    }
}

/// What the container ran with becomes what containers of the image run with.
fn config_of(record: &Record, image: Config) -> Config {
    let c = &record.config;
    Config {
        user: c.user.clone(),
        exposed_ports: c.exposed_ports.clone(),
        env: c.env.clone(),
        entrypoint: c.entrypoint.clone(),
        cmd: c.cmd.clone(),
        volumes: c.volumes.clone(),
        working_dir: c.working_dir.clone(),
        labels: c.labels.clone(),
        stop_signal: c.stop_signal.clone(),
        healthcheck: c.healthcheck.clone(),
        stop_timeout: c.stop_timeout,
        ..image
    }
}
