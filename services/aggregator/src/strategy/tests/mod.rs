//! Behaviour of the rules, compared with the dense formula written out plainly.

mod beside;
mod beyond;
mod check;
mod conformance;
mod exact;
mod files;
mod head;
mod late;
mod norms;
mod optimizers;
mod rounds;
mod shrunk;
mod sides;
mod turned;
mod walk;

use std::num::NonZeroUsize;

use domain::adapter::{Projection, RankTable, WeightName, WeightShape};
use domain::artifact::{ArtifactRef, Digest};
use domain::energy::EnergyTable;
use domain::id::WorkerName;
use domain::round::{Contribution, Update, UpdateMetrics};
use faer::Mat;

use domain::job::Strategy;
use domain::job::aggregation::{ServerOptimizer, Trains};

use super::source::{Memory, Sink, Source};
use super::stream::{Purpose, Stream};
use super::{Error, Folded, Input, Merge, Server};

pub(super) const SCALE: f64 = 2.0;
pub(super) const SEED: u64 = 7;

/// Two layers of rectangular and square weights.
pub(super) fn weights() -> Vec<WeightShape> {
    let shape = |layer, projection, out, inp| WeightShape {
        name: WeightName::new(layer, projection),
        out,
        inp,
    };
    let mut all = Vec::new();
    for layer in 0..2 {
        all.push(shape(layer, Projection::Q, 80, 80));
        all.push(shape(layer, Projection::V, 64, 80));
        all.push(shape(layer, Projection::Up, 150, 80));
        all.push(shape(layer, Projection::Down, 80, 150));
    }
    all
}

pub(super) const TARGETS: [Projection; 4] = [
    Projection::Q,
    Projection::V,
    Projection::Up,
    Projection::Down,
];

pub(super) fn uniform(rank: u16) -> RankTable {
    RankTable::uniform(&TARGETS, 2, rank)
}

/// Random factors, different for each seed.
pub(super) fn random(ranks: &RankTable, seed: u64) -> Memory {
    let mut memory = Memory::default();
    for weight in weights() {
        let rank = usize::from(ranks.rank(weight.name));
        if rank == 0 {
            continue;
        }
        let mut stream = Stream::new(1000 + seed, Purpose::Adapter, weight.name);
        let mut draw = |count: usize| (0..count).map(|_| stream.uniform(1.0) as f32).collect();
        let (a, b) = (draw(rank * weight.inp), draw(rank * weight.out));
        put(&mut memory, weight, rank, a, b);
    }
    memory
}

pub(super) fn put(memory: &mut Memory, weight: WeightShape, rank: usize, a: Vec<f32>, b: Vec<f32>) {
    let done = memory.put(&weight.name.peft_a(), [rank, weight.inp], a);
    done.expect("memory takes all");
    let done = memory.put(&weight.name.peft_b(), [weight.out, rank], b);
    done.expect("memory takes all");
}

/// What a worker with these ranks loads: leading rows of A, leading columns of B.
pub(super) fn leading(global: &Memory, ranks: &RankTable) -> Memory {
    let mut memory = Memory::default();
    for weight in weights() {
        let rank = usize::from(ranks.rank(weight.name));
        if rank == 0 {
            continue;
        }
        let (_, a) = global.get(&weight.name.peft_a()).expect("A");
        let ([_, all], b) = global.get(&weight.name.peft_b()).expect("B");
        let a = a[..rank * weight.inp].to_vec();
        let b = b.chunks(*all).flat_map(|row| &row[..rank]).copied();
        put(&mut memory, weight, rank, a, b.collect());
    }
    memory
}

/// `s · B · A` of one weight, with the first `rank` slices alone.
pub(super) fn dense(adapter: &Memory, weight: WeightShape, rank: usize) -> Mat<f64> {
    let mut result = Mat::zeros(weight.out, weight.inp);
    let (Some(([_, inp], a)), Some(([out, all], b))) = (
        adapter.get(&weight.name.peft_a()),
        adapter.get(&weight.name.peft_b()),
    ) else {
        return result;
    };
    for i in 0..*out {
        for k in 0..*inp {
            for j in 0..rank.min(*all) {
                result[(i, k)] += SCALE * f64::from(b[i * all + j]) * f64::from(a[j * inp + k]);
            }
        }
    }
    result
}

/// The dense formula itself: `ΔW + Σ p·(s·B·A − S)`.
pub(super) fn reference(
    global: &Memory,
    updates: &[(f64, RankTable, Memory)],
    weight: WeightShape,
) -> Mat<f64> {
    let start = dense(global, weight, usize::MAX);
    let mut result = start.clone();
    for (share, ranks, update) in updates {
        let rank = usize::from(ranks.rank(weight.name));
        let change = dense(update, weight, rank) - dense(global, weight, rank);
        result += faer::Scale(*share) * change;
    }
    result
}

