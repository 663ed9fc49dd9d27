//! What the kernel answers to calls that a container should, or should not, be able to make.

#![expect(unsafe_code, reason = "the test makes system calls of its own")]

use super::child::{attempt, call};
use serde_json::{Map, Value, json};
use std::io;

/// A null pointer, one that points nowhere, and no descriptor.
const NULL: i64 = 0;
const WILD: i64 = 1;
const NO_FD: i64 = -1;
const AT_FDCWD: i64 = libc::AT_FDCWD as i64;

/// (name, number, arguments): allowed calls with these fail later, or change only the child.
type Row = (&'static str, i64, &'static [i64]);

const NAMESPACES: &[Row] = &[
    ("unshare mnt", libc::SYS_unshare, &[0x2_0000]),
    ("unshare cgroup", libc::SYS_unshare, &[0x200_0000]),
    ("unshare uts", libc::SYS_unshare, &[0x400_0000]),
    ("unshare ipc", libc::SYS_unshare, &[0x800_0000]),
    ("unshare user", libc::SYS_unshare, &[0x1000_0000]),
    ("unshare pid", libc::SYS_unshare, &[0x2000_0000]),
    ("unshare net", libc::SYS_unshare, &[0x4000_0000]),
    ("unshare time", libc::SYS_unshare, &[0x80]),
    ("unshare user+net+mnt", libc::SYS_unshare, &[0x5002_0000]),
    ("setns", libc::SYS_setns, &[NO_FD, 0]),
    ("clone3", libc::SYS_clone3, &[NULL, 0]),
    ("chroot", libc::SYS_chroot, &[NULL]),
];

const MOUNTS: &[Row] = &[
    ("fsconfig", libc::SYS_fsconfig, &[NO_FD, 0, NULL, NULL, 0]),
    ("fsmount", libc::SYS_fsmount, &[NO_FD, 0, 0]),
    ("move_mount", libc::SYS_move_mount, &[NO_FD, NULL, NO_FD, NULL, 0]),
    ("mount_setattr", libc::SYS_mount_setattr, &[NO_FD, NULL, 0, NULL, 0]),
    ("statmount", 457, &[NULL, NULL, 0, 0]),
    ("listmount", 458, &[NULL, NULL, 0, 0]),
    ("open_tree_attr", 467, &[NO_FD, NULL, 0, NULL, 0]),
    ("open_by_handle_at", libc::SYS_open_by_handle_at, &[NO_FD, NULL, 0]),
    ("quotactl", libc::SYS_quotactl, &[-1, NULL, 0, NULL]),
    ("swapon", libc::SYS_swapon, &[NULL, 0]),
    ("swapoff", libc::SYS_swapoff, &[NULL]),
    ("acct", libc::SYS_acct, &[WILD]),
];

const KERNEL: &[Row] = &[
    ("bpf map_create", libc::SYS_bpf, &[0, NULL, 0]),
    ("bpf prog_load", libc::SYS_bpf, &[5, NULL, 0]),
    ("perf_event_open", libc::SYS_perf_event_open, &[NULL, 0, -1, NO_FD, 0]),
    ("userfaultfd", libc::SYS_userfaultfd, &[0]),
    ("userfaultfd user mode", libc::SYS_userfaultfd, &[1]),
    ("fanotify_init", libc::SYS_fanotify_init, &[0, 0]),
    ("syslog read", libc::SYS_syslog, &[3, NULL, 0]),
    ("syslog size", libc::SYS_syslog, &[10, NULL, 0]),
    ("init_module", libc::SYS_init_module, &[NULL, 0, NULL]),
    ("finit_module", libc::SYS_finit_module, &[NO_FD, NULL, 0]),
    ("delete_module", libc::SYS_delete_module, &[NULL, 0]),
    ("kexec_load", libc::SYS_kexec_load, &[0, 99, NULL, 0]),
    ("kexec_file_load", libc::SYS_kexec_file_load, &[NO_FD, NO_FD, 0, NULL, 0x8000]),
    ("reboot", libc::SYS_reboot, &[0, 0, 0, NULL]),
    ("lsm_list_modules", 461, &[NULL, NULL, 0]),
    ("io_uring_setup", libc::SYS_io_uring_setup, &[0, NULL]),
    ("number 1000", 1000, &[]),
    ("x32 getpid", 0x4000_0027, &[]),
    ("keyctl", libc::SYS_keyctl, &[0, -3, 0]),
    ("add_key", libc::SYS_add_key, &[NULL, NULL, NULL, 0, 0]),
    ("request_key", libc::SYS_request_key, &[NULL, NULL, NULL, 0]),
    ("landlock", libc::SYS_landlock_create_ruleset, &[NULL, 0, 1]),
    ("clock_settime", libc::SYS_clock_settime, &[0, NULL]),
    ("settimeofday", libc::SYS_settimeofday, &[WILD, NULL]),
    ("sethostname", libc::SYS_sethostname, &[NULL, -1]),
    ("setdomainname", libc::SYS_setdomainname, &[NULL, -1]),
];

