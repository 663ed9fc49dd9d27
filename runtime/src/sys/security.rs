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
    let permitted = rustix::thread::capabilities(None)?.permitted;
    let mut have = 0;
    for (_, one) in CapabilitySet::from_bits_retain(permitted.bits() & ALL).iter_names() {
        if rustix::thread::capability_is_in_bounding_set(one)? {
            have |= one.bits();
        }
    }
    Ok(have)
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
