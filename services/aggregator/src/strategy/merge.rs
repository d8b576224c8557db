//! The folding core that all rules share: what a merge is given, what it must hold to, the weights one
//! after the other on all cores, and the result in the order of its keys.
//!
//! With the shares p adding up to 1, what every rule is measured by is
//! `ΔW_{t+1} = ΔW_t + Σ_i c_i · (s·B_i·A_i − S_i)`, `c_i = p_i` unless uneven steps are normalized, and `S_i`
//! what worker i had loaded: the leading `r_i` live slices of `ΔW_t`, nothing for a weight that it did not train.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};

use domain::adapter::{RankTable, WeightShape};
use domain::id::WorkerName;
use domain::job::Strategy;
use domain::job::aggregation::ServerOptimizer;

use super::change::{Factors, Space};
use super::check::shapes;
use super::source::{Sink, Source};
use super::weight::Weight;
use super::{Error, fedit, ffa, head, ordered, product, residual, slice, stack, sum};

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
    /// What its change is multiplied by before it is weighed: 1, or `FedNova`'s τ/τ_i.
    pub stretch: f64,
    /// Whether its change is added to the mean of the others'.
    pub added: bool,
    /// What its plan had it train.
    pub ranks: &'a RankTable,
    /// What it sent.
    pub update: &'a dyn Source,
    /// The merged adapter that it had loaded, if that is not the merge's `global`: a late update is of an
    /// earlier round, and its change is what it made of that.
    pub start: Option<&'a dyn Source>,
}

/// What the server does with the mean of the changes.
#[derive(Clone, Copy)]
pub struct Server<'a> {
    /// Which optimizer; its own rate and decays.
    pub optimizer: &'a ServerOptimizer,
    /// Its moments after the round before; absent before the first.
    pub state: Option<&'a dyn Source>,
}

/// One merge.
pub struct Merge<'a> {
    /// The rule.
    pub rule: Strategy,
    /// The updates that count, in the order that was decided.
    pub inputs: &'a [Input<'a>],
    /// The merged adapter that the workers started from: of each weight the live slices, then those of
    /// the side term.
    pub global: &'a dyn Source,
    /// Live slices of each weight, before and after.
    pub ranks: &'a RankTable,
    /// What the plan's sites train, in this round or not, each table once: where they take leading slices.
    pub tables: &'a [RankTable],
    /// The job's one scale, alpha / `rank_max`.
    pub scale: f64,
    /// The job's seed, for rows that are drawn.
    pub seed: u64,
    /// Which round this closes, counted from 1.
    pub round: u32,
    /// The server's optimizer, if it has one beyond adding the mean.
    pub server: Option<Server<'a>>,
    /// Threads that merge at most; the result does not depend on it.
    pub threads: NonZeroUsize,
}

/// What a merge amounted to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Folded {
    /// Share of the merged change's energy (sum of σ² over all weights) that the kept rank does not
    /// hold; 0 if there is no change at all, and for rules that keep everything or average factors.
    pub dropped_energy: f64,
    /// Slices of the side term by weight; empty without one.
    pub side: RankTable,
    /// By input: the share of the merged adapter's energy in slices that the worker's ranks leave out.
    /// Empty for rules whose slices are not orthogonal.
    pub withheld_energy: Vec<f64>,
}

/// One weight, merged.
#[derive(Default)]
pub(super) struct Merged {
    /// The live slices, then those of the side term: A `[rank, inp]`, B `[out, rank]`.
    pub whole: Factors,
    /// How many are the side term's.
    pub side: usize,
    /// σ² of each live slice, where the rule knows them.
    pub energies: Vec<f64>,
    /// Σσ² of the whole change, where the rule knows it.
    pub energy: f64,
    /// The optimizer's moments, in the order of their keys.
    pub state: Vec<(String, [usize; 2], Vec<f32>)>,
}