/// What is merged, with what is usual left at its default.
pub(super) struct Case<'a> {
    pub rule: Strategy,
    pub global: &'a Memory,
    pub ranks: &'a RankTable,
    /// Share, ranks and update of each worker.
    pub updates: &'a [(f64, RankTable, Memory)],
    /// What each change is multiplied by; none: 1.
    pub stretches: &'a [f64],
    /// Whose change is added to the mean of the others'; none: nobody's.
    pub added: &'a [bool],
    /// What late workers had loaded, where it is not `global`.
    pub starts: &'a [Option<&'a Memory>],
    pub round: u32,
    pub optimizer: Option<(&'a ServerOptimizer, Option<&'a Memory>)>,
    pub threads: NonZeroUsize,
}

impl<'a> Case<'a> {
    pub fn new(
        rule: Strategy,
        global: &'a Memory,
        ranks: &'a RankTable,
        updates: &'a [(f64, RankTable, Memory)],
    ) -> Self {
        Self {
            rule,
            global,
            ranks,
            updates,
            stretches: &[],
            added: &[],
            starts: &[],
            round: 1,
            optimizer: None,
            threads: super::round::all_threads(),
        }
    }

    /// The merged adapter, what it amounted to, and the optimizer's moments.
    pub fn merge(&self) -> Result<(Memory, Folded, Memory), Error> {
        let names: Vec<WorkerName> = (0..self.updates.len())
            .map(|index| format!("w{index}").parse().expect("legal"))
            .collect();
        let numbered = names.iter().zip(self.updates).enumerate();
        let inputs: Vec<Input<'_>> = numbered
            .map(|(at, (worker, (weight, ranks, update)))| Input {
                worker,
                weight: *weight,
                stretch: self.stretches.get(at).copied().unwrap_or(1.0),
                added: self.added.get(at).copied().unwrap_or_default(),
                ranks,
                update,
                start: self
                    .starts
                    .get(at)
                    .copied()
                    .flatten()
                    .map(|start| start as &dyn Source),
            })
            .collect();
        let tables: Vec<RankTable> = self.updates.iter().map(|one| one.1.clone()).collect();
        let merge = Merge {
            rule: self.rule,
            inputs: &inputs,
            global: self.global,
            ranks: self.ranks,
            tables: &tables,
            scale: SCALE,
            seed: SEED,
            round: self.round,
            server: self.optimizer.map(|(optimizer, state)| Server {
                optimizer,
                state: state.map(|state| state as &dyn Source),
            }),
            threads: self.threads,
        };
        let (mut out, mut moments) = (Memory::default(), Memory::default());
        let state = self.optimizer.map(|_| &mut moments as &mut dyn Sink);
        let folded = merge.fold(&mut out, state)?;
        Ok((out, folded, moments))
    }
}

/// Merges by the product rule.
pub(super) fn fold(
    global: &Memory,
    ranks: &RankTable,
    updates: &[(f64, RankTable, Memory)],
) -> Result<(Memory, Folded), Error> {
    let case = Case::new(Strategy::Product, global, ranks, updates);
    let (merged, folded, _) = case.merge()?;
    Ok((merged, folded))
}

/// What a rule's workers send of an adapter: B alone under some.
pub(super) fn sent(rule: Strategy, adapter: &Memory) -> Memory {
    let mut sent = adapter.clone();
    if rule.trains() == Trains::B {
        for weight in weights() {
            sent.remove(&weight.name.peft_a());
        }
    }
    sent
}

/// An update that counts, of so many records and tokens.
pub(super) fn contribution(name: &str, records: u64, tokens: u64) -> Contribution {
    Contribution {
        worker: name.parse().expect("legal"),
        update: Update {
            adapter: ArtifactRef {
                key: "k".to_owned(),
                sha256: Digest::from_bytes(&[1; 32]),
                bytes: 1,
            },
            metrics: UpdateMetrics {
                records,
                tokens,
                loss: 1.0,
                steps: 1,
                skipped_steps: 0,
                refused_records: 0,
                compute_seconds: 1.0,
                tokens_per_second: 1.0,
                peak_memory_bytes: 1,
                bytes_up: 1,
                bytes_down: 1,
                control_bytes_up: 0,
                energies: EnergyTable::default(),
            },
        },
        credit: None,
    }
}

/// Relative difference in the Frobenius norm.
pub(super) fn difference(found: &Mat<f64>, expected: &Mat<f64>) -> f64 {
    (found - expected).norm_l2() / expected.norm_l2().max(f64::MIN_POSITIVE)
}
