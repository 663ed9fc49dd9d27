//! Functions that a start runs lie side by side in the binary, by the list in `startup.order`: 100 page faults
//! less in three processes, a twentieth of a start. `tests/order.sh` writes that list anew.
//!
//! Names in it that this build does not have (another compiler, changed functions) do no harm.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=startup.order");
    println!("cargo:rerun-if-env-changed=RRUN_LINK_MAP");
    let var = |name: &str| std::env::var(name).unwrap_or_default();
    if let Some(map) = std::env::var_os("RRUN_LINK_MAP") {
        println!("cargo:rustc-link-arg-bins=-Wl,-Map={}", Path::new(&map).display());
    }
    let order = PathBuf::from(var("CARGO_MANIFEST_DIR")).join("startup.order");
    let option = format!("-Wl,--symbol-ordering-file={}", order.display());
    if var("PROFILE") == "release" && links_with(&option) {
        println!("cargo:rustc-link-arg-bins={option}");
        println!("cargo:rustc-link-arg-bins=-Wl,--no-warn-symbol-ordering");
    }
}

/// Only lld has the option, and which linker it is depends on compiler, target and flags: so it is tried.
fn links_with(option: &str) -> bool {
    let var = |name: &str| std::env::var(name).unwrap_or_default();
    let dir = PathBuf::from(var("OUT_DIR"));
    let source = dir.join("probe.rs");
    if std::fs::write(&source, "fn main() {}").is_err() {
        return false;
    }
    let flags = var("CARGO_ENCODED_RUSTFLAGS");
    let mut rustc = Command::new(var("RUSTC"));
    rustc.arg(source).arg("--target").arg(var("TARGET")).arg("--out-dir").arg(dir).args(["-C", "debuginfo=0"]);
    rustc.args(flags.split('\u{1f}').filter(|f| !f.is_empty())).arg("-C").arg(format!("link-arg={option}"));
    rustc.arg("-C").arg("link-arg=-Wl,--no-warn-symbol-ordering");
    rustc.output().is_ok_and(|probe| probe.status.success())
}
