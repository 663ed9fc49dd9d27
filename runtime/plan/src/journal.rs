//! Which steps were applied, and how long each took.

use serde::{Deserialize, Serialize};
use std::time::Instant;

/// One applied step: its index in the plan, and when it began and ended, in microseconds since the
/// journal was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    pub step: u16,
    pub begin_us: u32,
    pub end_us: u32,
}

/// The record of applying one plan.
pub struct Journal {
    epoch: Instant,
    marks: Vec<Mark>,
    silent: bool,
}

impl Default for Journal {
    fn default() -> Journal {
        Journal::new()
    }
}

impl Journal {
    pub fn new() -> Journal {
        Journal { epoch: Instant::now(), marks: Vec::with_capacity(64), silent: false }
    }

    /// A journal that nobody will read: it takes no marks, nor does it have the child send its own.
    pub fn silent() -> Journal {
        Journal { epoch: Instant::now(), marks: Vec::new(), silent: true }
    }

    pub fn is_silent(&self) -> bool {
        self.silent
    }

    /// Microseconds since the journal was opened.
    pub fn now(&self) -> u32 {
        u32::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u32::MAX)
    }

    /// Records that `step` ran from `begin_us` until now.
    pub fn mark(&mut self, step: usize, begin_us: u32) {
        let end_us = self.now();
        self.push(Mark { step: u16::try_from(step).unwrap_or(u16::MAX), begin_us, end_us });
    }

    /// Adds a mark taken elsewhere (the container's child shares CLOCK_MONOTONIC and the epoch).
    pub fn push(&mut self, mark: Mark) {
        if !self.silent {
            self.marks.push(mark);
        }
    }

    pub fn marks(&self) -> &[Mark] {
        &self.marks
    }
}
