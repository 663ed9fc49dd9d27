//! Which functions a program runs, for `tests/order.sh`: every instruction of it and of the processes it forks
//! is stepped through, until each executes something else. Takes minutes.
//!
//!     footprint MAP OUT PROGRAM ARGS…
//!
//! MAP is lld's map of PROGRAM, which has a fixed load address. OUT becomes the list of symbols, in an order that
//! puts what the first process (the command), the second (the monitor) and the third (the container's first) share
//! next to each other.

#![expect(unsafe_code, reason = "ptrace(2)")]

use std::collections::{BTreeMap, HashMap};
use std::ffi::c_void;
use std::os::unix::process::CommandExt;
use std::process::{Command, exit};
use std::{fs, ptr};

/// One function, as its section in the map.
struct Function {
    begin: u64,
    end: u64,
    symbol: String,
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [map, out, program, rest @ ..] = args.as_slice() else {
        eprintln!("usage: footprint MAP OUT PROGRAM ARGS…");
        exit(125);
    };
    let functions = functions(&fs::read_to_string(map).expect("the map"));
    let visits = step(Command::new(program).args(rest), &functions);
    let mut order: Vec<(usize, &Visit)> = visits.iter().map(|(i, visit)| (*i, visit)).collect();
    order.sort_by_key(|(_, visit)| (place(visit.by), visit.nth));
    let bytes: u64 = order.iter().map(|(i, _)| functions[*i].end - functions[*i].begin).sum();
    let text: String = order.iter().map(|(i, _)| format!("{}\n", functions[*i].symbol)).collect();
    fs::write(out, text).expect("the list");
    eprintln!("{} functions of {bytes} bytes", order.len());
}

/// What each process runs ends up in one piece, or nearly so.
fn place(by: u8) -> usize {
    const COMMAND: u8 = 1;
    const MONITOR: u8 = 2;
    const INIT: u8 = 4;
    let pieces = [COMMAND, COMMAND | MONITOR, COMMAND | MONITOR | INIT, COMMAND | INIT, INIT, MONITOR | INIT, MONITOR];
    pieces.iter().position(|piece| *piece == by).unwrap_or(pieces.len())
}

/// The code of a map: lines of address, load address, size, alignment, and a section of an input file, each
/// followed by the symbols in it, indented further.
fn functions(map: &str) -> Vec<Function> {
    let mut all: Vec<Function> = Vec::new();
    let mut open = false;
    for line in map.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [address, _, size, _, name, ..] = fields.as_slice() else { continue };
        let (Ok(begin), Ok(size)) = (u64::from_str_radix(address, 16), u64::from_str_radix(size, 16)) else { continue };
        match name.rsplit_once(":(") {
            Some((_, section)) => {
                open = section.starts_with(".text") && size > 0;
                if open {
                    all.push(Function { begin, end: begin + size, symbol: String::new() });
                }
            }
            None if open => {
                let last = all.last_mut().expect("open");
                if last.symbol.is_empty() {
                    last.symbol = fields[4..].join(" ");
                }
            }
            None => {}
        }
    }
    // rustc's own are local, and in the map under their readable names; the section has the real one.
    for line in map.lines().filter(|line| line.contains(":(.text.")) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let begin = u64::from_str_radix(fields[0], 16).unwrap_or_default();
        let section = line.rsplit_once(":(.text.").map(|(_, s)| s.trim_end_matches(')')).unwrap_or_default();
        let section = section.strip_prefix("unlikely.").unwrap_or(section);
        if section.starts_with("_ZN") || section.starts_with("_R") {
            all.iter_mut().filter(|f| f.begin == begin).for_each(|f| f.symbol = section.to_string());
        }
    }
    all.retain(|f| !f.symbol.is_empty());
    all.sort_by_key(|f| f.begin);
    all
}

struct Visit {
    /// A bit for each process.
    by: u8,
    /// When it came first.
    nth: usize,
}

#[derive(Default)]
struct Process {
    number: u8,
    /// It has become another program.
    gone: bool,
}

fn request(what: libc::c_uint, pid: i32, address: *mut c_void, data: *mut c_void) -> bool {
    // SAFETY: each request below gives what it says: nothing, a number, or a place for the registers.
    unsafe { libc::ptrace(what, pid, address, data) == 0 }
}

fn step(command: &mut Command, functions: &[Function]) -> BTreeMap<usize, Visit> {
    // SAFETY: a bare system call between fork and exec.
    unsafe {
        command.pre_exec(|| match request(libc::PTRACE_TRACEME, 0, ptr::null_mut(), ptr::null_mut()) {
            true => Ok(()),
            false => Err(std::io::Error::last_os_error()),
        });
    }
    let first = command.spawn().expect("the program").id() as i32;
    let mut processes: HashMap<i32, Process> = HashMap::from([(first, Process::default())]);
    let mut visits: BTreeMap<usize, Visit> = BTreeMap::new();
    let mut begun = false;
    loop {
        let mut status = 0;
        // SAFETY: `status` outlives the call.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL) };
        if pid < 0 {
            return visits;
        }
        if !libc::WIFSTOPPED(status) {
            continue;
        }
        let (signal, event) = (libc::WSTOPSIG(status), status >> 16);
        if !begun {
            begun = true;
            let options = libc::PTRACE_O_TRACEFORK
                | libc::PTRACE_O_TRACEVFORK
                | libc::PTRACE_O_TRACECLONE
                | libc::PTRACE_O_TRACEEXEC
                | libc::PTRACE_O_EXITKILL;
            request(libc::PTRACE_SETOPTIONS, pid, ptr::null_mut(), options as usize as *mut c_void);
        } else if event == libc::PTRACE_EVENT_EXEC {
            processes.entry(pid).or_default().gone = true;
        }
        let number = processes.len() as u8;
        let process = processes.entry(pid).or_insert(Process { number, gone: false });
        if process.gone {
            let signal = if event != 0 || signal == libc::SIGTRAP { 0 } else { signal };
            request(libc::PTRACE_CONT, pid, ptr::null_mut(), signal as usize as *mut c_void);
            continue;
        }
        // SAFETY: plain numbers.
        let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        if request(libc::PTRACE_GETREGS, pid, ptr::null_mut(), (&raw mut registers).cast()) {
            let at = functions.partition_point(|f| f.begin <= registers.rip);
            if let Some(i) = at.checked_sub(1).filter(|i| registers.rip < functions[*i].end) {
                let nth = visits.len();
                visits.entry(i).or_insert(Visit { by: 0, nth }).by |= 1 << process.number.min(7);
            }
        }
        let signal = if matches!(signal, libc::SIGTRAP | libc::SIGSTOP) { 0 } else { signal };
        request(libc::PTRACE_SINGLESTEP, pid, ptr::null_mut(), signal as usize as *mut c_void);
    }
}
