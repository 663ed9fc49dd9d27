//! `rrun save`: images as an archive.

use crate::args::SaveArgs;
use crate::context::Context;
use plan::{Error, Result, ResultExt};
use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::Path;

pub fn run(ctx: &Context, args: &SaveArgs) -> Result<i32> {
    let store = ctx.images()?;
    match &args.output {
        Some(path) => to_file(path, |out| images::archive::save(&store, &args.images, args.format, out))?,
        None if std::io::stdout().is_terminal() => {
            return Err(Error::invalid("cowardly refusing to save to a terminal")
                .with_hint("use the -o flag or redirect: rrun save -o FILE IMAGE"));
        }
        None => {
            let mut out = BufWriter::with_capacity(256 << 10, std::io::stdout().lock());
            images::archive::save(&store, &args.images, args.format, &mut out)?;
            out.flush().doing(|| "write the archive to standard output")?;
        }
    }
    Ok(0)
}

/// Writes beside and renames, so that a failure leaves what was there. A pipe or device is written to.
fn to_file(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let doing = || format!("write {}", path.display());
    if path.metadata().is_ok_and(|m| !m.is_file()) {
        let mut out = File::options().write(true).open(path).doing(doing)?;
        return write(&mut out);
    }
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".tmp-{}", std::process::id()));
    let tmp = path.with_file_name(name);
    let mut out = BufWriter::with_capacity(256 << 10, File::create(&tmp).doing(doing)?);
    let written =
        write(&mut out).and_then(|()| out.flush().doing(doing)).and_then(|()| std::fs::rename(&tmp, path).doing(doing));
    written.inspect_err(|_| drop(std::fs::remove_file(&tmp)))
}
