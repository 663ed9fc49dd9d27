//! Which devices a container may use: v1 rules as text, v2 rules as a BPF program.

use crate::spec::Device;
use crate::spec::defaults::DEVICE_RULES;
use crate::sys::bpf::{self, Insn};
use rustix::io::Result;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};

/// Access that is allowed; everything else is denied. `None` is any number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// 'c', 'b', or 'a' for both.
    pub kind: char,
    pub major: Option<u32>,
    pub minor: Option<u32>,
    /// Some of `rwm`.
    pub access: String,
}

/// As the v1 files take it: `c 1:3 rwm`.
impl fmt::Display for DeviceRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |n: Option<u32>| n.map_or("*".into(), |n| n.to_string());
        write!(f, "{} {}:{} {}", self.kind, number(self.major), number(self.minor), self.access)
    }
}

/// The default rules, those for a container's own devices and what it was allowed beside; none at all
/// when it may use `all`.
pub fn rules(devices: &[Device], beside: &[DeviceRule], all: bool) -> Vec<DeviceRule> {
    if all {
        return Vec::new();
    }
    let default = DEVICE_RULES.iter().map(|(kind, major, minor, access)| DeviceRule {
        kind: *kind,
        major: *major,
        minor: *minor,
        access: (*access).to_string(),
    });
    let own = devices.iter().filter(|d| d.kind != 'p').map(|d| DeviceRule {
        kind: d.kind,
        major: Some(d.major),
        minor: Some(d.minor),
        access: if d.access.is_empty() { "rwm".into() } else { d.access.clone() },
    });
    default.chain(own).chain(beside.iter().cloned()).collect()
}

/// Loads the program for `rules` and attaches it to the v2 group `cgroup`.
pub fn attach(rules: &[DeviceRule], cgroup: BorrowedFd<'_>) -> Result<()> {
    let program = bpf::load_device_program(&program(rules))?;
    bpf::attach_device_program(program.as_fd(), cgroup)
}

// Registers: R0 the answer, R1 the context, then what is taken from it.
const ANSWER: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
/// The context is not needed any more once read.
const SCRATCH: u8 = CONTEXT;

// Instruction codes, from linux/bpf.h: class | size or operation | source.
const LOAD_WORD: u8 = 0x61; // BPF_LDX | BPF_MEM | BPF_W
const AND: u8 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const SHIFT_RIGHT: u8 = 0x74; // BPF_ALU | BPF_RSH | BPF_K
const MOVE: u8 = 0xb4; // BPF_ALU | BPF_MOV | BPF_K
const MOVE_REG: u8 = 0xbc; // BPF_ALU | BPF_MOV | BPF_X
const JUMP_NOT_EQUAL: u8 = 0x55; // BPF_JMP | BPF_JNE | BPF_K
const JUMP_NOT_EQUAL_REG: u8 = 0x5d; // BPF_JMP | BPF_JNE | BPF_X
const EXIT: u8 = 0x95; // BPF_JMP | BPF_EXIT

/// `struct bpf_cgroup_dev_ctx { u32 access_type; u32 major; u32 minor; }`, where `access_type` is
/// (access << 16) | type.
fn program(rules: &[DeviceRule]) -> Vec<Insn> {
    let mut code = vec![
        Insn { code: LOAD_WORD, regs: KIND | CONTEXT << 4, off: 0, imm: 0 },
        Insn { code: MOVE_REG, regs: ACCESS | KIND << 4, off: 0, imm: 0 },
        Insn { code: AND, regs: KIND, off: 0, imm: 0xffff },
        Insn { code: SHIFT_RIGHT, regs: ACCESS, off: 0, imm: 16 },
        Insn { code: LOAD_WORD, regs: MAJOR | CONTEXT << 4, off: 4, imm: 0 },
        Insn { code: LOAD_WORD, regs: MINOR | CONTEXT << 4, off: 8, imm: 0 },
    ];
    for rule in rules {
        code.extend(one_rule(rule));
    }
    code.push(Insn { code: MOVE, regs: ANSWER, off: 0, imm: 0 });
    code.push(Insn { code: EXIT, regs: 0, off: 0, imm: 0 });
    code
}