const PROCESSES: &[Row] = &[
    ("ptrace traceme", libc::SYS_ptrace, &[0, 0, NULL, NULL]),
    ("kcmp", libc::SYS_kcmp, &[-1, -1, 0, 0, 0]),
    ("process_vm_readv", libc::SYS_process_vm_readv, &[-1, NULL, 0, NULL, 0, 0]),
    ("process_madvise", libc::SYS_process_madvise, &[NO_FD, NULL, 0, 0, 0]),
    ("pidfd_getfd", libc::SYS_pidfd_getfd, &[NO_FD, 0, 0]),
    ("get_mempolicy", libc::SYS_get_mempolicy, &[NULL, NULL, 0, NULL, 0]),
    ("set_mempolicy", libc::SYS_set_mempolicy, &[0, NULL, 0]),
    ("mbind", libc::SYS_mbind, &[NULL, 0, 0, NULL, 0, 0]),
    ("move_pages", libc::SYS_move_pages, &[0, 0, NULL, NULL, NULL, 0]),
    ("migrate_pages", libc::SYS_migrate_pages, &[0, 0, NULL, NULL]),
    ("personality query", libc::SYS_personality, &[0xffff_ffff]),
    ("personality linux32", libc::SYS_personality, &[8]),
    ("personality ADDR_NO_RANDOMIZE", libc::SYS_personality, &[0x4_0000]),
    ("personality READ_IMPLIES_EXEC", libc::SYS_personality, &[0x40_0000]),
    ("setuid 0", libc::SYS_setuid, &[0]),
    ("setgroups", libc::SYS_setgroups, &[0, NULL]),
    ("vmsplice", libc::SYS_vmsplice, &[NO_FD, NULL, 0, 0]),
    ("mlockall", libc::SYS_mlockall, &[1]),
    ("memfd_secret", libc::SYS_memfd_secret, &[0]),
    ("cachestat", 451, &[NO_FD, NULL, NULL, 0]),
    ("fchmodat2", 452, &[NO_FD, NULL, 0, 0]),
    ("map_shadow_stack", 453, &[0, 0, 0]),
    ("mseal", 462, &[0, 0, 0]),
    ("setxattrat", 463, &[NO_FD, NULL, 0, NULL, NULL, 0]),
];

#[cfg(target_arch = "x86_64")]
const LEGACY: &[Row] = &[
    ("iopl", libc::SYS_iopl, &[3]),
    ("ioperm", libc::SYS_ioperm, &[0x80, 1, 1]),
    ("modify_ldt", libc::SYS_modify_ldt, &[0, NULL, 0]),
    ("sysfs", libc::SYS_sysfs, &[3]),
    ("ustat", libc::SYS_ustat, &[0, NULL]),
    ("uselib", libc::SYS_uselib, &[NULL]),
    ("lookup_dcookie", libc::SYS_lookup_dcookie, &[0, NULL, 0]),
    ("nfsservctl", libc::SYS_nfsservctl, &[0, NULL, NULL]),
    ("_sysctl", libc::SYS__sysctl, &[NULL]),
    ("create_module", 174, &[NULL, 0]),
];
#[cfg(not(target_arch = "x86_64"))]
const LEGACY: &[Row] = &[];

/// (name, family, type, protocol)
const SOCKETS: &[(&str, i64, i64, i64)] = &[
    ("socket unix", 1, 1, 0),
    ("socket inet", 2, 1, 0),
    ("socket inet6", 10, 1, 0),
    ("socket mptcp", 2, 1, 262),
    ("socket ping", 2, 2, 1),
    ("socket raw icmp", 2, 3, 1),
    ("socket raw ip", 2, 3, 255),
    ("socket packet", 17, 3, 0),
    ("socket packet dgram", 17, 2, 0),
    ("socket netlink route", 16, 3, 0),
    ("socket netlink xfrm", 16, 3, 6),
    ("socket netlink netfilter", 16, 3, 12),
    ("socket netlink uevent", 16, 3, 15),
    ("socket key", 15, 3, 2),
    ("socket rds", 21, 5, 0),
    ("socket can", 29, 3, 1),
    ("socket tipc", 30, 1, 0),
    ("socket bluetooth", 31, 3, 1),
    ("socket alg", 38, 5, 0),
    ("socket vsock", 40, 1, 0),
    ("socket smc", 43, 1, 0),
    ("socket xdp", 44, 3, 0),
];

