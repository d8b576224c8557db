//! The measured rounds and passes: each goes the way of a real one, with the buffers of a real one, so
//! that its peak is what the worker's limit will count.

use std::path::PathBuf;

use chassis::clock::Stopwatch;
use chassis::memory;
use contract::message::task::Probe;
use domain::adapter::{RankTable, WeightShape};
use domain::cause::Trouble;
use domain::job::aggregation::Trains;
use domain::profile::{Mode, ModeMeasurement, Sample};
use engine::data::{Batch, Encoder, Loader};
use engine::evaluate::Evaluator;
use engine::model::Model;

use super::configurations::{Configuration, NEEDED, Need, configurations, predicted};
use super::examination::Examined;
use super::noise::Norms;
use super::sized::sized;
use crate::adapter_file;
use crate::data::Opened;
use crate::failure::Failure;
use crate::policy::SMALLEST_COUNT;
use crate::running::Running;
use crate::size::mib;
use crate::train::{self, Lengths};

/// Seconds of real computing after which no larger step is tried, once there are enough samples.
const ENOUGH_SECONDS: f64 = 20.0;
/// A step is repeated until it was measured for so long, to drown the clock's grain,
const LONG_ENOUGH_SECONDS: f64 = 0.1;
/// but at most so often.
const REPEATS: usize = 5;
/// Lengths of the steps after the longest, in hundredths of it. Buffers are used again by steps that are
/// at least half as long, so shorter steps after longer ones make a round hold the most that it can.
const SHRINKING: [usize; 2] = [45, 20];
/// Share of the memory that a predicted step may fill.
const FILL: f64 = 0.95;
/// Rows of the two measured forward passes; the second only where memory allows it.
const SCORED_ROWS: [u16; 2] = [1, 4];
/// Bytes of a merged adapter's parameter while scoring loads it: as read, and as computed with.
const SCORED_PARAMETER_BYTES: f64 = 8.0;

/// Configurations of a kernel's trial, the smallest ones.
const TRIAL: usize = 2;

/// A measured round or pass, and what it really took before the site's pace was kept.
pub(super) struct Measured {
    sample: Sample,
    pub(super) real_seconds_per_token: f64,
}

/// What all measurements of one examination share.
pub(super) struct Room<'a> {
    pub(super) mode: Mode,
    pub(super) running: &'a Running,
    pub(super) task: &'a Probe,
    pub(super) data: &'a Opened,
    pub(super) model: &'a Model,
    /// An untrained adapter of the highest rank.
    pub(super) global: PathBuf,
    pub(super) weights: Vec<WeightShape>,
    pub(super) layers: u16,
    pub(super) encoder: Encoder,
    pub(super) lengths: Lengths,
    pub(super) base_memory_bytes: u64,
    /// Every step has records of its own.
    pub(super) steps: u64,
    pub(super) norms: Norms,
}

