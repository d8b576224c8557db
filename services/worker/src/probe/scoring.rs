//! The measured forward passes: those of scoring, and the loss that the probe's records have at the start.

use std::collections::BTreeSet;

use chassis::clock::Stopwatch;
use chassis::memory;
use domain::profile::{SCORED_PARAMETER_BYTES, Sample};
use engine::data::Batch;
use engine::evaluate::{Evaluator, Loss};

use super::peaks::Peak;
use super::room::{FILL, Measured, Room, count, median, squares};
use crate::adapter_file;
use crate::failure::Failure;
use crate::policy::SMALLEST_COUNT;
use crate::running::Running;

/// Rows of the forward passes, and which part of the longest row they have, each tried where the ones before it let one hope
/// that it fits. The short rows tell apart what grows with tokens and what does not, and are told to nobody; each of the
/// others is twice as large as the one before, so that little is hoped for that was not seen.
const PASSES: [(u16, usize); 5] = [(1, 4), HALF, (1, 1), (2, 1), (4, 1)];
/// Made where by the shorter row alone, all of which may grow, a whole one seems to need more than there is.
const HALF: (u16, usize) = (1, 2);
/// Bytes of a merged adapter's parameter while scoring loads it: as read, and as computed with.
const LOADED_PARAMETER_BYTES: f64 = 2.0 * SCORED_PARAMETER_BYTES;

/// Records whose loss is taken, so that bases can be compared: the same ones for each,
const LOSS_RECORDS: u64 = 16;
/// and at least those that a figure must average, if they take longer than this.
const LOSS_SECONDS: f64 = 4.0;

impl Room<'_> {
    /// Forward passes as scoring makes them, with the whole merged adapter. Where not even one row fits
    /// there are none, and a job that scores cannot be taken part in.
    ///
    /// `trained` are the steps that were measured, of whatever kind: a pass of scoring keeps about as much of a token as
    /// one without gradients does, and less than one with.
    pub(super) fn scored(&mut self, trained: &[Sample]) -> Result<Vec<Measured>, Failure> {
        let parameters = self.ranks(self.task.rank_max).parameters(&self.weights);
        let (mut measured, mut seen) = (Vec::new(), Vec::new());
        let most = FILL * self.running.site.memory_limit_bytes as f64;
        for (rows, part) in PASSES {
            let needs = |room: &Self, (rows, part)| {
                let tokens = f64::from(rows) * room.longest(part) as f64;
                let held = SCORED_PARAMETER_BYTES * parameters as f64;
                let by_step = trained.iter().map(|step| {
                    let growth = (tokens / step.peak_tokens()).max(1.0);
                    room.beyond_base(step) * growth + LOADED_PARAMETER_BYTES * parameters as f64
                });
                let known = by_step.chain(expected(&seen, tokens, held));
                let needed = known.reduce(f64::min);
                room.base_memory_bytes as f64 + needed.unwrap_or(0.0)
            };
            if (rows, part) == HALF && needs(self, (1, 1)) <= most {
                continue;
            }
            let bytes = needs(self, (rows, part));
            if bytes <= most {
                let (pass, computing) = self.pass((rows, part), parameters)?;
                seen.push(Seen {
                    tokens: pass.sample.peak_tokens(),
                    beyond: computing.counted().saturating_sub(self.base_memory_bytes) as f64,
                    heap: computing.heap() as f64,
                });
                if part == 1 {
                    measured.push(pass);
                }
            } else if measured.is_empty() && !self.task.choices.is_empty() {
                return Err(self.lacks("scoring a record", bytes as u64));
            } else {
                break;
            }
        }
        Ok(measured)
    }

    /// A pass, and the peak of computing it: that of loading the adapter, which no token adds to, is only in what is told.
    fn pass(
        &mut self,
        (rows, part): (u16, usize),
        parameters: u64,
    ) -> Result<(Measured, Peak), Failure> {
        let (longest, mean) = (self.longest(part), self.mean(part));
        memory::reset_peak();
        let adapter = adapter_file::whole(&self.global, &self.weights, 1.0)?;
        let mut evaluator = Evaluator::new(self.model, Some(&adapter))?;
        drop(adapter);
        let loading = Peak::seen();
        memory::reset_peak();
        let mut pass = |room: &mut Self, length| {
            let batch = room.batch(usize::from(rows), length)?;
            forward(&mut evaluator, &batch, room.running)
        };
        let (_, longest_tokens) = pass(self, longest)?;
        let (seconds, tokens) = median(|| pass(self, mean))?;
        let computing = Peak::seen();
        let peak = loading.or(computing);
        let sample = Sample {
            batch: rows,
            tokens: count(tokens),
            squares: squares(tokens, rows),
            longest_tokens: count(longest_tokens),
            parameters,
            step_seconds: self.running.site.forward_pace().seconds(tokens, seconds),
            peak_memory_bytes: peak.counted(),
        };
        let pass = Measured::pass(sample, peak, seconds / tokens.max(1) as f64);
        Ok((pass, computing))
    }

    /// Tokens a second of forward passes alone.
    pub(super) fn forward_tokens_per_second(
        &mut self,
        scored: &[Measured],
    ) -> Result<f64, Failure> {
        if let Some(pass) = scored.last() {
            let Sample {
                tokens,
                step_seconds,
                ..
            } = pass.sample;
            return Ok(f64::from(tokens) / step_seconds.max(1e-9));
        }
        // No merged adapter fits; a pass without one is slower by nothing that matters.
        let mut evaluator = Evaluator::new(self.model, None)?;
        let batch = self.batch(1, self.mean(1))?;
        let (seconds, tokens) = median(|| forward(&mut evaluator, &batch, self.running))?;
        let seconds = self.running.site.forward_pace().seconds(tokens, seconds);
        Ok(tokens as f64 / seconds.max(1e-9))
    }

    /// The mean loss of the job's first records with this base: that of the untrained adapter, whose change
    /// is zero, and of how many it is. `None` where too few records may be averaged. With `records`, of
    /// exactly as many as with another base, which are the same ones.
    pub(super) fn loss(&mut self, records: Option<u64>) -> Result<Option<(f64, u64)>, Failure> {
        let consent = self.running.site.config.policy.share_small_counts;
        let smallest = if consent { 1 } else { SMALLEST_COUNT };
        let distinct = self.data.summary().records;
        let most = records.unwrap_or(LOSS_RECORDS).min(distinct);
        if most < smallest {
            return Ok(None);
        }
        let whole = Stopwatch::start();
        let mut evaluator = Evaluator::new(self.model, None)?;
        let (mut sum, mut drawn, mut seen) = (Loss::default(), 0, BTreeSet::new());
        while drawn < most {
            let enough = seen.len() as u64 >= smallest;
            if records.is_none() && enough && whole.seconds() > LOSS_SECONDS {
                break;
            }
            let batch = self.drawn(1, drawn)?;
            sum = sum.merge(evaluator.loss(&batch, self.running.stop.control())?);
            seen.extend(batch.rows.iter().map(|row| row.record));
            self.running.advance();
            drawn += 1;
        }
        // Classes in equal shares may draw the records of a small one again and again.
        let told = seen.len() as u64 >= smallest;
        let mean = sum.mean().filter(|mean| told && mean.is_finite());
        Ok(mean.map(|mean| (mean, drawn)))
    }
}

