//! `rrun save`: images as an archive.

use crate::args::SaveArgs;
use crate::container::events;
use crate::context::Context;
use plan::{Error, Result, ResultExt};
use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::Path;

pub fn run(ctx: &Context, args: &SaveArgs) -> Result<i32> {
    let store = ctx.images()?;
    for (name, image) in args.images.iter().filter_map(|name| Some((name, store.find(name).ok()??))) {
        super::pull::matching(image, name, args.platform.as_deref())?;
    }
    let archive = |file: &File| {
        let mut out = BufWriter::with_capacity(256 << 10, file);
        images::archive::save(&store, &args.images, args.format, &mut out)?;
        out.flush().doing(|| "write the archive")
    };
    match &args.output {
        Some(path) => to_file(path, |out| archive(out))?,
        None if std::io::stdout().is_terminal() => {
            return Err(Error::invalid("cowardly refusing to save to a terminal")
                .with_hint("use the -o flag or redirect: rrun save -o FILE IMAGE"));
        }
        None => {
            let stdout = std::io::stdout().as_fd().try_clone_to_owned().doing(|| "duplicate standard output")?;
            archive(&File::from(stdout))?;
        }
    }
    for name in &args.images {
        if let Some(image) = store.find(name)? {
            events::image(ctx, "save", &image.id, &image.id, &image.config.labels);
        }
    }
    Ok(0)
}

/// Writes beside and renames, so that a failure leaves what was there. A pipe or device is written to.
///
/// # Errors
/// Of `write`, and of the file.
pub fn to_file(path: &Path, write: impl FnOnce(&File) -> Result<()>) -> Result<()> {
    let doing = || format!("write {}", path.display());
    if path.metadata().is_ok_and(|m| !m.is_file()) {
        return write(&File::options().write(true).open(path).doing(doing)?);
    }
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".tmp-{}", std::process::id()));
    let tmp = path.with_file_name(name);
    let out = File::create(&tmp).doing(doing)?;
    let written = write(&out).and_then(|()| std::fs::rename(&tmp, path).doing(doing));
    written.inspect_err(|_| drop(std::fs::remove_file(&tmp)))
}
