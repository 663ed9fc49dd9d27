//! Running from an executable that nobody can write, before going near a container.

use plan::{Error, Result, ResultExt};
use runtime::sys::{process, seal};
use rustix::fs::{SealFlags, StatVfsMountFlags};
use std::ffi::{CStr, CString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

const EXE: &str = "/proc/self/exe";

/// Executes rrun once more, with the same arguments, from a sealed descriptor; returns when that is
/// where we run already.
///
/// # Errors
/// The kernel offers no way to seal.
pub fn ensure() -> Result<()> {
    if is_sealed() {
        return Ok(());
    }
    let exe = seal::sealed_exe()?;
    let strings = |list: Vec<Vec<u8>>| -> Result<Vec<CString>> {
        list.into_iter()
            .map(|s| CString::new(s).map_err(|_| Error::invalid("an argument contains a NUL byte")))
            .collect()
    };
    let args = strings(std::env::args_os().map(OsStringExt::into_vec).collect())?;
    let env = strings(std::env::vars_os().map(|(k, v)| [k.as_bytes(), b"=", v.as_bytes()].concat()).collect())?;
    let args: Vec<&CStr> = args.iter().map(CString::as_c_str).collect();
    let env: Vec<&CStr> = env.iter().map(CString::as_c_str).collect();
    Err(process::execveat(&exe, &args, &env)).doing(|| "execute rrun from its protected copy")
}

/// Either of what [`seal::sealed_exe`] makes: a read-only mount, or a sealed memory file.
fn is_sealed() -> bool {
    let read_only = rustix::fs::statvfs(EXE).is_ok_and(|s| s.f_flag.contains(StatVfsMountFlags::RDONLY));
    read_only
        || std::fs::File::open(EXE)
            .is_ok_and(|exe| rustix::fs::fcntl_get_seals(exe).is_ok_and(|s| s.contains(SealFlags::WRITE)))
}
