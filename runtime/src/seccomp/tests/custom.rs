use super::super::policy::NO_SUCH_CALL;
use super::super::{ARM, X86, bpf, json};
use super::*;
use crate::caps::mask;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const EPERM: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;

fn filter(profile: &str, caps: &[&str]) -> Vec<sock_filter> {
    bpf::assemble(&json::read(profile, &X86, mask(caps)).unwrap().unwrap()).unwrap()
}

fn error(profile: &str) -> String {
    json::read(profile, &X86, 0).unwrap_err().to_string()
}

/// An allow list with these rules and both x86 ABIs.
fn denying(rules: &str) -> String {
    format!(
        r#"{{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,
            "architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86"],"syscalls":[{rules}]}}"#
    )
}

#[test]
fn an_allow_list() {
    let f = filter(&denying(r#"{"names":["read","write","statx","made_up_call"],"action":"SCMP_ACT_ALLOW"}"#), &[]);
    assert_eq!(ask(&f, Abi::X86_64, "read", &[]), ALLOW);
    assert_eq!(ask(&f, Abi::I386, "write", &[]), ALLOW);
    assert_eq!(ask(&f, Abi::X86_64, "open", &[]), EPERM);
    // statx is the newest named: what is newer does not exist.
    assert_eq!(ask(&f, Abi::X86_64, "io_pgetevents", &[]), NO_SUCH_CALL);
    assert_eq!(answer(&f, Abi::X86_64, 0x4000_0000, [0; 6]), NO_SUCH_CALL);
}

#[test]
fn a_deny_list() {
    let f = filter(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
            {"name":"chmod","action":"SCMP_ACT_ERRNO"},
            {"names":["chown"],"action":"SCMP_ACT_ERRNO","errnoRet":22},
            {"names":["mount"],"action":"SCMP_ACT_KILL_PROCESS"},
            {"names":["umount2"],"action":"SCMP_ACT_TRAP"},
            {"names":["swapon"],"action":"SCMP_ACT_TRACE","errnoRet":7},
            {"names":["swapoff"],"action":"SCMP_ACT_LOG"},
            {"names":["acct"],"action":"SCMP_ACT_KILL"}]}"#,
        &[],
    );
    for (name, expected) in [
        ("read", ALLOW),
        ("chmod", EPERM),
        ("chown", libc::SECCOMP_RET_ERRNO | 22),
        ("mount", libc::SECCOMP_RET_KILL_PROCESS),
        ("umount2", libc::SECCOMP_RET_TRAP),
        ("swapon", libc::SECCOMP_RET_TRACE | 7),
        ("swapoff", libc::SECCOMP_RET_LOG),
        ("acct", libc::SECCOMP_RET_KILL_THREAD),
    ] {
        assert_eq!(ask(&f, Abi::X86_64, name, &[]), expected, "{name}");
    }
    assert_eq!(answer(&f, Abi::X86_64, 5000, [0; 6]), ALLOW, "a deny list knows no newest call");
    assert_eq!(answer(&f, Abi::X86_64, 0x4000_0000, [0; 6]), NO_SUCH_CALL, "but no x32 either");
    // i386 was not listed.
    assert_eq!(answer(&f, Abi::I386, 1, [0; 6]), libc::SECCOMP_RET_KILL_PROCESS);
}

