//! What a process gives up before it becomes the container: identity, capabilities, system calls,
//! limits, file descriptors, keys.
//!
//! Everything here acts on the calling thread, by raw system calls: the C library's set*id and
//! setgroups signal all threads to follow (POSIX), which a fresh single-threaded child of clone3 has
//! no need of. Errors are plain errnos, so that the child can report (step, errno).
//!
//! The order that works (see [`assume`] for the middle part):
//! 1. keyring, rlimits, oom score, while still privileged;
//! 2. the seccomp filter, if `no_new_privileges` is off: installing it takes CAP_SYS_ADMIN;
//! 3. [`assume`]: bounding set, groups, gid, uid, capability sets;
//! 4. [`no_new_privileges`], then the seccomp filter if it is on (the filter comes last, so that it
//!    need not allow what the steps before it do);
//! 5. [`cloexec_from`], execve.

use std::io;

use rustix::process::{Gid, Resource, Rlimit, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::caps::{ALL, Masks};
use crate::user::Ids;

/// Becomes `ids` with exactly `caps`.
///
/// The bounding set goes first (it takes SETPCAP), then groups, gid and uid, then one capset.
/// Leaving uid 0 makes the kernel clear permitted and effective; where the wish is not empty (an OCI
/// spec may give capabilities to another user), `PR_SET_KEEPCAPS` carries permitted across. It is
/// cleared again: execve would do that too, but not before `user_namespaces(7)` games could use it.
pub fn assume(ids: &Ids, caps: &Masks) -> io::Result<()> {
    drop_bounding(caps.bounding)?;
    let keep = ids.uid != 0 && caps.permitted != 0;
    if keep {
        rustix::thread::set_keep_capabilities(true)?;
    }
    set_ids(ids)?;
    set_capabilities(caps)?;
    if keep {
        rustix::thread::set_keep_capabilities(false)?;
    }
    set_ambient(caps.ambient)
}

/// Drops from the bounding set everything the kernel knows that is not in `keep`. A capability of
/// the set that is already gone is no error; one that Linux got after this was written goes too.
pub fn drop_bounding(keep: u64) -> io::Result<()> {
    for n in 0..64u32 {
        if keep >> n & 1 == 1 {
            continue;
        }
        // SAFETY: prctl with plain integers; no memory is passed.
        let rc = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, n as libc::c_ulong, 0, 0, 0) };
        if rc != 0 {
            let e = io::Error::last_os_error();
            match e.raw_os_error() {
                // Past the last capability of this kernel.
                Some(libc::EINVAL) if n > 0 => return Ok(()),
                // No SETPCAP; but what is gone already need not be dropped.
                Some(libc::EPERM) if !in_bounding(n) => continue,
                _ => return Err(e),
            }
        }
    }
    Ok(())
}

fn in_bounding(n: u32) -> bool {
    // SAFETY: prctl with plain integers; no memory is passed.
    unsafe { libc::prctl(libc::PR_CAPBSET_READ, n as libc::c_ulong, 0, 0, 0) == 1 }
}

/// Supplementary groups, gid (real, effective, saved), uid likewise, in the only order that works.
pub fn set_ids(ids: &Ids) -> io::Result<()> {
    let groups: Vec<Gid> = ids.groups.iter().map(|g| Gid::from_raw(*g)).collect();
    rustix::thread::set_thread_groups(&groups)?;
    let gid = Gid::from_raw(ids.gid);
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    let uid = Uid::from_raw(ids.uid);
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}

/// Effective, permitted and inheritable in one capset.
pub fn set_capabilities(caps: &Masks) -> io::Result<()> {
    let sets = CapabilitySets {
        effective: CapabilitySet::from_bits_retain(caps.effective),
        permitted: CapabilitySet::from_bits_retain(caps.permitted),
        inheritable: CapabilitySet::from_bits_retain(caps.inheritable),
    };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

/// The ambient set becomes exactly `wanted` (each must be permitted and inheritable).
pub fn set_ambient(wanted: u64) -> io::Result<()> {
    rustix::thread::clear_ambient_capability_set()?;
    for (_, one) in CapabilitySet::from_bits_retain(wanted & ALL).iter_names() {
        rustix::thread::configure_capability_in_ambient_set(one, true)?;
    }
    Ok(())
}

/// What the caller can hand on: its permitted capabilities that are also in its bounding set.
pub fn own_capabilities() -> io::Result<u64> {
    // One file tells both; PR_CAPBSET_READ would be a system call for each of 41 capabilities.
    let status = crate::procfs::text("/proc/self/status")?;
    let set = |name: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(name));
        line.and_then(|l| u64::from_str_radix(l.trim(), 16).ok())
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("no {name} in /proc/self/status")))
    };
    Ok(set("CapPrm:")? & set("CapBnd:")? & ALL)
}

