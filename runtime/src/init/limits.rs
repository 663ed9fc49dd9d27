//! Resource limits by their names.

use crate::rlimit;
use crate::spec::Rlimit;
use crate::sys::security;
use plan::{Error, Result};

/// Sets each limit on the calling process. Each was asked for by name, so one that cannot be had is
/// an error, not a smaller limit than the user believes in.
pub(super) fn set(limits: &[Rlimit]) -> Result<()> {
    for limit in limits {
        let name = limit.name.to_lowercase();
        let Some(resource) = rlimit::resource(&limit.name) else {
            return Err(Error::invalid(format!("invalid ulimit type: {name}"))
                .with_hint("getrlimit(2) names them: nofile, nproc, core…"));
        };
        security::set_rlimit(resource, limit.soft, limit.hard).map_err(|e| {
            let error = Error::io(format!("set ulimit {}={}:{}", name, limit.soft, limit.hard), &e);
            if e.raw_os_error() != Some(libc::EPERM) {
                return error;
            }
            let hard = rustix::process::getrlimit(resource).maximum;
            let hard = hard.map_or("unlimited".into(), |h| h.to_string());
            error.with_hint(format!("the caller's hard limit is {hard}, and raising it takes CAP_SYS_RESOURCE or is beyond the kernel's maximum"))
        })?;
    }
    Ok(())
}