impl Room<'_> {
    pub(super) fn examined(
        mut self,
        trained: Vec<Measured>,
        scored: Vec<Measured>,
    ) -> Result<Examined, Failure> {
        let forward = scored.last().map(|pass| &pass.sample);
        let forward = forward.map(|pass| f64::from(pass.tokens) / pass.step_seconds.max(1e-9));
        let forward_tokens_per_second = match forward {
            Some(speed) => speed,
            // No merged adapter fits; a pass without one is slower by nothing that matters.
            None => self.bare_forward()?,
        };
        let consent = self.running.site.config.policy.share_small_counts;
        let smallest = if consent { 1 } else { SMALLEST_COUNT };
        let samples = |all: Vec<Measured>| all.into_iter().map(|one| one.sample).collect();
        Ok(Examined {
            weights: self.weights,
            layers: self.layers,
            modes: vec![ModeMeasurement {
                mode: self.mode,
                base_memory_bytes: self.base_memory_bytes,
                samples: samples(trained),
                scoring: samples(scored),
                loss: None,
            }],
            noise: self.norms.estimate(smallest),
            forward_tokens_per_second,
            lengths: self.lengths,
        })
    }

    /// Seconds per token of a small round.
    pub(super) fn trial(mut self) -> Result<f64, Failure> {
        let mut measured = Vec::new();
        for next in configurations(self.task.rank_max).into_iter().take(TRIAL) {
            if self.beyond(&measured, next).is_none() {
                measured.push(self.round(next)?);
            }
        }
        let last = measured.last().map(|round| round.real_seconds_per_token);
        Ok(last.unwrap_or(f64::INFINITY))
    }

    pub(super) fn rounds(&mut self) -> Result<Vec<Measured>, Failure> {
        let whole = Stopwatch::start();
        let mut measured: Vec<Measured> = Vec::new();
        let mut too_large = None;
        for next in configurations(self.task.rank_max) {
            let enough = measured.len() > NEEDED;
            if enough && whole.seconds() > ENOUGH_SECONDS {
                break;
            }
            match self.beyond(&measured, next) {
                Some(bytes) => too_large = too_large.or(Some(bytes)),
                None => measured.push(self.round(next)?),
            }
        }
        // Where memory ends early, shorter rows make more samples.
        for part in (1..=2 * NEEDED).rev() {
            if measured.len() >= NEEDED {
                break;
            }
            let next = Configuration {
                batch: 1,
                rank: 1,
                part,
            };
            if self.beyond(&measured, next).is_none() {
                measured.push(self.round(next)?);
            }
        }
        match too_large {
            Some(bytes) if measured.len() < NEEDED => Err(self.lacks("the smallest step", bytes)),
            _ => Ok(measured),
        }
    }

    /// `what` needs `bytes`, which are more than there are when the share kept free is counted.
    fn lacks(&self, what: &str, bytes: u64) -> Failure {
        let limit = self.running.site.memory_limit_bytes;
        let needed = (bytes as f64 / FILL) as u64;
        let detail = format!(
            "{what} would need {} with what must stay free, and it may use {}: {} are missing",
            mib(needed),
            mib(limit),
            mib(needed.saturating_sub(limit)),
        );
        Failure::new(Trouble::OutOfMemory, detail)
    }

    /// What a round is predicted to need, if that is more than there is.
    fn beyond(&self, measured: &[Measured], next: Configuration) -> Option<u64> {
        let parameters = self.ranks(next.rank).parameters(&self.weights) as f64;
        let tokens = f64::from(next.batch) * self.longest(next.part) as f64;
        let need = |round: &Measured| Need {
            tokens: round.sample.peak_tokens(),
            parameters: round.sample.parameters as f64,
            bytes: self.beyond_base(&round.sample),
        };
        let mut earlier: Vec<Need> = measured.iter().map(need).collect();
        if earlier.is_empty() {
            // A step holds at least its largest weight, decoded.
            earlier.push(Need {
                tokens,
                parameters: 0.0,
                bytes: self.largest_weight_bytes(),
            });
        }
        let bytes = self.base_memory_bytes as f64 + predicted(&earlier, tokens, parameters);
        let fits = bytes <= FILL * self.running.site.memory_limit_bytes as f64;
        (!fits).then_some(bytes as u64)
    }

    fn beyond_base(&self, sample: &Sample) -> f64 {
        let beyond = sample
            .peak_memory_bytes
            .saturating_sub(self.base_memory_bytes);
        beyond as f64
    }

    fn largest_weight_bytes(&self) -> f64 {
        let bytes = self
            .weights
            .iter()
            .map(|weight| 4 * weight.out * weight.inp);
        bytes.max().unwrap_or(0) as f64
    }

    /// One round: a step of the longest rows that the job allows, then ever shorter ones, as a real round
    /// mixes them; steps of mean length, which are timed; then the update's file. The rate is zero, so that the adapter stays the job's
    /// start and the gradients' norms are those there.
    fn round(&mut self, configuration: Configuration) -> Result<Measured, Failure> {
        let Configuration { batch, rank, part } = configuration;
        let ranks = self.ranks(rank);
        let (longest, mean) = (self.longest(part), self.mean(part));
        memory::reset_peak();
        let options = train::options(&self.task.training, false);
        // The scale changes no cost; the fresh adapter's change is zero.
        let mut trainer = train::begin(self.model, &self.global, &ranks, 1.0, options)?;
        let mut step = |room: &mut Self, length| -> Result<(f64, usize), Failure> {
            let batch = room.batch(usize::from(batch), length)?;
            let watch = Stopwatch::start();
            let step = trainer.step(&batch, 0.0, room.running.stop.control())?;
            let seconds = watch.seconds();
            let records: Vec<usize> = batch.rows.iter().map(|row| row.record).collect();
            room.norms.add(rank, step.gradient_norm, &records);
            room.running.advance();
            Ok((seconds, step.tokens))
        };
        let (first, longest_tokens) = step(self, longest)?;
        for hundredths in SHRINKING {
            step(self, longest * hundredths / 100)?;
        }
        // Work that is long anyway is not warmed up: its first time differs little.
        let (seconds, tokens) = if first > ENOUGH_SECONDS / 8.0 {
            (first, longest_tokens)
        } else {
            median(|| step(self, mean))?
        };
        drop(train::finish(trainer, Trains::Both)?);
        let peak_memory_bytes = memory::peak_data_bytes();
        Ok(Measured {
            sample: Sample {
                batch,
                tokens: count(tokens),
                squares: squares(tokens, batch),
                longest_tokens: count(longest_tokens),
                parameters: ranks.parameters(&self.weights),
                step_seconds: self.running.site.pace().seconds(tokens, seconds),
                peak_memory_bytes,
            },
            real_seconds_per_token: seconds / tokens.max(1) as f64,
        })
    }

    /// Forward passes as scoring makes them, with the whole merged adapter. Where not even one row fits
    /// there are none, and a job that scores cannot be taken part in.
    pub(super) fn scored(&mut self, trained: &[Measured]) -> Result<Vec<Measured>, Failure> {
        let parameters = self.ranks(self.task.rank_max).parameters(&self.weights);
        // A forward pass alone keeps less of each token than training does.
        let largest = trained.iter().map(|round| &round.sample);
        let largest = largest.max_by(|a, b| a.peak_tokens().total_cmp(&b.peak_tokens()));
        let mut measured = Vec::new();
        for rows in SCORED_ROWS {
            let tokens = f64::from(rows) * self.longest(1) as f64;
            let needed = largest.map_or(0.0, |sample| {
                let growth = (tokens / sample.peak_tokens()).max(1.0);
                self.beyond_base(sample) * growth + SCORED_PARAMETER_BYTES * parameters as f64
            });
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
        let peak_memory_bytes = memory::peak_data_bytes();
        let real_seconds_per_token = seconds / tokens.max(1) as f64;
        Ok(Measured {
            sample: Sample {
                batch: rows,
                tokens: count(tokens),
                squares: squares(tokens, rows),
                longest_tokens: count(longest_tokens),
                parameters,
                step_seconds: self.running.site.forward_pace().seconds(tokens, seconds),
                peak_memory_bytes,
            },
            real_seconds_per_token,
        })
    }

    fn bare_forward(&mut self) -> Result<f64, Failure> {
        let mut evaluator = Evaluator::new(self.model, None)?;
        let batch = self.batch(1, self.mean(1))?;
        let (seconds, tokens) = median(|| forward(&mut evaluator, &batch, self.running))?;
        let seconds = self.running.site.forward_pace().seconds(tokens, seconds);
        Ok(tokens as f64 / seconds.max(1e-9))
    }

    fn ranks(&self, rank: u16) -> RankTable {
        RankTable::uniform(&self.task.targets, self.layers, rank)
    }

    /// Tokens of the longest row that the job and the model allow, or a part of it.
    fn longest(&self, part: usize) -> usize {
        let allowed = self.task.training.sequence_length as usize;
        allowed.min(self.model.config().context) / part
    }

    /// Tokens of a row: as many as a record has on average, so that no record's own length is told.
    fn mean(&self, part: usize) -> usize {
        (self.lengths.mean.round() as usize).min(self.longest(part))
    }

    fn batch(&mut self, records: usize, length: usize) -> Result<Batch, Failure> {
        let training = &self.task.training;
        let sampler = train::sampler(self.data, records, training, self.running)?;
        let loader = Loader::new(&self.data.train, &self.encoder, &sampler);
        let loaded = loader.batch(self.steps);
        let loaded = loaded.map_err(|error| self.data.trouble(&error))?;
        self.steps += 1;
        Ok(sized(loaded.batch, length))
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

/// The median of some work's times, in seconds, and its tokens.
fn median(
    mut work: impl FnMut() -> Result<(f64, usize), Failure>,
) -> Result<(f64, usize), Failure> {
    let (mut times, mut spent, mut tokens) = (Vec::new(), 0.0, 0);
    while times.len() < REPEATS && spent < LONG_ENOUGH_SECONDS {
        let (seconds, computed) = work()?;
        times.push(seconds);
        spent += seconds;
        tokens = computed;
    }
    times.sort_unstable_by(f64::total_cmp);
    Ok((times.get(times.len() / 2).copied().unwrap_or(spent), tokens))
}

/// The sum of the squares of so many equal rows' tokens.
fn squares(tokens: usize, rows: u16) -> f64 {
    let (tokens, rows) = (tokens as f64, f64::from(rows.max(1)));
    tokens * tokens / rows
}

fn count(tokens: usize) -> u32 {
    u32::try_from(tokens).unwrap_or(u32::MAX)
}
