use super::super::policy::{ALLOW, NO_SUCH_CALL, NOT_PERMITTED};
use super::super::{ARM, Host, X86, bpf, default_tables};
use super::*;
use crate::caps::DEFAULT;

const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;

fn filter_for(host: &Host, caps: &[&str]) -> Vec<sock_filter> {
    bpf::assemble(&default_tables(host, crate::caps::mask(caps))).unwrap()
}

fn filter() -> Vec<sock_filter> {
    filter_for(&X86, &DEFAULT)
}

fn all(abi: Abi, caps: &[&str], names: &str, expected: u32) {
    let host = if matches!(abi, Abi::X86_64 | Abi::I386) { &X86 } else { &ARM };
    let f = filter_for(host, caps);
    for name in names.split_whitespace() {
        assert_eq!(ask(&f, abi, name, &[]), expected, "{name} on {abi:?} with {caps:?}");
    }
}

/// What was measured in Docker's containers (security-reliability.md §2), with the caps of the
/// default set; of io_uring the current answer.
const REFUSED: &str = "unshare setns mount umount2 pivot_root fsopen fsconfig fsmount open_tree move_mount fspick \
    mount_setattr kcmp perf_event_open bpf userfaultfd fanotify_init open_by_handle_at syslog init_module \
    finit_module delete_module kexec_load kexec_file_load reboot swapon swapoff acct quotactl quotactl_fd iopl \
    ioperm clock_settime settimeofday sethostname setdomainname vhangup sysfs ustat uselib lookup_dcookie \
    nfsservctl move_pages migrate_pages process_madvise keyctl add_key request_key _sysctl create_module \
    query_module get_kernel_syms pidfd_getfd get_mempolicy set_mempolicy mbind set_mempolicy_home_node \
    io_uring_setup io_uring_enter io_uring_register lsm_list_modules lsm_get_self_attr lsm_set_self_attr \
    afs_syscall tuxcall security getpmsg putpmsg vserver uprobe";

const GRANTED: &str = "chroot mknod mknodat ptrace process_vm_readv process_vm_writev pidfd_open inotify_init1 \
    adjtimex clock_adjtime modify_ldt memfd_create memfd_secret landlock_create_ruleset landlock_add_rule \
    landlock_restrict_self openat2 mlockall setuid setgroups ioctl read write open close stat fstat mmap brk \
    execve execveat fork vfork exit_group futex futex_waitv futex_wake futex_wait futex_requeue rseq prctl \
    arch_prctl seccomp capset capget setresuid statx clock_gettime getrandom socketpair accept4 connect \
    bind listen sendto recvmsg vmsplice splice copy_file_range statmount listmount cachestat fchmodat2 mseal \
    map_shadow_stack setxattrat getxattrat listxattrat removexattrat uretprobe sched_setscheduler prlimit64 \
    set_robust_list wait4 kill tgkill pidfd_send_signal process_mrelease name_to_handle_at io_setup io_submit \
    epoll_pwait2 close_range clone personality socket";

#[test]
fn a_default_container_is_refused_and_granted_what_docker_does() {
    all(Abi::X86_64, &DEFAULT, REFUSED, NOT_PERMITTED);
    all(Abi::X86_64, &DEFAULT, GRANTED, ALLOW);
}

#[test]
fn unknown_calls_do_not_exist() {
    let f = filter();
    assert_eq!(ask(&f, Abi::X86_64, "clone3", &[]), NO_SUCH_CALL);
    assert_eq!(ask(&f, Abi::I386, "clone3", &[]), NO_SUCH_CALL);
    for name in ["open_tree_attr", "file_getattr", "file_setattr"] {
        assert_eq!(ask(&f, Abi::X86_64, name, &[]), NO_SUCH_CALL, "{name}");
        assert_eq!(ask(&f, Abi::I386, name, &[]), NO_SUCH_CALL, "{name}");
    }
    for n in [467, 1000, 0x3fff_ffff, u32::MAX] {
        assert_eq!(answer(&f, Abi::X86_64, n, [0; 6]), NO_SUCH_CALL, "{n}");
        assert_eq!(answer(&f, Abi::I386, n, [0; 6]), NO_SUCH_CALL, "{n}");
    }
    // x32: read, and the execve of its own number.
    for n in [0, 1, 59, 520, 547] {
        assert_eq!(answer(&f, Abi::X86_64, 0x4000_0000 + n, [0; 6]), NO_SUCH_CALL);
    }
    // Holes in the middle of the table are known not to be calls.
    assert_eq!(answer(&f, Abi::X86_64, 400, [0; 6]), NOT_PERMITTED);
}

