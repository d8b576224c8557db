//! The batches of a run's steps, and the account of what could not be learned.

use engine::data::{Batch, Filler, Loaded, Loader, Refusals};

use crate::output;

/// Batches, one step after another.
#[derive(Debug)]
pub struct Batches<'a> {
    loader: Loader<'a>,
    filler: Option<Filler<'a>>,
    /// Batches of a step.
    each: u64,
    /// Number of the next batch.
    next: u64,
    refused: Refusals,
}

impl<'a> Batches<'a> {
    /// Those after the first `made` steps. Where they are filled by `tokens`, the records of those are encoded once more
    /// to know where they end.
    pub fn new(
        loader: Loader<'a>,
        tokens: Option<usize>,
        each: u64,
        made: u64,
    ) -> anyhow::Result<Self> {
        let mut filler = tokens.map(|tokens| loader.filled(tokens, 0));
        if let Some(filler) = &mut filler {
            for _ in 0..made * each {
                filler.batch()?;
            }
        }
        Ok(Self {
            loader,
            filler,
            each,
            next: made * each,
            refused: Refusals::default(),
        })
    }

    /// The batches of the next step; the first time that a record is refused for a reason, it is said.
    pub fn step(&mut self) -> anyhow::Result<Vec<Batch>> {
        let mut batches = Vec::new();
        for _ in 0..self.each {
            let Loaded { batch, refused } = match &mut self.filler {
                Some(filler) => filler.batch()?,
                None => self.loader.batch(self.next)?,
            };
            self.next += 1;
            let is_new = self.refused.add(&refused);
            if let Some(last) = refused.last().filter(|_| is_new) {
                output::note(format!(
                    "record {}: {}; another takes its place",
                    last.record, last.refusal
                ));
            }
            batches.push(batch);
        }
        Ok(batches)
    }

    /// What could not be learned so far.
    pub const fn refused(&self) -> &Refusals {
        &self.refused
    }
}
