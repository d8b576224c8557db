//! What the lower ranks of a new plan cost its sites.
//!
//! Nothing is taken from the merged adapter: a site loads fewer of its leading slices than the plan before had it
//! load. What these hold is therefore known exactly, before anything is trained at the new ranks, and under every
//! rule; a later merge's own figures say nothing of it.

use std::collections::BTreeMap;
use std::path::Path;

use artifacts::tensors::TensorFile;
use domain::adapter::{RankTable, WeightName, WeightShape};
use domain::id::WorkerName;
use domain::plan::Plan;
use domain::round::ShrunkSite;

use super::check::{Refused, read, shapes};
use super::slices::Slices;
use super::source::Source;
use crate::Error;

/// A site that shrinks, and what is known of it so far.
#[derive(Default)]
struct Site {
    /// The ranks that fall, as they were.
    before: BTreeMap<WeightName, u16>,
    dropped: f64,
    withheld: f64,
}

/// Of the sites whose ranks fall with this plan, if the round is its first: what they leave out of the merged adapter
/// in `start`, which the round starts from.
///
/// # Errors
/// If the file cannot be read, or is not an adapter that has the plan's weights.
pub fn of(plan: &Plan, round: u32, start: &Path) -> Result<Vec<ShrunkSite>, Error> {
    if plan.from_round != round || plan.shrunk.is_empty() {
        return Ok(Vec::new());
    }
    let global = TensorFile::open(start)?;
    let refused = |source| Error::Merge {
        round,
        source: super::Error::Global { source },
    };
    left_out(plan, &global).map_err(refused)
}

/// The same of any adapter, whichever the round.
pub(super) fn left_out(plan: &Plan, global: &dyn Source) -> Result<Vec<ShrunkSite>, Refused> {
    let mut sites: BTreeMap<&WorkerName, Site> = BTreeMap::new();
    for one in &plan.shrunk {
        let site = sites.entry(&one.worker).or_default();
        site.before.insert(one.weight, one.from);
    }
    let none = RankTable::default();
    let mut whole = 0.0;
    for shape in shapes(global)? {
        let live = usize::from(plan.global.rank(shape.name));
        let slices = live_slices(global, shape, live)?;
        whole += slices.energy(0..live);
        for (worker, site) in &mut sites {
            let ranks = plan.workers.get(*worker).map_or(&none, |own| &own.ranks);
            let rank = ranks.rank(shape.name);
            let before = site.before.get(&shape.name).copied().unwrap_or(rank);
            site.dropped += slices.energy(usize::from(rank)..usize::from(before));
            site.withheld += slices.energy(usize::from(rank)..live);
        }
    }
    let share = |part: f64| {
        if whole > 0.0 {
            part.max(0.0) / whole
        } else {
            0.0
        }
    };
    let told = sites.into_iter().map(|(worker, site)| ShrunkSite {
        worker: worker.clone(),
        dropped_energy: share(site.dropped),
        withheld_energy: share(site.withheld),
    });
    Ok(told.collect())
}

/// A weight's slices without those of a side term, which stand behind them and which every site applies.
fn live_slices(global: &dyn Source, shape: WeightShape, live: usize) -> Result<Slices, Refused> {
    let (key_a, key_b) = (shape.name.peft_a(), shape.name.peft_b());
    let stored = global.shape(&key_a);
    let stored = stored.and_then(|shape| shape.first().copied());
    let stored = stored.unwrap_or(live);
    let a = read(global, &key_a, [stored, shape.inp])?;
    let b = read(global, &key_b, [shape.out, stored])?;
    let rows: Vec<&[f32]> = a.chunks_exact(shape.inp.max(1)).take(live).collect();
    let left = b.chunks_exact(stored.max(1)).map(|row| {
        let own = row.iter().take(live);
        own.map(|value| f64::from(*value))
    });
    Ok(Slices::of(&rows, left))
}