#[test]
fn other_machines_are_killed() {
    assert_eq!(answer(&filter(), Abi::Aarch64, 0, [0; 6]), KILL);
    assert_eq!(run(&filter(), 0, 0, [0; 6]).0, KILL);
}

#[test]
fn clone_makes_no_namespaces() {
    for (abi, host) in [(Abi::X86_64, X86), (Abi::I386, X86), (Abi::Aarch64, ARM), (Abi::Arm, ARM)] {
        let f = filter_for(&host, &DEFAULT);
        // pthread_create and fork.
        for flags in [0x3d_0f00, 0x120_0011, 17] {
            assert_eq!(ask(&f, abi, "clone", &[flags]), ALLOW, "{flags:#x}");
        }
        for ns in [0x2_0000u64, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000] {
            assert_eq!(ask(&f, abi, "clone", &[ns | 17]), NOT_PERMITTED, "{ns:#x}");
            assert_eq!(ask(&f, abi, "clone", &[ns | 1 << 40]), NOT_PERMITTED, "{ns:#x}");
        }
    }
    all(Abi::X86_64, &["SYS_ADMIN"], "clone clone3 unshare setns", ALLOW);
    assert_eq!(ask(&filter_for(&X86, &["SYS_ADMIN"]), Abi::X86_64, "clone", &[0x1000_0000]), ALLOW);
}

#[test]
fn sockets_of_every_family_but() {
    let f = filter();
    let refused = [12, 19, 20, 23, 25, 34, 37, 38, 40, 46, 1000, u64::from(u32::MAX)];
    for abi in [Abi::X86_64, Abi::I386] {
        for family in 0..=45 {
            let expected = if refused.contains(&family) { NOT_PERMITTED } else { ALLOW };
            assert_eq!(ask(&f, abi, "socket", &[family]), expected, "family {family} on {abi:?}");
        }
        for family in refused {
            assert_eq!(ask(&f, abi, "socket", &[family]), NOT_PERMITTED, "family {family} on {abi:?}");
        }
    }
    // The kernel takes an int: a set bit above it must not hide AF_ALG.
    assert_eq!(ask(&f, Abi::X86_64, "socket", &[38 | 1 << 32]), NOT_PERMITTED);
    assert_eq!(ask(&f, Abi::X86_64, "socket", &[2 | 1 << 32]), ALLOW);
}

#[test]
fn socketcall_opens_no_socket() {
    let f = filter();
    assert_eq!(ask(&f, Abi::I386, "socketcall", &[1]), NOT_PERMITTED);
    for call in 2..=20 {
        assert_eq!(ask(&f, Abi::I386, "socketcall", &[call]), ALLOW, "{call}");
    }
}

#[test]
fn personality_knows_five_values() {
    let f = filter();
    for p in [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff] {
        assert_eq!(ask(&f, Abi::X86_64, "personality", &[p]), ALLOW, "{p:#x}");
        assert_eq!(ask(&f, Abi::I386, "personality", &[p]), ALLOW, "{p:#x}");
    }
    // ADDR_NO_RANDOMIZE, READ_IMPLIES_EXEC, and other neighbours.
    for p in [0x4_0000, 0x40_0000, 1, 7, 9, 0x1_ffff, 0x2_0001, 0x2_0009, 0xffff_fffe] {
        assert_eq!(ask(&f, Abi::X86_64, "personality", &[p]), NOT_PERMITTED, "{p:#x}");
    }
}

