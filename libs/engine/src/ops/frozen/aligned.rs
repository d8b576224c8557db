//! A buffer of words that begins on a cache line, so that no load of a line touches two.

/// Words of a cache line.
const LINE: usize = 16;

/// A buffer that grows and is used again.
#[derive(Debug, Default)]
pub(super) struct Aligned {
    data: Vec<u32>,
}

impl Aligned {
    /// `len` words, whose contents mean nothing.
    pub(super) fn take(&mut self, len: usize) -> &mut [u32] {
        if self.data.len() < len + LINE {
            // What it held means nothing: nothing is copied.
            self.data = vec![0; len + LINE];
        }
        let skip = self.data.as_ptr().align_offset(4 * LINE).min(LINE);
        self.data.get_mut(skip..skip + len).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_begins_on_a_line() {
        let mut buffer = Aligned::default();
        for len in [0, 1, 1000, 10] {
            let taken = buffer.take(len);
            assert_eq!((taken.len(), taken.as_ptr() as usize % 64), (len, 0));
        }
    }
}
