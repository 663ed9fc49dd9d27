//! `rrun version`.

use crate::args::VersionArgs;
use crate::render::template;
use plan::Result;
use serde_json::json;

pub fn run(args: &VersionArgs) -> Result<i32> {
    let kernel = rustix::system::uname();
    let (release, machine) = (kernel.release().to_string_lossy(), kernel.machine().to_string_lossy());
    let version = env!("CARGO_PKG_VERSION");
    if let Some(format) = args.format.as_deref().filter(|f| !f.is_empty()) {
        // Scripts ask for either side; there is one program.
        let side = json!({
            "Version": version, "Os": "linux", "Arch": architecture(), "KernelVersion": release, "ApiVersion": "",
            "Platform": {"Name": "rrun"},
        });
        super::out(&template::inspect_one(Some(format), &json!({"Client": side, "Server": side}))?);
        return Ok(0);
    }
    super::out(&format!("rrun {version}\nkernel {release} {machine}\n"));
    Ok(0)
}

/// Go's name of this machine's architecture.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
