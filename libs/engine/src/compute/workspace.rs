//! Buffers that are used again instead of being returned to the system.
//!
//! A step takes and gives hundreds of large buffers; fresh ones would cost a page fault per page. Steps of different
//! length share them: a short one takes the buffers that a long one would in its place, so that a mix of lengths holds
//! what its longest step alone needs.

use crate::ops::cross_entropy;

/// A store of free buffers.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    free: Vec<Vec<f32>>,
    /// Tokens of the step that the buffers were made for.
    made_for: usize,
    /// Tokens of the step under way.
    tokens: usize,
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
    /// A pass over so many tokens begins. What is too small for it goes.
    pub(crate) fn begin(&mut self, tokens: usize) {
        self.tokens = tokens;
        // Buffers are made an eighth larger than they must be.
        if tokens > self.made_for + self.made_for / 8 {
            self.free.clear();
            self.made_for = tokens;
        }
    }

    /// As many values as the step that the buffers were made for would take in this place.
    fn as_made_for(&self, len: usize) -> usize {
        let made_for = self.made_for.max(self.tokens);
        len.saturating_mul(made_for) / self.tokens.max(1)
    }

    fn choose(&self, len: usize) -> Choice {
        let sizes = || self.free.iter().map(Vec::capacity);
        match choose(sizes(), self.as_made_for(len)) {
            Choice::Reuse(index) => Choice::Reuse(index),
            Choice::New | Choice::Replace(_) => choose(sizes(), len),
        }
    }

    /// A buffer of `len` values, whose contents mean nothing.
    pub(crate) fn take(&mut self, len: usize) -> Vec<f32> {
        let mut buffer = match self.choose(len) {
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

    /// Bytes of the free buffers: after a step, of all that were taken so far.
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

    /// A pass that holds four widths at once, and what the workspace holds after it.
    fn pass(workspace: &mut Workspace, tokens: usize) -> usize {
        workspace.begin(tokens);
        let first = workspace.take(8 * tokens);
        let second = workspace.take(64 * tokens);
        workspace.give(first);
        let held = [3, 24, 64].map(|width| workspace.take(width * tokens));
        workspace.give(second);
        held.into_iter().for_each(|buffer| workspace.give(buffer));
        workspace.capacity()
    }

    #[test]
    fn a_mix_of_lengths_holds_what_its_longest_step_alone_does() {
        let mut workspace = Workspace::default();
        let longest = pass(&mut workspace, 10_000);
        for tokens in [4500, 2000, 9999, 10_900, 50, 7000, 10_000] {
            assert_eq!(pass(&mut workspace, tokens), longest, "{tokens}");
        }
        let longer = pass(&mut workspace, 20_000);
        assert_eq!(pass(&mut Workspace::default(), 20_000), longer);
    }

    #[test]
    fn what_does_not_grow_with_the_step_is_found_in_short_steps_too() {
        let mut workspace = Workspace::default();
        workspace.begin(1000);
        let fixed = workspace.take(50_000);
        workspace.give(fixed);
        workspace.begin(10);
        let held = workspace.capacity();
        let again = workspace.take(50_000);
        workspace.give(again);
        assert_eq!(workspace.capacity(), held);
    }
}
