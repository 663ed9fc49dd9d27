//! Bytes on their way from one descriptor to another.

use super::port::Port;
use rustix::buffer::spare_capacity;
use std::io;

/// How much one `read` asks for: what a pipe holds by default.
pub const CHUNK: usize = 64 * 1024;

/// What came of trying to move bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// This many bytes moved.
    Moved(usize),
    /// Nothing can move now.
    Blocked,
    /// There is nothing more to come.
    End,
}

/// A first-in-first-out store of bytes. It sets no bound of its own: whoever fills it looks at
/// [`Queue::len`] first and leaves the source alone, which is how backpressure travels.
#[derive(Default)]
pub struct Queue {
    bytes: Vec<u8>,
    /// How many of `bytes` have left already.
    start: usize,
}

impl Queue {
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.compact();
        self.bytes.extend_from_slice(bytes);
    }

    pub fn consume(&mut self, n: usize) {
        self.start += n.min(self.len());
        if self.is_empty() {
            self.bytes.clear();
            self.start = 0;
        }
    }

    /// Forgets everything in it.
    pub fn clear(&mut self) {
        self.consume(self.len());
    }

    /// Gives the memory back if nothing is in it.
    pub fn release(&mut self) {
        if self.is_empty() {
            *self = Queue::default();
        }
    }

    /// Reads once, about [`CHUNK`] bytes at most. What is not read is not touched: most reads are short, and a
    /// new page of memory costs as much as one of them.
    pub fn fill(&mut self, from: &Port) -> io::Result<Flow> {
        self.compact();
        self.bytes.reserve(CHUNK);
        from.read(spare_capacity(&mut self.bytes))
    }

    /// Writes as much as the port takes. `End` never comes from here; a closed reader is `EPIPE`.
    pub fn drain(&mut self, to: &Port) -> io::Result<Flow> {
        let mut total = 0;
        while !self.is_empty() {
            match to.write(self.as_slice())? {
                Flow::Moved(n) => {
                    total += n;
                    self.consume(n);
                }
                _ => break,
            }
        }
        Ok(if total > 0 { Flow::Moved(total) } else { Flow::Blocked })
    }

    /// Moves what is left to the front once at least half of the buffer has gone, so that the cost
    /// per byte stays constant.
    fn compact(&mut self) {
        if self.start > 0 && self.start >= self.bytes.len() / 2 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_in_the_order_they_came() {
        let mut q = Queue::default();
        let mut expected = 0u32;
        let mut next = 0u32;
        for round in 0..2000usize {
            for _ in 0..round % 7 {
                q.push(&next.to_le_bytes());
                next += 1;
            }
            for _ in 0..round % 5 {
                if let Some(four) = q.as_slice().first_chunk::<4>() {
                    assert_eq!(u32::from_le_bytes(*four), expected);
                    expected += 1;
                    q.consume(4);
                }
            }
        }
        assert_eq!(q.len() as u32, (next - expected) * 4);
        assert!(expected > 1000);
        q.release();
        assert_eq!(q.len() as u32, (next - expected) * 4, "release loses nothing");
        q.clear();
        q.release();
        assert_eq!(q.bytes.capacity(), 0);
    }
}
