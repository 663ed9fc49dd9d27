//! Custom profiles: the JSON of Docker (`--security-opt seccomp=FILE`) and of the OCI runtime spec.
//!
//! Read as Docker and runc read it, so that a profile tried there means the same here; where their
//! behaviour is not in any specification, a comment says so.

use std::collections::BTreeMap;

use plan::{Error, Result};
use serde_json::Value;

use super::numbers::{self, Abi, calls};
use super::policy::{Check, NO_SUCH_CALL, Op, Rule, Table, Test, Verdict};
use super::{Host, newest};

/// The tables of a profile for this host and bounding set; `None` if it asks for no filter at all
/// (neither default action nor rules, as in Docker).
pub(super) fn read(text: &str, host: &Host, bounding: u64) -> Result<Option<Vec<Table>>> {
    let json: Value = serde_json::from_str(text)
        .map_err(|e| Error::invalid("decoding seccomp profile failed").with_cause(e.to_string()).with_hint(HINT))?;
    let top = Field { path: String::new(), value: &json };
    if !json.is_object() {
        return Err(top.wrong("is not a JSON object"));
    }
    let rules = top.list("syscalls")?;
    if top.get("defaultAction").is_none() && rules.is_empty() {
        return Ok(None);
    }
    check_flags(&top)?;
    let abis = abis(&top, host)?;
    let default = action(&top, "defaultAction", "defaultErrnoRet")?;
    let mut profile = Profile { default, rows: BTreeMap::new() };
    for rule in &rules {
        if applies(rule, host, bounding)? {
            profile.add(rule)?;
        }
    }
    Ok(Some(abis.into_iter().map(|abi| profile.table(abi)).collect()))
}

const HINT: &str = "see the profile format in Docker's seccomp documentation, or use --security-opt seccomp=unconfined";

/// A value and where in the document it stands (empty: the document itself), for errors.
struct Field<'a> {
    path: String,
    value: &'a Value,
}

impl<'a> Field<'a> {
    /// The member of that name; null counts as absent, as in Go.
    fn get(&self, name: &str) -> Option<Field<'a>> {
        let value = self.value.get(name).filter(|v| !v.is_null())?;
        let path = if self.path.is_empty() { name.to_string() } else { format!("{}.{name}", self.path) };
        Some(Field { path, value })
    }

    fn list(&self, name: &str) -> Result<Vec<Field<'a>>> {
        let Some(field) = self.get(name) else { return Ok(Vec::new()) };
        let Some(items) = field.value.as_array() else { return Err(field.wrong("is not a list")) };
        let item = |(i, value)| Field { path: format!("{}[{i}]", field.path), value };
        Ok(items.iter().enumerate().map(item).collect())
    }

    fn string(&self) -> Result<&'a str> {
        self.value.as_str().ok_or_else(|| self.wrong("is not a string"))
    }

    fn strings(&self, name: &str) -> Result<Vec<&'a str>> {
        self.list(name)?.iter().map(Field::string).collect()
    }

    fn number(&self, name: &str) -> Result<Option<u64>> {
        let Some(field) = self.get(name) else { return Ok(None) };
        field.value.as_u64().map(Some).ok_or_else(|| field.wrong("is not a number from 0 to 2^64-1"))
    }

    fn wrong(&self, cause: impl Into<String>) -> Error {
        let place = if self.path.is_empty() { String::new() } else { format!(": {}", self.path) };
        Error::invalid(format!("seccomp profile{place}")).with_cause(cause).with_hint(HINT)
    }
}

fn check_flags(top: &Field) -> Result<()> {
    for flag in top.list("flags")? {
        // Both hold anyway: the filter is installed by a single thread, and always with SPEC_ALLOW.
        if !["", "SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"].contains(&flag.string()?) {
            return Err(flag.wrong(format!("{} is not supported", flag.string()?)));
        }
    }
    match top.get("listenerPath") {
        Some(path) if !path.string()?.is_empty() => Err(path.wrong("user notification is not supported")),
        _ => Ok(()),
    }
}

/// The ABIs that the filter covers: the native one and those of the profile's list that this machine
/// runs. Programs of any other are killed, as by libseccomp.
fn abis(top: &Field, host: &Host) -> Result<Vec<Abi>> {
    let listed = top.list("architectures")?;
    let map = top.list("archMap")?;
    if !listed.is_empty() && !map.is_empty() {
        return Err(Error::invalid(
            "both 'architectures' and 'archMap' are specified in the seccomp profile, use either 'architectures' or 'archMap'",
        )
        .with_hint("remove one of the two"));
    }
    let mut wanted = vec![host.abis[0]];
    let mut add = |field: &Field| -> Result<()> {
        let name = field.string()?;
        let abi = host.abis.into_iter().find(|abi| scmp_name(*abi) == name);
        match abi {
            Some(abi) if !wanted.contains(&abi) => wanted.push(abi),
            None if !name.starts_with("SCMP_ARCH_") => return Err(field.wrong(format!("{name:?} is no architecture"))),
            _ => {}
        }
        Ok(())
    };
    for field in &listed {
        add(field)?;
    }
    for entry in &map {
        let native = entry.get("architecture").ok_or_else(|| entry.wrong("has no architecture"))?;
        if native.string()? == scmp_name(host.abis[0]) {
            for field in &entry.list("subArchitectures")? {
                add(field)?;
            }
        }
    }
    Ok(wanted)
}

