//! What follows a round: pure.

use domain::artifact::ArtifactRef;
use domain::id::WorkerName;
use domain::job::{Job, Phase, Resume};
use domain::plan::Plan;
use domain::time::UnixMillis;

use super::ask;

/// Whether a round's adapter is scored: the first, the last, and every so many between.
#[must_use]
pub fn is_scored(job: &Job, round: u32) -> bool {
    let last = round >= job.spec.rounds.count;
    job.spec
        .evaluation
        .as_ref()
        .is_some_and(|evaluation| last || round.is_multiple_of(evaluation.every.max(1)))
}

/// Whether a score is taken on all held-out records instead of the job's sample.
#[must_use]
pub fn is_complete(job: &Job, round: u32) -> bool {
    round == 0 || round >= job.spec.rounds.count
}

/// The phase after a round's adapter was committed.
#[must_use]
pub fn after_merge(
    job: &Job,
    plan: &Plan,
    round: u32,
    global: ArtifactRef,
    now: UnixMillis,
    idle_ms: u64,
) -> Phase {
    if is_scored(job, round) {
        // Scoring is bounded by progress; this is the end for a site that crawls.
        let deadline =
            now.plus(2000 * plan.deadline_seconds + 10 * idle_ms + generating_ms(job, plan));
        return Phase::Evaluating {
            round,
            global,
            deadline,
        };
    }
    after_score(job, plan, round, global, now)
}

/// What generating answers takes at most: a token of them is a pass over the weights, which a step of training makes
/// more than once.
fn generating_ms(job: &Job, plan: &Plan) -> u64 {
    let answers = job.spec.evaluation.as_ref().and_then(|one| one.answers);
    let tokens = answers.map_or(0, |asked| {
        u64::from(asked.records) * u64::from(asked.tokens)
    });
    let steps = plan.workers.values().map(|one| one.predicted.step_seconds);
    let slowest = steps.fold(0.0, f64::max);
    // Saturates, and is 0 for what is no number.
    (1000.0 * slowest * tokens as f64) as u64
}

/// The phase after a round's adapter was scored: the next round, or the end if it was the last or the
/// job's patience is at its end.
#[must_use]
pub fn after_score(
    job: &Job,
    plan: &Plan,
    round: u32,
    global: ArtifactRef,
    now: UnixMillis,
) -> Phase {
    let rounds = &job.spec.rounds;
    if round >= rounds.count || job.course.is_out_of_patience(rounds) {
        let (global, kept) = job.course.conclude(round, &global, rounds);
        let kept = Some(kept);
        return Phase::Finalizing { global, kept };
    }
    let deadline = now.plus(1000 * plan.deadline_seconds);
    let open = Phase::Training {
        round: round + 1,
        global,
        opened_at: now,
        deadline,
        asked: ask::drawn(job, plan, round + 1),
    };
    // A pause that was asked for takes effect between two rounds.
    if job.pause_requested {
        Phase::Paused {
            resume: Box::new(open),
            since: now,
        }
    } else {
        open
    }
}

/// How often it is asked whether the plan of a job still stands.
pub const LOOKS: u32 = 8;

/// How often that may be before a site that left is no reason any more: it may come back, and a plan that does not
/// name it must be looked at once more then.
const LOOKS_FOR_LEAVING: u32 = LOOKS / 2;

/// What speaks for another plan before the next round.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reasons {
    /// A site drifted.
    pub drifted: bool,
    /// A site that the plan names was given up, and is not back.
    pub left: bool,
    /// What the weights are worth is another order.
    pub moved: bool,
    /// The job replays another, whose next plan begins here.
    pub replayed: bool,
}

/// Whether the plan is looked at again before the next round opens: a site drifted, the weights' importance moved, a
/// site left, or one takes part that the plan neither uses nor excludes. A job that replays another's plans has the
/// other's and nothing else.
#[must_use]
pub fn looks_again(job: &Job, plan: &Plan, reasons: Reasons) -> bool {
    if job.looks.times >= LOOKS {
        return false;
    }
    if job.spec.plan_from.is_some() {
        return reasons.replayed;
    }
    let named = |worker: &WorkerName| {
        let excluded = plan.excluded.iter().any(|site| site.worker == *worker);
        excluded || plan.workers.contains_key(worker)
    };
    let unnamed = job.active().any(|worker| !named(worker));
    let left = reasons.left && job.looks.times < LOOKS_FOR_LEAVING;
    reasons.drifted || reasons.moved || left || unnamed
}

/// The same, with a look at the plan before the next round opens. What opens none stays.
#[must_use]
pub fn by_way_of_the_plan(next: Phase, deadline: UnixMillis) -> Phase {
    match next {
        Phase::Training { round, global, .. } => Phase::Refining {
            resume: Resume {
                round: round.saturating_sub(1),
                global,
            },
            deadline,
        },
        Phase::Paused { resume, since } => Phase::Paused {
            resume: Box::new(by_way_of_the_plan(*resume, deadline)),
            since,
        },
        other => other,
    }
}

#[cfg(test)]
mod tests;
