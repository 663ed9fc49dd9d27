//! Standard input, output and error: pipes, or a terminal of the container's own.

use super::{Stdio, open_here};
use crate::rootfs::tree::{DEVPTS_MAGIC, Kind, Tree};
use crate::sys::fdpass;
use plan::{Error, Result};
use rustix::fs::{FileType, OFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

fn failed(what: &str, e: Errno) -> Error {
    Error::os(what, e.raw_os_error())
}

/// The three pipes become descriptors 0, 1 and 2.
pub(super) fn connect(stdio: &Stdio) -> Result<()> {
    let Stdio::Pipes([input, output, error]) = stdio else {
        return Err(Error::system("a terminal was set up where pipes were planned"));
    };
    // One that already is 0, 1 or 2 would be overwritten while the others are put in place.
    let clear = |fd| rustix::io::fcntl_dupfd_cloexec(fd, 3);
    let connected = clear(input).and_then(|i| standard(&i, &clear(output)?, &clear(error)?));
    connected.map_err(|e| failed("connect the pipes", e))
}

/// dup2 onto the standard descriptors, which stay open at exec.
fn standard(input: &OwnedFd, output: &OwnedFd, error: &OwnedFd) -> rustix::io::Result<()> {
    rustix::stdio::dup2_stdin(input)?;
    rustix::stdio::dup2_stdout(output)?;
    rustix::stdio::dup2_stderr(error)
}

/// Opens a terminal in the container's own devpts, makes it the session's controlling terminal and
/// standard streams, shows it as /dev/console, and hands the other end to the monitor.
pub(super) fn open_console(stdio: &Stdio, size: Option<(u16, u16)>, console: bool) -> Result<OwnedFd> {
    let Stdio::Terminal(socket) = stdio else {
        return Err(Error::system("pipes were set up where a terminal was planned"));
    };
    let master = open_master()?;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
        .map_err(|e| failed("open the terminal", e))?;
    if let Some((rows, columns)) = size {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&slave, size).map_err(|e| failed("size the terminal", e))?;
    }
    if console {
        show_as_console(&slave).map_err(|e| failed("bind the terminal to /dev/console", e))?;
    }
    rustix::process::ioctl_tiocsctty(&slave).map_err(|e| failed("make it the controlling terminal", e))?;
    standard(&slave, &slave, &slave).map_err(|e| failed("connect the terminal", e))?;
    fdpass::send(socket, b"t", &[master.as_fd()]).map_err(|e| failed("hand the terminal to the monitor", e))?;
    Ok(slave)
}

/// The peer of a ptmx opened by path is only trusted if the path led to a devpts; and TIOCGPTPEER
/// opens that peer without another path (CVE-2025-52565).
fn open_master() -> Result<OwnedFd> {
    let what = "open /dev/pts/ptmx";
    let hint = "a terminal takes a devpts on /dev/pts";
    let master = open_here(Path::new("/dev/pts/ptmx"), OFlags::RDWR | OFlags::NOCTTY)
        .map_err(|e| failed(what, e).with_hint(hint))?;
    let found = rustix::fs::fstatfs(&master).map_err(|e| failed(what, e))?;
    if found.f_type as u32 != DEVPTS_MAGIC {
        return Err(Error::system("/dev/pts in the container is not a devpts").with_hint(hint));
    }
    rustix::pty::unlockpt(&master).map_err(|e| failed(what, e))?;
    Ok(master)
}

fn show_as_console(slave: &OwnedFd) -> rustix::io::Result<()> {
    let root = open_here(Path::new("/"), OFlags::PATH | OFlags::DIRECTORY)?;
    let at = Tree::new(root).ensure(Path::new("/dev/console"), Kind::File)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let copy = open_tree(slave, c"", flags)?;
    move_mount(&copy, c"", &at, c"", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH)
}

/// Gives pipes and the terminal to the user, so that `/dev/stdout` can be opened again. Nothing else:
/// a device such as the host's /dev/null keeps its owner.
pub(super) fn give_to(uid: u32) -> Result<()> {
    if uid == 0 {
        return Ok(());
    }
    for fd in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        let what = "give the standard streams to the user";
        let stat = rustix::fs::fstat(fd).map_err(|e| failed(what, e))?;
        let ours = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Fifo | FileType::Socket => true,
            FileType::CharacterDevice => is_pty(fd),
            _ => false,
        };
        if ours {
            rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), None).map_err(|e| failed(what, e))?;
        }
    }
    Ok(())
}

fn is_pty(fd: BorrowedFd<'_>) -> bool {
    rustix::fs::fstatfs(fd).is_ok_and(|s| s.f_type as u32 == DEVPTS_MAGIC)
}
