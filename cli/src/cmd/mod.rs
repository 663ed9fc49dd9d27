//! One file per verb: compose, run, render.

use crate::args::{Command, Global};
use crate::context::Context;
use plan::{Error, Result};
use std::io::Write;

pub fn dispatch(global: &Global, command: Command) -> Result<i32> {
    let ctx = Context::new(global)?;
    crate::context::require_root()?;
    let _ = (ctx, command);
    Err(Error::system("not built yet"))
}

/// Prints to standard output. A reader that has gone (`rrun ps | head -1`) is no error of ours.
pub fn out(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}
