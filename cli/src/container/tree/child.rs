//! A part of rrun's work in a process of its own, so that what it mounts vanishes with it.

use plan::{Error, Result, ResultExt};
use runtime::sys::process::clone3;
use runtime::sys::spawn::exit_now;
use rustix::mount::MountPropagationFlags;
use rustix::process::{Pid, WaitOptions, waitpid};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::{Read, Write};
use std::marker::PhantomData;
use std::os::fd::OwnedFd;

/// A process on the way to a `T`.
pub struct Child<T> {
    pid: i32,
    outcome: OwnedFd,
    _value: PhantomData<T>,
}

/// Runs `act` in a child, whose mounts nobody else sees if it has a `namespace` of its own.
///
/// # Errors
/// Of fork. What `act` returns is told by [`Child::join`].
pub fn spawn<T: Serialize + DeserializeOwned>(namespace: bool, act: impl FnOnce() -> Result<T>) -> Result<Child<T>> {
    let (outcome, mut write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map(|(r, w)| (r, File::from(w)))
        .doing(|| "create a pipe")?;
    let flags = if namespace { libc::CLONE_NEWNS.unsigned_abs().into() } else { 0 };
    let (pid, _pidfd) = clone3(flags, None, || {
        let value = match namespace {
            true => rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
                .doing(|| "make the mount namespace private")
                .and_then(|()| act()),
            false => act(),
        };
        let text = serde_json::to_vec(&value.as_ref()).unwrap_or_default();
        // The parent takes an empty message for what it is.
        let _ = write.write_all(&text);
        exit_now(i32::from(value.is_err()))
    })
    .doing(|| "fork")?;
    Ok(Child { pid, outcome, _value: PhantomData })
}

impl<T: DeserializeOwned> Child<T> {
    /// Waits for its end.
    ///
    /// # Errors
    /// Of the act; that the child was killed.
    pub fn join(self) -> Result<T> {
        let mut text = Vec::new();
        File::from(self.outcome).read_to_end(&mut text).doing(|| "read what the child says")?;
        let pid = Pid::from_raw(self.pid).ok_or_else(|| Error::system("wait for the child"))?;
        rustix::io::retry_on_intr(|| waitpid(Some(pid), WaitOptions::empty())).doing(|| "wait for the child")?;
        let killed = || Error::system("the child that did the work was killed");
        serde_json::from_slice::<std::result::Result<T, Error>>(&text).map_err(|_| killed())?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_errors_come_back() {
        assert_eq!(spawn(false, || Ok(vec![1, 2])).unwrap().join().unwrap(), [1, 2]);
        let e = spawn::<()>(false, || Err(Error::not_found("nothing").with_hint("look"))).unwrap().join().unwrap_err();
        assert_eq!((e.message.as_str(), e.hint.as_deref()), ("nothing", Some("look")));
        let e = spawn::<()>(false, || exit_now(3)).unwrap().join().unwrap_err();
        assert!(e.message.contains("killed"));
    }
}