#[test]
fn every_comparison_in_64_bits() {
    let big = 0x1_0000_0005u64;
    let samples = [0, 4, 5, 6, u64::from(u32::MAX), big - 1, big, big + 1, 0x2_0000_0000, 0x2_0000_0005, u64::MAX];
    type Truth = fn(u64, u64) -> bool;
    let ops: [(&str, Truth); 6] = [
        ("EQ", |a, b| a == b),
        ("NE", |a, b| a != b),
        ("LT", |a, b| a < b),
        ("LE", |a, b| a <= b),
        ("GT", |a, b| a > b),
        ("GE", |a, b| a >= b),
    ];
    for value in [5, big, 0, u64::MAX] {
        for (op, truth) in ops {
            let f = filter(
                &denying(&format!(
                    r#"{{"names":["lseek"],"action":"SCMP_ACT_ALLOW","args":[{{"index":3,"value":{value},"op":"SCMP_CMP_{op}"}}]}}"#
                )),
                &[],
            );
            for a in samples {
                let expected = if truth(a, value) { ALLOW } else { EPERM };
                assert_eq!(ask(&f, Abi::X86_64, "lseek", &[0, 0, 0, a]), expected, "{a:#x} {op} {value:#x}");
                let narrow = if truth(a & 0xffff_ffff, value & 0xffff_ffff) { ALLOW } else { EPERM };
                let got = ask(&f, Abi::I386, "lseek", &[0, 0, 0, a & 0xffff_ffff]);
                assert_eq!(got, narrow, "i386: {a:#x} {op} {value:#x}");
            }
        }
    }
}

#[test]
fn masked_equality() {
    let f = filter(
        &denying(
            r#"{"names":["clone"],"action":"SCMP_ACT_ALLOW","args":[
                {"index":0,"value":18446744069414584575,"valueTwo":17,"op":"SCMP_CMP_MASKED_EQ"}]}"#,
        ),
        &[],
    );
    // The mask is 0xffffffff_000000ff.
    for (a, expected) in [(17, ALLOW), (0xff00 + 17, ALLOW), (18, EPERM), (17 | 1 << 32, EPERM), (0, EPERM)] {
        assert_eq!(ask(&f, Abi::X86_64, "clone", &[a]), expected, "{a:#x}");
    }
}

#[test]
fn tests_of_different_arguments_are_all_needed_those_of_one_are_alternatives() {
    let f = filter(
        &denying(
            r#"{"names":["fcntl"],"action":"SCMP_ACT_ALLOW","args":[
                 {"index":1,"value":3,"op":"SCMP_CMP_EQ"},{"index":2,"value":9,"op":"SCMP_CMP_GT"},
                 {"index":0,"value":2,"op":"SCMP_CMP_LE"}]},
               {"names":["dup2"],"action":"SCMP_ACT_ALLOW","args":[
                 {"index":0,"value":3,"op":"SCMP_CMP_EQ"},{"index":0,"value":5,"op":"SCMP_CMP_EQ"}]},
               {"names":["dup2"],"action":"SCMP_ACT_ERRNO","errnoRet":13,"args":[
                 {"index":1,"value":7,"op":"SCMP_CMP_EQ"}]}"#,
        ),
        &[],
    );
    for (args, expected) in
        [([2, 3, 10], ALLOW), ([3, 3, 10], EPERM), ([2, 4, 10], EPERM), ([2, 3, 9], EPERM), ([0, 3, u64::MAX], ALLOW)]
    {
        assert_eq!(ask(&f, Abi::X86_64, "fcntl", &args), expected, "{args:?}");
    }
    let eacces = libc::SECCOMP_RET_ERRNO | 13;
    for (args, expected) in [([3, 0], ALLOW), ([5, 7], ALLOW), ([4, 0], EPERM), ([4, 7], eacces)] {
        assert_eq!(ask(&f, Abi::X86_64, "dup2", &args), expected, "{args:?}");
    }
}

#[test]
fn a_rule_without_tests_stands_above_those_with() {
    let f = filter(
        &denying(
            r#"{"names":["clone"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"}]},
               {"names":["clone"],"action":"SCMP_ACT_LOG"},
               {"names":["clone"],"action":"SCMP_ACT_KILL"},
               {"names":["mount"],"action":"SCMP_ACT_ERRNO"},
               {"names":["mount"],"action":"SCMP_ACT_ALLOW","args":[{"index":3,"value":1,"op":"SCMP_CMP_EQ"}]}"#,
        ),
        &[],
    );
    assert_eq!(ask(&f, Abi::X86_64, "clone", &[1]), libc::SECCOMP_RET_LOG);
    // A rule that repeats the default is no rule.
    assert_eq!(ask(&f, Abi::X86_64, "mount", &[0, 0, 0, 1]), ALLOW);
    assert_eq!(ask(&f, Abi::X86_64, "mount", &[0, 0, 0, 0]), EPERM);
}

