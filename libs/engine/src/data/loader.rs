//! Batches: drawn, read and encoded.
//!
//! A record that cannot be encoded is told and another of its class takes its place, the same one
//! every time; only when that fails again and again, or when the options suit no record at all, is
//! it an error.

use super::{Batch, Dataset, Draw, Encoder, Error, Refusal, Row, Sampler};

/// How many other records are tried in a refused one's place.
const ATTEMPTS: u64 = 32;

/// Makes batches of one data set.
#[derive(Clone, Copy, Debug)]
pub struct Loader<'a> {
    dataset: &'a Dataset,
    encoder: &'a Encoder,
    sampler: &'a Sampler,
}

/// A batch, and what was refused while making it.
#[derive(Debug)]
pub struct Loaded {
    /// As many rows as the sampler draws.
    pub batch: Batch,
    /// Records that could not be encoded; the same record may appear again in another step.
    pub refused: Vec<Refused>,
}

/// A record without a row.
#[derive(Debug)]
pub struct Refused {
    /// Its number.
    pub record: usize,
    /// Why.
    pub refusal: Refusal,
}

impl<'a> Loader<'a> {
    /// Draws from `dataset` as `sampler`, which was made for it, says.
    #[must_use]
    pub fn new(dataset: &'a Dataset, encoder: &'a Encoder, sampler: &'a Sampler) -> Self {
        Self {
            dataset,
            encoder,
            sampler,
        }
    }

    /// The batch of a step; a pure function of the step.
    ///
    /// # Errors
    /// The file cannot be read or changed, the options suit no record, or too many records in a
    /// row were refused.
    pub fn batch(&self, step: u64) -> Result<Loaded, Error> {
        let mut refused = Vec::new();
        let mut rows = Vec::new();
        for (slot, first) in self.sampler.draws(step).into_iter().enumerate() {
            rows.push(self.row(step, (slot, first), &mut refused)?);
        }
        let batch = Batch { rows };
        Ok(Loaded { batch, refused })
    }

    /// The row of the sampler's draw of this number, whichever batch that belongs to.
    pub(super) fn nth(&self, draw: u64, refused: &mut Vec<Refused>) -> Result<Row, Error> {
        let (step, slot, first) = self.sampler.nth(draw);
        self.row(step, (slot, first), refused)
    }

    /// A draw's row, or one that takes its place; what was refused on the way is told.
    fn row(
        &self,
        step: u64,
        (slot, first): (usize, Draw),
        refused: &mut Vec<Refused>,
    ) -> Result<Row, Error> {
        let spares = (0..ATTEMPTS).map(|attempt| self.sampler.spare(step, slot, attempt));
        for draw in std::iter::once(first).chain(spares) {
            let record = self.dataset.record(draw.record)?;
            match self.encoder.row_of_pass(draw.record, &record, draw.pass) {
                Ok(row) => return Ok(row),
                Err(refusal) if refusal.is_of_this_record() => refused.push(Refused {
                    record: draw.record,
                    refusal,
                }),
                Err(refusal) => return Err(refusal.into()),
            }
        }
        let last = refused.pop().map(|last| last.refusal);
        Err(last.unwrap_or(Refusal::NothingToLearn).into())
    }
}