pub fn all() -> Value {
    let mut out = Map::new();
    for (name, number, args) in [NAMESPACES, MOUNTS, KERNEL, PROCESSES, LEGACY].concat() {
        out.insert(name.to_string(), json!(attempt(|| call(number, args).map(|_| ()))));
    }
    for (name, family, kind, protocol) in SOCKETS {
        let socket = || call(libc::SYS_socket, &[*family, *kind, *protocol]).map(|_| ());
        out.insert(name.to_string(), json!(attempt(socket)));
    }
    let mut put = |name: &str, probe: &dyn Fn() -> io::Result<()>| {
        out.insert(name.to_string(), json!(attempt(probe)));
    };
    mounting(&mut put);
    nodes(&mut put);
    options(&mut put);
    others(&mut put);
    Value::Object(out)
}

type Put<'a> = &'a mut dyn FnMut(&str, &dyn Fn() -> io::Result<()>);

fn text(s: &std::ffi::CStr) -> i64 {
    s.as_ptr() as i64
}

/// mount(2) looks at the path, then at the privilege, then at the rest: which is wrong here.
fn mounting(put: Put) {
    let mount = |source: &std::ffi::CStr, target: &std::ffi::CStr, kind: &std::ffi::CStr, flags: u64| {
        call(libc::SYS_mount, &[text(source), text(target), text(kind), flags as i64, NULL]).map(|_| ())
    };
    put("mount new", &|| mount(c"none", c"/", c"no-such-file-system", 0));
    put("mount bind", &|| mount(c"/no/such/source", c"/", c"", libc::MS_BIND));
    put("mount remount", &|| mount(c"", c"/etc", c"", libc::MS_REMOUNT | libc::MS_BIND));
    put("mount propagation", &|| mount(c"", c"/", c"", libc::MS_PRIVATE | libc::MS_SHARED));
    put("umount2", &|| call(libc::SYS_umount2, &[text(c"/etc"), 0]).map(|_| ()));
    put("pivot_root", &|| call(libc::SYS_pivot_root, &[text(c"/"), text(c"/")]).map(|_| ()));
    put("fsopen", &|| call(libc::SYS_fsopen, &[text(c"tmpfs"), 0]).map(|_| ()));
    put("fspick", &|| call(libc::SYS_fspick, &[AT_FDCWD, text(c"/"), 0]).map(|_| ()));
    put("open_tree", &|| call(libc::SYS_open_tree, &[AT_FDCWD, text(c"/"), 0]).map(|_| ()));
}

/// Making a device node, and opening it: the first is the capability's to allow, the second the cgroup's.
fn nodes(put: Put) {
    let path = std::ffi::CString::new(format!("/.prober-node-{}", std::process::id())).expect("no NUL");
    let make = |mode: u32, (major, minor): (u32, u32)| {
        let number = libc::makedev(major, minor) as i64;
        call(libc::SYS_mknodat, &[AT_FDCWD, text(&path), i64::from(mode | 0o600), number]).map(|_| ())
    };
    let remove = || call(libc::SYS_unlinkat, &[AT_FDCWD, text(&path), 0]).map(|_| ());
    let (c, b) = (libc::S_IFCHR, libc::S_IFBLK);
    for (name, kind, number) in [
        ("fifo", libc::S_IFIFO, (0, 0)),
        ("mem", c, (1, 1)),
        ("null", c, (1, 3)),
        ("kmsg", c, (1, 11)),
        ("tun", c, (10, 200)),
        ("fuse", c, (10, 229)),
        ("kvm", c, (10, 232)),
        ("loop", b, (7, 0)),
        ("disk", b, (254, 0)),
        ("nothing", b, (0, 0)),
    ] {
        put(&format!("mknod {name}"), &|| {
            make(kind, number)?;
            remove()
        });
        if name != "fifo" {
            put(&format!("mknod and open {name}"), &|| {
                make(kind, number)?;
                let flags = i64::from(libc::O_RDWR | libc::O_NONBLOCK | libc::O_NOCTTY);
                let opened = call(libc::SYS_openat, &[AT_FDCWD, text(&path), flags]).map(|_| ());
                remove()?;
                opened
            });
        }
    }
}

