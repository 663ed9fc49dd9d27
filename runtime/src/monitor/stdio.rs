//! The pipes between a container and its monitor.

use crate::relay::Ends;
use plan::{Result, ResultExt};
use rustix::fs::{Mode, OFlags};
use std::os::fd::{AsRawFd, OwnedFd};

/// Both sides of a container's standard streams.
pub struct Pipes {
    pub stdin: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
    /// The monitor's ends.
    pub ends: Ends,
}

/// Makes them. Without `stdin` the container reads from /dev/null.
///
/// The container's output ends are open for reading as well, so that the pipe has a reader even when
/// the monitor has been killed: the container then waits once the pipe is full, instead of dying of
/// SIGPIPE at its next word. The end of the output is seen all the same, when the container's side is
/// closed altogether.
pub fn pipes(stdin: bool) -> Result<Pipes> {
    let (stdin, input) = if stdin {
        let (read, write) = std::io::pipe().doing(|| "make a pipe for stdin")?;
        (read.into(), Some(write.into()))
    } else {
        let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        (null.doing(|| "open /dev/null")?, None)
    };
    let (output, stdout) = output("stdout")?;
    let (errors, stderr) = self::output("stderr")?;
    Ok(Pipes { stdin, stdout, stderr, ends: Ends::Pipes { stdin: input, stdout: output, stderr: errors } })
}

fn output(name: &str) -> Result<(OwnedFd, OwnedFd)> {
    let (read, write) = std::io::pipe().doing(|| format!("make a pipe for {name}"))?;
    let path = format!("/proc/self/fd/{}", write.as_raw_fd());
    // Without /proc the plain end does, only less robustly.
    let both = rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).unwrap_or_else(|_| write.into());
    Ok((read.into(), both))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Write};

    #[test]
    fn output_outlives_its_reader_and_still_ends() {
        let pipes = pipes(false).unwrap();
        let Ends::Pipes { stdin: None, stdout, stderr } = pipes.ends else { panic!("no stdin was asked for") };
        drop(stdout);
        File::from(pipes.stdout).write_all(b"nobody reads this, and it is no error").unwrap();
        let mut writer = File::from(pipes.stderr);
        writer.write_all(b"x").unwrap();
        drop(writer);
        let mut text = String::new();
        File::from(stderr).read_to_string(&mut text).unwrap();
        assert_eq!(text, "x");
        assert_eq!(File::from(pipes.stdin).read(&mut [0; 8]).unwrap(), 0);
    }
}