#[test]
fn conditions_on_capabilities_machine_and_kernel() {
    let profile = denying(
        r#"{"names":["statx"],"action":"SCMP_ACT_ALLOW"},
           {"names":["mount"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"]}},
           {"names":["clone3"],"action":"SCMP_ACT_ERRNO","errnoRet":38,"excludes":{"caps":["CAP_SYS_ADMIN"]}},
           {"names":["clone3"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN","CAP_SYS_PTRACE"]}},
           {"names":["arch_prctl"],"action":"SCMP_ACT_ALLOW","includes":{"arches":["amd64","x32"]}},
           {"names":["chown"],"action":"SCMP_ACT_ALLOW","includes":{"arches":["arm64"]}},
           {"names":["chmod"],"action":"SCMP_ACT_ALLOW","excludes":{"arches":["amd64"]}},
           {"names":["ptrace"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"4.8"}},
           {"names":["acct"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"99.0"}},
           {"names":["reboot"],"action":"SCMP_ACT_ALLOW","excludes":{"minKernel":"4.8"}}"#,
    );
    let plain = filter(&profile, &[]);
    let admin = filter(&profile, &["SYS_ADMIN"]);
    let both = filter(&profile, &["SYS_ADMIN", "SYS_PTRACE"]);
    for (name, p, a, b) in [
        ("mount", EPERM, ALLOW, ALLOW),
        ("clone3", NO_SUCH_CALL, NO_SUCH_CALL, ALLOW),
        ("arch_prctl", ALLOW, ALLOW, ALLOW),
        ("chown", EPERM, EPERM, EPERM),
        ("chmod", EPERM, EPERM, EPERM),
        ("ptrace", ALLOW, ALLOW, ALLOW),
        ("acct", EPERM, EPERM, EPERM),
        ("reboot", EPERM, EPERM, EPERM),
    ] {
        for (f, expected) in [(&plain, p), (&admin, a), (&both, b)] {
            // With SYS_ADMIN alone no rule names clone3, so that it is newer than any named.
            assert_eq!(ask(f, Abi::X86_64, name, &[]), expected, "{name}");
        }
    }
}

#[test]
fn architectures_come_as_list_or_as_map() {
    let map = r#"{"defaultAction":"SCMP_ACT_ALLOW","archMap":[
        {"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86","SCMP_ARCH_X32"]},
        {"architecture":"SCMP_ARCH_AARCH64","subArchitectures":["SCMP_ARCH_ARM"]},
        {"architecture":"SCMP_ARCH_RISCV64","subArchitectures":null}],"syscalls":null}"#;
    assert_eq!(answer(&filter(map, &[]), Abi::I386, 1, [0; 6]), ALLOW);
    let arm = bpf::assemble(&json::read(map, &ARM, 0).unwrap().unwrap()).unwrap();
    assert_eq!(answer(&arm, Abi::Arm, 1, [0; 6]), ALLOW);
    assert_eq!(answer(&arm, Abi::X86_64, 1, [0; 6]), libc::SECCOMP_RET_KILL_PROCESS);
    assert!(
        error(
            r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"archMap":[{"architecture":"x"}]}"#
        )
        .starts_with("both 'architectures' and 'archMap' are specified in the seccomp profile")
    );
}

#[test]
fn multiplexed_calls_follow_their_own_rule() {
    let deny = filter(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"syscalls":[
            {"names":["socket","sendmmsg","shmat"],"action":"SCMP_ACT_ERRNO"}]}"#,
        &[],
    );
    for (call, args, expected) in [
        ("socket", &[2u64][..], EPERM),
        ("socketcall", &[1], EPERM),
        ("socketcall", &[3], ALLOW),
        ("socketcall", &[20], EPERM),
        ("ipc", &[21], EPERM),
        ("ipc", &[21 | 1 << 16], EPERM),
        ("ipc", &[22], ALLOW),
    ] {
        assert_eq!(ask(&deny, Abi::I386, call, args), expected, "{call} {args:?}");
    }
}

