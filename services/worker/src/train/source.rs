//! The batches of a round's steps: a function of seed, worker, plan, round and step.
//!
//! Batches of so many records are counted through all rounds, so that every record is seen before any comes twice. Where
//! batches are filled by tokens, a round begins with the record at which it would begin if every batch had as many as the
//! plan expects: whoever joins late, or does the round again, need not know how earlier ones were filled. A few records
//! between two rounds may so come twice or be left to the next pass.

use domain::job::spec::Training;
use domain::plan::WorkerPlan;
use engine::data::{Batch, Error, Filler, Loaded, Loader, Refusals};

use crate::data::Opened;
use crate::failure::Failure;
use crate::running::Running;

/// The steps of one round, in their order.
#[derive(Debug)]
pub struct Source<'a> {
    loader: Loader<'a>,
    filler: Option<Filler<'a>>,
    plan: &'a WorkerPlan,
    /// The number of the round's first batch.
    first: u64,
    /// Tokens of a batch, where they fill it.
    tokens: Option<usize>,
    refused: Refusals,
}

impl<'a> Source<'a> {
    /// The batches of a round, counted from 1.
    pub fn new(training: &Training, plan: &'a WorkerPlan, round: u32, loader: Loader<'a>) -> Self {
        let mut source = Self {
            loader,
            filler: None,
            plan,
            first: u64::from(round.saturating_sub(1)) * plan.batches(),
            tokens: training.batch_tokens.map(|tokens| tokens as usize),
            refused: Refusals::default(),
        };
        source.filler = source.fresh();
        source
    }

    /// Records of the whole round, known before it begins: what may be told of its steps depends on it. Where tokens fill
    /// batches each record is encoded once more for it.
    ///
    /// # Errors
    /// As [`Source::step`], and if the task is stopped.
    pub fn records(&self, running: &Running, data: &Opened) -> Result<u64, Failure> {
        let batches = self.plan.batches();
        let Some(mut filler) = self.fresh() else {
            return Ok(u64::from(self.plan.batch) * batches);
        };
        let mut records = 0;
        for _ in 0..batches {
            running.stop.check()?;
            let loaded = filler.batch().map_err(|error| data.trouble(&error))?;
            records += loaded.batch.rows.len() as u64;
            running.advance();
        }
        Ok(records)
    }

    /// The batches of a step, counted from 0 within the round; to be asked for one after another.
    ///
    /// # Errors
    /// The data set cannot be read or has nothing that can be learned.
    pub fn step(&mut self, step: u32) -> Result<Vec<Batch>, Error> {
        let each = u64::from(self.plan.accumulate);
        let first = self.first + u64::from(step) * each;
        let mut batches = Vec::new();
        for number in first..first + each {
            let Loaded { batch, refused } = match &mut self.filler {
                Some(filler) => filler.batch()?,
                None => self.loader.batch(number)?,
            };
            self.refused.add(&refused);
            batches.push(batch);
        }
        Ok(batches)
    }

    /// What could not be learned so far.
    pub const fn refused(&self) -> &Refusals {
        &self.refused
    }

    fn fresh(&self) -> Option<Filler<'a>> {
        let first = self.first.saturating_mul(u64::from(self.plan.batch));
        let filled = |tokens| self.loader.filled(tokens, first);
        self.tokens.map(filled)
    }
}
