//! Terminals: raw mode that is always given back, and window sizes.

use plan::{Result, ResultExt};
use rustix::termios::{OptionalActions, Termios, Winsize, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};
use std::os::fd::{AsFd, OwnedFd};

/// Whether `fd` is a terminal.
pub fn is_tty(fd: impl AsFd) -> bool {
    rustix::termios::isatty(fd)
}

/// (rows, columns); `None` when `fd` is no terminal or does not know its size (both 0, as on a
/// serial line).
pub fn size(fd: impl AsFd) -> Option<(u16, u16)> {
    let w = tcgetwinsize(fd).ok()?;
    (w.ws_row != 0 || w.ws_col != 0).then_some((w.ws_row, w.ws_col))
}

/// Sets the size; the kernel tells the terminal's foreground processes by SIGWINCH.
pub fn set_size(fd: impl AsFd, (rows, columns): (u16, u16)) -> Result<()> {
    let w = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(fd, w).doing(|| "set the terminal's size")
}

/// A terminal in raw mode: every key reaches the container, Ctrl-C included. Dropping it gives the
/// terminal back as it was.
pub struct RawMode {
    terminal: OwnedFd,
    before: Termios,
}

impl RawMode {
    /// `fd` is duplicated, so that the mode can be given back whatever became of the original.
    pub fn enter(fd: impl AsFd) -> Result<RawMode> {
        let terminal = fd.as_fd().try_clone_to_owned().doing(|| "duplicate the terminal")?;
        let before = tcgetattr(&terminal).doing(|| "read the terminal's mode")?;
        let raw = RawMode { terminal, before };
        raw.resume()?;
        Ok(raw)
    }

    /// Gives the terminal back for a while (the process is about to be stopped).
    pub fn suspend(&self) {
        // Nothing to be done where it fails: the terminal is gone.
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }

    /// Raw again.
    pub fn resume(&self) -> Result<()> {
        let mut raw = self.before.clone();
        raw.make_raw();
        tcsetattr(&self.terminal, OptionalActions::Now, &raw).doing(|| "put the terminal into raw mode")
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        self.suspend();
    }
}

/// A pair of pseudo-terminal ends (master, slave), close-on-exec, neither becoming the controlling
/// terminal of the caller. For tests here; the container's own pair is made inside it.
#[cfg(test)]
pub(crate) fn pair() -> (OwnedFd, OwnedFd) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
    let slave = rustix::fs::open(name.as_c_str(), flags, rustix::fs::Mode::empty()).unwrap();
    (master, slave)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::termios::LocalModes;

    #[test]
    fn raw_mode_is_given_back() {
        let (_master, slave) = pair();
        let modes = || tcgetattr(&slave).unwrap().local_modes;
        assert!(modes().contains(LocalModes::ECHO | LocalModes::ISIG));
        let raw = RawMode::enter(&slave).unwrap();
        assert!(!modes().intersects(LocalModes::ECHO | LocalModes::ISIG | LocalModes::ICANON));
        raw.suspend();
        assert!(modes().contains(LocalModes::ECHO));
        raw.resume().unwrap();
        drop(raw);
        assert!(modes().contains(LocalModes::ECHO | LocalModes::ISIG));
    }

    #[test]
    fn sizes_pass_through_and_files_have_none() {
        let (master, slave) = pair();
        assert_eq!(size(&slave), None);
        set_size(&master, (24, 80)).unwrap();
        assert_eq!(size(&slave), Some((24, 80)));
        assert!(is_tty(&slave));
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(!is_tty(&file));
        assert_eq!(size(&file), None);
        assert!(RawMode::enter(&file).is_err());
    }
}
