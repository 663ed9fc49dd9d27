//! The one error type: it names the thing, the cause and the remedy.

use serde::{Deserialize, Serialize};
use std::fmt;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What sort of failure this is, as far as a caller or an exit code cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The user's input cannot mean anything (exit 125).
    Invalid,
    /// The named container, image, network… does not exist.
    NotFound,
    /// Something of that name, address or port is already there or in use.
    Conflict,
    /// The program in the image exists but cannot be executed (exit 126).
    NotExecutable,
    /// The program does not exist in the image (exit 127).
    NoSuchProgram,
    /// The kernel or another program refused.
    System,
}

/// A failure as the user sees it: `message: cause`, then one line `hint`.
///
/// Built with [`Error::new`] and friends; a library never logs an error it returns, the command
/// line prints it once. It crosses from the monitor to the command line as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Error {
    pub kind: Kind,
    /// Names the thing and what failed. Where Docker has a text for it, that text, verbatim.
    pub message: String,
    /// The cause in words, e.g. the kernel's own sentence or an errno with its name.
    pub cause: Option<String>,
    /// The raw errno behind the cause, for callers that branch on it.
    pub errno: Option<i32>,
    /// One line that says what to do.
    pub hint: Option<String>,
    /// The step (its `line()`) that failed, when a plan was being applied.
    pub step: Option<String>,
    /// Failures of the undo that followed; they never replace the original.
    pub notes: Vec<String>,
}

impl Error {
    pub fn new(kind: Kind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into(), cause: None, errno: None, hint: None, step: None, notes: Vec::new() }
    }

    pub fn invalid(message: impl Into<String>) -> Error {
        Error::new(Kind::Invalid, message)
    }

    pub fn not_found(message: impl Into<String>) -> Error {
        Error::new(Kind::NotFound, message)
    }

    pub fn conflict(message: impl Into<String>) -> Error {
        Error::new(Kind::Conflict, message)
    }

    pub fn system(message: impl Into<String>) -> Error {
        Error::new(Kind::System, message)
    }

    /// `doing` names operation and object: "mount proc on /proc". The errno becomes the cause.
    pub fn io(doing: impl Into<String>, source: &std::io::Error) -> Error {
        let mut e = Error::system(doing);
        match source.raw_os_error() {
            Some(n) => e.set_errno(n),
            None => e.cause = Some(source.to_string()),
        }
        e
    }

    /// As [`Error::io`], from a bare errno.
    pub fn os(doing: impl Into<String>, errno: i32) -> Error {
        let mut e = Error::system(doing);
        e.set_errno(errno);
        e
    }

    fn set_errno(&mut self, errno: i32) {
        self.errno = Some(errno);
        self.cause = Some(errno_name(errno));
    }

    pub fn with_kind(mut self, kind: Kind) -> Error {
        self.kind = kind;
        self
    }

    pub fn with_cause(mut self, cause: impl Into<String>) -> Error {
        self.cause = Some(cause.into());
        self
    }

    pub fn with_hint(mut self, hint: impl Into<String>) -> Error {
        self.hint = Some(hint.into());
        self
    }

    pub fn with_step(mut self, line: impl Into<String>) -> Error {
        self.step = Some(line.into());
        self
    }

    pub fn with_note(mut self, note: impl Into<String>) -> Error {
        self.notes.push(note.into());
        self
    }

    /// Puts `doing` in front of the message: "pull alpine: …".
    pub fn context(mut self, doing: impl fmt::Display) -> Error {
        self.message = format!("{doing}: {}", self.message);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(cause) = &self.cause {
            write!(f, ": {cause}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// `?` with words: `file.write_all(b).doing(|| format!("write {}", path.display()))?`.
pub trait ResultExt<T> {
    fn doing<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: Into<std::io::Error>> ResultExt<T> for std::result::Result<T, E> {
    fn doing<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|e| Error::io(what(), &e.into()))
    }
}

/// "no space left on device (ENOSPC)": the C library's sentence and the symbolic name, which is
/// what people search for. Names of the errnos that rrun's system calls return; others by number.
pub fn errno_name(errno: i32) -> String {
    let io = std::io::Error::from_raw_os_error(errno).to_string();
    let sentence = io.split(" (os error").next().unwrap_or(&io).to_lowercase();
    let name = match errno {
        1 => "EPERM",
        2 => "ENOENT",
        3 => "ESRCH",
        4 => "EINTR",
        5 => "EIO",
        6 => "ENXIO",
        7 => "E2BIG",
        8 => "ENOEXEC",
        9 => "EBADF",
        10 => "ECHILD",
        11 => "EAGAIN",
        12 => "ENOMEM",
        13 => "EACCES",
        16 => "EBUSY",
        17 => "EEXIST",
        18 => "EXDEV",
        19 => "ENODEV",
        20 => "ENOTDIR",
        21 => "EISDIR",
        22 => "EINVAL",
        23 => "ENFILE",
        24 => "EMFILE",
        26 => "ETXTBSY",
        27 => "EFBIG",
        28 => "ENOSPC",
        30 => "EROFS",
        31 => "EMLINK",
        32 => "EPIPE",
        34 => "ERANGE",
        36 => "ENAMETOOLONG",
        38 => "ENOSYS",
        39 => "ENOTEMPTY",
        40 => "ELOOP",
        71 => "EPROTO",
        75 => "EOVERFLOW",
        92 => "ENOPROTOOPT",
        93 => "EPROTONOSUPPORT",
        95 => "EOPNOTSUPP",
        97 => "EAFNOSUPPORT",
        98 => "EADDRINUSE",
        99 => "EADDRNOTAVAIL",
        100 => "ENETDOWN",
        101 => "ENETUNREACH",
        104 => "ECONNRESET",
        107 => "ENOTCONN",
        110 => "ETIMEDOUT",
        111 => "ECONNREFUSED",
        113 => "EHOSTUNREACH",
        122 => "EDQUOT",
        _ => return format!("{sentence} (errno {errno})"),
    };
    format!("{sentence} ({name})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_thing_and_cause() {
        let e = Error::os("mount proc on /proc", 1).with_hint("run as root");
        assert_eq!(e.to_string(), "mount proc on /proc: operation not permitted (EPERM)");
        assert_eq!(e.errno, Some(1));
    }

    #[test]
    fn io_results_get_words() {
        let r: Result<()> = Err(std::io::Error::from_raw_os_error(28)).doing(|| "write /x");
        assert_eq!(r.unwrap_err().to_string(), "write /x: no space left on device (ENOSPC)");
    }
}