#[test]
fn no_rules_and_no_default_is_no_filter() {
    for text in ["{}", r#"{"syscalls":[]}"#, r#"{"syscalls":null,"defaultAction":null}"#] {
        assert!(json::read(text, &X86, 0).unwrap().is_none(), "{text}");
    }
}

#[test]
fn errors_name_the_field() {
    for (profile, expected) in [
        ("{", "decoding seccomp profile failed: EOF while parsing an object at line 1 column 1"),
        ("[]", "seccomp profile: is not a JSON object"),
        (r#"{"defaultAction":"ALLOW"}"#, "seccomp profile: defaultAction: \"ALLOW\" is no seccomp action"),
        (r#"{"syscalls":[{"names":["read"]}]}"#, "seccomp profile: has no defaultAction"),
        (
            r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#,
            "seccomp profile: defaultAction: user notification (SCMP_ACT_NOTIFY) is not supported",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":5000}"#,
            "seccomp profile: defaultErrnoRet: 5000 is larger than 4095",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","defaultErrnoRet":-1}"#,
            "seccomp profile: defaultErrnoRet: is not a number from 0 to 2^64-1",
        ),
        (r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":{}}"#, "seccomp profile: syscalls: is not a list"),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["x"]}]}"#,
            "seccomp profile: syscalls[0]: has no action",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":[7],"action":"SCMP_ACT_KILL"}]}"#,
            "seccomp profile: syscalls[0].names[0]: is not a string",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"a","names":["b"],"action":"SCMP_ACT_KILL"}]}"#,
            "both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names': syscalls[0]",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"SCMP_ACT_KILL","args":[{"index":6,"op":"SCMP_CMP_EQ"}]}]}"#,
            "seccomp profile: syscalls[0].args[0]: index 6: a system call has arguments 0 to 5",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"SCMP_ACT_KILL","args":[{"index":0,"op":"EQ"}]}]}"#,
            "seccomp profile: syscalls[0].args[0].op: \"EQ\" is no comparison",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"SCMP_ACT_KILL","args":[{"index":0}]}]}"#,
            "seccomp profile: syscalls[0].args[0]: has no op",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"SCMP_ACT_KILL","includes":{"minKernel":"new"}}]}"#,
            "seccomp profile: syscalls[0].includes.minKernel: \"new\" is no kernel version like 4.8",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["x86"]}"#,
            "seccomp profile: architectures[0]: \"x86\" is no architecture",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_LOG"]}"#,
            "seccomp profile: flags[0]: SECCOMP_FILTER_FLAG_LOG is not supported",
        ),
    ] {
        assert_eq!(error(profile), expected);
        assert!(json::read(profile, &X86, 0).unwrap_err().hint.is_some());
    }
}

#[test]
fn a_profile_too_large_for_the_kernel_is_refused() {
    let arg = |v: u32| format!(r#"{{"index":0,"value":{v},"op":"SCMP_CMP_EQ"}}"#);
    let args: Vec<String> = (0..1000).map(arg).collect();
    let profile = denying(&format!(r#"{{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{}]}}"#, args.join(",")));
    let e = bpf::assemble(&json::read(&profile, &X86, 0).unwrap().unwrap()).unwrap_err();
    assert!(e.to_string().starts_with("the seccomp profile is too large: it compiles to "), "{e}");
    // Far jumps: 300 rules before the table, and every call still finds its answer.
    let args: Vec<String> = (0..300).map(arg).collect();
    let f = filter(
        &denying(&format!(r#"{{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{}]}}"#, args.join(","))),
        &[],
    );
    for (a, expected) in [(0, ALLOW), (150, ALLOW), (299, ALLOW), (300, EPERM)] {
        assert_eq!(ask(&f, Abi::X86_64, "read", &[a]), expected, "{a}");
        assert_eq!(ask(&f, Abi::I386, "read", &[a]), expected, "{a}");
    }
    assert_eq!(ask(&f, Abi::X86_64, "write", &[0]), NO_SUCH_CALL);
}
