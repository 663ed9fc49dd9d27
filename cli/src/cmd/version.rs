//! `rrun version`.

use plan::Result;

pub fn run() -> Result<i32> {
    let kernel = rustix::system::uname();
    super::out(&format!(
        "rrun {}\nkernel {} {}\n",
        env!("CARGO_PKG_VERSION"),
        kernel.release().to_string_lossy(),
        kernel.machine().to_string_lossy()
    ));
    Ok(0)
}
