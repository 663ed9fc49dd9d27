//! `rrun diff`: what a container changed of its image.

use crate::args::DiffArgs;
use crate::container;
use crate::container::spec;
use crate::container::tree::{Held, Part};
use crate::context::Context;
use plan::{Error, Result, ResultExt};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

pub fn run(ctx: &Context, args: &DiffArgs) -> Result<i32> {
    let record = container::find(ctx, &args.container)?;
    let held = Held::of(ctx, &record)?;
    let upper = held.upper();
    let made = spec::FILES.iter().filter(|(name, _)| !record.host.image_files.iter().any(|own| own == name));
    let made: Vec<&Path> = made.map(|(_, path)| Path::new(*path)).collect();
    let changes: Vec<(char, PathBuf)> = held
        .work(Part::Image, |image| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let upper = rustix::fs::openat(CWD, &upper, flags, Mode::empty()).doing(|| "open the changes")?;
            let mut changes = Vec::new();
            below(upper.as_fd(), Some(image), Path::new("/"), &made, &mut changes)?;
            Ok(changes)
        })?
        .join()?;
    let lines: String = changes.iter().map(|(kind, path)| format!("{kind} {}\n", path.display())).collect();
    super::out(&lines);
    Ok(0)
}

/// Both trees are walked hand in hand, by descriptors: a running container may move its own about.
/// `image`: the same directory there, if there is one. `made`: where the container's own files were mounted; that
/// the image had nothing there is no change, as with Docker. Whether such a place was found.
fn below(
    upper: BorrowedFd<'_>,
    image: Option<BorrowedFd<'_>>,
    at: &Path,
    made: &[&Path],
    changes: &mut Vec<(char, PathBuf)>,
) -> Result<bool> {
    if at.components().count() > 512 {
        return Err(Error::invalid("the container's directories lie too deep"));
    }
    let doing = || format!("read the changes in {}", at.display());
    let mut names = Vec::new();
    let mut found = false;
    for entry in Dir::read_from(upper).doing(doing)? {
        let name = entry.doing(doing)?.file_name().to_owned();
        if name.as_c_str() != c"." && name.as_c_str() != c".." {
            names.push(name);
        }
    }
    names.sort();
    for name in names {
        let path = at.join(OsStr::from_bytes(name.to_bytes()));
        let stat = match rustix::fs::statat(upper, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            other => other.doing(doing)?,
        };
        let before = image.map(|dir| rustix::fs::statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW));
        let before = before.and_then(|s| s.ok());
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::CharacterDevice && stat.st_rdev == 0 {
            changes.push(('D', path));
            continue;
        }
        if before.is_none() && kind == FileType::RegularFile && stat.st_size == 0 && made.contains(&path.as_path()) {
            found = true;
            continue;
        }
        changes.push((if before.is_some() { 'C' } else { 'A' }, path.clone()));
        if kind == FileType::Directory {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let dir = match rustix::fs::openat(upper, &name, flags, Mode::empty()) {
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                other => other.doing(doing)?,
            };
            let opaque = rustix::fs::fgetxattr(&dir, "trusted.overlay.opaque", &mut [0u8; 8]).is_ok();
            let was_directory = before.is_some_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Directory);
            let there = match image.filter(|_| was_directory) {
                Some(image) => rustix::fs::openat(image, &name, flags, Mode::empty()).ok(),
                None => None,
            };
            let listed = changes.len();
            if opaque && let Some(there) = &there {
                gone(there.as_fd(), dir.as_fd(), &path, changes)?;
            }
            let of = |s: &Stat| (s.st_mode, s.st_uid, s.st_gid);
            if below(dir.as_fd(), there.as_ref().map(AsFd::as_fd), &path, made, changes)?
                && changes.len() == listed
                && before.is_some_and(|before| of(&before) == of(&stat))
            {
                // It is there for that place alone.
                changes.pop();
            }
        }
    }
    Ok(found)
}

/// A directory that was removed and made anew: what the image had in it and it has not.
fn gone(image: BorrowedFd<'_>, upper: BorrowedFd<'_>, at: &Path, changes: &mut Vec<(char, PathBuf)>) -> Result<()> {
    for entry in Dir::read_from(image).doing(|| format!("read the image's {}", at.display()))? {
        let name = entry.doing(|| format!("read the image's {}", at.display()))?.file_name().to_owned();
        let dots = name.as_c_str() == c"." || name.as_c_str() == c"..";
        if !dots && rustix::fs::statat(upper, &name, AtFlags::SYMLINK_NOFOLLOW).is_err() {
            changes.push(('D', at.join(OsStr::from_bytes(name.to_bytes()))));
        }
    }
    Ok(())
}
