//! The measured rounds: each goes the way of a real one, with the buffers of a real one, so that its peak
//! is what the worker's limit will count.

use std::path::PathBuf;

use chassis::clock::Stopwatch;
use chassis::memory;
use contract::message::task::Probe;
use domain::adapter::{Projection, RankTable, WeightShape};
use domain::cause::Trouble;
use domain::job::spec::Optimizer;
use domain::profile::Sample;
use engine::data::{Batch, Encoder, Loader};
use engine::model::Model;

use super::budget::Spent;
use super::configurations::{Configuration, NEEDED, Need, configurations, fewer, predicted};
use super::growth::Growth;
use super::noise::Norms;
use super::peaks::Peak;
use super::sized::sized;
use super::stepper::{self, Way};
use crate::data::Opened;
use crate::failure::Failure;
use crate::running::Running;
use crate::size::mib;
use crate::train::{self, Lengths};

/// A first step that takes so long is timed itself: work that is long anyway is not warmed up.
const LONG_SECONDS: f64 = 2.5;
/// A step is repeated until it was measured for so long, to drown the clock's grain,
const LONG_ENOUGH_SECONDS: f64 = 0.1;
/// but at most so often.
const REPEATS: usize = 5;
/// So often at least, unless that takes longer than
const TO_COMPARE: usize = 3;
/// this.
const WORTH_REPEATING_SECONDS: f64 = 1.0;
/// Share of the memory that a predicted step may fill.
pub(super) const FILL: f64 = 0.95;
/// Records of the largest step that `auto` may plan.
const LARGEST_BATCH: u16 = 32;

/// Records that are measured of any job, for how a step grows; more only where a plan may choose them, for rows of a
/// larger batch cost less each than what a line through small ones says.
const ALWAYS: u16 = 8;

/// Configurations of a kernel's trial, the smallest ones.
const TRIAL: usize = 2;

/// A measured round or pass, and what it really took before the site's pace was kept.
pub(super) struct Measured {
    pub(super) sample: Sample,
    pub(super) peak: Peak,
    pub(super) real_seconds_per_token: f64,
    /// Of the whole round.
    real_seconds: f64,
}

/// What all measurements with one loaded model share.
pub(super) struct Room<'a> {
    pub(super) running: &'a Running,
    pub(super) task: &'a Probe,
    pub(super) data: &'a Opened,
    pub(super) model: &'a Model,
    /// An untrained adapter of the highest rank.
    pub(super) global: PathBuf,
    pub(super) weights: Vec<WeightShape>,
    /// Those of the job's projections that the model has.
    pub(super) targets: Vec<Projection>,
    pub(super) layers: u16,
    pub(super) encoder: Encoder,
    pub(super) lengths: Lengths,
    pub(super) base_memory_bytes: u64,
    /// Every step has records of its own.
    pub(super) steps: u64,
    /// Longest that a step with gradients over one of the longest rows took, before the site's pace was kept.
    pub(super) row_seconds: f64,
    /// Of steps with gradients.
    pub(super) norms: Norms,
}

