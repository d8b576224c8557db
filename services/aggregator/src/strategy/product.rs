//! The merge itself, weight by weight:
//!
//! `ΔW_{t+1} = ΔW_t + Σ_i p_i · (s·B_i·A_i − S_i)`, where `S_i` is what worker i had loaded: the leading
//! `r_i` slices of `ΔW_t`, nothing for a weight that it did not train. Since the shares add up to 1, the
//! global's slice j (counted from 1) stays with the weight `1 − Σ_{i: r_i ≥ j} p_i = Σ_{i: r_i < j} p_i`,
//! which is exactly zero where everybody trained it, and every update enters with `p_i`. Averaging
//! the products instead would shrink the slices that only large workers hold, round after round.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};

use domain::adapter::{RankTable, WeightShape};
use domain::id::WorkerName;

use super::change::{Change, Factors};
use super::check::{Refused, read, shapes};
use super::refactor::{Refactored, refactor};
use super::source::{Sink, Source};
use super::stream::{Purpose, Stream};
use super::{Error, ordered};

/// How far from 1 the sum of the shares may be.
const SHARES_TOLERANCE: f64 = 1e-9;

/// Weights that are merged before they are written: two blocks' worth, so that memory stays flat.
const WAVE: usize = 14;

/// One worker's update, checked before (see [`super::check()`]).
pub struct Input<'a> {
    /// Whose.
    pub worker: &'a WorkerName,
    /// Its share p of the merge.
    pub weight: f64,
    /// What its plan had it train.
    pub ranks: &'a RankTable,
    /// What it sent.
    pub update: &'a dyn Source,
}

/// One merge.
pub struct Merge<'a> {
    /// The updates that count, in the order that was decided.
    pub inputs: &'a [Input<'a>],
    /// The merged adapter that the workers started from.
    pub global: &'a dyn Source,
    /// Its ranks, and those of the result.
    pub ranks: &'a RankTable,
    /// The job's one scale, alpha / `rank_max`.
    pub scale: f64,
    /// The job's seed, for rows that restart.
    pub seed: u64,
}

/// What a merge amounted to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Folded {
    /// Share of the merged change's energy (sum of σ² over all weights) that the kept rank does not
    /// hold; 0 if there is no change at all.
    pub dropped_energy: f64,
}

