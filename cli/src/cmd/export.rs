//! `rrun export`: a container's root file system as a tar archive.

use crate::args::ExportArgs;
use crate::container::tree::{Held, Part};
use crate::container::{self, events};
use crate::context::Context;
use images::layer::Packer;
use plan::{Error, Result, ResultExt};
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::os::fd::{AsFd, BorrowedFd};

pub fn run(ctx: &Context, args: &ExportArgs) -> Result<i32> {
    let record = container::find(ctx, &args.container)?;
    let held = Held::of(ctx, &record)?;
    match &args.output {
        Some(path) => super::save::to_file(path, |out| {
            // The child writes to the very file: nothing passes through us.
            let out = out.as_fd().try_clone_to_owned().doing(|| "duplicate a descriptor")?;
            held.work(Part::Root, |root| pack(root, File::from(out)))?.join()
        })?,
        None if std::io::stdout().is_terminal() => {
            return Err(Error::invalid("cowardly refusing to save to a terminal")
                .with_hint("use the -o flag or redirect: rrun export -o FILE CONTAINER"));
        }
        None => held.work(Part::Root, |root| pack(root, std::io::stdout().lock()))?.join()?,
    }
    events::container(ctx, &record, "export", &[]);
    Ok(0)
}

fn pack(root: BorrowedFd<'_>, out: impl Write) -> Result<()> {
    let dir = rustix::fs::openat(root, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .doing(|| "open the container's root")?;
    let mut packer = Packer::new(BufWriter::with_capacity(256 << 10, out));
    packer.directory(dir.as_fd(), b"", false)?;
    packer.finish()?.flush().doing(|| "write the archive")
}
