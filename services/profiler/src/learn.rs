//! Reading the rounds of a job, and teaching a profile by them.

use std::collections::BTreeMap;

use contract::topology::{plan_key, round_key};
use domain::adapter::WeightName;
use domain::drift::Moved;
use domain::id::{JobId, WorkerName};
use domain::job::spec::Training;
use domain::plan::{Plan, PlanVersion};
use domain::profile::Profile;
use domain::round::Summary;

use crate::Error;
use crate::app::Profiler;
use crate::refine::{Observed, refine, settle};

/// Most rounds that are read at once.
const ROUNDS: u32 = 256;

/// The committed rounds from `first` to `last`, if there are so many, and never more than a few hundred.
pub async fn rounds(
    profiler: &Profiler,
    job: &JobId,
    first: u32,
    last: u32,
) -> Result<Vec<Summary>, Error> {
    let first = first.max(1);
    let mut rounds = Vec::new();
    for round in first..=last.min(first.saturating_add(ROUNDS)) {
        let Some((summary, _)) = profiler.rounds.get(&round_key(job, round)).await? else {
            break;
        };
        rounds.push(summary);
    }
    Ok(rounds)
}

/// What a site did in a round that trained with this plan; nothing of what it trained for an earlier one,
/// which may have had another.
pub fn of<'a>(
    plan: &'a Plan,
    training: &'a Training,
    worker: &WorkerName,
    round: &'a Summary,
) -> Option<Observed<'a>> {
    let own = round.of_its_own(worker)?;
    Some(Observed {
        round: round.round,
        plan: plan.workers.get(worker)?,
        metrics: &own.metrics,
        side: &round.side,
        training,
    })
}

/// Refines a profile by the rounds that trained with this plan, each once.
pub fn from_rounds(profile: &mut Profile, plan: &Plan, training: &Training, rounds: &[Summary]) {
    let worker = profile.worker.clone();
    for round in rounds.iter().filter(|round| round.round >= plan.from_round) {
        if let Some(observed) = of(plan, training, &worker, round) {
            refine(profile, observed);
        }
    }
}

/// Refines a profile by the rounds that trained with this plan, and takes a site that drifted for the machine
/// that it was in the last of them. Told twice, it does nothing the second time.
pub fn teach(
    profile: &mut Profile,
    plan: &Plan,
    training: &Training,
    rounds: &[Summary],
    drifted: bool,
) {
    from_rounds(profile, plan, training, rounds);
    let worker = profile.worker.clone();
    let mut own = rounds
        .iter()
        .filter_map(|round| of(plan, training, &worker, round));
    if let Some(last) = own.next_back().filter(|_| drifted) {
        settle(profile, last);
    }
}

/// Brings what its weights are worth up to date, by how the fleet's energies have grown since; a weight of which nothing
/// is known keeps its share. Told twice, it does nothing the second time.
pub fn weigh(profile: &mut Profile, moved: &Moved) {
    if moved.last <= profile.weighed_to {
        return;
    }
    profile.weighed_to = moved.last;
    let grown: BTreeMap<WeightName, f64> = moved.grown.iter().copied().collect();
    let importance = profile.measurement.importance.iter_mut();
    for weight in importance.flat_map(|importance| &mut importance.weights) {
        let factor = grown.get(&weight.name).copied().unwrap_or(1.0);
        for energy in &mut weight.energies {
            // Beyond the largest number lies infinity, which no stored profile can hold.
            *energy = (f64::from(*energy) * factor).min(f64::from(f32::MAX)) as f32;
        }
    }
}

/// Refines a profile by all that its job did since: the rounds of each of its plans.
pub async fn from_job(
    profiler: &Profiler,
    profile: &mut Profile,
    job: &JobId,
) -> Result<(), Error> {
    let Some((stored, _)) = profiler.jobs.get(job.as_str()).await? else {
        return Ok(());
    };
    let Some(newest) = stored.plan else {
        return Ok(());
    };
    let mut plans = Vec::new();
    for version in 1..=newest.0 {
        let key = plan_key(job, PlanVersion(version));
        plans.extend(profiler.plans.get(&key).await?.map(|(plan, _)| plan));
    }
    let first = profile.refined_to + 1;
    let rounds = rounds(profiler, job, first, stored.spec.rounds.count).await?;
    for (index, plan) in plans.iter().enumerate() {
        let end = plans
            .get(index + 1)
            .map_or(u32::MAX, |next| next.from_round);
        let own: Vec<Summary> = rounds
            .iter()
            .filter(|round| round.round < end)
            .cloned()
            .collect();
        from_rounds(profile, plan, &stored.spec.training, &own);
    }
    Ok(())
}