/// From here on execve grants nothing: setuid bits and file capabilities are ignored. Cannot be
/// undone.
pub fn no_new_privileges() -> io::Result<()> {
    Ok(rustix::thread::set_no_new_privs(true)?)
}

/// Installs a seccomp filter (`seccomp::compile`) for good. Takes either `no_new_privileges` or
/// CAP_SYS_ADMIN (else EACCES).
///
/// SPEC_ALLOW keeps the speculative store bypass mitigation as it is for everyone: before Linux 5.16
/// a filter switched it on, at a cost of up to tens of per cent for the payload, to protect against a
/// threat (untrusted code in the same process) that containers do not pose.
pub fn install_seccomp(filter: &[libc::sock_filter]) -> io::Result<()> {
    let len = u16::try_from(filter.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let program = libc::sock_fprog { len, filter: filter.as_ptr().cast_mut() };
    // SAFETY: `program` points at `len` instructions that live through the call; the kernel copies
    // and never writes them.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            &raw const program,
        )
    };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A resource limit of the calling process; `u64::MAX` is unlimited.
pub fn set_rlimit(resource: Resource, soft: u64, hard: u64) -> io::Result<()> {
    let value = |v: u64| (v != u64::MAX).then_some(v);
    Ok(rustix::process::setrlimit(resource, Rlimit { current: value(soft), maximum: value(hard) })?)
}

/// Joins a new, empty session keyring, so that the container sees none of the caller's keys (S10:
/// keyrings are not namespaced). A kernel without keyrings has none to leak.
pub fn new_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: a null name means an anonymous keyring; no memory is passed.
    let rc = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, 0) };
    if rc >= 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        e if e.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        e => Err(e),
    }
}

