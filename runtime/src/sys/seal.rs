//! Running from an executable that a container cannot overwrite (CVE-2019-5736).
//!
//! A process that joins or becomes a container is visible there as `/proc/<pid>/exe`. Root in the
//! container can open that link (an image whose program is `/proc/self/exe` makes it easy), wait until
//! the process is gone and the file no longer busy, and write: the next `rrun` on the host would be
//! theirs. So whatever goes near a container runs from a file that cannot be written that way.
//!
//! Others execute themselves once more for it, which here cost 1 ms of a 9 ms start. We stay, and have the
//! kernel look at the same bytes through another door: the program's mappings are replaced by ones of
//! the protected file, and that is named as our executable. The kernel agrees only if nothing of
//! the old one is mapped any more.

use super::memory::{Program, program};
use super::mount::{Change, setattr};
use plan::{Error, Result};
use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;
use std::ffi::{CString, c_void};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};

const EXE: &str = "/proc/self/exe";

/// From here on this process, and every process that it forks, runs from a protected file. `title`
/// is what `ps` shows of it.
///
/// To be called with a single thread: it works on the ground that all of them stand on.
///
/// # Errors
/// The kernel offers no way. The process is as good as before.
pub fn protect(title: Option<CString>) -> Result<()> {
    let door = protected_file().map_err(|e| e.with_hint("rrun needs open_tree(2) or memfd_create(2), and /proc"))?;
    let path = format!("/proc/self/fd/{}", door.as_raw_fd());
    let refused = |e: Errno| {
        Error::os("run from the protected rrun executable", e.raw_os_error())
            .with_hint("it takes CAP_SYS_ADMIN and CONFIG_CHECKPOINT_RESTORE, or CAP_SYS_RESOURCE")
    };
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(refused)?;
    stand_on(file.as_fd()).map_err(refused)?;
    be_known_as(file.as_fd(), title).map_err(refused)?;
    // Stays open as long as we live: closing it takes the mount down, and waits for a grace period.
    let _ = door.into_raw_fd();
    Ok(())
}

/// First choice: a detached, read-only mount of just that file: no copy, no memory, and not
/// reachable from any mount namespace, so not remountable either. Where the kernel or a filter
/// refuses that: a sealed copy in memory.
fn protected_file() -> Result<OwnedFd> {
    readonly_mount()
        .or_else(|_| sealed_copy())
        .map_err(|e| Error::io("make a protected copy of the rrun executable", &e))
}