impl Room<'_> {
    /// Seconds per token of a small round.
    pub(super) fn trial(mut self, way: Way) -> Result<f64, Failure> {
        let mut measured = Vec::new();
        for next in configurations(self.task.rank_max).into_iter().take(TRIAL) {
            if self.beyond(&measured, next).is_none() {
                measured.push(self.round(way, next)?);
            }
        }
        let last = measured.last().map(|round| round.real_seconds_per_token);
        Ok(last.unwrap_or(f64::INFINITY))
    }

    /// Rounds computed this way, as far as memory and budget reach: at least as many as a fit needs, or none.
    ///
    /// # Errors
    /// Out of memory if not even three small rounds fit; what is wrong with the data.
    pub(super) fn rounds(&mut self, way: Way, spent: &mut Spent) -> Result<Vec<Measured>, Failure> {
        (spent.mode_seconds, spent.mode_rounds) = (0.0, 0);
        let rank_max = self.task.rank_max;
        let grid = if spent.modes == 0 {
            configurations(rank_max)
        } else {
            fewer(rank_max)
        };
        let fixed = self.task.training.batch.fixed().copied();
        let largest_batch = fixed.map_or(LARGEST_BATCH, |fixed| fixed.max(ALWAYS));
        let mut growth = Growth::along(grid, rank_max, largest_batch);
        let mut measured: Vec<Measured> = Vec::new();
        while let Some(next) = growth.next(
            |next| self.beyond(&measured, next),
            |next| spent.allows(self.expected_seconds(&measured, next)),
        ) {
            measured.push(self.counted(way, next, spent)?);
        }
        spent.modes += 1;
        match growth.too_large() {
            _ if measured.len() >= NEEDED => Ok(measured),
            Some(bytes) => Err(self.lacks("the smallest step", bytes)),
            None => Ok(Vec::new()),
        }
    }

    fn counted(
        &mut self,
        way: Way,
        next: Configuration,
        spent: &mut Spent,
    ) -> Result<Measured, Failure> {
        let measured = self.round(way, next)?;
        spent.seconds += measured.real_seconds;
        spent.mode_seconds += measured.real_seconds;
        spent.rounds += 1;
        spent.mode_rounds += 1;
        Ok(measured)
    }

    /// What a round is expected to take, from the last one: as much longer as it has more tokens.
    fn expected_seconds(&self, measured: &[Measured], next: Configuration) -> f64 {
        let tokens = f64::from(next.batch) * self.longest(next.part) as f64;
        measured.last().map_or(0.0, |last| {
            let growth = tokens / last.sample.peak_tokens().max(1.0);
            last.real_seconds * growth.max(1.0)
        })
    }

    /// Whether memory could forbid what the job allows: its largest step does not fit, by what was
    /// measured.
    pub(super) fn is_tight(&self, measured: &[Measured]) -> bool {
        let fixed = self.task.training.batch.fixed().copied();
        let largest = Configuration {
            batch: fixed.unwrap_or(LARGEST_BATCH),
            rank: self.task.rank_max,
            part: 1,
        };
        self.beyond(measured, largest).is_some()
    }

    /// `what` needs `bytes`, which are more than there are when the share kept free is counted.
    pub(super) fn lacks(&self, what: &str, bytes: u64) -> Failure {
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

    pub(super) fn beyond_base(&self, sample: &Sample) -> f64 {
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

    /// One round: a step of the longest rows that the job allows, which holds the most that a mix of lengths does; steps
    /// of mean length, which are timed; then the update's file. The rate is zero, so that the adapter stays the job's
    /// start and the gradients' norms are those there.
    pub(super) fn round(
        &mut self,
        way: Way,
        configuration: Configuration,
    ) -> Result<Measured, Failure> {
        let Configuration { batch, rank, part } = configuration;
        let ranks = self.ranks(rank);
        let (longest, mean) = (self.longest(part), self.mean(part));
        let whole = Stopwatch::start();
        memory::reset_peak();
        let training = &self.task.training;
        let start = (self.global.as_path(), &ranks);
        let control = self.running.stop.control();
        let mut learner = stepper::begin(self.model, start, way, training, control)?;
        let mut step = |room: &mut Self, length| -> Result<(f64, usize), Failure> {
            let batch = room.batch(usize::from(batch), length)?;
            let watch = Stopwatch::start();
            // At rate 0: what is measured must stay the job's start.
            let one = std::slice::from_ref(&batch);
            let step = learner.step(one, 0.0, room.running.stop.control())?;
            let seconds = watch.seconds();
            if let Some(norm) = step.gradient_norm {
                let records: Vec<usize> = batch.rows.iter().map(|row| row.record).collect();
                room.norms.add(configuration, norm, &records);
            }
            room.running.advance();
            Ok((seconds, step.tokens))
        };
        let (first, longest_tokens) = step(self, longest)?;
        if batch == 1 && way.optimizer != Optimizer::Mezo {
            self.row_seconds = self.row_seconds.max(first);
        }
        let (seconds, tokens) = if first > LONG_SECONDS {
            (first, longest_tokens)
        } else {
            median(|| step(self, mean))?
        };
        stepper::finish(learner, way, training)?;
        let peak = Peak::seen();
        Ok(Measured {
            peak,
            sample: Sample {
                batch,
                tokens: count(tokens),
                squares: squares(tokens, batch),
                longest_tokens: count(longest_tokens),
                parameters: ranks.parameters(&self.weights),
                step_seconds: self.paced(way, tokens, seconds),
                peak_memory_bytes: peak.counted(),
            },
            real_seconds_per_token: seconds / tokens.max(1) as f64,
            real_seconds: whole.seconds(),
        })
    }

    /// What a step takes at the site's pace.
    fn paced(&self, way: Way, tokens: usize, seconds: f64) -> f64 {
        let site = &self.running.site;
        let (pace, times) = train::pace(site, way.optimizer, &self.task.training);
        pace.seconds(times * tokens, seconds)
    }

    pub(super) fn ranks(&self, rank: u16) -> RankTable {
        RankTable::uniform(&self.targets, self.layers, rank)
    }

    /// Tokens of the longest row that the job and the model allow, or a part of it.
    pub(super) fn longest(&self, part: usize) -> usize {
        let allowed = self.task.training.sequence_length as usize;
        allowed.min(self.model.config().context) / part
    }

    /// Tokens of a row: as many as a record has on average, so that no record's own length is told.
    pub(super) fn mean(&self, part: usize) -> usize {
        (self.lengths.mean.round() as usize).min(self.longest(part))
    }

    /// Records of their own in rows of this length.
    pub(super) fn batch(&mut self, records: usize, length: usize) -> Result<Batch, Failure> {
        let batch = self.drawn(records, self.steps)?;
        self.steps += 1;
        Ok(sized(batch, length))
    }

    /// The records of a step, in rows of their own length.
    pub(super) fn drawn(&self, records: usize, step: u64) -> Result<Batch, Failure> {
        let training = &self.task.training;
        let sampler = train::sampler(self.data, records, training, self.running)?;
        let loader = Loader::new(&self.data.train, &self.encoder, &sampler);
        let loaded = loader.batch(step);
        Ok(loaded.map_err(|error| self.data.trouble(&error))?.batch)
    }
}

impl Measured {
    /// The figures as a plan is made from them, where so many bytes stood beside the heap at most.
    pub(super) fn told(&self, beside: u64) -> Sample {
        Sample {
            peak_memory_bytes: self.peak.told(beside),
            ..self.sample.clone()
        }
    }

    /// A pass of scoring.
    pub(super) const fn pass(sample: Sample, peak: Peak, real_seconds_per_token: f64) -> Self {
        Self {
            sample,
            peak,
            real_seconds_per_token,
            real_seconds: 0.0,
        }
    }
}

/// The median of some work's times, in seconds, and its tokens: the lower one of two, since a disturbance only makes
/// work slower.
pub(super) fn median(
    mut work: impl FnMut() -> Result<(f64, usize), Failure>,
) -> Result<(f64, usize), Failure> {
    let (mut times, mut spent, mut tokens) = (Vec::new(), 0.0, 0);
    let more = |times: usize, spent: f64| {
        spent < LONG_ENOUGH_SECONDS || (times < TO_COMPARE && spent < WORTH_REPEATING_SECONDS)
    };
    while times.len() < REPEATS && more(times.len(), spent) {
        let (seconds, computed) = work()?;
        times.push(seconds);
        spent += seconds;
        tokens = computed;
    }
    times.sort_unstable_by(f64::total_cmp);
    let middle = times.len().saturating_sub(1) / 2;
    Ok((times.get(middle).copied().unwrap_or(spent), tokens))
}

/// The sum of the squares of so many equal rows' tokens.
pub(super) fn squares(tokens: usize, rows: u16) -> f64 {
    let (tokens, rows) = (tokens as f64, f64::from(rows.max(1)));
    tokens * tokens / rows
}

pub(super) fn count(tokens: usize) -> u32 {
    u32::try_from(tokens).unwrap_or(u32::MAX)
}
