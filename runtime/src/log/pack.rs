//! Rotated files, compressed: by a process of its own, so that the monitor's loop never waits for it.

use crate::sys::spawn;
use flate2::read::GzDecoder;
use flate2::{Compression, GzBuilder};
use plan::{Result, ResultExt};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, nice, waitpid};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Of the header's extra field, as RFC 1952 wants it named. Its value is the inode of the file that was
/// compressed: a reader who follows the log knows it by that.
const ORIGIN: [u8; 2] = *b"rr";

/// A file being compressed.
pub struct Packing {
    pid: Pid,
    /// What it is called now: it moves up with the others.
    pub number: u32,
}

impl Packing {
    /// Compresses `from` to `to`, which must not be there.
    pub fn begin(from: &Path, to: &Path, number: u32) -> Result<Packing> {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
        let words = || format!("compress {}", from.display());
        let source = OpenOptions::new().read(true).custom_flags(flags).open(from).doing(words)?;
        // A new one: whoever was killed at this may still write to the old.
        let target = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).doing(words)?;
        let keep = [source.as_raw_fd(), target.as_raw_fd()];
        let pid = spawn::detached(None, &keep, move || {
            // Whoever needs the processor or memory comes first.
            let _ = nice(15);
            let _ = std::fs::write("/proc/self/oom_score_adj", "500");
            i32::from(compress(source, target).is_err())
        })?;
        let pid = Pid::from_raw(pid).ok_or_else(|| plan::Error::os(words(), libc::ESRCH))?;
        Ok(Packing { pid, number })
    }

    pub fn is(&self, pid: i32) -> bool {
        self.pid.as_raw_nonzero().get() == pid
    }

    /// It is our child and not yet waited for, so the number is nobody else's.
    pub fn abandon(self) {
        let _ = kill_process(self.pid, Signal::KILL);
        let _ = rustix::io::retry_on_intr(|| waitpid(Some(self.pid), WaitOptions::empty()));
    }
}

pub(super) fn compress(mut from: File, to: File) -> io::Result<()> {
    let mut extra = ORIGIN.to_vec();
    extra.extend(8u16.to_le_bytes());
    extra.extend(from.metadata()?.ino().to_le_bytes());
    let mut encoder = GzBuilder::new().extra(extra).write(to, Compression::default());
    io::copy(&mut from, &mut encoder)?;
    encoder.finish().map(drop)
}

/// The inode that its header tells of.
pub(super) fn origin(decoder: &GzDecoder<File>) -> Option<u64> {
    let extra = decoder.header()?.extra()?;
    let value = extra.strip_prefix(&ORIGIN)?.get(2..10)?;
    Some(u64::from_le_bytes(value.try_into().ok()?))
}
