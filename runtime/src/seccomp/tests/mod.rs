//! The filters, run by an interpreter of our own: no privilege, any architecture.

mod custom;
mod default;
mod interpreter;
mod random;

use libc::sock_filter;

use super::numbers::{self, Abi};
use interpreter::run;

/// One call in the eyes of a filter.
fn answer(filter: &[sock_filter], abi: Abi, number: u32, args: [u64; 6]) -> u32 {
    run(filter, number, abi.audit_arch(), args).0
}

/// The same by name; the first arguments given, the rest zero.
fn ask(filter: &[sock_filter], abi: Abi, name: &str, args: &[u64]) -> u32 {
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    answer(filter, abi, number(abi, name), all)
}

fn number(abi: Abi, name: &str) -> u32 {
    let row = numbers::row(name).unwrap_or_else(|| panic!("{name} is in no table"));
    let n = numbers::SYSCALLS[row].1[abi as usize];
    assert_ne!(n, numbers::NO, "{name} is no call of {abi:?}");
    n
}

#[test]
fn the_table_of_numbers_is_sorted_and_is_the_kernels() {
    assert!(numbers::SYSCALLS.is_sorted_by(|a, b| a.0 < b.0));
    for abi in [Abi::X86_64, Abi::I386, Abi::Aarch64, Abi::Arm] {
        let all: Vec<_> = numbers::calls(abi).collect();
        assert!(all.is_sorted_by(|a, b| a.0 < b.0), "{abi:?}");
        let rows = numbers::SYSCALLS.iter().filter(|(_, n)| n[abi as usize] != numbers::NO).count();
        // On 32-bit Arm two names stand for one number.
        assert_eq!(all.len(), rows - usize::from(abi == Abi::Arm), "{abi:?}");
    }
    #[cfg(target_arch = "x86_64")]
    for (name, n) in [
        ("read", libc::SYS_read),
        ("clone3", libc::SYS_clone3),
        ("io_uring_setup", libc::SYS_io_uring_setup),
        ("keyctl", libc::SYS_keyctl),
        ("openat2", libc::SYS_openat2),
        ("mseal", libc::SYS_mseal),
    ] {
        assert_eq!(number(Abi::X86_64, name), n as u32);
    }
}
