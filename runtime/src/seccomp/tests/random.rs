//! Filters of random tables, compared with the tables themselves: every jump, near and far.

use super::super::bpf;
use super::super::policy::{Check, Op, Outcome, Rule, Table, Test, Verdict};
use super::*;

/// xorshift64: the same tables in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// Values that meet each other often, in either word.
    fn value(&mut self) -> u64 {
        let word = |r: u64| [0, 1, 2, 38, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff][r as usize % 7];
        (word(self.next()) << (32 * self.below(2))) | word(self.next())
    }

    fn action(&mut self) -> u32 {
        [libc::SECCOMP_RET_ALLOW, libc::SECCOMP_RET_KILL_PROCESS, libc::SECCOMP_RET_LOG][self.below(3) as usize]
            | self.below(3) as u32
    }

    fn test(&mut self) -> Test {
        let arg = self.below(6) as u8;
        match self.below(8) {
            0 => Test::NoBits { arg, bits: self.value() as u32 },
            1 => Test::OneOf { arg, spans: &[(1, 1), (38, 0x7fff_ffff), (0xffff_ffff, 0xffff_ffff)] },
            2 => Test::OneOf { arg, spans: &[(0, 2)] },
            _ => {
                let op = [Op::Eq, Op::Ne, Op::Lt, Op::Le, Op::Gt, Op::Ge][self.below(6) as usize];
                let mask = if self.below(3) == 0 { self.value() } else { u64::MAX };
                Test::Compare { arg, mask, op, value: self.value() }
            }
        }
    }

    fn table(&mut self, abi: Abi, calls: u64, rules: u64) -> Table {
        let mut n = 0;
        let verdicts: Vec<(u32, Verdict)> = (0..calls)
            .map(|_| {
                n += 1 + self.below(3) as u32;
                let verdict = match self.below(4) {
                    0 => {
                        let rule = |r: &mut Random| {
                            let tests = (0..1 + r.below(3)).map(|_| r.test()).collect();
                            Rule { tests, action: r.action() }
                        };
                        let rules = (0..self.below(rules)).map(|_| rule(self)).collect();
                        Verdict::Checked(Check { rules, otherwise: self.action() })
                    }
                    _ => Verdict::Always(self.action()),
                };
                (n, verdict)
            })
            .collect();
        Table::new(abi, verdicts.into_iter(), self.action(), n + 2, self.action())
    }
}

fn holds(test: &Test, abi: Abi, args: &[u64; 6]) -> bool {
    match *test {
        Test::NoBits { arg, bits } => args[arg as usize] as u32 & bits == 0,
        Test::OneOf { arg, spans } => {
            spans.iter().any(|(from, to)| (*from..=*to).contains(&(args[arg as usize] as u32)))
        }
        Test::Compare { arg, mask, op, value } => {
            let width = if abi.narrow() { u64::from(u32::MAX) } else { u64::MAX };
            let (a, v) = (args[arg as usize] & mask & width, value & width);
            match op {
                Op::Eq => a == v,
                Op::Ne => a != v,
                Op::Lt => a < v,
                Op::Le => a <= v,
                Op::Gt => a > v,
                Op::Ge => a >= v,
            }
        }
    }
}

fn expected(table: &Table, number: u32, args: &[u64; 6]) -> u32 {
    let (_, outcome) = table.spans.iter().rev().find(|(start, _)| *start <= number).unwrap();
    match outcome {
        Outcome::Return(action) => *action,
        Outcome::Check(i) => {
            let check = &table.checks[*i as usize];
            let rule = check.rules.iter().find(|r| r.tests.iter().all(|t| holds(t, table.abi, args)));
            rule.map_or(check.otherwise, |r| r.action)
        }
    }
}

#[test]
fn a_filter_says_what_its_table_says() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut longest = 0;
    for round in 0..60 {
        let (calls, rules) = (1 + random.below(120), 2 + random.below(6));
        let tables = [random.table(Abi::X86_64, calls, rules), random.table(Abi::I386, calls, rules)];
        let filter = match bpf::assemble(&tables) {
            Ok(f) => f,
            Err(e) => panic!("round {round}: {e}"),
        };
        longest = longest.max(filter.len());
        for table in &tables {
            for _ in 0..2000 {
                let number = random.below(2 * calls + 5) as u32;
                let mut args = [0; 6].map(|_| random.value());
                if table.abi.narrow() {
                    args = args.map(|a| a & 0xffff_ffff);
                }
                let got = answer(&filter, table.abi, number, args);
                assert_eq!(got, expected(table, number, &args), "round {round}: {number} {args:x?} on {:?}", table.abi);
            }
        }
    }
    assert!(longest > 1000, "the far jumps were tried: {longest} instructions");
}