fn readonly_mount() -> rustix::io::Result<OwnedFd> {
    let fd = rustix::mount::open_tree(CWD, EXE, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    setattr(fd.as_fd(), false, Change::attributes(libc::MOUNT_ATTR_RDONLY, 0))?;
    Ok(fd)
}

fn sealed_copy() -> io::Result<OwnedFd> {
    let memory = rustix::fs::memfd_create("rrun", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut to = std::fs::File::from(memory);
    io::copy(&mut std::fs::File::open(EXE)?, &mut to)?;
    rustix::fs::fcntl_add_seals(&to, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(to.into())
}

/// Replaces each mapping of the program's file by one of `file`, which has the same bytes; what has
/// been written to, by anonymous memory with the same contents.
fn stand_on(file: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let Program { segments, relro } = program();
    for segment in segments.iter().filter(|s| s.length > 0) {
        let at = segment.begin as *mut c_void;
        if !segment.writable {
            let protection = if segment.executable { libc::PROT_READ | libc::PROT_EXEC } else { libc::PROT_READ };
            // SAFETY: the same bytes in the same place, with the same access: the segment is never
            // written to, and `file` is the file it was mapped from, or a copy. The kernel exchanges the
            // mappings while this, the only thread, is in it.
            let mapped = unsafe {
                libc::mmap(
                    at,
                    segment.length,
                    protection,
                    libc::MAP_PRIVATE | libc::MAP_FIXED,
                    file.as_raw_fd(),
                    segment.offset as libc::off_t,
                )
            };
            if mapped == libc::MAP_FAILED {
                return Err(super::errno());
            }
            continue;
        }
        // SAFETY: `copy` is fresh memory of that length; the segment is readable. Between the copy and
        // its taking the segment's place nothing is written there: no allocation, no other thread,
        // and errno is thread-local, which is elsewhere.
        let moved = unsafe {
            let copy = libc::mmap(
                std::ptr::null_mut(),
                segment.length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE,
                -1,
                0,
            );
            if copy == libc::MAP_FAILED {
                return Err(super::errno());
            }
            std::ptr::copy_nonoverlapping(at.cast_const().cast::<u8>(), copy.cast::<u8>(), segment.length);
            libc::mremap(copy, segment.length, segment.length, libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED, at)
        };
        if moved == libc::MAP_FAILED {
            return Err(super::errno());
        }
    }
    // The part that was made read-only after relocation is so again.
    // SAFETY: those pages held read-only data before, and nobody writes to them.
    if relro.length > 0 && unsafe { libc::mprotect(relro.begin as *mut c_void, relro.length, libc::PROT_READ) } != 0 {
        return Err(super::errno());
    }
    Ok(())
}

/// `struct prctl_mm_map` of linux/prctl.h.
#[repr(C)]
struct MemoryMap {
    /// start and end of code and data, start of brk, brk, start of stack, start and end of arguments
    /// and environment: fields of proc_pid_stat(5).
    bounds: [u64; 11],
    auxv: u64,
    auxv_size: u32,
    exe_fd: u32,
}

/// Makes `file` what `/proc/self/exe` leads to, and `title` what `/proc/self/cmdline` shows.
fn be_known_as(file: BorrowedFd<'_>, title: Option<CString>) -> rustix::io::Result<()> {
    let mut bounds = bounds().ok_or(Errno::INVAL)?;
    if let Some(title) = title {
        let length = title.as_bytes_with_nul().len();
        // For as long as we live: the kernel reads it there.
        let begin = title.into_raw() as u64;
        (bounds[7], bounds[8]) = (begin, begin + length as u64);
    }
    let map = MemoryMap { bounds, auxv: 0, auxv_size: 0, exe_fd: file.as_raw_fd().unsigned_abs() };
    // SAFETY: `map` is a valid prctl_mm_map of the size given, only read; its bounds are those in
    // force, but for the arguments, which are memory of ours that stays.
    let done = unsafe { libc::prctl(libc::PR_SET_MM, libc::PR_SET_MM_MAP, &raw const map, size_of::<MemoryMap>(), 0) };
    if done == 0 {
        return Ok(());
    }
    // Kernels without CONFIG_CHECKPOINT_RESTORE know only this, for which they want another capability.
    // SAFETY: prctl with plain integers.
    match unsafe { libc::prctl(libc::PR_SET_MM, libc::PR_SET_MM_EXE_FILE, file.as_raw_fd(), 0, 0) } {
        0 => Ok(()),
        _ => Err(super::errno()),
    }
}

/// The bounds in force, in the order of [`MemoryMap`].
fn bounds() -> Option<[u64; 11]> {
    let stat = crate::procfs::text("/proc/self/stat").ok()?;
    // Field 2, the name, is in parentheses and may contain anything; field 3 follows.
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    // SAFETY: sbrk(0) only asks where the heap ends.
    let brk = unsafe { libc::sbrk(0) } as u64;
    Some([
        field(26)?,
        field(27)?,
        field(45)?,
        field(46)?,
        field(47)?,
        brk,
        field(28)?,
        field(48)?,
        field(49)?,
        field(50)?,
        field(51)?,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process::clone3;
    use crate::sys::spawn::exit_now;
    use rustix::process::{WaitId, WaitIdOptions, waitid};

    static mut WRITTEN: u64 = 1;

    /// Names of the files that this process has mapped.
    fn mapped() -> Vec<String> {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().filter_map(|l| Some(l.split_once('/')?.1.to_string())).collect()
    }

    #[test]
    fn a_program_goes_on_from_a_sealed_copy_of_itself() {
        let exe = std::fs::read_link(EXE).unwrap().display().to_string();
        let (_, pidfd) = clone3(0, None, || {
            // SAFETY: a copy of the test process, with one thread.
            unsafe { (&raw mut WRITTEN).write_volatile(7) };
            let copy = sealed_copy().unwrap();
            let write = rustix::io::write(&copy, b"x");
            stand_on(copy.as_fd()).unwrap();
            // Allocates, formats, calls into other segments, and finds its data as it was.
            let ours = mapped().iter().any(|m| exe.ends_with(m.as_str()));
            let there = mapped().iter().any(|m| m.starts_with("memfd:rrun"));
            // SAFETY: as above.
            let kept = unsafe { (&raw const WRITTEN).read_volatile() } == 7;
            let fine = write == Err(Errno::PERM) && !ours && there && kept;
            exit_now(if fine { 42 } else { 1 })
        })
        .unwrap();
        let status = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).unwrap().unwrap();
        assert_eq!((status.exit_status(), status.terminating_signal()), (Some(42), None));
    }
}
