//! The part of classic BPF that seccomp filters use.

use libc::*;

/// The filter's return value for a call, and how many instructions it took.
pub fn run(filter: &[sock_filter], number: u32, arch: u32, args: [u64; 6]) -> (u32, usize) {
    let mut data = [0u32; 16];
    data[0] = number;
    data[1] = arch;
    for (i, a) in args.iter().enumerate() {
        data[4 + 2 * i] = *a as u32;
        data[5 + 2 * i] = (*a >> 32) as u32;
    }
    let (mut pc, mut steps, mut acc) = (0, 0, 0u32);
    loop {
        let i = filter[pc];
        pc += 1;
        steps += 1;
        let code = u32::from(i.code);
        let truth = match code {
            _ if code == BPF_LD | BPF_W | BPF_ABS => {
                assert_eq!(i.k % 4, 0);
                acc = data[i.k as usize / 4];
                continue;
            }
            _ if code == BPF_ALU | BPF_AND | BPF_K => {
                acc &= i.k;
                continue;
            }
            _ if code == BPF_RET | BPF_K => return (i.k, steps),
            _ if code == BPF_JMP | BPF_JA => {
                pc += i.k as usize;
                continue;
            }
            _ if code == BPF_JMP | BPF_JEQ | BPF_K => acc == i.k,
            _ if code == BPF_JMP | BPF_JGT | BPF_K => acc > i.k,
            _ if code == BPF_JMP | BPF_JGE | BPF_K => acc >= i.k,
            _ if code == BPF_JMP | BPF_JSET | BPF_K => acc & i.k != 0,
            _ => panic!("instruction {code:#x} at {}", pc - 1),
        };
        pc += usize::from(if truth { i.jt } else { i.jf });
    }
}
