//! What a filter decides, before it is code: for every ABI a line of numbers cut into spans, each
//! with a verdict. Both the default profile and the JSON ones end up here.

use super::numbers::Abi;

/// Return values of a filter (`SECCOMP_RET_*`, the errno or data in the low half).
pub(super) const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
pub(super) const NOT_PERMITTED: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
pub(super) const NO_SUCH_CALL: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

/// From here on a number means x32, which Debian's kernels do not have and which has been a source
/// of holes in filters (the same call under two numbers): it is answered as if it did not exist.
const X32: u32 = 0x4000_0000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

/// A question about one argument (0 to 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Test {
    /// `(argument & mask) op value`, unsigned, 64 bits wide.
    Compare { arg: u8, mask: u64, op: Op, value: u64 },
    /// None of these bits is set in the low word.
    NoBits { arg: u8, bits: u32 },
    /// The low word lies in one of these spans (inclusive, ascending, with gaps between them).
    OneOf { arg: u8, spans: &'static [(u32, u32)] },
}

/// If all tests pass, this action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub tests: Vec<Test>,
    pub action: u32,
}

/// The first rule that applies, else `otherwise`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Check {
    pub rules: Vec<Rule>,
    pub otherwise: u32,
}

/// What is to become of one call.
pub(super) enum Verdict {
    Always(u32),
    Checked(Check),
}

/// A verdict within a [`Table`], kept small: a start touches the table's pages for the first time,
/// and in a virtual machine each page costs microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Return(u32),
    /// An entry of `checks`.
    Check(u16),
}

/// One ABI's verdicts.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub abi: Abi,
    /// (first number, outcome up to the next span), ascending from 0, covering every number.
    pub spans: Vec<(u32, Outcome)>,
    pub checks: Vec<Check>,
}

impl Table {
    /// `calls` in ascending order; `gaps` for the numbers between them, up to and with `newest`, and
    /// `beyond` for those after it.
    pub(super) fn new(
        abi: Abi,
        calls: impl Iterator<Item = (u32, Verdict)>,
        gaps: u32,
        newest: u32,
        beyond: u32,
    ) -> Table {
        let mut table = Table { abi, spans: Vec::with_capacity(96), checks: Vec::new() };
        let mut next = 0;
        for (n, verdict) in calls {
            table.fill(next, n, gaps, newest, beyond);
            match verdict {
                Verdict::Always(action) => table.add(n, Outcome::Return(action)),
                Verdict::Checked(check) => {
                    table.add(n, Outcome::Check(table.checks.len() as u16));
                    table.checks.push(check);
                }
            }
            next = n + 1;
        }
        table.fill(next, u32::MAX, gaps, newest, beyond);
        if abi == Abi::X86_64 {
            table.add(X32, Outcome::Return(NO_SUCH_CALL));
        }
        table
    }

    /// The numbers from `from` up to `to`, none of which is a call.
    fn fill(&mut self, from: u32, to: u32, gaps: u32, newest: u32, beyond: u32) {
        if from < to && from <= newest {
            self.add(from, Outcome::Return(gaps));
        }
        let unknown = from.max(newest.saturating_add(1));
        if unknown < to {
            self.add(unknown, Outcome::Return(beyond));
        }
    }

    fn add(&mut self, start: u32, outcome: Outcome) {
        if self.spans.last().is_none_or(|(_, last)| *last != outcome) {
            self.spans.push((start, outcome));
        }
    }
}
