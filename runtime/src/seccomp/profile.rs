//! The default profile: what a container may ask of the kernel when nobody says otherwise.
//!
//! The meaning is that of Docker's current default: a call is allowed always, or with one of some
//! capabilities in the bounding set, or after a look at an argument; everything else of the known
//! calls fails with EPERM. Two calls answer ENOSYS, so that the C library falls back to an older one:
//! clone3, whose flags lie behind a pointer that a filter cannot follow (clone can be checked), and
//! whatever is newer than the newest call listed here.
//!
//! One departure: `socketcall`, through which 32-bit x86 programs may open any family of sockets
//! unseen, may not create sockets. Docker leaves it to AppArmor or SELinux to refuse AF_ALG there
//! (CVE-2026-31431, page cache of the host written from a container), which many hosts lack. musl and
//! everything 64-bit never use it; a 32-bit glibc image that needs it takes a profile of its own.

use super::numbers::SYSCALLS;
use super::policy::Test;

/// Allowed to everyone, by theme.
const ALWAYS: [&str; 12] = [
    // Files by name.
    "access chdir chmod chown chown32 creat faccessat faccessat2 fchmodat fchmodat2 fchownat futimesat \
     getcwd lchown lchown32 link linkat lstat lstat64 mkdir mkdirat mknod mknodat name_to_handle_at \
     newfstatat open openat openat2 readlink readlinkat rename renameat renameat2 rmdir stat stat64 \
     fstatat64 statx symlink symlinkat truncate truncate64 umask unlink unlinkat utime utimensat \
     utimensat_time64 utimes statfs statfs64",
    // Open files.
    "_llseek close close_range copy_file_range dup dup2 dup3 fadvise64 fadvise64_64 arm_fadvise64_64 \
     fallocate fchdir fchmod fchown fchown32 fcntl fcntl64 fdatasync flock fstat fstat64 fstatfs \
     fstatfs64 fsync ftruncate ftruncate64 getdents getdents64 ioctl lseek pipe pipe2 pread64 preadv \
     preadv2 pwrite64 pwritev pwritev2 read readahead readv sendfile sendfile64 splice sync \
     sync_file_range sync_file_range2 arm_sync_file_range syncfs tee vmsplice write writev cachestat",
    // Extended attributes.
    "fgetxattr flistxattr fremovexattr fsetxattr getxattr getxattrat lgetxattr listxattr listxattrat \
     llistxattr lremovexattr lsetxattr removexattr removexattrat setxattr setxattrat",
    // Waiting for files: poll, epoll, inotify, events, asynchronous I/O (of the old kind).
    "_newselect epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait \
     epoll_wait_old eventfd eventfd2 fanotify_mark inotify_add_watch inotify_init inotify_init1 \
     inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup \
     io_submit poll ppoll ppoll_time64 pselect6 pselect6_time64 select signalfd signalfd4 \
     timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64",
    // Mounts, to look at.
    "listmount statmount",
    // Memory.
    "brk madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap \
     mmap2 mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect \
     remap_file_pages",
    // Processes and threads. ptrace and kin are bounded by the pid namespace and uid; before Linux 4.8
    // ptrace could step around a filter, so Docker asks for that version, which rrun needs anyway.
    "execve execveat exit exit_group fork futex futex_requeue futex_time64 futex_wait futex_waitv \
     futex_wake get_robust_list get_thread_area set_robust_list set_thread_area set_tid_address set_tls \
     breakpoint cacheflush arch_prctl modify_ldt getpgid getpgrp getpid getppid getsid gettid kill \
     pidfd_open pidfd_send_signal prctl process_mrelease process_vm_readv process_vm_writev ptrace \
     restart_syscall rseq setpgid setsid tgkill tkill uretprobe vfork wait4 waitid waitpid",
    // Signals.
    "alarm pause rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend \
     rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack sigprocmask sigreturn",
    // Identity and confinement.
    "capget capset getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getresgid \
     getresgid32 getresuid getresuid32 getuid getuid32 landlock_add_rule landlock_create_ruleset \
     landlock_restrict_self seccomp setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups \
     setgroups32 setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 \
     setuid setuid32",
    // Limits and scheduling.
    "getcpu getpriority getrlimit getrusage ioprio_get ioprio_set prlimit64 sched_get_priority_max \
     sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler \
     sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam \
     sched_setscheduler sched_yield setpriority setrlimit sysinfo times ugetrlimit uname getrandom",
    // Clocks and timers.
    "adjtimex clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime \
     clock_gettime64 clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep setitimer \
     time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime \
     timer_settime64",
    // Sockets (their creation is checked below) and System V / POSIX message passing.
    "accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg \
     recvmmsg_time64 recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socketpair ipc \
     mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend \
     mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop \
     semtimedop_time64 shmat shmctl shmdt shmget",
];

