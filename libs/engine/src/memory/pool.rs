//! A [`Workspace`](crate::compute::Workspace) by size alone: what it would hold after the same calls.

use crate::compute::{Choice, choose};

/// Follows what a workspace takes and gives.
#[derive(Debug, Default)]
pub(super) struct Pool {
    free: Vec<Buffer>,
    /// Bytes of every buffer that was not dropped.
    held: u64,
    /// The most of them at once.
    peak: u64,
}

/// A buffer that was taken.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    capacity: usize,
    /// Values that were written once: memory beyond them is reserved, not used.
    touched: usize,
}

impl Pool {
    /// As `Workspace::take`.
    pub(super) fn take(&mut self, len: usize) -> Buffer {
        let sizes = self.free.iter().map(|buffer| buffer.capacity);
        let mut buffer = match choose(sizes, len) {
            Choice::Reuse(index) => self.free.swap_remove(index),
            Choice::New => Buffer::default(),
            Choice::Replace(index) => {
                let dropped = self.free.swap_remove(index);
                self.held -= bytes(dropped.touched);
                Buffer::default()
            }
        };
        if buffer.capacity < len {
            self.held -= bytes(buffer.touched);
            buffer = Buffer {
                capacity: len + len / 8,
                touched: 0,
            };
        }
        if len > buffer.touched {
            self.held += bytes(len - buffer.touched);
            buffer.touched = len;
            self.peak = self.peak.max(self.held);
        }
        buffer
    }

    /// As `Workspace::give`.
    pub(super) fn give(&mut self, buffer: Buffer) {
        if buffer.capacity > 0 {
            self.free.push(buffer);
        }
    }

    /// Bytes of all free buffers, those that were only reserved included.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.free.iter().map(|buffer| 4 * buffer.capacity).sum()
    }

    /// The most bytes at once.
    pub(super) const fn peak(&self) -> u64 {
        self.peak
    }
}

const fn bytes(values: usize) -> u64 {
    4 * values as u64
}