/// Options of sockets, which the user namespace of the network namespace decides.
fn options(put: Put) {
    let udp = || call(libc::SYS_socket, &[2, 2, 0]);
    let set = |level: i32, option: i32, value: &[u8]| {
        let fd = udp()?;
        let (value, len) = (value.as_ptr() as i64, value.len() as i64);
        call(libc::SYS_setsockopt, &[fd, i64::from(level), i64::from(option), value, len]).map(|_| ())
    };
    put("SO_MARK", &|| set(libc::SOL_SOCKET, libc::SO_MARK, &1u32.to_ne_bytes()));
    put("SO_BINDTODEVICE", &|| set(libc::SOL_SOCKET, libc::SO_BINDTODEVICE, b"lo\0"));
    put("IP_TRANSPARENT", &|| set(libc::SOL_IP, libc::IP_TRANSPARENT, &1u32.to_ne_bytes()));
    put("bind port 79", &|| {
        let fd = call(libc::SYS_socket, &[2, 1, 0])?;
        let mut address = [0u8; 16];
        address[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
        address[2..4].copy_from_slice(&79u16.to_be_bytes());
        call(libc::SYS_bind, &[fd, address.as_ptr() as i64, 16]).map(|_| ())
    });
    put("SIOCSIFFLAGS", &|| {
        let fd = udp()?;
        // struct ifreq of lo: the flags are read and written back as they are.
        let mut request = [0u8; 40];
        request[..2].copy_from_slice(b"lo");
        call(libc::SYS_ioctl, &[fd, libc::SIOCGIFFLAGS as i64, request.as_mut_ptr() as i64])?;
        call(libc::SYS_ioctl, &[fd, libc::SIOCSIFFLAGS as i64, request.as_ptr() as i64]).map(|_| ())
    });
}

fn others(put: Put) {
    put("clone user", &|| {
        let child = call(libc::SYS_clone, &[0x1000_0000 | i64::from(libc::SIGCHLD), NULL, NULL, NULL, NULL])?;
        if child == 0 {
            // SAFETY: the grandchild ends at once.
            unsafe { libc::_exit(0) }
        }
        Ok(())
    });
    put("sched_fifo", &|| {
        let priority = 1i32;
        call(libc::SYS_sched_setscheduler, &[0, 1, &raw const priority as i64]).map(|_| ())
    });
    put("raise rlimit", &|| {
        let mut limit = [0u64; 2];
        let nofile = i64::from(libc::RLIMIT_NOFILE);
        call(libc::SYS_prlimit64, &[0, nofile, NULL, limit.as_mut_ptr() as i64])?;
        limit[1] += 1;
        call(libc::SYS_prlimit64, &[0, nofile, limit.as_ptr() as i64, NULL]).map(|_| ())
    });
    // struct timex, whose first word says what to set: nothing, then an impossible tick.
    put("adjtimex read", &|| call(libc::SYS_adjtimex, &[[0u64; 32].as_mut_ptr() as i64]).map(|_| ()));
    put("adjtimex set", &|| {
        let mut timex = [0u64; 32];
        timex[0] = 0x4000;
        call(libc::SYS_adjtimex, &[timex.as_mut_ptr() as i64]).map(|_| ())
    });
    put("vhangup", &|| {
        // Of its own session, that is of no terminal.
        call(libc::SYS_setsid, &[])?;
        call(libc::SYS_vhangup, &[]).map(|_| ())
    });
    put("memfd_create", &|| call(libc::SYS_memfd_create, &[text(c"probe"), 0]).map(|_| ()));
    put("openat2", &|| {
        let how = [0u64; 3];
        call(libc::SYS_openat2, &[AT_FDCWD, text(c"/"), how.as_ptr() as i64, 24]).map(|_| ())
    });
    put("pidfd_open", &|| call(libc::SYS_pidfd_open, &[i64::from(std::process::id()), 0]).map(|_| ()));
    put("inotify", &|| call(libc::SYS_inotify_init1, &[0]).map(|_| ()));
    #[cfg(target_arch = "x86_64")]
    for (name, number, first) in [
        ("i386 getpid", 20, 0),
        ("i386 keyctl", 288, 0),
        ("i386 unshare", 310, 0x1000_0000),
        ("i386 clone3", 435, 0),
        ("i386 socketcall socket", 102, 1),
        ("i386 socket alg", 359, 38),
    ] {
        put(name, &|| int80(number, first));
    }
}

/// A system call of the 32-bit kind. A kernel without them ends the child with a signal.
#[cfg(target_arch = "x86_64")]
fn int80(number: u32, first: u32) -> io::Result<()> {
    let result: i32;
    // SAFETY: integers only; rbx, which the compiler reserves, is put back.
    unsafe {
        std::arch::asm!(
            "xchg {a:r}, rbx",
            "int 0x80",
            "xchg {a:r}, rbx",
            a = inout(reg) u64::from(first) => _,
            inlateout("eax") number => result,
            in("ecx") 5, in("edx") 0, in("esi") 0, in("edi") 0,
            lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _,
        );
    }
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(()) }
}