/// Allowed to a container whose bounding set holds this capability (by number). A call may stand in
/// several lines: any of them suffices.
const WITH_CAP: [(u32, &str); 14] = [
    (2 /* DAC_READ_SEARCH */, "open_by_handle_at"),
    (16 /* SYS_MODULE */, "delete_module finit_module init_module"),
    (17 /* SYS_RAWIO */, "ioperm iopl"),
    (18 /* SYS_CHROOT */, "chroot"),
    (19 /* SYS_PTRACE */, "kcmp pidfd_getfd process_madvise"),
    (20 /* SYS_PACCT */, "acct"),
    (
        SYS_ADMIN,
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr \
         lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open \
         quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    (22 /* SYS_BOOT */, "reboot"),
    (23 /* SYS_NICE */, "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    (25 /* SYS_TIME */, "clock_settime clock_settime64 settimeofday stime"),
    (26 /* SYS_TTY_CONFIG */, "vhangup"),
    (34 /* SYSLOG */, "syslog"),
    (38 /* PERFMON */, "perf_event_open"),
    (39 /* BPF */, "bpf"),
];
const SYS_ADMIN: u32 = 21;

/// Allowed when the test passes; a capability of `WITH_CAP` spares it.
const CHECKED: [(&str, Test); 4] = [
    ("clone", Test::NoBits { arg: 0, bits: NEW_NAMESPACES }),
    ("personality", Test::OneOf { arg: 0, spans: PERSONALITIES }),
    ("socket", Test::OneOf { arg: 0, spans: FAMILIES }),
    ("socketcall", Test::OneOf { arg: 0, spans: &[(2, u32::MAX)] }),
];

/// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET. NEWTIME is not among clone's
/// flags: its bit belongs to the exit signal there.
const NEW_NAMESPACES: u32 = 0x7e02_0000;

/// PER_LINUX, PER_LINUX32, UNAME26 with either, and the query 0xffffffff; not the flags that weaken
/// address space layout or make old data executable.
const PERSONALITIES: &[(u32, u32)] =
    &[(0, 0), (8, 8), (0x2_0000, 0x2_0000), (0x2_0008, 0x2_0008), (u32::MAX, u32::MAX)];

/// Address families a socket may have. Left out: AF_ALG (38) and AF_VSOCK (40), and the ones that
/// Linux no longer has: DECnet 12, ECONET 19, ATMSVC 20, IRDA 23, WANPIPE 25, ISDN 34, CAIF 37. The
/// kernel looks at the low 32 bits only, and so does the test: 38 + 2^32 is AF_ALG too.
const FAMILIES: &[(u32, u32)] = &[(0, 11), (13, 18), (21, 22), (24, 24), (26, 33), (35, 36), (39, 39), (41, 45)];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Allow,
    /// Allow if the test passes, else EPERM.
    If(Test),
    NotPermitted,
    NoSuchCall,
}

/// The answer to a container with this bounding set.
pub(super) fn answer(row: usize, bounding: u64) -> Answer {
    if unconditional(row) || CAPS[row] & bounding != 0 {
        return Answer::Allow;
    }
    match CHECKED_ROWS.iter().position(|checked| *checked == row) {
        Some(i) => Answer::If(CHECKED[i].1),
        None if row == CLONE3 => Answer::NoSuchCall,
        None => Answer::NotPermitted,
    }
}

/// Whether the call is allowed to anyone, which makes it count when the newest known one is sought.
pub(super) fn unconditional(row: usize) -> bool {
    CAPS[row] == ANYONE
}

/// For each row of [`SYSCALLS`] the capabilities any of which allows the call. Put together by the
/// compiler, so that a misspelt name does not compile and the start of a container looks up nothing.
static CAPS: [u64; SYSCALLS.len()] = caps();
const ANYONE: u64 = u64::MAX;
const CLONE3: usize = find(b"clone3");
const CHECKED_ROWS: [usize; CHECKED.len()] = checked_rows();

const fn caps() -> [u64; SYSCALLS.len()] {
    let mut caps = [0; SYSCALLS.len()];
    let mut i = 0;
    while i < ALWAYS.len() {
        add_caps(&mut caps, ALWAYS[i], ANYONE);
        i += 1;
    }
    i = 0;
    while i < WITH_CAP.len() {
        add_caps(&mut caps, WITH_CAP[i].1, 1 << WITH_CAP[i].0);
        i += 1;
    }
    caps
}

const fn checked_rows() -> [usize; CHECKED.len()] {
    let mut rows = [0; CHECKED.len()];
    let mut i = 0;
    while i < rows.len() {
        rows[i] = find(CHECKED[i].0.as_bytes());
        i += 1;
    }
    rows
}

/// Adds `caps` to each of the names, which are separated by spaces.
const fn add_caps(rows: &mut [u64; SYSCALLS.len()], names: &str, caps: u64) {
    let mut rest = names.as_bytes();
    while !rest.is_empty() {
        let mut end = 0;
        while end < rest.len() && rest[end] != b' ' {
            end += 1;
        }
        let (name, tail) = rest.split_at(end);
        rows[find(name)] |= caps;
        rest = match tail {
            [b' ', more @ ..] => more,
            _ => tail,
        };
    }
}

/// Binary search by name, at compile time.
const fn find(name: &[u8]) -> usize {
    let (mut low, mut high) = (0, SYSCALLS.len());
    while low < high {
        let mid = (low + high) / 2;
        match compare(SYSCALLS[mid].0.as_bytes(), name) {
            0 => return mid,
            1.. => high = mid,
            _ => low = mid + 1,
        }
    }
    panic!("a system call of the default profile is not in the table of numbers");
}

const fn compare(a: &[u8], b: &[u8]) -> i32 {
    let mut i = 0;
    while i < a.len() && i < b.len() {
        if a[i] != b[i] {
            return a[i] as i32 - b[i] as i32;
        }
        i += 1;
    }
    a.len() as i32 - b.len() as i32
}
