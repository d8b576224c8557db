//! What each weight is worth training, on this site's own records: from two halves of the probe's records, so that
//! it is known how far they agree.
//!
//! Only sums over records leave the site: the energies, how many records they average, and the rank correlation
//! of the halves. A site that cannot compute a gradient within its memory has none, and takes the fleet's.

use std::collections::BTreeSet;

use domain::job::spec::Importance as Asked;
use domain::profile::{Importance, ImportanceMethod, WeightImportance};
use engine::data::Batch;
use engine::importance::{self, Settings};

use super::room::{FILL, Room};
use crate::failure::Failure;
use crate::policy::SMALLEST_COUNT;

/// Batches of each half, and their rows, for the sketch: 16 records in all.
const SKETCHED: (u64, usize) = (4, 2);

/// Batches of each half at least, however long they take: 8 records in all, with fewer of which nothing may be told.
const LEAST_SKETCHED: u64 = 2;

/// The same for the sensitivity, which is a training of its own.
const TRAINED: (u64, usize) = (importance::STEPS as u64, 1);

/// Most bytes of sketches at once: more would only save passes over the probe's few batches.
const SKETCH_BYTES: u64 = 1 << 30;

/// Copies of an adapter of the highest rank that the sensitivity holds, and bytes of a parameter.
const TRAINED_BYTES: u64 = 7 * 4;

/// Directions that are told of a weight at most; what lies beyond is worth next to nothing.
const DIRECTIONS: u16 = 64;

impl Room<'_> {
    /// The importance that the job asks for; `None` if it asks for none, or where memory or records do not
    /// suffice. `beside` is what a step with gradients over one of the longest rows needs beyond the base.
    ///
    /// # Errors
    /// If the task is stopped, or the data cannot be read.
    pub(super) fn importance(&mut self, beside: f64) -> Result<Option<Importance>, Failure> {
        let seconds = f64::from(self.running.site.config.probe_seconds);
        let in_time = batches(self.task.importance, self.row_seconds, seconds);
        let Some((method, (batches, rows))) = in_time else {
            return Ok(None);
        };
        let limit = FILL * self.running.site.memory_limit_bytes as f64;
        let free = limit - self.base_memory_bytes as f64 - beside * rows as f64;
        let targets = self.targets.clone();
        let rank_max = self.task.rank_max.min(DIRECTIONS);
        let needed = match method {
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
        let halves = [
            self.half(batches, rows, 0)?,
            self.half(batches, rows, batches)?,
        ];
        let records: BTreeSet<usize> = halves.iter().flat_map(|half| records(half)).collect();
        let consent = self.running.site.config.policy.share_small_counts;
        let smallest = if consent { 1 } else { SMALLEST_COUNT };
        if (records.len() as u64) < smallest {
            return Ok(None);
        }
        let seed = self.task.training.seed;
        let mut measured = Vec::new();
        for (seed, half) in (seed..).zip(&halves) {
            let settings = Settings {
                targets: &targets,
                rank_max,
                seed,
                sketch_bytes: SKETCH_BYTES.min(free as u64),
            };
            match self.half_measured(method, &settings, half) {
                Ok(one) => measured.push(one),
                Err(error) => {
                    self.running.stop.check()?;
                    tracing::warn!(%error, "importance is not measured");
                    return Ok(None);
                }
            }
            self.running.advance();
        }
        let [one, other] = measured.as_slice() else {
            return Ok(None);
        };
        let agreement = importance::agreement(one, other);
        let weights = one.weights.iter().zip(&other.weights);
        let weights = weights.map(|(left, right)| WeightImportance {
            name: left.name,
            energies: mean(&left.energies, &right.energies),
        });
        Ok(Some(Importance {
            method,
            weights: weights.collect(),
            agreement: if agreement.is_finite() {
                agreement
            } else {
                0.0
            },
            records: records.len() as u64,
        }))
    }

    fn half_measured(
        &self,
        method: ImportanceMethod,
        settings: &Settings<'_>,
        batches: &[Batch],
    ) -> Result<importance::Importance, importance::Error> {
        let control = self.running.stop.control();
        match method {
            ImportanceMethod::Sketch => importance::measure(self.model, settings, batches, control),
            ImportanceMethod::Adalora => {
                let training = importance::Training {
                    scale: 1.0,
                    rate: self.task.training.learning_rate as f32,
                };
                importance::sensitivity(self.model, settings, training, batches, control)
            }
        }
    }

    /// So many batches of records, from a step on.
    fn half(&self, batches: u64, rows: usize, from: u64) -> Result<Vec<Batch>, Failure> {
        let drawn = (from..from + batches).map(|step| self.drawn(rows, step));
        drawn.collect()
    }
}

/// How importance is measured, by how many batches of each half and their rows, where one row takes so long and all may
/// take `seconds`, about. `None` if the job asks for none; and where the sensitivity's training, which cannot be shorter,
/// would take longer.
fn batches(
    asked: Asked,
    row_seconds: f64,
    seconds: f64,
) -> Option<(ImportanceMethod, (u64, usize))> {
    let rows_in_time = seconds / row_seconds.max(f64::MIN_POSITIVE);
    match asked {
        Asked::Uniform => None,
        Asked::Sketch => {
            let (most, rows) = SKETCHED;
            // Saturates.
            let in_time = (rows_in_time / (2 * rows) as f64) as u64;
            let batches = in_time.clamp(LEAST_SKETCHED, most);
            Some((ImportanceMethod::Sketch, (batches, rows)))
        }
        Asked::Adalora => {
            let (batches, rows) = TRAINED;
            let needed = 2.0 * batches as f64 * rows as f64;
            if needed > rows_in_time {
                tracing::info!(
                    row_seconds,
                    seconds,
                    "no time is left to measure importance"
                );
                return None;
            }
            Some((ImportanceMethod::Adalora, TRAINED))
        }
    }
}

fn records(batches: &[Batch]) -> impl Iterator<Item = usize> {
    batches
        .iter()
        .flat_map(|batch| batch.rows.iter().map(|row| row.record))
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

    #[test]
    fn a_site_that_is_slow_measures_importance_on_fewer_records_and_trains_nothing_for_it() {
        let sketched = |row_seconds| {
            let found = batches(Asked::Sketch, row_seconds, 60.0);
            found.map(|(_, (batches, rows))| batches * 2 * rows as u64)
        };
        assert_eq!(sketched(0.0), Some(16));
        assert_eq!(sketched(3.0), Some(16));
        assert_eq!(sketched(4.0), Some(12));
        assert_eq!(sketched(100.0), Some(SMALLEST_COUNT));
        let trains = |row_seconds| batches(Asked::Adalora, row_seconds, 60.0).is_some();
        assert!(trains(0.0) && trains(0.7) && !trains(0.8));
        assert_eq!(batches(Asked::Uniform, 0.0, 60.0), None);
    }
}