/// Comparisons that jump past the rule, then "allowed".
fn one_rule(rule: &DeviceRule) -> Vec<Insn> {
    let unless =
        |register: u8, value: u32| Insn { code: JUMP_NOT_EQUAL, regs: register, off: 0, imm: value.cast_signed() };
    let mut code = Vec::new();
    match rule.kind {
        'b' => code.push(unless(KIND, 1)),
        'c' => code.push(unless(KIND, 2)),
        _ => {}
    }
    let allowed = rule.access.bytes().fold(0, |bits, c| {
        bits | match c {
            b'm' => 1,
            b'r' => 2,
            b'w' => 4,
            _ => 0,
        }
    });
    if allowed != 7 {
        // Every bit that is asked for must be among the allowed ones.
        code.push(Insn { code: MOVE_REG, regs: SCRATCH | ACCESS << 4, off: 0, imm: 0 });
        code.push(Insn { code: AND, regs: SCRATCH, off: 0, imm: allowed });
        code.push(Insn { code: JUMP_NOT_EQUAL_REG, regs: SCRATCH | ACCESS << 4, off: 0, imm: 0 });
    }
    if let Some(major) = rule.major {
        code.push(unless(MAJOR, major));
    }
    if let Some(minor) = rule.minor {
        code.push(unless(MINOR, minor));
    }
    code.push(Insn { code: MOVE, regs: ANSWER, off: 0, imm: 1 });
    code.push(Insn { code: EXIT, regs: 0, off: 0, imm: 0 });
    let end = code.len();
    for (i, insn) in code.iter_mut().enumerate() {
        if matches!(insn.code, JUMP_NOT_EQUAL | JUMP_NOT_EQUAL_REG) {
            insn.off = (end - i - 1) as i16;
        }
    }
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel's interpreter would answer.
    fn run(code: &[Insn], kind: u32, access: u32, major: u32, minor: u32) -> u32 {
        let context = [access << 16 | kind, major, minor];
        let mut reg = [0u32; 11];
        let mut at = 0;
        loop {
            let i = code[at];
            let (to, from) = ((i.regs & 15) as usize, (i.regs >> 4) as usize);
            at += 1;
            match i.code {
                LOAD_WORD => reg[to] = context[i.off as usize / 4],
                AND => reg[to] &= i.imm as u32,
                SHIFT_RIGHT => reg[to] >>= i.imm,
                MOVE => reg[to] = i.imm as u32,
                MOVE_REG => reg[to] = reg[from],
                JUMP_NOT_EQUAL if reg[to] != i.imm as u32 => at += i.off as usize,
                JUMP_NOT_EQUAL_REG if reg[to] != reg[from] => at += i.off as usize,
                JUMP_NOT_EQUAL | JUMP_NOT_EQUAL_REG => {}
                EXIT => return reg[0],
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn the_program_lets_in_what_the_rules_say() {
        let tun = Device {
            path: "/dev/net/tun".into(),
            kind: 'c',
            major: 10,
            minor: 200,
            mode: 0o666,
            uid: 0,
            gid: 0,
            access: "rw".into(),
        };
        let code = program(&rules(&[tun], &[], false));
        let (block, char, mknod, read, write) = (1, 2, 1, 2, 4);
        assert_eq!(run(&code, char, read | write, 1, 3), 1, "/dev/null");
        assert_eq!(run(&code, char, read, 136, 77), 1, "any pty");
        assert_eq!(run(&code, block, mknod, 254, 0), 1, "making a node");
        assert_eq!(run(&code, block, read, 254, 0), 0, "the disk");
        assert_eq!(run(&code, block, mknod | read, 254, 0), 0, "both at once");
        assert_eq!(run(&code, char, read, 1, 1), 0, "/dev/mem");
        assert_eq!(run(&code, char, read, 10, 200), 1, "--device");
        assert_eq!(run(&code, char, read, 10, 229), 0, "/dev/fuse");
        let beside = DeviceRule { kind: 'a', major: Some(10), minor: None, access: "r".into() };
        let code = program(&rules(&[], &[beside], false));
        assert_eq!((run(&code, char, read, 10, 229), run(&code, char, write, 10, 229)), (1, 0), "--device-cgroup-rule");
        assert_eq!(run(&program(&[]), char, read, 1, 3), 0, "no rules: nothing (GHSA-g54h)");
    }

    #[test]
    fn rules_read_as_the_kernel_prints_them() {
        let r = DeviceRule { kind: 'c', major: Some(136), minor: None, access: "rwm".into() };
        assert_eq!(r.to_string(), "c 136:* rwm");
    }
}