fn scmp_name(abi: Abi) -> &'static str {
    match abi {
        Abi::X86_64 => "SCMP_ARCH_X86_64",
        Abi::I386 => "SCMP_ARCH_X86",
        Abi::Aarch64 => "SCMP_ARCH_AARCH64",
        Abi::Arm => "SCMP_ARCH_ARM",
    }
}

/// An action as the filter returns it. A missing errno is EPERM.
fn action(at: &Field, name: &str, errno_name: &str) -> Result<u32> {
    let field = at.get(name).ok_or_else(|| at.wrong(format!("has no {name}")))?;
    let data = at.number(errno_name)?;
    let limit = if field.string()? == "SCMP_ACT_TRACE" { 0xffff } else { 4095 };
    if let (Some(data), Some(errno)) = (data, at.get(errno_name))
        && data > limit
    {
        return Err(errno.wrong(format!("{data} is larger than {limit}")));
    }
    let data = data.unwrap_or(libc::EPERM as u64) as u32;
    Ok(match field.string()? {
        "SCMP_ACT_ALLOW" => libc::SECCOMP_RET_ALLOW,
        "SCMP_ACT_ERRNO" => libc::SECCOMP_RET_ERRNO | data,
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => libc::SECCOMP_RET_KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS" => libc::SECCOMP_RET_KILL_PROCESS,
        "SCMP_ACT_TRAP" => libc::SECCOMP_RET_TRAP,
        "SCMP_ACT_TRACE" => libc::SECCOMP_RET_TRACE | data,
        "SCMP_ACT_LOG" => libc::SECCOMP_RET_LOG,
        "SCMP_ACT_NOTIFY" => return Err(field.wrong("user notification (SCMP_ACT_NOTIFY) is not supported")),
        other => return Err(field.wrong(format!("{other:?} is no seccomp action"))),
    })
}

/// Docker's conditions on a rule: all of `includes` and none of `excludes`.
fn applies(rule: &Field, host: &Host, bounding: u64) -> Result<bool> {
    if let Some(only) = rule.get("includes") {
        let arches = only.strings("arches")?;
        let kernel = only.get("minKernel").map(|v| kernel_at_least(&v)).transpose()?;
        if !arches.is_empty() && !arches.contains(&host.name)
            || only.strings("caps")?.iter().any(|c| !has(bounding, c))
            || kernel == Some(false)
        {
            return Ok(false);
        }
    }
    if let Some(not) = rule.get("excludes") {
        let kernel = not.get("minKernel").map(|v| kernel_at_least(&v)).transpose()?;
        if not.strings("arches")?.contains(&host.name)
            || not.strings("caps")?.iter().any(|c| has(bounding, c))
            || kernel == Some(true)
        {
            return Ok(false);
        }
    }
    Ok(true)
}

fn has(bounding: u64, cap: &str) -> bool {
    crate::caps::mask(&[cap.strip_prefix("CAP_").unwrap_or(cap)]) & bounding != 0
}

fn kernel_at_least(field: &Field) -> Result<bool> {
    let text = field.string()?;
    let wanted = version(text).ok_or_else(|| field.wrong(format!("{text:?} is no kernel version like 4.8")))?;
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    Ok(version(&release).is_some_and(|running| running >= wanted))
}

/// Major and minor number.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[derive(Default)]
struct Call {
    always: Option<u32>,
    first: Vec<Rule>,
}

struct Profile {
    default: u32,
    rows: BTreeMap<usize, Call>,
}

impl Profile {
    fn add(&mut self, rule: &Field) -> Result<()> {
        let action = action(rule, "action", "errnoRet")?;
        let mut names = rule.strings("names")?;
        if let Some(name) = rule.get("name") {
            if !names.is_empty() {
                return Err(Error::invalid(
                    "both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'",
                )
                .with_cause(rule.path.clone())
                .with_hint("remove one of the two"));
            }
            names.push(name.string()?);
        }
        let tests = rule.list("args")?.iter().map(test).collect::<Result<Vec<_>>>()?;
        // As runc: a rule that says what the default says anyway has no say against other rules.
        if action == self.default {
            return Ok(());
        }
        for name in names {
            // Names that this build does not know are of other machines or newer kernels; the latter
            // get ENOSYS or the default.
            let Some(row) = numbers::row(name) else { continue };
            self.rules(row, &tests, action);
            if tests.is_empty()
                && let Some((multiplexer, test)) = multiplexed(name)
            {
                self.rules(multiplexer, &[(0, test)], action);
            }
        }
        Ok(())
    }

