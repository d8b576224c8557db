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

/// Rows of the two measured forward passes; the second only where memory allows it.
const SCORED_ROWS: [u16; 2] = [1, 4];
/// Bytes of a merged adapter's parameter while scoring loads it: as read, and as computed with.
const LOADED_PARAMETER_BYTES: f64 = 2.0 * SCORED_PARAMETER_BYTES;

/// Records whose loss is taken, so that bases can be compared: the same ones for each,
const LOSS_RECORDS: u64 = 16;
/// and at least those that a figure must average, if they take longer than this.
const LOSS_SECONDS: f64 = 4.0;

impl Room<'_> {
    /// Forward passes as scoring makes them, with the whole merged adapter. Where not even one row fits
    /// there are none, and a job that scores cannot be taken part in.
    pub(super) fn scored(&mut self, trained: &[Measured]) -> Result<Vec<Measured>, Failure> {
        let parameters = self.ranks(self.task.rank_max).parameters(&self.weights);
        // A forward pass alone keeps less of each token than training does.
        let largest = trained.iter().map(|round| &round.sample);
        let largest = largest.max_by(|a, b| a.peak_tokens().total_cmp(&b.peak_tokens()));
        let mut measured: Vec<Measured> = Vec::new();
        for rows in SCORED_ROWS {
            let tokens = f64::from(rows) * self.longest(1) as f64;
            let growth = |sample: &Sample| (tokens / sample.peak_tokens()).max(1.0);
            let needed = match (measured.last(), largest) {
                // A smaller pass tells more than any step with gradients.
                (Some(pass), _) => {
                    let held = SCORED_PARAMETER_BYTES * parameters as f64;
                    let of_tokens = (self.beyond_base(&pass.sample) - held).max(0.0);
                    of_tokens * growth(&pass.sample) + held
                }
                (None, Some(step)) => {
                    self.beyond_base(step) * growth(step)
                        + LOADED_PARAMETER_BYTES * parameters as f64
                }
                (None, None) => 0.0,
            };
            let bytes = self.base_memory_bytes as f64 + needed;
            if bytes <= FILL * self.running.site.memory_limit_bytes as f64 {
                measured.push(self.pass(rows, parameters)?);
            } else if measured.is_empty() && !self.task.choices.is_empty() {
                return Err(self.lacks("scoring a record", bytes as u64));
            } else {
                break;
            }
        }
        Ok(measured)
    }

    fn pass(&mut self, rows: u16, parameters: u64) -> Result<Measured, Failure> {
        let (longest, mean) = (self.longest(1), self.mean(1));
        memory::reset_peak();
        let adapter = adapter_file::whole(&self.global, &self.weights, 1.0)?;
        let mut evaluator = Evaluator::new(self.model, Some(&adapter))?;
        drop(adapter);
        let mut pass = |room: &mut Self, length| {
            let batch = room.batch(usize::from(rows), length)?;
            forward(&mut evaluator, &batch, room.running)
        };
        let (_, longest_tokens) = pass(self, longest)?;
        let (seconds, tokens) = median(|| pass(self, mean))?;
        let peak = Peak::seen();
        let sample = Sample {
            batch: rows,
            tokens: count(tokens),
            squares: squares(tokens, rows),
            longest_tokens: count(longest_tokens),
            parameters,
            step_seconds: self.running.site.forward_pace().seconds(tokens, seconds),
            peak_memory_bytes: peak.counted(),
        };
        Ok(Measured::pass(sample, peak, seconds / tokens.max(1) as f64))
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