#[test]
fn capabilities_open_their_calls_and_no_others() {
    let lines = [
        ("DAC_READ_SEARCH", "open_by_handle_at"),
        ("SYS_MODULE", "delete_module finit_module init_module"),
        ("SYS_RAWIO", "ioperm iopl"),
        ("SYS_CHROOT", "chroot"),
        ("SYS_PTRACE", "kcmp pidfd_getfd process_madvise"),
        ("SYS_PACCT", "acct"),
        (
            "SYS_ADMIN",
            "bpf clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr lsm_list_modules \
             lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl quotactl_fd \
             setdomainname sethostname setns syslog umount2 unshare",
        ),
        ("SYS_BOOT", "reboot"),
        ("SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
        ("SYS_TIME", "clock_settime settimeofday"),
        ("SYS_TTY_CONFIG", "vhangup"),
        ("SYSLOG", "syslog"),
        ("PERFMON", "perf_event_open"),
        ("BPF", "bpf"),
    ];
    for (cap, names) in lines {
        all(Abi::X86_64, &[cap], names, ALLOW);
        for (other, theirs) in lines {
            for name in theirs.split_whitespace() {
                let granted = lines.iter().any(|(c, n)| *c == cap && n.split_whitespace().any(|n| n == name));
                let got = ask(&filter_for(&X86, &[cap]), Abi::X86_64, name, &[]) == ALLOW;
                assert_eq!(got, granted, "{name} (of {other}) with {cap}");
            }
        }
    }
    all(Abi::X86_64, &[], "chroot", NOT_PERMITTED);
    all(Abi::I386, &["SYS_TIME"], "stime clock_settime64", ALLOW);
    all(Abi::I386, &["SYS_ADMIN"], "umount", ALLOW);
    // Even --privileged's full set does not bring these back.
    let everything = crate::caps::names(crate::caps::ALL);
    let everything: Vec<&str> = everything.iter().map(String::as_str).collect();
    all(Abi::X86_64, &everything, "io_uring_setup keyctl kexec_load swapon userfaultfd pivot_root", NOT_PERMITTED);
}

#[test]
fn the_32_bit_abis_are_filtered_by_their_own_numbers() {
    all(Abi::I386, &DEFAULT, "getpid open read write mmap2 ipc waitpid time _llseek clock_gettime64", ALLOW);
    all(
        Abi::I386,
        &DEFAULT,
        "keyctl unshare mount umount vm86 vm86old nice sigaction signal io_uring_setup",
        NOT_PERMITTED,
    );
    all(Abi::Arm, &DEFAULT, "getpid open read write set_tls cacheflush breakpoint arm_fadvise64_64", ALLOW);
    all(Abi::Arm, &DEFAULT, "keyctl unshare mount get_tls usr26", NOT_PERMITTED);
    all(Abi::Aarch64, &DEFAULT, "openat read write clone futex getrandom newfstatat faccessat2", ALLOW);
    all(Abi::Aarch64, &DEFAULT, "keyctl unshare mount io_uring_setup", NOT_PERMITTED);
    let f = filter_for(&ARM, &DEFAULT);
    for n in [467, 1000, 0xe_ffff, 0xf_0006 + 1, u32::MAX] {
        assert_eq!(answer(&f, Abi::Arm, n, [0; 6]), NO_SUCH_CALL, "{n:#x}");
    }
    assert_eq!(answer(&f, Abi::X86_64, 0, [0; 6]), KILL);
}

/// The default profile said twice must agree: by the table, and by the filter made of it.
#[test]
fn every_number_gets_the_tables_verdict() {
    use super::super::policy::Outcome;
    for host in [&X86, &ARM] {
        let f = filter_for(host, &DEFAULT);
        for table in default_tables(host, crate::caps::mask(&DEFAULT)) {
            for n in (0..600).chain(0xf_0000..0xf_0010) {
                let (_, outcome) = table.spans.iter().rev().find(|(start, _)| *start <= n).unwrap();
                if let Outcome::Return(action) = outcome {
                    assert_eq!(answer(&f, table.abi, n, [u64::MAX; 6]), *action, "{n} on {:?}", table.abi);
                }
            }
        }
    }
}

#[test]
fn the_filter_is_short_and_shallow() {
    for host in [&X86, &ARM] {
        let f = filter_for(host, &DEFAULT);
        assert!(f.len() < 1200, "{} instructions", f.len());
        for abi in host.abis {
            let deepest = (0..500).map(|n| run(&f, n, abi.audit_arch(), [0; 6]).1).max().unwrap();
            assert!(deepest <= 24, "{deepest} steps on {abi:?}");
        }
    }
}
