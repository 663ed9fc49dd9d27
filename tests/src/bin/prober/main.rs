//! Runs inside a container and prints, as one JSON object, what it is and what it may do.
//!
//! `prober swap A B` exchanges two names instead, as fast as it can, until it is killed.
//!
//! The black-box tests compare the answers of `run` with those of `exec`, and both with a table. Every
//! probe is harmless where it is allowed: arguments that fail later, effects on a forked child only.

mod calls;
mod child;
mod files;
mod process;

use serde_json::json;

fn main() {
    if let [_, word, one, other] = std::env::args().collect::<Vec<_>>().as_slice()
        && word == "swap"
    {
        files::swap(one, other);
    }
    // Descriptors first, before anything here opens one.
    let fds = process::descriptors();
    let report = json!({
        "fds": fds,
        "processes": process::place(),
        "process": process::status(),
        "env": std::env::vars_os()
            .map(|(k, v)| (k.to_string_lossy().into_owned(), v.to_string_lossy().into_owned()))
            .collect::<std::collections::BTreeMap<_, _>>(),
        "cwd": std::env::current_dir().map(|d| d.display().to_string()).unwrap_or_else(|e| e.to_string()),
        "rlimits": process::rlimits(),
        "mounts": files::mounts(),
        "devices": files::devices(),
        "paths": files::paths(),
        "sysctls": files::sysctls(),
        "writable": files::writable(),
        "calls": calls::all(),
    });
    println!("{report}");
}
