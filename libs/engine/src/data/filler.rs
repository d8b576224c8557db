//! Batches that fill a budget of tokens (packing): as many records as fit, in the order of the sampler.
//!
//! A batch has no padding and no record sees another (`compute::packed`), so that what is learned from a record is the
//! same however batches are filled; steps of equal size take equal time and memory, whatever the records' lengths.

use super::{Batch, Error, Loaded, Loader, Refused, Row};

/// Fills batches, one after another.
#[derive(Debug)]
pub struct Filler<'a> {
    loader: Loader<'a>,
    tokens: usize,
    next: u64,
    /// A row that did not fit the last batch, and what was refused before it.
    waiting: Option<(Row, Vec<Refused>)>,
}

impl<'a> Loader<'a> {
    /// Batches of at most so many tokens, beginning with the sampler's draw of this number. A row that is longer by
    /// itself has a batch of its own.
    #[must_use]
    pub const fn filled(self, tokens: usize, first: u64) -> Filler<'a> {
        Filler {
            loader: self,
            tokens,
            next: first,
            waiting: None,
        }
    }
}

impl Filler<'_> {
    /// The next batch; at least one row. Which it is follows from the data, the sampler and the first draw alone.
    ///
    /// # Errors
    /// As [`Loader::batch`].
    pub fn batch(&mut self) -> Result<Loaded, Error> {
        let (mut batch, mut refused, mut filled) = (Batch::default(), Vec::new(), 0);
        loop {
            let (row, told) = match self.waiting.take() {
                Some(waiting) => waiting,
                None => self.draw()?,
            };
            if !batch.rows.is_empty() && filled + row.tokens.len() > self.tokens {
                self.waiting = Some((row, told));
                return Ok(Loaded { batch, refused });
            }
            filled += row.tokens.len();
            refused.extend(told);
            batch.rows.push(row);
        }
    }

    fn draw(&mut self) -> Result<(Row, Vec<Refused>), Error> {
        let mut refused = Vec::new();
        let row = self.loader.nth(self.next, &mut refused)?;
        self.next += 1;
        Ok((row, refused))
    }
}