impl Merge<'_> {
    /// Merges into `out`, one weight at a time, in ascending order of the keys; the optimizer's moments
    /// go to `state` if there is an optimizer.
    ///
    /// # Errors
    /// If shares, scale or ranks are illegal, a tensor is not what the tables demand or cannot be
    /// read or written, or a decomposition fails. Nothing of `out` is to be used then.
    pub fn fold(
        &self,
        out: &mut dyn Sink,
        mut state: Option<&mut dyn Sink>,
    ) -> Result<Folded, Error> {
        self.check()?;
        let global = |source| Error::Global { source };
        let widths: BTreeMap<_, _> = shapes(self.global)
            .map_err(global)?
            .into_iter()
            .map(|weight| (weight.name, weight))
            .collect();
        let mut totals = Totals::new(self.inputs.len());
        let weights = ordered(self.ranks);
        let mut spaces: Vec<Space> = Vec::new();
        spaces.resize_with(self.threads.get().min(WAVE), Space::default);
        let decomposes = matches!(
            self.rule,
            Strategy::Product | Strategy::Stack | Strategy::Residual
        );
        for shape in widths.values().filter(|_| decomposes) {
            for space in &mut spaces {
                space.reserve(shape.out, shape.inp);
            }
        }
        head::merge(self, out)?;
        // A side term may be as wide as the weight: no more of them are held than are being merged.
        let wave = if self.rule.has_side_term() {
            spaces.len()
        } else {
            WAVE
        };
        for wave in weights.chunks(wave) {
            let merged = in_parallel(wave, &mut spaces, |(weight, keep), space| {
                let weight = *weight;
                let shape = widths.get(&weight).ok_or(Error::UnknownWeight { weight })?;
                self.merge(shape, *keep, space)
            });
            // Written in order, whoever was faster: the bytes do not depend on the threads.
            for ((weight, keep), result) in wave.iter().zip(merged) {
                let shape = widths
                    .get(weight)
                    .ok_or(Error::UnknownWeight { weight: *weight })?;
                let mut merged = result?;
                totals.add(self, shape, &merged);
                if let Some(state) = state.as_deref_mut() {
                    for (key, shape, values) in std::mem::take(&mut merged.state) {
                        put(state, key, shape, values)?;
                    }
                }
                let whole = merged.whole;
                let rank = usize::from(*keep) + merged.side;
                put(out, weight.peft_a(), [rank, shape.inp], whole.a)?;
                put(out, weight.peft_b(), [shape.out, rank], whole.b)?;
            }
        }
        Ok(totals.folded())
    }

    /// Merges one weight.
    fn merge(&self, shape: &WeightShape, keep: u16, space: &mut Space) -> Result<Merged, Error> {
        let weight = Weight::new(self, *shape, usize::from(keep))?;
        let merged = match self.rule {
            Strategy::Product => product::merge(&weight, space),
            Strategy::Stack => stack::merge(&weight, space),
            Strategy::Ffa => ffa::merge(&weight),
            Strategy::Slice => slice::merge(&weight),
            Strategy::Fedit => fedit::merge(&weight),
            Strategy::Residual => residual::merge(&weight, space),
            Strategy::Sum => sum::merge(&weight),
        }?;
        if merged.whole.is_finite() {
            Ok(merged)
        } else {
            Err(weight.undecomposed())
        }
    }

    fn check(&self) -> Result<(), Error> {
        let sum: f64 = self.inputs.iter().map(|input| input.weight).sum();
        let positive = self.inputs.iter().all(|input| input.weight >= 0.0);
        if !positive
            || (sum - 1.0).abs().partial_cmp(&SHARES_TOLERANCE) != Some(std::cmp::Ordering::Less)
        {
            return Err(Error::Shares { sum });
        }
        let stretched = |input: &&Input<'_>| !(input.stretch.is_finite() && input.stretch > 0.0);
        if let Some(input) = self.inputs.iter().find(stretched) {
            let worker = input.worker.clone();
            return Err(Error::Steps { worker });
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
        self.check_legal()
    }

    /// What was refused at submission does not come in by another way, such as replayed plans.
    fn check_legal(&self) -> Result<(), Error> {
        let rule = self.rule;
        if self.server.is_some() && !rule.keeps_coordinates() {
            return Err(Error::Server { rule });
        }
        let mut tables = self.inputs.iter().map(|input| input.ranks);
        let first = tables.next();
        if !rule.takes_uneven_ranks() && tables.any(|table| Some(table) != first) {
            return Err(Error::Uneven { rule });
        }
        Ok(())
    }
}

/// Sums over the weights.
struct Totals {
    energy: f64,
    kept: f64,
    withheld: Vec<f64>,
    side: Vec<(domain::adapter::WeightName, u16)>,
}

impl Totals {
    fn new(inputs: usize) -> Self {
        Self {
            energy: 0.0,
            kept: 0.0,
            withheld: vec![0.0; inputs],
            side: Vec::new(),
        }
    }

    fn add(&mut self, merge: &Merge<'_>, shape: &WeightShape, merged: &Merged) {
        self.energy += merged.energy;
        self.kept += merged.energies.iter().sum::<f64>();
        for (input, withheld) in merge.inputs.iter().zip(&mut self.withheld) {
            let rank = usize::from(input.ranks.rank(shape.name));
            *withheld += merged.energies.iter().skip(rank).sum::<f64>();
        }
        let side = u16::try_from(merged.side).ok();
        if let Some(rank) = side.filter(|rank| *rank > 0) {
            self.side.push((shape.name, rank));
        }
    }

    fn folded(self) -> Folded {
        let Self { energy, kept, .. } = self;
        let share = |part: f64, of: f64| if of > 0.0 { part / of } else { 0.0 };
        let withheld = self.withheld.into_iter();
        Folded {
            dropped_energy: share((energy - kept).max(0.0), energy),
            withheld_energy: if energy > 0.0 {
                withheld.map(|part| share(part, kept)).collect()
            } else {
                Vec::new()
            },
            side: self.side.into_iter().collect(),
        }
    }
}

/// Applies `work` to every item on as many threads as there are spaces; results stand in the order of
/// the items.
fn in_parallel<T: Sync, S: Send, R: Send>(
    items: &[T],
    spaces: &mut [S],
    work: impl Fn(&T, &mut S) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let take = |space: &mut S| {
        let mut done = Vec::new();
        while let Some((index, item)) = {
            let index = next.fetch_add(1, Ordering::Relaxed);
            items.get(index).map(|item| (index, item))
        } {
            done.push((index, work(item, space)));
        }
        done
    };
    let mut results: Vec<(usize, R)> = std::thread::scope(|scope| {
        let Some((own, others)) = spaces.split_first_mut() else {
            return Vec::new();
        };
        let helpers: Vec<_> = others
            .iter_mut()
            .map(|space| scope.spawn(|| take(space)))
            .collect();
        let own = take(own);
        let joined = helpers.into_iter().map(|helper| match helper.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        own.into_iter().chain(joined.flatten()).collect()
    });
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

fn put(out: &mut dyn Sink, key: String, shape: [usize; 2], values: Vec<f32>) -> Result<(), Error> {
    out.put(&key, shape, values)
        .map_err(|source| Error::Write { key, source })
}
