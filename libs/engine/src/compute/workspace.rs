//! Buffers that are used again instead of being returned to the system.
//!
//! A step takes and gives hundreds of large buffers; fresh ones would cost a page fault per page.

use crate::ops::cross_entropy;

/// A store of free buffers.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    free: Vec<Vec<f32>>,
    /// Those of the products with frozen weights, and of the output layer.
    pub(crate) ops: cross_entropy::Scratch,
}

/// Where a buffer comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The free one at this place.
    Reuse(usize),
    /// A new one.
    New,
    /// A new one, for which the free one at this place makes room.
    Replace(usize),
}

/// Which of the free buffers, by capacity, serves for `len` values: the smallest that is not far
/// too large. Where none is large enough the largest makes room, so that odd sizes do not pile up.
pub(crate) fn choose(free: impl Iterator<Item = usize> + Clone, len: usize) -> Choice {
    let sizes = free.enumerate();
    let fits = sizes.clone().filter(|(_, capacity)| *capacity >= len);
    match fits.min_by_key(|(_, capacity)| *capacity) {
        Some((index, capacity)) if capacity <= 2 * len + 4096 => Choice::Reuse(index),
        Some(_) => Choice::New,
        None if sizes.clone().count() > 8 => match sizes.max_by_key(|(_, capacity)| *capacity) {
            Some((index, _)) => Choice::Replace(index),
            None => Choice::New,
        },
        None => Choice::New,
    }
}

impl Workspace {
    /// A buffer of `len` values, whose contents mean nothing.
    pub(crate) fn take(&mut self, len: usize) -> Vec<f32> {
        let mut buffer = match choose(self.free.iter().map(Vec::capacity), len) {
            Choice::Reuse(index) => self.free.swap_remove(index),
            Choice::New => Vec::new(),
            Choice::Replace(index) => {
                drop(self.free.swap_remove(index));
                Vec::new()
            }
        };
        if buffer.capacity() < len {
            // An eighth more, so that slightly longer batches fit too.
            buffer.reserve_exact(len + len / 8);
        }
        buffer.resize(len, 0.0);
        buffer
    }

    /// Bytes of the free buffers: after a step, of all that it took.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.free.iter().map(|buffer| 4 * buffer.capacity()).sum()
    }

    /// Gives a buffer back.
    pub(crate) fn give(&mut self, buffer: Vec<f32>) {
        if buffer.capacity() > 0 {
            self.free.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_buffer_is_taken_again() {
        let mut workspace = Workspace::default();
        let first = workspace.take(5000);
        let place = first.as_ptr();
        workspace.give(first);
        let again = workspace.take(4900);
        assert_eq!((again.as_ptr(), again.len()), (place, 4900));
    }
}
