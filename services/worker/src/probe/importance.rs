//! What each weight is worth training, on this site's own records: from two halves of the probe's records, so that
//! it is known how far they agree.
//!
//! Only sums over records leave the site: the energies, how many records they average, and the rank correlation
//! of the halves. A site that cannot compute a gradient within its memory has none, and takes the fleet's.

use std::collections::BTreeSet;

use chassis::clock::Stopwatch;
use domain::job::spec::Importance as Asked;
use domain::profile::{Importance, ImportanceMethod, WeightImportance};
use engine::data::Batch;
use engine::importance::{self, Settings, Taken};

use super::room::{FILL, Room};
use crate::failure::Failure;
use crate::policy::SMALLEST_COUNT;

/// Batches of each half at most, and their rows, for the sketch: 16 records in all.
const SKETCHED: (usize, usize) = (4, 2);

/// The same for the sensitivity, which is a training of its own.
const TRAINED: (usize, usize) = (importance::STEPS, 1);

/// Most bytes of sketches at once: more would only save passes over the probe's few batches.
const SKETCH_BYTES: u64 = 1 << 30;

/// Copies of an adapter of the highest rank that the sensitivity holds, and bytes of a parameter.
const TRAINED_BYTES: u64 = 7 * 4;

/// Directions that are told of a weight at most; what lies beyond adds next to nothing to the gradient's size.
const DIRECTIONS: u16 = 64;

/// How importance is measured, and how far.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Extent {
    method: ImportanceMethod,
    /// Batches of each half at most, and at least, however long they take.
    batches: usize,
    least: usize,
    /// Rows of a batch.
    rows: usize,
    /// What both halves may take, about.
    seconds: f64,
}

impl Room<'_> {
    /// The importance that the job asks for; `None` if it asks for none, or where memory or records do not
    /// suffice. `beside` is what a step with gradients over one of the longest rows needs beyond the base.
    ///
    /// # Errors
    /// If the task is stopped, or the data cannot be read.
    pub(super) fn importance(&mut self, beside: f64) -> Result<Option<Importance>, Failure> {
        let consent = self.running.site.config.policy.share_small_counts;
        let smallest = if consent { 1 } else { SMALLEST_COUNT };
        let seconds = f64::from(self.running.site.config.probe_seconds);
        let extent = Extent::of(self.task.importance, smallest, self.row_seconds, seconds);
        let Some(extent) = extent else {
            return Ok(None);
        };
        let limit = FILL * self.running.site.memory_limit_bytes as f64;
        let free = limit - self.base_memory_bytes as f64 - beside * extent.rows as f64;
        let targets = self.targets.clone();
        let rank_max = self.task.rank_max.min(DIRECTIONS);
        let needed = match extent.method {
            ImportanceMethod::Sketch => {
                importance::block_bytes(self.model.config(), &targets, rank_max)
            }
            ImportanceMethod::Adalora => {
                TRAINED_BYTES * self.ranks(rank_max).parameters(&self.weights)
            }
        };
        if free < needed as f64 {
            tracing::info!(needed, "no memory is left to measure importance");
            return Ok(None);
        }
        let steps = 0..2 * extent.batches as u64;
        let loaded = steps.map(|step| self.drawn(extent.rows, step));
        let drawn: Vec<Batch> = loaded.collect::<Result<_, _>>()?;
        let settings = Settings {
            targets: &targets,
            rank_max,
            seed: self.task.training.seed,
            sketch_bytes: SKETCH_BYTES.min(free as u64),
        };
        match self.halves(extent, settings, &drawn, smallest) {
            Ok(importance) => Ok(importance),
            Err(error) => {
                self.running.stop.check()?;
                tracing::warn!(%error, "importance is not measured");
                Ok(None)
            }
        }
    }

    /// Both halves, of as many batches each, with a seed each; `None` where they are of fewer records than may be told.
    fn halves(
        &self,
        extent: Extent,
        settings: Settings<'_>,
        drawn: &[Batch],
        smallest: u64,
    ) -> Result<Option<Importance>, importance::Error> {
        if different(drawn) < smallest {
            return Ok(None);
        }
        let first = drawn.get(..extent.batches).unwrap_or(drawn);
        let (one, taken) = self.half(extent, &settings, first)?;
        self.running.advance();
        let measured = drawn.get(..2 * taken).unwrap_or(drawn);
        let records = different(measured);
        if records < smallest {
            return Ok(None);
        }
        let reseeded = Settings {
            seed: settings.seed.wrapping_add(1),
            ..settings
        };
        let all = Extent {
            least: taken,
            ..extent
        };
        let second = measured.get(taken..).unwrap_or_default();
        let (other, _) = self.half(all, &reseeded, second)?;
        self.running.advance();
        let agreement = importance::agreement(&one, &other);
        let weights = one.weights.iter().zip(&other.weights);
        let weights = weights.map(|(left, right)| WeightImportance {
            name: left.name,
            energies: mean(&left.energies, &right.energies),
        });
        Ok(Some(Importance {
            method: extent.method,
            weights: weights.collect(),
            agreement: if agreement.is_finite() {
                agreement
            } else {
                0.0
            },
            records,
        }))
    }

    /// One half, and of how many of the batches it is.
    fn half(
        &self,
        extent: Extent,
        settings: &Settings<'_>,
        batches: &[Batch],
    ) -> Result<(importance::Importance, usize), importance::Error> {
        let control = self.running.stop.control();
        match extent.method {
            ImportanceMethod::Sketch => {
                let (watch, mut taken) = (Stopwatch::start(), 1);
                let mut more = |so_far: Taken| {
                    let wanted = extent.wants_more(so_far, watch.seconds());
                    taken += usize::from(wanted);
                    wanted
                };
                let measured =
                    importance::measure_while(self.model, settings, batches, &mut more, control)?;
                Ok((measured, taken))
            }
            ImportanceMethod::Adalora => {
                let training = importance::Training {
                    scale: 1.0,
                    rate: self.task.training.learning_rate() as f32,
                };
                let measured =
                    importance::sensitivity(self.model, settings, training, batches, control)?;
                Ok((measured, batches.len()))
            }
        }
    }
}

