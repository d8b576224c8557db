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

impl Workspace {
    /// A buffer of `len` values, whose contents mean nothing.
    pub(crate) fn take(&mut self, len: usize) -> Vec<f32> {
        let fits = |buffer: &&(usize, usize)| buffer.1 >= len;
        let sizes: Vec<(usize, usize)> = self.free.iter().map(Vec::capacity).enumerate().collect();
        let best = sizes
            .iter()
            .filter(fits)
            .min_by_key(|(_, capacity)| *capacity);
        // Where none fits, the largest makes room, so that odd sizes do not pile up.
        let best = match best {
            Some((index, capacity)) if *capacity <= 2 * len + 4096 => Some(*index),
            Some(_) => None,
            None => {
                if let Some((index, _)) = sizes
                    .iter()
                    .max_by_key(|(_, capacity)| *capacity)
                    .filter(|_| self.free.len() > 8)
                {
                    drop(self.free.swap_remove(*index));
                }
                None
            }
        };
        let mut buffer = best
            .map(|index| self.free.swap_remove(index))
            .unwrap_or_default();
        if buffer.capacity() < len {
            // An eighth more, so that slightly longer batches fit too.
            buffer.reserve_exact(len + len / 8);
        }
        buffer.resize(len, 0.0);
        buffer
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
