//! What a round that was observed says of a site's cost models. Pure.
//!
//! A round is one point: it can say how far a model is off there, and not which of its terms is. So it moves a
//! mode's times as a whole, half of the way in the logarithm: `factor = (observed / predicted)^½` after each
//! round, which is recursive least squares of one unknown with a memory of about two rounds. Memory only
//! rises: a peak that was seen may come again, and one that was not seen may still come, since the longest
//! records do not come in every round.
//!
//! A site that drifted ([`domain::drift`]) is another machine than the one that was measured, whatever it
//! computes: then all its modes move, and the whole way.
//!
//! A model of zeroth-order steps is one of all their directions. Where a bound on the variance may spare some, a round is
//! no point of it: it took at most what all of them would have taken. It moves times only where the site drifted,
//! and then up.

use domain::adapter::RankTable;
use domain::drift::pace;
use domain::figure::LARGEST;
use domain::job::spec::Training;
use domain::plan::WorkerPlan;
use domain::profile::{CostModel, ModeProfile, Profile};
use domain::round::UpdateMetrics;

/// Share of the way that one round moves a model's times, in the logarithm.
const WEIGHT: f64 = 0.5;

/// The farthest that times are moved at once, as a factor either way: beyond it rather the figure is wrong
/// than the machine another.
const FARTHEST: f64 = 64.0;

/// A site's figures of a round, and what it trained.
#[derive(Debug, Clone, Copy)]
pub struct Observed<'a> {
    /// Which round.
    pub round: u32,
    /// What the site trained.
    pub plan: &'a WorkerPlan,
    /// Its figures.
    pub metrics: &'a UpdateMetrics,
    /// Slices of each weight that it held beside what its mode's model counts: the side term, as large as it
    /// was after the round.
    pub side: &'a RankTable,
    /// The job's settings: what it held beside what its mode's model counts, and how large its batches were at most.
    pub training: &'a Training,
}

impl Observed<'_> {
    /// Whether its steps may have taken fewer directions than its mode's model counts.
    fn may_spare_directions(&self) -> bool {
        self.training.may_spare_directions(self.plan.optimizer)
    }
}

/// Bytes of a number of an adapter.
const PARAMETER_BYTES: u64 = 4;

/// Refines the mode that the round was computed in. A round that came before does nothing, so that it may be
/// told twice.
pub fn refine(profile: &mut Profile, observed: Observed<'_>) {
    if observed.round <= profile.refined_to {
        return;
    }
    profile.refined_to = observed.round;
    let off = off(profile, observed).filter(|_| !observed.may_spare_directions());
    let needed = needed(profile, observed);
    if let Some(fitted) = own(profile, observed) {
        if let Some(off) = off {
            stretch(&mut fitted.cost, off.powf(WEIGHT));
        }
        fitted.cost.memory_fixed += needed;
        fitted.observations = fitted.observations.saturating_add(1);
    }
}

/// Takes the site for the machine that it was in this round, in every mode. Once for each round.
pub fn settle(profile: &mut Profile, observed: Observed<'_>) {
    refine(profile, observed);
    if observed.round <= profile.settled_to {
        return;
    }
    profile.settled_to = observed.round;
    let mode = observed.plan.mode();
    let counts = |factor: &f64| *factor > 1.0 || !observed.may_spare_directions();
    let rest = off(profile, observed).filter(counts);
    if let (Some(rest), Some(fitted)) = (rest, own(profile, observed)) {
        stretch(&mut fitted.cost, rest);
    }
    // The others were left as they were when the plan was made.
    let mean_tokens = profile.measurement.mean_tokens;
    let slower = pace(observed.plan, mean_tokens, observed.metrics);
    let Some(slower) = slower.filter(counts) else {
        return;
    };
    for fitted in profile
        .modes
        .iter_mut()
        .filter(|fitted| fitted.mode != mode)
    {
        stretch(&mut fitted.cost, slower);
    }
}

fn own<'a>(profile: &'a mut Profile, observed: Observed<'_>) -> Option<&'a mut ModeProfile> {
    let mode = observed.plan.mode();
    profile.modes.iter_mut().find(|fitted| fitted.mode == mode)
}

/// How much longer the round took than the model as it is says of it, as a factor.
fn off(profile: &Profile, observed: Observed<'_>) -> Option<f64> {
    let Observed { plan, metrics, .. } = observed;
    let measured = &profile.measurement;
    let cost = &profile.mode(&plan.mode())?.cost;
    // The model is one of batches.
    let steps = f64::from(metrics.steps) * f64::from(plan.accumulate);
    let tokens = metrics.tokens as f64;
    // Squares of rows grow with their tokens as they do in the mean record.
    let squares = tokens * measured.mean_squares() / measured.mean_tokens.max(1.0);
    let parameters = plan.ranks.parameters(&measured.weights);
    let predicted = steps * cost.step_seconds(tokens / steps, squares / steps, parameters);
    let off = metrics.compute_seconds / predicted;
    (off.is_finite() && off > 0.0).then_some(off)
}

/// Bytes by which the round's peak was above what the model as it is says of the largest step possible.
fn needed(profile: &Profile, observed: Observed<'_>) -> f64 {
    let Observed { plan, metrics, .. } = observed;
    let Some(fitted) = profile.mode(&plan.mode()) else {
        return 0.0;
    };
    // Passes that are computed as one have the buffers of so many batches, here as for the planner.
    let tokens =
        f64::from(plan.abreast) * observed.training.batch_tokens_at_most(plan.batch) as f64;
    let parameters = plan.ranks.parameters(&profile.measurement.weights);
    // What is no mode's is counted beside it, here as by the planner.
    let copied = observed.training.copies() * parameters;
    let beside = observed.side.parameters(&profile.measurement.weights) + copied;
    let predicted =
        fitted.cost.peak_memory_bytes(tokens, parameters) + (PARAMETER_BYTES * beside) as f64;
    let limit = profile.measurement.memory_limit_bytes as f64;
    // What is above the limit did not count against it, whatever the figure says.
    let peak = (metrics.peak_memory_bytes as f64).min(limit.max(predicted));
    (peak - predicted).max(0.0)
}

fn stretch(cost: &mut CostModel, factor: f64) {
    let factor = factor.clamp(1.0 / FARTHEST, FARTHEST);
    for seconds in [
        &mut cost.seconds_fixed,
        &mut cost.seconds_per_token,
        &mut cost.seconds_per_token_parameter,
        &mut cost.seconds_per_square,
    ] {
        // However often a site tells of longer rounds.
        *seconds = (*seconds * factor).min(LARGEST);
    }
}

#[cfg(test)]
mod tests;
