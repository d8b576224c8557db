//! One weight as the rules see it: what was loaded, what came back, and what each part weighs.

use std::collections::BTreeSet;

use domain::adapter::WeightShape;

use super::Error;
use super::change::{Change, Factors};
use super::check::{Refused, read};
use super::merge::{Input, Merge};
use super::stream::{Purpose, Stream};
use domain::job::aggregation::Trains;

/// One weight of a merge.
pub(super) struct Weight<'a> {
    pub merge: &'a Merge<'a>,
    pub shape: WeightShape,
    /// Live slices.
    pub keep: usize,
    /// Slices of the side term, which stand behind the live ones.
    pub side: usize,
}

/// The merged adapter that the workers started from.
pub(super) struct Loaded {
    pub live: Factors,
    pub side: Factors,
}

impl<'a> Weight<'a> {
    pub(super) fn new(
        merge: &'a Merge<'a>,
        shape: WeightShape,
        keep: usize,
    ) -> Result<Self, Error> {
        let key = shape.name.peft_a();
        let rows = merge
            .global
            .shape(&key)
            .and_then(|shape| shape.first().copied());
        let side = if merge.rule.has_side_term() {
            rows.unwrap_or(keep).saturating_sub(keep)
        } else {
            0
        };
        Ok(Self {
            merge,
            shape,
            keep,
            side,
        })
    }

    /// Reads what the workers started from.
    pub(super) fn loaded(&self) -> Result<Loaded, Error> {
        let whole = factors(self.merge.global, &self.shape, self.keep + self.side)
            .map_err(|source| Error::Global { source })?;
        if self.side == 0 {
            return Ok(Loaded {
                live: whole,
                side: Factors::default(),
            });
        }
        let mut a = whole.a;
        let side_a = a.split_off(self.keep * self.shape.inp);
        let (mut b, mut side_b) = (Vec::new(), Vec::new());
        for row in whole.b.chunks_exact(whole.rank) {
            let (live, side) = row.split_at(self.keep);
            b.extend_from_slice(live);
            side_b.extend_from_slice(side);
        }
        Ok(Loaded {
            live: Factors {
                rank: self.keep,
                a,
                b,
            },
            side: Factors {
                rank: self.side,
                a: side_a,
                b: side_b,
            },
        })
    }

    /// Slices that a worker trained.
    pub(super) fn rank(&self, input: &Input<'_>) -> usize {
        usize::from(input.ranks.rank(self.shape.name))
    }

    /// Reads a worker's factors; `None` if it did not train this weight. A is empty where the rule's
    /// workers send B alone. Each update is read here, once, and let go.
    pub(super) fn update(&self, input: &Input<'_>) -> Result<Option<Factors>, Error> {
        let rank = self.rank(input);
        if rank == 0 {
            return Ok(None);
        }
        let found = match self.merge.rule.trains() {
            Trains::Both => factors(input.update, &self.shape, rank),
            Trains::B => read(
                input.update,
                &self.shape.name.peft_b(),
                [self.shape.out, rank],
            )
            .map(|b| Factors {
                rank,
                a: Vec::new(),
                b,
            }),
        };
        let refused = |source| Error::Update {
            worker: input.worker.clone(),
            source,
        };
        found.map(Some).map_err(refused)
    }

    /// What stays of each live slice: `1 − Σ_{i: r_i ≥ j} c_i`, which is exactly zero where everybody
    /// trained it and no steps were normalized.
    pub(super) fn stays(&self) -> Vec<f64> {
        let left = |slice: usize| {
            let left = self.merge.inputs.iter().map(|input| {
                // What a late one had loaded are not these slices.
                if self.rank(input) <= slice || input.start.is_some() {
                    input.weight
                } else {
                    input.weight * (1.0 - input.stretch)
                }
            });
            left.sum()
        };
        (0..self.keep).map(left).collect()
    }

    /// What a late worker had loaded of this weight: the leading slices of the merged adapter that it
    /// started from, at most as many as it trained; `None` for one that started from `global`. Where the
    /// rule's workers send B alone, A is read and left out.
    pub(super) fn start(&self, input: &Input<'_>) -> Result<Option<Factors>, Error> {
        let Some(source) = input.start else {
            return Ok(None);
        };
        let shape = source.shape(&self.shape.name.peft_a());
        let held = shape.and_then(|shape| shape.first().copied());
        let held = held.unwrap_or(0);
        if held == 0 {
            return Ok(None);
        }
        let whole =
            factors(source, &self.shape, held).map_err(|source| Error::Global { source })?;
        let rank = self.rank(input).min(held);
        let mut a = whole.a;
        a.truncate(rank * self.shape.inp);
        let rows = whole.b.chunks_exact(held);
        let b = rows.flat_map(|row| row.iter().take(rank).copied());
        Ok(Some(Factors {
            rank,
            a,
            b: b.collect(),
        }))
    }

    /// Slices of all updates together, and of what late ones had loaded.
    pub(super) fn updated(&self) -> usize {
        let slices =
            |input: &Input<'_>| self.rank(input) * (1 + usize::from(input.start.is_some()));
        self.merge.inputs.iter().map(slices).sum()
    }

    /// Where sites' leading slices of it end below `keep`, ascending: the ranks of the plan's sites, in this round or not,
    /// and of a late update, whose plan may be an earlier one.
    pub(super) fn cuts(&self) -> Vec<usize> {
        let tables = self.merge.tables.iter();
        let planned = tables.map(|table| usize::from(table.rank(self.shape.name)));
        let trained = self.merge.inputs.iter().map(|input| self.rank(input));
        let ranks = planned.chain(trained);
        let ends: BTreeSet<usize> = ranks.filter(|rank| (1..self.keep).contains(rank)).collect();
        ends.into_iter().collect()
    }

    /// Adds `ΔW_{t+1}`, the side term left out: what stays of the live slices, and every update.
    pub(super) fn gather(&self, live: &Factors, change: &mut Change<'_>) -> Result<(), Error> {
        let scale = self.merge.scale;
        let stays: Vec<f64> = self.stays().iter().map(|share| share * scale).collect();
        change.add(live, &stays);
        for input in self.merge.inputs {
            if let Some(update) = self.update(input)? {
                let share = scale * input.weight * input.stretch;
                change.add(&update, &vec![share; update.rank]);
                if let Some(start) = self.start(input)? {
                    change.add(&start, &vec![-share; start.rank]);
                }
            }
        }
        Ok(())
    }

    /// This weight's stream of random numbers.
    pub(super) fn stream(&self, purpose: Purpose) -> Stream {
        Stream::new(self.merge.seed, purpose, self.shape.name)
    }

    pub(super) fn undecomposed(&self) -> Error {
        Error::Decomposition {
            weight: self.shape.name,
        }
    }
}

fn factors(
    source: &dyn super::Source,
    shape: &WeightShape,
    rank: usize,
) -> Result<Factors, Refused> {
    Ok(Factors {
        rank,
        a: read(source, &shape.name.peft_a(), [rank, shape.inp])?,
        b: read(source, &shape.name.peft_b(), [shape.out, rank])?,
    })
}