    /// All tests must pass; but as in runc (libseccomp takes one test per argument), tests of the same
    /// argument are alternatives.
    fn rules(&mut self, row: usize, tests: &[(u8, Test)], action: u32) {
        let call = self.rows.entry(row).or_default();
        let repeated = tests.iter().enumerate().any(|(i, (arg, _))| tests[..i].iter().any(|(a, _)| a == arg));
        if tests.is_empty() {
            // Without tests a rule stands above all with tests; the first such one counts.
            call.always.get_or_insert(action);
        } else if repeated {
            call.first.extend(tests.iter().map(|(_, t)| Rule { tests: vec![*t], action }));
        } else {
            call.first.push(Rule { tests: tests.iter().map(|(_, t)| *t).collect(), action });
        }
    }

    fn table(&self, abi: Abi) -> Table {
        // runc's rule: where the default is to refuse, calls newer than any the profile knows get
        // ENOSYS, so that programs fall back to older ones.
        let refuses = ![libc::SECCOMP_RET_ALLOW, libc::SECCOMP_RET_LOG, libc::SECCOMP_RET_TRACE]
            .contains(&(self.default & libc::SECCOMP_RET_ACTION_FULL));
        let (newest, beyond) = match refuses {
            true => (newest(abi, |row| self.rows.contains_key(&row)), NO_SUCH_CALL),
            false => (u32::MAX, self.default),
        };
        let verdicts = calls(abi).filter_map(|(n, row)| {
            let call = self.rows.get(&row)?;
            let verdict = match call.always {
                Some(action) => Verdict::Always(action),
                None => Verdict::Checked(Check { rules: call.first.clone(), otherwise: self.default }),
            };
            Some((n, verdict))
        });
        Table::new(abi, verdicts, self.default, newest, beyond)
    }
}

/// One entry of `args`, with its index.
fn test(field: &Field) -> Result<(u8, Test)> {
    let index = field.number("index")?.unwrap_or(0);
    if index > 5 {
        return Err(field.wrong(format!("index {index}: a system call has arguments 0 to 5")));
    }
    let arg = index as u8;
    let value = field.number("value")?.unwrap_or(0);
    let second = field.number("valueTwo")?.unwrap_or(0);
    let op = field.get("op").ok_or_else(|| field.wrong("has no op"))?;
    let (mask, op, value) = match op.string()? {
        "SCMP_CMP_EQ" => (u64::MAX, Op::Eq, value),
        "SCMP_CMP_NE" => (u64::MAX, Op::Ne, value),
        "SCMP_CMP_LT" => (u64::MAX, Op::Lt, value),
        "SCMP_CMP_LE" => (u64::MAX, Op::Le, value),
        "SCMP_CMP_GT" => (u64::MAX, Op::Gt, value),
        "SCMP_CMP_GE" => (u64::MAX, Op::Ge, value),
        "SCMP_CMP_MASKED_EQ" => (value, Op::Eq, second),
        other => return Err(op.wrong(format!("{other:?} is no comparison"))),
    };
    Ok((arg, Test::Compare { arg, mask, op, value }))
}

/// On 32-bit x86 these calls can also be made through `socketcall` and `ipc`, whose first argument
/// says which: a rule for the call itself holds there too, as in libseccomp. (What the arguments are
/// cannot be seen there, so rules with tests do not.)
fn multiplexed(name: &str) -> Option<(usize, Test)> {
    const SOCKET: [&str; 20] = [
        "socket",
        "bind",
        "connect",
        "listen",
        "accept",
        "getsockname",
        "getpeername",
        "socketpair",
        "send",
        "recv",
        "sendto",
        "recvfrom",
        "shutdown",
        "setsockopt",
        "getsockopt",
        "sendmsg",
        "recvmsg",
        "accept4",
        "recvmmsg",
        "sendmmsg",
    ];
    const IPC: [(&str, u64); 12] = [
        ("semop", 1),
        ("semget", 2),
        ("semctl", 3),
        ("semtimedop", 4),
        ("msgsnd", 11),
        ("msgrcv", 12),
        ("msgget", 13),
        ("msgctl", 14),
        ("shmat", 21),
        ("shmdt", 22),
        ("shmget", 23),
        ("shmctl", 24),
    ];
    let equals = |mask, value| Test::Compare { arg: 0, mask, op: Op::Eq, value };
    if let Some(i) = SOCKET.iter().position(|n| *n == name) {
        return Some((numbers::row("socketcall")?, equals(u64::MAX, i as u64 + 1)));
    }
    // The upper half of ipc's argument is a version.
    let (_, n) = IPC.iter().find(|(n, _)| *n == name)?;
    Some((numbers::row("ipc")?, equals(0xffff, *n)))
}