/// Whether others of the same user may ptrace this process and open its `/proc/self` files
/// (CVE-2016-9962: off while it still holds the host's file descriptors; execve sets it anew).
pub fn set_dumpable(on: bool) -> io::Result<()> {
    // SAFETY: prctl with plain integers; no memory is passed.
    let rc = unsafe { libc::prctl(libc::PR_SET_DUMPABLE, libc::c_ulong::from(on), 0, 0, 0) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Marks every descriptor from `first` on close-on-exec, whatever a careless library or our caller
/// left open (CVE-2024-21626).
pub fn cloexec_from(first: u32) -> io::Result<()> {
    // SAFETY: close_range with CLOEXEC closes nothing and passes no memory.
    let rc = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::{FromRawFd, OwnedFd};

    use super::*;
    use crate::caps::DEFAULT;
    use crate::spec::Seccomp;

    /// Runs `body` in a forked child and returns the numbers that it wrote.
    fn in_child(body: impl FnOnce(&mut dyn FnMut(i64))) -> Vec<i64> {
        let mut fds = [0; 2];
        // SAFETY: `fds` has room for the two descriptors, which become owned at once; the forked child
        // only writes to the pipe and leaves by _exit, so that no destructor of the test runs twice.
        let (mut reader, mut writer, pid) = unsafe {
            assert_eq!(libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC), 0);
            let reader = std::fs::File::from(OwnedFd::from_raw_fd(fds[0]));
            let writer = std::fs::File::from(OwnedFd::from_raw_fd(fds[1]));
            (reader, Some(writer), libc::fork())
        };
        if pid == 0 {
            let out = writer.as_mut().expect("still here");
            let ok = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                body(&mut |n| out.write_all(&n.to_ne_bytes()).expect("pipe"))
            }));
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(i32::from(ok.is_err())) }
        }
        drop(writer.take());
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).expect("pipe");
        let mut status = 0;
        // SAFETY: waits for our own child.
        assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
        assert_eq!(status, 0, "the child failed");
        bytes.chunks(8).map(|c| i64::from_ne_bytes(c.try_into().expect("eight bytes"))).collect()
    }

    /// A system call with integer arguments that touch no memory: 0 or a positive result is 0, an error
    /// its errno.
    fn call(number: libc::c_long, args: [u64; 5]) -> i64 {
        // SAFETY: the callers pass integers and null pointers only; the kernel checks both.
        let rc = unsafe { libc::syscall(number, args[0], args[1], args[2], args[3], args[4]) };
        if rc >= 0 { 0 } else { io::Error::last_os_error().raw_os_error().map_or(-1, i64::from) }
    }

    fn default_filter() -> Vec<libc::sock_filter> {
        let caps: Vec<String> = DEFAULT.iter().map(|c| c.to_string()).collect();
        crate::seccomp::compile(&Seccomp::Default, &caps).expect("the default profile compiles")
    }

    const EPERM: i64 = libc::EPERM as i64;
    const ENOSYS: i64 = libc::ENOSYS as i64;
    const EAFNOSUPPORT: i64 = libc::EAFNOSUPPORT as i64;

    /// The kernel's verdict on the default filter, without privilege: no_new_privs allows it.
    #[test]
    fn the_kernel_takes_the_default_filter_and_answers_by_it() {
        let table: &[(&str, libc::c_long, [u64; 5], &[i64])] = &[
            ("unshare(NEWUSER)", libc::SYS_unshare, [0x1000_0000, 0, 0, 0, 0], &[EPERM]),
            ("unshare(0)", libc::SYS_unshare, [0; 5], &[EPERM]),
            ("mount", libc::SYS_mount, [0; 5], &[EPERM]),
            ("setns", libc::SYS_setns, [u64::MAX, 0, 0, 0, 0], &[EPERM]),
            ("keyctl", libc::SYS_keyctl, [0; 5], &[EPERM]),
            ("bpf", libc::SYS_bpf, [0; 5], &[EPERM]),
            ("io_uring_setup", libc::SYS_io_uring_setup, [0; 5], &[EPERM]),
            ("open_by_handle_at", libc::SYS_open_by_handle_at, [0; 5], &[EPERM]),
            ("clone3", libc::SYS_clone3, [0; 5], &[ENOSYS]),
            ("clone(NEWUSER)", libc::SYS_clone, [0x1000_0011, 0, 0, 0, 0], &[EPERM]),
            ("number 1000", 1000, [0; 5], &[ENOSYS]),
            ("socket(AF_ALG)", libc::SYS_socket, [38, 5, 0, 0, 0], &[EPERM]),
            ("socket(AF_ALG + 2^32)", libc::SYS_socket, [38 | 1 << 32, 5, 0, 0, 0], &[EPERM]),
            ("socket(AF_VSOCK)", libc::SYS_socket, [40, 1, 0, 0, 0], &[EPERM]),
            ("socket(AF_UNIX)", libc::SYS_socket, [1, 1, 0, 0, 0], &[0]),
            ("socket(AF_INET)", libc::SYS_socket, [2, 1, 0, 0, 0], &[0, EAFNOSUPPORT]),
            ("socket(AF_UNSPEC)", libc::SYS_socket, [0, 1, 0, 0, 0], &[EAFNOSUPPORT]),
            ("personality(query)", libc::SYS_personality, [0xffff_ffff, 0, 0, 0, 0], &[0]),
            ("personality(ADDR_NO_RANDOMIZE)", libc::SYS_personality, [0x4_0000, 0, 0, 0, 0], &[EPERM]),
            ("ptrace(TRACEME)", libc::SYS_ptrace, [0; 5], &[0]),
            ("getppid", libc::SYS_getppid, [0; 5], &[0]),
            ("memfd_create(null)", libc::SYS_memfd_create, [0; 5], &[libc::EFAULT as i64]),
        ];
        let filter = default_filter();
        let answers = in_child(|tell| {
            no_new_privileges().expect("no_new_privs");
            install_seccomp(&filter).expect("the kernel accepts the filter");
            for (_, number, args, _) in table {
                tell(call(*number, *args));
            }
        });
        assert_eq!(answers.len(), table.len());
        for ((name, _, _, expected), got) in table.iter().zip(answers) {
            assert!(expected.contains(&got), "{name}: errno {got}, expected {expected:?}");
        }
    }

    /// Through the 32-bit door: the i386 table must guard it.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn int_80_is_filtered_by_the_32_bit_table() {
        /// An i386 system call of a 64-bit process.
        fn int80(number: u32, a: u32, b: u32) -> i64 {
            let result: i32;
            // SAFETY: integers only; rbx, which the compiler reserves, is put back.
            unsafe {
                std::arch::asm!(
                    "xchg {a:r}, rbx",
                    "int 0x80",
                    "xchg {a:r}, rbx",
                    a = inout(reg) u64::from(a) => _,
                    inlateout("eax") number => result,
                    in("ecx") b, in("edx") 0, in("esi") 0, in("edi") 0,
                    lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _,
                );
            }
            i64::from(if result < 0 { -result } else { 0 })
        }
        let filter = default_filter();
        // getpid, keyctl, clone3, unshare, socketcall(SOCKET), socket(AF_ALG), socket(AF_UNIX).
        let calls = [(20, 0, 0), (288, 0, 0), (435, 0, 0), (310, 0, 0), (102, 1, 0), (359, 38, 5), (359, 1, 1)];
        let plain = in_child(|tell| tell(int80(20, 0, 0)));
        let answers = in_child(|tell| {
            no_new_privileges().expect("no_new_privs");
            install_seccomp(&filter).expect("the kernel accepts the filter");
            for (number, a, b) in calls {
                tell(int80(number, a, b));
            }
        });
        if plain != [0] {
            return; // this kernel has no 32-bit calls
        }
        assert_eq!(answers, [0, EPERM, ENOSYS, EPERM, EPERM, EPERM, 0]);
    }

    #[test]
    fn dropping_needs_no_privilege_where_nothing_is_left_to_drop() {
        let left = in_child(|tell| {
            let have = own_capabilities().expect("capget");
            // Everything that is there is kept, or may be dropped by root.
            let keep = (0..64).filter(|n| in_bounding(*n)).fold(0, |m, n| m | 1u64 << n);
            drop_bounding(keep).expect("nothing to drop");
            set_ambient(0).expect("clearing is always allowed");
            set_capabilities(&Masks::default()).expect("giving up is always allowed");
            tell((have & !ALL) as i64);
            tell(own_capabilities().expect("capget") as i64);
        });
        assert_eq!(left, [0, 0]);
    }

    #[test]
    fn descriptors_get_closed_on_exec() {
        let flags = in_child(|tell| {
            // SAFETY: dup and fcntl of descriptors of this process.
            let (fd, before) = unsafe {
                let fd = libc::dup(2);
                (fd, libc::fcntl(fd, libc::F_GETFD))
            };
            cloexec_from(3).expect("close_range");
            // SAFETY: as above.
            let (after, stderr) = unsafe { (libc::fcntl(fd, libc::F_GETFD), libc::fcntl(2, libc::F_GETFD)) };
            for f in [before, after, stderr] {
                tell(i64::from(f));
            }
        });
        assert_eq!(flags, [0, i64::from(libc::FD_CLOEXEC), 0]);
    }

    /// What only root can: become someone else, with and without capabilities.
    #[test]
    fn root_becomes_a_user_with_exactly_the_capabilities_given() {
        // SAFETY: no arguments.
        if unsafe { libc::geteuid() } != 0 || own_capabilities().expect("capget") & 0xa804_25fb != 0xa804_25fb {
            return; // the black-box tests cover this where the unit tests run unprivileged
        }
        let ids = Ids { uid: 1000, gid: 1001, groups: vec![1001, 7], home: None };
        let bind = 1 << 10;
        for (caps, expected) in [
            (Masks { bounding: 0xa804_25fb, ..Masks::default() }, [0u64, 0, 0, 0, 0xa804_25fb]),
            (
                Masks { bounding: 0xa804_25fb, effective: bind, permitted: bind, inheritable: bind, ambient: bind },
                [bind, bind, bind, bind, 0xa804_25fb],
            ),
        ] {
            let got = in_child(|tell| {
                assume(&ids, &caps).expect("root may");
                let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
                let field = |name: &str| {
                    let line = status.lines().find_map(|l| l.strip_prefix(name)).expect("a status field");
                    line.trim().to_string()
                };
                for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:", "CapBnd:"] {
                    tell(i64::from_str_radix(&field(set), 16).expect("hex"));
                }
                tell(i64::from(field("Uid:") == "1000\t1000\t1000\t1000" && field("Gid:") == "1001\t1001\t1001\t1001"));
                tell(i64::from(field("Groups:") == "7 1001"));
                tell(i64::from(rustix::thread::get_keep_capabilities().expect("prctl")));
            });
            let expected: Vec<i64> = expected.iter().map(|n| *n as i64).chain([1, 1, 0]).collect();
            assert_eq!(got, expected);
        }
    }
}
