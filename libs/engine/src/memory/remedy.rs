//! What would fit where something does not.

use std::fmt;

use domain::adapter::RankTable;

use super::{Demand, Estimate, Optimizer, estimate};
use crate::model::{Base, Config};

/// A change of the demand that makes it fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Remedy {
    /// Compute blocks again in backward.
    Checkpoint,
    /// Fewer rows in a step: the most that fit.
    Batch(usize),
    /// Lower ranks: no rank above this, the highest that fits.
    Rank(u16),
    /// A base in fewer bits: the most precise that fits.
    Base(Base),
    /// Train without gradients.
    ZerothOrder,
    /// Checkpointing, a batch of one and a base in NF4 together.
    AllOfThem,
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Checkpoint => f.write_str("checkpointing"),
            Self::Batch(rows) => write!(f, "batch {rows}"),
            Self::Rank(rank) => write!(f, "rank {rank}"),
            Self::Base(base) => write!(f, "base {}", format!("{base:?}").to_lowercase()),
            Self::ZerothOrder => f.write_str("a zeroth-order optimizer"),
            Self::AllOfThem => f.write_str("checkpointing, batch 1 and base nf4 together"),
        }
    }
}

/// More memory is needed than there is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "about {} MiB are needed and {} MiB allowed; enough would be {}",
    mib(needed.total()),
    mib(*allowed),
    listed(remedies)
)]
pub struct TooLarge {
    /// What is needed.
    pub needed: Estimate,
    /// What may be used, in bytes.
    pub allowed: u64,
    /// What would fit, each with the bytes it needs; empty if nothing would.
    pub remedies: Vec<(Remedy, u64)>,
}

/// Predicts the memory of `demand`.
///
/// # Errors
/// It is more than `allowed` bytes.
pub fn check(
    config: &Config,
    source_bytes: u64,
    demand: &Demand<'_>,
    allowed: u64,
) -> Result<Estimate, TooLarge> {
    let needed = estimate(config, source_bytes, demand);
    if needed.total() <= allowed {
        return Ok(needed);
    }
    let fits = |demand: &Demand<'_>| {
        let total = estimate(config, source_bytes, demand).total();
        (total <= allowed).then_some(total)
    };
    Err(TooLarge {
        needed,
        allowed,
        remedies: remedies(demand, config, source_bytes, fits),
    })
}

fn remedies(
    demand: &Demand<'_>,
    config: &Config,
    source_bytes: u64,
    fits: impl Fn(&Demand<'_>) -> Option<u64>,
) -> Vec<(Remedy, u64)> {
    let checkpointed = Demand {
        checkpoint: true,
        ..*demand
    };
    let mut found = Vec::new();
    let mut offer = |remedy, demand: &Demand<'_>| {
        let total = fits(demand);
        found.extend(total.map(|total| (remedy, total)));
        total.is_some()
    };
    let trains = demand.optimizer == Optimizer::AdamW;
    if trains && !demand.checkpoint {
        offer(Remedy::Checkpoint, &checkpointed);
    }
    let mut batch = demand.batch / 2;
    while batch > 0 && !offer(Remedy::Batch(batch), &Demand { batch, ..*demand }) {
        batch /= 2;
    }
    let held = |base| super::base(config, source_bytes, base);
    for base in [Base::Bf16, Base::Int8, Base::Nf4] {
        let smaller = held(base) < held(demand.base);
        if smaller && offer(Remedy::Base(base), &Demand { base, ..*demand }) {
            break;
        }
    }
    let mut rank = demand.ranks.max() / 2;
    while trains && rank > 0 {
        let targets: Vec<_> = demand.ranks.targets().collect();
        let ranks = RankTable::uniform(&targets, config.layers as u16, rank);
        if offer(
            Remedy::Rank(rank),
            &Demand {
                ranks: &ranks,
                ..*demand
            },
        ) {
            break;
        }
        rank /= 2;
    }
    if trains {
        let optimizer = Optimizer::Mezo;
        offer(
            Remedy::ZerothOrder,
            &Demand {
                optimizer,
                ..*demand
            },
        );
    }
    if found.is_empty() {
        let least = Demand {
            batch: 1,
            base: Base::Nf4,
            ..checkpointed
        };
        let total = fits(&least);
        found.extend(total.map(|total| (Remedy::AllOfThem, total)));
    }
    found
}

const fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

fn listed(remedies: &[(Remedy, u64)]) -> String {
    let one = |(remedy, total): &(Remedy, u64)| format!("{remedy} ({} MiB)", mib(*total));
    match remedies {
        [] => "a smaller model only".to_owned(),
        some => some.iter().map(one).collect::<Vec<_>>().join(", or "),
    }
}
