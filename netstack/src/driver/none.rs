//! `--network none`: a namespace of its own with nothing in it but loopback.
//!
//! (`--network host` is the opposite and even shorter: no namespace of its own, so no step at all.)

use crate::step::Step;

/// What every container with a network namespace of its own gets.
pub fn steps() -> Vec<Step> {
    vec![Step::LoopbackUp]
}
