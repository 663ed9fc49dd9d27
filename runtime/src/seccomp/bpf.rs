//! From verdicts to the kernel's classic BPF.
//!
//! Numbers are found by binary search, so that a call costs about eight comparisons instead of the
//! hundreds of a list; and a call whose answer depends on the number alone costs none after the
//! first, because the kernel (5.11 and newer) runs the filter once per number at installation and
//! remembers the plain permissions. That only works for paths that load nothing but number and
//! architecture, and it makes the search pay at installation too.
//!
//! The code is written from its end to its beginning: BPF jumps only forward, so every target is
//! known by the time a jump to it is made. Conditional jumps reach 255 instructions; farther ones
//! hop over an unconditional jump, which reaches everywhere.

use libc::sock_filter;
use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JGT, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W,
};
use plan::{Error, Result};

use super::numbers::Abi;
use super::policy::{Check, Op, Outcome, Table, Test};

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGS: u32 = 16;

/// BPF_MAXINSNS.
const MAX: usize = 4096;
/// How far a conditional jump is trusted to reach: 255 less what may still be put in between.
const REACH: usize = 250;

/// The whole filter: a table per ABI, the first one quickest; any other ABI is killed.
pub(super) fn assemble(tables: &[Table]) -> Result<Vec<sock_filter>> {
    let mut code = Code { reversed: Vec::with_capacity(300), returns: Vec::new() };
    let entries: Vec<Label> = tables.iter().rev().map(|t| code.table(t)).collect();
    let mut other = Target::Return(libc::SECCOMP_RET_KILL_PROCESS);
    for (table, entry) in tables.iter().rev().zip(entries) {
        let test = code.branch(BPF_JEQ, table.abi.audit_arch(), Target::At(entry), other);
        other = Target::At(test);
    }
    code.load(ARCH);
    if code.reversed.len() > MAX {
        return Err(Error::invalid("the seccomp profile is too large")
            .with_cause(format!("it compiles to {} instructions, the kernel takes {MAX}", code.reversed.len()))
            .with_hint("use fewer rules with arguments"));
    }
    code.reversed.reverse();
    Ok(code.reversed)
}

/// An instruction, by its distance from the end of the program.
#[derive(Clone, Copy)]
struct Label(usize);

#[derive(Clone, Copy)]
enum Target {
    At(Label),
    Return(u32),
}

struct Code {
    reversed: Vec<sock_filter>,
    /// The latest RET of each action, to be shared while it is in reach.
    returns: Vec<(u32, Label)>,
}

impl Code {
    fn push(&mut self, code: u32, jt: usize, jf: usize, k: u32) -> Label {
        self.reversed.push(sock_filter { code: code as u16, jt: jt as u8, jf: jf as u8, k });
        Label(self.reversed.len())
    }

    fn load(&mut self, offset: u32) -> Label {
        self.push(BPF_LD | BPF_W | BPF_ABS, 0, 0, offset)
    }

    fn distance(&self, label: Label) -> usize {
        self.reversed.len() - label.0
    }

    /// A label that the next few instructions can reach.
    fn near(&mut self, target: Target) -> Label {
        match target {
            Target::At(label) if self.distance(label) <= REACH => label,
            Target::At(label) => self.push(BPF_JMP | BPF_JA, 0, 0, self.distance(label) as u32),
            Target::Return(action) => {
                let known = self.returns.iter().position(|(a, _)| *a == action);
                if let Some(i) = known
                    && self.distance(self.returns[i].1) <= REACH
                {
                    return self.returns[i].1;
                }
                let label = self.push(BPF_RET | BPF_K, 0, 0, action);
                match known {
                    Some(i) => self.returns[i].1 = label,
                    None => self.returns.push((action, label)),
                }
                label
            }
        }
    }

    /// Makes `target` what follows the instruction pushed next.
    fn continue_at(&mut self, target: Target) {
        match target {
            Target::Return(action) => {
                self.push(BPF_RET | BPF_K, 0, 0, action);
            }
            Target::At(label) if self.distance(label) > 0 => {
                self.push(BPF_JMP | BPF_JA, 0, 0, self.distance(label) as u32);
            }
            Target::At(_) => {}
        }
    }