impl Extent {
    /// Where a figure averages at least `smallest` records, and a step over one of the longest rows takes `row_seconds`.
    /// `None` if the job asks for none; and where the sensitivity's training, which cannot be shorter, would take longer
    /// than `seconds`.
    fn of(asked: Asked, smallest: u64, row_seconds: f64, seconds: f64) -> Option<Self> {
        match asked {
            Asked::Uniform => None,
            Asked::Sketch => {
                let (batches, rows) = SKETCHED;
                // What is told is the mean of two halves, for whose order two seeds are needed.
                let least = (smallest as usize).div_ceil(2 * rows);
                Some(Self {
                    method: ImportanceMethod::Sketch,
                    batches,
                    least: least.clamp(1, batches),
                    rows,
                    seconds,
                })
            }
            Asked::Adalora => {
                let (batches, rows) = TRAINED;
                let needed = 2.0 * (batches * rows) as f64 * row_seconds;
                if needed > seconds {
                    tracing::info!(
                        row_seconds,
                        seconds,
                        "no time is left to measure importance"
                    );
                    return None;
                }
                Some(Self {
                    method: ImportanceMethod::Adalora,
                    batches,
                    least: batches,
                    rows,
                    seconds,
                })
            }
        }
    }

    /// Whether a half goes on to another batch, after those so far took so long in its first pass: the least whatever they
    /// take, then as many as leave time for the other passes and the other half.
    fn wants_more(self, so_far: Taken, seconds: f64) -> bool {
        let done = so_far.batches.max(1) as f64;
        let pass = seconds / done * (done + 1.0);
        so_far.batches < self.least || 2.0 * pass * so_far.passes as f64 <= self.seconds
    }
}

/// How many different records the batches are of.
fn different(batches: &[Batch]) -> u64 {
    let rows = batches.iter().flat_map(|batch| &batch.rows);
    let records: BTreeSet<usize> = rows.map(|row| row.record).collect();
    records.len() as u64
}

/// The mean of two halves' energies; where one has fewer directions, those that both have.
fn mean(left: &[f32], right: &[f32]) -> Vec<f32> {
    let pairs = left.iter().zip(right);
    pairs
        .map(|(left, right)| f32::midpoint(*left, *right))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECONDS: f64 = 60.0;

    /// Records of both halves where a batch takes so long in each pass, and seconds of all.
    fn sketched(smallest: u64, batch_seconds: f64, passes: usize) -> (usize, f64) {
        let extent = Extent::of(Asked::Sketch, smallest, batch_seconds, SECONDS).unwrap();
        let mut batches = 1;
        while batches < extent.batches
            && extent.wants_more(Taken { batches, passes }, batches as f64 * batch_seconds)
        {
            batches += 1;
        }
        let all = 2 * batches;
        (all * extent.rows, batch_seconds * (all * passes) as f64)
    }

    #[test]
    fn a_site_that_is_slow_measures_importance_on_fewer_records_and_trains_nothing_for_it() {
        for (batch_seconds, passes, records) in [
            (0.0, 1, 16),
            (7.5, 1, 16),
            (8.0, 1, 12),
            (2.5, 3, 16),
            (3.0, 3, 12),
            (11.0, 1, 8),
        ] {
            let found = sketched(SMALLEST_COUNT, batch_seconds, passes);
            assert_eq!(found.0, records, "{batch_seconds} {passes}");
            assert!(found.1 <= SECONDS, "{found:?}");
        }
        let trains = |row_seconds| Extent::of(Asked::Adalora, 8, row_seconds, SECONDS).is_some();
        assert!(trains(0.0) && trains(0.7) && !trains(0.8));
        assert_eq!(Extent::of(Asked::Uniform, 8, 0.0, SECONDS), None);
    }

    #[test]
    fn what_may_be_told_at_all_is_measured_however_long_it_takes_and_no_more() {
        assert_eq!(sketched(SMALLEST_COUNT, 200.0, 1), (8, 800.0));
        assert_eq!(sketched(SMALLEST_COUNT, 15.1, 1).0, 8);
        // A site that consented to figures of few records has a batch for each seed.
        assert_eq!(sketched(1, 200.0, 1), (4, 400.0));
        assert_eq!(sketched(1, 7.5, 1).0, 16);
    }
}