impl Merge<'_> {
    /// Merges into `out`, one weight at a time, in ascending order of the keys.
    ///
    /// # Errors
    /// If shares, scale or ranks are illegal, a tensor is not what the tables demand or cannot be
    /// read or written, or a decomposition fails. Nothing of `out` is to be used then.
    pub fn fold(&self, out: &mut dyn Sink) -> Result<Folded, Error> {
        self.check()?;
        let global = |source| Error::Global { source };
        let widths: BTreeMap<_, _> = shapes(self.global)
            .map_err(global)?
            .into_iter()
            .map(|weight| (weight.name, weight))
            .collect();
        let (mut energy, mut dropped) = (0.0, 0.0);
        let weights = ordered(self.ranks);
        for wave in weights.chunks(WAVE) {
            let merged = in_parallel(wave, |(weight, keep)| {
                let weight = *weight;
                let shape = widths.get(&weight).ok_or(Error::UnknownWeight { weight })?;
                self.merge(shape, *keep)
            });
            // Written in order, whoever was faster: the bytes do not depend on the threads.
            for ((weight, keep), result) in wave.iter().zip(merged) {
                let shape = widths
                    .get(weight)
                    .ok_or(Error::UnknownWeight { weight: *weight })?;
                let (result, keep) = (result?, usize::from(*keep));
                energy += result.energy;
                dropped += result.dropped;
                put(out, weight.peft_a(), [keep, shape.inp], result.a)?;
                put(out, weight.peft_b(), [shape.out, keep], result.b)?;
            }
        }
        let dropped_energy = if energy > 0.0 { dropped / energy } else { 0.0 };
        Ok(Folded { dropped_energy })
    }

    /// Merges one weight.
    fn merge(&self, shape: &WeightShape, keep: u16) -> Result<Refactored, Error> {
        let weight = shape.name;
        let loaded =
            factors(self.global, shape, keep).map_err(|source| Error::Global { source })?;
        let change = self.change(shape, &loaded)?;
        let failed = || Error::Decomposition { weight };
        let keep = usize::from(keep);
        let spectrum = change.spectrum(keep).ok_or_else(failed)?;
        let mut stream = Stream::new(self.seed, Purpose::Restart, weight);
        let result = refactor(&spectrum, keep, self.scale, loaded.a, &mut stream);
        let mut values = result.a.iter().chain(&result.b);
        if !values.all(|value| value.is_finite()) {
            return Err(failed());
        }
        Ok(result)
    }

    fn check(&self) -> Result<(), Error> {
        let sum: f64 = self.inputs.iter().map(|input| input.weight).sum();
        let positive = self.inputs.iter().all(|input| input.weight >= 0.0);
        if !positive
            || (sum - 1.0).abs().partial_cmp(&SHARES_TOLERANCE) != Some(std::cmp::Ordering::Less)
        {
            return Err(Error::Shares { sum });
        }
        if !(self.scale.is_finite() && self.scale > 0.0) {
            return Err(Error::Scale { scale: self.scale });
        }
        for input in self.inputs {
            for (weight, rank) in input.ranks.trained() {
                let limit = self.ranks.rank(weight);
                if rank > limit {
                    let worker = input.worker.clone();
                    return Err(Error::Rank {
                        worker,
                        weight,
                        rank,
                        limit,
                    });
                }
            }
        }
        Ok(())
    }

    /// Gathers `ΔW_{t+1}` of one weight; each update's factors are read here, once, and let go.
    fn change(&self, shape: &WeightShape, loaded: &Factors) -> Result<Change, Error> {
        let rank_of = |input: &Input<'_>| usize::from(input.ranks.rank(shape.name));
        let stays = |slice: usize| {
            let without = self.inputs.iter().filter(|input| rank_of(input) < slice);
            without.map(|input| input.weight).sum::<f64>() * self.scale
        };
        let stays: Vec<f64> = (1..=loaded.rank).map(stays).collect();
        let staying = stays.iter().filter(|weight| **weight != 0.0).count();
        let slices = staying + self.inputs.iter().map(rank_of).sum::<usize>();
        let mut change = Change::new(shape.out, shape.inp, slices);
        change.add(loaded, &stays);
        for input in self.inputs {
            let rank = input.ranks.rank(shape.name);
            if rank == 0 {
                continue;
            }
            let update = factors(input.update, shape, rank).map_err(|source| Error::Update {
                worker: input.worker.clone(),
                source,
            })?;
            let share = self.scale * input.weight;
            change.add(&update, &vec![share; update.rank]);
        }
        Ok(change)
    }
}

/// Applies `work` to every item on all cores; results stand in the order of the items.
fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let take = || {
        let mut done = Vec::new();
        while let Some((index, item)) = {
            let index = next.fetch_add(1, Ordering::Relaxed);
            items.get(index).map(|item| (index, item))
        } {
            done.push((index, work(item)));
        }
        done
    };
    let mut results: Vec<(usize, R)> = std::thread::scope(|scope| {
        let helpers: Vec<_> = (1..threads.min(items.len()))
            .map(|_| scope.spawn(take))
            .collect();
        let own = take();
        let joined = helpers.into_iter().map(|helper| match helper.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        own.into_iter().chain(joined.flatten()).collect()
    });
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

fn factors(source: &dyn Source, shape: &WeightShape, rank: u16) -> Result<Factors, Refused> {
    let rank = usize::from(rank);
    Ok(Factors {
        rank,
        a: read(source, &shape.name.peft_a(), [rank, shape.inp])?,
        b: read(source, &shape.name.peft_b(), [shape.out, rank])?,
    })
}

fn put(out: &mut dyn Sink, key: String, shape: [usize; 2], values: Vec<f32>) -> Result<(), Error> {
    out.put(&key, shape, values)
        .map_err(|source| Error::Write { key, source })
}
