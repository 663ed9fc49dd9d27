//! Bytes between two sides, none lost and none waited for: the copying core of `attach`, of the
//! monitor and of `exec`.
//!
//! [`Port`] reads and writes descriptors without blocking, [`Queue`] holds what is under way, and
//! `session` is the loop between the caller's stdio and a program. `exec` uses it through
//! [`relay`], with the program's pipes in its own hands.

pub mod detach;
mod direct;
mod port;
mod program;
mod queue;
mod session;

pub use direct::relay;
pub use port::Port;
pub use program::{Ending, Ends, Program, Stream};
pub use queue::{CHUNK, Flow, Queue};
pub use session::{AttachEnd, BACKLOG, Options, Outputs, Remote, Stdio, capture, own_stdio, run};