fn forward(
    evaluator: &mut Evaluator<'_>,
    batch: &Batch,
    running: &Running,
) -> Result<(f64, usize), Failure> {
    let watch = Stopwatch::start();
    let loss = evaluator.loss(batch, running.stop.control())?;
    running.advance();
    Ok((watch.seconds(), loss.tokens))
}

/// What computing a pass took.
#[derive(Debug, Clone, Copy)]
struct Seen {
    tokens: f64,
    /// Bytes beyond the base.
    beyond: f64,
    /// Bytes of the heap.
    heap: f64,
}

/// Bytes beyond the base that a pass over so many tokens needs, by those before it, `held` of these the adapter's: on the
/// line through the last two, and never more than in proportion to the last. None before the first.
fn expected(seen: &[Seen], tokens: f64, held: f64) -> Option<f64> {
    let last = seen.last()?;
    let proportion = (last.beyond - held).max(0.0) * (tokens / last.tokens).max(1.0) + held;
    let before = seen.iter().rev().nth(1);
    let before = before.filter(|before| before.tokens < last.tokens);
    Some(before.map_or(proportion, |before| {
        let each = ((last.heap - before.heap) / (last.tokens - before.tokens)).max(0.0);
        proportion.min(last.beyond + each * (tokens - last.tokens).max(0.0))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 30 MB beside the heap, which holds the base too.
    fn seen(tokens: f64, heap: f64) -> Seen {
        Seen {
            tokens,
            beyond: heap + 30e6 - 100e6,
            heap,
        }
    }

    #[test]
    fn two_passes_tell_apart_what_grows_with_tokens() {
        let (short, whole) = (seen(20.0, 95e6), seen(80.0, 98e6));
        assert_eq!(expected(&[], 20.0, 1e6), None);
        // All that is beyond the adapter may grow.
        assert_eq!(expected(&[short], 80.0, 1e6), Some(97e6));
        assert_eq!(expected(&[short], 10.0, 1e6), Some(25e6));
        assert_eq!(expected(&[short, whole], 160.0, 1e6), Some(32e6));
        // A row that is as short as a part of it.
        assert_eq!(expected(&[short, short], 40.0, 1e6), Some(49e6));
    }

    #[test]
    fn a_stack_that_was_given_back_does_not_make_tokens_cheaper() {
        let mut short = seen(20.0, 95e6);
        short.beyond += 2e6;
        assert_eq!(expected(&[short, seen(80.0, 98e6)], 160.0, 1e6), Some(32e6));
    }
}
