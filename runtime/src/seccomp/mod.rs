//! Seccomp: which system calls the container may make.
//!
//! [`compile`] turns a [`Seccomp`] wish into a program for `sys::security::install_seccomp`. The
//! default profile (`profile`) is a table of calls and conditions that the compiler checks; a custom
//! one (`json`) is Docker's or OCI's JSON. Both become verdicts per number (`policy`), which `bpf`
//! turns into a search.

mod bpf;
mod json;
mod numbers;
mod policy;
mod profile;
#[cfg(test)]
mod tests;

use libc::sock_filter;
use plan::Result;

use crate::spec::Seccomp;
use numbers::{Abi, calls};
use policy::{ALLOW, Check, NO_SUCH_CALL, NOT_PERMITTED, Rule, Table, Verdict};
use profile::{Answer, answer, unconditional};

/// The filter for a container with this bounding set; empty if there is to be none.
///
/// Errors: a profile that is not one, with the field that is wrong.
pub fn compile(wish: &Seccomp, bounding: &[String]) -> Result<Vec<sock_filter>> {
    let bounding = crate::caps::mask(bounding);
    match wish {
        Seccomp::Unconfined => Ok(Vec::new()),
        Seccomp::Default => bpf::assemble(&default_tables(&HOST, bounding)),
        Seccomp::Profile(text) => match json::read(text, &HOST, bounding)? {
            Some(tables) => bpf::assemble(&tables),
            None => Ok(Vec::new()),
        },
    }
}

/// A machine: what it runs, the native ABI first, and what profiles call it.
struct Host {
    abis: [Abi; 2],
    /// Docker's name, as in a profile's `includes.arches`.
    name: &'static str,
}

const X86: Host = Host { abis: [Abi::X86_64, Abi::I386], name: "amd64" };
const ARM: Host = Host { abis: [Abi::Aarch64, Abi::Arm], name: "arm64" };
const HOST: Host = if cfg!(target_arch = "aarch64") { ARM } else { X86 };
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the system call tables cover x86-64 and AArch64");

fn default_tables(host: &Host, bounding: u64) -> Vec<Table> {
    host.abis.iter().map(|abi| default_table(*abi, bounding)).collect()
}

fn default_table(abi: Abi, bounding: u64) -> Table {
    // A call newer than the profile is not forbidden but unknown: a C library that tries it must
    // learn that it does not exist and take the older way.
    let newest = newest(abi, unconditional);
    let known = calls(abi).filter(|(n, _)| *n <= newest || *n >= numbers::PRIVATE_BASE);
    let verdicts = known.map(|(n, row)| {
        let verdict = match answer(row, bounding) {
            Answer::Allow => Verdict::Always(ALLOW),
            Answer::NotPermitted => Verdict::Always(NOT_PERMITTED),
            Answer::NoSuchCall => Verdict::Always(NO_SUCH_CALL),
            Answer::If(test) => {
                let rules = vec![Rule { tests: vec![test], action: ALLOW }];
                Verdict::Checked(Check { rules, otherwise: NOT_PERMITTED })
            }
        };
        (n, verdict)
    });
    Table::new(abi, verdicts, NOT_PERMITTED, newest, NO_SUCH_CALL)
}

/// The highest number among the calls that a profile speaks of; an ABI's private calls, far above,
/// do not tell how new it is.
fn newest(abi: Abi, named: impl Fn(usize) -> bool) -> u32 {
    calls(abi).filter(|(n, row)| *n < numbers::PRIVATE_BASE && named(*row)).last().map_or(0, |(n, _)| n)
}
