//! What a choice is worth, in one unit: by how much a round is expected to lower the loss.
//!
//! ```text
//! worth = L/R · v(o) · ψ(b) · Σ_m φ_m(r_m) − ε_k/R
//! ```
//!
//! Each coefficient with its source:
//! - `φ`, a share of 1: `space`.
//! - `L/R` \[own\]: a job can take away no more than the loss it starts from; that is measured by the probe
//!   (mean over the sites by their records), and a round is an equal part of it. It is an upper bound, so
//!   rounding is held to count for less than it may. Where no loss was measured it is 1/R, a share.
//! - `ψ(b) = b/(b + B)` with B the gradient's noise scale (McCandlish et al., arXiv 1812.06162, eq. 2.7): `noise`.
//! - `ε_k`: the mode's measured loss less the least that the site measured; it is paid once, so a round
//!   bears 1/R of it. A mode whose loss was not measured takes the fleet's mean for its base and kernel.
//! - `v(o)`: [`ZEROTH_ORDER_PROGRESS`].
//! - Where the job leaves the steps open, `1 − (1 − v(o)/S)^H` stands in the place of `v(o)`, for H steps: what they take
//!   away if each takes `v(o)/S` of what is left, as gradient descent does of a quadratic \[own\]. It is how `FedNova`
//!   itself counts the steps of a solver that contracts, `‖a‖₁ = (1 − (1 − α)^τ)/α` (arXiv 2007.07481, on proximal
//!   updates), and S is [`ADAMW_STEPS`]. `FedNova` merges as if each site had made the mean of the steps; that the fleet
//!   gains the mean of the sites' gains is exact where they learn alike.

use std::collections::BTreeMap;

use domain::id::WorkerName;
use domain::job::spec::{Base, Optimizer, Spec};
use domain::profile::{Mode, Profile};

use super::noise::BatchNoise;

/// Steps of AdamW that take the loss away: an assumption.
const ADAMW_STEPS: f64 = 32.0;

/// Progress of a zeroth-order step against one of AdamW. ALGORITHMS.md 2.1 (measured, mail task, SmolLM2,
/// rank 8 on q, k, v, o, batch 8): MeZO at its stable rate lowers the held-out loss from 4.24 to 4.07 in 60
/// steps. AdamW's side is [`ADAMW_STEPS`].
pub(super) const ZEROTH_ORDER_PROGRESS: f64 = (0.17 / 60.0) / (4.24 / ADAMW_STEPS);

/// The fleet's coefficients.
pub(super) struct Worth {
    /// The gradient's noise scale.
    pub noise: BatchNoise,
    /// `L`, if a site measured one.
    pub loss: Option<f64>,
    rounds: f64,
    /// Whether sites may make different numbers of steps.
    steps_are_open: bool,
    /// Mean ε of a base and kernel over the sites that measured it.
    penalties: BTreeMap<(Base, String), f64>,
}

impl Worth {
    /// Of what the sites measured.
    pub(super) fn of(spec: &Spec, profiles: &BTreeMap<WorkerName, Profile>) -> Self {
        let (mut loss, mut share) = (0.0, 0.0);
        let mut sums: BTreeMap<(Base, String), (f64, f64)> = BTreeMap::new();
        for profile in profiles.values() {
            let Some(least) = least_loss(profile) else {
                continue;
            };
            let records = profile.measurement.records as f64;
            loss += records * least;
            share += records;
            for (mode, own) in losses(profile) {
                let sum = sums.entry((mode.base, mode.kernel.clone())).or_default();
                *sum = (sum.0 + own - least, sum.1 + 1.0);
            }
        }
        let means = sums
            .into_iter()
            .map(|(key, (sum, count))| (key, sum / count));
        Self {
            noise: BatchNoise::of(profiles),
            loss: (share > 0.0).then(|| loss / share),
            rounds: f64::from(spec.rounds.count.max(1)),
            steps_are_open: spec.training.local_steps.fixed().is_none(),
            penalties: means.collect(),
        }
    }

    /// What a unit of φ is worth, with so many records a step and steps a round.
    pub(super) fn factor(&self, mode: &Mode, (records, steps): (u16, u32)) -> f64 {
        let progress = match mode.optimizer {
            Optimizer::Mezo => ZEROTH_ORDER_PROGRESS,
            // The planner does not compare gradients' optimizers: a job says which.
            Optimizer::Adamw | Optimizer::Sgd | Optimizer::Auto => 1.0,
        };
        let progress = if self.steps_are_open {
            1.0 - (1.0 - progress / ADAMW_STEPS).powf(f64::from(steps))
        } else {
            progress
        };
        self.loss.unwrap_or(1.0) / self.rounds * progress * self.noise.worth(records)
    }

    /// `ε_k`, in loss.
    pub(super) fn penalty(&self, profile: &Profile, mode: &Mode) -> f64 {
        let own = losses(profile)
            .find(|(measured, _)| measured.base == mode.base && measured.kernel == mode.kernel);
        match (own, least_loss(profile)) {
            (Some((_, own)), Some(least)) => own - least,
            _ => {
                let key = (mode.base, mode.kernel.clone());
                self.penalties.get(&key).copied().unwrap_or(0.0)
            }
        }
    }

    /// What a round with this mode loses by its rounding.
    pub(super) fn constant(&self, profile: &Profile, mode: &Mode) -> f64 {
        -self.penalty(profile, mode) / self.rounds
    }
}

/// The losses that a site measured. How a step is taken does not change the loss before it.
fn losses(profile: &Profile) -> impl Iterator<Item = (&Mode, f64)> {
    let measured = profile.measurement.modes.iter();
    measured.filter_map(|measured| {
        let loss = measured
            .loss
            .filter(|loss| loss.is_finite() && *loss > 0.0)?;
        Some((&measured.mode, loss))
    })
}

fn least_loss(profile: &Profile) -> Option<f64> {
    losses(profile).map(|(_, loss)| loss).min_by(f64::total_cmp)
}