    /// Compares the accumulator with `k`.
    fn branch(&mut self, op: u32, k: u32, yes: Target, no: Target) -> Label {
        let yes = self.near(yes);
        let no = self.near(no);
        let (jt, jf) = (self.distance(yes), self.distance(no));
        self.push(BPF_JMP | op | BPF_K, jt, jf, k)
    }

    /// Binary search of the accumulator in spans that begin at these values.
    fn search(&mut self, spans: &[(u32, Target)]) -> Target {
        if let [(_, only)] = spans {
            return *only;
        }
        let (low, high) = spans.split_at(spans.len() / 2);
        let pivot = high[0].0;
        let high = self.search(high);
        let low = self.search(low);
        Target::At(self.branch(BPF_JGE, pivot, high, low))
    }

    fn table(&mut self, table: &Table) -> Label {
        let mut spans = Vec::with_capacity(table.spans.len());
        for (start, outcome) in &table.spans {
            let target = match outcome {
                Outcome::Return(action) => Target::Return(*action),
                Outcome::Check(i) => self.check(table.abi, &table.checks[usize::from(*i)]),
            };
            spans.push((*start, target));
        }
        let target = self.search(&spans);
        self.continue_at(target);
        self.load(NUMBER)
    }

    fn check(&mut self, abi: Abi, check: &Check) -> Target {
        let mut next = Target::Return(check.otherwise);
        for rule in check.rules.iter().rev() {
            let mut then = Target::Return(rule.action);
            for test in rule.tests.iter().rev() {
                then = Target::At(self.test(abi, test, then, next));
            }
            next = then;
        }
        next
    }

    fn test(&mut self, abi: Abi, test: &Test, yes: Target, no: Target) -> Label {
        match *test {
            Test::NoBits { arg, bits } => {
                self.branch(BPF_JSET, bits, no, yes);
                self.load(low_word(arg))
            }
            Test::OneOf { arg, spans } => {
                let mut line = vec![(0, no)];
                for (from, to) in spans {
                    if *from == 0 {
                        line.clear();
                    }
                    line.push((*from, yes));
                    if let Some(after) = to.checked_add(1) {
                        line.push((after, no));
                    }
                }
                let target = self.search(&line);
                self.continue_at(target);
                self.load(low_word(arg))
            }
            Test::Compare { arg, mask, op, value } => {
                // x < v is not (x >= v): half of the operators, with the exits exchanged.
                let (op, yes, no) = match op {
                    Op::Ne => (Op::Eq, no, yes),
                    Op::Lt => (Op::Ge, no, yes),
                    Op::Le => (Op::Gt, no, yes),
                    _ => (op, yes, no),
                };
                // The registers of a 32-bit program have no high word; libseccomp, too, cuts the value.
                let words = if abi.narrow() {
                    Words { mask: mask as u32 as u64, value: value as u32 as u64 }
                } else {
                    Words { mask, value }
                };
                self.compare(abi, arg, words, op, yes, no)
            }
        }
    }

    /// A 64-bit comparison on a 32-bit machine: high word first, low word if that is undecided.
    fn compare(&mut self, abi: Abi, arg: u8, words: Words, op: Op, yes: Target, no: Target) -> Label {
        let low_op = match op {
            Op::Eq => BPF_JEQ,
            Op::Ge => BPF_JGE,
            _ => BPF_JGT,
        };
        self.branch(low_op, words.value as u32, yes, no);
        let low = self.masked(low_word(arg), words.mask as u32);
        if abi.narrow() {
            return low;
        }
        let high = (words.value >> 32) as u32;
        let undecided = self.branch(BPF_JEQ, high, Target::At(low), no);
        if op != Op::Eq {
            self.branch(BPF_JGT, high, yes, Target::At(undecided));
        }
        self.masked(low_word(arg) + 4, (words.mask >> 32) as u32)
    }

    fn masked(&mut self, offset: u32, mask: u32) -> Label {
        if mask != u32::MAX {
            self.push(BPF_ALU | BPF_AND | BPF_K, 0, 0, mask);
        }
        self.load(offset)
    }
}

#[derive(Clone, Copy)]
struct Words {
    mask: u64,
    value: u64,
}

/// Little-endian, as all the ABIs here are.
fn low_word(arg: u8) -> u32 {
    ARGS + 8 * u32::from(arg)
}
