//! The pipes between a container and its monitor, and how another monitor finds them again.

use crate::relay::Ends;
use plan::{Result, ResultExt};
use rustix::fs::{FileType, Mode, OFlags};
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

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

/// What tells a container's output pipes from all others: their inode numbers. Recorded in its state,
/// so that its output is not lost with its monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    stdout: u64,
    stderr: u64,
}

impl Marks {
    /// `None` for a terminal: it hangs up when its monitor dies, and so does most of what runs in it.
    pub fn of(ends: &Ends) -> Result<Option<Marks>> {
        let Ends::Pipes { stdout, stderr, .. } = ends else { return Ok(None) };
        let inode = |fd: &OwnedFd| rustix::fs::fstat(fd).map(|s| s.st_ino).doing(|| "look at a pipe");
        Ok(Some(Marks { stdout: inode(stdout)?, stderr: inode(stderr)? }))
    }
}

/// The monitor's ends of the pipes of process `pid`, whose monitor was killed. What the process has
/// closed or passed on is at its end; its stdin was at its end when the monitor died.
pub fn reclaim(pid: i32, marks: Marks) -> Result<Ends> {
    let (stdout, stderr) = (reclaim_pipe(pid, marks.stdout)?, reclaim_pipe(pid, marks.stderr)?);
    Ok(Ends::Pipes { stdin: None, stdout, stderr })
}

fn reclaim_pipe(pid: i32, inode: u64) -> Result<OwnedFd> {
    let directory = format!("/proc/{pid}/fd");
    let entries = std::fs::read_dir(&directory).doing(|| format!("read {directory}"))?;
    for entry in entries.flatten() {
        // What the container has there may be anything. O_PATH opens nothing yet; only the very pipe
        // that we made is then opened through it, whatever the name means by now.
        let Ok(place) = rustix::fs::open(entry.path(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) else { continue };
        if !is_pipe(&place, inode) {
            continue;
        }
        let path = format!("/proc/self/fd/{}", place.as_raw_fd());
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        return rustix::fs::open(path, flags, Mode::empty())
            .doing(|| format!("open the output of process {pid} again"));
    }
    // Reads as an end.
    rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).doing(|| "open /dev/null")
}

fn is_pipe(fd: impl AsFd, inode: u64) -> bool {
    const PIPEFS_MAGIC: u64 = 0x5049_5045;
    let fd = fd.as_fd();
    let same =
        rustix::fs::fstat(fd).is_ok_and(|s| s.st_ino == inode && FileType::from_raw_mode(s.st_mode) == FileType::Fifo);
    same && rustix::fs::fstatfs(fd).is_ok_and(|s| s.f_type.cast_unsigned() == PIPEFS_MAGIC)
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

    #[test]
    fn another_monitor_finds_the_output_again() {
        let Pipes { stdin, stdout, stderr, ends } = pipes(true).unwrap();
        let marks = Marks::of(&ends).unwrap().unwrap();
        let script = "echo before; read x; echo after >&2; exec 1>&-; sleep 60";
        let mut command = std::process::Command::new("sh");
        let mut child = command.args(["-c", script]).stdin(stdin).stdout(stdout).stderr(stderr).spawn().unwrap();
        drop(command);
        // The monitor dies; its ends are closed. (That of stdin a little later, to hold the shell up.)
        let Ends::Pipes { stdin: Some(input), stdout, stderr } = ends else { panic!("stdin was asked for") };
        drop((stdout, stderr));
        let pid = child.id().cast_signed();
        let Ends::Pipes { stdin: None, stdout, stderr } = reclaim(pid, marks).unwrap() else { panic!("pipes it had") };
        drop(input);
        let read = |fd: OwnedFd, expected: &str| {
            let port = crate::relay::Port::own(fd).unwrap();
            let mut queue = crate::relay::Queue::default();
            loop {
                // The end may come with the last bytes.
                let flow = queue.fill(&port).unwrap();
                if queue.as_slice() == expected.as_bytes() {
                    break;
                }
                assert_ne!(flow, crate::relay::Flow::End);
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            port
        };
        let out = read(stdout, "before\n");
        read(stderr, "after\n");
        while crate::relay::Queue::default().fill(&out).unwrap() != crate::relay::Flow::End {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        // What it has closed is found nowhere any more.
        let Ends::Pipes { stdout, .. } = reclaim(pid, marks).unwrap() else { panic!("pipes it had") };
        assert_eq!(File::from(stdout).read(&mut [0; 8]).unwrap(), 0);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
