//! Finding and executing the user's program, with Docker's words when that fails.

use plan::{Error, Kind};
use rustix::fs::{CWD, FileType};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Becomes the program; comes back only with the reason why not.
pub(super) fn execute(argv: &[String], env: &[String], home: Option<&str>) -> Error {
    let Some(name) = argv.first() else { return Error::invalid("no command specified") };
    let (Some(args), Some(vars)) = (c_strings(argv.iter().cloned()), c_strings(environment(env, home))) else {
        return Error::invalid("a zero byte in the command or environment");
    };
    if name.contains('/') {
        let path = Path::new(name);
        return match look(path) {
            Ok(()) => exec_error(path, try_exec(path, &args, &vars)),
            Err(e) => unusable(name, e),
        };
    }
    for path in candidates(name, search_path(env)) {
        if look(&path).is_err() {
            continue;
        }
        match try_exec(&path, &args, &vars) {
            // Some other directory may have one that can be executed.
            Errno::ACCESS => {}
            e => return exec_error(&path, e),
        }
    }
    Error::new(Kind::NoSuchProgram, format!("exec: {name:?}: executable file not found in $PATH"))
        .with_hint(format!("the image has no {name} in {}", search_path(env)))
}

/// The spec's variables, and HOME if none of them is it.
fn environment(env: &[String], home: Option<&str>) -> impl Iterator<Item = String> {
    let named = env.iter().any(|e| e.starts_with("HOME="));
    let home = (!named).then(|| format!("HOME={}", home.unwrap_or("/")));
    env.iter().cloned().chain(home)
}

fn c_strings(words: impl Iterator<Item = String>) -> Option<Vec<CString>> {
    words.map(|w| CString::new(w).ok()).collect()
}

/// The container's PATH, not rrun's.
fn search_path(env: &[String]) -> &str {
    env.iter().rev().find_map(|e| e.strip_prefix("PATH=")).unwrap_or("")
}

/// An empty element of PATH would be the working directory, where an image's data may lie: left out,
/// as Go's LookPath does.
fn candidates(name: &str, path: &str) -> impl Iterator<Item = PathBuf> {
    path.split(':').filter(|dir| dir.starts_with('/')).map(move |dir| Path::new(dir).join(name))
}

/// Whether this is a file that somebody may execute.
fn look(path: &Path) -> Result<(), Errno> {
    let stat = rustix::fs::statat(CWD, path, rustix::fs::AtFlags::empty())?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Err(Errno::ISDIR),
        _ if stat.st_mode & 0o111 == 0 => Err(Errno::ACCESS),
        _ => Ok(()),
    }
}

fn try_exec(path: &Path, args: &[CString], vars: &[CString]) -> Errno {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return Errno::INVAL };
    let (args, vars): (Vec<&CStr>, Vec<&CStr>) =
        (args.iter().map(CString::as_c_str).collect(), vars.iter().map(CString::as_c_str).collect());
    match nix::unistd::execve(&path, &args, &vars) {
        Err(e) => Errno::from_raw_os_error(e as i32),
        Ok(never) => match never {},
    }
}

/// A named file that is not there or no program.
fn unusable(name: &str, e: Errno) -> Error {
    let words = plan::errno_name(e.raw_os_error());
    let words = words.split(" (").next().unwrap_or(&words);
    let (kind, message) = match e {
        Errno::NOENT | Errno::NOTDIR => (Kind::NoSuchProgram, format!("exec: {name:?}: stat {name}: {words}")),
        _ => (Kind::NotExecutable, format!("exec: {name:?}: {words}")),
    };
    let mut error = Error::new(kind, message);
    error.errno = Some(e.raw_os_error());
    match e {
        Errno::ACCESS => error.with_hint("the file is not executable for this user: chmod +x it in the image"),
        Errno::NOENT => error.with_hint("the image has no such file"),
        Errno::ISDIR => error.with_hint("name a program: what comes after the image's name is the command"),
        _ => error,
    }
}

/// The file is there, yet the kernel does not execute it.
fn exec_error(path: &Path, e: Errno) -> Error {
    let words = plan::errno_name(e.raw_os_error());
    let words = words.split(" (").next().unwrap_or(&words);
    let name = path.display();
    let (kind, message) = match e {
        Errno::NOENT => (Kind::NoSuchProgram, format!("exec {name}: {words}")),
        Errno::ACCESS => (Kind::NotExecutable, format!("exec: {:?}: {words}", path)),
        _ => (Kind::NotExecutable, format!("exec {name}: {words}")),
    };
    let mut error = Error::new(kind, message);
    error.errno = Some(e.raw_os_error());
    match e {
        Errno::NOENT => {
            error.with_hint("the file is there; its interpreter (#! line, or the loader named in the ELF file) is not")
        }
        Errno::NOEXEC => error.with_hint("it is built for another processor, or a script without a #! line"),
        Errno::ACCESS => error.with_hint("the user may not execute it, or its file system is mounted noexec"),
        Errno::TOOBIG => error.with_hint("arguments and environment together are too long for the kernel"),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(v: &[&str]) -> Vec<String> {
        v.iter().map(|s| (*s).to_string()).collect()
    }

    #[test]
    fn failures_speak_docker() {
        let env = words(&["PATH=/nonexistent:/proc", "HOME=/x"]);
        let fails = |name: &str| execute(&words(&[name]), &env, None);
        let e = fails("no-such-program");
        assert_eq!(e.message, "exec: \"no-such-program\": executable file not found in $PATH");
        assert_eq!(e.kind, Kind::NoSuchProgram);
        let e = fails("/no/such");
        assert_eq!(e.message, "exec: \"/no/such\": stat /no/such: no such file or directory");
        assert_eq!(e.kind, Kind::NoSuchProgram);
        let e = fails("/etc/passwd");
        assert_eq!((e.message.as_str(), e.kind), ("exec: \"/etc/passwd\": permission denied", Kind::NotExecutable));
        let e = fails("/etc");
        assert_eq!((e.message.as_str(), e.kind), ("exec: \"/etc\": is a directory", Kind::NotExecutable));
    }

    #[test]
    fn what_the_kernel_refuses() {
        use std::os::unix::fs::PermissionsExt;
        let dir = std::env::temp_dir().join(format!("rrun-exec-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            path.to_str().unwrap().to_string()
        };
        let plain = file("plain", "no program\n");
        let e = execute(std::slice::from_ref(&plain), &[], None);
        assert_eq!((e.message, e.kind), (format!("exec {plain}: exec format error"), Kind::NotExecutable));
        let orphan = file("orphan", "#!/no/interpreter\n");
        let e = execute(std::slice::from_ref(&orphan), &[], None);
        assert_eq!((e.message, e.kind), (format!("exec {orphan}: no such file or directory"), Kind::NoSuchProgram));
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn home_is_only_added() {
        let with = |env: &[&str], home| environment(&words(env), home).collect::<Vec<_>>();
        assert_eq!(with(&["A=1"], Some("/root")), ["A=1", "HOME=/root"]);
        assert_eq!(with(&["HOME=/h"], Some("/root")), ["HOME=/h"]);
        assert_eq!(with(&[], None), ["HOME=/"]);
    }

    #[test]
    fn relative_path_elements_are_left_out() {
        let found: Vec<_> = candidates("ls", "/bin::.:sbin:/usr/bin").collect();
        assert_eq!(found, [Path::new("/bin/ls"), Path::new("/usr/bin/ls")]);
    }
}
